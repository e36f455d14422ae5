# SPDX-License-Identifier: GPL-3.0-or-later
"""What docs/operations.md tells people to type."""

from __future__ import annotations

import re
from pathlib import Path

OPERATIONS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"


def documented(heading: str) -> list[str]:
    """The commands below a heading, a line each; KeyError where there is no such heading."""
    sections = dict(section.partition("\n")[::2] for section in OPERATIONS.read_text().split("\n## ")[1:])
    return [line for block in re.findall(r"```bash\n(.*?)```", sections[heading], re.DOTALL) for line in block.splitlines()]
