# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests need to start real servers, to ask them and to watch their processes."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any, ClassVar

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = ROOT / "roles/mlflow_systemd/files/mlflow_serve.py"
NGINX_ROLE = ROOT / "roles/mlflow_nginx"
PYTHON = os.environ.get("MLFLOW_TEST_PYTHON") or str(ROOT / ".cache/mlflow/bin/python")
HOST = "mlflow.test"
LISTED = "https://notebooks.test:8443"  # an origin of others that may ask


def program(name: str, package: str, places: Sequence[Path] = ()) -> str:
    """The path of a program or library, which a Debian package brings."""
    path = os.pathsep.join([*map(str, places), os.environ["PATH"], "/usr/sbin"])
    found = shutil.which(name, path=path) or next((str(place / name) for place in places if (place / name).exists()), None)
    if not found:
        pytest.fail(f"These tests need {name}: install it (apt install {package}).", pytrace=False)
    return found


def postgresql_program(name: str) -> str:
    """The path of a program of PostgreSQL, of the newest release."""
    return program(name, "postgresql", sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True))


def run_mlflow_python(code: str) -> str:
    """What code prints in the Python that has MLflow."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"OPENBLAS_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    try:
        return subprocess.run([PYTHON, "-W", "ignore", "-c", code], env=environment, capture_output=True, text=True, check=True).stdout
    except OSError:
        problem = "is not there"
    except subprocess.CalledProcessError as error:
        problem = f"says: {error.stderr[-1000:]}"
    pytest.fail(
        f"These tests need a Python with MLflow and psycopg2: run `tests/setup.sh mlflow`, or set MLFLOW_TEST_PYTHON. {PYTHON} {problem}", pytrace=False
    )


def as_user(name: str) -> list[str]:
    """Words before a command that make another user run it, where root runs the tests.

    That user may read all files, so that a Python below root's home does, too; it may write its own only.
    """
    if os.geteuid():
        return []
    setpriv = program("setpriv", "util-linux")
    group = subprocess.run(["id", "--group", "--name", name], capture_output=True, text=True, check=True).stdout.strip()
    return [setpriv, f"--reuid={name}", f"--regid={group}", "--clear-groups", "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]


def give(path: Path, user: str) -> Path:
    """Make a directory that belongs to a user."""
    path.mkdir(parents=True)
    if not os.geteuid():
        shutil.chown(path, user)
    return path


class Connection(HTTPConnection):
    """To HOST:PORT, or to the path of a unix socket."""

    def __init__(self, address: str | Path, source: str = "") -> None:
        self.path = str(address) if str(address).startswith("/") else ""
        super().__init__("localhost" if self.path else str(address), timeout=60, source_address=(source, 0) if source else None)

    def connect(self) -> None:
        if not self.path:
            return super().connect()
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Answer:
    """Status, headers (in lower case, each with the set of its values) and body."""

    HOP: ClassVar = {"date", "server", "connection", "keep-alive", "transfer-encoding", "content-length"}

    def __init__(self, response: HTTPResponse) -> None:
        self.status = response.status
        self.body = response.read()
        self.headers: dict[str, set[str]] = {}
        for name, value in response.getheaders():
            # A list that names one thing twice ("Vary: Origin, Origin") says no more than one that names it once.
            values = map(str.strip, value.split(",")) if name.lower() in ("vary", "allow") else [value]
            self.headers.setdefault(name.lower(), set()).update(values)

    @property
    def end_to_end(self) -> dict[str, set[str]]:
        return {name: values for name, values in self.headers.items() if name not in self.HOP}

    def json(self) -> Any:
        return json.loads(self.body)


def ask(address: str | Path, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, source: str = "") -> Answer:
    """Send one request on a connection of its own, exactly as it is written."""
    sent = {"Host": HOST, "Connection": "close", **(headers or {})}
    if body is not None:
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        sent["Content-Length"] = str(len(body))
    connection = Connection(address, source)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in sent.items():
            connection.putheader(name, value)
        try:
            connection.endheaders(body)
        except (BrokenPipeError, ConnectionResetError):
            pass  # answered before it read the body
        return Answer(connection.getresponse())
    finally:
        connection.close()


def wait_until_healthy(address: str | Path, process: subprocess.Popen, log: Path, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if ask(address, "GET", "/health").status == 200:
                return
        except OSError:
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"{address} does not answer: {log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.2)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def children(pid: int) -> set[int]:
    """The processes that any thread of a process started."""
    try:
        return {int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()}
    except (FileNotFoundError, ProcessLookupError):
        return set()


def descendants(pid: int) -> Iterator[int]:
    for child in children(pid):
        yield child
        yield from descendants(child)


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def with_variable(assignment: str) -> list[str]:
    """The command lines of all processes that have NAME=VALUE in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if assignment in (process / "environ").read_text(errors="replace").split("\0"):
                found.append(command_line(int(process.name)))
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            pass
    return found


@contextmanager
def asked_all_the_time(addresses: Sequence[Path]) -> Iterator[None]:
    """Clients that ask without a pause, each time with a new connection, while the block runs: every answer must be a good one."""
    answers: list[int | str] = []
    stop = threading.Event()

    def client(address: Path) -> None:
        while not stop.is_set():
            try:
                answer = ask(address, "POST", "/api/2.0/mlflow/experiments/search", {"max_results": 1})
                answers.append(answer.status if answer.status == 200 else f"{answer.status}: {answer.body}")
            except OSError as error:
                answers.append(repr(error))

    threads = [threading.Thread(target=client, args=[address]) for address in addresses]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert set(answers) == {200}, set(answers)
    assert len(answers) > 10
