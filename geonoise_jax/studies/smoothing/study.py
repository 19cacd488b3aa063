r"""Does a network's smoothing restore the paper's ordering of blind targets, and if so, which property of it?

With exact blind fields flow matching keeps a residual of norm about 0.7 and noise prediction a larger one, while EDM
and equilibrium matching reach the data ("The Geometry of Noise", arXiv:2602.18428, Table 2, says: noise prediction
breaks, the others are stable). A network is no exact field. Here the exact blind field of 16 points on a circle in a
plane of R^D gives way to smoothed ones,

    mollified   E f*(u + h xi), h per coordinate
    floor       of a prior of t without noise-to-signal ratios b / a below the floor
    ceiling     of a prior without ratios above the ceiling
    slope       with |f - f(x_k)| <= L |u - x_k| at the nearest datum x_k
    network     what residual MLPs of growing width learn, by the usual loss of the system's config

and each is sampled blind by Heun steps uniform in log SNR over the whole range of the process, networks by the sampler
of their config. A field is clean if 90% of its samples end nearer to a datum than halfway to that datum's neighbour.

What decides is predicted beforehand. Noise and velocity obey the clock of :mod:`.radial`, a flow in one dimension. The
targets of x come to rest where the smoothed estimate of x is a fixed point that attracts: at a datum if that point is
within the limit, and no slope of the estimate there reaches 1.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from geonoise_jax.checks import increasing, integer
from geonoise_jax.exact.delivery import in_one_warning
from geonoise_jax.process.keys import root_key
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import VE, Linear, VPLinear
from geonoise_jax.process.targets import Equilibrium, Noise, Signal, Velocity
from geonoise_jax.progress import Progress
from geonoise_jax.sampling import sample
from geonoise_jax.studies.quantiles import QUANTILE, quantile, quantile_interval
from geonoise_jax.studies.quick import replace_defaults
from geonoise_jax.studies.ring import NUM_DATA
from geonoise_jax.studies.smoothing import networks
from geonoise_jax.studies.smoothing.fields import SPACING, Smoothing, ring_field, ring_points
from geonoise_jax.studies.smoothing.radial import RadialField, attractor, radial_field

CLEAN = 0.5 * SPACING
EXACT, MOLLIFIED, FLOOR, CEILING, SLOPE, NETWORK = "exact", "mollified", "floor", "ceiling", "slope", "network"
_FIELDS = {MOLLIFIED: "width", FLOOR: "floor", CEILING: "ceiling", SLOPE: "slope"}
_RADII = 4096
_QUICK = {
    "dims": (8,),
    "num": 64,
    "num_steps": 40,
    "draws": 8,
    "mollified": (0.1,),
    "floor": (0.1,),
    "ceiling": (1.0,),
    "slope": (3.0,),
    "widths": (),
    "growth": (8, 128),
}


class Target(NamedTuple):
    """A process.

    Attributes:
        name: as in the table.
        process: schedule and target.
        system: the named system whose networks stand beside it.
        stable: what the paper says of its blind field.
        clock: whether a one-dimensional flow predicts where its samples stop; otherwise a point of rest does.
    """

    name: str
    process: Process
    system: str
    stable: bool
    clock: bool


TARGETS = (
    Target("noise (DDPM)", Process(VPLinear(), Noise()), "ddpm", False, True),
    Target("velocity (FM)", Process(Linear(), Velocity()), "flow_matching", True, True),
    Target("x (EDM)", Process(VE(), Signal()), "edm", True, False),
    Target("EqM", Process(Linear(), Equilibrium()), "eqm", True, False),
)


@dataclasses.dataclass(frozen=True)
class Options:
    """Choices of the study.

    Attributes:
        dims: dimensions D of the space.
        num: samples of each field.
        num_steps: Heun steps.
        draws: nodes of the mollification, a power of 2.
        mollified: widths h.
        floor: least noise-to-signal ratios b / a of the prior.
        ceiling: greatest ones.
        slope: largest slopes at the data.
        widths: of the networks; none: no networks.
        steps: updates of each network.
        batch_size: fresh points of an update.
        growth: dimensions of the prediction for one datum.
        quick: try everything but networks out, where numbers are not given.
        seed: seed of starts and networks.

    Raises:
        ValueError: if a value is out of its range.
    """

    dims: tuple[int, ...] = (2, 8, 32)
    num: int = 256
    num_steps: int = 40
    draws: int = 16
    mollified: tuple[float, ...] = (0.03, 0.1, 0.3)
    floor: tuple[float, ...] = (0.03, 0.1, 0.3)
    ceiling: tuple[float, ...] = (3.0, 1.0, 0.3)
    slope: tuple[float, ...] = (30.0, 10.0, 3.0)
    widths: tuple[int, ...] = (8, 64)
    steps: int = 1000
    batch_size: int = 256
    growth: tuple[int, ...] = (8, 32, 128, 512, 3072)
    quick: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate the numbers."""
        if self.quick:
            replace_defaults(self, _QUICK)
        least = {"num": 10, "num_steps": 1, "draws": 2, "steps": 1, "batch_size": 1, "seed": 0}
        for name, low in least.items():
            integer(name, getattr(self, name), low=low)
        increasing("dims", self.dims, integer, low=2)
        increasing("growth", self.growth, integer, low=2)
        if self.widths:
            increasing("widths", self.widths, integer, low=2)
        _ = self.smoothings

    @property
    def smoothings(self) -> tuple[tuple[str, float, Smoothing], ...]:
        """Property, its value and what it does to a field; the exact field is the first."""
        found = [(EXACT, 0.0, Smoothing())]
        for name, field in _FIELDS.items():
            found += [(name, value, Smoothing(**{field: value})) for value in getattr(self, name)]
        return tuple(found)


class Ends(NamedTuple):
    """Where samples end: n of each of any number of fields.

    Attributes:
        distance: from the nearest datum; infinite where a sample is not finite.
        plane: the same, of the projections to the plane of the data, which is what a picture shows.
        height: distance from that plane.
        datum: number of the nearest datum.
    """

    distance: Float[np.ndarray, "*k n"]
    plane: Float[np.ndarray, "*k n"]
    height: Float[np.ndarray, "*k n"]
    datum: Float[np.ndarray, "*k n"]


class Study(NamedTuple):
    """What was measured: S targets, K dimensions, V smoothings, W networks, n samples.

    Attributes:
        options: the choices.
        ends: of smoothed fields, [S, K, V, n].
        clock: predicted median and 90% quantile of the distance, and 90% quantile of the height, of the targets with a
            clock; of others not a number.
        rest: predicted distance of the point of rest and the largest slope there, of the others.
        trained: ends of networks, [S, K, W, n].
        own: of the exact field of the networks' config, [S, K, n]; empty without networks.
        profile: median and 90% quantile of the distance that the networks' radial speed predicts, of flow matching.
        loss: mean loss of the last updates.
        growth: predicted 90% quantile of the exact field of one datum, of the targets with a clock, by
            ``options.growth``.
    """

    options: Options
    ends: Ends
    clock: Float[np.ndarray, "S K V 3"]
    rest: Float[np.ndarray, "S K V 2"]
    trained: Ends
    own: Ends
    profile: Float[np.ndarray, "K W 2"]
    loss: Float[np.ndarray, "S K W"]
    growth: Float[np.ndarray, "G L"]

    def columns(self, name: str) -> list[int]:
        """Return the places of a property among the smoothings."""
        return [place for place, each in enumerate(self.options.smoothings) if each[0] == name]


def interval(ends: Float[np.ndarray, "*k n"]) -> Float[np.ndarray, "*k 2"]:
    """Return the ends of their 95% intervals."""
    return quantile_interval(ends, QUANTILE)


@in_one_warning()
def measure(options: Options) -> Study:
    """Sample every smoothed field, train and sample the networks, and predict where all of them end.

    Raises:
        ValueError: if a training diverges.
    """
    each = len(options.smoothings) + len(options.widths)
    progress = Progress("smoothing", len(TARGETS) * len(options.dims) * each, "fields")
    smoothed, trained = [], []
    with contextlib.closing(progress):
        growth = [_growth(target, options) for target in TARGETS if target.clock]
        for number, target in enumerate(TARGETS):
            for column, dim in enumerate(options.dims):
                done = (number * len(options.dims) + column) * each
                smoothed.append(_smoothed(target, dim, options))
                progress.update(done + len(options.smoothings), f"{target.name}, D = {dim}")
                trained.append(_trained(target, dim, options, progress, done + len(options.smoothings)))
    shape = (len(TARGETS), len(options.dims))
    ends, clock, rest = (_stacked(part, shape) for part in zip(*smoothed, strict=True))
    nets, own, profile, loss = (_stacked(part, shape) for part in zip(*trained, strict=True))
    velocity = [target.system for target in TARGETS].index("flow_matching")
    found = (Ends(*np.moveaxis(each, 2, 0)) for each in (ends, nets, own))
    one, two, three = found
    return Study(options, one, clock, rest, two, three, profile[velocity], loss, np.asarray(growth))


def _stacked(parts: tuple[np.ndarray, ...], shape: tuple[int, int]) -> np.ndarray:
    found = np.stack(parts)
    return found.reshape(*shape, *found.shape[1:])


def _smoothed(target: Target, dim: int, options: Options) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ends [4, V, n], clock [V, 3] and rest [V, 2] of all smoothed fields of a target."""
    ends, clock, rest = [], [], []
    for _, _, smoothing in options.smoothings:
        field = ring_field(target.process, dim, smoothing, options.draws)
        drawn = sample(field, root_key(options.seed), options.num, "heun", options.num_steps, grid="log_snr")
        ends.append(_ends(drawn, dim))
        radial = radial_field(target.process, dim, smoothing) if target.clock else None
        clock.append(_stops(radial, dim, options) if radial else [np.nan] * 3)
        rest.append([np.nan] * 2 if radial else attractor(field))
    return np.stack(ends, axis=1), np.asarray(clock), np.asarray(rest)


def _ends(drawn: Float[np.ndarray, "n D"], dim: int) -> Float[np.ndarray, "4 n"]:
    """Return what :class:`Ends` holds of samples."""
    samples = drawn.astype(np.float64)
    away, beside = samples[:, None] - ring_points(dim), samples[:, None, :2] - ring_points(2)
    rows = [np.linalg.norm(each, axis=-1) for each in (away, beside, samples[:, None, 2:])]
    found = np.stack([*(each.min(1) for each in rows), rows[0].argmin(1)])
    return np.where(np.isfinite(samples).all(1), found, np.inf)


def _stops(field: RadialField, dim: int, options: Options) -> list[float]:
    """Return median and 90% quantile of the distance, and 90% quantile of the height, that a clock predicts."""
    generator = np.random.default_rng(options.seed)
    squares = np.stack([generator.chisquare(each, _RADII) if each else np.zeros(_RADII) for each in (2, dim - 2)])
    radius = np.sqrt(squares.sum(0))
    key, noise = root_key(options.seed), radius[:, None].astype(np.float32)
    drawn = sample(field, key, _RADII, "heun", options.num_steps, grid="log_snr", noise=noise)
    stopped = np.abs(drawn[:, 0].astype(np.float64))
    height = stopped * np.sqrt(squares[1]) / radius
    return [float(np.median(stopped)), float(quantile(stopped)), float(quantile(height))]


def _growth(target: Target, options: Options) -> list[float]:
    """Return the 90% quantile that the clock of the exact field predicts, by dimension."""
    return [_stops(radial_field(target.process, dim, Smoothing()), dim, options)[1] for dim in options.growth]


def _trained(
    target: Target, dim: int, options: Options, progress: Progress, done: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return ends [4, W, n] of networks, those [4, n] of their exact field, profiles [W, 2] and losses [W]."""
    ends, profile, loss = [], [], []
    own = np.zeros((4, 0))
    for place, width in enumerate(options.widths):

        def tell(now: int, total: int, place: int = place, width: int = width) -> None:
            label = f"{target.name}, D = {dim}, network of width {width}: {now} of {total} updates"
            progress.update(done + place + (now == total), label)

        chosen = networks.config(target.system, dim, width, options.steps, options.batch_size)
        found = networks.train(chosen, options.num, options.seed, tell)
        ends.append(_ends(found.samples, dim))
        loss.append(found.loss)
        radial = target.system == "flow_matching"
        speed = networks.speed(found.field, options.seed) if radial else None
        profile.append(_stops(speed, dim, options)[:2] if speed else [np.nan] * 2)
        if place == 0:
            own = _ends(networks.exact(chosen, options.num, options.seed), dim)
    count = len(options.widths)
    stacked = np.stack(ends, axis=1) if ends else np.zeros((4, 0, options.num))
    return stacked, own, np.asarray(profile).reshape(count, 2), np.asarray(loss)


def reached(datum: Float[np.ndarray, "*k n"]) -> Float[np.ndarray, "*k"]:
    """Return the effective number of data that samples reach, the exponential of the entropy of their shares."""
    shares = (datum[..., None] == np.arange(NUM_DATA)).mean(-2)
    return np.exp(-(shares * np.log(np.where(shares > 0.0, shares, 1.0))).sum(-1))
