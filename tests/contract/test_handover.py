# SPDX-License-Identifier: GPL-3.0-or-later
"""Through a restart and a reload, workers finish what they have while others serve; what is cut off all the same leaves nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import HOST, Connection, ask, children, descendants, wait_until_healthy
from test_launcher import SEARCH
from test_uploads import begin, url

SIZE = 3 << 20


@pytest.fixture(scope="module")
def server(launch) -> Iterator:
    with launch("handover", restart=True, GUNICORN_CMD_ARGS="--workers=2 --threads=4 --graceful-timeout=600") as server:
        yield server


@pytest.fixture(scope="module")
def artifacts(environ) -> Path:
    return Path(environ["MLFLOW_ARTIFACTS_DESTINATION"])


def master(server) -> int:
    (pid,) = children(server.process.pid)
    return pid


def ended(pids: set[int], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def taken(artifacts, count: int = 1) -> None:
    """Wait until so many uploads have begun."""
    deadline = time.monotonic() + 30
    while len(list(artifacts.rglob(".artifact.uploading.*"))) < count:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("what", [signal.SIGTERM, signal.SIGHUP], ids=["restart", "reload"])
@pytest.mark.parametrize("size", [SIZE, 300_000])
def test_an_upload_goes_on_while_others_are_served(server, artifacts, what, size):
    before = master(server)
    workers = set(descendants(before))
    content = os.urandom(size)
    upload = begin(server.asgi, url("slow/file"), content[: size // 2], size)
    taken(artifacts)
    os.kill(before, what)
    if what == signal.SIGTERM:
        assert ended({before}, 20), "the next one can start"
    deadline = time.monotonic() + 60
    while not set(descendants(server.process.pid)) - workers - {before}:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    for socket in server.sockets * 4:
        wait_until_healthy(socket, server.process, server.log)
        assert ask(socket, "POST", SEARCH, {"max_results": 1}).status == 200
    deadline = time.monotonic() + 20
    while len(left := {pid for pid in workers if Path(f"/proc/{pid}").exists()}) > 1:  # the one that has the upload
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert left
    upload.send(content[size // 2 :])
    assert upload.getresponse().status == 200
    assert (artifacts / "slow/file").read_bytes() == content
    assert ended(left, 20)
    assert ask(server.asgi, "DELETE", url("slow/file")).status == 200


def test_a_call_that_is_executed_is_answered(server):
    """It is with Flask, and its body is still coming."""
    before = master(server)
    call = Connection(server.wsgi)
    call.putrequest("POST", SEARCH, skip_host=True)
    for name, value in (("Host", HOST), ("Content-Type", "application/json"), ("Content-Length", "18")):
        call.putheader(name, value)
    call.endheaders(b'{"max_resu')
    time.sleep(1)
    os.kill(before, signal.SIGTERM)
    assert ended({before}, 20)
    time.sleep(2)
    call.send(b'lts": 1}')
    assert call.getresponse().status == 200
    wait_until_healthy(server.wsgi, server.process, server.log)


def test_no_third_generation_lasts(server, artifacts):
    """A second restart or reload lets the workers of the one before the last end quickly; here the reload."""
    before = master(server)
    workers = set(children(before))
    uploads = [begin(server.asgi, url(f"slow/{number}"), bytes(10), SIZE) for number in range(8)]
    taken(artifacts, 8)
    os.kill(before, signal.SIGHUP)
    time.sleep(3)
    assert not ended(workers, 0)
    os.kill(before, signal.SIGHUP)
    assert ended(workers, 40)
    for upload in uploads:
        upload.close()


def test_what_is_broken_off_leaves_no_piece(server, artifacts):
    workers = set(children(master(server)))
    upload = begin(server.asgi, url("broken/file"), bytes(1 << 20), SIZE)
    small = begin(server.asgi, url("broken/small"), bytes(1000), 2000)
    taken(artifacts, 2)
    for worker in workers:
        os.kill(worker, signal.SIGQUIT)
    assert ended(workers, 10)
    assert list(artifacts.glob("broken/*")) == []
    upload.close()
    small.close()
    (artifacts / "broken").rmdir()


def test_pieces_of_dead_uploads_are_swept(launch, artifacts):
    top = artifacts / "9/swept"
    (top / ".artifact.uploading.directory").mkdir(parents=True)
    names = [".artifact.uploading.old", ".artifact.uploading.new", "artifact.uploading.x", ".artifact.uploading.directory/model.pkl"]
    old = time.time() - 2 * 24 * 3600
    for name in names:
        (top / name).write_text("x")
        if "new" not in name:
            os.utime(top / name, (old, old))
    os.chmod(top, 0o777)
    with launch("sweeps"):
        deadline = time.monotonic() + 20
        while (top / names[0]).exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert [name for name in names if (top / name).exists()] == names[1:]
