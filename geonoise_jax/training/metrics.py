"""Where metrics go: always a JSON-lines file, and TensorBoard when the ``tfds`` extra is installed."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_LOG = logging.getLogger(__name__)


class MetricsLog:
    """Append-only ``metrics.jsonl`` with one object a line, each with its ``step``.

    Attributes:
        path: the file.
        seconds: training time of earlier runs, as their last line that counts has it.
    """

    def __init__(self, workdir: Path) -> None:
        """Open nothing yet; the file is ``workdir/metrics.jsonl``."""
        self.path = workdir / "metrics.jsonl"
        self.seconds = 0.0
        self._board = _tensorboard(workdir)

    def rewind(self, step: int) -> None:
        """Drop lines of later steps, and one torn by a crash: a resumed run writes them again.

        The file is replaced in one move, so that a crash here loses nothing either.
        """
        if not self.path.exists():
            return
        kept = [line for line in self.path.read_text().splitlines() if _step_of(line) <= step]
        self.seconds = json.loads(kept[-1])["seconds"] if kept else 0.0
        draft = self.path.with_suffix(".tmp")
        draft.write_text("".join(f"{line}\n" for line in kept))
        draft.replace(self.path)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append the metrics of a step and flush them to the disk."""
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        if self._board is not None:
            self._board.write_scalars(step, values)

    def close(self) -> None:
        """Flush TensorBoard."""
        if self._board is not None:
            self._board.close()


def read(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a ``metrics.jsonl`` as dictionaries, in order."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def seconds_at(path: Path, step: int) -> float:
    """Return the training time of the last line up to a step of a ``metrics.jsonl``; 0 without one."""
    lines = path.read_text().splitlines() if path.exists() else []
    kept = [line for line in lines if _step_of(line) <= step]
    return float(json.loads(kept[-1])["seconds"]) if kept else 0.0


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _tensorboard(workdir: Path) -> Any:
    if not all(importlib.util.find_spec(name) for name in ("tensorflow", "tensorboard")):
        return None
    try:
        from clu.metric_writers import SummaryWriter
    except ImportError as error:
        _LOG.warning("no TensorBoard log: clu.metric_writers cannot be imported (%s)", error)
        return None
    return SummaryWriter(str(workdir / "tensorboard"))
