# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs a module as Ansible does, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import typing as t

PROGRAM = """
import importlib, sys
from ansible.module_utils import basic
basic._ANSIBLE_ARGS, basic._ANSIBLE_PROFILE = sys.stdin.buffer.read(), "legacy"
importlib.import_module("ansible_collections.mlops.mlflow.plugins.modules." + sys.argv[1]).main()
"""


def run(module: str, *, check: bool = False, **options: t.Any) -> dict[str, t.Any]:
    # No log keeps out of this machine's syslog.
    arguments = {**options, "_ansible_check_mode": check, "_ansible_diff": True, "_ansible_no_log": True}
    text = json.dumps({"ANSIBLE_MODULE_ARGS": arguments})
    # The path, as pytest finds the collection.
    program = f"import sys; sys.path[:] = {sys.path!r}\n{PROGRAM}"
    answer = subprocess.run([sys.executable, "-c", program, module], input=text, capture_output=True, text=True, check=False)
    assert answer.stdout, answer.stderr
    return json.loads(answer.stdout)
