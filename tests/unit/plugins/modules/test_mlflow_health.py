# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module as a process, against a real MLflow behind a real nginx."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.mlflow.tests.unit.plugins.mlflow_server import DOMAIN, PASSWORD, USER, Mlflow, Nginx, free_port, running
from ansible_collections.mlops.mlflow.tests.unit.plugins.module_helpers import RUN_MODULE, same_path

DATABASE_STEPS = ["liveness", "database"]
WRITING_STEPS = ["experiment", "run", "log", "read", "upload", "download"]
ROUNDTRIP_STEPS = [*DATABASE_STEPS, *WRITING_STEPS, "cleanup"]


def start_module(prefix: Sequence[str] = (), **options: Any) -> subprocess.Popen[str]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([*prefix, sys.executable, RUN_MODULE, "mlflow_health"], text=True, env=same_path(), **pipes)
    process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": {"delay": 0.1, "timeout": 20, **options}}))
    process.stdin.close()
    process.stdin = None
    return process


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=120)
    assert not err, err
    result = json.loads(out)
    assert result.get("changed") is not True
    secrets = (PASSWORD, base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode())
    answer = json.dumps({key: value for key, value in result.items() if key != "invocation"}, ensure_ascii=False)
    assert not any(secret in answer for secret in secrets)
    assert PASSWORD not in out and json.dumps(PASSWORD)[1:-1] not in out
    return result


def passes(**options: Any) -> dict[str, Any]:
    result = finish(start_module(**options))
    assert not result.get("failed"), result["msg"]
    assert all(step["status"] == "ok" for step in result["steps"])
    return result


def fails(**options: Any) -> dict[str, Any]:
    result = finish(start_module(**options))
    assert result.get("failed"), result
    return result


def step_names(result: dict[str, Any]) -> list[str]:
    return [step["name"] for step in result["steps"]]


def last_step(result: dict[str, Any]) -> dict[str, Any]:
    return result["steps"][-1]


@pytest.fixture(scope="session", autouse=True)
def early_module(mlflow_home: Mlflow) -> Iterator[subprocess.Popen[str]]:
    """The module, started before the server is."""
    with running(start_module(unix_socket=str(mlflow_home.socket), timeout=300)) as process:
        yield process


@pytest.fixture
def untouched(mlflow_server: Mlflow) -> Iterator[None]:
    """Nothing that a user could see may be there afterwards that was not there before, and no tag of a check."""
    experiments, files = mlflow_server.experiments(), mlflow_server.artifact_files()
    yield
    assert mlflow_server.experiments() == experiments
    assert mlflow_server.artifact_files() == files
    assert not tags_of_checks(mlflow_server)


class TestDepth:
    def test_liveness(self, mlflow_server: Mlflow) -> None:
        result = passes(unix_socket=str(mlflow_server.socket), depth="liveness")
        assert step_names(result) == ["liveness"]
        assert result["depth"] == "liveness"
        assert result["version"] == mlflow_server.version

    def test_database_is_the_default(self, mlflow_server: Mlflow) -> None:
        result = passes(unix_socket=str(mlflow_server.socket))
        assert step_names(result) == DATABASE_STEPS
        assert result["depth"] == "database"
        for step in result["steps"]:
            assert step["attempts"] == 1
            assert 0 <= step["milliseconds"] < 10000

    def test_roundtrip(self, mlflow_server: Mlflow, untouched: None) -> None:
        result = passes(unix_socket=str(mlflow_server.socket), depth="roundtrip")
        assert step_names(result) == ROUNDTRIP_STEPS
        assert result["left_behind"] == []
        assert list(mlflow_server.experiments("DELETED_ONLY").values()).count("mlflow-health") == 1

    def test_ten_roundtrips_leave_the_rows_of_one(self, mlflow_server: Mlflow, untouched: None) -> None:
        options = {"unix_socket": str(mlflow_server.socket), "depth": "roundtrip"}
        passes(**options)
        rows = count_rows(mlflow_server)
        for _count in range(9):
            passes(**options)
        assert count_rows(mlflow_server) == rows

    def test_roundtrip_in_check_mode_writes_nothing(self, mlflow_server: Mlflow) -> None:
        before = mlflow_server.experiments("ALL")
        result = passes(unix_socket=str(mlflow_server.socket), depth="roundtrip", _ansible_check_mode=True)
        assert step_names(result) == DATABASE_STEPS
        assert result["depth"] == "database"
        assert mlflow_server.experiments("ALL") == before

    @pytest.mark.parametrize("first", [True, False])
    def test_roundtrips_at_the_same_time(self, mlflow_server: Mlflow, untouched: None, first: bool) -> None:
        """Also where none was before, and each finds a part of what the others make."""
        options = {"unix_socket": str(mlflow_server.socket), "depth": "roundtrip"}
        if first:
            forget(mlflow_server)
        processes = [start_module(**options) for _count in range(4)]
        results = [finish(process) for process in processes]
        assert [result["msg"] for result in results if result.get("failed")] == []
        assert list(mlflow_server.experiments("DELETED_ONLY").values()).count("mlflow-health") == 1

    def test_users_have_an_experiment_each(self, mlflow_server: Mlflow, untouched: None) -> None:
        """With MLflow's rights, one may not use the other's."""
        passes(unix_socket=str(mlflow_server.socket), username="carol", password="secret", depth="roundtrip")
        assert "mlflow-health-carol" in mlflow_server.experiments("DELETED_ONLY").values()

    def test_gc_removes_what_stays(self, mlflow_server: Mlflow, nginx: Nginx, untouched: None) -> None:
        """With a run that is not marked as deleted, and the next round trip starts anew."""
        passes(unix_socket=str(mlflow_server.socket), depth="roundtrip")
        command = [mlflow_server.python, "-m", "mlflow", "gc", mlflow_server.store, f"--tracking-uri={nginx.plain}"]
        subprocess.run(command, check=True, capture_output=True, env=mlflow_server.environment, cwd=mlflow_server.root)
        assert "mlflow-health" not in mlflow_server.experiments("ALL").values()
        passes(unix_socket=str(mlflow_server.socket), depth="roundtrip")

    def test_experiment_of_a_user_is_left_alone(self, mlflow_server: Mlflow) -> None:
        forget(mlflow_server)
        _status, answer = mlflow_server.api("POST", "mlflow/experiments/create", {"name": "mlflow-health"})
        try:
            result = fails(unix_socket=str(mlflow_server.socket), depth="roundtrip")
            assert mlflow_server.experiments()[answer["experiment_id"]] == "mlflow-health"
        finally:
            mlflow_server.api("POST", "mlflow/experiments/delete", answer)
            forget(mlflow_server)
        assert "experiment: the experiment mlflow-health is a user's own: rename it" in result["msg"]

    def test_experiment_that_a_user_restored_is_hidden_again(self, mlflow_server: Mlflow) -> None:
        passes(unix_socket=str(mlflow_server.socket), depth="roundtrip")
        (identifier,) = [key for key, name in mlflow_server.experiments("DELETED_ONLY").items() if name == "mlflow-health"]
        assert mlflow_server.api("POST", "mlflow/experiments/restore", {"experiment_id": identifier})[0] == 200
        passes(unix_socket=str(mlflow_server.socket), depth="roundtrip")
        assert "mlflow-health" not in mlflow_server.experiments().values()


class TestConnection:
    def test_plain(self, nginx: Nginx, untouched: None) -> None:
        passes(url=nginx.plain, depth="roundtrip")

    @pytest.mark.parametrize("slash", ["", "/"])
    def test_path(self, nginx: Nginx, slash: str, untouched: None) -> None:
        passes(url=f"{nginx.plain}/mlflow{slash}", depth="roundtrip")

    def test_tls(self, nginx: Nginx, untouched: None) -> None:
        passes(
            url=nginx.tls,
            address="127.0.0.1",
            ca_path=nginx.ca,
            username=USER,
            password=PASSWORD,
            depth="roundtrip",
        )

    def test_address_can_be_a_name(self, nginx: Nginx) -> None:
        passes(url=f"http://{DOMAIN}:{nginx.port}", address="localhost")

    def test_unix_socket_takes_host_and_path_from_url(self, mlflow_server: Mlflow) -> None:
        passes(unix_socket=str(mlflow_server.socket), url=f"http://{DOMAIN}")
        result = fails(unix_socket=str(mlflow_server.socket), url=f"http://{DOMAIN}/elsewhere")
        assert "GET /elsewhere/health gives 404: no MLflow answers here" in result["msg"]

    def test_host_header(self, nginx: Nginx) -> None:
        result = fails(url=nginx.plain, host_header="evil.example.com")
        assert "does not accept the host name evil.example.com" in result["msg"]
        passes(url=f"http://evil.example.com:{nginx.port}", address="127.0.0.1", host_header=DOMAIN)

    def test_validate_certs(self, nginx: Nginx) -> None:
        passes(url=nginx.tls, address="127.0.0.1", validate_certs=False, username=USER, password=PASSWORD)

    def test_ca_directory(self, nginx: Nginx, tmp_path: Path) -> None:
        hashed = subprocess.run(["openssl", "x509", "-in", nginx.ca, "-noout", "-hash"], capture_output=True, text=True, check=True)
        (tmp_path / f"{hashed.stdout.strip()}.0").symlink_to(nginx.ca)
        options = {"url": nginx.tls, "address": "127.0.0.1", "depth": "liveness"}
        result = passes(ca_path=str(tmp_path), **options)
        assert result["version"] is None  # behind the password, and not asked for

    def test_proxies_of_the_environment_are_not_used(self, nginx: Nginx, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in "http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY":
            monkeypatch.setenv(name, "http://127.0.0.1:1")
        passes(url=nginx.plain)
        passes(url=nginx.tls, address="127.0.0.1", ca_path=nginx.ca, username=USER, password=PASSWORD)


class TestVersion:
    def test_expected(self, mlflow_server: Mlflow) -> None:
        result = passes(unix_socket=str(mlflow_server.socket), expect_version=mlflow_server.version)
        assert step_names(result) == ["liveness", "version", "database"]

    def test_another(self, mlflow_server: Mlflow) -> None:
        result = fails(unix_socket=str(mlflow_server.socket), expect_version="2.0.1")
        assert f"runs MLflow {mlflow_server.version}, expected is 2.0.1" in result["msg"]
        assert last_step(result)["name"] == "version"
        assert last_step(result)["attempts"] == 1

    def test_behind_a_password(self, nginx: Nginx) -> None:
        result = fails(url=nginx.tls, address="127.0.0.1", ca_path=nginx.ca, depth="liveness", expect_version="3.17.2")
        assert "version: GET /version gives 401" in result["msg"]

    def test_no_version(self, nginx: Nginx) -> None:
        result = fails(url=f"{nginx.plain}/other-api", expect_version="3.17.2")
        assert "GET /version does not give a version" in result["msg"]


class TestStopsAtOnce:
    """Waiting can't mend these: one attempt, the cause, and what to set."""

    def check(self, message: str, step: str = "database", **options: Any) -> None:
        result = fails(**options)
        assert message in result["msg"]
        assert result["msg"].startswith(f"{step}: ")
        assert last_step(result)["name"] == step
        assert last_step(result)["status"] == "failed"
        assert last_step(result)["attempts"] == 1

    def test_wrong_password(self, nginx: Nginx) -> None:
        options = {"url": nginx.tls, "address": "127.0.0.1", "ca_path": nginx.ca, "username": USER}
        self.check(f"refuses the password of the user {USER}", password="wrong", **options)

    def test_no_password(self, nginx: Nginx) -> None:
        options = {"url": nginx.tls, "address": "127.0.0.1", "ca_path": nginx.ca}
        self.check("wants a login: give username and password of one of mlflow_users", **options)

    def test_host_name_not_allowed(self, nginx: Nginx) -> None:
        options = {"url": f"http://evil.example.com:{nginx.port}", "address": "127.0.0.1"}
        self.check(f"host name evil.example.com:{nginx.port}: add it to mlflow_domain_aliases", **options)

    def test_forbidden(self, nginx: Nginx) -> None:
        self.check("gives 403: the server forbids it", url=f"{nginx.plain}/forbidden")

    def test_unknown_ca(self, nginx: Nginx) -> None:
        options = {"url": nginx.tls, "address": "127.0.0.1"}
        self.check(f"the certificate of {DOMAIN} at 127.0.0.1 port", "liveness", **options)

    def test_certificate_for_another_name(self, nginx: Nginx) -> None:
        options = {"url": f"https://other.example.test:{nginx.tls_port}", "address": "127.0.0.1", "ca_path": nginx.ca}
        self.check("renew it for this name (mlflow_domain, mlflow_domain_aliases)", "liveness", **options)

    def test_https_to_plain_http(self, nginx: Nginx) -> None:
        self.check("check scheme and port in url", "liveness", url=f"https://localhost:{nginx.port}")

    def test_plain_http_to_https(self, nginx: Nginx) -> None:
        options = {"url": f"http://localhost:{nginx.tls_port}"}
        self.check("gives 400: The plain HTTP request was sent to HTTPS port", "liveness", **options)

    @pytest.mark.parametrize(
        "path, message",
        [
            ("missing", "GET /missing/health gives 404: no MLflow answers here"),
            ("other", "GET /health does not answer OK, as MLflow does"),
            ("redirect", f"redirects to https://{DOMAIN}/login: give the final address as url"),
            ("418", "GET /418/health gives 418: short and stout"),
        ],
    )
    def test_no_mlflow(self, nginx: Nginx, path: str, message: str) -> None:
        self.check(message, "liveness", url=f"{nginx.plain}/{path}")

    def test_no_mlflow_api(self, nginx: Nginx) -> None:
        self.check("the answer is not one of MLflow's", url=f"{nginx.plain}/other-api")

    def test_name_does_not_exist(self) -> None:
        # Without a name service the answer is "try again", which is waited for.
        result = fails(url="http://no-such-host.invalid", timeout=0.5)
        assert "the name no-such-host.invalid can't be resolved" in result["msg"]

    def test_socket_without_permission(self, tmp_path: Path) -> None:
        path = tmp_path / "mlflow.sock"
        with closing(socket.socket(socket.AF_UNIX)) as sock:
            sock.bind(str(path))
            path.chmod(0)
            # Permissions mean nothing to root, until it lacks this capability.
            prefix = ["setpriv", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []
            result = finish(start_module(prefix, unix_socket=str(path)))
        assert "no permission to connect to the socket" in result["msg"]
        assert last_step(result)["attempts"] == 1


class TestWaits:
    def test_until_the_server_has_started(self, early_module: subprocess.Popen[str], mlflow_server: Mlflow) -> None:
        result = finish(early_module)
        assert not result.get("failed"), result["msg"]
        liveness, database = result["steps"]
        assert liveness["attempts"] > 5
        assert liveness["milliseconds"] > 500
        assert database["attempts"] == 1

    @pytest.mark.parametrize(
        "path, message",
        [
            ("down", "gives 502: Bad Gateway"),
            ("429", "gives 429"),
            ("500", "gives 500: Internal Server Error"),
            ("503", "gives 503: Service Temporarily Unavailable"),
            ("504", "gives 504: Gateway Time-out"),
            ("hang-up", "hangs up without an answer"),
        ],
    )
    def test_for_a_proxy(self, nginx: Nginx, path: str, message: str) -> None:
        result = fails(url=f"{nginx.plain}/{path}", timeout=2)
        assert result["msg"].startswith("liveness: ")
        assert message in result["msg"]
        assert result["msg"].endswith("attempts within 2 seconds)")
        assert last_step(result)["attempts"] > 2

    def test_for_the_api_behind_a_proxy(self, nginx: Nginx) -> None:
        result = fails(url=f"{nginx.plain}/down-later", timeout=2)
        assert "database: POST /down-later/api/2.0/mlflow/experiments/search gives 502" in result["msg"]
        assert step_names(result) == DATABASE_STEPS

    def test_for_a_port(self) -> None:
        result = fails(url=f"http://127.0.0.1:{free_port()}", timeout=0.5)
        assert "does not answer (Connection refused)" in result["msg"]
        assert last_step(result)["attempts"] > 2

    def test_for_a_socket(self, tmp_path: Path) -> None:
        result = fails(unix_socket=str(tmp_path / "mlflow.sock"), timeout=0.5)
        assert "mlflow.sock does not exist: check that the service runs" in result["msg"]
        assert last_step(result)["attempts"] > 2

    def test_for_a_socket_that_comes_late(self, mlflow_server: Mlflow, tmp_path: Path) -> None:
        path = tmp_path / "late.sock"
        module = start_module(unix_socket=str(path))
        time.sleep(1)
        path.symlink_to(mlflow_server.socket)
        result = finish(module)
        assert not result.get("failed"), result
        assert result["steps"][0]["attempts"] > 1

    def test_for_the_database(self, mlflow_server: Mlflow) -> None:
        database, away = mlflow_server.database, mlflow_server.root / "away.db"
        database.rename(away)
        database.mkdir()
        try:
            module = start_module(unix_socket=str(mlflow_server.socket))
            time.sleep(2)
            assert module.poll() is None
        finally:
            database.rmdir()
            away.rename(database)
        result = finish(module)
        assert not result.get("failed"), result["msg"]
        liveness, database = result["steps"]
        assert liveness["attempts"] == 1
        assert database["attempts"] > 1

    def test_delay(self, tmp_path: Path) -> None:
        result = fails(unix_socket=str(tmp_path / "mlflow.sock"), timeout=1, delay=0.4)
        assert last_step(result)["attempts"] == 3


class TestTimeout:
    def test_hanging_server(self, hanging_port: int) -> None:
        begin = time.monotonic()
        result = fails(url=f"http://127.0.0.1:{hanging_port}", timeout=1)
        assert time.monotonic() - begin < 3
        assert f"liveness: 127.0.0.1 port {hanging_port} does not answer" in result["msg"]

    def test_hanging_tls_handshake(self, hanging_port: int) -> None:
        begin = time.monotonic()
        fails(url=f"https://127.0.0.1:{hanging_port}", timeout=1)
        assert time.monotonic() - begin < 3

    def test_trickling_server(self) -> None:
        """Every byte would begin the timeout of a socket anew."""

        def trickle() -> None:
            connection, _peer = listener.accept()
            with closing(connection):
                try:
                    while True:
                        connection.sendall(b"H")
                        time.sleep(0.1)
                except OSError:
                    pass

        with closing(socket.socket()) as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            threading.Thread(target=trickle, daemon=True).start()
            begin = time.monotonic()
            result = fails(url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=1)
        assert time.monotonic() - begin < 3
        assert "does not answer" in result["msg"]


LOOPBACKS = [socket.AF_INET] + ([socket.AF_INET6] if Path("/proc/net/if_inet6").exists() and " lo\n" in Path("/proc/net/if_inet6").read_text() else [])


@contextmanager
def answering(*parts: bytes, family: int = socket.AF_INET, endless: bool = False, tls: ssl.SSLContext | None = None, times: int | None = None) -> Iterator[str]:
    """A server that gives the same answer to everything, or so many times and then none; yields its URL."""

    def serve(client: socket.socket) -> None:
        try:
            with closing(tls.wrap_socket(client, server_side=True) if tls else client) as connection:
                connection.recv(65536)
                if next(asked) == times:
                    time.sleep(60)
                for part in parts:
                    connection.sendall(part)
                while endless:
                    connection.sendall(parts[-1])
        except OSError:
            pass

    def accept() -> None:
        try:
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
        except OSError:
            pass

    asked = itertools.count()
    with closing(socket.socket(family)) as listener:
        listener.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        listener.listen()
        threading.Thread(target=accept, daemon=True).start()
        host = "[::1]" if family == socket.AF_INET6 else "127.0.0.1"
        yield f"{'https' if tls else 'http'}://{host}:{listener.getsockname()[1]}"


class TestServers:
    """Whatever speaks at the other end."""

    @pytest.mark.parametrize("family", LOOPBACKS)
    @pytest.mark.parametrize(
        "answer",
        [
            b"HTTP/1.0 200 OK\r\n\r\nOK",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nO\r\n1\r\nK\r\n0\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nOK\n",
        ],
    )
    def test_understood(self, answer: bytes, family: int) -> None:
        with answering(answer, family=family) as url:
            assert step_names(passes(url=url, depth="liveness")) == ["liveness"]

    @pytest.mark.parametrize(
        "answer",
        [
            b"",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nOK",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nOK",
            b"HTTP/1.1 200 OK\r\nX: " + 70000 * b"x",
        ],
    )
    def test_broken_off(self, answer: bytes) -> None:
        with answering(answer) as url:
            result = fails(url=url, timeout=2)
        assert result["msg"].endswith("attempts within 2 seconds)")
        assert last_step(result)["attempts"] > 1

    def test_answers_and_falls_silent(self) -> None:
        """What it said tells more than that the last, short attempt got no answer."""
        with answering(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", times=2) as url:
            result = fails(url=url, timeout=2, delay=0.5)
        assert "gives 503" in result["msg"] and last_step(result)["attempts"] > 2

    @pytest.mark.parametrize("length", [b"Content-Length: 99999999999\r\n", b""])
    def test_endless_answer(self, length: bytes) -> None:
        with answering(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n", 2**20 * b"x", endless=True) as url:
            result = fails(url=url)
        assert "the answer is not one of MLflow's" in result["msg"]
        assert last_step(result)["attempts"] == 1

    def test_something_else(self) -> None:
        with answering(b"SSH-2.0-OpenSSH_9.2\r\n") as url:
            result = fails(url=url)
        assert "does not speak HTTP: check scheme and port in url" in result["msg"]
        assert last_step(result)["attempts"] == 1

    @pytest.mark.parametrize("days, message", [("2", "self-signed certificate"), ("-1", "expired")])
    def test_bad_certificate(self, tmp_path: Path, days: str, message: str) -> None:
        key, certificate = str(tmp_path / "key"), str(tmp_path / "certificate")
        names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
        for make in (
            ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", f"{certificate}.draft", *names],
            ["x509", "-in", f"{certificate}.draft", "-signkey", key, "-days", days, "-out", certificate],
        ):
            subprocess.run(["openssl", *make], check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        with answering(b"HTTP/1.1 200 OK\r\n\r\nOK", tls=context) as url:
            result = fails(url=url, depth="liveness", **({"ca_path": certificate} if message == "expired" else {}))
            passes(url=url, depth="liveness", validate_certs=False)
        assert message in result["msg"].replace("self signed", "self-signed") and "give its CA's certificate in ca_path" in result["msg"]
        assert last_step(result)["attempts"] == 1


class TestFailsMidway:
    """Whatever goes wrong in a round trip, nothing that a user could see stays behind."""

    def test_upload_forbidden(self, mlflow_server: Mlflow, nginx: Nginx, untouched: None) -> None:
        result = fails(url=f"{nginx.plain}/no-put", depth="roundtrip")
        assert result["msg"].startswith("upload: PUT ")
        assert "gives 403" in result["msg"]
        assert step_names(result)[-2:] == ["upload", "cleanup"]
        assert last_step(result)["status"] == "ok"
        assert result["left_behind"] == []

    def test_upload_too_large_for_the_proxy(self, nginx: Nginx, untouched: None) -> None:
        result = fails(url=f"{nginx.plain}/small", depth="roundtrip")
        assert "gives 413: the proxy refuses uploads of this size" in result["msg"]

    def test_artifact_store_that_can_not_be_written(self, mlflow_server: Mlflow, untouched: None) -> None:
        """A file where the directory should be: root too is refused."""
        away = mlflow_server.root / "away"
        if mlflow_server.artifacts.exists():
            mlflow_server.artifacts.rename(away)
        mlflow_server.artifacts.write_text("")
        try:
            result = fails(unix_socket=str(mlflow_server.socket), depth="roundtrip")
        finally:
            mlflow_server.artifacts.unlink()
            if away.exists():
                away.rename(mlflow_server.artifacts)
        failed = [step for step in result["steps"] if step["name"] == "upload"]
        assert failed[0]["status"] == "failed"
        assert failed[0]["attempts"] == 1  # the server has started long ago: a 500 stays
        assert "upload: PUT" in result["msg"] and "gives 500" in result["msg"]

    def test_upload_that_hangs(self, mlflow_server: Mlflow, nginx: Nginx, untouched: None) -> None:
        begin = time.monotonic()
        result = fails(url=f"{nginx.plain}/slow-put", depth="roundtrip", timeout=12)
        assert time.monotonic() - begin < 14
        assert "upload: localhost port" in result["msg"]
        assert last_step(result) == {**last_step(result), "name": "cleanup", "status": "ok"}

    def test_deletion_forbidden(self, mlflow_server: Mlflow, nginx: Nginx) -> None:
        """The artifacts stay and are named; all else is removed. The first round trip after an hour removes them."""
        result = fails(url=f"{nginx.plain}/no-delete", depth="roundtrip")
        assert last_step(result)["name"] == "cleanup"
        (left,) = result["left_behind"]
        assert left.startswith("artifacts in ")
        assert result["msg"].endswith(f"Left behind: {left}")
        assert not mlflow_server.experiments() and not tags_of_checks(mlflow_server)
        directory = mlflow_server.artifacts / left.removeprefix("artifacts in ")
        assert sorted(path.name for path in directory.iterdir()) == ["probe.bin", "probe.txt.gz"]
        passes(unix_socket=str(mlflow_server.socket), depth="roundtrip")
        assert directory.exists()  # its check might still be at it
        directory.rename(directory.with_name(old(directory.name)))
        passes(unix_socket=str(mlflow_server.socket), depth="roundtrip")
        assert not mlflow_server.artifact_files()

    def test_cleanup_needs_no_list(self, nginx: Nginx, untouched: None) -> None:
        """MLflow answers 500 when the directory of another check vanishes while it lists them."""
        passes(url=f"{nginx.plain}/no-list", depth="roundtrip")

    @pytest.mark.parametrize(
        "path, first",
        [("experiments/create", True), ("runs/create", True), ("experiments/delete", True), ("runs/log-batch", False), ("runs/delete-tag", False)],
    )
    def test_lost_answer(self, mlflow_server: Mlflow, path: str, first: bool, untouched: None) -> None:
        """The server has done it, but the connection breaks: the next attempt must neither fail nor leave two."""
        if first:
            forget(mlflow_server)
        with losing_one_answer(mlflow_server, f"POST /api/2.0/mlflow/{path}") as port:
            result = passes(url=f"http://127.0.0.1:{port}", depth="roundtrip")
        assert sum(step["attempts"] for step in result["steps"]) == len(ROUNDTRIP_STEPS) + 1
        assert list(mlflow_server.experiments("DELETED_ONLY").values()).count("mlflow-health") == 1

    def test_no_experiment(self, nginx: Nginx, untouched: None) -> None:
        result = fails(url=f"{nginx.plain}/empty-api", depth="roundtrip")
        assert "experiment: the answer is not one of MLflow's" in result["msg"]
        result = fails(url=f"{nginx.plain}/odd-api", depth="roundtrip")
        assert "experiment: the answer is not one of MLflow's" in result["msg"]

    @pytest.mark.parametrize("path, step", [("runs/create", "run"), ("runs/log-batch", "log"), ("experiments/delete", "run")])
    def test_server_that_dies(self, mlflow_server: Mlflow, path: str, step: str) -> None:
        """It cannot clean up there any more: what is left is named, and later round trips remove it."""
        if step == "run":
            forget(mlflow_server)
        with losing_one_answer(mlflow_server, f"POST /api/2.0/mlflow/{path}", for_good=True) as port:
            result = fails(url=f"http://127.0.0.1:{port}", depth="roundtrip", timeout=4)
        assert f"{step}: 127.0.0.1 port {port} " in result["msg"]  # hangs up, or does not answer
        (left,) = result["left_behind"]
        assert f"Left behind: {left}" in result["msg"]
        assert left.startswith("experiment mlflow-health" if step == "run" else "tag mlops.mlflow.health.")
        with closing(sqlite3.connect(mlflow_server.database, timeout=10, isolation_level=None)) as connection:
            for key in tags_of_checks(mlflow_server):
                connection.execute("UPDATE tags SET key = ? WHERE key = ?", (old(key), key))
        passes(unix_socket=str(mlflow_server.socket), depth="roundtrip")
        assert not mlflow_server.experiments() and not mlflow_server.artifact_files() and not tags_of_checks(mlflow_server)


def old(name: str) -> str:
    """The name that a check of long ago would have taken."""
    return re.sub(r"\d{10}(?=-[0-9a-f]{32}$)", "1000000000", name)


def sql(server: Mlflow, statement: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(server.database, timeout=10, isolation_level=None)) as connection:
        return connection.execute(statement).fetchall()


def tags_of_checks(server: Mlflow) -> list[str]:
    return [key for (key,) in sql(server, "SELECT key FROM tags WHERE key LIKE 'mlops.mlflow.health.%'")]


def count_rows(server: Mlflow) -> dict[str, int]:
    tables = [name for (name,) in sql(server, "SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {table: sql(server, f'SELECT count(*) FROM "{table}"')[0][0] for table in tables}


def forget(server: Mlflow) -> None:
    """As `mlflow gc` does."""
    sql(server, f"UPDATE experiments SET name = 'forgotten-{os.urandom(8).hex()}', lifecycle_stage = 'deleted' WHERE name = 'mlflow-health'")


@contextmanager
def losing_one_answer(server: Mlflow, request_line: str, for_good: bool = False) -> Iterator[int]:
    """A port that leads to MLflow, but drops the first answer to such a request, or every answer from then on."""
    lost = False

    def serve(client: socket.socket) -> None:
        nonlocal lost
        with closing(client), closing(socket.socket(socket.AF_UNIX)) as upstream:
            upstream.connect(str(server.socket))
            begin = client.recv(65536)
            upstream.sendall(begin)
            threading.Thread(target=pump, args=(client, upstream), daemon=True).start()
            answer = b"".join(iter(lambda: upstream.recv(65536), b""))
            if (lost and for_good) or (not lost and begin.startswith(request_line.encode())):
                lost = True
            else:
                client.sendall(answer)
            client.shutdown(socket.SHUT_RDWR)

    def pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass

    def accept() -> None:
        try:
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
        except OSError:
            pass

    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]


class TestBadInput:
    """One clear sentence, before anything is sent."""

    @pytest.mark.parametrize(
        "options, message",
        [
            ({}, "one of the following is required: url, unix_socket"),
            ({"url": "http://a", "username": "alice"}, "parameters are required together: username, password"),
            ({"url": "http://a", "password": "x1y2z3"}, "parameters are required together: username, password"),
            ({"unix_socket": "/a", "address": "b"}, "parameters are mutually exclusive: address|unix_socket"),
            ({"url": "http://a", "depth": "deep"}, "value of depth must be one of: liveness, database, roundtrip"),
            ({"url": "http://a", "timeout": 0}, "timeout must be more than 0 and at most 86400 seconds"),
            ({"url": "http://a", "timeout": -1}, "timeout must be more than 0 and at most 86400 seconds"),
            ({"url": "http://a", "timeout": "nan"}, "timeout must be more than 0 and at most 86400 seconds"),
            ({"url": "http://a", "timeout": "inf"}, "timeout must be more than 0 and at most 86400 seconds"),
            ({"url": "http://a", "delay": -1}, "delay must not be negative, and not longer than timeout"),
            (
                {"url": "http://a", "delay": 61, "timeout": 60},
                "delay must not be negative, and not longer than timeout",
            ),
            ({"url": "http://a", "expect_version": "latest"}, "expect_version must look like 3.17.2"),
            ({"url": "http://a", "expect_version": 3.17}, "expect_version must look like 3.17.2"),
            ({"url": "mlflow.example.com"}, "url must look like https://mlflow.example.com"),
        ],
    )
    def test_sentence(self, options: dict[str, Any], message: str) -> None:
        result = fails(**options)
        assert message in result["msg"]
        assert "steps" not in result

    @pytest.mark.parametrize("url", ["https://alice:hunt/er2@mlflow.example.com", "alice:hunt/er2@mlflow.example.com"])
    def test_credentials_in_url_are_not_repeated(self, url: str) -> None:
        result = fails(url=url)
        assert result["msg"] == "url must not hold credentials: give them in username and password"
        assert "hunt/er2" not in json.dumps(result)


def test_as_ansible_runs_it(mlflow_server: Mlflow, nginx: Nginx, tmp_path: Path) -> None:
    """Packed and sent as to any host, with every secret out of the loudest output."""
    collections = next(path for path in sys.path if Path(path, "ansible_collections/mlops/mlflow").exists())
    arguments = {
        "url": nginx.tls,
        "address": "127.0.0.1",
        "ca_path": nginx.ca,
        "username": USER,
        "password": PASSWORD,
        "depth": "roundtrip",
        "expect_version": mlflow_server.version,
    }
    process = subprocess.run(
        [sys.executable, "-m", "ansible.cli.adhoc", "localhost", "-vvv"]
        + ["-m", "mlops.mlflow.mlflow_health", "-a", json.dumps(arguments)]
        + ["-e", f"ansible_python_interpreter={sys.executable}"],
        env={
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": collections,
            "ANSIBLE_LOCAL_TEMP": str(tmp_path),
            "LC_ALL": "C.UTF-8",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    assert "SUCCESS" in process.stdout
    assert PASSWORD not in process.stdout + process.stderr
