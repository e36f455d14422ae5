# SPDX-License-Identifier: GPL-3.0-or-later
"""Send bytes to a web server exactly as they are, and tell what came back. Runs on an attacker's host, with nothing but Python.

    send.py HOST PORT http|https <REQUESTS >ANSWERS

REQUESTS is a JSON list of strings, each standing for bytes (latin-1). One that ends the connection, or should ("Connection:
close"), has a connection of its own; the others share them. ANSWERS is a JSON list of what was received for each.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
import sys
from concurrent.futures import ThreadPoolExecutor

QUIET = 4  # seconds without an answer
ALONE = "Connection: close"
TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
TLS.check_hostname, TLS.verify_mode = False, ssl.CERT_NONE  # who the server is, is no question here


class Client:
    """One attacker's connection at a time."""

    def __init__(self, host: str, port: int, scheme: str) -> None:
        self.host, self.port, self.scheme = host, port, scheme
        self.connection: socket.socket | None = None
        self.unread = b""

    def open(self) -> None:
        connection = socket.create_connection((self.host, self.port), timeout=QUIET)
        if self.scheme == "https":
            connection = TLS.wrap_socket(connection, server_hostname=self.host)
        self.connection = connection
        self.unread = b""

    def close(self) -> None:
        if self.connection:
            self.connection.close()
        self.connection = None

    def more(self) -> bool:
        data = self.connection.recv(1 << 16)
        self.unread += data
        return bool(data)

    def everything(self, raw: bytes) -> bytes:
        """All that comes until the server closes or has nothing more to say."""
        self.close()
        self.open()
        try:
            self.connection.sendall(raw)
            while self.more():
                pass
        except OSError:
            pass
        answer = self.unread
        self.close()
        return answer

    def one(self, raw: bytes) -> bytes:
        """One answer, on a connection that goes on where it can."""
        for _count in range(2):
            fresh = self.connection is None
            try:
                if fresh:
                    self.open()
                self.connection.sendall(raw)
                while b"\r\n\r\n" not in self.unread and self.more():
                    pass
                if self.unread or fresh:
                    break
            except OSError:
                if fresh:
                    break
            self.close()  # the server had ended it meanwhile
        if self.connection is None:
            return b""
        head, _blank, rest = self.unread.partition(b"\r\n\r\n")
        length = re.search(rb"\r\ncontent-length: *([0-9]+)", head, re.IGNORECASE)
        size = 0 if raw.startswith(b"HEAD ") or not length else int(length[1])
        try:
            while len(self.unread) < len(head) + 4 + size and self.more():
                pass
        except OSError:
            pass
        rest = self.unread[len(head) + 4 :]
        answer, self.unread = head + b"\r\n\r\n" + rest[:size], rest[size:]
        if b"\r\nConnection: close" in head or not length or self.unread:
            self.close()
        return answer


def main(host: str, port: str, scheme: str) -> None:
    requests = json.load(sys.stdin)
    answers = [""] * len(requests)

    def attack(share: range) -> None:
        client = Client(host, int(port), scheme)
        for number in share:
            raw = requests[number].encode("latin-1")
            try:
                answer = client.everything(raw) if ALONE in requests[number] else client.one(raw)
            except OSError as error:
                answer = str(error).encode()
            answers[number] = answer[: 1 << 16].decode("latin-1")
        client.close()

    attackers = 8
    with ThreadPoolExecutor(attackers) as pool:
        list(pool.map(attack, [range(first, len(requests), attackers) for first in range(attackers)]))
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
