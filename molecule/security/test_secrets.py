# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets stay where they belong: marked ones are deployed with -vvv and --diff, changed, and then looked for everywhere."""

from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
import threading
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INVENTORY = Path(os.environ["MLFLOW_TEST_INVENTORY"])
NEEDLES = "/root/needles"
# The only files that may hold them, each readable by one user; htpasswd holds hashes.
ALLOWED = {
    "alice": set(),
    "generated": set(),
    "bob": {"/etc/nginx/mlflow.htpasswd"},
    "database": {"/etc/mlflow/pgpass"},
    "aws": {"/etc/mlflow/mlflow.env"},
    "key": {"/etc/nginx/mlflow/tls/files/privkey.pem"},
}


def marker() -> str:
    """Every character survives quoting, JSON and percent-encoding; what must be encoded comes beside it."""
    return "Mk" + secrets.token_hex(12)


def forms(secret: str) -> list[bytes]:
    """The secret, and what is left of it in base64, wherever it begins there (as after "user:")."""
    found = [secret.encode()]
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + secret.encode())
        found.append(encoded[(0, 2, 3)[offset] : (offset + len(secret)) // 3 * 4])
    return found


def find(needles: dict[str, list[bytes]], data: bytes) -> set[str]:
    return {name for name, known in needles.items() if any(form in data for form in known)}


class Sampler(threading.Thread):
    """Reads the arguments and the environment of every process, the hosts' among them, as long as a deployment runs."""

    def __init__(self, needles):
        super().__init__(daemon=True)
        self.needles, self.ended = needles, threading.Event()
        self.arguments, self.environments, self.processes = {}, {}, 0

    def run(self):
        times = {}
        while not self.ended.wait(0.01):
            # a process is young when it becomes another program
            times = {pid: times.get(pid, 0) + 1 for pid in filter(str.isdigit, os.listdir("/proc"))}
            for pid in (pid for pid, seen in times.items() if seen < 30):
                self.processes += times[pid] == 1
                try:
                    arguments = Path("/proc", pid, "cmdline").read_bytes()
                    for name in find(self.needles, arguments):
                        self.arguments[name] = arguments[:200]
                    for name in find(self.needles, Path("/proc", pid, "environ").read_bytes()):
                        if "mlflow.service" not in Path("/proc", pid, "cgroup").read_text():  # which needs it
                            self.environments[name] = arguments[:200]
                except OSError:
                    pass  # it has ended, or is not ours to look into

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.join()


class Secrets:
    def __init__(self, directory: Path):
        self.values = {name: marker() for name in ["alice", "database", "aws"]}
        self.values["bob"] = "$2y$12$" + secrets.token_hex(27)[:53]
        directory.mkdir()
        subject = ["-subj", "/CN=mlflow.test", "-addext", "subjectAltName=DNS:mlflow.test", "-days", "30"]
        key, certificate = directory / "key.pem", directory / "certificate.pem"
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        subprocess.run(["openssl", "req", "-x509", *curve, "-keyout", key, "-out", certificate, *subject], check=True, capture_output=True)
        self.values["key"] = key.read_text().splitlines()[1]
        self.variables = directory / "secrets.json"
        self.variables.write_text(
            json.dumps(
                {
                    "mlflow_users": [
                        {"name": "alice", "password": self.values["alice"] + " p@ss:/?#é'\"\\%"},
                        {"name": "bob", "password_hash": self.values["bob"]},
                        {"name": "carol"},
                    ],
                    "mlflow_database_host": "127.0.0.1",
                    "mlflow_database_password": self.values["database"] + " p@ss:/?#é'\"\\%",
                    "mlflow_postgres_allowed_networks": ["127.0.0.1/32"],
                    "mlflow_systemd_environment": {"AWS_ACCESS_KEY_ID": "planted", "AWS_SECRET_ACCESS_KEY": self.values["aws"] + '/+="\\$x'},
                    "mlflow_replace_credentials": True,  # the generated password changes, too
                    "mlflow_tls": "files",
                    "mlflow_tls_certificate": str(certificate),
                    "mlflow_tls_key": str(key),
                    "mlflow_nginx_verify_ca": "/etc/nginx/mlflow/tls/files/fullchain.pem",
                }
            )
        )

    def needles(self) -> dict[str, list[bytes]]:
        generated = INVENTORY / "credentials/mlflow.test/carol.txt"
        values = self.values | ({"generated": generated.read_text().strip()} if generated.exists() else {})
        return {name: forms(value) for name, value in values.items()}


def deploy(directory: Path, *arguments: str) -> bytes:
    """Everything that a run says, and everything that it leaves behind on the controller."""
    local = directory / "controller"
    environment = os.environ | {"ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_LOCAL_TEMP": str(local / "temp"), "ANSIBLE_LOG_PATH": str(local / "log")}
    local.mkdir(exist_ok=True)
    command = ["ansible-playbook", str(ROOT / "site.yml"), "--inventory", str(INVENTORY), "-vvv", "--diff", *arguments]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, env=environment)
    assert run.returncode == 0, run.stdout.decode()[-3000:]
    return run.stdout + b"".join(path.read_bytes() for path in local.rglob("*") if path.is_file())


def files(host, needles, where: str = "") -> dict[str, set[str]]:
    """Which files hold which secret: all, or those that anybody may read."""
    known = b"\n".join(form for several in needles.values() for form in several)
    host.run_expect([0], f"umask 077; echo {base64.b64encode(known).decode()} | base64 --decode >{NEEDLES}")
    search = f"find / /run /tmp /dev/shm -xdev -type f ! -path {NEEDLES} {where} -exec grep --files-with-matches --text --fixed-strings --file={NEEDLES} {{}} +"
    found = {name: set() for name in needles}
    for path in host.run(search).stdout.splitlines():
        for name in find(needles, host.file(path).content):
            found[name].add(path)
    host.run_expect([0], f"rm {NEEDLES}")
    return found


def places(host) -> dict[str, str]:
    """What the host says to whoever asks, as the commands that show it."""
    return {
        "journal": "journalctl --no-pager --output=export",
        "unit": "systemctl show mlflow.service; systemctl cat mlflow.service; systemctl status --full --lines=500 mlflow.service",
        "nginx": "nginx -T 2>&1; cat /var/log/nginx/*",
        "processes": "for user in nobody www-data postgres; do runuser -u $user --"
        " sh -c 'cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline' 2>/dev/null; done; true",
        "logs": "find /var/log -type f -exec cat {} +",
    }


def curl(host, config: str):
    options = "--silent --insecure --output /dev/null --connect-to mlflow.test:443:127.0.0.1:443 --write-out '%{http_code}\n' --config -"
    return host.check_output(f"curl {options} <<'E'\n{config}\nE").split()


def talk(host, password: str) -> list[str]:
    """Requests with a right and a wrong password, and one that MLflow refuses, for nginx and MLflow to log."""
    requests = [f"carol:{password}", "/version"], [f"alice:{password}", "/version"], [f"carol:{password}", "/api/2.0/mlflow/experiments/get?experiment_id=x"]
    return [curl(host, f'user = "{login}"\nurl = "https://mlflow.test{path}"')[0] for login, path in requests]


@pytest.fixture(scope="module")
def deployed(host, tmp_path_factory):
    """Two deployments, the second with every secret changed, as (secrets, output, sampler); at the end the one that was there before."""
    directory = tmp_path_factory.mktemp("secrets")
    host.run_expect([0], "command -v curl || DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends curl")
    generated = INVENTORY / "credentials/mlflow.test/carol.txt"
    runs = []
    for number in range(2):
        generated.unlink(missing_ok=True)
        planted = Secrets(directory / str(number))
        if number:
            generated.write_text(marker() + "\n")
        else:
            generated.parent.mkdir(parents=True, exist_ok=True)
        with Sampler(planted.needles()) as sampler:
            # as argument and as environment of a process on the host, so that the sampler has something to find
            control = marker()
            sampler.needles["control"] = forms(control)
            host.run_expect([0], "CONTROL=%s sh -c 'sleep 1; :' %s", control, control)
            output = deploy(directory, "--extra-vars", f"@{planted.variables}")
        needles = planted.needles()
        assert talk(host, generated.read_text().strip()) in (["200", "401", "400"], ["200", "401", "404"])
        runs.append((needles, output, sampler))
    yield runs
    generated.unlink()
    deploy(directory)


def test_they_were_deployed(host, deployed):
    """Otherwise nothing would be found anywhere."""
    needles = deployed[-1][0]
    assert files(host, needles) == ALLOWED
    assert set(needles) == set(ALLOWED)


def test_old_ones_are_gone(host, deployed):
    """But for a hash in the old password file, which is kept where passwords were replaced that the controller did not know."""
    kept = host.check_output("find /etc/nginx -name 'mlflow.htpasswd.*~'").split()
    assert all(host.file(path).mode & 0o007 == 0 for path in kept)
    assert files(host, deployed[0][0]) == {**{name: set() for name in ALLOWED}, "bob": set(kept)}


def test_nobody_else_may_read_them(host, deployed):
    for needles, _output, _sampler in deployed:
        assert files(host, needles, "-perm -o+r") == {needle: set() for needle in needles}
    for path in set.union(*ALLOWED.values()):
        found = host.file(path)
        assert found.mode & 0o007 == 0
        assert found.user in ("root", "mlflow")


@pytest.mark.parametrize("place", ["journal", "unit", "nginx", "processes", "logs"])
def test_host_does_not_tell(host, deployed, place):
    said = host.run(places(host)[place]).stdout_bytes
    assert len(said) > 100
    for needles, _output, _sampler in deployed:
        assert find(needles, said) == set()


def test_ansible_does_not_tell(deployed):
    for needles, output, _sampler in deployed:
        assert b"PLAY RECAP" in output
        assert find(needles, output) == set()


def test_no_process_carries_them(deployed):
    for _needles, _output, sampler in deployed:
        print(f"{sampler.processes} processes")
        assert set(sampler.arguments) == {"control"}, sampler.arguments
        assert set(sampler.environments) == ({"control"} if os.geteuid() == 0 else set()), sampler.environments


def test_the_search_would_find(host, deployed, tmp_path):
    """What is planted on purpose, in each place and form."""
    planted = marker()
    needles = {"planted": forms(planted)}
    host.run_expect([0], "printf %%s %s | base64 >/tmp/planted; chmod 644 /tmp/planted", f"carol:{planted}")
    host.run_expect([0], "printf %%s %s >/run/planted; chmod 600 /run/planted", planted)
    assert files(host, needles, "-perm -o+r") == {"planted": {"/tmp/planted"}}
    assert files(host, needles) == {"planted": {"/tmp/planted", "/run/planted"}}
    host.run_expect([0], "rm /tmp/planted /run/planted")

    host.run_expect([0], "echo %s | systemd-cat", planted)
    curl(host, f'url = "https://mlflow.test/?{planted}"')
    time.sleep(1)
    for place in ["journal", "nginx"]:
        assert find(needles, host.run(places(host)[place]).stdout_bytes) == {"planted"}, place

    (tmp_path / "site.yml").write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": [{"ansible.builtin.debug": {"msg": planted}}]}]))
    run = subprocess.run(["ansible-playbook", str(tmp_path / "site.yml"), "-vvv"], capture_output=True, check=True)
    assert find(needles, run.stdout) == {"planted"}
