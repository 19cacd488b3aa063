"""Exact quantities at given observations, or at observations drawn from a config's process, as arrays and a table."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from geonoise_jax import build
from geonoise_jax import config as configs
from geonoise_jax.checks import integer
from geonoise_jax.errors import UserError
from geonoise_jax.evaluation import exact_summary
from geonoise_jax.evaluation.point_files import PointFile, as_events, read_points, space_of
from geonoise_jax.exact import Distribution, FiniteSet, Marginal, QuadratureWarning
from geonoise_jax.exact.results import Analysis
from geonoise_jax.files import replacing, save_arrays
from geonoise_jax.process.keys import root_key
from geonoise_jax.process.process import Process
from geonoise_jax.progress import Progress


@dataclasses.dataclass(frozen=True)
class Options:
    """Where the observations come from, and how the exact fields are computed.

    Attributes:
        points: .npy or .npz file of observations, [B, *event] or [B, D]: floats in model space, or integers as the data
            set stores them; or an image or a folder of images; or None.
        num: number of observations to draw from data and noise, instead of ``points``.
        t: noise levels, which take turns; None: drawn from the time law for drawn observations, unknown for given ones.
        split: the law of the data is that of the points of this split; None: see ``build.distribution``.
        accuracy: relative accuracy of integrals over t; None for 1e-11 in float64, 1e-5 in float32.
        x64: compute in float64.
        seed: seed of what is drawn; None for 0. Nothing is drawn for given ``points``.
        batch_size: observations computed at once.
        working_memory: GiB that the computation may use beside a data set's points; None for 1. A law without points
            takes none.

    Raises:
        ValueError: unless exactly one of ``points`` and ``num`` is given and the sizes are positive; or if a seed is
            given with points.
    """

    points: Path | None = None
    num: int | None = None
    t: tuple[float, ...] | None = None
    split: str | None = None
    accuracy: float | None = None
    x64: bool = False
    seed: int | None = None
    batch_size: int = 256
    working_memory: float | None = None

    def __post_init__(self) -> None:
        if (self.points is None) == (self.num is None):
            raise UserError(f"points = {self.points}, num = {self.num}: exactly one of the two must be given")
        for name in ("num", "batch_size"):
            if getattr(self, name) is not None:
                integer(name, getattr(self, name), low=1)
        if self.points is not None and self.seed is not None:
            raise UserError(f"seed = {self.seed}: has no effect with points, for which nothing is drawn; leave it out")
        if self.working_memory is not None and not 0.0 < self.working_memory < math.inf:
            raise UserError(f"working_memory = {self.working_memory} GiB: must be positive")


class Queries(NamedTuple):
    """Observations, and what is known of their origin.

    Attributes:
        u: observations.
        x: the data in them, or None.
        t: their noise levels, or None.
    """

    u: Float[Array, "B *event"]
    x: Float[Array, "B *event"] | None
    t: Float[Array, "B"] | None


def evaluate(config: ConfigDict, out: Path, options: Options) -> str:
    """Compute every quantity of ``Marginal.analyse`` for the exact fields of a config, and write them to ``out``.

    The .npz appears whole or not at all, and replaces an older one. It holds ``u``, ``x`` and ``t`` where known, the
    quantities (see :func:`named`), and the config as JSON with the split and the accuracy.

    Returns:
        A table of the quantities.

    Raises:
        ValueError: if an option, the config or the file of points is not as described; nothing is written then.
    """
    given = None if options.points is None else read_points(options.points, "points")
    with jax.enable_x64(True) if options.x64 else contextlib.nullcontext():
        law = _law(config, options)
        marginal = build.marginal(config, law, accuracy=options.accuracy)
        queries = _drawn(config, marginal, options) if given is None else _given(config, marginal, given, options)
        with replacing(out) as file:
            arrays = _known(queries) | _in_batches(marginal, queries, _batch_size(law, queries, options))
            accuracy = marginal.accuracy_in(queries.u.dtype)
            origin: dict[str, Any] = {"config": configs.dumps(config), "split": options.split or ""}
            save_arrays(file, {**arrays, **origin, "accuracy": accuracy})
        return exact_summary.table(arrays, accuracy, marginal.mean_gain_problem())


def named(result: Analysis) -> dict[str, Array]:
    """Return the quantities of an analysis by the names of the .npz.

    Those of the posterior of t begin with ``posterior_``, those at the observations' own noise levels with
    ``conditional_``, estimated relative errors with ``error_``; fields are [B, *event], the posterior's nodes, weights
    and densities [B, T], all others [B].
    """
    parts = result._asdict()
    posterior, decomposition, conditional = (parts.pop(k) for k in ("posterior", "decomposition", "conditional"))
    errors = {f"error_{name}": value for name, value in parts.pop("errors").items()}
    quantities = {"energy": -result.log_density, **parts, **errors}
    quantities |= {f"posterior_{name}": value for name, value in posterior._asdict().items()}
    if decomposition is not None:
        terms = ("natural", "transport", "drift", "gain", "drift_scale")
        quantities |= {name: getattr(decomposition, name) for name in terms}
    if conditional is not None:
        quantities |= {f"conditional_{name}": value for name, value in conditional._asdict().items()}
    return quantities


def _law(config: ConfigDict, options: Options) -> Distribution:
    memory = int((1.0 if options.working_memory is None else options.working_memory) * 2**30)
    law = build.distribution(config, options.split, working_memory=memory)
    if options.working_memory is not None and not isinstance(law, FiniteSet):
        raise UserError(
            f"working_memory = {options.working_memory} GiB: has no effect on the law of the data, "
            f"{type(law).__name__}, which holds no points; leave it out"
        )
    if options.x64 and isinstance(law, FiniteSet):
        # Its norms and weights must be as precise as the rest.
        return FiniteSet(np.asarray(law.points, np.float64), working_memory=memory)
    return law


def _given(config: ConfigDict, marginal: Marginal, points: PointFile, options: Options) -> Queries:
    """Take observations of the event's shape, or flattened."""
    scaling = build.scaling(config) if isinstance(marginal.distribution, FiniteSet) else None
    u = as_events(points, space_of(config, marginal.event_shape, scaling, _reach(marginal.process)))
    t = None if options.t is None else _turns(marginal.process, options.t, len(u))
    return Queries(jnp.asarray(u), None, t)


def _reach(process: Process) -> float:
    """Return what no entry of a noisy image exceeds: images up to 3, and noise of 8 standard deviations."""
    t = jnp.linspace(process.schedule.t_min, process.schedule.t_max, 65)
    a, b = process.schedule.scales(t)
    return float(3.0 * a.max() + 8.0 * b.max())


def _drawn(config: ConfigDict, marginal: Marginal, options: Options) -> Queries:
    """Draw data and noise, and noise levels unless they are given."""
    num = options.num or 0
    data_key, noise_key, time_key = jax.random.split(root_key(options.seed or 0), 3)
    t = build.time_law(config).sample(time_key, num)
    if options.t is not None:
        t = _turns(marginal.process, options.t, num)
    x = marginal.distribution.sample(data_key, num)
    u = marginal.process.corrupt(x, jax.random.normal(noise_key, x.shape, x.dtype), t)
    return Queries(u, x, t)


def _turns(process: Process, t: tuple[float, ...], num: int) -> Float[Array, "num"]:
    """Let noise levels take turns.

    Raises:
        ValueError: if one lies outside [t_min, t_max], or there are more of them than observations.
    """
    low, high = process.schedule.t_min, process.schedule.t_max
    for value in t:
        if not low <= value <= high:
            raise UserError(f"t = {value:g}: must lie within the schedule's [t_min, t_max] = [{low:g}, {high:g}]")
    if len(t) > num:
        raise UserError(f"t = {', '.join(f'{value:g}' for value in t)}: more noise levels than the {num} observations")
    return jnp.asarray(np.resize(np.asarray(t, float), num), jnp.result_type(float))


def _batch_size(law: Distribution, queries: Queries, options: Options) -> int:
    fitting = law.query_block(queries.u.dtype)
    return min(options.batch_size, len(queries.u), options.batch_size if fitting is None else fitting)


def _in_batches(marginal: Marginal, queries: Queries, size: int) -> dict[str, np.ndarray]:
    """Analyse the observations, a batch of one size at a time so that everything is compiled once."""
    num = len(queries.u)
    progress = Progress("exact", num, "points")
    batches = []
    try:
        for start in range(0, num, size):
            # The last batch is filled up with the first observations.
            index = np.arange(start, start + size) % num
            t = None if queries.t is None else queries.t[index]
            with warnings.catch_warnings():
                # The table says it, for all batches.
                warnings.simplefilter("ignore", QuadratureWarning)
                quantities = named(marginal.analyse(queries.u[index], t))
            kept = min(size, num - start)
            batches.append({name: np.asarray(value)[:kept] for name, value in quantities.items()})
            progress.update(start + kept)
    finally:
        progress.close()
    return {name: np.concatenate(_equally_long([batch[name] for batch in batches], name)) for name in batches[0]}


def _equally_long(parts: list[np.ndarray], name: str) -> list[np.ndarray]:
    """Fill up arrays per node of the posterior, of which every batch uses as many as it needs, to one length."""
    if name not in exact_summary.PER_NODE:
        return parts
    most = max(part.shape[1] for part in parts)
    mode: Any = "edge" if name == "posterior_t" else "constant"
    return [np.pad(part, ((0, 0), (0, most - part.shape[1])), mode=mode) for part in parts]


def _known(queries: Queries) -> dict[str, Any]:
    return {name: np.asarray(value) for name, value in queries._asdict().items() if value is not None}
