# SPDX-License-Identifier: GPL-3.0-or-later
"""A scenario that tests nothing, or whose second run changes something, is no success."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from documentation import documented, shown

ROOT = Path(__file__).resolve().parents[2]
SCENARIOS = sorted(path.parent for path in ROOT.glob("molecule/*/molecule.yml"))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_every_test_of_a_scenario_is_run(scenario):
    verify = (scenario / "verify.yml").read_text()
    imported = [Path(play["ansible.builtin.import_playbook"]).name for play in yaml.safe_load(verify) if "tasks" not in play]
    assert "tasks:" in verify or imported
    for test in scenario.glob("test_*.py"):
        assert test.name in verify or "/test_*.py" in verify or "tests.yml" in imported


def test_the_tests_of_a_scenario_run_in_the_order_of_their_file(tmp_path):
    """testinfra's host is a parameter of the module, and pytest puts those together that have it."""
    tmp_path.joinpath("conftest.py").write_text((ROOT / "molecule/conftest.py").read_text())
    tmp_path.joinpath("test_order.py").write_text(
        "import pytest\n"
        "def test_z(host): pass\n"
        "def test_without(): pass\n"
        "@pytest.mark.parametrize('number', [2, 1])\n"
        "def test_number(host, number): pass\n"
        "def test_a(host): pass\n"
    )
    arguments = ["--collect-only", "--quiet", "--hosts=local://", "-p", "no:cacheprovider", "test_order.py"]
    run = subprocess.run([sys.executable, "-m", "pytest", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
    names = [line.split("::")[1] for line in run.stdout.splitlines() if "::" in line]
    assert names == ["test_z[local]", "test_without", "test_number[local-2]", "test_number[local-1]", "test_a[local]"], run.stdout + run.stderr


def test_what_changed_is_read_from_the_recap_of_all_hosts():
    """The line of one host, such as the controller's, says little."""
    assert not [str(path) for path in ROOT.glob("molecule/*/*.py") if "changed=0" in path.read_text()]


def test_commands_that_a_scenario_takes_from_the_documentation_are_there():
    """A renamed heading shows here, not after an hour."""
    tests = "".join(path.read_text() for path in sorted(ROOT.glob("molecule/*/test_*.py")))
    headings = re.findall(r'\bdocumented\("(.+?)"\)', tests)
    assert headings
    assert all(documented(heading) for heading in headings)
    examples = re.findall(r'\bshown\("(.+?)", "(.+?)"\)', tests)
    assert examples
    assert all(shown(role, text) for role, text in examples)


def play(directory: Path, name: str, *tasks: dict) -> None:
    """Under another callback than Ansible's own, which writes no recap."""
    directory.joinpath(name).write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": list(tasks)}]))
    environment = {
        **os.environ,
        "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "molecule/shared/callback_plugins"),
        "ANSIBLE_STDOUT_CALLBACK": "minimal",
        "MLFLOW_TEST_FIGURES": str(directory / "figures"),
    }
    run = subprocess.run([sys.executable, "-m", "ansible", "playbook", directory / name], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0 and "changed=" not in run.stdout, run.stdout + run.stderr


def judge(path: Path, scenario: str, *figures: str) -> list[str]:
    path.write_text("".join(figures))
    run = subprocess.run([sys.executable, ROOT / "tests/scenario_figures.py", path, scenario], capture_output=True, text=True, check=False)
    assert not run.stderr and run.returncode == bool(run.stdout), run.stderr
    return run.stdout.splitlines()


CHANGE = {"ansible.builtin.debug": {"msg": ""}, "changed_when": True}
LOOK = {"ansible.builtin.debug": {"msg": ""}}


def test_a_scenario_is_judged_by_its_figures(tmp_path):
    play(tmp_path, "converge.yml", CHANGE, CHANGE, LOOK)
    play(tmp_path, "converge.yml", LOOK)
    play(tmp_path, "verify.yml", LOOK)
    first, second, verify = (tmp_path / "figures").read_text().splitlines(keepends=True)
    judged = tmp_path / "judged"
    assert judge(judged, "default", first, second, verify, verify) == []
    assert judge(judged, "default", first, first, verify, verify) == ["scenario_figures: The second run changed 2 on localhost."]
    assert judge(judged, "default", first, second, verify) == ["scenario_figures: verify.yml ran 1 times and did something in 1 of them, instead of 2 times."]
    assert judge(judged, "default", first, verify, verify) == [
        "scenario_figures: converge.yml ran 1 times and did something in 1 of them, instead of 2 times.",
        "scenario_figures: The second run changed 2 on localhost.",
    ]
    assert judge(judged, "syntax", first, verify) == []
    assert len(judge(judged, "syntax")) == 2, "nothing ran"
