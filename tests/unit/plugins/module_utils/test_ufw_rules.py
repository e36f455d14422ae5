# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rules in the words of ufw 0.36, as it wrote them."""

from __future__ import annotations

import ipaddress

import pytest
from ansible_collections.mlops.mlflow.plugins.module_utils.ufw_rules import admits, opened_beside, parse

HERE = "192.0.2.1"
ALL = "0.0.0.0/0"


def rule(action: str, port: str, source: str = ALL, protocol: str = "tcp", rest: str = "in", destination: str = ALL) -> str:
    return f"### tuple ### {action} {protocol} {port} {destination} any {source} {rest}\n-A ufw-user-input -j ACCEPT\n"


@pytest.mark.parametrize(
    "text, admitted",
    [
        ("", False),
        (rule("allow", "22"), True),
        (rule("limit", "22"), True),
        (rule("allow_log", "22"), True),
        (rule("allow", "22", protocol="udp"), False),
        (rule("allow", "22", protocol="any"), True),
        (rule("allow", "2022"), False),
        (rule("allow", "80,22,443"), True),
        (rule("allow", "20:25"), True),
        (rule("allow", "any", "10.20.0.0/16", "any"), True),
        (rule("allow", "22", "10.20.30.40"), True),
        (rule("allow", "22", "10.21.0.0/16"), False),
        (rule("deny", "22", "10.20.30.0/24") + rule("allow", "22"), False),
        (rule("allow", "22") + rule("deny", "22"), True),
        (rule("allow", "22", rest="in_eth1"), False),
        (rule("deny", "22", rest="in_eth1") + rule("allow", "22"), False),
        (rule("allow", "22", rest="out"), False),
        (rule("route:allow", "22", rest="in_eth0!out_eth1"), False),
        (rule("allow", "22", rest="OpenSSH - in"), True),
        (rule("allow", "22", rest="Nginx%20Full - in comment=6d6c6f7073"), True),
        (rule("allow", "22", destination="192.0.2.2"), False),
        (rule("allow", "22", destination="192.0.2.0/24"), True),
        (rule("allow", "22", "::/0", destination="::/0"), False),
    ],
)
def test_who_is_let_in(text: str, admitted: bool) -> None:
    assert admits(parse(text), "10.20.30.40", HERE, 22) == admitted


def test_what_is_let_in_where_no_rule_counts() -> None:
    assert admits([], "10.20.30.40", HERE, 22, default=True)
    assert not admits(parse(rule("deny", "22")), "10.20.30.40", HERE, 22, default=True)


def test_whose_rule_it_is() -> None:
    (found,) = parse(rule("allow", "443", "198.51.100.0/24", rest="in comment=6d6c6f70732e6d6c666c6f77"))
    assert found.comment == "mlops.mlflow"
    assert found.is_for(443, ipaddress.ip_network("198.51.100.0/24"))
    assert not found.is_for(443, ipaddress.ip_network(ALL))


@pytest.mark.parametrize(
    "text, opened",
    [
        (rule("allow", "22", "10.20.0.0/16"), False),
        (rule("allow", "22"), False),
        (rule("allow", "22", "10.20.0.0/16") + rule("allow", "22"), True),
        (rule("limit", "22", "10.20.0.0/16") + rule("allow", "22"), True),
        (rule("allow", "22", "10.20.0.0/16") + rule("limit", "22"), False),
        (rule("allow", "any", "10.20.0.0/16", "any") + rule("allow", "22"), False),
        (rule("allow", "443", "10.20.0.0/16") + rule("allow", "22"), False),
    ],
)
def test_what_is_opened_for_all_beside_rules_for_some(text: str, opened: bool) -> None:
    assert opened_beside(parse(text), 22) == opened
