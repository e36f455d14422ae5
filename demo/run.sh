#!/usr/bin/env bash
# A server to look at, on this machine: `make demo` makes it or brings it up to date, `make demo-clean` removes it.
# The host is a container that boots systemd; the deployment is what users run: ansible-playbook site.yml -i INVENTORY.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH=$PWD/.venv/bin:$PATH ANSIBLE_HOME=$PWD/.cache/ansible MOLECULE_PROJECT_DIRECTORY=$PWD
# Its own name beside the test hosts', whatever they are called.
unset MLFLOW_TEST_PREFIX

# Another checkout has another demo.
checkout=$(printf %s "$PWD" | sha256sum | cut -c1-8)
host=mlflow-demo-$checkout
user=mlflow
inventory=.cache/demo/inventory
password_file=$inventory/credentials/localhost/$user.txt
ca_file=$PWD/$inventory/credentials/localhost.ca.txt

say() { printf '\033[1m%s\033[0m\n' "demo: $*"; }

playbook() { # PLAYBOOK PORT
  ansible-playbook --inventory localhost, "molecule/shared/$1.yml" --extra-vars "$(printf \
    '{"molecule_yml": {"scenario": {"name": "demo-%s"}, "platforms": [{"name": "%s", "published_ports": ["127.0.0.1:%s:%s"]}]}}' "$checkout" "$host" "$2" "$2")"
}

if [ "${1:-}" = clean ]; then
  if [ -x .venv/bin/podman ] && podman container exists "$host"; then
    say "removing the host $host"
    playbook destroy 0 >/dev/null
  fi
  rm -rf .cache/demo
  exit
fi

port=$(sed -n 's/^ *mlflow_port: //p' "$inventory/hosts.yml" 2>/dev/null || true)
if ! podman container exists "$host" || [ -z "$port" ]; then
  [ ! -e .cache/demo ] || "$0" clean
  port=$(python demo/free_port.py)
  say "making the host $host (the first time its image is built, about a minute)"
  playbook create "$port"
  ansible --inventory "$host," --connection containers.podman.podman --user root --module-name ansible.builtin.apt \
    --args update_cache=true "$host" >/dev/null
  mkdir -p "$inventory"
  cat >"$inventory/hosts.yml" <<YAML
---
all:
  vars:
    ansible_connection: containers.podman.podman
    ansible_user: root
    mlflow_domain: localhost
    mlflow_domain_aliases: [127.0.0.1]
    mlflow_port: $port
  children:
    mlflow_database:
      hosts:
        $host:
    mlflow_tracking:
      hosts:
        $host:
    mlflow_proxy:
      hosts:
        $host:
YAML
else
  podman start "$host" >/dev/null
fi

say "deploying: ansible-playbook site.yml --inventory $inventory"
ansible-playbook site.yml --inventory "$inventory"

url=https://localhost:$port
call=(curl --silent --cacert "$ca_file" --user "$user:$(cat "$password_file")" "$url/api/2.0/mlflow/experiments/search?max_results=5")
status=$("${call[@]}" --output /dev/null --write-out '%{http_code}')
[ "$status" = 200 ] || { say "the server answers $status, not 200, to its user at $url"; exit 1; }
cat <<TEXT

MLflow is running on a throwaway host of this machine. Its interface, in a browser here (which doesn't know the host's own certificate
authority: accept the warning, or import $ca_file):

  $url        user: $user        password: $(cat "$password_file")

From a shell (answers 200):

  curl --cacert $ca_file -u $user:$(cat "$password_file") '$url/api/2.0/mlflow/experiments/search?max_results=5'

From Python:

  export MLFLOW_TRACKING_URI=$url MLFLOW_TRACKING_SERVER_CERT_PATH=$ca_file
  export MLFLOW_TRACKING_USERNAME=$user MLFLOW_TRACKING_PASSWORD=$(cat "$password_file")

On another machine, open a tunnel first: ssh -L $port:localhost:$port THIS-MACHINE
Look inside with: .venv/bin/podman exec -it $host bash        Remove it with: make demo-clean
TEXT
