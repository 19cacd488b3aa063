"""launch/slurm.sbatch: against stand-ins of Slurm's programs, and on a real Slurm of two nodes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import CONFIG, SMALL
from tests.launch_stand_ins import ROOT, Cloud, ended, wait_until, write

JOB = {"SLURM_JOB_ID": "24001", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_NUM_NODES": "2"}


@pytest.fixture
def cluster(tmp_path: Path) -> Cloud:
    return Cloud(tmp_path / "a cluster")


def launch(cluster: Cloud, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    given = {**JOB, "SLURM_SUBMIT_DIR": str(cluster.repo), **variables}
    return cluster.run("slurm.sbatch", *options, "--", "train", "--workdir=a  b", **given)


def programs(cluster: Cloud) -> list[str]:
    return [call[0] for call in cluster.calls()]


def test_processes_are_started_by_srun_after_one_installation(cluster: Cloud) -> None:
    write(cluster.home / "bin/srun", 'env | grep ^JAX_; printf "<%s>\\n" "$@"')
    result = launch(cluster, "--srun-flag=--mpi=none", SLURM_CPUS_PER_TASK="12", SLURM_GPUS_ON_NODE="4")
    assert result.returncode == 0, result.stderr
    installed, *environment = result.stdout.splitlines()[:3]
    assert installed == "local <true> port="
    assert sorted(environment) == ["JAX_COORDINATOR_ADDRESS=n1:20001", "JAX_LOCAL_DEVICE_IDS=0,1,2,3"]
    flags = ["--ntasks-per-node=1", "--kill-on-bad-exit=0", "--wait=120", "--cpus-per-task=12", "--mpi=none"]
    command = ["bash", f"{cluster.repo}/launch/local.sh", "train", "--workdir=a  b"]
    assert result.stdout.splitlines()[3:] == [f"<{word}>" for word in [*flags, *command]]


def test_process_per_gpu_leaves_the_choice_of_devices_to_jax(cluster: Cloud) -> None:
    write(cluster.home / "bin/srun", 'env | grep ^JAX_; printf "<%s>\\n" "$1"')
    result = launch(cluster, "--coordinator=h", SLURM_NTASKS_PER_NODE="4", SLURM_GPUS_ON_NODE="4")
    assert result.stdout.splitlines()[1:] == ["JAX_COORDINATOR_ADDRESS=h:20001", "<--ntasks-per-node=4>"]


def test_process_that_is_alone_meets_nobody(cluster: Cloud) -> None:
    write(cluster.home / "bin/srun", "env | grep -c ^JAX_")
    assert launch(cluster, SLURM_JOB_NUM_NODES="1").stdout.splitlines()[1:] == ["0", "0", "0", "0"]  # grep fails
    write(cluster.home / "bin/srun", "env | grep ^JAX_")
    result = launch(cluster, SLURM_JOB_NUM_NODES="1", SLURM_NTASKS_PER_NODE="2", SLURM_JOB_NODELIST="n1")
    assert result.stdout.splitlines()[1:] == ["JAX_COORDINATOR_ADDRESS=n1:20001"]


def test_sigterm_saves_once_and_queues_the_job_again(cluster: Cloud) -> None:
    cluster.play("srun", "wait")
    cluster.play("squeue", "0 RUNNING")
    process = cluster.start("slurm.sbatch", "train", **JOB, SLURM_SUBMIT_DIR=str(cluster.repo))
    wait_until(cluster.home / "calls", "srun")
    process.terminate()
    result = ended(process)
    assert result.returncode == 143
    assert "queued again (restart 1 of 100 at most)" in result.stderr
    assert cluster.calls("scancel") == [["--signal=TERM", "24001"]]
    assert cluster.calls("scontrol")[-1] == ["requeue", "24001"]


def test_cancelled_job_stays_cancelled(cluster: Cloud) -> None:
    cluster.play("srun", "wait")
    cluster.play("squeue", "0 COMPLETING")
    process = cluster.start("slurm.sbatch", "train", **JOB, SLURM_SUBMIT_DIR=str(cluster.repo))
    wait_until(cluster.home / "calls", "srun")
    process.terminate()
    wait_until(cluster.home / "calls", "squeue")
    (cluster.home / "terminated").touch()  # by Slurm itself
    assert ended(process).returncode == 143
    assert "scancel" not in programs(cluster)
    assert ["requeue", "24001"] not in cluster.calls("scontrol")


def test_processes_that_were_stopped_are_queued_again_until_the_budget_is_used_up(cluster: Cloud) -> None:
    cluster.play("srun", "143")
    assert launch(cluster, "--max-preemptions=2", SLURM_RESTART_COUNT="1").returncode == 143
    assert cluster.calls("scontrol")[-1] == ["requeue", "24001"]
    (cluster.home / "calls").write_text("")
    result = launch(cluster, "--max-preemptions=2", SLURM_RESTART_COUNT="2")
    assert result.returncode == 75
    assert "after 2 restarts" in result.stderr
    assert ["requeue", "24001"] not in cluster.calls("scontrol")


def test_requeue_that_slurm_refuses_is_said(cluster: Cloud) -> None:
    cluster.play("srun", "143")
    cluster.play("requeue", "1 not permitted")
    result = launch(cluster)
    assert result.returncode == 143
    assert "submit it anew" in result.stderr


@pytest.mark.parametrize(("statuses", "status", "runs"), [(("1", "75", "0"), 0, 3), (("137",), 137, 3), (("2",), 2, 1)])
def test_failures_run_again_on_the_same_nodes(
    cluster: Cloud, statuses: tuple[str, ...], status: int, runs: int
) -> None:
    cluster.play("srun", *statuses)
    result = launch(cluster, "--max-failures=2")
    assert result.returncode == status, result.stderr
    assert programs(cluster).count("srun") == runs
    assert ["requeue", "24001"] not in cluster.calls("scontrol")


def test_jobs_that_jax_could_not_use_are_refused(cluster: Cloud) -> None:
    for variables, said in (
        ({"SLURM_GPUS_PER_TASK": "1"}, "use --gres=gpu:N"),
        ({"SLURM_NTASKS_PER_NODE": "2", "SLURM_GPUS_ON_NODE": "8"}, "--ntasks-per-node = 2: must be 1, or"),
        ({"SLURM_SUBMIT_DIR": "/"}, "is not the repository"),
    ):
        result = launch(cluster, **variables)
        assert result.returncode == 2
        assert said in result.stderr
    result = cluster.run("slurm.sbatch", "train")
    assert result.returncode == 2
    assert "submit it: sbatch" in result.stderr


# --- A real Slurm

# Counts to TARGET, ten a second, from the number that an earlier process of its rank has saved.
COUNT = r"""
file=$1/step-$SLURM_PROCID
step=$(cat "$file" 2>/dev/null || echo 0)
trap 'echo "$step" >"$file"; echo "rank $SLURM_PROCID saved"; exit 143' TERM
echo "rank $SLURM_PROCID of $SLURM_NTASKS at $JAX_COORDINATOR_ADDRESS from $step restart ${SLURM_RESTART_COUNT-0} <$2>"
while [[ $step -lt $TARGET ]]; do step=$((step + 1)); sleep 0.1 & wait "$!"; done
echo "rank $SLURM_PROCID finished"
exit "${END-0}"
"""


# The command line of this interpreter, with devices that every machine has.
GEONOISE = """
export JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=2
exec "$PYTHON" -m geonoise_jax "$@"
"""


class Slurm:
    """A Slurm of two nodes on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.script = str(ROOT / "tests/slurm/two_nodes.sh")
        text = subprocess.run(["bash", self.script, "env", str(folder)], capture_output=True, text=True, check=True)
        show = ["bash", "-c", f"{text.stdout}env -0"]
        shown = subprocess.run(show, capture_output=True, text=True, check=True).stdout
        self.environment = dict(line.split("=", 1) for line in shown.split("\0") if "=" in line)

    def do(self, *words: str, **variables: str) -> str:
        """Run a program of Slurm in the repository root, and return what it prints."""
        environment = {**self.environment, **variables}
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def state(self, job: str) -> str:
        (state,) = re.findall(r"JobState=(\w+)", self.do("scontrol", "show", "job", job))
        return state

    def wait(self, job: str, *states: str, seconds: int = 120) -> str:
        """Wait until the job is in one of some states."""
        for _ in range(2 * seconds):
            if (state := self.state(job)) in states:
                return state
            time.sleep(0.5)
        raise AssertionError(f"job {job} is {state}")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    if os.getuid() != 0 or not all(map(shutil.which, ("apt-get", "dpkg", "setsid"))):
        pytest.skip("needs root, and the packages of Debian")
    folder = Path(os.environ.get("GEONOISE_SLURM_FOLDER") or tmp_path_factory.mktemp("slurm"))
    two_nodes = ["bash", str(ROOT / "tests/slurm/two_nodes.sh")]
    started = subprocess.run([*two_nodes, "start", str(folder)], capture_output=True, text=True, timeout=300)
    try:
        if started.returncode != 0:
            pytest.skip(f"no Slurm to be had here: {started.stderr[-300:]}")
        yield Slurm(folder)
    finally:
        subprocess.run([*two_nodes, "stop", str(folder)], check=True)


def submit(slurm: Slurm, folder: Path, *options: str, **variables: str) -> tuple[str, Path]:
    """Submit a job of two nodes; returns its number and its log."""
    program = write(folder / "count", COUNT)
    log = folder / "log"
    words = ["sbatch", "--parsable", "--nodes=2", f"--output={log}", *options, "launch/slurm.sbatch"]
    given = {"TARGET": "50", **variables}
    job = slurm.do(*words, "--coordinator=127.0.0.1", f"--program={program}", "--", str(folder), "a  b's", **given)
    return job, log


@pytest.mark.slow
def test_preempted_job_saves_waits_in_the_queue_and_goes_on(slurm: Slurm, tmp_path: Path) -> None:
    job, log = submit(slurm, tmp_path, TARGET="100")
    port = 20000 + int(job) % 12000
    for rank in range(2):
        wait_until(log, f"rank {rank} of 2 at 127.0.0.1:{port} from 0 restart 0 <a  b's>")
    time.sleep(1.0)
    slurm.do("scancel", "--batch", "--signal=TERM", job)  # as before the time limit, and at a preemption
    wait_until(log, "queued again")
    slurm.wait(job, "PENDING")
    steps = [int((tmp_path / f"step-{rank}").read_text()) for rank in range(2)]
    assert min(steps) > 0
    slurm.do("scontrol", "update", f"JobId={job}", "StartTime=now")  # Slurm itself waits two minutes
    slurm.wait(job, "COMPLETED", "FAILED")
    text = log.read_text()
    for rank, step in enumerate(steps):
        assert f"rank {rank} of 2 at 127.0.0.1:{port} from {step} restart 1 <a  b's>" in text
        assert f"rank {rank} finished" in text
    assert slurm.state(job) == "COMPLETED"


@pytest.mark.slow
def test_job_saves_before_its_time_limit(slurm: Slurm, tmp_path: Path) -> None:
    # Slurm looks every half a minute.
    job, log = submit(slurm, tmp_path, "--time=1", "--signal=B:TERM@30", TARGET="6000")
    wait_until(log, "queued again", seconds=100)
    assert all(f"rank {rank} saved" in log.read_text() for rank in range(2))
    slurm.do("scancel", job)


@pytest.mark.slow
def test_cancelled_job_saves_and_is_over(slurm: Slurm, tmp_path: Path) -> None:
    job, log = submit(slurm, tmp_path, TARGET="600")
    for rank in range(2):
        wait_until(log, f"rank {rank} of")
    slurm.do("scancel", job)
    assert slurm.wait(job, "CANCELLED", "COMPLETED", "FAILED") == "CANCELLED"
    wait_until(log, "rank 0 saved")
    assert "queued again" not in log.read_text()


@pytest.mark.slow
def test_failed_processes_run_again_in_the_same_job(slurm: Slurm, tmp_path: Path) -> None:
    job, log = submit(slurm, tmp_path, TARGET="1", END="75")
    slurm.wait(job, "FAILED")
    assert log.read_text().count("rank 0 finished") == 4
    assert "ExitCode=75:0" in slurm.do("scontrol", "show", "job", job)


def losses(workdir: Path) -> dict[int, float]:
    """The training loss at each step that was logged."""
    path = workdir / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


@pytest.mark.slow
def test_training_on_two_nodes_is_preempted_and_ends_with_the_same_result(slurm: Slurm, tmp_path: Path) -> None:
    program = write(tmp_path / "geonoise", GEONOISE)
    log = tmp_path / "log"
    python = {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    given: dict[str, Any] = {**SMALL, "training.num_steps": 600, "training.log_every": 10, "checkpoint.every": 5000}
    given |= {"data.data_dir": tmp_path / "data"}
    train = ["train", CONFIG, *(f"--config.{key}={value}" for key, value in given.items())]

    def begin(workdir: Path) -> str:
        words = [
            "sbatch",
            "--parsable",
            "--nodes=2",
            f"--output={log}",
            "launch/slurm.sbatch",
            "--coordinator=127.0.0.1",
        ]
        return slurm.do(*words, f"--program={program}", "--", *train, f"--workdir={workdir}", **python)

    undisturbed, preempted = tmp_path / "undisturbed", tmp_path / "two words"
    assert slurm.wait(begin(undisturbed), "COMPLETED", "FAILED", seconds=500) == "COMPLETED"
    job = begin(preempted)
    wait_until(preempted / "metrics.jsonl", '"loss"', seconds=300)
    slurm.do("scancel", "--batch", "--signal=TERM", job)
    wait_until(log, "queued again", seconds=120)
    (saved,) = [int(path.name) for path in (preempted / "checkpoints").iterdir()]
    assert saved < 600
    slurm.wait(job, "PENDING")
    slurm.do("scontrol", "update", f"JobId={job}", "StartTime=now")
    assert slurm.wait(job, "COMPLETED", "FAILED", seconds=500) == "COMPLETED"
    assert f"SIGTERM: saved step {saved}" in log.read_text()
    assert losses(preempted) == losses(undisturbed)
    assert max(losses(preempted)) == 600
