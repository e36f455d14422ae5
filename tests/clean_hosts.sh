#!/usr/bin/env bash
# Removes what runs of this checkout left behind that were cut off: their hosts and networks, not the images and the cache.
# The demo stays; so do runs under another MLFLOW_TEST_PREFIX.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
podman=molecule/shared/podman
command -v podman >/dev/null || exit 0

prefix=${MLFLOW_TEST_PREFIX:-mlflow}
ours() { { grep "^$prefix-" || true; } | { grep -vE '^mlflow-demo(-|$)' || true; }; }
mapfile -t hosts < <("$podman" ps --all --filter "label=mlops.mlflow.checkout=$PWD" --format '{{.Names}}' | ours)
mapfile -t networks < <("$podman" network ls --filter "label=mlops.mlflow.checkout=$PWD" --format '{{.Name}}' | ours)
for host in "${hosts[@]}"; do
  echo "removing the host $host"
  # podman now and then calls a host busy that is already gone.
  for _ in 1 2 3 4 5; do "$podman" rm --force --time 1 "$host" >/dev/null 2>&1 && break; sleep 1; done
done
for network in "${networks[@]}"; do "$podman" network rm --force "$network" >/dev/null; done
