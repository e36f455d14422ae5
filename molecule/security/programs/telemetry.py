# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand in for the servers of MLflow's telemetry, and write down what comes: one line of JSON for each connection and each request.

telemetry.py CERTIFICATE KEY FILE INGESTION_URL
"""

from __future__ import annotations

import json
import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def main(certificate: str, key: str, log: str, ingestion: str) -> None:
    def write_down(*what) -> None:
        with open(log, "a", encoding="utf-8") as file:
            file.write(json.dumps(what) + "\n")

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            write_down(self.command, self.headers["Host"], self.path, body)
            version = self.path.removeprefix("/").removesuffix(".json")
            ui = {"disable_ui_telemetry": False, "disable_ui_events": [], "ui_rollout_percentage": 100}
            answer = {"mlflow_version": version, "disable_telemetry": False, "ingestion_url": ingestion, "rollout_percentage": 100, **ui}
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        do_GET = do_POST = answer

    class Server(ThreadingHTTPServer):
        def get_request(self):
            connection, address = super().get_request()
            write_down("CONNECT", *address)
            return context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    Server(("", 443), Handler).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
