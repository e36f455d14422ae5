# SPDX-License-Identifier: GPL-3.0-or-later
"""mlflow_serve.py takes uploads past the parser: what they answer and leave behind is what `mlflow server` answers and leaves behind."""

from __future__ import annotations

import os
import stat
import threading
import time
from pathlib import Path

import pytest
from servers import HOST, Connection, ask
from test_launcher import normal

SIZES = [0, 10, (1 << 20) - 1, 1 << 20, (5 << 20) + 3]
NAMES = [
    "plain.bin",
    "deep/er/file.txt",
    "%C3%BC%20%C3%B6%25%22%27%3F%23.bin",
    "a%2Fb.bin",
    "dot/./name",
    "..",
    "../outside",
    "%2e%2e/outside",
    "x/..%2f..%2foutside",
    "%252e%252e/outside",
    "/absolute",
    "file%3A/x",
    "%00",
    "back%5Cslash",
    ".artifact.uploading.x",
    "directory/",
    "taken-by-a-directory",
    "taken-by-a-file/x",
    "there-already",
    "long" * 64,
]


@pytest.fixture(scope="module")
def artifacts(environ) -> Path:
    return Path(environ["MLFLOW_ARTIFACTS_DESTINATION"])


def url(name: str) -> str:
    return f"/api/2.0/mlflow-artifacts/artifacts/{name}"


def tree(top: Path) -> dict[str, tuple]:
    """Kind, mode, owner and content of everything below."""
    found = {}
    for path in sorted(top.rglob("*")):
        info = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(info.st_mode) else b""
        found[str(path.relative_to(top))] = (oct(info.st_mode), info.st_uid, info.st_gid, len(content), hash(content))
    return found


@pytest.mark.parametrize("size", SIZES)
def test_upload(cli, served, artifacts, size):
    content = os.urandom(size)
    for number, name in enumerate(NAMES):
        answers, trees = [], []
        for address in (cli, served.asgi):
            # The same path, so that the same is said about it; empty again for the second.
            top = f"uploads-{size}-{number}"
            assert ask(cli, "PUT", url(f"{top}/taken-by-a-directory/x"), b"x").status == 200
            assert ask(cli, "PUT", url(f"{top}/taken-by-a-file"), b"x").status == 200
            assert ask(cli, "PUT", url(f"{top}/there-already"), b"before").status == 200
            answers.append(normal(ask(address, "PUT", url(f"{top}/{name}"), content)))
            trees.append(tree(artifacts))
            assert ask(cli, "DELETE", url(top)).status == 200
        assert answers[0] == answers[1], name
        assert trees[0] == trees[1], name
        if name in ("plain.bin", "there-already"):
            assert answers[1][0] == 200
            assert trees[1][f"{top}/{name}"][3:] == (size, hash(content))


def begin(address, path: str, content: bytes, length: int) -> Connection:
    connection = Connection(address)
    connection.putrequest("PUT", path, skip_host=True)
    for header, value in (("Host", HOST), ("Connection", "close"), ("Content-Length", str(length))):
        connection.putheader(header, value)
    connection.endheaders(content)
    return connection


@pytest.mark.parametrize("sent", [0, 10, 300_000, (2 << 20) + 5])
def test_half_an_upload_is_never_seen(served, artifacts, sent):
    before = tree(artifacts)
    connection = begin(served.asgi, url("half/file"), bytes(sent), 5 << 20)
    time.sleep(0.5)
    assert not (artifacts / "half/file").exists()
    assert ask(served.asgi, "GET", url("half/file")).status == 404
    assert ask(served.asgi, "GET", "/api/2.0/mlflow-artifacts/artifacts?path=half").json().get("files", []) == []
    connection.close()
    deadline = time.monotonic() + 20
    while list((artifacts / "half").glob("*")) if (artifacts / "half").exists() else []:
        assert time.monotonic() < deadline, tree(artifacts / "half")
        time.sleep(0.1)
    (artifacts / "half").rmdir() if (artifacts / "half").exists() else None
    assert tree(artifacts) == before


def test_an_upload_that_pauses_arrives_whole(served, artifacts):
    content = os.urandom(3 << 20)
    connection = begin(served.asgi, url("pauses/file"), b"", len(content))
    for start in range(0, len(content), 600_000):
        time.sleep(0.2)
        connection.send(content[start : start + 600_000])
    assert connection.getresponse().status == 200
    assert (artifacts / "pauses/file").read_bytes() == content


def test_pauses_hold_nobody_up(served, artifacts):
    """More uploads at once than there are threads."""
    connections = [begin(served.asgi, url(f"waiting/{number}"), b"x", 2 << 20) for number in range(40)]
    try:
        started = time.monotonic()
        assert ask(served.asgi, "PUT", url("waiting/large"), bytes(4 << 20)).status == 200
        assert time.monotonic() - started < 20
    finally:
        for connection in connections:
            connection.close()


def test_uploads_at_once_do_not_mix(served, artifacts):
    contents = [os.urandom((2 << 20) + number) for number in range(8)]
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda n=n: statuses.append(ask(served.asgi, "PUT", url(f"many/{n}"), contents[n]).status)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 8
    assert [(artifacts / f"many/{number}").read_bytes() for number in range(8)] == contents


@pytest.mark.parametrize("headers", [{"Transfer-Encoding": "chunked"}, {"Connection": "keep-alive"}])
def test_other_ways_to_upload(served, artifacts, headers):
    content = os.urandom(3 << 20)
    connection = Connection(served.asgi)
    chunked = "Transfer-Encoding" in headers
    body = iter([content[:100], content[100:]]) if chunked else content
    connection.request("PUT", url("other/file"), body, {"Host": HOST, **headers}, encode_chunked=chunked)
    assert connection.getresponse().read() == b""
    assert (artifacts / "other/file").read_bytes() == content
