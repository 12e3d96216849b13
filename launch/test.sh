#!/usr/bin/env bash
# Runs everything a change has to pass. Needs Python 3.11 or newer:
#
#   bash launch/test.sh [--full] [arguments of pytest]
#
# Makes .venv once. By default tests marked `full` are left out; --full runs them too.
# Skipped tests are listed with their reason. All checks run even if earlier ones
# fail, that of types beside the tests; the exit status is 0 if all pass. The tests
# run in two processes, each file in one of them; TEST_PROCESSES=0 runs them in one
# process. Compiled programs are kept in ~/.cache/rest_jax/tests (or in
# JAX_COMPILATION_CACHE_DIR), so the first run on a machine takes longer. A test that
# takes more than ten minutes (an hour with --full) fails the run, and so does a
# process that dies: within a minute, without running the remaining tests.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tier=(-m 'not full')
arguments=()
for argument in "$@"; do
  if [[ "$argument" == --full ]]; then
    tier=(-o faulthandler_timeout=3600)
  else
    arguments+=("$argument")
  fi
done

source launch/environment.sh
make_environment test

failed=()
check() {
  local name="$1"
  shift
  echo "== $name"
  if ! "$@"; then
    failed+=("$name")
  fi
}

# Prints what a process in the background has written once it has ended.
finished() {
  local status=0
  wait "$1" || status=$?
  cat "$2"
  return "$status"
}

types=$(mktemp)
trap 'rm -f "$types"' EXIT
"$VENV_PYTHON" -m pyright --pythonpath "$VENV_PYTHON" >"$types" 2>&1 &
pyright=$!
check 'ruff check' "$VENV_PYTHON" -m ruff check .
check 'ruff format' "$VENV_PYTHON" -m ruff format --check .
check 'lint-imports' .venv/bin/lint-imports
check 'pytest' "$VENV_PYTHON" -m pytest -rs --durations=10 \
  -n "${TEST_PROCESSES:-2}" --dist loadfile --no-loadscope-reorder \
  --max-worker-restart=0 \
  "${tier[@]}" ${arguments[@]+"${arguments[@]}"}
check 'pyright' finished "$pyright" "$types"

if ((${#failed[@]})); then
  printf 'FAILED: %s\n' "${failed[@]}" >&2
  exit 1
fi
echo 'All checks passed.'
