#!/usr/bin/env bash
# Prepares this machine and this checkout. Quick when nothing is missing.
#
#   tests/setup.sh          apt packages, and the locked tools in .venv
#   tests/setup.sh mlflow   a real MLflow in .cache/mlflow, for the tests that talk to one
#   tests/setup.sh mlflow 3.16.1   that release, as mlflow_venv locks it, in .cache/mlflow-3.16.1
#   tests/setup.sh oldest   the oldest Python and ansible-core that the collection supports, in .cache/oldest
#   tests/setup.sh controller  what requirements.txt gives to people with that Python, in .cache/controller
#   tests/setup.sh targets  each Python that a target may have, in .cache/targets, with what the modules need there
#   tests/setup.sh python 3.10   prints a Python of that version, downloaded where this machine has none
#
# Needs root or sudo, an apt that works and any python3; installs nothing outside apt and this checkout.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

packages=(
  # test hosts
  podman crun iptables uidmap slirp4netns iproute2 procps openssh-client mmdebstrap debian-archive-keyring
  # unit tests and tools
  nginx-light libnginx-mod-http-perl postgresql apache2-utils openssl curl ca-certificates python3-venv shellcheck patchelf
)
# Behind a company's own certificate authority the machine's certificates are the right ones.
export UV_SYSTEM_CERTS=1 UV_NATIVE_TLS=1 UV_NO_CONFIG=1 UV_LINK_MODE=copy

say() { printf '\033[1m%s\033[0m\n' "setup: $*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; return; fi
  command -v sudo >/dev/null || die "root is needed to run: $*"
  sudo "$@"
}

is_installed() { [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

install_packages() {
  local log=.cache/apt.log missing=() package
  for package in "${packages[@]}"; do is_installed "$package" || missing+=("$package"); done
  # No cluster is made and started for the tests: they run PostgreSQL by themselves.
  local no_cluster=/etc/postgresql-common/createcluster.d/mlflow-tests.conf
  # podman's networks: netavark, or the plugins from before it (Ubuntu 22.04).
  is_installed netavark || is_installed containernetworking-plugins || missing+=(netavark)
  [ ${#missing[@]} -gt 0 ] || return 0
  say "installing from apt: ${missing[*]}"
  as_root apt-get update >"$log" 2>&1 </dev/null || say "apt-get update failed, going on with the package lists that are here"
  apt-cache show netavark >/dev/null 2>&1 || missing=("${missing[@]/#netavark/containernetworking-plugins}")
  is_installed postgresql || echo 'create_main_cluster = false' | as_root install -D -m 644 /dev/stdin "$no_cluster"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "${missing[@]}" >>"$log" 2>&1 </dev/null \
    || { tail -n 20 "$log" >&2; die "apt-get install failed, see $log"; }
  as_root rm -f "$no_cluster"
  # Tests start an nginx of their own: the packaged service is not to take port 80 of this machine.
  if [[ " ${missing[*]} " == *" nginx-light "* ]] && [ -d /run/systemd/system ]; then
    as_root systemctl --quiet disable --now nginx || true
  fi
}

# A fixed uv, from the lock file that every other tool comes from.
provide_uv() {
  uv=$PWD/.cache/uv/bin/uv
  local wanted
  wanted=$(sed -n 's/^\(uv==[^ ]*\).*/\1/p' requirements/dev.txt)
  [ "$("$uv" --version 2>/dev/null | cut -d' ' -f1-2)" != "${wanted/==/ }" ] || return 0
  say "installing $wanted"
  rm -rf .cache/uv
  { python3 -m venv .cache/uv || /usr/bin/python3 -m venv --clear .cache/uv; } >/dev/null 2>&1 || die 'python3 cannot make a virtual environment'
  awk '/^[^ ]/ { ours = /^uv==/ } ours' requirements/dev.txt >.cache/uv.txt # with its hashes
  .cache/uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement .cache/uv.txt
}

# Prints a Python that runs: the newest on PATH, else one of pyenv's (also behind shims whose HOME is another), else uv's choice.
find_python() {
  local version candidate dir home
  home=$(getent passwd "$(id -u)" | cut -d: -f6)
  for version in "$@"; do
    for candidate in $(type -ap "python$version" || true) \
      $(for dir in ${PATH//:/ } "${PYENV_ROOT:-$HOME/.pyenv}/shims" "$home/.pyenv/shims"; do [ "${dir##*/}" != shims ] || ls -d "${dir%/shims}/versions/$version".*/bin/"python$version" 2>/dev/null || true; done); do
      # Behind a shim or a virtual environment stands another path: print that one.
      if "$candidate" -c 'import ssl, venv, sys; print(sys._base_executable)' 2>/dev/null </dev/null; then return; fi
    done
  done
  for version in "$@"; do
    if "$uv" python find "$version" 2>/dev/null; then return; fi
  done
  say "no Python $* here: letting uv download $1" >&2
  { "$uv" python install --quiet "$1" && "$uv" python find "$1"; } \
    || unpack_python "$1" \
    || die "Python ${*: -1} or later is needed to run Ansible here: install one (apt, pyenv), or let uv reach its downloads."
}

# Prints the Python of this version that Debian has: unpacked, not installed, and with libraries of its own.
unpack_python() { # VERSION
  local root=$PWD/.cache/python$1 suite libraries
  case $1 in 3.13) suite=trixie ;; 3.14) suite=forky ;; *) return 1 ;; esac
  if [ ! -e "$root/.complete" ]; then
    say "taking Python $1 from Debian's $suite" >&2
    rm -rf "$root" && mkdir "$root"
    # A release that is not yet stable changes daily, and mirrors may lag behind.
    mmdebstrap --quiet --variant=extract --aptopt='Acquire::Check-Valid-Until "false"' --include="python$1" "$suite" - \
      2>"$root.log" | tar --extract --directory="$root" --exclude='./dev/*' || return
    libraries=$(echo "$root"/usr/lib/*-linux-gnu*)
    patchelf --set-interpreter "$(echo "$libraries"/ld-linux*.so.*)" --force-rpath --set-rpath "$libraries" "$root/usr/bin/python$1" || return
    touch "$root/.complete"
  fi
  "$root/usr/bin/python$1" -c 'import ssl, venv, sys; print(sys.executable)'
}

# environment DIRECTORY LOCKFILE PYTHON-VERSION...
environment() {
  local directory=$1 lock=$2 stamp compile=()
  shift 2
  stamp=$(sha256sum "$lock")
  if [ "$(cat "$directory/.stamp" 2>/dev/null)" = "$stamp" ] && "$directory/bin/python" -c '' 2>/dev/null; then return; fi
  local python
  python=$(find_python "$@")
  say "installing $lock into $directory with $python"
  "$uv" venv --quiet --clear --python "$python" "$directory"
  # Tests start MLflow as users who may not write there.
  [ "$directory" = .venv ] || compile=(--compile-bytecode)
  "$uv" pip sync --quiet --require-hashes "${compile[@]}" --python "$directory/bin/python" "$lock"
  echo "$stamp" >"$directory/.stamp"
}

mkdir -p .cache
install_packages
provide_uv
case ${1:-dev} in
  dev)
    environment .venv requirements/dev.txt 3.13 3.12
    # The venv's podman is the one that can boot systemd on this machine.
    ln -sf ../../molecule/shared/podman .venv/bin/podman ;;
  mlflow)
    if [ $# = 1 ]; then
      environment .cache/mlflow requirements/mlflow.txt 3.13 3.12 3.11 3.10
    else
      environment ".cache/mlflow-$2" "roles/mlflow_venv/files/requirements-$2.txt" 3.13 3.12 3.11 3.10
    fi ;;
  oldest)
    environment .cache/oldest requirements/oldest.txt 3.10 ;;
  controller)
    environment .cache/controller requirements/controller.txt 3.10 ;;
  targets)
    # The two packages that provide the library passlib, by turns.
    for target in 3.9:passlib 3.10:libpass 3.11:passlib 3.12:libpass 3.13:passlib 3.14:libpass; do
      tests/setup.sh target "${target#*:}" "${target%:*}" \
        || say "NOTICE: the modules are NOT TESTED on targets with Python ${target%:*}: there is none here, and none can be had"
    done ;;
  target)
    environment ".cache/targets/$3" "requirements/$2.txt" "$3" ;;
  python) find_python "${2:?which version?}" ;;
  *) die "unknown part: $1" ;;
esac
