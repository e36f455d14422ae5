# SPDX-License-Identifier: GPL-3.0-or-later
"""Say how MLflow's database stands to the release whose Python runs this. Changes nothing.

    mlflow_schema.py            prints what it found, as JSON
    mlflow_schema.py --start    says nothing where the release may start, and a sentence where it may not: MLflow would migrate the schema

The database is that of MLFLOW_BACKEND_STORE_URI. Exits with 1 and a sentence on stderr where it cannot be reached.
"""

import ast
import json
import os
import re
import sys
import typing as t
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import psycopg2

QUESTION = """
SELECT current_setting('server_version_num')::int / 10000,
       current_schema(),
       (SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'),
       (SELECT coalesce(sum(pg_table_size(c.oid)), 0)::bigint FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind = 'r' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'),
       (SELECT coalesce(array_agg(n.nspname::text), '{}') FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relname = 'alembic_version' AND c.relkind = 'r'
          AND EXISTS (SELECT FROM pg_class e WHERE e.relnamespace = n.oid AND e.relname = 'experiments'))
"""
SEALED = {
    "secrets": "SELECT count(*), coalesce(max(kek_version), 0) FROM secrets",
    "webhooks": "SELECT count(secret), 0 FROM webhooks",
}


def revisions(package: Path) -> dict[str, list[str]]:
    """MLflow's revisions and what each follows. Its migrations are read, not run: alembic would import all of MLflow, which takes seconds."""
    found = {}
    for path in (package / "store" / "db_migrations" / "versions").glob("[!_]*.py"):
        values = {
            target.id: ast.literal_eval(statement.value)
            for statement in ast.parse(path.read_bytes()).body
            if isinstance(statement, ast.Assign)
            for target in statement.targets
            if isinstance(target, ast.Name) and target.id in ("revision", "down_revision")
        }
        before = values["down_revision"] or ()
        found[values["revision"]] = [before] if isinstance(before, str) else list(before)
    return found


def ask(starting: bool = False) -> dict[str, t.Any]:
    """
    state      "empty" without MLflow's tables, "current", "old", "newer" (a revision that this release does not know), or "hidden": MLflow's
               tables are in a schema in which this login role does not look
    revisions  those of the database
    schema     where the login role looks, and would create tables
    schemas    those that hold MLflow's tables
    tables     how many the database holds, MLflow's or not
    size       of the tables without their indexes, in bytes
    server     the major release of PostgreSQL
    judges     how many are set to score new traces; not asked at a start
    sealed     how many API keys and webhooks it stored encrypted; not asked at a start
    kek        the highest version of the passphrase that API keys are encrypted with, 0 without any; not asked at a start
    """
    # The package is found, not imported.
    mlflow = find_spec("mlflow")
    if mlflow is None or not mlflow.submodule_search_locations:
        sys.exit(f"{sys.executable} has no MLflow")
    known = revisions(Path(mlflow.submodule_search_locations[0]))
    heads = set(known).difference(*known.values())
    connection = psycopg2.connect(os.environ["MLFLOW_BACKEND_STORE_URI"].replace("postgresql+psycopg2:", "postgresql:", 1), connect_timeout=10)
    with connection, connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '10s'")
        cursor.execute(QUESTION)
        server, schema, tables, size, schemas = cursor.fetchone()
        found = set()
        cursor.execute("SELECT to_regclass(quote_ident(current_schema()) || '.alembic_version') IS NOT NULL")
        if cursor.fetchone()[0]:
            cursor.execute(f'SELECT version_num FROM "{schema}".alembic_version')  # noqa: S608 - no other word of it is anybody's
            found = {row[0] for row in cursor if re.fullmatch("[0-9a-f]{1,32}", row[0])}
        judges = sealed = kek = 0
        # For no start; another release may keep them in another way.
        with suppress(psycopg2.Error):
            if not starting and found:
                for table, count in SEALED.items():
                    cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [table])
                    if cursor.fetchone()[0]:
                        cursor.execute(count)
                        more, version = cursor.fetchone()
                        sealed, kek = sealed + more, max(kek, version)
                cursor.execute("SELECT count(*) FROM online_scoring_configs WHERE sample_rate > 0")
                judges = cursor.fetchone()[0]

    if found:
        state = "current" if found == heads else "old" if found <= set(known) else "newer"
    else:
        state = "hidden" if set(schemas) - {schema} else "empty"
    return {
        "state": state, "revisions": sorted(found), "schema": schema or "", "schemas": sorted(schemas), "tables": tables, "size": size, "server": server,
        "judges": judges, "sealed": sealed, "kek": kek,
    }  # fmt: skip


def main() -> int:
    try:
        found = ask(starting=sys.argv[1:] == ["--start"])
    except psycopg2.Error as error:
        print(f"The database does not answer: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    if sys.argv[1:] != ["--start"]:
        print(json.dumps(found))
    elif found["state"] != "current":
        print(
            "MLflow does not start: its database has another schema than this release, and the server would change it without a dump. "
            "Run ansible-playbook site.yml, which dumps the database and migrates it.",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
