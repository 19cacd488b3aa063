"""Where metrics go besides ``metrics.jsonl``: TensorBoard, and what installed packages offer.

A package offers a writer by an entry point of the group ``geonoise_jax.metrics``, a function of the workdir::

    [project.entry-points."geonoise_jax.metrics"]
    wandb = "my_package:writer"

The file is the record of a run; a writer that fails is said and left out, and ends no training.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import logging
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any, Protocol

_LOG = logging.getLogger(__name__)
GROUP = "geonoise_jax.metrics"


class Writer(Protocol):
    """Takes the metrics of a run."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Take the metrics of a step; steps increase, but for those that a resumed run does again."""

    def close(self) -> None:
        """Flush what is left."""


class Writers:
    """All writers of a run, of which those that fail are left out."""

    def __init__(self, workdir: PurePath, step: int = 0) -> None:
        """Open the writers of a run that goes on after ``step``."""
        self._writers: dict[str, Writer] = {}
        if importlib.util.find_spec("tensorboardX"):
            self._add("TensorBoard", functools.partial(EventFiles, workdir / "tensorboard", step))
        for entry in importlib.metadata.entry_points(group=GROUP):
            self._add(entry.name, functools.partial(_opened, entry, workdir))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Give the metrics of a step to all writers."""
        for name, writer in list(self._writers.items()):
            self._tried(name, functools.partial(writer.write, step, values))

    def close(self) -> None:
        """Close all writers."""
        for name, writer in list(self._writers.items()):
            self._tried(name, writer.close)

    def _add(self, name: str, make: Callable[[], Writer]) -> None:
        writer = self._tried(name, make)
        if writer is not None:
            self._writers[name] = writer

    def _tried(self, name: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        # Whatever another package raises.
        except Exception as error:
            self._writers.pop(name, None)
            _LOG.warning("metrics are no longer given to %s: %s: %s", name, type(error).__name__, error)
            return None


def _opened(entry: importlib.metadata.EntryPoint, workdir: PurePath) -> Writer:
    return entry.load()(workdir)


class EventFiles:
    """TensorBoard's event files, written without TensorFlow."""

    def __init__(self, folder: PurePath, step: int) -> None:
        """Open a file that makes TensorBoard drop what earlier ones have of later steps."""
        from tensorboardX import SummaryWriter

        self._board = SummaryWriter(str(folder), purge_step=step + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write one scalar for each metric."""
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close the file."""
        self._board.close()
