#!/usr/bin/env bash
# Runs the tests of workdirs in a bucket, against an emulator on this machine, in an environment of its own, which the first
# call makes (some minutes, 1 GB):
#   bash tests/remote/run.sh [PYTEST ARGUMENT ...]
# GEONOISE_REMOTE_VENV says where the environment lies (otherwise .venv-remote in the repository root); PYTHON as for
# launch/local.sh. Written for bash 3.2.
set -euo pipefail

here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
root=${here%/tests/remote}
# shellcheck source=tests/environment.sh
source "$root/tests/environment.sh"

install_all() {
  printf 'tests/remote/run.sh: installing the extra gcs and the emulator into %s ...\n' "$GEONOISE_VENV" >&2
  install --requirement "$here/requirements.txt" --editable "${root}[gcs]"
}

choose_environment GEONOISE_REMOTE_VENV remote
prepare_environment "$here/requirements.txt" "$root/pyproject.toml"
launch test -n 0 -m slow tests/remote "$@"
