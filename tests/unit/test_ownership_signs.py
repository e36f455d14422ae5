# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers that were deployed before there were marks are known by what only this collection wrote: here are lines of theirs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROLES = Path(__file__).resolve().parents[2] / "roles"
UNIT = """#
# Ansible managed
#
# release: 3.17.2-py3.10-7a47882a
[Service]
User=mlflow
Group=mlflow
EnvironmentFile=/etc/mlflow/mlflow.env
WorkingDirectory=/var/lib/mlflow
# with full rights, outside of the sandbox
ExecStartPre=+/usr/bin/touch /run/mlflow.started
# uploads that a crash left behind
ExecStartPre=/usr/bin/find /var/lib/mlflow/tmp -mindepth 1 -delete
"""
PRELOAD = UNIT + "ExecStart=/opt/mlflow/current/bin/python /opt/mlflow/libexec/mlflow_serve.py\n"
CLI = UNIT + 'ExecStart=/opt/mlflow/current/bin/mlflow server --workers 2 --uvicorn-opts "--uds /run/mlflow/mlflow.sock"\n'
LOCAL = 'MLFLOW_BACKEND_STORE_URI="postgresql+psycopg2://mlflow@/mlflow?host=/var/run/postgresql"\n'
REMOTE = 'MLFLOW_BACKEND_STORE_URI="postgresql+psycopg2://mlflow@db.test:5432/mlflow?sslmode=require&passfile=/etc/mlflow/pgpass"\n'
ANSIBLE = "#\n# Ansible managed\n#\n"
THERE = {"mlflow_home": "/opt/mlflow", "mlflow_data_dir": "/var/lib/mlflow", "mlflow_os_user": "mlflow"}


def found(role: str, texts: dict[str, str]) -> list[dict[str, str]]:
    """What each sign says that is in one of the texts, by the ends of their paths."""
    signs = yaml.safe_load((ROLES / role / "tasks/ownership.yml").read_text())[0]["mlops.mlflow.ownership"]["signs"]
    matches = [re.search(sign["pattern"], text, re.MULTILINE) for sign in signs for end, text in texts.items() if sign["path"].endswith(end)]
    return [match.groupdict() for match in matches if match]


@pytest.mark.parametrize("unit", [PRELOAD, CLI], ids=["preload", "cli"])
@pytest.mark.parametrize("environment", [LOCAL, REMOTE], ids=["local", "remote"])
def test_units_and_environment_are_known(unit, environment):
    said = found("mlflow_systemd", {"mlflow.service": unit, "mlflow.env": environment})
    assert {name: value for part in said for name, value in part.items()} == THERE | {"mlflow_database_name": "mlflow"}


def test_a_tutorial_is_not_taken_for_ours():
    unit = "[Service]\nUser=mlflow\nExecStart=/opt/mlflow/venv/bin/mlflow server --host 0.0.0.0\n"
    assert found("mlflow_systemd", {"mlflow.service": unit, "mlflow.env": "MLFLOW_BACKEND_STORE_URI=postgresql://mlflow@localhost/mlflow\n"}) == []
    assert found("mlflow_venv", {"uv.txt": "uv==0.4.0\n"}) == []
    assert found("mlflow_firewall", {"jail }}": "[mlflow]\nenabled = true\nfilter = nginx-http-auth\nlogpath = /var/log/nginx/error.log\n"}) == []
    assert found("mlflow_postgres", {"pg_hba.conf": "local mlflow mlflow peer\n", "settings_file }}": ANSIBLE + "\nmax_connections = '200'\n"}) == []


def test_the_rest_is_known():
    assert found("mlflow_venv", {"uv.txt": "uv==0.13.9 \\\n    --hash=sha256:16963d\n"}) == [{}]
    assert found("mlflow_nginx", {"mlflow_auth.pm": "package mlflow_auth;\n\n# Remembers\n"}) == [{}]
    jail = f"{ANSIBLE}[mlflow]\nenabled = true\nfilter = nginx-http-auth\nbackend = polling\nlogpath = /var/log/nginx/mlflow.error.log\nport = 443,80\n"
    assert found("mlflow_firewall", {"jail }}": jail}) == [{}]
    hba = "# BEGIN mlops.mlflow\nlocal mlflow mlflow peer map=mlflow\n# END mlops.mlflow\n"
    assert found("mlflow_postgres", {"pg_hba.conf": hba}) == [{"mlflow_database_name": "mlflow"}]
    assert found("mlflow_postgres", {"settings_file }}": ANSIBLE + "\npassword_encryption = 'scram-sha-256'\nshared_buffers = '256MB'\n"}) == [{}]
