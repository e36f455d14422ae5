# SPDX-License-Identifier: GPL-3.0-or-later
"""Back up an MLflow deployment with restic, and restore it.

mlflow_backup.py run                 a backup, as mlflow-backup.service starts it
mlflow_backup.py finish              what comes after it, however it ended
mlflow_backup.py prepare             find or create the repository, and note what the sources are mounted on
mlflow_backup.py restore [--replace] [SNAPSHOT]
mlflow_backup.py state               the last backup, as JSON
mlflow_backup.py restic WORD...      restic itself, with the settings of this host
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

CONFIG = Path("/etc/mlflow-backup")
CACHE = "/var/cache/mlflow-backup"
SECRETS = "/etc/mlflow/secrets.env"
AUTHORITY = "/etc/nginx/mlflow/tls/selfsigned"
TAG = "mlflow"
# MLflow's launcher names unfinished uploads so; they vanish while restic reads.
PIECES = ".artifact.uploading.*"
STAGE = ".mlflow-restore"
AS_POSTGRES = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]
HEADER = re.compile(r"^COPY (\S+) \(.*\) FROM stdin;$")
# The superuser makes extensions, and every database has the schema public.
NOT_RESTORED = re.compile(r"^\d+; \d+ \d+ (EXTENSION - |COMMENT - EXTENSION |(SCHEMA - |(COMMENT|ACL) - SCHEMA )public )")
EXTENSION = re.compile(r"^\d+; \d+ \d+ EXTENSION - (\S+)", re.MULTILINE)


class Problem(Exception):
    """A sentence for the person who operates this."""


class Busy(Problem):
    pass


class Settings:
    def __init__(self) -> None:
        found = json.loads((CONFIG / "settings.json").read_text())
        self.artifacts: str = found["artifacts"]
        self.check_runs: int = found["check_runs"]
        self.database: dict[str, Any] = found["database"]
        self.domain: str = found["domain"]
        self.environment: dict[str, str] = found["environment"]
        self.files: list[str] = found["files"]
        self.hook: str = found["hook"]
        self.keep: dict[str, int] = found["keep"]
        self.release: str = found["release"]
        self.repository: str = found["repository"]
        self.socket: str = found["socket"]
        self.user: str = found["user"]
        self.group: str = found["group"]
        self.work = Path(found["work"])

    @property
    def dump(self) -> Path:
        return self.work / "snapshot" / "mlflow.dump"

    @property
    def manifest(self) -> Path:
        return self.work / "snapshot" / "deployment.json"

    @property
    def sources(self) -> list[str]:
        return [*self.files, *([self.artifacts] if self.artifacts else [])]

    @property
    def shown_repository(self) -> str:
        return re.sub(r"//[^/@]*@", "//", self.repository)


def write(path: Path, data: object) -> None:
    """Complete or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(data, indent=2, sort_keys=True) + "\n")
    part.replace(path)


def read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}


def remove(path: Path) -> None:
    """A directory with all that is in it, if it is there."""
    if path.exists():
        shutil.rmtree(path)


def last_words(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-3:])


@contextlib.contextmanager
def lock(settings: Settings) -> Iterator[None]:
    """One backup or restore at a time."""
    with (settings.work / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Busy("Another backup or restore is under way on this host: wait for its end (systemctl status mlflow-backup).") from None
        yield


# restic


def restic_environment(settings: Settings) -> dict[str, str]:
    own = {"RESTIC_REPOSITORY": settings.repository, "RESTIC_PASSWORD_FILE": str(CONFIG / "password"), "RESTIC_CACHE_DIR": CACHE}
    return {"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), "HOME": "/root", "LC_ALL": "C.UTF-8", **settings.environment, **own}


def try_restic(settings: Settings, *words: str) -> subprocess.CompletedProcess[str]:
    # Its own lines alone: the settings' environment may hold secrets, and stays out of arguments.
    return subprocess.run(["restic", *words], env=restic_environment(settings), cwd="/", capture_output=True, text=True, errors="replace", check=False)


def restic(settings: Settings, aim: str, *words: str) -> str:
    run = try_restic(settings, *words)
    if run.returncode != 0:
        raise Problem(f"restic could not {aim} (repository {settings.shown_repository}): {last_words(run.stderr or run.stdout)}")
    return run.stdout


def snapshots(settings: Settings, *which: str) -> list[dict[str, Any]]:
    return list(json.loads(restic(settings, "list the snapshots", "snapshots", "--no-lock", "--json", *which)) or [])


# Mounts and sources


def unescaped(field: str) -> str:
    """As the kernel and fstab write blanks and backslashes."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def mount_point(path: str) -> str:
    """What the path, or what exists of it, is mounted on; as the first process sees it, not this unit."""
    found = os.path.realpath(path)
    mounts = {unescaped(line.split()[4]) for line in Path("/proc/1/mountinfo").read_text().splitlines()}
    while found not in mounts and found != "/":
        found = os.path.dirname(found)
    return found


def unmounted(path: str) -> str:
    """A volume of fstab that the path should be on, and that is not mounted."""
    with contextlib.suppress(OSError):
        for line in Path("/etc/fstab").read_text().splitlines():
            fields = line.split("#")[0].split()
            place = unescaped(fields[1]) if len(fields) > 1 else ""
            if place.startswith("/") and place != "/" and f"{path}/".startswith(f"{place.rstrip('/')}/") and mount_point(place) != place.rstrip("/"):
                return place
    return ""


def mounted_places(settings: Settings) -> list[str]:
    return [*settings.sources, *([settings.repository] if settings.repository.startswith("/") else [])]


def check_mounts(settings: Settings, expected: dict[str, str]) -> None:
    for path in mounted_places(settings):
        if place := unmounted(path):
            raise Problem(f"The volume {place} is not mounted, and {path} belongs on it: mount it.")
        if expected.get(path, mount_point(path)) != mount_point(path):
            raise Problem(
                f"{path} is on the file system of {mount_point(path)}, and was on that of {expected[path]} when this host was deployed: "
                "mount it, or run the site playbook if that was meant."
            )


def filled(path: str) -> bool:
    """Whether it is a file with content, or a directory that holds one."""
    if os.path.isdir(path):
        return any(name for _directory, _directories, names in os.walk(path) for name in names)
    return os.path.isfile(path) and os.path.getsize(path) > 0


def check_sources(settings: Settings, last: dict[str, Any]) -> None:
    check_mounts(settings, read(settings.work / "mounts.json"))
    for path in settings.sources:
        if not os.path.lexists(path):
            raise Problem(f"{path} is not there, and belongs into the backup: nothing was saved. Restore it, or run the site playbook.")
        if path != settings.artifacts and not filled(path):
            raise Problem(f"{path} is empty, and belongs into the backup: nothing was saved. Restore it, or run the site playbook.")
    if settings.artifacts and last.get("artifacts") and not filled(settings.artifacts):
        raise Problem(f"{settings.artifacts} is empty, and held artifacts at the last backup: nothing was saved. Restore them.")


# The database


def postgres_environment(settings: Settings) -> dict[str, str]:
    # HOME is nowhere: PostgreSQL's programs read no settings of a user.
    clean = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "LC_ALL": "C.UTF-8", "PGCONNECT_TIMEOUT": "10"}
    if settings.database["host"]:
        clean |= {"PGPASSFILE": str(CONFIG / "pgpass"), "PGSSLMODE": settings.database["sslmode"]}
    return clean


def as_user(settings: Settings) -> list[str]:
    """By peer authentication on this host, by a password elsewhere."""
    return [] if settings.database["host"] else ["setpriv", f"--reuid={settings.user}", f"--regid={settings.group}", "--clear-groups", "--no-new-privs", "--"]


def connection(settings: Settings) -> list[str]:
    database = settings.database
    return [f"--host={database['host'] or '/var/run/postgresql'}", f"--port={database['port']}", f"--username={database['user']}", "--no-password"]


def ask(settings: Settings, sql: str) -> str:
    """As MLflow's role, in its database."""
    words = [*as_user(settings), "psql", *connection(settings), "-XAtqv", "ON_ERROR_STOP=1", f"--dbname={settings.database['name']}", f"--command={sql}"]
    run = subprocess.run(words, env=postgres_environment(settings), cwd="/", capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise Problem(f"The database {settings.database['name']} does not answer: {last_words(run.stderr)}")
    return run.stdout.strip()


def administer(settings: Settings, *commands: str, database: str = "postgres") -> str:
    """As PostgreSQL's superuser, on this host."""
    words = [*AS_POSTGRES, "psql", "--host=/var/run/postgresql", f"--port={settings.database['port']}", "--no-password"]
    words += ["-XAtqv", "ON_ERROR_STOP=1", f"--dbname={database}", *(f"--command={command}" for command in commands)]
    run = subprocess.run(words, env=postgres_environment(settings), cwd="/", capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise Problem(f"PostgreSQL refused: {last_words(run.stderr)}")
    return run.stdout.strip()


def programs(major: int) -> Path:
    """The oldest of PostgreSQL's programs that can read the server: Debian's wrapper takes the local cluster's."""
    found = sorted(int(path.parent.parent.name) for path in Path("/usr/lib/postgresql").glob("[0-9]*/bin/pg_dump"))
    for candidate in found:
        if candidate >= major:
            return Path(f"/usr/lib/postgresql/{candidate}/bin")
    raise Problem(f"The database server is PostgreSQL {major}, and this host has no pg_dump that can read it: install postgresql-client-{major}.")


def rows(settings: Settings, dump: Path, tools: Path) -> dict[str, int]:
    """The rows of each table in a dump, which is read as a whole."""
    counts: dict[str, int] = {}
    table = ""
    words = [str(tools / "pg_restore"), "--data-only", "--file=-", str(dump)]
    with subprocess.Popen(words, env=postgres_environment(settings), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout and run.stderr  # noqa: S101 - they are pipes
        for line in run.stdout:
            if table:
                if line == b"\\.\n":
                    table = ""
                else:
                    counts[table] += 1
            elif line.startswith(b"COPY ") and (match := HEADER.match(line.decode(errors="replace").rstrip("\n"))):
                table = match[1]
                counts[table] = 0
        said = run.stderr.read().decode(errors="replace")
    if run.returncode != 0:
        raise Problem(f"The dump of the database cannot be read back: {last_words(said)}")
    return counts


def dump_database(settings: Settings) -> dict[str, Any]:
    """Write the dump, and tell what it holds."""
    name = settings.database["name"]
    major = int(ask(settings, "SHOW server_version_num")) // 10000
    schema = ask(settings, "SELECT current_schema()")
    tools = programs(major)
    if int(ask(settings, "SELECT pg_database_size(current_database())")) > shutil.disk_usage(settings.work).free:
        raise Problem(f"{settings.work} has no room for a dump of the database {name}: free some, or set mlflow_backup_work_dir to a larger disk.")
    remove(settings.dump.parent)
    settings.dump.parent.mkdir(mode=0o700)
    # MLflow's own schema: another one may hold what its role may not read.
    words = [*as_user(settings), str(tools / "pg_dump"), *connection(settings), "--format=custom", f"--schema={json.dumps(schema)}", "--extension=*"]
    with settings.dump.open("wb") as file:
        run = subprocess.run(
            [*words, f"--dbname={name}"], env=postgres_environment(settings), cwd="/", stdout=file, stderr=subprocess.PIPE, text=True, check=False
        )
        os.fsync(file.fileno())
    if run.returncode != 0:
        raise Problem(f"The database {name} could not be dumped: {last_words(run.stderr)}")
    listed = subprocess.run([tools / "pg_restore", "--list", settings.dump], capture_output=True, text=True, check=False)
    counts = rows(settings, settings.dump, tools)
    if listed.returncode != 0 or not any(table.endswith(".alembic_version") for table in counts):
        raise Problem(f"The dump of the database {name} holds no tables of MLflow.")
    return {"postgresql": major, "pg_dump": int(tools.parent.name), "schema": schema, "rows": counts}


# A backup


def back_up(settings: Settings) -> dict[str, Any]:
    started = time.time()
    state = settings.work / "last.json"
    last = read(state).get("success") or {}
    check_sources(settings, last)
    restic(settings, "open the repository", "cat", "config", "--no-lock")
    # A lock of a process that is gone would block forget and check for ever.
    restic(settings, "remove stale locks", "unlock")
    print("Dumping the database", flush=True)
    dumped = dump_database(settings)
    deployment = {
        "artifacts": settings.artifacts,
        "database": settings.database["name"],
        "domain": settings.domain,
        "dump": str(settings.dump),
        "group": settings.group,
        "mlflow": release(settings),
        "saved": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "user": settings.user,
        **dumped,
    }
    write(settings.manifest, deployment)

    print("Saving the dump, the files and the artifacts", flush=True)
    paths = [str(settings.dump.parent), *settings.sources]
    words = ["backup", "--json", f"--host={settings.domain}", f"--tag={TAG}", f"--exclude={PIECES}", f"--exclude={STAGE}", *paths]
    run = try_restic(settings, *words)
    if run.returncode == 3:  # a file vanished while it was read, as deleted artifacts do
        run = try_restic(settings, *words)
    if run.returncode != 0:
        raise Problem(f"restic could not save everything (repository {settings.shown_repository}): {last_words(run.stderr)}")
    summary = next(json.loads(line) for line in run.stdout.splitlines() if '"summary"' in line)

    # Some releases skip a source that is missing, and call that a success.
    saved = snapshots(settings, summary["snapshot_id"])
    if [sorted(snapshot["paths"]) for snapshot in saved] != [sorted(paths)]:
        raise Problem(f"The snapshot {summary['snapshot_id']} does not hold {', '.join(paths)}.")

    print("Removing snapshots that are older than wanted", flush=True)
    keep = [f"--keep-{period}={count}" for period, count in settings.keep.items() if count]
    restic(settings, "remove old snapshots", "forget", f"--host={settings.domain}", f"--tag={TAG}", "--group-by=host", "--prune", "--quiet", *keep)
    part = read(state).get("part", 0) % settings.check_runs + 1
    # Each part in turn, so that every byte is read; a random share may never come to some.
    print(f"Checking the repository, and reading part {part} of {settings.check_runs}", flush=True)
    reading = "--read-data" if settings.check_runs == 1 else f"--read-data-subset={part}/{settings.check_runs}"
    restic(settings, "verify the repository, whose data may be damaged", "check", reading)

    success = {
        "added": summary["data_added"],
        "artifacts": bool(settings.artifacts) and filled(settings.artifacts),
        "bytes": summary["total_bytes_processed"],
        "files": summary["total_files_processed"],
        "seconds": round(time.time() - started, 1),
        "snapshot": saved[0]["id"][:8],
        "time": round(time.time()),
    }
    write(state, {"part": part, "success": success, "failure": None})
    shutil.rmtree(settings.dump.parent)
    return success


def release(settings: Settings) -> str:
    """The version of MLflow that runs."""
    target = os.path.basename(os.path.realpath(settings.release))
    return target.split("-")[0]


def run(settings: Settings) -> None:
    try:
        with lock(settings):
            success = back_up(settings)
    except Problem as problem:
        fail(settings, str(problem))
        raise
    except Exception as failure:
        fail(settings, f"{type(failure).__name__}: {failure}")
        raise
    print(f"Saved {success['files']} files, {success['bytes']} bytes, as snapshot {success['snapshot']} in {success['seconds']} s")


def fail(settings: Settings, sentence: str) -> None:
    state = read(settings.work / "last.json")
    write(settings.work / "last.json", {**state, "failure": {"error": sentence, "time": round(time.time())}})


def finish(settings: Settings) -> None:
    """Of the unit: also where the backup was killed."""
    result = os.environ.get("SERVICE_RESULT", "success")
    if result == "success":
        return
    failure = read(settings.work / "last.json").get("failure") or {}
    if result != "exit-code" or not failure:
        failure = {"error": f"The backup was ended ({result})."}
        fail(settings, failure["error"])
    if settings.hook:
        subprocess.run(["/bin/sh", "-c", settings.hook], env={**os.environ, "MLFLOW_BACKUP_ERROR": failure["error"]}, cwd="/", check=True)


def prepare(settings: Settings) -> None:
    """Idempotent: what it says is a change is one."""
    said = {"changed": False, "created": False}
    places = {path: mount_point(path) for path in mounted_places(settings)}
    check_mounts(settings, places)
    if read(settings.work / "mounts.json") != places:
        write(settings.work / "mounts.json", places)
        said["changed"] = True
    if read(settings.work / "repository.json").get("repository") != settings.repository:
        opened = try_restic(settings, "cat", "config", "--no-lock")
        if opened.returncode != 0:
            words = opened.stderr.lower()
            if "wrong password" in words:
                raise Problem(
                    f"The repository {settings.shown_repository} has another password than {CONFIG}/password: "
                    "restore that of the repository on the controller, or set mlflow_backup_repository to another place."
                )
            if "is there a repository" not in words and opened.returncode != 10:
                raise Problem(f"mlflow_backup_repository is {settings.shown_repository}, which cannot be opened: {last_words(opened.stderr)}")
            # The format that every release of restic reads: a fresh host may have an older one.
            made = try_restic(settings, "init", "--repository-version=1")
            if "unknown flag" in made.stderr:
                made = try_restic(settings, "init")
            if made.returncode != 0:
                raise Problem(f"mlflow_backup_repository is {settings.shown_repository}, where restic cannot create one: {last_words(made.stderr)}")
            said["created"] = True
        write(settings.work / "repository.json", {"repository": settings.repository})
        said["changed"] = True
    print(json.dumps(said))


# A restore


def systemctl(*words: str) -> None:
    run = subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise Problem(f"systemctl {' '.join(words)} failed: {last_words(run.stderr)}")


def present_units() -> list[str]:
    units = ["mlflow.socket", "mlflow-jobs.socket", "mlflow.service"]
    return [unit for unit in units if os.path.exists(f"/etc/systemd/system/{unit}")]


def answers(settings: Settings, seconds: float) -> bool:
    """Whether MLflow answers from its database."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.settimeout(30)
            client.connect(settings.socket)
            client.sendall(b"GET /api/2.0/mlflow/experiments/search?max_results=1 HTTP/1.0\r\nHost: localhost\r\n\r\n")
            if re.match(rb"HTTP/1\.\d 200 ", client.recv(100)):
                return True
        time.sleep(1)
    return False


def restore_files(settings: Settings, snapshot: dict[str, Any], target: Path, *paths: str) -> None:
    restic(settings, "restore the files", "restore", "--no-lock", snapshot["id"], f"--target={target}", *(f"--include={path}" for path in paths))


def choose(settings: Settings, wanted: str) -> dict[str, Any]:
    if wanted == "latest":
        found = snapshots(settings, f"--host={settings.domain}", f"--tag={TAG}")
        if not found:
            raise Problem(f"The repository {settings.shown_repository} has no snapshot of {settings.domain}: check mlflow_backup_repository and mlflow_domain.")
        return max(found, key=lambda snapshot: str(snapshot["time"]))
    found = [snapshot for snapshot in snapshots(settings, f"--tag={TAG}") if snapshot["id"].startswith(wanted)]
    if len(found) != 1:
        known = ", ".join(snapshot["id"][:8] for snapshot in snapshots(settings, f"--tag={TAG}")[-10:])
        raise Problem(f"mlflow_restore_snapshot is {wanted}, which is no snapshot of {settings.shown_repository}: the last ones are {known or 'none'}.")
    return found[0]


def has_data(settings: Settings) -> str:
    """What a restore would overwrite."""
    name = settings.database["name"]
    if settings.artifacts and filled(settings.artifacts):
        return f"{settings.artifacts} holds files"
    if administer(settings, f"SELECT count(*) FROM pg_database WHERE datname = '{name}'") == "0":  # noqa: S608 - a checked name
        return ""
    tables = ask(settings, "SELECT to_regclass('experiments') IS NOT NULL AND to_regclass('runs') IS NOT NULL")
    if tables != "t":
        return ""
    count = ask(
        settings,
        "SELECT (SELECT count(*) FROM experiments WHERE lifecycle_stage = 'active' AND experiment_id <> 0)"
        " + (SELECT count(*) FROM runs JOIN experiments USING (experiment_id) WHERE experiments.lifecycle_stage = 'active')"
        " + (SELECT count(*) FROM registered_models)",
    )
    return f"the database {name} holds experiments, runs or models" if count != "0" else ""


def check_restore(settings: Settings, deployment: dict[str, Any]) -> Path:
    """Refuse what could not work before anything changes."""
    if settings.database["host"]:
        raise Problem(
            f"The database is on {settings.database['host']}, where only its administrator can create one: restore the dump there by hand, as "
            "docs/operations.md says."
        )
    server = int(administer(settings, "SHOW server_version_num")) // 10000
    if deployment["pg_dump"] > server:
        raise Problem(
            f"The snapshot's database was saved by PostgreSQL {deployment['pg_dump']}, which this host's PostgreSQL {server} cannot read: set "
            f"mlflow_postgres_version to {deployment['pg_dump']} or later on a host that has it, run the site playbook there, then restore."
        )
    if deployment["mlflow"] != release(settings):
        raise Problem(
            f"The snapshot is of MLflow {deployment['mlflow']}, and this host runs {release(settings)}: set mlflow_version to {deployment['mlflow']}, "
            "run the site playbook, then restore."
        )
    if administer(settings, f"SELECT count(*) FROM pg_roles WHERE rolname = '{settings.database['user']}'") != "1":  # noqa: S608 - a checked name
        raise Problem(f"PostgreSQL has no role {settings.database['user']}: run the site playbook, then restore.")
    return Path(f"/usr/lib/postgresql/{server}/bin")


def own(settings: Settings, top: Path) -> tuple[int, int]:
    """Numbers of system users differ between hosts. Returns files and bytes."""
    user = pwd.getpwnam(settings.user)
    files = size = 0
    for directory, directories, names in os.walk(top):
        for name in directories + names:
            os.chown(os.path.join(directory, name), user.pw_uid, user.pw_gid, follow_symlinks=False)
        for name in names:
            files += 1
            size += os.lstat(os.path.join(directory, name)).st_size
    return files, size


def restore_database(settings: Settings, deployment: dict[str, Any], dump: Path, tools: Path) -> str:
    """Into a database beside the one that serves. Returns its name."""
    name, user = settings.database["name"], settings.database["user"]
    beside = f"{name}_restore"
    locale = administer(settings, f"SELECT datcollate || ' ' || datctype FROM pg_database WHERE datname = '{name}'")  # noqa: S608 - a checked name
    collate, ctype = locale.split() if locale else ("C.UTF-8", "C.UTF-8")
    administer(
        settings,
        f"DROP DATABASE IF EXISTS {beside}",
        f"CREATE DATABASE {beside} OWNER {user} ENCODING 'UTF8' LC_COLLATE '{collate}' LC_CTYPE '{ctype}' TEMPLATE template0",
        f"REVOKE CONNECT ON DATABASE {beside} FROM PUBLIC",
        f"GRANT CONNECT ON DATABASE {beside} TO pg_monitor, pg_read_all_data",
    )
    listed = subprocess.run([tools / "pg_restore", "--list", dump], capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        raise Problem(f"The dump in the snapshot cannot be read: {last_words(listed.stderr)}")
    for extension in EXTENSION.findall(listed.stdout):
        administer(settings, f'CREATE EXTENSION IF NOT EXISTS "{extension}"', database=beside)
    wanted = dump.with_name("list")
    wanted.write_text("".join(line + "\n" for line in listed.stdout.splitlines() if not NOT_RESTORED.match(line)))
    words = [*AS_POSTGRES, str(tools / "pg_restore"), "--host=/var/run/postgresql"]
    words += [f"--port={settings.database['port']}", "--no-password", "--no-owner", "--no-privileges", f"--role={user}", "--exit-on-error"]
    # The directory of both files is root's alone: they reach it open.
    os.chown(wanted, pwd.getpwnam("postgres").pw_uid, -1)
    with dump.open("rb") as file, wanted.open("rb") as chosen:
        run = subprocess.run(
            [*words, f"--use-list=/dev/fd/{chosen.fileno()}", f"--dbname={beside}"],
            env=postgres_environment(settings), cwd="/", stdin=file, pass_fds=[chosen.fileno()], capture_output=True, text=True, check=False,
        )  # fmt: skip
    if run.returncode != 0:
        raise Problem(f"The dump could not be restored: {last_words(run.stderr)}")
    for table, count in deployment["rows"].items():
        found = administer(settings, f"SELECT count(*) FROM {table}", database=beside)  # noqa: S608 - as pg_dump quotes it
        if int(found) != count:
            raise Problem(f"The restored table {table} has {found} rows, and the snapshot's has {count}.")
    administer(settings, "ANALYZE", database=beside)
    return beside


def exchange(settings: Settings, pairs: Sequence[tuple[str, str]]) -> None:
    """Rename databases in one transaction, without those who are connected to them."""
    names = ", ".join(f"'{name}'" for pair in pairs for name in pair)
    renames = "; ".join(f"ALTER DATABASE {old} RENAME TO {new}" for old, new in pairs)
    for attempt in range(20):
        administer(settings, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IN ({names})")  # noqa: S608 - checked names
        try:
            administer(settings, f"BEGIN; {renames}; COMMIT")
            return
        except Problem:
            if attempt == 19:
                raise
            time.sleep(0.5)


def move_all(source: Path, target: Path, *, leave: str = "") -> None:
    for entry in sorted(os.listdir(source)):
        if entry != leave:
            os.rename(source / entry, target / entry)


def put(source: Path, target: Path) -> None:
    """A secret, complete or not at all; none where there is none."""
    if not source.exists():
        target.unlink(missing_ok=True)
        return
    part = target.with_name(target.name + ".part")
    part.touch(mode=0o600)
    shutil.copyfile(source, part)
    part.replace(target)


def same(one: Path, other: Path) -> bool:
    return one.exists() == other.exists() and (not one.exists() or one.read_bytes() == other.read_bytes())


def restore_secrets(stage: Path, undo: contextlib.ExitStack) -> bool:
    """Those with which the database was encrypted, or none. Returns whether they were others."""
    live, saved, before = Path(SECRETS), Path(f"{stage}{SECRETS}"), stage / "secrets.before"
    if same(live, saved):
        return False
    put(live, before)
    undo.callback(put, before, live)
    put(saved, live)
    return True


def restore_authority(stage: Path, undo: contextlib.ExitStack) -> bool:
    """The certificate authority that clients trust, where this host made another."""
    live, saved, before = Path(AUTHORITY), Path(f"{stage}{AUTHORITY}"), Path(f"{AUTHORITY}.before-restore")
    if not (saved / "ca.key").exists() or not live.parent.exists() or same(live / "ca.key", saved / "ca.key"):
        return False
    remove(before)
    if live.exists():
        live.rename(before)
        undo.callback(before.rename, live)
    undo.callback(remove, live)
    shutil.copytree(saved, live, symlinks=True)
    return True


def reload_nginx() -> None:
    if subprocess.run(["systemctl", "is-active", "--quiet", "nginx.service"], check=False).returncode == 0:
        tested = subprocess.run(["nginx", "-t", "-q"], capture_output=True, text=True, check=False)
        if tested.returncode != 0:
            raise Problem(f"nginx refuses the restored certificates: {last_words(tested.stderr)}")
        systemctl("reload", "nginx.service")


def recover(place: Path, live: Path) -> None:
    """What a restore that was cut off had moved away."""
    if not os.path.lexists(place):
        return
    # MLflow may write beside it, and can make no directory of root's.
    found = place.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != 0:
        raise Problem(f"{place} is not from a restore: look at it, and remove it.")
    old = place / "old"
    if old.is_dir():
        for entry in os.listdir(old):
            if os.path.lexists(live / entry):
                shutil.rmtree(live / entry) if (live / entry).is_dir() and not (live / entry).is_symlink() else (live / entry).unlink()
            os.rename(old / entry, live / entry)
    shutil.rmtree(place)


def restore_data(
    settings: Settings, snapshot: dict[str, Any], saved: str, deployment: dict[str, Any], tools: Path, undo: contextlib.ExitStack
) -> dict[str, Any]:
    """Everything that a failure takes back, in the order in which it does."""
    name, beside, before = (settings.database["name"] + end for end in ("", "_restore", "_before_restore"))
    stage = settings.work / "restore"
    undo.callback(remove, stage)
    stage.mkdir(mode=0o700)
    undo.callback(administer, settings, f"DROP DATABASE IF EXISTS {beside}")
    print(f"Restoring the database of snapshot {snapshot['id'][:8]} beside the one that serves", flush=True)
    restore_files(settings, snapshot, stage, saved, str(Path(SECRETS).parent), AUTHORITY)
    restore_database(settings, deployment, Path(f"{stage}{saved}/mlflow.dump"), tools)

    units = present_units()
    undo.callback(systemctl, "start", *units)
    systemctl("stop", *units)
    files = size = 0
    live, place = Path(settings.artifacts or "/nonexistent"), Path(settings.artifacts) / STAGE
    fresh = Path(f"{place}/new{deployment['artifacts']}")
    artifacts = bool(settings.artifacts and deployment["artifacts"])
    if artifacts:
        print("Restoring the artifacts", flush=True)
        # On their own file system, so that they are exchanged at once; MLflow, which could plant links there, is stopped.
        recover(place, live)
        place.mkdir(mode=0o700)
        undo.callback(shutil.rmtree, place)
        (place / "old").mkdir()
        restore_files(settings, snapshot, place / "new", deployment["artifacts"])
        files, size = own(settings, fresh)

    print("Exchanging the data", flush=True)
    existed = administer(settings, f"SELECT count(*) FROM pg_database WHERE datname = '{name}'") != "0"  # noqa: S608 - a checked name
    administer(settings, f"DROP DATABASE IF EXISTS {before}")
    exchange(settings, [*([(name, before)] if existed else []), (beside, name)])
    undo.callback(exchange, settings, [(name, beside), *([(before, name)] if existed else [])])
    if artifacts:
        undo.callback(move_all, place / "old", live)
        move_all(live, place / "old", leave=STAGE)
        undo.callback(move_all, live, fresh, leave=STAGE)
        move_all(fresh, live)
    secrets = restore_secrets(stage, undo)
    undo.callback(reload_nginx)
    authority = restore_authority(stage, undo)

    print("Starting MLflow", flush=True)
    undo.callback(systemctl, "stop", *units)
    systemctl("start", *units)
    if not answers(settings, 180):
        raise Problem("MLflow does not answer from the restored data, see journalctl -u mlflow.")
    if authority:
        reload_nginx()
    return {"artifacts": artifacts, "authority": authority, "bytes": size, "files": files, "secrets": secrets}


def restore(settings: Settings, wanted: str, replace: bool) -> None:
    started = time.time()
    check_mounts(settings, read(settings.work / "mounts.json"))
    snapshot = choose(settings, wanted)
    saved = next((path for path in snapshot["paths"] if path.endswith("/snapshot")), "")
    if not saved:
        raise Problem(f"The snapshot {snapshot['id'][:8]} was not made by mlflow_backup.")
    deployment = json.loads(restic(settings, "read the snapshot", "dump", "--no-lock", snapshot["id"], f"{saved}/deployment.json"))
    tools = check_restore(settings, deployment)
    data = has_data(settings)
    if data and not replace:
        raise Problem(f"A restore would overwrite what is there ({data}): set mlflow_restore_replace to true to replace it. Nothing was changed.")

    remove(settings.work / "restore")  # of one that was cut off
    undo = contextlib.ExitStack()
    try:
        restored = restore_data(settings, snapshot, saved, deployment, tools, undo)
    except BaseException as failure:
        said = str(failure) if isinstance(failure, Problem) else f"it was ended ({type(failure).__name__} {failure})."
        try:
            undo.close()
        except BaseException as worse:
            raise Problem(
                f"The restore of snapshot {snapshot['id'][:8]} failed: {said} What was there before could not be put back ({worse}): "
                "mend the cause, and restore again with mlflow_restore_replace."
            ) from failure
        raise Problem(
            f"The restore of snapshot {snapshot['id'][:8]} failed: {said} What was there before is as it was. Mend the cause, and restore again."
        ) from failure
    undo.pop_all()

    administer(settings, f"DROP DATABASE IF EXISTS {settings.database['name']}_before_restore")
    if restored["artifacts"]:
        shutil.rmtree(Path(settings.artifacts) / STAGE)
    remove(Path(f"{AUTHORITY}.before-restore"))
    shutil.rmtree(settings.work / "restore")
    restored |= {
        "rows": sum(deployment["rows"].values()),
        "saved": deployment["saved"],
        "seconds": round(time.time() - started, 1),
        "snapshot": snapshot["id"][:8],
        "tables": len(deployment["rows"]),
    }
    print(json.dumps(restored))


def state(settings: Settings) -> None:
    last = read(settings.work / "last.json")
    success = last.get("success")
    found = {
        "cut_off": (settings.work / "restore").exists(),
        "failure": last.get("failure"),
        "hours": round((time.time() - success["time"]) / 3600, 1) if success else None,
        "success": success,
    }
    print(json.dumps(found))


def dispatch(settings: Settings, words: list[str]) -> None:
    if words == ["run"]:
        run(settings)
    elif words == ["finish"]:
        finish(settings)
    elif words == ["prepare"]:
        prepare(settings)
    elif words == ["state"]:
        state(settings)
    elif words[:1] == ["restore"] and len(words) <= 3:
        with lock(settings):
            restore(settings, next((word for word in words[1:] if word != "--replace"), "latest"), "--replace" in words)
    elif words[:1] == ["restic"]:
        os.execvpe("restic", words, restic_environment(settings))  # noqa: S606 - no shell
    else:
        raise Problem(str(__doc__).strip())


def main(words: list[str]) -> int:
    os.umask(0o077)
    # A restore that is ended by systemd puts things back.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(1))
    try:
        dispatch(Settings(), words)
    except Problem as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
