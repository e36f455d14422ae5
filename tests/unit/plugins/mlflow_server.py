# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real MLflow server, and a real nginx in front of it, as fixtures, which conftest.py brings to the tests."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

USER, PASSWORD = "alice", "pä ss:w%rd"
DOMAIN = "mlflow.example.test"

# Every fault is a path prefix, so that one nginx shows them all.
NGINX = """
user root;
daemon off;
pid {root}/nginx.pid;
error_log stderr;
events {{}}
http {{
  access_log off;
  client_body_temp_path {root}/body;
  proxy_temp_path {root}/proxy;
  fastcgi_temp_path {root}/fastcgi;
  uwsgi_temp_path {root}/uwsgi;
  scgi_temp_path {root}/scgi;
  proxy_set_header Host $http_host;
  client_max_body_size 0;
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://unix:{mlflow}:/; }}
    location /mlflow/ {{ proxy_pass http://unix:{mlflow}:/; }}
    location /down/ {{ proxy_pass http://unix:{root}/nowhere.sock:/; }}
    location /down-later/ {{ location ~ /health$ {{ return 200 OK; }} proxy_pass http://unix:{root}/nowhere.sock:/; }}
    location /500/ {{ return 500; }}
    location /503/ {{ return 503; }}
    location /504/ {{ return 504; }}
    location /429/ {{ return 429; }}
    location /418/ {{ return 418 "short and stout"; }}
    location /redirect/ {{ return 301 https://{domain}/login?token=secret; }}
    location /other/ {{ return 200 "Welcome to something else"; }}
    location /other-api/ {{ location ~ /health$ {{ return 200 OK; }} return 200 "[]"; }}
    location /empty-api/ {{ location ~ /health$ {{ return 200 OK; }} return 200 "{{}}"; }}
    location /odd-api/ {{
      location ~ /health$ {{ return 200 OK; }}
      return 200 '{{"experiment_id": "1", "run": [], "runs": 0, "experiments": null}}';
    }}
    location /missing/ {{ return 404; }}
    location /forbidden/ {{ location ~ /health$ {{ return 200 OK; }} deny all; }}
    location /hang-up/ {{ return 444; }}
    location /small/ {{ client_max_body_size 1m; proxy_pass http://unix:{mlflow}:/; }}
    location /no-put/ {{ if ($request_method = PUT) {{ return 403; }} proxy_pass http://unix:{mlflow}:/; }}
    location /no-delete/ {{ if ($request_method = DELETE) {{ return 403; }} proxy_pass http://unix:{mlflow}:/; }}
    location /no-list/ {{ if ($arg_path) {{ return 500; }} proxy_pass http://unix:{mlflow}:/; }}
    location /slow-put/ {{
      if ($request_method = PUT) {{ proxy_pass http://127.0.0.1:{hanging}; }}
      proxy_pass http://unix:{mlflow}:/;
    }}
  }}
  server {{
    listen 127.0.0.1:{tls_port} ssl;
    ssl_certificate {root}/server.pem;
    ssl_certificate_key {root}/server.key;
    auth_basic MLflow;
    auth_basic_user_file {root}/htpasswd;
    location / {{ proxy_pass http://unix:{mlflow}:/; }}
    location = /health {{ auth_basic off; proxy_pass http://unix:{mlflow}:/health; }}
  }}
}}
"""


def free_port() -> int:
    with closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def wait_until(what: str, ready: Any, process: subprocess.Popen[bytes], log: Path, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"{what} did not start: {log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.1)


@contextmanager
def running(process: subprocess.Popen[Any]) -> Iterator[subprocess.Popen[Any]]:
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


class UnixConnection(HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self.path))


@dataclass
class Mlflow:
    """One MLflow server with its store in a directory of its own."""

    root: Path
    python: str
    version: str
    environment: dict[str, str] = field(repr=False)

    @property
    def socket(self) -> Path:
        return self.root / "mlflow.sock"

    @property
    def database(self) -> Path:
        return self.root / "mlflow.db"

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    @property
    def store(self) -> str:
        return f"--backend-store-uri=sqlite:///{self.database}"

    def start(self) -> subprocess.Popen[bytes]:
        command = [self.python, "-m", "mlflow", "server", self.store, f"--artifacts-destination={self.artifacts}"]
        command += ["--workers=1", f"--allowed-hosts=localhost*,127.0.0.1*,{DOMAIN}*"]
        command += [f"--uvicorn-opts=--uds {self.socket}"]
        with (self.root / "log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env=self.environment, cwd=self.root)

    def api(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        with closing(UnixConnection(self.socket)) as connection:
            data = body if isinstance(body, bytes) or body is None else json.dumps(body)
            headers = {} if isinstance(body, bytes) else {"Content-Type": "application/json"}
            connection.request(method, "/api/2.0/" + path, data, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"null")

    def experiments(self, view: str = "ACTIVE_ONLY") -> dict[str, str]:
        """Ids and names of all but the default experiment."""
        status, answer = self.api("POST", "mlflow/experiments/search", {"max_results": 1000, "view_type": view})
        assert status == 200, answer
        found = answer.get("experiments", [])
        return {entry["experiment_id"]: entry["name"] for entry in found if entry["name"] != "Default"}

    def runs(self, experiment_ids: list[str], view: str = "ACTIVE_ONLY") -> list[str]:
        body = {"experiment_ids": experiment_ids, "run_view_type": view}
        status, answer = self.api("POST", "mlflow/runs/search", body)
        assert status == 200, answer
        return [run["info"]["run_id"] for run in answer.get("runs", [])]

    def artifact_files(self) -> list[Path]:
        return sorted(path for path in self.artifacts.rglob("*") if path.is_file())


@pytest.fixture(scope="session")
def mlflow_home(tmp_path_factory: pytest.TempPathFactory) -> Mlflow:
    """MLflow before it is started."""
    root = tmp_path_factory.mktemp("mlflow")
    cached = Path(__file__).resolve().parents[3] / ".cache/mlflow/bin/python"  # from tests/setup.sh
    python = os.environ.get("MLFLOW_TEST_PYTHON") or str(cached if cached.exists() else sys.executable)
    # No PYTHONPATH: the collections belong to the Python of the tests.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    # A database that goes away is missed at the next request.
    environment["MLFLOW_SQLALCHEMYSTORE_POOLCLASS"] = "NullPool"
    script = "from mlflow.version import VERSION; print(VERSION)"
    found = subprocess.run([python, "-c", script], capture_output=True, text=True, check=False, env=environment, cwd=root)
    if found.returncode:
        pytest.fail(f"These tests need MLflow, which {python} can't import: run `tests/setup.sh mlflow`, or set MLFLOW_TEST_PYTHON to a Python that has it.")
    return Mlflow(root, python, found.stdout.strip(), environment)


@pytest.fixture(scope="session")
def mlflow_server(mlflow_home: Mlflow) -> Iterator[Mlflow]:
    """MLflow on a unix socket."""
    server = mlflow_home
    with running(server.start()) as process:

        def ready() -> bool:
            try:
                return server.api("POST", "mlflow/experiments/search", {"max_results": 1})[0] == 200
            except OSError:
                return False

        wait_until("MLflow", ready, process, server.root / "log")
        yield server


@dataclass
class Nginx:
    root: Path
    port: int
    tls_port: int

    @property
    def ca(self) -> str:
        return str(self.root / "ca.pem")

    @property
    def plain(self) -> str:
        return f"http://localhost:{self.port}"

    @property
    def tls(self) -> str:
        return f"https://{DOMAIN}:{self.tls_port}"


def make_certificates(root: Path) -> None:
    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=root)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    usage = ["-addext", "keyUsage=critical,keyCertSign"]  # wanted by Python 3.13
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Test CA", "-days", "2", *usage)
    openssl("req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", f"/CN={DOMAIN}")
    (root / "names").write_text(f"subjectAltName=DNS:{DOMAIN}\nauthorityKeyIdentifier=keyid\n")
    signing = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names", "-days", "2"]
    openssl("x509", "-req", "-in", "server.csr", "-out", "server.pem", *signing)


@pytest.fixture(scope="session")
def hanging_port() -> Iterator[int]:
    """A port that accepts connections and never says anything."""
    with closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(64)
        yield sock.getsockname()[1]


@pytest.fixture(scope="session")
def nginx(tmp_path_factory: pytest.TempPathFactory, mlflow_server: Mlflow, hanging_port: int) -> Iterator[Nginx]:
    """Plain HTTP with all its faults, and TLS with a password, in front of MLflow."""
    path = os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin"
    for program, package in (("nginx", "nginx-light"), ("openssl", "openssl")):
        if not shutil.which(program, path=path):
            pytest.fail(f"These tests need {program}: install it (apt install {package}).")
    proxy = Nginx(tmp_path_factory.mktemp("nginx"), free_port(), free_port())
    root = proxy.root
    make_certificates(root)
    hashed = subprocess.run(["openssl", "passwd", "-6", "-stdin"], input=PASSWORD, capture_output=True, text=True, check=True).stdout
    (root / "htpasswd").write_text(f"{USER}:{hashed}")
    config = NGINX.format(
        root=root,
        mlflow=mlflow_server.socket,
        domain=DOMAIN,
        port=proxy.port,
        tls_port=proxy.tls_port,
        hanging=hanging_port,
    )
    (root / "nginx.conf").write_text(config if os.geteuid() == 0 else re.sub(r"^user.*;", "", config, flags=re.MULTILINE))
    with (root / "log").open("ab") as log:
        command = [shutil.which("nginx", path=path), "-p", str(root), "-c", str(root / "nginx.conf")]
        with running(subprocess.Popen(command, stdout=log, stderr=log)) as process:
            wait_until("nginx", lambda: can_connect(proxy.tls_port), process, root / "log", 10)
            yield proxy


def can_connect(port: int) -> bool:
    with closing(socket.socket()) as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
