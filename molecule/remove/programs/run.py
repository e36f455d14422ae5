# SPDX-License-Identifier: GPL-3.0-or-later
"""A run with an artifact, by MLflow's client.

run.py write      logs it, and prints its id
run.py read RUN   prints what the artifact holds
"""

import sys

import mlflow

if sys.argv[1] == "write":
    mlflow.set_experiment("kept")
    with mlflow.start_run() as run:
        mlflow.log_text("kept", "file.txt")
    print(run.info.run_id)
else:
    print(mlflow.artifacts.load_text(mlflow.get_run(sys.argv[2]).info.artifact_uri + "/file.txt"))
