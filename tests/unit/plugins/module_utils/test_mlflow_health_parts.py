# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What needs no server: checked input, and what an answer or a fault means."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.mlflow.plugins.module_utils import mlflow_health
from ansible_collections.mlops.mlflow.plugins.module_utils.mlflow_health import Target

OPTIONS = ("url", "address", "unix_socket", "host_header", "username", "password", "ca_path")


def target(**options: Any) -> Target:
    return mlflow_health.parse_target({**dict.fromkeys(OPTIONS), "validate_certs": True, **options})


@pytest.mark.parametrize(
    "options, host, port, prefix, host_header, place",
    [
        ({"url": "http://a.example"}, "a.example", 80, "", "a.example", "a.example port 80"),
        ({"url": "https://a.example/"}, "a.example", 443, "", "a.example", "a.example port 443"),
        ({"url": "http://a.example:5000/x/y/"}, "a.example", 5000, "/x/y", "a.example:5000", "a.example port 5000"),
        ({"url": "http://[::1]:5000"}, "::1", 5000, "", "[::1]:5000", "::1 port 5000"),
        ({"url": "http://a.example", "address": "fd00::1"}, "a.example", 80, "", "a.example", "fd00::1 port 80"),
        ({"url": "http://a.example", "host_header": "b:81"}, "a.example", 80, "", "b:81", "a.example port 80"),
        ({"unix_socket": "/run/m.sock"}, "localhost", 80, "", "localhost", "the socket /run/m.sock"),
    ],
)
def test_target(options: dict[str, str], host: str, port: int, prefix: str, host_header: str, place: str) -> None:
    found = target(**options)
    assert (found.host, found.port, found.prefix, found.host_header) == (host, port, prefix, host_header)
    assert found.place == place


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"url": "mlflow.example.com"},
            "url must look like https://mlflow.example.com, with http:// or https:// in front",
        ),
        ({"url": "mlflow.example.com:5000"}, "url must look like"),
        ({"url": "ftp://a"}, "url must look like"),
        ({"url": "http://"}, "url must look like"),
        ({"url": "http:///health"}, "url must look like"),
        ({"url": "http://a:b"}, "url is not a valid URL"),
        ({"url": "http://a:70000"}, "url is not a valid URL"),
        ({"url": "http://[::1"}, "url is not a valid URL"),
        ({"url": "http://a:0"}, "url is not a valid URL"),
        ({"url": "http://a..b"}, "url is not a valid URL"),
        ({"url": f"http://{64 * 'a'}.example"}, "url is not a valid URL"),
        ({"url": "http://a", "address": f"{64 * 'a'}.example"}, "address must be a host name"),
        ({"url": "http://a b"}, "url must hold no spaces"),
        ({"url": "http://a\r\nX: y"}, "url must hold no spaces, control characters"),
        ({"url": "http://mlflöw.example"}, "characters outside ASCII"),
        ({"url": "http://a/?x=1"}, "url must end with its path"),
        ({"url": "http://a/#x"}, "url must end with its path"),
        ({"url": "http://u:p@a"}, "url must not hold credentials"),
        ({"url": "u:p@a"}, "url must not hold credentials"),
        ({"url": "http://a", "address": ""}, "address must be a host name or an IP address alone"),
        ({"url": "http://a", "address": "b:81"}, "the port belongs into url"),
        ({"url": "http://a", "address": "http://b"}, "address must be a host name"),
        ({"url": "http://a", "address": "[::1]"}, "address must be a host name"),
        ({"unix_socket": "run/m.sock"}, "unix_socket must be an absolute path"),
        ({"unix_socket": "/" + 107 * "x"}, "of at most 107 bytes"),
        ({"url": "http://a", "host_header": "b\r\nX: y"}, "host_header must be a host name"),
        ({"url": "http://a", "host_header": ""}, "host_header must be a host name"),
        ({"url": "http://a", "username": "", "password": "p"}, "username must not be empty"),
        ({"url": "http://a", "username": "a:b", "password": "p"}, "must hold no colon"),
        ({"url": "http://a", "ca_path": "/nowhere/ca.pem"}, "ca_path /nowhere/ca.pem does not exist on this host"),
    ],
)
def test_bad_input(options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        target(**options)
    assert message in str(caught.value)
    assert ":p@" not in str(caught.value)


def test_ca_path_without_a_certificate(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("nothing")
    with pytest.raises(ValueError, match=f"ca_path {path} can't be used"):
        target(url="https://a", ca_path=str(path))


def test_credentials() -> None:
    found = target(url="http://a", username="alice", password="pä:ss")
    assert found.authorization == "Basic " + base64.b64encode("alice:pä:ss".encode()).decode()
    assert found.authorization not in repr(found)
    assert target(url="http://a").authorization is None


def test_certificates_are_checked_unless_told_otherwise() -> None:
    assert target(url="http://a").tls is None
    assert target(url="https://a").tls.verify_mode == ssl.CERT_REQUIRED
    assert target(url="https://a", validate_certs=False).tls.verify_mode == ssl.CERT_NONE


ERROR = json.dumps({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "No run\nmore"}).encode()


@pytest.mark.parametrize(
    "status, content, message, waiting_helps",
    [
        (401, b"", "wants a login", False),
        (403, b"", "forbids it", False),
        (403, b"Invalid Host header - possible", "mlflow_domain_aliases", False),
        (404, b"<title>404 Not Found</title>", "no MLflow answers here", False),
        (404, ERROR, "gives 404: No run", True),
        (400, b'{"error_code": "BAD_REQUEST", "message": "relation missing"}', "gives 400: relation missing", False),
        (413, b"", "client_max_body_size", False),
        (429, b"", "gives 429", True),
        (500, b"<html><title>500 Oh</title>", "gives 500: Oh", True),
        (502, b"", "gives 502", True),
        (503, b'["no", "dict"]', 'gives 503: ["no", "dict"]', True),
        (504, 300 * b"x", "gives 504: " + 200 * "x", True),
    ],
)
def test_answer(status: int, content: bytes, message: str, waiting_helps: bool) -> None:
    failure = mlflow_health.explain_answer(target(url="http://a"), "GET /", status, content)
    assert message in str(failure)
    assert failure.waiting_helps is waiting_helps
    assert "\n" not in str(failure) and len(str(failure)) < 250


def test_500_of_a_server_that_has_started() -> None:
    failure = mlflow_health.explain_answer(target(url="http://a"), "GET /", 500, b"", starting=False)
    assert not failure.waiting_helps


@pytest.mark.parametrize(
    "error, message, waiting_helps",
    [
        (ConnectionRefusedError(111, "Connection refused"), "does not answer (Connection refused)", True),
        (ConnectionResetError(104, "Connection reset by peer"), "does not answer (Connection reset by peer)", True),
        (OSError(113, "No route to host"), "does not answer (No route to host)", True),
        (FileNotFoundError(2, "No such file"), "does not exist", True),
        (PermissionError(13, "Permission denied"), "no permission to connect", False),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), "can't be resolved (Temporary failure)", True),
        (socket.gaierror(socket.EAI_NONAME, "Name unknown"), "mend the name service, or set address", False),
        (ssl.SSLEOFError(8, "EOF occurred"), "does not answer (EOF occurred)", True),
        (http.client.RemoteDisconnected("closed"), "hangs up without an answer", True),
        (http.client.BadStatusLine("SSH-2.0"), "does not speak HTTP", False),
        (http.client.IncompleteRead(b""), "does not answer", True),
    ],
)
def test_error(error: Exception, message: str, waiting_helps: bool) -> None:
    failure = mlflow_health.explain_error(error, target(url="http://a"))
    assert message in str(failure)
    assert failure.waiting_helps is waiting_helps


@pytest.mark.parametrize(
    "uri, directory",
    [
        ("mlflow-artifacts:/1/abc/artifacts", "1/abc/artifacts"),
        ("mlflow-artifacts://host:80/1/abc/artifacts", "1/abc/artifacts"),
        ("https://host/x/api/2.0/mlflow-artifacts/artifacts/1/abc/artifacts", "1/abc/artifacts"),
        ("https://host/elsewhere/1/abc/artifacts", None),
        ("s3://bucket/1/abc/artifacts", None),
        ("/var/lib/mlflow/1/abc/artifacts", None),
    ],
)
def test_artifact_directory(uri: str, directory: str | None) -> None:
    assert mlflow_health.artifact_directory(uri) == directory


def test_artifact_url_is_quoted() -> None:
    assert mlflow_health.artifact_url("a b/ü#?").endswith("/artifacts/a%20b/%C3%BC%23%3F")


def test_time_limit() -> None:
    begin = time.monotonic()
    with pytest.raises(TimeoutError), mlflow_health.time_limit(0.1):
        time.sleep(5)
    assert time.monotonic() - begin < 1
    with mlflow_health.time_limit(0.05):
        pass
    time.sleep(0.1)  # the alarm is off again


def test_time_limit_that_is_over() -> None:
    with pytest.raises(TimeoutError), mlflow_health.time_limit(-1):
        time.sleep(5)
