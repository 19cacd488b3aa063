"""Which processes this one belongs to: as its arguments say, or the environment that a launcher made.

1. Arguments: coordinator, number of processes, number of this one.
2. ``JAX_COORDINATOR_ADDRESS``, ``JAX_NUM_PROCESSES``, ``JAX_PROCESS_ID``.
3. Slurm, within ``srun`` of more than one task; Open MPI; Cloud TPU and GKE, where more than one worker is named: there
   jax's own detection knows the coordinator.

What is given by one of these fills in what the ones before leave open. Without any of them a process is alone.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from geonoise_jax.errors import UserError

_SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
_NAMES = {
    "coordinator": ("--coordinator", "JAX_COORDINATOR_ADDRESS"),
    "num_processes": ("--num-processes", "JAX_NUM_PROCESSES"),
    "process_id": ("--process-id", "JAX_PROCESS_ID"),
}
# jax's own default, 8482, is closed in the firewalls of Cloud TPU networks (jax issue 35905).
TPU_PORT = "8476"
_METADATA = "http://{}/computeMetadata/v1/instance/attributes/worker-network-endpoints"
_METADATA_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The processes that act together, as far as it is known before they are asked.

    Attributes:
        kind: ``explicit``, ``slurm``, ``ompi`` or ``tpu``.
        coordinator: ``HOST:PORT`` of process 0, or None: jax's detection knows it.
        num_processes: how many there are, or None, likewise.
        process_id: number of this one, or None, likewise.
        local_devices: the devices of this host that are this process's, or None: as jax has it.
    """

    kind: str
    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    local_devices: tuple[int, ...] | None = None


def detect(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    tpu_workers: Callable[[Mapping[str, str]], int] | None = None,
) -> Cluster | None:
    """Return the processes that this one belongs to, or None if it is alone.

    Args:
        coordinator, num_processes, process_id: as given, or None.
        environ: the environment.
        tpu_workers: returns how many workers the environment's TPU has, 1 without one.

    Raises:
        UserError: if some are given and others are missing, or one is out of its range.
    """
    explicit = {
        "coordinator": coordinator or environ.get("JAX_COORDINATOR_ADDRESS") or None,
        "num_processes": _given("num_processes", num_processes, environ),
        "process_id": _given("process_id", process_id, environ),
    }
    found = _of_launcher(environ, tpu_workers or workers_of_tpu, explicit)
    if found is None and explicit["num_processes"] == 1:
        return None
    if found is None and all(value is None for value in explicit.values()):
        return None
    if found is None:
        missing = [" or ".join(_NAMES[name]) for name, value in explicit.items() if value is None]
        if missing:
            there = [_NAMES[name][0] for name, value in explicit.items() if value is not None]
            raise UserError(f"{', '.join(there)}: must be given together with {', '.join(missing)}")
        found = Cluster("explicit")
    given = {name: value for name, value in explicit.items() if value is not None}
    return _checked(dataclasses.replace(found, **given))  # type: ignore[arg-type]


def workers_of_tpu(environ: Mapping[str, str]) -> int:
    """Return the number of workers (hosts) of the TPU of this machine, over all slices; 1 without a TPU."""
    platforms = environ.get("JAX_PLATFORMS", "")
    if (platforms and "tpu" not in platforms) or not _has_tpu():
        return 1
    names = environ.get("TPU_PROCESS_ADDRESSES") or environ.get("TPU_WORKER_HOSTNAMES")
    if names is None and "TPU_SKIP_MDS_QUERY" not in environ:
        names = _endpoints(environ)
    slices = int(environ.get("MEGASCALE_NUM_SLICES") or 1)
    return slices * len([name for name in (names or "one").split(",") if name])


def _of_launcher(
    environ: Mapping[str, str], tpu_workers: Callable[[Mapping[str, str]], int], explicit: Mapping[str, object]
) -> Cluster | None:
    """Return what a launcher says of the processes that it started, if they are several."""
    if all(value is not None for value in explicit.values()) or explicit["num_processes"] == 1:
        return _devices_of_task(environ) if explicit["num_processes"] != 1 else None
    if all(name in environ for name in _SLURM) and int(environ["SLURM_NTASKS"]) > 1:
        devices = _local_devices(environ)
        return Cluster("slurm", None, int(environ["SLURM_NTASKS"]), int(environ["SLURM_PROCID"]), devices)
    if int(environ.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
        if "OMPI_MCA_orte_hnp_uri" not in environ and explicit["coordinator"] is None:
            raise UserError(
                "--coordinator: must be given, as this Open MPI (5 or later) does not say where process 0 is"
            )
        return Cluster("ompi", None, int(environ["OMPI_COMM_WORLD_SIZE"]), int(environ["OMPI_COMM_WORLD_RANK"]))
    return Cluster("tpu") if tpu_workers(environ) > 1 else None


def _devices_of_task(environ: Mapping[str, str]) -> Cluster:
    return Cluster("explicit", local_devices=_local_devices(environ) if "SLURM_LOCALID" in environ else None)


def _local_devices(environ: Mapping[str, str]) -> tuple[int, ...] | None:
    """Return the GPUs of a Slurm task that is alone on its node, of which jax would take the first only."""
    tasks, nodes = environ.get("SLURM_NTASKS"), environ.get("SLURM_STEP_NUM_NODES") or environ.get("SLURM_NNODES")
    gpus = environ.get("SLURM_GPUS_ON_NODE", "0")
    if "JAX_LOCAL_DEVICE_IDS" in environ or tasks != nodes or not gpus.isdigit() or int(gpus) < 2:
        return None
    return tuple(range(int(gpus)))


def _given(name: str, value: int | None, environ: Mapping[str, str]) -> int | None:
    flag, variable = _NAMES[name]
    if value is not None:
        label, text = flag, str(value)
    elif environ.get(variable):
        label, text = variable, environ[variable]
    else:
        return None
    low = 1 if name == "num_processes" else 0
    if not text.isdigit() or int(text) < low:
        raise UserError(f"{label} = {text}: must be an integer >= {low}")
    return int(text)


def _checked(cluster: Cluster) -> Cluster:
    where, num, own = cluster.coordinator, cluster.num_processes, cluster.process_id
    if where is not None and not re.fullmatch(r".+:\d+", where):
        raise UserError(f"--coordinator = {where}: must be HOST:PORT of process 0, such as 10.0.0.2:8476")
    if num is not None and own is not None and own >= num:
        raise UserError(f"--process-id = {own}: must be below the number of processes, {num}")
    return cluster


def _has_tpu() -> bool:
    devices = [*Path("/dev").glob("accel*"), *Path("/dev/vfio").glob("[0-9]*")]
    return bool(devices) and importlib.util.find_spec("libtpu") is not None


def _endpoints(environ: Mapping[str, str]) -> str | None:
    """Return the workers of a TPU VM as Google's metadata server names them, or None where there is no such server."""
    import urllib.request

    server = environ.get("GCE_METADATA_IP", "metadata.google.internal")
    request = urllib.request.Request(_METADATA.format(server), headers={"Metadata-Flavor": "Google"})
    try:
        with urllib.request.urlopen(request, timeout=_METADATA_SECONDS) as answer:
            return answer.read().decode()
    except OSError:
        return None
