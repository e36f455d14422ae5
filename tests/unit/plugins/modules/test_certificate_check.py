# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Certificates as openssl makes them, on files and as text."""

from __future__ import annotations

import subprocess
import typing as t
from pathlib import Path

import pytest
from ansible_collections.mlops.mlflow.tests.unit.plugins.module_helpers import run

NAMES = ["mlflow.test", "10.1.2.3", "fd00::9"]


def issue(top: Path, name: str, kind: str = "ec", alternatives: str = "DNS:mlflow.test,IP:10.1.2.3,IP:fd00::9", *options: str) -> dict[str, str]:
    made = {"certificate": str(top / f"{name}.pem"), "key": str(top / f"{name}.key")}
    key = {"ec": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"], "rsa": ["-newkey", "rsa:2048"]}[kind]
    subject = ["-subj", "/CN=x", "-addext", f"subjectAltName={alternatives}"]
    words = ["req", "-x509", *key, "-keyout", made["key"], "-out", made["certificate"], *subject, *(options or ["-nodes", "-days", "9"])]
    subprocess.run(["openssl", *words], check=True, capture_output=True)
    return made


def four_ways(**options: t.Any) -> dict[str, t.Any]:
    """From files and from text, for real and in check mode: always the same, and nothing changed."""
    given = {name: options.pop(name) for name in ("certificate", "key")}
    text = {name: Path(path).read_text(encoding="ascii") if Path(path).is_file() else path for name, path in given.items()}
    answers = [run("certificate_check", check=check, **form, **options) for form in (given, text) for check in (False, True)]
    for answer in answers:
        answer.pop("invocation", None)  # which older ansible-cores tell
        assert answer == answers[0]
    assert not answers[0]["changed"]
    return answers[0]


@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_a_certificate_for_all_names(tmp_path: Path, kind: str) -> None:
    made = issue(tmp_path, "one", kind)
    assert four_ways(**made, names=[*NAMES, "[fd00:0::9]"]) == {"changed": False, "reason": "", "problem": "", "names": NAMES}
    assert four_ways(**made) == {"changed": False, "reason": "", "problem": "", "names": []}


def test_all_names_that_it_is_not_for_are_told(tmp_path: Path) -> None:
    answer = four_ways(**issue(tmp_path, "one"), names=["a.test", "mlflow.test", "10.1.2.4"])
    assert answer["reason"] == "name"
    assert "is not for the names a.test, 10.1.2.4:" in answer["problem"]
    assert "is not for the name a.test:" in four_ways(**issue(tmp_path, "two"), names=["a.test"])["problem"]


@pytest.mark.parametrize("name", ["a..test", ".a.test", f"{'a' * 64}.test"])
def test_a_name_that_no_client_could_ask_for_is_told(tmp_path: Path, name: str) -> None:
    assert f"is not for the name {name}:" in four_ways(**issue(tmp_path, "one"), names=["mlflow.test", name])["problem"]


@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_a_key_of_another_certificate(tmp_path: Path, kind: str) -> None:
    made = {**issue(tmp_path, "one"), "key": issue(tmp_path, "two", kind)["key"]}
    for names in [], NAMES:
        assert four_ways(**made, names=names)["reason"] == "key"


def test_a_key_with_a_passphrase(tmp_path: Path) -> None:
    assert four_ways(**issue(tmp_path, "one", "ec", "DNS:mlflow.test", "-passout", "pass:secret"))["reason"] == "passphrase"


def test_a_certificate_that_has_ended(tmp_path: Path) -> None:
    made = issue(tmp_path, "one")
    subprocess.run(
        ["openssl", "x509", "-in", made["certificate"], "-signkey", made["key"], "-days", "-1", "-out", made["certificate"], "-copy_extensions", "copy"],
        check=True,
        capture_output=True,
    )
    answer = four_ways(**made, names=["mlflow.test"])
    assert (answer["reason"], "certificate has expired" in answer["problem"]) == ("time", True)


@pytest.fixture
def chain(tmp_path: Path) -> dict[str, Path]:
    """A root, an authority between, and a leaf of that, each as a file."""
    made = {name: tmp_path / f"{name}.pem" for name in ("root", "between", "leaf")}
    extensions = {"root": "basicConstraints=critical,CA:TRUE", "between": "basicConstraints=critical,CA:TRUE", "leaf": "subjectAltName=DNS:mlflow.test"}
    for signer, name in zip((None, "root", "between"), made):
        words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "9", "-subj", f"/CN={name}"]
        words += ["-keyout", str(made[name].with_suffix(".key")), "-out", str(made[name]), "-addext", extensions[name]]
        if signer:
            words += ["-CA", str(made[signer]), "-CAkey", str(made[signer].with_suffix(".key"))]
        subprocess.run(["openssl", *words], check=True, capture_output=True)
    return made


def test_a_chain(tmp_path: Path, chain: dict[str, Path]) -> None:
    leaf, between = (chain[name].read_text(encoding="ascii") for name in ("leaf", "between"))
    answers = {}
    for name, text in {"whole": leaf + between, "alone": leaf, "turned": between + leaf}.items():
        (tmp_path / name).write_text(text, encoding="ascii")
        given = {"certificate": str(tmp_path / name), "key": str(chain["leaf"].with_suffix(".key")), "names": ["mlflow.test"]}
        answers[name] = four_ways(**given, trusted=str(chain["root"]))["reason"]
        assert name == "turned" or four_ways(**given)["reason"] == four_ways(**given, trusted="/nowhere")["reason"] == ""
    assert answers == {"whole": "", "alone": "authority", "turned": "order"}


@pytest.mark.parametrize("part", ["certificate", "key"])
def test_what_is_no_pem(tmp_path: Path, part: str) -> None:
    (tmp_path / "garbage").write_text("garbage\n", encoding="ascii")
    assert four_ways(**{**issue(tmp_path, "one"), part: str(tmp_path / "garbage")}, names=NAMES)["reason"] == "format"


@pytest.mark.parametrize("path", ["/nowhere.pem", ""])
@pytest.mark.parametrize("part", ["certificate", "key"])
def test_what_is_not_there(tmp_path: Path, part: str, path: str) -> None:
    answer = run("certificate_check", **{**issue(tmp_path, "one"), part: path, "names": NAMES})
    assert (answer["reason"], "No such file or directory" in answer["problem"]) == ("unreadable", True)
