# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an authority may sign, and when that has to change. Here with certificates of its own; test_certificate.py has the role's."""

from __future__ import annotations

import datetime
import ipaddress

import pytest
from ansible_collections.mlops.mlflow.plugins.filter.certificate_names import certificate_names
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

KEY = ec.generate_private_key(ec.SECP256R1())
NOTHING_ELSE = ["email:invalid", "URI:invalid"]
ALL_ADDRESSES = ["IP:0.0.0.0/0", "IP:::/0"]


def general(name: str) -> x509.GeneralName:
    kind, _colon, value = name.partition(":")
    if kind == "IP":
        return x509.IPAddress(ipaddress.ip_network(value) if "/" in value else ipaddress.ip_address(value))
    return {"DNS": x509.DNSName, "email": x509.RFC822Name, "URI": x509.UniformResourceIdentifier}[kind](value)


def pem(extension: x509.ExtensionType, name: str = "MLflow CA of mlflow.test") -> str:
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "MLflow"), x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder(subject, subject, KEY.public_key(), 7, now, now + datetime.timedelta(1)).add_extension(extension, critical=True)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def authority(*permitted: str, excluded: tuple[str, ...] = ()) -> str:
    return pem(x509.NameConstraints([general(name) for name in permitted], [general(name) for name in excluded] or None))


def certificate(*names: str) -> str:
    return pem(x509.SubjectAlternativeName([general(name) for name in names]))


OURS = ["IP:10.1.2.3/32", "DNS:mlflow.test", *NOTHING_ELSE]


@pytest.mark.parametrize("nothing", ["", "garbage", certificate("DNS:mlflow.test")[:-40]])
def test_a_first_authority_may_sign_for_all_names_and_addresses(nothing: str) -> None:
    assert certificate_names(["mlflow.test", "[FD00::9]"], ["10.9.9.9"], nothing, nothing) == {
        "subject_alt_name": ["DNS:mlflow.test", "IP:fd00::9", "IP:10.9.9.9"],
        "common_name": "MLflow CA of mlflow.test",
        "name_constraints_permitted": ["IP:fd00::9/128", "IP:10.9.9.9/32", "DNS:mlflow.test", *NOTHING_ELSE],
        "name_constraints_excluded": [],
    }


@pytest.mark.parametrize(
    ("listed", "permitted", "excluded"),
    [(["mlflow.test"], ["DNS:mlflow.test"], ALL_ADDRESSES), (["10.1.2.3"], ["IP:10.1.2.3/32", "DNS:invalid"], [])],
)
def test_an_authority_signs_nothing_of_a_kind_that_is_not_listed(listed: list[str], permitted: list[str], excluded: list[str]) -> None:
    names = certificate_names(listed)
    assert names["name_constraints_permitted"] == permitted + NOTHING_ELSE
    assert names["name_constraints_excluded"] == excluded


@pytest.mark.parametrize("listed", [["mlflow.test"], ["mlflow.test", "10.1.2.3"], ["10.1.2.3"], ["sub.mlflow.test"], []])
def test_an_authority_that_may_sign_what_is_listed_stays(listed: list[str]) -> None:
    names = certificate_names(listed, ["172.17.0.1"], authority(*OURS))
    assert names["name_constraints_permitted"] == OURS
    assert "IP:172.17.0.1" not in names["subject_alt_name"]


@pytest.mark.parametrize("name", ["other.test", "xmlflow.test", "10.1.2.4", "fd00::9"])
def test_a_name_that_it_may_not_sign_makes_it_anew(name: str) -> None:
    """With the name that it had, so that clients trust it by its key; for addresses by which they may have come as well."""
    names = certificate_names([name, "mlflow.test"], ["172.17.0.1"], authority(*OURS), certificate("IP:10.8.8.8", "DNS:gone.test"))
    assert names["common_name"] == "MLflow CA of mlflow.test"
    assert {"IP:172.17.0.1/32", "IP:10.8.8.8/32", "DNS:mlflow.test"} < set(names["name_constraints_permitted"])
    assert "DNS:gone.test" not in names["name_constraints_permitted"]
    assert "IP:172.17.0.1" in names["subject_alt_name"]


def test_an_authority_for_any_address_is_made_anew() -> None:
    names = certificate_names(["mlflow.test"], ["10.9.9.9"], authority("DNS:mlflow.test"), certificate("DNS:mlflow.test", "IP:10.8.8.8"))
    assert names["name_constraints_permitted"] == ["IP:10.9.9.9/32", "IP:10.8.8.8/32", "DNS:mlflow.test", *NOTHING_ELSE]


def test_an_authority_for_names_alone_stays() -> None:
    permitted = ["DNS:mlflow.test", *NOTHING_ELSE]
    names = certificate_names(["mlflow.test"], ["10.9.9.9"], authority(*permitted, excluded=tuple(ALL_ADDRESSES)))
    assert (names["name_constraints_permitted"], names["name_constraints_excluded"]) == (permitted, ALL_ADDRESSES)
    assert names["subject_alt_name"] == ["DNS:mlflow.test"]


def test_a_certificate_with_the_same_names_keeps_their_order() -> None:
    """Addresses come in another order after a restart of the host."""
    names = certificate_names(["mlflow.test"], ["10.1.2.3"], authority(*OURS), certificate("IP:10.1.2.3", "DNS:mlflow.test"))
    assert names["subject_alt_name"] == ["IP:10.1.2.3", "DNS:mlflow.test"]


def test_a_long_name_is_cut() -> None:
    """A common name has 64 characters at most."""
    assert certificate_names(["a" * 63 + ".test"])["common_name"] == "MLflow CA of " + "a" * 40
