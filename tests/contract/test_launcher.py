# SPDX-License-Identifier: GPL-3.0-or-later
"""mlflow_serve.py answers as `mlflow server` does: every Flask route, on the socket that nginx chooses for it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from servers import (
    HOST,
    LAUNCHER,
    NGINX_ROLE,
    ROOT,
    ask,
    asked_all_the_time,
    children,
    command_line,
    descendants,
    free_port,
    run_mlflow_python,
    wait_until_healthy,
)

# What nginx sends to the WSGI socket.
TO_FLASK = re.compile(yaml.safe_load((NGINX_ROLE / "vars/main.yml").read_text())["__mlflow_nginx_flask_routes"])
SEARCH = "/api/2.0/mlflow/experiments/search"

ROUTES = json.loads(run_mlflow_python((ROOT / "tests/routes.py").read_text()).split("ROUTES ", 1)[1])
FLASK = [(method, rule) for method, rule in ROUTES["flask"] if not rule.startswith("/build/")]

# They make demonstration data, or ask the internet.
NOT_COMPARED = {
    "/ajax-api/3.0/mlflow/gateway/supported-models",
    "/ajax-api/3.0/mlflow/demo/generate",
    "/ajax-api/3.0/mlflow/demo/delete",
}


def fill(rule: str) -> str:
    """A path that a rule matches."""
    return re.sub(r"[<{][^>}]+[>}]", "x", rule)


def normal(answer) -> tuple:
    """An answer without what differs between two calls of the same server: identifiers, names made up, and times."""
    body = answer.body.decode("utf-8", "replace")
    body = re.sub(r"\b[0-9a-f]{32}\b|\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|(?<=m-)[0-9a-f]{32}", "ID", body)
    body = re.sub(r"\b1[0-9]{12}\b", "TIME", body)
    body = re.sub(r"\b[a-z]+-[a-z]+-[0-9]{1,3}\b", "NAME", body)
    body = re.sub(r"\d{4}-\d\d-\d\d[T ][\d:.]+Z?", "TIME", body)
    return answer.status, answer.end_to_end, body


def same(cli: str, socket: Path, *request: Any, **more: Any):
    """Ask both servers; return the answer they agree on."""
    ours, theirs = ask(socket, *request, **more), ask(cli, *request, **more)
    assert normal(ours) == normal(theirs)
    return theirs


def chosen(served, path: str) -> Path:
    return served.wsgi if TO_FLASK.search(path.split("?", maxsplit=1)[0]) else served.asgi


def test_no_native_route_is_sent_to_flask():
    assert len(ROUTES["native"]) > 3
    assert [route for route in ROUTES["native"] if TO_FLASK.search(fill(route[1]))] == []


def test_most_routes_go_to_flask():
    assert sum(bool(TO_FLASK.search(fill(rule))) for _method, rule in FLASK) > len(FLASK) / 2


@pytest.mark.parametrize(("method", "rule"), [route for route in FLASK if route[1] not in NOT_COMPARED and route[0] != "OPTIONS"])
@pytest.mark.parametrize("body", [None, {}], ids=["none", "empty"])
def test_route(cli, served, method, rule, body):
    path = fill(rule)
    same(cli, chosen(served, path), method, path, body)


READS = [
    ("GET", "/", None),
    ("GET", "/version", None),
    ("GET", "/static-files/index.html", None),
    ("GET", "/static-files/nothing.js", None),
    ("GET", "/nothing", None),
    ("GET", "/api/2.0/mlflow/nothing", None),
    ("GET", "/api/2.0//mlflow/runs/get?run_id=RUN", None),
    ("GET", "/api/2.0/mlflow/experiments/get?experiment_id=EXPERIMENT", None),
    ("GET", "/api/2.0/mlflow/experiments/get-by-name?experiment_name=contract%20%C3%BCn%C3%AF", None),
    ("HEAD", "/api/2.0/mlflow/experiments/get?experiment_id=EXPERIMENT", None),
    ("POST", SEARCH, '{"max_results": 10}'),
    ("POST", SEARCH, "{broken"),
    ("POST", "/api/2.0/mlflow/runs/search", '{"experiment_ids": ["EXPERIMENT"]}'),
    ("POST", "/api/2.0/mlflow/runs/search", '{"experiment_ids": ["EXPERIMENT"], "filter": "no filter"}'),
    ("GET", "/api/2.0/mlflow/runs/get?run_id=RUN", None),
    ("GET", "/ajax-api/2.0/mlflow/runs/get?run_id=RUN", None),
    ("GET", "/api/2.0/mlflow/metrics/get-history?run_id=RUN&metric_key=m", None),
    ("GET", "/ajax-api/2.0/mlflow/metrics/get-history-bulk?run_id=RUN&metric_key=m", None),
    ("GET", "/api/2.0/mlflow/artifacts/list?run_id=RUN", None),
    ("GET", "/api/2.0/mlflow/artifacts/list?run_id=RUN&path=a", None),
    ("GET", "/api/2.0/mlflow/artifacts/list?run_id=RUN&path=..%2F..", None),
    ("GET", "/api/2.0/mlflow/registered-models/get?name=model", None),
    ("GET", "/api/2.0/mlflow/model-versions/get?name=model&version=1", None),
    ("POST", "/graphql", r'{"query": "{ mlflowGetExperiment(input: {experimentId: \"EXPERIMENT\"}) { experiment { name } } }", "operationName": "x"}'),
    ("GET", "/get-artifact?run_uuid=RUN&path=a/b.txt", None),
    ("GET", "/get-artifact?run_uuid=RUN&path=a/%C3%BC%20%C3%B6%25.json", None),
    ("GET", "/get-artifact?run_uuid=RUN&path=index.html", None),
    ("GET", "/get-artifact?run_uuid=RUN&path=missing", None),
    ("GET", "/get-artifact?run_uuid=RUN&path=../../x", None),
    ("GET", "/get-artifact", None),
    ("GET", "/model-versions/get-artifact?name=model&version=1&path=b.txt", None),
    ("GET", "/api/2.0/mlflow-artifacts/artifacts?path=EXPERIMENT/RUN/artifacts", None),
    ("GET", "/api/2.0/mlflow-artifacts/artifacts/EXPERIMENT/RUN/artifacts/a/b.txt", None),
    ("GET", "/api/2.0/mlflow-artifacts/artifacts/EXPERIMENT/RUN/artifacts/a", None),
    ("GET", "/ajax-api/2.0/mlflow-artifacts/artifacts/EXPERIMENT/RUN/artifacts/a/b.txt", None),
]


# What MLflow's interface asks for 100 runs at once, and longer.
RUN_IDS = "&".join(f"run_ids={number:032x}" for number in range(100))
LONG = "x" * 40_000
LONG_READS = [
    ("GET", f"/ajax-api/2.0/mlflow/metrics/get-history-bulk-interval?metric_key=m&run_ids=RUN&{RUN_IDS}", {}),
    ("GET", f"/ajax-api/2.0/mlflow/metrics/get-history-bulk?metric_key=m&run_id=RUN&{RUN_IDS}", {}),
    ("GET", f"/api/2.0/mlflow/runs/get?run_id=RUN&{LONG}", {}),
    ("GET", f"/api/2.0/mlflow/experiments/get-by-name?experiment_name={LONG}", {}),
    ("GET", "/api/2.0/mlflow/runs/get?run_id=RUN", {"X-Long": LONG}),
    ("GET", f"/get-artifact?run_uuid=RUN&path={LONG}", {}),
    ("GET", f"/version?{LONG}", {}),
    ("GET", "/version", {"Cookie": LONG}),
    ("GET", f"/nothing/{LONG}", {}),
    ("GET", f"/api/2.0/mlflow-artifacts/artifacts?path=EXPERIMENT&{LONG}", {}),
    ("GET", f"/api/2.0/mlflow-artifacts/artifacts/EXPERIMENT/RUN/artifacts/a/b.txt?{LONG}", {}),
]


@pytest.mark.parametrize(("method", "path", "headers"), LONG_READS, ids=[path[:40] for _method, path, _headers in LONG_READS])
def test_long_request(cli, served, data, method, path, headers):
    path = re.sub("RUN|EXPERIMENT", lambda name: data[name[0]], path)
    same(cli, chosen(served, path), method, path, headers=headers)


def test_the_sockets_keep_the_queue_that_systemd_gave_them(served):
    """Both servers call listen() again."""
    sockets = subprocess.run(["ss", "--listening", "--unix", "--no-header"], capture_output=True, text=True, check=True).stdout
    queues = {fields[4]: int(fields[3]) for fields in map(str.split, sockets.splitlines())}
    longest = int(Path("/proc/sys/net/core/somaxconn").read_text())
    assert [queues[str(socket)] for socket in served.sockets] == [min(4096, longest)] * 2


@pytest.mark.parametrize(("method", "path", "body"), READS)
def test_read(cli, served, data, method, path, body):
    def fill_in(text: str) -> str:
        return re.sub("RUN|EXPERIMENT", lambda name: data[name[0]], text)

    headers = {"Content-Type": "application/json"} if body else {}
    same(cli, chosen(served, path), method, fill_in(path), body and fill_in(body).encode(), headers=headers)


@pytest.mark.parametrize("path", [SEARCH, "/graphql", "/get-artifact", "/v1/traces", "/ajax-api/3.0/mlflow/traces/search", "/health"])
@pytest.mark.parametrize("host", [HOST, f"{HOST}:8443", f"{HOST}:9999", "evil.test", "127.0.0.1:1", ""])
def test_host(cli, served, path, host):
    """Both applications check the Host header, each for itself."""
    theirs = ask(cli, "POST", path, {"max_results": 1}, headers={"Host": host})
    refused = path != "/health" and host not in (HOST, f"{HOST}:8443", "127.0.0.1:1")
    assert (theirs.status == 403 and b"Host" in theirs.body) == refused
    for socket in served.sockets:
        ours = ask(socket, "POST", path, {"max_results": 1}, headers={"Host": host})
        if refused or chosen(served, path) == socket:
            assert (ours.status, ours.body) == (theirs.status, theirs.body)


@pytest.mark.parametrize("path", [SEARCH, "/ajax-api/2.0/mlflow/experiments/search", "/graphql", "/get-artifact"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest.mark.parametrize("origin", [f"https://{HOST}", "https://evil.test", "null", "http://localhost:3000"])
def test_origin(cli, served, method, path, origin):
    """nginx sends OPTIONS and foreign origins to the ASGI socket. The WSGI socket would refuse, and let read, the same ones."""
    headers = {"Origin": origin}
    if method == "OPTIONS":
        headers["Access-Control-Request-Method"] = "POST"
    request = method, path, {} if method == "POST" else None
    theirs = same(cli, served.asgi, *request, headers=headers)
    ours = ask(served.wsgi, *request, headers=headers)
    if method != "OPTIONS":
        assert (ours.status, ours.body) == (theirs.status, theirs.body)
        allowed = "access-control-allow-origin"  # MLflow 3.9 names foreign origins in its ASGI application: Flask does not
        assert ours.headers.get(allowed) in (None, theirs.headers.get(allowed))
    if origin == "https://evil.test" and method == "POST" and path == SEARCH:
        assert ours.status == 403
        assert b"blocked" in ours.body


def test_large_bodies(cli, served, data):
    params = [{"key": f"k{number}", "value": "v" * 400} for number in range(90)]
    tags = [{"key": f"t{number}", "value": "w" * 4000} for number in range(100)]
    same(cli, served.wsgi, "POST", "/api/2.0/mlflow/runs/log-batch", {"run_id": data["RUN"], "params": params, "tags": tags})
    same(cli, served.wsgi, "GET", f"/api/2.0/mlflow/runs/get?run_id={data['RUN']}")


def test_large_artifact(served, data):
    path = f"/api/2.0/mlflow-artifacts/artifacts/{data['EXPERIMENT']}/{data['RUN']}/artifacts/big"
    content = os.urandom(64 << 20)
    assert ask(served.asgi, "PUT", path, content).status == 200
    assert ask(served.asgi, "GET", path).body == content


def test_workers_die_and_come_back(served):
    before = children(served.process.pid)
    assert before
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    for socket in served.sockets:
        assert ask(socket, "POST", SEARCH, {"max_results": 1}).status == 200
    assert children(served.process.pid).isdisjoint(before)


def test_reload_fails_nothing(served):
    before = children(served.process.pid)
    with asked_all_the_time(served.sockets * 3):
        for _count in range(3):
            time.sleep(2)
            served.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 30
        while children(served.process.pid) & before:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_restart_fails_nothing(launch):
    """Whatever is asked while the service is down waits in the sockets that systemd holds."""
    with launch("restarted", restart=True) as server, asked_all_the_time(server.sockets * 3):
        for _count in range(2):
            time.sleep(2)
            (before,) = children(server.process.pid)
            os.kill(before, signal.SIGTERM)
            deadline = time.monotonic() + 90
            while children(server.process.pid) <= {before}:
                assert time.monotonic() < deadline, "it does not end"
                time.sleep(0.1)
            wait_until_healthy(server.asgi, server.process, server.log)
        time.sleep(2)


def test_closing_idle_connections_disturbs_no_request():
    code = f"""
import sys, threading
sys.path.insert(0, {str(LAUNCHER.parent)!r})
import mlflow.server.fastapi_app, mlflow_serve, sqlalchemy
mlflow_serve.keep_engines()
engine = sqlalchemy.create_engine("sqlite://", poolclass=sqlalchemy.QueuePool, connect_args={{"check_same_thread": False}})
engine.connect().close()
mlflow_serve.close_idle_connections()
assert engine.pool.checkedin() == 0
closing = threading.Thread(target=lambda: [mlflow_serve.close_idle_connections() for _count in range(100)])
closing.start()
while closing.is_alive():
    tuple(number for number in range(50))
print("done")
"""
    assert run_mlflow_python(code).split() == ["done"]


def test_sends_nothing_where_mlflow_has_no_telemetry_client():
    """A release may have it elsewhere, or no more."""
    code = f"""
import sys
sys.path.insert(0, {str(LAUNCHER.parent)!r})
sys.modules["mlflow.telemetry.client"] = None  # what an import finds that fails
import mlflow_serve
print(mlflow_serve.send_telemetry())
"""
    assert run_mlflow_python(code).split() == ["None"]


def test_no_thread_before_the_fork():
    """Threads do not survive a fork, and what they hold stays locked."""
    assert run_mlflow_python("import threading, mlflow.server.fastapi_app; print(threading.active_count())").split()[-1] == "1"


def test_no_connection_before_the_fork(served):
    """A connection that workers share would mix their answers."""
    fds = Path(f"/proc/{served.process.pid}/fd").iterdir()
    sockets = [fd for fd in fds if os.readlink(fd).startswith("socket:")]
    assert len(sockets) == 2, "the two from systemd"


def test_jobs_run(launch):
    """MLflow's job runner belongs to the server, and knows how to reach it; that it ends with it is what `launch` sees to."""
    port = free_port()
    options = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "true", "MLFLOW_HOST": "127.0.0.1", "MLFLOW_PORT": str(port)}
    with launch("jobs", f"jobs=127.0.0.1:{port}", **options) as server:
        wait_until_healthy(f"127.0.0.1:{port}", server.process, server.log)
        deadline = time.monotonic() + 300
        while not any("huey_consumer" in command_line(pid) for pid in descendants(server.process.pid)):
            assert time.monotonic() < deadline, server.log.read_text(errors="replace")[-3000:]
            time.sleep(0.5)
        (runner,) = (pid for pid in children(server.process.pid) if "_job_runner" in command_line(pid))
        environment = Path(f"/proc/{runner}/environ").read_text().split("\0")
        assert f"MLFLOW_TRACKING_URI=http://127.0.0.1:{port}" in environment
        assert f"MLFLOW_SERVER_PID={server.process.pid}" in environment
