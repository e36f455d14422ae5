# SPDX-License-Identifier: GPL-3.0-or-later
"""Each role says one thing: its defaults, its argument specification and its README agree."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

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
    shared = re.compile(r"(?<![\w.])mlflow_(?!packages|postgres|venv|systemd|nginx|health|backup|schema)\w+ ?\|")
    for file in role.rglob("*"):
        if file.suffix in (".yml", ".j2") and file.parent.name not in ("defaults", "meta"):
            assert not shared.findall(file.read_text()), file


def test_readmes_are_up_to_date():
    run = subprocess.run([sys.executable, ROOT / "tests" / "role_readmes.py", "--check"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
