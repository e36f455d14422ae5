# SPDX-License-Identifier: GPL-3.0-or-later
"""Count the database connections of MLflow's processes, until told to stop by the end of what it reads. Runs on the server as MLflow's user.

    connections.py <PIPE >COUNTS

COUNTS is a JSON object: for each kind of process the most that one of them had, for "all" the most that there were at once, and for "jobs" the most
processes of jobs.
"""

from __future__ import annotations

import json
import re
import select
import subprocess
import sys
from collections import Counter
from pathlib import Path

# The first that is in a process's command line.
KINDS = {"_job_runner": "runner", "_periodic_tasks": "scheduler", "huey_consumer": "consumer", "_job_subproc_entry": "job", "mlflow_serve": "worker"}


def kind(pid: str) -> str:
    try:
        command = Path("/proc", pid, "cmdline").read_text()
    except OSError:
        return "ended"
    return next((name for sign, name in KINDS.items() if sign in command), command)


def main() -> None:
    most: Counter = Counter()
    while not select.select([sys.stdin], [], [], 0.2)[0]:
        sockets = [line.split() for line in subprocess.check_output(["ss", "-Hxpn", "state", "established"], text=True).splitlines()]
        owners = {fields[4]: re.findall(r"pid=(\d+)", fields[-1]) for fields in sockets}
        # PostgreSQL's ends have the name, and the number of the other end.
        held = [owners.get(fields[6]) or ["0"] for fields in sockets if "/.s.PGSQL." in fields[3]]
        for pid, count in Counter(pids[0] for pids in held).items():
            most[kind(pid)] = max(most[kind(pid)], count)
        most["all"] = max(most["all"], len(held))
        most["jobs"] = max(most["jobs"], sum(kind(path.name) == "job" for path in Path("/proc").iterdir() if path.name.isdigit()))
    json.dump(most, sys.stdout)


if __name__ == "__main__":
    main()
