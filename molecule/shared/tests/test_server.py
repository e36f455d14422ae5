# SPDX-License-Identifier: GPL-3.0-or-later
"""What the deployment leaves on the server, seen from inside by testinfra."""

from __future__ import annotations

import base64
import ipaddress
import json
import os
import time
from urllib.parse import quote

import pytest
from documentation import documented

SOCKET = "/run/mlflow/mlflow.sock"
AUTHORITY = "/etc/nginx/mlflow/tls/selfsigned/ca.pem"
PYTHON = "/opt/mlflow/current/bin/python"


def as_user(host, user: str, command: str):
    return host.run("runuser -u %s -- sh -c %s", user, command)


def health(host, user: str = "root"):
    code = (
        "import socket; s = socket.socket(socket.AF_UNIX); s.settimeout(10); "
        f"s.connect('{SOCKET}'); s.sendall(b'GET /health HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n'); print(s.recv(15).decode())"
    )
    return as_user(host, user, f'python3 -c "{code}"')


@pytest.mark.parametrize("name", ["mlflow", "nginx", "postgresql"])
def test_service_runs_now_and_at_boot(host, name):
    assert host.service(name).is_running
    assert host.service(name).is_enabled


def test_what_the_person_on_call_types_answers(host):
    for line in documented("On call"):
        if not line.startswith("ansible-playbook"):
            run = host.run("bash -c %s", line)
            assert (run.rc, run.stderr) == (0, ""), line


def test_only_nginx_and_ssh_listen_outside(host):
    outside = set()
    for line in host.check_output("ss -Hltn").splitlines():
        address, port = line.split()[3].rsplit(":", 1)
        address = address.strip("[]").split("%")[0]
        if address == "*" or not ipaddress.ip_address(address).is_loopback:
            outside.add(int(port))
    assert outside <= {22, 80, 443}
    assert outside >= {80, 443}


def test_user_cannot_log_in(host):
    user = host.user("mlflow")
    assert user.shell == "/usr/sbin/nologin"
    assert user.uid < 1000
    assert user.home == "/nonexistent"
    assert host.run("getent shadow mlflow").stdout.split(":")[1] in ("!", "!!", "*", "!*")


@pytest.mark.parametrize(
    ("path", "user", "group", "mode"),
    [
        ("/etc/mlflow/mlflow.env", "root", "root", 0o600),
        ("/etc/nginx/mlflow.htpasswd", "root", "www-data", 0o640),
        ("/etc/nginx/mlflow/tls/selfsigned/ca.key", "root", "root", 0o600),
        ("/etc/nginx/mlflow/tls/selfsigned/privkey.pem", "root", "root", 0o600),
        ("/etc/mlflow/secrets.env", "root", "root", 0o600),
        ("/var/lib/mlflow", "root", "mlflow", 0o750),
        ("/var/lib/mlflow/backups", "root", "root", 0o700),
        ("/var/lib/mlflow/artifacts", "mlflow", "mlflow", 0o750),
        ("/var/log/mlflow", "root", "mlflow", 0o750),
        (SOCKET, "mlflow", "mlflow", 0o660),
    ],
)
def test_path_is_closed(host, path, user, group, mode):
    found = host.file(path)
    assert (found.user, found.group, found.mode) == (user, group, mode)


def test_mlflow_owns_its_database(host):
    sql = "SELECT pg_get_userbyid(datdba), pg_encoding_to_char(encoding) FROM pg_database WHERE datname = 'mlflow'"
    assert as_user(host, "postgres", f'psql -XAtc "{sql}"').stdout.strip() == "mlflow|UTF8"


def test_database_fits_the_host_and_loses_nothing(host):
    mebibytes = int(host.check_output("sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo")) // 1024
    sql = "SELECT name, setting FROM pg_settings WHERE name IN ('shared_buffers', 'fsync', 'synchronous_commit', 'full_page_writes')"
    settings = dict(line.split("|") for line in as_user(host, "postgres", f'psql -XAtc "{sql}"').stdout.split())
    pages = int(settings.pop("shared_buffers"))
    assert pages / 128 == pytest.approx(min(max(mebibytes / 8, 128), 8192), abs=32)  # MiB
    assert settings == {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}


def test_mlflow_logs_in_without_a_password_and_others_do_not(host):
    assert as_user(host, "mlflow", "psql -XAtc 'SELECT current_user' mlflow").stdout.strip() == "mlflow"
    assert as_user(host, "nobody", "psql -XAtc 'SELECT 1' -U mlflow mlflow").rc != 0


def test_schema_is_the_one_this_mlflow_expects(host):
    run = as_user(
        host,
        "mlflow",
        f"MLFLOW_BACKEND_STORE_URI='postgresql+psycopg2://mlflow@/mlflow?host=/var/run/postgresql' {PYTHON} /opt/mlflow/libexec/mlflow_schema.py",
    )
    assert json.loads(run.stdout)["state"] == "current", run.stderr


def test_release_is_locked_and_current(host):
    wanted = "3.10-" if os.environ.get("MLFLOW_TEST_PYTHON_MOUNT") else "3."
    assert host.file("/opt/mlflow/current").linked_to.startswith(f"/opt/mlflow/releases/3.17.2-py{wanted}")
    assert host.run(f"{PYTHON} -m pip --version").rc != 0, "pip in the release would let it drift"
    assert host.check_output(f"{PYTHON} -c 'import psycopg2; print(psycopg2.__version__.split()[0])'") == "2.9.13"


def test_socket_is_closed_to_others(host):
    assert health(host, "www-data").stdout.strip() == "HTTP/1.1 200 OK"
    assert "PermissionError" in health(host, "nobody").stderr


def test_mlflow_logs_to_the_journal(host):
    assert "[MLflow] Security middleware enabled" in host.check_output("journalctl --unit=mlflow --no-pager")


def test_password_is_nowhere_but_hashed(host):
    password = os.environ["MLFLOW_TEST_PASSWORD"]
    assert host.file("/etc/nginx/mlflow.htpasswd").content_string.startswith("mlflow:$")
    found = host.run(
        "grep --recursive --files-with-matches --fixed-strings --devices=skip %s /etc /run /var/lib/mlflow /var/log /tmp /opt/mlflow/current/bin",
        password,
    )
    assert found.stdout == ""
    assert password not in host.check_output("journalctl --no-pager")
    assert password not in host.check_output("cat /proc/[0-9]*/cmdline | tr '\\0' ' '").replace("grep", "")


def ask(host, password: str) -> str:
    """The status of a request through nginx, as a client has it."""
    code = (
        "import ssl, urllib.error, urllib.request as u\n"
        "m = u.HTTPPasswordMgrWithPriorAuth(); m.add_password(None, 'https://mlflow.test/', 'mlflow', open('/dev/stdin').read(), is_authenticated=True)\n"
        f"s = u.HTTPSHandler(context=ssl.create_default_context(cafile='{AUTHORITY}'))\n"
        "try: print(u.build_opener(s, u.HTTPBasicAuthHandler(m)).open('https://mlflow.test/version').status)\n"
        "except urllib.error.HTTPError as e: print(e.code)\n"
    )
    return host.check_output("printf %%s %s | python3 -c %s", password, code)


def test_changed_password_file_forgets_at_once(host):
    password, file = os.environ["MLFLOW_TEST_PASSWORD"], "/etc/nginx/mlflow.htpasswd"
    workers = 2 * int(host.check_output("nproc"))
    assert {ask(host, password) for _count in range(workers)} == {"200"}, "remembered by every worker now"
    host.run_expect([0], "cp --archive %s /root/kept && sed -i 's/^mlflow:/gone:/' %s", file, file)
    try:
        assert {ask(host, password) for _count in range(workers)} == {"401"}
    finally:
        host.run_expect([0], "cp --archive /root/kept %s && rm /root/kept", file)
    assert ask(host, password) == "200"


ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts/names"


@pytest.fixture(scope="module")
def artifacts(host):
    """Files as MLflow's client would have put them."""
    names = ["plain.txt", "model.pkl", "page.html", "UPPER.JSON", "no-extension", "späce and ünicode.bin", 'quote"s.csv', "empty", "dir/inner.png"]
    host.run_expect([0], "command -v curl || DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends curl")
    host.run_expect([0], "install -d -o mlflow -g mlflow -m 750 /var/lib/mlflow/artifacts/names/dir")
    for name in names:
        path = f"/var/lib/mlflow/artifacts/names/{name}"
        host.run_expect([0], "printf %%s %s >%s && chown mlflow:mlflow %s && chmod 640 %s", "" if name == "empty" else name * 100, path, path, path)
    yield [*names, "missing.txt", "dir", "../names/plain.txt", "..%2f..%2fmlflow.db"]
    host.run_expect([0], "rm -r /var/lib/mlflow/artifacts/names")


@pytest.mark.parametrize(
    "headers",
    [[], ["Range: bytes=2-5"], ["Range: bytes=-7"], ["Range: bytes=0-0,2-3"], ["Range: bytes=99999-"], ["Range: bytes=2-5", 'If-Range: "x"']],
)
def test_nginx_sends_artifacts_as_mlflow_would(host, artifacts, headers):
    paths = [ARTIFACTS + "/" + (name if "%2f" in name else quote(name)) for name in artifacts]
    curl = "curl --silent --path-as-is --include --globoff --header 'Host: mlflow.test' " + "".join(f"--header '{header}' " for header in headers)

    def answers(options: str) -> list:
        loop = f"for path in {' '.join(paths)}; do {curl} {options}$path | base64 --wrap=0; echo; done"
        return [answer(line) for line in host.check_output(loop).splitlines()]

    own = answers(f"--unix-socket {SOCKET} http://mlflow.test")
    through = answers(f"--http1.1 --cacert {AUTHORITY} --user mlflow:{os.environ['MLFLOW_TEST_PASSWORD']} https://mlflow.test")
    assert dict(zip(artifacts, through, strict=True)) == dict(zip(artifacts, own, strict=True))


def answer(encoded: str) -> tuple[str, dict[str, str], bytes]:
    """Status, headers and body; without what differs from one answer to the next, and the value of ETag, which is nginx's."""
    head, _blank, body = base64.b64decode(encoded).partition(b"\r\n\r\n")
    status, *lines = head.decode().splitlines()
    headers = dict(line.lower().split(": ", 1) for line in lines)
    if "multipart" in headers["content-type"]:
        return status.split()[1], {}, b""  # with a boundary that is random
    for name in ["date", "server", "connection", "transfer-encoding", "etag", "last-modified"] + (
        ["content-disposition", "accept-ranges", "content-range"] if "416" in status else []
    ):
        headers.pop(name, None)
    return status.split()[1], headers, body


def test_nginx_sends_the_user_interface_from_the_release(host):
    """That it does so as MLflow would is tested in tests/contract."""
    found = "find -L /opt/mlflow/current/static-files -name 'main.*.js'"
    name = host.check_output(found).removeprefix("/opt/mlflow/current")
    curl = f"curl --silent --fail --compressed --cacert {AUTHORITY} --user mlflow:%s --dump-header /root/head https://mlflow.test%s"
    mine = f"cmp - /opt/mlflow/current{name} && grep --ignore-case --count -e '^content-encoding: gzip' -e immutable /root/head && rm /root/head"
    assert host.check_output(f"{curl} | ({mine})", os.environ["MLFLOW_TEST_PASSWORD"], name) == "2"


def test_remembered_password_costs_no_hash(host):
    password = os.environ["MLFLOW_TEST_PASSWORD"]
    spent = "cat /proc/$(cat /run/nginx.pid)/task/*/children | xargs -n1 | sed 's#.*#/proc/&/stat#' | xargs cat | awk '{ticks += $14 + $15} END {print ticks}'"
    for _count in range(2 * int(host.check_output("nproc"))):
        ask(host, password)
    before = int(host.check_output(spent))
    for _count in range(20):
        ask(host, password)
    assert int(host.check_output(spent)) - before < 20 * 5, "20 checks of bcrypt at cost 12 take over 20 x 10 ticks"


def test_other_sites_go_on(host):
    assert "Welcome to nginx" in host.check_output("python3 -c %s", "import urllib.request as u; print(u.urlopen('http://127.0.1.1/').read().decode())")


def test_mlflow_comes_back_after_a_crash(host):
    before = host.service("mlflow").systemd_properties["MainPID"]
    host.run_expect([0], "systemctl kill --signal=KILL mlflow.service")
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        if host.service("mlflow").systemd_properties["MainPID"] not in ("0", before) and "200 OK" in health(host).stdout:
            return
        time.sleep(1)
    pytest.fail("MLflow did not answer within 90 s of being killed")
