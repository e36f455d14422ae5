# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which addresses of a host are those by which clients reach it."""

from __future__ import annotations

import typing as t

from ansible_collections.mlops.mlflow.plugins.filter.host_addresses import host_addresses


def facts(default: str, **interfaces: dict[str, t.Any]) -> dict[str, t.Any]:
    addresses = [one["ipv4"]["address"] for one in interfaces.values() if "ipv4" in one]
    addresses += [entry["address"] for one in interfaces.values() for entry in one.get("ipv4_secondaries", [])]
    names = [name.replace("_", "-") for name in interfaces]
    return {"interfaces": names, "default_ipv4": {"interface": default}, "all_ipv4_addresses": addresses, **interfaces}


def at(address: str, kind: str = "ether", **more: t.Any) -> dict[str, t.Any]:
    return {"type": kind, "ipv4": {"address": address}, **more}


ETH0 = at("192.0.2.7", ipv4_secondaries=[{"address": "192.0.2.8"}])


def test_bridges_of_what_runs_on_the_host_are_left_out() -> None:
    found = facts(
        "eth0",
        eth0=ETH0,
        docker0=at("172.17.0.1", "bridge", interfaces=["veth12ab"]),
        br_0123456789ab=at("172.18.0.1", "bridge", interfaces=[]),
        virbr0=at("192.168.122.1", "bridge", interfaces=["vnet0"]),
        flannel_1=at("10.42.0.0"),
        wg0=at("10.8.0.1", "unknown"),
        eth1=at("10.0.0.7"),
    )
    assert host_addresses(found) == ["192.0.2.7", "10.8.0.1", "10.0.0.7", "192.0.2.8"]


def test_clients_that_use_an_address_keep_it_while_it_is_there() -> None:
    found = facts("eth0", eth0=ETH0, docker0=at("172.17.0.1", "bridge"))
    assert host_addresses(found, ["mlflow.test", "172.17.0.1", "172.30.0.1"]) == ["192.0.2.7", "172.17.0.1", "192.0.2.8"]


def test_bridges_that_lead_out_count() -> None:
    assert host_addresses(facts("vmbr0", vmbr0=at("192.0.2.7", "bridge", interfaces=["tap100i0"]))) == ["192.0.2.7"]
    assert host_addresses(facts("eth0", eth0=ETH0, br1=at("10.0.0.7", "bridge", interfaces=["eth1", "veth0"]))) == ["192.0.2.7", "10.0.0.7", "192.0.2.8"]


def test_facts_that_say_nothing() -> None:
    assert host_addresses({}) == []
    assert host_addresses({"all_ipv4_addresses": ["192.0.2.7"], "interfaces": ["lo"]}) == ["192.0.2.7"]
