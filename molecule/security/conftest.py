# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from attack import FIGURES


def pytest_terminal_summary(terminalreporter):
    for figure in FIGURES:
        terminalreporter.write_line(f"figures: {figure}")
