# SPDX-License-Identifier: GPL-3.0-or-later
"""An nginx that others use too: it keeps running, with their sites as they are, and takes ours as a whole or not at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import deployment
import pytest
from proxy import ASK, GOOD, PLAYBOOK, SITE, WRONG, ask, deployed, failed, file, refused, unchanged

# What tutorials call these things.
SHOP = """
upstream mlflow { server 127.0.0.1:5999; }
map $uri $mlflow_auth_any { default shop; }
limit_req_zone $binary_remote_addr zone=mlflow_auth:1m rate=100r/s;
ssl_session_cache shared:mlflow:1m;
server { listen 80; server_name shop.test; return 200 $mlflow_auth_any; }
"""
LONG = "ip-10-20-30-40.us-central1-a.c.a-project-with-a-long-name-123456.internal"
LOGS = "/var/log/nginx/mlflow"
ENABLED = "/etc/nginx/sites-enabled/zz-mlflow.conf"
NONSENSE = {"mlflow_nginx_extra_directives": "nonsense on;"}
REFUSAL = f'unknown directive "nonsense" in {ENABLED}'


@pytest.fixture(scope="module", autouse=True)
def nginx(host):
    """What was there before."""
    host.run_expect([0], "DEBIAN_FRONTEND=noninteractive apt-get install --yes nginx")
    host.run_expect([0], "printf %%s %s >/etc/nginx/sites-enabled/shop && systemctl reload nginx", SHOP)
    assert ask(host, 80, "shop.test") == "200 shop"


def survives(host) -> None:
    """Whoever restarts nginx now finds the other site."""
    host.run_expect([0], "nginx -t")
    host.run_expect([0], "systemctl restart nginx")
    assert ask(host, 80, "shop.test") == "200 shop"


def test_configuration_that_cannot_take_the_site_is_refused(host):
    main = host.file("/etc/nginx/nginx.conf").content_string
    with file(host, "/etc/nginx/nginx.conf", main.replace("include /etc/nginx/modules-enabled", "# include /etc/nginx/modules-enabled")):
        refused('add the line "include /etc/nginx/modules-enabled/*.conf;" at the top of /etc/nginx/nginx.conf')
    with file(host, "/etc/nginx/nginx.conf", main.replace("include /etc/nginx/sites-enabled", "# include /etc/nginx/sites-enabled")):
        refused('add the line "include /etc/nginx/sites-enabled/*;" to the block http of /etc/nginx/nginx.conf')
    with file(host, "/etc/nginx/sites-enabled/broken", "server { nonsense; }"):
        refused('nginx refuses its configuration as it is, mend that first: nginx: [emerg] unknown directive "nonsense" in /etc/nginx/sites-enabled/broken:1')
    with file(host, "/etc/nginx/conf.d/hash.conf", "server_names_hash_bucket_size 64;"):
        refused("is too long for the server_names_hash_bucket_size 64 that is set in the configuration of nginx: set it to 128 there", {"mlflow_domain": LONG})
    with file(host, "/etc/nginx/sites-enabled/copy", "map $uri $mlops_mlflow_flask { default 1; }"):
        refused("nginx reads a name of it in /etc/nginx/sites-enabled/copy: mlops_mlflow_flask: move that file")


def written(host) -> str:
    """What nginx reads of the site, with types, targets, owners and modes."""
    found = "/etc/nginx/mlflow /etc/nginx/sites-available /etc/nginx/sites-enabled /etc/systemd/system/nginx.service.d"
    return host.check_output(f"find {found} -printf '%p %y %l %u:%g %m\\n' | sort; find {found} -type f | sort | xargs sha256sum")


def cut_off(host) -> None:
    """A run writes a site that nginx refuses, and ends before nginx has tested it."""
    waiting = f'#!/bin/sh\nif grep -qs nonsense {SITE}; then touch /run/waiting; sleep 600; fi\nexec /usr/sbin/nginx "$@"\n'
    host.run_expect([0], "printf %%s %s >/usr/local/sbin/nginx && chmod +x /usr/local/sbin/nginx", waiting)
    run = subprocess.Popen(deployment.command(NONSENSE, playbook=PLAYBOOK), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 300
    while not host.file("/run/waiting").exists:
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.5)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    host.run("pkill --signal KILL --full '[A]nsiballZ'; pkill --signal KILL --full 'local/[s]bin/nginx'; pkill --full '[s]leep 600'")
    host.run_expect([0], "rm /usr/local/sbin/nginx /run/waiting; grep -q nonsense %s", ENABLED)


def test_a_site_that_nginx_refuses_is_never_enabled(host):
    failed(REFUSAL, NONSENSE)
    for path in ENABLED, SITE, "/etc/nginx/mlflow/mlflow_auth.pm", "/etc/nginx/mlflow/tls/current":
        assert not host.file(path).exists and not host.file(path).is_symlink, path
    survives(host)


def test_a_site_that_a_run_enabled_before_it_was_cut_off_is_disabled(host):
    cut_off(host)
    failed(REFUSAL, NONSENSE)
    assert not host.file(ENABLED).is_symlink
    survives(host)


def test_origins_that_no_browser_sends_are_refused():
    refused('mlflow_cors_allowed_origins has "*": write each origin as browsers send it', {"mlflow_cors_allowed_origins": ["https://a.test", "*"]})


def test_names_of_other_sites_are_theirs(host):
    deployed({"mlflow_domain": LONG})
    assert ask(host, name=LONG).split()[0] == "401"
    deployed()
    unchanged()
    survives(host)
    assert [ask(host).split()[0], ask(host, password=WRONG).split()[0], ask(host, password=GOOD).split()[0]] == ["401", "401", "502"]


@pytest.mark.parametrize("protocol", ["http1.1", "http2"])
@pytest.mark.parametrize(("path", "kind"), [("/api/2.0/mlflow/x", "application/json"), ("/", "text/html")])
def test_refusals_are_the_same_in_each_protocol(host, protocol, path, kind):
    """MLflow's client shows its user the JSON."""
    host.run_expect([0], "command -v curl || DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends curl")
    for method in ("", "--head", "--data x", "--upload-file /etc/services"):
        answer = host.check_output(f"curl --silent --insecure --include --{protocol} {method} --resolve mlflow.test:443:127.0.0.1 https://mlflow.test{path}")
        head, _blank, body = answer.replace("\r", "").partition("\n\n")
        status, *headers = head.lower().splitlines()
        assert status.split()[:2] == [protocol.replace("http", "http/"), "401"]
        assert {'www-authenticate: basic realm="mlflow"', f"content-type: {kind}"} <= set(headers)
        assert method == "--head" or (kind == "text/html") == ("<html>" in body) == ("MLFLOW_TRACKING_USERNAME" not in body)


def test_a_change_that_nginx_refuses_is_taken_back(host):
    before, running = written(host), workers(host)
    failed(REFUSAL, NONSENSE)
    assert (written(host), workers(host)) == (before, running)
    survives(host)
    unchanged()
    deployed({"mlflow_nginx_extra_directives": "add_header X-Corrected yes;"})
    assert "X-Corrected" in host.file(SITE).content_string
    deployed()
    assert written(host) == before, "no backup stays behind"


def test_a_change_that_was_cut_off_before_the_test_is_taken_back(host):
    before = written(host)
    cut_off(host)
    failed(REFUSAL, NONSENSE)
    assert written(host) == before
    survives(host)
    cut_off(host)
    deployed()
    assert written(host) == before
    unchanged()


def test_what_was_changed_by_hand_is_as_written_again(host):
    before = written(host)
    files = f"{SITE} /etc/nginx/mlflow/mlflow_auth.pm /etc/systemd/system/nginx.service.d/mlflow.conf"
    directories = "/etc/nginx/mlflow /etc/nginx/mlflow/tls /etc/nginx/mlflow/tls/selfsigned /etc/systemd/system/nginx.service.d"
    host.run_expect([0], f"for file in {files}; do echo '# by hand' >>$file; done; chmod 640 {files} && chown www-data: {files}")
    host.run_expect([0], f"chmod 700 {directories} && chown www-data: {directories}; ln -sfn files /etc/nginx/mlflow/tls/current; ln -sf shop {ENABLED}")
    assert written(host) != before
    deployed()
    assert written(host) == before
    unchanged()


@pytest.mark.parametrize("spelling", ["\"satisfy\"\t'any';", "location /x { satisfy # why\n any; }"])
def test_satisfy_any_is_refused_in_every_spelling(spelling):
    refused("mlflow_nginx_extra_directives has satisfy any", {"mlflow_nginx_extra_directives": spelling})


def test_satisfy_any_lets_nobody_in_from_elsewhere(host):
    with file(host, "/etc/nginx/any", "satisfy any; allow 127.0.0.1; deny all;"):
        failed('"satisfy" directive is duplicate in /etc/nginx/any:1', {"mlflow_nginx_extra_directives": "include /etc/nginx/any;"})
    with file(host, "/etc/nginx/conf.d/any.conf", "satisfy any; allow 127.0.0.1; deny all;"):
        host.run_expect([0], "systemctl restart nginx")
        assert ask(host).split()[0] == "401"
        assert ask(host, password=WRONG).split()[0] == "401"
    survives(host)


def test_logs_are_for_their_readers_alone(host):
    host.run_expect([0], f"touch {LOGS}.access.log.1 && chmod 0644 {LOGS}.*")  # as they were
    deployed()
    modes = f"stat --format='%a %U %G' {LOGS}.*"
    assert set(host.check_output(modes).splitlines()) == {"640 www-data adm"}
    host.run_expect([0], f"rm {LOGS}.*")
    deployed()
    assert set(host.check_output(modes).splitlines()) == {"640 www-data adm"}
    host.run_expect([0], "logrotate --force /etc/logrotate.d/nginx")
    unchanged()


def workers(host) -> set[str]:
    return set(host.check_output("pgrep --full '[n]ginx: worker process *$'").split())


def test_a_worker_that_was_born_again_hides_nothing(host):
    before = workers(host)
    host.run_expect([0], f"touch {SITE}; sleep 1; kill -9 {min(before)}; sleep 1")
    assert len(workers(host) - before) == 1
    deployed()
    assert not workers(host) & before, "all of them have the file that is there"
    host.run_expect([0], f"touch {SITE}; sleep 1; kill -9 {' '.join(workers(host))}; sleep 1")
    before = workers(host)
    deployed()
    assert not workers(host) & before, "not even where no worker is older than the file"
    unchanged()
    host.run_expect([0], "sleep 1; nginx -s reload; sleep 1")
    unchanged()


def test_nginx_comes_back_when_it_is_killed(host):
    for _count in range(7):  # systemd gives up after five by itself
        before = host.check_output("cat /run/nginx.pid")
        host.run_expect([0], "kill -9 $(cat /run/nginx.pid)")
        deadline = time.monotonic() + 30
        while host.run("systemctl is-active nginx").stdout.strip() != "active" or host.run("cat /run/nginx.pid").stdout.strip() == before:
            assert time.monotonic() < deadline, host.run("systemctl status nginx").stdout
            time.sleep(0.5)
    assert ask(host, 80, "shop.test") == "200 shop"
    assert ask(host).split()[0] == "401"


def test_refusals_reach_who_sends_slowly(host):
    """A wrong password, and a body that is too large, to clients that read no answer before they have sent all."""
    code = """
import json, socket, ssl, sys, threading, time
def send(name, headers, size, answers):
    plain = socket.create_connection(("127.0.0.1", 443))
    with ssl._create_unverified_context().wrap_socket(plain) as here:
        here.sendall(f"PUT /api/2.0/mlflow/{name} HTTP/1.1\\r\\nHost: mlflow.test\\r\\n{headers}Content-Length: {size}\\r\\n\\r\\n".encode())
        for _second in range(40):
            here.sendall(b"x" * (size // 40))
            time.sleep(1)
        here.settimeout(20)
        answers[name] = here.recv(100).decode().split()[1]
answers = {}
threads = [threading.Thread(target=send, args=(*words, answers)) for words in json.loads(sys.argv[1])]
[thread.start() for thread in threads]; [thread.join() for thread in threads]
print(json.dumps(answers))
"""
    clients = [["wrong", f"Authorization: Basic {WRONG}\r\n", 4000], ["large", f"Authorization: Basic {GOOD}\r\n", 200 << 20]]
    assert json.loads(host.check_output("python3 -c %s %s", code, json.dumps(clients))) == {"wrong": "401", "large": "413"}


def test_the_user_of_nginx_is_asked_for(host):
    main = host.file("/etc/nginx/nginx.conf").content_string
    host.run_expect([0], "id nginx || useradd --system nginx")
    with file(host, "/etc/nginx/nginx.conf", main.replace("user www-data;", "user nginx;")):
        deployed()
        unchanged()
        assert host.file("/etc/nginx/mlflow.htpasswd").group == "nginx"
        assert ask(host, password=GOOD).split()[0] == "502"
        assert ask(host, password=WRONG).split()[0] == "401"
    host.run_expect([0], "nginx -s reload")
    deployed()
    unchanged()


def test_what_was_there_before_is_there_still(host):
    survives(host)
    assert ASK and "Welcome to nginx" in host.check_output("python3 -c 'import urllib.request as u; print(u.urlopen(\"http://127.0.0.1/\").read().decode())'")
