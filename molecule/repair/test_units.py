# SPDX-License-Identifier: GPL-3.0-or-later
"""What systemd tells of a unit that runs with something older than what is written."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

UNIT = "/etc/systemd/system/probe.service"
READ, AT_START = "/etc/probe/read.conf", "/etc/probe/start.env"
# Forks as PostgreSQL and nginx do, once it has been up for a second; its reload fails where a file says so.
TEXT = """[Service]
Type=forking
ExecStart=/bin/sh -c 'sleep 1; sleep infinity &'
ExecReload=/usr/bin/test ! -e /run/probe-fails
"""


def ask() -> dict:
    question = {"reads": {"probe.service": ["/etc/probe/*.conf"]}, "reads_at_start": {"probe.service": [AT_START]}}
    words = ["ansible", os.environ["MLFLOW_TEST_SERVER"], "--inventory", os.environ["MLFLOW_TEST_INVENTORY"], "-m", "mlops.mlflow.host_info"]
    environment = {**os.environ, "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"}
    run = subprocess.run([*words, "-a", json.dumps(question)], env=environment, capture_output=True, text=True, check=True)
    return json.loads(run.stdout.partition(" => ")[2])["units"]["probe.service"]


@pytest.fixture(autouse=True)
def probe(host):
    host.run_expect([0], f'mkdir /etc/probe && echo a >{READ} && echo a >{AT_START} && printf %s "{TEXT}" >{UNIT}')
    host.run_expect([0], "systemctl daemon-reload && systemctl start probe.service")
    yield
    host.run_expect([0], f"systemctl stop probe.service; rm -rf {UNIT} /etc/probe /run/probe-fails && systemctl daemon-reload")


def test_a_reload_reads_what_is_read_again(host):
    found = ask()
    assert found["active"]
    assert (found["read"], found["newer"]) == (found["started"], [])
    assert 0 < float(host.check_output("date +%s.%N")) - found["started"] < 60
    host.run_expect([0], f"touch -d 2001-01-01 {READ} {AT_START}")
    assert ask()["newer"] == [READ, AT_START]
    host.run_expect([0], "systemctl reload probe.service")
    found = ask()
    assert found["newer"] == [AT_START]
    assert found["read"] > found["started"]
    # where systemd forgets when ExecReload= ran
    host.run_expect([0], "systemctl daemon-reload && systemctl daemon-reexec")
    assert ask()["newer"] == [AT_START]
    host.run_expect([0], "systemctl restart probe.service")
    assert ask()["newer"] == []


def test_a_reload_that_fails_reads_nothing(host):
    host.run_expect([0], f"echo b >{READ} && touch /run/probe-fails")
    host.run_expect([1], "systemctl reload probe.service")
    assert ask()["newer"] == [READ]
    host.run_expect([0], "rm /run/probe-fails && systemctl reload probe.service")
    assert ask()["newer"] == []


def test_what_is_written_while_a_unit_starts_is_newer(host):
    host.run_expect([0], f"(sleep 0.5; echo b >{READ}) & systemctl restart probe.service && wait")
    assert ask()["newer"] == [READ]


def test_a_unit_that_does_not_run_has_nothing_older(host):
    host.run_expect([0], f"systemctl stop probe.service && echo b >{READ}")
    found = ask()
    assert (found["active"], found["started"], found["read"], found["newer"]) == (False, 0, 0, [])
