r"""How much of classifier-free guidance a linear model explains, and by which of its three components.

Guidance adds a multiple of ``D_c(u) - D(u)``, the difference of the denoisers of a class and of all data. Li, Wang & Qu
(2025, arXiv:2505.19210) split that of Gaussian data into a mean shift and positive and negative contrastive components
(:mod:`.linear`) and find networks to behave alike except at low noise. Here the difference is taken of

    exact      the exact denoisers of the training images of the class and of all of them
    network    a class-conditional network with and without its class, where a workdir is given

at held-out images x of the class and noise of each level, as estimates of x. The share that the linear guidance g
explains of another, h, is ``1 - E|h - g|^2 / E|h|^2``: 1 if they are the same, 0 if g is no better than nothing, less
if it is worse. Beside it the cosine ``E h.g / sqrt(E|h|^2 E|g|^2)``, which no factor changes. Intervals are of the
jackknife over images.

With a workdir, samples are drawn from the network guided by itself, by the linear model, or by one component alone,
with the discrete step of the process, and their class is told by their nearest training images.
"""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from ml_collections import ConfigDict

from geonoise_jax import build, checks, config
from geonoise_jax.errors import UserError
from geonoise_jax.evaluation.overlap import check_held_out
from geonoise_jax.evaluation.point_metrics import SlicedWasserstein
from geonoise_jax.evaluation.restore import Trained
from geonoise_jax.exact import FiniteSet, Marginal
from geonoise_jax.fields import NetworkField
from geonoise_jax.process.process import Process
from geonoise_jax.process.times import Uniform
from geonoise_jax.progress import Progress
from geonoise_jax.sampling.generation import class_turns
from geonoise_jax.studies.cfg_linear.linear import COMPONENTS, Linear
from geonoise_jax.studies.labelled import Labelled, Neighbours, class_conditional, flat, labelled
from geonoise_jax.studies.quick import replace_defaults

EXACT, NETWORK = "exact", "network"
# What samples are guided by: nothing, the network, the linear model, each of its components.
GUIDES = ("nothing", NETWORK, "linear", *COMPONENTS)
_DIGITS = "configs/digits.py:flow_matching,blind,class_conditional"
_QUICK = {"ratios": (0.1, 1.0, 10.0), "per_class": 5, "num_samples": 20, "sample_steps": 4}


@dataclasses.dataclass(frozen=True)
class Options:
    """Choices of the study.

    Attributes:
        workdir: workdir of a class-conditional model; None: exact guidance of the digits alone.
        ratios: noise levels as b / a, increasing.
        per_class: held-out images of each class.
        scale: guidance weight of samples; 1 would be none.
        num_samples: samples of each guide, whose classes take turns.
        sample_steps: steps of each sample, even in t.
        held_out: the split that training did not see.
        quick: try everything out at a size that shows little: takes the place of numbers that are not given.
        seed: seed of the noise.

    Raises:
        ValueError: if a value is out of its range.
    """

    workdir: Path | None = None
    ratios: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8)
    per_class: int = 30
    scale: float = 2.0
    num_samples: int = 200
    sample_steps: int = 25
    held_out: str = "test"
    quick: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate the numbers."""
        if self.quick:
            replace_defaults(self, _QUICK)
        checks.increasing("ratios", self.ratios, checks.real, low=0.0, open_low=True)
        checks.real("scale", self.scale)
        for name, low in (("per_class", 2), ("num_samples", 10), ("sample_steps", 1), ("seed", 0)):
            checks.integer(name, getattr(self, name), low=low)


class Guided(NamedTuple):
    """Samples of one guide.

    Attributes:
        guide: one of ``GUIDES``.
        hits: whether the class of each is the one that was asked for.
        distance: sliced Wasserstein distance to the held-out images; infinite if a sample is not finite.
        samples: the samples, in model space.
    """

    guide: str
    hits: Float[np.ndarray, "m"]
    distance: float
    samples: Float[np.ndarray, "m *event"]


class Study(NamedTuple):
    """Guidance at L noise levels of n observations each, as mean squares and products over an observation's D entries.

    Attributes:
        options: the choices.
        title: what the data and the network are.
        times: the noise levels.
        components: mean square of each component, [3, L, n].
        linear: mean square of the linear guidance.
        squares: mean square of each other guidance, by name.
        products: its mean product with the linear guidance.
        with_components: its mean product with each component.
        guided: samples; none without a workdir.
        labels: class that is asked of each sample.
    """

    options: Options
    title: str
    times: Float[np.ndarray, "L"]
    components: Float[np.ndarray, "3 L n"]
    linear: Float[np.ndarray, "L n"]
    squares: dict[str, Float[np.ndarray, "L n"]]
    products: dict[str, Float[np.ndarray, "L n"]]
    with_components: dict[str, Float[np.ndarray, "3 L n"]]
    guided: tuple[Guided, ...]
    labels: Int[np.ndarray, "m"]


def measure(options: Options) -> Study:
    """Compare the linear model's guidance with the exact one, and with that of a network if there is one.

    Raises:
        ValueError: if the folder is no workdir, its network was not trained with and without classes, training saw the
            held-out images, or a class has too few of them.
    """
    trained = None if options.workdir is None else class_conditional(options.workdir)
    chosen = config.load(_DIGITS) if trained is None else trained.config
    process = build.process(chosen) if trained is None else trained.field.process
    known, held_out = (labelled(chosen, split) for split in (None, options.held_out))
    check_held_out(options.held_out, known.x, held_out.x)
    asked = taken(held_out, options.per_class)
    times = np.asarray(process.schedule.t_of_eta(jnp.log(jnp.asarray(options.ratios))), np.float64)
    progress = Progress("cfg_linear", 2 + bool(trained), "guides")
    linear = Linear.of(flat(known.x), known.labels, int(known.labels.max()) + 1)
    seen = observations(process, asked.x, times, options.seed)
    parts = np.stack([_parts(linear, process, u, asked.labels, t) for u, t in zip(seen, times, strict=True)], axis=1)
    others = {EXACT: exact_guidance(process, known, seen, asked.labels, times)}
    progress.update(1)
    guided: tuple[Guided, ...] = ()
    labels = np.arange(0)
    if trained is not None:
        others[NETWORK] = network_guidance(trained.field, seen, asked.labels, times)
        progress.update(2)
        turns = class_turns(options.num_samples, trained.field.module.num_classes)
        labels = labels if turns is None else np.asarray(turns)
        guided = _sampled(trained.field, linear, known, held_out, labels, options)
    progress.update(2 + bool(trained))
    progress.close()
    return _study(options, _title(chosen, trained), times, parts, others, guided, labels)


def taken(data: Labelled, per_class: int) -> Labelled:
    """Return the first items of each class, class after class.

    Raises:
        ValueError: if a class has too few.
    """
    rows = [np.flatnonzero(data.labels == label)[:per_class] for label in np.unique(data.labels)]
    least = min(map(len, rows))
    if least < per_class:
        raise UserError(f"per_class = {per_class}: must be at most {least}, the held-out items of the smallest class")
    chosen = np.concatenate(rows)
    return Labelled(data.x[chosen], data.labels[chosen])


def observations(
    process: Process, x: Float[np.ndarray, "n *event"], times: Float[np.ndarray, "L"], seed: int
) -> Float[np.ndarray, "L n *event"]:
    """Return ``a x + b eps`` at every noise level, of the same noise."""
    eps = np.random.default_rng(seed).standard_normal(x.shape).astype(np.float32)
    scales = [_scales(process, t) for t in times]
    return np.stack([a * x + b * eps for a, b in scales]).astype(np.float32)


def exact_guidance(
    process: Process,
    known: Labelled,
    seen: Float[np.ndarray, "L n *event"],
    labels: Int[np.ndarray, "n"],
    times: Float[np.ndarray, "L"],
) -> Float[np.ndarray, "L n D"]:
    """Return ``D_c - D`` of the training images of each class and of all, equation (35)."""
    law = Uniform(process.schedule.t_min, process.schedule.t_max)
    found = np.zeros((len(times), len(labels), flat(known.x).shape[1]))
    for label in np.unique(labels):
        mine = labels == label
        rows, t = seen[:, mine].reshape(-1, *known.x.shape[1:]), np.repeat(times, mine.sum()).astype(np.float32)
        shares = known.labels == label
        # Weights that are zero leave the class, in arrays of one shape and so in one program.
        pair = [
            np.asarray(
                Marginal(FiniteSet(known.x, weights / weights.sum()), process, law).denoiser(jnp.asarray(rows), t)
            )
            for weights in (shares.astype(np.float64), np.ones(len(shares)))
        ]
        found[:, mine] = (pair[0] - pair[1]).reshape(len(times), mine.sum(), -1)
    return found


def network_guidance(
    field: NetworkField,
    seen: Float[np.ndarray, "L n *event"],
    labels: Int[np.ndarray, "n"],
    times: Float[np.ndarray, "L"],
) -> Float[np.ndarray, "L n D"]:
    """Return the difference of a network's estimates of x with and without its class."""
    found = []
    for u, t in zip(seen, times, strict=True):
        level = jnp.full(len(u), t, jnp.float32)
        with_class, without = _pair(field, u, labels, level)
        estimates = [
            np.asarray(field.process.recover(jnp.asarray(u), each, level)[0]) for each in (with_class, without)
        ]
        found.append(flat(estimates[0] - estimates[1]))
    return np.stack(found).astype(np.float64)


def _pair(field: NetworkField, u: Any, labels: Int[np.ndarray, "n"], level: Any) -> tuple[Any, Any]:
    """Return the predictions with a class and without."""
    told = jnp.asarray(labels, jnp.int32)
    return field.with_labels(told)(u, level), field.with_labels(jnp.full_like(told, field.module.num_classes))(u, level)


def _sampled(
    field: NetworkField,
    linear: Linear,
    known: Labelled,
    held_out: Labelled,
    labels: Int[np.ndarray, "m"],
    options: Options,
) -> tuple[Guided, ...]:
    """Return samples of every guide, from the same noise."""
    neighbours = Neighbours(known)
    distance = SlicedWasserstein(held_out.x)
    found = []
    for guide in GUIDES:
        samples = sampled(field, linear, guide, labels, options)
        finite = np.isfinite(samples).all()
        hits = neighbours.hits(samples, labels)
        found.append(Guided(guide, hits, distance(samples) if finite else np.inf, samples))
    return tuple(found)


def sampled(
    field: NetworkField, linear: Linear, guide: str, labels: Int[np.ndarray, "m"], options: Options
) -> Float[np.ndarray, "m *event"]:
    """Return samples of a class-conditional network, guided with weight ``options.scale``, by the process's own step.

    A difference g of estimates of x is one of ``(c - d a / b) g`` of the target.

    Args:
        field: the network.
        linear: the linear model.
        guide: one of ``GUIDES``.
        labels: classes asked for.
        options: weight, steps and seed.
    """
    process, schedule = field.process, field.process.schedule
    times = np.linspace(schedule.t_max, schedule.t_min, options.sample_steps + 1)
    noise = np.random.default_rng([options.seed, 1]).standard_normal((len(labels), *field.event_shape))
    u = (_scales(process, times[0])[1] * noise).astype(np.float32)
    for t, s in itertools.pairwise(times):
        level = jnp.full(len(u), t, jnp.float32)
        if guide == NETWORK:
            with_class, without = _pair(field, u, labels, level)
            r = np.asarray(with_class + (options.scale - 1.0) * (with_class - without))
        else:
            r = np.asarray(field.with_labels(jnp.asarray(labels, jnp.int32))(u, level))
            k = process.coeffs(jnp.asarray(t))
            parts = linear.guidance(flat(u).astype(np.float64), labels, float(k.a), float(k.b))
            added = {"nothing": 0.0 * parts[0], "linear": parts.sum(0), **dict(zip(COMPONENTS, parts, strict=True))}[
                guide
            ]
            r = r + (options.scale - 1.0) * float(k.c - k.d * k.a / k.b) * added.reshape(u.shape)
        kappa, omega = (float(each) for each in process.step(jnp.asarray(s), jnp.asarray(t)))
        u = (kappa * u + omega * r).astype(np.float32)
    return u / _scales(process, times[-1])[0]


def _parts(
    linear: Linear, process: Process, u: Float[np.ndarray, "n *event"], labels: Int[np.ndarray, "n"], t: float
) -> Float[np.ndarray, "3 n D"]:
    return linear.guidance(flat(u).astype(np.float64), labels, *_scales(process, t))


def _study(
    options: Options,
    title: str,
    times: Float[np.ndarray, "L"],
    parts: Float[np.ndarray, "3 L n D"],
    others: dict[str, Float[np.ndarray, "L n D"]],
    guided: tuple[Guided, ...],
    labels: Int[np.ndarray, "m"],
) -> Study:
    whole = parts.sum(0)
    return Study(
        options,
        title,
        times,
        np.square(parts).mean(-1),
        np.square(whole).mean(-1),
        {name: np.square(each).mean(-1) for name, each in others.items()},
        {name: (each * whole).mean(-1) for name, each in others.items()},
        {name: (each * parts).mean(-1) for name, each in others.items()},
        guided,
        labels,
    )


def _title(chosen: ConfigDict, trained: Trained | None) -> str:
    if trained is None:
        return f"{chosen.data.name}, exact"
    kind = "blind" if trained.field.blind else "conditional"
    return f"{chosen.data.name}, {chosen.schedule.name}, {chosen.target.name}, {kind}, step {trained.step}"


def _scales(process: Process, t: float) -> tuple[float, float]:
    a, b = process.schedule.scales(jnp.asarray(t, jnp.float32))
    return float(a), float(b)
