# SPDX-License-Identifier: GPL-3.0-or-later
"""What a new deployment keeps for users can be used after a restart, and read by nobody who has the database alone."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from pathlib import Path

import pytest
from conftest import AUTHORITY, CURL, PASSWORD, USERS
from deployment import deployed

SECRET = "a secret of a user"
PORT = "8099"
PROGRAMS = Path(__file__).parent / "programs"
# The other end of a webhook and of the gateway is on the same host.
ALLOWED = {"ALLOWED_SCHEMES": "http", "ALLOW_PRIVATE_IPS": "true"}
NETWORK = {
    "mlflow_systemd_network": ["any"],
    "mlflow_systemd_environment": {f"{prefix}_{name}": value for prefix in ("MLFLOW_WEBHOOK", "MLFLOW_GATEWAY_API_BASE") for name, value in ALLOWED.items()},
}


def client(host, program: str, *words: str) -> list[str]:
    """What MLflow's own client says, as alice."""
    environment = {
        "MLFLOW_TRACKING_URI": "https://mlflow.test",
        "MLFLOW_TRACKING_SERVER_CERT_PATH": AUTHORITY,
        "MLFLOW_TRACKING_USERNAME": "alice",
        "MLFLOW_TRACKING_PASSWORD": PASSWORD,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "GIT_PYTHON_REFRESH": "quiet",
    }
    command = [*(f"{name}={value}" for name, value in environment.items()), "/opt/mlflow/current/bin/python", "-c", (PROGRAMS / program).read_text(), *words]
    return host.check_output("env -C /tmp " + " ".join(["%s"] * len(command)), *command).splitlines()


@pytest.fixture(scope="module")
def webhook(host) -> str:
    """Its id; MLflow was restarted after it and the key of the gateway were stored."""
    deployed(USERS | NETWORK)
    host.run_expect([0], f"systemd-run --quiet --unit=listener python3 -c %s {PORT} /root/asked", (PROGRAMS / "listener.py").read_text())
    *_warnings, webhook = client(host, "keep.py", f"http://127.0.0.1:{PORT}", SECRET)
    host.run_expect([0], "systemctl restart mlflow.service")
    return webhook


def asked(host) -> tuple[dict[str, str], str]:
    """What the listener was asked last: headers and body."""
    request = json.loads(host.check_output("cat /root/asked && rm /root/asked"))
    return {name.lower(): value for name, value in request["headers"].items()}, request["body"]


def test_a_webhook_signs_with_its_secret(host, webhook):
    assert client(host, "tell.py", webhook)[-1] == "200"
    headers, body = asked(host)
    signed = f"{headers['x-mlflow-delivery-id']}.{headers['x-mlflow-timestamp']}.{body}"
    signature = base64.b64encode(hmac.digest(SECRET.encode(), signed.encode(), hashlib.sha256)).decode()
    assert headers["x-mlflow-signature"] == f"v1,{signature}"


def test_the_gateway_uses_its_key(host, webhook):
    question = json.dumps({"messages": [{"role": "user", "content": "?"}]})
    url = "https://mlflow.test/gateway/listener/mlflow/invocations"
    answer = host.check_output(f"{CURL} --header 'Content-Type: application/json' --data %s {url}", question)
    assert json.loads(answer)["choices"][0]["message"]["content"] == "listened"
    assert asked(host)[0]["authorization"] == f"Bearer {SECRET}"


def test_the_constant_of_mlflow_does_not_open_the_key(host, webhook):
    """The passphrase of this host does."""
    question = "SELECT encode(wrapped_dek, 'hex'), kek_version FROM secrets"
    wrapped, version = host.check_output("su postgres -s /bin/sh -c %s", f'psql -XAtd mlflow -F " " -c "{question}"').split()
    (passphrase,) = re.findall('(?m)^MLFLOW_CRYPTO_KEK_PASSPHRASE="(.*)"$', host.file("/etc/mlflow/secrets.env").content_string)
    assert client(host, "unwrap.py", wrapped, version, passphrase)[-2:] == ["closed", "opens"]


def test_judges_that_nobody_runs_are_told(host, webhook):
    warning = "1 judge(s) are set to score new traces"
    assert warning not in deployed(USERS | NETWORK)
    assert client(host, "judge.py")[-1].endswith("STARTED")
    assert warning in deployed(USERS | NETWORK)
