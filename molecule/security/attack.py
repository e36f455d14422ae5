# SPDX-License-Identifier: GPL-3.0-or-later
"""What the attacks share: the hosts, requests made byte by byte, and what MLflow got of them."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
PROGRAMS = HERE / "programs"  # for the hosts
DOMAIN = "mlflow.test"
USER, PASSWORD = "mlflow", os.environ["MLFLOW_TEST_PASSWORD"]
SERVER, CLIENT = os.environ["MLFLOW_TEST_SERVER"], os.environ["MLFLOW_TEST_CLIENT"]
SCHEME, PORT = os.environ["MLFLOW_TEST_SCHEME"], os.environ["MLFLOW_TEST_PORT"]
SOCKETS = ["/run/mlflow/mlflow.sock", "/run/mlflow/wsgi.sock"]
TAPPED = "/run/mlflow-tap.json"

FIGURES: list[str] = []  # for the end of the run: see conftest.py


def on(host: str, *command: str, data: str = "") -> str:
    """What a command prints on a host of the scenario."""
    run = subprocess.run(["podman", "exec", "--interactive", host, "timeout", "300", *command], input=data, capture_output=True, text=True, check=False)
    assert run.returncode == 0, f"{command[:3]} on {host}: {run.stderr[-2000:]}"
    return run.stdout


def python(host: str, script: str, *words: str, data: str = "") -> str:
    return on(host, "python3", "-c", (PROGRAMS / script).read_text(), *words, data=data)


def basic(user: str, password: str) -> str:
    return "Authorization: Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


GOOD = basic(USER, PASSWORD)
WRONG = basic(USER, "wrong password")
NOBODY = basic("nobody", "wrong password")


def request(method: str, target: str, *headers: str, body: str = "", host: str = DOMAIN, version: str = "HTTP/1.1") -> str:
    lines = [f"{method} {target} {version}", f"Host: {host}", *headers]
    if body or method in ("POST", "PUT", "PATCH"):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", body])


def send(requests: Iterable[str]) -> list[str]:
    """Have the client host send these, and return all that came back for each."""
    return json.loads(python(CLIENT, "send.py", DOMAIN, PORT, SCHEME, data=json.dumps(list(requests))))


def statuses(answer: str) -> list[int]:
    """Those of every answer in what was received: one request may have smuggled in a second one."""
    return [int(number) for number in re.findall(r"HTTP/1\.[01] ([0-9]{3}) [A-Z]", answer)]


class Tap:
    """What MLflow gets, from whichever socket: the bytes of each connection."""

    def take(self) -> list[str]:
        time.sleep(0.3)  # for what is still on its way
        lines = on(SERVER, "sh", "-c", f"cat {TAPPED}; : >{TAPPED}").splitlines()
        return [json.loads(line)[1] for line in lines]


@contextmanager
def tap() -> Iterator[Tap]:
    on(SERVER, "sh", "-c", f"rm -f {TAPPED}; cat >/run/mlflow-tap.py", data=(PROGRAMS / "tap.py").read_text())
    on(SERVER, "sh", "-c", "! systemctl --quiet is-active mlflow-tap || systemctl stop mlflow-tap")
    on(SERVER, "systemd-run", "--quiet", "--unit=mlflow-tap", "--collect", "python3", "/run/mlflow-tap.py", TAPPED, *SOCKETS)
    try:
        on(SERVER, "sh", "-c", f"until test -S {SOCKETS[1].replace('.sock', '.real')} -a -S {SOCKETS[1]}; do sleep 0.1; done")
        yield Tap()
    finally:
        on(SERVER, "systemctl", "stop", "mlflow-tap")
