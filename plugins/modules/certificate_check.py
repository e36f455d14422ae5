#!/usr/bin/python
# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: certificate_check
short_description: Try a certificate and its key as a server and its clients do
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Loads a certificate and its key as a server does, and makes TLS handshakes in memory, one for each name, with a client that trusts this certificate.
  - So it finds a key of another certificate, a key with a passphrase, a certificate that is for other names, or not valid at this time.
  - With O(trusted), also a certificate from another authority, and one that lacks a certificate of its chain.
extends_documentation_fragment:
  - mlops.mlflow.attributes
  - mlops.mlflow.attributes.info
options:
  certificate:
    description: The certificate, with its chain after it. An absolute path on the host, or the PEM text.
    type: str
    required: true
  key:
    description: Its key. An absolute path on the host, or the PEM text.
    type: str
    required: true
  names:
    description: Names and addresses that the certificate must be for. Empty to see only whether certificate and key belong together.
    type: list
    elements: str
    default: []
  trusted:
    description: The certificates of the authorities that clients trust, a file on the host. Nothing is tried with one that is not there.
    type: path
notes:
  - Needs nothing on the host but Python, so that it can run before packages are installed.
  - Needs the right to read the files.
seealso:
  - module: community.crypto.x509_certificate_info
"""

EXAMPLES = r"""
- name: Try the certificate that nginx is to get
  mlops.mlflow.certificate_check:
    certificate: /etc/ssl/mlflow.pem
    key: /etc/ssl/private/mlflow.key
    names: [mlflow.example.com, 192.0.2.7]
  register: tried

- name: Refuse a certificate that clients would refuse
  ansible.builtin.assert:
    that: tried.problem == ''
    fail_msg: "The certificate {{ tried.problem }}"
"""

RETURN = r"""
reason:
  description:
    - Why the certificate can't be used; empty where it can.
    - V(key) is a key of another certificate, V(order) that the one of the key is not the first of its file,
      V(passphrase) one that is encrypted, V(format) that one of the two is not usable PEM,
      V(unreadable) that it can't be read, V(time) that the certificate has ended or is otherwise refused, V(name) that it is not for one of O(names),
      V(authority) that none of O(trusted) leads to it.
  returned: always
  type: str
  sample: name
problem:
  description: The same in words that go on after "The certificate"; empty where there is none.
  returned: always
  type: str
  sample: "is not for the name alias.example.com: get one for all names, or remove what it is not for from the names of this server."
names:
  description: The names and addresses that the certificate is for. Empty where it can't be used, and where O(names) is empty.
  returned: always
  type: list
  elements: str
  sample: [mlflow.example.com, 192.0.2.7]
"""

import ipaddress
import os
import re
import ssl
import typing as t
from contextlib import suppress

from ansible.module_utils.basic import AnsibleModule

CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n?", re.DOTALL)
PARTIAL_CHAIN = 0x80000  # ssl.VERIFY_X509_PARTIAL_CHAIN, of Python 3.10


def plain(name: str) -> str:
    """A name, or an address in its one spelling."""
    try:
        return str(ipaddress.ip_address(name.strip("[]\n")))
    except ValueError:
        return name


def readable(value: str) -> str:
    """A path to it: text stays in memory."""
    if value.startswith("/") or not value:
        return value
    memory = os.memfd_create("pem")
    os.write(memory, value.encode(errors="surrogateescape") + b"\n")
    return f"/proc/self/fd/{memory}"


class Encrypted(Exception):
    """The key has a passphrase."""


def server_of(certificate: str, key: str) -> ssl.SSLContext:
    def refuse() -> str:
        raise Encrypted

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key, password=refuse)
    return context


def handshake(server: ssl.SSLContext, trusted: str, name: str) -> list[str]:
    """What a client learns when it connects to the name: all names that the certificate is for."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(trusted)
    client.verify_flags |= PARTIAL_CHAIN
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _count in range(4):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
    peer: dict[str, t.Any] = sides[0].getpeercert() or {}
    return [plain(value) for _kind, value in peer.get("subjectAltName", ())]


def in_wrong_order(certificate: str, key: str) -> bool:
    """Whether the key is that of another certificate than the first."""
    with open(certificate, encoding="utf-8", errors="replace") as file:
        for other in CERTIFICATE.findall(file.read())[1:]:
            with suppress(ssl.SSLError):
                server_of(readable(other), key)
                return True
    return False


def check(certificate: str, key: str, names: t.Sequence[str], trusted: str | None) -> tuple[str, str, list[str]]:
    """Reason, problem and names, as they are returned."""
    found, missing = [], []
    path, key_path = readable(certificate), readable(key)
    try:
        server = server_of(path, key_path)
        for name in names:
            try:
                found = handshake(server, path, plain(name))
            except ssl.SSLCertVerificationError as error:
                if "mismatch" not in error.verify_message:
                    return "time", f"is refused by clients ({error.verify_message}): renew it, or look at the clock of this host.", []
                missing.append(name)
            except ValueError:  # no name that a client could ask for, such as a..example.com
                missing.append(name)
        if names and not missing and trusted and os.path.exists(trusted):
            try:
                handshake(server, trusted, plain(names[0]))
            except ssl.SSLCertVerificationError as error:
                return "authority", f"is from an authority that is not trusted ({error.verify_message}): append its intermediate certificates.", []
            except OSError as error:
                return "authority", f"cannot be checked: {trusted}, which says whom clients trust, cannot be used ({error.strerror or error}).", []
    except ssl.SSLError as error:
        if error.reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH") and in_wrong_order(path, key_path):
            return "order", "comes after another one in its file: put it first, and its chain after it.", []
        if error.reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"):
            return "key", "does not fit its key: give the key that it was made with.", []
        return "format", f"or its key is not usable PEM ({error.reason or error}): give both in PEM (openssl pkcs12 makes it of a .pfx), the chain last.", []
    except Encrypted:
        return "passphrase", "has a key with a passphrase, which a server could not open: remove the passphrase, and keep the key in a vault instead.", []
    except OSError as error:
        return "unreadable", f"or its key cannot be read ({error.strerror}): give paths that exist, or the PEM text.", []
    if missing:
        several = f"names {', '.join(missing)}" if missing[1:] else f"name {missing[0]}"
        return "name", f"is not for the {several}: get one for all names, or remove what it is not for from the names of this server.", []
    return "", "", found


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "certificate": {"type": "str", "required": True},
            "key": {"type": "str", "required": True, "no_log": True},
            "names": {"type": "list", "elements": "str", "default": []},
            "trusted": {"type": "path"},
        },
        supports_check_mode=True,
    )
    reason, problem, names = check(module.params["certificate"], module.params["key"], module.params["names"], module.params["trusted"])
    module.exit_json(changed=False, reason=reason, problem=problem, names=names)


if __name__ == "__main__":
    main()
