#!/usr/bin/env bash
# Makes or repairs the virtual environment when needed, then runs a command in it: see `usage` below.
# Written for bash 3.2 (macOS): no associative arrays, and nothing beyond the POSIX tools is required.
set -euo pipefail

usage() {
  cat <<'END'
Usage: bash launch/local.sh [COMMAND [ARGUMENT ...]]

  (no argument)       the same as `geonoise demo`
  test [ARGUMENT ...] the test suite: pytest, in the repository root
  demo | train | sample | evaluate | exact | figure | data | plan [ARGUMENT ...]
                      geonoise with that subcommand, and with --version or --debug before one
  COMMAND ...         any other command; it runs in your own directory

The first call installs geonoise_jax and a jax that suits this machine (about a minute); later calls only check.
It needs Python 3.11 or newer and a package index; uv is used where it is installed, pip otherwise.

Environment variables:
  PYTHON                the interpreter to build on (otherwise the first on PATH that is recent enough)
  GEONOISE_VENV         where the environment lies (otherwise .venv in the repository root)
  GEONOISE_ACCELERATOR  cpu, cuda, cuda12 or tpu, instead of looking for one:
                          cuda    NVIDIA driver 580 or newer, GPU of compute capability 7.5 or newer
                          cuda12  NVIDIA driver 525 or newer
                          tpu     Cloud TPU VM: /dev/accelN, or /dev/vfio/N with a TPU on the PCI bus or
                                  one of TPU_NAME, TPU_WORKER_ID, TPU_ACCELERATOR_TYPE set
END
}

note() { printf 'launch/local.sh: %s\n' "$*" >&2; }
fail() { note "$@"; exit 1; }

root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=${GEONOISE_VENV:-$root/.venv}
case $venv in /*) ;; *) venv=$PWD/$venv ;; esac
# The stamp says what a finished installation holds; while it is empty, an installation is under way or was cut off.
stamp=$venv/.geonoise-stamp
lock=$venv/.geonoise-lock
log=$venv/.geonoise-install.log
python=''
devices=/dev
pci_devices=/sys/bus/pci/devices

# --- Python ---------------------------------------------------------------------------------------------------------

# Prints "3.11"; fails for what cannot run, such as a pyenv shim with no version behind it.
python_version() { "$1" -ES -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null </dev/null; }

# Sets `python` and `python_found`, or adds the candidate to `rejected`.
accept_python() {
  python_found=$(python_version "$1") || python_found='does not run'
  case $python_found in
    3.1[1-9] | 3.[2-9][0-9] | [4-9].*) python=$1 ;;
    *) rejected="$rejected${rejected:+, }$1 ($python_found)"; return 1 ;;
  esac
}

python_refused() {
  fail "geonoise_jax needs Python 3.11 or newer, but $1. Install one (Debian or Ubuntu: apt install python3" \
    "python3-venv; macOS: brew install python; anywhere: uv python install 3.12) and call again, or name one that" \
    "you have: PYTHON=/path/to/python bash launch/local.sh"
}

# Sets `python`, once.
find_python() {
  local name candidate
  rejected=''
  if [[ -n "$python" ]]; then return; fi
  if [[ -n "${PYTHON:-}" ]]; then
    accept_python "$PYTHON" || python_refused "the one that PYTHON names is $rejected"
    return
  fi
  for name in python3 python3.13 python3.12 python3.11 python; do
    while IFS= read -r candidate; do
      # Never build an environment on the interpreter inside it.
      case $candidate in "$venv"/*) continue ;; esac
      if accept_python "$candidate"; then return; fi
    done < <(type -aP "$name")
  done
  python_refused "on PATH there is ${rejected:-no Python at all}"
}

# --- Accelerator ----------------------------------------------------------------------------------------------------

# Sets `wanted`. Prefers CUDA 13, which dropped GPUs older than Turing, over CUDA 12.
detect_nvidia() {
  local gpus driver major
  case ${CUDA_VISIBLE_DEVICES-0} in '' | -1 | NoDevFiles) return 1 ;; esac
  # nvidia-smi of old drivers does not know compute_cap.
  gpus=$(nvidia-smi --query-gpu=driver_version,compute_cap --format=csv,noheader 2>/dev/null) ||
    gpus=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null) || return 1
  driver=${gpus%%[!0-9.]*}
  major=${driver%%.*}
  case $major in '') return 1 ;; esac
  if [[ "$major" -lt 525 ]]; then
    wanted=cpu
    note "the NVIDIA driver is $driver and jax needs 525 or newer: going on without the GPU. Update the driver to use" \
      "it, or set GEONOISE_ACCELERATOR=cpu to drop this message."
  elif [[ "$major" -lt 580 ]] || printf '%s\n' "$gpus" | grep -Eq ', *([0-6]\.|7\.[0-4])'; then
    wanted=cuda12
  else
    wanted=cuda
  fi
}

# True if the glob given, unquoted, matches a file.
matches() { [[ -e "$1" ]]; }

# VFIO serves any PCI pass-through, so it counts only with a TPU behind it: the ids are those that jax looks for.
detect_tpu() {
  local path vendor device
  if matches "$devices"/accel[0-9]*; then return 0; fi
  matches "$devices"/vfio/[0-9]* || return 1
  if [[ -n "${TPU_NAME:-}${TPU_WORKER_ID:-}${TPU_ACCELERATOR_TYPE:-}" ]]; then return 0; fi
  for path in "$pci_devices"/*; do
    { read -r vendor <"$path/vendor" && read -r device <"$path/device"; } 2>/dev/null || continue
    case $vendor:${device#0x00} in 0x1ae0:27 | 0x1ae0:56 | 0x1ae0:5e | 0x1ae0:6[23f] | 0x1ae0:76) return 0 ;; esac
  done
  return 1
}

choose_accelerator() {
  case ${GEONOISE_ACCELERATOR:-} in
    cpu | cuda | cuda12 | tpu) wanted=$GEONOISE_ACCELERATOR ;;
    '') detect_nvidia || { detect_tpu && wanted=tpu; } || wanted=cpu ;;
    *) fail "GEONOISE_ACCELERATOR is '$GEONOISE_ACCELERATOR'; allowed are cpu, cuda, cuda12 and tpu." ;;
  esac
}

# --- What is there, against what is wanted --------------------------------------------------------------------------

digest() {
  if command -v sha256sum >/dev/null; then sha256sum "$1"; else shasum -a 256 "$1"; fi
}

# One name for the environment however GEONOISE_VENV spells it: scripts in a moved or copied one point elsewhere.
location() { if [[ -d "$venv" ]]; then (cd -- "$venv" && pwd -P); fi; }

# True where an environment installed for $1 serves `wanted`. An accelerator's jax runs on a CPU too, as on the login
# node of a cluster, and CUDA 12 runs on newer drivers: neither is worth pulling an environment from under running jobs.
serves() {
  case $1:$wanted:${GEONOISE_ACCELERATOR:-} in
    "$wanted:$wanted:"* | *:cpu:* | cuda12:cuda:) return 0 ;;
    *) return 1 ;;
  esac
}

# Sets `action` (none, install or create), `accelerator` (the extra that the environment has or gets), and the lines
# `base` and `project` of the stamp. A change of base, or of one accelerator for another, needs a new environment;
# `replaced` is the accelerator that makes way.
plan() {
  local installed='' old_base='' old_project='' version
  replaced=
  version=$(python_version "$venv/bin/python") || version=broken
  base="$version $(location)"
  project=$(digest "$root/pyproject.toml")
  accelerator=$wanted
  action=create
  { read -r installed && read -r old_base && read -r old_project; } 2>/dev/null <"$stamp" || return 0
  if [[ "$base" != "$old_base" ]]; then return; fi
  if [[ -n "${PYTHON:-}" ]] && [[ "$python_found" != "$version" ]]; then return; fi
  # "cuda?" is an installation for cuda in which jax has not seen the GPU yet.
  if serves "${installed%\?}"; then
    accelerator=${installed%\?}
    action=none
    if [[ "$project" != "$old_project" ]] || { [[ "$installed" != "$accelerator" ]] && [[ "$wanted" != cpu ]]; }; then
      action=install
    fi
  elif [[ "$installed" = cpu ]]; then
    action=install
  fi
  if [[ "$accelerator" != "${installed%\?}" ]]; then replaced=${installed%\?}; fi
}

# --- Installation ---------------------------------------------------------------------------------------------------

steal_stale_lock() {
  local holder
  for holder in "$lock.d"/*; do
    # Only one call can remove the dead holder's file, so only one removes the directory.
    if [[ -e "$holder" ]] && ! kill -0 "${holder##*/}" 2>/dev/null && rm "$holder" 2>/dev/null; then rmdir "$lock.d"; fi
  done
}

take_lock() {
  local waiting="waiting for another call that is installing into $venv"
  if command -v flock >/dev/null; then
    exec 9>"$lock"
    if flock -n 9; then return; fi
    note "$waiting"
    flock 9 || fail "$lock cannot be locked: choose another place with GEONOISE_VENV."
    return
  fi
  trap drop_lock EXIT
  until mkdir "$lock.d" 2>/dev/null; do
    if [[ -n "$waiting" ]]; then note "$waiting (remove $lock.d if there is none)"; waiting=; fi
    steal_stale_lock
    sleep 1
  done
  : >"$lock.d/$$"
}

# Before the user's command starts: it would hold the lock for as long as it runs.
drop_lock() {
  exec 9>&-
  if [[ -e "$lock.d/$$" ]]; then rm -r "$lock.d"; fi
  trap - EXIT
}

claim_directory() {
  local entry
  for entry in "$venv"/*; do
    if [[ -e "$entry" ]] && [[ ! -e "$stamp" ]]; then
      fail "$venv exists and was not made by this script, which therefore leaves it alone. Delete it or move it away," \
        "or choose another place: GEONOISE_VENV=/path bash launch/local.sh"
    fi
  done
  { mkdir -p "$venv" && : >>"$lock"; } 2>/dev/null ||
    fail "$venv cannot be written: choose another place with GEONOISE_VENV."
}

# Without pip, which Debian splits off, until it is known to be needed.
create_environment() {
  find_python
  : >"$stamp"
  rm -rf "${venv:?}"/{bin,include,lib,lib64,share,etc,pyvenv.cfg}
  "$python" -I -m venv --without-pip "$venv" >>"$log" 2>&1 </dev/null || explain_failure
  base="$python_found $(location)"
}

bootstrap_pip() {
  local run=("$venv/bin/python" -I)
  if "${run[@]}" -m pip --version >/dev/null 2>&1; then return; fi
  "${run[@]}" -c 'import ensurepip' 2>/dev/null ||
    fail "$venv/bin/python has no ensurepip, so pip cannot be installed. On Debian and Ubuntu it comes with the" \
      "package python3-venv (apt install python3-venv); elsewhere install uv or another Python. Then call again."
  "${run[@]}" -m ensurepip --default-pip >>"$log" 2>&1 </dev/null || explain_failure
}

install_package() {
  local extras=dev installer=pip length='about a minute'
  if [[ "$accelerator" != cpu ]]; then extras=dev,$accelerator length='some minutes'; fi
  if uv --version >/dev/null 2>&1; then installer=uv; else bootstrap_pip; fi
  note "installing geonoise_jax[$extras] with $installer into $venv ($length) ..."
  set -- --quiet --editable ".[$extras]"
  if [[ "$installer" = uv ]]; then
    set -- uv pip install --python "$venv/bin/python" "$@"
  else
    # PIP_USER, which some site configurations set, is an error inside a virtual environment.
    set -- env PIP_USER=0 "$venv/bin/python" -I -m pip install --disable-pip-version-check --no-input "$@"
  fi
  (cd "$root" && "$@") >>"$log" 2>&1 </dev/null || explain_failure
}

explain_failure() {
  local pip_network='connection (broken|refused|reset|error)|new connection|name resolution|ProxyError|SSLError'
  local uv_network='dns error|sending request|failed to fetch|HTTP (error|status)|timed out|unreachable|certificate'
  tail -n 6 "$log" >&2
  if grep -Eiq "$pip_network|$uv_network" "$log"; then
    fail "the package index could not be reached (the lines above are the end of $log). Check the network and call" \
      "again: the installation resumes. Behind a proxy set HTTPS_PROXY; for a mirror set PIP_INDEX_URL, or" \
      "UV_DEFAULT_INDEX where uv is installed."
  fi
  if grep -q 'No space left' "$log"; then
    fail "the disk is full: the environment takes 2 GB, with CUDA several more. Make room and call again, or put it" \
      "elsewhere with GEONOISE_VENV; TMPDIR moves what is unpacked on the way."
  fi
  fail "the installation failed; the lines above are the end of $log. Once the cause is gone, call again."
}

# jax is asked once, after the installation. A TPU is not opened: on a slice that waits for all of its hosts.
sees_accelerator() {
  local check='import jax; raise SystemExit(jax.default_backend() != "gpu")'
  if [[ "$accelerator" = tpu ]]; then check='import jax, libtpu'; fi
  (
    unset JAX_PLATFORMS JAX_PLATFORM_NAME
    XLA_PYTHON_CLIENT_PREALLOCATE=false "$venv/bin/python" -I -c "$check"
  ) >"$log" 2>&1 </dev/null
}

verify_accelerator() {
  if sees_accelerator; then return; fi
  tail -n 6 "$log" >&2
  fail "jax was installed for $accelerator but does not see it (its last words, if any, are above). Usual causes: a" \
    "container started without its devices (docker run --gpus all), LD_LIBRARY_PATH pointing at another CUDA (unset" \
    "it), a driver that does not match (GEONOISE_ACCELERATOR=cuda12 for an older one). Then call again, or go on" \
    "without it: GEONOISE_ACCELERATOR=cpu bash launch/local.sh"
}

write_stamp() {
  printf '%s\n' "$1" "$base" "$project" >"$stamp.new"
  mv "$stamp.new" "$stamp"
}

# While `action` is install, an environment that worked is there: after a clean failure it goes on working, and the next
# call tries again. After a kill the empty stamp has it built anew.
carry_out_plan() {
  local previous unverified="$accelerator?"
  : >"$log"
  if [[ -n "$replaced" ]]; then note "this environment holds jax for $replaced; this machine calls for $wanted."; fi
  if [[ "$action" = create ]]; then create_environment; fi
  previous=$(cat "$stamp")
  : >"$stamp"
  (install_package) || {
    if [[ -n "$previous" ]]; then printf '%s\n' "$previous" >"$stamp"; fi
    exit 1
  }
  if [[ "$accelerator" = cpu ]]; then unverified=cpu; fi
  write_stamp "$unverified"
  if [[ "$wanted" != cpu ]]; then
    verify_accelerator
    write_stamp "$accelerator"
  fi
}

ensure_environment() {
  choose_accelerator
  if [[ -n "${PYTHON:-}" ]]; then find_python; fi
  plan
  if [[ "$action" != none ]]; then
    if [[ "$action" = create ]]; then find_python; fi # before anything is written
    claim_directory
    take_lock
    plan # another call may have done it meanwhile
    if [[ "$action" != none ]]; then carry_out_plan; fi
    drop_lock
  fi
  if [[ "$wanted" = cpu ]] && [[ "$accelerator" != cpu ]] && [[ -z "${GEONOISE_ACCELERATOR:-}" ]]; then
    note "this environment holds jax for $accelerator, which this machine does not show: expect it to run on the CPU."
  fi
}

# --- The command ----------------------------------------------------------------------------------------------------

run_command() {
  export VIRTUAL_ENV=$venv PATH=$venv/bin:$PATH
  unset PYTHONHOME
  if [[ "${GEONOISE_ACCELERATOR:-}" = cpu ]]; then export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}; fi
  if [[ $# -eq 0 ]]; then set -- demo; fi
  case $1 in
    test)
      shift
      cd "$root"
      # The tests of a file share their fixtures; two processes halve the time of the whole and fit into 16 GiB.
      if [[ $# -eq 0 ]]; then set -- -n 2 --dist loadfile; fi
      exec python -m pytest "$@"
      ;;
    --version | --debug | demo | train | sample | evaluate | exact | figure | data | plan) exec geonoise "$@" ;;
    *) exec -- "$@" ;;
  esac
}

case ${1-} in
  -h | --help) usage; exit ;;
esac
ensure_environment
run_command "$@"
