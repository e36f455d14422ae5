#!/usr/bin/env python
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the table of variables into the README of every role, from the role's argument specification.

Usage: tests/role_readmes.py [--check]. With --check nothing is written; exits with 1 where a table is out of date.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import yaml

ROLES = Path(__file__).resolve().parent.parent / "roles"
START, END = "<!-- variables: made by tests/role_readmes.py -->", "<!-- end of variables -->"


def markdown(text: str) -> str:
    """Turn Ansible's semantic markup into Markdown."""
    text = re.sub(r"\b[OVC]\(([^()]*)\)", r"`\1`", text)
    return re.sub(r"\bP\(mlops\.mlflow\.(\w+)#role\)", r"[\1](../\1/README.md)", text).replace("|", r"\|")


def rows(options: dict[str, dict], defaults: dict[str, object], prefix: str = "") -> list[str]:
    lines = []
    for name, option in options.items():
        kind = option["type"] + (f" of {option['elements']}" if "elements" in option else "")
        default = "required" if option.get("required") else f"`{' '.join(str(defaults[name]).split())}`" if defaults.get(name, "") != "" else ""
        description = markdown(" ".join(option["description"]) if isinstance(option["description"], list) else option["description"])
        if "choices" in option:
            description += " One of " + ", ".join(f"`{choice}`" for choice in option["choices"]) + "."
        lines.append(f"| `{prefix}{name}` | {kind} | {default.replace('|', chr(92) + '|')} | {description} |")
        lines += rows(option.get("options", {}), {}, f"{prefix}{name}[].")
    return lines


def render(role: Path) -> str:
    options = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    defaults = yaml.safe_load((role / "defaults" / "main.yml").read_text())
    table = ["| variable | type | default | |", "| --- | --- | --- | --- |", *rows(options, defaults)]
    before, rest = (role / "README.md").read_text().split(START)
    return before + "\n".join([START, *table, END]) + rest.split(END)[1]


def main() -> int:
    stale = [role / "README.md" for role in sorted(ROLES.iterdir()) if render(role) != (role / "README.md").read_text()]
    for readme in stale:
        if "--check" in sys.argv:
            print(f"{readme} is out of date: run tests/role_readmes.py", file=sys.stderr)
        else:
            readme.write_text(render(readme.parent))
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
