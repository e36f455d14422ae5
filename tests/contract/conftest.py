# SPDX-License-Identifier: GPL-3.0-or-later
"""Real servers: PostgreSQL on a private unix socket, `mlflow server`, and the launcher beside it on the same database."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from servers import HOST, LAUNCHER, LISTED, PYTHON, as_user, ask, free_port, give, postgresql_program, run_mlflow_python, wait_until_healthy, with_variable


@pytest.fixture(scope="session")
def top() -> Iterator[Path]:
    """A directory that servers of other users can reach, which pytest's own are not, with a path short enough for unix sockets."""
    with tempfile.TemporaryDirectory(prefix="contract-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.fixture(scope="session")
def database(top: Path) -> Iterator[str]:
    """The URI of an empty database."""
    initdb, postgres, psql = map(postgresql_program, ("initdb", "postgres", "psql"))
    home = give(top / "pg", "postgres")
    user = as_user("postgres")
    admin = "postgres" if user else pwd.getpwuid(os.geteuid()).pw_name
    subprocess.run([*user, initdb, f"--pgdata={home}/data", "--auth=trust", "--encoding=UTF8", "--no-sync"], check=True, cwd=home, stdout=subprocess.DEVNULL)
    log = top / "pg.log"
    with log.open("w") as stderr:
        server = subprocess.Popen([*user, postgres, "-D", home / "data", "-k", home, "-c", "listen_addresses=", "-c", "fsync=off"], cwd=home, stderr=stderr)

    def sql(statement: str) -> int:
        return subprocess.run([psql, "-X", "-q", "-h", home, "-U", admin, "-d", "postgres", "-c", statement], capture_output=True, check=False).returncode

    try:
        while sql("SELECT 1"):
            assert server.poll() is None, log.read_text()
            time.sleep(0.1)
        assert sql("CREATE ROLE mlflow LOGIN") == sql("CREATE DATABASE mlflow OWNER mlflow") == 0
        yield f"postgresql+psycopg2://mlflow@/mlflow?host={home}"
    finally:
        server.send_signal(signal.SIGINT)  # fast: it does not wait for clients
        server.wait(60)


@pytest.fixture(scope="session")
def environ(top: Path, database: str) -> dict[str, str]:
    """MLflow's options, the same for both servers."""
    run_mlflow_python("import mlflow, psycopg2")
    home = give(top / "home", "nobody")
    return {
        "PATH": f"{Path(PYTHON).parent}:/usr/bin:/bin",
        "HOME": str(home),
        "OPENBLAS_NUM_THREADS": "1",
        "MLFLOW_BACKEND_STORE_URI": database,
        "MLFLOW_ARTIFACTS_DESTINATION": str(give(home / "artifacts", "nobody")),
        "MLFLOW_SERVER_ALLOWED_HOSTS": f"{HOST},{HOST}:8443,127.0.0.1,127.0.0.1:*",
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": f"https://{HOST},{LISTED}",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


@pytest.fixture(scope="session")
def cli(top: Path, environ: dict[str, str]) -> Iterator[str]:
    """The address of `mlflow server` as it is."""
    port, log = free_port(), top / "cli.log"
    command = [PYTHON, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with log.open("w") as output:
        process = subprocess.Popen([*as_user("nobody"), *command], env=environ, cwd=environ["HOME"], stdout=output, stderr=output, start_new_session=True)
    try:
        wait_until_healthy(f"127.0.0.1:{port}", process, log)
        yield f"127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # older commands do not pass it on
        process.wait(60)


@pytest.fixture(scope="session")
def data(cli) -> dict[str, str]:
    """Something to ask for."""

    def call(path: str, body: Any) -> Any:
        return ask(cli, "POST", f"/api/2.0/mlflow/{path}", body).json()

    experiment = call("experiments/create", {"name": "contract ünï"})["experiment_id"]
    run = call("runs/create", {"experiment_id": experiment, "start_time": 1})["run"]["info"]["run_id"]
    call("runs/log-metric", {"run_id": run, "key": "m", "value": 0.5, "timestamp": 2, "step": 3})
    call("runs/log-parameter", {"run_id": run, "key": "p", "value": "<ü&"})
    call("registered-models/create", {"name": "model"})
    call("model-versions/create", {"name": "model", "source": f"runs:/{run}/a", "run_id": run})
    for name in ("a/b.txt", "a/ü ö%.json", "index.html"):
        path = f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/{run}/artifacts/{quote(name)}"
        assert ask(cli, "PUT", path, b"content of " + name.encode()).status == 200
    return {"EXPERIMENT": experiment, "RUN": run}


@dataclass
class Launched:
    """What mlflow_serve.py started, and the sockets it answers on."""

    process: subprocess.Popen
    wsgi: Path
    asgi: Path
    log: Path

    @property
    def sockets(self) -> tuple[Path, Path]:
        return self.wsgi, self.asgi


Launch = Callable[..., "contextmanager[Launched]"]


@pytest.fixture(scope="session")
def launch(top: Path, environ: dict[str, str], cli: str) -> Launch:
    """Start the launcher with sockets as from systemd (after `cli`, which made the schema); it must end well, with all its processes."""

    @contextmanager
    def launched(name: str, *sockets: str, restart: bool = False, **more: str) -> Iterator[Launched]:
        paths = {kind: top / "home" / f"{name}-{kind}.sock" for kind in ("wsgi", "asgi")}
        log = top / f"{name}.log"
        activate = [PYTHON, str(Path(__file__).with_name("activate.py")), *(["--restart"] if restart else [])]
        command = [*as_user("nobody"), *activate, *(f"{kind}={path}" for kind, path in paths.items()), *sockets, "--", PYTHON, str(LAUNCHER)]
        ours = {"GUNICORN_CMD_ARGS": "--workers=1 --threads=4", "CONTRACT_LOG": str(log), "MLFLOW_SERVE_WSGI_SOCKET": str(paths["wsgi"])}
        environment = {**environ, **ours, **more}
        with log.open("w") as output:
            process = subprocess.Popen(command, env=environment, cwd=environ["HOME"], stdout=output, stderr=output)
        server = Launched(process, paths["wsgi"], paths["asgi"], log)
        try:
            for socket in server.sockets:
                wait_until_healthy(socket, process, log)
            yield server
        finally:
            process.terminate()
            status = process.wait(90)
            deadline = time.monotonic() + 90
            while left := with_variable(f"CONTRACT_LOG={log}"):
                assert time.monotonic() < deadline, f"left by the server: {left}"
                time.sleep(0.2)
        assert status == 0, log.read_text(errors="replace")[-3000:]

    return launched


@pytest.fixture(scope="session")
def served(launch: Launch) -> Iterator[Launched]:
    """The launcher with the options of `cli`."""
    with launch("served") as server:
        yield server
