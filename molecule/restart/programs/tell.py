# SPDX-License-Identifier: GPL-3.0-or-later
"""Have MLflow call a webhook, and print the status of the answer.

tell.py WEBHOOK
"""

import sys

from mlflow import MlflowClient

print(MlflowClient().test_webhook(sys.argv[1]).response_status)
