#!/usr/bin/env bash
# A Slurm of two nodes on this machine, for the tests of launch/slurm.sbatch: Debian's packages, unpacked and not installed.
#   two_nodes.sh start DIR  downloads and unpacks into DIR, once, starts it, and waits until both nodes are idle
#   two_nodes.sh env DIR    prints what to eval before sbatch, squeue, scancel and scontrol work
#   two_nodes.sh stop DIR   ends what `start` has started
# Nodes n1 and n2 are this machine, and their names do not resolve. No authentication, no accounting; root runs it.
set -euo pipefail

if [[ $# -ne 2 ]]; then sed -n '2,/^set/{/^#/p;}' "${BASH_SOURCE[0]}" >&2; exit 2; fi
mkdir -p "$2"
dir=$(cd -- "$2" && pwd -P)
packages=(slurmctld slurmd slurm-client slurm-wlm-basic-plugins libhwloc15 libnuma1 libpmix2 libmunge2 libltdl7 libjwt0)
root=$dir/root
library=$root/usr/lib/$(uname -m)-linux-gnu
port=${GEONOISE_SLURM_PORT:-16917}

settings() {
  printf 'export SLURM_CONF=%q LD_LIBRARY_PATH=%q PATH=%q\n' "$dir/slurm.conf" "$library:$library/slurm-wlm" \
    "$dir/bin:$root/usr/bin:$PATH"
}

unpack() {
  local archive tool path
  if [[ -e "$dir/unpacked" ]]; then return; fi
  (cd "$dir" && apt-get -qq download "${packages[@]}" >/dev/null)
  for archive in "$dir"/*.deb; do dpkg -x "$archive" "$root"; done
  mkdir -p "$dir"/{bin,state,log,spool-n1,spool-n2}
  # Debian names some clients NAME-wlm.
  for tool in srun sbatch squeue scancel scontrol sinfo; do
    for path in "$root/usr/bin/$tool-wlm" "$root/usr/bin/$tool"; do
      if [[ -x "$path" ]]; then ln -sf "$path" "$dir/bin/$tool"; break; fi
    done
  done
  touch "$dir/unpacked"
}

configure() {
  local host
  host=$(hostname)
  cat >"$dir/slurm.conf" <<END
ClusterName=two
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
AuthType=auth/none
CredType=cred/none
PluginDir=$library/slurm-wlm
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/linear
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool-%n
SlurmctldPidFile=$dir/controller.pid
SlurmdPidFile=$dir/slurmd-%n.pid
SlurmctldLogFile=$dir/log/controller.log
SlurmdLogFile=$dir/log/slurmd-%n.log
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
KillWait=20
JobRequeue=1
SwitchType=switch/none
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 1)) CPUs=1 State=UNKNOWN
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 2)) CPUs=1 State=UNKNOWN
PartitionName=p Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
END
}

# Starts a daemon apart from this call, and keeps its process id.
daemon() {
  local name=$1
  shift
  setsid "$@" >/dev/null 2>&1 </dev/null &
  echo "$!" >"$dir/$name.daemon"
}

start() {
  local node
  unpack
  configure
  eval "$(settings)"
  # -c: jobs that an earlier call has left are forgotten.
  daemon controller "$root/usr/sbin/slurmctld-wlm" -c -D
  sleep 2
  for node in n1 n2; do
    daemon "$node" "$root/usr/sbin/slurmd-wlm" -D -N "$node" -d "$root/usr/sbin/slurmstepd-wlm"
  done
  for _ in {1..60}; do
    if [[ "$(sinfo -h -o %t -N 2>/dev/null | grep -c idle)" -eq 2 ]]; then return; fi
    sleep 0.5
  done
  printf 'not up after 30 s: see %s\n' "$dir/log" >&2
  exit 1
}

stop() {
  local file job
  # A daemon waits for its jobs.
  (
    eval "$(settings)"
    for job in $(timeout 5 squeue -h -o %i 2>/dev/null); do timeout 5 scancel --signal=KILL --full "$job" || true; done
  )
  for file in "$dir"/*.daemon; do
    if ! [[ -e "$file" ]]; then continue; fi
    for _ in {1..50}; do
      if ! kill "$(cat "$file")" 2>/dev/null; then break; fi
      sleep 0.2
    done
    kill -KILL "$(cat "$file")" 2>/dev/null || true
    rm -f "$file"
  done
}

case $1 in
  start) start ;;
  env) settings ;;
  stop) stop ;;
  *) exit 2 ;;
esac
