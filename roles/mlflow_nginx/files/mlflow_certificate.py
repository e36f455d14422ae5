# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates: whether clients would take one, and an authority of this server's own that makes one. Standard library and openssl only.

mlflow_certificate.py check < {"certificate": ..., "key": ..., "names": [...]}
    says in a sentence for each fault what is wrong; nothing where nothing is. Each of the two is a path, or the PEM text.
mlflow_certificate.py selfsigned DIRECTORY NAME... [--also ADDRESS...] [--ask]
    makes or renews what is due in the directory, and says what, "current" where nothing is; then prints the authority's certificate.
    The certificate is also for those of the other addresses that the authority may sign. --ask makes nothing.
mlflow_certificate.py authority DIRECTORY < ca.pem
    says whether the authority in the directory is the one of that certificate: "same", "other", or "none" where there is no authority.
mlflow_certificate.py acme DIRECTORY URL NAME...
    says "current" where certbot has there a certificate from that authority, for these names and no other, that has not ended.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import secrets
import ssl
import subprocess
import sys
import tempfile
import time

DAY = 86400
LEAF_DAYS, LEAF_RENEW_DAYS = 825, 90  # the longest that Apple's clients take
# The authority is renewed, with the same key, before it could end sooner than what it signs: clients have the years between to take the new one.
CA_DAYS, CA_RENEW_DAYS = 3650, LEAF_DAYS + 365
ALL_BITS = ["255.255.255.255", ":".join(["ffff"] * 8)]  # IPv4, IPv6
NO_ADDRESS = ["excluded;IP:0.0.0.0/0.0.0.0", f"excluded;IP:{':'.join('0' * 8)}/{':'.join('0' * 8)}"]
PARTIAL_CHAIN = 0x80000  # ssl.VERIFY_X509_PARTIAL_CHAIN, of Python 3.10


def handshake(certificate: str, key: str, name: str, authority: str = "") -> dict:
    """What a client learns of the certificate when it connects to the name. Without an authority, it trusts this certificate."""

    def refuse() -> str:
        raise ValueError("encrypted")

    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key, password=refuse)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(authority or certificate)
    client.verify_flags |= ssl.VERIFY_X509_STRICT if authority else PARTIAL_CHAIN  # strict, as Python 3.13 is
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
    return sides[0].getpeercert()


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
    os.write(memory, value.encode() + b"\n")
    return f"/proc/self/fd/{memory}"


def check(certificate: str, key: str, names: list[str]) -> list[str]:
    faults = []
    for name in names:
        try:
            handshake(readable(certificate), readable(key), plain(name))
        except ssl.SSLCertVerificationError as error:
            if "mismatch" in error.verify_message:
                faults.append(f"is not for the name {name}: get one for all names, or take the name out of mlflow_domain and mlflow_domain_aliases.")
                continue
            return [f"is refused by clients ({error.verify_message}): renew it, or look at this server's clock."]
        except ssl.SSLError as error:
            if error.reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"):
                return ["does not fit the key in mlflow_tls_key: take the key that it was made with."]
            return [f"or the key in mlflow_tls_key is not usable PEM ({error.reason or error}): give both in PEM format, the chain after the certificate."]
        except ValueError:
            return ["has a key with a passphrase, which nginx could not open: take the passphrase off, and keep the key in a vault instead."]
        except OSError as error:
            return [f"or the key in mlflow_tls_key cannot be read ({error.strerror}): give paths that exist, or the PEM text."]
    return faults


def got(directory: str, url: str, names: list[str]) -> bool:
    live = os.path.join(directory, "live", "mlflow")
    try:
        seen = [handshake(os.path.join(live, "fullchain.pem"), os.path.join(live, "privkey.pem"), name) for name in names]
        with open(os.path.join(directory, "renewal", "mlflow.conf"), encoding="utf-8") as settings:
            return f"server = {url}\n" in settings.readlines() and names_of(seen[0]) == set(names)
    except (OSError, ValueError):  # ssl.SSLError is one
        return False


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def compare(directory: str, known: str) -> str:
    """Two authorities are the same where their key is: their certificates differ by age and by what they may sign."""
    key = os.path.join(directory, "ca.key")
    if not os.path.exists(key):
        return "none"
    ours = subprocess.run(["openssl", "pkey", "-pubout", "-in", key], capture_output=True, check=True)
    theirs = subprocess.run(["openssl", "x509", "-noout", "-pubkey"], input=known.encode(), capture_output=True, check=False)
    return "same" if ours.stdout == theirs.stdout else "other"


def names_of(certificate: dict) -> set[str]:
    return {plain(value) for _kind, value in certificate["subjectAltName"]}


class Authority:
    """ca.pem, ca.key, fullchain.pem and privkey.pem in a directory."""

    def __init__(self, directory: str, names: list[str], also: list[str] | None = None) -> None:
        self.directory = directory
        self.listed = [plain(name) for name in names]
        self.also = [plain(name) for name in also or []]

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def openssl(self, *arguments: str) -> None:
        run = subprocess.run(["openssl", *arguments], cwd=self.directory, capture_output=True, text=True, check=False)
        if run.returncode:
            sys.exit(f"openssl {arguments[0]}: {run.stderr.strip()}")

    def write(self, name: str, mode: int, *arguments: str) -> None:
        """What openssl puts out takes the file's place in one step."""
        self.openssl(*arguments, "-out", name + ".new")
        os.chmod(self.path(name + ".new"), mode)
        os.replace(self.path(name + ".new"), self.path(name))

    def accepted(self, certificate: str = "fullchain.pem") -> bool:
        """By every name and by no other, for long enough, by clients that know the authority."""
        try:
            seen = [handshake(self.path(certificate), self.path("privkey.pem"), name, self.path("ca.pem")) for name in self.names]
        except (OSError, ValueError):  # ssl.SSLError is one
            return False
        left = ssl.cert_time_to_seconds(seen[0]["notAfter"]) - time.time()
        return names_of(seen[0]) == set(self.names) and left > LEAF_RENEW_DAYS * DAY

    @property
    def names(self) -> list[str]:
        """What the certificate is for: what was listed, and the other addresses that the authority may sign."""
        permitted = self.permitted()
        return list(dict.fromkeys(self.listed + [name for name in self.also if permitted is None or name in permitted]))

    def permitted(self) -> set[str] | None:
        """The addresses that the authority may sign, None for all: there is none yet, or one of an earlier version."""
        command = ["openssl", "x509", "-noout", "-ext", "nameConstraints", "-in", self.path("ca.pem")]
        found = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        if "IP:" not in found:
            return None
        return {plain(address) for address in re.findall(r"IP:(\S+)/", found.partition("Excluded")[0])}

    def authority_lasts(self) -> bool:
        command = ["openssl", "x509", "-noout", "-checkend", str(CA_RENEW_DAYS * DAY), "-in", self.path("ca.pem")]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def addresses_so_far(self) -> list[str]:
        """Those by which clients may have reached the server until now."""
        try:
            with open(self.path("fullchain.pem"), encoding="ascii") as certificate:
                found = subprocess.run(["openssl", "x509", "-noout", "-ext", "subjectAltName"], stdin=certificate, capture_output=True, text=True, check=False)
        except OSError:
            return []
        return [plain(address) for address in re.findall(r"IP Address:([^,\s]+)", found.stdout)]

    def extensions(self) -> str:
        """For openssl. The authority is good for the names, for what lies below them, and for the addresses: stolen, it could pose as nothing else."""
        alternatives = [f"IP:{name}" if is_address(name) else f"DNS:{name}" for name in self.names]
        signs = dict.fromkeys(self.names + self.also + self.addresses_so_far())
        constraints = [f"permitted;IP:{name}/{ALL_BITS[':' in name]}" for name in signs if is_address(name)] or NO_ADDRESS
        constraints += [f"permitted;DNS:{name}" for name in self.listed if not is_address(name)] or ["permitted;DNS:invalid"]
        constraints += ["permitted;email:invalid", "permitted;URI:invalid"]
        return f"""
[req]
prompt = no
distinguished_name = subject
[subject]
O = MLflow
CN = MLflow CA of {self.listed[0][:40]}
[ca]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
nameConstraints = critical, {", ".join(constraints)}
[leaf]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = {", ".join(alternatives)}
"""

    def make(self) -> list[str]:
        done = []
        os.umask(0o077)
        with tempfile.NamedTemporaryFile("w+", suffix=".cnf") as config:

            def configure() -> None:
                """What the certificate is for depends on the authority."""
                config.seek(0)
                config.truncate()
                config.write(self.extensions())
                config.flush()

            def key(name: str) -> None:
                self.write(name, 0o600, "ecparam", "-genkey", "-noout", "-name", "prime256v1")

            def ca() -> None:
                configure()
                if not os.path.exists(self.path("ca.key")):
                    key("ca.key")
                self.write("ca.pem", 0o644, "req", "-x509", "-new", "-key", "ca.key", "-config", config.name, "-extensions", "ca", "-days", str(CA_DAYS))
                done.append("made the certificate authority: clients need its new certificate")

            def leaf() -> None:
                configure()
                if not os.path.exists(self.path("privkey.pem")):
                    key("privkey.pem")
                self.openssl("req", "-new", "-key", "privkey.pem", "-subj", "/O=MLflow/CN=MLflow server", "-config", config.name, "-out", "request.new")
                self.write(
                    "fullchain.pem", 0o644, "x509", "-req", "-in", "request.new", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", str(LEAF_DAYS),
                    "-set_serial", str(secrets.randbits(120)), "-extfile", config.name, "-extensions", "leaf",
                )  # fmt: skip
                os.remove(self.path("request.new"))

            if not os.path.exists(self.path("ca.key")) or not self.authority_lasts() or self.permitted() is None:
                ca()
            leaf()
            if not self.accepted():  # a new name, which the authority may not sign
                ca()
                leaf()
            done.append("made the certificate")
        if not self.accepted():
            sys.exit("The certificate that was made would not be accepted: look at this server's clock.")
        return done


def main() -> None:
    if sys.argv[1] == "check":
        for fault in check(**json.load(sys.stdin)):
            print(f"The certificate in mlflow_tls_certificate {fault}")
        return
    if sys.argv[1] == "acme":
        print("current" if got(sys.argv[2], sys.argv[3], sys.argv[4:]) else "to be got")
        return
    if sys.argv[1] == "authority":
        print(compare(sys.argv[2], sys.stdin.read()))
        return
    listed, _option, also = " ".join(word for word in sys.argv[3:] if word != "--ask").partition("--also")
    authority = Authority(sys.argv[2], listed.split(), also.split())
    if authority.accepted() and authority.authority_lasts() and authority.permitted() is not None:
        print("current")
    elif "--ask" in sys.argv:
        print("a certificate is to be made")
    else:
        print("; ".join(authority.make()))
    if os.path.exists(authority.path("ca.pem")):
        with open(authority.path("ca.pem"), encoding="ascii") as certificate:
            print(certificate.read(), end="")


if __name__ == "__main__":
    main()
