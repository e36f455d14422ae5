# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests that wait in the sockets while MLflow is away: what nobody waits for any more is not executed."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from servers import HOST, PYTHON, Connection, ask, children
from test_auth import GOOD, PASSWORD, Nginx
from test_launcher import SEARCH

CREATE = "/api/2.0/mlflow/runs/create"
UPLOAD = "/api/2.0/mlflow-artifacts/artifacts/waited/file"


@contextmanager
def away(served) -> Iterator[None]:
    """The workers take no connection."""
    workers = children(served.process.pid)
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    try:
        yield
    finally:
        for worker in workers:
            os.kill(worker, signal.SIGCONT)


@pytest.fixture
def experiment(cli) -> str:
    return ask(cli, "POST", "/api/2.0/mlflow/experiments/create", {"name": f"waiting {time.time()}"}).json()["experiment_id"]


def runs(cli, experiment: str) -> int:
    return len(ask(cli, "POST", "/api/2.0/mlflow/runs/search", {"experiment_ids": [experiment]}).json().get("runs", []))


@pytest.fixture(scope="module")
def nginx(top: Path, served) -> Iterator[Nginx]:
    (top / "waiting").mkdir()
    nginx = Nginx(top / "waiting")
    upstreams = {"mlflow_nginx_upstreams": [f"unix:{served.asgi}"], "mlflow_nginx_wsgi_upstreams": [f"unix:{served.wsgi}"]}
    nginx.start(mlflow_nginx_domain_aliases=["127.0.0.1"], **upstreams)
    yield nginx
    nginx.stop()


def send(address: Path, method: str, path: str, body: bytes) -> Connection:
    connection = Connection(address)
    connection.putrequest(method, path, skip_host=True)
    for name, value in (("Host", HOST), ("Connection", "close"), ("Content-Type", "application/json"), ("Content-Length", str(len(body)))):
        connection.putheader(name, value)
    connection.endheaders(body)
    return connection


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_a_call_whose_sender_has_gone_is_not_executed(cli, served, experiment, kind):
    body = json.dumps({"experiment_id": experiment}).encode()
    with away(served):
        for _try in range(5):
            send(getattr(served, kind), "POST", CREATE, body).close()
        last = send(getattr(served, kind), "POST", CREATE, body)
    assert last.getresponse().status == 200
    time.sleep(1)
    assert runs(cli, experiment) == 1


def test_an_upload_whose_sender_has_gone_is_not_begun(environ, served):
    with away(served):
        for _try in range(3):
            send(served.asgi, "PUT", UPLOAD, bytes(1000)).close()
    assert ask(served.asgi, "GET", UPLOAD).status == 404
    assert not (Path(environ["MLFLOW_ARTIFACTS_DESTINATION"]) / "waited").exists()


def test_one_call_of_the_real_client_leaves_one_run(cli, served, nginx, experiment):
    """It gives up after five seconds, and tries again, while MLflow is away."""
    code = f"import mlflow; print(mlflow.MlflowClient().create_run({experiment!r}).info.run_id)"
    environment = {
        "PATH": "/usr/bin:/bin",
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{nginx.port}",
        "MLFLOW_TRACKING_USERNAME": "alice",
        "MLFLOW_TRACKING_PASSWORD": PASSWORD,
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
        "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    log = nginx.top / "mlflow.access.log"
    before = log.read_text().count(CREATE)
    with away(served):
        client = subprocess.Popen([PYTHON, "-W", "ignore", "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 120
        while (given_up := log.read_text().count(CREATE) - before) < 3:
            assert client.poll() is None and time.monotonic() < deadline, f"given up {given_up} times"
            time.sleep(0.2)
    output, _none = client.communicate(timeout=240)
    assert client.returncode == 0
    assert output.strip()
    time.sleep(1)
    assert runs(cli, experiment) == 1


def passed_on(seconds: float) -> dict[str, str]:
    """The header by which nginx says when it passed a request on: so many seconds ago."""
    return {"X-Request-Start": f"t={time.time() - seconds:.3f}"}


@pytest.mark.parametrize(("kind", "path"), [("wsgi", CREATE), ("asgi", CREATE), ("asgi", "/v1/traces"), ("asgi", UPLOAD)])
def test_what_waited_longer_than_a_client_does_is_turned_away(cli, served, environ, experiment, kind, path):
    body = {"experiment_id": experiment} if path == CREATE else bytes(5 << 20)
    answer = ask(getattr(served, kind), "PUT" if path == UPLOAD else "POST", path, body, passed_on(121))
    assert answer.status == 429
    assert answer.json()["error_code"] == "REQUEST_LIMIT_EXCEEDED"
    (retry_after,) = answer.headers["retry-after"]
    assert 7 * int(retry_after) > 246, "a client tries seven times, and without the header it would try for 246 s"
    assert runs(cli, experiment) == 0
    assert not (Path(environ["MLFLOW_ARTIFACTS_DESTINATION"]) / "waited").exists()


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
@pytest.mark.parametrize("header", [100, -1000, "t=", "nonsense", None])
def test_what_waited_less_is_executed(served, kind, header):
    headers = passed_on(header) if isinstance(header, int) else {"X-Request-Start": header} if header else {}
    assert ask(getattr(served, kind), "POST", SEARCH, {"max_results": 1}, headers).status == 200


def test_nginx_says_when_it_passed_a_request_on(top):
    """Whatever the client says."""
    (top / "passes").mkdir()
    nginx = Nginx(top / "passes")
    upstream = f"unix:{top}/passes/listener.sock"
    nginx.start(mlflow_nginx_upstreams=[upstream], mlflow_nginx_wsgi_upstreams=[upstream])
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(upstream.removeprefix("unix:"))
            os.chmod(upstream.removeprefix("unix:"), 0o666)
            listener.listen()
            for path in (SEARCH, "/version", UPLOAD, "/health"):
                client = Connection(f"127.0.0.1:{nginx.port}")
                client.request("GET", path, headers={"Host": HOST, **GOOD, **passed_on(1000)})
                connection, _address = listener.accept()
                with connection:
                    got = connection.recv(1 << 16).decode()
                client.close()
                (started,) = re.findall(r"(?mi)^x-request-start: t=([0-9.]+)\r$", got)
                assert abs(time.time() - float(started)) < 5
    finally:
        nginx.stop()


def test_what_is_executed_is_not_cut_off(served, environ):
    """An upload that began in time may last."""
    connection = Connection(served.asgi)
    connection.putrequest("PUT", UPLOAD, skip_host=True)
    for name, value in (("Host", HOST), ("Connection", "close"), ("Content-Length", "20"), *passed_on(119).items()):
        connection.putheader(name, value)
    connection.endheaders(bytes(10))
    time.sleep(3)
    connection.send(bytes(10))
    assert connection.getresponse().status == 200
    ask(served.asgi, "DELETE", UPLOAD)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a small disk")
@pytest.mark.parametrize("size", [300_000, 3 << 20])
def test_a_full_disk_is_told(environ, served, nginx, size):
    disk = Path(environ["MLFLOW_ARTIFACTS_DESTINATION"]) / "full"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k,mode=777", "none", disk], check=True)
    try:
        path = "/api/2.0/mlflow-artifacts/artifacts/full/file"
        for address, headers in ((served.asgi, {}), (f"127.0.0.1:{nginx.port}", GOOD)):
            answer = ask(address, "PUT", path, bytes(size), headers)
            assert (answer.status, answer.json()["message"][:36]) == (507, "The disk of MLflow's server is full.")
            assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True)
        disk.rmdir()


def test_a_refused_upload_is_told_where_nginx_sends_no_files(top, served):
    """As with artifacts in S3: nginx is still sending when MLflow refuses."""
    (top / "refuses").mkdir()
    nginx = Nginx(top / "refuses")
    nginx.start(mlflow_nginx_upstreams=[f"unix:{served.asgi}"], mlflow_nginx_wsgi_upstreams=[f"unix:{served.wsgi}"], mlflow_nginx_artifacts_dir="")
    try:
        for _try in range(5):
            answer = ask(f"127.0.0.1:{nginx.port}", "PUT", "/api/2.0/mlflow-artifacts/artifacts/x/..%2f..%2foutside", bytes(20 << 20), GOOD)
            assert (answer.status, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    finally:
        nginx.stop()
