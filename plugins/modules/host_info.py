#!/usr/bin/python
# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_info
short_description: Ask a host several questions in one call
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Tells how paths, users and systemd units stand, in one connection to the host instead of one for each.
  - A role can ask once, and run only the tasks that have something to do.
  - Compares what a unit runs with and what is written. Where a handler is lost with the run that was cut off before it, the next run
    finds the difference.
extends_documentation_fragment:
  - mlops.mlflow.attributes
  - mlops.mlflow.attributes.info
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
  locks:
    description: Paths of files that programs lock while they work, such as V(/var/lib/dpkg/lock-frontend). Those that nobody holds are left out of RV(locks).
    type: list
    elements: str
    default: []
  reads:
    description:
      - For names of systemd units, lists of the paths or patterns of what each reads when it starts and when it is reloaded.
      - A unit that is named here need not be named in O(units).
    type: dict
    default: {}
  reads_at_start:
    description: As O(reads), of what each reads only when it starts, such as its unit file, environment and programs.
    type: dict
    default: {}
notes:
  - systemd does not know of a reload that nobody told it of, such as C(nginx -s reload) or C(pg_reload_conf()), so that RV(units.newer) may
    name what was read since. Nor does it know whether a daemon took what it was to reload, unless C(ExecReload=) fails then.
  - What is written while a unit reloads counts as read.
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

- name: Compare what PostgreSQL runs with and what is written
  mlops.mlflow.host_info:
    reads:
      postgresql@14-main.service: [/etc/postgresql/14/main/*.conf, /etc/postgresql/14/main/conf.d/*.conf]
  register: host

- name: Reload it where it runs with something older
  ansible.builtin.systemd_service:
    name: postgresql@14-main.service
    state: reloaded
  when: host.units['postgresql@14-main.service'].newer | length > 0
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
locks:
  description: The files of O(locks) that a program has locked, by path, and its name. Locks by C(flock) do not count.
  returned: always
  type: dict
  sample: {/var/lib/dpkg/lock-frontend: apt-get}
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
    started:
      description:
        - When it last began to start, in seconds since 1970; V(0) where it is stopped or has failed.
        - Where systemd starts it again by itself, the wait before that may count.
      type: float
    read:
      description: When it last began to start or was last reloaded with success; V(0) where it is stopped or has failed.
      type: float
    newer:
      description:
        - The files of O(reads) that changed after RV(units.read), and those of O(reads_at_start) that changed after RV(units.started); none
          where the unit is stopped or has failed.
        - By the time of change (ctime), as a file that is restored from a backup keeps the time of its modification. A link counts with what
          it points to, a directory by itself.
      type: list
      elements: str
  sample:
    nginx.service:
      active: true
      enabled: true
      outdated: false
      started: 1764021600.5
      read: 1764108000.25
      newer: [/etc/nginx/nginx.conf]
systemd:
  description: The release of systemd.
  returned: when units were asked for
  type: int
  sample: 252
"""

import fcntl
import glob
import grp
import os
import pwd
import stat
import struct
import typing as t
from contextlib import suppress

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mlops.mlflow.plugins.module_utils.unit_times import PROPERTIES, changed_since, times

TYPES = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}


def matches(patterns: list[str]) -> list[str]:
    return sorted({path for pattern in patterns for path in glob.glob(pattern)})


def ask_paths(patterns: list[str]) -> dict[str, dict[str, t.Any]]:
    answer = {}
    for path in matches(patterns):
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


def ask_locks(paths: list[str]) -> dict[str, str]:
    """Asks the kernel what would be in the way of a lock, and takes none: C's struct flock, type, whence, start, length, pid."""
    answer = {}
    for path in filter(os.path.exists, paths):
        with open(path, "rb") as file:
            found = fcntl.fcntl(file, fcntl.F_GETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        kind, _whence, _start, _length, pid = struct.unpack("hhqqi4x", found)
        if kind != fcntl.F_UNLCK:
            answer[path] = f"process {pid}"
            with suppress(OSError), open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:  # it may have ended
                answer[path] = comm.read().strip()
    return answer


def ask_units(module: AnsibleModule, names: list[str]) -> dict[str, dict[str, t.Any]]:
    if not names:
        return {}
    shown = ",".join(("Id", "UnitFileState", "NeedDaemonReload", "DropInPaths", *PROPERTIES))
    command = [module.get_bin_path("systemctl", required=True), "show", f"--property={shown}", "--", *names]
    _code, out, _err = module.run_command(command, check_rc=True)
    answer = {}
    # systemctl answers in the order of the question, with an empty line between two units.
    for name, block in zip(names, out.strip().split("\n\n")):
        properties = dict(line.split("=", 1) for line in block.splitlines())
        started, read = times(properties)
        newer = [path for path in matches(module.params["reads"].get(name, [])) if read and changed_since(read, path)]
        newer += [path for path in matches(module.params["reads_at_start"].get(name, [])) if started and changed_since(started, path)]
        answer[name] = {
            "active": properties["ActiveState"] == "active",
            "enabled": properties.get("UnitFileState") == "enabled",
            # systemd doesn't notice the first drop-in of a unit, whose directory is new to it.
            "outdated": properties["NeedDaemonReload"] == "yes"
            or not {*glob.glob(f"/etc/systemd/system/{glob.escape(name)}.d/*.conf")} <= {*properties["DropInPaths"].split()},
            "started": started,
            "read": read,
            "newer": sorted({*newer}),
        }
    return answer


def systemd_release(module: AnsibleModule) -> int:
    _code, out, _err = module.run_command([module.get_bin_path("systemctl", required=True), "--version"], check_rc=True)
    return int(out.split()[1])


def main() -> None:
    lists, mappings = ("paths", "users", "units", "locks"), ("reads", "reads_at_start")
    module = AnsibleModule(
        argument_spec={
            **{name: {"type": "list", "elements": "str", "default": []} for name in lists},
            **{name: {"type": "dict", "default": {}} for name in mappings},
        },
        supports_check_mode=True,
    )
    params = module.params
    for option in mappings:
        for name, patterns in params[option].items():
            if not (isinstance(patterns, list) and all(isinstance(pattern, str) for pattern in patterns)):
                module.fail_json(msg=f"{option} has no list of paths for {name}.")
    units = ask_units(module, list(dict.fromkeys([*params["units"], *params["reads"], *params["reads_at_start"]])))
    answer: dict[str, t.Any] = {
        "paths": ask_paths(params["paths"]),
        "users": ask_users(params["users"]),
        "locks": ask_locks(params["locks"]) if params["locks"] else {},
        "units": units,
    }
    if units:
        answer["systemd"] = systemd_release(module)
    module.exit_json(changed=False, **answer)


if __name__ == "__main__":
    main()
