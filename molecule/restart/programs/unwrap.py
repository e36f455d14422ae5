# SPDX-License-Identifier: GPL-3.0-or-later
"""Print whether the passphrase in MLflow's source opens a wrapped key, and whether each of those that are given does.

unwrap.py WRAPPED VERSION PASSPHRASE...
"""

import sys

from mlflow.exceptions import MlflowException
from mlflow.utils.crypto import DEFAULT_KEK_PASSPHRASE, KEKManager, unwrap_dek

wrapped, version, *passphrases = sys.argv[1:]
for passphrase in (DEFAULT_KEK_PASSPHRASE, *passphrases):
    try:
        unwrap_dek(bytes.fromhex(wrapped), KEKManager(passphrase, int(version)).get_kek())
        print("opens")
    except MlflowException:
        print("closed")
