# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's own certificate authority: what it may sign, when it is made anew, and who goes on trusting it."""

from __future__ import annotations

import ipaddress
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "roles/mlflow_nginx/files/mlflow_certificate.py"
NAMES = ["mlflow.test", "10.1.2.3"]
HOST = ["--also", "10.9.9.9", "fd00::9"]


def make(directory: Path, *words: str, program: Path | str = PROGRAM) -> str:
    """What it says it made."""
    run = subprocess.run([sys.executable, program, "selfsigned", directory, *words], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()[0]


def names(path: Path) -> set[str]:
    found = x509.load_pem_x509_certificate(path.read_bytes()).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(name.value) for name in found}


def key(path: Path) -> bytes:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    return certificate.public_key().public_numbers().x.to_bytes(32, "big")


def impostor(directory: Path, alternative: str) -> Path:
    """A certificate that somebody with the authority's key signs."""
    (directory / "ext").write_text(
        "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth,emailProtection\n"
        f"subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\nsubjectAltName={alternative}\n"
    )
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "impostor.key"]
    openssl(directory, "req", "-new", *key, "-subj", "/CN=x", "-out", "r")
    sign = ["-CA", "ca.pem", "-CAkey", "ca.key", "-set_serial", "7", "-days", "9", "-extfile", "ext"]
    openssl(directory, "x509", "-req", "-in", "r", *sign, "-out", "impostor.pem")
    return directory / "impostor.pem"


def openssl(directory: Path, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run(["openssl", *words], cwd=directory, capture_output=True, text=True, check=False)


def trusted(authority: Path, certificate: Path, name: str = "") -> bool:
    """By a client that is strict, as Python 3.13 is, and by OpenSSL."""
    check = ["-verify_ip" if name[:1].isdigit() or ":" in name else "-verify_hostname", name] if name else []
    run = openssl(authority.parent, "verify", "-x509_strict", "-CAfile", str(authority), *check, str(certificate))
    return run.returncode == 0


@pytest.fixture
def made(tmp_path: Path) -> Path:
    assert make(tmp_path, *NAMES, *HOST) == "made the certificate authority: clients need its new certificate; made the certificate"
    return tmp_path


def test_the_certificate_is_for_names_and_addresses(made):
    assert names(made / "fullchain.pem") == {"mlflow.test", "10.1.2.3", "10.9.9.9", "fd00::9"}
    for name in "mlflow.test", "10.1.2.3", "10.9.9.9", "fd00::9":
        assert trusted(made / "ca.pem", made / "fullchain.pem", name)
    assert make(made, *NAMES, *HOST) == "current"


@pytest.mark.parametrize(
    "alternative", ["IP:192.0.2.1", "IP:10.1.2.4", "IP:2001:db8::1", "email:ceo@example.com", "URI:https://example.com/", "DNS:example.com", "DNS:mlflow.tes"]
)
@pytest.mark.parametrize("listed", [["mlflow.test", *HOST], ["10.1.2.3"], ["mlflow.test"]], ids=["both", "addresses", "names"])
def test_the_authority_signs_for_nothing_else(tmp_path, listed, alternative):
    make(tmp_path, *listed)
    assert not trusted(tmp_path / "ca.pem", impostor(tmp_path, alternative))


def test_a_new_address_makes_nothing(made):
    before = (made / "ca.pem").read_text(), (made / "fullchain.pem").read_text()
    assert make(made, *NAMES, *HOST, "172.17.0.1") == "current"
    assert ((made / "ca.pem").read_text(), (made / "fullchain.pem").read_text()) == before


def test_an_address_that_is_listed_is_signed_with_the_same_key(made, tmp_path_factory):
    old = tmp_path_factory.mktemp("client") / "ca.pem"
    old.write_bytes((made / "ca.pem").read_bytes())
    assert make(made, *NAMES, "172.16.0.1", *HOST).startswith("made the certificate authority")
    assert key(made / "ca.pem") == key(old)
    assert trusted(made / "ca.pem", made / "fullchain.pem", "172.16.0.1")
    assert compare(made, old) == "same"


def compare(directory: Path, known: Path) -> str:
    run = subprocess.run([sys.executable, PROGRAM, "authority", directory], stdin=known.open(), capture_output=True, text=True, check=True)
    return run.stdout.strip()


def test_an_authority_of_an_earlier_version_keeps_its_key_and_its_clients(tmp_path, tmp_path_factory):
    """It may sign for any address; clients have its certificate, and reach the server by an address that it has no longer."""
    config = tmp_path / "config"
    config.write_text(
        "[req]\nprompt=no\ndistinguished_name=subject\n[subject]\nO=MLflow\nCN=MLflow CA of mlflow.test\n"
        "[ca]\nbasicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n"
        "nameConstraints=critical,permitted;DNS:mlflow.test\n"
        "[leaf]\nbasicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\n"
        "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\nsubjectAltName=DNS:mlflow.test,IP:10.9.9.9,IP:10.8.8.8\n"
    )
    for name in "ca.key", "privkey.pem":
        openssl(tmp_path, "ecparam", "-genkey", "-noout", "-name", "prime256v1", "-out", name)
    openssl(tmp_path, "req", "-x509", "-new", "-key", "ca.key", "-config", "config", "-extensions", "ca", "-days", "3650", "-out", "ca.pem")
    openssl(tmp_path, "req", "-new", "-key", "privkey.pem", "-subj", "/O=MLflow/CN=MLflow server", "-config", "config", "-out", "r")
    sign = ["-CA", "ca.pem", "-CAkey", "ca.key", "-days", "825", "-set_serial", "5", "-extfile", "config", "-extensions", "leaf"]
    openssl(tmp_path, "x509", "-req", "-in", "r", *sign, "-out", "fullchain.pem")
    client = tmp_path_factory.mktemp("client")
    for name in "ca.pem", "fullchain.pem":
        (client / name).write_bytes((tmp_path / name).read_bytes())
    assert trusted(client / "ca.pem", impostor(tmp_path, "IP:192.0.2.1")), "what is mended"

    assert make(tmp_path, "mlflow.test", "--also", "10.9.9.9", "10.8.8.8").startswith("made the certificate authority")
    assert compare(tmp_path, client / "ca.pem") == "same"
    for authority in tmp_path / "ca.pem", client / "ca.pem":
        for certificate in tmp_path / "fullchain.pem", client / "fullchain.pem":
            for name in "mlflow.test", "10.9.9.9", "10.8.8.8":
                assert trusted(authority, certificate, name), (authority, certificate, name)
    assert not trusted(tmp_path / "ca.pem", impostor(tmp_path, "IP:192.0.2.1"))
    assert make(tmp_path, "mlflow.test", "--also", "10.9.9.9", "10.8.8.8") == "current"


def test_other_authorities_are_told_apart(made, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    assert compare(other, made / "ca.pem") == "none"
    make(other, *NAMES)
    assert compare(other, made / "ca.pem") == "other"
    assert compare(other, other / "ca.pem") == "same"
    (other / "garbage").write_text("garbage\n")
    assert compare(other, other / "garbage") == "other"


def test_constraints_are_whole_addresses(made):
    found = x509.load_pem_x509_certificate((made / "ca.pem").read_bytes()).extensions.get_extension_for_class(x509.NameConstraints)
    assert found.critical
    networks = [name.value for name in found.value.permitted_subtrees if isinstance(name, x509.IPAddress)]
    assert networks and all(network.num_addresses == 1 for network in networks)
    assert ipaddress.ip_network("10.9.9.9/32") in networks
