#!/bin/sh
# Opens MLflow's interface through an SSH tunnel, as a browser on localhost does, and lists the experiments there.
#
#   tunnel.sh PERSON JUMP_HOST SERVER
set -eu
credentials=$1/inventory/credentials
ssh -F "$1/ssh_config" -J "ubuntu@$2" -o ExitOnForwardFailure=yes -f -L 8443:127.0.0.1:443 "ubuntu@$3" sleep 20
for path in / /ajax-api/2.0/mlflow/experiments/search?max_results=1; do
  curl --fail --silent --show-error --cacert "$credentials/mlflow.test.ca.txt" --user "mlflow:$(cat "$credentials/mlflow.test/mlflow.txt")" \
    --header 'Origin: https://localhost:8443' "https://localhost:8443$path"
done
