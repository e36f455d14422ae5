# SPDX-License-Identifier: GPL-3.0-or-later
"""What MLflow could do to its host if somebody took it over: nothing, tried from inside its sandbox."""

from __future__ import annotations

import re

import pytest

PROBE = "/run/systemd/system/mlflow-probe.service"
PYTHON = "/opt/mlflow/current/bin/python"
SYSCALL = "import ctypes, os; libc = ctypes.CDLL(None, use_errno=True); {}; print(os.strerror(ctypes.get_errno()))"


def properties(host) -> dict[str, str]:
    return dict(line.split("=", 1) for line in host.check_output("systemctl show mlflow.service").splitlines() if "=" in line)


@pytest.fixture(scope="module")
def inside(host):
    """Runs a script of the shell as MLflow runs: by a unit that differs from MLflow's in nothing but what it starts."""
    lines = host.check_output("systemctl cat mlflow.service").splitlines()
    kept = [line for line in lines if not re.match("Exec|Type=|Sockets=|Requires=|Restart|RuntimeDirectory|WantedBy=", line)]
    started = ["[Service]", "Type=oneshot", "ExecStart=/bin/sh /run/probe.sh", "StandardOutput=truncate:/run/probe.out", "StandardError=inherit"]
    host.run_expect([0], "printf %%s %s >%s && systemctl daemon-reload", "\n".join([*kept, *started, ""]), PROBE)

    def run(script: str) -> str:
        host.run("printf %%s %s >/run/probe.sh && systemctl start mlflow-probe.service", script)
        return host.check_output("cat /run/probe.out").strip()

    assert run("id -un") == "mlflow"
    yield run
    host.run_expect([0], "rm -f %s /run/probe.* && systemctl daemon-reload", PROBE)


def outside(host, script: str) -> str:
    """The same script as the same user, without the sandbox."""
    run = host.run("runuser -u mlflow -- sh -c %s", script)
    return (run.stdout + run.stderr).strip()


def test_score(host):
    said = host.check_output("systemd-analyze security mlflow.service --no-pager")
    score = float(re.search(r"Overall exposure level for mlflow.service: (\S+)", said)[1])
    print(f"systemd-analyze security: {score}")
    assert score <= 1.5, said


def test_systemd_knows_every_directive(host):
    said = host.run("systemd-analyze verify /etc/systemd/system/mlflow.service").stderr
    assert "mlflow.service" not in said
    assert host.run("journalctl --no-pager --grep 'mlflow.service:[0-9]+: '").stdout.count("Unknown") == 0


def test_running_mlflow_has_no_rights(host):
    status = host.check_output("cat /proc/%s/status", properties(host)["MainPID"])
    found = dict(re.findall(r"^(Cap\w+|NoNewPrivs|Seccomp):\s*(\w+)$", status, re.MULTILINE))
    assert {name: int(found[name], 16) for name in found} == {
        **dict.fromkeys(["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"], 0), "NoNewPrivs": 1, "Seccomp": 2
    }  # fmt: skip


def test_ceilings(host):
    found = properties(host)
    memory = int(host.check_output("sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo")) * 1024
    assert int(found["MemoryMax"]) == pytest.approx(memory * 0.75, rel=0.01)
    assert 200 < int(found["TasksMax"]) < 1000
    assert (found["OOMPolicy"], found["LimitCORE"], found["LimitCORESoft"]) == ("continue", "0", "0")


@pytest.mark.parametrize(
    "directory",
    ["/etc", "/usr/bin", "/opt/mlflow/current/bin", "/opt/mlflow/libexec", "/run", "/var/lib/mlflow", "/var/log/mlflow", "/var/cache", "/srv"],
)
def test_system_is_read_only(inside, directory):
    assert "Read-only file system" in inside(f"touch {directory}/planted")


@pytest.mark.parametrize("directory", ["/home", "/root", "/run/user", "/var/lib/mlflow/backups"])
def test_nothing_is_seen_of(inside, directory):
    assert "Permission denied" in inside(f"ls {directory}")


def test_dumps_cannot_be_swapped(inside):
    assert "Read-only file system" in inside("mv /var/lib/mlflow/backups /var/lib/mlflow/mine")


def test_own_data_can_be_written(inside):
    assert inside("cd /var/lib/mlflow/artifacts && echo kept >planted && cat planted && rm planted") == "kept"
    assert inside("dirname $(mktemp)") == "/var/lib/mlflow/tmp"


def test_what_it_writes_it_cannot_execute(host, inside):
    for directory in ["/var/lib/mlflow/artifacts", "/var/lib/mlflow/tmp", "/var/lib/mlflow/home", "/tmp", "/var/tmp", "/dev/shm"]:
        script = f"cp /bin/true {directory}/planted && {directory}/planted && echo ran; rm {directory}/planted"
        assert "Permission denied" in inside(script)
        assert outside(host, script) == "ran" or directory == "/dev/shm", "which a host may have mounted so"


def test_temporary_files_are_its_own(host, inside):
    host.run_expect([0], "touch /tmp/planted /dev/planted")
    assert inside("ls /tmp /dev").split().count("planted") == 0
    host.run_expect([0], "rm /tmp/planted /dev/planted")


def test_no_devices(inside):
    known = {"block", "char", "core", "fd", "full", "hugepages", "log", "mqueue", "null", "ptmx", "pts", "random", "shm"}
    known |= {"stderr", "stdin", "stdout", "tty", "urandom", "zero"}
    assert set(inside("ls /dev").split()) <= known


def test_other_processes_are_hidden(host, inside):
    script = "cat /proc/[0-9]*/status | sed -n 's/^Uid:.//p' | cut -f1 | sort -u"
    own = host.check_output("id -u mlflow")
    assert inside(script) == own
    assert "0" in outside(host, script).splitlines()
    assert "No such file" in inside("cat /proc/meminfo")


def test_no_setuid(host, inside):
    script = "cd /var/lib/mlflow/artifacts && touch planted && chmod u+s planted && echo done; rm planted"
    assert "Operation not permitted" in inside(script)
    assert outside(host, script) == "done"


@pytest.mark.parametrize("kind", ["user", "mount", "net", "pid", "ipc", "uts", "cgroup"])
def test_no_namespaces(host, inside, kind):
    assert "Operation not permitted" in inside(f"unshare --user --{kind} true")
    assert outside(host, f"unshare --user --{kind} true") == ""


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6", "AF_NETLINK", "AF_ALG"])
def test_no_network(host, inside, family):
    script = f"{PYTHON} -c 'import socket; socket.socket(socket.{family}, socket.SOCK_SEQPACKET if socket.{family} == socket.AF_ALG else socket.SOCK_DGRAM)'"
    assert "Address family not supported" in inside(script)
    assert outside(host, script) == "" or family == "AF_ALG", "a kernel may lack AF_ALG"


def test_network_is_its_own(host):
    """A container may not give one, and systemd then goes on without: what holds there is the filter above."""
    assert properties(host)["PrivateNetwork"] == "yes"


def test_no_system_bus(inside):
    connect = 'import socket; socket.socket(socket.AF_UNIX).connect("/run/dbus/system_bus_socket")'
    assert "Permission" in inside(f"{PYTHON} -c '{connect}'")


@pytest.mark.parametrize(
    "call",
    [
        "libc.mmap(None, 4096, 6, 0x22, -1, 0)",  # memory to write and execute
        "libc.personality(8)",
        "libc.ptrace(0, 0, 0, 0)",
        "libc.sched_setscheduler(0, 3, ctypes.byref(ctypes.c_int(0)))",
        "libc.setpriority(0, 0, 5)",
        "libc.setgroups(0, None)",
        "libc.chroot(b\"/tmp\")",
        "libc.mount(b\"none\", b\"/tmp\", b\"tmpfs\", 0, None)",
    ],
)  # fmt: skip
def test_no_system_calls_that_it_does_not_need(inside, call):
    said = inside(f"{PYTHON} -c '{SYSCALL.format(call)}'")
    assert said == "Operation not permitted" or (said == "Permission denied" and "mmap" in call), "the kernel's own refusal, from systemd 254 on"


@pytest.mark.parametrize("call", ["libc.mmap(None, 4096, 6, 0x22, -1, 0)", "libc.personality(8)", "libc.ptrace(0, 0, 0, 0)", "libc.setpriority(0, 0, 5)"])
def test_and_without_the_sandbox_it_could(host, call):
    assert outside(host, f"{PYTHON} -c '{SYSCALL.format(call)}'") == "Success"
