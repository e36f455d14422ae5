# SPDX-License-Identifier: GPL-3.0-or-later
"""What people have on a server, and on the machine that deploys it, is never replaced without a word; in this order, on one host."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from deployment import ROOT, deployed, refused, unchanged

INVENTORY = Path(os.environ["MLFLOW_TEST_INVENTORY"])
CREDENTIALS = INVENTORY / "credentials"
TAKE_OVER = {"mlflow_take_over": True}
REPLACE = {"mlflow_replace_credentials": True}
TIME = r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ"

# As tutorials name them.
UNIT = """[Unit]
Description=MLflow
[Service]
ExecStart=/opt/mlflow/venv/bin/mlflow server --host 0.0.0.0 --port 5000
[Install]
WantedBy=multi-user.target
"""
SITE = "server { listen 80; server_name mlflow.test; location / { proxy_pass http://127.0.0.1:5000; } }\n"
SERVER = {
    "/opt/mlflow/requirements.txt": "mlflow==2.9.2\n",
    "/opt/mlflow/venv/bin/mlflow": "#!/bin/sh\nexec sleep infinity\n",
    "/etc/mlflow/mlflow.env": "BACKEND=sqlite:////var/lib/mlflow/mlflow.db\n",
    "/var/lib/mlflow/mlflow.db": "runs\n",
    "/var/lib/mlflow/tmp/notes.txt": "notes\n",
    "/etc/systemd/system/mlflow.service": UNIT,
}
PROXY = {
    "/etc/nginx/sites-available/mlflow.conf": SITE,
    "/etc/nginx/mlflow.htpasswd": "alice:$apr1$x$y\n",
}
ENABLED = "/etc/nginx/sites-enabled/mlflow.conf"
OTHER = "/etc/nginx/sites-available/mlflow"
OTHER_ENABLED = "/etc/nginx/sites-enabled/mlflow"
# As packages from nginx.org are made: one in place of all of the distribution's, without its modules.
FOREIGN = """
set -e
mkdir -p /root/nginx/DEBIAN /root/nginx/usr/sbin
cp /usr/sbin/nginx /root/nginx/usr/sbin/
printf 'Package: nginx\\nVersion: 99.0-1\\nArchitecture: all\\nMaintainer: somebody\\nDescription: web server\\n' >/root/nginx/DEBIAN/control
printf 'Provides: httpd\\nConflicts: nginx-common, nginx-core\\nReplaces: nginx-common, nginx-core\\n' >>/root/nginx/DEBIAN/control
dpkg-deb --build /root/nginx >/dev/null
export DEBIAN_FRONTEND=noninteractive
apt-get purge --yes 'nginx*' 'libnginx*'
apt-get install --yes /root/nginx.deb
mkdir -p /etc/nginx && echo 'events {} http { server { listen 80; } }' >/etc/nginx/nginx.conf
"""


def leave(host, files: dict[str, str]) -> None:
    for path, content in files.items():
        host.run_expect([0], "mkdir -p %s", os.path.dirname(path))
        host.run_expect([0], "printf %%s %s >%s", content, path)


def remove(host, files: dict[str, str]) -> None:
    for path, content in files.items():
        assert host.file(path).content_string == content, path
        host.run_expect([0], "rm %s", path)


def install(host, package: str) -> None:
    host.run_expect([0], "DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends %s", package)


def postgres(host, command: str) -> str:
    return host.check_output(f"runuser -u postgres -- {command}")


def test_a_user_who_logs_in_keeps_shell_and_home(host):
    host.run_expect([0], "useradd --create-home --shell /bin/bash --groups sudo mlflow")
    before = host.check_output("getent passwd mlflow; id mlflow")
    for variables in {}, TAKE_OVER:
        refused("The user mlflow has the login shell /bin/bash, and would lose shell and home as MLflow's system user: set mlflow_os_user to", variables)
    host.run_expect([0], "usermod --shell /usr/sbin/nologin mlflow")
    refused("The user mlflow is in the group sudo")
    host.run_expect([0], "usermod --shell /bin/bash mlflow")
    assert host.check_output("getent passwd mlflow; id mlflow") == before
    host.run_expect([0], "userdel --remove mlflow")


def test_a_group_with_members_is_named(host):
    host.run_expect([0], "groupadd mlflow && useradd --groups mlflow alice")
    refused("alice would read MLflow's data and need no password, as members of the group mlflow: set mlflow_os_group to another name")
    host.run_expect([0], "userdel alice && groupdel mlflow")


def test_a_site_and_a_password_file_are_named(host):
    leave(host, PROXY)
    host.run_expect([0], f"mkdir -p {os.path.dirname(ENABLED)} && ln -s ../sites-available/mlflow.conf {ENABLED}")
    refused(
        f"/etc/nginx/mlflow.htpasswd, /etc/nginx/sites-available/mlflow.conf and {ENABLED} were not made by this deployment: move them away; "
        "or set mlflow_take_over to true, and what is replaced is kept beside, with the time in its name."
    )
    host.run_expect([0], f"rm {ENABLED}")
    remove(host, PROXY)
    host.run_expect([0], "rm -r /etc/nginx")


def test_an_nginx_with_fewer_modules_is_refused(host):
    install(host, "nginx-light")
    if "--without-http_limit_req_module" not in host.run("nginx -V").stderr:
        pytest.skip("nginx-light of this distribution has all modules")
    refused(
        "nginx is built without http_geo_module and http_limit_conn_module and http_limit_req_module, which the site needs: "
        "install the package nginx-core in its place"
    )


def test_an_nginx_that_cannot_take_the_modules_is_refused(host):
    """One that is not the distribution's."""
    install(host, "nginx-core")
    host.run_expect([0], "sh -c %s", FOREIGN)
    refused("apt cannot install libnginx-mod-http-perl beside the nginx 1.")
    host.run_expect([0], "apt-get purge --yes nginx && rm -rf /etc/nginx /root/nginx*")
    install(host, "nginx")


def test_another_site_for_the_name_is_named(host):
    """By whatever file nginx has it; one that has others' names too is never moved."""
    leave(host, {OTHER: SITE})
    host.run_expect([0], f"ln -s {OTHER} {OTHER_ENABLED}")
    refused(f"{OTHER_ENABLED} was not made by this deployment: move it away; or set mlflow_take_over to true")
    host.run_expect([0], f"rm {OTHER_ENABLED}")
    shared = {"/etc/nginx/conf.d/sites.conf": SITE + SITE.replace("mlflow.test", "shop.test")}
    leave(host, shared)
    refused("nginx has another site for mlflow.test on port 80, in /etc/nginx/conf.d/sites.conf, and would answer by that one: move it", TAKE_OVER)
    remove(host, shared | {OTHER: SITE})


def test_a_server_that_was_set_up_by_hand_is_named(host):
    leave(host, SERVER)
    refused("/opt/mlflow (requirements.txt, venv) was not made by this deployment: move it away, or set mlflow_home to other places; or set mlflow_take_over")
    refused(
        "/etc/mlflow (mlflow.env), /var/lib/mlflow (mlflow.db, tmp) and /etc/systemd/system/mlflow.service were not made by this deployment: "
        "move them away, or set mlflow_data_dir to other places; or set mlflow_take_over to true",
        {"mlflow_home": "/srv/mlflow"},
    )
    remove(host, SERVER)
    host.run_expect([0], "rm -r /opt/mlflow /etc/mlflow /var/lib/mlflow")


def test_a_database_of_another_program_is_named(host):
    install(host, "postgresql")
    postgres(host, "createuser --createdb mlflow")
    refused("The login role mlflow of PostgreSQL may create databases or roles, or everything, and would lose that: set mlflow_database_user to a name that is")
    postgres(host, "psql -qc 'ALTER ROLE mlflow NOCREATEDB'")
    postgres(host, "createdb --owner=mlflow mlflow")
    postgres(host, "psql -qd mlflow -c 'CREATE TABLE theirs ()'")
    refused("The database mlflow holds 1 tables and was not made by this deployment: set mlflow_database_name to a name that is free, or mlflow_take_over to")
    postgres(host, "psql -qd mlflow -c 'DROP TABLE theirs'")


def test_more_requirements_without_hashes_are_refused(tmp_path):
    (tmp_path / "extra.txt").write_text("# more\nboto3==1.43.0\n")
    sentence = f"mlflow_venv_extra_requirements_file is {tmp_path}/extra.txt, which has boto3==1.43.0: name a file on the controller in which each requirement"
    refused(sentence, {"mlflow_venv_extra_requirements_file": f"{tmp_path}/extra.txt"})


@pytest.fixture(scope="module")
def by_su(host, tmp_path_factory) -> str:
    """The inventory of a person who comes by SSH, has the password of root, and no sudo."""
    top = tmp_path_factory.mktemp("su")
    name, password = os.environ["MLFLOW_TEST_SERVER"], "correct horse battery"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", top / "key"], check=True)
    install(host, "openssh-server")
    host.run_expect([0], "useradd --create-home --shell /bin/bash person && echo 'root:%s' | chpasswd" % password)
    host.run_expect([0], "install -d -o person -m 0700 /home/person/.ssh && echo %s >/home/person/.ssh/authorized_keys", (top / "key.pub").read_text())
    come = f"-o ProxyCommand='podman exec -i {name} /usr/sbin/sshd -i' -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    server = {
        "ansible_user": "person",
        "ansible_ssh_private_key_file": str(top / "key"),
        "ansible_ssh_common_args": come,
        "ansible_become_method": "su",
        "ansible_become_user": "root",
        "ansible_become_password": password,
        "mlflow_domain": "mlflow.test",
        "mlflow_credentials_dir": str(CREDENTIALS),
        "mlflow_venv_extra_requirements_file": str(Path(__file__).with_name("extra.txt")),
    }
    groups = {group: {"hosts": {name: server}} for group in ("mlflow_database", "mlflow_tracking", "mlflow_proxy")}
    (top / "inventory.yml").write_text(json.dumps(groups))
    return str(top / "inventory.yml")


def test_what_is_taken_over_is_kept_beside(host, by_su):
    """With the consent of one variable, by somebody who becomes root by su; a database that somebody prepared, which is empty, needs none."""
    leave(host, SERVER | PROXY | {OTHER: SITE})
    host.run_expect([0], f"ln -s {OTHER} {OTHER_ENABLED}")
    host.run_expect([0], f"chmod 755 /opt/mlflow/venv/bin/mlflow; mkdir -p {os.path.dirname(ENABLED)} && ln -s ../sites-available/mlflow.conf {ENABLED}")
    host.run_expect([0], "systemctl daemon-reload && systemctl enable --now mlflow.service")
    output = deployed(TAKE_OVER, inventory=by_su)
    for path in ["/opt/mlflow/requirements.txt", "/etc/mlflow/mlflow.env", "/etc/systemd/system/mlflow.service", *PROXY]:
        kept = re.search(f"{re.escape(path)}\\.{TIME}", output)
        assert kept, path
        assert host.file(kept[0]).content_string == (SERVER | PROXY)[path]
    kept = re.search(f"/var/lib/mlflow/tmp\\.{TIME}", output)[0]
    assert host.file(f"{kept}/notes.txt").content_string == "notes\n"
    for path in "/var/lib/mlflow/mlflow.db", "/opt/mlflow/venv/bin/mlflow":
        assert host.file(path).content_string == SERVER[path], "not ours to move"
    kept = re.search(rf"{OTHER}\.{TIME}", output)[0]
    assert (host.file(OTHER_ENABLED).exists, host.file(kept).linked_to, host.file(OTHER).content_string) == (False, OTHER, SITE)
    host.run_expect([0], "/opt/mlflow/current/bin/python -c 'import iniconfig'")  # of extra.txt, locked
    unchanged(inventory=by_su)


def test_a_second_run_by_the_oldest_ansible_changes_nothing(host):
    """That of people with Python 3.10."""
    subprocess.run([ROOT / "tests/setup.sh", "controller"], check=True)
    program = str(ROOT / ".cache/controller/bin/ansible-playbook")
    assert "ansible-playbook [core 2.17." in subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    unchanged(program=program)
    unchanged({}, "--check", "--diff", program=program)


def test_a_bridge_that_appears_changes_nothing(host):
    """As Docker makes one."""
    serving = "systemctl show --property=MainPID mlflow nginx; cat /etc/nginx/mlflow/tls/current/fullchain.pem /etc/mlflow/mlflow.env"
    before = host.check_output(serving)
    host.run_expect([0], "ip link add docker0 type bridge && ip addr add 172.17.0.1/16 dev docker0 && ip link set docker0 up")
    unchanged()
    assert host.check_output(serving) == before
    host.run_expect([0], "ip link del docker0")
    unchanged()


def test_several_hosts_with_an_authority_each_are_refused(host, tmp_path):
    """Two names of one server are enough, as nothing is to change."""
    server = {"ansible_connection": "containers.podman.podman", "ansible_user": "root", "ansible_host": os.environ["MLFLOW_TEST_SERVER"]}
    shared = {"mlflow_domain": "mlflow.test", "mlflow_venv_extra_requirements_file": str(Path(__file__).with_name("extra.txt"))}
    hosts = {"one": {**server, **shared}, "two": {**server, **shared}}
    groups = {group: {"hosts": hosts} for group in ("mlflow_database", "mlflow_tracking", "mlflow_proxy")}
    (tmp_path / "inventory.yml").write_text(json.dumps(groups))
    shutil.copytree(CREDENTIALS, tmp_path / "credentials")
    refused(
        f"one and two would each make a certificate authority of its own for mlflow.test, and clients trust one of them, {tmp_path}/credentials/"
        "mlflow.test.ca.txt: set mlflow_tls to files, with one certificate for all of them, or give each an mlflow_domain of its own.",
        inventory=str(tmp_path / "inventory.yml"),
    )


def test_an_administrator_who_was_taken_over_is_told_of(host):
    """As an earlier version did with whom it found: the groups are left to people."""
    host.run_expect([0], "usermod --append --groups sudo mlflow")
    sentence = "MLflow runs as mlflow, who is in the group sudo and so has its rights: take the user out of it (gpasswd --delete mlflow sudo)."
    assert sentence in deployed()
    assert "sudo" in host.check_output("id -nG mlflow")
    host.run_expect([0], "gpasswd --delete mlflow sudo")
    assert sentence not in deployed()
    unchanged()


def test_a_site_for_the_name_that_came_later_is_named(host):
    leave(host, {OTHER_ENABLED: SITE})
    refused(f"nginx has another site for mlflow.test on port 80, in {OTHER_ENABLED}, and would answer by that one")
    remove(host, {OTHER_ENABLED: SITE})


def test_a_second_deployment_on_the_host_is_refused(host):
    other = {"mlflow_home": "/opt/other", "mlflow_data_dir": "/var/lib/other", "mlflow_domain": "other.test", "mlflow_port": 8443}
    refused(
        "This host has a deployment (/etc/mlflow/deployment.json) with mlflow_home /opt/mlflow and mlflow_data_dir /var/lib/mlflow, "
        "not /opt/other and /var/lib/other: set mlflow_home and mlflow_data_dir as it is there or take another host",
        other,
    )
    refused("This host has a deployment (/etc/postgresql/", {"mlflow_database_name": "other"})


@pytest.fixture
def elsewhere(tmp_path) -> Path:
    """The inventory as git brings it to another machine: without what is ignored."""
    shutil.copytree(INVENTORY, tmp_path / "inventory", ignore=shutil.ignore_patterns("credentials"))
    return tmp_path / "inventory"


def test_another_controller_replaces_no_password(host, elsewhere):
    before = host.file("/etc/nginx/mlflow.htpasswd").content
    refused(
        f"mlflow has another password on this host than in {elsewhere}/credentials/mlflow.test: copy the credentials here from the machine that deployed it",
        inventory=str(elsewhere),
    )
    assert not (elsewhere / "credentials").exists()
    shutil.copytree(CREDENTIALS, elsewhere / "credentials")
    unchanged(inventory=str(elsewhere))
    assert host.file("/etc/nginx/mlflow.htpasswd").content == before


def test_a_changed_or_misspelt_name_replaces_no_password():
    """It is the same deployment."""
    refused(f"mlflow has another password on this host than in {CREDENTIALS}/mlfow.test", {"mlflow_domain": "mlfow.test"})
    assert not (CREDENTIALS / "mlfow.test").exists()


def test_a_password_that_differs_is_not_written(host):
    kept = CREDENTIALS / "mlflow.test" / "mlflow.txt"
    password = kept.read_text()
    kept.write_text("another, of another server\n")
    refused("or set mlflow_replace_credentials to true to give them those that are kept here, or new ones")
    kept.write_text(password)


def test_an_authority_that_clients_trust_is_not_replaced(host):
    """A host that was made anew has none yet."""
    kept = CREDENTIALS / "mlflow.test.ca.txt"
    before = kept.read_text()
    host.run_expect([0], "mv /etc/nginx/mlflow/tls/selfsigned /root/")
    refused(f"{kept} is of another certificate authority than this host will make, and clients that trust it would refuse this server")
    host.run_expect([0], "mv /root/selfsigned /etc/nginx/mlflow/tls/")
    deployed()
    unchanged()
    assert kept.read_text() == before


def test_credentials_are_replaced_where_they_are_to_be(host, elsewhere):
    """And nothing is lost by it: an authority of another server here, a password there."""
    kept = elsewhere / "credentials" / "mlflow.test.ca.txt"
    kept.parent.mkdir()
    host.run_expect([0], "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=other -keyout /dev/null -out /tmp/other.pem 2>/dev/null")
    other = host.file("/tmp/other.pem").content_string
    kept.write_text(other)
    refused(f"{kept} is of another certificate authority than this host has", {"mlflow_users": [{"name": "alice"}]}, inventory=str(elsewhere))
    before = host.file("/etc/nginx/mlflow.htpasswd").content
    deployed(REPLACE, inventory=str(elsewhere))
    assert host.file("/etc/nginx/mlflow.htpasswd").content != before
    copy = host.check_output("ls /etc/nginx/mlflow.htpasswd.*~")
    assert host.file(copy).content == before
    assert kept.read_text() == (CREDENTIALS / "mlflow.test.ca.txt").read_text()
    (old,) = [path for path in kept.parent.iterdir() if re.search(rf"\.{TIME}\.txt$", path.name)]
    assert old.read_text() == other
    shutil.rmtree(CREDENTIALS)
    shutil.copytree(kept.parent, CREDENTIALS)
    unchanged()


def test_a_host_of_no_inventory_names_the_variable_for_credentials(tmp_path):
    name = os.environ["MLFLOW_TEST_SERVER"]
    variables = {"ansible_connection": "containers.podman.podman", "ansible_user": "root", "mlflow_domain": "mlflow.test"}
    variables["mlflow_venv_extra_requirements_file"] = str(Path(__file__).with_name("extra.txt"))
    add = {
        "ansible.builtin.add_host": {"name": name, "groups": ["mlflow_database", "mlflow_tracking", "mlflow_proxy"], **variables},
        "changed_when": False,
    }
    site = str(Path(__file__).resolve().parents[2] / "site.yml")
    play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [add]}
    (tmp_path / "play.yml").write_text(json.dumps([play, {"ansible.builtin.import_playbook": site}]))
    where = {"playbook": tmp_path / "play.yml", "inventory": "localhost,"}
    refused("authority: set mlflow_credentials_dir to a directory on this machine.", **where)
    unchanged({"mlflow_credentials_dir": str(CREDENTIALS)}, **where)
