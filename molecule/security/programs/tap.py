# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand between nginx and MLflow, and write down what MLflow gets: one line of JSON for each connection.

    tap.py FILE SOCKET...

Every connection is passed on unchanged. At its end the sockets are as they were.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from pathlib import Path

KEPT = 1 << 16


async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, kept: bytearray | None = None) -> None:
    try:
        while data := await source.read(1 << 16):
            if kept is not None and len(kept) < KEPT:
                kept += data
            sink.write(data)
            await sink.drain()
        sink.write_eof()
    except (OSError, RuntimeError):
        pass


async def main(log: Path, sockets: list[Path]) -> None:
    file = log.open("a", buffering=1)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    servers = []
    for path in sockets:
        real = path.with_suffix(".real")
        owner = path.stat()
        path.rename(real)

        async def passed_on(reader, writer, path=path, real=real):
            got = bytearray()
            theirs, to_them = await asyncio.open_unix_connection(real)
            await asyncio.gather(pump(reader, to_them, got), pump(theirs, writer))
            to_them.close()
            writer.close()
            file.write(json.dumps([path.name, got.decode("latin-1")]) + "\n")

        servers.append(await asyncio.start_unix_server(passed_on, path, backlog=4096))
        os.chown(path, owner.st_uid, owner.st_gid)
        path.chmod(0o660)
    try:
        await ended.wait()
    finally:
        for path in sockets:
            shutil.move(path.with_suffix(".real"), path)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]]))
