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

gunicorn's options come from GUNICORN_CMD_ARGS, for instance "--workers=2 --threads=8 --graceful-timeout=30".
"""

import asyncio
import gc
import os
import signal
import socket
import sys
import threading
import time
from urllib.parse import quote

APP = "mlflow.server.fastapi_app:app"
SERVE = "serve"
PIECE = 1 << 20
# Job processes are many, and each needs few database connections.
JOB_POOL = {"MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "2", "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": "2"}


class ThisProcess:
    """What `mlflow server` gets for the web server it starts: this process, which becomes it as soon as it is waited for."""

    def __init__(self, command, *, extra_env, **_):
        if command[-1] != APP:
            sys.exit(f"mlflow_serve serves {APP} only, not {command[-1]}: use `mlflow server` for that")
        self.pid = os.getpid()  # the job runner watches it; systemd's sockets belong to it
        self.environ = {**os.environ, **extra_env}
        os.environ.update(JOB_POOL)  # for the job runner, which is started next

    def poll(self):
        return None

    def send_signal(self, signum):
        sys.exit(128 + signum)  # told to stop before it served

    def wait(self):
        send_telemetry()
        os.execve(sys.executable, [sys.executable, __file__, SERVE], self.environ)


def send_telemetry():
    """Send what the `server` command recorded, whose thread ends with this stage; where telemetry is off, there is nothing."""
    from mlflow.telemetry.client import get_telemetry_client

    if client := get_telemetry_client():
        thread = threading.Thread(target=client.flush, daemon=True)
        thread.start()
        thread.join(5)  # requests wait meanwhile


def prepare():
    import mlflow.server
    from mlflow.cli import cli

    mlflow.server._exec_cmd = ThisProcess
    cli.main(["server"], prog_name="mlflow")


def sockets_from_systemd():
    """The file descriptors of the socket at MLFLOW_SERVE_WSGI_SOCKET, and those of all others."""
    if os.environ.pop("LISTEN_PID", None) != str(os.getpid()):
        sys.exit("mlflow_serve takes its sockets from systemd, and got none")
    os.environ.pop("LISTEN_FDNAMES", None)
    wsgi, asgi = [], []
    for fd in range(3, 3 + int(os.environ.pop("LISTEN_FDS"))):
        with socket.socket(fileno=os.dup(fd)) as listener:
            (wsgi if listener.getsockname() == os.environ.get("MLFLOW_SERVE_WSGI_SOCKET") else asgi).append(fd)
    return wsgi, asgi


def with_proxy(app):
    """Have the proxy send files.

    The proxy offers it with a request header, "X-Accel-Mapping: /its/directory/=/its/location/". Starlette's FileResponse then
    names its file instead of reading it (the "pathsend" extension of ASGI), and the name goes to the proxy.
    """

    async def accelerated(scope, receive, send):
        mapping = dict(scope.get("headers", ())).get(b"x-accel-mapping", b"").decode()
        if scope["type"] != "http" or not mapping:
            return await app(scope, receive, send)
        directory, _equals, location = mapping.partition("=")
        start, unread = None, True

        async def receive_all():
            nonlocal unread
            message = await receive()
            unread = message.get("more_body", False)
            return message

        async def send_names(message):
            nonlocal start
            if message["type"] == "http.response.start":
                while unread:  # refused before it was read: a proxy that still sends would miss the answer
                    await receive_all()
                start = message  # kept until it is known what follows
                return
            path = message.get("path") if message["type"] == "http.response.pathsend" else None
            if path and path.startswith(directory):
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

        scope = {**scope, "extensions": {**scope.get("extensions", {}), "http.response.pathsend": {}}}
        await app(scope, receive_all, send_names)

    return accelerated


def with_large_pieces(protocol):
    """Take large uploads from their socket in large pieces, past the event loop and its parser.

    Where the connection ends with its request, nobody else wants to read from it.
    """

    class Protocol(protocol):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            app = self.app

            async def direct(scope, receive, send):
                headers = dict(scope.get("headers", ()))
                length = int(headers.get(b"content-length", 0))
                if scope["type"] != "http" or length < PIECE or headers.get(b"connection", b"").lower() != b"close":
                    return await app(scope, receive, send)
                self.transport.pause_reading()
                parsed = bytes(self.cycle.body)
                unread = length - len(parsed)
                self.cycle.body = bytearray()
                self.cycle.message_event.clear()
                piece = memoryview(bytearray(PIECE))
                loop, readable = asyncio.get_running_loop(), asyncio.Event()

                def read():  # what comes without a pause: a thread is nothing to wait in
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

                async def receive_pieces():
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

            self.app = direct

    return Protocol


def keep_compressed():
    """Store a compressed file in S3 as what it is: of one with a Content-Encoding, clients get what is packed in it."""
    import mimetypes

    from mlflow.store.artifact import s3_artifact_repo

    def guess_type(name):
        kind, encoding = mimetypes.guess_type(name)
        return (f"application/{encoding}" if encoding else kind), None

    s3_artifact_repo.guess_type = guess_type


def proxy_transfers():
    """Tell no client to fetch from a store, or to send there, what MLflow itself can pass on: clients may not reach it."""
    from mlflow.server import handlers

    class Unsupported:
        """What no store is."""

    handlers.MultipartDownloadMixin = handlers.MultipartUploadMixin = Unsupported


def serve():
    import uvicorn
    from gunicorn.app.base import Application
    from gunicorn.workers.gthread import ThreadWorker

    wsgi_fds, asgi_fds = sockets_from_systemd()

    class EventLoop(uvicorn.Server):
        """Ends when its worker ends, and says that it isn't stuck."""

        def __init__(self, worker):
            from mlflow.server.fastapi_app import app
            from uvicorn.protocols.http.auto import AutoHTTPProtocol

            # forwarded_allow_ips: only the proxy can open these sockets, so its headers are believed.
            super().__init__(
                uvicorn.Config(with_proxy(app), http=with_large_pieces(AutoHTTPProtocol), log_config=None, access_log=False, forwarded_allow_ips="*")
            )
            self.worker = worker
            self.last_tick = time.monotonic()

        def run_in_thread(self):
            try:
                self.run([socket.socket(fileno=os.dup(fd)) for fd in asgi_fds])
            finally:
                if self.worker.alive:  # it failed: no worker at all is better than one that answers half of the routes
                    os.kill(os.getpid(), signal.SIGTERM)

        async def on_tick(self, counter):
            self.last_tick = time.monotonic()
            return await super().on_tick(counter) or not self.worker.alive

        async def shutdown(self, sockets=None):
            for server in self.servers:
                server.close()
            await asyncio.sleep(0.5)  # uvicorn would drop connections that are accepted but not read yet
            await super().shutdown(sockets)

    class Worker(ThreadWorker):
        """gunicorn's threads, and an event loop that starts and ends with them."""

        def run(self):
            self.event_loop = EventLoop(self)
            thread = threading.Thread(target=self.event_loop.run_in_thread, name="asgi", daemon=True)
            thread.start()
            super().run()
            thread.join(self.cfg.graceful_timeout)

        def handle_exit(self, sig, frame):
            if hasattr(self, "set_accept_enabled"):
                return super().handle_exit(sig, frame)
            # gunicorn 23, which MLflow 3.9 wants, would drop connections that are accepted but not read yet
            for listener in self.sockets if self.alive else ():
                if listener.fileno() in self.poller.get_map():
                    self.poller.unregister(listener)
            threading.Timer(0.5, super().handle_exit, (sig, frame)).start()

        def notify(self):  # once a second; the master replaces a worker it has not heard of for `timeout` seconds
            if time.monotonic() - self.event_loop.last_tick < self.cfg.timeout:
                super().notify()

    class Server(Application):
        def init(self, parser, opts, args):
            settings = {
                "bind": [f"fd://{fd}" for fd in wsgi_fds],
                "worker_class": Worker,
                "workers": 2,
                "threads": 8,
                "timeout": 120,
                "keepalive": 0,  # a connection costs nothing on a unix socket, and one that is kept loses requests at a restart
                "preload_app": True,
                "on_starting": keep_sockets,
                "when_ready": share_memory,
                "control_socket_disable": True,
            }
            return {name: value for name, value in settings.items() if name in self.cfg.settings}

        def load(self):
            import uvicorn.lifespan.on
            import uvicorn.loops.auto
            import uvicorn.protocols.http.auto  # noqa: F401 - loaded before the fork, to be shared

            import mlflow.server.fastapi_app

            keep_compressed()
            if os.environ.get("MLFLOW_SERVE_DIRECT_TRANSFERS") != "true":
                proxy_transfers()
            return mlflow.server.app

    def keep_sockets(arbiter):
        arbiter.systemd = True  # which owns them: not removed at the end

    def share_memory(arbiter):
        gc.collect()
        gc.freeze()  # a collection in a worker would write to, and so copy, every page it inherits

    Server("mlflow_serve").run()


if __name__ == "__main__":
    if sys.argv[1:] == [SERVE]:
        del sys.argv[1:]
        serve()
    else:
        prepare()
