#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# pip 26.3 (PyPI): `pip --isolated` ignores the variables PIP_* and the user's configuration, but reads the global one still: /etc/pip.conf, and
# pip/pip.conf in the directories of XDG_CONFIG_DIRS. A variable beats that file, but not together with --isolated, which ignores it.
#
#   `user = true`, with which pip refuses to install in a virtual environment    plain      --isolated   PIP_USER=0   both
#   in the user's configuration                                                  refuses    installs     installs     installs
#   in the global configuration                                                  refuses    refuses      installs     refuses
#
# One would guess that an isolated pip depends on nothing of its host but the command line. Why it matters: whoever deploys to hosts of others, and
# wants to be independent of their pip.conf (user, require-virtualenv), does not get that from --isolated, and loses with it the way that works: to
# set PIP_USER=0 and PIP_REQUIRE_VIRTUALENV=0, and leave --isolated away.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pip==26.3
mkdir -p user/pip global/pip empty
printf '[global]\nuser = true\n' | tee user/pip/pip.conf >global/pip/pip.conf
# Asks for what is there already, so that nothing comes from the network.
try() { # XDG_CONFIG_HOME XDG_CONFIG_DIRS [VARIABLE=VALUE] [OPTION]
  local settings=(HOME="$work/empty" "XDG_CONFIG_HOME=$work/$1" "XDG_CONFIG_DIRS=$work/$2") options=() said argument
  for argument in "${@:3}"; do
    if [[ $argument == --* ]]; then options+=("$argument"); else settings+=("$argument"); fi
  done
  said=$(env -i "${settings[@]}" venv/bin/python -m pip ${options[@]+"${options[@]}"} install --no-index pip==26.3 2>&1) || true
  case $said in
    *"Can not perform a '--user' install."*) echo refuses ;;
    'Requirement already satisfied: pip==26.3'*) echo installs ;;
    *) echo "$said" ;;
  esac
}
row() { echo "$(try "$@"), $(try "$@" --isolated), $(try "$@" PIP_USER=0), $(try "$@" PIP_USER=0 --isolated)"; }
found="nowhere: $(row empty empty)
user's: $(row user empty)
global: $(row empty global)
PIP_USER=1: $(try empty empty PIP_USER=1), $(try empty empty PIP_USER=1 --isolated)"
echo "$found"
[ "$found" = "nowhere: installs, installs, installs, installs
user's: refuses, installs, installs, installs
global: refuses, refuses, installs, refuses
PIP_USER=1: refuses, installs" ] || { echo 'This has changed.'; exit 1; }
