r"""Likelihoods of data under a field's sampling ODE: nats of points, bits per dimension of images.

Densities are those of samples x = u / a at the end time, log p(x) = log p(u) + D log a with u = a x: a model's samples
keep noise of scale b / a there, and so does their law.

Stored integers k are levels of width h = scale in model space. With v uniform in [-1/2, 1/2] and
x = (k + v - center) scale, the probability P of an item satisfies (Theis et al. 2016, section 3.1)

    -log2 P(k) <= E_v[-log2 p(x)] - D log2 h                 (Jensen's inequality)

whose right side over D is what is reported: - log2 h is 7 for pixels 2 (k + v) / 256 - 1, 6.994 for 0..255 on [-1, 1],
and 3 for the 17 levels of the digits.

Intervals are two standard errors of the mean over items, which vary with their dequantisation and probes too (what the
probes alone add is stated beside it), plus the mean of the estimated errors of the integration. They are about other
items of the same kind; the model is the one at hand.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Integer, Key, UInt32

from geonoise_jax import checks
from geonoise_jax.checks import refused
from geonoise_jax.errors import UserError
from geonoise_jax.evaluation.restore import Trained
from geonoise_jax.fields import DensityField, Field
from geonoise_jax.process.keys import root_key
from geonoise_jax.sampling import given
from geonoise_jax.sampling.ode_density import LogDensity, ode_log_density

NATS, BITS = "nats", "bits/dim"
_STANDARD_ERRORS = 2.0
# Streams of one seed.
_PROBES, _DEQUANTISATION, _NORMALISATION = 0, 1, 2
_LEARNT_BATCH = 256


@dataclasses.dataclass(frozen=True)
class Options:
    """The protocol of a likelihood; None means the default of ``sampling.ode_log_density``.

    Attributes:
        draws: dequantisations of each item, of bits per dimension alone.
        seed: seed of dequantisation and probes; those of an item depend on the seed and its number alone.
        solver, tolerance, num_steps, divergence, probes, noise, start_time, end_time, batch_size: see
            ``sampling.ode_log_density``. The end time, the schedule's t_min by default, is the offset of the protocol.

    Raises:
        ValueError: if ``draws`` is not positive.
    """

    draws: int = 1
    seed: int = 0
    solver: str = "tsit5"
    tolerance: float | None = None
    num_steps: int | None = None
    divergence: str = "auto"
    probes: int | None = None
    noise: str | None = None
    start_time: float | None = None
    end_time: float | None = None
    batch_size: int | None = 256

    def __post_init__(self) -> None:
        """Validate the number of draws; the rest is checked where it is used."""
        checks.integer("draws", self.draws, low=1)

    def of_ode(self) -> dict[str, Any]:
        """Return the arguments of ``sampling.ode_log_density``."""
        return {name: value for name, value in vars(self).items() if name not in ("draws", "seed")}


class Likelihood(NamedTuple):
    """A mean over items with its interval.

    Attributes:
        value: mean log density in nats, or upper bound on the bits per dimension; NaN if the solver failed on an item.
        low, high: the interval, see the module docstring.
        unit: ``"nats"``, of which more is better, or ``"bits/dim"``, of which less is.
        standard_error: of the mean over items; infinite for a single item.
        draw_spread: standard deviation of the value between dequantisations; None with less than two.
        numerical_error: mean over items of the estimated errors of the integration.
        probe_error: what random probes alone add to the standard error; 0 of an exact trace, infinite of one probe.
        per_item: value of each item, a mean over its dequantisations.
        evaluations: mean number of evaluations of the field with its divergence, an item and dequantisation.
        failed: number of integrations that did not arrive.
        protocol: how it was computed and of what it is the likelihood.
        learnt: that of the density that a ``DensityField`` holds itself, on the same values; None of other fields.
    """

    value: float
    low: float
    high: float
    unit: str
    standard_error: float
    draw_spread: float | None
    numerical_error: float
    probe_error: float
    per_item: Float[np.ndarray, "n"]
    evaluations: float
    failed: int
    protocol: str
    learnt: Likelihood | None = None


def log_likelihood(
    model: Trained | Field,
    x: Float[np.ndarray | Array, "n *event"],
    *,
    options: Options | None = None,
    labels: Int[np.ndarray, "n"] | None = None,
    mesh: Mesh | None = None,
    on_batch: Callable[[int, int], None] | None = None,
) -> Likelihood:
    """Return the mean log density of points, in nats.

    Args:
        model: a restored model, or any Field.
        x: points in model space.
        options: the protocol.
        labels: class of each point; without them a class-conditional network is that of all classes together.
        mesh: devices to shard batches over; by default those of the restored model.
        on_batch: called as ``on_batch(done, num)`` after each batch.

    Raises:
        ValueError: as ``sampling.ode_log_density``, if there are ``draws``, or labels are needed.
    """
    options = options or Options()
    checks.without_effect("points, which are not dequantised", {"draws": (options.draws, 1)})
    given.model_space("x", x)
    measure = _Measure.of(model, options, labels, mesh, len(x))
    density, learnt = measure(np.asarray(x), 0, on_batch)
    protocol = f"log density of {len(x)} points; {density.protocol}; {_seeded(options)}"
    return _summary(NATS, protocol, [density], learnt, lambda values: values, 1.0)


def bits_per_dim(
    model: Trained | Field,
    items: Integer[np.ndarray, "n *event"],
    *,
    options: Options | None = None,
    scaling: tuple[float, float] | None = None,
    labels: Int[np.ndarray, "n"] | None = None,
    mesh: Mesh | None = None,
    on_batch: Callable[[int, int], None] | None = None,
) -> Likelihood:
    """Return an upper bound on the bits per dimension of stored integers, by uniform dequantisation.

    Args:
        model: a restored model, or any Field.
        items: the items as the data set stores them, integers.
        options: the protocol.
        scaling: ``(center, scale)`` of model space, see ``data.Arrays``; by default that of the restored model.
        labels: class of each item; without them a class-conditional network is that of all classes together.
        mesh: devices to shard batches over; by default those of the restored model.
        on_batch: called as ``on_batch(done, num)`` after each batch, of all draws.

    Raises:
        ValueError: as ``sampling.ode_log_density``, if items are no integers, their scaling is not known, or labels are
            needed.
    """
    options, items = options or Options(), np.asarray(items)
    if not np.issubdtype(items.dtype, np.integer):
        raise UserError(
            f"items.dtype = {items.dtype}: must be integers, as the data set stores them; "
            "log_likelihood takes values of model space"
        )
    center, scale = _scaling(model, scaling)
    measure = _Measure.of(model, options, labels, mesh, len(items))
    densities, learnt = [], []
    for draw in range(options.draws):
        x = dequantised(items, center, scale, options.seed, draw)
        told = None if on_batch is None else _of_draw(on_batch, draw, options.draws)
        density, own = measure(x, draw, told)
        densities.append(density)
        learnt += own
    bits = 1.0 / (items[0].size * math.log(2.0))
    protocol = (
        f"bits per dimension of {len(items)} items, upper bound by uniform dequantisation of levels {scale:g} wide "
        f"({options.draws} {'draw' if options.draws == 1 else 'draws'}); {densities[0].protocol}; {_seeded(options)}"
    )
    return _summary(BITS, protocol, densities, learnt, lambda values: -values * bits - math.log2(scale), bits)


def dequantised(
    items: Integer[np.ndarray, "n *event"], center: float, scale: float, seed: int, draw: int = 0
) -> Float[np.ndarray, "n *event"]:
    """Return ``(k + v - center) scale`` with v uniform in [-1/2, 1/2]; that of item i depends on (seed, draw, i)."""
    key = jax.random.fold_in(jax.random.fold_in(root_key(seed), _DEQUANTISATION), draw)
    rows = np.arange(len(items), dtype=np.uint32)
    v = np.asarray(_uniform(key, rows, items.shape[1:]))
    return ((items.astype(v.dtype) - center) + v) * scale


@functools.partial(jax.jit, static_argnames="shape")
def _uniform(key: Key[Array, ""], rows: UInt32[Array, "n"], shape: tuple[int, ...]) -> Float[Array, "n *event"]:
    def draw(row: UInt32[Array, ""]) -> Float[Array, "*event"]:
        return jax.random.uniform(jax.random.fold_in(key, row), shape, minval=-0.5, maxval=0.5)

    return jax.vmap(draw)(rows)


@dataclasses.dataclass(frozen=True)
class _Measure:
    """Densities of values x of one field, of samples x = u / a."""

    field: Field
    options: Options
    labels: Int[np.ndarray, "n"] | None
    mesh: Mesh | None

    @classmethod
    def of(cls, model: Trained | Field, options: Options, labels: Any, mesh: Mesh | None, num: int) -> _Measure:
        field: Field = model.field if isinstance(model, Trained) else model
        given.field(field)
        if isinstance(model, Trained) and mesh is None:
            mesh = model.mesh
        if labels is None and (null := getattr(field, "null_label", None)) is not None:
            if isinstance(model, Trained) and not model.label_dropout:
                raise refused("labels", None, "the class of each item: the network was never trained without one")
            labels = np.full(num, null, np.int32)
        return cls(field, options, labels, mesh)

    def __call__(
        self, x: Float[np.ndarray, "n *event"], draw: int, on_batch: Callable[[int, int], None] | None
    ) -> tuple[LogDensity, list[Float[np.ndarray, "n"]]]:
        """Return the log densities of x along the ODE, and in a list that which the field holds itself, if any."""
        schedule, root = self.field.process.schedule, root_key(self.options.seed)
        end = schedule.t_min if self.options.end_time is None else self.options.end_time
        a = float(schedule.scales(jnp.asarray(end, jnp.result_type(float)))[0])
        key = jax.random.fold_in(jax.random.fold_in(root, _PROBES), draw)
        found = ode_log_density(
            self.field,
            a * x,
            key,
            labels=self.labels,
            mesh=self.mesh,
            on_batch=on_batch,
            **self.options.of_ode(),
        )
        change = x[0].size * math.log(a)
        learnt = []
        if isinstance(self.field, DensityField) and self.labels is None:
            normalised = self.field.normalised(jax.random.fold_in(root, _NORMALISATION))
            learnt = [_learnt(normalised, a * x, end) + change]
        return found._replace(values=found.values + change), learnt


def _learnt(field: DensityField, u: Float[np.ndarray, "n *event"], t: float) -> Float[np.ndarray, "n"]:
    parts = []
    for start in range(0, len(u), _LEARNT_BATCH):
        part = jnp.asarray(u[start : start + _LEARNT_BATCH], jnp.result_type(float))
        parts.append(np.asarray(_log_density(field, part, jnp.full(len(part), t, part.dtype)), np.float64))
    return np.concatenate(parts)


@jax.jit
def _log_density(field: DensityField, u: Float[Array, "n *event"], t: Float[Array, "n"]) -> Float[Array, "n"]:
    return field.log_density(u, t)


def _summary(
    unit: str,
    protocol: str,
    densities: list[LogDensity],
    learnt: list[Float[np.ndarray, "n"]],
    convert: Callable[[Float[np.ndarray, "draws n"]], Float[np.ndarray, "draws n"]],
    per_nat: float,
) -> Likelihood:
    errors = np.stack([each.error for each in densities]) * per_nat
    made = _interval(unit, protocol, convert(np.stack([each.values for each in densities])), float(errors.mean()))
    # Every item has probes of its own in every draw.
    probes = np.stack([each.probe_error for each in densities]) * per_nat
    own = None
    if learnt:
        text = f"the density that the network holds itself, normalised at the start time, on the same values; {unit}"
        own = _interval(unit, text, convert(np.stack(learnt)), 0.0)
    return made._replace(
        evaluations=float(np.mean([each.evaluations for each in densities])),
        probe_error=math.sqrt(np.square(probes).sum()) / probes.size,
        failed=int(sum(each.failed.sum() for each in densities)),
        learnt=own,
    )


def _interval(unit: str, protocol: str, values: Float[np.ndarray, "draws n"], numerical: float) -> Likelihood:
    per_item, of_draw = values.mean(axis=0), values.mean(axis=1)
    value, num = float(per_item.mean()), len(per_item)
    error = float(per_item.std(ddof=1)) / math.sqrt(num) if num > 1 else math.inf
    reach = _STANDARD_ERRORS * error + numerical
    spread = float(of_draw.std(ddof=1)) if len(of_draw) > 1 else None
    return Likelihood(
        value, value - reach, value + reach, unit, error, spread, numerical, 0.0, per_item, 1.0, 0, protocol
    )


def _scaling(model: Trained | Field, scaling: tuple[float, float] | None) -> tuple[float, float]:
    if scaling is None and isinstance(model, Trained):
        facts = model.facts
        if facts.center is not None and facts.scale is not None:
            scaling = facts.center, facts.scale
    if scaling is None:
        raise refused("scaling", None, "(center, scale) of the data set, which is not known here")
    return checks.real("scaling[0]", scaling[0]), checks.real("scaling[1]", scaling[1], low=0.0, open_low=True)


def _of_draw(on_batch: Callable[[int, int], None], draw: int, draws: int) -> Callable[[int, int], None]:
    return lambda done, num: on_batch(draw * num + done, draws * num)


def _seeded(options: Options) -> str:
    return f"seed {options.seed}"
