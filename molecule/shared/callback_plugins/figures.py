# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps the figures of each playbook, for tests/scenario_figures.py."""

from __future__ import annotations

import json
import os
from typing import Any

from ansible import context
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: figures
type: aggregate
short_description: Keep the figures of each playbook
description: Appends a line of JSON for each playbook to the file that E(MLFLOW_TEST_FIGURES) names, whatever else shows the run.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "figures"

    def v2_playbook_on_start(self, playbook: Any) -> None:
        self.playbook = os.path.basename(playbook._file_name)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        if path := os.environ.get("MLFLOW_TEST_FIGURES"):
            hosts = {host: stats.summarize(host) for host in stats.processed}
            with open(path, "a", encoding="utf-8") as file:
                print(json.dumps({"playbook": self.playbook, "check": bool(context.CLIARGS.get("check")), "hosts": hosts}), file=file)
