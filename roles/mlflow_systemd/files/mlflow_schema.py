# SPDX-License-Identifier: GPL-3.0-or-later
"""Say how the schema of MLflow's database stands against the MLflow that is installed.

The database URI is read from MLFLOW_BACKEND_STORE_URI. Prints one word:

* C(empty): the database has no table of MLflow
* C(current): the schema is the one that this MLflow expects
* C(old): C(mlflow db upgrade) has migrations to run

Exits with 1 and a sentence on stderr where the schema is newer than this MLflow.
"""

from __future__ import annotations

import ast
import os
import sys
from importlib.util import find_spec
from pathlib import Path

import psycopg2


def revisions(package: Path) -> dict[str, list[str]]:
    """MLflow's revisions and what each follows. Its migrations are read, not run: alembic would import all of MLflow, which takes seconds."""
    found = {}
    for path in (package / "store" / "db_migrations" / "versions").glob("[!_]*.py"):
        values = {
            statement.targets[0].id: ast.literal_eval(statement.value)
            for statement in ast.parse(path.read_bytes()).body
            if isinstance(statement, ast.Assign) and getattr(statement.targets[0], "id", "") in ("revision", "down_revision")
        }
        before = values["down_revision"] or ()
        found[values["revision"]] = [before] if isinstance(before, str) else list(before)
    return found


def main() -> int:
    # The package is found, not imported.
    known = revisions(Path(find_spec("mlflow").submodule_search_locations[0]))
    heads = set(known).difference(*known.values())
    connection = psycopg2.connect(os.environ["MLFLOW_BACKEND_STORE_URI"].replace("postgresql+psycopg2:", "postgresql:", 1))
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('alembic_version') IS NOT NULL")
        (exists,) = cursor.fetchone()
        found = set()
        if exists:
            cursor.execute("SELECT version_num FROM alembic_version")
            found = {row[0] for row in cursor}

    if not found:
        print("empty")
    elif found == heads:
        print("current")
    elif found <= set(known):
        print("old")
    else:
        print(
            f"The database has the schema {', '.join(sorted(found))}, which this MLflow does not know: "
            "a newer MLflow has used it. Set mlflow_version to that release.",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
