# shellcheck shell=bash
# Sourced by scripts that run tests in an environment of their own, with `root` set; written for bash 3.2. It is made by
# launch/local.sh, and what it holds besides is installed again whenever its description changes.

# Names the environment: that of the variable $1, or .venv-$2 in the repository root.
choose_environment() {
  GEONOISE_VENV=${!1:-$root/.venv-$2}
  case $GEONOISE_VENV in /*) ;; *) GEONOISE_VENV=$PWD/$GEONOISE_VENV ;; esac
  export GEONOISE_VENV GEONOISE_ACCELERATOR=cpu
  # Under lib, which launch/local.sh removes when it makes the environment anew.
  stamp=$GEONOISE_VENV/lib/.$2-stamp
}

launch() { bash "$root/launch/local.sh" "$@"; }

# local.sh brings pip into the environment only where uv is not installed.
install() {
  if uv --version >/dev/null 2>&1; then
    uv pip install --quiet --python "$GEONOISE_VENV/bin/python" "$@"
  else
    launch env PIP_USER=0 python -I -m pip install --quiet --disable-pip-version-check --no-input "$@"
  fi
}

# Makes the environment, and calls install_all unless that was done for just this description: the files $@.
prepare_environment() {
  launch true
  wanted=$(cat "$@")
  if [[ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]]; then
    install_all
    printf '%s\n' "$wanted" >"$stamp"
  fi
}
