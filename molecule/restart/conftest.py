# SPDX-License-Identifier: GPL-3.0-or-later
"""All tests restart one server, which is deployed once: with the network that webhooks and the gateway need."""

from __future__ import annotations

import pytest
from deployment import deployed

AUTHORITY = "/etc/nginx/mlflow/tls/selfsigned/ca.pem"
PASSWORD = "correct horse battery"
CURL = f"curl --silent --cacert {AUTHORITY} --user 'alice:{PASSWORD}'"
# The other end of a webhook and of the gateway is on the same host.
ALLOWED = {"ALLOWED_SCHEMES": "http", "ALLOW_PRIVATE_IPS": "true"}


@pytest.fixture(scope="session", autouse=True)
def deployment() -> None:
    deployed(
        {
            "mlflow_users": [{"name": "alice", "password": PASSWORD}],
            "mlflow_systemd_network": ["any"],
            "mlflow_systemd_environment": {
                f"{prefix}_{name}": value for prefix in ("MLFLOW_WEBHOOK", "MLFLOW_GATEWAY_API_BASE") for name, value in ALLOWED.items()
            },
        }
    )


@pytest.fixture(scope="module", autouse=True)
def curl(host) -> None:
    host.run_expect([0], "command -v curl || DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends curl")
