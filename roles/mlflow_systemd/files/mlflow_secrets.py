# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare what MLflow stored encrypted with the secrets of this server, and encrypt it with them. Runs with the Python of a release.

    mlflow_secrets.py           prints what it found, as JSON
    mlflow_secrets.py --move    encrypts what only earlier secrets open with the present ones, or changes nothing

The present secrets are in the environment as MLflow reads them, the earlier ones with their version at the end of the name, such as
MLFLOW_CRYPTO_KEK_PASSPHRASE_2. The database is that of MLFLOW_BACKEND_STORE_URI.

MLflow's own "mlflow crypto rotate-kek" moves API keys by one version only, none if it cannot open one of them, and no webhooks. What it does to a
key is done here by the same function.
"""

import json
import os
import re
import sys
import typing as t

import psycopg2
from cryptography.fernet import Fernet, InvalidToken, MultiFernet

PASSPHRASE, VERSION, KEY = "MLFLOW_CRYPTO_KEK_PASSPHRASE", "MLFLOW_CRYPTO_KEK_VERSION", "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"
Update = tuple[str, tuple[t.Any, ...]]


def earlier(name: str) -> dict[int, str]:
    """The earlier values of a secret by their versions, the latest first."""
    found = {int(match[1]): value for key, value in os.environ.items() if (match := re.fullmatch(rf"{name}_([0-9]+)", key))}
    return dict(sorted(found.items(), reverse=True))


def exists(cursor: t.Any, table: str) -> bool:
    cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [table])
    return bool(cursor.fetchone()[0])


def api_keys(cursor: t.Any) -> tuple[list[Update], list[str]]:
    """How those that the present passphrase does not open are moved to it, and the names of those that none opens."""
    present = int(os.environ.get(VERSION) or 1)
    cursor.execute("SELECT secret_id, secret_name, encrypted_value, wrapped_dek, kek_version FROM secrets WHERE kek_version <> %s FOR UPDATE", [present])
    rows = cursor.fetchall()
    if not rows:
        return [], []
    # Only here: it imports all of MLflow, which takes seconds.
    from mlflow.exceptions import MlflowException
    from mlflow.utils.crypto import DEFAULT_KEK_PASSPHRASE, KEKManager, rotate_secret_encryption

    managers: dict[tuple[str, int], KEKManager] = {}

    def manager(passphrase: str, version: int) -> KEKManager:
        if (passphrase, version) not in managers:  # deriving a key takes long by intention
            managers[passphrase, version] = KEKManager(passphrase, version)
        return managers[passphrase, version]

    mine = os.environ.get(PASSPHRASE) or DEFAULT_KEK_PASSPHRASE
    before = earlier(PASSPHRASE)
    moved: list[Update] = []
    lost = []
    for identifier, name, value, wrapped, version in rows:
        # That of the version first; MLflow's constant, where none was set; and one that was set by hand before it came here.
        for passphrase in dict.fromkeys([*([before[version]] if version in before else []), DEFAULT_KEK_PASSPHRASE, mine]):
            try:
                rotated = rotate_secret_encryption(bytes(value), bytes(wrapped), manager(passphrase, version), manager(mine, present))
            except MlflowException:
                continue
            statement = "UPDATE secrets SET wrapped_dek = %s, kek_version = %s WHERE secret_id = %s"
            moved.append((statement, (psycopg2.Binary(rotated.wrapped_dek), present, identifier)))
            break
        else:
            lost.append(name)
    return moved, lost


def webhooks(cursor: t.Any) -> tuple[list[Update], list[str]]:
    """The same for the secrets of webhooks."""
    cursor.execute("SELECT webhook_id, name, secret, deleted_timestamp FROM webhooks WHERE secret IS NOT NULL FOR UPDATE")
    keys = [Fernet(key) for key in (os.environ.get(KEY) or Fernet.generate_key(), *earlier(KEY).values())]
    moved: list[Update] = []
    lost = []
    for identifier, name, secret, deleted in cursor.fetchall():
        try:
            keys[0].decrypt(secret.encode())
        except InvalidToken:
            try:
                moved.append(("UPDATE webhooks SET secret = %s WHERE webhook_id = %s", (MultiFernet(keys).rotate(secret.encode()).decode(), identifier)))
            except InvalidToken:
                if deleted is None:
                    lost.append(name)
    return moved, lost


def main() -> int:
    connection = psycopg2.connect(os.environ["MLFLOW_BACKEND_STORE_URI"].replace("postgresql+psycopg2:", "postgresql:", 1), connect_timeout=10)
    with connection, connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '30s'")
        key_updates, keys = api_keys(cursor) if exists(cursor, "secrets") else ([], [])
        hook_updates, hooks = webhooks(cursor) if exists(cursor, "webhooks") else ([], [])
        if sys.argv[1:] == ["--move"]:
            for update in key_updates + hook_updates:
                cursor.execute(*update)
    print(json.dumps({"stale": len(key_updates) + len(hook_updates), "keys": sorted(keys), "webhooks": sorted(hooks)}))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except psycopg2.Error as error:
        print(f"The database does not answer: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)
