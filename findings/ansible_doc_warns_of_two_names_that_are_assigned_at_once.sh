#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# ansible-core 2.21.5 (PyPI; python3 has to be 3.12 or later): ansible-doc reads the documentation of a filter whose module has the line `ONE, TWO = "one", "two"`, prints it, ends
# with 0, and says on stderr:
#
#   [WARNING]: Building documentation, failed to assign id for <ast.Tuple object at 0x…> on …/swapped.py, skipping
#
# With the two assignments on lines of their own it says nothing. One would guess that it looks at DOCUMENTATION, EXAMPLES and RETURN alone, and that
# lint and unit tests find what is wrong with a plugin. Why it matters: `ansible-test sanity` takes any output on stderr for an error, so valid Python
# that every other tool accepts fails a collection's sanity test, with a sentence that names neither line nor variable.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check ansible-core==2.21.5
export HOME=$work ANSIBLE_COLLECTIONS_PATH=$work/collections ANSIBLE_NOCOLOR=1
plugins=collections/ansible_collections/example/names/plugins/filter
mkdir -p "$plugins"
warnings() { # LINES: how many warnings of a Tuple there are
  cat >"$plugins/swapped.py" <<PY
DOCUMENTATION = """
name: swapped
short_description: The second name, then the first
description: For this test.
author: Nobody (@nobody)
options:
  _input:
    description: Not looked at.
    type: raw
"""
$1


class FilterModule:
    def filters(self):
        return {"swapped": lambda _value: [TWO, ONE]}
PY
  venv/bin/ansible-doc -t filter example.names.swapped >said 2>warned
  grep --quiet 'The second name' said
  grep --count 'failed to assign id for <ast.Tuple' warned || true
}
found="at once: $(warnings 'ONE, TWO = "one", "two"'), on two lines: $(warnings $'ONE = "one"\nTWO = "two"')"
echo "$found"
[ "$found" = "at once: 1, on two lines: 0" ]
