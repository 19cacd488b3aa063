#!/usr/bin/env bash
# Runs the parity suite in an environment of its own, which the first call makes (some minutes, 3 GB):
#   bash tests/parity/run.sh [PYTEST ARGUMENT ...]
# GEONOISE_PARITY_VENV says where the environment lies (otherwise .venv-parity in the repository root); PYTHON as for
# launch/local.sh. Written for bash 3.2.
set -euo pipefail

here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
root=${here%/tests/parity}
# shellcheck source=tests/environment.sh
source "$root/tests/environment.sh"

install_all() {
  printf 'tests/parity/run.sh: installing torch and the compared packages into %s ...\n' "$GEONOISE_VENV" >&2
  install --requirement "$here/requirements.txt"
  install --no-deps --requirement "$here/peers.txt"
  # flow_matching installs its own tests as a package of that name, which would hide this folder from imports.
  rm -rf "$GEONOISE_VENV"/lib/python3.*/site-packages/tests
}

choose_environment GEONOISE_PARITY_VENV parity
prepare_environment "$here/requirements.txt" "$here/peers.txt"
launch test -n 2 --dist load -m parity tests/parity "$@"
