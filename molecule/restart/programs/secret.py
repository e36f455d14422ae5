# SPDX-License-Identifier: GPL-3.0-or-later
"""Give a webhook a secret, and have it called again.

secret.py WEBHOOK SECRET
"""

import sys

from mlflow import MlflowClient

MlflowClient().update_webhook(sys.argv[1], secret=sys.argv[2], status="ACTIVE")
