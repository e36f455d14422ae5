# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person finds who has a repository and servers with other things, and installs the built collection; in this order."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from urllib.parse import quote

import pytest
import testinfra
from deployment import ROOT, Run, changed, deploy, recap, said
from documentation import shown

SERVER = os.environ["MLFLOW_TEST_SERVER"]
OTHER = SERVER.removesuffix("-server") + "-other"
PASSWORD = "correct horse battery"
NAMES = {"mlflow_database_hosts": "ml_servers", "mlflow_tracking_hosts": "ml_servers", "mlflow_proxy_hosts": "ml_proxies"}
CONFIGURATION = """[defaults]
inventory = hosts.ini
collections_path = collections
vault_password_file = vault_password
gathering = smart
fact_caching = jsonfile
fact_caching_connection = facts
"""
INVENTORY = f"""
[ml_servers]
{SERVER}

[ml_proxies:children]
ml_servers

[web]
{OTHER} http_port=80

[all:vars]
"""
SHOP = """server {
  listen 80;
  listen 443 ssl;
  server_name shop.test;
  ssl_certificate /etc/ssl/shop.pem;
  ssl_certificate_key /etc/ssl/shop.key;
  location / { return 200 shop; }
}
"""
HBA = "# the shop's\nhost shop shop 127.0.0.1/32 scram-sha-256\n"
SHOP_SITE = "/etc/nginx/sites-available/shop"
# What the person has on the server, and nobody else changes.
THEIRS = f"cat {SHOP_SITE} /etc/nginx/nginx.conf /etc/nginx/sites-available/default; ls -l /etc/nginx/sites-enabled/shop /etc/nginx/sites-enabled/default"


@pytest.fixture(scope="module", autouse=True)
def repository(tmp_path_factory):
    """The directory that the person calls Ansible in, with a configuration, groups, facts and a vault of its own."""
    top = tmp_path_factory.mktemp("repository")
    found = subprocess.run(
        ["ansible-inventory", "--inventory", os.environ["MLFLOW_TEST_INVENTORY"], "--host", SERVER], check=True, capture_output=True, text=True
    )
    connection = "".join(f"{name}={value}\n" for name, value in json.loads(found.stdout).items() if name.startswith("ansible_"))
    (top / "ansible.cfg").write_text(CONFIGURATION)
    (top / "hosts.ini").write_text(INVENTORY + connection)
    (top / "vault_password").write_text("swordfish\n")
    variables = top / "group_vars" / "ml_servers"
    variables.mkdir(parents=True)
    (variables / "main.yml").write_text(
        json.dumps({"mlflow_domain": "mlflow.test", "mlflow_users": [{"name": "alice", "password": "{{ vault_alice }}"}], "http_port": 8080})
    )
    (variables / "vault.yml").write_text(f"vault_alice: {PASSWORD}\n")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("ANSIBLE_")]:
            patch.delenv(name)
        patch.chdir(top)
        subprocess.run(["ansible-vault", "encrypt", variables / "vault.yml"], check=True, capture_output=True)
        artifact = tmp_path_factory.mktemp("artifact")
        subprocess.run(["ansible-galaxy", "collection", "build", "--output-path", artifact, ROOT], check=True, capture_output=True)
        subprocess.run(["ansible-galaxy", "collection", "install", "--no-deps", *artifact.iterdir()], check=True, capture_output=True)
        yield top


@pytest.fixture(scope="module")
def oldest() -> str:
    """The oldest ansible-core that the collection supports."""
    subprocess.run([ROOT / "tests/setup.sh", "oldest"], check=True, capture_output=True)
    return str(ROOT / ".cache/oldest/bin/ansible-playbook")


def play(directory: Path, plays: list[dict], *options: str, program: str = "ansible-playbook") -> Run:
    (directory / "play.yml").write_text(json.dumps(plays))
    return deploy({}, *options, playbook=directory / "play.yml", inventory="hosts.ini", program=program)


def succeeds(run: Run) -> None:
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-1000:]


def unchanged(run: Run) -> None:
    succeeds(run)
    assert recap(run)["changed"] == 0, changed(run)


def site(*before: dict) -> list[dict]:
    return [*before, {"ansible.builtin.import_playbook": "mlops.mlflow.site", "vars": NAMES}]


@pytest.fixture(scope="module")
def other():
    return testinfra.get_host(f"podman://{OTHER}")


@pytest.fixture(scope="module")
def theirs(host) -> str:
    return host.check_output(THEIRS)


def fetched(host, name: str) -> str:
    """The answer of the site of a name, over TLS."""
    return host.check_output(f"curl --silent --insecure --resolve {name}:443:127.0.0.1 https://{name}/")


def handshake(host, name: str, *options: str) -> str:
    return host.run(f"openssl s_client -connect 127.0.0.1:443 -servername {name} {' '.join(options)} </dev/null 2>&1").stdout.replace(" ", "")


def test_the_server_has_a_shop(host):
    host.run_expect([0], "DEBIAN_FRONTEND=noninteractive apt-get install --yes nginx postgresql curl")
    host.run_expect([0], "openssl req -x509 -newkey rsa:2048 -nodes -days 9 -subj /CN=shop.test -keyout /etc/ssl/shop.key -out /etc/ssl/shop.pem")
    host.run_expect([0], f"printf %%s %s >{SHOP_SITE} && ln -s {SHOP_SITE} /etc/nginx/sites-enabled/shop && systemctl reload nginx", SHOP)
    host.run_expect([0], f"runuser -u postgres -- psql -qc \"CREATE ROLE shop LOGIN PASSWORD '{PASSWORD}'\"")
    host.run_expect([0], "runuser -u postgres -- createdb --owner=shop shop")
    host.run_expect(
        [0], "cd /etc/postgresql/*/main && { printf %%s %s; cat pg_hba.conf; } >/root/hba && cat /root/hba >pg_hba.conf && systemctl reload postgresql", HBA
    )
    test_the_shop_works(host)


def test_the_shop_works(host):
    assert fetched(host, "shop.test") == "shop"
    assert host.check_output(f"PGPASSWORD='{PASSWORD}' psql -XAtc 'SELECT current_user' 'host=127.0.0.1 dbname=shop user=shop'") == "shop"


def test_the_playbook_deploys_to_groups_of_other_names(host, theirs, repository, oldest, monkeypatch):
    """By the oldest ansible-core, with native types."""
    monkeypatch.setenv("ANSIBLE_JINJA2_NATIVE", "True")
    run = play(repository, site({"hosts": "ml_servers", "gather_subset": ["!all"]}), program=oldest)
    succeeds(run)
    assert "MLflow is ready: https://mlflow.test" in said(run)
    assert f"from its default server, in {SHOP_SITE.replace('available', 'enabled')}, not from this site: " in said(run)
    assert PASSWORD not in said(run)
    assert "mlflow" not in run.stderr, run.stderr  # no warning about this collection
    unchanged(play(repository, site(), program=oldest))


def test_the_newest_ansible_core_changes_nothing_either(repository):
    unchanged(play(repository, site()))


def test_what_was_there_is_as_it_was(host, theirs):
    test_the_shop_works(host)
    assert host.check_output(THEIRS) == theirs
    hba = host.check_output("cat /etc/postgresql/*/main/pg_hba.conf")
    assert re.sub("(?s)# BEGIN mlops.mlflow\n.*# END mlops.mlflow\n", "", hba) == host.check_output("cat /root/hba")


@pytest.mark.parametrize("version", ["tls1_2", "tls1_3"])
def test_each_name_has_its_certificate(host, version):
    assert "subject=CN=shop.test" in handshake(host, "shop.test", f"-{version}")
    assert "CN=MLflowserver" in handshake(host, "mlflow.test", f"-{version}")


def test_a_limit_and_tags_are_taken(repository):
    unchanged(play(repository, site(), f"--limit={SERVER}", "--tags=mlflow_database"))


def test_a_limit_that_leaves_no_host_is_refused(repository):
    run = play(repository, site(), "--limit=web")
    assert run.returncode != 0
    assert "--limit web leaves no host of the groups ml_servers, ml_servers and ml_proxies: limit the run to hosts of them." in said(run)


def test_hosts_may_come_from_add_host(repository):
    """As from a cloud: they have what the inventory does not."""
    add = {"name": "{{ item }}", "groups": ["mlflow_database", "mlflow_tracking", "mlflow_proxy"]}
    task = {"ansible.builtin.add_host": add, "loop": "{{ groups.ml_servers }}", "changed_when": False}
    plays = [{"hosts": "localhost", "gather_facts": False, "tags": "always", "tasks": [task]}, {"ansible.builtin.import_playbook": "mlops.mlflow.site"}]
    run = play(repository, plays, "--tags=mlflow_database")
    unchanged(run)
    assert "mlflow_postgres : Install PostgreSQL" in run.stdout


def test_a_database_for_another_deployment(repository, host, other):
    """As the role's README shows it."""
    text = shown("mlflow_postgres", "include_role").replace("hosts: database", "hosts: web").replace("{{ vault_tracking_password }}", PASSWORD)
    (repository / "database.yml").write_text(text.replace("10.0.0.5", host.check_output("hostname -I").split()[0]))
    for check in succeeds, unchanged:
        check(deploy({}, playbook=repository / "database.yml", inventory="hosts.ini"))
    log_in = f"PGPASSWORD='{PASSWORD}' psql -XAtc 'SELECT current_user' 'host=%s dbname=tracking user=tracking sslmode=%s'"
    there = other.check_output("hostname -I").split()[0]
    assert host.check_output(log_in % (there, "require")) == "tracking"
    assert host.run(log_in % (there, "disable")).rc != 0
    # An MLflow that somebody starts without this collection, with that database.
    store = f"postgresql://tracking:{quote(PASSWORD)}@{there}/tracking?sslmode=require"
    words = f"/opt/mlflow/current/bin/mlflow server --host 0.0.0.0 --port 5000 --workers 1 --allowed-hosts tracking.test --backend-store-uri '{store}'"
    host.run_expect([0], f"systemd-run --quiet --unit=tracking --working-directory=/srv {words}")


def test_a_proxy_for_an_mlflow_that_is_there(repository, host):
    """As the role's README shows it."""
    text = shown("mlflow_nginx", "mlflow_nginx_upstreams").replace("hosts: proxy", "hosts: web").replace("{{ vault_mlflow_alice }}", PASSWORD)
    address = host.check_output("hostname -I").split()[0]
    (repository / "proxy.yml").write_text(text.replace("10.0.0.7", address).replace("mlflow.example.com", "tracking.test"))
    for check in succeeds, unchanged:
        check(deploy({}, playbook=repository / "proxy.yml", inventory="hosts.ini"))
    ask = "curl --silent --insecure --output /dev/null --write-out '%{http_code}' https://tracking.test/"
    assert host.check_output(ask + "health") == "200"
    assert host.check_output(ask) == "401"
    assert host.check_output(f"{ask} --user 'alice:{PASSWORD}'") == "200"


def test_single_modules(repository):
    """From the host, and from the controller."""
    users = {"path": "/root/users", "name": "bob", "password": PASSWORD}
    health = {"url": "https://tracking.test", "address": "127.0.0.1", "ca_path": "/etc/nginx/mlflow/tls/selfsigned/ca.pem", "depth": "roundtrip"}
    for changes in True, False:
        run = play(
            repository,
            [
                {
                    "hosts": "web",
                    "tasks": [
                        {"mlops.mlflow.htpasswd": users},
                        {"mlops.mlflow.mlflow_health": {**health, "username": "alice", "password": PASSWORD}},
                    ],
                }
            ],
        )
        succeeds(run)
        assert recap(run)["changed"] == changes


def test_nothing_is_left_in_the_repository(repository):
    """But credentials beside the inventory; what Ansible keeps are its own facts."""
    theirs = {"ansible.cfg", "hosts.ini", "vault_password", "group_vars", "collections", "facts", "play.yml", "database.yml", "proxy.yml"}
    assert {path.name for path in repository.iterdir()} == theirs | {"credentials"}
    facts = {name for path in (repository / "facts").iterdir() for name in json.loads(path.read_text())}
    assert facts and not [name for name in facts if "mlflow" in name]
