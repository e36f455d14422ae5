# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads the rules that ufw keeps, and says whom they let in."""

from __future__ import annotations

import dataclasses
import ipaddress
import typing as t

Network = t.Union[ipaddress.IPv4Network, ipaddress.IPv6Network]
MARK = "### tuple ### "


@dataclasses.dataclass(frozen=True)
class Rule:
    """A rule for what comes in."""

    action: str  # allow, limit, deny or reject
    protocol: str  # tcp, udp, ... or any
    ports: str  # as ufw writes them: 22 or 80,443 or 8000:8100 or any
    destination: Network
    source: Network
    narrowed: bool  # to an interface or a source port
    comment: str

    def covers(self, port: int) -> bool:
        """Whether it is about a TCP port, whoever comes from wherever."""
        if self.protocol not in ("tcp", "any"):
            return False
        if self.ports == "any":
            return True
        ranges = [[int(end) for end in part.split(":")] for part in self.ports.split(",")]
        return any(ends[0] <= port <= ends[-1] for ends in ranges)

    def is_for(self, port: int, source: Network) -> bool:
        """Whether it is about this port and source and no other, so that ufw takes another action for them as a change of it."""
        anywhere = not self.destination.prefixlen and not self.narrowed
        return anywhere and self.protocol in ("tcp", "any") and self.ports == str(port) and self.source == source


def parse(text: str) -> list[Rule]:
    """The rules of user.rules or user6.rules, in their order."""
    rules = []
    for line in text.splitlines():
        if not line.startswith(MARK):
            continue
        words = line[len(MARK) :].split()
        comment = bytes.fromhex(words.pop()[len("comment=") :]).decode(errors="replace") if words[-1].startswith("comment=") else ""
        action, protocol, ports, destination, source_port, source = words[:6]
        direction = words[-1]
        if action.startswith("route:") or not direction.startswith("in"):
            continue
        rules.append(
            Rule(
                action=action.partition("_")[0],
                protocol=protocol,
                ports=ports,
                destination=ipaddress.ip_network(destination, strict=False),
                source=ipaddress.ip_network(source, strict=False),
                narrowed=direction != "in" or source_port != "any",
                comment=comment,
            )
        )
    return rules


def admits(rules: list[Rule], client: str, server: str, port: int, default: bool = False) -> bool:
    """Whether the first rule that counts for a connection lets it in. What may depend on more than the two addresses is taken for a no."""
    addresses = [ipaddress.ip_address(address) for address in (client, server)]
    for rule in rules:
        if rule.source.version != addresses[0].version or not rule.covers(port):
            continue
        if addresses[0] in rule.source and addresses[1] in rule.destination:
            if rule.action in ("deny", "reject"):
                return False
            if not rule.narrowed:
                return True
    return default


def opened_beside(rules: list[Rule], port: int) -> bool:
    """Whether one rule lets everybody in to a port beside others that say who may come."""
    about = [rule for rule in rules if rule.action in ("allow", "limit") and rule.covers(port)]
    everybody = [rule for rule in about if rule.action == "allow" and rule.is_for(port, rule.source) and not rule.source.prefixlen]
    return bool(everybody) and any(rule.source.prefixlen and rule.ports != "any" for rule in about)
