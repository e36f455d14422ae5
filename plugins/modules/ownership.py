#!/usr/bin/python
# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ownership
short_description: Tell what belongs to a deployment from what was on the host before
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - A file, the mark, says that a host has a deployment, and which one. Where it is, everything in O(paths) belongs to the deployment.
  - Where it is not, whatever is found in O(paths) was made by somebody else. The module fails and names it, or moves it aside if told to.
extends_documentation_fragment:
  - mlops.mlflow.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  mark:
    description: Path of the mark, a JSON file that root owns. Its directory is created where it is missing.
    type: path
    required: true
  deployment:
    description:
      - What tells this deployment from another, by the names of the variables that a person sets.
      - The module fails where the mark, or a sign, has another value for one of them.
    type: dict
    default: {}
  all_differ:
    description: Fail only where all values of O(deployment) are others. One of them may change then.
    type: bool
    default: false
  signs:
    description: What versions that wrote no mark left on the host. One that is found stands for the mark.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: A file.
        type: path
        required: true
      pattern:
        description: A regular expression that is found in the file. Its named groups are values of O(deployment).
        type: str
        required: true
  paths:
    description: What the deployment writes.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description:
          - A file, link or directory. A directory counts where it holds files, at any depth; C(lost+found) is overlooked.
        type: path
        required: true
      overlook:
        description: Names in the directory that do not count.
        type: list
        elements: str
        default: []
      variable:
        description: The variable that names another path.
        type: str
      replaced:
        description: Whether it is moved aside when the host is taken over. Otherwise it is used as it is.
        type: bool
        default: true
      keep_in:
        description: The directory that it is moved to, where it may not stay beside its place.
        type: path
  user:
    description:
      - The system user of the deployment. One that a person logs in with makes the module fail, also with O(take_over).
      - One that the deployment has already, and that is in a group of administrators, such as C(sudo), is warned of.
    type: str
  group:
    description: The group of that user. One that has members makes the module fail.
    type: str
  take_over:
    description: Go on where something was made by somebody else, or another deployment is there.
    type: bool
    default: false
  variable:
    description: The variable that stands for O(take_over) in messages.
    type: str
    default: take_over
  state:
    description:
      - V(checked) changes nothing.
      - V(claimed) moves aside what is taken over, with the time in its new name, and writes the mark.
    type: str
    choices: [checked, claimed]
    default: checked
"""

EXAMPLES = r"""
- name: Refuse to replace what somebody else made
  mlops.mlflow.ownership:
    mark: /etc/example/deployment.json
    deployment:
      example_home: /opt/example
    paths:
      - path: /opt/example
        variable: example_home
      - path: /etc/systemd/system/example.service
    user: example
    group: example
    take_over: "{{ example_take_over }}"
    variable: example_take_over
"""

RETURN = r"""
ours:
  description: Whether the host has the mark, or a sign.
  returned: success
  type: bool
marked:
  description: Whether the mark is there already as V(claimed) would write it.
  returned: success
  type: bool
there:
  description: Those of O(paths) that exist.
  returned: success
  type: list
  elements: str
kept:
  description: What was moved aside, and where to.
  returned: success
  type: dict
  sample: {/etc/systemd/system/example.service: /etc/systemd/system/example.service.2026-11-27T18-15-00Z}
"""

import grp
import json
import os
import pwd
import re
import tempfile
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule

ADMINISTRATORS = {"adm", "admin", "disk", "docker", "incus-admin", "lxd", "root", "shadow", "sudo", "wheel"}
FIRST_PERSON = 1000  # the lowest user id that Debian gives to people
SHOWN = 5


def read(path: str) -> str:
    """Return the text of a regular file, empty where there is none."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def recorded(mark: str, signs: list[dict[str, str]]) -> dict[str, str] | None:
    """Return what the mark or the signs say of the deployment; None where there are neither."""
    if os.path.lexists(mark):
        try:
            found = dict(json.loads(read(mark)))
            if "mlflow_user" in found:
                found["mlflow_os_user"] = found.pop("mlflow_user")  # its name before
            return found
        except ValueError:  # cut off while it was written, or touched since
            return {}
    matches = [match for sign in signs if (match := re.search(sign["pattern"], read(sign["path"]), re.MULTILINE))]
    return {name: value for match in matches for name, value in match.groupdict().items()} if matches else None


def holds_files(path: str) -> bool:
    return not os.path.isdir(path) or os.path.islink(path) or any(names for _top, _below, names in os.walk(path)) or has_link(path)


def has_link(path: str) -> bool:
    """Tell whether a link to a directory is below, which os.walk() does not count among the files."""
    return any(os.path.islink(os.path.join(top, name)) for top, below, _names in os.walk(path) for name in below)


def contents(path: str, overlook: list[str]) -> list[str]:
    ignored = {"lost+found", *overlook}
    return sorted(name for name in os.listdir(path) if name not in ignored and holds_files(os.path.join(path, name)))


def foreign(paths: list[dict[str, t.Any]]) -> dict[str, str]:
    """Return what is there, by path, and how it is called in a message."""
    found = {}
    for entry in paths:
        path = entry["path"]
        if not os.path.lexists(path):
            continue
        if os.path.isdir(path) and not os.path.islink(path):
            names = contents(path, entry["overlook"])
            if not names:
                continue
            more = ["…"] if len(names) > SHOWN else []
            found[path] = f"{path} ({', '.join(names[:SHOWN] + more)})"
        else:
            found[path] = path
    return found


def in_words(words: t.Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def refusal(paths: list[dict[str, t.Any]], found: dict[str, str], variable: str) -> str:
    shown = [text for path, text in found.items() if os.path.dirname(path) not in found]
    variables = dict.fromkeys(entry["variable"] for entry in paths if entry["path"] in found and entry["variable"])
    elsewhere = f", or set {in_words(variables)} to other places" if variables else ""
    return (
        f"{in_words(shown)} {'was' if len(shown) == 1 else 'were'} not made by this deployment: move {'it' if len(shown) == 1 else 'them'} away{elsewhere}; "
        f"or set {variable} to true, and what is replaced is kept beside, with the time in its name."
    )


def other_deployment(was: dict[str, str], wanted: dict[str, str], all_differ: bool, mark: str, variable: str) -> str | None:
    """Say which values of the deployment that is there are others."""
    common = [name for name in wanted if name in was]
    others = [name for name in common if was[name] != wanted[name]]
    if not others or (all_differ and others != common):
        return None
    source = f"({mark})" if os.path.lexists(mark) else "already"
    return (
        f"This host has a deployment {source} with {in_words(f'{name} {was[name]}' for name in others)}, "
        f"not {in_words(wanted[name] for name in others)}: set {in_words(others)} as it is there or take another host; "
        f"or set {variable} to true to put this deployment in its place; what is replaced is kept beside, with the time in its name."
    )


def rights(name: str) -> list[str]:
    """Return the groups of administrators that a user is in."""
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        return []
    return sorted({group.gr_name for group in grp.getgrall() if name in group.gr_mem or group.gr_gid == user.pw_gid} & ADMINISTRATORS)


def person(name: str) -> str | None:
    """Say why an account is a person's."""
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        return None
    if os.path.basename(user.pw_shell) not in ("nologin", "false"):
        return f"has the login shell {user.pw_shell or '/bin/sh'}"
    if rights(name):
        return f"is in the group {in_words(rights(name))}"
    if user.pw_dir.startswith("/home/") and os.path.isdir(user.pw_dir) and os.listdir(user.pw_dir):
        return f"has files in {user.pw_dir}"
    if user.pw_uid >= FIRST_PERSON:
        return f"has the user id {user.pw_uid}, as people have"
    return None


def members(group: str, user: str) -> list[str]:
    try:
        return sorted(set(grp.getgrnam(group).gr_mem) - {user})
    except KeyError:
        return []


def account_refusal(user: str, group: str) -> str | None:
    why = person(user)
    if why:
        return f"The user {user} {why}, and would lose shell and home as MLflow's system user: set mlflow_os_user to another name, such as mlflow-server."
    others = members(group, user)
    if others:
        return f"{in_words(others)} would read MLflow's data and need no password, as members of the group {group}: set mlflow_os_group to another name."
    return None


def move_aside(entry: dict[str, t.Any], now: str) -> str:
    name = f"{os.path.basename(entry['path'])}.{now}"
    target = os.path.join(entry["keep_in"] or os.path.dirname(entry["path"]), name)
    if os.path.lexists(target):  # two of one name, from two directories
        target += "-2"
    os.rename(entry["path"], target)
    return target


def write_mark(path: str, text: str) -> None:
    directory, name = os.path.split(path)
    os.makedirs(directory, mode=0o755, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=directory)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        os.fchmod(file.fileno(), 0o644)
    os.replace(temporary, path)


def main() -> None:
    sign = {"path": {"type": "path", "required": True}, "pattern": {"type": "str", "required": True}}
    entry = {
        "path": {"type": "path", "required": True},
        "overlook": {"type": "list", "elements": "str", "default": []},
        "variable": {"type": "str"},
        "replaced": {"type": "bool", "default": True},
        "keep_in": {"type": "path"},
    }
    module = AnsibleModule(
        argument_spec={
            "mark": {"type": "path", "required": True},
            "deployment": {"type": "dict", "default": {}},
            "all_differ": {"type": "bool", "default": False},
            "signs": {"type": "list", "elements": "dict", "default": [], "options": sign},
            "paths": {"type": "list", "elements": "dict", "default": [], "options": entry},
            "user": {"type": "str"},
            "group": {"type": "str"},
            "take_over": {"type": "bool", "default": False},
            "variable": {"type": "str", "default": "take_over"},
            "state": {"type": "str", "choices": ["checked", "claimed"], "default": "checked"},
        },
        required_together=[("user", "group")],
        supports_check_mode=True,
    )
    params = module.params
    wanted = {name: str(value) for name, value in params["deployment"].items()}
    mark, variable = params["mark"], params["variable"]
    was = recorded(mark, params["signs"])
    fault = other_deployment(was or {}, wanted, params["all_differ"], mark, variable)
    found = foreign(params["paths"]) if was is None or fault else {}
    if found and not fault:
        fault = refusal(params["paths"], found, variable)
    if fault and not params["take_over"]:
        module.fail_json(msg=fault)
    user = params["user"]
    if user and (was or {}).get("mlflow_os_user") != user:
        fault = account_refusal(user, params["group"])
        if fault:
            module.fail_json(msg=fault)
    elif user and params["state"] == "checked":  # an earlier version took over whom it found
        for group in rights(user):
            module.warn(f"MLflow runs as {user}, who is in the group {group} and so has its rights: take the user out of it (gpasswd --delete {user} {group}).")

    content = wanted if not user else {**wanted, "mlflow_os_user": user}
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    marked = read(mark) == text
    there = [entry["path"] for entry in params["paths"] if os.path.lexists(entry["path"])]
    kept: dict[str, str] = {}
    changed = False
    if params["state"] == "claimed":
        now = time.strftime("%Y-%m-%dT%H-%M-%SZ", time.gmtime())
        replaced = [entry for entry in params["paths"] if entry["path"] in found and entry["replaced"]]
        changed = bool(replaced) or not marked
        if not module.check_mode:
            for entry in replaced:
                kept[entry["path"]] = move_aside(entry, now)
            if not marked:
                write_mark(mark, text)
    module.exit_json(changed=changed, ours=was is not None, marked=marked, there=there, kept=kept)


if __name__ == "__main__":
    main()
