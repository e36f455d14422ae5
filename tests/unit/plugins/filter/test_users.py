# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
import yaml
from ansible_collections.mlops.mlflow.plugins.filter.users import FilterModule

users = FilterModule().filters()["users"]
PASSWORD = "correct horse battery"
HASH = "$2y$12$GLoFmorN7aRzQMyTll6kkupCnxKCU9mGGzTCfDlX68nJ7lSrZItPy"


def test_users_are_sorted() -> None:
    found = users(
        [
            {"name": "alice", "password": PASSWORD},
            {"name": "bob"},
            {"name": "carol", "state": "absent"},
            {"name": "dave", "password_hash": HASH, "state": "present"},
            {"name": "erin", "state": "present"},
        ]
    )
    assert found == {
        "given": [{"name": "alice", "password": PASSWORD}, {"name": "dave", "password_hash": HASH}],
        "generated": ["bob", "erin"],
        "names": ["alice", "bob", "dave", "erin"],
        "problems": [],
    }


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("0123456701234567", "number"),
        ("1234_5678_9012", "number"),
        ("0xdeadbeefdeadbeef", "number"),
        ("1234567890.25", "number"),
        ("no", "boolean"),
        ("2026-11-27", "date"),
        ("2026-11-27 10:00:00", "date"),
    ],
)
@pytest.mark.parametrize("key", ["name", "password", "password_hash"])
def test_what_yaml_made_of_a_text_is_refused(text: str, kind: str, key: str) -> None:
    (user,) = yaml.safe_load(f"[{{name: alice, {key}: {text}}}]" if key != "name" else f"[{{name: {text}}}]")
    (problem,) = users([user])["problems"]
    whose = "" if key == "name" else " of 'alice'"
    assert problem == f"YAML takes the {key}{whose} for a {kind}: write it in quotes."
    (user,) = yaml.safe_load(f"[{{name: alice, password: {text!r}}}]")
    assert "YAML" not in " ".join(users([user])["problems"])


@pytest.mark.parametrize(
    ("user", "sentence"),
    [
        ({"name": "al:ice"}, "holds a colon"),
        ({"name": "al\nice"}, "holds a control character"),
        ({"name": " alice"}, "begins or ends with white space"),
        ({"name": "#alice"}, "begins with '#'"),
        ({"name": ""}, "the user name '' is empty"),
        ({}, "the user name '' is empty"),
        ({"name": "a/b"}, "the password of 'a/b' would be kept in a file of that name: set it, or use letters"),
        ({"name": ".."}, "would be kept in a file of that name"),
        ({"name": "alice", "password": ""}, "is empty: choose one"),
        ({"name": "alice", "password": "mesh-bag"}, "has fewer than 12 characters or is easy to guess: choose a longer one"),
        ({"name": "longer-than-twelve", "password": "Longer-than-Twelve"}, "is easy to guess"),
        ({"name": "alice", "password": "x" * 73}, "is longer than the 72 bytes that bcrypt reads"),
        ({"name": "alice", "password": PASSWORD, "password_hash": HASH}, "has password and password_hash: keep one of them"),
        ({"name": "alice", "password_hash": "plain"}, "is no whole hash of"),
    ],
)
def test_what_cannot_be_is_refused(user: dict[str, t.Any], sentence: str) -> None:
    (problem,) = users([user])["problems"]
    assert sentence in problem
    assert problem.endswith(".")
    for secret in ("mesh-bag", "x" * 73, PASSWORD, HASH):
        assert secret not in problem


def test_what_describes_no_user_is_refused_without_a_secret() -> None:
    assert users(["alice", "a long secret", {"name": "bob", "pasword": PASSWORD}])["problems"] == [
        "it has an entry that is no mapping: write - name: alice.",
        "it has an entry that is no mapping: write - name: alice.",
        "a user has pasword, and may have name, password, password_hash, state.",
    ]


def test_absent_users_need_no_password() -> None:
    assert users([{"name": "a/b", "state": "absent"}])["problems"] == []


def test_an_empty_list_is_refused() -> None:
    assert users([])["problems"] == ["it is empty, so nobody could log in: name at least one user, or leave it out to get one."]


def test_a_name_that_is_listed_twice_is_refused() -> None:
    assert users([{"name": "alice"}, {"name": "bob"}, {"name": "alice"}])["problems"] == ["it lists 'alice' more than once: keep one entry."]


@pytest.mark.parametrize("scheme", ["bcrypt", "sha512_crypt", "sha256_crypt", "apr_md5_crypt"])
def test_each_scheme_has_a_usual_cost(scheme: str) -> None:
    assert users([{"name": "alice", "password": PASSWORD}], scheme, 0)["problems"] == []


def test_a_cost_that_the_scheme_does_not_have_is_refused() -> None:
    assert users([{"name": "alice"}], "sha512_crypt", 12)["problems"] == ["rounds 12 is out of range for sha512_crypt: choose 1000 to 999999999."]
