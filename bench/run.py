#!/usr/bin/env python
"""Measure this deployment against the tutorial's, on one booted host, in one run.

Writes docs/performance.json (what was measured) and, from it, docs/performance.md and docs/performance.svg. About 20 minutes; leave the machine
alone meanwhile. The hosts are containers that boot systemd, as the tests' (see CONTRIBUTING.md): the server, one on which the tutorial's commands
are timed, and a client with a browser.
"""

from __future__ import annotations

import argparse
import base64
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import yaml
from report import render

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "bench"
WORK = ROOT / ".cache/bench"
INVENTORY = WORK / "inventory"
ON_HOST = "/opt/bench"
PREFIX = os.environ.get("MLFLOW_TEST_PREFIX") or "mlflow"
SERVER, TYPED, CLIENT = f"{PREFIX}-bench", f"{PREFIX}-bench-typed", f"{PREFIX}-bench-client"
DOMAIN = "mlflow.test"
CALLS = ["get experiment", "log metric", "create run", "log batch of 100", "search 10,000 runs"]
SMALL_CALLS = CALLS[:3]
PLAIN = {"mlflow_tls": "none", "mlflow_accept_plain_http": True}


def say(text):
    print(f"\033[1mbench: {text}\033[0m", flush=True)


def output_of(command, **options):
    """What a command prints; with its errors, and the end of this run, where it fails."""
    done = subprocess.run(command, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT, **options)
    if done.returncode:
        sys.exit(f"{done.stdout[-3000:]}\nbench: {' '.join(map(str, command))[:200]} failed")
    return done.stdout


def on(host, *command, text=None):
    return output_of(["podman", "exec", "--interactive", host, *command], input=text or "")


def script(host, name, *arguments):
    return on(host, "bash", "-s", "--", *arguments, text=(HERE / name).read_text())


def playbook(path, inventory, **variables):
    environment = {
        **os.environ,
        "ANSIBLE_CALLBACKS_ENABLED": "ansible.posix.profile_roles",
        "ANSIBLE_HOME": str(ROOT / ".cache/ansible"),
        "ANSIBLE_NOCOLOR": "1",
        "MOLECULE_PROJECT_DIRECTORY": str(ROOT),
    }
    return output_of(["ansible-playbook", path, "--inventory", inventory, "--extra-vars", json.dumps(variables)], env=environment)


def hosts(action, *names):
    described = {
        SERVER: {"name": SERVER, "hostname": DOMAIN},
        TYPED: {"name": TYPED, "hostname": "typed.test"},
        CLIENT: {"name": CLIENT, "hostname": "client.test", "image_platform": "debian12"},  # Ubuntu's archive has no Chromium
    }
    playbook(f"molecule/shared/{action}.yml", "localhost,", molecule_yml={"scenario": {"name": "bench"}, "platforms": [described[name] for name in names]})


def provide_hosts():
    if subprocess.run(["podman", "container", "exists", SERVER], check=False).returncode == 0:
        return
    shutil.rmtree(INVENTORY / "credentials", ignore_errors=True)  # those of hosts that were there before
    hosts("create", SERVER, TYPED, CLIENT)
    for host in SERVER, TYPED, CLIENT:
        on(host, "apt-get", "update")
    INVENTORY.mkdir(parents=True, exist_ok=True)


def write_inventory():
    INVENTORY.mkdir(parents=True, exist_ok=True)
    server = {"hosts": {SERVER: None}}
    variables = {
        **yaml.safe_load((ROOT / ".config/molecule/config.yml").read_text())["provisioner"]["connection_options"],
        "ansible_ssh_private_key_file": str(ROOT / ".cache/ssh_key"),
        "mlflow_domain": DOMAIN,
        # The test hosts share a cache of downloads; here each installer is to download for itself.
        "mlflow_venv_cache_dir": "/var/cache/bench/uv",
    }
    groups = dict.fromkeys(("mlflow_database", "mlflow_tracking", "mlflow_proxy"), server)
    (INVENTORY / "hosts.yml").write_text(yaml.safe_dump({"all": {"vars": variables, "children": groups}}))


def deploy(**variables):
    """Run site.yml: how long it took, what it changed, and how long each role took."""
    start = time.monotonic()
    output = playbook("site.yml", str(INVENTORY), **variables)
    seconds = time.monotonic() - start
    roles = {name: float(took) for name, took in re.findall(r"^(?:mlops\.mlflow\.)?(mlflow_\w+) -+ ([\d.]+)s$", output, re.MULTILINE)}
    return {"seconds": seconds, "changed": int(re.search(rf"^{SERVER} .*changed=(\d+)", output, re.MULTILINE)[1]), "roles": roles}


def type_tutorial(host, version):
    """Type the tutorial's commands: how long they took, and each step of them."""
    marks = re.findall(r"^step (\w+) ([\d.]+)$", script(host, "tutorial.sh", version), re.MULTILINE)
    steps = {name: float(end) - float(start) for (name, start), (_next, end) in zip(marks, marks[1:])}
    return {"seconds": sum(steps.values()), "steps": steps}


def copy_venv():
    with subprocess.Popen(["podman", "exec", TYPED, "tar", "-C", "/opt", "-c", "tutorial"], stdout=subprocess.PIPE) as packed:
        subprocess.run(["podman", "exec", "--interactive", SERVER, "tar", "-C", "/opt", "-x"], stdin=packed.stdout, check=True)
    if packed.returncode:
        sys.exit("bench: the tutorial's virtual environment could not be copied")


def installed_version():
    return on(SERVER, "/opt/mlflow/current/bin/python", "-c", "from importlib.metadata import version; print(version('mlflow'))").strip()


def machine():
    def first_line(*command):
        return on(SERVER, *command).splitlines()[0]

    cpu = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "date": datetime.date.today().isoformat(),
        "revision": output_of(["git", "rev-parse", "--short", "HEAD"]).strip(),
        "cores": os.cpu_count(),
        "cpu": cpu[1] if cpu else "unknown",
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "kernel": os.uname().release,
        "system": re.search(r'PRETTY_NAME="(.*)"', on(SERVER, "cat", "/etc/os-release"))[1],
        "MLflow": installed_version(),
        "Python": first_line("/opt/mlflow/current/bin/python", "--version").split()[-1],
        "nginx": first_line("nginx", "-v").split("/")[-1].split()[0],
        "PostgreSQL": first_line("psql", "--version").split()[2],
        "systemd": first_line("systemctl", "--version").split()[1],
        "ansible-core": re.search(r"core ([\d.]+)", output_of(["ansible", "--version"]))[1],
    }


def basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def servers(scheme="http"):
    """Where each server is, how to log in, and which unit it is."""
    password = (INVENTORY / f"credentials/{DOMAIN}/mlflow.txt").read_text().strip()
    ours = {"url": f"{scheme}://{DOMAIN}", "authorization": basic("mlflow", password), "unit": "mlflow.service"}
    tutorials = {"authorization": basic("tutorial", "tutorial"), "unit": "tutorial.service"}
    found = {
        "ours": ours,
        "tutorial": {"url": f"http://{DOMAIN}:8001", **tutorials},
        "keepalive": {"url": f"http://{DOMAIN}:8002", **tutorials},
        "bcrypt": {"url": f"http://{DOMAIN}:8003", **tutorials},
        "raw": {"url": f"http://{DOMAIN}:8004", "authorization": "", "unit": ""},
    }
    run = f"9002/{10001:032x}/artifacts"
    for name, server in found.items():
        server["artifacts"] = f"{server['url']}/{'' if name == 'raw' else 'api/2.0/mlflow-artifacts/artifacts/'}{run}"
    return found


def measure(what, **plan):
    """Have load.py measure on the server's host."""
    command = ["podman", "exec", "--interactive", "--privileged", SERVER, "python3", f"{ON_HOST}/load.py"]  # privileged: to see each process's memory
    return [json.loads(line) for line in output_of(command, input=json.dumps({"measure": what, **plan})).splitlines()]


def wait_until_healthy(unit, address):
    question = f"import urllib.request as u; print(u.urlopen('http://{address}/health').status)"
    for _count in range(300):
        if "200" in subprocess.run(["podman", "exec", SERVER, "python3", "-c", question], check=False, capture_output=True, text=True).stdout:
            return
        time.sleep(0.2)
    sys.exit(f"bench: {unit} does not become healthy")


def prepare_server(version):
    """The tutorial's server beside the deployment, what it is compared with, the tools, and the same data in both databases."""
    if subprocess.run(["podman", "exec", SERVER, "test", "-e", f"{ON_HOST}/ready"], check=False).returncode:
        type_tutorial(SERVER, version)
        script(SERVER, "variants.sh")
        wait_until_healthy("tutorial", "127.0.0.1:5000")
        for database in "mlflow", "tutorial":
            on(SERVER, "runuser", "-u", "postgres", "--", "psql", "--quiet", "--set=ON_ERROR_STOP=1", database, text=(HERE / "seed.sql").read_text())
        on(CLIENT, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes", "--no-install-recommends", "chromium-headless-shell")
        on(SERVER, "mkdir", "-p", ON_HOST)
        on(SERVER, "touch", f"{ON_HOST}/ready")
    for name in "load.py", "calls.lua", "commit.sql":
        on(SERVER, "tee", f"{ON_HOST}/{name}", text=(HERE / name).read_text())


def settled_memory(unit):
    """Memory once no more processes of a unit have appeared for 20 seconds."""
    counts = []
    while len(counts) < 5 or len(set(counts[-5:])) > 1:
        time.sleep(5)
        found = measure("memory")[0]
        counts.append(found["units"][unit]["processes"])
        if len(counts) > 60:
            sys.exit(f"bench: {unit} does not settle: {counts} processes")
    return found


def idle_memory():
    on(SERVER, "systemctl", "stop", "tutorial")
    on(SERVER, "systemctl", "restart", "mlflow")
    wait_until_healthy("mlflow", DOMAIN)
    alone = settled_memory("mlflow")
    on(SERVER, "systemctl", "start", "tutorial")
    wait_until_healthy("tutorial", "127.0.0.1:5000")
    both = settled_memory("tutorial")
    return {"ours": alone["units"]["mlflow"], "tutorial": both["units"]["tutorial"], "host": alone["host"], "units": alone["units"]}


def loaded_memory():
    units = measure("memory")[0]["units"]
    on(SERVER, "systemctl", "stop", "tutorial")
    time.sleep(2)
    alone = measure("memory")[0]
    return {"ours": units["mlflow"], "tutorial": units["tutorial"], "host": alone["host"], "units": alone["units"]}


def cells(quick):
    """What is called, by how many clients, of which servers. A password that is hashed for each request takes its time."""
    for call in CALLS:
        slow = {"seconds": 8} if call.startswith("search") else {}
        for clients in [1, 8] if quick or slow else [1, 8, 32]:
            kept = ["keepalive"] if clients == 1 and call in SMALL_CALLS else []
            yield {"call": call, "clients": clients, "servers": ["ours", "tutorial", *kept], **slow}
    yield {"call": "get experiment", "clients": 8, "servers": ["bcrypt"], "seconds": 5}
    yield {"call": "static file", "clients": 8, "servers": ["ours", "tutorial", "bcrypt"], "seconds": 5}


def secure_cells(quick):
    for call in SMALL_CALLS:
        for clients in [8] if quick else [1, 8]:
            yield {"call": call, "clients": clients, "servers": ["ours"]}
    yield {"call": "static file", "clients": 8, "servers": ["ours"]}


def browse(rounds, among):
    """Load the interface in the client's browser."""
    plan = {"rounds": rounds, "servers": among}
    on(CLIENT, "mkdir", "-p", ON_HOST)
    on(CLIENT, "tee", f"{ON_HOST}/browser.py", text=(HERE / "browser.py").read_text())
    return json.loads(on(CLIENT, "python3", f"{ON_HOST}/browser.py", text=json.dumps(plan)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="short rounds without the cold deployments, on hosts that stay for the next quick run; writes to tests/output, and its figures say little",
    )
    quick = parser.parse_args().quick
    rounds, seconds, large = (1, 1, 128) if quick else (3, 3, 1024)
    output = ROOT / ("tests/output" if quick else "docs")

    say("making the hosts")
    if not quick:
        hosts("destroy", SERVER, TYPED, CLIENT)
    provide_hosts()
    write_inventory()
    found = {"quick": quick}
    if not quick:
        say("deploying to a bare host, and once more")
        cold = deploy()
        found["deploy"] = {"cold": cold, "second": deploy()}
        say("typing the tutorial's commands on another")
        found["deploy"]["tutorial"] = type_tutorial(TYPED, installed_version())
        copy_venv()
        output_of(["podman", "stop", "--time", "1", TYPED])
    say("preparing both servers on one host")
    deploy(**PLAIN)
    prepare_server(installed_version())
    found["machine"] = machine()
    everyone = servers()

    say("memory")
    found["memory"] = {"idle": idle_memory()}
    say("API calls")
    found["cells"] = measure("api", servers=everyone, rounds=rounds, seconds=seconds, cells=list(cells(quick)))
    found["commits"] = measure("commits", clients=[8] if quick else [1, 8, 32], rounds=rounds, seconds=seconds)
    say("artifacts")
    of_artifacts = {name: everyone[name] for name in ("ours", "tutorial", "raw")}
    found["artifacts"] = measure("artifacts", servers=of_artifacts, rounds=rounds, mib=large, files=1000)[0]
    say("interface")
    both = {name: everyone[name] for name in ("ours", "tutorial")}
    found["browser"] = browse(2 * rounds, both)
    paths = sorted({asset["path"] for result in found["browser"]["tutorial"] for asset in result["assets"]})
    found["assets"] = measure("assets", servers=both, rounds=3 * rounds, paths=paths)[0]
    found["memory"]["loaded"] = loaded_memory()
    say("the same over HTTPS, as site.yml deploys it by default")
    deploy()
    secure = {"ours": servers("https")["ours"]}
    found["https"] = {
        "cells": measure("api", servers=secure, rounds=rounds, seconds=seconds, cells=list(secure_cells(quick))),
        "artifacts": measure("artifacts", servers=secure, rounds=rounds, mib=large, files=1000)[0],
        "browser": browse(2 * rounds, secure),
        "assets": measure("assets", servers=secure, rounds=3 * rounds, paths=paths)[0],
    }

    output.mkdir(exist_ok=True)
    (output / "performance.json").write_text(json.dumps(found, indent=1) + "\n")
    render(output)
    if not quick:
        hosts("destroy", SERVER, TYPED, CLIENT)
    say(f"wrote {(output / 'performance.md').relative_to(ROOT)}")


if __name__ == "__main__":
    main()
