#!/usr/bin/env python
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print the revisions of a release's schema, oldest first, as roles/mlflow_systemd/files/schemas.json has them.

Usage: tests/schemas.py PYTHON, that of an environment that holds the release.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).resolve().parents[1] / "roles" / "mlflow_systemd" / "files" / "mlflow_schema.py"
CODE = """
import json, sys
sys.path.insert(0, sys.argv[1])
import mlflow_schema
from pathlib import Path
from importlib.util import find_spec
print(json.dumps(mlflow_schema.revisions(Path(find_spec("mlflow").submodule_search_locations[0]))))
"""


def ordered(python: str) -> list[str]:
    follows = json.loads(subprocess.check_output([python, "-c", CODE, str(PROGRAM.parent)], text=True))
    found: list[str] = []
    while len(found) < len(follows):
        found += sorted(name for name, before in follows.items() if name not in found and set(before) <= set(found))
    return found


if __name__ == "__main__":
    print(json.dumps(ordered(sys.argv[1])))
