# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: mlflow_secrets
short_description: The files of MLflow's own secrets, as they are to be
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Takes the file of the secrets with which MLflow encrypts what it stores, and returns it as it is to be, with the one of the secrets before.
  - What is there stays, unless O(label) is another than the one in the file, or O(given) has another value. Then all secrets get the next version, and
    those before are appended to O(previous) with their version at the end of their names.
  - New values are random, so take the result once.
positional: previous, label, given
options:
  _input:
    description: The file that is there; empty where there is none.
    type: str
    required: true
  previous:
    description: The file of earlier secrets.
    type: str
    default: ""
  label:
    description: The label of the rotation. Empty for none.
    type: str
    default: ""
  given:
    description: Secrets that a person chose, by their names.
    type: dict
    default: {}
"""

EXAMPLES = r"""
__example_secrets: "{{ content | mlops.mlflow.mlflow_secrets(label='2026-11-28') }}"
"""

RETURN = r"""
_value:
  description: The files, and what is wrong.
  type: dict
  contains:
    current:
      description: The file of the present secrets.
      type: str
    previous:
      description: The file of the earlier ones.
      type: str
    rotated:
      description: Whether secrets that were there are replaced.
      type: bool
    problems:
      description: A sentence for each value of O(given) that cannot be, without it.
      type: list
      elements: str
"""

import base64
import re
import secrets
import string
import typing as t
from collections.abc import Mapping

KEK = "MLFLOW_CRYPTO_KEK_PASSPHRASE"
KEK_VERSION = "MLFLOW_CRYPTO_KEK_VERSION"
WEBHOOK_KEY = "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"
LINE = re.compile(r'^(\w+)="((?:[^"\\]|\\.)*)"$', re.MULTILINE)
LABEL = re.compile(r"^# mlflow_rotate: (.*)$", re.MULTILINE)
FIRST = 2  # MLflow counts from 1, which is what it encrypted with the constant of its source
LENGTH = 16


def line(name: str, value: str) -> str:
    """As systemd reads it from an environment file."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{name}="{escaped}"\n'


def passphrase() -> str:
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _count in range(48))


def key() -> str:
    """As cryptography's Fernet takes it."""
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


def problem(name: str, value: t.Any) -> str:
    """What is wrong with a secret that was given, as a sentence; nothing where all is well."""
    if name not in (KEK, WEBHOOK_KEY):
        return f"mlflow_systemd_secrets has {name!r}: it may have {KEK} and {WEBHOOK_KEY}."
    if not isinstance(value, str) or not value.isprintable():
        return f"{name} in mlflow_systemd_secrets is no text of one line: write it in quotes."
    if name == KEK and len(value) < LENGTH:
        return f"{name} in mlflow_systemd_secrets has fewer than {LENGTH} characters: choose a longer one, or leave it out to have one generated."
    if name == WEBHOOK_KEY and not re.fullmatch(r"[A-Za-z0-9_-]{43}=", value):
        return f"{name} in mlflow_systemd_secrets is no key of Fernet: make one with openssl rand -base64 32 | tr +/ -_, or leave it out to have one generated."
    return ""


def mlflow_secrets(current: str, previous: str = "", label: str = "", given: t.Any = None) -> dict[str, t.Any]:
    if not isinstance(given or {}, Mapping):
        return {"current": current, "previous": previous, "rotated": False, "problems": []}  # refused by its type
    problems = [text for text in (problem(str(name), value) for name, value in (given or {}).items()) if text]
    wanted = {} if problems else dict(given or {})
    found = {name: re.sub(r"\\(.)", r"\1", value) for name, value in LINE.findall(current)}
    known = LABEL.search(current)
    due = bool(label) and label != (known[1] if known else "")
    if problems or (found and not due and all(found.get(name) == value for name, value in wanted.items())):
        return {"current": current, "previous": previous, "rotated": False, "problems": problems}
    values = {KEK: passphrase(), WEBHOOK_KEY: key()} if due or not found else {name: found.get(name) or make() for name, make in MAKERS.items()}
    values |= wanted
    version = int(found.get(KEK_VERSION) or FIRST - 1) if found else FIRST - 1
    kept = previous.splitlines(keepends=True)
    # A run that was cut off may have kept them before.
    kept += [text for name in MAKERS if name in found and (text := line(f"{name}_{version}", found[name])) not in kept]
    label = label or (known[1] if known else "")
    head = "# Ansible managed\n" + (f"# mlflow_rotate: {label}\n" if label else "")
    return {
        "current": head + line(KEK, values[KEK]) + line(KEK_VERSION, str(version + 1)) + line(WEBHOOK_KEY, values[WEBHOOK_KEY]),
        "previous": "".join(kept),
        "rotated": bool(found),
        "problems": [],
    }


MAKERS: dict[str, t.Callable[[], str]] = {KEK: passphrase, WEBHOOK_KEY: key}


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"mlflow_secrets": mlflow_secrets}
