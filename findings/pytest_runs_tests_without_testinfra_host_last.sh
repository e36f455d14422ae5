#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# pytest 9.2.0 with pytest-testinfra 10.2.2 (PyPI): in a file whose other tests use testinfra's fixture `host`, a test without it runs last, wherever it
# stands. With one host, too; without --hosts as well.
#
#   in the file: first(host), second(), third(host)      run: first, third, second
#
# One would guess the order of the file, which pytest keeps otherwise: `host` is a parameter of the module, and pytest puts tests with the same one
# together. Why it matters: tests of one server in steps find it in another state than they expect. A hook that runs last sorts them back:
# pytest_collection_modifyitems(trylast=True), by item.path and item.reportinfo()[1].
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pytest==9.2.0 pytest-testinfra==10.2.2
cat >test_steps.py <<'PYTHON'
def test_first(host): pass
def test_second(): pass
def test_third(host): pass
PYTHON
order() { venv/bin/pytest --collect-only --quiet -p no:cacheprovider "$@" test_steps.py | sed -n 's/.*::test_\([a-z]*\).*/\1/p' | paste -sd ' '; }
found="without --hosts: $(order)
with --hosts=local://: $(order --hosts=local://)"
echo "$found"
[ "$found" = 'without --hosts: first third second
with --hosts=local://: first third second' ] || { echo 'This has changed.'; exit 1; }
