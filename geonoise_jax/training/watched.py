"""What a run finds about itself while it trains: when it looks, whether it has, and which checkpoint was the best."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Any

from geonoise_jax import checks, files

# What names of metrics.jsonl begin with that an evaluation wrote.
PREFIX = "held_out/"
LOWER, HIGHER, ZERO = "lower", "higher", "nearer to zero"
_RANK: dict[str, Callable[[float], float]] = {LOWER: float, HIGHER: lambda value: -value, ZERO: abs}


@dataclasses.dataclass(frozen=True)
class Best:
    """Which of several checkpoints is the best.

    Attributes:
        metric: name of a number without the prefix of evaluations.
        better: ``LOWER``, ``HIGHER`` or ``ZERO``.

    Raises:
        ValueError: if ``better`` is none of these.
    """

    metric: str
    better: str = LOWER

    def __post_init__(self) -> None:
        """Validate the direction."""
        checks.choice("better", self.better, _RANK)

    def step(self, folder: PurePath, steps: Sequence[int]) -> int | None:
        """Return the best of some steps by the metrics of a workdir, the first of equal ones; None if none has a value.

        Raises:
            UserError: if the metrics cannot be read.
        """
        name, rank = f"{PREFIX}{self.metric}", _RANK[self.better]
        lines = _lines(folder)
        found = {line["step"]: rank(line[name]) for line in lines if name in line and line.get("step") in steps}
        return min(found, key=lambda step: (found[step], step), default=None)


@dataclasses.dataclass(frozen=True)
class NewestAndBest:
    """Orbax's policy of what is kept: the newest checkpoints and, beside them, the best one.

    Attributes:
        newest: how many of the newest.
        best: returns the best of some steps, if any is.
    """

    newest: int
    best: Callable[[Sequence[int]], int | None]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:  # noqa: ARG002
        """Return for each checkpoint, oldest first, whether it is kept."""
        steps = [each.step for each in checkpoints]
        kept = {*steps[-self.newest :], self.best(tuple(steps))}
        return [step in kept for step in steps]


def best_of(watch: Any, folder: PurePath) -> Callable[[Sequence[int]], int | None] | None:
    """Return what chooses the best checkpoint of a run; None if none is kept for being the best."""
    best: Best | None = None if watch is None else watch.best
    return None if best is None else functools.partial(best.step, folder)


def every(watch: Any) -> int:
    """Return the number of updates between evaluations; 0 for none."""
    return 0 if watch is None else int(watch.every)


def due(interval: int, step: int) -> bool:
    """Return whether a step has an evaluation."""
    return bool(interval) and step > 0 and step % interval == 0


def missing(folder: PurePath, interval: int, step: int) -> bool:
    """Return whether a step is to have an evaluation that the metrics of a workdir do not have.

    Raises:
        UserError: if they cannot be read.
    """
    if not due(interval, step):
        return False
    of_step = [line for line in _lines(folder) if line.get("step") == step]
    return not any(name.startswith(PREFIX) for line in of_step for name in line)


def _lines(folder: PurePath) -> list[dict[str, Any]]:
    """Return the metrics of a workdir, without a last line that a run may be writing now."""
    return files.JsonLines(folder / "metrics.jsonl").read(torn=True)
