"""launch/tpu_vm.sh against a gcloud that plays every state of the queue and every failure, and launch/tpu_worker.sh."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.launch_stand_ins import Cloud, ended, wait_until, write

TRAIN = ["train", "--workdir=/mnt/a b/it's", '--config=$HOME "x"; *']
SLICE = ["--name=run", "--zone=z", "--type=v6e-8", "--poll=0", "--grace=0"]
MISSING = "1 NOT_FOUND: no such resource"


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    """A zone with capacity, in which the run succeeds."""
    cloud = Cloud(tmp_path / "a machine")
    cloud.play("describe", MISSING, "0 WAITING_FOR_RESOURCES", "0 PROVISIONING", "0 ACTIVE")
    cloud.play("status", "0 status=0")
    return cloud


def launch(cloud: Cloud, *options: str) -> subprocess.CompletedProcess[str]:
    return cloud.run("tpu_vm.sh", *SLICE, *options, "--", *TRAIN)


def kinds(cloud: Cloud) -> list[str]:
    """What was asked of gcloud, in order; of ssh, the command of the worker."""
    found = []
    for words in cloud.calls("gcloud"):
        (command,) = [word for word in words if word.startswith("--command=")] or [""]
        if "tar -xzf" in command:
            found.append("install")
        elif "tpu_worker.sh" in command:
            found.append(command.split("tpu_worker.sh ")[1].split()[0])
        else:
            found.append(words[3])
    return found


RUN = ["scp", "install", "start", "follow", "status"]
AGAIN = ["scp", "install", "restart", "follow", "status"]


def test_slice_is_asked_for_awaited_used_and_deleted(cloud: Cloud) -> None:
    result = launch(cloud)
    assert result.returncode == 0, result.stderr
    assert kinds(cloud) == ["describe", "create", *["describe"] * 3, *RUN, "delete"]
    for state in ("NONE", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"):
        assert f"run: {state}" in result.stderr
    create, delete = cloud.calls("gcloud")[1], cloud.calls("gcloud")[-1]
    expected = "compute tpus queued-resources create run --zone=z --accelerator-type=v6e-8"
    assert create == [*expected.split(), "--runtime-version=v2-alpha-tpuv6e", "--node-id=run", "--quiet"]
    assert delete == ["compute", "tpus", "queued-resources", "delete", "run", "--zone=z", "--force", "--quiet"]


def test_options_reach_the_commands_they_are_for(cloud: Cloud) -> None:
    options = ["--project=p", "--slices=2", "--spot", "--valid-until=6h", "--create-flag=--network=n"]
    launch(cloud, *options, "--ssh-flag=--internal-ip", "--version=v", "--setup=mount it", "--keep")
    create = cloud.calls("gcloud")[1]
    flags = "--runtime-version=v --node-count=2 --node-prefix=run --spot --valid-until-duration=6h --network=n --quiet"
    assert create[5:] == ["--zone=z", "--project=p", "--accelerator-type=v6e-8", *flags.split()]
    assert kinds(cloud)[-1] == "status"  # kept
    remote = [words for words in cloud.calls("gcloud") if words[2] == "tpu-vm"]
    assert [words[4].split(":")[0] for words in remote if words[3] == "ssh"] == ["run-0", "run-1"] * 2 + [
        "run-0",
        "run-0",
        "run-1",
    ]
    assert all({"--zone=z", "--project=p", "--internal-ip"} < set(words) for words in remote)
    assert "geonoise && { mount it; } && env GEONOISE_ACCELERATOR=tpu" in remote[2][-1]
    workers = [[word for word in words if word.startswith("--worker=")] for words in remote]
    assert [worker for (worker,) in workers] == ["--worker=all"] * 6 + ["--worker=0"] + ["--worker=all"] * 2


@pytest.mark.parametrize("status", ["0", "2"])
def test_words_arrive_on_the_worker_as_they_were(cloud: Cloud, status: str) -> None:
    """The ssh of the stand-in runs what it is given, in a shell as the real one does."""
    (cloud.home / "real").touch()
    (cloud.home / "exit").write_text(status)
    (cloud.home / "play/status").unlink()
    result = launch(cloud, "--env=JAX_COORDINATOR_PORT=8471", "--env=A=b c")
    words = "".join(f" <{word}>" for word in TRAIN)
    assert f"local{words} port=8471\n" in result.stdout
    assert result.returncode == int(status), result.stderr
    assert (cloud.home / "geonoise/launch/tpu_vm.sh").exists()
    assert not (cloud.home / "geonoise/.git").exists()


def test_port_that_the_firewall_opens_is_the_default(cloud: Cloud) -> None:
    launch(cloud)
    (start,) = [words[-1] for words in cloud.calls("gcloud") if " start " in words[-1]]
    assert " start env GEONOISE_ACCELERATOR=tpu JAX_COORDINATOR_PORT=8476 bash launch/local.sh train " in start


def test_preempted_slices_are_replaced_until_the_budget_is_used_up(cloud: Cloud) -> None:
    cloud.play("describe", MISSING, "0 ACTIVE", "0 SUSPENDED", "0 SUSPENDED", MISSING, "0 ACTIVE")
    cloud.play("status", "0 status=143", "0 status=0")
    result = launch(cloud)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("preemption 1 (of 100 at most)") == 1
    assert kinds(cloud) == [
        *["describe", "create", "describe", *RUN],
        *["describe", "describe", "delete", "describe", "create", "describe", *AGAIN, "delete"],
    ]
    cloud.play("describe", "0 SUSPENDED")
    result = launch(cloud, "--max-preemptions=2")
    assert result.returncode == 75
    assert "too many preemptions" in result.stderr
    assert result.stderr.count("is suspended") == 3


def test_slice_suspended_while_the_log_is_read(cloud: Cloud) -> None:
    cloud.play("describe", MISSING, "0 ACTIVE", "0 SUSPENDING", "0 SUSPENDED", "0 SUSPENDED", MISSING, "0 ACTIVE")
    cloud.play("follow", "255 connection lost", "0 step 10")
    cloud.play("status", "255 no such host", "0 status=0")
    result = launch(cloud)
    assert result.returncode == 0, result.stderr
    assert "preemption 1 " in result.stderr
    assert "failure" not in result.stderr
    assert kinds(cloud).count("create") == 2


def test_run_stopped_on_a_slice_that_stays_is_started_there(cloud: Cloud) -> None:
    cloud.play("status", "0 status=143\\nstatus=143", "0 status=0\\nstatus=0")
    result = launch(cloud)
    assert result.returncode == 0, result.stderr
    assert "preemption 1 (of 100 at most): the run was stopped" in result.stderr
    assert kinds(cloud)[-len(AGAIN) - 1 :] == [*AGAIN, "delete"]
    assert kinds(cloud).count("create") == 1


@pytest.mark.parametrize(
    ("statuses", "status", "said"),
    [
        ("0 status=0\\nstatus=1\\nstatus=75", 1, "status 1"),
        ("0 status=75\\nstatus=75", 75, "a process was lost"),
        ("0 status=0\\nstatus=running", 75, "a process was lost"),
        ("0 status=137", 137, "status 137"),
    ],
)
def test_failures_have_a_budget_of_their_own(cloud: Cloud, statuses: str, status: int, said: str) -> None:
    cloud.play("status", statuses)
    result = launch(cloud, "--max-failures=1", "--max-preemptions=0")
    assert result.returncode == status, result.stderr
    assert result.stderr.count(said) == 2
    assert "too many failures" in result.stderr
    assert kinds(cloud).count("start") == 1
    assert kinds(cloud).count("restart") == 1
    assert kinds(cloud)[-1] == "delete"


def test_error_of_the_user_is_never_tried_again(cloud: Cloud) -> None:
    cloud.play("status", "0 status=75\\nstatus=2")
    result = launch(cloud)
    assert result.returncode == 2
    assert "refused (status 2)" in result.stderr
    assert kinds(cloud)[-2:] == ["status", "delete"]


def test_broken_connection_is_taken_up_where_it_broke(cloud: Cloud) -> None:
    cloud.play("follow", "0 step 1\\nstep 2", "0 step 3")
    cloud.play("scp", "255 ssh: connection refused", "0")
    script = (cloud.home / "bin/gcloud").read_text()
    first_breaks = 'if [[ $kind = follow ]] && ! [[ -e $HOME/once ]]; then : >"$HOME/once"; exit 255; fi\n'
    (cloud.home / "bin/gcloud").write_text(script + first_breaks)
    result = launch(cloud)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "step 1\nstep 2\nstep 3\n"
    follows = [words[-1].split()[-2:] for words in cloud.calls("gcloud") if " follow " in words[-1]]
    assert follows == [["follow", "1"], ["follow", "3"]]
    assert kinds(cloud).count("scp") == 2


def test_request_that_fails_is_made_again_within_the_budget(cloud: Cloud) -> None:
    cloud.play("describe", MISSING, "0 FAILED", "0 the zone is full", MISSING, "0 ACTIVE")
    result = launch(cloud)
    assert result.returncode == 0, result.stderr
    assert "the zone is full" in result.stderr
    cloud.play("describe", MISSING)
    cloud.play("create", "1 quota exceeded")
    result = launch(cloud, "--max-failures=1")
    assert result.returncode == 1
    assert result.stderr.count("could not be asked for") == 2
    assert "quota exceeded" in result.stderr


def test_delete_is_tried_three_times_and_a_slice_that_stays_is_said(cloud: Cloud) -> None:
    cloud.play("delete", "1 try later", "0")
    assert launch(cloud).returncode == 0
    cloud.play("describe", "0 ACTIVE")
    cloud.play("delete", "1 no permission")
    result = launch(cloud)
    assert result.returncode == 1
    assert "may cost money; delete it by: gcloud compute tpus queued-resources delete run --zone=z" in result.stderr
    assert kinds(cloud)[-3:] == ["delete"] * 3


def test_gcloud_that_does_not_answer_leaves_the_slice_and_says_so(cloud: Cloud) -> None:
    cloud.play("describe", "1 cannot reach the network", "0 ACTIVE")
    assert launch(cloud).returncode == 0
    cloud.play("describe", "1 cannot reach the network")
    result = launch(cloud)
    assert result.returncode == 1
    assert "cannot reach the network" in result.stderr
    assert "delete it by:" in result.stderr


def test_workers_that_refuse_ssh_are_a_failure(cloud: Cloud) -> None:
    cloud.play("install", "255 refused")
    result = launch(cloud, "--max-failures=0")
    assert result.returncode == 1
    assert kinds(cloud).count("install") == 3
    assert kinds(cloud)[-1] == "delete"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_interrupted_launcher_says_what_it_leaves_and_the_same_command_goes_on(
    cloud: Cloud, number: int, status: int
) -> None:
    cloud.play("follow", "hang")
    process = cloud.start("tpu_vm.sh", *SLICE, *TRAIN)
    wait_until(cloud.home / "played", "follow hang")
    os.killpg(process.pid, number)  # as a terminal does
    result = ended(process)
    assert result.returncode == status
    assert "the run goes on on run. Follow it: the same command; stop it, saving: gcloud" in result.stderr
    assert "costs money once it is there" in result.stderr
    assert "delete" not in kinds(cloud)
    (cloud.home / "calls").write_text("")
    cloud.play("follow", "0 the end")
    cloud.play("status", "0 status=running", "0 status=0")
    result = launch(cloud)
    assert result.returncode == 0
    assert kinds(cloud) == ["describe", "status", "follow", "status", "delete"]
    assert "following the run" in result.stderr


def test_interrupted_while_waiting(cloud: Cloud) -> None:
    cloud.play("describe", MISSING, "0 WAITING_FOR_RESOURCES")
    process = cloud.start("tpu_vm.sh", *SLICE, "--poll=30", *TRAIN)
    wait_until(cloud.home / "played", "WAITING")
    process.terminate()
    result = ended(process)
    assert result.returncode == 143
    assert "run is left as it is, and costs money once it is there" in result.stderr
    assert "the run goes on" not in result.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--zone=z", "--type=v6e-8"], "--name"),
        (["--name=Run", "--zone=z", "--type=v6e-8"], "--name = Run"),
        (["--name=run", "--zone=z", "--type=v99-8"], "--version"),
        ([*SLICE, "--spot", "--reserved"], "exclude each other"),
        ([*SLICE, "--slices=0"], "--slices = 0"),
        ([*SLICE, "--max-failures=x"], "--max-failures = x"),
        ([*SLICE, "--poll=1s"], "--poll = 1s"),
        ([*SLICE, "--env=x"], "--env = x"),
        ([*SLICE, "--bogus"], "--bogus: no option"),
    ],
)
def test_bad_options_are_refused_before_anything_is_asked_for(cloud: Cloud, options: list[str], said: str) -> None:
    result = cloud.run("tpu_vm.sh", *options, *TRAIN)
    assert result.returncode == 2
    assert said in result.stderr
    assert cloud.calls() == []


def test_worker_runs_one_command_at_a_time_keeps_its_status_and_stops_it(cloud: Cloud) -> None:
    def worker(*words: str) -> str:
        result = cloud.run("tpu_worker.sh", *words)
        assert result.returncode == 0, result.stderr
        return result.stdout

    assert worker("status") == "status=gone\n"
    assert worker("follow", "1") == ""
    saves = 'trap "echo saved; exit 143" TERM; echo begun; while :; do read -t 0.1 <><(:); done'
    worker("start", "bash", "-c", saves)
    wait_until(cloud.home / "geonoise-run/log", "begun")
    assert worker("start", "false") == "already running\n"
    assert worker("status") == "status=running\n"
    worker("stop")
    assert worker("status") == "status=143\n"
    assert worker("follow", "1") == "begun\nsaved\n"
    assert worker("follow", "2") == "saved\n"
    worker("restart", "bash", "-c", "exit 7")
    wait_until(cloud.home / "geonoise-run/status", "7")
    assert worker("status") == "status=7\n"


def test_worker_with_an_old_python_gets_a_newer_one(cloud: Cloud) -> None:
    asked = cloud.home / "asked"
    write(cloud.home / "bin/python3", f'case $1 in -c) exit 1 ;; esac; echo "$*" >>"{asked}"')
    uv = f'echo "uv $*" >>"{asked}"; case $2 in find) echo /opt/python3.12 ;; esac'
    (cloud.home / ".local/bin").mkdir(parents=True)
    write(cloud.home / ".local/bin/uv", uv)
    write(cloud.repo / "launch/local.sh", 'echo "local $* with ${PYTHON-none}"')
    assert cloud.run("tpu_worker.sh", "install").stdout == "local true with /opt/python3.12\n"
    assert "-m pip install --quiet --user uv" in asked.read_text()
    write(cloud.home / "bin/python3", "exit 0")
    assert cloud.run("tpu_worker.sh", "install").stdout == "local true with none\n"
