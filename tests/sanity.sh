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
comm -z23 <(git ls-files -z --cached --others --exclude-standard ':!.ansible' | sort -zu) <(git ls-files -z --deleted | sort -zu) \
  | tar --create --null --files-from=- | tar --extract --directory="$copy"
git init --quiet "$copy"
git -C "$copy" add --all

# ansible-test downloads pip for each of its environments, and pip then fetches every package anew. What it takes for the cached
# download puts uv in pip's place: it needs no such download, shares one cache, and knows the authorities that this machine trusts.
python - "$cache" <<'PYTHON'
import os, pathlib, re, shutil, sys
import ansible_test
home = pathlib.Path(sys.argv[1], "home/.ansible/test/cache")
source = pathlib.Path(*ansible_test.__path__, "_internal/python_requirements.py").read_text()
version = re.search(r"\bpip='(.+)'", source)[1].replace(".", "_")
# ansible-test passes on little more than PATH and HOME: these are what uv needs to reach an index.
# Uncompiled, docutils complains when it is first loaded, and the test fails.
os.environ["UV_COMPILE_BYTECODE"] = "1"
wanted = re.compile(r"UV_\w+|SSL_CERT_\w+|\w+_proxy", re.I)
environment = {name: value for name, value in os.environ.items() if wanted.fullmatch(name)}
pip = f"""
import os, subprocess, sys
command, *words = [word for word in sys.argv[1:] if word not in ("--disable-pip-version-check", "-y")]
command = [{shutil.which("uv")!r}, "pip", command, "--quiet", "--python", sys.executable, *words]
sys.exit(subprocess.call(command, env={{**os.environ, **{environment!r}}}))
"""
home.mkdir(parents=True, exist_ok=True)
(home / f"get_pip_{version}.py").write_text(f"""
import pathlib, sysconfig
pip = pathlib.Path(sysconfig.get_path("purelib"), "pip")
pip.mkdir()
(pip / "__init__.py").touch()
(pip / "__main__.py").write_text({pip!r})
""")
PYTHON

cd "$copy"
echo 'sanity: ansible-test sanity'
python=$(python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
env -u ANSIBLE_HOME HOME="$cache/home" LC_ALL=C.UTF-8 ansible-test sanity --local --python "$python" --color no "$@" 2>&1 </dev/null | tee "$log"
# ansible-test goes on without a test whose program is missing.
if grep 'WARNING: Required program' "$log"; then echo 'sanity: FAILED: a program is missing'; exit 1; fi
echo "sanity: $(grep -o '^Running sanity test "[^"]*"' "$log" | sort -u | wc -l) passed, 0 failed"
