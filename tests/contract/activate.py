# SPDX-License-Identifier: GPL-3.0-or-later
"""Start a program with listening sockets, as systemd does for a service with socket units.

    activate.py [--restart] NAME=ADDRESS... -- PROGRAM ARGUMENT...

An address is the path of a unix socket, or HOST:PORT. With --restart the program is started again whenever it ends.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

FIRST = 3  # where systemd puts them
ASIDE = 100


def listen(address: str) -> socket.socket:
    if address.startswith("/"):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(address)
        os.chmod(address, 0o666)
    else:
        host, port = address.rsplit(":", 1)
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((host, int(port)))
    listener.listen(4096)
    return listener


def start(names: list[str], fds: list[int], command: list[str]) -> None:
    """Become the program."""
    for number, fd in enumerate(fds, start=FIRST):
        os.dup2(fd, number, inheritable=True)
    os.closerange(FIRST + len(fds), ASIDE + len(fds))
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)), LISTEN_FDNAMES=":".join(names))
    os.execv(command[0], command)


def start_again_and_again(names: list[str], fds: list[int], command: list[str]) -> None:
    child = 0

    def end(*_):
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
        sys.exit(0)

    while True:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        child = os.fork()
        if not child:
            start(names, fds, command)
        signal.signal(signal.SIGTERM, end)
        os.waitpid(child, 0)


def main(words: list[str]) -> None:
    restart = words[0] == "--restart"
    end = words.index("--")
    sockets = dict(word.split("=", 1) for word in words[restart:end])
    listeners = [listen(address) for address in sockets.values()]
    fds = [os.dup2(listener.fileno(), ASIDE + number) for number, listener in enumerate(listeners)]
    (start_again_and_again if restart else start)(list(sockets), fds, words[end + 1 :])


if __name__ == "__main__":
    main(sys.argv[1:])
