# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: host_addresses
short_description: The IPv4 addresses by which clients reach a host
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Leaves out the addresses of bridges and tunnels that Docker, libvirt, LXD, Kubernetes and others make for what runs on the host itself, since those
    come and go.
  - A bridge that the default route leads over, or that has an interface of the host's own as a port, is none of these.
positional: known
options:
  _input:
    description: The facts of the host, C(ansible_facts) of the subset C(network).
    type: dict
    required: true
  known:
    description: Addresses or names that clients use already. They are not left out where the host still has them.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
names: "{{ ['mlflow.example.com'] + ansible_facts | mlops.mlflow.host_addresses }}"
"""

RETURN = r"""
_value:
  description: The addresses, in the order of the facts.
  type: list
  elements: str
"""

import re
import typing as t

VIRTUAL = re.compile(r"(docker|br-[0-9a-f]{12}|podman|cni|virbr|lxcbr|lxdbr|incusbr|flannel|cali|kube|tunl|nodelocaldns|veth|vnet|tap|lxc)")


def addresses_of(interface: t.Mapping[str, t.Any]) -> set[str]:
    found = [interface.get("ipv4", {}), *interface.get("ipv4_secondaries", [])]
    return {entry["address"] for entry in found if "address" in entry}


def leads_out(name: str, interface: t.Mapping[str, t.Any], default: str) -> bool:
    if name.partition(":")[0] == default:
        return True
    if interface.get("type") == "bridge":
        return any(not VIRTUAL.match(port) for port in interface.get("interfaces", []))
    return not VIRTUAL.match(name)


def host_addresses(facts: t.Mapping[str, t.Any], known: t.Sequence[str] = ()) -> list[str]:
    default = facts.get("default_ipv4", {}).get("interface", "")
    inside: set[str] = set()
    for name in facts.get("interfaces", []):
        interface = facts.get(name.replace("-", "_"), {})
        if not leads_out(name, interface, default):
            inside |= addresses_of(interface)
    return [address for address in facts.get("all_ipv4_addresses", []) if address not in inside or address in known]


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"host_addresses": host_addresses}
