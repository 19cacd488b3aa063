"""Computing in blocks, delivering the accuracy that was asked for, and saying where it was not reached."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_LOG = logging.getLogger(__name__)
_PROGRESS_SECONDS = 30.0
# Rows that are computed again are as many as a power of two, so that few sizes are compiled.
_LEAST_ROWS = 4
_MORE_NODES = "give Marginal a smaller accuracy, or adaptive=False, which both mean more nodes"

Result = TypeVar("Result")
Listener = Callable[["Report"], None]
_listeners: list[Listener] = []


class QuadratureWarning(UserWarning):
    """A returned quantity is estimated to be less accurate than was asked for."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What is said of computations whose estimated error exceeds the accuracy.

    Attributes:
        error: two parts of the relative error of every query, of integration and of rounding, [2, B].
        accuracy: that was asked for.
        remedy: what helps against rounding.
        calls: number of computations of which it is the worst.
    """

    error: Float[np.ndarray, "2 B"]
    accuracy: float
    remedy: str
    calls: int = 1

    def __str__(self) -> str:
        """Say how much and where, and what to do."""
        total = self.error.sum(axis=0)
        worst = int(np.nanargmax(np.where(np.isnan(total), np.inf, total)))
        often = "" if self.calls == 1 else f"; the worst of {self.calls} such computations"
        rounding = self.error[1, worst] >= self.error[0, worst]
        return (
            f"exact field: estimated relative error {total[worst]:.0e} (query {worst}; {len(_missed(self))} of "
            f"{len(total)} miss the accuracy {self.accuracy:.0e}{often}); "
            + (f"it is rounding: {self.remedy}" if rounding else _MORE_NODES)
        )


def in_blocks(function: Callable[..., Any], size: int, *arrays: Float[Array, "B ..."]) -> Any:
    """Apply a function to arrays with one leading axis, ``size`` rows at a time, and say how far it is."""
    num = len(arrays[0])
    if num <= size:
        return function(*arrays)
    starts, results, said = range(0, num, size), [], time.monotonic()
    for number, start in enumerate(starts, start=1):
        results.append(function(*(each[start : start + size] for each in arrays)))
        if time.monotonic() - said > _PROGRESS_SECONDS:
            _LOG.info("exact field: block %d of %d", number, len(starts))
            said = time.monotonic()
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *results)


def deliver(
    compute: Callable[..., tuple[Result, Float[Array, "2 B"]]],
    sharper: Callable[[], Callable[..., tuple[Result, Float[Array, "2 B"]]] | None],
    accuracy: float,
    remedy: str,
    *arrays: Float[Array, "B ..."],
) -> Result:
    """Return a result of the accuracy that is asked for; where it is not reached, say so.

    Rows that miss it are computed again in a sharper way, if there is one. Inside a jitted function, which cannot look
    at its numbers, they are only spoken of, when it runs.

    Args:
        compute: maps arrays to a pytree of results [B, ...] and the two parts of their estimated relative error, of
            integration and of rounding.
        sharper: returns a more accurate ``compute``, or None.
        accuracy: largest relative error.
        remedy: see :class:`Report`.
        arrays: arguments of ``compute``.

    Warns:
        QuadratureWarning: if the estimated error of a row exceeds the accuracy.
    """
    result, error = compute(*arrays)
    error = jax.lax.stop_gradient(error)
    if isinstance(error, jax.core.Tracer):
        _say_later(error, accuracy, remedy)
        return result
    missed = _missed(Report(np.asarray(error), accuracy, remedy))
    if len(missed) and (better := sharper()) is not None:
        rows = np.resize(missed, max(_LEAST_ROWS, 2 ** int(np.ceil(np.log2(len(missed))))))
        again, its_error = better(*(each[rows] for each in arrays))
        its_error = jax.lax.stop_gradient(its_error)
        result = jax.tree.map(lambda old, new: old.at[rows].set(new), result, again)
        error = error.at[:, rows].set(its_error)
    say(Report(np.asarray(error), accuracy, remedy))
    return result


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Tell ``listener`` of computations that miss their accuracy meanwhile, instead of warning of them."""
    _listeners.append(listener)
    try:
        yield
    finally:
        jax.effects_barrier()
        _listeners.remove(listener)


@contextlib.contextmanager
def in_one_warning() -> Iterator[None]:
    """Warn at the end, once, of the worst computation: for what asks for many exact fields."""
    reports: list[Report] = []
    with listening(reports.append):
        yield
    if reports:
        worst = max(reports, key=lambda report: np.nan_to_num(report.error.sum(axis=0), nan=np.inf).max())
        say(dataclasses.replace(worst, calls=sum(report.calls for report in reports)))


def say(report: Report, stacklevel: int = 4) -> None:
    """Tell the innermost listener of a report of which a row exceeds the accuracy; warn of it where there is none."""
    if not len(_missed(report)):
        return
    if _listeners:
        _listeners[-1](report)
    else:
        warnings.warn(str(report), QuadratureWarning, stacklevel=stacklevel)


def _say_later(error: Float[Array, "2 B"], accuracy: float, remedy: str) -> None:
    """Speak when the jitted function runs, and only then cost a call to the host."""

    def tell(error: Float[Array, "2 B"]) -> None:
        jax.debug.callback(lambda error: say(Report(np.asarray(error), accuracy, remedy)), error)

    jax.lax.cond(jnp.all(error.sum(axis=0) <= accuracy), lambda _: None, tell, error)


def _missed(report: Report) -> np.ndarray:
    """Return the rows that miss the accuracy; an error that is not a number does."""
    return np.flatnonzero(~(report.error.sum(axis=0) <= report.accuracy))
