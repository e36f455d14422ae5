#!/bin/sh
# look_at_storage.sh ENVIRONMENT USER GROUP ARTIFACTS DIRECTORY...
# Tell, without a change, which units mount on demand ("automount UNIT"), where artifacts were before ("before PLACE"), whether MLflow can use
# their directory as it is ("artifacts serve"), and where root may not make that true ("closed DIRECTORY").
set -u
environment=$1 user=$2 group=$3 artifacts=$4
shift 4

systemctl list-unit-files --type=automount --no-legend --no-pager | sed 's/ .*//; s/^/automount /'
sed -n 's/^MLFLOW_ARTIFACTS_DESTINATION="\(.*\)"$/before \1/p' "$environment" 2>/dev/null

as() { # USER GROUP TEST...
  who=$1 with=$2
  shift 2
  for right; do setpriv --reuid="$who" --regid="$with" --clear-groups -- test "$right" "$artifacts" || return; done
}

nearest() { # what exists of a path
  path=$1
  until [ -e "$path" ]; do path=$(dirname "$path"); done
  echo "$path"
}

# A user who is not there yet has the rights of nobody in particular.
id "$user" >/dev/null 2>&1 || user=65533
getent group "$group" >/dev/null || group=65533
if [ -d "$artifacts" ]; then
  # nginx sends artifacts as a member of the group.
  if as "$user" "$group" -r -w -x 2>/dev/null && as 65533 "$group" -r -x 2>/dev/null; then
    echo "artifacts serve"
  else
    case $(stat --file-system --format=%T "$artifacts"):$(stat --format=%u "$artifacts") in
      *:0 | ext* | xfs:* | btrfs:* | zfs:* | tmpfs:* | overlayfs:*) [ -w "$artifacts" ] || echo "closed $artifacts" ;;
      *) echo "closed $artifacts" ;; # the owner's file server may take root for nobody
    esac
  fi
else
  set -- "$artifacts" "$@"
fi

for directory; do
  [ -w "$(nearest "$directory")" ] || echo "closed $directory"
done
