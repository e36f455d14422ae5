# SPDX-License-Identifier: GPL-3.0-or-later
"""Say how the schema of MLflow's database stands against the MLflow that is installed.

The database URI is read from MLFLOW_BACKEND_STORE_URI. Prints one word:

* C(empty): the database has no table of MLflow
* C(current): the schema is the one that this MLflow expects
* C(old): C(mlflow db upgrade) has migrations to run

Exits with 1 and a sentence on stderr where the schema is newer than this MLflow.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine


def main() -> int:
    # The package is found, not imported: that would take seconds.
    package = Path(find_spec("mlflow").submodule_search_locations[0])
    scripts = ScriptDirectory(str(package / "store" / "db_migrations"))
    with create_engine(os.environ["MLFLOW_BACKEND_STORE_URI"]).connect() as connection:
        found = MigrationContext.configure(connection).get_current_revision()

    if found is None:
        print("empty")
    elif found == scripts.get_current_head():
        print("current")
    elif found in {revision.revision for revision in scripts.walk_revisions()}:
        print("old")
    else:
        print(
            f"The database has the schema {found}, which this MLflow does not know: "
            "a newer MLflow has used it. Set mlflow_version to that release.",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
