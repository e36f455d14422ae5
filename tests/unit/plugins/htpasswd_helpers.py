# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the module htpasswd as Ansible does, each time in a process of its own."""

from __future__ import annotations

import json
import os
import sys
import traceback
import typing as t
from pathlib import Path

from ansible.module_utils import basic
from ansible_collections.mlops.mlflow.plugins.modules import htpasswd

QUICK = {"rounds": 4}


def main(options: dict[str, t.Any]) -> None:
    basic._ANSIBLE_ARGS = json.dumps({"ANSIBLE_MODULE_ARGS": options}).encode()
    # ansible-core 2.19 and later read arguments by a profile; before, the name means nothing.
    basic._ANSIBLE_PROFILE = "legacy"
    htpasswd.main()


def run(path: Path | str, *, check: bool = False, hook: t.Callable[[str, tuple], None] | None = None, **options: t.Any) -> dict[str, t.Any]:
    """Return the module's answer, or nothing where the hook, which hears what the module does to files, ended it."""
    options.update(path=str(path), _ansible_check_mode=check, _ansible_diff=True)
    options.update(_ansible_no_log=True)  # keeps out of this machine's syslog, where Ansible fails at a NUL by itself
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.dup2(writer, 1)
            os.close(writer)
            sys.stdout = os.fdopen(1, "w")
            if hook:
                sys.addaudithook(hook)
            main(options)
        except SystemExit:
            sys.stdout.flush()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        answer = stream.read()
    os.waitpid(child, 0)
    return json.loads(answer) if answer else {}


def snapshot(directory: Path) -> dict[str, tuple]:
    """Return all that can be seen of the files in a directory."""

    def look(path: Path) -> tuple:
        seen = path.lstat()
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        return content, oct(seen.st_mode), seen.st_uid, seen.st_gid, seen.st_ino, seen.st_mtime_ns

    return {path.name: look(path) for path in directory.iterdir()}


def four_ways(path: Path, **options: t.Any) -> dict[str, t.Any]:
    """Check, do, check again and do again; return what doing it answered."""
    before = snapshot(path.parent)
    checked = run(path, check=True, **options)
    assert not checked.get("failed"), checked
    assert checked["changed"]
    assert snapshot(path.parent) == before
    done = run(path, **options)
    assert {**checked, **file_facts(done)} == done
    after = snapshot(path.parent)
    assert after != before
    for check in True, False:
        again = run(path, check=check, **options)
        assert not again.get("failed"), again
        assert not again["changed"], again
        assert again["added"] == again["updated"] == again["removed"] == []
        assert snapshot(path.parent) == after
    return done


def file_facts(answer: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return what Ansible adds to an answer about the file as it is, and the name of the copy."""
    facts = "uid gid owner group mode size state secontext backup_file invocation"
    return {key: answer[key] for key in facts.split() if key in answer}
