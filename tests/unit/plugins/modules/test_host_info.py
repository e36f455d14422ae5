# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the module tells of this machine. Units need a booted host: molecule asks there."""

from __future__ import annotations

import fcntl
import os
import pwd
from pathlib import Path

import pytest
from ansible_collections.mlops.mlflow.tests.unit.plugins.module_helpers import run


def test_nothing_is_asked() -> None:
    answer = run("host_info")
    assert [answer[name] for name in ("changed", "paths", "users", "locks", "units")] == [False, {}, {}, {}, {}]


def test_paths(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory" / "file").touch()
    os.utime(tmp_path / "directory" / "file", (0, 1.5))
    (tmp_path / "link").symlink_to("nowhere")
    paths = run("host_info", paths=[f"{tmp_path}/*", f"{tmp_path}/*/file", f"{tmp_path}/none"])["paths"]
    assert {path: (found["type"], found["target"]) for path, found in paths.items()} == {
        f"{tmp_path}/directory": ("directory", ""),
        f"{tmp_path}/directory/file": ("file", ""),
        f"{tmp_path}/link": ("link", "nowhere"),
    }
    assert paths[f"{tmp_path}/directory/file"]["modified"] == 1.5


def test_users() -> None:
    me = pwd.getpwuid(0)
    users = run("host_info", users=["root", "nobody there"])["users"]
    assert list(users) == ["root"]
    assert (users["root"]["home"], users["root"]["shell"], users["root"]["group"]) == (me.pw_dir, me.pw_shell, "root")


def test_locks(tmp_path: Path) -> None:
    """As apt takes them."""
    locked, free = tmp_path / "locked", tmp_path / "free"
    free.touch()
    me = Path("/proc/self/comm").read_text().strip()
    with locked.open("w") as lock:
        assert run("host_info", locks=[str(locked)])["locks"] == {}
        fcntl.lockf(lock, fcntl.LOCK_EX)
        assert run("host_info", locks=[str(locked), str(free), "/nowhere"])["locks"] == {str(locked): me}
    assert run("host_info", locks=[str(locked)])["locks"] == {}


@pytest.mark.parametrize("option", ["reads", "reads_at_start"])
@pytest.mark.parametrize("patterns", ["/etc/nginx/*", [1], {}])
def test_what_is_no_list_of_paths_is_refused(option: str, patterns: object) -> None:
    assert run("host_info", **{option: {"nginx.service": patterns}})["msg"] == f"{option} has no list of paths for nginx.service."
