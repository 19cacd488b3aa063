r"""Do samplers need the noise level? Blind against conditional fields, both exact, so that no training error enters.

The data are 16 points on the unit circle in a random plane of R^D, the time law is uniform, and 300 Heun steps go from
t_max to t_min. Both fields see the same starts. What is measured is the distance of each sample to its nearest datum
(90% quantile over samples); a perfect sampler keeps the noise of t_min, ``b / a |eps|``.

How the blind field of a system ends, the first that holds:

    at the data   its quantile is at most twice that of the conditional field
    collapsed     the samples spread less than half as far about the centre as the data (root mean square)
    residual      its quantile is at most 1.0, the data's radius: blind flow matching keeps a residual of norm about
                  max(0, N(0, 1/2)), whose 90% quantile is 0.91, about 0.7 / sqrt(D) per coordinate
    off           farther away than that

Where the 95% interval of a quantile, or two standard errors of the spread, reach over one of these limits, the outcome
is one "or" another.

"The Geometry of Noise" (arXiv:2602.18428) claims that noise prediction breaks without t, since its gain amplifies the
Jensen gap, and that velocity prediction (bounded gain), EDM's prediction of x (an error that vanishes faster than its
gain grows) and EqM are stable. The exact field

    agrees        if it is off or collapsed where it should break, or at the data where it should be stable
    in part       if it stops at a residual: it neither diverges nor reaches the data
    not told      if its possible outcomes differ in that
    disagrees     otherwise

Intervals of quantiles have order statistics as ends, whatever the law (David & Nagaraja 2003, "Order Statistics",
section 7.1). Both fields have the same starts, so that the interval of the ratio of their quantiles, from the ends of
both, is wider than need be.

A Gaussian, flat but for two axes, shows how far mean and standard deviations are kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from geonoise_jax.checks import increasing, integer
from geonoise_jax.exact import Distribution, FiniteSet, Gaussian
from geonoise_jax.exact.delivery import in_one_warning
from geonoise_jax.process.keys import root_key
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import VE, Linear, VPLinear
from geonoise_jax.process.targets import Equilibrium, Noise, Signal, Velocity, VPrediction
from geonoise_jax.sampling import sample
from geonoise_jax.studies.concurrency import at_once
from geonoise_jax.studies.quantiles import QUANTILE, quantile_interval
from geonoise_jax.studies.ring import exact_field, nearest, ring

BREAKS, STABLE = "breaks", "stable"
AT_DATA, COLLAPSED, RESIDUAL, OFF = "at the data", "collapsed", "residual", "off"
OUTCOMES = (AT_DATA, COLLAPSED, RESIDUAL, OFF)
AGREES, IN_PART, DISAGREES, NOT_TOLD = "agrees", "in part", "disagrees", "not told"
_OR = " or "
SAME_DISTANCE = 2.0
_COLLAPSED_SPREAD = 0.5
LARGEST_RESIDUAL = 1.0
_DESCENT_STEP = 0.1
# Mean and standard deviations of the Gaussian along its two wide axes, and the deviation along all others.
_CENTRE, _WIDE, _FLAT = (1.0, 0.0), (1.0, 0.5), 1e-3


@dataclasses.dataclass(frozen=True)
class System:
    """A process, what the paper claims of its blind field, and how that is sampled.

    Attributes:
        name: as in the table.
        process: schedule and target.
        claim: ``BREAKS`` or ``STABLE``.
        descends: whether the blind field is descended instead of integrated along times.
    """

    name: str
    process: Process
    claim: str
    descends: bool = False


SYSTEMS = (
    System("VP eps", Process(VPLinear(), Noise()), BREAKS),
    System("VP v", Process(VPLinear(), VPrediction()), STABLE),
    System("VP x", Process(VPLinear(), Signal()), STABLE),
    System("FM v", Process(Linear(), Velocity()), STABLE),
    System("VE eps", Process(VE(), Noise()), BREAKS),
    System("VE x (EDM)", Process(VE(), Signal()), STABLE),
    System("EqM, ODE", Process(Linear(), Equilibrium()), STABLE),
    System("EqM, descent", Process(Linear(), Equilibrium()), STABLE, descends=True),
)


@dataclasses.dataclass(frozen=True)
class Options:
    """Choices of the study.

    Attributes:
        dims: dimensions D of the space.
        num: samples per system and dimension.
        num_steps: Heun steps, on a grid uniform in the log signal-to-noise ratio; descent takes as many evaluations.
        gaussian_dim: dimension of the Gaussian.
        gaussian_num: samples of the Gaussian.
        seed: seed of the starts.
    """

    dims: tuple[int, ...] = (2, 8, 32, 128)
    num: int = 256
    num_steps: int = 300
    gaussian_dim: int = 32
    gaussian_num: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate the sizes."""
        least = {"gaussian_dim": 3, "num": 10, "num_steps": 1, "gaussian_num": 2, "seed": 0}
        for name, low in least.items():
            integer(name, getattr(self, name), low=low)
        increasing("dims", self.dims, integer, low=2)


QUICK = Options(dims=(2, 8), num=64, num_steps=100, gaussian_dim=8, gaussian_num=256)


@dataclasses.dataclass(frozen=True)
class Study:
    """What was measured: S systems, K dimensions, n samples.

    Attributes:
        options: choices of the study.
        systems: what the rows are.
        blind: distances to the nearest datum, sampled with the blind field; infinite where a sample is not finite.
        conditional: the same with the conditional field of the process and Heun's method.
        plane: samples of the blind field in the plane of the data.
        height: their distances from that plane.
        blind_moments: of the Gaussian: norm of the error of the mean; standard deviations along the first, the second
            and all other axes (root mean square), relative to those of data with the noise of t_min.
        conditional_moments: the same with the conditional field.
    """

    options: Options
    systems: tuple[System, ...]
    blind: Float[np.ndarray, "S K n"]
    conditional: Float[np.ndarray, "S K n"]
    plane: Float[np.ndarray, "S K n 2"]
    height: Float[np.ndarray, "S K n"]
    blind_moments: Float[np.ndarray, "S 4"]
    conditional_moments: Float[np.ndarray, "S 4"]

    @property
    def blind_quantile(self) -> Float[np.ndarray, "S K"]:
        """90% quantile of the distance, blind."""
        return np.quantile(self.blind, QUANTILE, axis=-1)

    @property
    def conditional_quantile(self) -> Float[np.ndarray, "S K"]:
        """90% quantile of the distance, conditional."""
        return np.quantile(self.conditional, QUANTILE, axis=-1)

    @property
    def blind_interval(self) -> Float[np.ndarray, "S K 2"]:
        """Ends of the 95% interval of the blind quantile."""
        return quantile_interval(self.blind, QUANTILE)

    @property
    def ratio_interval(self) -> Float[np.ndarray, "S K 2"]:
        """Ends of an interval of the ratio of both quantiles, of at least 90%."""
        return self.blind_interval / quantile_interval(self.conditional, QUANTILE)[..., ::-1]

    @property
    def spread(self) -> Float[np.ndarray, "S K"]:
        """Root mean square distance of the samples from the centre of the data, whose own is 1."""
        return np.sqrt(self._squares.mean(-1))

    @property
    def spread_error(self) -> Float[np.ndarray, "S K"]:
        """Standard error of the spread, to first order."""
        return self._squares.std(-1, ddof=1) / (2.0 * np.sqrt(self._squares.shape[-1]) * self.spread)

    @property
    def _squares(self) -> Float[np.ndarray, "S K n"]:
        return np.square(self.plane.astype(np.float64)).sum(-1) + np.square(self.height.astype(np.float64))

    @property
    def outcomes(self) -> list[list[str]]:
        """How each blind field ends, by system and dimension."""
        conditional = quantile_interval(self.conditional, QUANTILE)
        around = self.spread[..., None] + 2.0 * np.array([-1.0, 1.0]) * self.spread_error[..., None]
        numbers = zip(self.blind_interval, conditional, around, strict=True)
        return [[told(*each) for each in zip(*row, strict=True)] for row in numbers]

    @property
    def verdicts(self) -> list[list[str]]:
        """Whether each blind field does what the paper claims, by system and dimension."""
        rows = zip(self.systems, self.outcomes, strict=True)
        return [[verdict(system.claim, each) for each in row] for system, row in rows]


@in_one_warning()
def measure(options: Options, systems: tuple[System, ...] = SYSTEMS) -> Study:
    """Sample every system in every dimension, with the blind and with the conditional field."""
    tasks: dict[str, Callable[[], tuple[np.ndarray, ...]]] = {}
    for system in systems:
        tasks |= {f"{system.name}, D = {dim}": partial(_on_ring, system, dim, options) for dim in options.dims}
        tasks[f"{system.name}, Gaussian"] = partial(_on_gaussian, system, options)
    found, of_a_system = at_once("blind sampling", "fields", tasks), len(options.dims) + 1
    moments = found[of_a_system - 1 :: of_a_system]
    rings = [each for number, each in enumerate(found, start=1) if number % of_a_system]
    shape = (len(systems), len(options.dims))
    parts = (np.stack(part) for part in zip(*rings, strict=True))
    ring_parts = [part.reshape(*shape, *part.shape[1:]) for part in parts]
    return Study(options, systems, *ring_parts, *(np.stack(part) for part in zip(*moments, strict=True)))


def outcome(blind: float, conditional: float, spread: float) -> str:
    """Return how a blind field ends, by the rule of this module.

    Args:
        blind: quantile of the distance to the nearest datum.
        conditional: that of the conditional field.
        spread: root mean square distance of the samples from the centre, in units of the data's.
    """
    if blind <= SAME_DISTANCE * conditional:
        return AT_DATA
    if spread < _COLLAPSED_SPREAD:
        return COLLAPSED
    return RESIDUAL if blind <= LARGEST_RESIDUAL else OFF


def told(blind: Float[np.ndarray, "2"], conditional: Float[np.ndarray, "2"], spread: Float[np.ndarray, "2"]) -> str:
    """Return the outcomes of all numbers between these ends, joined by "or"; arguments as of :func:`outcome`."""
    ratios = ((blind[0], conditional[1]), (blind[1], conditional[0]))
    ended = {outcome(*numbers, each) for numbers in ratios for each in spread}
    return _OR.join(each for each in OUTCOMES if each in ended)


def verdict(claim: str, ended: str) -> str:
    """Return whether an outcome, or each of several joined by "or", is what the paper claims, by this module's rule."""
    if _OR in ended:
        verdicts = {verdict(claim, each) for each in ended.split(_OR)}
        return verdicts.pop() if len(verdicts) == 1 else NOT_TOLD
    if ended == RESIDUAL:
        return IN_PART
    return AGREES if (ended == AT_DATA) == (claim == STABLE) else DISAGREES


def arrays(study: Study) -> dict[str, np.ndarray]:
    """Return the arrays of :class:`Study`, the quantiles, and names, dimensions, outcomes and verdicts."""
    measured = ("blind", "conditional", "plane", "height", "blind_moments", "conditional_moments")
    derived = ("blind_quantile", "conditional_quantile", "blind_interval", "ratio_interval", "spread", "spread_error")
    found = {name: np.asarray(getattr(study, name)) for name in (*measured, *derived, "outcomes", "verdicts")}
    labels = {name: np.asarray([getattr(each, name) for each in study.systems]) for name in ("name", "claim")}
    return {**found, **labels, "dims": np.asarray(study.options.dims)}


def _on_ring(system: System, dim: int, options: Options) -> tuple[np.ndarray, ...]:
    """Return the parts of a study that one system and dimension give."""
    points, frame = ring(dim)
    law = FiniteSet(points)
    blind, conditional = (_draw(system, law, options, options.num, each) for each in (True, False))
    plane = blind @ frame
    height = np.linalg.norm(blind - plane @ frame.T, axis=1)
    return nearest(blind, points), nearest(conditional, points), plane, height


def _on_gaussian(system: System, options: Options) -> tuple[np.ndarray, np.ndarray]:
    """Return the moments of a blind and of a conditional field on the Gaussian, relative to the expected ones."""
    mean, deviation = np.zeros(options.gaussian_dim), np.full(options.gaussian_dim, _FLAT)
    mean[:2], deviation[:2] = _CENTRE, _WIDE
    law = Gaussian(mean.astype(np.float32), np.square(deviation).astype(np.float32))
    schedule = system.process.schedule
    a, b = (float(scale) for scale in schedule.scales(jnp.asarray(schedule.t_min)))

    def moments(blind: bool) -> np.ndarray:
        samples = _draw(system, law, options, options.gaussian_num, blind).astype(np.float64)
        # Descent does not stop at the noise of t_min.
        noise = 0.0 if blind and system.descends else b / a
        ratio = samples.std(axis=0) / np.hypot(deviation, noise)
        shift = np.linalg.norm(samples.mean(axis=0) - mean)
        return np.asarray([shift, ratio[0], ratio[1], np.sqrt(np.square(ratio[2:]).mean())])

    return moments(True), moments(False)


def _draw(system: System, law: Distribution, options: Options, num: int, blind: bool) -> np.ndarray:
    field, key = exact_field(law, system.process, blind), root_key(options.seed)
    if blind and system.descends:
        return sample(field, key, num, "eqm_descent", step_size=_DESCENT_STEP, max_steps=2 * options.num_steps)
    return sample(field, key, num, "heun", options.num_steps, grid="log_snr")
