#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# ansible-core 2.17.14 and 2.21.5 (PyPI, with Python 3.12): collections in collections/ beside a playbook are found, but beside a playbook that is imported they are
# not, although its tasks and roles are in that directory. What counts is the directory of the playbook on the command line.
#
#   top.yml holds `import_playbook: playbooks/site.yml`, which uses a role of a collection    ansible-playbook playbooks/site.yml   … top.yml
#   playbooks/collections/                                                                    found                                 not found
#   playbooks/collections/ and collections/                                                                                         found
#
# The directory in which Ansible is called makes no difference. One would guess that a playbook that runs by itself also runs where it is imported.
# Why it matters: a repository that carries its collections beside its playbooks needs them, or a link to them, beside each playbook that somebody may
# call.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
role=collections/ansible_collections/example/demo/roles/hello/tasks
mkdir -p repository/playbooks/$role both/playbooks/$role both/$role elsewhere
for top in repository both; do
  printf -- '- import_playbook: playbooks/site.yml\n' >$top/top.yml
  printf -- '- hosts: localhost\n  gather_facts: false\n  tasks:\n    - import_role:\n        name: example.demo.hello\n' >$top/playbooks/site.yml
  printf -- '- debug:\n    msg: hello\n' | tee $top/playbooks/$role/main.yml >/dev/null
done
cp both/playbooks/$role/main.yml both/$role/main.yml
try() { # RELEASE DIRECTORY PLAYBOOK
  local said
  said=$(cd "$2" && env -i PATH="$PATH" HOME="$work" ANSIBLE_COLLECTIONS_PATH="$work/none" "$work/$1/bin/ansible-playbook" -i localhost, -c local "$3" 2>&1) || true
  case $said in
    *'"msg": "hello"'*) echo found ;;
    *"was not found"*) echo "not found" ;;
    *) echo "$said" ;;
  esac
}
found=
for release in 2.17.14 2.21.5; do
  python3 -m venv "$release"
  "$release/bin/pip" install --quiet --disable-pip-version-check "ansible-core==$release"
  found+="$release: $(try "$release" repository playbooks/site.yml), $(try "$release" elsewhere "$work/repository/playbooks/site.yml"),"
  found+=" $(try "$release" repository top.yml), $(try "$release" elsewhere "$work/repository/top.yml"),"
  found+=" $(try "$release" both top.yml), $(try "$release" elsewhere "$work/both/top.yml")
"
done
echo "$found"
same='found, found, not found, not found, found, found'
[ "$found" = "2.17.14: $same
2.21.5: $same
" ] || { echo 'This has changed.'; exit 1; }
