# SPDX-License-Identifier: GPL-3.0-or-later
"""All tests break one server, which is deployed once."""

from __future__ import annotations

import time

import pytest
from deployment import deployed


@pytest.fixture(scope="session", autouse=True)
def deployment() -> None:
    deployed()


@pytest.fixture
def sql(host):
    """Asks PostgreSQL, by default as its superuser."""

    def ask(question: str, user: str = "postgres", database: str = "mlflow") -> str:
        return host.check_output("runuser -u postgres -- psql -XAtq -d %s -c %s", database, f"SET ROLE {user}; {question}")

    return ask


@pytest.fixture
def until(host):
    """Waits until a command succeeds."""

    def wait(command: str, seconds: int = 60) -> None:
        deadline = time.monotonic() + seconds
        while (answer := host.run(command)).rc != 0:
            assert time.monotonic() < deadline, f"{command}: {answer.stdout}{answer.stderr}"
            time.sleep(1)

    return wait
