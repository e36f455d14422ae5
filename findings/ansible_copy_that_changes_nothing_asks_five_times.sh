#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# ansible-core 2.21.5 (PyPI, Python 3.12 or later), pipelining on: ansible.builtin.copy of a file that is there already, in content, owner and mode,
# runs five commands on the host, and ansible.builtin.template as many. ansible.builtin.stat runs one.
#
#   stat 1      copy 5: echo ~, mkdir of a temporary directory, stat, file, rm      template 5
#
# One would guess one, or two: pipelining is there to save files on the host, and nothing is to be copied. Why it matters: on connections where a
# command is dear (podman, docker, kubectl, a distant SSH), a second run that changes nothing is as long as its copies are many.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check ansible-core==2.21.5
export ANSIBLE_PIPELINING=1 ANSIBLE_NOCOLOR=1 ANSIBLE_HOME=$work/ansible ANSIBLE_PYTHON_INTERPRETER=$work/venv/bin/python
echo text | tee there template.j2 >/dev/null
chmod 600 there
run() { venv/bin/ansible localhost --inventory localhost, --connection local --module-name "ansible.builtin.$1" --args "$2" -vvv 2>/dev/null; }
count() { local out; out=$(run "$@"); grep -q '"changed": false' <<<"$out" || { echo "$1 changed something" >&2; exit 1; }; echo "$1: $(grep -c ' EXEC ' <<<"$out")"; }
found="$(count stat "path=$work/there")
$(count copy "src=$work/template.j2 dest=$work/there mode=0600")
$(count template "src=$work/template.j2 dest=$work/there mode=0600")"
echo "$found"
[ "$found" = 'stat: 1
copy: 5
template: 5' ] || { echo 'This has changed.'; exit 1; }
