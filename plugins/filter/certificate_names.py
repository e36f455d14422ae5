# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: certificate_names
short_description: The names of a certificate, and what the authority that signs it may sign
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - For an authority of a server's own, which may sign for the names and addresses of that server and for nothing else.
  - An authority that may sign all that is listed stays as it is. Otherwise it is to be made with the same common name, for what is listed, for the other
    addresses, and for the addresses by which clients may have reached the server until now, which are those in its certificate.
positional: others, authority, certificate
options:
  _input:
    description: The names and addresses that the certificate must be for.
    type: list
    elements: str
    required: true
  others:
    description: More addresses of the server, which alone are no reason for a new authority.
    type: list
    elements: str
    default: []
  authority:
    description: The certificate of the authority that is there, in PEM format; empty, or something else, where there is none.
    type: str
    default: ""
  certificate:
    description: The certificate of the server that is there, likewise.
    type: str
    default: ""
requirements:
  - cryptography on the controller, which ansible-core brings
"""

EXAMPLES = r"""
names: "{{ ['mlflow.example.com'] | mlops.mlflow.certificate_names(['192.0.2.7'], authority_pem, certificate_pem) }}"
"""

RETURN = r"""
_value:
  description: What the modules C(openssl_csr) and C(openssl_csr_pipe) of C(community.crypto) take.
  type: dict
  contains:
    subject_alt_name:
      description: What the certificate is for, which is what is listed, and the other addresses that the authority may sign.
      type: list
      elements: str
      sample: [DNS:mlflow.example.com, IP:192.0.2.7]
    common_name:
      description: The common name of the authority.
      type: str
      sample: MLflow CA of mlflow.example.com
    name_constraints_permitted:
      description: What the authority may sign.
      type: list
      elements: str
      sample: [IP:192.0.2.7/32, DNS:mlflow.example.com, email:invalid, URI:invalid]
    name_constraints_excluded:
      description: What it may not sign, where nothing of that kind is permitted.
      type: list
      elements: str
      sample: []
"""

import ipaddress
import typing as t

from ansible.errors import AnsibleFilterError

try:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    MISSING = None
except ImportError as error:
    MISSING = error

KINDS = {"IPAddress": "IP", "DNSName": "DNS", "RFC822Name": "email", "UniformResourceIdentifier": "URI"}


def load(pem: str) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate(pem.encode())
    except ValueError:
        return None


def spelled(name: str) -> str:
    """As community.crypto writes it; an address has one spelling."""
    try:
        return f"IP:{ipaddress.ip_address(name.strip('[]'))}"
    except ValueError:
        return f"DNS:{name}"


def extension(certificate: x509.Certificate | None, kind: type[t.Any]) -> t.Any:
    try:
        return certificate.extensions.get_extension_for_class(kind).value if certificate else None
    except x509.ExtensionNotFound:
        return None


def listed_in(names: t.Iterable[x509.GeneralName] | None) -> list[str]:
    return [f"{KINDS[type(name).__name__]}:{name.value}" for name in names or [] if type(name).__name__ in KINDS]


def whole(address: str) -> str:
    """The network that holds an address alone."""
    return f"{address}/{128 if address.count(':') > 1 else 32}"


def covers(permitted: t.Sequence[str], name: str) -> bool:
    """A permitted name stands for what lies below it as well."""
    if name.startswith("IP:"):
        return whole(name) in permitted
    return any(f".{name[4:]}".endswith(f".{one[4:]}") for one in permitted if one.startswith("DNS:"))


def certificate_names(listed: t.Sequence[str], others: t.Sequence[str] = (), authority: str = "", certificate: str = "") -> dict[str, t.Any]:
    if MISSING:
        raise AnsibleFilterError("The filter certificate_names needs the Python library cryptography on the controller.") from MISSING
    wanted, more = [spelled(name) for name in listed], [spelled(name) for name in others]
    found = load(authority)
    constraints = extension(found, x509.NameConstraints)
    permitted = listed_in(constraints and constraints.permitted_subtrees)
    excluded = listed_in(constraints and constraints.excluded_subtrees)
    # one of an earlier version could sign for any address
    constrained = any(name.startswith("IP:") for name in permitted + excluded)
    known = listed_in(extension(load(certificate), x509.SubjectAlternativeName))
    if not constrained or not all(covers(permitted, name) for name in wanted):
        addresses = [whole(name) for name in dict.fromkeys(wanted + more + known) if name.startswith("IP:")]
        permitted = addresses + ([name for name in wanted if name.startswith("DNS:")] or ["DNS:invalid"]) + ["email:invalid", "URI:invalid"]
        excluded = [] if addresses else ["IP:0.0.0.0/0", "IP:::/0"]
    name = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME) if found else []
    names = list(dict.fromkeys(wanted + [address for address in more if covers(permitted, address)]))
    return {
        # addresses come in another order after a restart of the host
        "subject_alt_name": known if set(known) == set(names) else names,
        "common_name": str(name[0].value) if name else f"MLflow CA of {wanted[0].partition(':')[2][:40]}",
        "name_constraints_permitted": permitted,
        "name_constraints_excluded": excluded,
    }


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"certificate_names": certificate_names}
