# SPDX-License-Identifier: GPL-3.0-or-later
"""Answer at a unix socket of MLflow, in its place, as a program would that took it over: names for the proxy to send.

imposter.py SOCKET
"""

import os
import socketserver
import sys

PATH = sys.argv[1]


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        words = self.rfile.readline().decode().split()
        while self.rfile.readline().strip():
            pass
        name = words[1].rpartition("/links/")[2]
        self.wfile.write(f"HTTP/1.1 200 OK\r\nConnection: close\r\nX-Accel-Redirect: /_mlflow_artifacts/0/links/{name}\r\n\r\n".encode())


os.rename(PATH, PATH + ".aside")
os.umask(0)
socketserver.ThreadingUnixStreamServer(PATH, Handler).serve_forever()
