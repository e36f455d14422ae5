# SPDX-License-Identifier: GPL-3.0-or-later
"""Other deployments in the sandbox: job workers, telemetry and artifacts elsewhere, MLflow's own command, and in the end the default again."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterable

import pytest
import test_sandbox
from attack import CLIENT, DOMAIN, FIGURES, GOOD, PASSWORD, PROGRAMS, SERVER, USER, on, request, send
from deployment import deployed

PYTHON = "/opt/mlflow/current/bin/python"
JOBS = "/ajax-api/3.0/jobs/"
UI_TELEMETRY = "/ajax-api/3.0/mlflow/ui-telemetry"
INGESTION = "ingestion.mlflow-telemetry.io"
# By which names MLflow asks whether it may send, and where to.
TELEMETRY = ["config.mlflow-telemetry.io", "d139nb52glx00z.cloudfront.net", INGESTION]
AUTHORITY = "/etc/ssl/telemetry.pem"


def assert_nothing_was_refused(host) -> None:
    test_sandbox.test_score(host)
    since = test_sandbox.properties(host)["ExecMainStartTimestamp"]
    said = host.check_output("journalctl --unit=mlflow --no-pager --since=%s", since.split(" ", 1)[1])
    harmless = "ignoring: Operation not permitted"
    assert not re.search("Permission denied|Operation not permitted|Read-only file system|Traceback", said.replace(harmless, "")), said


def user(*words: str):
    """What a user with MLflow's client gets."""
    environment = {
        "MLFLOW_TRACKING_URI": f"https://{DOMAIN}",
        "MLFLOW_TRACKING_SERVER_CERT_PATH": "/etc/nginx/mlflow/tls/current/ca.pem",
        "MLFLOW_TRACKING_USERNAME": USER,
        "MLFLOW_TRACKING_PASSWORD": PASSWORD,
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    return json.loads(on(SERVER, "env", *(f"{name}={value}" for name, value in environment.items()), PYTHON, "/run/jobs.py", *words))


def post(path: str, body: dict) -> tuple[str, dict]:
    answer = send([request("POST", path, GOOD, "Content-Type: application/json", body=json.dumps(body))])[0]
    head, _blank, body = answer.partition("\r\n\r\n")
    return head.split()[1], json.loads(body)


def get_json(*paths: str) -> list[dict]:
    """Also of an MLflow that is starting, for which send() does not wait: passwords that are not answered count as attempts."""
    deadline = time.monotonic() + 120
    while "200 OK" not in send([request("GET", "/health")])[0] and time.monotonic() < deadline:
        time.sleep(0.5)
    return [json.loads(answer.partition("\r\n\r\n")[2]) for answer in send([request("GET", path, GOOD) for path in paths])]


def states(jobs: Iterable[str], until: str) -> list[str]:
    """As soon as the first job is where it is waited for, or has ended otherwise."""
    paths, deadline = [JOBS + job for job in jobs], time.monotonic() + 120
    while True:
        found = [answer["status"] for answer in get_json(*paths)]
        if found[0] in (until, "SUCCEEDED", "FAILED") or time.monotonic() > deadline:
            return found
        time.sleep(0.5)


class StandIn:
    """The servers of MLflow's telemetry."""

    def seen(self) -> list[list]:
        return [json.loads(line) for line in on(CLIENT, "cat", "/run/telemetry.json").splitlines()]

    def records(self) -> dict[str, dict]:
        bodies = [json.loads(body) for method, name, _path, body in (line for line in self.seen() if line[0] == "POST") if name == INGESTION]
        return {record["data"]["event_name"]: record["data"] for body in bodies for record in body["records"]}


@pytest.fixture(scope="module")
def telemetry(tmp_path_factory) -> StandIn:
    directory = tmp_path_factory.mktemp("telemetry")
    names = ["-subj", "/CN=telemetry", "-addext", "subjectAltName=" + ",".join(f"DNS:{name}" for name in TELEMETRY)]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-addext", "keyUsage=critical,digitalSignature,keyCertSign"]
    files = ["-keyout", directory / "key.pem", "-out", directory / "certificate.pem"]
    subprocess.run(["openssl", "req", "-x509", *kind, *names, *files], check=True, capture_output=True)
    certificate = (directory / "certificate.pem").read_text()
    on(SERVER, "sh", "-c", f"cat >{AUTHORITY}", data=certificate)
    on(CLIENT, "sh", "-c", "cat >/run/telemetry.pem", data=certificate)
    on(CLIENT, "sh", "-c", "cat >/run/telemetry.key", data=(directory / "key.pem").read_text())
    on(CLIENT, "sh", "-c", "cat >/run/telemetry.py; : >/run/telemetry.json", data=(PROGRAMS / "telemetry.py").read_text())
    script = ["python3", "/run/telemetry.py", "/run/telemetry.pem", "/run/telemetry.key", "/run/telemetry.json", f"https://{INGESTION}/records"]
    on(CLIENT, "systemd-run", "--quiet", "--unit=telemetry", "--collect", *script)
    address = on(CLIENT, "sh", "-c", "ip -4 -o addr show dev eth0 | sed -n '1s/.* inet //; 1s/[/].*//p'").strip()
    hosts = on(SERVER, "cat", "/etc/hosts")
    on(SERVER, "sh", "-c", "cat >/etc/hosts", data=f"{hosts.rstrip()}\n{address} {' '.join(TELEMETRY)}\n")
    yield StandIn()
    on(SERVER, "sh", "-c", "cat >/etc/hosts", data=hosts)
    on(SERVER, "rm", AUTHORITY)
    on(CLIENT, "systemctl", "stop", "telemetry")


@pytest.fixture(scope="module")
def asked_for(telemetry) -> StandIn:
    """All that is off by default, and the artifacts on another disk."""
    deployed(
        {
            "mlflow_artifacts_dir": "/srv/artifacts",
            "mlflow_artifacts_moved_from": "/var/lib/mlflow/artifacts",
            "mlflow_systemd_environment": {"MLFLOW_SERVER_ENABLE_CUSTOM_SCORERS": "true", "REQUESTS_CA_BUNDLE": AUTHORITY},
            "mlflow_systemd_job_execution": True,
            "mlflow_systemd_telemetry": True,
            "mlflow_systemd_writable_paths": ["/srv"],
        }
    )
    on(SERVER, "sh", "-c", "cat >/run/jobs.py", data=(PROGRAMS / "jobs.py").read_text())
    return telemetry


def test_artifacts_may_be_elsewhere(host, asked_for):
    assert host.check_output("find /srv/artifacts -maxdepth 0 -user mlflow") == "/srv/artifacts"


def test_jobs_score_traces_within_the_connections(host, asked_for):
    """While many clients keep the workers busy: nobody opens more connections than the filter counts."""
    environment = dict(re.findall(r'^(\w+)="(\d+)"$', host.file("/etc/mlflow/mlflow.env").content_string, re.MULTILINE))
    pool = int(environment["MLFLOW_SQLALCHEMYSTORE_POOL_SIZE"])
    workers = int(re.search(r"--workers=(\d+)", host.check_output("systemctl cat mlflow.service"))[1])
    on(SERVER, "sh", "-c", "cat >/run/connections.py", data=(PROGRAMS / "connections.py").read_text())
    counting = ["podman", "exec", "--interactive", SERVER, "runuser", "-u", "mlflow", "--", "python3", "/run/connections.py"]
    with subprocess.Popen(counting, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as counter:
        jobs = user("submit", "40:0.2", "40:0.2")
        asked = user("busy", "5")
        done = states(reversed(jobs), "SUCCEEDED")
        counts = json.loads(counter.communicate("enough\n")[0])
    assert done == ["SUCCEEDED"] * 2
    traces = sum(jobs.values(), [])
    assert user("scores", *traces) == [{"is_polite": True}] * 80
    assert counts["jobs"] == 1, "of a kind at once"
    most = {"worker": 5 * pool, "job": 4 + 1, "consumer": 1, "runner": 1, "scheduler": 4}
    assert {name: count for name, count in counts.items() if name in most and count > most[name]} == {}
    assert counts["worker"] > 2 * pool, "and all pools are in use"
    assert counts["all"] <= workers * 5 * pool + 31 <= 100 - 4
    FIGURES.append(f"connections with jobs, {asked} rounds of 24 busy clients, pools of {pool}: {counts}")


def test_jobs_go_on_after_a_restart(host, asked_for):
    """The one that runs is done again, the one that waits is done."""
    jobs = user("submit", "1:2", "1:0")
    assert states(jobs, "RUNNING") == ["RUNNING", "PENDING"]
    host.run_expect([0], "systemctl restart mlflow")
    assert states(reversed(jobs), "SUCCEEDED") == ["SUCCEEDED"] * 2
    assert user("scores", *sum(jobs.values(), [])) == [{"is_polite": True}] * 2
    assert_nothing_was_refused(host)


def test_mlflow_serves_where_the_port_of_jobs_is_taken(host, asked_for):
    """As at a boot at which another program was quicker."""
    host.run_expect([0], "systemctl stop mlflow.service mlflow.socket mlflow-jobs.socket")
    host.run_expect([0], "systemd-run --quiet --unit=squatter python3 -m http.server --bind 127.0.0.1 5000")
    time.sleep(2)
    try:
        host.run_expect([0], "systemctl start mlflow.socket mlflow.service")
        deadline = time.monotonic() + 60
        while "200 OK" not in (answer := send([request("GET", "/version", GOOD)])[0]):
            assert time.monotonic() < deadline, answer
    finally:
        host.run_expect([0], "systemctl stop squatter mlflow.service mlflow.socket")
    host.run_expect([0], "systemctl start mlflow.socket mlflow-jobs.socket mlflow.service")
    assert host.check_output("ss -Hltn sport = :5000") != ""


def test_telemetry_sends(host, asked_for):
    """What the server has to tell, from before its workers were forked, and what browsers do, through a worker."""
    assert get_json(UI_TELEMETRY)[0]["disable_ui_telemetry"] is False
    ids = {"installation_id": "an installation", "session_id": "a session"}
    record = {"event_name": "clicked", "timestamp_ns": time.time_ns(), "params": {"on": "this"}, **ids}
    assert post(UI_TELEMETRY, {"records": [record]}) == ("200", {"status": "success"})
    deadline = time.monotonic() + 30  # MLflow collects for ten seconds
    while "clicked" not in (records := asked_for.records()) and time.monotonic() < deadline:
        time.sleep(1)
    assert records["clicked"].items() >= {"params": '{"on": "this"}', "status": "success", **ids}.items()
    assert records["tracking_server_start"]["tracking_uri_scheme"].startswith("postgresql")
    assert_nothing_was_refused(host)
    asked = {(method, name) for method, name, *_rest in asked_for.seen() if method == "GET"}
    assert asked == {("GET", name) for name in TELEMETRY[:2]}


@pytest.mark.parametrize("variables", [{"mlflow_launcher": "cli", "mlflow_artifacts_moved_from": "/srv/artifacts"}, {}], ids=["cli", "default"])
def test_mlflow_works_inside(host, variables):
    deployed(variables)
    assert_nothing_was_refused(host)


def test_what_nobody_asked_for_is_off(host, telemetry):
    seen = telemetry.seen()
    job = {"job_name": "run_online_trace_scorer", "params": {"experiment_id": "0", "online_scorers": []}}
    status, answer = post(JOBS, job)
    assert (status, "job execution feature is not enabled" in answer["detail"]) == ("500", True)
    assert host.run("pgrep --uid mlflow --full 'mlflow.server.jobs|huey'").stdout == ""
    assert host.check_output("ss -Hltn sport = :5000") == ""
    assert get_json(UI_TELEMETRY)[0]["disable_ui_telemetry"] is True
    record = {"event_name": "clicked", "timestamp_ns": time.time_ns(), "params": {}, "installation_id": "x", "session_id": "x"}
    assert post(UI_TELEMETRY, {"records": [record]}) == ("200", {"status": "disabled"})
    time.sleep(3)  # it would ask at once whether it may send
    assert telemetry.seen() == seen
