"""Measures on the server's own host: run.py copies it there, gives the plan on standard input and reads JSON.

The load comes from the same host over its loopback interface: wrk for API calls, curl for files, pgbench for bare commits.
All rounds are interleaved: each server in turn, then all of them again.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
SHARED_UNITS = ("nginx.service", "postgresql@")


def unit_of(cgroup):
    return next((part for part in reversed(cgroup.split("/")) if part.endswith((".service", ".scope"))), "")


def memory():
    """PSS in MB and processes, of each unit and of everything that runs on the host but this."""
    units, total, tests = {}, 0, {os.getpid(), os.getppid()}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            pss = re.search(r"^Pss: +(\d+)", (process / "smaps_rollup").read_text(), re.MULTILINE)
            if int(process.name) in tests or not pss:
                continue
            size, unit = int(pss[1]) * 1024 / 1e6, unit_of((process / "cgroup").read_text().strip())
            total += size
            of_unit = units.setdefault(re.sub(r"@.*", "", unit.removesuffix(".service")), {"mb": 0, "processes": 0})
            of_unit["mb"] += size
            of_unit["processes"] += 1
    return {"units": units, "host": total}


def cpu_seconds(unit):
    """What the service, nginx and PostgreSQL have used since they started, processes that have ended included."""
    used = 0
    for path in Path("/sys/fs/cgroup/system.slice").rglob("cpu.stat"):
        name = path.parent.name
        if name == unit or (name.startswith(SHARED_UNITS) and name.endswith(".service")):
            used += int(re.search(r"usage_usec (\d+)", path.read_text())[1])
    return used / 1e6


def wrk(server, call, clients, seconds):
    before = cpu_seconds(server["unit"])
    command = ["wrk", "--threads=1", f"--connections={clients}", f"--duration={seconds}", "--timeout=30", f"--script={HERE}/calls.lua", server["url"]]
    environment = {**os.environ, "CALL": call, "AUTHORIZATION": server["authorization"]}
    output = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    result = json.loads(output.splitlines()[-1])
    if result["errors"]:
        sys.exit(f"{call}, {clients} clients, {server['url']}: not all answers were good\n{output}")
    return {**result, "cpu": cpu_seconds(server["unit"]) - before}


def curl(server, *arguments):
    """Seconds that curl took, and the bytes that came."""
    config = f'header = "Authorization: {server["authorization"]}"\n' if server["authorization"] else ""
    command = ["curl", "--silent", "--show-error", "--fail", "--insecure", "--write-out", "%{size_download}\n", "--config", "-", *arguments]
    start = time.monotonic()
    done = subprocess.run(command, input=config, check=False, capture_output=True, text=True)
    seconds = time.monotonic() - start
    if done.returncode:
        sys.exit(f"curl {' '.join(arguments)}: {done.stderr[-500:]}")
    return {"seconds": seconds, "bytes": sum(map(int, done.stdout.split()))}


def api(plan):
    """Each cell of the plan: one call by so many clients to some of the servers."""
    for cell in plan["cells"]:
        rounds = {name: [] for name in cell["servers"]}
        for name in rounds:
            wrk(plan["servers"][name], cell["call"], cell["clients"], 1)  # warm
        for _count in range(plan["rounds"]):
            for name, results in rounds.items():
                results.append(wrk(plan["servers"][name], cell["call"], cell["clients"], cell.get("seconds", plan["seconds"])))
        yield {"call": cell["call"], "clients": cell["clients"], "rounds": rounds}


def commits(plan):
    """Single-row commits, as fast as PostgreSQL makes them: what no call that writes can pass."""
    for clients in plan["clients"]:
        command = ["pgbench", "--no-vacuum", f"--file={HERE}/commit.sql", f"--client={clients}", f"--time={plan['seconds']}", "postgres"]
        found = []
        for _count in range(plan["rounds"]):
            output = subprocess.run(["runuser", "-u", "postgres", "--", *command], check=True, cwd="/", capture_output=True, text=True).stdout
            found.append(float(re.search(r"tps = ([\d.]+)", output)[1]))
        yield {"clients": clients, "rounds": found}


def artifacts(plan):
    """One large file and many small ones, up and down; the raw server has what the first one stored."""
    large, small = HERE / "large.bin", HERE / "small.bin"
    with large.open("wb") as file:
        for _count in range(plan["mib"]):
            file.write(os.urandom(1 << 20))
    small.write_bytes(os.urandom(100_000))
    several, quiet = ("--parallel", "--parallel-max", "8"), ("--output", "/dev/null")
    names = f"small/[1-{plan['files']}].bin"
    found = {}
    for turn in range(plan["rounds"]):
        for name, server in plan["servers"].items():
            results = found.setdefault(name, {"large up": [], "large down": [], "small up": [], "small down": []})
            if name == "raw":
                start = time.monotonic()
                subprocess.run(["cp", large, HERE / "copy.bin"], check=True)
                results["large up"].append({"seconds": time.monotonic() - start})
                os.sync()
            else:
                results["large up"].append(curl(server, "--upload-file", str(large), *quiet, f"{server['artifacts']}/large{turn}.bin"))
                os.sync()  # the next one is not to wait for this one's writes
                results["small up"].append(curl(server, *several, "--upload-file", str(small), *quiet, f"{server['artifacts']}/{turn}{names}"))
                os.sync()
        for name, server in plan["servers"].items():
            for size, what, options in ("large down", f"large{turn}.bin", ()), ("small down", f"{turn}{names}", several):
                result = curl(server, *options, *quiet, f"{server['artifacts']}/{what}")
                wanted = plan["mib"] << 20 if size == "large down" else plan["files"] * 100_000
                if result["bytes"] != wanted:
                    sys.exit(f"{name}, {size}: {result['bytes']} bytes came, not {wanted}")
                found[name][size].append(result)
    yield found


def assets(plan):
    """The files of the interface, over six connections as a browser opens them."""
    found = {name: [] for name in plan["servers"]}
    for _count in range(plan["rounds"]):
        for name, server in plan["servers"].items():
            urls = [part for path in plan["paths"] for part in ("--output", "/dev/null", server["url"] + path)]
            found[name].append(curl(server, "--parallel", "--parallel-max", "6", "--header", "Accept-Encoding: gzip, deflate, br, zstd", *urls))
    yield found


if __name__ == "__main__":
    wanted = json.load(sys.stdin)
    if wanted["measure"] == "memory":
        print(json.dumps(memory()))
    else:
        for line in {"api": api, "commits": commits, "artifacts": artifacts, "assets": assets}[wanted["measure"]](wanted):
            print(json.dumps(line), flush=True)
