#!/usr/bin/env bash
# Runs Molecule scenarios on several distributions at once, and tells at the end how each went.
#
#   tests/molecule.sh                             every platform of the default list that can be had here
#   tests/molecule.sh PLATFORM...                 exactly these: one that cannot be had is a failure
#   SCENARIOS='default tls' tests/molecule.sh     these scenarios, whole, on every platform; otherwise tls on Debian 13 and each other one
#                                                 on the first platform, without the drills: scenarios (see below) and tests (drill)
#                                                 that take long
#   ALL=1 tests/molecule.sh                       with the drills, default and tls on every platform, security on those of Debian
#   JOBS=1 tests/molecule.sh                      one at a time, not two
#   TIMEOUT=50m tests/molecule.sh                 how long one scenario may take on one platform
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export PATH=$PWD/.venv/bin:$PATH ANSIBLE_HOME=$PWD/.cache/ansible
# Plain logs, and no advice to move the scenarios elsewhere.
export NO_COLOR=1 ANSIBLE_NOCOLOR=1 MOLECULE_COMMAND_BORDERS=0 MOLECULE_GLOB='molecule/*/molecule.yml'
export MLFLOW_TEST_PREFIX=${MLFLOW_TEST_PREFIX:-mlflow}

say() { printf '\033[1m%s\033[0m\n' "molecule: $*"; }

missing=()
platforms=("$@")
if [ $# = 0 ]; then
  for platform in ubuntu2204 debian12 debian13; do
    if molecule/shared/image.sh check "$platform"; then platforms+=("$platform"); else missing+=("$platform"); fi
  done
  for platform in "${missing[@]}"; do
    say "NOTICE: no image of $platform can be had here (no registry, no archive): NOT tested on it"
  done
  [ ${#platforms[@]} -gt 0 ] || { say 'no platform can be had here'; exit 1; }
fi

# Prints "SCENARIO PLATFORM" for each job; with an argument, for those of ALL=1.
jobs_of() {
  local all=${1:-} drills=' backup existing import neighbours remove restart repair rotate security storage upgrade ' scenario on platform
  # The long ones first.
  for scenario in adversity security tls default $(ls molecule); do
    [ -e "molecule/$scenario/molecule.yml" ] || continue
    if [ -z "$all" ] && [[ $drills == *" $scenario "* ]]; then continue; fi
    case $scenario in
      # A server is deployed to Debian 13 by tls.
      default)
        on=("${platforms[@]}")
        if [ -z "$all$named" ]; then on=("${platforms[0]}"); fi
        ;;
      security | tls) mapfile -t on < <(printf '%s\n' "${platforms[@]}" | grep -xE "debian${all:+12|debian}13" || echo "${platforms[0]}") ;;
      *) on=("${platforms[0]}") ;;
    esac
    for platform in "${on[@]}"; do echo "$scenario $platform"; done
  done | awk '!seen[$0]++'
}

named=$*
jobs=() left=()
if [ -z "${ALL:-}${SCENARIOS:-}" ]; then export PYTEST_ADDOPTS="${PYTEST_ADDOPTS:-} -m 'not drill'"; fi
if [ -n "${SCENARIOS:-}" ]; then
  for platform in "${platforms[@]}"; do for scenario in $SCENARIOS; do jobs+=("$scenario $platform"); done; done
else
  mapfile -t jobs < <(jobs_of "${ALL:-}")
  mapfile -t left < <(jobs_of 1 | grep -vxFf <(printf '%s\n' "${jobs[@]}"))
fi

# One image after the other: building them is bound to the processor.
for platform in $(printf '%s\n' "${jobs[@]#* }" | sort -u); do molecule/shared/image.sh "$platform" >/dev/null; done

# Ubuntu 22.04 brings Python 3.10. Where default does not run on it, Debian 12 lends itself, with a Python 3.10 of this machine.
python_mount=
python_notice=
if [[ " ${jobs[*]/%/,}" == *' default debian12,'* && " ${jobs[*]/%/,}" != *' default ubuntu2204,'* ]]; then
  if python=$(tests/setup.sh python 3.10 2>/dev/null) && prefix=$("$python" -c 'import sys; print(sys.base_prefix)') && [ "$prefix" != /usr ]; then
    say "default on debian12 runs MLflow with $python"
    python_mount=$prefix:/opt/python3.10:ro
  else
    python_notice='NOT TESTED: no Python 3.10 can be had here (pyenv, uv)'
    say "NOTICE: Python 3.10: $python_notice"
  fi
fi

mkdir -p tests/output
results=$(mktemp -d)
children=()
trap 'rm -rf "$results"' EXIT
trap 'kill "${children[@]}" 2>/dev/null; wait; exit 130' INT TERM

run() { # SCENARIO PLATFORM
  local name=$1-$2 log=tests/output/molecule-$1-$2.log start=$SECONDS
  [ "$1-$2" != default-debian12 ] || export MLFLOW_TEST_PYTHON_MOUNT=$python_mount
  export MLFLOW_TEST_FIGURES=$PWD/tests/output/figures-$name.jsonl
  rm -f "$MLFLOW_TEST_FIGURES"
  MLFLOW_PLATFORM=$2 timeout --kill-after=60 "${TIMEOUT:-50m}" molecule test --scenario-name "$1" >"$log" 2>&1 </dev/null &
  # timeout passes it on to molecule and all that molecule started.
  trap 'kill '$! TERM
  if wait $! && tests/scenario_figures.py "$MLFLOW_TEST_FIGURES" "$1" >>"$log"; then
    echo passed >"$results/$name"
  else
    echo FAILED >"$results/$name"
  fi
  say "$name $(cat "$results/$name") after $((SECONDS - start)) s"
}

for job in "${jobs[@]}"; do
  read -r scenario platform <<<"$job"
  while [ "$(jobs -rp | wc -l)" -ge "${JOBS:-2}" ]; do wait -n || true; done
  say "$scenario on $platform has begun, it takes minutes; follow it in tests/output/molecule-$scenario-$platform.log"
  run "$scenario" "$platform" &
  children+=($!)
done
wait

failed=0
for job in "${jobs[@]}"; do
  name=${job/ /-}
  if [ "$(cat "$results/$name" 2>/dev/null)" = passed ]; then continue; fi
  failed=$((failed + 1))
  say "$name: the end of what failed"
  # Up to the failure: the hosts' removal after it says nothing.
  sed '/An error occurred during the test sequence/q' "tests/output/molecule-$name.log" | tail -n 60
done
say 'summary'
for job in "${jobs[@]}"; do
  name=${job/ /-}
  log=tests/output/molecule-$name.log
  printf '%-28s %s\n' "$name" "$(cat "$results/$name" 2>/dev/null || echo FAILED)"
  # What the runners themselves said last.
  grep -E '=+ .*[0-9]+ (passed|failed|error).* in [0-9.]+s' "$log" | sed 's/^ *\(msg: \)*/  /' || true
  grep -A1 '^SCENARIO RECAP' "$log" | tail -n 1 | sed 's/^/  /' || true
done
for job in "${left[@]}"; do printf '%-28s %s\n' "${job/ /-}" 'left to ALL=1 (make test-all), as the deselected tests above are'; done
for platform in "${missing[@]}"; do printf '%-28s %s\n' "$platform" 'NOT TESTED: no image can be had here'; done
[ -z "$python_notice" ] || printf '%-28s %s\n' 'Python 3.10' "$python_notice"
[ "$failed" = 0 ]
