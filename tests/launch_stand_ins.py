"""Stand-ins of the programs that the launchers call: they record each call and answer as a test has told them.

Only bash, git and the POSIX tools are real, in a copy of the launchers whose ``local.sh`` prints its words.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BASH = shutil.which("bash") or "/bin/bash"
TOOLS = """base64 bash cat cp dirname env git grep gzip mkdir mktemp mv rm sed setsid sleep tail tar tee touch tr wc"""

# Records the call, finds out its kind, and answers with the next line that the test has written for that kind, of which
# the last one stays: a status, and what is printed, to standard error if the status is not 0.
STAND_IN = r"""
{ printf '%s' "${0##*/}"; printf '\t%s' "$@"; printf '\n'; } >>"$HOME/calls"
play() {
  local file=$HOME/play/$1 line rest
  [[ -e $file ]] || return 0
  { IFS= read -r line; rest=$(cat); } <"$file"
  if [[ $rest ]]; then printf '%s\n' "$rest" >"$file"; fi
  printf '%s %s\n' "$1" "$line" >>"$HOME/played"
  case $line in
    hang) exec sleep 60 ;;
    '0 '*) printf '%b\n' "${line#* }" ;;
    *' '*) printf '%b\n' "${line#* }" >&2 ;;
  esac
  return "${line%% *}"
}
"""

GCLOUD = r"""
for word in "$@"; do case $word in --command=*) command=${word#*=} ;; esac; done
case "$4 ${command-}" in
  'ssh '*tar*install) kind=install ;;
  'ssh '*'tpu_worker.sh '*) kind=${command#*tpu_worker.sh }; kind=${kind%% *} ;;
  *) kind=$4 ;;
esac
play "$kind" || exit
case $kind in
  scp) cp "$5" "$HOME/${6#*:}" ;;
  install | start | restart | follow | status | stop)
    if [[ -e $HOME/real ]]; then cd "$HOME" && exec bash -c "$command"; fi ;;
esac
"""

KUBECTL = r"""
case "$*" in
  'get jobset'*) play jobset ;;
  'get pods'*exitCode*) play codes ;;
  'get pods'*) play pods ;;
  logs*) play "logs-$3" ;;
esac
"""

# srun lasts until scancel or a file ends it, where a test says "wait".
SRUN = r"""
if [[ $(cat "$HOME/play/srun" 2>/dev/null) = wait ]]; then
  until [[ -e $HOME/terminated ]]; do sleep 0.05; done
  exit 143
fi
play srun
"""
SCONTROL = r"""case $1 in show) printf 'n1\nn2\n' ;; *) play "$1" ;; esac"""

PROGRAMS = {
    "gcloud": GCLOUD,
    "xpk": 'play "$2"',
    "kubectl": KUBECTL,
    "srun": SRUN,
    "scontrol": SCONTROL,
    "scancel": ': >"$HOME/terminated"',
    "squeue": "play squeue",
    "python3": "exit 0",
}

LOCAL = r"""
echo "local$(printf ' <%s>' "$@") port=${JAX_COORDINATOR_PORT-}"
if [[ $1 != true ]]; then exit "$(cat "$HOME/exit" 2>/dev/null || echo 0)"; fi
"""


def write(path: Path, body: str) -> Path:
    """Write a bash program."""
    path.write_text(f"#!{BASH}\n{body}\n")
    path.chmod(0o755)
    return path


class Cloud:
    """A machine on which every program of a cloud is a stand-in, and the record of what was asked of them."""

    def __init__(self, home: Path) -> None:
        self.home, self.repo = home, home / "the repo"
        for name in ("bin", "play", "the repo"):
            (home / name).mkdir(parents=True)
        shutil.copytree(ROOT / "launch", self.repo / "launch")
        write(self.repo / "launch/local.sh", LOCAL)
        for tool in TOOLS.split():
            if path := shutil.which(tool):
                (home / "bin" / tool).symlink_to(path)
        for name, body in PROGRAMS.items():
            write(home / "bin" / name, STAND_IN + body)
        (home / "calls").touch()
        subprocess.run(["git", "init", "-q", str(self.repo)], check=True)

    def play(self, kind: str, *lines: str) -> None:
        """Set the answers to calls of one kind, in order."""
        (self.home / "play" / kind).write_text("\n".join(lines) + "\n")

    def start(self, script: str, *words: str, **variables: str) -> subprocess.Popen[str]:
        """Start a launcher as the leader of a process group, without the test's own environment."""
        environment = {"PATH": str(self.home / "bin"), "HOME": str(self.home), **variables}
        command = [BASH, str(self.repo / "launch" / script), *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self.home, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
        )

    def run(self, script: str, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a launcher to its end."""
        return ended(self.start(script, *words, **variables))

    def calls(self, program: str = "") -> list[list[str]]:
        """The recorded calls, of one program or of all, each as its words."""
        lines = (self.home / "calls").read_text().splitlines()
        words = [line.split("\t") for line in lines]
        return [call[1:] if program else call for call in words if program in ("", call[0])]


def ended(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """Wait for a launcher, which must not take long."""
    try:
        output, errors = process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def wait_until(path: Path, text: str, seconds: int = 30) -> None:
    """Wait until a file holds a text."""
    for _ in range(20 * seconds):
        if path.exists() and text in path.read_text():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} does not hold {text!r}")
