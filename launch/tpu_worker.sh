#!/usr/bin/env bash
# What launch/tpu_vm.sh does on each worker of a slice, in the repository there; not meant to be called by hand.
#
#   install          a Python that is recent enough, and geonoise_jax
#   start WORD ...   runs a command apart from this call, if none runs; its output goes into ~/geonoise-run/log
#   restart WORD ... the same after `stop`
#   follow LINE      prints the log from that line on, until the run has ended
#   status           prints `status=N`, `status=running`, or `status=gone` if the run went away without a status
#   stop             SIGTERM to the run, and SIGKILL a minute later
set -euo pipefail

here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
state=$HOME/geonoise-run
PATH=$PATH:$HOME/.local/bin

# Images of Cloud TPU come with Python 3.10.
install() {
  local name
  for name in python3 python3.13 python3.12 python3.11; do
    if "$name" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' 2>/dev/null; then break; fi
    name=
  done
  if [[ -z "$name" ]]; then
    python3 -m pip install --quiet --user uv
    uv python install --quiet 3.12
    PYTHON=$(uv python find 3.12)
    export PYTHON
  fi
  bash "$here/local.sh" true
}

runs() { [[ -e "$state/pid" ]] && [[ ! -e "$state/status" ]] && kill -0 "$(cat "$state/pid")" 2>/dev/null; }

start() {
  if runs; then printf 'already running\n'; return; fi
  mkdir -p "$state"
  rm -f "$state/status" "$state/pid"
  # A killed process leaves it behind, and the next one takes the chips for used.
  rm -f /tmp/libtpu_lockfile 2>/dev/null || sudo rm -f /tmp/libtpu_lockfile
  cd "$here/.."
  # The shell around the command outlives a signal to the group, and writes the status.
  # shellcheck disable=SC2016 # expanded by that shell
  setsid bash -c 'trap : TERM INT HUP; status=0; "${@:2}" || status=$?; echo "$status" >"$1.new"; mv "$1.new" "$1"' \
    run "$state/status" "$@" >"$state/log" 2>&1 </dev/null &
  echo "$!" >"$state/pid"
}

follow() {
  if [[ -e "$state/log" ]]; then tail -n "+$1" -f --pid="$(cat "$state/pid")" "$state/log"; fi
}

status() {
  if runs; then printf 'status=running\n'
  elif [[ -e "$state/status" ]]; then printf 'status=%s\n' "$(cat "$state/status")"
  else printf 'status=gone\n'; fi
}

stop() {
  local pid
  if ! runs; then return; fi
  pid=$(cat "$state/pid")
  kill -TERM -- "-$pid" 2>/dev/null || true
  for _ in {1..60}; do
    if ! runs; then return; fi
    sleep 1
  done
  kill -KILL -- "-$pid" 2>/dev/null || true
}

case ${1-} in
  install | follow | status | stop) "$@" ;;
  start) "$@" ;;
  restart) shift; stop; start "$@" ;;
  *) sed -n '2,/^set/{/^#/p;}' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
