# SPDX-License-Identifier: GPL-3.0-or-later
"""Links among the artifacts, planted by whoever took over MLflow: nginx may read what MLflow may not, and sends none of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from attack import GOOD, PROGRAMS, SERVER, on, request, send, statuses

ROUTE = "/api/2.0/mlflow-artifacts/artifacts"
ARTIFACTS = "/var/lib/mlflow/artifacts"
SECRETS = {"password": "/etc/nginx/mlflow.htpasswd", "dump": "/var/lib/mlflow-links-dump"}
MARK = "a dump of the database"


@pytest.fixture(scope="module", autouse=True)
def links() -> Iterator[None]:
    """To files that nginx may read and MLflow may not, and to their directory."""
    on(SERVER, "sh", "-ec", f"echo '{MARK}' >{SECRETS['dump']}; chown root:www-data {SECRETS['dump']}; chmod 0640 {SECRETS['dump']}")
    plant = f"mkdir -p {ARTIFACTS}/0/links && cd {ARTIFACTS}/0/links && echo artifact >plain && ln -s /etc/nginx directory && ln -s plain inner"
    plant += "".join(f" && ln -s {path} {name}" for name, path in SECRETS.items())
    on(SERVER, "runuser", "-u", "mlflow", "--", "sh", "-ec", plant)
    yield
    on(SERVER, "rm", "-r", f"{ARTIFACTS}/0/links", SECRETS["dump"])


def get(path: str) -> str:
    return send([request("GET", path, GOOD, "Connection: close")])[0]


def test_mlflow_sends_none():
    assert get(f"{ROUTE}/0/links/plain").endswith("artifact\n")
    for name in (*SECRETS, "directory/mlflow.htpasswd", "inner"):
        answer = get(f"{ROUTE}/0/links/{name}")
        assert statuses(answer)[0] >= 400, name
        assert MARK not in answer and "mlflow:$" not in answer


def test_nginx_sends_none_when_mlflow_names_it():
    """As a program in MLflow's place would, on MLflow's own socket."""
    code = (PROGRAMS / "imposter.py").read_text()
    on(SERVER, "systemd-run", "--quiet", "--unit=imposter", "--collect", "python3", "-c", code, "/run/mlflow/mlflow.sock")
    try:
        on(SERVER, "sh", "-c", "until test -S /run/mlflow/mlflow.sock; do sleep 0.1; done")
        assert get(f"{ROUTE}/0/links/plain").endswith("artifact\n")
        for name in (*SECRETS, "directory/mlflow.htpasswd", "inner"):
            answer = get(f"{ROUTE}/0/links/{name}")
            assert statuses(answer)[0] in (403, 404), name
            assert MARK not in answer and "mlflow:$" not in answer
    finally:
        on(SERVER, "sh", "-c", "systemctl stop imposter; mv /run/mlflow/mlflow.sock.aside /run/mlflow/mlflow.sock")
