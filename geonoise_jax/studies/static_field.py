r"""Particles that ride one frozen field: descent of the exact blind field, which knows no noise level.

Five points of the plane, in R^D, have exact blind fields ``f*(u)`` on the Linear schedule with the velocity, the noise
and the equilibrium target. Particles start from pure noise and follow ``du / dtau = -f*(u)``, by Euler steps whose
length falls to zero, so that what is left of the distance to the nearest datum is the field's and not the step's.

"The Geometry of Noise" (arXiv:2602.18428, section 6) has the data as stable attractors of such fields. The share of
particles that reach one, within ``NEAR`` in distances of data of about 2, is told with its 95% interval (Wilson).
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from PIL import Image

from geonoise_jax.checks import increasing, integer, real
from geonoise_jax.drawing import animation, style
from geonoise_jax.drawing.pictures import to_image
from geonoise_jax.drawing.text import aligned
from geonoise_jax.evaluation.intervals import wilson
from geonoise_jax.exact import FiniteSet
from geonoise_jax.exact.delivery import Report, listening
from geonoise_jax.fields import Field
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import Linear
from geonoise_jax.sampling.blind import evaluate_blind
from geonoise_jax.studies.concurrency import in_float64
from geonoise_jax.studies.points import POINTS, TARGETS, embedded
from geonoise_jax.studies.quantiles import QUANTILE
from geonoise_jax.studies.ring import ACCURACY, exact_field, nearest
from geonoise_jax.studies.verdicts import Verdict, judge

NEAR = 0.05
_SYSTEMS = ("Velocity", "Noise", "Equilibrium")
_POINTS = POINTS[5]
_FRAMES = 41
_STRIP = (0.0, 0.1, 0.2, 0.4, 1.0)
_LIMIT = 2.6
# Frames that a particle's trail goes back.
_TRAIL = 4
_MOST = 0.99
# Of the distances that are drawn.
_FLOOR = 1e-5
# Of a GIF, which is left out where it is larger.
_SMALL_BYTES = 3 * 2**20


@dataclasses.dataclass(frozen=True)
class Options:
    """Choices of the study.

    Attributes:
        dims: dimensions D of the space; the first is drawn, in the plane of the data.
        num: particles.
        num_steps: Euler steps.
        duration: how long particles follow the field, in its own time.
        seed: seed of the starts.
    """

    dims: tuple[int, ...] = (2, 8)
    num: int = 400
    num_steps: int = 300
    duration: float = 8.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate the sizes."""
        increasing("dims", self.dims, integer, low=2)
        for name, low in (("num", 10), ("num_steps", _FRAMES - 1), ("seed", 0)):
            integer(name, getattr(self, name), low=low)
        real("duration", self.duration, low=0.0, open_low=True)


QUICK = Options(num=40, num_steps=80)


class Ride(NamedTuple):
    """Particles in the field of one target.

    Attributes:
        target: name of the target.
        dim: dimension D.
        tau: times of the frames.
        plane: particles in the plane of the data, at those.
        distance: to the nearest datum, at the end.
    """

    target: str
    dim: int
    tau: Float[np.ndarray, "F"]
    plane: Float[np.ndarray, "F n 2"]
    distance: Float[np.ndarray, "n"]

    @property
    def reached(self) -> tuple[float, float, float]:
        """Share of particles that end near a datum, with the ends of its 95% interval (Wilson)."""
        found = wilson(float((self.distance <= NEAR).mean()), len(self.distance))
        return found.value, found.low, found.high


class Study(NamedTuple):
    """All rides.

    Attributes:
        options: choices of the study.
        rides: by target and dimension.
        error: largest estimated relative error of the field on the way.
    """

    options: Options
    rides: tuple[Ride, ...]
    error: float


def measure(options: Options) -> Study:
    """Let particles ride the fields of all targets in all dimensions, from the same starts."""
    cases = [(target, dim) for target in _SYSTEMS for dim in options.dims]
    tasks = {f"{target}, D = {dim}": partial(_ride, target, dim, options) for target, dim in cases}
    reports: list[Report] = []
    # On a datum the field is zero, and its relative error says nothing: it is told in the table, not warned of.
    with listening(reports.append):
        rides = in_float64("static field", tasks)
    worst = max((float(report.error.sum(axis=0).max()) for report in reports), default=ACCURACY)
    return Study(options, tuple(rides), worst)


def _ride(target: str, dim: int, options: Options) -> Ride:
    points = embedded(_POINTS, dim)
    field = exact_field(FiniteSet(jnp.asarray(points)), Process(Linear(), TARGETS[target]()), blind=True)
    start = np.random.default_rng([options.seed, dim]).standard_normal((options.num, dim))
    steps = step_lengths(options.num_steps, options.duration)
    states = np.concatenate([start[None], np.asarray(ride(field, jnp.asarray(start), jnp.asarray(steps)))])
    tau = np.concatenate([[0.0], np.cumsum(steps)])
    # Denser at first, where particles are fast.
    wanted = options.duration * np.linspace(0.0, 1.0, _FRAMES) ** 1.5
    frames = np.abs(tau[:, None] - wanted).argmin(axis=0)
    return Ride(target, dim, tau[frames], states[frames][..., :2], nearest(states[-1], points))


def step_lengths(num: int, duration: float) -> Float[np.ndarray, "num"]:
    """Return lengths of steps that fall linearly to zero and add up to the duration."""
    return 2.0 * duration / num * (1.0 - (np.arange(num) + 0.5) / num)


@jax.jit
def ride(field: Field, u: Float[Array, "n D"], steps: Float[Array, "K"]) -> Float[Array, "K n D"]:
    """Return where particles are after each Euler step of ``du / dtau = -f(u)``."""

    def body(u: Array, step: Array) -> tuple[Array, Array]:
        u = u - step * evaluate_blind(field, u)
        return u, u

    return jax.lax.scan(body, u, steps)[1]


def table(study: Study) -> str:
    """Return where particles end as text."""
    options = study.options
    heading = (
        f"Particles from pure noise that follow du/dtau = -f*(u) of one frozen exact blind field to tau = "
        f"{options.duration:g}: {len(_POINTS)} points of a plane\nin R^D, Linear schedule, {options.num_steps} Euler "
        f"steps, {options.num} particles. Distances at the end to the nearest datum, with the share within {NEAR:g}.\n"
        f"Estimated relative error of the field at most {study.error:.0e}, on a datum, where the field is zero."
    )
    header = ["target", "D", "median", f"{QUANTILE:.0%} quantile", "largest", "reached", "95%"]
    return "\n".join([heading, "", *aligned([header, *map(_row, study.rides)])])


def _row(each: Ride) -> list[str]:
    share, low, high = each.reached
    numbers = (f"{np.quantile(each.distance, level):.3g}" for level in (0.5, QUANTILE, 1.0))
    return [each.target, str(each.dim), *numbers, f"{share:.1%}", f"{low:.1%} to {high:.1%}"]


def verdicts(study: Study) -> list[Verdict]:
    """Return whether the data attract the particles of each target."""
    return [
        Verdict(
            "section 6, fig. 1",
            "the data are stable attractors of the frozen blind field: all particles but one in a hundred end there",
            f"{each.target} target, D = {each.dim}, {study.options.num} particles from pure noise",
            f"share that ends within {NEAR:g} of a datum",
            *each.reached,
            judge(*each.reached[1:], at_least=_MOST),
        )
        for each in study.rides
    ]


@style.paper()
def picture(study: Study) -> Figure:
    """Return a strip of pictures for each target, and the law of the distances at the end."""
    options = study.options
    figure = Figure(figsize=(9.6, 5.2), layout="constrained")
    panels: Any = figure.subplots(len(_SYSTEMS), len(_STRIP) + 1, width_ratios=(*[1.0] * len(_STRIP), 1.35))
    frames = [round(share * (_FRAMES - 1)) for share in _STRIP]
    for number, (row, target) in enumerate(zip(panels, _SYSTEMS, strict=True)):
        drawn = _drawn(study, target)
        for axes, frame in zip(row, frames, strict=False):
            _particles(axes, drawn, frame)
            axes.set_title("" if number else f"τ = {drawn.tau[frame]:.2g}", weight="normal", loc="center")
        row[0].set_ylabel(target, fontsize=10.0, weight="bold")
        _distances(row[-1], [each for each in study.rides if each.target == target])
    panels[0, -1].set_title(f"at the end (from {_FLOOR:g} on)", weight="normal", loc="center")
    panels[-1, -1].set_xlabel("distance to a datum")
    style.headed(
        figure,
        f"Particles riding one frozen blind field (D = {options.dims[0]}), coloured by the datum they end nearest to",
    )
    return figure


def _drawn(study: Study, target: str) -> Ride:
    return next(each for each in study.rides if (each.target, each.dim) == (target, study.options.dims[0]))


def _ends(each: Ride) -> list[str]:
    """Return the colour of the datum that each particle ends nearest to."""
    distance = np.linalg.norm(each.plane[-1][:, None] - _POINTS[None], axis=-1)
    return [style.COLORS[index] for index in distance.argmin(axis=1)]


def _particles(axes: Any, each: Ride, frame: int) -> None:
    trails = each.plane[max(0, frame - _TRAIL) : frame + 1].swapaxes(0, 1)
    axes.add_collection(LineCollection(list(trails), colors="0.75", linewidths=0.4, zorder=1))
    axes.scatter(*each.plane[frame].T, s=5, c=_ends(each), linewidth=0.0, zorder=2)
    axes.plot(*_POINTS.T, "o", color="black", markerfacecolor="white", markersize=4.5, zorder=3)
    axes.set(xlim=(-_LIMIT, _LIMIT), ylim=(-_LIMIT, _LIMIT), aspect="equal", xticks=[], yticks=[])
    axes.spines[["top", "right"]].set_visible(True)
    axes.grid(visible=False)


def _distances(axes: Any, rides: list[Ride]) -> None:
    for number, each in enumerate(rides):
        ordered = np.maximum(np.sort(each.distance), _FLOOR)
        share = np.arange(1, len(ordered) + 1) / len(ordered)
        axes.step(ordered, share, where="post", color=style.COLORS[number], label=f"D = {each.dim}")
    axes.axvline(NEAR, color=style.REFERENCE, linestyle=":", linewidth=0.9)
    axes.set(xscale="log", xlim=(0.6 * _FLOOR, 5.0), ylim=(0.0, 1.03), ylabel="share of particles")
    axes.legend(loc="lower right", fontsize=7.0)


def pages(study: Study, image: Image.Image) -> dict[str, str | bytes]:  # noqa: ARG001
    """Return the animation as WebP, and as GIF where that is small."""
    shown = [_frame(study, frame) for frame in range(_FRAMES)]
    gif = animation.encoded([each.quantize(64) for each in shown], "GIF")
    return {".webp": animation.encoded(shown, "WEBP"), **({".gif": gif} if len(gif) <= _SMALL_BYTES else {})}


@style.paper()
def _frame(study: Study, frame: int) -> Image.Image:
    figure = Figure(figsize=(9.0, 3.3), layout="constrained")
    for axes, target in zip(figure.subplots(1, len(_SYSTEMS)), _SYSTEMS, strict=True):
        each = _drawn(study, target)
        _particles(axes, each, frame)
        axes.set_title(f"{target}, τ = {each.tau[frame]:.2f}")
    return to_image(figure, dpi=100).convert("RGB")


def arrays(study: Study) -> dict[str, Any]:
    """Return the fields of :class:`Ride`, stacked, and the shares."""
    names = (*Ride._fields, "reached")
    found = {name: np.asarray([getattr(each, name) for each in study.rides]) for name in names}
    return {**found, "points": _POINTS}
