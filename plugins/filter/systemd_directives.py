# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: systemd_directives
short_description: Lines of a systemd unit from a dictionary
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Turns directives and their values into C(Name=value), one line for each value of a list.
  - The same lines go into a unit file and, with C(--property), to C(systemd-run).
options:
  _input:
    description: Values by the name of their directive. A list gives one line for each element, an empty one none; booleans are written as systemd does.
    type: dict
    required: true
  version:
    description: The release of systemd that reads the lines. Directives that it lacks are left out.
    type: int
    default: 999
  since:
    description: The release of systemd that brought a directive, by its name; without an entry, all have it.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Show the lines of a sandbox
  ansible.builtin.debug:
    msg: "{{ {'ProtectSystem': 'strict', 'PrivateTmp': true, 'ReadWritePaths': ['/srv/a', '/srv/b']} | mlops.mlflow.systemd_directives }}"
  # ['ProtectSystem=strict', 'PrivateTmp=true', 'ReadWritePaths=/srv/a', 'ReadWritePaths=/srv/b']
"""

RETURN = r"""
_value:
  description: The lines.
  type: list
  elements: str
"""

import typing as t


def lines(directives: dict[str, t.Any], version: int | str = 999, since: dict[str, int] | None = None) -> list[str]:
    found = []
    for name, value in directives.items():
        if (since or {}).get(name, 0) <= int(version):
            for item in value if isinstance(value, (list, tuple)) else [value]:
                found.append(f"{name}={str(item).lower() if isinstance(item, bool) else item}")
    return found


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"systemd_directives": lines}
