#!/usr/bin/env bash
# Runs the tests of workdirs in a bucket, against an emulator on this machine, in an environment of its own, which the first
# call makes (some minutes, 1 GB):
#   bash tests/remote/run.sh [PYTEST ARGUMENT ...]
# GEONOISE_REMOTE_VENV says where the environment lies (otherwise .venv-remote in the repository root); PYTHON as for
# launch/local.sh. Written for bash 3.2.
set -euo pipefail

here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
root=${here%/tests/remote}
GEONOISE_VENV=${GEONOISE_REMOTE_VENV:-$root/.venv-remote}
case $GEONOISE_VENV in /*) ;; *) GEONOISE_VENV=$PWD/$GEONOISE_VENV ;; esac
export GEONOISE_VENV GEONOISE_ACCELERATOR=cpu
# Under lib, which launch/local.sh removes when it makes the environment anew.
stamp=$GEONOISE_VENV/lib/.remote-stamp

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
wanted=$(cat "$here/requirements.txt" "$root/pyproject.toml")
if [[ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]]; then
  printf 'tests/remote/run.sh: installing the extra gcs and the emulator into %s ...\n' "$GEONOISE_VENV" >&2
  install --requirement "$here/requirements.txt" --editable "${root}[gcs]"
  printf '%s\n' "$wanted" >"$stamp"
fi
launch test -n 0 -m slow tests/remote "$@"
