# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the module does to real files."""

from __future__ import annotations

import grp
import os
import pwd
import stat
import typing as t
from pathlib import Path

import pytest
from ansible_collections.mlops.mlflow.tests.unit.plugins.module_helpers import run

MINE = {"owner": pwd.getpwuid(os.geteuid()).pw_name, "group": grp.getgrgid(os.getegid()).gr_name}


def write(*entries: dict[str, t.Any], check: bool = False, **options: str) -> dict[str, t.Any]:
    return run("write_files", check=check, entries=[{**MINE, **entry} for entry in entries], **options)


def look(directory: Path) -> dict[str, tuple]:
    return {
        str(path.relative_to(directory)): (
            os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None,
            path.lstat().st_mode,
            path.lstat().st_ino,
            path.lstat().st_mtime_ns,
        )
        for path in sorted(directory.rglob("*"))
    }


def four_ways(directory: Path, *entries: dict[str, t.Any]) -> dict[str, t.Any]:
    """Check, do, check again and do again; return what doing it answered."""
    before = look(directory)
    checked = write(*entries, check=True)
    assert look(directory) == before
    done = write(*entries)
    after = look(directory)
    assert done["changed"] and after != before
    assert checked["paths"] == done["paths"]
    for check in True, False:
        again = write(*entries, check=check)
        assert (again["changed"], again["paths"], again["diff"]) == (False, [], [])
        assert look(directory) == after
    return done


def test_all_at_once(tmp_path: Path) -> None:
    (tmp_path / "old").touch()
    done = four_ways(
        tmp_path,
        {"path": f"{tmp_path}/a/b", "state": "directory", "mode": "0750"},
        {"path": f"{tmp_path}/a/b/file", "content": "ü\n"},
        {"path": f"{tmp_path}/link", "state": "link", "target": "a/b/file"},
        {"path": f"{tmp_path}/old", "state": "absent"},
    )
    assert done["paths"] == [f"{tmp_path}/{name}" for name in ("a/b", "a/b/file", "link", "old")]
    assert (tmp_path / "link").read_text(encoding="utf-8") == "ü\n"
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a/b", "a/b/file")] == [0o750, 0o644]
    assert not (tmp_path / "old").exists()


def test_what_differs_is_shown_and_mended(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("one\n")
    path.chmod(0o600)
    done = four_ways(tmp_path, {"path": str(path), "content": "two\n"})
    assert [(entry["before"], entry["after"]) for entry in done["diff"]] == [("one\n", "two\n")]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644

    path.chmod(0o666)
    assert write({"path": str(path), "content": "two\n"}, check=True)["changed"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    assert write({"path": str(path), "content": "two\n"})["changed"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644

    (tmp_path / "link").symlink_to("nowhere")
    four_ways(tmp_path, {"path": f"{tmp_path}/link", "state": "link", "target": "file"})
    four_ways(tmp_path, {"path": f"{tmp_path}/link", "content": ""})
    assert not (tmp_path / "link").is_symlink() and path.read_text() == "two\n"


def test_a_secret_is_in_no_diff(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old hush")
    done = write({"path": f"{tmp_path}/file", "content": "new hush", "diff": False})
    assert done["changed"] and done["diff"] == [] and "hush" not in str(done)


def test_what_does_not_validate_is_not_written(tmp_path: Path) -> None:
    entry = {"path": f"{tmp_path}/file", "validate": "/bin/sh -c 'grep -q good \"$1\" || { echo not good >&2; exit 3; }' -- %s"}
    four_ways(tmp_path, {**entry, "content": "good"})
    answer = write({**entry, "content": "bad"})
    assert answer["failed"] and answer["rc"] == 3
    assert answer["msg"] == f"{tmp_path}/file would be wrong: not good"
    assert os.listdir(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "good"


def test_what_is_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    answer = write({"path": f"{tmp_path}/directory", "content": ""})
    assert answer["msg"] == f"{tmp_path}/directory is a directory where a file is to be: move it away."
    assert not write({"path": f"{tmp_path}/directory", "state": "absent"})["changed"]
    answer = write({"path": f"{tmp_path}/nowhere/file", "content": ""})
    assert answer["msg"] == f"{tmp_path}/nowhere/file cannot be written: No such file or directory."
    assert write({"path": "file", "content": ""})["msg"] == "file is not an absolute path."
    assert "content" in write({"path": f"{tmp_path}/file"})["msg"]


def test_what_was_done_before_a_failure_is_told(tmp_path: Path) -> None:
    answer = write({"path": f"{tmp_path}/file", "content": ""}, {"path": f"{tmp_path}/nowhere/file", "content": ""})
    assert answer["failed"] and answer["changed"] and answer["paths"] == [f"{tmp_path}/file"]


def test_all_is_put_back_where_it_is_wrong_together(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old\n")
    (tmp_path / "old").chmod(0o640)
    (tmp_path / "link").symlink_to("old")
    (tmp_path / "gone").write_bytes(b"\xff")
    entries = [
        {"path": f"{tmp_path}/new", "state": "directory"},
        {"path": f"{tmp_path}/new/file", "content": "new\n"},
        {"path": f"{tmp_path}/old", "content": "new\n"},
        {"path": f"{tmp_path}/link", "state": "link", "target": "new/file"},
        {"path": f"{tmp_path}/gone", "state": "absent"},
    ]

    def seen() -> dict[str, tuple]:
        return {name: found[:2] for name, found in look(tmp_path).items()}  # what and with which rights

    before = seen()
    refused = write(*entries, test=f"/bin/sh -c 'cat {tmp_path}/old {tmp_path}/link >&2; exit 7'")
    assert (refused["failed"], refused["rc"], refused.get("changed", False)) == (True, 7, False)
    assert refused["msg"].endswith("so all is as it was before: new\nnew")
    assert seen() == before

    refused = write(*entries, {"path": f"{tmp_path}/gone/below", "content": ""}, test="/bin/true")
    assert "cannot be written" in refused["msg"]
    assert seen() == before, "also where it does not come to the test"

    assert write(*entries, check=True, test="/bin/false")["changed"], "nothing is there to be tested"
    assert write(*entries, test="/bin/true")["changed"]
    assert not write(*entries, test="/bin/false")["changed"], "tested where something changed"


def test_all_is_put_back_where_a_run_is_cut_off(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old\n")
    with pytest.raises(AssertionError):  # it has no answer
        write({"path": f"{tmp_path}/file", "content": "new\n"}, test=f"/bin/sh -c 'cp {tmp_path}/file {tmp_path}/seen && kill $PPID && sleep 2'")
    assert (tmp_path / "seen").read_text() == "new\n"
    assert (tmp_path / "file").read_text() == "old\n"
