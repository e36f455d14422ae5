# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs a module as Ansible does, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import typing as t
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
COLLECTIONS = ROOT / ".ansible/collections"
RUN_MODULE = ROOT / "tests/support/run_module.py"


def same_path() -> dict[str, str]:
    """An environment in which another Python finds the collection as pytest does."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def run(module: str, *, check: bool = False, **options: t.Any) -> dict[str, t.Any]:
    # No log keeps out of this machine's syslog.
    arguments = {**options, "_ansible_check_mode": check, "_ansible_diff": True, "_ansible_no_log": True}
    text = json.dumps({"ANSIBLE_MODULE_ARGS": arguments})
    answer = subprocess.run([sys.executable, RUN_MODULE, module], input=text, env=same_path(), capture_output=True, text=True, check=False)
    assert answer.stdout, answer.stderr
    return json.loads(answer.stdout)
