# SPDX-License-Identifier: GPL-3.0-or-later
"""A firewall and bans that others have set up: SSH is never opened wider than it is, who deploys is not shut out, and what fails is taken back."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import deployment
import pytest
from proxy import PLAYBOOK, ask, deployed, failed, file, refused, unchanged

CLIENT = os.environ["MLFLOW_TEST_CLIENT"]
RELAY = """
import os, socket, sys, threading
to = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def up():
    while data := os.read(0, 65536): to.sendall(data)
    to.shutdown(socket.SHUT_WR)
threading.Thread(target=up, daemon=True).start()
while data := to.recv(65536): os.write(1, data)
"""


def rules(host) -> list[str]:
    """As ufw shows them, without the comments, of IPv4."""
    lines = host.check_output("ufw status").splitlines()
    assert "Status: active" in lines
    return sorted(re.sub(r"\s+", " ", line.partition("#")[0]).strip() for line in lines if re.search("ALLOW|LIMIT|DENY", line) and "(v6)" not in line)


@pytest.fixture(scope="module")
def came_from() -> str:
    command = ["podman", "exec", CLIENT, "ip", "-4", "-o", "addr", "show", "dev", "eth0"]
    return re.search(r"inet ([0-9.]+)/", subprocess.run(command, capture_output=True, text=True, check=True).stdout)[1]


@pytest.fixture(scope="module")
def by_ssh(host, tmp_path_factory) -> dict[str, str]:
    """Variables for a person who comes by SSH from the client host, and has sudo."""
    top = tmp_path_factory.mktemp("ssh")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", top / "key"], check=True)
    host.run_expect([0], "DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends ufw")
    host.run_expect([0], "id person || useradd --create-home --shell /bin/bash person; echo 'person ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/person")
    host.run_expect(
        [0],
        "install -d -o person -m 0700 /home/person/.ssh && echo %s >/home/person/.ssh/authorized_keys && chown -R person /home/person",
        (top / "key.pub").read_text(),
    )
    host.run_expect([0], "systemctl restart ssh")
    relay = top / "relay"
    relay.write_text(f'#!{sys.executable}\nimport os\nos.execvp("podman", {["podman", "exec", "-i", CLIENT, "python3", "-c", RELAY, "mlflow.test", "22"]!r})\n')
    relay.chmod(0o700)
    return {
        "ansible_connection": "ssh",
        "ansible_host": "mlflow.test",
        "ansible_user": "person",
        "ansible_ssh_private_key_file": str(top / "key"),
        "ansible_ssh_common_args": f"-o ProxyCommand={relay} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null",
        "mlflow_firewall": True,
    }


@pytest.fixture(autouse=True)
def ufw(host, by_ssh) -> Iterator[None]:
    """As it comes with its package: off and without a rule."""
    yield
    host.run_expect([0], "ufw --force reset")  # which is refused twice in one second, as what it keeps has that for a name


def test_rules_for_ssh_are_left_alone(host, by_ssh, came_from):
    host.run_expect([0], "ufw allow proto tcp from 192.0.2.0/24 to any port 22")
    sentence = f"would shut out the SSH connection of this run, from {came_from}: allow it first (ufw allow from {came_from} to any port 22 proto tcp)"
    deployment.refused(sentence, by_ssh, playbook=PLAYBOOK)
    assert "inactive" in host.check_output("ufw status")
    host.run_expect([0], "ufw allow from %s to any port 22 proto tcp", came_from)
    deployment.deployed(by_ssh, playbook=PLAYBOOK)
    ssh = ["22/tcp ALLOW 192.0.2.0/24", f"22/tcp ALLOW {came_from}"]
    assert rules(host) == sorted([*ssh, "443/tcp ALLOW Anywhere", "80/tcp ALLOW Anywhere"])
    deployment.unchanged(by_ssh, playbook=PLAYBOOK)
    host.run_expect([0], "ufw allow 22/tcp")  # as an earlier version of this collection did
    sentence = "ufw lets everybody connect to port 22, the port of SSH, beside rules that say who may. If that is not meant, remove the rule: "
    sentence += "ufw delete allow 22/tcp, or ufw delete allow 22"
    assert sentence in deployment.deployed(by_ssh, playbook=PLAYBOOK)
    host.run_expect([0], "ufw delete allow 22/tcp")
    assert Path(host.check_output("ls /etc/ufw/user6.rules")).name and "tcp 22 ::/0" not in host.file("/etc/ufw/user6.rules").content_string


def test_limits_and_what_is_on_already_are_left_alone(host, by_ssh):
    host.run_expect([0], "ufw limit 22/tcp && ufw limit 443/tcp && ufw allow 9999/tcp comment theirs && ufw --force enable")
    deployment.deployed(by_ssh, playbook=PLAYBOOK)
    assert rules(host) == sorted(["22/tcp LIMIT Anywhere", "443/tcp LIMIT Anywhere", "9999/tcp ALLOW Anywhere", "80/tcp ALLOW Anywhere"])


def test_ssh_stays_open_where_nobody_decided(host, by_ssh):
    deployment.deployed(by_ssh, playbook=PLAYBOOK)
    assert rules(host) == sorted(["22/tcp ALLOW Anywhere", "443/tcp ALLOW Anywhere", "80/tcp ALLOW Anywhere"])
    deployment.unchanged(by_ssh, playbook=PLAYBOOK)


def test_addresses_that_may_come_are_those_of_the_firewall(host, by_ssh):
    host.run_expect([0], "ufw allow 22/tcp && ufw --force enable")
    listed = {**by_ssh, "mlflow_allow": ["192.0.2.0/24", "2001:db8::/32"]}
    deployment.deployed(listed, playbook=PLAYBOOK)
    # shop.test is on port 80 too
    assert rules(host) == sorted(["22/tcp ALLOW Anywhere", "443/tcp ALLOW 192.0.2.0/24", "443/tcp ALLOW 2001:db8::/32", "80/tcp ALLOW Anywhere"])
    deployment.unchanged(listed, playbook=PLAYBOOK)
    deployment.deployed({**by_ssh, "mlflow_allow": ["198.51.100.7"]}, playbook=PLAYBOOK)
    assert rules(host) == sorted(["22/tcp ALLOW Anywhere", "443/tcp ALLOW 198.51.100.7", "80/tcp ALLOW Anywhere"])


def test_ports_that_only_the_proxy_has_by_name_are_open(host, by_ssh):
    """The firewall reads the variables of the other role too, with what they are by default."""
    moved = {**by_ssh, "mlflow_nginx_port": 8443, "mlflow_nginx_http_port": 0, "mlflow_nginx_allow": ["192.0.2.0/24"]}
    deployment.deployed(moved, playbook=PLAYBOOK)
    assert rules(host) == sorted(["22/tcp ALLOW Anywhere", "8443/tcp ALLOW 192.0.2.0/24"])
    deployment.deployed(by_ssh, playbook=PLAYBOOK)
    assert rules(host) == sorted(["22/tcp ALLOW Anywhere", "443/tcp ALLOW Anywhere", "80/tcp ALLOW Anywhere"])


def test_a_rule_that_shuts_nginx_out_is_refused(host, by_ssh):
    host.run_expect([0], "ufw deny 443/tcp")
    deployment.refused("ufw has a rule that lets nobody in to port 443: delete it", by_ssh, playbook=PLAYBOOK)


def test_a_firewall_that_does_not_come_up_is_off(host, by_ssh):
    with file(host, "/etc/ufw/before.rules", "*filter\n-A nonsense\nCOMMIT\n"):
        run = deployment.deploy(by_ssh, playbook=PLAYBOOK)
        assert run.returncode != 0 and "ufw could not be enabled, and is off as before" in deployment.said(run), run.stdout[-3000:]
        assert "before.rules" in deployment.said(run)
        assert "inactive" in host.check_output("ufw status")
        assert "### tuple ###" not in host.file("/etc/ufw/user.rules").content_string
        assert "-P INPUT ACCEPT" in host.check_output("iptables -S")


JAIL = "/etc/fail2ban/jail.d/mlflow.conf"
BANS = {"mlflow_fail2ban": True}


def attempts(host) -> str:
    """As the fail2ban that runs counts them."""
    return host.check_output("fail2ban-client get mlflow maxretry")


def left(host) -> str:
    """Files of a run's own, beside the jail."""
    return host.check_output("ls -d /etc/fail2ban/jail.d/mlflow.conf?* /etc/fail2ban/jail.d/.* /tmp/tmp.* 2>/dev/null | grep -v '/[.]*$' || true")


def test_bans_that_fail2ban_refuses_are_taken_back(host):
    host.run_expect([0], "DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends fail2ban python3-systemd")
    with file(host, "/etc/fail2ban/jail.d/theirs.conf", "[theirs]\nenabled = true\nfilter = nowhere\n"):
        failed("Unable to read the filter 'nowhere'", BANS)
        assert not host.file(JAIL).exists
        assert left(host) == ""
    assert ask(host).split()[0] == "401"


def test_a_jail_of_somebody_else_is_refused_or_kept_beside(host):
    host.run_expect([0], f"rm -f /etc/fail2ban/mlflow.json; printf '[mlflow]\nenabled = false\n' >{JAIL}")
    refused(f"{JAIL} was not made by this deployment: move it away", BANS)
    deployed({**BANS, "mlflow_take_over": True})
    assert attempts(host) == "20"
    host.run_expect([0], f"grep -qx 'enabled = false' {JAIL}.2*Z && rm {JAIL}.2*Z")
    unchanged(BANS)


def test_a_jail_that_fail2ban_refuses_leaves_the_one_before(host):
    before = host.file(JAIL).content_string
    with file(host, "/etc/fail2ban/jail.d/theirs.conf", "[theirs]\nenabled = true\nfilter = nowhere\n"):
        failed("Unable to read the filter 'nowhere'", {**BANS, "mlflow_firewall_fail2ban_attempts": 9})
        assert host.file(JAIL).content_string == before
        assert left(host) == ""
    assert attempts(host) == "20"


def test_fail2ban_takes_a_jail_that_was_written_while_it_ran(host):
    """As a run leaves it that was cut off before it restarted fail2ban, and a person who changed it by hand."""
    seven = {**BANS, "mlflow_firewall_fail2ban_attempts": 7}
    deployment.cut_off("mlflow_firewall : Ask whether fail2ban runs with something older", 0, seven, playbook=PLAYBOOK)
    assert "maxretry = 7" in host.file(JAIL).content_string and attempts(host) == "20"
    deployed(seven)
    assert attempts(host) == "7"
    unchanged(seven)
    host.run_expect([0], f"sed -i 's/^maxretry = 7/maxretry = 8/' {JAIL}")
    deployed({**BANS, "mlflow_firewall_fail2ban_attempts": 8})
    assert attempts(host) == "8"


def test_fail2ban_is_not_restarted_with_a_configuration_that_it_refuses(host):
    host.run_expect([0], f"sed -i 's/^maxretry = 8/maxretry = 20/' {JAIL}")
    with file(host, "/etc/fail2ban/jail.d/theirs.conf", "[theirs]\nenabled = true\nfilter = nowhere\n"):
        failed("fail2ban keeps its old configuration, and would not start with the new one", BANS)
        assert attempts(host) == "8"
    deployed(BANS)
    assert attempts(host) == "20"


def test_fail2ban_gets_a_jail_back_that_was_stopped(host):
    host.run_expect([0], "fail2ban-client stop mlflow")
    deployed(BANS)
    assert attempts(host) == "20"
    unchanged(BANS)
