#!/usr/bin/env bash
# The images of the test hosts.
#
#   image.sh PLATFORM          prints the platform and its image, made first where it is missing
#   image.sh auto              the same for the first of ubuntu2204 and debian12 that can be had
#   image.sh check PLATFORM    tells (by its exit code) whether the platform can be had
#
# A base comes from the registry where that answers, else from the distribution's own archive by mmdebstrap.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
PATH=$PWD:$PATH # our podman

packages='apt systemd systemd-sysv dbus python3 python3-apt sudo openssh-server ca-certificates iproute2 procps'
bundle=/etc/ssl/certs/ca-certificates.crt
# Ubuntu's signing keys are not in Debian's archive: this package of Ubuntu's carries them, known by its hash.
keyring_deb=http://archive.ubuntu.com/ubuntu/pool/main/u/ubuntu-keyring/ubuntu-keyring_2021.03.26_all.deb
keyring_sha256=0d0e7ed6b112f5d03eabf3c7eb01ebdacf9c57714b279e90495cfc58c8c4520f

say() { printf '%s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
answers() { curl --silent --output /dev/null --connect-timeout 4 --max-time 8 "$@"; }
registry_answers() { answers https://registry-1.docker.io/v2/; }
archive_answers() {
  case $platform in
    ubuntu*) answers --fail "$archive/dists/$suite/InRelease" ;;
    *) timeout 120 mmdebstrap --quiet --simulate --variant=apt "$suite" /dev/null >/dev/null 2>&1 ;;
  esac
}

# Sets what the functions below need to know of one platform.
use() {
  platform=$1
  case $platform in
    ubuntu2204) registry_image=docker.io/library/ubuntu:22.04 suite=jammy ;;
    ubuntu2404) registry_image=docker.io/library/ubuntu:24.04 suite=noble ;;
    debian11) registry_image=docker.io/library/debian:11 suite=bullseye ;;
    debian12) registry_image=docker.io/library/debian:12 suite=bookworm ;;
    debian13) registry_image=docker.io/library/debian:13 suite=trixie ;;
    *) die "MLFLOW_PLATFORM=$platform is unknown: use ubuntu2204, ubuntu2404, debian11, debian12 or debian13." ;;
  esac
  case $platform in
    ubuntu*) archive=http://archive.ubuntu.com/ubuntu security=http://security.ubuntu.com/ubuntu
      case $(dpkg --print-architecture) in
        amd64 | i386) ;;
        *) archive=http://ports.ubuntu.com/ubuntu-ports security=$archive ;;
      esac ;;
    *) archive="Debian's archive" ;; # mmdebstrap knows where it is
  esac
  image=localhost/mlflow-test-$platform
}

# Certificates of this machine's bundle that its ca-certificates package does not bring.
local_authorities() {
  python3 - "$bundle" <<'PYTHON'
import pathlib, re, sys
certificates = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
def read(path):
    return {"".join(found.split()): found for found in certificates.findall(path.read_text(errors="replace"))}
bundle, stock = pathlib.Path(sys.argv[1]), {}
for path in pathlib.Path("/usr/share/ca-certificates").glob("**/*.crt"):
    stock |= read(path)
for found in [text for key, text in read(bundle).items() if key not in stock] if bundle.exists() and stock else []:
    print(found)
PYTHON
}

recipe() { { cat Containerfile; echo "$packages"; local_authorities; } | sha256sum | cut -c1-16; }
is_built() { [ "$(podman image inspect --format '{{ index .Labels "mlops.mlflow.recipe" }}' "$image" 2>/dev/null)" = "$(recipe)" ]; }
can_be_had() { is_built || registry_answers || archive_answers; }

bootstrap() { # TARBALL
  local sources=() options=()
  case $platform in
    ubuntu*)
      local keyring=/usr/share/keyrings/ubuntu-archive-keyring.gpg
      if [ ! -e "$keyring" ]; then
        curl --silent --show-error --fail --max-time 60 --output "$work/keyring.deb" "$keyring_deb"
        sha256sum --quiet --check <<<"$keyring_sha256  $work/keyring.deb"
        dpkg-deb --extract "$work/keyring.deb" "$work/keyring"
        keyring=$work/keyring$keyring
      fi
      options=(--keyring="$keyring")
      local pockets='main restricted universe multiverse'
      sources=("deb $archive $suite $pockets" "deb $archive $suite-updates $pockets" "deb $security $suite-security $pockets") ;;
  esac
  mmdebstrap --variant=minbase --include="${packages// /,}" "${options[@]}" "$suite" "$1" "${sources[@]}" >"$work/log" 2>&1 \
    || { tail -n 15 "$work/log" >&2; die "$platform: mmdebstrap of $suite from $archive failed."; }
}

build() {
  work=$(mktemp -d)
  chmod 755 "$work" # apt reads the keyring as a user of its own
  trap 'rm -rf "$work"' EXIT
  local base=
  if registry_answers; then
    say "$platform: pulling $registry_image ..."
    if timeout 300 podman pull --quiet "$registry_image" >/dev/null; then base=$registry_image; fi
  fi
  if [ -z "$base" ]; then
    archive_answers || die "MLFLOW_PLATFORM=$platform cannot be had here: neither $registry_image nor $archive ($suite) answers."
    say "$platform: building a base image of $suite from $archive, about a minute ..."
    bootstrap "$work/base.tar"
    base=$image:base
    podman import --quiet "$work/base.tar" "$base" >/dev/null
  fi
  mkdir "$work/authorities"
  local_authorities | (cd "$work/authorities" && csplit --quiet --elide-empty-files --prefix=machine- --suffix-format=%02d.crt - '/BEGIN CERTIFICATE/' '{*}')
  podman build --quiet --isolation=chroot --pull=never --file Containerfile --tag "$image" \
    --build-arg BASE="$base" --build-arg PACKAGES="$packages" --label "mlops.mlflow.recipe=$(recipe)" "$work" >"$work/log" 2>&1 \
    || { tail -n 15 "$work/log" >&2; die "$platform: building the image of the test hosts failed."; }
  rm -rf "$work"
}

case ${1:-} in
  check) use "${2:?which platform?}"; can_be_had; exit ;;
  auto)
    for candidate in ubuntu2204 debian12; do
      use "$candidate"
      ! can_be_had || break
      platform=
    done
    [ -n "$platform" ] || die 'No test host can be made: neither a container registry nor a distribution archive answers.' ;;
  *) use "${1:?which platform?}" ;;
esac
# Runs that start side by side make an image once.
exec 8>"${TMPDIR:-/tmp}/mlflow-test-$platform-$(id -u).lock"
flock 8
is_built || build 8>&-
echo "$platform $image"
