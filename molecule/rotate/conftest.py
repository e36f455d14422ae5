# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of one server share: its users, and what they see."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

CREDENTIALS = Path(os.environ["MLFLOW_TEST_INVENTORY"]) / "credentials"
AUTHORITY = CREDENTIALS / "mlflow.test.ca.txt"
PROGRAMS = Path(__file__).parents[1] / "restart" / "programs"
PORT, SECRET = "8099", "a secret of a user"
# The other end of a webhook and of the gateway is on the same host.
ALLOWED = {"ALLOWED_SCHEMES": "http", "ALLOW_PRIVATE_IPS": "true"}
USERS = {
    "mlflow_users": [{"name": "alice"}, {"name": "bob"}],
    "mlflow_systemd_network": ["any"],
    "mlflow_systemd_environment": {f"{prefix}_{name}": value for prefix in ("MLFLOW_WEBHOOK", "MLFLOW_GATEWAY_API_BASE") for name, value in ALLOWED.items()},
}


def password(name: str = "alice") -> str:
    return (CREDENTIALS / "mlflow.test" / f"{name}.txt").read_text().strip()


def client(host, program: str, *words: str) -> list[str]:
    """What MLflow's own client says, as alice, who trusts what the controller has."""
    host.run_expect([0], "printf %%s %s >/root/ca.txt", AUTHORITY.read_text())
    environment = {
        "MLFLOW_TRACKING_URI": "https://mlflow.test",
        "MLFLOW_TRACKING_SERVER_CERT_PATH": "/root/ca.txt",
        "MLFLOW_TRACKING_USERNAME": "alice",
        "MLFLOW_TRACKING_PASSWORD": password(),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "GIT_PYTHON_REFRESH": "quiet",
    }
    command = [*(f"{name}={value}" for name, value in environment.items()), "/opt/mlflow/current/bin/python", "-c", (PROGRAMS / program).read_text(), *words]
    return host.check_output("env -C /tmp " + " ".join(["%s"] * len(command)), *command).splitlines()


def status(host, secret: str, authority: str, name: str = "alice") -> str:
    """How the server answers somebody with this password who trusts these authorities; 000 where that one refuses the server."""
    host.run_expect([0], "printf %%s %s >/root/trusted", authority)
    url = "https://mlflow.test/api/2.0/mlflow/experiments/search?max_results=1"
    return host.run("curl --silent --output /dev/null --write-out '%%{http_code}' --cacert /root/trusted --user %s %s", f"{name}:{secret}", url).stdout


def gateway(host) -> str:
    """With which key MLflow asks the other end of its gateway."""
    question = json.dumps({"messages": [{"role": "user", "content": "?"}]})
    url = "http://localhost/gateway/listener/mlflow/invocations"
    curl = "curl --silent --fail --unix-socket /run/mlflow/mlflow.sock --header 'Content-Type: application/json' --data %s %s"
    host.run_expect([0], curl, question, url)
    return json.loads(host.check_output("cat /root/asked"))["headers"]["authorization"].removeprefix("Bearer ")


def versions(host) -> list[str]:
    return host.check_output("cd / && runuser -u postgres -- psql -XAt mlflow -c 'SELECT DISTINCT kek_version FROM secrets'").split()


@pytest.fixture(scope="session", autouse=True)
def listener(host) -> None:
    host.run_expect([0], "command -v curl || DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends curl")
    host.run_expect(
        [0],
        f"systemctl is-active --quiet listener || systemd-run --quiet --unit=listener python3 -c %s {PORT} /root/asked",
        (PROGRAMS / "listener.py").read_text(),
    )
