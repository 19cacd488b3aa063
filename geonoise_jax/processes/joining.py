"""How a process joins the others, before jax looks for devices."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

from geonoise_jax.errors import UserError
from geonoise_jax.processes import ending
from geonoise_jax.processes.agreement import is_lead
from geonoise_jax.processes.detection import TPU_PORT, Cluster
from geonoise_jax.processes.rendezvous import MissingError, meet

INITIALIZE_SECONDS = 300
HEARTBEAT_SECONDS = 60
# The end of a run waits for all processes, of which the lead may be writing pictures still.
_SHUTDOWN_SECONDS = 3600


def join(
    cluster: Cluster,
    name: str,
    *,
    initialize_timeout: int = INITIALIZE_SECONDS,
    heartbeat_timeout: int = HEARTBEAT_SECONDS,
    clean: Callable[[], None] = lambda: None,
) -> None:
    """Join the other processes; from now on they start, stop and end together.

    Args:
        cluster: see ``processes.detection``.
        name: of the program, with which last lines begin.
        initialize_timeout: seconds to wait for the others.
        heartbeat_timeout: seconds after which a process that is silent is given up.
        clean: called where the process ends without unwinding.

    Raises:
        MissingError: if they do not come together in time, naming the coordinator and who is missing.
        UserError: if they do not belong together.
    """
    for label, seconds in (("--initialize-timeout", initialize_timeout), ("--heartbeat-timeout", heartbeat_timeout)):
        if seconds < 1:
            raise UserError(f"{label} = {seconds}: must be at least 1 second")
    if cluster.kind == "tpu":
        os.environ.setdefault("JAX_COORDINATOR_PORT", TPU_PORT)
    import jax

    # A signal is told to the others by the package itself, see ``processes.stopping``: jax's handler of SIGTERM would
    # take it from Python and knows no other signal.
    jax.config.update("jax_enable_preemption_service", False)
    found = _complete(cluster, initialize_timeout)
    if found["num_processes"] == 1:
        return
    meet(found["coordinator_address"], found["num_processes"], found["process_id"], initialize_timeout)
    try:
        jax.distributed.initialize(
            **found,
            cluster_detection_method="deactivate",
            initialization_timeout=initialize_timeout,
            heartbeat_timeout_seconds=heartbeat_timeout,
            shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        title = f"process {found['process_id']} of {found['num_processes']}"
        line = str(error).partition("\n")[0]
        where = found["coordinator_address"]
        raise MissingError(f"{title}: cannot join at the coordinator {where}: {line}") from error
    ending.begin(name, clean)
    if not is_lead():
        for handler in logging.getLogger("geonoise_jax").handlers:
            handler.addFilter(_own)


def _complete(cluster: Cluster, seconds: int) -> dict[str, Any]:
    """Return the arguments of jax's initialisation, what is open filled in by jax's own detection."""
    found: dict[str, Any] = {
        "coordinator_address": cluster.coordinator,
        "num_processes": cluster.num_processes,
        "process_id": cluster.process_id,
        "local_device_ids": None if cluster.local_devices is None else list(cluster.local_devices),
    }
    if cluster.kind == "explicit" and None not in list(found.values())[:3] and "SLURM_LOCALID" not in os.environ:
        return found
    # jax does the same in initialize, where nothing could be said about it.
    from jax._src import clusters

    try:
        detect: Any = clusters.ClusterEnv.auto_detect_unset_distributed_params
        values = detect(*found.values(), None, seconds)
    except (RuntimeError, OSError, ValueError, KeyError) as error:
        raise UserError(f"the processes of this {cluster.kind} cluster cannot be found: {error}") from error
    found = dict(zip(found, values, strict=True))
    missing = [name for name in list(found)[:3] if found[name] is None]
    if missing:
        raise UserError(
            f"{', '.join(missing)}: not known of this {cluster.kind} cluster; give --coordinator, "
            "--num-processes and --process-id"
        )
    return found


def _own(record: logging.LogRecord) -> bool:
    """Let through what is of this process alone; the rest is said by the lead."""
    return record.name.endswith(".signals") or record.levelno >= logging.ERROR
