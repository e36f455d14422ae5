# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the site playbook as a user does, against the hosts of a Molecule scenario, and read what it said."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
Run = subprocess.CompletedProcess[str]


def command(
    variables: dict[str, Any] | None = None, *options: str, playbook: str | Path = "site.yml", inventory: str = "", program: str = "ansible-playbook"
) -> list[str]:
    """The words of a run: `variables` go in by --extra-vars, with their types; `inventory` is that of the scenario by default."""
    inventory = inventory or os.environ["MLFLOW_TEST_INVENTORY"]
    return [program, str(ROOT / playbook), "--inventory", inventory, "--extra-vars", json.dumps(variables or {}), *options]


def deploy(variables: dict[str, Any] | None = None, *options: str, **where: Any) -> Run:
    environment = {**os.environ, "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"}
    return subprocess.run(command(variables, *options, **where), capture_output=True, text=True, check=False, env=environment)


def said(run: Run) -> str:
    """All that a run said, in one line, so that a sentence is found wherever it was wrapped."""
    return re.sub(r"\s+", " ", run.stdout + run.stderr)


def changed(run: Run) -> list[str]:
    """The tasks that changed something."""
    return re.findall(r"TASK \[(.*?)\] \**\n(?:(?!TASK |PLAY ).*\n)*?changed: ", run.stdout)


def recap(run: Run | str) -> dict[str, int]:
    """The figures of the recap, summed over all hosts: ok, changed, unreachable, failed, …"""
    found: dict[str, int] = {}
    output = run if isinstance(run, str) else run.stdout
    for name, count in re.findall(r"(\w+)=(\d+)", output.rpartition("PLAY RECAP")[2]):
        found[name] = found.get(name, 0) + int(count)
    return found


def deployed(variables: dict[str, Any] | None = None, *options: str, **where: Any) -> str:
    """What a run that succeeded said."""
    run = deploy(variables, *options, **where)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-1000:]
    return said(run)


def deployed_by(commit: str, variables: dict[str, Any], checkout: Path) -> None:
    """A run of an earlier version of this collection, from a worktree that is made at `checkout` and removed again."""
    subprocess.run(["git", "-C", ROOT, "worktree", "add", "--detach", checkout, commit], check=True, capture_output=True)
    try:
        environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": f"{checkout}/.ansible/collections", "ANSIBLE_CONFIG": f"{checkout}/ansible.cfg"}
        words = ["ansible-playbook", "site.yml", "--inventory", os.environ["MLFLOW_TEST_INVENTORY"], "--extra-vars", json.dumps(variables)]
        run = subprocess.run(words, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-1000:]
    finally:
        subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", checkout], check=True)


def unchanged(variables: dict[str, Any] | None = None, *options: str, **where: Any) -> None:
    """A run that succeeds and changes nothing."""
    run = deploy(variables, *options, **where)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-1000:]
    assert recap(run)["changed"] == 0, changed(run)


def refused(sentence: str, variables: dict[str, Any] | None = None, *options: str, **where: Any) -> None:
    """A run that stops with this sentence before it changes anything."""
    run = deploy(variables, *options, **where)
    assert run.returncode != 0, run.stdout[-4000:]
    assert sentence in said(run), run.stdout[-4000:]
    assert recap(run)["changed"] == 0, changed(run)


def cut_off(task: str, seconds: float, variables: dict[str, Any] | None = None, **where: Any) -> None:
    """A run whose controller dies so many seconds after it came to the task."""
    words = command(variables, **where)
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True) as run:
        assert run.stdout
        output = []
        for line in run.stdout:
            output.append(line)
            if re.search(rf"TASK \[.*{re.escape(task)}", line):
                time.sleep(seconds)
                os.killpg(run.pid, signal.SIGKILL)
                return
    raise AssertionError(f"the run never came to {task}:\n{''.join(output)[-3000:]}")
