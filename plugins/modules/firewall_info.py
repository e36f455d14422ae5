#!/usr/bin/python
# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: firewall_info
short_description: Ask what ufw lets in, and whether it would shut out who asks
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Reads the rules of ufw, also where it is off or not installed, and tells which are to be added and removed for some ports to be open.
  - Tells which ports SSH has, and whether the connection by which this module came would be let in once ufw is on.
extends_documentation_fragment:
  - mlops.mlflow.attributes
  - mlops.mlflow.attributes.info
options:
  ports:
    description: The TCP ports that are to be open.
    type: list
    elements: int
    default: []
  sources:
    description: The addresses and networks that they are open for; empty for all.
    type: list
    elements: str
    default: []
  shared:
    description: Ports that are open for all whatever O(sources) says.
    type: list
    elements: int
    default: []
  comment:
    description: The comment by which the rules for these ports are known. Rules with another one or none are left alone.
    type: str
    required: true
notes:
  - Needs root.
"""

EXAMPLES = r"""
- name: Ask what ufw lets in
  mlops.mlflow.firewall_info:
    ports: [443]
    sources: [192.0.2.0/24]
    comment: example
  register: firewall

- name: Add what is missing
  community.general.ufw:
    rule: allow
    proto: tcp
    to_port: "{{ item.port }}"
    from_ip: "{{ item.source }}"
    comment: example
  loop: "{{ firewall.missing }}"
"""

RETURN = r"""
active:
  description: Whether ufw is on.
  returned: always
  type: bool
problem:
  description: Why ufw could not be used on this host; empty where it could.
  returned: always
  type: str
ssh_ports:
  description: The ports that sshd is told to listen on, that systemd listens on for it, and that somebody is logged in by.
  returned: always
  type: list
  elements: int
ssh_missing:
  description: The rules that SSH needs before ufw is turned on; none where it is on, or where there is a rule for one of RV(ssh_ports).
  returned: always
  type: list
  elements: dict
  sample: [{port: 22, source: any}]
ssh_opened:
  description: Those of RV(ssh_ports) that one rule opens for all beside other rules that say who may come.
  returned: always
  type: list
  elements: int
  sample: [22]
came_by:
  description: The address of the client, and address and port of the server, of the SSH connection that this module came by; empty where it came by none.
  returned: always
  type: dict
  sample: {address: 192.0.2.9, server: 198.51.100.7, port: 22}
admitted:
  description: Whether that connection will be let in, with RV(ssh_missing).
  returned: always
  type: bool
missing:
  description: The rules that are to be added; their source is V(any) or a network.
  returned: always
  type: list
  elements: dict
  sample: [{port: 443, source: any}]
stale:
  description: The rules with this comment that are to be removed.
  returned: always
  type: list
  elements: dict
  sample: [{port: 8443, source: any}]
denied:
  description: Those ports for which there is a rule to let nobody in.
  returned: always
  type: list
  elements: int
wider:
  description: Those ports that rules without this comment open for all, though they are to be open for some.
  returned: always
  type: list
  elements: int
"""

import ipaddress
import os
import re
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mlops.mlflow.plugins.module_utils.ufw_rules import Network, admits, opened_beside, parse

NET_ADMIN = 12
EVERYBODY = [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]


def text_of(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def ancestors() -> set[str]:
    """The numbers of the processes above this one."""
    found = set()
    process = str(os.getppid())
    while process and process not in found:
        found.add(process)
        fields = text_of(f"/proc/{process}/stat").rpartition(")")[2].split()
        process = fields[1] if fields else ""
    return found


def host_and_port(words: str) -> tuple[str, int]:
    """As in 192.0.2.1:22, [::ffff:192.0.2.1]:22 or [fe80::1%eth0]:22."""
    host, _colon, port = words.rpartition(":")
    return re.sub(r"^::ffff:(?=[0-9.]+$)|%.*", "", host.strip("[]")), int(port)


def ask_ssh(module: AnsibleModule) -> tuple[set[int], list[dict[str, t.Any]]]:
    """The ports of SSH, and the connection that this process came by: the one that a process above it holds.

    In a container whose root may not see who holds a connection, each that nobody is known to hold may be it.
    """

    def lines(*command: str) -> list[str]:
        program = module.get_bin_path(command[0], opt_dirs=["/usr/sbin"])
        return module.run_command([program, *command[1:]])[1].splitlines() if program else []

    ports = {int(line.split()[1]) for line in lines("sshd", "-T") if line.startswith("port ")}
    units = "\n".join(lines("systemctl", "show", "ssh.socket", "sshd.socket", "--property=ActiveState,Listen,UnitFileState")).split("\n\n")
    for unit in units:
        if re.search("^(ActiveState=active|UnitFileState=enabled)$", unit, re.MULTILINE):
            ports |= {int(port) for port in re.findall(r"(?:=|:)([0-9]+) \(Stream\)", unit)}
    sockets = lines("ss", "--no-header", "--numeric", "--tcp", "--processes", "state", "listening", "state", "established")
    ports |= {host_and_port(line.split()[3])[1] for line in sockets if re.search(r'"sshd(-session)?"', line)}
    mine, anybodys = [], []
    above = ancestors()
    for state, _received, _sent, here, there, *holders in map(str.split, sockets):
        server, port = host_and_port(here)
        if state == "ESTAB" and port in ports:
            connection = {"address": host_and_port(there)[0], "server": server, "port": port}
            if not holders:
                anybodys.append(connection)
            elif above & set(re.findall(r"pid=([0-9]+)", holders[0])):
                mine.append(connection)
    return ports, mine or anybodys


def shown(port: int, network: Network) -> dict[str, int | str]:
    return {"port": port, "source": str(network) if network.prefixlen else "any"}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "ports": {"type": "list", "elements": "int", "default": []},
            "sources": {"type": "list", "elements": "str", "default": []},
            "shared": {"type": "list", "elements": "int", "default": []},
            "comment": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    comment = module.params["comment"]
    try:
        allowed = [ipaddress.ip_network(source) for source in module.params["sources"]]
    except ValueError as error:
        module.fail_json(msg=f"sources: {error}: write addresses and networks such as 203.0.113.7, 203.0.113.0/24 or 2001:db8::/32.")
    rules = {4: parse(text_of("/etc/ufw/user.rules")), 6: parse(text_of("/etc/ufw/user6.rules"))}
    every = rules[4] + rules[6]

    problem, active = "", False
    ufw = module.get_bin_path("ufw", opt_dirs=["/usr/sbin"])
    capabilities = re.search(r"^CapEff:\s*(\w+)", text_of("/proc/self/status"), re.MULTILINE)
    if not capabilities or not int(capabilities[1], 16) & 1 << NET_ADMIN:
        problem = "no right to change the firewall of this host, as in many containers"
    elif ufw:
        code, out, err = module.run_command([ufw, "status"])
        active = "Status: active" in out
        problem = (err or out).strip() if code else ""

    ssh_ports, connections = ask_ssh(module)
    ssh_ruled = any(rule.covers(port) for rule in every for port in ssh_ports)
    open_by_default = re.search(r"^DEFAULT_INPUT_POLICY=\"?ACCEPT", text_of("/etc/default/ufw"), re.MULTILINE) is not None
    shut_out = [
        one
        for one in connections
        if ssh_ruled and not admits(rules[ipaddress.ip_address(one["address"]).version], one["address"], one["server"], one["port"], open_by_default)
    ]

    ipv6 = re.search(r"^IPV6=\"?no", text_of("/etc/default/ufw"), re.MULTILINE | re.IGNORECASE) is None
    missing, denied, wider, wanted = [], [], [], set()
    for port in module.params["ports"]:
        sources = [] if port in module.params["shared"] else allowed
        wanted |= {(port, source) for source in sources or EVERYBODY}
        for source in sources or EVERYBODY[:1]:  # of which ufw makes both rules
            if (source.version == 4 or ipv6) and not any(rule.is_for(port, source) for rule in every):
                missing.append(shown(port, source))
        for rule in every:
            if any(rule.is_for(port, everybody) for everybody in EVERYBODY):
                if rule.action in ("deny", "reject"):
                    denied.append(port)
                elif sources and rule.comment != comment:
                    wider.append(port)
    stale = [
        shown(int(rule.ports), rule.source)
        for rule in every
        if rule.comment == comment and rule.ports.isdigit() and (int(rule.ports), rule.source) not in wanted
    ]
    module.exit_json(
        changed=False,
        active=active,
        problem=problem,
        ssh_ports=sorted(ssh_ports),
        ssh_missing=[] if active or ssh_ruled else [shown(port, EVERYBODY[0]) for port in sorted(ssh_ports)],
        ssh_opened=[port for port in sorted(ssh_ports) if any(opened_beside(rules[version], port) for version in rules)],
        came_by=(shut_out + connections + [{}])[0],
        admitted=not shut_out,
        missing=missing,
        stale=[rule for number, rule in enumerate(stale) if rule not in stale[:number]],
        denied=sorted(set(denied)),
        wider=sorted(set(wider)),
    )


if __name__ == "__main__":
    main()
