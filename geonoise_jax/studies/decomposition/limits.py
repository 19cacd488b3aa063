r"""What the terms of the decomposition tend to at a datum, by one-dimensional quadrature.

With ``u = x_k + r n`` and r -> 0, the posterior of ``s = r / b`` has a density proportional to
``s^(m - 1) exp(-|s n + rho x_k|^2 / 2)`` with m = D - kappa and the shrinkage rho of the schedule, and
``grad E_t = s (s n + rho x_k) / r``. With a gain ``lambda ~ lambda_0 b^p`` the terms of equation (14) of "The Geometry
of Noise" (arXiv:2602.18428) are, in units of ``lambda_0 r^(p - 1)``,

    natural     E[s^-p] E[s (s n + rho x_k)]
    transport   E[s^(1 - p) (s n + rho x_k)] - natural

For rho = 0 and p = 1 that is ``m / (m - 1) E[s] n`` and ``-1 / (m - 1) E[s] n`` with s of the chi law of m degrees.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from geonoise_jax.process.process import Process
from geonoise_jax.studies.near_datum import moments
from geonoise_jax.studies.points import Family

_SMALL = 1e-6


def gain_power(process: Process, b: float = _SMALL) -> tuple[float, int]:
    """Return lambda_0 and p of the gain ``lambda ~ lambda_0 b^p`` at a noise scale that is small."""
    with jax.enable_x64(True):
        times = process.schedule.t_of_eta(jnp.log(jnp.asarray([b, 2.0 * b])))
        first, second = (float(each) for each in process.gain(times))
    power = round(math.log2(second / first))
    return first / b**power, power


def terms(
    family: Family, power: int, datum: Float[np.ndarray, "D"], unit: Float[np.ndarray, "K D"]
) -> tuple[Float[np.ndarray, "K D"], Float[np.ndarray, "K D"]]:
    """Return the limits of natural gradient and transport along directions, in units of ``lambda_0 r^(p - 1)``.

    Infinite or not a number where they have none: ``D - kappa <= p``.
    """
    m, shrunk = len(datum) - family.kappa, family.rho * datum
    rows = []
    for n in unit:
        inverse, first, second, lifted, kept = moments(m, float(n @ shrunk), (-power, 1, 2, 2 - power, 1 - power))
        natural = inverse * (second * n + first * shrunk)
        rows.append((natural, lifted * n + kept * shrunk - natural))
    return np.stack([row[0] for row in rows]), np.stack([row[1] for row in rows])
