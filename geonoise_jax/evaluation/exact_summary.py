"""A table of exact quantities for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Float

from geonoise_jax.evaluation.point_sets import finite

# Per node of the posterior rather than per observation.
PER_NODE = ("posterior_t", "posterior_weights", "posterior_density")


def table(arrays: Mapping[str, np.ndarray], accuracy: float, gain_problem: str) -> str:
    """Return smallest, median and largest value over the observations of every quantity; norms of fields.

    Args:
        arrays: quantities by name, leading axis B; ``t`` where the noise levels are known.
        accuracy: relative accuracy that was asked for.
        gain_problem: why the decomposition was left out, or an empty string.
    """
    rows = [
        _row(name, values) for name, values in arrays.items() if name not in PER_NODE and not name.startswith("error_")
    ]
    heading = f"{'':<28}{'min':>12}{'median':>12}{'max':>12}"
    return "\n".join([heading, *rows, *_remarks(arrays, accuracy, gain_problem)])


def _row(name: str, values: Float[np.ndarray, "B *event"]) -> str:
    if values.ndim > 1:
        name, values = f"|{name}|", np.linalg.norm(values.reshape(len(values), -1).astype(np.float64), axis=1)
    numbers = (values.min(), np.median(values), values.max())
    return f"{name:<28}" + "".join(f"{number:>12.4g}" for number in numbers)


def _remarks(arrays: Mapping[str, np.ndarray], accuracy: float, gain_problem: str) -> Iterator[str]:
    found = {name.removeprefix("error_"): value for name, value in arrays.items() if name.startswith("error_")}
    error, worst = np.max(list(found.values()), axis=0), max(found, key=lambda name: np.max(found[name]))
    missed = int((~(error <= accuracy)).sum())
    yield f"estimated relative error: at most {error.max():.1e} ({worst}), asked for {accuracy:.1e}"
    if missed:
        yield f"warning: {missed} of {len(error)} points miss it; --x64 or another --accuracy may help"
    if "t" in arrays:
        difference = np.abs(arrays["posterior_mean"] - arrays["t"])
        yield f"|posterior_mean - t|: median {np.median(difference):.4g}, max {difference.max():.4g}"
    if gain_problem:
        yield f"left out the decomposition: {gain_problem}"
    infinite = ~np.all([finite(values) for values in arrays.values()], axis=0)
    if infinite.any():
        yield f"warning: {int(infinite.sum())} of {len(error)} points have a quantity that is not finite"
