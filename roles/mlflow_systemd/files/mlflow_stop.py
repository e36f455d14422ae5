# SPDX-License-Identifier: GPL-3.0-or-later
"""End what the main process of mlflow.service left: run by systemd, as root, after it.

* Through a restart the workers finish the requests that they have, beside those of the next start. Those of the start before must be quick.
* A stop waits for them, for WAIT seconds, and leaves nothing.
* After a crash or a start that failed nothing is left either: between two attempts systemd stops a service without running this again.

Whatever else the service had started, such as job workers, ends at once.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

WAIT = 60  # seconds
WORKER = b"mlflow_serve.py\0serve\0"


def show(name: str, what: str) -> str:
    return subprocess.run(["systemctl", "show", "--value", f"--property={name}", what], stdout=subprocess.PIPE, text=True, check=False).stdout.strip()


def read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # it has ended
        return b""


def processes(group: Path) -> set[int]:
    return set(map(int, group.read_text().split())) - {os.getpid()}


def workers(group: Path) -> set[int]:
    return {pid for pid in processes(group) if read(pid, "cmdline").endswith(WORKER)}


def send(pids: Iterable[int], what: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, what)
        except ProcessLookupError:
            pass


def wait(group: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while processes(group) and time.monotonic() < deadline:
        time.sleep(0.1)


def own_group(unit: str) -> Path:
    """The file that lists the processes of the unit, of which this is one; the second and third are for version 1 of cgroups."""
    path = show("ControlGroup", unit)
    files = [Path(top + path, "cgroup.procs") for top in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd")]
    found = [file for file in files if path.endswith(f"/{unit}") and file.exists() and os.getpid() in map(int, file.read_text().split())]
    return found[0] if found else sys.exit(f"systemd does not say where the processes of {unit} are")


def main(unit: str) -> None:
    group = own_group(unit)
    job = show("Job", unit)
    job_type = show("JobType", job) if job not in ("", "0") else "none"
    serving = workers(group)
    send(processes(group) - serving, signal.SIGKILL)
    if job_type == "restart":
        main_process = show("ExecMainPID", unit).encode()  # that has just ended, and whose session its workers are of
        wait(group, 2)  # those that have nothing to finish
        send({pid for pid in serving & workers(group) if read(pid, "stat").rpartition(b")")[2].split()[3:4] != [main_process]}, signal.SIGTERM)
        return
    if job_type == "stop":
        wait(group, WAIT)
    send(processes(group), signal.SIGQUIT)  # they remove the pieces of uploads
    wait(group, 5)
    send(processes(group), signal.SIGKILL)
    wait(group, 5)  # whoever stopped MLflow relies on it: a migration may follow


if __name__ == "__main__":
    main(sys.argv[1])
