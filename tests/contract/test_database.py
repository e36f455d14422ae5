# SPDX-License-Identifier: GPL-3.0-or-later
"""MLflow keeps its promises to clients while its database stalls, and when its host vanishes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import pytest
import yaml
from ansible_collections.mlops.mlflow.plugins.filter.sizing import sizing
from servers import ROOT, as_user, ask, give, postgresql_program, program

DEFAULTS, INTERNAL = (yaml.safe_load((ROOT / "roles/mlflow_systemd" / place / "main.yml").read_text()) for place in ("defaults", "vars"))
LOG_BATCH = "/api/2.0/mlflow/runs/log-batch"
STALL = 35  # seconds; a pool of connections gives up after 30
HOST, DATABASE_HOST = "198.18.77.1", "198.18.77.2"


def wishes() -> dict:
    """The role's defaults for its filter."""
    return {name.removeprefix("mlflow_systemd_"): value for name, value in DEFAULTS.items()}


def sized(**facts: int) -> dict[str, str]:
    """The environment of a server with the role's defaults."""
    size = sizing({"generations": 2, **facts}, wishes())
    assert not size["problems"]
    return {
        "GUNICORN_CMD_ARGS": f"--workers={size['workers']} --threads={size['threads']}",
        "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": str(size["pool_size"]),
        "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": str(size["max_overflow"]),
    }


def new_run(server) -> str:
    return ask(server.wsgi, "POST", "/api/2.0/mlflow/runs/create", {"experiment_id": "0"}).json()["run"]["info"]["run_id"]


def batch(run: str) -> dict:
    """Every kind of thing that a call logs: each takes a connection beside the one that the call holds."""
    metric = {"key": "loss", "value": 1.0, "timestamp": int(time.time() * 1000), "step": 0}
    return {"run_id": run, "metrics": [metric], "tags": [{"key": "tag", "value": "x"}]}


def lock(uri: str, seconds: int) -> subprocess.Popen:
    """Hold a table that every log-batch writes; return when it is held."""
    statements = ["BEGIN", "LOCK TABLE metrics IN ACCESS EXCLUSIVE MODE", r"\echo held", f"SELECT pg_sleep({seconds})", "COMMIT"]
    command = [postgresql_program("psql"), "-X", uri.replace("+psycopg2", ""), *(f"--command={statement}" for statement in statements)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    while "held" not in (line := process.stdout.readline()):
        assert line, "the table could not be locked"
    return process


def test_no_client_is_turned_away_by_a_database_that_stalls(launch, database):
    """400 would end a training run: clients repeat a 503, but no 400."""
    with launch("stall", **sized(cores=4, memory_mib=7900)) as launched:
        runs = [new_run(launched) for _client in range(32)]
        locker = lock(database, STALL)
        with ThreadPoolExecutor(len(runs)) as clients:
            start = time.monotonic()
            answers = list(clients.map(lambda run: ask(launched.wsgi, "POST", LOG_BATCH, batch(run)), runs))
            waited = time.monotonic() - start
        locker.wait(30)
        assert {(answer.status, answer.body) for answer in answers} == {(200, b"{}")}
        assert waited > 31, "the database did not stall"


@dataclass
class Remote:
    """PostgreSQL on another host, which is a network namespace, and the cable to it."""

    uri: str
    namespace: str

    def cable(self, action: str) -> None:
        """Drop every packet, or none: what vanishes sends no reset."""
        for chain in ("INPUT", "OUTPUT"):
            subprocess.run(["ip", "netns", "exec", self.namespace, program("iptables", "iptables"), action, chain, "--jump", "DROP"], check=True)


@pytest.fixture
def remote(top: Path) -> Iterator[Remote]:
    if os.geteuid():
        pytest.skip("a network namespace needs root")
    name = f"mlflow-{os.getpid()}"
    namespace = ["ip", "netns", "exec", name]
    home = give(top / "remote", "postgres")
    subprocess.run(
        [*as_user("postgres"), postgresql_program("initdb"), f"--pgdata={home}/data", "--auth=trust", "--encoding=UTF8", "--no-sync"],
        check=True,
        cwd=home,
        stdout=subprocess.DEVNULL,
    )
    with (home / "data/pg_hba.conf").open("a") as file:
        file.write(f"host all all {HOST}/32 trust\n")
    subprocess.run(["ip", "netns", "add", name], check=True)
    server = None
    try:
        for command in (
            f"ip link add mlflow-{os.getpid() % 10000} type veth peer name cable netns {name}",
            f"ip address add {HOST}/30 dev mlflow-{os.getpid() % 10000}",
            f"ip link set mlflow-{os.getpid() % 10000} up",
            f"ip -netns {name} address add {DATABASE_HOST}/30 dev cable",
            f"ip -netns {name} link set cable up",
        ):
            subprocess.run(command.split(), check=True)
        listen = ["-c", f"listen_addresses={DATABASE_HOST}", "-c", "fsync=off"]
        server = subprocess.Popen([*namespace, *as_user("postgres"), postgresql_program("postgres"), "-D", home / "data", "-k", home, *listen], cwd=home)
        psql = [postgresql_program("psql"), "-X", "-q", "-h", home, "-U", "postgres", "-d", "postgres", "-c"]
        deadline = time.monotonic() + 30
        while subprocess.run([*psql, "CREATE ROLE mlflow LOGIN"], capture_output=True, check=False).returncode:
            assert server.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        subprocess.run([*psql, "CREATE DATABASE mlflow OWNER mlflow"], check=True)
        parameters = urlencode({"sslmode": "disable", **INTERNAL["__mlflow_systemd_database_parameters"]})
        yield Remote(f"postgresql+psycopg2://mlflow@{DATABASE_HOST}:5432/mlflow?{parameters}", name)
    finally:
        if server:
            server.send_signal(signal.SIGQUIT)  # at once: clients can't be told
            server.wait(60)
        subprocess.run(["ip", "netns", "delete", name], check=True)
        shutil.rmtree(home)


def test_a_database_that_vanishes_holds_requests_for_seconds(launch, remote):
    """Without a reset, TCP itself would wait for a quarter of an hour."""
    with launch("vanished", MLFLOW_BACKEND_STORE_URI=remote.uri, **sized(cores=2, memory_mib=1975)) as launched:
        run = new_run(launched)
        locker = lock(remote.uri, 600)

        def timed() -> tuple[int, float]:
            start = time.monotonic()
            return ask(launched.wsgi, "POST", LOG_BATCH, batch(run)).status, time.monotonic() - start

        with ThreadPoolExecutor(1) as client:
            under_way = client.submit(timed)
            time.sleep(2)
            remote.cable("--append")
            next_status, next_seconds = timed()
            status, seconds = under_way.result()
        locker.kill()
        remote.cable("--delete")
        print(f"under way: {status} after {seconds:.1f} s, the next: {next_status} after {next_seconds:.1f} s")
        assert {status, next_status} <= {500, 503}, "which clients repeat"
        assert seconds < 25 and next_seconds < 25
