"""launch/multiprocess_local.sh: processes of one machine, their output, signals and statuses."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.launch_stand_ins import Cloud, ended, wait_until, write

# Says who it is, does what DO_0 or DO_1 says, and saves at a signal.
PROCESS = r"""
trap 'echo saved by TERM; exit 143' TERM
trap 'echo saved by INT; exit 130' INT
devices="${JAX_NUM_CPU_DEVICES-} ${JAX_LOCAL_DEVICE_IDS-}"
# In one piece, as others print at the same time.
echo "$JAX_PROCESS_ID of $JAX_NUM_PROCESSES at $JAX_COORDINATOR_ADDRESS with $devices:$(printf ' <%s>' "$@")"
echo "process $JAX_PROCESS_ID" >>"$HOME/begun"
name=DO_$JAX_PROCESS_ID
case ${!name-} in
  wait) while :; do read -t 0.1 <><(:); done ;;
  deaf) trap '' TERM; while :; do read -t 0.1 <><(:); done ;;
  '') ;;
  *) echo error >&2; exit "${!name}" ;;
esac
"""


@pytest.fixture
def machine(tmp_path: Path) -> Cloud:
    machine = Cloud(tmp_path / "a machine")
    write(machine.home / "process", PROCESS)
    return machine


def words(machine: Cloud, *options: str) -> list[str]:
    return [*options, f"--program={machine.home}/process", "2", "--", "train", "a  b"]


def launch(machine: Cloud, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return machine.run("multiprocess_local.sh", *words(machine, *options), **variables)


def test_processes_know_each_other_and_the_lead_prints_plainly(machine: Cloud) -> None:
    result = launch(machine, "--devices=4")
    assert result.returncode == 0, result.stderr
    lines = sorted(result.stdout.splitlines())
    (port,) = {port for line in lines for port in re.findall(r"127\.0\.0\.1:(\d+)", line)}
    assert 20000 <= int(port) < 32000
    assert lines == [
        f"0 of 2 at 127.0.0.1:{port} with 4 0,1,2,3: <train> <a  b>",
        f"[1] 1 of 2 at 127.0.0.1:{port} with 4 4,5,6,7: <train> <a  b>",
    ]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_go_on_to_all(machine: Cloud, number: signal.Signals, status: int) -> None:
    process = machine.start("multiprocess_local.sh", *words(machine), DO_0="wait", DO_1="wait")
    for index in range(2):
        wait_until(machine.home / "begun", f"process {index}")
    process.send_signal(number)
    result = ended(process)
    assert result.returncode == status
    saved = f"saved by {number.name[3:]}"
    assert sorted(line for line in result.stdout.splitlines() if "saved" in line) == [f"[1] {saved}", saved]


def test_status_is_that_of_the_lead(machine: Cloud) -> None:
    assert launch(machine, DO_0="3").returncode == 3
    result = launch(machine, DO_1="4")
    assert result.returncode == 0
    assert "[1] error" in result.stderr
    assert "process 1 ended with status 4" in result.stderr


def test_process_that_outlives_another_is_ended(machine: Cloud) -> None:
    result = launch(machine, "--grace=0", DO_0="wait", DO_1="7")
    assert result.returncode == 75
    assert "saved by TERM" in result.stdout
    assert "process 1 ended with status 7, 0 s ago: ending the other 1" in result.stderr
    result = launch(machine, "--grace=1", DO_0="7", DO_1="deaf")
    assert result.returncode == 7
    assert "process 1 ended with status 137" in result.stderr
    assert launch(machine, "--grace=0", DO_1="wait").returncode == 0


def test_installation_comes_once_before_the_processes(machine: Cloud) -> None:
    result = machine.run("multiprocess_local.sh", "2", "train", "it's")
    assert result.returncode == 0, result.stderr
    first, *others = result.stdout.splitlines()
    assert first == "local <true> port="
    assert sorted(others) == ["[1] local <train> <it's> port=", "local <train> <it's> port="]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["train"], "N = train"),
        (["0", "train"], "N = 0"),
        (["2"], "the command is missing"),
        (["--devices=x", "2", "train"], "--devices = x"),
        (["--nodes=2", "2", "train"], "--nodes: no option"),
    ],
)
def test_bad_words_are_refused(machine: Cloud, given: list[str], said: str) -> None:
    result = machine.run("multiprocess_local.sh", *given)
    assert result.returncode == 2
    assert said in result.stderr
