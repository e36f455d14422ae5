# SPDX-License-Identifier: GPL-3.0-or-later
"""The database: settings that would end it, what ends it, and whom it serves."""

from __future__ import annotations

from pathlib import Path

import pytest
from deployment import deploy, deployed, refused, said, unchanged

DATABASE = Path(__file__).parent / "database.yml"
ANSWERS = "runuser -u postgres -- psql -XAtc 'SELECT 1' mlflow"


@pytest.fixture(scope="module")
def version(host) -> str:
    return host.check_output("ls /etc/postgresql")


@pytest.fixture(scope="module")
def unit(version) -> str:
    return f"postgresql@{version}-main.service"


@pytest.fixture(scope="module")
def settings(version) -> str:
    return f"/etc/postgresql/{version}/main/conf.d/mlflow.conf"


def files(host) -> str:
    """What the configuration holds, and what trials left behind."""
    return host.check_output("find /etc/postgresql /var/tmp -type f -exec sha256sum {} + | sort -k 2")


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"mlflow_postgres_settings": {"max_conections": 200}}, 'unrecognized configuration parameter "max_conections" in file'),
        ({"mlflow_postgres_settings": {"work_mem": "lots"}}, 'invalid value for parameter "work_mem": "lots"'),
        ({"mlflow_postgres_settings": {"shared_buffers": "4TB"}}, "could not map anonymous shared memory: Cannot allocate memory"),
        ({"mlflow_postgres_settings": {"shared_preload_libraries": "pg_stat_statementz"}}, 'could not access file "pg_stat_statementz"'),
        (
            {"mlflow_database_password": "correct horse battery", "mlflow_postgres_allowed_networks": ["10.0.0.0/33"]},
            'invalid CIDR mask in address "10.0.0.0/33"',
        ),
    ],
    ids=["name", "value", "memory", "library", "network"],
)
def test_what_postgresql_would_not_start_with_is_refused_in_its_words(host, variables, sentence):
    before = files(host)
    refused(f"would not start with mlflow_postgres_settings or mlflow_postgres_allowed_networks as set now, so correct this: {sentence}", variables)
    assert files(host) == before
    host.run_expect([0], ANSWERS)


def test_settings_that_fail_at_the_restart_only_are_put_back(host, settings):
    """Huge pages, of which the server that runs may hold all."""
    assert host.check_output("awk '/HugePages_Total/ {print $2}' /proc/meminfo") == "0"
    before = host.file(settings).content_string
    run = deploy({"mlflow_postgres_settings": {"huge_pages": "on"}}, playbook=DATABASE)
    assert run.returncode != 0
    assert "so the settings before them are back. It said:" in said(run)
    assert "could not map anonymous shared memory" in said(run)
    assert host.file(settings).content_string == before
    host.run_expect([0], ANSWERS)


def test_a_corrected_inventory_brings_up_a_cluster_that_a_setting_left_down(host, settings, unit):
    host.run_expect([0], f"echo 'max_conections = 200' >>{settings}")
    host.run(f"systemctl restart {unit}")
    assert host.run(ANSWERS).rc != 0
    deployed(playbook=DATABASE)
    host.run_expect([0], ANSWERS)
    unchanged(playbook=DATABASE)


def test_what_was_changed_by_hand_is_as_written_again(host, sql, settings, version, unit):
    """Owner, mode and content of each file; attributes and owner of role and database; what is open and what starts."""
    hba, ident = f"/etc/postgresql/{version}/main/pg_hba.conf", f"/etc/postgresql/{version}/main/pg_ident.conf"
    ours = [settings, hba, ident, f"/etc/systemd/system/{unit}.d/mlflow.conf", "/etc/systemd/system/mlflow-postgres-mounts.service"]
    ours.append("/usr/local/libexec/mlflow_postgres_mounts.sh")

    def state() -> str:
        role = sql("SELECT rolcanlogin, rolsuper, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname = 'mlflow'")
        database = sql("SELECT pg_get_userbyid(datdba), datacl FROM pg_database WHERE datname = 'mlflow'")
        enabled = host.run("systemctl is-enabled postgresql.service").stdout
        return host.check_output(f"stat -c '%U:%G %a %n' {' '.join(ours)} && sha256sum {' '.join(ours)}") + role + database + enabled

    before = state()
    host.run_expect([0], f"sed -i '/^local mlflow mlflow peer/d' {hba} && echo '# by hand' >>{settings} && sed -i '/^mlflow mlflow/d' {ident}")
    host.run_expect([0], f"for file in {' '.join(ours[3:])}; do echo '# by hand' >>$file; done; chmod 600 {' '.join(ours)} && chown nobody: {' '.join(ours)}")
    host.run_expect([0], "systemctl disable postgresql.service")
    sql("ALTER ROLE mlflow CREATEDB CREATEROLE; GRANT CONNECT ON DATABASE mlflow TO PUBLIC")
    assert state() != before
    deployed(playbook=DATABASE)
    assert state() == before
    host.run_expect([0], "runuser -u mlflow -- psql -XAtc 'SELECT 1' mlflow")
    unchanged(playbook=DATABASE)


def test_a_reload_that_was_cut_off_is_made_up_for(host, sql, settings):
    """The file is written, and PostgreSQL has not read it."""
    host.run_expect([0], f"cp -p {settings} /root/settings && echo \"log_min_duration_statement = '9s'\" >>{settings} && systemctl reload 'postgresql@*'")
    assert sql("SHOW log_min_duration_statement") == "9s"
    host.run_expect([0], f"mv /root/settings {settings}")
    assert sql("SHOW log_min_duration_statement") == "9s"
    deployed(playbook=DATABASE)
    assert sql("SHOW log_min_duration_statement") == "-1"
    unchanged(playbook=DATABASE)


def test_a_cluster_that_does_not_start_says_why(host, version, unit):
    """A file of somebody else is neither ours to test nor to remove."""
    theirs = f"/etc/postgresql/{version}/main/conf.d/theirs.conf"
    host.run_expect([0], f"echo 'max_conections = 200' >{theirs}; systemctl stop {unit}")
    run = deploy(playbook=DATABASE)
    assert run.returncode != 0
    assert "PostgreSQL does not start. It said: " in said(run)
    assert f'unrecognized configuration parameter "max_conections" in file "{theirs}" line 1' in said(run)
    host.run_expect([0], f"rm {theirs}")
    deployed(playbook=DATABASE)


def test_a_postmaster_that_is_killed_comes_back(host, version, until):
    for _count in range(6):  # more often than systemd starts by default
        host.run_expect([0], f"kill -KILL $(head -n 1 /run/postgresql/{version}-main.pid)")
        until(ANSWERS)


def test_what_an_administrator_stops_stays_down(host, version, unit, until):
    until(f"systemctl is-active {unit}")
    host.run_expect([0], f"runuser -u postgres -- pg_ctlcluster -m fast {version} main stop")
    host.run("sleep 7")
    assert host.check_output(f"systemctl show --property=ActiveState --value {unit}") == "inactive"
    host.run_expect([0], f"systemctl start {unit}")


def test_a_wal_disk_that_was_full_serves_again_once_it_has_space(host, version, unit, sql, until):
    data, disk = f"/var/lib/postgresql/{version}/main", "/var/lib/postgresql/wal"
    move = "cp -a {0}/. {1}/ && chown postgres: {1} && chmod 700 {1} && rm -r {0}"
    host.run_expect([0], f"systemctl stop {unit} && mkdir {disk} && mount -t tmpfs -o size=320m tmpfs {disk}")
    host.run_expect([0], f"{move.format(f'{data}/pg_wal', disk)} && ln -s {disk} {data}/pg_wal && systemctl start {unit}")
    host.run(f"dd if=/dev/zero of={disk}/filler bs=1M")
    assert host.run("runuser -u postgres -- psql -c 'CREATE TABLE t AS SELECT repeat(md5(i::text), 100) FROM generate_series(1, 400000) i'").rc != 0
    host.run("sleep 20")
    assert host.run(ANSWERS).rc != 0
    host.run_expect([0], f"rm {disk}/filler")
    until(ANSWERS)
    back = move.format(disk, f"{data}/pg_wal").replace("rm -r", "umount")
    host.run_expect([0], f"systemctl stop {unit} && rm {data}/pg_wal && mkdir {data}/pg_wal && {back}")
    host.run_expect([0], f"rmdir {disk} && systemctl start {unit}")
    until(ANSWERS)


def test_only_those_who_were_granted_something_may_connect(host, sql):
    sql("CREATE ROLE reader LOGIN CONNECTION LIMIT 5; CREATE ROLE passer_by LOGIN CONNECTION LIMIT 5; GRANT SELECT ON runs TO reader")
    assert sql("SELECT has_database_privilege('passer_by', 'mlflow', 'CONNECT')") == "f"
    sql("GRANT CONNECT ON DATABASE mlflow TO PUBLIC")
    deployed(playbook=DATABASE)
    allowed = "SELECT rolname FROM pg_roles WHERE NOT rolsuper AND has_database_privilege(rolname, 'mlflow', 'CONNECT') ORDER BY 1"
    assert sql(allowed).split() == ["mlflow", "pg_monitor", "pg_read_all_data", "reader"]
    unchanged(playbook=DATABASE)


def test_roles_that_could_take_all_connections_are_named(host, sql):
    assert "may open all connections" not in deployed(playbook=DATABASE)
    sql("ALTER ROLE reader CONNECTION LIMIT -1")
    sentence = "reader may open all connections of this PostgreSQL, and MLflow would get none: limit them with ALTER ROLE reader CONNECTION LIMIT 20"
    assert sentence in deployed(playbook=DATABASE)
    sql("DROP OWNED BY reader; DROP ROLE reader; DROP ROLE passer_by")


def test_logs_are_rotated(host, version):
    log = f"/var/log/postgresql/postgresql-{version}-main.log"
    assert host.file(log).size > 0
    host.run_expect([0], "systemctl is-enabled logrotate.timer")
    host.run_expect([0], "logrotate --force /etc/logrotate.d/postgresql-common")
    assert host.file(f"{log}.1").size > 0
    assert host.file(log).size == 0
