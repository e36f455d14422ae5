# SPDX-License-Identifier: GPL-3.0-or-later
"""The site of mlflow_nginx checks a password once: as strictly as auth_basic, no different seen from outside, and forgotten at once."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from servers import HOST, NGINX_ROLE, ROOT, Answer, ask, children, free_port, program, run_mlflow_python

PASSWORD = "c0rrect horse MARKER7f3a"
SECONDS = 3  # that it is remembered
PATHS = ["/x", "/api/2.0/mlflow/experiments/search", "/api/2.0/mlflow-artifacts/artifacts/x"]  # one in each of the locations with a password

# The role's site, stand-ins for MLflow that show what they get, and a server with auth_basic alone.
NGINX = """
{module}
{user}
worker_processes 1;
daemon off;
pid {top}/pid;
error_log {top}/error.log info;
events {{ worker_connections 1024; }}
http {{
  access_log {top}/access.log;
  client_body_temp_path {top}/body;
  proxy_temp_path {top}/proxy;
  fastcgi_temp_path {top}/fastcgi;
  uwsgi_temp_path {top}/uwsgi;
  scgi_temp_path {top}/scgi;
  include {top}/include/mlflow.conf;
  server {{
    listen unix:{top}/asgi.sock;
    add_header X-Asked $request_uri;
    location / {{ return 200 "asgi[$http_authorization][$http_x_auth_remembered]"; }}
  }}
  server {{
    listen unix:{top}/wsgi.sock;
    location / {{ return 200 "wsgi[$http_authorization][$http_x_auth_remembered]"; }}
  }}
  server {{
    listen 127.0.0.1:{plain};
    auth_basic MLflow;
    auth_basic_user_file {top}/htpasswd;
    location / {{ proxy_pass http://unix:{top}/asgi.sock; }}
  }}
}}
"""


def header(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


GOOD = header("alice", PASSWORD)
WRONG = header("alice", "wrong MARKER7f3a")


class Nginx:
    """An nginx with one worker, and the password file it reads."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.port, self.plain = free_port(), free_port()
        self.rendered: dict[str, str] = {}

    def render(self, **variables: int) -> str:
        """The role's site with the role's own defaults and variables, but for names, places and what a test sets."""
        build = subprocess.run([program("nginx", "nginx"), "-v"], capture_output=True, text=True, check=True).stderr
        version = re.search(r"nginx/([0-9.]+)", build)[1]
        variables = {
            "mlflow_nginx_domain": HOST,
            "mlflow_nginx_domain_aliases": ["other"],
            "mlflow_nginx_tls": "none",  # it changes nothing of what is tested here
            "mlflow_nginx_port": self.port,
            "mlflow_nginx_upstreams": [f"unix:{self.top}/asgi.sock"],
            "mlflow_nginx_wsgi_upstreams": [f"unix:{self.top}/wsgi.sock"],
            "mlflow_nginx_artifacts_dir": f"{self.top}/artifacts",
            "mlflow_nginx_remember_seconds": SECONDS,
            "__mlflow_nginx_found": {"version": version, "openssl": "3.0", "hash_bucket_size": 0},
            "__mlflow_nginx_host": {"paths": {"/proc/net/if_inet6": {}}},
            "__mlflow_nginx_htpasswd": f"{self.top}/htpasswd",
            "__mlflow_nginx_dir": f"{self.top}/include",
            "ansible_python_interpreter": sys.executable,
            **variables,
        }
        key = json.dumps(variables)
        if key not in self.rendered:
            (self.top / "include").mkdir(exist_ok=True)
            shutil.copy(NGINX_ROLE / "files/mlflow_auth.pm", self.top / "include")
            play = self.top / "render.yml"
            task = {"ansible.builtin.template": {"src": f"{NGINX_ROLE}/templates/mlflow.conf.j2", "dest": f"{self.top}/include/mlflow.conf"}}
            play.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": [task]}]))
            command = [sys.executable, "-m", "ansible", "playbook", "--inventory=localhost,", "--connection=local", str(play)]
            command += [f"--extra-vars=@{NGINX_ROLE}/defaults/main.yml", f"--extra-vars=@{NGINX_ROLE}/vars/main.yml", f"--extra-vars={key}"]
            run = subprocess.run(command, cwd=ROOT, env={**os.environ, "ANSIBLE_HOME": f"{self.top}/ansible"}, capture_output=True, text=True, check=False)
            assert run.returncode == 0, run.stdout + run.stderr
            self.rendered[key] = (self.top / "include/mlflow.conf").read_text()
        return self.rendered[key]

    def start(self, free: bool = False, **variables: int) -> None:
        """With free, anybody may try as often as they like."""
        site = self.render(**variables)
        if free:
            site = re.sub(r"  limit_req zone=mlops_mlflow_auth.*\n", "", site)
        # The template's logs are fixed, and it listens on every address.
        for there, here in (
            (rf"listen {self.port}([ ;])", rf"listen 127.0.0.1:{self.port}\1"),
            (rf"listen \[::\]:{self.port}.*;", ""),
            ("/var/log/nginx/", f"{self.top}/"),
        ):
            assert re.search(there, site)
            site = re.sub(there, here, site)
        (self.top / "include/mlflow.conf").write_text(site)
        module = ""
        if variables.get("mlflow_nginx_remember_seconds", SECONDS):
            module = f"load_module {program('ngx_http_perl_module.so', 'libnginx-mod-http-perl', [Path('/usr/lib/nginx/modules')])};"
        user = "" if os.geteuid() else "user www-data;"
        (self.top / "nginx.conf").write_text(NGINX.format(module=module, user=user, top=self.top, plain=self.plain))
        self.passwords(("alice", PASSWORD))
        command = [program("nginx", "nginx"), "-p", str(self.top), "-c", str(self.top / "nginx.conf")]
        with (self.top / "stderr").open("w") as stderr:
            self.process = subprocess.Popen(command, stderr=stderr)
        deadline = time.monotonic() + 20
        while True:
            try:
                assert self.get({}).status in (400, 401)  # 400: it wants TLS
                return
            except OSError:
                assert self.process.poll() is None and time.monotonic() < deadline, (self.top / "stderr").read_text()
                time.sleep(0.05)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)

    def reload(self) -> None:
        before = children(self.process.pid)
        self.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 20
        while not (now := children(self.process.pid)) or now & before:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def passwords(self, *users: tuple[str, str], cost: int = 12) -> None:
        """Write the password file anew, as it is on a server."""
        htpasswd = program("htpasswd", "apache2-utils")
        path = self.top / "htpasswd.new"
        path.write_text("")
        for user, password in users:
            subprocess.run([htpasswd, "-iB", "-C", str(cost), path, user], input=password, text=True, check=True, capture_output=True)
        if not os.geteuid():
            shutil.chown(path, group="www-data")
        path.chmod(0o640)
        path.replace(self.top / "htpasswd")

    def get(self, headers: dict[str, str], path: str = "/x", source: str = "", port: int = 0) -> Answer:
        return ask(f"127.0.0.1:{port or self.port}", "GET", path, headers=headers, source=source)

    def seconds_computed(self) -> float:
        stats = [Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split() for worker in children(self.process.pid)]
        return sum(int(fields[11]) + int(fields[12]) for fields in stats) / os.sysconf("SC_CLK_TCK")

    def watch(self, headers: dict[str, str], path: str = "/x") -> tuple[int, bool]:
        """The status of an answer, and whether a password was hashed for it: bcrypt with cost 12 computes for far more than 0.1 s."""
        before = self.seconds_computed()
        status = self.get(headers, path).status
        return status, self.seconds_computed() - before > 0.1


@pytest.fixture(scope="module")
def stopped(top: Path) -> Nginx:
    (top / "nginx").mkdir()
    return Nginx(top / "nginx")


@pytest.fixture
def nginx(stopped: Nginx) -> Iterator[Nginx]:
    """One that remembers nothing yet, and lets anybody try."""
    stopped.start(free=True)
    yield stopped
    stopped.stop()


@pytest.mark.parametrize("path", PATHS)
def test_checked_once(nginx, path):
    """Whatever is asked for first, and whatever then."""
    assert nginx.watch(GOOD, path) == (200, True)
    for other in [path, *PATHS]:
        assert nginx.watch(GOOD, other) == (200, False)


BAD = [{}, WRONG, header("nobody", PASSWORD), *({"Authorization": value} for value in ("Bearer x", "Basic !!!", "Basic"))]


def test_refusals_are_those_of_auth_basic(nginx):
    """Clients of the API get a body of their own."""
    for headers in BAD:
        for path in PATHS:
            ours, plain = nginx.get(headers, path), nginx.get(headers, path, port=nginx.plain)
            assert ours.status == plain.status == 401
            assert ours.headers["www-authenticate"] == {'Basic realm="MLflow"'}
            assert {**ours.end_to_end, "content-type": ""} == {**plain.end_to_end, "content-type": ""}
            assert (path in API) == (ours.body != plain.body) == (ours.headers["content-type"] != plain.headers["content-type"])


API = [*PATHS[1:], "/ajax-api/3.0/mlflow/traces", "/api/3.0/x", "/v1/traces", "/gateway/x/mlflow/invocations", "/graphql", "/version", "/x/../api/y"]


@pytest.mark.parametrize("path", API)
def test_clients_of_the_api_are_told_what_to_set(nginx, path):
    advice = {
        "": "This server requires a user name and a password: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.",
        "Basic": "The user name or the password is wrong: check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.",
        "Bearer": "This server takes no tokens: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead of MLFLOW_TRACKING_TOKEN.",
    }
    nginx.passwords(("alice", PASSWORD), cost=4)
    address = f"127.0.0.1:{nginx.port}"
    for headers in [*BAD, {"Authorization": "bearer x"}]:
        kind = headers.get("Authorization", "").partition(" ")[0].capitalize()
        for method, body in (("GET", None), ("POST", {"a": 1}), ("PUT", b"x" * 1_000_000), ("HEAD", None), ("DELETE", None)):
            answer = ask(address, method, path, body, headers)
            assert (answer.status, answer.headers["www-authenticate"]) == (401, {'Basic realm="MLflow"'})
            assert answer.headers["content-type"] == {"application/json"}
            assert method == "HEAD" or answer.json() == {"error_code": "UNAUTHENTICATED", "message": advice[kind]}
    assert nginx.get(GOOD, path).status == 200


@pytest.mark.parametrize("path", ["/", "/x", "/apix", "/api", "/x/api/", "/static-files/x.js", "/_mlflow_unauthenticated", "/@mlflow_unauthenticated"])
def test_browsers_get_a_page(nginx, path):
    for headers in BAD:
        answer = nginx.get(headers, path)
        assert (answer.status, answer.headers["content-type"]) == (401, {"text/html"})
        assert b"<h1>401 Authorization Required</h1>" in answer.body


@pytest.mark.parametrize(
    ("credentials", "sentence"),
    [
        ({}, "This server requires a user name and a password: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."),
        ({"MLFLOW_TRACKING_USERNAME": "alice", "MLFLOW_TRACKING_PASSWORD": "x"}, "The user name or the password is wrong: check MLFLOW_TRACKING_USERNAME"),
        ({"MLFLOW_TRACKING_TOKEN": "x"}, "This server takes no tokens: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead of"),
    ],
    ids=["none", "wrong", "token"],
)
def test_the_client_prints_what_to_set(stopped, credentials, sentence):
    code = """
import mlflow, tempfile
from mlflow.artifacts import download_artifacts
calls = [
    lambda: mlflow.MlflowClient().search_experiments(),
    lambda: mlflow.set_experiment("x"),
    lambda: download_artifacts("mlflow-artifacts:/0/x/artifacts/y"),
    lambda: mlflow.MlflowClient().search_registered_models(),
]
for call in calls:
    try:
        call()
    except Exception as error:
        print(type(error).__name__, str(error).replace("\\n", " "))
"""
    stopped.start(free=True, mlflow_nginx_domain_aliases=["127.0.0.1"])
    try:
        variables = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{stopped.port}", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", **credentials}
        lines = run_mlflow_python(f"import os; os.environ.update({variables!r})" + code).splitlines()
        assert len(lines) == 4
        for line in lines:
            assert sentence in line, line
            assert "<html>" not in line
        assert lines[0] == f"RestException UNAUTHENTICATED: {sentence}" or not sentence.endswith(".")
    finally:
        stopped.stop()


def test_refusals_are_not_remembered(nginx):
    assert [nginx.watch(WRONG) for _count in range(3)] == [(401, True)] * 3
    assert nginx.get(GOOD).status == 200
    assert nginx.watch(WRONG) == (401, True)


def test_only_what_was_checked_is_remembered(nginx):
    assert nginx.get(GOOD).status == 200
    for headers in (header("alice", PASSWORD + "x"), header("alice", PASSWORD[:-1]), header("Alice", PASSWORD), {"Authorization": GOOD["Authorization"][:-1]}):
        assert nginx.get(headers).status == 401


@pytest.mark.parametrize(("path", "status"), [("/health", 200), ("/_mlflow_artifacts/x", 404)])
def test_where_no_password_is_asked_for_none_is_remembered(nginx, path, status):
    for headers in (WRONG, header("nobody", PASSWORD), {"Authorization": "Bearer x"}):
        assert [nginx.watch(headers, path) for _count in range(2)] == [(status, False)] * 2
        assert [nginx.get(headers, other).status for other in PATHS] == [401] * len(PATHS)
    assert nginx.watch(WRONG, path) == (status, False)
    assert nginx.watch(WRONG) == (401, True)
    # nor is one that would be right
    assert nginx.watch(GOOD, path) == (status, False)
    assert nginx.watch(GOOD) == (200, True)
    # and one that is remembered does not lose its place
    assert nginx.watch(GOOD, path) == (status, False)
    assert nginx.watch(GOOD) == (200, False)


def test_health_has_a_limit_of_its_own(nginx):
    """A flood would reach MLflow; wrong passwords don't matter there."""
    answers = [nginx.get(headers, "/health").status for headers in [{}, WRONG] * 70]
    assert answers[:20] == [200] * 20
    assert set(answers) == {200, 429}


@pytest.mark.parametrize("path", ["/health/", "/healthz", "/Health", "/health%2fx", "/health/../x", "/health%2f..%2fx"])
def test_only_health_is_open(nginx, path):
    assert nginx.get({}, path).status == 401
    assert nginx.get(WRONG, path).status == 401


@pytest.mark.parametrize(
    "path",
    ["//health", "/./health", "/x/../health", "/x/%2e%2e/health", "/%68ealth", "/gateway/proxy/x/../../../health", "/health?x=/../y"]
    + ["http://other/x/../health"],
)
def test_what_normalises_to_health_arrives_as_health(nginx, path):
    """nginx judges the normalised path: MLflow must not get another one."""
    answer = ask(f"127.0.0.1:{nginx.port}", "GET", path)
    assert answer.status == 200
    assert [asked.partition("?")[0] for asked in answer.headers["x-asked"]] == ["/health"]
    assert ask(f"127.0.0.1:{nginx.port}", "POST", path).status == 403


@pytest.mark.parametrize("change", ["password", "user removed", "in place", "file removed"])
def test_a_changed_file_forgets_at_once(nginx, change):
    assert nginx.get(GOOD).status == nginx.get(GOOD).status == 200
    path = nginx.top / "htpasswd"
    if change == "password":
        nginx.passwords(("alice", "another"))
        assert nginx.get(header("alice", "another")).status == 200
    elif change == "user removed":
        nginx.passwords(("bob", PASSWORD))
    elif change == "in place":  # the same length, the same inode
        path.write_text(path.read_text()[:-6] + "AAAAA\n")
    else:
        path.unlink()
    assert nginx.get(GOOD).status == nginx.get(GOOD, port=nginx.plain).status != 200


def test_an_added_user_does_not_lock_out_others(nginx):
    assert nginx.get(GOOD).status == 200
    nginx.passwords(("alice", PASSWORD), ("bob", "b"), cost=5)
    assert nginx.get(GOOD).status == nginx.get(header("bob", "b")).status == 200


def test_forgotten_some_time_after_the_last_use(nginx):
    assert nginx.get(GOOD).status == 200
    for _count in range(SECONDS + 1):
        time.sleep(1)
        assert nginx.watch(GOOD) == (200, False)
    time.sleep(SECONDS + 1.1)
    assert nginx.watch(GOOD) == (200, True)


def test_without_remembering_no_perl_is_needed_and_passwords_are_limited(stopped):
    """nginx runs without its module for perl here; each password that is sent is an attempt, and what needs none is let through."""
    stopped.start(mlflow_nginx_remember_seconds=0)
    try:
        assert [stopped.watch(GOOD) for _count in range(2)] == [(200, True)] * 2
        assert stopped.get(WRONG).status == stopped.get({}).status == 401
        stopped.passwords(("alice", PASSWORD), cost=4)
        for headers, expected in ((GOOD, {200, 429}), (WRONG, {401, 429})):
            with ThreadPoolExecutor(40) as pool:
                assert set(pool.map(lambda _, headers=headers: stopped.get(headers).status, range(40))) == expected
        assert stopped.get({}, "/health").status == 200
    finally:
        stopped.stop()


def test_a_reload_forgets(nginx):
    assert nginx.get(GOOD).status == 200
    nginx.reload()
    assert nginx.watch(GOOD) == (200, True)


@pytest.mark.parametrize(
    ("limit", "addresses", "burst"),
    [("mlflow_nginx_attempts_per_address", 1, 20), ("mlflow_nginx_attempts", 100, 40)],
)
def test_guessing_is_limited_and_hurts_nobody_who_is_in(stopped, limit, addresses, burst):
    """From one address, and from many that stay within their own limit."""
    rates = {"mlflow_nginx_attempts_per_address": 1000, "mlflow_nginx_attempts": 1000, limit: 20}
    stopped.start(mlflow_nginx_remember_seconds=300, **rates)
    try:
        stopped.passwords(("alice", PASSWORD), cost=6)
        assert stopped.get(GOOD).status == 200
        answers: list[int] = []
        sources = [f"127.0.0.{1 + number % addresses}" for number in range(4 * burst)]

        def guess(number: int) -> None:
            answers.append(stopped.get(header("alice", f"guess{number}"), source=sources[number]).status)

        threads = [threading.Thread(target=guess, args=[number]) for number in range(len(sources))]
        started = time.monotonic()
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            assert stopped.get(GOOD).status == 200, "from an address that guesses"
            time.sleep(0.05)
        allowed = burst + 1 + 20 * (time.monotonic() - started)
        assert len(answers) == len(sources)
        assert set(answers) == {401, 429}
        assert answers.count(401) <= allowed
        assert stopped.get({}).status == 401, "the question for a password is never refused"
    finally:
        stopped.stop()


def test_whoever_guessed_wrong_does_not_take_the_turn_of_others(stopped):
    """Addresses that sent several wrong passwords share what one may try; a first login from elsewhere is not kept waiting."""
    stopped.start(mlflow_nginx_remember_seconds=300)
    try:
        stopped.passwords(("alice", PASSWORD), cost=6)
        sources = [f"127.0.0.{2 + number}" for number in range(4)]
        first = [stopped.get(header("alice", f"guess{number}"), source=source).status for source in sources for number in range(2)]
        assert set(first) == {401}
        time.sleep(2)
        suspects = [stopped.get(header("alice", f"more{number}"), source=source).status for number in range(10) for source in sources]
        assert suspects.count(401) <= 6 + 5
        assert set(suspects) == {401, 429}
        for spaces in range(1, 4):  # each is another header, and so a password that is not remembered
            started = time.monotonic()
            assert stopped.get({"Authorization": GOOD["Authorization"].replace(" ", " " * (spaces + 1), 1)}, source="127.0.0.99").status == 200
            assert time.monotonic() - started < 1
        # Even a suspect gets in at its turn, and is none from then on.
        deadline = time.monotonic() + 10
        while stopped.get(GOOD, source=sources[0]).status == 429:
            assert time.monotonic() < deadline
            time.sleep(0.3)
        assert [stopped.get(header("alice", f"mistyped{number}"), source=sources[0]).status for number in range(2)] == [401] * 2
    finally:
        stopped.stop()


def test_upstream_never_sees_the_password(nginx):
    for _count in range(2):
        assert [nginx.get(GOOD, path).body for path in PATHS] == [b"asgi[][]", b"wsgi[][]", b"asgi[][]"]
    assert nginx.get(GOOD, "/health").body == b"asgi[][]"


def test_health_is_good_only_where_both_sockets_answer(nginx):
    assert nginx.get({}, "/health").status == 200
    for name in ("wsgi.sock", "asgi.sock"):
        (nginx.top / name).rename(nginx.top / "gone")
        try:
            assert nginx.get({}, "/health").status >= 500
        finally:
            (nginx.top / "gone").rename(nginx.top / name)
    assert nginx.get({}, "/health").status == 200


def test_nothing_is_stored(nginx):
    for path in [*PATHS, "/health"] * 2:
        nginx.get(GOOD, path)
        nginx.get(WRONG, path)
    secret = re.compile(b"MARKER7f3a|" + b"|".join(re.escape(sent["Authorization"][6:].encode()) for sent in (GOOD, WRONG)))
    files = [path for path in nginx.top.rglob("*") if path.is_file()]
    assert nginx.top / "mlflow.access.log" in files
    assert [path for path in files if secret.search(path.read_bytes())] == []
