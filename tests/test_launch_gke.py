"""launch/gke_xpk.sh against an xpk and a kubectl that play every state of a JobSet and every failure."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.launch_stand_ins import Cloud, ended, wait_until, write

WORKLOAD = ["--cluster=c", "--name=run", "--poll=0"]
TPU = [*WORKLOAD, "--tpu=v5litepod-16", "--image=i"]
MISSING = "1 Error: (NotFound)"


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    """A cluster in which the workload succeeds."""
    cloud = Cloud(tmp_path / "a machine")
    cloud.play("jobset", MISSING, "0", "0", "0 Completed")
    cloud.play("pods", "0 run-0 Pending", "0 run-0 Running")
    cloud.play("logs-run-0", "0 step 1\\nstep 2", "0 step 1\\nstep 2\\nstep 3")
    return cloud


def launch(cloud: Cloud, *options: str) -> subprocess.CompletedProcess[str]:
    return cloud.run("gke_xpk.sh", *(options or TPU), "--", "train", "--workdir=/b")


def kinds(cloud: Cloud) -> list[str]:
    return [words[1] for words in cloud.calls("xpk")]


def created(cloud: Cloud) -> list[str]:
    (words,) = [words for words in cloud.calls("xpk") if words[1] == "create"]
    return words


def test_workload_is_made_followed_and_deleted(cloud: Cloud) -> None:
    result = launch(cloud)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "step 1\nstep 2\nstep 3\n"
    listed, create, delete = cloud.calls("xpk")
    assert listed == ["workload", "list", "--cluster=c", "--filter-by-job=^run$"]
    flags = "--tpu-type=v5litepod-16 --num-slices=1 --env=JAX_COORDINATOR_PORT=8476 --docker-image=i --max-restarts=50"
    flags += " --restart-on-exit-codes=1,3-126 --termination-grace-period-seconds=120"
    command = "--command=exec geonoise train --workdir=/b"
    assert create == ["workload", "create", "--cluster=c", "--workload=run", *flags.split(), command]
    assert delete == ["workload", "delete", "--cluster=c", "--workload=run", "--force"]
    (logs, *_) = [words for words in cloud.calls("kubectl") if words[0] == "logs"]
    assert logs == ["logs", "--follow", "run-0"]


def test_options_reach_xpk(cloud: Cloud) -> None:
    options = ["--zone=z", "--project=p", "--slices=2", "--spot", "--storage=s", "--env=A=b c", "--create-flag=--x=y"]
    launch(cloud, *TPU, *options, "--max-restarts=7", "--grace=30", "--keep")
    create = created(cloud)
    assert {"--zone=z", "--project=p", "--num-slices=2", "--spot", "--storage=s", "--x=y"} < set(create)
    assert create[-1] == "--command=exec env 'A=b c' geonoise train --workdir=/b"
    assert {"--max-restarts=7", "--termination-grace-period-seconds=30"} < set(create)
    assert kinds(cloud) == ["list", "create"]  # kept


def test_pods_of_gpus_learn_their_numbers(cloud: Cloud) -> None:
    launch(cloud, *WORKLOAD, "--gpu=h100-8", "--nodes=2", "--base-image=b")
    create = created(cloud)
    assert {"--device-type=h100-8", "--num-nodes=2", "--base-docker-image=b", f"--script-dir={cloud.repo}"} < set(
        create
    )
    text = create[-1].removeprefix("--command=").replace("exec python -m geonoise_jax", "env; :")
    pod = {"JAX_COORDINATOR_ADDRESS": "host", "JAX_COORDINATOR_PORT": "6002", "NNODES": "2", "NODE_RANK": "1"}
    shown = subprocess.run(["bash", "-c", text], env={**os.environ, **pod}, capture_output=True, text=True, check=True)
    expected = {"JAX_COORDINATOR_ADDRESS=host:6002", "JAX_NUM_PROCESSES=2", "JAX_PROCESS_ID=1"}
    assert expected < set(shown.stdout.splitlines())


@pytest.mark.parametrize(
    "words",
    [
        ["train", "--workdir=/a  b", "*"],
        ["train", "it's", 'a "b"', "back\\slash", "$HOME $(A) $$ `ls`", "a\n\tb  c ", ""],
    ],
)
def test_words_survive_yaml_and_kubernetes(cloud: Cloud, words: list[str]) -> None:
    """xpk writes the command between double quotes without escaping, and Kubernetes replaces $(NAME) and $$."""
    cloud.run("gke_xpk.sh", *TPU, *words)
    (text,) = [word for word in created(cloud) if word.startswith("--command=")]
    text = text.removeprefix("--command=")
    assert not set('"\\\n') & set(text)
    assert "$(" not in text
    assert "$$" not in text
    write(cloud.home / "bin/geonoise", r"printf '%s\0' " '"$@"')
    # As xpk runs it.
    run = ["bash", "-c", f"({text}) & PID=$!; wait $PID"]
    shown = subprocess.run(run, env={"PATH": str(cloud.home / "bin")}, capture_output=True, check=True, cwd=cloud.repo)
    assert shown.stdout.decode().split("\0")[:-1] == words


def test_pod_after_a_restart_is_followed_from_its_beginning(cloud: Cloud) -> None:
    cloud.play("jobset", MISSING, "0", "0 Completed")
    cloud.play("pods", "0 run-0 Failed", "0 run-1 Running")
    cloud.play("logs-run-0", "0 step 1")
    cloud.play("logs-run-1", "0 step 1 again")
    result = launch(cloud)
    assert result.stdout == "step 1\nstep 1 again\n"
    assert "pod run-1" in result.stderr


@pytest.mark.parametrize(("codes", "status"), [("2\\n75", 2), ("75\\n1", 1), ("\\n75", 1), ("137", 137), ("", 1)])
def test_status_is_that_of_the_pods(cloud: Cloud, codes: str, status: int) -> None:
    cloud.play("jobset", MISSING, "0 Failed")
    cloud.play("codes", f"0 {codes}")
    result = launch(cloud)
    assert result.returncode == status, result.stderr
    assert ("refused" in result.stderr) == (status == 2)
    assert kinds(cloud)[-1] == "delete"


def test_workload_that_is_left_over_makes_way_and_one_that_runs_is_followed(cloud: Cloud) -> None:
    cloud.play("jobset", "0 Failed", "0 Completed")
    assert launch(cloud).returncode == 0
    assert kinds(cloud) == ["list", "delete", "create", "delete"]
    (cloud.home / "calls").write_text("")
    cloud.play("jobset", "0", "0 Completed")
    assert "runs already" in launch(cloud).stderr
    assert kinds(cloud) == ["list", "delete"]


def test_workload_that_cannot_be_made_or_deleted_or_seen(cloud: Cloud) -> None:
    cloud.play("create", "1 no capacity")
    result = launch(cloud)
    assert result.returncode == 1
    assert "no capacity" in result.stderr
    assert "delete" not in kinds(cloud)
    (cloud.home / "play/create").unlink()
    cloud.play("delete", "1 later", "1 later", "0")
    cloud.play("jobset", MISSING, "1 no route", "0 Completed")
    assert launch(cloud).returncode == 0
    cloud.play("delete", "1 forbidden")
    cloud.play("jobset", MISSING, "0 Completed")
    result = launch(cloud)
    assert result.returncode == 1
    assert "may still run; delete it by: xpk workload delete --cluster=c --workload=run --force" in result.stderr
    cloud.play("jobset", MISSING, "1 no route")
    result = launch(cloud)
    assert result.returncode == 1
    assert "does not say what has become of run" in result.stderr
    cloud.play("list", "1 no such cluster")
    assert "cannot reach the cluster c" in launch(cloud).stderr


def test_workload_deleted_by_somebody_else(cloud: Cloud) -> None:
    cloud.play("jobset", MISSING, "0", MISSING)
    result = launch(cloud)
    assert result.returncode == 75
    assert "deleted by somebody else" in result.stderr


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_launcher_says_what_it_leaves(cloud: Cloud, number: int, status: int) -> None:
    cloud.play("pods", "0 run-0 Running")
    cloud.play("logs-run-0", "hang")
    process = cloud.start("gke_xpk.sh", *TPU, "train")
    wait_until(cloud.home / "played", "hang")
    os.kill(process.pid, number)
    result = ended(process)
    assert result.returncode == status
    assert "run goes on. Follow it: the same command; delete it by: xpk workload delete" in result.stderr
    assert "delete" not in kinds(cloud)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--name=run", "--tpu=x", "--image=i"], "--cluster"),
        ([*WORKLOAD, "--image=i"], "one of --tpu and --gpu"),
        ([*TPU, "--gpu=x"], "one of --tpu and --gpu"),
        ([*WORKLOAD, "--tpu=x"], "one of --image and --base-image"),
        ([*TPU, "--nodes=2"], "--nodes: is for --gpu"),
        ([*WORKLOAD, "--gpu=x", "--image=i", "--slices=2"], "--slices: is for --tpu"),
        ([*TPU, "--spot", "--flex"], "exclude each other"),
        ([*TPU, "--max-restarts=-1"], "--max-restarts = -1"),
    ],
)
def test_bad_options_are_refused_before_anything_is_asked_for(cloud: Cloud, options: list[str], said: str) -> None:
    result = launch(cloud, *options)
    assert result.returncode == 2
    assert said in result.stderr
    assert cloud.calls() == []
