# SPDX-License-Identifier: GPL-3.0-or-later
"""Say for each port whether it is open, closed (no answer) or refused.

knock.py OWN_ADDRESS HOST PORT...
"""

import socket
import sys

own, host, *ports = sys.argv[1:]
for port in ports:
    with socket.socket() as knocking:
        knocking.settimeout(3)
        knocking.bind((own, 0))
        try:
            knocking.connect((host, int(port)))
            print("open")
        except TimeoutError:
            print("closed")
        except ConnectionRefusedError:
            print("refused")
