# SPDX-License-Identifier: GPL-3.0-or-later
"""What MLflow could do to its host if somebody took it over: nothing, tried from inside."""

from __future__ import annotations


def test_system_is_read_only(host):
    pid = host.service("mlflow").systemd_properties["MainPID"]
    assert "Read-only file system" in host.run("nsenter --target %s --mount touch /etc/mlflow/planted", pid).stderr
