# SPDX-License-Identifier: GPL-3.0-or-later
"""Answer like a model of OpenAI's, and keep what was asked last.

listener.py PORT FILE
"""

import http.server
import json
import sys

PORT, FILE = int(sys.argv[1]), sys.argv[2]
ANSWER = {
    "id": "1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "listened"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


class Listener(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        with open(FILE, "w") as file:
            json.dump({"headers": dict(self.headers), "body": body}, file)
        content = json.dumps(ANSWER).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


http.server.HTTPServer(("127.0.0.1", PORT), Listener).serve_forever()
