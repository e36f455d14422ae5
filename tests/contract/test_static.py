# SPDX-License-Identifier: GPL-3.0-or-later
"""The site of mlflow_nginx sends the user interface's files as MLflow would, and compresses what it may."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from servers import ROOT, Answer, ask, run_mlflow_python
from test_auth import GOOD, WRONG, Nginx
from test_launcher import normal

BUILD = Path(run_mlflow_python("import importlib.util; print(importlib.util.find_spec('mlflow').origin)").strip()).parent / "server/js/build"
FILES = sorted(str(path.relative_to(BUILD)) for path in BUILD.rglob("*") if path.is_file() and path.suffix != ".gz")
HASHED = re.compile(r"[.-][0-9a-f]{8,}\.")
MAIN = next(f"/static-files/{name}" for name in FILES if re.search(r"/main\.\w+\.js$", name))


@pytest.fixture(scope="module")
def release(top: Path) -> Path:
    """A release as mlflow_venv makes it, as far as nginx sees it."""
    release = top / "release"
    shutil.copytree(BUILD, release / "static-files")
    (block,) = (task["block"] for task in yaml.safe_load((ROOT / "roles/mlflow_venv/tasks/install.yml").read_text()) if "block" in task)
    (compress,) = (task["ansible.builtin.command"]["argv"] for task in block if task["name"].startswith("Compress"))
    subprocess.run([str(release) if "{{" in word else word for word in compress], check=True)
    return release


def started(nginx: Nginx, **variables) -> Iterator[Nginx]:
    nginx.start(mlflow_nginx_remember_seconds=300, **variables)
    yield nginx
    nginx.stop()


@pytest.fixture(scope="module")
def stopped(top: Path) -> Nginx:
    (top / "static").mkdir()
    return Nginx(top / "static")


@pytest.fixture(scope="module")
def nginx(stopped: Nginx, release: Path, served) -> Iterator[Nginx]:
    upstreams = {"mlflow_nginx_upstreams": [f"unix:{served.asgi}"], "mlflow_nginx_wsgi_upstreams": [f"unix:{served.wsgi}"]}
    yield from started(stopped, mlflow_nginx_release_dir=str(release), **upstreams)


@pytest.fixture
def alone(top: Path, release: Path) -> Iterator[Nginx]:
    """Its MLflow is down."""
    (top / "alone").mkdir(exist_ok=True)
    gone = {"mlflow_nginx_upstreams": [f"unix:{top}/gone"], "mlflow_nginx_wsgi_upstreams": [f"unix:{top}/gone"]}
    yield from started(Nginx(top / "alone"), mlflow_nginx_release_dir=str(release), **gone)


@pytest.fixture
def remote(top: Path, served) -> Iterator[Nginx]:
    """Its MLflow is on another host."""
    (top / "remote").mkdir(exist_ok=True)
    yield from started(Nginx(top / "remote"), mlflow_nginx_release_dir=f"{top}/none", mlflow_nginx_upstreams=[f"unix:{served.asgi}"])


def through(nginx: Nginx, path: str, method: str = "GET", body=None, **headers: str) -> Answer:
    return ask(f"127.0.0.1:{nginx.port}", method, path, body, headers={**GOOD, **headers})


def test_every_file_is_the_one_that_mlflow_sends(cli, nginx):
    assert len(FILES) > 100
    for name in FILES:
        path = f"/static-files/{name}"
        theirs, plain, packed = ask(cli, "GET", path), through(nginx, path), through(nginx, path, **{"Accept-Encoding": "gzip"})
        for ours in (plain, packed):
            assert (ours.status, ours.headers["content-type"]) == (theirs.status, theirs.headers["content-type"]), name
            assert theirs.headers["vary"] <= ours.headers["vary"], name
            for header in ("x-content-type-options", "x-frame-options"):
                assert ours.headers.get(header) == theirs.headers.get(header), name
            caching = {"private, max-age=31536000, immutable" if HASHED.search(name) else "no-cache"}
            assert ours.headers["cache-control"] == (theirs.headers["cache-control"] if name.endswith(".html") else caching), name
        body = gzip.decompress(packed.body) if "content-encoding" in packed.headers else packed.body
        assert plain.body == body == theirs.body, name


def test_large_files_were_compressed_once(nginx, release):
    packed = through(nginx, MAIN, **{"Accept-Encoding": "gzip"})
    assert packed.body == (release / f"{MAIN[1:]}.gz").read_bytes()
    assert len(packed.body) < len(through(nginx, MAIN).body) / 3
    assert packed.headers["vary"] == {"Accept-Encoding", "Origin"}


def test_mlflow_is_not_asked(alone):
    for path in (MAIN, "/static-files/favicon.ico"):
        assert through(alone, path).status == 200
    assert through(alone, "/static-files/nothing.js").status == 502


def test_the_password_is_asked_for_and_remembered(alone):
    address = f"127.0.0.1:{alone.port}"
    assert ask(address, "GET", MAIN).status == ask(address, "GET", MAIN, headers=WRONG).status == 401
    assert [alone.watch(GOOD, MAIN), alone.watch(GOOD, MAIN)] == [(200, True), (200, False)]
    assert alone.watch(WRONG, MAIN) == (401, True)


OTHERS = [
    ("GET", "/static-files/nothing.js", {}),
    ("GET", "/static-files/static", {}),
    ("GET", "/static-files/static/", {}),
    ("GET", "/static-files/", {}),
    ("GET", "/static-files", {}),
    ("GET", "/static-files/%2e%2e/__init__.py", {}),
    ("GET", "/static-files/..%2f__init__.py", {}),
    ("GET", "/static-files//etc/passwd", {}),
    ("POST", MAIN, {}),
    ("PUT", MAIN, {}),
    ("OPTIONS", MAIN, {}),
    ("HEAD", "/static-files/nothing.js", {}),
    ("GET", "/static-files/nothing.js", {"Origin": "https://mlflow.test"}),
    ("GET", "/", {}),
    ("GET", "/static-files/index.html", {}),
]


@pytest.mark.parametrize(("method", "path", "headers"), OTHERS)
def test_whatever_is_no_file_is_answered_by_mlflow(cli, nginx, method, path, headers):
    ours, theirs = through(nginx, path, method, **headers), ask(cli, method, path, headers=headers)
    ours.headers.get("vary", set()).discard("Accept-Encoding")
    for answer in (ours, theirs):
        answer.headers.pop("etag", None)  # of files: with the time at which they were installed, and a checksum of their path
        answer.headers.pop("last-modified", None)
        answer.headers.pop("expires", None)
    assert normal(ours) == normal(theirs)


@pytest.mark.parametrize("origin", ["https://mlflow.test", "https://evil.test"])
def test_other_origins_get_mlflows_headers(cli, nginx, origin):
    ours, theirs = through(nginx, MAIN, Origin=origin), ask(cli, "GET", MAIN, headers={"Origin": origin})
    assert {name: values for name, values in ours.headers.items() if "control-" in name} == {
        name: values for name, values in theirs.headers.items() if "control-" in name
    }
    assert ours.body == theirs.body


def test_on_another_host_mlflow_sends_the_files(cli, remote):
    for path in (MAIN, "/static-files/nothing.js"):
        ours, theirs = through(remote, path), ask(cli, "GET", path)
        assert (ours.status, ours.headers.get("cache-control"), ours.body) == (theirs.status, theirs.headers.get("cache-control"), theirs.body)
    assert remote.watch(GOOD, MAIN) == (200, False)


@pytest.fixture(scope="module")
def experiments(cli) -> list[str]:
    return [ask(cli, "POST", "/api/2.0/mlflow/experiments/create", {"name": f"static {number}"}).json()["experiment_id"] for number in range(10)]


@pytest.mark.parametrize("kind", ["api", "ajax-api"])
def test_json_is_compressed_for_those_who_ask(nginx, experiments, kind):
    search = f"/{kind}/2.0/mlflow/experiments/search?max_results=50"
    packed, plain = through(nginx, search, **{"Accept-Encoding": "gzip"}), through(nginx, search)
    assert packed.headers["content-encoding"] == {"gzip"}
    assert "content-encoding" not in plain.headers
    assert json.loads(gzip.decompress(packed.body)) == plain.json()
    assert len(packed.body) < len(plain.body) / 2
    assert "Accept-Encoding" in packed.headers["vary"] & plain.headers["vary"]


def test_small_answers_stay_as_they_are(nginx, experiments):
    answer = through(nginx, f"/api/2.0/mlflow/experiments/get?experiment_id={experiments[0]}", **{"Accept-Encoding": "gzip"})
    assert answer.json()["experiment"]["name"] == "static 0"


def test_artifacts_stay_as_they_are(nginx, experiments):
    path, content = f"/api/2.0/mlflow-artifacts/artifacts/{experiments[0]}/x/artifacts/a.html", b"<p>" * 9999
    assert through(nginx, path, "PUT", content).status == 200
    answer = through(nginx, path, **{"Accept-Encoding": "gzip"})
    assert answer.headers["content-type"] == {"text/html"}
    assert answer.body == content


def test_both_can_be_turned_off(stopped):
    assert "gzip on;" not in stopped.render(mlflow_nginx_gzip_level=0)
    assert "static-files" not in stopped.render(mlflow_nginx_release_dir="")
