# SPDX-License-Identifier: GPL-3.0-or-later
"""A server that an earlier version of this collection deployed, in this order: taken over, upgraded, and brought back."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest
import testinfra
from deployment import deploy, deployed, deployed_by, recap, refused, said, unchanged
from documentation import documented

EARLIER = "0b3ceb3"  # whose files bear no mark, and whose MLflow owns its data directory
OLD, NEW = {"mlflow_version": "3.16.1"}, {"mlflow_version": "3.17.2"}
DATA = "/var/lib/mlflow"
CA = "/etc/nginx/mlflow/tls/current/ca.pem"
CREDENTIALS = Path(os.environ["MLFLOW_TEST_INVENTORY"]) / "credentials"
CLIENT = """
import json, os, sys, mlflow
os.environ.update(MLFLOW_TRACKING_USERNAME="mlflow", MLFLOW_TRACKING_PASSWORD=sys.stdin.readline().strip())
mlflow.set_tracking_uri("https://mlflow.test")
if sys.argv[1] == "write":
    mlflow.set_experiment("kept")
    with mlflow.start_run(run_name=sys.argv[2]):
        mlflow.log_param("rate", 0.1)
        for step in range(50):
            mlflow.log_metric("loss", 1 / (step + 1), step=step)
        mlflow.log_text("a text", "text.txt")
runs = mlflow.search_runs(experiment_names=["kept"], output_format="list", order_by=["start_time"])
print(json.dumps([
    [run.info.run_name, run.data.params, run.data.metrics, mlflow.artifacts.load_text(run.info.artifact_uri + "/text.txt")] for run in runs
]))
"""


def client(host, *words: str) -> list:
    """What a user with MLflow's client does and sees."""
    password = (CREDENTIALS / "mlflow.test" / "mlflow.txt").read_text().strip()
    host.run_expect([0], "printf %%s %s >/root/client.py", CLIENT)
    command = f"cd /root && printf '%%s\\n' %s | MLFLOW_TRACKING_SERVER_CERT_PATH={CA} /opt/mlflow/current/bin/python -I client.py "
    return json.loads(host.check_output(command + " ".join(words), password).splitlines()[-1])


def revision(host, database: str = "mlflow") -> str:
    return host.check_output("cd / && runuser -u postgres -- psql -XAt %s -c 'SELECT version_num FROM alembic_version'", database)


def running(host) -> str:
    """The release in which the processes of the service run."""
    pid = host.check_output("systemctl show --value --property=MainPID mlflow")
    return re.search(r"releases/([0-9.]+)-", host.check_output("tr '\\0' ' ' </proc/%s/cmdline", pid))[1]


@pytest.fixture(scope="module")
def written(host, tmp_path_factory) -> list:
    """The earlier version of this collection deploys, and a user logs a run."""
    deployed_by(EARLIER, OLD, tmp_path_factory.mktemp("earlier") / "checkout")
    assert host.check_output("stat --format=%%U %s", DATA) == "mlflow", "the earlier version"
    return client(host, "write", "first")


PLANTED = """
set -e
site=$(/usr/bin/python3 -c 'import sys; print("lib/python%d.%d/site-packages" % sys.version_info[:2])')
mkdir -p HOME/.local/$site HOME/.postgresql
echo 'import os; open("/tmp/ran-pth", "w").write(str(os.getuid()))' >HOME/.local/$site/planted.pth
echo 'open("/tmp/ran-usercustomize", "w")' | tee HOME/.local/$site/usercustomize.py HOME/.local/$site/sitecustomize.py >HOME/.pythonrc
printf '\\\\! touch /tmp/ran-psqlrc\\n' >HOME/.psqlrc
echo '*:*:*:*:planted' >HOME/.pgpass && chmod 600 HOME/.pgpass
echo 'touch /tmp/ran-profile' | tee HOME/.profile HOME/.bashrc >HOME/.bash_profile
"""


def test_nothing_that_mlflow_planted_runs_outside_its_sandbox(host, written):
    """In the home that the earlier version gave its user, by a check and by a run."""
    host.run_expect([0], "runuser -u mlflow -- sh -c %s", PLANTED.replace("HOME", DATA))
    check = deploy(OLD, "--check", "--diff")
    assert check.returncode == 0, check.stdout[-3000:]
    deployed(OLD)
    assert host.run("ls /tmp/ran-*").stdout == ""
    assert host.user("mlflow").home == "/nonexistent"


def test_the_earlier_server_is_taken_over_with_all_that_it_holds(host, written):
    assert host.check_output("stat --format='%%U %%a' %s %s/backups %s/artifacts", DATA, DATA, DATA).splitlines() == ["root 750", "root 700", "mlflow 750"]
    assert host.file("/etc/mlflow/secrets.env").mode == 0o600
    assert client(host, "read") == written
    unchanged(OLD)


def test_nothing_outside_changes_by_links_that_mlflow_planted(host):
    """In each place that MLflow may still write, links to what root owns, and code that Python would load."""
    host.run_expect([0], "mkdir -p /srv/victim/deep && touch /srv/victim/deep/file && chmod 700 /srv/victim/deep")
    before = host.check_output("find /srv/victim -printf '%p %U %G %m %s %T@\\n'")
    for place in ("artifacts", "tmp", "home"):
        host.run_expect([0], "runuser -u mlflow -- sh -c %s", PLANTED.replace("HOME", f"{DATA}/{place}"))
        host.run_expect([0], "runuser -u mlflow -- ln -s /srv/victim /srv/victim/deep /srv/victim/deep/file /etc/mlflow/mlflow.env %s/%s", DATA, place)
    host.run_expect([0], "systemctl restart mlflow")
    unchanged(OLD)
    assert host.check_output("find /srv/victim -printf '%p %U %G %m %s %T@\\n'") == before
    assert host.run("ls /tmp/ran-*").stdout == ""
    for place in ("artifacts", "home"):
        host.run_expect([0], "find %s/%s -maxdepth 1 -mindepth 1 '(' -type l -o -name '.*' ')' -exec rm -r '{}' +", DATA, place)


def test_a_link_in_place_of_a_directory_is_not_followed(host):
    host.run_expect([0], "mkdir /srv/other && mv %s/tmp %s/kept && ln -s /srv/other %s/tmp", DATA, DATA, DATA)
    run = deploy(OLD)
    assert run.returncode != 0
    assert f"{DATA}/tmp already exists as a link" in said(run)
    assert host.check_output("stat --format=%U /srv/other") == "root"
    host.run_expect([0], "rm %s/tmp && mv %s/kept %s/tmp && rmdir /srv/other", DATA, DATA, DATA)


def test_mlflow_writes_nowhere_else_for_a_user(host):
    """An experiment may name any place for its artifacts."""
    password = (CREDENTIALS / "mlflow.test" / "mlflow.txt").read_text().strip()
    curl = f"curl --silent --cacert {CA} --user mlflow:{password} "
    host.run_expect([0], "command -v curl || apt-get install --yes --no-install-recommends curl")
    body = json.dumps({"name": "elsewhere", "artifact_location": f"{DATA}/planted"})
    post = curl + "--header 'Content-Type: application/json' --data %s https://mlflow.test/api/2.0/mlflow/"
    made = json.loads(host.check_output(post + "experiments/create", body))["experiment_id"]
    run = json.loads(host.check_output(post + "runs/create", json.dumps({"experiment_id": made})))["run"]["info"]["run_id"]
    host.run(curl + f"--data text 'https://mlflow.test/ajax-api/2.0/mlflow/upload-artifact?run_uuid={run}&path=planted.txt'")
    assert not host.file(f"{DATA}/planted").exists


def test_a_disk_without_room_for_the_dump_is_refused(host):
    host.run_expect([0], "mount -t tmpfs -o size=64k tmpfs %s/backups", DATA)
    refused("free some, or set mlflow_data_dir to a larger disk", NEW)
    host.run_expect([0], "umount %s/backups", DATA)
    assert running(host) == "3.16.1"


def test_a_failed_dump_leaves_the_schema_and_nothing_half_done(host):
    """Nor does a request, or a start by hand, migrate what was not dumped."""
    before = revision(host)
    host.run_expect([0], "cd / && runuser -u postgres -- psql -X mlflow -c 'CREATE TABLE theirs (secret text)'")
    run = deploy(NEW)
    assert run.returncode != 0
    assert "The database could not be dumped, so its schema stays as it is" in said(run)
    assert "permission denied for table theirs" in host.check_output("cat /var/log/mlflow/migration-3.17.2-*.log")
    host.run("curl --silent --max-time 10 --unix-socket /run/mlflow/mlflow.sock http://localhost/health")
    host.run("systemctl start mlflow.service")
    assert revision(host) == before
    assert host.check_output("ls %s/backups", DATA) == ""
    assert "Run ansible-playbook site.yml, which dumps the database and migrates it" in host.check_output("journalctl --no-pager --unit=mlflow --lines=50")


def test_the_release_before_serves_again_by_one_run(host, written):
    deployed(OLD)
    assert client(host, "read") == written
    host.run_expect([0], "cd / && runuser -u postgres -- psql -X mlflow -c 'DROP TABLE theirs'")


def test_check_shows_the_upgrade(host):
    run = deploy(NEW, "--check", "--diff")
    assert run.returncode == 0, run.stdout[-3000:]
    assert re.search(r"\+ExecStart=/opt/mlflow/releases/3\.17\.2-", run.stdout)
    assert re.search(r"TASK \[[^\n]*Create or migrate the schema\][^\n]*\n(?:[^\n]*\n)*?changed: ", run.stdout)
    assert running(host) == "3.16.1"


def test_an_upgrade_dumps_migrates_and_loses_no_request(host, written):
    before = revision(host)
    curl = f"curl --silent --cacert {CA} --max-time 120 --output /dev/null --write-out '%{{http_code}}\\n' https://mlflow.test/health"
    loop = f"while sleep 0.2; do {curl}; done"
    host.run_expect([0], "systemd-run --quiet --unit=asking --property=StandardOutput=truncate:/run/asking.out sh -c %s", loop)
    deployed(NEW)
    host.run_expect([0], "systemctl stop asking")
    codes = host.check_output("cat /run/asking.out").split()
    assert set(codes) == {"200"}, {code: codes.count(code) for code in codes}
    assert (running(host), revision(host) != before) == ("3.17.2", True)
    assert client(host, "read") == written
    found = host.check_output("find %s/backups -type f -printf '%%f %%u %%m\\n'", DATA)
    assert re.fullmatch(r"before-3\.17\.2-py3\.\d+-\w+-\d{8}T\d{6}Z\.dump root 600", found)
    unchanged(NEW)


def test_the_unit_names_the_release_itself(host):
    """What a link leads to changes while MLflow runs."""
    unit = host.check_output("systemctl cat mlflow.service")
    assert "/current/" not in unit
    assert host.file("/opt/mlflow/current").linked_to in unit


def test_a_downgrade_is_refused_before_anything_changes(host):
    refused("which MLflow 3.16.1 does not know: a newer MLflow has used it. Set mlflow_version to that release", OLD)


def test_tables_that_the_login_role_does_not_find_are_refused(host):
    host.run_expect([0], "cd / && runuser -u postgres -- psql -X -c \"ALTER ROLE mlflow SET search_path = ''\"")
    run = deploy(NEW)
    assert run.returncode != 0
    assert "set its search path with ALTER ROLE mlflow SET search_path" in said(run)
    host.run_expect([0], "cd / && runuser -u postgres -- psql -X -c 'ALTER ROLE mlflow RESET search_path'")


def test_sockets_come_back_together(host):
    """Restarted by hand while clients ask: while MLflow runs, and again and again while it starts, which systemd 249 calls a failure."""
    loop = "while :; do for name in mlflow wsgi; do curl --silent --max-time 20 --unix-socket /run/mlflow/$name.sock http://localhost/health; done; done"
    host.run_expect([0], "systemd-run --quiet --unit=asking sh -c %s", loop)
    host.run_expect([0], "systemctl start mlflow.service && systemctl restart mlflow.socket")
    codes = [0, 1] if host.check_output("systemctl --version").startswith("systemd 249 ") else [0]
    for _count in range(5):
        time.sleep(1)
        host.run_expect(codes, "systemctl restart mlflow.socket")
    host.run_expect([0], "systemctl stop asking")
    for name in ("mlflow", "wsgi"):
        curl = f"curl --silent --retry 30 --retry-delay 2 --retry-all-errors --max-time 60 --unix-socket /run/mlflow/{name}.sock http://localhost/health"
        assert host.check_output(curl) == "OK"


def test_sockets_move_with_their_variables(host, written):
    moved = {**NEW, "mlflow_socket": "/run/mlflow-moved/all.sock", "mlflow_wsgi_socket": "/run/mlflow-moved/flask.sock"}
    deployed(moved)
    assert client(host, "read") == written
    unchanged(moved)
    deployed(NEW)
    unchanged(NEW)


def test_the_way_back_by_the_dump_works_as_documented(host, written):
    later = client(host, "write", "second")
    assert len(later) == 2
    dump = host.check_output("ls %s/backups/*.dump", DATA)
    for line in documented("Roll back to the previous release"):
        if not line.startswith("ansible-playbook"):
            host.run_expect([0], "bash -c %s", line.replace("DUMP", dump))
    deployed(OLD)
    assert running(host) == "3.16.1"
    assert client(host, "read") == written
    unchanged(OLD)


def test_a_database_server_that_is_newer_than_pg_dump_is_refused(host):
    """A managed PostgreSQL, where this host has the programs of an older release."""
    newer = testinfra.get_host(f"podman://{os.environ['MLFLOW_TEST_DATABASE']}")
    newer.run_expect([0], "DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends postgresql")
    password = "correct horse battery"
    newer.run_expect([0], "cd / && runuser -u postgres -- psql -X -c \"CREATE ROLE mlflow LOGIN PASSWORD '%s'\"" % password)
    newer.run_expect([0], "cd / && runuser -u postgres -- createdb --owner=mlflow mlflow")
    newer.run_expect([0], "echo 'hostssl mlflow mlflow all scram-sha-256' >>/etc/postgresql/17/main/pg_hba.conf")
    newer.run_expect([0], "echo \"listen_addresses = '*'\" >/etc/postgresql/17/main/conf.d/listen.conf && systemctl restart postgresql")
    elsewhere = {"mlflow_database_host": "database.test", "mlflow_database_password": password}
    deployed({**OLD, **elsewhere})
    refused("the database server is PostgreSQL 17: install postgresql-client-17 on this host", {**NEW, **elsewhere})
    assert recap(deploy({**OLD, **elsewhere}))["changed"] == 0
