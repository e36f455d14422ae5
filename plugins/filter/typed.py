# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: typed
short_description: Convert the booleans and numbers of a role, and check its lists and choices
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - A role's argument specification accepts strings for booleans and numbers, as C(--extra-vars name=value) and INI inventories give them,
    and converts none. A role converts all of its own with this filter, once.
  - A string where a list is expected would count as the list of its characters. Lists and mappings are checked, and not in the result.
  - The specification refuses a value that is none of its choices with all of its own text. Choices are checked here for a sentence instead,
    and are not in the result.
positional: role
options:
  _input:
    description:
      - For each kind a mapping of names, without the prefix of the role, to values.
      - "The kinds are V(bool), V(int) (0 or more), V(count) (1 or more), V(float) (0 or more), V(port) (1 to 65535), V(optional_port) (0 to 65535),
        V(percent) (1 to 100), V(list), V(origins) (a list of web origins), V(dict), V(labels) (what of a deployment is replaced, by its label) and
        V(choice), where the value is a list of the value and the list of its choices."
    type: dict
    required: true
  role:
    description: Name of the role, the prefix of its variables.
    type: str
    required: true
"""

EXAMPLES = r"""
__example_typed: >-
  {{
    {
      'bool': {'debug': example_debug},
      'port': {'port': example_port},
    } | mlops.mlflow.typed('example')
  }}
# {'debug': False, 'port': 8080, 'problems': []}
"""

RETURN = r"""
_value:
  description:
    - The names with their typed values. A value that is of no such kind stays as it is.
    - C(problems) lists a sentence for each of those. It names C(mlflow_NAME) where that variable gave the value, else C(ROLE_NAME).
      One more for each variable of the collection that is set by a name that it had before.
  type: dict
"""

import json
import re
import typing as t
from collections.abc import Mapping, Sequence

from ansible.errors import AnsibleFilterError
from jinja2 import pass_context
from jinja2.runtime import Context

BOOLEANS = {
    **dict.fromkeys(("1", "on", "t", "true", "y", "yes"), True),
    **dict.fromkeys(("0", "f", "false", "n", "no", "off"), False),
}
# Division gives floats, in Ansible's templates too.
NUMBERS = {int: re.compile(r"([0-9]+)(?:\.0+)?"), float: re.compile(r"([0-9]+(?:\.[0-9]+)?)")}

RENAMED = {
    "mlflow_group": "mlflow_os_group",
    "mlflow_nginx_fail2ban": "mlflow_fail2ban",
    "mlflow_nginx_fail2ban_attempts": "mlflow_firewall_fail2ban_attempts",
    "mlflow_nginx_fail2ban_seconds": "mlflow_firewall_fail2ban_seconds",
    "mlflow_nginx_firewall": "mlflow_firewall",
    "mlflow_user": "mlflow_os_user",
}


class Kind(t.NamedTuple):
    type: type
    wish: str
    lowest: int = 0
    highest: int | None = None


KINDS = {
    "bool": Kind(bool, "true or false"),
    "int": Kind(int, "a whole number from 0"),
    "count": Kind(int, "a whole number from 1", 1),
    "float": Kind(float, "a number from 0"),
    "port": Kind(int, "a port from 1 to 65535", 1, 65535),
    "optional_port": Kind(int, "a port from 1 to 65535, or to 0 for none", 0, 65535),
    "percent": Kind(int, "a whole number from 1 to 100", 1, 100),
}


# For these the sentence tells no value, which may hold a secret.
COLLECTIONS = {
    "list": (Sequence, 'is no list: write it as one, such as ["a", "b"]'),
    "origins": (Sequence, 'is no list: write it as one, such as ["https://notebooks.example.com"]'),
    "dict": (Mapping, 'is no mapping: write it as one, such as {"a": "b"}'),
    "labels": (Mapping, 'is no mapping: write it as one, such as {"users": "2026-11-28"}'),
}
ROTATED = ("users", "secrets", "ca")
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:+-]*", re.ASCII)

# As browsers send them: with a name in letters of ASCII, without path and the scheme's own port.
ORIGIN = re.compile(r"(?!http://.*:80$|https://.*:443$)[a-z][a-z0-9+.-]*://([a-z0-9_.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?", re.ASCII | re.IGNORECASE)


def convert(kind: Kind, value: t.Any) -> bool | int | float | None:
    """The typed value; None where the value is of another kind."""
    text = str(value).strip().lower()
    if kind.type is bool:
        return BOOLEANS.get(text)
    match = NUMBERS[kind.type].fullmatch(text)
    if match is None:
        return None
    number = kind.type(match[1])
    return number if kind.lowest <= number and (kind.highest is None or number <= kind.highest) else None


def label_problem(part: str, label: t.Any) -> str:
    """What is wrong with a part of the deployment that is to be replaced, as the end of a sentence."""
    if part == "database":
        return "has database, whose password is not generated: change mlflow_database_password instead."
    if part not in ROTATED:
        return f"has {json.dumps(part)}: it may have {', '.join(ROTATED)}."
    if isinstance(label, bool) or not LABEL.fullmatch(str(label)):
        return f"has {json.dumps(label, default=str)} for {part}: write a label of letters, digits and _.:+-, such as a date."
    return ""


def variable_name(context: Context, role: str, key: str, value: t.Any) -> str:
    """The short name, where that variable gave the value."""
    short = f"mlflow_{key}"
    return short if short in context and str(context[short]) == str(value) else f"{role}_{key}"


@pass_context
def typed(context: Context, kinds: dict[str, dict[str, t.Any]], role: str) -> dict[str, t.Any]:
    values: dict[str, t.Any] = {}
    problems = [f"{old} is called {new} now: rename it in your inventory." for old, new in RENAMED.items() if old in context]
    for name, variables in kinds.items():
        if name not in (*KINDS, *COLLECTIONS, "choice"):
            raise AnsibleFilterError(f"typed: there is no kind {name}, but {', '.join((*KINDS, *COLLECTIONS, 'choice'))}.")
        for key, value in variables.items():
            if name == "choice":
                chosen, choices = value
                # YAML takes no for a boolean, and so does the specification.
                if ("no" if chosen is False else chosen) not in choices:
                    variable = variable_name(context, role, key, chosen)
                    problems.append(f"{variable} is {json.dumps(chosen, default=str)}: set it to one of {', '.join(choices)}.")
                continue
            if name in COLLECTIONS:
                collection, problem = COLLECTIONS[name]
                if isinstance(value, str) or not isinstance(value, collection):
                    problems.append(f"{variable_name(context, role, key, value)} {problem}.")
                elif name == "labels":
                    variable = variable_name(context, role, key, value)
                    labels: Mapping[str, t.Any] = dict(value)
                    problems += [f"{variable} {text}" for part in labels if (text := label_problem(str(part), labels[part]))]
                elif name == "origins":
                    problems += [
                        f"{variable_name(context, role, key, value)} has {json.dumps(origin, default=str)}: write each origin as browsers send it, "
                        "SCHEME://HOST or SCHEME://HOST:PORT, without wildcard, path and the scheme's own port, such as https://notebooks.example.com."
                        for origin in value
                        if not ORIGIN.fullmatch(str(origin))
                    ]
                continue
            found = convert(KINDS[name], value)
            values[key] = value if found is None else found
            if found is None:
                variable = variable_name(context, role, key, value)
                problems.append(f"{variable} is {json.dumps(value, default=str)}: set it to {KINDS[name].wish}.")
    return {**values, "problems": problems}


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"typed": typed}
