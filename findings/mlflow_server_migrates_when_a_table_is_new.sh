#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# MLflow 3.15.0, 3.16.1, 3.17.2 (PyPI): whether `mlflow server` of a newer release migrates an older database by itself, without a dump
# and without a word on the command line, depends on whether one of the new migrations creates a table.
#
#   database of 3.15.0, server of 3.16.1 (three migrations, no new table): refuses, "Detected out-of-date database schema … Take a backup"
#   database of 3.16.1, server of 3.17.2 (two migrations, both create tables): migrates while it starts, and serves
#
# One would guess that it refuses both times, as the message and the manual of `mlflow db upgrade` say. The reason: a store that misses any
# of its tables counts as new, and is "initialized", which runs all migrations. Why it matters: a restart after `pip install --upgrade
# mlflow` is a migration without a backup for some pairs of releases, and an error for others; a deployment has to bar the start itself.
set -euo pipefail
work=$(mktemp -d)
cd "$work"
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$work"' EXIT
python3 -m venv "$work/uv" && "$work/uv/bin/pip" install --quiet --disable-pip-version-check uv==0.9.11
for release in 3.15.0 3.16.1 3.17.2; do
  "$work/uv/bin/uv" venv --quiet --python '>=3.10,<3.14' "$work/$release"
  "$work/uv/bin/uv" pip install --quiet --python "$work/$release/bin/python" "mlflow==$release"
done
export MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false

revision() { python3 -c 'import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute("SELECT version_num FROM alembic_version").fetchone()[0])' "$1"; }

# Starts the server of one release on a database that another has made; prints the revision before and after, and whether it serves.
try() { # OLD NEW PORT
  local database=$work/$1-$2.db log=$work/$1-$2.log before answer=nothing
  "$work/$1/bin/mlflow" db upgrade "sqlite:///$database" >/dev/null 2>&1
  before=$(revision "$database")
  "$work/$2/bin/mlflow" server --backend-store-uri "sqlite:///$database" --port "$3" --workers 1 >"$log" 2>&1 &
  for _ in $(seq 300); do
    answer=$(curl --silent --output /dev/null --write-out '%{http_code}' "http://127.0.0.1:$3/api/2.0/mlflow/experiments/get?experiment_id=0" || true)
    if [ "$answer" = 200 ] || grep -q 'out-of-date database schema' "$log"; then break; fi
    sleep 1
  done
  kill $! 2>/dev/null || true
  wait $! 2>/dev/null || true
  local schema=migrated said=serves
  if [ "$before" = "$(revision "$database")" ]; then schema=unchanged; fi
  if [ "$answer" != 200 ]; then said=$(grep -o -m 1 'Detected out-of-date database schema' "$log" || echo 'says nothing'); fi
  echo "database of $1, server of $2: schema $schema, $said"
}
found=$(try 3.15.0 3.16.1 18151; try 3.16.1 3.17.2 18161)
echo "$found"
[ "$found" = 'database of 3.15.0, server of 3.16.1: schema unchanged, Detected out-of-date database schema
database of 3.16.1, server of 3.17.2: schema migrated, serves' ] || { echo 'This has changed.'; exit 1; }
