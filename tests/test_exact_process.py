"""What the exact field asks of schedules and targets: the signal lost to noise, and where a target has a kink."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax.process import schedules, targets

SCHEDULES = [cls() for cls in schedules.SCHEDULES]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_signal_deficit_is_the_lost_signal(schedule: schedules.Schedule) -> None:
    t = jnp.linspace(schedule.t_min, schedule.t_max, 301)
    lost = schedule.clean_signal - schedule.coeffs(t).a
    np.testing.assert_allclose(schedule.signal_deficit(t), lost, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_signal_deficit_keeps_its_accuracy_in_float32(schedule: schedules.Schedule) -> None:
    t = jnp.linspace(schedule.t_min, schedule.t_min + 0.01 * (schedule.t_max - schedule.t_min), 33)
    with jax.enable_x64(True):
        expected = schedule.signal_deficit(jnp.asarray(t, jnp.float64))
    np.testing.assert_allclose(schedule.signal_deficit(t), expected, rtol=2e-6, atol=1e-30)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "target",
    [cls() for cls in targets.TARGETS] + [targets.Equilibrium(decay="truncated", plateau=0.2)],
    ids=lambda s: f"{type(s).__name__}-{getattr(s, 'decay', '')}",
)
def test_kinks_are_where_the_slope_jumps(target: targets.Target) -> None:
    t = jnp.linspace(0.1, 0.3, 2000)
    slopes = jnp.stack([jnp.diff(x) for x in target.coeffs(schedules.Linear().coeffs(t), t)])
    jumps = jnp.abs(jnp.diff(slopes, axis=1)).max(axis=0) > 0.1 * jnp.abs(slopes).max()
    where = sorted({round(float(s), 3) for s in t[1:-1][jumps]})
    assert where == list(target.kinks)
