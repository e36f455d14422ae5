# SPDX-License-Identifier: GPL-3.0-or-later
"""The site of mlflow_nginx answers the preflights of listed origins, which have no password, as MLflow would; nothing else gets past the password."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import HOST, LISTED, Answer, ask
from test_auth import GOOD, SECONDS, WRONG, Nginx, header

SEARCH = "/api/2.0/mlflow/experiments/search"
PATHS = [SEARCH, "/ajax-api/3.0/mlflow/traces", "/api/2.0/mlflow-artifacts/artifacts/x", "/v1/traces", "/"]
ORIGINS = [LISTED, "http://[::1]:3000", "moz-extension://0a1b-2c"]
WISH = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,x-mlflow-workspace",
}


@pytest.fixture(scope="module")
def stopped(top: Path) -> Nginx:
    (top / "cors").mkdir()
    return Nginx(top / "cors")


@pytest.fixture
def alone(stopped: Nginx) -> Iterator[Nginx]:
    """Behind it are the stand-ins, which answer everything with 200."""
    stopped.start(free=True, mlflow_nginx_cors_allowed_origins=ORIGINS)
    yield stopped
    stopped.stop()


@pytest.fixture(scope="module")
def real(top: Path, served) -> Iterator[Nginx]:
    (top / "cors-real").mkdir()
    nginx = Nginx(top / "cors-real")
    upstreams = {"mlflow_nginx_upstreams": [f"unix:{served.asgi}"], "mlflow_nginx_wsgi_upstreams": [f"unix:{served.wsgi}"]}
    nginx.start(mlflow_nginx_cors_allowed_origins=[LISTED], **upstreams)
    yield nginx
    nginx.stop()


def preflight(nginx: Nginx, path: str = SEARCH, **headers: str) -> Answer:
    return ask(f"127.0.0.1:{nginx.port}", "OPTIONS", path, headers={"Origin": LISTED, **WISH, **headers})


def cors(answer: Answer) -> dict[str, set[str]]:
    return {name: values for name, values in answer.headers.items() if name.startswith("access-control-")}


@pytest.mark.parametrize("path", PATHS)
def test_preflights_are_answered_as_mlflow_would(cli, real, path):
    """Without a password, which browsers don't send then."""
    theirs = ask(cli, "OPTIONS", path, headers={"Origin": LISTED, **WISH})
    ours = preflight(real, path)
    assert theirs.status in (200, 204)
    assert (ours.status, ours.body) == (204, b"")
    assert cors(ours) == cors(theirs)
    assert ours.headers["access-control-allow-origin"] == {LISTED}
    assert theirs.headers["vary"] <= ours.headers["vary"] | {"Access-Control-Request-Private-Network"}


@pytest.mark.parametrize("origin", ORIGINS)
def test_each_listed_origin_is_answered_by_nginx(alone, origin):
    for path in PATHS:
        answer = preflight(alone, path, Origin=origin)
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (204, {origin})
        assert "x-asked" not in answer.headers, "it reached what is behind nginx"
    assert (alone.top / "mlflow.access.log").read_text().count("OPTIONS") == len(PATHS) * (1 + ORIGINS.index(origin))


STRANGERS = [
    "https://evil.test",
    f"{LISTED}.evil.test",
    f"{LISTED}1",
    LISTED.removesuffix(":8443"),
    LISTED.replace("https", "http"),
    LISTED.replace("notebooks.", "notebooksx"),
    LISTED.upper(),
    f"x{LISTED}",
    f"{LISTED} {LISTED}",
    f"https://{HOST}",
    "null",
    "",
    "*",
]


@pytest.mark.parametrize("origin", STRANGERS)
def test_other_origins_need_the_password(alone, origin):
    answer = preflight(alone, Origin=origin)
    assert (answer.status, cors(answer)) == (401, {})


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "options", "OPTIONSX"])
def test_only_preflights_get_past_the_password(alone, method):
    answer = ask(f"127.0.0.1:{alone.port}", method, SEARCH, headers={"Origin": LISTED, **WISH})
    assert answer.status in (400, 401)
    assert "x-asked" not in answer.headers


@pytest.mark.parametrize("wish", [{}, {"Access-Control-Request-Headers": "authorization"}, {"Access-Control-Request-Method": ""}])
def test_options_that_are_no_preflights_need_the_password(alone, wish):
    answer = ask(f"127.0.0.1:{alone.port}", "OPTIONS", SEARCH, headers={"Origin": LISTED, **wish})
    assert answer.status == 401
    assert "x-asked" not in answer.headers


@pytest.mark.parametrize("path", [*PATHS, "/health", "/static-files/x.js", "/_mlflow_preflight", "/_mlflow_artifacts/x", "/x"])
def test_a_preflight_vouches_for_no_password(alone, path):
    for headers in (WRONG, header("nobody", "x"), {"Authorization": "Bearer x"}):
        for _count in range(3):
            assert preflight(alone, path, **headers).status == 204
        for other in PATHS:
            assert alone.get(headers, other).status == 401
            assert alone.get({**headers, "Origin": LISTED}, other).status == 401
    # nor for one that would be right
    assert preflight(alone, path, **GOOD).status == 204
    assert alone.watch(GOOD) == (200, True)


def test_a_preflight_does_not_prolong_what_is_remembered(alone):
    assert alone.get(GOOD).status == 200
    deadline = time.monotonic() + SECONDS + 1.1
    while time.monotonic() < deadline:
        assert preflight(alone, **GOOD).status == 204
        time.sleep(0.2)
    assert alone.watch(GOOD) == (200, True)


def test_its_own_place_answers_nobody(alone):
    for headers in ({}, {"Origin": LISTED}):
        assert ask(f"127.0.0.1:{alone.port}", "GET", "/_mlflow_preflight", headers=headers).status == 404


def test_preflights_cost_no_attempt(stopped):
    """They reach no limit on passwords, and a flood of them keeps nobody out."""
    stopped.start(mlflow_nginx_cors_allowed_origins=ORIGINS)
    try:
        assert {preflight(stopped, **WRONG).status for _count in range(100)} == {204}
        assert stopped.get(GOOD).status == 200
    finally:
        stopped.stop()


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", [SEARCH, "/version", "/api/2.0/mlflow-artifacts/artifacts?path=", "/ajax-api/3.0/mlflow/traces", "/nothing"])
def test_the_request_after_it_is_answered_with_mlflows_own_headers(cli, real, path, method):
    body = {"max_results": 1} if method == "POST" else None
    theirs = ask(cli, method, path, body, {"Origin": LISTED})
    ours = ask(f"127.0.0.1:{real.port}", method, path, body, {**GOOD, "Origin": LISTED})
    assert ours.status == theirs.status
    assert cors(ours) == cors(theirs), "each once"
    assert ours.headers["access-control-allow-origin"] == {LISTED}


def test_a_page_elsewhere_may_read_why_it_was_refused(real):
    """By nginx itself: the browser would hide the answer from it."""
    for headers, status in (({}, 401), (WRONG, 401), ({**GOOD, "Content-Length": "200000000"}, 413)):
        answer = ask(f"127.0.0.1:{real.port}", "POST", SEARCH, headers={**headers, "Origin": LISTED})
        assert answer.status == status
        assert (answer.headers["access-control-allow-origin"], answer.headers["access-control-allow-credentials"]) == ({LISTED}, {"true"})
        assert cors(ask(f"127.0.0.1:{real.port}", "POST", SEARCH, headers={**headers, "Origin": "https://evil.test"})) == {}


def test_addresses_that_are_shut_out_get_no_preflight(stopped):
    stopped.start(mlflow_nginx_cors_allowed_origins=ORIGINS, mlflow_nginx_allow=["203.0.113.7"])
    try:
        assert preflight(stopped).status == 204  # from the host itself
        address = f"127.0.0.1:{stopped.port}"
        site = (stopped.top / "include/mlflow.conf").read_text()
        (stopped.top / "include/mlflow.conf").write_text(site.replace("127.0.0.0/8 0;", "127.0.0.1 0;"))
        stopped.reload()
        assert ask(address, "OPTIONS", SEARCH, headers={"Origin": LISTED, **WISH}, source="127.0.0.9").status == 403
    finally:
        stopped.stop()


def test_without_a_list_no_preflight_is_answered(stopped):
    stopped.start(free=True)
    try:
        assert preflight(stopped).status == 401
        assert cors(preflight(stopped)) == {}
    finally:
        stopped.stop()
