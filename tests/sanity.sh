#!/usr/bin/env bash
# Every test of `ansible-test sanity` that can run on this machine, with no ignore entries; tests/README.md tells about the others.
# Arguments go to ansible-test, for instance: tests/sanity.sh --test pep8
#
# ansible-test wants a path that ends in ansible_collections/mlops/mlflow, and a HOME for its environments. Both are below
# .cache/sanity, so that any clone will do and nothing outside it is written.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH=$PWD/.venv/bin:$PATH UV_SYSTEM_CERTS=1 UV_NATIVE_TLS=1 UV_NO_CONFIG=1 UV_LINK_MODE=copy
cache=$PWD/.cache/sanity
copy=$cache/ansible_collections/mlops/mlflow
log=$PWD/tests/output/sanity.log

# A repository of its own: ansible-test looks at the files that git knows.
rm -rf "$copy"
mkdir -p "$copy" "$(dirname "$log")"
comm -z23 <(git ls-files -z --cached --others --exclude-standard ':!.ansible' ':!collections' ':!playbooks/collections' | sort -zu) <(git ls-files -z --deleted | sort -zu) \
  | tar --create --null --files-from=- | tar --extract --directory="$copy"
git init --quiet "$copy"
git -C "$copy" add --all

python tests/sanity_pip.py "$cache/home/.ansible/test/cache"

cd "$copy"
echo 'sanity: ansible-test sanity'
python=$(python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
env -u ANSIBLE_HOME HOME="$cache/home" LC_ALL=C.UTF-8 ansible-test sanity --local --python "$python" --color no "$@" 2>&1 </dev/null | tee "$log"
# ansible-test goes on without a test whose program is missing.
if grep 'WARNING: Required program' "$log"; then echo 'sanity: FAILED: a program is missing'; exit 1; fi
echo "sanity: $(grep -o '^Running sanity test "[^"]*"' "$log" | sort -u | wc -l) passed, 0 failed"
