"""The record of a run's metrics, a JSON-lines file, whose lines other writers are given too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from geonoise_jax import files, processes
from geonoise_jax.errors import UserError
from geonoise_jax.training.writers import Writers


class MetricsLog:
    """Append-only ``metrics.jsonl`` with one object a line, each with its ``step``.

    Attributes:
        path: the file.
        seconds: training time of earlier runs, as their last line that counts has it.
    """

    def __init__(self, workdir: PurePath) -> None:
        """Open nothing yet; the file is ``workdir/metrics.jsonl``."""
        self.path = workdir / "metrics.jsonl"
        self._lines = files.JsonLines(self.path)
        self.seconds = 0.0
        self._workdir = workdir
        self._writers: Writers | None = None

    def rewind(self, step: int) -> None:
        """Drop lines of later steps, and one torn by a crash: a resumed run writes them again. Opens other writers.

        The file is replaced in one move, so that a crash here loses nothing either.

        Raises:
            UserError: if the file is damaged otherwise.
        """
        processes.by_lead(lambda: self._rewind(step))

    def _rewind(self, step: int) -> None:
        if self._lines.exists():
            self._drop_after(step)
        self._writers = Writers(self._workdir, step)

    def _drop_after(self, step: int) -> None:
        kept = [line for line in _checked(self._lines, torn=True) if line["step"] <= step]
        self.seconds = float(kept[-1].get("seconds", 0.0)) if kept else 0.0
        self._lines.replace(kept)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append the metrics of a step and flush them to the disk."""
        self._lines.append({"step": step, **values})
        if self._writers is not None:
            self._writers.write(step, values)

    def close(self) -> None:
        """Close the other writers."""
        if self._writers is not None:
            self._writers.close()


def read(path: PurePath) -> list[dict[str, Any]]:
    """Return the lines of a ``metrics.jsonl`` as dictionaries, in order.

    Raises:
        UserError: if it cannot be read, or a line is damaged.
    """
    if not files.exists(path):
        raise UserError(f"{path}: cannot be read (no such file)")
    return _checked(files.JsonLines(path))


def seconds_at(path: PurePath, step: int) -> float:
    """Return the training time of the last line up to a step of a ``metrics.jsonl``; 0 without one.

    Raises:
        UserError: if it cannot be read, or a line but the last is damaged.
    """
    lines = _checked(files.JsonLines(path), torn=True)
    kept = [line for line in lines if line["step"] <= step]
    return float(kept[-1]["seconds"]) if kept else 0.0


def is_whole(path: PurePath) -> bool:
    """Return whether a ``metrics.jsonl``, if there is one, ends with a whole line.

    Raises:
        UserError: if it cannot be read, or a line but the last is damaged.
    """
    return files.JsonLines(path).is_whole()


def _checked(file: files.JsonLines, *, torn: bool = False) -> list[dict[str, Any]]:
    lines = file.read(torn=torn)
    for number, line in enumerate(lines, start=1):
        if not all(isinstance(line.get(name, 0), (int, float)) for name in ("step", "seconds")) or "step" not in line:
            raise UserError(f"{file.path}: line {number}: is damaged: must have a step, a number")
    return lines
