"""Grids whose steps are long: how wide stochastic samplers leave the law of the exact Gaussian field."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax.process import grids, schedules, targets
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import SCHEDULES, Schedule
from geonoise_jax.sampling import ddim, edm_churn, heun, predictor_corrector, reverse_sde
from tests.sampling_oracles import VAR, final_law, gaussian, marginal_law

Run = Callable[..., Any]
LONG = 25
# Samplers of a closed form, whose fresh noise has the size that is left at the end of the step.
CLOSED: dict[str, tuple[Run, int]] = {
    "reverse_sde": (reverse_sde, 1),
    "reverse_sde half": (functools.partial(reverse_sde, stochasticity=0.5), 1),
    "interpolant": (functools.partial(reverse_sde, diffusion="interpolant"), 1),
    "ddim half": (functools.partial(ddim, eta=0.5), 1),
    "predictor_corrector": (predictor_corrector, 2),
    "corrector first": (functools.partial(predictor_corrector, order="corrector_first"), 2),
}
STEEP = schedules.VE(t_min=0.01, t_max=50.0)
LONG_STEPS = [
    *((name, schedule) for name in ("reverse_sde", "interpolant") for schedule in (each() for each in SCHEDULES)),
    *((name, schedule) for name in CLOSED for schedule in (STEEP, schedules.Linear())),
]


def spreads(patch: pytest.MonkeyPatch, run: Run, schedule: Schedule, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Standard deviation at the end over the true one, on all grids; and the same of a last step that holds x."""
    times = jnp.stack([grid(schedule, LONG) for grid in grids.GRIDS.values()])
    _, var = final_law(patch, run, schedule, targets.Velocity(), times, draws)
    want = marginal_law(schedule, schedule.t_min)[1]
    (a, b), (a_s, b_s) = ([np.asarray(each)[:, None] for each in schedule.scales(times[:, at])] for at in (-2, -1))
    held = a_s**2 * (a * VAR) ** 2 / (a**2 * VAR + b**2) + b_s**2
    return np.sqrt(var / want), np.sqrt(held / want)


@pytest.mark.parametrize(
    ("name", "schedule"), LONG_STEPS, ids=[f"{name} {type(schedule).__name__}" for name, schedule in LONG_STEPS]
)
def test_long_steps_never_make_the_law_too_wide(
    name: str, schedule: Schedule, monkeypatch: pytest.MonkeyPatch, x64: None
) -> None:
    """On every grid: at most the true spread (1.05 of it with reverse_sde), and at least 0.65 of that of E[x | u].

    (a_s cov(x, u) + b_s e^-delta cov(eps, u))^2 / var u <= a_s^2 var x + b_s^2 e^-2delta, by Cauchy and Schwarz, so
    that a step which holds x and eps never makes the variance larger than true with fresh noise of size b_s.
    """
    run, draws = CLOSED[name]
    spread, held = spreads(monkeypatch, run, schedule, draws)
    assert (spread <= (1.05 if name.startswith(("reverse", "inter")) else 1.0 + 1e-9)).all()
    assert (spread >= 0.65 * held).all()


@pytest.mark.parametrize("schedule", [STEEP, schedules.Linear(), schedules.EDMScaled()], ids=["VE", "Linear", "EDM"])
def test_long_steps_of_edm_are_those_of_heun(schedule: Schedule, monkeypatch: pytest.MonkeyPatch, x64: None) -> None:
    """Its noise is no wider than its first level: sqrt(2) times the spread of Heun's method on the same grid."""
    spread, without = (
        spreads(monkeypatch, functools.partial(edm_churn, s_churn=churn), schedule, 1)[0] for churn in (40.0, 0.0)
    )
    assert (spread <= math.sqrt(2.0) * without).all()
    assert (spread[-1] < 1.1).all()


def test_edm_without_churn_is_heun_on_ve(x64: None) -> None:
    field, times = gaussian(STEEP, targets.Signal()), grids.rho(STEEP, 17)
    u = Process(STEEP, targets.Signal()).start(jax.random.key(0), (16, 3))
    np.testing.assert_allclose(
        edm_churn(field, u, times, jax.random.split(jax.random.key(1), 16), s_churn=0.0),
        heun(field, u, times),
        rtol=1e-9,
    )
