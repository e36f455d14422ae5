# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The server's own certificate authority, as the role's tasks make it: what it may sign, when it is made anew, and who goes on trusting it."""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.mlops.mlflow.tests.unit.plugins.module_helpers import COLLECTIONS
from cryptography import x509
from deployment import changed

PLAY = [
    {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "tasks": [{"ansible.builtin.include_role": {"name": "mlops.mlflow.mlflow_nginx", "tasks_from": "certificate/selfsigned.yml"}}],
    }
]
NAMES = ["mlflow.test", "10.1.2.3"]
HOST = ["10.9.9.9", "fd00::9"]
AUTHORITY = "Make or renew the certificate of the authority"
CERTIFICATE = "Make or renew the certificate of the server"
KEYS = "Create the keys of the authority and of the server"
FETCHED = "Bring the certificate of the authority to the controller"
SIGNED = "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"


def deploy(directory: Path, names: list[str], others: list[str], *options: str) -> subprocess.CompletedProcess[str]:
    (directory / "selfsigned").mkdir(exist_ok=True)
    (directory / "play.yml").write_text(json.dumps(PLAY))
    variables = {
        "ansible_python_interpreter": sys.executable,
        "mlflow_nginx_tls": "selfsigned",
        "__mlflow_nginx_tls_dir": str(directory),
        "__mlflow_nginx_names": names + others,
        "__mlflow_nginx_unlisted_addresses": others,
        "__mlflow_nginx_ca": str(directory / "fetched.txt"),
        "__mlflow_nginx_host": {"paths": {}},
    }
    environment = {**os.environ, "ANSIBLE_HOME": str(directory / "home"), "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS), "ANSIBLE_NOCOLOR": "1"}
    command = [sys.executable, "-m", "ansible", "playbook", str(directory / "play.yml"), "--extra-vars", json.dumps(variables), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def make(directory: Path, names: list[str], others: list[str], *options: str) -> list[str]:
    """The tasks that changed something."""
    run = deploy(directory, names, others, *options)
    assert run.returncode == 0, run.stdout + run.stderr
    return [task.removeprefix("mlops.mlflow.mlflow_nginx : ") for task in changed(run)]


def openssl(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["openssl", *words], cwd=directory, capture_output=True, text=True, check=False)


def sign(directory: Path, alternative: str, key: str, path: str, days: int = 825) -> Path:
    """A certificate that somebody with the authority's key signs."""
    (directory / "ext").write_text(f"{SIGNED}extendedKeyUsage=serverAuth\nsubjectAltName={alternative}\n")
    openssl(directory, "req", "-new", "-key", key, "-subj", "/O=MLflow/CN=MLflow server", "-out", "r").check_returncode()
    authority = ["-CA", "ca.pem", "-CAkey", "ca.key", "-set_serial", "7"]
    openssl(directory, "x509", "-req", "-in", "r", *authority, "-days", str(days), "-extfile", "ext", "-out", path).check_returncode()
    return directory / path


def authority_of(directory: Path, constraints: str, days: int = 3650) -> None:
    """As earlier versions made it."""
    directory.mkdir()
    (directory / "config").write_text(
        "[req]\nprompt=no\ndistinguished_name=subject\n[subject]\nO=MLflow\nCN=MLflow CA of mlflow.test\n"
        "[ca]\nbasicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n"
        f"nameConstraints=critical,{constraints}\n"
    )
    for name in "ca.key", "privkey.pem":
        openssl(directory, "ecparam", "-genkey", "-noout", "-name", "prime256v1", "-out", name).check_returncode()
    made = openssl(directory, "req", "-x509", "-new", "-key", "ca.key", "-config", "config", "-extensions", "ca", "-days", str(days), "-out", "ca.pem")
    made.check_returncode()


def is_address(name: str) -> bool:
    return name[:1].isdigit() or ":" in name


def trusted(authority: Path, certificate: Path, name: str = "") -> bool:
    """By a client that is strict, as Python 3.13 is, and by OpenSSL."""
    check = ["-verify_ip" if is_address(name) else "-verify_hostname", name] if name else []
    return openssl(authority.parent, "verify", "-x509_strict", "-CAfile", str(authority), *check, str(certificate)).returncode == 0


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def same_key(one: Path, other: Path) -> bool:
    return load(one).public_key().public_numbers() == load(other).public_key().public_numbers()


def names_in(path: Path) -> set[str]:
    return {str(name.value) for name in load(path).extensions.get_extension_for_class(x509.SubjectAlternativeName).value}


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (directory / "selfsigned").iterdir()}


@pytest.fixture(name="first", scope="module")
def _first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("first")
    assert make(top, NAMES, HOST) == [KEYS, AUTHORITY, CERTIFICATE, FETCHED]
    return top


@pytest.fixture(name="made")
def _made(first: Path, tmp_path: Path) -> Path:
    shutil.copytree(first, tmp_path / "made")
    return tmp_path / "made"


@pytest.fixture(
    name="limited",
    scope="module",
    params=[[], ["10.1.2.3"], ["mlflow.test"]],
    ids=["both", "addresses", "names"],
)
def _limited(request: pytest.FixtureRequest, first: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("limited") / "made"
    if request.param:
        top.mkdir()
        make(top, request.param, [])
    else:
        shutil.copytree(first, top)
    return top / "selfsigned"


def test_the_certificate_is_for_names_and_addresses(made: Path) -> None:
    place = made / "selfsigned"
    assert names_in(place / "fullchain.pem") == {*NAMES, *HOST}
    for name in [*NAMES, *HOST]:
        assert trusted(place / "ca.pem", place / "fullchain.pem", name)
    assert (made / "fetched.txt").read_bytes() == (place / "ca.pem").read_bytes()
    assert {name: (place / name).stat().st_mode & 0o777 for name in contents(made)} == {
        "ca.key": 0o600,
        "ca.pem": 0o644,
        "privkey.pem": 0o600,
        "fullchain.pem": 0o644,
    }


def test_the_authority_signs_for_its_names(limited: Path) -> None:
    """The control of the next test."""
    alternatives = [f"{'IP' if is_address(name) else 'DNS'}:{name}" for name in names_in(limited / "fullchain.pem")]
    assert trusted(limited / "ca.pem", sign(limited, ",".join(alternatives), "privkey.pem", "allowed.pem"))


@pytest.mark.parametrize(
    "alternative", ["IP:192.0.2.1", "IP:10.1.2.4", "IP:2001:db8::1", "email:ceo@example.com", "URI:https://example.com/", "DNS:example.com", "DNS:mlflow.tes"]
)
def test_the_authority_signs_for_nothing_else(limited: Path, alternative: str) -> None:
    assert not trusted(limited / "ca.pem", sign(limited, alternative, "privkey.pem", "impostor.pem"))


def test_constraints_are_whole_addresses(made: Path) -> None:
    found = load(made / "selfsigned" / "ca.pem").extensions.get_extension_for_class(x509.NameConstraints)
    assert found.critical
    networks = [name.value for name in found.value.permitted_subtrees or [] if isinstance(name, x509.IPAddress)]
    assert networks and all(network.num_addresses == 1 for network in networks)
    assert ipaddress.ip_network("10.9.9.9/32") in networks


def test_a_new_address_makes_nothing(made: Path) -> None:
    """Nor do addresses in another order."""
    before = contents(made)
    assert make(made, NAMES, [*reversed(HOST), "172.17.0.1"]) == []
    assert contents(made) == before


def test_an_address_that_is_listed_is_signed_with_the_same_key(made: Path) -> None:
    place, old = made / "selfsigned", made / "old.pem"
    old.write_bytes((place / "ca.pem").read_bytes())
    assert make(made, [*NAMES, "172.16.0.1"], HOST, "--check") == [AUTHORITY]
    assert (place / "ca.pem").read_bytes() == old.read_bytes()
    assert make(made, [*NAMES, "172.16.0.1"], HOST) == [AUTHORITY, CERTIFICATE, FETCHED]
    assert same_key(place / "ca.pem", old)
    assert trusted(place / "ca.pem", place / "fullchain.pem", "172.16.0.1")


def test_an_authority_for_all_addresses_keeps_its_key_and_its_clients(tmp_path: Path) -> None:
    """Made by an early version; clients have its certificate, and reach the server by an address that it has no longer."""
    place, client = tmp_path / "selfsigned", tmp_path / "client"
    authority_of(place, "permitted;DNS:mlflow.test")
    sign(place, "DNS:mlflow.test,IP:10.9.9.9,IP:10.8.8.8", "privkey.pem", "fullchain.pem")
    shutil.copytree(place, client)
    assert trusted(client / "ca.pem", sign(place, "IP:192.0.2.1", "privkey.pem", "impostor.pem")), "what is mended"

    assert make(tmp_path, ["mlflow.test"], ["10.9.9.9", "10.8.8.8"]) == [AUTHORITY, FETCHED]
    assert same_key(place / "ca.pem", client / "ca.pem")
    assert make(tmp_path, ["mlflow.test"], ["10.9.9.9"]) == [CERTIFICATE]
    assert make(tmp_path, ["mlflow.test"], ["10.9.9.9"]) == []
    for authority in place / "ca.pem", client / "ca.pem":
        assert trusted(authority, client / "fullchain.pem", "10.8.8.8")
        for certificate in place / "fullchain.pem", client / "fullchain.pem":
            for name in "mlflow.test", "10.9.9.9":
                assert trusted(authority, certificate, name), (authority, certificate, name)
    assert not trusted(place / "ca.pem", sign(place, "IP:192.0.2.1", "privkey.pem", "impostor.pem"))


def test_an_authority_of_the_version_before_stays(tmp_path: Path) -> None:
    """It was made by openssl, with the same constraints."""
    place = tmp_path / "selfsigned"
    authority_of(place, "permitted;IP:10.9.9.9/255.255.255.255,permitted;DNS:mlflow.test,permitted;email:invalid,permitted;URI:invalid", days=1191)
    sign(place, "DNS:mlflow.test,IP:10.9.9.9", "privkey.pem", "fullchain.pem", days=91)
    before = contents(tmp_path)
    assert make(tmp_path, ["mlflow.test"], ["10.9.9.9"]) == [FETCHED]
    assert contents(tmp_path) == before


def test_what_ends_soon_or_cannot_be_read_is_renewed(made: Path) -> None:
    place = made / "selfsigned"
    before = load(place / "ca.pem")
    sign(place, "DNS:mlflow.test,IP:10.1.2.3,IP:10.9.9.9,IP:fd00::9", "privkey.pem", "fullchain.pem", days=89)
    assert make(made, NAMES, HOST) == [CERTIFICATE]
    assert load(place / "ca.pem") == before
    for name in "ca.pem", "fullchain.pem":
        (place / name).write_text("")
    assert make(made, NAMES, HOST) == [AUTHORITY, CERTIFICATE, FETCHED]
    assert load(place / "ca.pem").public_key().public_numbers() == before.public_key().public_numbers()


def test_an_authority_is_renewed_before_it_could_end_sooner_than_what_it_signs(tmp_path: Path) -> None:
    place, old = tmp_path / "selfsigned", tmp_path / "old.pem"
    authority_of(place, "permitted;IP:10.1.2.3/255.255.255.255,permitted;DNS:mlflow.test,permitted;email:invalid,permitted;URI:invalid", days=1189)
    old.write_bytes((place / "ca.pem").read_bytes())
    assert AUTHORITY in make(tmp_path, NAMES, [])
    for authority in place / "ca.pem", old:
        assert trusted(authority, place / "fullchain.pem", "mlflow.test")


def test_a_broken_key_of_the_authority_is_never_replaced(made: Path) -> None:
    (made / "selfsigned" / "ca.key").write_text("")
    before = contents(made)
    run = deploy(made, NAMES, HOST)
    assert run.returncode == 2
    assert "Unable to read the key" in run.stdout, run.stdout
    assert contents(made) == before


def test_a_check_of_an_empty_directory_writes_nothing(tmp_path: Path) -> None:
    assert make(tmp_path, NAMES, HOST, "--check") == [KEYS]
    assert contents(tmp_path) == {}
