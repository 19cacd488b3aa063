"""Sampling grids: decreasing times from t_max to t_min along which a sampler integrates."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from geonoise_jax import checks
from geonoise_jax.errors import UserError
from geonoise_jax.process.schedules import Schedule


def uniform(schedule: Schedule, num_steps: int) -> Float[Array, "{num_steps}+1"]:
    """Return ``num_steps + 1`` times equally spaced in t, from t_max down to t_min.

    Raises:
        ValueError: if num_steps is not positive.
    """
    checks.integer("num_steps", num_steps, low=1)
    return jnp.linspace(schedule.t_max, schedule.t_min, num_steps + 1)


def rho(schedule: Schedule, num_steps: int, *, exponent: float = 7.0) -> Float[Array, "{num_steps}+1"]:
    """Return ``num_steps + 1`` times equally spaced in ``t^(1/exponent)`` (Karras et al. 2022, equation 5).

    Raises:
        ValueError: if num_steps or the exponent is not positive.
    """
    checks.integer("num_steps", num_steps, low=1)
    checks.real("exponent", exponent, low=0.0, open_low=True)
    ends = schedule.t_max ** (1 / exponent), schedule.t_min ** (1 / exponent)
    return _pin(schedule, jnp.linspace(*ends, num_steps + 1) ** exponent)


def log_snr(schedule: Schedule, num_steps: int) -> Float[Array, "{num_steps}+1"]:
    """Return ``num_steps + 1`` times equally spaced in the log signal-to-noise ratio (Lu et al. 2022).

    Raises:
        ValueError: if num_steps is not positive, or if the ratio is 0 or infinite at an end of the schedule.
    """
    checks.integer("num_steps", num_steps, low=1)
    with jax.ensure_compile_time_eval():
        start, stop = schedule.eta(schedule.t_max), schedule.eta(schedule.t_min)
        finite = bool(jnp.isfinite(start) & jnp.isfinite(stop))
    if not finite:
        raise UserError(
            f"{type(schedule).__name__}: t_min = {schedule.t_min}, t_max = {schedule.t_max}: the log-SNR grid needs "
            "a > 0 at t_max and b > 0 at t_min"
        )
    return _pin(schedule, schedule.t_of_eta(jnp.linspace(start, stop, num_steps + 1)))


def _pin(schedule: Schedule, times: Float[Array, "n"]) -> Float[Array, "n"]:
    """Make the ends exact: rounding must not place a node outside the range on which the process is defined."""
    return times.at[0].set(schedule.t_max).at[-1].set(schedule.t_min)


GRIDS = {"uniform": uniform, "rho": rho, "log_snr": log_snr}
