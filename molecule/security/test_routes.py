# SPDX-License-Identifier: GPL-3.0-or-later
"""Every route of the deployed MLflow is behind the password. What reaches MLflow is seen at its sockets, not guessed from a status."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from urllib.parse import quote

import pytest
from attack import DOMAIN, FIGURES, GOOD, NOBODY, SCHEME, SERVER, WRONG, Tap, on, request, send, statuses, tap

ROOT = Path(__file__).resolve().parents[2]
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "MKCOL", "COPY", "LOCK", "SEARCH", "INVENTED"]
ODD_METHODS = ["TRACE", "CONNECT", "get", "GeT", "G\tT", "GET "]
SEARCH = "/api/2.0/mlflow/experiments/search"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
# One in each of the locations with a password.
TARGETS = [SEARCH, "/version", ARTIFACTS + "/0/x"]


@pytest.fixture(scope="module")
def paths() -> list[str]:
    """A path for each rule of the MLflow that is deployed."""
    python = ["runuser", "-u", "mlflow", "--", "/opt/mlflow/current/bin/python", "-W", "ignore", "-c", (ROOT / "tests/routes.py").read_text()]
    routes = json.loads(on(SERVER, "env", "OPENBLAS_NUM_THREADS=1", "MLFLOW_DISABLE_TELEMETRY=true", *python).split("ROUTES ", 1)[1])
    rules = {rule for kind in ("flask", "native") for _method, rule in routes[kind]}
    found = sorted({re.sub(r"[<{][^>}]+[>}]", "x", rule) for rule in rules} - {"/health"})
    assert len(found) > 200
    assert {"/", "/graphql", "/version", "/v1/traces", SEARCH, ARTIFACTS + "/x"} <= set(found)
    return found


@pytest.fixture(scope="module")
def mlflow() -> Tap:
    send([request("GET", "/version", GOOD, "Connection: close")] * 50)  # every worker of nginx has seen the right password before the wrong ones
    with tap() as tapped:
        send([request("GET", "/version", GOOD), request("GET", SEARCH + "?max_results=1", GOOD)])
        assert len(tapped.take()) == 2, "the tap sees what reaches MLflow, on both sockets"
        yield tapped


def encodings(path: str) -> dict[str, str]:
    """Ways to write a path that a proxy and a server could read differently."""
    all_encoded = "/" + "".join(f"%{ord(character):02X}" for character in path[1:])
    below = path.lstrip("/")
    return {
        "//": "/" + path,
        "// all": path.replace("/", "//"),
        "///": "//" + path,
        "/./": "/." + path,
        "/%2e/": "/%2e" + path,
        "end /": path + "/",
        "end //": path + "//",
        "end /.": path + "/.",
        "end .": path + ".",
        "end ...": path + "...",
        "end %20": path + "%20",
        "end %09": path + "%09",
        "end %0a": path + "%0a",
        "end %0d%0a": path + "%0d%0aX-Injected:%20yes",
        "end %00": path + "%00",
        "end %00.png": path + "%00.png",
        "end %2f": path + "%2f",
        "end %5c": path + "%5c",
        "end %3f": path + "%3f",
        "end %23": path + "%23/health",
        "end ;": path + ";",
        "end ;/health": path + ";/health",
        "end /..;/health": path + "/..;/health",
        "end /health": path + "/health",
        "end #/health": path + "#/health",
        "end ?/health": path + "?/health",
        "end ?/../health": path + "?/../../health",
        "parameters": path.replace("/", ";a=b/")[4:] or "/;a=b",
        "x/..": "/x/.." + path,
        "x/%2e%2e": "/x/%2e%2e" + path,
        "x/.%2e": "/x/.%2e" + path,
        "x/%2e%2e%2f": "/x/%2e%2e%2f" + below,
        "x/..%2f": "/x/..%2f" + below,
        "x/%252e%252e": "/x/%252e%252e" + path,
        "x/..;": "/x/..;" + path,
        "x/%c0%ae": "/x/%c0%ae%c0%ae" + path,
        "x/\\": "/x\\.." + path,
        "health/..": "/health/.." + path,
        "health/%2e%2e": "/health/%2e%2e" + path,
        "health%2f..": "/health%2f.." + path,
        "health%2f%2e%2e%2f": "/health%2f%2e%2e%2f" + below,
        "health%252f..": "/health%252f.." + path,
        "health;": "/health;" + path,
        "health;/..": "/health;/.." + path,
        "health/..;": "/health/..;" + path,
        "health%00": "/health%00/.." + path,
        "health\\": "/health\\.." + path,
        "health%5c": "/health%5c.." + path,
        "health//..": "/health//.." + path,
        "health%3f": "/health%3f/.." + path,
        "health%23": "/health%23/.." + path,
        "upper case": path.upper() if path.upper() != path else "/GRAPHQL",
        "title": path.title() if path.title() != path else "/Graphql",
        "all encoded": all_encoded,
        "first encoded": f"/%{ord(path[1:2] or 'x'):02x}{path[2:]}",
        "slashes encoded": "/" + below.replace("/", "%2f"),
        "slashes doubly encoded": "/" + below.replace("/", "%252f"),
        "backslashes": path.replace("/", "\\")[:1].replace("\\", "/") + below.replace("/", "\\"),
        "full width": "/" + quote(below.replace("/", "／").replace(".", "．")),
        "bytes": path + "\xff\xfe",
        "NUL": path + "\x00",
        "absolute": f"{SCHEME}://{DOMAIN}{path}",
        "absolute with user": f"{SCHEME}://mlflow:x@{DOMAIN}{path}",
        "absolute of localhost": f"http://localhost{path}",
        "absolute of a socket": f"http://unix:/run/mlflow/mlflow.sock:{path}",
        "no slash": below or "x",
        "* before": "*" + path,
        "internal": "/_mlflow_artifacts" + path,
        "internal/..": "/_mlflow_artifacts/.." + path,
        "named": "/@mlflow_range" + path,
    }


def refused(what: str, requests: list[str], mlflow: Tap, allowed: set[int]) -> Counter:
    """That none of these got an answer of MLflow; counts the answers that they did get."""
    mlflow.take()
    answers = send(requests)
    seen: Counter = Counter()
    wrong = []
    for sent, answer in zip(requests, answers, strict=True):
        numbers = statuses(answer)
        seen.update(numbers or ["closed"])
        if not set(numbers) <= allowed:
            wrong.append((sent[:300], answer[:120]))
    assert wrong == []
    assert mlflow.take() == []
    FIGURES.append(f"{what}: {len(requests)} requests, answered {', '.join(f'{count} x {status}' for status, count in seen.most_common())}, 0 by MLflow")
    return seen


def test_every_route_by_every_method_without_a_password(paths, mlflow):
    seen = refused(
        f"{len(paths)} routes x {len(METHODS)} methods, no password", [request(method, path) for path in paths for method in METHODS], mlflow, {401}
    )
    assert seen[401] == len(paths) * len(METHODS)
    refused(
        f"{len(paths)} routes x {len(ODD_METHODS)} odd methods", [request(method, path) for path in paths for method in ODD_METHODS], mlflow, {400, 401, 405}
    )


def test_every_route_with_a_wrong_password(paths, mlflow):
    """Most are refused without a look at the password: one address may try few."""
    for who, header, method in (("a user's", WRONG, "GET"), ("nobody's", NOBODY, "POST")):
        seen = refused(f"{len(paths)} routes, {who} wrong password", [request(method, path, header) for path in paths], mlflow, {401, 429})
        assert seen[401] > 0


def test_every_route_in_every_encoding(paths, mlflow):
    # Those of "/" lead to /health itself.
    requests = [request("GET", target) for path in paths if path != "/" for target in encodings(path).values()]
    refused(f"{len(paths)} routes x {len(encodings('/x'))} encodings", requests, mlflow, {400, 401, 404, 421})


def test_odd_requests(mlflow):
    """Requests that two servers could read differently, to each kind of route."""
    refused(
        "odd requests", [odd for target in TARGETS for odd in odd_requests(target)], mlflow, {400, 401, 403, 404, 405, 408, 411, 413, 414, 421, 429, 501, 505}
    )


def odd_requests(path: str) -> list[str]:
    close = "Connection: close"
    chunked = "Transfer-Encoding: chunked"
    inner = f"GET {path} HTTP/1.1\r\nHost: {DOMAIN}\r\nX: "
    length = f"Content-Length: {len(inner)}"
    chunks = f"{len(inner):x}\r\n{inner}\r\n0\r\n\r\n"
    return [
        # old versions, and none
        f"GET {path}\r\n",
        f"GET {path}\r\n{close}\r\n\r\n",
        f"GET {path} HTTP/0.9\r\n{close}\r\n\r\n",
        f"GET {path} HTTP/1.0\r\n{close}\r\n\r\n",
        f"GET {path} HTTP/1.0\r\nHost: {DOMAIN}\r\n{close}\r\n\r\n",
        f"GET {path} HTTP/2.0\r\nHost: {DOMAIN}\r\n{close}\r\n\r\n",
        f"GET {path} HTTP/1.2\r\nHost: {DOMAIN}\r\n{close}\r\n\r\n",
        f"GET {path} http/1.1\r\nHost: {DOMAIN}\r\n{close}\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + close,
        # names
        f"GET {path} HTTP/1.1\r\n{close}\r\n\r\n",
        f"GET {path} HTTP/1.1\r\nHost: {DOMAIN}\r\nHost: evil.example\r\n{close}\r\n\r\n",
        f"GET {path} HTTP/1.1\r\nHost: evil.example\r\nHost: {DOMAIN}\r\n{close}\r\n\r\n",
        *(request("GET", path, close, host=host) for host in (
            "", "evil.example", "localhost", "127.0.0.1", "[::1]", f"mlflow:x@{DOMAIN}", f"{DOMAIN}@evil.example", f"{DOMAIN}.", DOMAIN.upper(),
            f"{DOMAIN}:99999", f"{DOMAIN}:x", f"{DOMAIN}/health", f"{DOMAIN} evil.example", f"{DOMAIN},evil.example",
            f"{DOMAIN}\x00", "unix:/run/mlflow/mlflow.sock", "*", "_",
        )),
        f"GET {SCHEME}://evil.example{path} HTTP/1.1\r\nHost: {DOMAIN}\r\n{close}\r\n\r\n",
        f"GET {SCHEME}://{DOMAIN}{path} HTTP/1.1\r\nHost: evil.example\r\n{close}\r\n\r\n",
        # headers that frameworks believe
        *(request("GET", "/none", f"{name}: {value}", close) for name, value in (
            ("X-Original-URL", path), ("X-Rewrite-URL", path), ("X-Original-URI", path), ("X-HTTP-Method-Override", "POST"), ("X-Accel-Redirect", path),
            ("X-Forwarded-Prefix", path), ("X-Forwarded-Uri", path), ("Upgrade", "websocket"), ("Upgrade", "h2c"), ("Expect", "100-continue"),
        )),
        *(request("GET", path, header, close) for header in (
            "X-Original-URL: /health", "X-Rewrite-URL: /health", "X-Accel-Redirect: /health", "X-Auth-Remembered: 1", "X-Forwarded-For: 127.0.0.1",
            "X-Real-IP: 127.0.0.1", "X-Remote-User: mlflow", "Remote-User: mlflow", "X-Forwarded-User: mlflow", "X-Forwarded-Host: localhost",
            "Forwarded: for=127.0.0.1;host=localhost", "X-HTTP-Method-Override: HEAD", "X-Accel-Mapping: /=/_mlflow_artifacts/", "Cookie: session=mlflow",
        )),
        # passwords that are none
        *(request("GET", path, f"Authorization: {value}", close) for value in (
            "", "Basic", "Basic ", "Basic Og==", "Basic Om1sZmxvdw==", "Basic bWxmbG93", "Basic bWxmbG93Og==",
            "Basic bWxmbG93OgA=", "Basic \xff", "basic bWxmbG93Og==",
            "Bearer bWxmbG93", "Digest username=mlflow", "Negotiate x", "Basic " + "QUFB" * 2000,
        )),
        request("GET", path, "Authorization: Basic bWxmbG93Og==", "Authorization: Basic Og==", close),
        # bodies whose end is disputed: what follows must not become a request of its own that nobody checked
        *(
            request(method, target, close, *headers) + body
            for method in ("POST", "PUT", "GET")
            for target in (path, "/health")
            for headers, body in (
                ([length.replace(str(len(inner)), "0"), chunked], chunks),
                ([chunked, "Content-Length: 4"], f"0\r\n\r\n{inner}\r\n\r\n"),
                (["Transfer-Encoding: xchunked"], chunks),
                (["Transfer-Encoding : chunked"], chunks),
                (["Transfer-Encoding:\tchunked"], chunks),
                (["Transfer-Encoding: chunked, identity"], chunks),
                (["Transfer-Encoding: identity, chunked"], chunks),
                ([chunked, chunked], chunks),
                (["Transfer-Encoding:\r\n chunked"], chunks),
                (["X: y\nTransfer-Encoding: chunked"], chunks),
                (["Content-Length: 0", length], inner),
                (["Content-Length: +4"], inner),
                (["Content-Length: -1"], inner),
                (["Content-Length: 0x10"], inner),
                (["Content-Length: 4, 4"], inner),
                ([f"Content-Length: {1 << 64}"], inner),
                ([chunked], f"ffffffffffffffff\r\n{inner}"),
                ([chunked], f"5;{'x' * 100}\r\nhello\r\n0\r\n\r\n{inner}\r\n\r\n"),
                ([chunked], f"0\n\n{inner}\r\n\r\n"),
            )
            if not (target == "/health" and method == "GET")
        ),
        f"GET {path} HTTP/1.1\nHost: {DOMAIN}\n{close}\n\n",
        f"GET {path} HTTP/1.1\rHost: {DOMAIN}\r{close}\r\r",
        f"\r\n\r\nGET {path} HTTP/1.1\r\nHost: {DOMAIN}\r\n{close}\r\n\r\n",
        f"GET {path} HTTP/1.1\r\n Host: {DOMAIN}\r\n{close}\r\n\r\n",
        f"GET\t{path}\tHTTP/1.1\r\nHost: {DOMAIN}\r\n{close}\r\n\r\n",
        f"GET  {path}  HTTP/1.1\r\nHost: {DOMAIN}\r\n{close}\r\n\r\n",
        f"GET {path} x HTTP/1.1\r\nHost: {DOMAIN}\r\n{close}\r\n\r\n",
        # more than fits
        f"GET {path}?{'x' * 40000} HTTP/1.1\r\nHost: {DOMAIN}\r\n{close}\r\n\r\n",
        request("GET", path, "X: " + "x" * 40000, close),
        request("GET", path, *(f"X{number}: {'x' * 1000}" for number in range(100)), close),
        request("GET", path, "Content-Length: 999999999999999", close),
    ]


def test_only_health_is_open(mlflow):
    """As it is written and by reading alone; nothing of the request but its line goes on."""
    inner = f"GET {SEARCH} HTTP/1.1\r\nHost: {DOMAIN}\r\n\r\n"
    opens = [
        request("GET", "/health"),
        request("HEAD", "/health"),
        request("GET", "/health?x=/../version"),
        request("GET", "/health", WRONG),
        request("GET", "/health", "Connection: close", f"Content-Length: {len(inner)}") + inner,
        request("GET", "/health", "Connection: close", "Transfer-Encoding: chunked") + f"{len(inner):x}\r\n{inner}\r\n0\r\n\r\n",
    ]
    mlflow.take()
    answers = send(opens)
    assert [statuses(answer) for answer in answers[:4]] == [[200]] * 4
    got = mlflow.take()
    assert len(got) == 2 * len(opens), "both of MLflow's sockets are asked"
    for bytes_ in got:
        assert re.match(r"(GET|HEAD) /health(\?x=/\.\./version)? HTTP/1\.1\r\n", bytes_)
        assert bytes_.endswith("\r\n\r\n") and bytes_.count("\r\n\r\n") == 1, "no body"
    # A second request on the connection is one of its own.
    (answer,) = send([request("GET", "/health") + request("GET", SEARCH, "Connection: close")])
    assert statuses(answer) == [200, 401]
    assert len(mlflow.take()) == 2

    closed = [request(method, "/health") for method in METHODS if method not in ("GET", "HEAD")]
    refused("/health by other methods", closed, mlflow, {403, 405})
    near = [
        "/health/",
        "/healthz",
        "/Health",
        "/HEALTH",
        "/health.",
        "/health%20",
        "/health%00",
        "/health;",
        "/health;x",
        "/health%2f",
        "/health/.",
        "/health/x",
        "/health%3f",
        "/health\\",
    ]
    refused("paths like /health", [request("GET", target) for target in near], mlflow, {400, 401})
    same = [
        "//health",
        "/./health",
        "/x/../health",
        "/gateway/x/../../health",
        "/%68ealth",
        "/health%2f..%2fhealth",
        "/health#x",
        f"{SCHEME}://{DOMAIN}/health",
    ]
    assert {tuple(statuses(answer)) for answer in send(request("GET", target) for target in same)} == {(200,)}
    assert {bytes_.split("\r\n")[0] for bytes_ in mlflow.take()} == {"GET /health HTTP/1.1"}


def test_what_clients_claim_about_themselves_does_not_reach_mlflow(mlflow):
    claims = {
        "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "gopher", "X-Accel-Mapping": "/etc/=/_mlflow_artifacts/", "X-Auth-Remembered": "yes",
    }
    for path in [*TARGETS, "/health"]:
        mlflow.take()
        send([request("GET", path, GOOD, *(f"{name}: {value}" for name, value in claims.items()))])
        taken = mlflow.take()
        assert len(taken) == (2 if path == "/health" else 1)
        for got in taken:
            headers = dict(re.findall(r"^([^:\r\n]+): ([^\r\n]*)", got, re.MULTILINE))
            assert headers["X-Forwarded-Proto"] == SCHEME
            assert "127.0.0.1" not in headers["X-Forwarded-For"], "MLflow believes what it gets, and gives more to clients on its own host"
            assert "gopher" not in got and "/etc/" not in got
            assert "Authorization" not in got
            assert path == "/health" or "X-Auth-Remembered" not in got


def test_assistant_is_for_clients_on_the_server_itself(mlflow):
    """It runs programs there."""
    answers = send(
        request("POST", "/ajax-api/3.0/mlflow/assistant/skills/install", GOOD, *more) for more in ([], ["X-Forwarded-For: 127.0.0.1"], ["X-Forwarded-For: ::1"])
    )
    assert [statuses(answer) for answer in answers] == [[403]] * 3, answers


def test_foreign_host_reaches_nothing(mlflow):
    hosts = ["evil.example", "localhost", f"{DOMAIN}.evil.example", f"evil{DOMAIN}", "127.0.0.1", "[::1]", "10.9.8.7", "x"]
    sent = [request(method, path, GOOD, host=host) for host in hosts for path in TARGETS for method in ("GET", "POST")]
    refused("foreign hosts, right password", sent, mlflow, {200, 301, 308, 400, 403, 404, 405, 421})


ORIGIN = f"{SCHEME}://{DOMAIN}"


def test_foreign_origin_changes_nothing(mlflow):
    origins = [
        "https://evil.example",
        f"{ORIGIN}.evil.example",
        f"https://evil{DOMAIN}",
        f"https://{DOMAIN}@evil.example",
        "null",
        "file://",
        "http://localhost.evil.example",
    ]
    methods = ["POST", "PUT", "PATCH", "DELETE"]
    sent = [
        request(method, path, GOOD, f"Origin: {origin}", "Content-Type: application/json", "Connection: close")
        for origin in origins
        for path in TARGETS
        for method in methods
    ]
    answers = send(sent)
    seen = Counter(statuses(answer)[0] for answer in answers)
    assert set(seen) == {403, 405}, "blocked, or no such method at all"
    assert [answer for answer in answers if statuses(answer) == [403] and "Cross-origin request blocked" not in answer] == []
    assert {tuple(statuses(answer)) for sent_, answer in zip(sent, answers, strict=True) if sent_.startswith("POST " + SEARCH)} == {(403,)}
    FIGURES.append(f"foreign origins, right password: {len(sent)} changes tried, {seen[403]} x 403, {seen[405]} x 405")
    assert [
        statuses(answer) for answer in send([request("POST", SEARCH, GOOD, f"Origin: {ORIGIN}", "Content-Type: application/json", body='{"max_results": 1}')])
    ] == [[200]]


def test_preflight_lets_no_foreign_origin_in(mlflow):
    """Browsers send preflights without a password, which is why a page elsewhere never gets as far as MLflow."""
    ask = ["Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization,content-type"]
    for origin, password in (("https://evil.example", []), (ORIGIN, []), ("https://evil.example", [GOOD])):
        (answer,) = send([request("OPTIONS", SEARCH, f"Origin: {origin}", *ask, *password)])
        assert statuses(answer) != [200] or origin == ORIGIN
        assert "access-control-allow-origin" not in answer.lower()


# Files that no request may reach, and where they lie, seen from the artifacts.
MARKER = "MARKER-outside-41c7"
DATA = "/var/lib/mlflow"
OUTSIDE = [f"{DATA}/outside.txt", f"{DATA}/artifacts-evil/x.txt"]
PLANT = f"""
cd {DATA}
mkdir -p artifacts-evil artifacts/0/links
echo {MARKER} | tee outside.txt artifacts-evil/x.txt >/dev/null
echo inside >artifacts/0/links/inside.txt
ln -sfn {DATA}/outside.txt artifacts/0/links/file
ln -sfn {DATA} artifacts/0/links/directory
ln -sfn ../../../../../../etc artifacts/0/links/etc
chown -Rh mlflow:mlflow outside.txt artifacts-evil artifacts/0
"""
REMOVE = f"rm -rf {DATA}/outside.txt {DATA}/artifacts-evil {DATA}/artifacts/0/links"
PICTURE = f"find {DATA} /etc /tmp -path {DATA}/artifacts -prune -o -type f -newer /run/mlflow-planted -print"


@pytest.fixture
def planted():
    on(SERVER, "sh", "-ec", PLANT + "sleep 0.1; touch /run/mlflow-planted; sleep 0.1")
    yield
    on(SERVER, "sh", "-ec", REMOVE)


def traversals() -> list[str]:
    """Paths that lead from the artifacts to the planted files, or to files of the system, if anybody follows them."""
    ups = [
        "../", "..%2f", "..%2F", "%2e%2e/", "%2e%2e%2f", ".%2e/", "%252e%252e/", "%252e%252e%252f", "..%252f",
        "%25252e%25252e%25252f", "..%5c", "..\\", "%2e%2e%5c", "..%255c",
        "..%c0%af", "%c0%ae%c0%ae/", "%c0%ae%c0%ae%c0%af", "%uff0e%uff0e/", "%ef%bc%8e%ef%bc%8e%ef%bc%8f",
        "..%e2%88%95", "..;/", "....//", "..././", "..%00/", "..%0a/", "..%0d/", "..//",
        ".%00./", "..%09/", "%20../", "../.%2f", "./../", ".%2f../",
    ]
    targets = ["outside.txt", "artifacts-evil/x.txt", "../../../etc/passwd", "../../../etc/mlflow/mlflow.env"]
    found = []
    for up in ups:
        for depth in (1, 2, 4):
            for target in targets:
                found.append(up * depth + target)
        found.append("0/links/" + up * 3 + "outside.txt")
    for absolute in ("/etc/passwd", OUTSIDE[0]):
        found += [
            absolute,
            "/" + absolute,
            "%2f" + absolute[1:],
            "%252f" + absolute[1:],
            "//" + absolute,
            "file://" + absolute,
            "file:" + absolute,
            "file%3a%2f%2f" + absolute,
            "%00" + absolute,
            "C:" + absolute,
            "\\\\" + absolute,
        ]
    found += [
        f"0/links/{name}"
        for name in (
            "file",
            "directory/outside.txt",
            "directory/artifacts-evil/x.txt",
            "etc/passwd",
            "directory",
            "etc",
            "file%00",
            "directory/%2e/outside.txt",
        )
    ]
    found += ["0/links/inside.txt" + up + "outside.txt" for up in ("/../../../../", "%00/../../../../", "/..%2f..%2f..%2f..%2f")]
    return found


def test_traversal_finds_nothing(mlflow, planted):
    experiments = send([request("GET", SEARCH.replace("search", "get") + "?experiment_id=0", GOOD)])
    assert statuses(experiments[0]) == [200]
    run = json.loads(
        send([request("POST", "/api/2.0/mlflow/runs/create", GOOD, "Content-Type: application/json", body='{"experiment_id": "0", "start_time": 1}')])[0].split(
            "\r\n\r\n", 1
        )[1]
    )["run"]["info"]["run_id"]
    paths = traversals()
    sent = []
    for path in paths:
        query = path.replace("&", "%26").replace("#", "%23").replace(" ", "%20")
        sent += [request("GET", f"{prefix}{ARTIFACTS[4:]}/{path}", GOOD) for prefix in ("/api", "/ajax-api")]
        sent += [
            request("GET", f"{ARTIFACTS}?path={query}", GOOD),
            request("GET", f"/get-artifact?run_uuid={run}&path={query}", GOOD),
            request("GET", f"/api/2.0/mlflow/artifacts/list?run_id={run}&path={query}", GOOD),
            request("GET", f"/model-versions/get-artifact?name=x&version=1&path={query}", GOOD),
            request("GET", f"/_mlflow_artifacts/{path}", GOOD),
            request("GET", f"/static-files/{path}", GOOD),
            request("PUT", f"{ARTIFACTS}/{path}.written", GOOD, body="written"),
            request("POST", f"/ajax-api/2.0/mlflow/upload-artifact?run_uuid={run}&path={query}.written", GOOD, body="written"),
            request("GET", f"/api/2.0/mlflow-artifacts/presigned/{path}", GOOD),
            request("POST", f"/api/2.0/mlflow-artifacts/mpu/create/{path}", GOOD, "Content-Type: application/json", body='{"path": "x", "num_parts": 1}'),
        ]
    # MLflow deletes through a directory's link. Whoever can plant one on the server can delete what it leads to as well.
    sent += [request("DELETE", f"{ARTIFACTS}/{path}", GOOD) for path in paths if not path.startswith(("0/links/directory", "0/links/etc"))]
    answers = send(sent)
    found = [
        (request_.split("\r\n")[0], answer[-200:])
        for request_, answer in zip(sent, answers, strict=True)
        if MARKER in answer or "root:x:0" in answer or "MLFLOW_BACKEND" in answer
    ]
    assert found == []
    listed = [
        (request_.split("\r\n")[0], answer[-200:])
        for request_, answer in zip(sent, answers, strict=True)
        if re.search(r'"([^"]*/)?(outside\.txt|artifacts-evil|passwd)"', answer) and "is_dir" in answer
    ]
    assert listed == []
    assert on(SERVER, "sh", "-c", PICTURE).split() == []
    assert [on(SERVER, "cat", path).strip() for path in OUTSIDE] == [MARKER] * 2
    assert not [answer for answer in answers if re.search("^x-accel-", answer.split("\r\n\r\n")[0], re.IGNORECASE | re.MULTILINE)]
    FIGURES.append(
        f"path traversal, right password: {len(paths)} paths x {round(len(sent) / len(paths))} ways, {len(sent)} requests, "
        "0 files found, 0 written, 0 deleted outside"
    )
    assert "inside" in send([request("GET", f"{ARTIFACTS}/0/links/inside.txt", GOOD)])[0], "and what lies inside is found"
