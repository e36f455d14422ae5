# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of this folder share: the role alone, requests from the host itself, and others' files on it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import deployment

PLAYBOOK = "molecule/neighbours/proxy.yml"
SITE = "/etc/nginx/sites-available/mlflow.conf"
GOOD, WRONG = (base64.b64encode(f"alice:{password}".encode()).decode() for password in ("correct horse battery", "wrong"))

ASK = """
import ssl, sys
from http.client import HTTPConnection, HTTPSConnection
port, name, password = sys.argv[1:]
here = HTTPSConnection("127.0.0.1", context=ssl._create_unverified_context()) if port == "443" else HTTPConnection("127.0.0.1", int(port))
here.request("GET", "/version", headers={"Host": name, "Connection": "close"} | ({"Authorization": "Basic " + password} if password else {}))
answer = here.getresponse()
print(answer.status, answer.read().decode()[:200])
"""


def ask(host, port: int = 443, name: str = "mlflow.test", password: str = "") -> str:
    """Status and body of what nginx answers."""
    return host.check_output("python3 -c %s %s %s %s", ASK, str(port), name, password)


def deployed(variables: dict | None = None, **where) -> str:
    return deployment.deployed(variables, playbook=PLAYBOOK, **where)


def unchanged(variables: dict | None = None, **where) -> None:
    deployment.unchanged(variables, playbook=PLAYBOOK, **where)


def refused(sentence: str, variables: dict | None = None, **where) -> None:
    deployment.refused(sentence, variables, playbook=PLAYBOOK, **where)


def failed(sentence: str, variables: dict | None = None) -> None:
    """A run that stops later, with this sentence."""
    run = deployment.deploy(variables, playbook=PLAYBOOK)
    assert run.returncode != 0, run.stdout[-4000:]
    assert sentence in deployment.said(run), run.stdout[-4000:]


@contextmanager
def file(host, path: str, content: str) -> Iterator[None]:
    """A file of somebody else, which is there for as long as the block lasts, or is another one meanwhile."""
    host.run_expect([0], "mkdir -p %s; [ ! -e %s ] || cp -p %s /run/aside; printf '%%s' %s >%s", str(Path(path).parent), path, path, content, path)
    try:
        yield
    finally:
        host.run_expect([0], "if [ -e /run/aside ]; then mv /run/aside %s; else rm %s; fi", path, path)
