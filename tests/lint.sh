#!/usr/bin/env bash
# Style, syntax and documentation. Every check runs; the script fails at the end if one did.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
export PATH=$PWD/.venv/bin:$PATH
# Collections that the person has installed elsewhere must not stand in for this checkout.
export ANSIBLE_HOME=$PWD/.cache/ansible NO_COLOR=1

failed=()
check() { # NAME COMMAND...
  local name=$1 output
  shift
  if output=$("$@" 2>&1 </dev/null); then
    echo "lint: $name: ok"
  else
    printf '%s\n' "$output"
    echo "lint: $name: FAILED"
    failed+=("$name")
  fi
}

check yamllint yamllint --strict .
check ruff ruff check --quiet .
check "ruff's format" ruff format --check --quiet --diff .
check mypy mypy
check ansible-lint ansible-lint --offline --profile production
for playbook in site.yml playbooks/*.yml; do
  check "syntax of $playbook" ansible-playbook --syntax-check --inventory inventory.example "$playbook"
done
for module in plugins/modules/*.py; do
  check "documentation of $(basename "$module" .py)" ansible-doc --type module "mlops.mlflow.$(basename "$module" .py)"
done
for filter in plugins/filter/*.py; do
  check "documentation of $(basename "$filter" .py)" ansible-doc --type filter "mlops.mlflow.$(basename "$filter" .py)"
done
check 'tables in the READMEs' tests/role_readmes.py --check
if [ -e changelogs/config.yaml ]; then check changelog antsibull-changelog lint; fi
check 'collection documentation' antsibull-docs lint-collection-docs --plugin-docs .
for script in tests/*.sh molecule/*/*.sh molecule/shared/podman demo/*.sh bench/*.sh .ci/run; do check "bash $script" bash -n "$script"; done

if [ ${#failed[@]} -gt 0 ]; then echo "lint: FAILED: ${failed[*]}"; exit 1; fi
echo 'lint: all passed'
