#!/usr/bin/python
# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_info
short_description: Ask a host several questions in one call
version_added: 0.1.0
author: The mlops.mlflow maintainers (@mlops)
description:
  - Tells how paths, users and systemd units stand, in one connection to the host instead of one for each.
  - A role can ask once, and run only the tasks that have something to do.
attributes:
  check_mode:
    support: full
    description: Can run in check mode.
  diff_mode:
    support: none
    description: Returns no diff, as it changes nothing.
  idempotence:
    support: full
    description: Changes nothing.
options:
  paths:
    description: Paths or patterns such as V(/etc/nginx/*.conf). One that is not there is left out of RV(paths).
    type: list
    elements: str
    default: []
  users:
    description: Names of users. One that is not there is left out of RV(users).
    type: list
    elements: str
    default: []
  units:
    description: Names of systemd units, with their suffix.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Ask how nginx stands
  mlops.mlflow.host_info:
    paths: [/etc/nginx/nginx.conf, /etc/nginx/sites-enabled/*]
    users: [www-data]
    units: [nginx.service]
  register: nginx

- name: Start it, now and at boot
  ansible.builtin.systemd_service:
    name: nginx.service
    state: started
    enabled: true
  when: not (nginx.units['nginx.service'].active and nginx.units['nginx.service'].enabled)
"""

RETURN = r"""
paths:
  description: What is there, by path.
  returned: always
  type: dict
  contains:
    type:
      description: V(file), V(directory), V(link) or V(other); links are not followed.
      type: str
    target:
      description: Where a link leads to; empty for everything else.
      type: str
    modified:
      description: When it was last modified, in seconds since 1970.
      type: float
  sample: {/etc/nginx/nginx.conf: {type: file, target: "", modified: 1764021600.5}}
users:
  description: The users that are there, by name.
  returned: always
  type: dict
  contains:
    group:
      description: Name of the primary group.
      type: str
    groups:
      description: Names of the other groups.
      type: list
      elements: str
    comment:
      description: The comment.
      type: str
    home:
      description: The home directory.
      type: str
    shell:
      description: The login shell.
      type: str
  sample: {www-data: {group: www-data, groups: [mlflow], comment: www-data, home: /var/www, shell: /usr/sbin/nologin}}
units:
  description: All units that were asked for, by name.
  returned: always
  type: dict
  contains:
    active:
      description: Whether it runs; a unit that starts or stops does not.
      type: bool
    enabled:
      description: Whether it starts at boot.
      type: bool
    outdated:
      description: Whether systemd has read another version of the unit than is on the disk.
      type: bool
  sample: {nginx.service: {active: true, enabled: true, outdated: false}}
"""

import glob
import grp
import os
import pwd
import stat
import typing as t

from ansible.module_utils.basic import AnsibleModule

TYPES = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}


def ask_paths(patterns: list[str]) -> dict[str, dict[str, t.Any]]:
    answer = {}
    for path in sorted({path for pattern in patterns for path in glob.glob(pattern)}):
        found = os.lstat(path)
        link = stat.S_ISLNK(found.st_mode)
        answer[path] = {
            "type": TYPES.get(stat.S_IFMT(found.st_mode), "other"),
            "target": os.readlink(path) if link else "",
            "modified": found.st_mtime,
        }
    return answer


def ask_users(names: list[str]) -> dict[str, dict[str, t.Any]]:
    answer = {}
    for name in names:
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        answer[name] = {
            "group": grp.getgrgid(user.pw_gid).gr_name,
            "groups": sorted(group.gr_name for group in grp.getgrall() if name in group.gr_mem),
            "comment": user.pw_gecos,
            "home": user.pw_dir,
            "shell": user.pw_shell,
        }
    return answer


def ask_units(module: AnsibleModule, names: list[str]) -> dict[str, dict[str, bool]]:
    if not names:
        return {}
    shown = "Id,ActiveState,UnitFileState,NeedDaemonReload,DropInPaths"
    command = [module.get_bin_path("systemctl", required=True), "show", f"--property={shown}", "--", *names]
    _code, out, _err = module.run_command(command, check_rc=True)
    answer = {}
    # systemctl answers in the order of the question, with an empty line between two units.
    for name, block in zip(names, out.strip().split("\n\n")):
        properties = dict(line.split("=", 1) for line in block.splitlines())
        answer[name] = {
            "active": properties["ActiveState"] == "active",
            "enabled": properties.get("UnitFileState") == "enabled",
            # systemd doesn't notice the first drop-in of a unit, whose directory is new to it.
            "outdated": properties["NeedDaemonReload"] == "yes"
            or not {*glob.glob(f"/etc/systemd/system/{glob.escape(name)}.d/*.conf")} <= {*properties["DropInPaths"].split()},
        }
    return answer


def main() -> None:
    questions = ("paths", "users", "units")
    module = AnsibleModule(
        argument_spec={name: {"type": "list", "elements": "str", "default": []} for name in questions},
        supports_check_mode=True,
    )
    params = module.params
    module.exit_json(
        changed=False,
        paths=ask_paths(params["paths"]),
        users=ask_users(params["users"]),
        units=ask_units(module, params["units"]),
    )


if __name__ == "__main__":
    main()
