# Sourced by the scripts of this folder. From the root of the repository,
# `make_environment [EXTRA]` makes .venv with the package (editable) and the tested
# versions, and sets VENV_PYTHON. It does nothing if .venv is up to date. An
# unfinished .venv, or one made with another setup.py, constraints or Python, is
# made again.

# Lets glibc use huge pages for XLA's large arrays, if the kernel leaves that to
# programs. Without them a fifth of the demo's time is spent on page faults.
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"

# Prints a Python >= 3.11 that can create environments, or what is missing.
find_python() {
  local candidates=(python3.11 python3.12 python3.13 python3)
  local candidate found='' version
  if [[ -n "${PYTHON:-}" ]]; then
    candidates=("$PYTHON")
  fi
  for candidate in "${candidates[@]}"; do
    # A name on the PATH may be a shim for a version that is not installed, so each
    # is run.
    version=$("$candidate" -c \
      'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) ||
      continue
    if ! "$candidate" -c \
      'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      found+="  $candidate is Python $version, which is too old."$'\n'
    elif ! "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
      found+="  $candidate is Python $version without the venv module"
      found+=" (on Debian and Ubuntu: apt install python$version-venv)."$'\n'
    else
      printf '%s\n' "$candidate"
      return 0
    fi
  done
  {
    echo 'error: rest_jax needs Python 3.11 or newer; none was found.'
    printf '%s' "$found"
    echo "  Looked for: ${candidates[*]}."
    echo '  Install one, or name it: PYTHON=/path/to/python3.11 bash launch/…'
  } >&2
  return 1
}

# Prints a digest of everything that determines what is installed.
environment_key() {
  "$1" - <<'PY'
import hashlib, pathlib, sys
digest = hashlib.sha256(f'{sys.version} {pathlib.Path.cwd()}'.encode())
for path in ('setup.py', 'launch/constraints.txt'):
  digest.update(pathlib.Path(path).read_bytes())
print(digest.hexdigest())
PY
}

# Succeeds if .venv is complete for that extra and nothing has changed since. The key
# is computed by the environment's own Python, so a .venv that was moved, or whose
# Python is gone, fails.
environment_is_ready() {
  local stamp=".venv/installed-${1:-base}" key
  [[ -f "$stamp" ]] &&
    key=$(environment_key "$VENV_PYTHON" 2>/dev/null) &&
    [[ "$key" == "$(cat "$stamp")" ]]
}

make_environment() {
  local extra="${1:-}" python started=$SECONDS
  VENV_PYTHON="$PWD/.venv/bin/python"
  # Every extra contains the base.
  if environment_is_ready "$extra" ||
    { [[ -z "$extra" ]] && environment_is_ready test; }; then
    return 0
  fi
  if environment_is_ready ''; then
    echo "Adding [$extra] to .venv …" >&2
  else
    python=$(find_python) || return 1
    echo "Making .venv with $("$python" --version) (once; minutes) …" >&2
    rm -rf .venv
    "$python" -m venv .venv
  fi
  # Without a stamp the environment counts as unfinished.
  rm -f .venv/installed-*
  # No bytecode: compiling all of TensorFlow would take longer than downloading it.
  PIP_DISABLE_PIP_VERSION_CHECK=1 "$VENV_PYTHON" -m pip install --quiet \
    --no-compile --constraint launch/constraints.txt \
    --editable ".${extra:+[$extra]}"
  environment_key "$VENV_PYTHON" > .venv/stamp
  mv .venv/stamp ".venv/installed-${extra:-base}"
  echo "The environment took $((SECONDS - started)) s." >&2
}
