# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of all scenarios share."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "drill: left to `make test-all`, as tests/molecule.sh says")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In the order of the files: each test finds the server as the one before it left it, and pytest puts those without testinfra's host last."""
    files = list(dict.fromkeys(item.path for item in sorted(items, key=lambda item: item.path)))
    items.sort(key=lambda item: (files.index(item.path), item.reportinfo()[1]))
