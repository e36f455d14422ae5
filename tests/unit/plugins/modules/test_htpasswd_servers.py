# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real nginx and Apache's own htpasswd let in whom the module's files name, and nobody else."""

from __future__ import annotations

import base64
import os
import shutil
import socket
import subprocess
import time
import typing as t
from http.client import HTTPConnection
from pathlib import Path

import pytest
from ansible_collections.mlops.mlflow.plugins.module_utils.htpasswd import Hashing
from ansible_collections.mlops.mlflow.tests.unit.plugins.htpasswd_helpers import run

# One server for all files: the request names the file.
NGINX = """
daemon off;
master_process off;
pid {root}/pid;
error_log {root}/error.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {root}/body;
  proxy_temp_path {root}/proxy;
  fastcgi_temp_path {root}/fastcgi;
  uwsgi_temp_path {root}/uwsgi;
  scgi_temp_path {root}/scgi;
  server {{
    listen unix:{root}/socket;
    auth_basic test;
    auth_basic_user_file $http_x_file;
    root {root};
  }}
}}
"""
Asks = t.Callable[[Path, str, str], bool]


def program(name: str, package: str) -> str:
    found = shutil.which(name, path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
    assert found, f"{name} is missing: install the Debian package {package}"
    return found


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Asks]:
    root = tmp_path_factory.mktemp("nginx")
    (root / "page").write_text("in")
    (root / "nginx.conf").write_text(NGINX.format(root=root))
    process = subprocess.Popen([program("nginx", "nginx-light"), "-c", root / "nginx.conf"])

    def ask(file: Path, name: str, password: str) -> bool:
        connection = HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(root / "socket"))
        credentials = base64.b64encode(f"{name}:{password}".encode()).decode()
        connection.request("GET", "/page", headers={"X-File": str(file), "Authorization": f"Basic {credentials}"})
        status = connection.getresponse().status
        connection.close()
        assert status in (200, 401), f"{status}: {(root / 'error.log').read_text()}"
        return status == 200

    deadline = time.monotonic() + 10
    while not (root / "socket").exists() and time.monotonic() < deadline:
        assert process.poll() is None, (root / "error.log").read_text()
        time.sleep(0.01)
    yield ask
    process.terminate()
    process.wait()


@pytest.fixture(scope="module")
def apache() -> Asks:
    htpasswd = program("htpasswd", "apache2-utils")

    def ask(file: Path, name: str, password: str) -> bool:
        finished = subprocess.run([htpasswd, "-vb", file, name, password], capture_output=True, text=True, check=False)
        if finished.returncode == 0:
            return True
        assert "password verification failed" in finished.stderr or "not found" in finished.stderr, finished.stderr
        return False

    return ask


@pytest.fixture(params=["nginx", "apache"])
def server(request: pytest.FixtureRequest) -> Asks:
    return request.getfixturevalue(request.param)


SCHEMES = [
    ("bcrypt", 4),
    ("bcrypt", None),
    ("sha512_crypt", 1000),
    ("sha512_crypt", 5000),
    ("sha512_crypt", None),
    ("sha256_crypt", 1000),
    ("sha256_crypt", 5000),
    ("sha256_crypt", None),
    ("apr_md5_crypt", None),
]


@pytest.mark.parametrize("scheme, rounds", SCHEMES)
def test_lets_in(tmp_path: Path, server: Asks, scheme: str, rounds: int | None) -> None:
    file = tmp_path / "users"
    file.write_bytes(b"# staff\n\nzoe:x:a comment\r\n\xff:x")
    users = [{"name": "alice", "password": "correct horse"}, {"name": "Ünï çødé", "password": "pä:ss wörd"}]
    assert run(file, users=users, hash_scheme=scheme, rounds=rounds)["changed"]
    assert server(file, "alice", "correct horse")
    assert server(file, "Ünï çødé", "pä:ss wörd")
    assert not server(file, "alice", "correct hors")
    assert not server(file, "bob", "correct horse")
    assert not server(file, "zoe", "x")


@pytest.mark.parametrize(
    "scheme, rounds, size",
    [("bcrypt", 4, 72), ("sha512_crypt", 1000, 511), ("sha256_crypt", 1000, 511), ("apr_md5_crypt", None, 511)],
)
def test_the_longest_password(tmp_path: Path, nginx: Asks, scheme: str, rounds: int | None, size: int) -> None:
    file = tmp_path / "users"
    password = "é" * (size // 2) + "x" * (size % 2)
    assert run(file, name="alice", password=password, hash_scheme=scheme, rounds=rounds)["changed"]
    assert nginx(file, "alice", password)
    assert not nginx(file, "alice", password[:-1])


def test_follows_every_change(tmp_path: Path, server: Asks) -> None:
    file = tmp_path / "users"
    ready_made = Hashing("sha512_crypt", 1000).hash("two").decode()
    run(file, name="alice", password="one", rounds=4)
    assert server(file, "alice", "one")
    run(file, name="alice", password_hash=ready_made)
    assert server(file, "alice", "two") and not server(file, "alice", "one")
    run(file, name="bob", password="three", hash_scheme="apr_md5_crypt")
    assert server(file, "alice", "two") and server(file, "bob", "three")
    run(file, name="alice", state="absent")
    assert not server(file, "alice", "two") and server(file, "bob", "three")


@pytest.mark.parametrize(
    "flags, scheme, rounds",
    [
        ("-B -C 5", "bcrypt", 5),
        ("-5", "sha512_crypt", 5000),
        ("-2 -r 2000", "sha256_crypt", 2000),
        ("-m", "apr_md5_crypt", None),
    ],
)
def test_knows_the_hashes_of_apache(tmp_path: Path, nginx: Asks, flags: str, scheme: str, rounds: int | None) -> None:
    file = tmp_path / "users"
    command = [program("htpasswd", "apache2-utils"), "-bc", *flags.split(), file, "alice", "pä:ss wörd"]
    subprocess.run(command, check=True, capture_output=True)
    assert nginx(file, "alice", "pä:ss wörd")
    options = {"name": "alice", "hash_scheme": scheme, "rounds": rounds}
    assert not run(file, password="pä:ss wörd", **options)["changed"]
    assert run(file, password="another", **options)["updated"] == ["alice"]
    assert nginx(file, "alice", "another")


@pytest.mark.parametrize("line", ["  #alice", "\t#alice", "\f#alice", " alice", "alice ", " # note"])
def test_every_line_that_nginx_takes_for_a_user_is_managed_or_refused(tmp_path: Path, nginx: Asks, line: str) -> None:
    file = tmp_path / "users"
    file.write_text(f"{line}:{Hashing('bcrypt', 4).hash('secret').decode()}\n")
    assert nginx(file, line, "secret")
    answer = run(file, users=[{"name": "bob", "password": "another", "state": "present"}], exclusive=True, rounds=4)
    assert answer.get("failed") and "line 1 of the file is" in answer["msg"], answer


@pytest.mark.parametrize("line", ["#alice", "\r#alice", "\r  #alice"])
def test_a_comment_of_nginx_stays(tmp_path: Path, nginx: Asks, line: str) -> None:
    file = tmp_path / "users"
    content = f"{line}:{Hashing('bcrypt', 4).hash('secret').decode()}\n  # a comment\n"
    file.write_text(content)
    assert not nginx(file, line, "secret") and not nginx(file, "alice", "secret")
    assert run(file, users=[{"name": "bob", "password": "another"}], exclusive=True, rounds=4)["added"] == ["bob"]
    assert file.read_bytes().startswith(content.encode())
