#!/bin/sh
# mlflow_postgres_mounts.sh VERSION
# Names the volumes of the cluster VERSION/main that fstab has and that are not mounted, and fails where there are any.
set -u
data=$(pg_conftool --short "$1" main show data_directory 2>/dev/null) || data=/var/lib/postgresql/$1/main
missing=$(
  findmnt --fstab --noheadings --raw --output TARGET 2>/dev/null | while read -r mount; do
    readlink --canonicalize-missing -- "$data" "$data/pg_wal" "$data"/pg_tblspc/* | while read -r path; do
      case $path/ in
        "${mount%/}"/*) mountpoint --quiet "$mount" || echo "$mount" ;;
      esac
    done
  done | sort -u
)
# shellcheck disable=SC2086 # one line
[ -z "$missing" ] || { echo "not mounted:" $missing; exit 1; }
