# SPDX-License-Identifier: GPL-3.0-or-later
"""The texts; molecule/repair tries them with PostgreSQL."""

from __future__ import annotations

import pytest
from ansible_collections.mlops.mlflow.plugins.modules.postgres_config_check import with_block, words

OLD = "# BEGIN mlops.mlflow\nold\n# END mlops.mlflow\n"
NEW = "# BEGIN mlops.mlflow\nnew\n# END mlops.mlflow\n"


@pytest.mark.parametrize(
    ("before", "first", "after"),
    [
        ("", True, NEW),
        ("theirs\n", True, NEW + "theirs\n"),
        ("theirs\n", False, "theirs\n" + NEW),
        ("theirs", False, "theirs\n" + NEW),
        (f"theirs\n{OLD}more\n", True, f"theirs\n{NEW}more\n"),
        (f"{NEW}theirs\n", True, f"{NEW}theirs\n"),
        (f"theirs\n{OLD}".rstrip(), False, f"theirs\n{NEW}"),
    ],
)
def test_a_block_is_replaced_where_it_stands(before, first, after):
    assert with_block(before, ["new"], first) == after


def test_a_backslash_stays_one():
    assert with_block(OLD, [r"a\1b"], True) == OLD.replace("old", r"a\1b")


def test_what_postgresql_says_is_told_without_what_is_usual():
    log = (
        "LOG:  starting PostgreSQL 14.24\n"
        '2026-11-27 18:20:42.764 GMT [4958] LOG:  unrecognized configuration parameter "x" in file "/var/tmp/t/etc/a.conf" line 1\n'
        "FATAL:  it contains errors\nLOG:  database system is shut down\n"
    )
    told = 'unrecognized configuration parameter "x" in file "/etc/postgresql/14/main/a.conf" line 1; it contains errors'
    assert words(log, "/var/tmp/t/etc", "/etc/postgresql/14/main") == told
