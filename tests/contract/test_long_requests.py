# SPDX-License-Identifier: GPL-3.0-or-later
"""What MLflow's own command answers is answered through the public name, however long its line and its header fields are."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import HOST, ask, program
from test_auth import PASSWORD, Nginx
from test_launcher import LONG_READS


@pytest.fixture(scope="module")
def nginx(top: Path, served) -> Iterator[Nginx]:
    tls = top / "long/tls/current"
    tls.mkdir(parents=True)
    openssl = [program("openssl", "openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl += ["-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}", "-keyout", tls / "privkey.pem", "-out", tls / "fullchain.pem"]
    subprocess.run(openssl, check=True, capture_output=True)
    nginx = Nginx(top / "long")
    upstreams = {"mlflow_nginx_upstreams": [f"unix:{served.asgi}"], "mlflow_nginx_wsgi_upstreams": [f"unix:{served.wsgi}"]}
    nginx.start(mlflow_nginx_tls="selfsigned", mlflow_nginx_http_port=0, __mlflow_nginx_tls_dir=str(tls.parent), **upstreams)
    yield nginx
    nginx.stop()


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
@pytest.mark.parametrize(("method", "path", "headers"), LONG_READS, ids=[path[:40] for _method, path, _headers in LONG_READS])
def test_long_request(cli, nginx, data, version, method, path, headers):
    path = re.sub("RUN|EXPERIMENT", lambda name: data[name[0]], path)
    theirs = ask(cli, method, path, headers=headers)
    curl = [program("curl", "curl"), "--silent", "--show-error", "--write-out", "\n%{http_code} %{http_version}"]
    curl += [version, "--insecure", "--user", f"alice:{PASSWORD}"]
    curl += ["--connect-to", f"::127.0.0.1:{nginx.port}", *(word for header in headers.items() for word in ("--header", ": ".join(header)))]
    run = subprocess.run([*curl, f"https://{HOST}:8443{path}"], capture_output=True, check=True)
    body, _line, last = run.stdout.rpartition(b"\n")
    assert last.split() == [str(theirs.status).encode(), b"1.1" if version == "--http1.1" else b"2"]
    assert body == theirs.body
