# SPDX-License-Identifier: GPL-3.0-or-later
"""Have a judge score new traces, by MLflow's client."""

import mlflow
from mlflow.genai.judges import make_judge
from mlflow.genai.scorers import ScorerSamplingConfig

mlflow.set_experiment("judged")
judge = make_judge(name="polite", instructions="Is {{ outputs }} polite?", model="gateway:/listener").register()
print(judge.start(sampling_config=ScorerSamplingConfig(sample_rate=0.5)).status)
