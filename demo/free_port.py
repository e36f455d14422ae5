# SPDX-License-Identifier: GPL-3.0-or-later
"""Print the first free port from 8080 on."""

import socket
import sys

for port in range(8080, 8180):
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            continue
    print(port)
    sys.exit()
sys.exit("no port from 8080 to 8179 is free")
