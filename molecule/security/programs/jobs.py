# SPDX-License-Identifier: GPL-3.0-or-later
"""A user of MLflow who has the server score traces: with MLflow's own client, through the public name. Runs where an MLflow is installed.

    jobs.py submit TRACES:SECONDS...  for each, logs that many traces and submits a job that scores them, for SECONDS each: prints {job: [trace, ...]}
    jobs.py scores TRACE...           prints the scores of each trace
    jobs.py busy SECONDS              asks and logs by many threads: prints how often

What is printed is JSON. The server is the one of MLFLOW_TRACKING_URI and its siblings.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import mlflow
from mlflow.entities import Param
from mlflow.genai.scorers import scorer
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

JOBS = "/ajax-api/3.0/jobs/"
THREADS = 24


@scorer
def is_polite(trace) -> bool:
    import json
    import time

    import mlflow

    with mlflow.start_span("think"):  # traced itself, as judges that are models are
        time.sleep(json.loads(trace.data.request)["seconds"])
    return "please" in trace.data.response


@mlflow.trace
def answer(seconds: float) -> str:
    return "Wait, please."


def ask(method: str, path: str, **options):
    response = http_request(get_default_host_creds(mlflow.get_tracking_uri()), path, method, raise_on_status=False, **options)
    if response.status_code != 200:
        sys.exit(f"{response.status_code} {response.text}")
    return response.json()


def submit(*wanted: str) -> dict[str, list[str]]:
    experiment = mlflow.set_experiment("scored by jobs").experiment_id
    jobs = {}
    for count, seconds in (job.split(":") for job in wanted):
        traces = []
        for _number in range(int(count)):
            answer(float(seconds))
            traces.append(mlflow.get_last_active_trace_id())
        mlflow.flush_trace_async_logging()
        params = {"experiment_id": experiment, "serialized_scorer": json.dumps(is_polite.model_dump()), "trace_ids": traces}
        jobs[ask("POST", JOBS, json={"job_name": "invoke_scorer", "params": params})["job_id"]] = traces
    return jobs


def scores(*traces: str) -> list[dict]:
    return [{found.name: found.value for found in mlflow.get_trace(trace).info.assessments} for trace in traces]


def busy(seconds: str) -> int:
    client, end = mlflow.MlflowClient(), time.monotonic() + float(seconds)
    experiment = mlflow.set_experiment("busy").experiment_id

    def work(number: int) -> int:
        run, count = client.create_run(experiment).info.run_id, 0
        while time.monotonic() < end:
            client.log_batch(run, params=[Param(f"{number}.{count}", "x")])
            client.search_registered_models()
            ask("POST", JOBS + "search", json={"job_name": "optimize_prompts"})
            count += 1
        return count

    with ThreadPoolExecutor(THREADS) as pool:
        return sum(pool.map(work, range(THREADS)))


if __name__ == "__main__":
    print(json.dumps({"submit": submit, "scores": scores, "busy": busy}[sys.argv[1]](*sys.argv[2:])))
