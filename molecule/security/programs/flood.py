# SPDX-License-Identifier: GPL-3.0-or-later
"""Be many clients of a web server at once, honest and other ones. Runs on an attacker's host, with nothing but Python.

    flood.py HOST PORT http|https <CLIENTS >RESULTS

CLIENTS is a JSON list of groups; all begin together. A group:

    count      how many clients, each with a connection of its own at a time
    sources    addresses that they come from, taken in turn
    requests   what they send, one after the other and again from the start; "@" in it becomes a number that is never used twice
    pause      seconds between two requests of a client
    seconds    when to stop; without it each client sends each request once
    slow       send that many bytes at once at most, and wait a second before the next; read likewise

RESULTS is a JSON list, for each group a list of [status, seconds, when it began]; status 0: the connection was closed without an answer.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import ssl
import sys
import time

NUMBERS = itertools.count()


async def talk(host, port, context, source, raw: bytes, slow: int) -> int:
    reader, writer = await asyncio.open_connection(
        host, port, ssl=context, server_hostname=host if context else None, local_addr=(source, 0) if source else None, limit=1 << 16
    )
    try:

        async def speak():
            for start in range(0, len(raw), slow or len(raw)):
                writer.write(raw[start : start + (slow or len(raw))])
                await writer.drain()
                if slow:
                    await asyncio.sleep(1)

        speaking = asyncio.create_task(speak())
        try:
            line = await reader.readline()
            status = int(line.split()[1]) if line else 0
            while data := await reader.read(slow or 1 << 16):
                if slow:
                    await asyncio.sleep(1)
                assert data
        finally:
            speaking.cancel()
            await asyncio.gather(speaking, return_exceptions=True)
        return status
    finally:
        writer.transport.abort()


async def client(group, number, host, port, context, start, results) -> None:
    sources = group.get("sources") or [None]
    seconds = group.get("seconds", 0)
    requests = itertools.cycle(group["requests"]) if seconds else iter(group["requests"])
    for request in requests:
        began = time.monotonic()
        if seconds and began - start > seconds:
            break
        raw = request.replace("@", str(next(NUMBERS))).encode("latin-1")
        status = 0
        try:
            status = await talk(host, port, context, sources[number % len(sources)], raw, group.get("slow", 0))
        except (OSError, ssl.SSLError, asyncio.IncompleteReadError):
            pass
        except asyncio.CancelledError:
            results.append([status, time.monotonic() - began, began - start])
            raise
        results.append([status, time.monotonic() - began, began - start])
        await asyncio.sleep(group.get("pause", 0))


async def main(host: str, port: str, scheme: str) -> None:
    context = None
    if scheme == "https":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # who the server is, is no question here
    groups = json.load(sys.stdin)
    results: list[list] = [[] for _count in groups]
    start = time.monotonic()
    await asyncio.gather(
        *(client(group, number, host, int(port), context, start, results[place]) for place, group in enumerate(groups) for number in range(group["count"]))
    )
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
