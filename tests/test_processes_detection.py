"""Which processes a process belongs to, in the environments that launchers make, and how they meet."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from geonoise_jax import processes
from geonoise_jax.errors import UserError
from geonoise_jax.processes import detection, joining
from geonoise_jax.processes.detection import Cluster, detect
from geonoise_jax.processes.rendezvous import MissingError, meet
from tests.command_line import run
from tests.processes_runs import free_port

JAX = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}
SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "n[1-2]",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_NUM_NODES": "2",
}
OMPI = {
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911",
}
ALONE = [
    {},
    {"JAX_NUM_PROCESSES": "1"},
    {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"},
    {**SLURM, "SLURM_NTASKS": "1"},
    # A batch script: not within srun.
    {name: value for name, value in SLURM.items() if name != "SLURM_STEP_NODELIST"},
    {**SLURM, "JAX_NUM_PROCESSES": "1"},
    {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"},
]
SEVERAL = [
    (JAX, Cluster("explicit", "a:1", 4, 3)),
    (SLURM, Cluster("slurm", None, 2, 1)),
    ({**SLURM, "SLURM_GPUS_ON_NODE": "4"}, Cluster("slurm", None, 2, 1, (0, 1, 2, 3))),
    ({**SLURM, "SLURM_GPUS_ON_NODE": "4", "SLURM_NTASKS": "8"}, Cluster("slurm", None, 8, 1)),
    ({**SLURM, "SLURM_GPUS_ON_NODE": "4", "JAX_LOCAL_DEVICE_IDS": "1"}, Cluster("slurm", None, 2, 1)),
    ({**SLURM, "JAX_COORDINATOR_ADDRESS": "b:2"}, Cluster("slurm", "b:2", 2, 1)),
    ({**SLURM, **JAX}, Cluster("explicit", "a:1", 4, 3)),
    (OMPI, Cluster("ompi", None, 2, 1)),
    ({**OMPI, "OMPI_MCA_orte_hnp_uri": "", "JAX_COORDINATOR_ADDRESS": "a:1"}, Cluster("ompi", "a:1", 2, 1)),
]


def no_tpu(_: Mapping[str, str]) -> int:
    return 1


@pytest.mark.parametrize("environ", ALONE)
def test_a_process_without_others_is_alone(environ: dict[str, str]) -> None:
    assert detect(environ=environ, tpu_workers=no_tpu) is None


@pytest.mark.parametrize(("environ", "cluster"), SEVERAL)
def test_launchers(environ: dict[str, str], cluster: Cluster) -> None:
    assert detect(environ=environ, tpu_workers=no_tpu) == cluster


def test_arguments_come_before_the_environment() -> None:
    assert detect("c:3", 5, 0, environ=JAX, tpu_workers=no_tpu) == Cluster("explicit", "c:3", 5, 0)
    assert detect("c:3", environ=SLURM, tpu_workers=no_tpu) == Cluster("slurm", "c:3", 2, 1)
    assert detect(num_processes=1, environ=SLURM, tpu_workers=lambda _: 4) is None


@pytest.mark.parametrize(
    ("given", "environ", "message"),
    [
        (("a:1", None, None), {}, r"--coordinator: must be given together with --num-processes or JAX_NUM_PROCESSES"),
        ((None, 2, 1), {}, r"--num-processes, --process-id: must be given together with --coordinator"),
        (("a:1", 2, 2), {}, r"--process-id = 2: must be below the number of processes, 2"),
        (("a:1", 0, 0), {}, r"--num-processes = 0: must be an integer >= 1"),
        (("a", 2, 0), {}, r"--coordinator = a: must be HOST:PORT"),
        ((None, None, None), {**JAX, "JAX_PROCESS_ID": "x"}, r"JAX_PROCESS_ID = x: must be an integer >= 0"),
        ((None, None, None), {"OMPI_COMM_WORLD_SIZE": "2"}, r"--coordinator: must be given, as this Open MPI"),
    ],
)
def test_what_is_incomplete_is_refused(given: Any, environ: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        detect(*given, environ=environ, tpu_workers=no_tpu)


TPU = [
    ({}, "a,b,c,d", 4),
    ({}, "a:0:10.0.0.1,b:1:10.0.0.2", 2),
    ({}, None, 1),
    ({"TPU_WORKER_HOSTNAMES": "a,b"}, None, 2),
    ({"TPU_WORKER_HOSTNAMES": "a,b", "TPU_PROCESS_ADDRESSES": "a:1,b:1,c:1"}, None, 3),
    ({"TPU_WORKER_HOSTNAMES": "localhost"}, "a,b", 1),
    ({"TPU_WORKER_HOSTNAMES": "a,b", "MEGASCALE_NUM_SLICES": "3"}, None, 6),
    ({"MEGASCALE_NUM_SLICES": "2", "TPU_SKIP_MDS_QUERY": "1"}, "a,b", 2),
    ({"JAX_PLATFORMS": "cpu"}, "a,b", 1),
    ({"JAX_PLATFORMS": "tpu,cpu"}, "a,b", 2),
]


@pytest.mark.parametrize(("environ", "endpoints", "workers"), TPU)
def test_workers_of_tpus(
    environ: dict[str, str], endpoints: str | None, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detection, "_has_tpu", lambda: True)
    monkeypatch.setattr(detection, "_endpoints", lambda _: endpoints)
    assert detection.workers_of_tpu(environ) == workers
    assert detect(environ=environ) == (Cluster("tpu") if workers > 1 else None)
    monkeypatch.setattr(detection, "_has_tpu", lambda: False)
    assert detection.workers_of_tpu(environ) == 1


def met(started: dict[int, int], seconds: float = 5.0) -> dict[int, str]:
    """What each process is told that was started with a number of processes, by its own number."""
    port, found = free_port(), dict[int, str]()

    def one(number: int, num: int) -> None:
        try:
            meet(f"127.0.0.1:{port}", num, number, seconds)
            found[number] = "go"
        except UserError as error:
            found[number] = str(error).replace(str(port), "PORT")

    threads = [threading.Thread(target=one, args=each) for each in started.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_all_meet() -> None:
    assert met({1: 3, 2: 3, 0: 3}) == {0: "go", 1: "go", 2: "go"}


def test_who_is_missing_is_named_to_all() -> None:
    missing = "process 2, 3 missing at the coordinator 127.0.0.1:PORT after 0.7 s"
    assert met({0: 4, 1: 4}, 0.7) == {0: f"process 0 of 4: {missing}", 1: f"process 1 of 4: {missing}"}


@pytest.mark.parametrize("number", [0, 1])
def test_who_did_not_come_may_come_the_next_time(number: int) -> None:
    with pytest.raises(MissingError) as caught:
        meet(f"127.0.0.1:{free_port()}", 2, number, 0.3)
    assert processes.lost(caught.value) == str(caught.value)
    assert processes.lost(UserError("two processes were started as number 1")) is None


def test_a_missing_lead_is_named() -> None:
    (said,) = met({1: 2}, 0.5).values()
    assert said.startswith("process 1 of 2: process 0 is missing: nothing answers at the coordinator 127.0.0.1:PORT")


def test_other_numbers_of_processes_are_named() -> None:
    wrong = "process 1 was started as one of 2 processes, process 0 as one of 3"
    assert met({0: 3, 1: 2}) == {0: f"process 0 of 3: {wrong}", 1: f"process 1 of 2: {wrong}"}


def test_strangers_are_ignored_and_a_taken_port_is_named() -> None:
    port, found = free_port(), list[int]()

    def one(number: int) -> None:
        meet(f"127.0.0.1:{port}", 2, number, 5.0)
        found.append(number)

    threads = [threading.Thread(target=one, args=(number,)) for number in (0, 1)]
    threads[0].start()
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1.0) as stranger:
                stranger.sendall(b"stranger 1 2\n")
            break
        except ConnectionRefusedError:
            pass
    threads[1].start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [0, 1]
    with socket.create_server(("", port)), pytest.raises(UserError, match="cannot listen .*choose another port"):
        meet(f"127.0.0.1:{port}", 2, 0, 0.3)


def test_commands_of_one_process_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in JAX.items():
        monkeypatch.setenv(name, value)
    ended = run("exact", "--config=configs/circles.py", "--num=1", f"--out={tmp_path / 'a'}")
    assert (ended.status, ended.err) == (
        2,
        "geonoise exact: exact: runs in one process, and this is one of several (explicit); start it once\n",
    )


def test_the_page_states_what_holds() -> None:
    page = (Path(__file__).parents[1] / "docs" / "processes.md").read_text()
    assert f"`--initialize-timeout` ({joining.INITIALIZE_SECONDS} seconds)" in page
    assert f"`--heartbeat-timeout` ({joining.HEARTBEAT_SECONDS} seconds)" in page
    assert f"| {processes.LOST} | another process is gone" in page
    assert f"The port is {detection.TPU_PORT}," in page
