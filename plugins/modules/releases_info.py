#!/usr/bin/python
# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: releases_info
short_description: Tell which releases of MLflow are installed, and whether they are as they were built
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - A release is a virtual environment with a file C(.complete), which is written last and lists the packages.
  - Compares the files with the list that each package brings (C(RECORD)), by existence, size, owner and permissions, which takes less
    than a second for a release.
extends_documentation_fragment:
  - mlops.mlflow.attributes
  - mlops.mlflow.attributes.info
options:
  path:
    description: The directory of the releases, which need not be there.
    type: path
    required: true
  verify:
    description: A pattern for the names of the releases whose files are compared, such as V(3.17.2-*).
    type: str
    required: true
  link:
    description: The link to the release that runs.
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Look at the releases
  mlops.mlflow.releases_info:
    path: /opt/mlflow/releases
    verify: 3.17.2-*
    link: /opt/mlflow/current
  register: releases
"""

RETURN = r"""
releases:
  description: The releases, by path.
  returned: always
  type: dict
  contains:
    complete:
      description: Whether it was built to the end.
      type: bool
    modified:
      description: When it was last modified, in seconds since 1970.
      type: float
    problem:
      description: What differs first from what was built; empty where nothing does, and for a release that was not compared.
      type: str
    mib:
      description: The disk space of a release that is not complete, or has a problem, in MiB.
      type: int
  sample: {/opt/mlflow/releases/3.17.2-py3.10-7a47882a: {complete: true, modified: 1764021600.5, problem: "", mib: 0}}
running:
  description: Where O(link) points to; empty where it is not there.
  returned: always
  type: str
  sample: /opt/mlflow/releases/3.17.2-py3.10-7a47882a
free_mib:
  description: Free space on the disk of O(path), in MiB.
  returned: always
  type: int
  sample: 20480
"""

import csv
import fnmatch
import glob
import os
import stat
import typing as t

from ansible.module_utils.basic import AnsibleModule

MARKER = ".complete"


def free_mib(path: str) -> int:
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize >> 20


def used_mib(path: str) -> int:
    blocks = sum(os.lstat(os.path.join(directory, name)).st_blocks for directory, _dirs, names in os.walk(path) for name in names)
    return blocks * 512 >> 20


def recorded(site_packages: str) -> t.Iterator[tuple[str, int | None]]:
    """Each file that a package brought, and its size in bytes where the package tells it."""
    for record in sorted(glob.glob(f"{site_packages}/*.dist-info/RECORD")):
        with open(record, encoding="utf-8", newline="") as file:
            for name, _hash, size in csv.reader(file):
                if not name.endswith(".pyc"):
                    yield os.path.normpath(os.path.join(site_packages, name)), int(size) if size else None


def problem(release: str) -> str:
    """What differs first from what was built."""
    found = glob.glob(f"{release}/lib/python*/site-packages")
    if not found:
        return f"{release}/lib is missing"
    with open(f"{release}/{MARKER}", encoding="utf-8") as file:
        wanted = [f"{found[0]}/{name}/RECORD" for name in file.read().split()]
    # A link to the system's Python is followed.
    files = [(path, None) for path in [f"{release}/bin/python", f"{release}/pyvenv.cfg", f"{release}/static-files", *wanted]]
    directories = {release}
    for path, size in [*files, *recorded(found[0])]:
        try:
            state = os.stat(path)
        except OSError:
            return f"{path} is missing"
        if size is not None and state.st_size != size:
            return f"{path} has {state.st_size} bytes instead of {size}"
        if state.st_uid != os.geteuid() or not state.st_mode & stat.S_IROTH:
            return f"{path} has another owner or other permissions"
        directories.add(os.path.dirname(path))
    for path in sorted(directories):
        state = os.stat(path)
        if state.st_uid != os.geteuid() or state.st_mode & 0o005 != 0o005:
            return f"{path} has another owner or other permissions"
    return ""


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "verify": {"type": "str", "required": True},
            "link": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    path, pattern, link = (module.params[name] for name in ("path", "verify", "link"))
    releases = {}
    for release in sorted(glob.glob(f"{path}/*/")):
        release = release.rstrip("/")
        complete = os.path.isfile(f"{release}/{MARKER}")
        differs = problem(release) if complete and fnmatch.fnmatch(os.path.basename(release), pattern) else ""
        releases[release] = {
            "complete": complete,
            "modified": os.stat(release).st_mtime,
            "problem": differs,
            "mib": used_mib(release) if differs or not complete else 0,
        }
    running = os.readlink(link) if os.path.islink(link) else ""
    module.exit_json(changed=False, releases=releases, running=running, free_mib=free_mib(path))


if __name__ == "__main__":
    main()
