# SPDX-License-Identifier: GPL-3.0-or-later
"""What MLflow could do to its host if somebody took it over: nothing, tried from inside its sandbox."""

from __future__ import annotations

import re

import pytest

PROBE = "/run/systemd/system/mlflow-probe.service"


@pytest.fixture(scope="module")
def inside(host):
    """Runs a command as MLflow's unit would, as a unit that differs in nothing but what it starts."""
    lines = host.check_output("systemctl cat mlflow.service").splitlines()
    kept = [line for line in lines if not re.match("Exec|Type=|Sockets=|Requires=|Restart|RuntimeDirectory|WantedBy=", line)]

    def run(command: str) -> str:
        service = f'[Service]\nType=oneshot\nExecStart=/bin/sh -c "{command}"\nStandardOutput=truncate:/run/mlflow-probe\nStandardError=inherit\n'
        host.run_expect([0], "printf %%s %s >%s && systemctl daemon-reload", "\n".join(kept) + "\n" + service, PROBE)
        host.run("systemctl start mlflow-probe.service")
        return host.check_output("cat /run/mlflow-probe").strip()

    yield run
    host.run_expect([0], "rm -f %s /run/mlflow-probe && systemctl daemon-reload", PROBE)


def test_probe_is_mlflow(inside):
    assert inside("id -un").splitlines() == ["mlflow"]


def test_system_is_read_only(inside):
    assert "Read-only file system" in inside("touch /etc/planted")
