# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What needs no host; molecule/neighbours tries the rest."""

from __future__ import annotations

from ansible_collections.mlops.mlflow.tests.unit.plugins.module_helpers import run


def test_an_address_that_is_none_is_told() -> None:
    answer = run("firewall_info", comment="example", sources=["192.0.2.0/24", "10.0.0.0/33"])
    assert answer["failed"]
    assert answer["msg"].startswith("sources: '10.0.0.0/33' does not appear to be an IPv4 or IPv6 network: write addresses and networks such as")
