# SPDX-License-Identifier: GPL-3.0-or-later
"""Each role says one thing: its defaults, its argument specification and its README agree."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jinja2
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted((ROOT / "roles").iterdir())


def load(path: Path):
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_argument_specs_match_defaults(role):
    defaults = load(role / "defaults" / "main.yml")
    options = load(role / "meta" / "argument_specs.yml")["argument_specs"]["main"]["options"]
    assert list(options) == list(defaults), "the same variables in the same order"
    for name, option in options.items():
        if "default" in option and option["type"] in ("str", "path", "dict"):
            assert option["default"] == defaults[name], name
        elif "default" in option:  # typed, where the default is a template
            assert option["default"] == defaults[name] or str(option["default"]) in str(defaults[name]), name


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_entry_point_checks_all_variables(role):
    """A role's spec is read only for the entry point that is called."""
    specs = load(role / "meta" / "argument_specs.yml")["argument_specs"]
    assert {"main", "preflight", "deploy"} <= set(specs)
    assert all(spec["options"] == specs["main"]["options"] for spec in specs.values())
    assert all((role / "tasks" / f"{name}.yml").exists() for name in specs)


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_variables_carry_the_name_of_their_role(role):
    for file in [role / "defaults" / "main.yml", *(role / "vars").glob("*.yml")]:
        prefix = role.name if file.parent.name == "defaults" else f"__{role.name}"
        assert all(name.startswith(f"{prefix}_") for name in load(file)), file


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_collection_variables_are_read_in_defaults_only(role):
    """And so a role can be taken alone, with its own variables."""
    shared = re.compile(r"(?<![\w.])mlflow_(?!packages|postgres|venv|systemd|nginx|firewall_|health|backup|schema)\w+ ?\|")
    for file in role.rglob("*"):
        if file.suffix in (".yml", ".j2") and file.parent.name not in ("defaults", "meta"):
            assert not shared.findall(file.read_text()), file


CONDITIONS = {"when", "that", "until", "changed_when", "failed_when", "var"}


def templates(data, key: str = "") -> Iterator[str]:
    """What Ansible would template in the data of a file."""
    if isinstance(data, dict):
        for name, value in data.items():
            yield from templates(value, name)
    elif isinstance(data, list):
        for value in data:
            yield from templates(value, key)
    elif isinstance(data, str):
        yield "{{ " + data + " }}" if key in CONDITIONS and "{{" not in data else data


def names(template: str) -> set[str]:
    """The variables that a template reads."""
    return {node.name for node in jinja2.Environment().parse(template).find_all(jinja2.nodes.Name)}


@pytest.mark.filterwarnings("ignore:invalid escape sequence")  # Ansible's templates hold regular expressions
@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_booleans_and_numbers_are_read_converted(role):
    """By -e and in INI inventories they are strings: one variable converts them all, and everything else reads that."""
    options = load(role / "meta" / "argument_specs.yml")["argument_specs"]["main"]["options"]
    typed = {name for name, option in options.items() if option["type"] in ("bool", "int", "float")}
    converted = f"__{role.name}_typed"
    raw = {}
    for file in sorted([*role.rglob("*.yml"), *role.rglob("templates/**/*.j2")]):
        if file.parent.name == "meta":
            continue
        texts = [file.read_text()] if file.suffix == ".j2" else list(templates(load(file)))
        if file == role / "vars" / "main.yml":
            place = load(file)[converted]
            texts.remove(place)
            assert names(place) == typed, "what is converted, and what the specification lists"
            assert all(f"'{name.removeprefix(role.name + '_')}': {name}" in place for name in typed)
        found = set().union(*(names(text) for text in texts))
        if found & typed:
            raw[str(file.relative_to(role))] = found & typed
    assert not raw


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_lists_mappings_and_choices_are_checked(role):
    """A role's specification accepts a string for a list, and shows itself as a whole where a choice is none."""
    options = load(role / "meta" / "argument_specs.yml")["argument_specs"]["main"]["options"]
    checked = {name for name, option in options.items() if option["type"] in ("list", "dict") or "choices" in option}
    place = load(role / "vars" / "main.yml")[f"__{role.name}_checked"]
    assert names(place) == checked
    for name, option in options.items():
        assert "choices" not in option or f"[{name}, {option['choices']}]" in place, name


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_short_names_of_booleans_and_numbers_follow_a_rule(role):
    """The filter that converts them names the short one, where a person set that: mlflow_x for mlflow_nginx_x.

    Before it may come what another role has by the same end.
    """
    defaults, options = (load(role / place) for place in ("defaults/main.yml", "meta/argument_specs.yml"))
    for name, option in options["argument_specs"]["main"]["options"].items():
        if option["type"] in ("bool", "int", "float"):
            others = {found for found in names(str(defaults[name])) if found.startswith("mlflow_") and not found.startswith(f"{role.name}_")}
            assert others <= {name.replace(role.name, "mlflow", 1), *(name.replace(role.name, other.name, 1) for other in ROLES)}, name


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_what_is_registered_hides_no_variable_of_the_role(role):
    """It would for the rest of the run, wherever the role comes once more."""
    tasks = "".join(path.read_text() for path in (role / "tasks").rglob("*.yml"))
    variables = {name for directory in ("defaults", "vars") for name in load(role / directory / "main.yml")}
    assert variables & set(re.findall(r"\bregister: (\w+)", tasks)) == set()


def test_no_list_of_a_role_holds_booleans_or_numbers():
    """Nothing would convert them."""

    def kinds(options: dict) -> Iterator[str]:
        for option in options.values():
            if nested := option.get("options"):
                yield from (inner["type"] for inner in nested.values())
                yield from kinds(nested)
            yield option.get("elements", "str")

    for role in ROLES:
        assert not {"bool", "int", "float"} & set(kinds(load(role / "meta" / "argument_specs.yml")["argument_specs"]["main"]["options"])), role.name


def test_readmes_are_up_to_date():
    run = subprocess.run([sys.executable, ROOT / "tests" / "role_readmes.py", "--check"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def task_names(tasks: list[dict]) -> Iterator[str]:
    """As a run prints them: without those of blocks and of imports."""
    for task in tasks:
        inner = [part for key in ("block", "rescue", "always") for part in task.get(key, [])]
        yield from task_names(inner)
        if not inner and "ansible.builtin.import_tasks" not in task:
            yield task["name"]


def test_runs_are_cut_off_at_tasks_that_are_there():
    """The scenario names tasks, and a renamed one would be met after an hour only."""
    named = [found for file in ROOT.glob("molecule/*/test_*.py") for found in re.findall(r'"(mlflow_\w+) : ([^"]+)"', file.read_text())]
    assert {"mlflow_nginx", "mlflow_firewall"} <= {role for role, _task in named}
    for role, task in named:
        found = {name for file in (ROOT / "roles" / role / "tasks").rglob("*.yml") for name in task_names(load(file))}
        assert task in found, f"{role} : {task}"
