# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a module of the collection as Ansible does on a target, in the Python that runs this.

run_module.py NAME <ARGUMENTS >ANSWER
"""

import runpy
import sys

from ansible.module_utils import basic

basic._ANSIBLE_ARGS = sys.stdin.buffer.read()
# ansible-core 2.19 and later read arguments by a profile; before, the name means nothing.
basic._ANSIBLE_PROFILE = "legacy"
runpy.run_module(f"ansible_collections.mlops.mlflow.plugins.modules.{sys.argv[1]}", run_name="__main__")
