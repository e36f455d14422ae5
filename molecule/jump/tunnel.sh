#!/bin/sh
# Opens MLflow's interface through an SSH tunnel, as a browser does, and lists the experiments there.
#
#   tunnel.sh PERSON JUMP_HOST SERVER
set -eu
credentials=$1/inventory/credentials
control="-F $1/ssh_config -S $1/tunnel"
# shellcheck disable=SC2086
ssh $control -M -J "ubuntu@$2" -o ExitOnForwardFailure=yes -f -N -L 8443:127.0.0.1:443 "ubuntu@$3"
# shellcheck disable=SC2086
trap 'ssh $control -O exit "ubuntu@$3"' EXIT
ask() {
  curl --fail-with-body --silent --show-error --noproxy '*' --resolve mlflow.test:8443:127.0.0.1 --cacert "$credentials/mlflow.test.ca.txt" \
    --user "mlflow:$(cat "$credentials/mlflow.test/mlflow.txt")" --header 'Origin: https://mlflow.test:8443' --header 'Content-Type: application/json' "$@"
}
ask https://mlflow.test:8443/
ask --data '{"max_results": 1}' https://mlflow.test:8443/ajax-api/2.0/mlflow/experiments/search
