#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# uvicorn 0.54.0 with h11 0.16.0 (PyPI): whether a request line of 40 KB is answered depends on the pieces in which it arrives.
#
#   all of it in one piece, or 10,000 bytes and then the rest: 200
#   20,000 bytes and then the rest:                            400 Bad Request
#
# One would guess that a server has one limit for its request line. uvicorn's (h11_max_incomplete_event_size, 16 KiB by default) counts only
# what lies in h11's buffer while the head is incomplete. Why it matters: a long URL that works on the same host, where a request comes in one
# piece, fails now and then through a network or a proxy that cuts elsewhere; a test on the loopback address does not see it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check uvicorn==0.54.0 h11==0.16.0
cat >ask.py <<'PYTHON'
import socket
import threading
import time

import uvicorn


async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


listener = socket.socket()
listener.bind(("127.0.0.1", 0))
server = uvicorn.Server(uvicorn.Config(app, http="h11", lifespan="off", log_level="critical"))
threading.Thread(target=server.run, args=([listener],), daemon=True).start()
while not server.started:
    time.sleep(0.05)
request = b"GET /?q=" + b"a" * 40000 + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
for first in (len(request), 10000, 20000):
    with socket.create_connection(listener.getsockname()) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(request[:first])
        time.sleep(0.5)
        if first < len(request):
            client.sendall(request[first:])
        print(f"{first if first < len(request) else 'all'} bytes first: {client.recv(100).split()[1].decode()}")
PYTHON
found=$(venv/bin/python ask.py)
echo "$found"
[ "$found" = 'all bytes first: 200
10000 bytes first: 200
20000 bytes first: 400' ] || { echo 'This has changed.'; exit 1; }
