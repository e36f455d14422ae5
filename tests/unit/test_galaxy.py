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


def test_no_credentials_are_packed(tmp_path):
    checkout = tmp_path / "checkout"
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        if (ROOT / name).exists():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, checkout / name, follow_symlinks=False)
    for name in SECRETS:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text("secret\n")
    build = ["ansible-galaxy", "collection", "build", "--output-path", str(tmp_path), str(checkout)]
    subprocess.run(build, capture_output=True, text=True, check=True)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as artifact:
        packed = artifact.getnames()
    assert "roles/mlflow_nginx/tasks/main.yml" in packed
    assert [name for name in packed if "credentials" in name.split("/")] == []
