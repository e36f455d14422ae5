# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import itertools
import json
import typing as t

import pytest
from ansible_collections.mlops.mlflow.plugins.filter.sizing import FilterModule

sizing = FilterModule().filters()["sizing"]
WISHES = {
    "workers": 0,
    "threads": 0,
    "pool_size": 0,
    "max_connections": 100,
    "memory_percent": 75,
    "job_execution": False,
    "job_workers": 1,
}


def size(cores: int = 4, memory_mib: int = 7900, generations: int = 2, **wishes: t.Any) -> dict[str, t.Any]:
    assert wishes.keys() <= WISHES.keys()
    return sizing({"cores": cores, "memory_mib": memory_mib, "generations": generations}, {**WISHES, **wishes})


@pytest.mark.parametrize(
    "server, workers, threads",
    [
        ({"cores": 1, "memory_mib": 960}, 1, 8),
        ({"cores": 2, "memory_mib": 1975}, 1, 8),
        ({"cores": 2, "memory_mib": 3900}, 2, 8),
        ({"cores": 4, "memory_mib": 7900}, 3, 6),
        ({"cores": 64, "memory_mib": 256_000}, 3, 6),
        ({"cores": 64, "memory_mib": 256_000, "max_connections": 300}, 3, 8),
        ({"cores": 64, "memory_mib": 256_000, "max_connections": 50}, 2, 4),
        ({"cores": 64, "memory_mib": 256_000, "generations": 1}, 3, 8),
        ({"cores": 4, "memory_mib": 7900, "job_execution": True}, 2, 4),
        ({"cores": 4, "memory_mib": 7900, "threads": 8}, 2, 8),
        ({"cores": 4, "memory_mib": 7900, "workers": 3}, 3, 6),
        ({"cores": 4, "memory_mib": 7900, "pool_size": 2}, 3, 6),
    ],
    ids=json.dumps,
)
def test_defaults(server: dict[str, t.Any], workers: int, threads: int) -> None:
    found = size(**server)
    assert (found["workers"], found["threads"], found["problems"]) == (workers, threads, [])


def test_the_defaults_of_every_server_fit() -> None:
    for cores, memory_mib, jobs, most in itertools.product((1, 2, 3, 8), (1000, 1975, 3900, 7900, 64_000), (False, True), (60, 100, 400)):
        found = size(cores, memory_mib, job_execution=jobs, max_connections=most)
        assert found["connections"] <= most - 4
        # each thread may hold two connections of one pool at once
        assert found["pool_size"] + found["max_overflow"] >= 2 * found["threads"]
        assert found["problems"] == [] or (jobs and memory_mib < 3900)


def test_the_whole_of_an_answer() -> None:
    assert size() == {
        "workers": 3,
        "threads": 6,
        "pool_size": 6,
        "max_overflow": 6,
        "connections": 90,
        "memory_mib": 1500,
        "tasks": 128 + 2 * 3 * 126,
        "problems": [],
    }


@pytest.mark.parametrize("threads, pool_size", [(8, 1), (8, 8), (8, 16), (8, 40), (1, 1), (1, 2)])
def test_a_pool_holds_two_connections_for_each_thread(threads: int, pool_size: int) -> None:
    found = size(threads=threads, pool_size=pool_size, workers=1, max_connections=1000)
    assert found["pool_size"] == pool_size
    assert found["pool_size"] + found["max_overflow"] >= 2 * threads
    assert found["max_overflow"] > 0  # which MLflow would leave to SQLAlchemy


@pytest.mark.parametrize(
    "wishes, problem",
    [
        (
            {"workers": 9999},
            "9999 workers take about 4999500 MiB during a restart and MLflow may take 5925 of this server's 7900 (mlflow_systemd_memory_percent):"
            " set mlflow_systemd_workers to at most 11.",
        ),
        (
            {"memory_mib": 400},
            "1 worker takes about 500 MiB during a restart and MLflow may take 300 of this server's 400 (mlflow_systemd_memory_percent): use a larger server.",
        ),
        (
            {"memory_mib": 1975, "job_execution": True},
            "1 worker and the job workers take about 2420 MiB during a restart and MLflow may take 1481 of this server's 1975"
            " (mlflow_systemd_memory_percent): turn mlflow_systemd_job_execution off, or use a larger server.",
        ),
        (
            {"workers": 3, "threads": 8},
            "3 workers may open 120 connections during a restart and the database takes 100, of which 96 are MLflow's:"
            " lower mlflow_systemd_workers, or lower mlflow_systemd_threads, or raise max_connections in mlflow_postgres_settings and"
            " mlflow_systemd_max_connections with it.",
        ),
        (
            {"pool_size": 60},
            "1 worker may open 123 connections during a restart and the database takes 100, of which 96 are MLflow's:"
            " lower mlflow_systemd_pool_size, or raise max_connections in mlflow_postgres_settings and mlflow_systemd_max_connections with it.",
        ),
        (
            {"job_execution": True, "job_workers": 4},
            "1 worker and the job workers may open 104 connections during a restart and the database takes 100, of which 96 are MLflow's:"
            " lower mlflow_systemd_job_workers, or raise max_connections in mlflow_postgres_settings and mlflow_systemd_max_connections with it.",
        ),
    ],
    ids=json.dumps,
)
def test_what_does_not_fit_is_said(wishes: dict[str, t.Any], problem: str) -> None:
    assert problem in size(**wishes)["problems"]


def test_the_answer_is_plain_data() -> None:
    """Ansible's templates accept nothing else."""
    assert json.loads(json.dumps(size(workers=9999))) == size(workers=9999)
