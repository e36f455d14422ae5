# SPDX-License-Identifier: GPL-3.0-or-later
"""What a mistake broke on a server, the next run of the site repairs: all at once, as a run takes half a minute."""

from __future__ import annotations

import pytest
from deployment import deploy, deployed, said, unchanged

SOCKETS = "mlflow.socket"


@pytest.fixture(scope="module")
def release(host) -> str:
    return host.check_output("readlink /opt/mlflow/current")


@pytest.fixture(scope="module")
def repaired(host, release) -> str:
    """What the run said."""
    cluster = f"postgresql@{host.check_output('ls /etc/postgresql')}-main.service"
    host.run_expect([0], f"systemctl stop {cluster} && systemctl mask {cluster} postgresql.service")
    host.run_expect([0], f"rm -r {release}/lib/python*/site-packages/alembic")
    # as a build leaves it that the disk had no space for
    host.run_expect([0], "mkdir -p /opt/mlflow/releases/3.0.0-py3.10-01234567/lib && fallocate -l 200M /opt/mlflow/releases/3.0.0-py3.10-01234567/lib/half")
    host.run_expect([0], f"systemctl stop {SOCKETS} mlflow.service")
    for socket in SOCKETS.split():
        host.run_expect([0], f"ln -sf /dev/null /etc/systemd/system/{socket}")
    host.run_expect([0], "systemctl daemon-reload && chmod 700 /opt/mlflow && chown nobody /opt/mlflow/releases")
    assert host.run("systemctl start mlflow.service").rc != 0
    return deployed()


def test_the_site_repairs_what_is_broken(repaired):
    assert "MLflow is ready: https://mlflow.test" in repaired


def test_a_cluster_that_is_masked_runs_again(host, repaired):
    host.run_expect([0], "runuser -u postgres -- psql -c 'SELECT 1'")
    host.run_expect([0], "systemctl is-enabled postgresql.service")


def test_a_release_that_lacks_files_is_built_anew_beside_it(host, repaired, release):
    now = host.check_output("readlink /opt/mlflow/current")
    assert now != release
    host.run_expect([0], f"ls {now}/lib/python*/site-packages/alembic/__init__.py")


def test_a_build_that_was_cut_off_is_removed(host, repaired):
    assert not host.file("/opt/mlflow/releases/3.0.0-py3.10-01234567").exists


def test_sockets_that_were_masked_listen_again(host, repaired):
    for socket in SOCKETS.split():
        host.run_expect([0], f"systemctl is-active {socket}")
        assert host.file(f"/etc/systemd/system/{socket}").is_file
        assert not host.file(f"/etc/systemd/system/{socket}").is_symlink


def test_the_user_reaches_the_programs_again(host, repaired):
    host.run_expect([0], "runuser -u mlflow -- test -x /opt/mlflow/current/bin/python")
    assert host.file("/opt/mlflow/releases").user == "root"


def test_the_run_after_changes_nothing(repaired):
    unchanged()


def test_a_start_that_fails_tells_what_mlflow_said(repaired):
    wrong = {"MLFLOW_SQLALCHEMYSTORE_POOLCLASS": "NoSuchPool"}
    run = deploy({"mlflow_systemd_environment": wrong, "mlflow_systemd_start_timeout": 40})
    assert run.returncode != 0
    assert "MLflow's journal ends with:" in said(run)
    assert "NoSuchPool" in said(run)
    deployed()
