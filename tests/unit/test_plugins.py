# SPDX-License-Identifier: GPL-3.0-or-later
"""One form for all plugins."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
HEAD = """\
# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
PLUGINS = sorted(ROOT.glob("plugins/*/*.py"))


def documentation(path: Path) -> dict:
    return yaml.safe_load(path.read_text().partition('DOCUMENTATION = r"""\n')[2].partition('"""')[0])


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: path.stem)
def test_begins_as_all_do(path):
    is_module = path.parent.name == "modules"
    assert path.read_text().startswith("#!/usr/bin/python\n" * is_module + HEAD)


@pytest.mark.parametrize("path", [path for path in PLUGINS if path.parent.name in ("modules", "filter")], ids=lambda path: path.stem)
def test_is_documented_as_all_are(path):
    """The author has no address, as the project has none yet; what all modules say of check mode is said once."""
    found = documentation(path)
    assert found["author"] == "The mlops.mlflow maintainers (!UNKNOWN)"
    if path.parent.name == "modules":
        assert "mlops.mlflow.attributes" in found["extends_documentation_fragment"]
        assert not any("description" in attribute for attribute in found.get("attributes", {}).values())
