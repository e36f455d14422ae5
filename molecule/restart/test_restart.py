# SPDX-License-Identifier: GPL-3.0-or-later
"""Through a restart and a reload new requests are served at once, and nothing that is under way is cut; a stop ends everything."""

from __future__ import annotations

import base64
import time

import pytest
from conftest import AUTHORITY, CURL, PASSWORD

ARTIFACTS = "/var/lib/mlflow/artifacts"
PIECES = 300
# Sends so many pieces of 64 KiB through the public name, one each second until /root/hurry is there, and prints the status.
UPLOAD = f"""
import http.client, os, ssl, sys, time
name, pieces = sys.argv[1], {PIECES}
connection = http.client.HTTPSConnection("mlflow.test", context=ssl.create_default_context(cafile="{AUTHORITY}"), timeout=600)
connection.putrequest("PUT", "/api/2.0/mlflow-artifacts/artifacts/" + name)
connection.putheader("Authorization", "Basic {base64.b64encode(f"alice:{PASSWORD}".encode()).decode()}")
connection.putheader("Content-Length", str(pieces << 16))
connection.endheaders()
for number in range(pieces):
    connection.send(bytes([number % 256]) * (1 << 16))
    if not os.path.exists("/root/hurry"):
        time.sleep(1)
print(connection.getresponse().status)
"""


@pytest.fixture(autouse=True)
def nothing_is_left(host):
    yield
    host.run("systemctl stop upload.service")
    deadline = time.monotonic() + 20
    while pieces := host.check_output(f"find {ARTIFACTS} -name '.artifact.uploading.*'"):
        assert time.monotonic() < deadline, pieces
        time.sleep(0.5)


def begin(host, name: str) -> None:
    command = "rm -f /root/hurry && systemd-run --quiet --collect --unit=upload --property=StandardOutput=truncate:/root/upload python3 -c %s %s"
    host.run_expect([0], command, UPLOAD, name)
    deadline = time.monotonic() + 20
    while not host.check_output(f"find {ARTIFACTS} -name '.artifact.uploading.*'"):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def under_way(host) -> bool:
    return host.run("systemctl is-active upload.service").stdout.strip() == "active"


def status(host) -> str:
    """Of the upload, which now goes on without pauses."""
    host.run_expect([0], "touch /root/hurry")
    deadline = time.monotonic() + 120
    while under_way(host):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return host.check_output("cat /root/upload")


def ask(host, path: str) -> str:
    """The status through the public name."""
    return host.check_output(f"{CURL} --output /dev/null --write-out '%%{{http_code}}' --max-time 100 https://mlflow.test%s", path)


def processes(host) -> set[str]:
    return set(host.run("pgrep --full 'mlflow_serve.py serve'").stdout.split())


SEARCH = "/api/2.0/mlflow/experiments/search?max_results=1"


@pytest.mark.parametrize("what", ["restart", "reload"])
def test_a_slow_upload_holds_nobody_up_and_is_not_cut(host, what):
    begin(host, f"slow/{what}")
    before = processes(host)
    host.run_expect([0], f"systemctl {what} mlflow.service")
    assert [ask(host, path) for path in (SEARCH, "/version", SEARCH)] == ["200"] * 3
    assert under_way(host), "others were served before it ended"
    assert len(before & processes(host)) == (1 if what == "restart" else 2), "the worker that has the upload, and the main process where it stays"
    assert status(host) == "200"
    assert host.check_output(f"stat --format=%s {ARTIFACTS}/slow/{what}") == str(PIECES << 16)
    time.sleep(3)
    assert len(before & processes(host)) == (0 if what == "restart" else 1)


def test_workers_of_before_stay_in_the_sandbox_and_in_the_account_of_the_service(host):
    begin(host, "slow/account")
    before = processes(host)
    host.run_expect([0], "systemctl restart mlflow.service")
    (old,) = before & processes(host)
    assert host.check_output(f"cat /proc/{old}/cgroup").splitlines()[-1] == "0::/system.slice/mlflow.service"
    new = host.service("mlflow").systemd_properties["MainPID"]
    for line in ("Seccomp", "NoNewPrivs", "CapBnd"):
        assert host.check_output(f"grep {line}: /proc/{old}/status") == host.check_output(f"grep {line}: /proc/{new}/status")
    assert status(host) == "200"


def test_a_second_restart_leaves_no_third_generation(host):
    begin(host, "slow/third")
    first = processes(host)
    host.run_expect([0], "systemctl restart mlflow.service")
    assert first & processes(host)
    host.run_expect([0], "systemctl restart mlflow.service")
    time.sleep(20)
    assert not first & processes(host)
    assert ask(host, SEARCH) == "200"


def test_a_stop_ends_everything(host):
    begin(host, "slow/stop")
    host.run_expect([0], "systemctl restart mlflow.service")
    host.run_expect([0], "systemctl stop mlflow.socket 'mlflow-*.socket'; systemctl stop mlflow.service")
    assert host.run("pgrep --uid mlflow").stdout == ""
    host.run_expect([0], "systemctl start mlflow.service")
    assert ask(host, SEARCH) == "200"


def test_a_crash_leaves_nothing_of_before(host):
    begin(host, "slow/crash")
    before = processes(host)
    host.run_expect([0], "kill -KILL %s", host.service("mlflow").systemd_properties["MainPID"])
    time.sleep(8)
    assert not before & processes(host)
    assert ask(host, SEARCH) == "200"


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_long_lines_and_header_fields_are_answered(host, version):
    """Of an nginx as old as this platform's."""
    long = "x" * 40_000
    run = "run_ids=" + "&run_ids=".join(f"{number:032x}" for number in range(100))
    curl = f"{CURL} --output /dev/null --write-out '%%{{http_code}} %%{{http_version}}' {version} %s --header %s"
    expected = "200 1.1" if version == "--http1.1" else "200 2"
    for path, header in ((f"/ajax-api/2.0/mlflow/metrics/get-history-bulk-interval?metric_key=m&{run}", "x"), (f"{SEARCH}&{long}", "x"), (SEARCH, long)):
        assert host.check_output(curl, f"https://mlflow.test{path}", f"X-Long: {header}") == expected
