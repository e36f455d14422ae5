#!/usr/bin/env bash
# The unit tests twice, side by side: with the newest Python and ansible-core (those of .venv), and with the oldest that the collection
# supports (.cache/oldest). Both send the modules to every Python that a target may have (.cache/targets).
# Arguments go to pytest, for instance: tests/unit.sh -k htpasswd
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
for part in mlflow oldest targets; do tests/setup.sh "$part"; done
mkdir -p tests/output
export MLFLOW_TEST_PYTHON=$PWD/.cache/mlflow/bin/python

tell() { "$1/bin/python" -c 'import ansible.release as core, sys; print("Python %d.%d, ansible-core" % sys.version_info[:2], core.__version__)'; }

echo "unit: pytest tests/unit with $(tell .venv), and tests/unit/plugins with $(tell .cache/oldest), on targets with Python $(basename --multiple .cache/targets/3.* | sort --version-sort | paste -sd ' ')"
# Each by its own name in the output, as they run at once.
.cache/oldest/bin/python -m pytest tests/unit/plugins -p no:cacheprovider "$@" >tests/output/unit-oldest.log 2>&1 </dev/null &
oldest=$!
trap 'kill $oldest 2>/dev/null || true' EXIT
status=0
.venv/bin/python -m pytest tests/unit --ignore=tests/unit/plugins/filter "$@" 2>&1 </dev/null | tee tests/output/unit.log || status=$?
# In a process of their own: filters import Ansible's controller, beside which its modules answer differently.
.venv/bin/python -m pytest tests/unit/plugins/filter "$@" 2>&1 </dev/null | tee tests/output/unit-filter.log || [ $? = 5 ] || status=1 # 5: none of that name
wait $oldest || status=$?
trap - EXIT
echo "unit: $(tell .cache/oldest)"
cat tests/output/unit-oldest.log
exit $status
