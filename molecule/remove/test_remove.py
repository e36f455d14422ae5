# SPDX-License-Identifier: GPL-3.0-or-later
"""What playbooks/remove.yml takes away, what stays, and what a deployment after it finds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from deployment import Run, deploy, deployed, recap
from documentation import documented

PROGRAM = (Path(__file__).parent / "programs" / "run.py").read_text()
# What cannot be made again, and the marks that say whose it is.
STAYS = {
    "/etc/mlflow",
    "/etc/nginx/mlflow",
    "/etc/postgresql/VERSION/main/mlflow.json",
    "/var/lib/mlflow",
    "/var/log/mlflow",
    "/var/log/nginx/mlflow.access.log",
    "/var/log/nginx/mlflow.error.log",
}


def remove(*options: str) -> Run:
    return deploy({}, *options, playbook="playbooks/remove.yml")


def named(host) -> set[str]:
    """Everything that has MLflow in its name, without what is below such a directory."""
    paths = host.check_output("find / -xdev -iname '*mlflow*' -not -path '/root/*' -not -path '/tmp/*' -prune").splitlines()
    return {re.sub("^/etc/postgresql/[0-9]+/", "/etc/postgresql/VERSION/", path) for path in paths}


def client(host, *words: str) -> str:
    environment = (
        "MLFLOW_TRACKING_URI=https://mlflow.test MLFLOW_TRACKING_SERVER_CERT_PATH=/etc/nginx/mlflow/tls/current/ca.pem"
        " MLFLOW_TRACKING_USERNAME=alice MLFLOW_TRACKING_PASSWORD='correct horse battery' MLFLOW_DISABLE_TELEMETRY=true"
    )
    return host.check_output(f"env -C /tmp {environment} /opt/mlflow/current/bin/python -c %s {' '.join(words)}", PROGRAM).splitlines()[-1]


@pytest.fixture(scope="module")
def before(host) -> set[str]:
    return named(host)


@pytest.fixture(scope="module")
def run(host, before) -> str:
    """The id of a run with an artifact, on a server with another site."""
    host.run_expect([0], "DEBIAN_FRONTEND=noninteractive apt-get install --yes nginx")
    host.run_expect([0], "echo 'server { listen 80; server_name shop.test; return 200 shop; }' >/etc/nginx/sites-enabled/shop")
    deployed()
    return client(host, "write")


def test_a_check_shows_what_would_go(host, run):
    shown = remove("--check", "--diff")
    assert shown.returncode == 0, shown.stdout[-3000:]
    assert recap(shown)["changed"] > 0
    assert client(host, "read", run) == "kept"


def test_what_was_deployed_is_removed(host, run, before):
    removed = remove()
    assert removed.returncode == 0, removed.stdout[-3000:]
    assert named(host) - before == STAYS
    assert host.run("ss -Hltn '( sport = :443 or sport = :5000 )'").stdout == ""
    assert host.check_output("systemctl list-units --all --plain --no-legend 'mlflow*'") == ""
    assert host.run("fail2ban-client status mlflow").rc != 0
    assert "443" not in host.check_output("ufw status")
    assert "22/tcp" in host.check_output("ufw status")
    assert "mlflow" not in host.check_output("id www-data")
    for file in "pg_hba.conf", "pg_ident.conf":
        assert "mlflow" not in host.check_output(f"cat /etc/postgresql/*/main/{file}")


def test_what_others_have_goes_on(host, run):
    code = "import urllib.request as u; print(u.urlopen(u.Request('http://127.0.0.1/', headers={'Host': 'shop.test'})).read().decode())"
    assert host.check_output("python3 -c %s", code) == "shop"
    assert host.check_output("runuser -u postgres -- psql -XAtc 'SELECT 1'") == "1"


def test_nothing_is_left_to_remove(host, run):
    again = remove()
    assert again.returncode == 0, again.stdout[-3000:]
    assert recap(again)["changed"] == 0


def test_the_next_deployment_has_the_data(host, run):
    authority = host.file("/etc/nginx/mlflow/tls/selfsigned/ca.pem").content_string
    deployed()
    assert client(host, "read", run) == "kept"
    assert host.file("/etc/nginx/mlflow/tls/selfsigned/ca.pem").content_string == authority


def test_data_goes_by_the_documented_commands(host, run, before):
    assert remove().returncode == 0
    for line in documented("Remove"):
        if not line.startswith("ansible-playbook"):
            host.run_expect([0], "bash -c %s", line)
    assert named(host) == before
    assert host.check_output("runuser -u postgres -- psql -XAtc \"SELECT datname FROM pg_database WHERE datname = 'mlflow'\"") == ""
    assert not host.user("mlflow").exists
