#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# MLflow 3.17.2 (PyPI), `mlflow server` with --allowed-hosts mlflow.test,mlflow.test:* and --cors-allowed-origins https://mlflow.test:
#
#   Host                Origin                        GET    POST
#   mlflow.test         https://mlflow.test           200    200
#   mlflow.test:8443    none                          200    200
#   mlflow.test:8443    https://mlflow.test:8443      200    403 Cross-origin request blocked
#
# The last line is what a browser sends to the page that it has from https://mlflow.test:8443, so nothing crosses origins. One would guess that
# a request whose Origin is its own Host is always let through, and that a host which is allowed with any port is one with its interface, too. Why
# it matters: through an SSH tunnel or a forwarded port clients work and the interface opens, but every list in it stays empty, until the origin
# with that port is in the list as well; `:*` works for hosts alone.
set -euo pipefail
work=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check mlflow==3.17.2
export HOME=$work MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
venv/bin/mlflow server --backend-store-uri "sqlite:///$work/mlflow.db" --workers 1 --port 5091 \
  --allowed-hosts 'mlflow.test,mlflow.test:*' --cors-allowed-origins https://mlflow.test >server.log 2>&1 &
server=$!
for _try in {1..120}; do
  curl --silent --fail --output health http://127.0.0.1:5091/health --header 'Host: mlflow.test' && break
  sleep 1
done
url=http://127.0.0.1:5091/api/2.0/mlflow/experiments/search
ask() { # HOST ORIGIN OPTION...
  local headers=(--header "Host: $1" --header 'Content-Type: application/json')
  [ "$2" = none ] || headers+=(--header "Origin: $2")
  curl --silent --output answer --write-out '%{http_code}' "${headers[@]}" "${@:3}"
}
row() { echo "$1 $2 $(ask "$1" "$2" "$url?max_results=1") $(ask "$1" "$2" "$url" --data '{"max_results": 1}')"; }
found="$(row mlflow.test https://mlflow.test)
$(row mlflow.test:8443 none)
$(row mlflow.test:8443 https://mlflow.test:8443): $(cat answer)"
echo "$found"
[ "$found" = "mlflow.test https://mlflow.test 200 200
mlflow.test:8443 none 200 200
mlflow.test:8443 https://mlflow.test:8443 200 403: Cross-origin request blocked" ] || { echo 'This has changed.'; exit 1; }
