#!/usr/bin/env bash
# Runs N processes of one command on this machine, which join into one jax program: for tests, and for one process per GPU.
#
# Usage: bash launch/multiprocess_local.sh [OPTION ...] N [--] train ARGUMENT ...
#
#   --devices=K     devices of each process: K simulated ones on a CPU, else the GPUs i*K ... i*K+K-1 of process i
#   --cpu           use the CPU, whatever the machine has
#   --grace=SECONDS so long the others may go on after one has failed or process 0 has ended, before SIGTERM, and again before
#                   SIGKILL (default: 120)
#   --program=PATH  the program that gets the words, instead of `bash launch/local.sh`
#   --dry-run       print the commands
#
# The output of process 0 is printed as it is, that of process i after "[i] ". SIGTERM, SIGINT and SIGHUP go on to all.
# The status is that of process 0, or 75 (a peer was lost) if process 0 had to be ended because another one failed.
set -euo pipefail

launcher=launch/multiprocess_local.sh
root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source=launch/common.sh
. "$root/launch/common.sh"

devices='' platform='' grace=120
program=(bash "$root/launch/local.sh")
while [[ $# -gt 0 ]] && split_option "$1"; do
  shift
  case $option in
    --help) usage "${BASH_SOURCE[0]}"; exit ;;
    --dry-run) dry_run=1 ;;
    --cpu) platform=cpu ;;
    --devices) positive_number; devices=$value ;;
    --grace) whole_number; grace=$value ;;
    --program) needs_value; program=("$value") ;;
    *) unknown_option ;;
  esac
done
option=N value=${1-}
positive_number
number=$((10#$value))
shift
if [[ "${1-}" = -- ]]; then shift; fi
if [[ $# -eq 0 ]]; then fail "the command is missing, such as: $number train --config=... --workdir=..."; fi

# A port below the ones that the system hands out by itself.
free_port() {
  local port
  for _ in {1..50}; do
    port=$((20000 + RANDOM % 12000))
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then printf '%s' "$port"; return; fi
  done
  fail "no free port was found in 50 tries"
}

# Sets `command`: that of process $1, with the words that follow.
compose() {
  local index=$1
  shift
  command=(env "JAX_COORDINATOR_ADDRESS=127.0.0.1:$port" "JAX_NUM_PROCESSES=$number" "JAX_PROCESS_ID=$index")
  if [[ "$platform" ]]; then command+=(JAX_PLATFORMS=cpu); fi
  if [[ "$devices" ]]; then
    command+=("JAX_NUM_CPU_DEVICES=$devices")
    if [[ -z "$platform" ]]; then command+=("JAX_LOCAL_DEVICE_IDS=$(numbers "$((index * devices))" "$devices")"); fi
  fi
  command+=("${program[@]}" "$@")
}

# Goes on until the last line, whatever signal the terminal sends.
prefixed() {
  local line
  trap '' TERM INT HUP
  while IFS= read -r line || [[ "$line" ]]; do printf '[%s] %s\n' "$1" "$line"; done
}

pids=()
start() {
  local index=$1
  shift
  # With a process group of its own it does not ignore SIGINT, and gets that of a terminal only once, from here.
  set -m
  if [[ "$index" -eq 0 ]]; then
    "$@" </dev/null &
  else
    "$@" </dev/null > >(prefixed "$index") 2> >(prefixed "$index" >&2) &
  fi
  pids+=("$!")
  set +m
}

forward() {
  local pid
  for pid in "${pids[@]}"; do kill "-$1" "$pid" 2>/dev/null || true; done
}

# Sets `running`, the number of processes that go on, and `first`, the one whose end the others should not outlive by long.
look() {
  local index status
  running=0
  for index in "${!pids[@]}"; do
    if [[ "${statuses[index]-}" ]]; then continue; fi
    if kill -0 "${pids[index]}" 2>/dev/null; then running=$((running + 1)); continue; fi
    status=0
    wait "${pids[index]}" 2>/dev/null || status=$?
    statuses[index]=$status
    if [[ -z "$first" ]] && { [[ "$status" -ne 0 ]] || [[ "$index" -eq 0 ]]; }; then first=$index since=$SECONDS; fi
  done
}

# Ends what outlives it: SIGTERM after `grace` seconds, SIGKILL after as many more.
press() {
  local waited
  if [[ -z "$first" ]]; then return; fi
  waited=$((SECONDS - since))
  if [[ -z "$ended" ]] && [[ "$waited" -ge "$grace" ]]; then
    note "process $first ended with status ${statuses[first]}, $grace s ago: ending the other $running"
    ended=TERM
    ended_lead=${statuses[0]-ended}
    forward TERM
  elif [[ "$ended" = TERM ]] && [[ "$waited" -ge $((2 * grace)) ]]; then
    ended=KILL
    for pid in "${pids[@]}"; do kill -KILL -- "-$pid" 2>/dev/null || true; done
  fi
}

port=$(free_port)
if [[ "$dry_run" ]]; then
  port=PORT
  if [[ "${program[0]}" = bash ]]; then show "${program[@]}" true; fi
  for ((index = 0; index < number; index++)); do compose "$index" "$@"; show "${command[@]}"; done
  exit
fi
# One call installs; the others find it done.
if [[ "${program[0]}" = bash ]]; then "${program[@]}" true; fi
for signal in TERM INT HUP; do
  # shellcheck disable=SC2064 # the name of now
  trap "forward $signal" "$signal"
done
for ((index = 0; index < number; index++)); do
  compose "$index" "$@"
  start "$index" "${command[@]}"
done

statuses=() first='' ended='' ended_lead='' since=0
look
while [[ "$running" -gt 0 ]]; do
  sleep 0.2 || true
  look
  press
done
for index in "${!statuses[@]}"; do
  if [[ "$index" -gt 0 ]] && [[ "${statuses[index]}" -ne 0 ]]; then
    note "process $index ended with status ${statuses[index]}"
  fi
done
if [[ "$ended_lead" = ended ]]; then exit 75; fi
exit "${statuses[0]}"
