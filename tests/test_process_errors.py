"""Refusals and structural properties of schedules, targets and processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax.process import schedules, targets
from geonoise_jax.process.process import Process

BAD_FIELDS: list[tuple[Callable[[], Any], str]] = [
    (lambda: schedules.Linear(t_max=2.0), r"Linear.t_max = 2.0: must be a number in \[0, 1\]"),
    (lambda: schedules.Linear(t_min=float("nan")), "Linear.t_min = nan"),
    (lambda: schedules.Linear(t_min="0.1"), "Linear.t_min = '0.1'"),  # type: ignore[arg-type]
    (lambda: schedules.Linear(t_min=True), "Linear.t_min = True"),
    (lambda: schedules.VE(t_min=3.0, t_max=2.0), "VE.t_min = 3.0: must be smaller than VE.t_max = 2.0"),
    (lambda: schedules.VE(t_min=-1.0), "VE.t_min = -1.0"),
    (lambda: schedules.VPLinear(beta_min=0.0), "VPLinear.beta_min = 0.0"),
    (lambda: schedules.VPLinear(beta_min=30.0), "VPLinear.beta_min = 30.0: must be smaller"),
    (lambda: schedules.VPDiscrete(betas="sigmoid"), "VPDiscrete.betas = 'sigmoid': must be one of linear, cosine"),
    (
        lambda: schedules.VPDiscrete(betas="cosine", beta_max=0.1),
        "VPDiscrete.beta_max = 0.1: has no effect with betas =",
    ),
    (lambda: schedules.VPDiscrete(num_steps=10, t_max=11.0), r"VPDiscrete.t_max = 11.0: .*\[0, 10\]"),
    (lambda: schedules.VPDiscrete(num_steps=1.5), "VPDiscrete.num_steps = 1.5: must be an integer >= 2"),  # type: ignore[arg-type]
    (lambda: schedules.EDMScaled(sigma_data=-0.5), "EDMScaled.sigma_data = -0.5"),
    (lambda: schedules.Cosine(s=0.0), "Cosine.s = 0.0"),
    (lambda: targets.Equilibrium(decay="cubic"), "Equilibrium.decay = 'cubic': must be one of linear, truncated"),
    (lambda: targets.Equilibrium(plateau=0.0), "Equilibrium.plateau = 0.0"),
    (lambda: targets.Equilibrium(multiplier=-4.0), "Equilibrium.multiplier = -4.0"),
    (lambda: targets.EDMNetwork(sigma_data=0.0), "EDMNetwork.sigma_data = 0.0"),
    (lambda: Process("Linear", targets.Noise()), "Process.schedule = 'Linear'"),  # type: ignore[arg-type]
    (lambda: Process(schedules.Linear(), targets.Noise), "Process.target = "),  # type: ignore[arg-type]
]

SINGULAR: list[tuple[schedules.Schedule, targets.Target, str]] = [
    (schedules.Linear(t_max=1.0), targets.Noise(), "choose t_max < 1 or another target"),
    (schedules.Cosine(t_max=1.0), targets.Noise(), "t = 1"),
    (schedules.Linear(t_min=0.0), targets.Signal(), "choose t_min > 0 or another target"),
    (schedules.Linear(t_min=0.0), targets.Equilibrium(), "t = 0"),
    (schedules.Linear(t_min=0.0), targets.Score(), "coefficients are infinite at t = 0"),
    (schedules.VPLinear(t_min=0.0), targets.Noise(), "coefficients are infinite at t = 0"),
    (schedules.VE(t_min=0.0), targets.UEDM(), "t = 0"),
]


@pytest.mark.parametrize(("make", "message"), BAD_FIELDS, ids=[message[:30] for _, message in BAD_FIELDS])
def test_bad_field_is_named(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(("schedule", "target", "message"), SINGULAR)
def test_singular_process_is_refused(schedule: schedules.Schedule, target: targets.Target, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        Process(schedule, target)
    assert type(schedule).__name__ in str(error.value)
    assert type(target).__name__ in str(error.value)


def test_interior_zero_of_the_determinant_is_refused() -> None:
    class Mean(targets.Target):
        """r = (x + eps) / 2, parallel to u where a = b."""

        def coeffs(self, schedule_coeffs: schedules.ScheduleCoeffs, t: Any) -> targets.TargetCoeffs:  # noqa: ARG002
            half = jnp.full_like(schedule_coeffs.a, 0.5)
            return half, half

    with pytest.raises(ValueError, match=r"vanishes at t = 0\.5.*choose another target"):
        Process(schedules.Linear(), Mean())


def test_velocity_matching_covers_the_closed_interval() -> None:
    process = Process(schedules.Linear(t_min=0.0, t_max=1.0), targets.Velocity())
    assert np.all(np.isfinite(process.coeffs(jnp.array([0.0, 1.0]))))


def test_processes_are_hashable_static_arguments_and_build_under_jit() -> None:
    @jax.jit
    def gain(t: jax.Array) -> jax.Array:
        return Process(schedules.Trigonometric(t_max=0.75), targets.Noise()).gain(t)

    process = Process(schedules.Trigonometric(t_max=0.75), targets.Noise())
    assert hash(process) == hash(Process(schedules.Trigonometric(t_max=0.75), targets.Noise()))
    np.testing.assert_allclose(gain(jnp.array(0.3)), process.gain(0.3), rtol=1e-6)


def test_dtype_follows_the_time(x64: None) -> None:
    process = Process(schedules.VPDiscrete(), targets.Noise())
    assert process.coeffs(jnp.float32(3)).a.dtype == jnp.float32
    assert process.coeffs(jnp.int32(3)).a.dtype == jnp.float64


def test_start_is_noise_of_the_schedules_own_scale() -> None:
    key = jax.random.key(0)
    for schedule in (schedules.VE(), schedules.VPLinear(), schedules.Linear(), schedules.EDMScaled()):
        u = Process(schedule, targets.Velocity()).start(key, (20_000,))
        np.testing.assert_allclose(jnp.std(u), schedule.scales(jnp.asarray(schedule.t_max))[1], rtol=0.02)


def test_start_with_data_adds_the_signal() -> None:
    process = Process(schedules.Linear(t_max=0.5), targets.Velocity())
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=r"Linear.t_max = 0.5: a = 0.5 is not negligible"):
        process.start(key, (4, 2))
    x = jnp.full((4, 2), 10.0)
    np.testing.assert_allclose(process.start(key, (4, 2), x) - process.start(key, (4, 2), 0 * x), 5.0, rtol=1e-6)
    with pytest.raises(ValueError, match=r"x.shape = \[4, 2\]: must be \[3, 2\]"):
        process.start(key, (3, 2), x)
