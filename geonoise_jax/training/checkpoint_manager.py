"""Orbax's manager of the checkpoints of a folder, as a writer of all processes or a reader of one."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

import jax
import orbax.checkpoint as ocp

from geonoise_jax.training.watched import NewestAndBest


def writer(folder: PurePath, keep: int | NewestAndBest) -> ocp.CheckpointManager:
    """Return the manager that saves; of several processes all open it, and save together.

    Args:
        folder: of the checkpoints; made if need be.
        keep: number of latest checkpoints that are kept, or what chooses them.
    """
    # On CPU the arrays are not copied before an asynchronous save, while the next step overwrites (donates) them.
    background = jax.default_backend() != "cpu"
    kept: dict[str, Any] = {"max_to_keep": keep} if isinstance(keep, int) else {"preservation_policy": keep}
    with _without_news():
        return ocp.CheckpointManager(
            folder, options=ocp.CheckpointManagerOptions(**kept, enable_async_checkpointing=background)
        )


def reader(folder: PurePath) -> ocp.CheckpointManager:
    """Return a manager that reads; each process opens its own, as what one cannot read would keep the others waiting.

    Args:
        folder: of the checkpoints.
    """
    own = jax.process_index()
    alone = ocp.options.MultiprocessingOptions()
    if jax.process_count() > 1:
        alone = ocp.options.MultiprocessingOptions(
            primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"reader{own}"
        )
    # Orbax warns of every option of a writer that it finds here.
    options = ocp.CheckpointManagerOptions(
        read_only=True, create=False, save_interval_steps=0, multiprocessing_options=alone
    )
    with _without_news():
        return ocp.CheckpointManager(folder, options=options)


@contextlib.contextmanager
def _without_news() -> Iterator[None]:
    """Keep to itself what Orbax warns of while a folder is opened: that it is read-only, as was asked for."""

    def wanted(record: logging.LogRecord) -> bool:
        return "read only" not in record.getMessage()

    logger = logging.getLogger("absl")
    logger.addFilter(wanted)
    try:
        yield
    finally:
        logger.removeFilter(wanted)
