"""Computing in blocks, delivering the accuracy that was asked for, and saying where it was not reached."""

from __future__ import annotations

import contextlib
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
_ADVICE = (
    "give Marginal a smaller accuracy, or adaptive=False, which both mean more nodes",
    "it is rounding: compute in float64 (jax_enable_x64), or give FiniteSet a larger num_near",
)
_listeners: list[Callable[[np.ndarray], None]] = []

Result = TypeVar("Result")


class QuadratureWarning(UserWarning):
    """A returned quantity is estimated to be less accurate than was asked for."""


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
        arrays: arguments of ``compute``.

    Warns:
        QuadratureWarning: if the estimated error of a row exceeds the accuracy.
    """
    result, error = compute(*arrays)
    error = jax.lax.stop_gradient(error)
    if isinstance(error, jax.core.Tracer):
        _say_later(error, accuracy)
        return result
    missed = _missed(error, accuracy)
    if len(missed) and (better := sharper()) is not None:
        rows = np.resize(missed, max(_LEAST_ROWS, 2 ** int(np.ceil(np.log2(len(missed))))))
        again, its_error = better(*(each[rows] for each in arrays))
        its_error = jax.lax.stop_gradient(its_error)
        result = jax.tree.map(lambda old, new: old.at[rows].set(new), result, again)
        error = error.at[:, rows].set(its_error)
    say(np.asarray(error), accuracy)
    return result


@contextlib.contextmanager
def listening(listener: Callable[[np.ndarray], None]) -> Iterator[None]:
    """Call ``listener`` with the estimated relative errors [B] of computations that miss their accuracy meanwhile."""
    _listeners.append(listener)
    try:
        yield
    finally:
        jax.effects_barrier()
        _listeners.remove(listener)


def say(error: Float[np.ndarray, "2 B"], accuracy: float, stacklevel: int = 4) -> None:
    """Warn of, and tell listeners of, rows whose error exceeds the accuracy."""
    missed = _missed(error, accuracy)
    if not len(missed):
        return
    total = error.sum(axis=0)
    for listener in _listeners:
        listener(total)
    worst = int(np.nanargmax(np.where(np.isnan(total), np.inf, total)))
    advice = _ADVICE[int(error[1, worst] >= error[0, worst])]
    warnings.warn(
        f"exact field: estimated relative error {total[worst]:.0e} (query {worst}; {len(missed)} of {len(total)} miss "
        f"the accuracy {accuracy:.0e}); {advice}",
        QuadratureWarning,
        stacklevel=stacklevel,
    )


def _say_later(error: Float[Array, "2 B"], accuracy: float) -> None:
    """Speak when the jitted function runs, and only then cost a call to the host."""

    def tell(error: Float[Array, "2 B"]) -> None:
        jax.debug.callback(lambda error: say(np.asarray(error), accuracy), error)

    jax.lax.cond(jnp.all(error.sum(axis=0) <= accuracy), lambda _: None, tell, error)


def _missed(error: Any, accuracy: float) -> np.ndarray:
    """Return the rows that miss the accuracy; an error that is not a number does."""
    return np.flatnonzero(~(np.asarray(error).sum(axis=0) <= accuracy))
