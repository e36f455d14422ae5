#!/bin/sh
# wait_for_mounts.sh SECONDS PATH...
# Wait until every file system that systemd or fstab has for these paths is mounted, and name those that are missing.
set -u
seconds=$1
shift

# Each path, and each directory above it.
directories=$(
  for path; do
    while [ "$path" != / ] && [ -n "$path" ]; do
      echo "$path"
      path=${path%/*}
    done
  done | sort -u
)
# shellcheck disable=SC2046,SC2086 # a unit that holds these paths could not quote spaces either
mounts() {
  {
    findmnt --fstab --noheadings --raw --output TARGET 2>/dev/null # where there is one
    systemctl show --property=Where --value -- $(systemd-escape --path --suffix=mount $directories)
  } | grep --line-regexp --fixed-strings "$directories" | sort -u
}

missing() {
  for mount in $(mounts); do
    ls -d "$mount/." >/dev/null 2>&1 # what an automount waits for
    # The unit's own view has a mount at each of its ReadWritePaths=, also in commands with full privileges.
    findmnt --task 1 --noheadings --output FSTYPE --mountpoint "$mount" | grep --quiet --invert-match autofs || echo "$mount"
  done
}

end=$(($(date +%s) + seconds))
said=
while missing=$(missing) && [ -n "$missing" ]; do
  # shellcheck disable=SC2086 # in one line
  set -- $missing
  if [ "$(date +%s)" -ge "$end" ]; then
    echo "not mounted: $*"
    exit 1
  fi
  [ -n "$said" ] || echo "MLflow waits until they are mounted: $*"
  said=true
  sleep 1
done
