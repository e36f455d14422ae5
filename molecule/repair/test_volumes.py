# SPDX-License-Identifier: GPL-3.0-or-later
"""The database on a volume that is mounted after boot, as with nofail."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from deployment import refused, unchanged

DATABASE = Path(__file__).parent / "database.yml"
MOUNT, VOLUME = "/var/lib/postgresql", "/srv/volume"
ANSWERS = "runuser -u postgres -- psql -XAtc 'SELECT 1' mlflow"


@pytest.fixture(scope="module")
def away(host) -> str:
    """The host has restarted without its volume; returns the cluster's unit."""
    unit = f"postgresql@{host.check_output('ls /etc/postgresql')}-main.service"
    host.run_expect([0], f"systemctl stop {unit} && mv {MOUNT} {VOLUME} && mkdir {MOUNT}")
    host.run_expect([0], f"echo '{VOLUME} {MOUNT} none bind,nofail 0 0' >>/etc/fstab && mv {VOLUME} {VOLUME}.away && touch {VOLUME}")
    subprocess.run(["podman", "restart", os.environ["MLFLOW_TEST_SERVER"]], check=True, capture_output=True)
    host.run("systemctl is-system-running --wait")
    return unit


def test_the_database_does_not_start_without_its_volume(host, away):
    assert host.run(f"systemctl is-active {away}").rc != 0
    assert host.run(ANSWERS).rc != 0


def test_a_run_without_the_volume_writes_nothing_below_its_mount_point(host, away):
    refused(f"PostgreSQL's data lies on volumes of /etc/fstab that are not mounted: {MOUNT}; mount them first.", playbook=DATABASE)
    assert host.check_output(f"find {MOUNT} -mindepth 1") == ""


def test_the_database_starts_once_its_volume_is_mounted(host, away, until):
    host.run_expect([0], f"rm {VOLUME} && mv {VOLUME}.away {VOLUME} && mount {MOUNT}")
    until(ANSWERS)
    unchanged(playbook=DATABASE)
