# SPDX-License-Identifier: GPL-3.0-or-later
"""What docs/operations.md and the roles' READMEs tell people to type."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OPERATIONS = ROOT / "docs" / "operations.md"


def documented(heading: str) -> list[str]:
    """The commands below a heading, a line each; KeyError where there is no such heading."""
    sections = dict(section.partition("\n")[::2] for section in OPERATIONS.read_text().split("\n## ")[1:])
    return [line for block in re.findall(r"```bash\n(.*?)```", sections[heading], re.DOTALL) for line in block.splitlines()]


def shown(role: str, text: str) -> str:
    """The example in a role's README that has this text; StopIteration where there is none."""
    examples = re.findall(r"```yaml\n(.*?)```", (ROOT / "roles" / role / "README.md").read_text(), re.DOTALL)
    return next(str(example) for example in examples if text in example)
