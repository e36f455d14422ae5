# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: users
short_description: Check a list of users, and tell whose password is to be generated
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Sorts the value of C(mlflow_users) into what the password file holds and what is wrong with it.
  - The rules for names and passwords are those of M(mlops.mlflow.htpasswd), but for one that a module cannot see. It gets text where YAML
    made a number, a boolean or a date of what was typed, such as C(0123456701234567) or C(no), and would hash another password.
positional: hash_scheme, rounds, password_length
options:
  _input:
    description: The users, each with C(name), and with C(password), C(password_hash) or neither, and C(state).
    type: list
    elements: dict
    required: true
  hash_scheme:
    description: As of M(mlops.mlflow.htpasswd).
    type: str
    default: bcrypt
  rounds:
    description: As of M(mlops.mlflow.htpasswd); V(0) is the default of the scheme.
    type: int
    default: 0
  password_length:
    description: How many characters a password has at least.
    type: int
    default: 12
"""

EXAMPLES = r"""
__example_users: "{{ mlflow_users | mlops.mlflow.users }}"
# mlflow_users: [{name: alice, password: correct horse}, {name: bob}, {name: carol, state: absent}]
# {'given': [{'name': 'alice', 'password': 'correct horse'}], 'generated': ['bob'], 'names': ['alice', 'bob'], 'problems': []}
"""

RETURN = r"""
_value:
  description:
    - C(given) lists the users with a password or its hash, C(generated) the names of those with neither, C(names) those of both.
      Absent users are in none of them.
    - C(problems) lists a sentence for each user who cannot be, without their password, and for what is wrong with the list or the hashing.
  type: dict
"""

import datetime
import re
import typing as t
from collections.abc import Mapping

from ansible_collections.mlops.mlflow.plugins.module_utils.htpasswd import Hashing, Refusal, User, check_users

FILE_NAME = re.compile(r"[A-Za-z0-9_@+-][A-Za-z0-9_@.+-]*")
KINDS = {bool: "boolean", int: "number", float: "number", datetime.date: "date"}
KEYS = ("name", "password", "password_hash", "state")
COMMON = ("changeme", "password")


def shape(user: t.Any) -> str:
    """What is wrong with an entry that describes no user, as a sentence; nothing where it does."""
    if not isinstance(user, Mapping):
        name = user if isinstance(user, str) and FILE_NAME.fullmatch(user) else "alice"  # anything else may hold a password
        return f"it has an entry that is no mapping: write - name: {name}."
    odd = [str(key) for key in user if key not in KEYS]
    return f"a user has {', '.join(odd)}, and may have {', '.join(KEYS)}." if odd else ""


def problem(user: dict[str, t.Any], hashing: Hashing, password_length: int) -> str:
    """What is wrong with a user, as a sentence; nothing where all is well."""
    name = user.get("name", "")
    for key in ("name", "password", "password_hash"):
        for kind, word in KINDS.items():
            if isinstance(user.get(key), kind):
                return f"YAML takes the {key}{'' if key == 'name' else f' of {name!r}'} for a {word}: write it in quotes."
    text = {key: str(user[key]) for key in ("password", "password_hash") if user.get(key) is not None}
    absent = user.get("state") == "absent"
    try:
        if absent or text:
            check_users([User(str(name), text.get("password"), text.get("password_hash"), "absent" if absent else "present")], hashing)
        else:
            check_users([User(str(name), state="absent")], hashing)
            if not FILE_NAME.fullmatch(name):
                return f"the password of {name!r} would be kept in a file of that name: set it, or use letters, digits and _@.+- in the name."
    except Refusal as refusal:
        return f"{refusal}."
    password = text.get("password")
    if absent or password is None or (len(password) >= password_length and password.lower() not in (name.lower(), *COMMON)):
        return ""
    return (
        f"the password of {name!r} has fewer than {password_length} characters or is easy to guess: choose a longer one, or leave it out to have one generated."
    )


def users(users: list[dict[str, t.Any]], hash_scheme: str = "bcrypt", rounds: int = 0, password_length: int = 12) -> dict[str, t.Any]:
    if odd := [text for text in map(shape, users) if text]:
        return {"given": [], "generated": [], "names": [], "problems": odd}
    problems = [] if users else ["it is empty, so nobody could log in: name at least one user, or leave it out to get one."]
    try:
        hashing = Hashing(hash_scheme, rounds or None)
    except Refusal as refusal:
        return {"given": [], "generated": [], "names": [], "problems": [f"{refusal}."]}
    names = [user.get("name", "") for user in users]
    problems += [f"it lists {name!r} more than once: keep one entry." for name in sorted({str(name) for name in names if names.count(name) > 1})]
    problems += [text for text in (problem(user, hashing, password_length) for user in users) if text]
    present = [user for user in users if user.get("state") != "absent"]
    given = [
        {key: user[key] for key in ("name", "password", "password_hash") if user.get(key) is not None}
        for user in present
        if user.get("password") is not None or user.get("password_hash") is not None
    ]
    generated = [user.get("name", "") for user in present if user.get("password") is None and user.get("password_hash") is None]
    return {"given": given, "generated": generated, "names": [user.get("name", "") for user in present], "problems": problems}


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"users": users}
