# SPDX-License-Identifier: GPL-3.0-or-later
"""What is off by default: the list of addresses that may come, the firewall, and bans of whoever guesses."""

from __future__ import annotations

import json
import os
import subprocess
import time

import pytest
from attack import CLIENT, DOMAIN, FIGURES, GOOD, HERE, PORT, SCHEME, SERVER, USER, basic, on, python, request
from deployment import recap

INVENTORY = os.environ["MLFLOW_TEST_INVENTORY"]
VERSION = "/version"
ON = {"mlflow_fail2ban": True, "mlflow_firewall_fail2ban_attempts": 6}


def deploy(**variables) -> str:
    command = ["ansible-playbook", str(HERE / "walls.yml"), "--inventory", INVENTORY, "--extra-vars", json.dumps(variables)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "ANSIBLE_FORCE_COLOR": "0"})
    assert run.returncode == 0, (run.stdout + run.stderr)[-3000:]
    return run.stdout


@pytest.fixture(scope="module")
def own() -> str:
    return on(CLIENT, "sh", "-c", "ip -4 -o addr show dev eth0 | sed -n '1s/.* inet //; 1s/ .*//p'").strip()


@pytest.fixture(scope="module")
def other(own) -> str:
    """Another address of the client."""
    address, length = own.split("/")
    more = f"{address.rsplit('.', 1)[0]}.222"
    on(CLIENT, "ip", "addr", "add", f"{more}/{length}", "dev", "eth0")
    yield more
    on(CLIENT, "ip", "addr", "del", f"{more}/{length}", "dev", "eth0")


@pytest.fixture(scope="module", autouse=True)
def walls(own):
    # SSH on a port that nobody told the role, and a service that is nobody's business.
    on(
        SERVER,
        "sh",
        "-ec",
        "DEBIAN_FRONTEND=noninteractive apt-get install --yes curl >/dev/null; echo Port 2022 >/etc/ssh/sshd_config.d/port.conf; systemctl restart ssh",
    )
    on(SERVER, "sh", "-c", ": >/var/log/nginx/mlflow.error.log")  # fail2ban would read of the tests before
    on(SERVER, "systemd-run", "--quiet", "--unit=elsewhere", "--collect", "python3", "-m", "http.server", "8099")
    out = deploy(mlflow_allow=[own.split("/")[0], "192.0.2.0/24"], **ON)
    assert recap(out)["changed"] > 0
    yield
    deploy()
    on(
        SERVER,
        "sh",
        "-ec",
        "ufw disable; systemctl stop elsewhere; systemctl disable --now fail2ban; rm /etc/ssh/sshd_config.d/port.conf; systemctl restart ssh",
    )


def from_(address: str, raw: str, count: int = 1) -> list[int]:
    group = {"count": 1, "sources": [address], "requests": [raw] * count, "pause": 0.2}
    return [status for status, *_rest in json.loads(python(CLIENT, "flood.py", DOMAIN, PORT, SCHEME, data=json.dumps([group])))[0]]


def test_only_listed_addresses_may_come(own, other):
    listed = own.split("/")[0]
    for path in (VERSION, "/health", "/"):
        assert from_(other, request("GET", path, GOOD, "Connection: close")) == [403]
        assert from_(other, request("GET", path, "Connection: close")) == [403]
    assert from_(listed, request("GET", VERSION, GOOD, "Connection: close")) == [200]
    assert from_(listed, request("GET", "/health", "Connection: close")) == [200]
    claims = [request("GET", VERSION, GOOD, f"{name}: {listed}", "Connection: close") for name in ("X-Forwarded-For", "X-Real-IP", "Forwarded", "X-Client-IP")]
    assert [from_(other, claim) for claim in claims] == [[403]] * 4
    here = ["curl", "--silent", "--insecure", "--output", "/dev/null", "--write-out", "%{http_code}", "--resolve", f"{DOMAIN}:{PORT}:127.0.0.1"]
    assert on(SERVER, *here, f"{SCHEME}://{DOMAIN}:{PORT}/health") == "200", "the server itself may always"


def test_whoever_goes_on_guessing_is_banned(own, other):
    """With the firewall of the kernel: not even a connection is had."""
    deadline = time.monotonic() + 60
    while on(SERVER, "fail2ban-client", "get", "mlflow", "banip").split() == []:
        assert time.monotonic() < deadline, on(SERVER, "fail2ban-client", "status", "mlflow")
        from_(own.split("/")[0], request("GET", VERSION, basic(USER, "wrong@"), "Connection: close"), 4)
    banned = on(SERVER, "fail2ban-client", "get", "mlflow", "banip").split()
    assert banned == [own.split("/")[0]]
    time.sleep(2)
    assert from_(own.split("/")[0], request("GET", VERSION, GOOD, "Connection: close")) == [0]
    assert from_(other, request("GET", VERSION, "Connection: close")) == [403], "others are not"
    on(SERVER, "fail2ban-client", "set", "mlflow", "unbanip", *banned)
    assert from_(own.split("/")[0], request("GET", VERSION, GOOD, "Connection: close"))[0] in (200, 429)
    FIGURES.append("fail2ban: banned after 6 wrong passwords, its connections refused by the kernel; unbanned and in again")


def test_firewall_leaves_ssh_and_nginx_open(own, other):
    """Nginx to who may come, and SSH to all: nobody had made a rule for it."""
    listed = own.split("/")[0]
    walls = {"mlflow_allow": [listed, "192.0.2.0/24"], "mlflow_firewall": True, **ON}
    deploy(**walls)
    out = deploy(**walls)
    assert recap(out)["changed"] == 0, out[-3000:]
    rules = on(SERVER, "ufw", "status")
    assert "Status: active" in rules
    assert {tuple(rule.split()[:3:2]) for rule in rules.splitlines() if "ALLOW" in rule and "(v6)" not in rule} == {
        ("2022/tcp", "Anywhere"),
        *((f"{port}/tcp", source) for port in (80, 443) for source in (listed, "192.0.2.0/24")),
    }
    assert on(SERVER, "sh", "-c", "ss -Hltn sport = :8099") != ""
    assert python(CLIENT, "knock.py", listed, DOMAIN, PORT, "2022", "8099").split() == ["open", "open", "closed"]
    assert python(CLIENT, "knock.py", other, DOMAIN, PORT, "2022", "8099").split() == ["closed", "open", "closed"]
