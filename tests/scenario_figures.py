#!/usr/bin/env python
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge a scenario that Molecule calls successful by the figures that its playbooks left (molecule/shared/callback_plugins).

    tests/scenario_figures.py FIGURES SCENARIO

Molecule reads the text of a recap, which another callback writes otherwise or not at all, and a scenario without a playbook to verify
it is a success. Says what is wrong and exits with 1.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]


def sequence_of(scenario: str) -> list[str]:
    """What `molecule test` does for this scenario."""
    for path in (f"molecule/{scenario}/molecule.yml", ".config/molecule/config.yml"):
        sequence: list[str] = yaml.safe_load((ROOT / path).read_text())["scenario"].get("test_sequence", [])
        if sequence:
            return sequence
    raise LookupError(f"{scenario} has no test_sequence")


def problems(figures: Path, sequence: list[str]) -> list[str]:
    runs = [json.loads(line) for line in figures.read_text().splitlines()] if figures.exists() else []
    deployed = [run["hosts"] for run in runs if run["playbook"] == "converge.yml" and not run["check"]]
    verified = [run["hosts"] for run in runs if run["playbook"] == "verify.yml" and not run["check"]]
    found = []
    for name, hosts, steps in (("converge.yml", deployed, ("converge", "idempotence")), ("verify.yml", verified, ("verify",))):
        wanted = sum(sequence.count(step) for step in steps)
        count = sum(any(host["ok"] for host in run.values()) for run in hosts)
        if (len(hosts), count) != (wanted, wanted):
            found.append(f"{name} ran {len(hosts)} times and did something in {count} of them, instead of {wanted} times.")
    if "idempotence" in sequence and deployed:
        changed = {host: counts["changed"] for host, counts in deployed[-1].items() if counts["changed"]}
        found += [f"The second run changed {count} on {host}." for host, count in changed.items()]
    return found


def main() -> int:
    found = problems(Path(sys.argv[1]), sequence_of(sys.argv[2]))
    for problem in found:
        print(f"scenario_figures: {problem}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
