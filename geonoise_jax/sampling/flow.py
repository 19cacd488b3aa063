r"""The sampling ODE in variables in which it is regular at both ends of every schedule.

With u = a x + b eps, s = sqrt(a^2 + b^2) and the angle tan(phi) = b / a:

(1)  y = u / s = cos(phi) x + sin(phi) eps
(2)  w = log tan(phi / 2) = -asinh(a / b),   sin(phi) = sech(w),  cos(phi) = -tanh(w),  d phi = sin(phi) dw
(3)  dy/dw = sech(w) (-tanh(w) eps - sech(w) x)

where x and eps are those that the field predicts at (u, t): the ODE du/dt = a' x + b' eps of equation (19), for blind
fields too. Neither a', b' nor mu, nu appear, which are singular at t = 0 for b ~ sqrt(t) or targets whose gain
vanishes. w is log(b / 2a) where b << a, the variable in which data look alike at every noise level, and 0 where a = 0.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from geonoise_jax.checks import refused
from geonoise_jax.fields import Field
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import Schedule


class Point(NamedTuple):
    """A time in the variables of this module."""

    w: float
    s: float
    a: float
    b: float


def point(schedule: Schedule, t: float) -> Point:
    """Return w, s, a and b at t, computed in float64.

    Raises:
        ValueError: if b = 0, where w is minus infinity.
    """
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        a, b = (float(scale) for scale in schedule.scales(jnp.asarray(t, jnp.float64)))
    if not b > 0.0:
        raise refused("end_time", t, "a time at which there is noise, such as 1e-5")
    return Point(-math.asinh(a / b), math.hypot(a, b), a, b)


def time_of(schedule: Schedule, w: Float[Array, ""]) -> Float[Array, ""]:
    """Return the time of w, inside the schedule's range whatever the rounding."""
    return jnp.clip(schedule.t_of_eta(-jnp.log(jnp.sinh(-w))), schedule.t_min, schedule.t_max)


def velocity(field: Field, within: Schedule, w: Float[Array, ""], y: Float[Array, "*event"]) -> Float[Array, "*event"]:
    """Return dy/dw of one sample, equation (3).

    Args:
        field: any Field.
        within: the part of its schedule that is integrated over.
        w: the variable of equation (2).
        y: the scaled observation.
    """
    t = time_of(within, w).astype(y.dtype)
    a, b = within.scales(t)
    u = jnp.hypot(a, b) * y
    r = field(u[None], t[None])[0]
    x, eps = Process(within, field.process.parameterization).recover(u, r, t)
    sine = 1.0 / jnp.cosh(w)
    return sine * (-jnp.tanh(w) * eps - sine * x)
