#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# MLflow 3.17.2 (PyPI), `mlflow server --serve-artifacts` with artifacts in a local directory: to list a directory of artifacts answers 500 now and then,
# while other clients upload to directories below it and delete them.
#
#   GET /api/2.0/mlflow-artifacts/artifacts?path=P, nothing else going on:                                 200 each time
#   the same, while four clients upload P/x-N/file and delete P/x-N, each with an N of its own:            500 once in 50 to 100 times, so within seconds
#     in the server's log: FileNotFoundError: [Errno 2] No such file or directory: '…/P/x-3'
#   DELETE /api/2.0/mlflow-artifacts/artifacts/P/never, which was never there:                             200
#
# One would guess 200, with the directory or without it: P itself is there all the time. The server asks for the names first and looks at each afterwards,
# and one that is gone by then counts as a file, whose size it wants. Why it matters: a health check that lists, or a cleanup that lists before it deletes,
# fails at random where two run at once. A cleanup needs no listing: it can delete by name what it made, whether that is there or not.
set -euo pipefail
work=$(mktemp -d)
cd "$work"
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$work"' EXIT
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check mlflow==3.17.2
cat >ask.py <<'PYTHON'
import collections
import http.client
import sys
import threading
import time

LONGEST = 90  # seconds
NAMES = [f"x-{number}" for number in range(4)]
done = threading.Event()
listed = collections.Counter()
changed = collections.Counter()


class Client(http.client.HTTPConnection):
    def __init__(self):
        super().__init__("127.0.0.1", 18171, timeout=60)

    def ask(self, method, rest, body=None):
        self.request(method, f"/api/2.0/mlflow-artifacts/artifacts{rest}", body)
        answer = self.getresponse()
        answer.read()
        return answer.status


def change(name):
    client = Client()
    while not done.is_set():
        changed[f"PUT {client.ask('PUT', f'/P/{name}/file', b'content')}"] += 1
        changed[f"DELETE {client.ask('DELETE', f'/P/{name}')}"] += 1


client = Client()
print("deleting what was never there:", client.ask("DELETE", "/P/never"))
for name in NAMES:
    client.ask("PUT", f"/P/{name}/file", b"content")
print("listing, nothing else going on:", *{client.ask("GET", "?path=P") for _ in range(200)})
begin = time.monotonic()
threads = [threading.Thread(target=change, args=(name,), daemon=True) for name in NAMES]
for thread in threads:
    thread.start()
while time.monotonic() < begin + LONGEST and not listed[500]:
    listed[client.ask("GET", "?path=P")] += 1
done.set()
for thread in threads:
    thread.join()
print("uploading and deleting:", *sorted({answer.split()[1] for answer in changed}))
print("listing meanwhile:", *sorted(status for status in listed if listed[status]))
print(f"counts, listing: {dict(listed)}, meanwhile: {dict(changed)}, seconds: {time.monotonic() - begin:.1f}", file=sys.stderr)
PYTHON
export MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
venv/bin/mlflow server --backend-store-uri "sqlite:///$work/mlflow.db" --serve-artifacts --artifacts-destination "$work/artifacts" --port 18171 >log 2>&1 &
for _ in $(seq 300); do
  if curl --silent --fail --output /dev/null http://127.0.0.1:18171/health; then break; fi
  sleep 1
done
found="$(venv/bin/python ask.py)
in the log: $({ grep -o '^[A-Za-z]*Error' log || true; } | sort -u | paste -sd ' ')"
echo "$found"
[ "$found" = 'deleting what was never there: 200
listing, nothing else going on: 200
uploading and deleting: 200
listing meanwhile: 200 500
in the log: FileNotFoundError' ] || { echo 'This has changed.'; exit 1; }
