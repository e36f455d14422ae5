# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import re
import typing as t
from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.mlops.mlflow.plugins.filter.typed import KINDS, RENAMED, FilterModule
from jinja2 import Environment

typed = FilterModule().filters()["typed"]
ROLES = Path(__file__).resolve().parents[4] / "roles"


def convert(kind: str, value: t.Any, **variables: t.Any) -> dict[str, t.Any]:
    context = Environment().from_string("").new_context(variables)
    return typed(context, {kind: {"x": value}}, "example")


@pytest.mark.parametrize("value", [True, 1, "1", "yes", "Yes", "true", "TRUE", "on", "y", "t"])
def test_true(value: t.Any) -> None:
    assert convert("bool", value)["x"] is True


@pytest.mark.parametrize("value", [False, 0, "0", "no", "No", "false", "FALSE", "off", "n", "f"])
def test_false(value: t.Any) -> None:
    assert convert("bool", value)["x"] is False


@pytest.mark.parametrize("value", [8443, 8443.0, "8443", " 8443 ", "8443.0", "08443"])
def test_whole_numbers(value: t.Any) -> None:
    assert repr(convert("int", value)["x"]) == "8443"


@pytest.mark.parametrize("value", [1.5, "1.5"])
def test_numbers(value: t.Any) -> None:
    assert repr(convert("float", value)["x"]) == "1.5"


@pytest.mark.parametrize(
    "kind, value",
    [
        *(("bool", value) for value in ("maybe", "", "2", 2, None, [], {}, "ja")),
        *(("int", value) for value in ("8_443", "1e3", "0x50", "true", True, False, "", None, "-1", -1, "1.5", 1.5, [8443], "٣")),
        *(("count", value) for value in (0, "0", "many")),
        *(("float", value) for value in ("1e3", "1_5", True, "nan", "-0.5", "")),
        *(("port", value) for value in (0, "0", 65536, "65536", True)),
        *(("optional_port", value) for value in (65536, "none")),
        *(("percent", value) for value in (0, 101, "75%")),
    ],
)
def test_what_is_none_stays_as_it_is_and_is_named(kind: str, value: t.Any) -> None:
    found = convert(kind, value)
    assert found["x"] is value
    (problem,) = found["problems"]
    assert problem.startswith("example_x is ") and problem.endswith(f": set it to {KINDS[kind].wish}.")


@pytest.mark.parametrize("kind, value", [("port", "1"), ("port", "65535"), ("optional_port", "0"), ("percent", "100"), ("count", "1"), ("int", "0")])
def test_bounds_are_allowed(kind: str, value: str) -> None:
    assert convert(kind, value) == {"x": int(value), "problems": []}


@pytest.mark.parametrize("value", ["safe", "no", False])
def test_choices_are_checked_alone(value: t.Any) -> None:
    assert convert("choice", [value, ["no", "safe"]]) == {"problems": []}


@pytest.mark.parametrize("value, shown", [("dist", '"dist"'), (True, "true"), (1, "1"), (["safe"], '["safe"]'), (None, "null")])
def test_what_is_no_choice_is_named(value: t.Any, shown: str) -> None:
    assert convert("choice", [value, ["no", "safe"]])["problems"] == [f"example_x is {shown}: set it to one of no, safe."]


@pytest.mark.parametrize("kind, value", [("list", []), ("list", ["a"]), ("dict", {}), ("dict", {"a": "b"}), ("labels", {"users": "2026-11", "ca": 7})])
def test_lists_and_mappings_are_checked_alone(kind: str, value: t.Any) -> None:
    assert convert(kind, value) == {"problems": []}


@pytest.mark.parametrize(
    "kind, value, problem",
    [
        ("list", "10.0.0.0/8", 'example_x is no list: write it as one, such as ["a", "b"].'),
        ("list", {"a": 1}, 'example_x is no list: write it as one, such as ["a", "b"].'),
        ("list", None, 'example_x is no list: write it as one, such as ["a", "b"].'),
        ("dict", "a=b", 'example_x is no mapping: write it as one, such as {"a": "b"}.'),
        ("labels", "users", 'example_x is no mapping: write it as one, such as {"users": "2026-11-28"}.'),
        ("labels", {"people": "a"}, 'example_x has "people": it may have users, secrets, ca.'),
        ("labels", {"users": True}, "example_x has true for users: write a label of letters, digits and _.:+-, such as a date."),
        ("labels", {"ca": ""}, 'example_x has "" for ca: write a label of letters, digits and _.:+-, such as a date.'),
        ("labels", {"database": "a"}, "example_x has database, whose password is not generated: change mlflow_database_password instead."),
        ("dict", ["a"], 'example_x is no mapping: write it as one, such as {"a": "b"}.'),
    ],
)
def test_a_string_is_no_list_of_its_characters(kind: str, value: t.Any, problem: str) -> None:
    """And what it was is not told: it may hold a password."""
    assert convert(kind, value) == {"problems": [problem]}


def test_the_variable_that_a_person_set_is_named() -> None:
    assert convert("port", "x", mlflow_x="x")["problems"] == ['mlflow_x is "x": set it to a port from 1 to 65535.']
    assert convert("port", "x", mlflow_x="y")["problems"] == ['example_x is "x": set it to a port from 1 to 65535.']


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(AnsibleFilterError, match="there is no kind colour"):
        convert("colour", "red")


def test_a_variable_by_the_name_that_it_had_before_is_told() -> None:
    problems = convert("int", 1, mlflow_user="ml", mlflow_os_group="ml")["problems"]
    assert problems == ["mlflow_user is called mlflow_os_user now: rename it in your inventory."]


@pytest.mark.parametrize("old", RENAMED)
def test_each_name_of_before_is_told_with_the_one_that_is_read_now(old: str) -> None:
    assert RENAMED[old] not in RENAMED
    assert any(RENAMED[old] in file.read_text() for file in ROLES.glob("*/defaults/main.yml"))
    assert not any(old in re.findall(r"\w+", file.read_text()) for file in ROLES.glob("*/defaults/main.yml"))
    assert convert("int", 1, **{old: "x"})["problems"] == [f"{old} is called {RENAMED[old]} now: rename it in your inventory."]


@pytest.mark.parametrize(
    "origin",
    ["https://notebooks.example.com", "http://localhost:8888", "https://Notebooks.example.com:8443", "http://[::1]:3000", "moz-extension://0a1b-2c"],
)
def test_origins(origin: str) -> None:
    assert convert("origins", [origin])["problems"] == convert("origins", [])["problems"] == []


@pytest.mark.parametrize(
    "origin",
    ["*", "https://*", "https://*.example.com", "null", "", "notebooks.example.com", "https://notebooks.example.com/", "https://notebooks.example.com/lab"]
    + [
        "https://notebooks.example.com:443",
        "http://notebooks.example.com:80",
        "https://a b",
        "https://a,https://b",
        "https://a\n",
        "https://a;}",
        "https://u@a",
    ]
    + ["https://bücher.example", "https://ſhop.example", None, 1, ["https://a"]],
)
def test_what_no_browser_sends_as_origin_is_told(origin: t.Any) -> None:
    (problem,) = convert("origins", ["https://good.example", origin], mlflow_x=["https://good.example", origin])["problems"]
    assert problem.startswith(f"mlflow_x has {json.dumps(origin)}: write each origin as browsers send it, SCHEME://HOST or")


@pytest.mark.parametrize("value", ["https://a.example", {"a": "b"}, None, True])
def test_origins_that_are_no_list_are_told(value: t.Any) -> None:
    assert convert("origins", value)["problems"] == ['example_x is no list: write it as one, such as ["https://notebooks.example.com"].']
