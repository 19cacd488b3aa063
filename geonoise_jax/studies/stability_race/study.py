r"""Gain, estimation error and drift error of exact blind fields along the noise levels, for every target.

The data are 16 points on the unit circle in a plane of R^D, the time law is uniform, and blind and conditional field
are both exact, in double precision. Equations of "The Geometry of Noise" (arXiv:2602.18428):

(22, 64)  Delta v = |nu| |f* - f_t|           drift error, per unit t
          |nu / b'| |f* - f_t|                per unit b, whatever the clock
          |omega_i| |f* - f_t|                of one discrete step, see ``Process.step``

Observations lie on the trajectory, u = a x + b eps with the same x and eps at every level, or at a fixed distance from
a datum. Exponents d log / d log t are fitted to root mean squares over the draws between t = 1e-6 and 1e-4; their
intervals are from the bootstrap over draws. Beside them stand those of the local model (``stability.local``): an error
of the size |d| b^0 where the target holds the noise, and b^(D - kappa) where it is affine in u and x, with kappa the
exponent of the prior of b. Errors of the latter kind are measured by their logarithms, far below rounding.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from geonoise_jax.checks import increasing, integer, real
from geonoise_jax.exact import FiniteSet, Marginal
from geonoise_jax.exact.delivery import in_one_warning
from geonoise_jax.fields import ExactField
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import VE, Linear, VPLinear
from geonoise_jax.process.targets import Equilibrium, Noise, Signal, Velocity, VPrediction
from geonoise_jax.process.times import Uniform
from geonoise_jax.progress import Progress
from geonoise_jax.stability import (
    affine_target,
    at_distance,
    in_units,
    log_estimation_error,
    noise_exponent,
    of_steps,
    perturbation,
)
from geonoise_jax.studies.quick import replace_defaults
from geonoise_jax.studies.ring import NUM_DATA, ring

# Where the prior begins, far below the noise levels that are looked at.
_FLOOR = 1e-9
# Of the exponents, in t.
WINDOW = (1e-6, 1e-4)
_ACCURACY = 1e-7
_RESAMPLES = 300
_MOST = 2.0


@dataclasses.dataclass(frozen=True)
class System:
    """A process.

    Attributes:
        name: as in the table.
        process: schedule and target, on times that begin at next to nothing.
    """

    name: str
    process: Process

    @functools.cached_property
    def affine(self) -> bool:
        """Whether the target is ``alpha u + beta x`` at every t."""
        return affine_target(self.process) is not None


SYSTEMS = (
    System("VP eps", Process(VPLinear(t_min=_FLOOR), Noise())),
    System("VP v", Process(VPLinear(t_min=_FLOOR), VPrediction())),
    System("VP x", Process(VPLinear(t_min=_FLOOR), Signal())),
    System("FM v", Process(Linear(t_min=_FLOOR), Velocity())),
    System("VE eps", Process(VE(t_min=_FLOOR), Noise())),
    System("VE x (EDM)", Process(VE(t_min=_FLOOR), Signal())),
    System("EqM in (19)", Process(Linear(t_min=_FLOOR), Equilibrium())),
)


@dataclasses.dataclass(frozen=True)
class Options:
    """Choices of the study.

    Attributes:
        dims: dimensions D of the space.
        num: draws of (x, eps), at least 2.
        levels: noise levels, evenly spaced in log(b / a) from t = 1e-6 to t_max.
        radius: the fixed distance from a datum.
        quick: two dimensions and few draws, where they are not given.
        seed: seed of the draws.

    Raises:
        ValueError: if a value is out of its range.
    """

    dims: tuple[int, ...] = (2, 8, 32, 128)
    num: int = 32
    levels: int = 25
    radius: float = 0.1
    quick: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate the numbers."""
        if self.quick:
            replace_defaults(self, {"dims": (2, 8), "num": 8})
        for name, low in (("num", 2), ("levels", 8), ("seed", 0)):
            integer(name, getattr(self, name), low=low)
        real("radius", self.radius, low=0.0, high=_MOST, open_low=True)
        increasing("dims", self.dims, integer, low=2)


@dataclasses.dataclass(frozen=True)
class Study:
    """What was measured: S systems, K dimensions, T levels, n draws.

    Attributes:
        options: the choices.
        systems: what the rows are.
        t: noise levels, increasing.
        noise: b there.
        ratio: b / a there.
        gain: ``|nu|`` there, per unit t.
        log_error: ``log |f* - f_t|`` on the trajectory.
        per_time: what to add for ``log Delta v``, per unit t.
        per_noise: what to add for its logarithm per unit b.
        per_step: what to add for that of the step from a level to the one below; the first has none.
        log_fixed: ``log |f* - f_t|`` at the fixed distance.
        exponents: order of b in t, and kappa of the prior of b, at the lowest level, [S, 2].
    """

    options: Options
    systems: tuple[System, ...]
    t: Float[np.ndarray, "S T"]
    noise: Float[np.ndarray, "S T"]
    ratio: Float[np.ndarray, "S T"]
    gain: Float[np.ndarray, "S T"]
    log_error: Float[np.ndarray, "S K T n"]
    per_time: Float[np.ndarray, "S T"]
    per_noise: Float[np.ndarray, "S T"]
    per_step: Float[np.ndarray, "S T"]
    log_fixed: Float[np.ndarray, "S K T n"]
    exponents: Float[np.ndarray, "S 2"]

    def rms(self, number: int, unit: Float[np.ndarray, "S T"], *, fixed: bool = False) -> Float[np.ndarray, "K T"]:
        """Return the log of the root mean square over draws of a system's error, in a unit."""
        return log_rms((self.log_fixed if fixed else self.log_error)[number]) + unit[number]

    def slope(self, number: int, unit: Float[np.ndarray, "S T"], *, fixed: bool = False) -> Float[np.ndarray, "K 3"]:
        """Return the exponents in t of a system's error in a unit: value and ends of the 95% interval."""
        inside = (self.t[number] >= WINDOW[0] * (1.0 - 1e-9)) & (self.t[number] <= WINDOW[1])
        logs = (self.log_fixed if fixed else self.log_error)[number][:, inside] + unit[number, inside, None]
        x = np.log(self.t[number, inside])
        generator = np.random.default_rng(self.options.seed)
        rows = generator.integers(0, logs.shape[-1], (_RESAMPLES, logs.shape[-1]))
        again = np.stack([_fitted(x, log_rms(logs[..., row])) for row in rows])
        value = _fitted(x, log_rms(logs))
        low, high = np.quantile(again, (0.025, 0.975), axis=0)
        return np.stack([value, np.minimum(low, value), np.maximum(high, value)], axis=-1)

    def noisy_share(self, number: int) -> Float[np.ndarray, "K n"]:
        """Return the share of what the steps of the grid add where b > a, draw by draw."""
        added = np.exp(self.log_error[number] + self.per_step[number, :, None])
        return added[:, self.ratio[number] > 1.0].sum(1) / added.sum(1)

    def theory(self, number: int) -> Float[np.ndarray, "K"]:
        """Return the exponents of Delta v of the local model; not a number where it is logarithmic."""
        order, exponent = self.exponents[number]
        system = self.systems[number]
        if not system.affine:
            return np.full(len(self.options.dims), order - 1.0)
        degrees = np.asarray(self.options.dims) - exponent
        inside = self.t[number] <= WINDOW[1]
        gain = _fitted(np.log(self.t[number, inside]), np.log(self.gain[number, inside])[None])[0]
        return np.where(np.abs(degrees) < 1e-2, np.nan, order * degrees + gain)


@in_one_warning()
def measure(options: Options, systems: tuple[System, ...] = SYSTEMS) -> Study:
    """Measure every system in every dimension, in double precision."""
    progress = Progress("stability race", len(systems) * len(options.dims), "systems x dimensions")
    parts = []
    with contextlib.closing(progress), jax.enable_x64(True):
        for number, system in enumerate(systems):
            levels = _levels(system.process, options)
            of_dims = []
            for column, dim in enumerate(options.dims):
                of_dims.append(_errors(system, dim, levels[0], options))
                progress.update(number * len(options.dims) + column + 1, f"{system.name}, D = {dim}")
            errors, fixed = (np.stack(each) for each in zip(*of_dims, strict=True))
            *first, gain, per_time, per_noise, per_step, exponents = levels
            parts.append((*first, gain, errors, per_time, per_noise, per_step, fixed, exponents))
    return Study(options, systems, *(np.stack(part) for part in zip(*parts, strict=True)))


def log_rms(logs: Float[np.ndarray, "*k n"]) -> Float[np.ndarray, "*k"]:
    """Return the logarithm of the root mean square of numbers that are given by their logarithms."""
    top = logs.max(-1)
    safe = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return safe + 0.5 * np.log(np.exp(2.0 * (logs - safe[..., None])).mean(-1))


def _fitted(x: Float[np.ndarray, "T"], y: Float[np.ndarray, "K T"]) -> Float[np.ndarray, "K"]:
    """Return the least-squares slopes of rows."""
    centred = x - x.mean()
    return (y * centred).sum(-1) / np.square(centred).sum()


def _levels(process: Process, options: Options) -> tuple[np.ndarray, ...]:
    """Return what of a study depends on the process and the noise levels alone."""
    schedule = process.schedule
    ends = schedule.eta(jnp.asarray([WINDOW[0], schedule.t_max]))
    t = schedule.t_of_eta(jnp.linspace(ends[0], ends[1], options.levels)).at[0].set(WINDOW[0])
    t = jnp.minimum(t, schedule.t_max)
    k = process.coeffs(t)
    _, nu = process.velocity_coeffs(t)
    one = in_units(process, jnp.ones_like(t), t)
    steps = of_steps(process, jnp.ones(len(t) - 1), t[::-1])[::-1]
    per_step = jnp.concatenate([jnp.zeros(1), steps])
    order = k.db[0] * t[0] / k.b[0]
    exponents = jnp.stack([order, noise_exponent(schedule, _law(process), t[0])])
    logs = (np.asarray(jnp.log(each)) for each in (one.per_time, one.per_noise, per_step))
    return (*map(np.asarray, (t, k.b, k.b / k.a, jnp.abs(nu))), *logs, np.asarray(exponents))


def _law(process: Process) -> Uniform:
    return Uniform(process.schedule.t_min, process.schedule.t_max)


def _errors(
    system: System, dim: int, t: Float[np.ndarray, "T"], options: Options
) -> tuple[Float[np.ndarray, "T n"], Float[np.ndarray, "T n"]]:
    """Return the logarithms of the errors on the trajectory and at the fixed distance."""
    generator = np.random.default_rng(options.seed)
    points = ring(dim)[0].astype(np.float64)
    x = jnp.asarray(points[generator.integers(0, NUM_DATA, options.num)])
    eps = jnp.asarray(generator.standard_normal((options.num, dim)))
    marginal = Marginal(FiniteSet(points), system.process, _law(system.process), accuracy=_ACCURACY, adaptive=False)
    times = jnp.repeat(jnp.asarray(t), options.num)
    rows, noise = jnp.tile(x, (len(t), 1)), jnp.tile(eps, (len(t), 1))
    on = system.process.corrupt(rows, noise, times)
    found = (_log_error(system, marginal, u, times) for u in (on, at_distance(rows, noise, options.radius)))
    first, second = (np.asarray(each).reshape(len(t), options.num) for each in found)
    return first, second


def _log_error(system: System, marginal: Marginal, u: Float[Array, "b D"], t: Float[Array, "b"]) -> Float[Array, "b"]:
    if system.affine:
        return log_estimation_error(marginal, u, t)
    return jnp.log(perturbation(ExactField(marginal), ExactField(marginal, blind=False), u, t).estimation)


def ten(logs: Float[np.ndarray, "*k"]) -> Float[np.ndarray, "*k"]:
    """Return decimal logarithms of natural ones."""
    return logs / math.log(10.0)
