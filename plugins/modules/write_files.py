#!/usr/bin/python
# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: write_files
short_description: Write several files, directories and links in one call
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Does for a list what M(ansible.builtin.copy), M(ansible.builtin.template) and M(ansible.builtin.file) do for one file, in one
    connection to the host instead of two or more for each.
  - Entries are taken in their order. A file is written beside its place, validated, and moved there in one step.
extends_documentation_fragment:
  - mlops.mlflow.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: Unless O(entries[].diff) is V(false).
  idempotent:
    support: full
options:
  entries:
    description: What to write.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: An absolute path.
        type: path
        required: true
      state:
        description:
          - V(file) is a file with O(entries[].content), V(directory) a directory, V(link) a symbolic link to O(entries[].target).
          - V(absent) removes a file or a link, and leaves a directory alone.
        type: str
        choices: [file, directory, link, absent]
        default: file
      content:
        description: The text of a file. Required with V(file).
        type: str
      target:
        description: Where a link leads to. Required with V(link).
        type: str
      owner:
        description: Owner of a file or directory.
        type: str
        default: root
      group:
        description: Group of a file or directory.
        type: str
        default: root
      mode:
        description: Permissions, in octal and quoted. By default V(0644) for a file and V(0755) for a directory.
        type: str
      validate:
        description: A command that fails where the content is wrong; C(%s) in it becomes the path of the new file.
        type: str
      diff:
        description: Whether differences may be shown.
        type: bool
        default: true
  test:
    description:
      - A command that fails where the entries are wrong together, or beside what else is on the host. It runs after all of them, if one changed.
      - Where it fails, or anything before it does, every entry is put back as it was.
    type: str
notes:
  - Set C(no_log) on the task where a content is secret.
"""

EXAMPLES = r"""
- name: Write a unit and the directory that it works in
  mlops.mlflow.write_files:
    entries:
      - path: /var/lib/example
        state: directory
        owner: example
        mode: "0750"
      - path: /etc/systemd/system/example.service
        content: "{{ lookup('ansible.builtin.template', 'example.service.j2') }}"
      - path: /etc/systemd/system/old-example.service
        state: absent
  register: written

- name: Write what nginx reads, unless it would refuse all of it then
  mlops.mlflow.write_files:
    entries:
      - path: /etc/nginx/sites-available/example
        content: "server { listen 8080; }\n"
      - path: /etc/nginx/sites-enabled/example
        state: link
        target: /etc/nginx/sites-available/example
    test: nginx -t
"""

RETURN = r"""
paths:
  description: The paths that changed.
  returned: always
  type: list
  elements: str
  sample: [/etc/systemd/system/example.service]
"""

import contextlib
import os
import signal
import stat
import tempfile
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.text.converters import to_bytes, to_text

KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}


def kind(path: str) -> str:
    try:
        return KINDS.get(stat.S_IFMT(os.lstat(path).st_mode), "special file")
    except (FileNotFoundError, NotADirectoryError):
        return "absent"


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def write_file(module: AnsibleModule, entry: dict[str, t.Any], content: bytes) -> None:
    directory, name = os.path.split(entry["path"])
    descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=directory)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        if entry["validate"]:
            code, out, err = module.run_command(entry["validate"].replace("%s", temporary))
            if code:
                module.fail_json(msg=f"{entry['path']} would be wrong: {(err or out).strip()}", rc=code)
        set_attributes(module, entry, temporary)
        module.atomic_move(temporary, entry["path"])
    finally:
        if os.path.lexists(temporary):
            os.unlink(temporary)


def set_attributes(module: AnsibleModule, entry: dict[str, t.Any], path: str) -> bool:
    arguments = module.load_file_common_arguments(entry, path=path)
    return bool(module.set_fs_attributes_if_different(arguments, False))


def apply(module: AnsibleModule, entry: dict[str, t.Any]) -> tuple[bool, dict[str, t.Any] | None]:
    """Make one entry true; say whether that changed something, and what."""
    path, state = entry["path"], entry["state"]
    found = kind(path)
    if found == "absent" == state or (state == "absent" and found == "directory"):
        return False, None
    if found not in ("absent", state) and state != "absent" and "directory" in (found, state):
        module.fail_json(msg=f"{path} is a {found} where a {state} is to be: move it away.")

    readers: dict[str, t.Callable[[], bytes]] = {"file": lambda: read(path), "link": lambda: to_bytes(os.readlink(path))}
    before = readers.get(found, bytes)()
    after = to_bytes({"file": entry["content"], "link": entry["target"]}.get(state) or "")
    changed = found != state or before != after
    if changed and not module.check_mode:
        if state == "absent" or (state == "link" and found != "absent"):
            os.unlink(path)
        if state == "directory":
            os.makedirs(path)
        elif state == "link":
            os.symlink(after, to_bytes(path))
        elif state == "file":
            write_file(module, entry, after)
    shown = {"before_header": path, "after_header": path}
    if changed:
        shown |= {"before": to_text(before, errors="replace"), "after": to_text(after, errors="replace")}
        if found != state:
            shown |= {"before_header": f"{path} ({found})", "after_header": f"{path} ({state})"}
    # In check mode what is not there has no attributes.
    if state in ("file", "directory") and kind(path) == state and set_attributes(module, entry, path):
        changed = True
        shown |= {"after_header": f"{path} (owner, group, mode: {entry['owner']}, {entry['group']}, {entry['mode']})"}
    return changed, shown if changed and entry["diff"] else None


def remember(path: str) -> tuple[str, bytes, os.stat_result | None]:
    """What restore() needs: kind, content or target, and attributes."""
    found = kind(path)
    content = {"file": lambda: read(path), "link": lambda: os.readlink(os.fsencode(path))}.get(found, lambda: b"")()
    return found, content, None if found == "absent" else os.lstat(path)


def restore(path: str, was: tuple[str, bytes, os.stat_result | None]) -> None:
    found, content, attributes = was
    if found == "absent":
        if os.path.isdir(path) and not os.path.islink(path):
            os.rmdir(path)
        elif os.path.lexists(path):
            os.unlink(path)
        return
    if remember(path)[:2] != (found, content):
        temporary = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.{os.getpid()}")
        if found == "link":
            os.symlink(content, os.fsencode(temporary))
        else:
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(content)
        os.replace(temporary, path)
    if attributes and found != "link":
        os.chown(path, attributes.st_uid, attributes.st_gid)
        os.chmod(path, stat.S_IMODE(attributes.st_mode))


def stop(number: int, _frame: t.Any) -> None:
    raise SystemExit(128 + number)


@contextlib.contextmanager
def all_or_none(paths: list[str]) -> t.Iterator[None]:
    """Put everything back where the block fails, or its run is cut off."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    before = {path: remember(path) for path in paths}
    try:
        yield
    except BaseException:  # fail_json raises SystemExit
        for path in reversed(before):
            restore(path, before[path])
        raise


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "entries": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "path": {"type": "path", "required": True},
                    "state": {"type": "str", "choices": ["file", "directory", "link", "absent"], "default": "file"},
                    "content": {"type": "str"},
                    "target": {"type": "str"},
                    "owner": {"type": "str", "default": "root"},
                    "group": {"type": "str", "default": "root"},
                    "mode": {"type": "str"},
                    "validate": {"type": "str"},
                    "diff": {"type": "bool", "default": True},
                },
                "required_if": [("state", "file", ("content",)), ("state", "link", ("target",))],
            },
            "test": {"type": "str"},
        },
        supports_check_mode=True,
    )
    test = module.params["test"]
    paths: list[str] = []
    diffs: list[dict[str, t.Any]] = []
    with all_or_none([entry["path"] for entry in module.params["entries"]]) if test else contextlib.nullcontext():
        for entry in module.params["entries"]:
            if not os.path.isabs(entry["path"]):
                module.fail_json(msg=f"{entry['path']} is not an absolute path.")
            if entry["content"] and not entry["diff"]:
                module.no_log_values.add(entry["content"])  # which -vvv would show among the arguments
            entry["mode"] = entry["mode"] or {"file": "0644", "directory": "0755"}.get(entry["state"])
            try:
                changed, diff = apply(module, entry)
            except OSError as error:
                module.fail_json(msg=f"{entry['path']} cannot be written: {error.strerror}.", changed=bool(paths), paths=paths)
            if changed:
                paths.append(entry["path"])
            if diff:
                diffs.append(diff)
        if test and paths and not module.check_mode:
            code, out, err = module.run_command(test)
            if code:
                module.fail_json(msg=f"{test} fails with what was to be written, so all is as it was before: {(err or out).strip()}", rc=code)
    module.exit_json(changed=bool(paths), paths=paths, diff=diffs)


if __name__ == "__main__":
    main()
