# SPDX-License-Identifier: GPL-3.0-or-later
"""Serve MLflow on sockets held by systemd, with workers that share memory.

`mlflow server` keeps a parent process that only waits, and answers its Flask routes through a bridge inside the ASGI
application. Here one gunicorn master loads MLflow once and forks workers; each of them serves

* the Flask application, from a pool of threads, on the unix socket at MLFLOW_SERVE_WSGI_SOCKET, and
* the complete ASGI application, from an event loop in one more thread, on every other socket.

One process id, two stages:

1. MLflow's own `server` command reads its options (MLFLOW_* variables), checks them, prepares the database and starts the
   job runner where one is wanted. Only the start of the web server is replaced: by stage 2.
2. This file again, with the environment the command made for its web server: load, fork, serve.

A worker that is told to go (SIGTERM) takes no more connections and finishes the requests it has, for --graceful-timeout seconds at most. Nobody
waits for it: the main process ends at once, so that the next one serves. Told again, it has 15 seconds; at SIGQUIT it breaks off.

gunicorn's options come from GUNICORN_CMD_ARGS, for instance "--workers=2 --threads=8 --graceful-timeout=30".
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import fcntl
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import typing as t
from collections.abc import Awaitable, Callable
from contextlib import suppress
from urllib.parse import quote

APP = "mlflow.server.fastapi_app:app"
SERVE = "serve"
PIECE = 1 << 20
BACKLOG = 4096  # as in mlflow.socket: both servers call listen() again
LONGEST_LINE = 1 << 17  # bytes of a request line or a header field; nginx ends them before
PATIENCE = 120  # seconds that one request of MLflow's client lasts (MLFLOW_HTTP_REQUEST_TIMEOUT)
RETRY_AFTER = 40  # seconds: the client tries seven times, so this is 280 s, more than the 246 s that it takes without the header
HURRY = 15  # seconds that a worker still has once the one after it is told to go
# What an upload leaves behind that ended with its worker, and for how many minutes nobody may have written to it.
PIECES, PIECES_AGE = ".artifact.uploading.*", 24 * 60
# Job processes are many, and each needs few database connections.
JOB_POOL = {"MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "2", "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": "2"}

# Of this worker, with connections to the database; MLflow keeps them as long.
ENGINES: set[t.Any] = set()

# Of ASGI and WSGI.
Scope = dict[str, t.Any]
Message = dict[str, t.Any]
Environ = dict[str, t.Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]
Wsgi = Callable[[Environ, Callable[..., t.Any]], t.Iterable[bytes]]
Error = tuple[int, list[tuple[str, str]], bytes]


class ThisProcess:
    """What `mlflow server` gets for the web server it starts: this process, which becomes it as soon as it is waited for."""

    def __init__(self, command: list[str], *, extra_env: dict[str, str], **_: object) -> None:
        if command[-1] != APP:
            sys.exit(f"mlflow_serve serves {APP} only, not {command[-1]}: use `mlflow server` for that")
        self.pid = os.getpid()  # the job runner watches it; systemd's sockets belong to it
        self.environ = {**os.environ, **extra_env}
        os.environ.update(JOB_POOL)  # for the job runner, which is started next

    def poll(self) -> None:
        """It runs."""

    def send_signal(self, signum: int) -> t.NoReturn:
        sys.exit(128 + signum)  # told to stop before it served

    def wait(self) -> t.NoReturn:
        send_telemetry()
        os.execve(sys.executable, [sys.executable, __file__, SERVE], self.environ)  # noqa: S606 - no shell is wanted


def send_telemetry() -> None:
    """Send what the `server` command recorded, whose thread ends with this stage; where telemetry is off, there is nothing."""
    try:
        from mlflow.telemetry.client import get_telemetry_client
    except ImportError:  # a release that has it elsewhere, or no more: MLflow serves without
        return
    if client := get_telemetry_client():
        thread = threading.Thread(target=client.flush, daemon=True)
        thread.start()
        thread.join(5)  # requests wait meanwhile


def prepare() -> None:
    import mlflow.server
    from mlflow.cli import cli

    mlflow.server._exec_cmd = ThisProcess
    cli.main(["server"], prog_name="mlflow")


def sockets_from_systemd() -> tuple[list[int], list[int]]:
    """The file descriptors of the socket at MLFLOW_SERVE_WSGI_SOCKET, and those of all others."""
    if os.environ.pop("LISTEN_PID", None) != str(os.getpid()):
        sys.exit("mlflow_serve takes its sockets from systemd, and got none")
    os.environ.pop("LISTEN_FDNAMES", None)
    wsgi: list[int] = []
    asgi: list[int] = []
    for fd in range(3, 3 + int(os.environ.pop("LISTEN_FDS"))):
        with socket.socket(fileno=os.dup(fd)) as listener:
            (wsgi if listener.getsockname() == os.environ.get("MLFLOW_SERVE_WSGI_SOCKET") else asgi).append(fd)
    return wsgi, asgi


def is_gone(connection: socket.socket) -> bool:
    """Whether the peer of a socket has closed it. What it had sent can still be read then."""
    if connection.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLRDHUP)
    return bool(poll.poll(0))


def has_waited(connection: socket.socket, start: str) -> bool:
    """Whether a request waited so long that its sender has given it up, unseen by the proxy.

    `start` is the header X-Request-Start, "t=SECONDS", by the clock of this host: only a proxy on this host is believed.
    """
    try:
        return connection.family == socket.AF_UNIX and time.time() - float(start.removeprefix("t=")) > PATIENCE
    except ValueError:
        return False


def error(status: int, code: str, message: str) -> Error:
    """Status, headers and body of an error as MLflow writes it."""
    body = json.dumps({"error_code": code, "message": message}).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    return status, headers + ([("Retry-After", str(RETRY_AFTER))] if status == 429 else []), body


TOO_LATE = error(429, "REQUEST_LIMIT_EXCEEDED", f"MLflow was not available for {PATIENCE} seconds. The request was not executed: send it again.")
DISK_FULL = error(507, "INTERNAL_ERROR", "The disk of MLflow's server is full. The request was not executed: tell its administrator.")
# The connection of the request that the event loop is answering, for the threads that Flask gets there.
CONNECTION: contextvars.ContextVar[socket.socket | None] = contextvars.ContextVar("connection", default=None)


def if_awaited(flask: Wsgi) -> Wsgi:
    """Call the Flask application, from either server, only for a sender who still waits: a client sends again what it gave up."""

    def call(environ: Environ, start_response: Callable[..., t.Any]) -> t.Iterable[bytes]:
        connection = environ.get("gunicorn.socket") or CONNECTION.get()
        if connection is None:  # called by MLflow itself
            return flask(environ, start_response)
        if is_gone(connection):
            start_response("499 Client Closed Request", [("Content-Length", "0")])
            return [b""]
        if has_waited(connection, environ.get("HTTP_X_REQUEST_START", "")):
            while environ["wsgi.input"].read(PIECE):  # a proxy that still sends would miss the answer
                pass
            status, headers, body = TOO_LATE
            start_response(f"{status} Too Many Requests", headers)
            return [body]
        return flask(environ, start_response)

    return call


async def turn_away(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body"):  # as above
        pass
    status, headers, body = TOO_LATE
    encoded = [(name.lower().encode(), value.encode()) for name, value in headers]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})


def tell_that_the_disk_is_full(flask: t.Any, fastapi: t.Any) -> None:
    """MLflow would answer with status 500 and no reason."""
    from starlette.responses import Response

    def answer(problem: OSError) -> tuple[int, dict[str, str], bytes]:
        if problem.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise problem
        status, headers, body = DISK_FULL
        return status, dict(headers), body

    async def answer_asgi(request: object, problem: OSError) -> Response:
        status, headers, body = answer(problem)
        return Response(body, status, headers)

    def answer_wsgi(problem: OSError) -> tuple[bytes, int, dict[str, str]]:
        status, headers, body = answer(problem)
        return body, status, headers

    flask.register_error_handler(OSError, answer_wsgi)
    fastapi.add_exception_handler(OSError, answer_asgi)


def with_proxy(app: Asgi) -> Asgi:
    """Have the proxy send files.

    The proxy offers it with a request header, "X-Accel-Mapping: /its/directory/=/its/location/". Starlette's FileResponse then
    names its file instead of reading it (the "pathsend" extension of ASGI), and the name goes to the proxy.
    """

    async def accelerated(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await app(scope, receive, send)
        mapping = dict(scope["headers"]).get(b"x-accel-mapping", b"").decode()
        directory, _equals, location = mapping.partition("=")
        start: Message | None = None
        unread = True

        async def receive_all() -> Message:
            nonlocal unread
            message = await receive()
            unread = message.get("more_body", False)
            return message

        async def send_names(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                while unread:  # refused before it was read: a proxy that still sends would miss the answer
                    await receive_all()
                if not mapping:
                    return await send(message)
                start = message  # kept until it is known what follows
                return None
            path = message.get("path") if message["type"] == "http.response.pathsend" else None
            if start and path and path.startswith(directory):
                mine = {b"content-length", b"accept-ranges", b"last-modified", b"etag"}  # the proxy's, who sends the file
                headers = [header for header in start["headers"] if header[0] not in mine]
                redirect = location + quote(path[len(directory) :])
                start = {**start, "headers": [*headers, (b"x-accel-redirect", redirect.encode()), (b"content-length", b"0")]}
                path, message = None, {"type": "http.response.body"}
            if start:
                await send(start)
                start = None
            if path:
                with open(path, "rb") as file:
                    while chunk := await asyncio.to_thread(file.read, PIECE):
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
                message = {"type": "http.response.body"}
            await send(message)

        if mapping:
            scope = {**scope, "extensions": {**scope.get("extensions", {}), "http.response.pathsend": {}}}
        await app(scope, receive_all, send_names)

    return accelerated


def with_large_pieces(protocol: t.Any) -> type:
    """Take large uploads from their socket in large pieces, past the event loop and its parser.

    Where the connection ends with its request, nobody else wants to read from it.
    """

    class Protocol(protocol):
        app: Asgi

        def __init__(self, *args: t.Any, **options: t.Any) -> None:
            super().__init__(*args, **options)
            app = self.app

            async def awaited(scope: Scope, receive: Receive, send: Send) -> None:
                if scope["type"] != "http":
                    return await app(scope, receive, send)
                sender = self.transport.get_extra_info("socket")
                if is_gone(sender):
                    self.cycle.disconnected = True  # no answer is missing
                    return None
                CONNECTION.set(sender)
                late = has_waited(sender, dict(scope["headers"]).get(b"x-request-start", b"").decode("latin-1"))
                return await direct(turn_away if late else app, scope, receive, send)

            async def direct(app: Asgi, scope: Scope, receive: Receive, send: Send) -> None:
                headers = dict(scope["headers"])
                length = int(headers.get(b"content-length", 0))
                if length < PIECE or headers.get(b"connection", b"").lower() != b"close":
                    return await app(scope, receive, send)
                self.transport.pause_reading()
                parsed = bytes(self.cycle.body)
                unread = length - len(parsed)
                self.cycle.body = bytearray()
                self.cycle.message_event.clear()
                piece = memoryview(bytearray(PIECE))
                connection: socket.socket
                loop, readable = asyncio.get_running_loop(), asyncio.Event()

                def read() -> int:  # what comes without a pause: a thread is nothing to wait in
                    size, wanted = 0, min(PIECE, unread)
                    try:
                        while size < wanted:
                            count = connection.recv_into(piece[size:wanted])
                            if not count:
                                raise ConnectionError
                            size += count
                    except TimeoutError:
                        pass
                    return size

                async def receive_pieces() -> Message:
                    nonlocal parsed, unread
                    if parsed:
                        body, parsed = parsed, b""
                        return {"type": "http.request", "body": body, "more_body": True}
                    if not unread:
                        self.transport.resume_reading()
                        return await receive()
                    try:
                        while not (size := await asyncio.to_thread(read)):
                            readable.clear()
                            loop.add_reader(connection, readable.set)
                            try:
                                await readable.wait()
                            finally:
                                loop.remove_reader(connection)
                    except OSError:
                        return {"type": "http.disconnect"}
                    unread -= size
                    return {"type": "http.request", "body": piece[:size], "more_body": unread > 0}

                with socket.socket(fileno=os.dup(self.transport.get_extra_info("socket").fileno())) as connection:
                    connection.settimeout(0.05)
                    await app(scope, receive_pieces, send)

            self.app = awaited

    return Protocol


def keep_compressed() -> None:
    """Store a compressed file in S3 as what it is: of one with a Content-Encoding, clients get what is packed in it."""
    import mimetypes

    from mlflow.store.artifact import s3_artifact_repo

    def guess_type(name: str) -> tuple[str | None, None]:
        kind, encoding = mimetypes.guess_type(name)
        return (f"application/{encoding}" if encoding else kind), None

    s3_artifact_repo.guess_type = guess_type


def proxy_transfers() -> None:
    """Tell no client to fetch from a store, or to send there, what MLflow itself can pass on: clients may not reach it."""
    from mlflow.server import handlers

    class Unsupported:
        """What no store is."""

    handlers.MultipartDownloadMixin = handlers.MultipartUploadMixin = Unsupported


def keep_engines() -> None:
    """Know what holds connections to the database. gc.get_objects() knows too, and makes `tuple()` fail in other threads (SystemError)."""
    from sqlalchemy import Engine, event

    event.listen(Engine, "engine_connect", lambda connection: ENGINES.add(connection.engine))


def close_idle_connections() -> None:
    """To the database: there may be few, and the next workers need them."""
    for engine in list(ENGINES):
        engine.dispose()  # those in use are closed when they are given back


def sweep() -> None:
    """At the start and once a day, remove what uploads left behind; one at a time, of all that share the artifacts."""
    top = os.environ.get("MLFLOW_ARTIFACTS_DESTINATION", "").removeprefix("file:")
    if not top.startswith("/"):
        return
    top = "/" + top.lstrip("/")
    while True:
        with suppress(OSError):  # another one is at it, or the disk is away
            directory = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
                subprocess.run(["find", top, "-type", "f", "-name", PIECES, "-mmin", f"+{PIECES_AGE}", "-delete"], check=False)
            finally:
                os.close(directory)
        time.sleep(24 * 3600)


def serve() -> None:
    import uvicorn
    from gunicorn.app.base import Application
    from gunicorn.arbiter import Arbiter
    from gunicorn.workers.gthread import ThreadWorker

    wsgi_fds, asgi_fds = sockets_from_systemd()

    class EventLoop(uvicorn.Server):
        """Ends when its worker ends, and says that it isn't stuck."""

        def __init__(self, worker: Worker) -> None:
            from mlflow.server.fastapi_app import app
            from uvicorn.protocols.http.auto import AutoHTTPProtocol

            # forwarded_allow_ips: only the proxy can open these sockets, so its headers are believed.
            super().__init__(
                uvicorn.Config(
                    with_proxy(app),
                    http=with_large_pieces(AutoHTTPProtocol),
                    backlog=BACKLOG,
                    h11_max_incomplete_event_size=4 * LONGEST_LINE,
                    log_config=None,
                    access_log=False,
                    forwarded_allow_ips="*",
                )
            )
            self.worker = worker
            self.last_tick = time.monotonic()

        def run_in_thread(self) -> None:
            try:
                self.run([socket.socket(fileno=os.dup(fd)) for fd in asgi_fds])
            finally:
                if self.worker.alive:  # it failed: no worker at all is better than one that answers half of the routes
                    os.kill(os.getpid(), signal.SIGTERM)

        async def on_tick(self, counter: int) -> bool:
            self.loop = asyncio.get_running_loop()
            self.last_tick = time.monotonic()
            return await super().on_tick(counter) or not self.worker.alive

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            for server in self.servers:
                server.close()
            deadline = time.monotonic() + 5
            await asyncio.sleep(0.5)
            # uvicorn would drop connections that are accepted but not read yet
            while any(getattr(connection, "cycle", connection) is None for connection in self.server_state.connections) and time.monotonic() < deadline:
                await asyncio.sleep(0.05)
            await super().shutdown(sockets)

        def break_off(self) -> None:
            """As if the senders were gone: MLflow then removes the pieces of their uploads, which it may not when it is cancelled."""
            for connection in list(self.server_state.connections):
                with suppress(OSError):
                    connection.transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    class Worker(ThreadWorker):
        """gunicorn's threads, and an event loop that starts and ends with them."""

        alive: bool

        def run(self) -> None:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            # Held for as long as it may have files there: see mlflow.service.
            self.temporary = os.open(tempfile.gettempdir(), os.O_RDONLY)
            fcntl.flock(self.temporary, fcntl.LOCK_SH)
            threading.Thread(target=sweep, name="sweep", daemon=True).start()
            self.event_loop = EventLoop(self)
            thread = threading.Thread(target=self.event_loop.run_in_thread, name="asgi", daemon=True)
            thread.start()
            super().run()
            if self.alive:  # the main process is gone
                self.alive = False
                self.end_in(self.cfg.graceful_timeout)
            while thread.is_alive():
                thread.join(1)  # without a time, Python 3.13 handles no signal meanwhile

        def handle_exit(self, sig: int, frame: object) -> None:
            if not self.alive:
                return self.end_in(HURRY)
            self.end_in(self.cfg.graceful_timeout)
            threading.Thread(target=close_idle_connections, daemon=True).start()
            if hasattr(self, "set_accept_enabled"):
                super().handle_exit(sig, frame)
                return
            # gunicorn 23, which MLflow 3.9 wants, would drop connections that are accepted but not read yet
            for listener in self.sockets if self.alive else ():
                if listener.fileno() in self.poller.get_map():
                    self.poller.unregister(listener)
            threading.Timer(0.5, super().handle_exit, (sig, frame)).start()

        def handle_quit(self, sig: int, frame: object) -> None:
            self.end_in(0)

        def end_in(self, seconds: float) -> None:
            timer = threading.Timer(seconds, self.end)
            timer.daemon = True
            timer.start()

        def end(self) -> None:
            try:
                self.event_loop.loop.call_soon_threadsafe(self.event_loop.break_off)
                deadline = time.monotonic() + 3
                while self.event_loop.server_state.tasks and time.monotonic() < deadline:
                    time.sleep(0.05)
            finally:  # also where the event loop is not there
                os._exit(0)

        def notify(self) -> None:  # once a second; the master replaces a worker it has not heard of for `timeout` seconds
            if time.monotonic() - self.event_loop.last_tick < self.cfg.timeout:
                super().notify()

    class Master(Arbiter):
        """Does not wait for workers that it told to go, nor end them when they say nothing: they look after themselves."""

        def __init__(self, app: Server) -> None:
            super().__init__(app)
            self.gone: list[int] = []  # process descriptors

        def spawn_worker(self) -> t.Any:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # a worker would lose one that comes before it listens to it
            try:
                return super().spawn_worker()
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

        def kill_worker(self, pid: int, sig: int) -> None:
            super().kill_worker(pid, sig)
            if sig == signal.SIGTERM and (worker := self.WORKERS.pop(pid, None)):
                worker.tmp.close()
                self.gone.append(os.pidfd_open(pid))

        def handle_hup(self) -> None:
            for worker in self.gone:  # two generations at once are what the memory is for
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(worker, signal.SIGTERM)
                os.close(worker)
            self.gone.clear()
            super().handle_hup()

    class Server(Application):
        def run(self) -> None:
            try:
                Master(self).run()
            except RuntimeError as problem:  # as gunicorn does
                sys.exit(f"Error: {problem}")

        def init(self, parser: object, opts: object, args: object) -> dict[str, t.Any]:
            settings = {
                "bind": [f"fd://{fd}" for fd in wsgi_fds],
                "worker_class": Worker,
                "workers": 2,
                "threads": 8,
                "timeout": 120,
                "backlog": BACKLOG,
                "limit_request_line": 0,  # gunicorn's own limit cannot be more than 8,190 bytes
                "limit_request_field_size": LONGEST_LINE,
                "keepalive": 0,  # a connection costs nothing on a unix socket, and one that is kept loses requests at a restart
                "preload_app": True,
                "on_starting": keep_sockets,
                "when_ready": share_memory,
                "control_socket_disable": True,
            }
            return {name: value for name, value in settings.items() if name in self.cfg.settings}

        def load(self) -> t.Any:
            import mlflow.server
            import uvicorn.lifespan.on
            import uvicorn.loops.auto
            import uvicorn.protocols.http.auto  # noqa: F401 - loaded before the fork, to be shared
            from mlflow.server.fastapi_app import app

            keep_engines()
            keep_compressed()
            if os.environ.get("MLFLOW_SERVE_DIRECT_TRANSFERS") != "true":
                proxy_transfers()
            flask: t.Any = mlflow.server.app
            tell_that_the_disk_is_full(flask, app)
            flask.wsgi_app = if_awaited(flask.wsgi_app)
            return flask

    def keep_sockets(arbiter: t.Any) -> None:
        arbiter.systemd = True  # which owns them: not removed at the end

    def share_memory(arbiter: object) -> None:
        gc.collect()
        gc.freeze()  # a collection in a worker would write to, and so copy, every page it inherits

    Server("mlflow_serve").run()


if __name__ == "__main__":
    if sys.argv[1:] == [SERVE]:
        del sys.argv[1:]
        serve()
    else:
        prepare()
