# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ask an MLflow server how it is, from GET /health to a whole run with an artifact."""

from __future__ import annotations

import base64
import errno
import gzip
import http.client
import json
import os
import posixpath
import re
import signal
import socket
import ssl
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

Result = TypeVar("Result")

API = "/api/2.0/mlflow/"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
PRESIGNED = "/api/2.0/mlflow-artifacts/presigned"
CONNECT_SECONDS = 10  # for each address of a name, so that one dead address leaves time for the next
CLEANUP_SECONDS = 10  # kept back from the total, at most a quarter of it
STALE_SECONDS = 3600  # what a check wrote so long ago was cut off before it could clean up
ARTIFACT_BYTES = 2 * 1024 * 1024  # more than the 1 MB that nginx lets through unless told otherwise
LARGEST_ANSWER = 64 * 1024 * 1024  # of a server that is not MLflow, and never ends
EXPERIMENT = "mlflow-health"
EXPERIMENT_TAG = "mlops.mlflow.health"
TAG_PREFIX = "mlops.mlflow.health."
NOT_FOUND = "RESOURCE_DOES_NOT_EXIST"
WRONG_STATE = "INVALID_PARAMETER_VALUE"
STRANGE = "the answer is not one of MLflow's: check host name, port and path of url"
ALREADY_EXISTS = "RESOURCE_ALREADY_EXISTS"
VERSION = re.compile(r"\d+\.\d+\.\d+[0-9a-z.+-]*")


class Failure(Exception):
    """Why the server is not healthy, and whether waiting may mend it."""

    def __init__(self, message: str, waiting_helps: bool = False, code: str = "") -> None:
        super().__init__(message)
        self.waiting_helps = waiting_helps
        self.code = code


@dataclass(frozen=True)
class Target:
    """Where the requests go, and as whom."""

    host: str
    port: int
    prefix: str
    host_header: str
    address: str | None
    unix_socket: str | None
    username: str | None
    authorization: str | None = field(repr=False)
    tls: ssl.SSLContext | None

    @property
    def place(self) -> str:
        return f"the socket {self.unix_socket}" if self.unix_socket else f"{self.address or self.host} port {self.port}"


def parse_target(params: Mapping[str, Any]) -> Target:
    """Check the options that say where to connect; ValueError says what to set."""
    url = params["url"] or "http://localhost"
    if "@" in url:
        raise ValueError("url must not hold credentials: give them in username and password")
    if not (url.isascii() and url.isprintable()) or " " in url:
        raise ValueError("url must hold no spaces, control characters or characters outside ASCII")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        if port == 0 or not is_host(host or "localhost"):
            raise ValueError
    except ValueError:
        raise ValueError("url is not a valid URL: check its host name and port") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError("url must look like https://mlflow.example.com, with http:// or https:// in front")
    if parts.query or parts.fragment:
        raise ValueError("url must end with its path, without a query (?) or a fragment (#)")

    address, unix_socket, host_header = params["address"], params["unix_socket"], params["host_header"]
    if address is not None and (not is_host(address) or re.search(r"[/@\s\[\]]|^[^:]*:[^:]*$", address)):
        raise ValueError("address must be a host name or an IP address alone: the port belongs into url")
    if unix_socket is not None and (not os.path.isabs(unix_socket) or len(os.fsencode(unix_socket)) > 107):
        raise ValueError("unix_socket must be an absolute path of at most 107 bytes")
    if host_header is not None and not re.fullmatch(r"[\w.:\[\]-]+", host_header, re.ASCII):
        raise ValueError("host_header must be a host name, with a port if need be")

    username = params["username"]
    authorization = None
    if username is not None:
        if not username or ":" in username:
            raise ValueError("username must not be empty and must hold no colon")
        token = base64.b64encode(f"{username}:{params['password']}".encode())
        authorization = f"Basic {token.decode()}"

    ca_path = params["ca_path"]
    if ca_path is not None and not os.path.exists(ca_path):
        raise ValueError(f"ca_path {ca_path} does not exist on this host")
    return Target(
        host=host,
        port=port or (443 if parts.scheme == "https" else 80),
        prefix=parts.path.rstrip("/"),
        host_header=host_header or parts.netloc,
        address=address,
        unix_socket=unix_socket,
        username=username,
        authorization=authorization,
        tls=tls_context(ca_path, params["validate_certs"]) if parts.scheme == "https" else None,
    )


def is_host(name: str) -> bool:
    """Whether it can be looked up: no label is empty or too long."""
    with suppress(UnicodeError):
        return bool(name.encode("idna"))
    return False


def tls_context(ca_path: str | None, validate_certs: bool) -> ssl.SSLContext:
    try:
        if ca_path and os.path.isdir(ca_path):
            context = ssl.create_default_context(capath=ca_path)
        else:
            context = ssl.create_default_context(cafile=ca_path)
    except (ssl.SSLError, OSError) as error:
        raise ValueError(f"ca_path {ca_path} can't be used: {error.strerror or error}") from error
    if not validate_certs:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError after this time, wherever the code is.

    A socket's own timeout starts anew with each byte, so a server that trickles its answer never meets it.
    """

    def expire(*_args: object) -> None:
        raise TimeoutError(errno.ETIMEDOUT, "timed out")  # Python 3.9's sockets look into it, and fail on an empty one

    previous = signal.signal(signal.SIGALRM, expire)
    # Repeated, as an exception that is raised inside a destructor is lost.
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001), 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


class Client:
    """One request, one connection; every fault comes out as a Failure."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.starting = True  # until its database has answered

    def request(self, method: str, path: str, body: bytes | None = None, content_type: str = "") -> bytes:
        headers = {"Host": self.target.host_header, "Connection": "close", "User-Agent": "mlops.mlflow.mlflow_health"}
        if content_type:
            headers["Content-Type"] = content_type
        if self.target.authorization:
            headers["Authorization"] = self.target.authorization
        connection = http.client.HTTPConnection(self.target.host)
        try:
            connection.sock = self._connect()
            # A server that refuses an upload may hang up before it has read it: the answer is there all the same.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, self.target.prefix + path, body, headers)
            response = connection.getresponse()
            content = response.read(LARGEST_ANSWER)
            if len(content) == LARGEST_ANSWER:
                raise Failure(STRANGE)
            if response.length:  # which read() with a size does not tell of
                raise http.client.IncompleteRead(content, response.length)
        except TimeoutError:
            raise
        except (OSError, http.client.HTTPException) as error:
            raise explain_error(error, self.target) from error
        finally:
            connection.close()
        if response.status != 200:
            location = response.headers.get("Location", "")
            request = f"{method} {self.target.prefix}{path}"
            raise explain_answer(self.target, request, response.status, content, location, self.starting)
        return content

    def _connect(self) -> socket.socket:
        target = self.target
        if target.unix_socket:
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(target.unix_socket)
        else:
            sock = socket.create_connection((target.address or target.host, target.port), CONNECT_SECONDS)
            sock.settimeout(None)
        return target.tls.wrap_socket(sock, server_hostname=target.host) if target.tls else sock

    def get(self, path: str, /, **query: str) -> dict[str, Any]:
        return self._parse(self.request("GET", f"{path}?{urlencode(query)}"))

    def post(self, endpoint: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._parse(self.request("POST", API + endpoint, json.dumps(body).encode(), "application/json"))

    @staticmethod
    def _parse(content: bytes) -> dict[str, Any]:
        with suppress(ValueError):
            answer = json.loads(content)
            if isinstance(answer, dict):
                return answer
        raise Failure(STRANGE)


def explain_error(error: Exception, target: Target) -> Failure:
    """What a failed connection means."""
    place = target.place
    if isinstance(error, ssl.SSLCertVerificationError):
        return Failure(
            f"the certificate of {target.host} at {place} is not accepted ({error.verify_message}): give its CA's"
            " certificate in ca_path (mlflow_nginx_verify_ca), or renew it for this name (mlflow_domain, mlflow_domain_aliases)"
        )
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
        return Failure(f"TLS with {place} fails ({error.reason}): check scheme and port in url")
    if isinstance(error, socket.gaierror):
        return Failure(
            f"the name {target.address or target.host} can't be resolved ({error.strerror}): mend the name service, or set address",
            waiting_helps=error.errno == socket.EAI_AGAIN,
        )
    if isinstance(error, PermissionError):
        return Failure(f"no permission to connect to {place}: use become, or join the group of the socket")
    if isinstance(error, FileNotFoundError):
        return Failure(f"{place} does not exist: check that the service runs and unix_socket is its path", True)
    if isinstance(error, http.client.RemoteDisconnected):
        return Failure(f"{place} hangs up without an answer", True)
    if isinstance(error, http.client.BadStatusLine):
        return Failure(f"{place} does not speak HTTP: check scheme and port in url")
    return Failure(f"{place} does not answer ({getattr(error, 'strerror', None) or error})", True)


def explain_answer(target: Target, request: str, status: int, content: bytes, location: str = "", starting: bool = True) -> Failure:
    """What an answer other than 200 means."""
    reason, code = read_reason(content)
    if status == 401:
        hint = (
            f"the server refuses the password of the user {target.username}: compare it with mlflow_users"
            if target.authorization
            else "the server wants a login: give username and password of one of mlflow_users"
        )
    elif status == 403 and "Invalid Host header" in reason:
        hint = (
            f"MLflow does not accept the host name {target.host_header}: add it to mlflow_domain_aliases (or set"
            " mlflow_domain to it), which sets --allowed-hosts"
        )
    elif status == 403:
        hint = "the server forbids it: check what this user may do (mlflow_users) and the rules of the proxy"
    elif 300 <= status < 400:
        hint = f"the server redirects to {location.partition('?')[0]}: give the final address as url"
    elif status == 404 and not code:
        hint = "no MLflow answers here: check host name, port and path of url"
    elif status == 413:
        hint = "the proxy refuses uploads of this size: raise its limit (client_max_body_size in nginx)"
    else:
        hint = reason.removeprefix(f"{status} ")
    waiting_helps = (
        status in (429, 502, 503, 504) or (status == 500 and starting) or code == NOT_FOUND  # what was just made: a read replica may lag behind
    )
    return Failure(f"{request} gives {status}: {hint}" if hint else f"{request} gives {status}", waiting_helps, code)


def read_reason(content: bytes) -> tuple[str, str]:
    """The message and error code in an answer of MLflow, or what a proxy's page says."""
    text = content[:10000].decode("utf-8", "replace")
    code = ""
    try:
        answer = json.loads(text)
        text, code = str(answer["message"]), str(answer["error_code"])
    except (ValueError, KeyError, TypeError):
        title = re.search(r"<title>(.*?)</title>", text, re.DOTALL | re.IGNORECASE)
        text = title.group(1) if title else text
    lines = text.strip().splitlines()
    return (lines[0][:200] if lines else ""), code


class Roundtrip:
    """What one check writes to the experiment and the run that all checks share, and how it is removed again.

    MLflow's API deletes no experiment and no run for good, so one of each check's own would leave rows for ever. The
    experiment stays marked as deleted, out of sight; its run does not, as a deleted one takes no writes.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        user = client.target.username
        self.name = f"{EXPERIMENT}-{user}" if user else EXPERIMENT  # with MLflow's rights, one user may not use another's
        self.token = f"{round(time.time())}-{uuid.uuid4().hex}"
        self.experiment: dict[str, Any] = {}
        self.run: dict[str, Any] = {}
        # Bytes that nobody can compress further: of the size of a model, and as clients send what they compressed.
        self.files = {"probe.bin": os.urandom(ARTIFACT_BYTES), "probe.txt.gz": gzip.compress(self.token.encode())}
        self.created = False  # an experiment that a user could see
        self.logged = self.uploaded = False
        self.left_behind: list[str] = []

    def find_experiment(self) -> None:
        try:
            self.experiment = self._get_experiment()
        except Failure as failure:
            if failure.code != NOT_FOUND:
                raise
            self.created = True
            tags = [{"key": EXPERIMENT_TAG, "value": "roundtrip"}]
            self._post_unless({ALREADY_EXISTS}, "experiments/create", {"name": self.name, "tags": tags})
            self.experiment = self._get_experiment()

    def _get_experiment(self) -> dict[str, Any]:
        experiment: dict[str, Any] = self.client.get(API + "experiments/get-by-name", experiment_name=self.name)["experiment"]
        if EXPERIMENT_TAG not in {tag["key"] for tag in experiment.get("tags", [])}:
            raise Failure(f"the experiment {self.name} is a user's own: rename it, as this check needs the name")
        return experiment

    def find_run(self) -> None:
        identifier = {"experiment_id": self.experiment["experiment_id"]}
        runs = self._runs()
        if not runs:
            self.created = True
            self._post_unless({NOT_FOUND}, "experiments/restore", identifier)
            self._write("runs/create", {**identifier, "run_name": EXPERIMENT, "start_time": round(time.time() * 1000)})
            runs = self._runs()
        # Two that were the first at the same time made a run each: both, and all after them, take the same.
        self.run = min(runs, key=lambda run: run["run_id"])
        if self.created or self.experiment["lifecycle_stage"] != "deleted":
            self._post_unless({NOT_FOUND}, "experiments/delete", identifier)

    def _runs(self) -> list[dict[str, Any]]:
        body = {"experiment_ids": [self.experiment["experiment_id"]], "run_view_type": "ALL"}
        return [run["info"] for run in self.client.post("runs/search", body).get("runs", [])]

    def log(self) -> None:
        """Parameter and metrics are the same each time, which adds no row; the tag is this check's own."""
        self.logged = True
        self._write_to_run(
            "runs/log-batch",
            {
                "params": [{"key": "name", "value": EXPERIMENT}],
                "metrics": [{"key": "loss", "value": value, "step": step, "timestamp": self.run["start_time"]} for step, value in enumerate((0.5, 0.25))],
                "tags": [{"key": TAG_PREFIX + self.token, "value": self.token}],
            },
        )

    def read(self) -> None:
        data = self._data()
        found = {entry["key"]: entry["value"] for entry in data.get("params", []) + data.get("metrics", [])}
        if found != {"name": EXPERIMENT, "loss": 0.25} or self._tags(data).get(TAG_PREFIX + self.token) != self.token:
            raise Failure("parameter, metric and tag read back differ from what was logged", waiting_helps=True)

    def _data(self) -> dict[str, Any]:
        data: dict[str, Any] = self.client.get(API + "runs/get", run_id=self.run["run_id"])["run"]["data"]
        return data

    @staticmethod
    def _tags(data: dict[str, Any]) -> dict[str, str]:
        return {tag["key"]: tag["value"] for tag in data.get("tags", [])}

    def _write_to_run(self, endpoint: str, body: dict[str, Any], *accepted: str) -> None:
        # The check that makes the experiment marks it as deleted, and so the run.
        self.client.post("runs/restore", {"run_id": self.run["run_id"]})
        self._write(endpoint, {"run_id": self.run["run_id"], **body}, *accepted)

    def _write(self, endpoint: str, body: dict[str, Any], *accepted: str) -> None:
        try:
            self._post_unless(set(accepted), endpoint, body)
        except Failure as failure:
            # Another check has just marked the run as deleted, or written the same row: MLflow answers 400 with the database's words.
            failure.waiting_helps |= failure.code == WRONG_STATE or "unique" in str(failure).lower()
            raise

    def _post_unless(self, accepted: set[str], endpoint: str, body: dict[str, Any]) -> None:
        """Errors that say that it is done already, by another check or an attempt whose answer was lost, are accepted."""
        try:
            self.client.post(endpoint, body)
        except Failure as failure:
            if failure.code not in accepted:
                raise

    def upload(self) -> None:
        paths = self._paths()
        self.uploaded = True
        for name, path in paths.items():
            self.client.request("PUT", artifact_url(path), self.files[name], "application/octet-stream")

    def download(self) -> None:
        """Through MLflow, and also from the store where MLflow tells its clients to fetch from there."""
        ways: dict[str, Callable[[str], bytes]] = {"MLflow": lambda path: self.client.request("GET", artifact_url(path))}
        if self._advertises_the_store():
            ways["the store"] = self._fetch_from_store
        for name, path in self._paths().items():
            for way, fetch in ways.items():
                if fetch(path) != self.files[name]:
                    raise Failure(f"the artifact {name} read back from {way} differs from what was uploaded")

    def _paths(self) -> dict[str, str]:
        return {name: f"{self._directory()}/{self.token}/{name}" for name in self.files}

    def _advertises_the_store(self) -> bool:
        with suppress(Failure):  # releases before 3.16 have no such page
            return bool(self.client.get("/api/3.0/mlflow/server-info").get("multipart_downloads_enabled"))
        return False

    def _fetch_from_store(self, path: str) -> bytes:
        """As clients do, which unpack what the store calls packed."""
        presigned = self.client.get(f"{PRESIGNED}/{quote(path)}")
        host = urlsplit(presigned["url"]).netloc
        request = urllib.request.Request(  # noqa: S310 - what is read there is only compared
            presigned["url"], headers={"Accept-Encoding": "gzip", **presigned.get("headers", {})}
        )
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
                content = answer.read()
        except OSError as error:
            raise Failure(
                f"MLflow tells its clients to fetch artifacts from {host}, and this host can't"
                f" ({getattr(error, 'reason', error)}): set mlflow_direct_transfers to false"
            ) from error
        return gzip.decompress(content) if answer.headers.get("Content-Encoding") == "gzip" else content

    def _directory(self) -> str:
        directory = artifact_directory(self.run["artifact_uri"])
        if directory is None:
            raise Failure(
                f"MLflow does not serve artifacts itself (it stores them at {self.run['artifact_uri']}): start it with"
                " --serve-artifacts and without --default-artifact-root, or use depth=database"
            )
        return directory

    def clean_up(self) -> None:
        """Remove what this check wrote, and what earlier ones left; what fails does not keep the rest from being tried."""
        tasks: dict[str, Callable[[], None]] = {}
        if self.created or self.experiment.get("lifecycle_stage") == "active":
            tasks[f"experiment {self.name}"] = self._hide
        if self.uploaded:
            tasks[f"artifacts in {artifact_directory(self.run['artifact_uri'])}/{self.token}"] = partial(self._erase, self.token)
        if self.logged:
            tasks[f"tag {TAG_PREFIX + self.token} of run {self.run['run_id']}"] = partial(self._untag, TAG_PREFIX + self.token)
        self.left_behind = list(tasks)
        failures = []
        for name, task in tasks.items():
            try:
                task()
                self.left_behind.remove(name)
            except Failure as failure:
                failures.append(failure)
        if failures:
            raise Failure("; ".join(map(str, failures)), any(failure.waiting_helps for failure in failures))

    def _hide(self) -> None:
        try:
            experiment = self._get_experiment()
        except Failure as failure:
            if failure.code == NOT_FOUND:
                return
            raise
        if experiment["lifecycle_stage"] == "active":
            self._post_unless({NOT_FOUND}, "experiments/delete", {"experiment_id": experiment["experiment_id"]})

    def _untag(self, key: str) -> None:
        self._write_to_run("runs/delete-tag", {"key": key}, NOT_FOUND)

    def _erase(self, token: str) -> None:
        try:
            self.client.request("DELETE", artifact_url(f"{self._directory()}/{token}"))
        except Failure:
            # An attempt whose answer was lost may have removed it. Not listed first: MLflow answers 500 where another check's directory vanishes meanwhile.
            if token in self._list(self._directory()):
                raise

    def _list(self, directory: str) -> list[str]:
        return [posixpath.basename(entry["path"]) for entry in self.client.get(ARTIFACTS, path=directory).get("files", [])]

    def sweep(self) -> None:
        """Remove what earlier checks left when they were cut off before their cleanup."""
        for key in self._tags(self._data()):
            if key.startswith(TAG_PREFIX) and is_stale(key.removeprefix(TAG_PREFIX)):
                self._untag(key)
        for name in self._list(self._directory()):
            if is_stale(name):
                self._erase(name)


def is_stale(token: str) -> bool:
    """Whether a check of this token has ended long ago, one way or the other."""
    began = re.fullmatch(r"(\d+)-[0-9a-f]{32}", token)
    return began is not None and int(began.group(1)) < time.time() - STALE_SECONDS


def artifact_directory(artifact_uri: str) -> str | None:
    """Where the artifact proxy has a run's artifacts, from mlflow-artifacts:/1/…/artifacts or its https form."""
    parts = urlsplit(artifact_uri)
    if parts.scheme == "mlflow-artifacts":
        return parts.path.strip("/")
    if parts.scheme in ("http", "https") and ARTIFACTS + "/" in parts.path:
        return parts.path.partition(ARTIFACTS + "/")[2].strip("/")
    return None


def artifact_url(path: str) -> str:
    return f"{ARTIFACTS}/{quote(path)}"


class HealthCheck:
    """The steps of one check, and what is known after each of them, whether it passed or not."""

    def __init__(self, target: Target, timeout: float, delay: float) -> None:
        self.client = Client(target)
        self.timeout = timeout
        self.delay = delay
        self.deadline = time.monotonic() + timeout
        self.steps: list[dict[str, Any]] = []
        self.version: str | None = None
        self.roundtrip: Roundtrip | None = None

    def run(self, depth: str, expect_version: str | None) -> None:
        """Raise a Failure that names the step and the likely cause."""
        self._step("liveness", self._check_liveness)
        if expect_version:
            self._step("version", lambda: self._check_version(expect_version))
        else:
            # Good to know but not asked for: behind a password it may be closed.
            with suppress(Failure, TimeoutError), time_limit((self.deadline - time.monotonic()) / 2):
                self._read_version()
        if depth != "liveness":
            self._step("database", lambda: self.client.post("experiments/search", {"max_results": 1}))
            self.client.starting = False
        if depth == "roundtrip":
            self._run_roundtrip()

    def result(self) -> dict[str, Any]:
        trip = self.roundtrip
        return {
            "version": self.version,
            "steps": self.steps,
            "left_behind": trip.left_behind if trip else [],
        }

    def _check_liveness(self) -> None:
        if self.client.request("GET", "/health").strip() != b"OK":
            raise Failure("GET /health does not answer OK, as MLflow does: check host name, port and path of url")

    def _read_version(self) -> None:
        version = self.client.request("GET", "/version").decode("utf-8", "replace").strip()
        if not VERSION.fullmatch(version):
            raise Failure("GET /version does not give a version: check host name, port and path of url")
        self.version = version

    def _check_version(self, expected: str) -> None:
        self._read_version()
        if self.version != expected:
            raise Failure(f"the server runs MLflow {self.version}, expected is {expected}: restart it, or set expect_version")

    def _run_roundtrip(self) -> None:
        deadline = self.deadline - min(CLEANUP_SECONDS, self.timeout / 4)
        trip = self.roundtrip = Roundtrip(self.client)
        problems = []
        try:
            for name, work in (
                ("experiment", trip.find_experiment),
                ("run", trip.find_run),
                ("log", trip.log),
                ("read", trip.read),
                ("upload", trip.upload),
                ("download", trip.download),
            ):
                self._step(name, work, deadline)
        except Failure as failure:
            problems.append(str(failure))
        try:
            self._step("cleanup", trip.clean_up)
        except Failure as failure:
            problems.append(f"{failure}. Left behind: {', '.join(trip.left_behind)}")
        if problems:
            raise Failure(". ".join(problems))
        with suppress(Failure, KeyError, TypeError, AttributeError, TimeoutError), time_limit(self.deadline - time.monotonic()):
            trip.sweep()

    def _step(self, name: str, work: Callable[[], Result], deadline: float | None = None) -> Result:
        """Repeat the work until it passes, until waiting can't mend it, or until the time is over."""
        deadline = self.deadline if deadline is None else deadline
        step: dict[str, Any] = {"name": name, "status": "failed", "milliseconds": 0, "attempts": 0}
        self.steps.append(step)
        begin = time.monotonic()
        failure = None
        try:
            while True:
                step["attempts"] += 1
                # Half of what is left, so that an answer that got lost on its way does not end it all.
                limit = (deadline - time.monotonic()) / 2
                try:
                    with time_limit(limit):
                        result = work()
                    step["status"] = "ok"
                    return result
                except TimeoutError:
                    if not failure or limit > 1:  # else too short for an answer, and an earlier one says more
                        failure = Failure(f"{self.client.target.place} does not answer", waiting_helps=True)
                except (KeyError, TypeError, AttributeError):  # another shape than MLflow's
                    failure = Failure(STRANGE)
                except Failure as caught:
                    failure = caught
                if not failure.waiting_helps:
                    raise Failure(f"{name}: {failure}")
                if time.monotonic() + self.delay >= deadline:
                    raise Failure(f"{name}: {failure} (after {step['attempts']} attempts within {self.timeout:g} seconds)")
                time.sleep(self.delay)
        finally:
            step["milliseconds"] = round((time.monotonic() - begin) * 1000)
