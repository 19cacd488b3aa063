# shellcheck shell=bash
# What the launchers share. They source it and set `launcher`, their name in messages. Written for bash 4.
#
# The words of every launcher: its own options come first, as --name or --name=value; the words of geonoise begin at the
# first that is no option, and a -- may stand before them.

# Older ones take an empty array for a variable that is not set.
if [[ "$((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1]))" -lt 404 ]]; then set +u; fi

dry_run=
child=

note() { printf '%s: %s\n' "${launcher:?}" "$*" >&2; }
fail() { note "$@"; exit 2; }

# Says what only a real run can say.
announce() { if [[ -z "$dry_run" ]]; then note "$@"; fi; }

# Prints words so that any POSIX shell reads them back as they are.
quoted() {
  local word first=1 quote="'" escaped="'\\''"
  for word in "$@"; do
    if [[ "$first" ]]; then first=; else printf ' '; fi
    case $word in
      '' | *[!A-Za-z0-9_@%+=:,./-]*) printf "'%s'" "${word//$quote/$escaped}" ;;
      *) printf '%s' "$word" ;;
    esac
  done
}

show() { quoted "$@"; printf '\n'; }

# Runs a command, or prints it. Signals to the launcher are handled while it runs, and end_child ends it whole: it has a
# process group of its own, without which a process of the background would ignore SIGINT besides.
attended() {
  local status=0
  if [[ "$dry_run" ]]; then show "$@"; return; fi
  set -m
  "$@" </dev/null &
  child=$!
  set +m
  wait "$child" || status=$?
  child=
  return "$status"
}

end_child() {
  if [[ "$child" ]]; then kill -TERM -- "-$child" 2>/dev/null || true; fi
  child=
}

pause() { attended sleep "$1"; }

# Runs a command and adds what it prints to the file `scratch`/log.
logged() {
  "$@" | tee -a "${scratch:?}/log"
  return "${PIPESTATUS[0]}"
}

# --- Options --------------------------------------------------------------------------------------------------------

# Prints the comment at the head of a launcher, without the lines that are for the system.
usage() {
  local line
  while IFS= read -r line; do
    case $line in '#!'* | '#SBATCH'*) continue ;; '#'*) line=${line#\#}; printf '%s\n' "${line# }" ;; *) return ;; esac
  done <"$1"
}

# True if the word is an option of the launcher; sets `option` and `value`.
split_option() {
  case $1 in
    --?*=*) option=${1%%=*} value=${1#*=} ;;
    --?*) option=$1 value= ;;
    *) return 1 ;;
  esac
}

needs_value() { if [[ -z "$value" ]]; then fail "$option: needs a value, as $option=..."; fi; }

whole_number() {
  case $value in '' | *[!0-9]*) fail "$option = $value: must be a whole number, 0 or more" ;; esac
}

positive_number() { whole_number; if [[ "$((10#$value))" -eq 0 ]]; then fail "$option = $value: must be 1 or more"; fi; }

seconds() {
  case $value in '' | . | *[!0-9.]* | *.*.*) fail "$option = $value: must be a number of seconds" ;; esac
}

assignment() {
  if ! [[ "$value" =~ ^[A-Za-z_][A-Za-z0-9_]*= ]]; then fail "$option = $value: must be NAME=VALUE"; fi
}

unknown_option() { fail "$option: no option of this launcher (see --help); the words of geonoise come after its options"; }

# Prints "4,5,6,7" for 4 and 4: so many numbers from the first on.
numbers() {
  local number list=$1
  for ((number = $1 + 1; number < $1 + $2; number++)); do list=$list,$number; done
  printf '%s' "$list"
}

# --- What the status of a process means -----------------------------------------------------------------------------

# Prints one word for the statuses of the processes of one run, each a number, `running` or `gone`:
#   done       every process has finished
#   refused    a user's error: no restart would help
#   failed     a process failed
#   preempted  a signal stopped them, after saving, or the machine went away under them
#   lost       nothing but processes that miss a peer, or still run
verdict() {
  local status done=1 failed='' preempted='' refused=''
  if [[ $# -eq 0 ]]; then set -- gone; fi
  for status in "$@"; do
    if [[ "$status" != 0 ]]; then done=; fi
    case $status in
      0 | 75 | running) ;;
      2) refused=1 ;;
      129 | 130 | 143 | gone) preempted=1 ;;
      *) failed=1 ;;
    esac
  done
  if [[ "$done" ]]; then printf 'done'
  elif [[ "$refused" ]]; then printf 'refused'
  elif [[ "$failed" ]]; then printf 'failed'
  elif [[ "$preempted" ]]; then printf 'preempted'
  else printf 'lost'; fi
}

# Prints the first status that is neither success nor that of a process that missed another, or 1.
worst() {
  local status
  for status in "$@"; do
    case $status in 0 | 75 | running | gone) ;; *) printf '%s' "$status"; return ;; esac
  done
  printf 1
}
