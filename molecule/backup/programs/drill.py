# SPDX-License-Identifier: GPL-3.0-or-later
"""What a team keeps in MLflow, by its client.

drill.py write    some of everything
drill.py read     prints all of it, as JSON
"""

import hashlib
import json
import sys

import mlflow
from mlflow import MlflowClient
from mlflow.tracking._tracking_service.utils import _get_store

client = MlflowClient()


def write() -> None:
    mlflow.set_experiment("forecast")
    for number in range(20):
        with mlflow.start_run(run_name=f"run {number}", tags={"team": "Zürich", "quote": "'; \\N \t"}) as run:
            mlflow.log_params({"rate": number / 7, "layers": [64, number]})
            for step in range(25):
                mlflow.log_metrics({"loss": 1 / (step + number + 1), "nan": float("nan")}, step=step)
            mlflow.log_text("notes of run %d\n" % number * 200, "notes/read me.txt")
            with open("/tmp/weights.bin", "wb") as file:
                file.write(hashlib.sha256(str(number).encode()).digest() * 4096)
            mlflow.log_artifact("/tmp/weights.bin", "model")
    client.create_registered_model("demand", tags={"owner": "alice"})
    version = client.create_model_version("demand", f"{run.info.artifact_uri}/model", run.info.run_id)
    client.set_registered_model_alias("demand", "champion", version.version)
    with mlflow.start_span("answer") as span:
        span.set_inputs({"question": "how many?"})
        span.set_outputs({"answer": "0"})
    mlflow.flush_trace_async_logging()
    client.create_webhook("told", "https://hooks.example.com/", ["registered_model.created"], secret="a secret of a webhook")
    _get_store().create_gateway_secret("key", {"api_key": "a key of a model"}, "openai", {})


def read() -> None:
    experiment = client.get_experiment_by_name("forecast")
    runs = []
    for run in client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"]):
        metrics = {key: [[metric.value, metric.step] for metric in client.get_metric_history(run.info.run_id, key)] for key in run.data.metrics}
        weights = mlflow.artifacts.download_artifacts(f"{run.info.artifact_uri}/model/weights.bin")
        with open(weights, "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()
        text = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/notes/read me.txt")
        runs.append([run.info.run_name, run.data.params, run.data.tags, metrics, digest, text])
    traces = client.search_traces(experiment_ids=[experiment.experiment_id])
    champion = client.get_model_version_by_alias("demand", "champion")
    found = {
        "runs": runs,
        "traces": [[trace.data.spans[0].inputs, trace.data.spans[0].outputs] for trace in traces],
        "champion": [champion.version, champion.source, client.get_registered_model("demand").tags],
        "webhooks": [webhook.name for webhook in client.list_webhooks()],  # 500 where their secrets cannot be decrypted
    }
    print(json.dumps(found))


{"write": write, "read": read}[sys.argv[1]]()
