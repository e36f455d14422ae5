#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# MLflow 3.17.2 (PyPI), `mlflow server` without MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY, as it is by default; a webhook with a secret is made, and the
# server restarted:
#
#              before    after the restart
#   list       200       500
#   get        200       500
#   update     200       500
#   delete     200       500
#
# (Asked of one webhook before, and of another one after.) The key is another one at each start, and every call decrypts the secret first, those that
# delete it or give a new one too. One would guess that a webhook whose secret is lost can be deleted. Why it matters: one such row makes the list of
# all webhooks fail for everybody, with an empty message, and only SQL removes it.
set -euo pipefail
work=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check mlflow==3.17.2
export HOME=$work MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS=true
url=http://127.0.0.1:5092
start() {
  venv/bin/mlflow server --backend-store-uri "sqlite:///$work/mlflow.db" --workers 1 --port 5092 >>server.log 2>&1 &
  server=$!
  for _try in {1..120}; do
    curl --silent --fail --output health "$url/health" && return
    sleep 1
  done
  return 1
}
stop() {
  kill "$server"
  wait "$server" || true
}
ask() { # METHOD PATH BODY
  curl --silent --output answer --write-out '%{http_code}' --request "$1" --header 'Content-Type: application/json' "$url/api/2.0/mlflow/webhooks$2" ${3:+--data "$3"}
}
make() {
  ask POST '' '{"name": "'"$1"'", "url": "https://127.0.0.1/", "events": [{"entity": "REGISTERED_MODEL", "action": "CREATED"}], "secret": "a secret"}' >code
  [ "$(cat code)" = 200 ] || { cat answer >&2; return 1; }
  python3 -c 'import json; print(json.load(open("answer"))["webhook"]["webhook_id"])'
}
row() { echo "$(ask GET '') $(ask GET "/$1") $(ask PATCH "/$1" '{"secret": "another"}') $(ask DELETE "/$1")"; }
start
one=$(make one) two=$(make two)
before=$(row "$one")
stop
start
after=$(row "$two")
echo "list, get, update, delete: $before before, $after after the restart; the last answer was: $(cat answer)"
[ "$before: $after" = "200 200 200 200: 500 500 500 500" ]
