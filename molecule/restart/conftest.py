# SPDX-License-Identifier: GPL-3.0-or-later
"""All tests restart one server, which is deployed once, plainly."""

from __future__ import annotations

import pytest
from deployment import deployed

AUTHORITY = "/etc/nginx/mlflow/tls/selfsigned/ca.pem"
PASSWORD = "correct horse battery"
CURL = f"curl --silent --cacert {AUTHORITY} --user 'alice:{PASSWORD}'"
USERS = {"mlflow_users": [{"name": "alice", "password": PASSWORD}]}


@pytest.fixture(scope="session", autouse=True)
def deployment() -> None:
    deployed(USERS)


@pytest.fixture(scope="module", autouse=True)
def curl(host) -> None:
    host.run_expect([0], "command -v curl || DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends curl")
