# SPDX-License-Identifier: GPL-3.0-or-later
"""A server that an earlier version deployed without secrets of its own gets them; then what was generated is replaced, in this order."""

from __future__ import annotations

import json
import os
import re
import subprocess

import pytest
from conftest import AUTHORITY, CREDENTIALS, PORT, SECRET, USERS, client, gateway, password, status, versions
from deployment import ROOT, cut_off, deploy, deployed, deployed_by, recap, refused, said, unchanged
from documentation import documented

EARLIER = "844ae60"  # the last that gave MLflow no secrets
SECRETS = "/etc/mlflow/secrets.env"
# Asks the gateway without a pause, and keeps what each request was answered.
LOAD = """
while [ ! -e /root/stop ]; do
  curl --silent --output /dev/null --write-out '%{http_code}\\n' --unix-socket /run/mlflow/mlflow.sock --header 'Content-Type: application/json' \
    --data '{"messages": [{"role": "user", "content": "?"}]}' http://localhost/gateway/listener/mlflow/invocations
  sleep 0.2
done >/root/codes
"""


def rotate(**labels: str) -> dict:
    return USERS | {"mlflow_rotate": labels}


@pytest.fixture(scope="module")
def webhook(host, tmp_path_factory) -> str:
    """The earlier version deploys, and a user has MLflow keep an API key and a webhook, whose id it is."""
    deployed_by(EARLIER, USERS, tmp_path_factory.mktemp("earlier") / "checkout")
    assert not host.file(SECRETS).exists
    return client(host, "keep.py", f"http://127.0.0.1:{PORT}", SECRET)[-1]


def test_an_earlier_server_gets_secrets_and_its_api_keys_are_moved(host, webhook):
    assert versions(host) == ["1"]
    check = deploy(USERS, "--check", "--diff")
    assert check.returncode == 0 and versions(host) == ["1"], check.stdout[-3000:]
    output = deployed(USERS)
    assert "webhook told cannot be decrypted any more, because its secret is lost" in output
    assert (versions(host), gateway(host)) == (["2"], SECRET)
    assert (CREDENTIALS / "mlflow.test.secrets.txt").read_text() == host.file(SECRETS).content_string


def test_a_lost_secret_of_a_webhook_is_replaced_as_documented(host, webhook):
    for line in documented("Secrets of MLflow"):
        host.run_expect([0], line.replace("NAME", "told"))
    client(host, "secret.py", webhook, SECRET)
    assert client(host, "tell.py", webhook)[-1] == "200"
    unchanged(USERS)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ({"people": "a"}, 'mlflow_rotate has "people": it may have users, secrets, ca.'),
        ({"users": ""}, 'mlflow_rotate has "" for users: write a label'),
        ({"database": "a"}, "mlflow_rotate has database, whose password is not generated: change mlflow_database_password instead."),
    ],
)
def test_what_could_not_be_rotated_is_refused(host, webhook, labels, sentence):
    refused(sentence, rotate(**labels))


def test_a_rotation_of_what_is_not_generated_is_refused(host, webhook):
    given = {"mlflow_users": [{"name": "alice", "password": "correct horse battery"}]}
    refused("mlflow_rotate has users, and mlflow_users sets the password of each of them", rotate(users="a") | given)
    refused("mlflow_rotate has ca, and mlflow_tls is none", rotate(ca="a") | {"mlflow_tls": "none", "mlflow_accept_plain_http": True})
    refused("fewer than 16 characters", USERS | {"mlflow_systemd_secrets": {"MLFLOW_CRYPTO_KEK_PASSPHRASE": "short"}})


def test_secrets_are_rotated_without_a_failed_request(host, webhook):
    before = host.file(SECRETS).content_string
    host.run_expect([0], "systemd-run --quiet --unit=load sh -c %s", LOAD)
    output = deployed(rotate(secrets="1"))
    host.run_expect([0], "touch /root/stop")
    codes = host.check_output("sort /root/codes | uniq --count").split()
    assert codes[1:] == ["200"], codes
    print(f"{codes[0]} requests for an API key, none failed")
    assert "MLflow's own secrets are new" in output
    old, new = (set(re.findall('"(.*)"', text)) for text in (before, host.file(SECRETS).content_string))
    assert not old & new
    assert (versions(host), gateway(host), client(host, "tell.py", webhook)[-1]) == (["3"], SECRET, "200")
    journal = host.check_output("journalctl --no-pager --output=cat")
    assert not [text for text in (*old, *new) if len(text) > 1 and (text in journal or text in output)]


def test_a_label_that_stays_rotates_once(host, webhook):
    unchanged(rotate(secrets="1"))


@pytest.mark.parametrize(
    ("label", "task", "seconds"), [("2", "mlflow_systemd : Write the secrets", 1.5), ("3", "mlflow_systemd : Encrypt it while MLflow is stopped", 1.0)]
)
def test_a_rotation_that_is_cut_off_is_finished_by_the_next_run(host, webhook, label, task, seconds):
    cut_off(task, seconds, rotate(secrets=label))
    deployed(rotate(secrets=label))
    (version,) = versions(host)
    assert f'MLFLOW_CRYPTO_KEK_VERSION="{version}"' in host.file(SECRETS).content_string
    assert (gateway(host), client(host, "tell.py", webhook)[-1]) == (SECRET, "200")
    unchanged(rotate(secrets=label))


def test_what_a_leaver_knew_is_worthless(host, webhook):
    """A shared password is replaced, and a user is gone, of whom nothing stays here."""
    alice, bob = password(), password("bob")
    users = rotate(users="1") | {"mlflow_users": [{"name": "alice"}, {"name": "bob", "state": "absent"}]}
    assert status(host, alice, AUTHORITY.read_text()) == "200"
    output = deployed(users)
    assert "New passwords, to be told to their users: alice; the old ones are refused" in output
    authority = AUTHORITY.read_text()
    assert [status(host, alice, authority), status(host, password(), authority), status(host, bob, authority, "bob")] == ["401", "200", "401"]
    assert not (CREDENTIALS / "mlflow.test" / "bob.txt").exists()
    kept = password()
    unchanged(users)
    assert password() == kept


def test_passwords_that_were_replaced_halfway_are_replaced_by_the_next_run(host, webhook):
    cut_off("mlflow_nginx : Write the users", 0.2, rotate(users="2"))
    deployed(rotate(users="2"))
    assert status(host, password(), AUTHORITY.read_text()) == "200"
    unchanged(rotate(users="2"))


def test_both_authorities_are_trusted_while_clients_take_the_new_one(host, webhook):
    old = AUTHORITY.read_text()
    output = deployed(rotate(ca="1"))
    assert "which holds the present and the next one; a run on 20" in output
    both = AUTHORITY.read_text()
    assert both.startswith(old) and both.count("BEGIN CERTIFICATE") == 2
    assert (status(host, password(), old), status(host, password(), both)) == ("200", "200")
    unchanged(rotate(ca="1"))
    # The time is over.
    output = deployed(rotate(ca="1") | {"mlflow_nginx_ca_overlap_days": 0})
    assert "clients without the present" in output
    new = AUTHORITY.read_text()
    assert new == both.removeprefix(old)
    assert [status(host, password(), text) for text in (old, both, new)] == ["000", "200", "200"]
    assert not host.run("ls /etc/nginx/mlflow/tls | grep selfsigned[.]").stdout
    unchanged(rotate(ca="1"))


def test_an_authority_whose_key_was_stolen_is_replaced_at_once(host, webhook):
    old = AUTHORITY.read_text()
    deployed(rotate(ca="2") | {"mlflow_nginx_ca_overlap_days": 0})
    assert [status(host, password(), text) for text in (old, AUTHORITY.read_text())] == ["000", "200"]
    unchanged(rotate(ca="2"))


def test_the_commands_of_the_documentation_rotate(host, webhook, tmp_path):
    """As typed where the inventory is."""
    before = (password(), host.file(SECRETS).content_string)
    (line,) = documented("Rotate passwords and keys")
    command = line.replace("-i inventory", f"-i {os.environ['MLFLOW_TEST_INVENTORY']}")
    file = tmp_path / "users.json"
    file.write_text(json.dumps(USERS))
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1"}
    run = subprocess.run(f"{command} -e @{file}", shell=True, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, said(run)
    assert not {password(), host.file(SECRETS).content_string} & set(before)
    assert recap(run)["failed"] == 0
