# SPDX-License-Identifier: GPL-3.0-or-later
"""What a team sees of the server: the real MLflow client and plain requests, from another host."""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
import time
import uuid
from http.client import HTTPSConnection
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
import pytest
import requests
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

URL = os.environ["MLFLOW_TRACKING_URI"]
USER = os.environ["MLFLOW_TRACKING_USERNAME"]
PASSWORD = os.environ["MLFLOW_TRACKING_PASSWORD"]
AUTHORITY = os.environ["MLFLOW_TRACKING_SERVER_CERT_PATH"]
SEARCH = "/api/2.0/mlflow/experiments/search"
CREATE = "/ajax-api/2.0/mlflow/experiments/create"


def ask(path, method="GET", auth=(USER, PASSWORD), **options):
    return requests.request(method, URL + path, auth=auth, timeout=60, verify=AUTHORITY, **options)


def ask_patiently(path, auth):
    """An address that has sent wrong passwords may send another only once a second."""
    for _count in range(30):
        answer = ask(path, auth=auth)
        if answer.status_code != 429:
            break
        time.sleep(1)
    return answer


@pytest.fixture(scope="module")
def experiment():
    name = f"test-{uuid.uuid4().hex}"
    yield mlflow.set_experiment(name)
    mlflow.delete_experiment(mlflow.get_experiment_by_name(name).experiment_id)


@pytest.mark.parametrize("auth", [None, (USER, "wrong"), ("nobody", PASSWORD), (USER, "")])
@pytest.mark.parametrize("path", ["/", SEARCH, "/version", "/health/", "/healthz", "/api/2.0/mlflow-artifacts/artifacts"])
def test_everything_wants_the_password(path, auth):
    answer = ask_patiently(path, auth)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Basic realm="MLflow"'


def test_health_wants_none():
    assert (ask("/health", auth=None).status_code, ask("/health", auth=None).text) == (200, "OK")


def test_health_does_not_vouch_for_a_password():
    assert ask("/health", auth=(USER, "guess")).status_code == 200
    assert ask_patiently("/version", (USER, "guess")).status_code == 401


@pytest.mark.parametrize("path", ["//health", "/x/../health", "/gateway/proxy/x/../../../health"])
def test_nothing_else_slips_through_as_health(path):
    """nginx judges the normalised path; requests would normalise it first."""
    connection = HTTPSConnection(urlsplit(URL).netloc, timeout=60, context=ssl.create_default_context(cafile=AUTHORITY))
    connection.putrequest("GET", path)
    connection.endheaders()
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (200, b"OK")


def test_user_interface_opens():
    answer = ask("/")
    assert answer.status_code == 200
    assert "<title>MLflow</title>" in answer.text


def test_team_trains_registers_and_loads_a_model(experiment):
    features, labels = load_iris(return_X_y=True)
    mlflow.sklearn.autolog()
    with mlflow.start_run() as run:
        model = LogisticRegression(max_iter=200).fit(features, labels)
        info = mlflow.sklearn.log_model(model, name="iris", input_example=features[:2])
    mlflow.sklearn.autolog(disable=True)

    logged = mlflow.get_run(run.info.run_id)
    assert logged.data.params["max_iter"] == "200"
    assert logged.data.metrics["training_accuracy_score"] > 0.9

    name = f"iris-{uuid.uuid4().hex}"
    version = mlflow.register_model(info.model_uri, name)
    try:
        loaded = mlflow.pyfunc.load_model(f"models:/{name}/{version.version}")
        assert list(loaded.predict(features)) == list(model.predict(features))
    finally:
        mlflow.MlflowClient().delete_registered_model(name)


def test_large_artifact_comes_back_whole(experiment, tmp_path):
    source = tmp_path / "weights.bin"
    source.write_bytes(os.urandom(1 << 20) * 200)
    with mlflow.start_run() as run:
        mlflow.log_artifact(str(source), "models")
    back = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="models/weights.bin", dst_path=str(tmp_path / "back"))
    assert hashlib.sha256(Path(back).read_bytes()).digest() == hashlib.sha256(source.read_bytes()).digest()


@pytest.mark.parametrize("host", ["mlflow.test", "mlflow.test:80", "MLflow.Test:8443"])
def test_host_is_allowed_with_any_port_and_in_any_spelling(host):
    assert ask(SEARCH, "POST", json={"max_results": 1}, headers={"Host": host}).status_code == 200


def test_own_origin_may_post():
    answer = ask(CREATE, "POST", json={"name": ""}, headers={"Origin": URL})
    assert answer.status_code == 400, "a bad request, but not a blocked one"


def test_foreign_origin_may_not_post():
    answer = ask(CREATE, "POST", json={"name": "stolen"}, headers={"Origin": "http://evil.example"})
    assert (answer.status_code, answer.text) == (403, "Cross-origin request blocked")


def test_foreign_host_does_not_reach_mlflow():
    assert ask("/", headers={"Host": "evil.example"}).status_code == 421


def test_plain_http_leads_to_https_and_serves_nothing():
    plain = URL.replace("https", "http")
    answer = requests.get(f"{plain}/x?y=1", timeout=60, allow_redirects=False)
    assert (answer.status_code, answer.headers["Location"]) == (301, f"{URL}/x?y=1")
    answer = requests.post(plain + SEARCH, timeout=60, auth=(USER, PASSWORD), json={})
    assert (answer.status_code, answer.text) == (403, f"Plain HTTP is not served: use {URL}\n")


@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1", "TLSv1_2", "TLSv1_3"])
def test_old_tls_is_refused(version):
    context = ssl.create_default_context(cafile=AUTHORITY)
    context.set_ciphers("ALL:@SECLEVEL=0")  # this client would take them all
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    with socket.create_connection((urlsplit(URL).hostname, 443), timeout=60) as connection:
        if version in ("TLSv1_2", "TLSv1_3"):
            assert context.wrap_socket(connection, server_hostname=urlsplit(URL).hostname).version() == version.replace("_", ".")
        else:
            with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
                context.wrap_socket(connection, server_hostname=urlsplit(URL).hostname)


def test_large_request_is_not_refused_by_the_proxy(experiment):
    with mlflow.start_run() as run:
        metrics = [{"key": f"m{n}", "value": n, "timestamp": 0, "step": 0} for n in range(1000)]
        answer = ask("/api/2.0/mlflow/runs/log-batch", "POST", json={"run_id": run.info.run_id, "metrics": metrics})
    assert answer.status_code == 200
