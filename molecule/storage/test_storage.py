# SPDX-License-Identifier: GPL-3.0-or-later
"""Where artifacts lie, from a bare host on, in this order: each test begins with what the one before it left.

All of them take the host, as pytest would run the others after those that do.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import time
from pathlib import Path
from typing import ClassVar

import pytest
from deployment import deploy, deployed, refused, said, unchanged

CONTROLLER = Path(os.environ["MLFLOW_TEST_INVENTORY"]).parent  # /srv/controller on the host
SERVER = os.environ["MLFLOW_TEST_SERVER"]
PYTHON = "/opt/mlflow/current/bin/python"
VOLUME = "/srv/volume"
# At a boot without the disk it stays inactive, like one with nofail.
UNIT = f"""\
[Unit]
ConditionPathExists=/srv/disk
[Mount]
What=/srv/disk/volume
Where={VOLUME}
Type=none
Options=bind
[Install]
WantedBy=multi-user.target
"""
STORE = {
    "mlflow_artifacts_destination": "s3://mlflow/artifacts",
    "mlflow_systemd_environment": {
        "MLFLOW_S3_ENDPOINT_URL": "http://127.0.0.1:8333",
        "AWS_ACCESS_KEY_ID": "mlflow",
        "AWS_SECRET_ACCESS_KEY": "store-secret",
    },
}
CLIENT = """
import sys
import mlflow
from mlflow.artifacts import download_artifacts

action, *words = sys.argv[1:]
if action == "upload":
    mlflow.set_experiment("storage")
    with mlflow.start_run() as run:
        for path in words:
            mlflow.log_artifact(path)
    print(run.info.run_id)
else:
    run, name = words
    print(download_artifacts(run_id=run, artifact_path=name))
"""


def client(host, *words: str) -> str:
    """What MLflow's own client says, with the name, the password and the CA that a user has."""
    environment = {
        "MLFLOW_TRACKING_URI": "https://mlflow.test",
        "MLFLOW_TRACKING_SERVER_CERT_PATH": "/etc/nginx/mlflow/tls/current/ca.pem",
        "MLFLOW_TRACKING_USERNAME": "alice",
        "MLFLOW_TRACKING_PASSWORD": "correct-horse",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "GIT_PYTHON_REFRESH": "quiet",
    }
    command = [*(f"{name}={value}" for name, value in environment.items()), PYTHON, "-c", CLIENT, *words]
    return host.check_output("env -C /tmp " + " ".join(["%s"] * len(command)) + " 2>/dev/null", *command).splitlines()[-1]


def asking(path: str) -> list[str]:
    """A command that asks MLflow behind its proxy, and waits for the answer as long as a client does."""
    program = """
import ssl, sys, urllib.request
context = ssl.create_default_context(cafile="/etc/nginx/mlflow/tls/current/ca.pem")
request = urllib.request.Request("https://mlflow.test" + sys.argv[1], headers={"Authorization": "Basic YWxpY2U6Y29ycmVjdC1ob3JzZQ=="})
print(urllib.request.urlopen(request, context=context, timeout=120).read().decode())
"""
    return ["python3", "-c", program, path]


def write(host, path: str, content: str, mode: str = "0644") -> None:
    host.check_output("mkdir --parents $(dirname %s) && printf %%s %s >%s && chmod %s %s", path, content, path, mode, path)


def wait_for(what, seconds: float = 60):
    deadline = time.monotonic() + seconds
    while not (answer := what()) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert answer
    return answer


def sha256(host, path: str) -> str:
    return host.check_output("sha256sum %s", path).split()[0]


def rows(host) -> dict[str, str]:
    """How many rows each table of MLflow's database has."""
    query = """
        SELECT json_object_agg(table_name, (xpath('/row/c/text()', query_to_xml(format('SELECT count(*) AS c FROM %I', table_name), false, true, '')))[1]::text)
        FROM information_schema.tables WHERE table_schema = 'public'
    """
    return json.loads(host.check_output("su postgres -s /bin/sh -c %s", f'psql --tuples-only --no-align --dbname=mlflow --command="{query}"'))


class TestBareHost:
    def test_stores_without_their_driver_are_refused(self, host) -> None:
        refused(
            "mlflow_artifacts_destination is gs://bucket, for which MLflow needs google-cloud-storage: add it to mlflow_venv_extra",
            {"mlflow_artifacts_destination": "gs://bucket"},
        )

    def test_nothing_is_written_where_a_volume_is_away(self, host) -> None:
        """Known from fstab, as cloud providers advise, or from a unit. Its disk comes late, as a network disk does."""
        host.check_output("mkdir --parents /srv/late/volume %s", VOLUME)
        write(host, "/etc/fstab", f"/dev/disk/by-id/volume {VOLUME} ext4 nofail 0 2\n")
        refused(f"This host has volumes that are not mounted: {VOLUME}; mount them first", {"mlflow_data_dir": f"{VOLUME}/mlflow"})
        write(host, "/etc/fstab", "")
        write(host, "/etc/systemd/system/srv-volume.mount", UNIT)
        host.check_output("systemctl daemon-reload && systemctl enable srv-volume.mount")
        for variable, path in {"mlflow_artifacts_dir": VOLUME, "mlflow_home": f"{VOLUME}/mlflow"}.items():
            refused(f"This host has volumes that are not mounted: {VOLUME}; mount them first", {variable: path})
        assert not host.check_output("find %s -mindepth 1", VOLUME)

    @pytest.mark.skipif(os.geteuid() != 0, reason="the controller's root is needed: its files are nobody's on the host")
    def test_directories_that_root_may_not_change_are_refused(self, host) -> None:
        (CONTROLLER / "closed").mkdir(exist_ok=True)
        for variable, path in {"mlflow_artifacts_dir": "/srv/controller/closed", "mlflow_data_dir": "/srv/controller/closed/mlflow"}.items():
            refused(f"{path}: mlflow may not write there and root may not change that", {variable: path})


class TestVolume:
    def test_deployment(self, host) -> None:
        host.check_output("mv /srv/late /srv/disk && systemctl start srv-volume.mount")
        deployed({"mlflow_artifacts_dir": VOLUME})

    def test_mlflow_waits_for_its_volume_after_a_boot(self, host) -> None:
        """Requests wait with it, and find what was there before."""
        host.check_output("mkdir /srv/files && date >/srv/files/note.txt")
        run = client(host, "upload", "/srv/files/note.txt")
        host.check_output("sync && mv /srv/disk /srv/late")
        subprocess.run(["podman", "restart", "--time=60", SERVER], check=True, capture_output=True)
        wait_for(lambda: host.run("systemctl is-system-running --wait").stdout.strip() in ("running", "degraded"))
        log = "journalctl --boot --unit=mlflow --no-pager"
        wait_for(lambda: f"MLflow waits until they are mounted: {VOLUME}" in host.check_output(log))
        wait_for(lambda: f"not mounted: {VOLUME}" in host.check_output(log), 90)  # longer than one start waits
        assert host.service("mlflow.socket").is_running
        begun = time.monotonic()
        download = subprocess.Popen(["podman", "exec", SERVER, *asking(f"/get-artifact?run_uuid={run}&path=note.txt")], stdout=subprocess.PIPE, text=True)
        time.sleep(3)
        assert download.poll() is None
        assert not host.check_output("find %s -mindepth 1", VOLUME)
        host.check_output("mv /srv/late /srv/disk && systemctl start srv-volume.mount")
        assert download.communicate()[0].strip() == host.check_output("cat /srv/files/note.txt")
        assert time.monotonic() - begun < 100
        assert sha256(host, client(host, "download", client(host, "upload", "/srv/files/note.txt"), "note.txt")) == sha256(host, "/srv/files/note.txt")

    def test_ten_checks_leave_the_rows_of_one(self, host) -> None:
        deployed(playbook="playbooks/verify.yml")
        before = rows(host)
        deployed(playbook="playbooks/verify.yml")
        assert rows(host) == before

    def test_another_directory_is_refused_until_artifacts_were_moved(self, host) -> None:
        refused(
            f"MLflow's artifacts are in {VOLUME}, and mlflow_artifacts_dir or mlflow_artifacts_destination now says /var/lib/mlflow/artifacts, where clients"
            f" would find none of them: move them, then set mlflow_artifacts_moved_from to {VOLUME}."
        )
        refused(f"MLflow's artifacts are in {VOLUME}", STORE)

    def test_release_that_cannot_reach_the_store_is_refused(self, host) -> None:
        """Where the role that installs it was not told; nothing is activated."""
        run = deploy({"mlflow_systemd_artifacts_destination": "s3://mlflow/artifacts", "mlflow_artifacts_moved_from": VOLUME})
        assert run.returncode != 0
        assert "has no boto3: set mlflow_artifacts_destination or mlflow_venv_artifacts_destination" in said(run), run.stdout[-4000:]
        assert host.file("/etc/mlflow/mlflow.env").contains(f'DESTINATION="{VOLUME}"')

    @pytest.mark.skipif(os.geteuid() != 0, reason="the controller's root is needed: its files are nobody's on the host")
    def test_directory_of_a_file_server_is_left_as_it_serves(self, host) -> None:
        """Root may not change its owner, but MLflow can write there, and nginx can read. It is mounted on demand."""
        served = CONTROLLER / "served"
        served.mkdir(exist_ok=True)
        served.chmod(0o777)
        write(host, "/etc/systemd/system/srv-controller.mount", "[Mount]\nWhat=server:/export\nWhere=/srv/controller\nType=nfs\n")
        write(host, "/etc/systemd/system/srv-controller.automount", "[Automount]\nWhere=/srv/controller\n[Install]\nWantedBy=multi-user.target\n")
        host.check_output("systemctl daemon-reload && systemctl enable srv-controller.automount")
        variables = {"mlflow_artifacts_dir": "/srv/controller/served", "mlflow_artifacts_moved_from": VOLUME}
        deployed(variables)
        unchanged(variables)
        order = host.check_output("systemctl show --property=After --value mlflow.service").split()
        assert "srv-controller.automount" in order
        assert "srv-controller.mount" not in order, "it would not be mounted while MLflow ends, which looks there"
        assert served.stat().st_mode & 0o7777 == 0o777 and served.stat().st_uid == 0
        run = client(host, "upload", "/srv/files/note.txt")
        assert sha256(host, client(host, "download", run, "note.txt")) == sha256(host, "/srv/files/note.txt")


class TestStore:
    MOVED: ClassVar = {**STORE, "mlflow_artifacts_moved_from": "/srv/controller/served"}

    def test_deployment_brings_what_s3_needs(self, host) -> None:
        deployed(self.MOVED)
        unchanged(STORE)
        locked = (Path(__file__).parents[2] / "roles/mlflow_venv/files/s3.txt").read_text()
        version = host.check_output(f"{PYTHON} -c 'import boto3; print(boto3.__version__)'")
        assert f"boto3=={version} " in locked

    def test_compressed_files_come_back_as_they_were(self, host) -> None:
        """By a stock client, which asks the server whether to fetch from the store."""
        packed = gzip.compress(b"a,b\n1,2\n" * 1000)
        (CONTROLLER / "data.csv.gz").write_bytes(packed)
        host.check_output("cp /srv/controller/data.csv.gz /srv/files/data.csv.gz && cp /srv/files/data.csv.gz /srv/files/data.tgz")
        run = client(host, "upload", "/srv/files/data.csv.gz", "/srv/files/data.tgz")
        for name in "data.csv.gz", "data.tgz":
            assert sha256(host, client(host, "download", run, name)) == hashlib.sha256(packed).hexdigest()
        TestStore.run = run

    def test_clients_are_sent_to_the_store_by_a_variable_only(self, host) -> None:
        info = asking("/api/3.0/mlflow/server-info")
        answer = json.loads(host.check_output(" ".join(["%s"] * len(info)), *info))
        assert (answer["multipart_downloads_enabled"], answer["multipart_uploads_enabled"]) == (False, False)
        deployed({**STORE, "mlflow_direct_transfers": True})
        answer = json.loads(host.check_output(" ".join(["%s"] * len(info)), *info))
        assert (answer["multipart_downloads_enabled"], answer["multipart_uploads_enabled"]) == (True, True)
        packed = hashlib.sha256((CONTROLLER / "data.csv.gz").read_bytes()).hexdigest()
        assert sha256(host, client(host, "download", self.run, "data.csv.gz")) == packed
