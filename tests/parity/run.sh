#!/usr/bin/env bash
# Runs the parity suite in an environment of its own, which the first call makes (some minutes, 3 GB):
#   bash tests/parity/run.sh [PYTEST ARGUMENT ...]
# GEONOISE_PARITY_VENV says where the environment lies (otherwise .venv-parity in the repository root); PYTHON as for
# launch/local.sh. Written for bash 3.2.
set -euo pipefail

here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
root=${here%/tests/parity}
GEONOISE_VENV=${GEONOISE_PARITY_VENV:-$root/.venv-parity}
case $GEONOISE_VENV in /*) ;; *) GEONOISE_VENV=$PWD/$GEONOISE_VENV ;; esac
export GEONOISE_VENV GEONOISE_ACCELERATOR=cpu
# Under lib, which launch/local.sh removes when it makes the environment anew.
stamp=$GEONOISE_VENV/lib/.parity-stamp

launch() { bash "$root/launch/local.sh" "$@"; }

# local.sh brings pip into the environment only where uv is not installed.
install() {
  if uv --version >/dev/null 2>&1; then
    uv pip install --quiet --python "$GEONOISE_VENV/bin/python" "$@"
  else
    launch env PIP_USER=0 python -I -m pip install --quiet --disable-pip-version-check --no-input "$@"
  fi
}

launch true
wanted=$(cat "$here/requirements.txt" "$here/peers.txt")
if [[ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]]; then
  printf 'tests/parity/run.sh: installing torch and the compared packages into %s ...\n' "$GEONOISE_VENV" >&2
  install --requirement "$here/requirements.txt"
  install --no-deps --requirement "$here/peers.txt"
  # flow_matching installs its own tests as a package of that name, which would hide this folder from imports.
  rm -rf "$GEONOISE_VENV"/lib/python3.*/site-packages/tests
  printf '%s\n' "$wanted" >"$stamp"
fi
launch test -n 2 --dist load -m parity tests/parity "$@"
