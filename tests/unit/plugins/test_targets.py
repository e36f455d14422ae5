# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The modules that need most of Python on every Python that a target may have, with the oldest and the newest ansible-core that sends them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import typing as t
from pathlib import Path

import ansible
import pytest
from ansible_collections.mlops.mlflow.tests.unit.plugins.mlflow_server import DOMAIN, PASSWORD, USER, Mlflow, Nginx
from ansible_collections.mlops.mlflow.tests.unit.plugins.module_helpers import COLLECTIONS, ROOT, RUN_MODULE

# Made by `tests/setup.sh targets`, which tells which versions cannot be had.
PYTHONS = {path.name: path / "bin/python" for path in ROOT.glob(".cache/targets/3.*")}
PLAYBOOK = [
    {
        "hosts": "all",
        "gather_facts": False,
        "tasks": [
            {"mlops.mlflow.htpasswd": "{{ users }}", "check_mode": True, "register": "checked"},
            {"mlops.mlflow.htpasswd": "{{ users }}", "register": "done"},
            {"mlops.mlflow.htpasswd": "{{ users }}", "register": "again"},
            {"mlops.mlflow.mlflow_health": "{{ health }}"},
            {"ansible.builtin.assert": {"that": ["checked is changed", "done is changed", "again is not changed"]}},
        ],
    }
]


def test_there_are_targets() -> None:
    assert len(PYTHONS) >= 2, "run `tests/setup.sh targets`"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What Ansible sends to a target, and nothing else that this Python has."""
    site = tmp_path_factory.mktemp("site")
    (site / "ansible").symlink_to(Path(ansible.__file__).parent)
    return {"PYTHONPATH": f"{site}{os.pathsep}{COLLECTIONS}", "PATH": os.environ["PATH"]}


@pytest.fixture(params=sorted(PYTHONS, key=lambda version: int(version[2:])))
def module(request: pytest.FixtureRequest, environment: dict[str, str]) -> t.Callable[..., dict[str, t.Any]]:
    """The modules on one target."""

    def run(name: str, **options: t.Any) -> dict[str, t.Any]:
        finished = subprocess.run(
            [PYTHONS[request.param], RUN_MODULE, name],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": options}),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert not finished.stderr, finished.stderr
        return json.loads(finished.stdout)

    return run


Module = t.Callable[..., dict[str, t.Any]]


@pytest.mark.parametrize("scheme, rounds", [("bcrypt", 4), ("sha512_crypt", 1000), ("sha256_crypt", 1000), ("apr_md5_crypt", None)])
def test_htpasswd(tmp_path: Path, module: Module, scheme: str, rounds: int | None) -> None:
    path = tmp_path / "users"
    options = {"path": str(path), "users": [{"name": USER, "password": PASSWORD}], "hash_scheme": scheme, "rounds": rounds}
    for check, changed in (True, True), (False, True), (True, False), (False, False):
        answer = module("htpasswd", **options, _ansible_check_mode=check)
        assert not answer.get("failed"), answer
        assert (answer["changed"], path.exists()) == (changed, not (check and changed))
    subprocess.run(["htpasswd", "-vb", path, USER, PASSWORD], check=True)
    assert module("htpasswd", **{**options, "users": [{"name": USER, "password": "another"}]})["updated"] == [USER]
    assert subprocess.run(["htpasswd", "-vb", path, USER, PASSWORD], check=False).returncode == 3


def test_health(module: Module, mlflow_server: Mlflow, nginx: Nginx, hanging_port: int) -> None:
    tls = {"url": nginx.tls, "address": "127.0.0.1", "ca_path": nginx.ca, "username": USER, "password": PASSWORD}
    for options in {"unix_socket": str(mlflow_server.socket)}, {"url": nginx.plain}, tls:
        answer = module("mlflow_health", **options, depth="roundtrip")
        assert not answer.get("failed"), answer
        assert answer["version"] == mlflow_server.version and not answer["left_behind"]
    for options, message in [
        ({**tls, "password": "wrong"}, f"refuses the password of the user {USER}"),
        ({**tls, "ca_path": None}, f"the certificate of {DOMAIN} at 127.0.0.1 port"),
        ({**tls, "url": f"https://other.test:{nginx.tls_port}"}, "renew it for this name"),
        ({"url": f"https://localhost:{nginx.port}"}, "check scheme and port in url"),
        ({"url": f"http://127.0.0.1:{hanging_port}", "timeout": 0.5, "delay": 0.1}, "does not answer"),
    ]:
        answer = module("mlflow_health", **options)
        assert answer["failed"] and message in answer["msg"], answer


def test_certificate_check(module: Module, nginx: Nginx) -> None:
    made = {"certificate": str(nginx.root / "server.pem"), "key": str(nginx.root / "server.key")}
    text = {name: Path(path).read_text() for name, path in made.items()}
    for form in made, text:
        answer = module("certificate_check", **form, names=[DOMAIN])
        assert (answer["problem"], answer["names"]) == ("", [DOMAIN])
    for options, reason in (
        ({**made, "names": ["other.test"]}, "name"),
        ({**made, "key": str(nginx.root / "ca.key")}, "key"),
        ({**made, "key": "/nowhere.key"}, "unreadable"),
    ):
        assert module("certificate_check", **options)["reason"] == reason


def test_through_ansible(tmp_path: Path, nginx: Nginx) -> None:
    tls = {"url": nginx.tls, "address": "127.0.0.1", "ca_path": nginx.ca}
    health = {**tls, "username": USER, "password": PASSWORD, "depth": "roundtrip"}
    hosts = {}
    for version, python in PYTHONS.items():
        users = {"path": str(tmp_path / version), "name": USER, "password": PASSWORD, "rounds": 4}
        hosts[f"python{version}"] = {"ansible_python_interpreter": str(python), "users": users}
    inventory = {"all": {"hosts": hosts, "vars": {"ansible_connection": "local", "health": health}}}
    (tmp_path / "hosts.json").write_text(json.dumps(inventory))
    (tmp_path / "playbook.json").write_text(json.dumps(PLAYBOOK))
    process = subprocess.run(
        [sys.executable, "-m", "ansible", "playbook", "-i", "hosts.json", "playbook.json"],
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS), "ANSIBLE_LOCAL_TEMP": str(tmp_path), "ANSIBLE_NOCOLOR": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    assert all(f"{host} " in process.stdout.partition("PLAY RECAP")[2] for host in hosts)
