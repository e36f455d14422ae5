# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks, called from anywhere, with inventories in which they find nothing to do."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INVENTORY = """
[web]
web1
[mlflow_database]
db1
[mlflow_tracking]
mlflow1
[mlflow_proxy]
mlflow1
"""


def play(directory: Path, playbook: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """As a person does whose home directory has no collections, and whose environment no settings."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment |= {"HOME": str(directory / "home"), "ANSIBLE_NOCOLOR": "1", "COLUMNS": "1000"}
    words = ["ansible-playbook", str(playbook), *options]
    return subprocess.run(words, cwd=directory, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("playbook", ["site.yml", "playbooks/site.yml", "playbooks/verify.yml"])
def test_a_playbook_finds_its_roles_from_another_directory(tmp_path, playbook):
    run = play(tmp_path, ROOT / playbook, "--inventory=nowhere,", "--list-tasks")
    assert run.returncode == 0, run.stdout + run.stderr


def test_a_playbook_finds_its_roles_in_a_clone_that_everybody_may_write_to(tmp_path):
    """Ansible reads no ansible.cfg there."""
    clone = tmp_path / "clone"
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        if (ROOT / name).exists():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name, follow_symlinks=False)
    clone.chmod(0o777)
    run = play(clone, Path("site.yml"), "--inventory=nowhere,", "--list-tasks")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "world writable directory" in run.stderr


@pytest.mark.parametrize(
    ("playbook", "sentence"),
    [
        ("site.yml", "The inventory has no host in the groups mlflow_database, mlflow_tracking and mlflow_proxy: add your server to them"),
        ("playbooks/verify.yml", "The inventory has no host in the group mlflow_proxy: add your server to it"),
    ],
)
@pytest.mark.parametrize("inventory", ["nowhere", "web1,"])
def test_an_inventory_without_hosts_is_refused(tmp_path, playbook, sentence, inventory):
    run = play(tmp_path, ROOT / playbook, f"--inventory={inventory}")
    assert run.returncode != 0
    assert sentence in run.stdout, run.stdout + run.stderr


@pytest.mark.parametrize(
    ("playbook", "limit", "sentence"),
    [
        ("site.yml", "web1", "--limit web1 leaves no host of the groups mlflow_database, mlflow_tracking and mlflow_proxy"),
        ("playbooks/verify.yml", "db1", "--limit db1 leaves no host of the group mlflow_proxy"),
    ],
)
def test_a_limit_that_leaves_no_host_is_refused(tmp_path, playbook, limit, sentence):
    (tmp_path / "hosts.ini").write_text(INVENTORY)
    run = play(tmp_path, ROOT / playbook, "--inventory=hosts.ini", f"--limit={limit}")
    assert run.returncode != 0
    assert sentence in run.stdout, run.stdout + run.stderr
