# SPDX-License-Identifier: GPL-3.0-or-later
"""A deployment that is backed up, loses its data and comes back, in this order; what would spoil a backup is told."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import testinfra
from deployment import deploy, deployed, refused, said, unchanged

SERVER = os.environ["MLFLOW_TEST_SERVER"]
FRESH, STORE = (SERVER.replace("-server", end) for end in ("-fresh", "-store"))
DRILL = (Path(__file__).parent / "programs" / "drill.py").read_text()
CREDENTIALS = Path(os.environ["MLFLOW_TEST_INVENTORY"]) / "credentials"
ARTIFACTS = "/var/lib/mlflow/artifacts"
PROGRAM = "python3 -I /usr/local/libexec/mlflow_backup.py"
LOCAL = {"mlflow_backup_repository": "/srv/backup", "mlflow_backup_hook": 'echo "$MLFLOW_BACKUP_ERROR" >>/root/told'}
REMOTE = {"mlflow_backup_repository": "sftp:keeper@store.test:/srv/mlflow"}
ON_FRESH = {"mlflow_database_hosts": "fresh", "mlflow_tracking_hosts": "fresh", "mlflow_proxy_hosts": "fresh"}
BACKUP, RESTORE = "playbooks/backup.yml", "playbooks/restore.yml"


def client(host, word: str) -> dict:
    environment = (
        "MLFLOW_TRACKING_URI=https://mlflow.test MLFLOW_TRACKING_SERVER_CERT_PATH=/etc/nginx/mlflow/tls/current/ca.pem MLFLOW_TRACKING_USERNAME=alice"
        " MLFLOW_TRACKING_PASSWORD='correct horse battery' MLFLOW_DISABLE_TELEMETRY=true GIT_PYTHON_REFRESH=quiet MLFLOW_HTTP_REQUEST_MAX_RETRIES=1"
    )
    output = host.check_output(f"env -C /tmp {environment} /opt/mlflow/current/bin/python -c %s {word}", DRILL)
    return json.loads(output.splitlines()[-1]) if word == "read" else {}


def sql(host, question: str, database: str = "mlflow") -> list[str]:
    return host.check_output("cd / && runuser -u postgres -- psql -XAtqd %s -c %s", database, question).splitlines()


def content(host) -> dict[str, list[str]]:
    """Every row of each table, without those of the end-to-end check, which each run writes anew."""
    checks = "|".join(
        ["mlflow-health", *sql(host, "SELECT run_uuid FROM runs JOIN experiments USING (experiment_id) WHERE experiments.name = 'mlflow-health'")]
    )
    tables = sql(host, "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
    return {table: [row for row in sql(host, f'SELECT t::text FROM "{table}" t ORDER BY 1') if not re.search(checks, row)] for table in tables}


def artifacts(host) -> list[str]:
    """Names, owners, modes and sums of all artifacts."""
    listed = host.check_output(f"cd {ARTIFACTS} && find . -mindepth 1 -printf '%%p %%u %%g %%m %%y %%s\\n' | grep -v ' d [0-9]*$' | sort")
    owners = host.check_output(f"find {ARTIFACTS} -printf '%%u %%g %%m %%y\\n' | sort | uniq -c | awk '{{print $2, $3, $4, $5}}'")
    sums = host.check_output(f"cd {ARTIFACTS} && find . -type f -print0 | sort -z | xargs -0 sha256sum")
    return [*listed.splitlines(), *owners.splitlines(), *sums.splitlines()]


def state(host) -> dict:
    return json.loads(host.check_output(f"{PROGRAM} state"))


def failed(host, sentence: str) -> None:
    """A backup that fails with this sentence, visibly."""
    assert host.run("systemctl start mlflow-backup.service").rc != 0
    assert sentence in state(host)["failure"]["error"]
    assert "mlflow-backup.service" in host.check_output("systemctl list-units --failed --no-legend --plain")


def restored(sentence: str, variables: dict) -> str:
    """A restore that stops with the sentence."""
    run = deploy(variables, playbook=RESTORE)
    assert run.returncode != 0, run.stdout[-3000:]
    assert sentence in said(run), run.stdout[-3000:]
    return said(run)


@pytest.fixture(scope="module")
def written(host) -> dict:
    """What a team kept in MLflow, by its own client."""
    check = deploy(LOCAL, "--check", "--diff")
    assert check.returncode == 0, check.stdout[-3000:]
    first = deployed(LOCAL)
    assert "keep it in a third place that outlives the loss of both" in first
    assert "No backup yet" in first
    client(host, "write")
    # Large enough to be cut off in.
    host.run_expect([0], "head -c 100M /dev/urandom >/root/large && install -o mlflow -g mlflow -m 640 /root/large %s/large", ARTIFACTS)
    return client(host, "read")


@pytest.fixture(scope="module")
def kept(host, written) -> dict[str, list[str]]:
    return content(host)


@pytest.fixture(scope="module")
def files(host, written) -> list[str]:
    return artifacts(host)


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"mlflow_backup_repository": "backup"}, 'mlflow_backup_repository is "backup": set it to an absolute path, or to a repository of restic'),
        ({"mlflow_backup_repository": f"{ARTIFACTS}/backup"}, f"{ARTIFACTS} is saved into it: choose a directory apart from it"),
        ({"mlflow_backup_schedule": "sometimes"}, 'mlflow_backup_schedule is "sometimes", which systemd cannot read'),
        ({"mlflow_backup_check_runs": 0}, "mlflow_backup_check_runs is 0: set it to a whole number from 1 to 100"),
        ({"mlflow_backup_environment": {"RESTIC_PASSWORD": "x"}}, 'mlflow_backup_environment has "RESTIC_PASSWORD"'),
        ({"mlflow_backup_password": "another password"}, "mlflow_backup_password is another password than the server's"),
    ],
)
def test_bad_input_is_refused(written, variables, sentence):
    refused(sentence, LOCAL | variables)


def test_the_second_run_changes_nothing(written):
    unchanged(LOCAL)


def test_a_backup_says_what_it_saved(host, written, kept, files):
    output = deployed(LOCAL, playbook=BACKUP)
    assert re.search(r"Saved as snapshot [0-9a-f]{8} in [0-9.]+ s: [0-9]+ files, [0-9.]+ [KM]B", output)
    assert host.run("ls -A /var/lib/mlflow-backup/snapshot").rc != 0, "the dump stays nowhere else"
    assert host.check_output("systemctl is-enabled mlflow-backup.timer") == "enabled"


def test_secrets_are_roots_alone(host, written):
    password = host.file("/etc/mlflow-backup/password").content_string.strip()
    assert password == (CREDENTIALS / "mlflow.test.backup.txt").read_text().strip()
    assert host.check_output("stat --format=%%a /etc/mlflow-backup /etc/mlflow-backup/password /etc/mlflow-backup/settings.json").split() == [
        "700",
        "600",
        "600",
    ]
    assert (CREDENTIALS / "mlflow.test.backup.txt").stat().st_mode & 0o777 == 0o600
    assert host.run("grep -rl %s /etc/systemd /var/log/journal /usr/local", password).stdout == ""


def test_a_backup_that_was_killed_does_not_block_the_next(host, written):
    host.run_expect([0], "head -c 200M /dev/urandom >/root/larger && install -o mlflow -g mlflow /root/larger %s/larger", ARTIFACTS)
    host.run_expect([0], "systemctl start --no-block mlflow-backup.service")
    host.run_expect([0], "timeout 60 sh -c 'until ls /srv/backup/locks | grep -q . && pgrep -x restic; do sleep 0.1; done'")
    host.run_expect([0], "systemctl kill --signal=KILL --kill-who=all mlflow-backup.service")
    host.run_expect([0], "timeout 60 sh -c 'until systemctl is-failed mlflow-backup.service; do sleep 0.5; done'")
    assert "The backup was ended (signal)" in state(host)["failure"]["error"]
    assert "The backup was ended (signal)" in host.file("/root/told").content_string, "the hook"
    host.run_expect([0], "rm /root/larger %s/larger", ARTIFACTS)
    host.run_expect([0], "systemctl start mlflow-backup.service")
    assert state(host)["failure"] is None


def test_what_is_missing_is_told(host, written):
    host.run_expect([0], "mv %s %s.away", ARTIFACTS, ARTIFACTS)
    before = len(host.check_output(f"{PROGRAM} restic snapshots --json"))
    failed(host, f"{ARTIFACTS} is not there, and belongs into the backup: nothing was saved")
    host.run_expect([0], "install -d -o mlflow -g mlflow %s", ARTIFACTS)
    failed(host, f"{ARTIFACTS} is empty, and held artifacts at the last backup")
    host.run_expect([0], "mount -t tmpfs tmpfs %s", ARTIFACTS)
    failed(host, f"{ARTIFACTS} is on the file system of {ARTIFACTS}, and was on that of / when this host was deployed")
    host.run_expect([0], "umount %s && rmdir %s && mv %s.away %s", ARTIFACTS, ARTIFACTS, ARTIFACTS, ARTIFACTS)
    assert len(host.check_output(f"{PROGRAM} restic snapshots --json")) == before
    assert f"THE LAST BACKUP FAILED: {ARTIFACTS} is on the file system" in deployed(LOCAL)
    run = deploy(LOCAL, playbook=BACKUP)
    assert run.returncode == 0, run.stdout[-2000:]
    assert "mlflow-backup" not in host.check_output("systemctl list-units --failed --no-legend --plain")


def test_a_restore_asks_before_it_overwrites(host, written, kept):
    restored("set mlflow_restore_replace to true to replace it. Nothing was changed.", LOCAL)
    restored(
        "mlflow_restore_snapshot is 0badc0de, which is no snapshot of /srv/backup",
        LOCAL | {"mlflow_restore_snapshot": "0badc0de", "mlflow_restore_replace": True},
    )
    assert content(host) == kept


def cut_off_restore(host, signal: str) -> None:
    """In the middle of the artifacts."""
    host.run_expect([0], f"systemd-run --collect --unit=mlflow-restore --property=TimeoutStopSec=900 {PROGRAM} restore --replace")
    host.run_expect([0], f"timeout 120 sh -c 'until test -d {ARTIFACTS}/.mlflow-restore/new; do sleep 0.05; done'")
    host.run_expect([0], f"systemctl kill --signal={signal} --kill-who=all mlflow-restore.service")
    host.run_expect(
        [0], "timeout 300 sh -c 'while systemctl is-active mlflow-restore || systemctl status mlflow-restore | grep deactivating; do sleep 0.5; done'"
    )


def test_a_restore_that_fails_leaves_what_was_there(host, written, kept, files):
    cut_off_restore(host, "TERM")
    assert "What was there before is as it was" in host.check_output("journalctl --no-pager --unit=mlflow-restore --lines=20")
    assert client(host, "read") == written
    assert content(host) == kept
    assert artifacts(host) == files
    assert sql(host, "SELECT datname FROM pg_database WHERE datname LIKE 'mlflow%' ORDER BY 1") == ["mlflow"]


def test_a_restore_that_was_killed_is_told_and_done_again(host, written, kept, files):
    cut_off_restore(host, "KILL")
    assert state(host)["cut_off"]
    deployed(LOCAL | {"mlflow_restore_replace": True}, playbook=RESTORE)
    assert content(host) == kept
    assert artifacts(host) == files
    assert not state(host)["cut_off"]


def test_what_was_destroyed_comes_back(host, written, kept, files):
    host.run_expect(
        [0], "systemctl stop mlflow.service mlflow.socket && cd / && runuser -u postgres -- dropdb mlflow && rm -rf %s/* /etc/mlflow/secrets.env", ARTIFACTS
    )
    output = deployed(LOCAL, playbook=RESTORE)
    assert re.search(r"Restored snapshot [0-9a-f]{8} of \S+ in [0-9.]+ s: [0-9]+ rows in [0-9]+ tables, [0-9]+ artifacts .*, secrets of MLflow", output)
    assert content(host) == kept
    assert artifacts(host) == files
    assert client(host, "read") == written
    unchanged(LOCAL)


def test_what_mlflow_planted_is_no_leftover_of_a_restore(host, written, kept, files):
    planted = f"{ARTIFACTS}/.mlflow-restore"
    host.run_expect([0], "mkdir -p /srv/theirs/old && touch /srv/theirs/old/file && runuser -u mlflow -- ln -s /srv/theirs %s", planted)
    restored(f"{planted} is not from a restore: look at it, and remove it.", LOCAL | {"mlflow_restore_replace": True})
    assert host.file("/srv/theirs/old/file").exists
    host.run_expect([0], "rm %s", planted)
    assert content(host) == kept
    assert artifacts(host) == files


def test_what_was_added_later_goes(host, written, kept, files):
    client(host, "write")
    assert content(host) != kept
    host.run_expect([0], "install -o mlflow -g mlflow /dev/null %s/later.txt", ARTIFACTS)
    deployed(LOCAL | {"mlflow_restore_replace": True}, playbook=RESTORE)
    assert content(host) == kept
    assert artifacts(host) == files


def test_a_flipped_byte_is_found(host, written):
    deployed(LOCAL | {"mlflow_backup_check_runs": 1})
    pack = host.check_output("find /srv/backup/data -type f -size +20k | sort | head -n 1")
    flip = "import sys; file = open(sys.argv[1], 'r+b'); file.seek(9999); byte = file.read(1)[0]; file.seek(9999); file.write(bytes([byte ^ 1]))"
    host.run_expect([0], "cp --preserve %s /root/pack && python3 -c %s %s", pack, flip, pack)
    failed(host, "restic could not verify the repository, whose data may be damaged")
    host.run_expect([0], "cp --preserve /root/pack %s && systemctl start mlflow-backup.service", pack)


@pytest.fixture(scope="module")
def store(host) -> None:
    """Somebody's SSH server, and keys for it as a person hands them out."""
    server = testinfra.get_host(f"podman://{STORE}")
    server.run_expect([0], "useradd --create-home --shell /bin/sh keeper && install -d -o keeper /srv/mlflow && install -d -m 700 -o keeper /home/keeper/.ssh")
    server.run_expect([0], "systemctl enable --now ssh")
    for machine in host, testinfra.get_host(f"podman://{FRESH}"):
        machine.run_expect([0], "test -e /root/.ssh/id_ed25519 || ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519")
        machine.run_expect([0], "ssh-keyscan -t ed25519 store.test >>/root/.ssh/known_hosts")
        server.run_expect([0], "printf '%%s\\n' %s >>/home/keeper/.ssh/authorized_keys", machine.check_output("cat /root/.ssh/id_ed25519.pub"))
    server.run_expect([0], "chown -R keeper /home/keeper/.ssh")


def test_a_fresh_host_takes_over(host, written, kept, files, store):
    """Of another distribution, with the inventory and credentials/ of the lost one."""
    deployed(REMOTE)
    deployed(REMOTE, playbook=BACKUP)
    authority = (CREDENTIALS / "mlflow.test.ca.txt").read_text()
    host.run_expect([0], "systemctl disable --now mlflow-backup.timer mlflow.socket mlflow.service nginx")

    fresh = testinfra.get_host(f"podman://{FRESH}")
    deployed(REMOTE | ON_FRESH | {"mlflow_replace_credentials": True})
    deployed(REMOTE | ON_FRESH, playbook=RESTORE)
    assert content(fresh) == kept
    assert artifacts(fresh) == files
    assert (CREDENTIALS / "mlflow.test.ca.txt").read_text() == authority, "clients trust it as before"
    fresh.run_expect([0], "grep -v mlflow.test /etc/hosts >/root/hosts; echo '127.0.0.1 mlflow.test' >>/root/hosts; cat /root/hosts >/etc/hosts")
    assert client(fresh, "read") == written
    deployed(REMOTE | ON_FRESH)  # a certificate for its address
    assert (CREDENTIALS / "mlflow.test.ca.txt").read_text() == authority
    unchanged(REMOTE | ON_FRESH)
    deployed(REMOTE | ON_FRESH, playbook=BACKUP)


def test_without_a_repository_the_backups_go_on_until_they_are_ended(host):
    fresh = testinfra.get_host(f"podman://{FRESH}")
    unchanged(ON_FRESH)
    assert fresh.check_output("systemctl is-active mlflow-backup.timer") == "active"
    deployed(ON_FRESH, "--tags=mlflow_backup", playbook="playbooks/remove.yml")
    assert fresh.check_output("systemctl list-units --all --plain --no-legend 'mlflow-backup*'") == ""
    assert not fresh.file("/usr/local/libexec/mlflow_backup.py").exists
    assert fresh.file("/etc/mlflow-backup/password").exists, "the repository is of no use without it"
    assert fresh.service("mlflow").is_running
    unchanged(ON_FRESH)
