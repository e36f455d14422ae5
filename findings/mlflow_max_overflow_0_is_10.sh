#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# MLflow 3.17.2 with SQLAlchemy 2.1 and psycopg2-binary 2.9.13 (PyPI): MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW=0 opens ten connections more than the pool.
#
#   variable unset: 10, SQLAlchemy's default      0: 10      1: 1
#
# One would guess that 0 means none, as in SQLAlchemy itself. MLflow passes the option on only where it is true. Why it matters: whoever counts
# connections (workers x pools x size) to stay below max_connections of PostgreSQL, and sets 0 to be certain, gets up to ten more for each pool.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check mlflow==3.17.2 psycopg2-binary==2.9.13
found=$(for overflow in '' 0 1; do
  env ${overflow:+MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW=$overflow} MLFLOW_SQLALCHEMYSTORE_POOL_SIZE=5 MLFLOW_DISABLE_TELEMETRY=true venv/bin/python - 2>/dev/null <<'PYTHON'
import os

from mlflow.store.db.utils import create_sqlalchemy_engine

pool = create_sqlalchemy_engine("postgresql+psycopg2://user@/database").pool  # connects to nothing yet
print(f"wanted {os.environ.get('MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW', 'nothing')}: pool of {pool.size()}, overflow {pool._max_overflow}")
PYTHON
done)
echo "$found"
[ "$found" = 'wanted nothing: pool of 5, overflow 10
wanted 0: pool of 5, overflow 10
wanted 1: pool of 5, overflow 1' ] || { echo 'This has changed.'; exit 1; }
