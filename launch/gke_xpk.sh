#!/usr/bin/env bash
# Runs a command of geonoise on GKE: a JobSet made by xpk (its own clusters only), whose log is followed, and which is
# deleted in the end.
#
# Usage: bash launch/gke_xpk.sh --cluster=CLUSTER --name=NAME (--tpu=TYPE | --gpu=TYPE) --image=IMAGE [OPTION ...] [--] train ...
#
#   --cluster=CLUSTER --zone=ZONE --project=PROJECT
#   --name=NAME          of the workload
#   --tpu=TYPE           such as v5litepod-16; --slices=K for as many slices, in one program (default: 1)
#   --gpu=TYPE           such as h100-mega-80gb-8; --nodes=K for as many nodes, a process on each (default: 1)
#   --image=IMAGE        made of launch/Dockerfile, with this version of geonoise_jax in it
#   --base-image=IMAGE   the same, on which xpk puts the files of the repository as they are now
#   --storage=NAME       a storage of the cluster (`xpk storage`) for the workdir; may be repeated
#   --spot | --flex | --reservation=NAME  kind of capacity, in clusters that provision by themselves
#   --env=NAME=VALUE     environment of the command; may be repeated
#   --create-flag=FLAG   one more flag of `xpk workload create`; may be repeated
#   --max-restarts=N     restarts after preemptions and failures together (default: 50); never after status 2
#   --grace=SECONDS      so long a pod that is told to stop may take to save (default: 120; spot nodes leave 30)
#   --poll=SECONDS       between two questions for the state (default: 30)
#   --keep               do not delete the workload in the end
#   --dry-run            print the commands of a run in which nothing goes wrong
#
# The same command again follows a workload that still runs. Ctrl-C leaves it, and says so. Every pod must see the workdir
# at the same path: a storage of the cluster. Status: 0, or that of the pods; 1 when the workload could not be made.
set -euo pipefail

launcher=launch/gke_xpk.sh
root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source=launch/common.sh
. "$root/launch/common.sh"

# --- Options --------------------------------------------------------------------------------------------------------

cluster='' name='' tpu='' gpu='' slices='' nodes='' image='' base='' keep=''
max_restarts=50 grace=120 poll=30
place=() capacity=() flags=() storages=() environment=()
while [[ $# -gt 0 ]] && split_option "$1"; do
  shift
  case $option in
    --help) usage "${BASH_SOURCE[0]}"; exit ;;
    --dry-run) dry_run=1 ;;
    --cluster) needs_value; cluster=$value ;;
    --zone | --project) needs_value; place+=("$option=$value") ;;
    --name) needs_value; name=$value ;;
    --tpu) needs_value; tpu=$value ;;
    --gpu) needs_value; gpu=$value ;;
    --slices) positive_number; slices=$((10#$value)) ;;
    --nodes) positive_number; nodes=$((10#$value)) ;;
    --image) needs_value; image=$value ;;
    --base-image) needs_value; base=$value ;;
    --storage) needs_value; storages+=("--storage=$value") ;;
    --spot | --flex) capacity+=("$option") ;;
    --reservation) needs_value; capacity+=("$option=$value") ;;
    --env) assignment; environment+=("$value") ;;
    --create-flag) needs_value; flags+=("$value") ;;
    --max-restarts) whole_number; max_restarts=$((10#$value)) ;;
    --grace) whole_number; grace=$((10#$value)) ;;
    --poll) seconds; poll=$value ;;
    --keep) keep=1 ;;
    *) unknown_option ;;
  esac
done
if [[ "${1-}" = -- ]]; then shift; fi
if [[ $# -eq 0 ]]; then fail "the command is missing, such as: train --config=... --workdir=..."; fi
for option in cluster name; do
  if [[ -z "${!option}" ]]; then fail "--$option: must be given (see --help)"; fi
done
if [[ -n "$tpu" ]] && [[ -n "$gpu" ]] || [[ -z "$tpu$gpu" ]]; then fail "one of --tpu and --gpu must be given"; fi
if [[ -n "$image" ]] && [[ -n "$base" ]] || [[ -z "$image$base" ]]; then
  fail "one of --image and --base-image must be given: see launch/Dockerfile"
fi
if [[ "$slices" ]] && [[ "$gpu" ]]; then fail "--slices: is for --tpu; of GPUs take --nodes"; fi
if [[ "$nodes" ]] && [[ "$tpu" ]]; then fail "--nodes: is for --gpu; of TPUs take --slices"; fi
if [[ "${#capacity[@]}" -gt 1 ]]; then fail "${capacity[*]} exclude each other"; fi

# --- The command in a pod -------------------------------------------------------------------------------------------

# Prints the words as xpk takes them: it puts them into YAML, once between double quotes, and Kubernetes replaces $(NAME).
# Words with characters that any of them reads otherwise go as base64, and no quotes are needed where nothing is split.
in_yaml() {
  local text
  text=$(quoted "$@")
  case $text in
    *[!A-Za-z0-9_@%+=:,./\ \'*-]* | *\\*) ;;
    *) printf '%s' "$text"; return ;;
  esac
  # shellcheck disable=SC2016 # run in the pod
  printf 'IFS=; set -f; eval `echo %s | base64 -d`' "$(printf '%q ' "$@" | base64 | tr -d '\n')"
}

if [[ "$image" ]]; then program=(geonoise); else program=(python -m geonoise_jax); fi
# A pod of GPUs knows its number, and jax reads it under another name.
# shellcheck disable=SC2016 # of the pod
ranks='export JAX_COORDINATOR_ADDRESS=$JAX_COORDINATOR_ADDRESS:$JAX_COORDINATOR_PORT JAX_NUM_PROCESSES=$NNODES JAX_PROCESS_ID=$NODE_RANK; '
if [[ "${#environment[@]}" -gt 0 ]]; then program=(env "${environment[@]}" "${program[@]}"); fi
command=$(in_yaml exec "${program[@]}" "$@")
create=(xpk workload create --cluster="$cluster" --workload="$name" "${place[@]}")
if [[ "$tpu" ]]; then
  create+=(--tpu-type="$tpu" --num-slices="${slices:-1}" --env=JAX_COORDINATOR_PORT=8476)
else
  create+=(--device-type="$gpu" --num-nodes="${nodes:-1}")
  command=$ranks$command
fi
if [[ "$image" ]]; then
  create+=(--docker-image="$image")
else
  create+=(--base-docker-image="$base" --script-dir="$root")
fi
# By itself xpk restarts after 42 and from 127 on; all but a user's error is to be restarted.
# shellcheck disable=SC2054 # a comma of xpk's
create+=(--max-restarts="$max_restarts" --restart-on-exit-codes=1,3-126 --termination-grace-period-seconds="$grace")
create+=("${capacity[@]}" "${storages[@]}" "${flags[@]}" --command="$command")

# --- The workload ---------------------------------------------------------------------------------------------------

delete=(xpk workload delete --cluster="$cluster" --workload="$name" "${place[@]}" --force)
pods=jobset.sigs.k8s.io/jobset-name=$name
lead=$pods,jobset.sigs.k8s.io/job-index=0,batch.kubernetes.io/job-completion-index=0

# Sets `state`: NONE, RUNNING, Completed or Failed; after six answers that say nothing, the launcher ends.
look() {
  local command=(kubectl get jobset "$name" '--output=jsonpath={.status.terminalState}')
  if [[ "$dry_run" ]]; then show "${command[@]}"; state=$1; return; fi
  for _ in {1..6}; do
    if state=$("${command[@]}" 2>"$scratch/errors" </dev/null); then state=${state:-RUNNING}; return; fi
    if grep -q NotFound "$scratch/errors"; then state=NONE; return; fi
    cat "$scratch/errors" >&2
    pause "$poll"
  done
  note "kubectl does not say what has become of $name, which may still run; delete it by: $(quoted "${delete[@]}")"
  exit 1
}

remove() {
  local try
  for try in 1 2 3; do
    if attended "${delete[@]}"; then exists=; return; fi
    if [[ "$try" -lt 3 ]]; then pause "$poll"; fi
  done
  note "$name could not be deleted, and may still run; delete it by: $(quoted "${delete[@]}")"
  return 1
}

# Ends the launcher with a status, after the workload.
finish() {
  if [[ "$keep" ]]; then announce "$name is kept; delete it by: $(quoted "${delete[@]}")"; else remove || exit 1; fi
  exit "$1"
}

# Makes the workload, unless it is there and runs.
obtain() {
  # This sets up kubectl for the cluster.
  attended xpk workload list --cluster="$cluster" "${place[@]}" "--filter-by-job=^$name\$" ||
    { note "xpk cannot reach the cluster $cluster"; exit 1; }
  look NONE
  case $state in
    RUNNING) exists=1; note "following $name, which runs already, whatever its words are"; return ;;
    Completed | Failed) note "$name, left by an earlier call, is $state: deleting it"; remove || exit 1 ;;
  esac
  exists=1
  attended "${create[@]}" || { note "$name could not be made"; exists=; exit 1; }
}

# Prints what is new in the log of the lead pod, until the pod or the connection ends. A restart makes a new pod.
follow() {
  local answer pod phase
  local command=(kubectl get pods --selector="$lead" '--output=jsonpath={.items[-1:].metadata.name} {.items[-1:].status.phase}')
  if [[ "$dry_run" ]]; then show "${command[@]}"; show kubectl logs --follow POD; return; fi
  answer=$("${command[@]}" 2>/dev/null </dev/null) || return 0
  pod=${answer%% *} phase=${answer##* }
  case $phase in Running | Succeeded | Failed) ;; *) return ;; esac
  if [[ "$pod" != "$followed" ]]; then
    note "pod $pod"
    followed=$pod
    : >"$scratch/log"
  fi
  attended logged new_lines "$pod" "$(wc -l <"$scratch/log")" || true
}

# shellcheck disable=SC2329 # called by `logged`
new_lines() { kubectl logs --follow "$1" | tail -n "+$(($2 + 1))"; }

# Sets `statuses`: those of the containers that have ended.
ask() {
  local answer
  local command=(kubectl get pods --selector="$pods")
  command+=('--output=jsonpath={range .items[*]}{.status.containerStatuses[0].state.terminated.exitCode}{"\n"}{end}')
  statuses=()
  while IFS= read -r answer; do if [[ "$answer" ]]; then statuses+=("$answer"); fi; done < <("${command[@]}" </dev/null)
}

# shellcheck disable=SC2329 # called by traps
interrupted() {
  trap - TERM INT HUP
  end_child
  if [[ "$exists" ]]; then
    note "interrupted: $name goes on. Follow it: the same command; delete it by: $(quoted "${delete[@]}")"
  fi
  exit "$1"
}

exists='' state='' followed='' statuses=()
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'interrupted 130' INT
trap 'interrupted 143' TERM
trap 'interrupted 129' HUP
obtain
state=RUNNING
while [[ "$state" = RUNNING ]]; do
  follow
  look Completed
  if [[ "$state" = RUNNING ]]; then pause "$poll"; fi
done
case $state in
  Completed) announce "the run has finished"; finish 0 ;;
  NONE) note "$name was deleted by somebody else"; exit 75 ;;
esac
ask
if [[ "$(verdict "${statuses[@]}")" = refused ]]; then
  note "the run was refused (status 2): see its last line above"
  finish 2
fi
note "the workload has failed; the last statuses: ${statuses[*]-none}"
finish "$(worst "${statuses[@]}")"
