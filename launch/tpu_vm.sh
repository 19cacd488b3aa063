#!/usr/bin/env bash
# Runs a command of geonoise on all workers of a Cloud TPU slice, or of several: asks for it and waits, installs, runs,
# follows the log, replaces the slice when it is preempted, and deletes it in the end.
#
# Usage: bash launch/tpu_vm.sh --name=NAME --zone=ZONE --type=TYPE [OPTION ...] [--] train ARGUMENT ...
#
#   --name=NAME            of the queued resource; its nodes are NAME, or NAME-0, NAME-1, ... of several slices
#   --zone=ZONE --project=PROJECT
#   --type=TYPE            accelerator type, such as v5litepod-16, v6e-8, v5p-32, v4-8
#   --version=VERSION      runtime version (default: the one for the type)
#   --slices=K             as many slices, in one program (default: 1)
#   --spot | --reserved    capacity that can be preempted, or that you have reserved (default: on demand)
#   --valid-until=DURATION give the request up after so long, such as 6h
#   --create-flag=FLAG     one more flag of `gcloud ... queued-resources create`; may be repeated
#   --ssh-flag=FLAG        one more flag of `gcloud ... tpu-vm ssh` and `scp`, such as --internal-ip; may be repeated
#   --setup=COMMAND        run on every worker before the installation, such as one that mounts a bucket
#   --env=NAME=VALUE       environment of the command; may be repeated
#   --max-preemptions=N    give up after more preemptions than these (default: 100)
#   --max-failures=N       give up after more failures than these (default: 3)
#   --poll=SECONDS         between two questions for the state (default: 30)
#   --grace=SECONDS        so long processes and slice may take to say what has become of them (default: 180)
#   --keep                 do not delete the slice in the end
#   --dry-run              print the commands of a run in which nothing goes wrong
#
# The same command again goes on with a slice, and with a run on it, that an earlier call has left. Ctrl-C leaves both
# and says so. Every worker must see the workdir at the same path: shared storage, such as a bucket that --setup mounts.
# Status: that of the run; 75 when the preemptions were used up; 1 when the slice could not be had or not be deleted.
set -euo pipefail

launcher=launch/tpu_vm.sh
root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source=launch/common.sh
. "$root/launch/common.sh"

# --- Options --------------------------------------------------------------------------------------------------------

name='' zone='' project='' type='' version='' slices=1 capacity='' until='' setup='' keep=''
max_preemptions=100 max_failures=3 poll=30 grace=180
create_flags=() ssh_flags=()
# Ports that Google's default firewall opens between workers hold this one, and not the one that jax takes by itself.
environment=(GEONOISE_ACCELERATOR=tpu JAX_COORDINATOR_PORT=8476)

while [[ $# -gt 0 ]] && split_option "$1"; do
  shift
  case $option in
    --help) usage "${BASH_SOURCE[0]}"; exit ;;
    --dry-run) dry_run=1 ;;
    --name) needs_value; name=$value ;;
    --zone) needs_value; zone=$value ;;
    --project) needs_value; project=$value ;;
    --type) needs_value; type=$value ;;
    --version) needs_value; version=$value ;;
    --slices) positive_number; slices=$((10#$value)) ;;
    --spot | --reserved)
      if [[ "$capacity" ]] && [[ "$capacity" != "$option" ]]; then fail "--spot and --reserved exclude each other"; fi
      capacity=$option ;;
    --valid-until) needs_value; until=$value ;;
    --create-flag) needs_value; create_flags+=("$value") ;;
    --ssh-flag) needs_value; ssh_flags+=("$value") ;;
    --setup) needs_value; setup=$value ;;
    --env) assignment; environment+=("$value") ;;
    --max-preemptions) whole_number; max_preemptions=$((10#$value)) ;;
    --max-failures) whole_number; max_failures=$((10#$value)) ;;
    --poll) seconds; poll=$value ;;
    --grace) whole_number; grace=$((10#$value)) ;;
    --keep) keep=1 ;;
    *) unknown_option ;;
  esac
done
if [[ "${1-}" = -- ]]; then shift; fi
if [[ $# -eq 0 ]]; then fail "the command is missing, such as: train --config=... --workdir=..."; fi
words=("$@")
for option in name zone type; do
  if [[ -z "${!option}" ]]; then fail "--$option: must be given (see --help)"; fi
done
if ! [[ "$name" =~ ^[a-z]([-a-z0-9]{0,50}[a-z0-9])?$ ]]; then
  fail "--name = $name: must be lower-case letters, digits and hyphens, and begin with a letter"
fi
if [[ -z "$version" ]]; then
  case $type in
    v6e-*) version=v2-alpha-tpuv6e ;;
    v5p-*) version=v2-alpha-tpuv5 ;;
    v5litepod-*) version=v2-alpha-tpuv5-lite ;;
    v[234]-*) version=tpu-ubuntu2204-base ;;
    *) fail "--type = $type: no runtime version is known for it; name one with --version" ;;
  esac
fi
place=(--zone="$zone")
if [[ "$project" ]]; then place+=(--project="$project"); fi
if [[ "$slices" -eq 1 ]]; then
  nodes=("$name")
else
  nodes=()
  for ((index = 0; index < slices; index++)); do nodes+=("$name-$index"); done
fi

# --- The slice ------------------------------------------------------------------------------------------------------

delete_command() { quoted gcloud compute tpus queued-resources delete "$name" "${place[@]}" --force --quiet; }

create() {
  local command=(gcloud compute tpus queued-resources create "$name" "${place[@]}")
  command+=(--accelerator-type="$type" --runtime-version="$version")
  if [[ "$slices" -eq 1 ]]; then
    command+=(--node-id="$name")
  else
    command+=(--node-count="$slices" --node-prefix="$name")
  fi
  if [[ "$capacity" ]]; then command+=("$capacity"); fi
  if [[ "$until" ]]; then command+=(--valid-until-duration="$until"); fi
  requested=1 created=1
  attended "${command[@]}" "${create_flags[@]}" --quiet
}

# Sets `state`: that of the queued resource, NONE if there is none, UNKNOWN if gcloud cannot say.
look() {
  local command=(gcloud compute tpus queued-resources describe "$name" "${place[@]}" '--format=value(state.state)')
  if [[ "$dry_run" ]]; then show "${command[@]}"; state=ACTIVE; return; fi
  if state=$("${command[@]}" 2>"$scratch/errors" </dev/null); then
    requested=1
  elif grep -q NOT_FOUND "$scratch/errors"; then
    state=NONE requested=
  else
    state=UNKNOWN
  fi
}

# Deletes the queued resource, in three tries.
remove() {
  local try command=(gcloud compute tpus queued-resources delete "$name" "${place[@]}" --force --quiet)
  for try in 1 2 3; do
    if attended "${command[@]}"; then requested=; return; fi
    if [[ "$try" -lt 3 ]]; then pause "$poll"; fi
  done
  note "$name could not be deleted and may cost money; delete it by: $(quoted "${command[@]}")"
  return 1
}

# Ends the launcher with a status, after the slice.
finish() {
  if [[ "$keep" ]]; then
    announce "$name is kept and costs money; delete it by: $(delete_command)"
  elif [[ "$requested$dry_run" ]]; then
    remove || exit 1
  fi
  exit "$1"
}

preemptions=0 failures=0

# Counts one preemption, or one failure with its status: the launcher ends when there were too many.
preempted() {
  preemptions=$((preemptions + 1))
  note "preemption $preemptions (of $max_preemptions at most): $1"
  if [[ "$preemptions" -gt "$max_preemptions" ]]; then note "too many preemptions; giving up"; finish 75; fi
}

failed() {
  failures=$((failures + 1))
  note "failure $failures (of $max_failures at most): $2"
  if [[ "$failures" -gt "$max_failures" ]]; then note "too many failures; giving up"; finish "$1"; fi
}

# Waits until the slice is there, and makes or replaces it on the way.
obtain() {
  local before='' unknown=0
  while :; do
    look
    if [[ "$state" != "$before" ]]; then announce "$name: $state"; fi
    before=$state
    if [[ "$state" != UNKNOWN ]]; then unknown=0; fi
    case $state in
      ACTIVE) return ;;
      NONE) create || { failed 1 "$name could not be asked for"; pause "$poll"; } ;;
      SUSPENDED)
        preempted "$name is suspended; asking for a new one"
        remove || exit 1 ;;
      FAILED)
        gcloud compute tpus queued-resources describe "$name" "${place[@]}" '--format=value(state)' >&2 </dev/null || true
        failed 1 "the request for $name failed; asking again"
        remove || exit 1
        pause "$poll" ;;
      UNKNOWN)
        unknown=$((unknown + 1))
        cat "$scratch/errors" >&2
        if [[ "$unknown" -gt 5 ]]; then
          note "gcloud does not say what has become of $name, which may cost money; delete it by: $(delete_command)"
          exit 1
        fi
        pause "$poll" ;;
      *) pause "$poll" ;;
    esac
  done
}

# --- The workers ----------------------------------------------------------------------------------------------------

# Sets `ssh`: the command that runs words on workers $2 (a number, or all) of node $1.
compose_ssh() {
  ssh=(gcloud compute tpus tpu-vm ssh "$1" "${place[@]}" --worker="$2" "${ssh_flags[@]}" --quiet)
  # Nothing else would end a connection to a machine that was taken away.
  ssh+=(--ssh-flag=-oServerAliveInterval=30 --command="${*:3}")
}

on() {
  compose_ssh "$@"
  attended "${ssh[@]}"
}

worker() { quoted bash geonoise/launch/tpu_worker.sh "$@"; }

# Three tries of something on all workers of all nodes: a fresh slice refuses ssh for a while.
everywhere() {
  local node try
  for node in "${nodes[@]}"; do
    for try in 1 2 3; do
      if "$1" "$node" "${@:2}"; then break; fi
      if [[ "$try" -eq 3 ]]; then return 1; fi
      pause "$poll"
    done
  done
}

# What git would commit, and nothing else of the folder; once, so that every try runs the same.
pack() {
  local file
  if [[ -e "$archive" ]]; then return; fi
  if [[ "$dry_run" ]]; then
    printf 'git ls-files -coz --exclude-standard | tar -czf %s --null -T -\n' "$archive"
    return
  fi
  (
    cd "$root"
    git ls-files -coz --exclude-standard | while IFS= read -rd '' file; do
      if [[ -e "$file" ]]; then printf '%s\0' "$file"; fi
    done | tar -czf "$archive" --null -T -
  ) || { note "$root cannot be packed: it must be a checkout of git"; finish 1; }
}

upload() {
  attended gcloud compute tpus tpu-vm scp "$archive" "$1:geonoise.tar.gz" "${place[@]}" --worker=all \
    "${ssh_flags[@]}" --quiet
}

install() {
  local steps='mkdir -p geonoise && tar -xzf geonoise.tar.gz -C geonoise'
  if [[ "$setup" ]]; then steps+=" && { $setup; }"; fi
  on "$1" all "$steps && $(quoted env GEONOISE_ACCELERATOR=tpu bash geonoise/launch/tpu_worker.sh install)"
}

start() { on "$1" all "$(worker "$2" env "${environment[@]}" bash launch/local.sh "${words[@]}")"; }

# Prints the log of the lead process until it ends, over connections that break: from where the last one ended.
follow() {
  local broken=0 lines=0 seen
  : >"$scratch/log"
  while :; do
    compose_ssh "${nodes[0]}" 0 "$(worker follow "$((lines + 1))")"
    if [[ "$dry_run" ]]; then show "${ssh[@]}"; return; fi
    if attended logged "${ssh[@]}"; then return; fi
    look
    if [[ "$state" != ACTIVE ]]; then return; fi
    seen=$lines
    lines=$(wc -l <"$scratch/log")
    broken=$((lines > seen ? 1 : broken + 1))
    if [[ "$broken" -gt 5 ]]; then note "the log on ${nodes[0]} cannot be read"; return; fi
    note "the connection to ${nodes[0]} broke; once more"
    pause "$poll"
  done
}

# Sets `statuses`: those of all processes that can be asked.
ask() {
  local node answer
  statuses=()
  for node in "${nodes[@]}"; do
    on "$node" all "$(worker status)" >"$scratch/answer" 2>"$scratch/errors" || true
    if [[ "$dry_run" ]]; then cat "$scratch/answer"; statuses+=(0); fi
    while IFS= read -r answer; do
      case $answer in status=*) statuses+=("${answer#status=}") ;; esac
    done <"$scratch/answer"
  done
}

runs() { [[ " ${statuses[*]-} " = *' running '* ]]; }

# `ask`, once the processes have ended, or `grace` seconds after the first.
collect() {
  local since=$SECONDS
  ask
  while runs && [[ "$((SECONDS - since))" -lt "$grace" ]]; do
    pause "$poll"
    ask
  done
}

# Sets `state`, after the slice had `grace` seconds to show that it is being taken away.
settle() {
  local since=$SECONDS
  look
  while [[ "$state" = ACTIVE ]] && [[ "$((SECONDS - since))" -lt "$grace" ]]; do
    pause "$poll"
    look
  done
}

# --- The run --------------------------------------------------------------------------------------------------------

# Decides on what ended without success: it returns to try again, or ends the launcher. Sets `how`.
judge() {
  local word=$1 status=$2
  settle
  how=restart
  case $state:$word in
    ACTIVE:preempted) preempted "the run was stopped, on a slice that is still there" ;;
    ACTIVE:lost) failed 75 "a process was lost on a slice that is still there" ;;
    ACTIVE:*) failed "$status" "the run ended with status $status" ;;
    NONE:*) preempted "$name is gone" ;;
    # `obtain` counts what it finds.
    *) ;;
  esac
}

interrupted() {
  trap - TERM INT HUP
  end_child
  if [[ "$started" ]]; then
    compose_ssh "${nodes[0]}" all "$(worker stop)"
    note "interrupted: the run goes on on $name. Follow it: the same command; stop it, saving: $(quoted "${ssh[@]}")"
  fi
  if [[ "$requested" ]]; then
    note "$name is left as it is, and costs money once it is there. Go on: the same command; delete it by:" \
      "$(delete_command)"
  fi
  exit "$1"
}

prepare() {
  everywhere upload && everywhere install || return 1
  started=1
  everywhere start "$how"
}

# True if the slice was there at the first look, with a run on it.
joins() {
  if [[ "$how" = restart ]] || [[ "$created$dry_run" ]]; then return 1; fi
  ask
  runs
}

attempt() {
  started=
  obtain
  if joins; then
    note "following the run that goes on on $name, whatever its words are"
  else
    pack
    if ! prepare; then judge failed 1; return; fi
  fi
  started=1
  follow
  collect
  started=
  result=$(verdict "${statuses[@]}")
  case $result in
    done) announce "the run has finished"; finish 0 ;;
    refused) note "the run was refused (status 2): see its last line above"; finish 2 ;;
    *) judge "$result" "$(worst "${statuses[@]}")" ;;
  esac
}

requested='' created='' started='' how=start state='' statuses=()
scratch=$(mktemp -d)
archive=$scratch/geonoise.tar.gz
if [[ "$dry_run" ]]; then archive=TEMPORARY/geonoise.tar.gz; fi
trap 'rm -rf "$scratch"' EXIT
trap 'interrupted 130' INT
trap 'interrupted 143' TERM
trap 'interrupted 129' HUP
if [[ "$dry_run" ]]; then create; fi
while :; do attempt; done
