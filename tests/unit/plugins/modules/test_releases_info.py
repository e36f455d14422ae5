# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases as uv and pip build them, with two packages each."""

from __future__ import annotations

import os

import pytest
from ansible_collections.mlops.mlflow.plugins.modules import releases_info


@pytest.fixture
def release(tmp_path):
    """A package with a module and a command."""
    root = tmp_path / "releases" / "1.0-py3.10-01234567"
    site_packages = root / "lib" / "python3.10" / "site-packages"
    info = site_packages / "example-1.0.dist-info"
    for directory in (info, site_packages / "example", root / "bin"):
        directory.mkdir(parents=True)
    (site_packages / "example" / "__init__.py").write_text("answer = 42\n")
    (root / "bin" / "example").write_text("#!/bin/sh\n")
    (root / "bin" / "python").symlink_to("/bin/sh")
    (root / "pyvenv.cfg").touch()
    (root / "static-files").symlink_to("lib")
    (info / "RECORD").write_text(
        "example/__init__.py,sha256=x,12\n../../../bin/example,sha256=x,10\nexample-1.0.dist-info/RECORD,,\nexample/__pycache__/__init__.cpython-310.pyc,,\n"
    )
    (root / ".complete").write_text("example-1.0.dist-info\n")
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755)
    return root


def package(release):
    return release / "lib" / "python3.10" / "site-packages" / "example"


def test_a_release_as_it_was_built_has_no_problem(release):
    assert releases_info.problem(str(release)) == ""


def test_a_release_of_an_older_collection_lists_no_packages(release):
    (release / ".complete").write_text("")
    assert releases_info.problem(str(release)) == ""


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda release: (package(release) / "__init__.py").unlink(), "example/__init__.py is missing"),
        (lambda release: (package(release) / "__init__.py").write_text(""), "example/__init__.py has 0 bytes instead of 12"),
        (lambda release: (package(release) / "__init__.py").chmod(0o600), "example/__init__.py has another owner or other permissions"),
        (lambda release: package(release).chmod(0o700), "example has another owner or other permissions"),
        (lambda release: (release / "bin" / "example").unlink(), "bin/example is missing"),
        (lambda release: os.replace(package(release).parent / "example-1.0.dist-info", release / "away"), "example-1.0.dist-info/RECORD is missing"),
        (lambda release: (release / "bin" / "python").unlink(), "bin/python is missing"),
        (lambda release: (release / "static-files").unlink(), "static-files is missing"),
        (lambda release: os.replace(release / "lib", release / "away"), "lib is missing"),
    ],
    ids=["file", "size", "mode", "directory", "command", "package", "python", "link", "all"],
)
def test_what_is_missing_is_named(release, damage, sentence):
    damage(release)
    assert releases_info.problem(str(release)).endswith(sentence)


def test_space_is_that_of_the_nearest_directory(tmp_path):
    assert releases_info.free_mib(str(tmp_path / "not" / "yet")) == releases_info.free_mib(str(tmp_path))


def test_the_space_of_a_build_that_was_cut_off_is_told(tmp_path):
    (tmp_path / "half").write_bytes(b"x" * (3 << 20))
    assert releases_info.used_mib(str(tmp_path)) == 3
