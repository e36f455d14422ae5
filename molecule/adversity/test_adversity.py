# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes wrong for people, on one host, in this order: bad input, what was there before, runs that are cut off."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import pytest
from deployment import ROOT, changed, command, cut_off, deploy, recap, refused, said, unchanged

GOOD = {"name": "alice", "password": "correct horse battery"}
DRILL = pytest.mark.drill  # the others of their kind stay in `make test`


def test_the_host_is_bare(host):
    assert host.run("command -v psql nginx").rc != 0
    assert not host.file("/opt/mlflow").exists


# All of one role are refused at once.
TYPES = {
    "packages": {
        "mlflow_packages_upgrade": ("full", 'mlflow_packages_upgrade is "full": set it to one of no, safe, dist.'),
        "mlflow_user": ("ml", "mlflow_user is called mlflow_os_user now: rename it in your inventory."),
        "mlflow_nginx_firewall": (True, "mlflow_nginx_firewall is called mlflow_firewall now: rename it in your inventory."),
    },
    "postgres": {
        "mlflow_postgres_allowed_networks": ("10.0.0.0/8", "mlflow_postgres_allowed_networks is no list: write it as one, such as"),
        "mlflow_postgres_storage": ("nvme", 'mlflow_postgres_storage is "nvme": set it to one of ssd, hdd.'),
    },
    "venv": {"mlflow_venv_installer": ("conda", 'mlflow_venv_installer is "conda": set it to one of uv, pip.')},
    "systemd": {
        "mlflow_launcher": ("gunicorn", 'mlflow_launcher is "gunicorn": set it to one of preload, cli.'),
        "mlflow_systemd_job_execution": ("maybe", 'mlflow_systemd_job_execution is "maybe": set it to true or false.'),
        "mlflow_systemd_threads": ("1e3", 'mlflow_systemd_threads is "1e3": set it to a whole number from 0.'),
    },
    "nginx": {
        "mlflow_http_port": (True, "mlflow_http_port is true: set it to a port from 1 to 65535, or to 0 for none."),
        "mlflow_port": ("8_443", 'mlflow_port is "8_443": set it to a port from 1 to 65535.'),
        "mlflow_nginx_tls": ("letsencrypt", 'mlflow_nginx_tls is "letsencrypt": set it to one of acme, files, selfsigned, none.'),
    },
    "firewall": {
        "mlflow_firewall": ("8443", 'mlflow_firewall is "8443": set it to true or false.'),
        "mlflow_fail2ban": ("maybe", 'mlflow_fail2ban is "maybe": set it to true or false.'),
    },
}


@pytest.mark.parametrize("wrong", TYPES.values(), ids=TYPES)
def test_values_of_another_type_stop_before_anything_changes(wrong):
    run = deploy({name: value for name, (value, _sentence) in wrong.items()})
    assert run.returncode != 0
    assert recap(run)["changed"] == 0
    for _value, sentence in wrong.values():
        assert sentence in said(run)
    assert "argument_spec_data" not in run.stdout, "the sentence is not followed by a specification"


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"mlflow_tls": "letsencrypt"}, 'mlflow_tls is "letsencrypt": set it to one of acme, files, selfsigned, none.'),
        ({"mlflow_users": [{**GOOD, "name": "al:ice"}]}, "mlflow_users: the user name 'al:ice' holds a colon, which ends the name"),
        pytest.param({"mlflow_users": [{**GOOD, "password": ""}]}, "mlflow_users: the password of user 'alice' is empty: choose one.", marks=DRILL),
        pytest.param(
            {"mlflow_users": [{**GOOD, "password": 5744368105847}]},
            "mlflow_users: YAML takes the password of 'alice' for a number: write it in quotes.",
            marks=DRILL,
        ),
        pytest.param({"mlflow_users": [GOOD, GOOD]}, "mlflow_users: it lists 'alice' more than once: keep one entry.", marks=DRILL),
        pytest.param({"mlflow_users": ["alice", GOOD]}, "mlflow_users: it has an entry that is no mapping: write - name: alice.", marks=DRILL),
        ({"mlflow_users": [{"name": "alice", "pasword": "x"}]}, "mlflow_users: a user has pasword, and may have name, password, password_hash, state."),
        ({"mlflow_users": []}, "mlflow_users: it is empty, so nobody could log in"),
        ({"mlflow_version": "9.9.9"}, "There are no locked requirements for MLflow 9.9.9: set mlflow_version to one of 3.16.1, 3.17.2"),
        (
            {"mlflow_venv_min_free_mib": 99999999, "mlflow_home": "/srv/not/yet/mlflow"},
            "MiB free and MLflow wants 99999999: free some, or set mlflow_home",
        ),
        ({"mlflow_domain": "MLflow.example.com"}, "mlflow_domain is mlflow.example.com, as in inventory.example: set it to the DNS name of your server."),
        pytest.param({"mlflow_domain": "https://mlflow.test/"}, '"https://mlflow.test/" is not a host name', marks=DRILL),
        pytest.param({"mlflow_systemd_workers": 9999}, "set mlflow_systemd_workers to at most", marks=DRILL),
        ({"mlflow_systemd_pool_size": 60}, "and the database takes 100, of which 96 are MLflow's: lower mlflow_systemd_pool_size, or raise"),
        pytest.param({"mlflow_systemd_job_execution": True, "mlflow_systemd_job_workers": 4}, "and the job workers may open", marks=DRILL),
        pytest.param({"mlflow_systemd_threads": 8, "mlflow_systemd_workers": 3}, "120 connections during a restart and the database takes 100", marks=DRILL),
        pytest.param({"mlflow_database_name": "ML-flow"}, 'mlflow_postgres_database is "ML-flow": use lower case letters', marks=DRILL),
        ({"mlflow_database_host": "db1.test,db2.test"}, 'mlflow_database_host is "db1.test,db2.test": name one host, by its name or address'),
        pytest.param({"mlflow_database_host": "db:5433"}, "its port goes into mlflow_database_port", marks=DRILL),
        pytest.param({"mlflow_systemd_environment": {"MLFLOW_STATIC_PREFIX": "/mlflow"}}, "mlflow_systemd_environment has MLFLOW_STATIC_PREFIX", marks=DRILL),
        pytest.param({"mlflow_database_password": "short"}, "mlflow_postgres_password has 5 characters: give it at least 12", marks=DRILL),
        ({"mlflow_postgres_version": "9.6"}, "PostgreSQL 9.6 is not supported: set mlflow_postgres_version to one of 14, 15, 16, 17"),
        ({"mlflow_tls": "none"}, "mlflow_tls is none, and passwords would cross the network in plain text: set mlflow_accept_plain_http"),
        pytest.param({"mlflow_tls": "files"}, "the certificate or its key is missing; set mlflow_tls_certificate and mlflow_tls_key", marks=DRILL),
        pytest.param(
            {"mlflow_allow": ["10.0.0.0/33"]},
            "mlflow_allow: '10.0.0.0/33' does not appear to be an IPv4 or IPv6 network: write addresses and networks such as",
            marks=DRILL,
        ),
        pytest.param(
            {"mlflow_nginx_extra_directives": "satisfy # or\n 'any';\nallow 10.0.0.0/8;"}, "mlflow_nginx_extra_directives has satisfy any", marks=DRILL
        ),
        ({"mlflow_firewall": True}, "ufw cannot be used here (no right to change the firewall of this host, as in many containers): set it to false"),
        ({"mlflow_port": 8099}, "Port 8099 is taken by python3: stop it, or set mlflow_port"),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else "",
)
def test_bad_input_stops_before_anything_changes(host, variables, sentence):
    if variables.get("mlflow_port") == 8099:
        host.run_expect([0], "systemd-run --unit=squatter python3 -m http.server 8099")
        time.sleep(2)
    run = deploy(variables)
    assert run.returncode != 0
    assert sentence in said(run)
    assert recap(run)["changed"] == 0
    assert "correct horse battery" not in said(run)
    assert "argument_spec_data" not in run.stdout, "the sentence is not followed by a specification"


def test_a_group_without_hosts_is_named(tmp_path):
    (tmp_path / "hosts.yml").write_text(json.dumps({"mlflow_tracking": {"hosts": {"nowhere": {"ansible_connection": "local"}}}}))
    run = subprocess.run([*command()[:2], "--inventory", str(tmp_path)], capture_output=True, text=True, check=False)
    assert run.returncode != 0
    assert "The group mlflow_database has no host" in said(run)


def test_the_host_is_still_bare(host):
    test_the_host_is_bare(host)
    assert not host.user("mlflow").exists


@pytest.mark.parametrize("inventory", ["nowhere", "host,"])
def test_an_inventory_without_our_groups_is_refused(inventory):
    run = deploy(inventory=inventory)
    assert run.returncode != 0
    assert "The inventory has no host in the groups mlflow_database, mlflow_tracking and mlflow_proxy: add your server to them" in said(run)


@pytest.mark.parametrize(
    "release", ['ID=ubuntu\nNAME=Ubuntu\nVERSION_ID="26.04"\n', 'ID=debian\nNAME="Debian GNU/Linux"\nVERSION_CODENAME=forky\n'], ids=["newer", "testing"]
)
def test_a_release_that_is_not_supported_is_refused(host, release):
    host.run_expect([0], "cp --no-dereference /etc/os-release /root/os-release && rm /etc/os-release && printf %%s %s >/etc/os-release", release)
    try:
        refused(" is not supported: use Ubuntu 22.04 or 24.04, or Debian 12 or 13.")
    finally:
        host.run_expect([0], "mv /root/os-release /etc/os-release")


def test_a_newer_python_beside_the_systems_is_refused(host):
    """Ansible prefers it, and the distribution's packages are not for it."""
    if host.system_info.codename != "jammy":
        pytest.skip("no newer Python than its own in this distribution")
    host.run_expect([0], "apt-get install --yes --no-install-recommends python3.11")
    try:
        refused("Ansible uses /usr/bin/python3.11 on this host")
    finally:
        host.run_expect([0], "apt-get purge --yes --autoremove python3.11 python3.11-minimal")


def test_a_processor_on_which_numpy_crashes_is_refused(host):
    """As virtual machines have it whose type of processor was never chosen."""
    if host.system_info.arch != "x86_64":
        pytest.skip("such processors are x86-64")
    host.run_expect([0], "sed 's/ sse4_2 / /' /proc/cpuinfo >/run/cpuinfo && mount --bind /run/cpuinfo /proc/cpuinfo")
    try:
        refused("The processor of this host has no sse4_2, and MLflow's numpy needs x86-64-v2: in the settings of the virtual machine")
    finally:
        host.run_expect([0], "umount /proc/cpuinfo")


def test_the_host_is_hardened(host):
    """For all that follows."""
    host.run_expect([0], "sed -i 's/^UMASK.*/UMASK 077/' /etc/login.defs")
    host.run("pkill --full '[s]shd.*: root'")  # a connection that is there keeps its umask
    words = ["ansible", "all", "--inventory", os.environ["MLFLOW_TEST_INVENTORY"], "--args=sh -c umask"]
    assert "0077" in subprocess.run(words, capture_output=True, text=True, check=True).stdout


def test_a_database_of_somebody_else_is_left_alone(host):
    # Its cluster gets the port 5433 then, and an encoding that UTF-8 does not go with.
    host.run_expect([0], "systemd-run --quiet --unit=another python3 -m http.server 5432")
    host.run_expect([0], "apt-get install --yes --no-install-recommends locales && localedef --inputfile=en_US --charmap=ISO-8859-1 en_US")
    host.run_expect([0], "LANG=en_US DEBIAN_FRONTEND=noninteractive apt-get install --yes postgresql")
    host.run_expect([0], "runuser -u postgres -- createuser somebody")
    host.run_expect([0], "runuser -u postgres -- createdb --owner=somebody mlflow")
    run = deploy()
    assert run.returncode != 0
    assert "The database mlflow belongs to somebody, not to mlflow: set mlflow_postgres_database to a name that is free" in said(run)
    owner = "runuser -u postgres -- psql -XAtc \"SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'mlflow'\""
    assert host.check_output(owner) == "somebody"
    assert host.run("runuser -u postgres -- psql -XAtc '\\du mlflow'").stdout == ""
    host.run_expect([0], "runuser -u postgres -- psql -c 'ALTER DATABASE mlflow RENAME TO theirs'")


def test_a_database_that_asks_its_superuser_for_a_password_is_refused(host):
    asking = "sed -i -E 's/^(local +all +postgres +)%s/\\1%s/' /etc/postgresql/*/main/pg_hba.conf && systemctl reload postgresql"
    host.run_expect([0], asking % ("peer", "scram-sha-256"))
    refused("PostgreSQL asks its superuser postgres for a password, even on this host")
    host.run_expect([0], asking % ("scram-sha-256", "peer"))


def test_the_settings_of_pip_on_this_host_are_for_people(host):
    host.run_expect([0], "printf '[global]\\nrequire-virtualenv = true\\n[install]\\nuser = true\\n' >/etc/pip.conf")


def test_another_nginx_is_there(host):
    host.run_expect([0], "DEBIAN_FRONTEND=noninteractive apt-get install --yes nginx")
    site = "server { listen 80; server_name shop.test; return 200 shop; }"
    host.run_expect([0], f"echo '{site}' >/etc/nginx/sites-available/shop && ln -s ../sites-available/shop /etc/nginx/sites-enabled/shop")
    host.run_expect([0], "systemctl reload nginx")
    assert ask(host, "shop.test") == "shop"


def ask(host, name: str) -> str:
    code = f"import urllib.request as u; print(u.urlopen(u.Request('http://127.0.0.1/', headers={{'Host': '{name}'}})).read().decode(), end='')"
    return host.check_output("python3 -c %s", code)


def test_a_run_waits_for_apt(host):
    """As a new server's own upgrade has it for minutes."""
    host.run_expect([0], "systemd-run --quiet --unit=upgrade apt-get install --yes --reinstall --option DPkg::Pre-Invoke::='sleep 600' base-files")
    waited = []
    with subprocess.Popen(command(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True) as run:
        for line in run.stdout:
            if "RETRYING" in line and "Look for programs that install packages" in line and not waited:
                host.run_expect([0], "systemctl stop upgrade")
                waited.append(line)
            if "Refresh the package index" in line:
                os.killpg(run.pid, signal.SIGKILL)
    assert waited


@pytest.mark.parametrize(
    ("task", "seconds"),
    [
        ("mlflow_postgres : Install PostgreSQL", 4),
        pytest.param("mlflow_postgres : Write the settings", 0.5, marks=DRILL),
        pytest.param("mlflow_postgres : Create the database", 0.2, marks=DRILL),
        ("mlflow_venv : Install MLflow", 4),
        pytest.param("mlflow_venv : Ask MLflow for its version", 1, marks=DRILL),
        pytest.param("mlflow_systemd : Write the programs", 0.5, marks=DRILL),
        ("mlflow_systemd : Write the secrets", 0.5),
        pytest.param("mlflow_systemd : Write the unit of the service", 0.5, marks=DRILL),
        pytest.param("mlflow_systemd : Open the sockets", 0.5, marks=DRILL),
        ("mlflow_systemd : Create or migrate the schema", 6),
        pytest.param("mlflow_systemd : Start MLflow, or restart it where it runs with something older", 1, marks=DRILL),
        pytest.param("mlflow_nginx : Write the users", 1, marks=DRILL),
        ("mlflow_nginx : Write the site", 0.5),
    ],
    ids=lambda value: value.split(" : ")[-1] if isinstance(value, str) else "",
)
def test_a_run_is_cut_off(host, task, seconds):
    """The controller dies, and with it whatever it had started on the host."""
    cut_off(task, seconds)
    host.run("pkill --signal KILL --full 'AnsiballZ|/opt/mlflow/uv|/bin/mlflow --version|-m mlflow db'; pkill --signal KILL 'apt-get|dpkg'")


def test_the_next_run_finishes(host):
    run = deploy()
    assert run.returncode == 0, run.stdout[-3000:]
    assert "MLflow is ready: https://mlflow.test" in said(run)


def test_and_the_one_after_changes_nothing(host):
    run = deploy()
    assert recap(run)["changed"] == 0, changed(run)
    # What a run costs is its tasks.
    assert recap(run)["ok"] <= 165


def test_a_repository_with_groups_and_facts_of_its_own_imports_the_playbook(tmp_path, monkeypatch):
    """From the collection as it is built and installed there, under a configuration that is not ours."""
    (tmp_path / "ansible.cfg").write_text(
        f"[defaults]\ncollections_path = {tmp_path}\ngathering = smart\nfact_caching = jsonfile\nfact_caching_connection = {tmp_path}/facts\n"
    )
    monkeypatch.setenv("ANSIBLE_CONFIG", str(tmp_path / "ansible.cfg"))
    monkeypatch.delenv("ANSIBLE_COLLECTIONS_PATH")
    subprocess.run(["ansible-galaxy", "collection", "build", "--output-path", tmp_path, ROOT], check=True, capture_output=True)
    (built,) = tmp_path.glob("mlops-mlflow-*.tar.gz")
    subprocess.run(["ansible-galaxy", "collection", "install", "--no-deps", f"--collections-path={tmp_path}", built], check=True, capture_output=True)
    (tmp_path / "hosts.yml").write_text(json.dumps({"servers": {"children": {"mlflow_tracking": {}}}}))
    for proxies, sentence in ("servers", "MLflow is ready: https://mlflow.test"), ("proxies", "The group proxies has no host"):
        names = {"mlflow_database_hosts": "servers", "mlflow_tracking_hosts": "servers", "mlflow_proxy_hosts": proxies}
        plays = [{"hosts": "servers", "gather_subset": ["!all"]}, {"ansible.builtin.import_playbook": "mlops.mlflow.site", "vars": names}]
        (tmp_path / "site.yml").write_text(json.dumps(plays))
        run = deploy({}, f"--inventory={tmp_path}/hosts.yml", playbook=tmp_path / "site.yml")
        assert sentence in said(run)
        assert recap(run)["changed"] == 0, changed(run)


LET_IN = {"mlflow_database_password": GOOD["password"], "mlflow_postgres_allowed_networks": ["192.0.2.0/24", "0.0.0.0/0"]}


def test_networks_that_are_let_in(host):
    run = deploy(LET_IN)
    assert run.returncode == 0, run.stdout[-3000:]
    assert "PostgreSQL takes listen_addresses at its next restart, which is left to you: the cluster also holds theirs" in said(run)
    host.run_expect([0], "systemctl restart postgresql")
    address = host.check_output("hostname -I").split()[0]
    log_in = f"PGPASSWORD='{GOOD['password']}' psql -XAtc 'SELECT 1' 'host={address} port=5433 dbname=mlflow user=mlflow sslmode=%s'"
    assert host.check_output(log_in % "require") == "1"
    assert "no pg_hba.conf entry" in host.run(log_in % "disable").stderr
    unchanged(LET_IN)


def test_a_private_index_is_asked_for_everything(host):
    """Also by pip, which installs uv. This index is empty."""
    host.run_expect([0], "mkdir -p /srv/index && systemd-run --quiet --unit=index --working-directory=/srv/index python3 -m http.server 8098")
    index = {"UV_DEFAULT_INDEX": "http://127.0.0.1:8098/simple"}
    run = deploy({"mlflow_venv_environment": index, "mlflow_venv_extra_requirements": ["six"]}, "--tags=mlflow_tracking")
    assert run.returncode != 0
    assert "GET /simple/uv/" in host.check_output("journalctl --no-pager --unit=index")
    host.run_expect([0], "systemctl stop index")


CHANGES = {
    "Write the users": {"mlflow_users": [GOOD], "mlflow_domain": "other.test"},
    "Write the site": {"mlflow_tls": "none", "mlflow_accept_plain_http": True, "mlflow_port": 8443},
    "Write the unit of the service": {"mlflow_systemd_threads": 3},
}


@pytest.mark.parametrize("task", [pytest.param(task, marks=DRILL if number else ()) for number, task in enumerate(CHANGES)])
def test_a_check_before_a_change_shows_it(task):
    run = deploy({**LET_IN, **CHANGES[task]}, "--check", "--diff")
    assert run.returncode == 0, run.stdout[-3000:]
    assert any(task in found for found in changed(run)), changed(run)
    assert not any("Write the settings" in found for found in changed(run)), "nothing else"


def test_a_part_can_be_deployed_alone():
    run = deploy({}, "--tags=mlflow_proxy")
    assert run.returncode == 0 and "MLflow is ready" in said(run), run.stdout[-3000:]
    assert "mlflow_nginx : Write the site" in run.stdout and "mlflow_systemd : Write the unit of the service" not in run.stdout


def test_what_was_there_before_is_there_still(host):
    assert ask(host, "shop.test") == "shop"
    assert "Welcome to nginx" in ask(host, "other.test")
    assert "theirs|somebody" in host.check_output("runuser -u postgres -- psql -XAtc 'SELECT datname, pg_get_userbyid(datdba) FROM pg_database'")
