# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: sizing
short_description: Size MLflow for its server and its database
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Tells how many workers, threads and database connections MLflow gets, and what is wrong with what was asked for.
  - "MLflow keeps a pool of connections for runs, one for the model registry and, with job workers, one for jobs, in each worker. Some
    calls, such as log-batch, hold two connections for runs at once: where a thread could not get its second, MLflow would answer 400
    after 30 s, which clients do not repeat. So a pool holds two for each thread."
  - During a restart the workers of before finish what they have while new ones serve. They have closed the connections that they don't use.
positional: wishes
options:
  _input:
    description: What there is.
    type: dict
    required: true
    suboptions:
      cores:
        description: Processor cores of the server.
        type: int
        required: true
      memory_mib:
        description: RAM of the server in MiB.
        type: int
        required: true
      generations:
        description: How many generations of workers there are during a restart.
        type: int
        required: true
  wishes:
    description: Variables of the role C(mlflow_systemd), without its prefix.
    type: dict
    required: true
    suboptions:
      workers:
        description: Worker processes; V(0) for as many as fit, at most 3, or 2 beside job workers.
        type: int
        required: true
      threads:
        description: Threads in each worker; V(0) for as many as the database has connections for, at most 8.
        type: int
        required: true
      pool_size:
        description: Connections that each pool keeps; V(0) for one for each thread.
        type: int
        required: true
      max_connections:
        description: How many connections the database takes.
        type: int
        required: true
      memory_percent:
        description: How much of the RAM MLflow may take.
        type: int
        required: true
      job_execution:
        description: Whether there are job workers.
        type: bool
        required: true
      job_workers:
        description: How many jobs of each kind run at once.
        type: int
        required: true
"""

EXAMPLES = r"""
__example_sizing: >-
  {{
    {'cores': 4, 'memory_mib': 8192, 'generations': 2}
    | mlops.mlflow.sizing({'workers': 0, 'threads': 0, 'pool_size': 0, 'max_connections': 100, 'memory_percent': 75,
                           'job_execution': false, 'job_workers': 1})
  }}
# {'workers': 3, 'threads': 6, 'pool_size': 6, 'max_overflow': 6, 'connections': 90, 'memory_mib': 1500, 'tasks': 884, 'problems': []}
"""

RETURN = r"""
_value:
  description: What MLflow gets.
  type: dict
  contains:
    workers:
      description: Worker processes.
      type: int
    threads:
      description: Threads in each worker.
      type: int
    pool_size:
      description: Connections that each pool keeps.
      type: int
    max_overflow:
      description: Connections that each pool opens beside them under load.
      type: int
    connections:
      description: The most database connections that MLflow may have open, during a restart.
      type: int
    memory_mib:
      description: The RAM that MLflow takes, during a restart, in MiB.
      type: int
    tasks:
      description: The most processes and threads that MLflow may have.
      type: int
    problems:
      description: A sentence for each wish that cannot be met.
      type: list
      elements: str
"""

import typing as t

MOST_THREADS = 8
# Fewer would wait for each other: fewer workers serve better.
FEWEST_THREADS = 4
WORKER_MIB = 250
JOB_MIB = 220
ALL_JOBS_MIB = 1700
# PostgreSQL keeps three for its superuser, and the role asks by one.
RESERVED_CONNECTIONS = 4


def job_connections(workers: int) -> int:
    """Connections of the job processes, where each kind of job has so many workers.

    Of MLflow's six kinds, five have as many workers as the variable says: each worker watches its job by one connection, the job tells its
    progress by another, and three kinds use a pool of up to four, which mlflow_serve.py sets. The sixth kind has two workers. Beside
    them are the runner, with one connection, and the scheduler, with two tasks that use two pools.
    """
    return (5 * 2 + 3 * 4) * workers + 2 * 2 + 1 + 2 * 2


def worker_connections(threads: int, pool_size: int, jobs: bool) -> int:
    """Connections of one worker: all of the pool for runs, and of that for the registry one for each thread, or what the pool keeps.

    The routes of jobs have forty threads of their own: that pool may be full, too.
    """
    kept = pool_size or threads
    pool = max(2 * threads, kept + 1)
    return pool + max(threads, kept) + (pool if jobs else 0)


def sizing(facts: dict[str, int], wishes: dict[str, t.Any]) -> dict[str, t.Any]:
    jobs: bool = wishes["job_execution"]
    pool_size: int = wishes["pool_size"]
    free = wishes["max_connections"] - RESERVED_CONNECTIONS
    of_jobs = job_connections(wishes["job_workers"]) if jobs else 0
    jobs_mib = ALL_JOBS_MIB + JOB_MIB * wishes["job_workers"] if jobs else 0
    memory = facts["memory_mib"] * wishes["memory_percent"] // 100

    def connections(workers: int, threads: int) -> int:
        finishing = (facts["generations"] - 1) * 2 * threads
        return workers * (worker_connections(threads, pool_size, jobs) + finishing) + of_jobs

    def most_threads(workers: int) -> int:
        return next((threads for threads in range(MOST_THREADS, 1, -1) if connections(workers, threads) <= free), 1)

    workers: int = wishes["workers"] or max(min(facts["cores"], facts["memory_mib"] // 1024, 2 if jobs else 3), 1)
    while (
        not wishes["workers"]
        and workers > 1
        and (connections(workers, wishes["threads"]) > free if wishes["threads"] else most_threads(workers) < FEWEST_THREADS)
    ):
        workers -= 1
    threads: int = wishes["threads"] or most_threads(workers)

    problems = []
    who = f"{workers} worker{'s' if workers > 1 else ''}{' and the job workers' if jobs else ''}"
    meanwhile = " during a restart" if facts["generations"] > 1 else ""
    memory_mib = facts["generations"] * workers * WORKER_MIB + jobs_mib
    if memory_mib > memory:
        most = (memory - jobs_mib) // (facts["generations"] * WORKER_MIB)
        smaller = "turn mlflow_systemd_job_execution off, or use a larger server" if jobs else "use a larger server"
        problems.append(
            f"{who} take{'' if workers > 1 or jobs else 's'} about {memory_mib} MiB{meanwhile} and MLflow may take {memory} of this server's"
            f" {facts['memory_mib']}"
            f" (mlflow_systemd_memory_percent): {f'set mlflow_systemd_workers to at most {most}' if most > 0 else smaller}."
        )
    wanted = connections(workers, threads)
    if wanted > free:
        lower = ["mlflow_systemd_workers"] * (workers > 1) + ["mlflow_systemd_threads"] * (threads > 1)
        lower += ["mlflow_systemd_job_workers"] * (jobs and wishes["job_workers"] > 1) + ["mlflow_systemd_pool_size"] * (pool_size > threads)
        problems.append(
            f"{who} may open {wanted} connections{meanwhile} and the database takes {wishes['max_connections']}, of which {max(free, 0)} are"
            f" MLflow's: {''.join(f'lower {name}, or ' for name in lower)}raise max_connections in mlflow_postgres_settings and"
            " mlflow_systemd_max_connections with it."
        )
    return {
        "workers": workers,
        "threads": threads,
        "pool_size": pool_size or threads,
        # MLflow takes 0 for a wish of nobody, and SQLAlchemy for 10.
        "max_overflow": max(2 * threads - (pool_size or threads), 1),
        "connections": wanted,
        "memory_mib": memory_mib,
        "tasks": 128 + facts["generations"] * workers * (120 + threads) + (1024 if jobs else 0),
        "problems": problems,
    }


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"sizing": sizing}
