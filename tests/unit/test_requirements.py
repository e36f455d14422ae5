# SPDX-License-Identifier: GPL-3.0-or-later
"""What people and tests install comes from lock files: every package pinned, every file of it by its hash."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = [ROOT / "requirements.txt", *sorted((ROOT / "requirements").glob("*.txt")), *sorted((ROOT / "roles").glob("*/files/*.txt"))]


def requirements(path: Path) -> list[str]:
    """Each in one line, with its hashes; those of the files that it includes, too."""
    found = []
    for line in path.read_text().replace("\\\n", " ").splitlines():
        line = line.strip()
        if line.startswith("-r "):
            found += requirements(path.parent / line.removeprefix("-r "))
        elif line and not line.startswith("#"):
            found.append(line)
    return found


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_requirement_is_locked_by_its_hashes(lock):
    found = requirements(lock)
    assert found
    for requirement in found:
        assert re.match(r"[\w.\[\]-]+==[^ ]+ ( *; .*?)?( *--hash=sha256:[0-9a-f]{64})+$", requirement), requirement


@pytest.mark.parametrize("wanted", sorted((ROOT / "requirements").glob("*.in")), ids=lambda path: path.name)
def test_every_lock_is_of_today(wanted):
    """A release that is asked for is the one that is locked."""
    locked = {line.split(" ")[0] for line in requirements(wanted.with_suffix(".txt"))}
    assert {line.split(" ")[0] for line in requirements(wanted) if "==" in line} <= locked
