# SPDX-License-Identifier: GPL-3.0-or-later
"""What `ansible-galaxy collection build` packs from a checkout in which somebody deploys."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SECRETS = [
    "credentials/mlflow.test/alice.txt",
    "inventory/credentials/mlflow.test/alice.txt",
    "environments/production/credentials/mlflow.test.ca.txt",
    "environments/production/credentials/mlflow.test/alice.txt",
]
# What tools make, also those that nobody thought of.
MADE = [
    ".cache/x",
    ".venv/x",
    ".some_cache/x",
    "findings/x.sh",
    "inventory/hosts.yml",
    "mlops-mlflow-0.0.1.tar.gz",
    "tests/output/ci.log",
    "roles/x/__pycache__/x.pyc",
]


def test_neither_credentials_nor_output_is_packed(tmp_path):
    checkout = tmp_path / "checkout"
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True)
    sources = {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}
    for name in sources:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, checkout / name, follow_symlinks=False)
    for name in (*SECRETS, *MADE):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text("secret\n")
    build = ["ansible-galaxy", "collection", "build", "--output-path", str(tmp_path), str(checkout)]
    subprocess.run(build, capture_output=True, text=True, check=True)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as artifact:
        packed = {member.name for member in artifact if member.isfile()}
    assert packed.isdisjoint((*SECRETS, *MADE))
    # Of the repository only what is hidden, the links to it and the findings stay out.
    assert {name for name in sources - packed if not name.startswith((".", "findings/"))} == {"collections", "galaxy.yml", "playbooks/collections"}
    assert packed - sources == {"MANIFEST.json", "FILES.json"}
