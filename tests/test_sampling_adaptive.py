"""Adaptive solvers: tolerance, per-sample steps and counts, stiffness, kinks, labels, failures."""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax.process import schedules, targets
from geonoise_jax.process.process import Process
from geonoise_jax.sampling import Outcome, kvaerno5, tsit5
from geonoise_jax.sampling.generation import generate
from tests.sampling_oracles import exact_flow, gaussian

Run = Callable[..., Outcome]


def ends(schedule: schedules.Schedule) -> jax.Array:
    return jnp.array([schedule.t_max, schedule.t_min])


def start(schedule: schedules.Schedule, num: int = 4) -> jax.Array:
    return Process(schedule, targets.Velocity()).start(jax.random.key(0), (num, 3))


@pytest.mark.parametrize(
    ("run", "finest"), [(tsit5, 1e-7), pytest.param(kvaerno5, 1e-5, marks=pytest.mark.slow)], ids=["tsit5", "kvaerno5"]
)
def test_error_is_proportional_to_the_tolerance(run: Run, finest: float, x64: None) -> None:
    schedule = schedules.VPLinear()
    field, u = gaussian(schedule, targets.Noise()), start(schedule)
    want = exact_flow(schedule, u, schedule.t_min, schedule.t_max)
    outcomes = [run(field, u, ends(schedule), rtol=tolerance, atol=tolerance) for tolerance in (1e-3, finest)]
    coarse, fine = (float(np.abs(np.asarray(each.u) - want).max()) for each in outcomes)
    assert coarse < 0.1
    assert math.log10(coarse / fine) == pytest.approx(math.log10(1e-3 / finest), rel=0.4)
    assert (outcomes[1].statistics["steps"] > outcomes[0].statistics["steps"]).all()
    assert not any(each.statistics["failed"].any() for each in outcomes)


@dataclasses.dataclass(frozen=True)
class Linear:
    """The velocity ``rate (u - label)``: as t falls, u relaxes to its label."""

    rate: jax.Array
    labels: jax.Array
    process: Process = dataclasses.field(default=Process(schedules.Linear(), targets.Velocity()))
    calls: Callable[[], None] | None = None
    blind: bool = True
    event_shape: tuple[int, ...] = (2,)

    def __call__(self, u: jax.Array, t: jax.Array) -> jax.Array:
        if self.calls is not None:
            jax.debug.callback(self.calls)
        assert u.shape[0] == t.shape[0] == self.labels.shape[0]
        return self.rate * (u - self.labels[:, None])


@dataclasses.dataclass(frozen=True)
class Wrapped:
    """A field that holds another, as guidance does."""

    field: Linear
    blind: bool = True
    event_shape: tuple[int, ...] = (2,)

    @property
    def process(self) -> Process:
        return self.field.process

    def __call__(self, u: jax.Array, t: jax.Array) -> jax.Array:
        return self.field(u, t)


jax.tree_util.register_dataclass(Linear, ["rate", "labels"], ["process", "calls", "blind", "event_shape"])
jax.tree_util.register_dataclass(Wrapped, ["field"], ["blind", "event_shape"])
LINEAR = schedules.Linear()


def test_samples_do_not_see_each_other(x64: None) -> None:
    """Steps and result of a sample, and its label inside a wrapped field, are its own."""
    rate, labels, u = jnp.asarray(30.0), jnp.array([0.0, 3.0]), jnp.array([[1e-9], [2.0]])
    both = tsit5(Wrapped(Linear(rate, labels)), u, ends(LINEAR))
    assert both.statistics["steps"][0] != both.statistics["steps"][1]
    for i in range(2):
        alone = tsit5(Linear(rate, labels[i : i + 1]), u[i : i + 1], ends(LINEAR))
        np.testing.assert_allclose(both.u[i], alone.u[0], rtol=1e-12)
        for name, values in both.statistics.items():
            assert values[i] == alone.statistics[name][0]
    np.testing.assert_allclose(both.u[:, 0], labels, atol=1e-3)


def test_an_implicit_solver_takes_long_steps_in_a_stiff_field(x64: None) -> None:
    field, u = Linear(jnp.asarray(3000.0), jnp.zeros(1)), jnp.ones((1, 2))
    explicit, implicit = (run(field, u, ends(LINEAR)).statistics for run in (tsit5, kvaerno5))
    assert implicit["steps"] + implicit["rejected"] < 0.1 * explicit["steps"]


def test_evaluations_are_those_made(x64: None) -> None:
    """Counted by a callback: six a step and three before the first, and no more."""
    made: list[int] = []
    field = Linear(jnp.asarray(200.0), jnp.zeros(1), calls=lambda: made.append(1))
    statistics = tsit5(field, jnp.ones((1, 2)), ends(LINEAR), rtol=1e-6, atol=1e-6).statistics
    jax.effects_barrier()
    assert statistics["rejected"] > 0
    assert len(made) == statistics["evaluations"][0]


def test_steps_end_at_the_kinks_of_the_target(monkeypatch: pytest.MonkeyPatch, x64: None) -> None:
    """A velocity with a kink where no step ends costs rejected steps."""
    process = Process(schedules.Linear(t_min=0.01), targets.Equilibrium(decay="truncated"))
    field = Linear(jnp.asarray(3.0), jnp.zeros(1), process)
    solve = functools.partial(tsit5, rtol=1e-9, atol=1e-9)
    aware = solve(field, jnp.ones((1, 2)), ends(process.schedule))
    monkeypatch.setattr(targets.Equilibrium, "kinks", ())
    unaware = solve(field, jnp.ones((1, 2)), ends(process.schedule))
    assert aware.statistics["rejected"] < unaware.statistics["rejected"]
    # du/dt = 3 u / g with g = 4 min(1, 5 t), solved by hand.
    want = math.exp(-0.75 * (0.999 - 0.2)) * (0.01 / 0.2) ** 0.15
    np.testing.assert_allclose(aware.u, want, rtol=1e-7)


def test_what_is_not_finished_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[str] = []
    monkeypatch.setattr(
        logging.getLogger("geonoise_jax.sampling.generation"),
        "warning",
        lambda message, *values: messages.append(message % values),
    )
    field = gaussian(schedules.VE(), targets.Signal())
    result = generate(field, jax.random.key(0), 3, "tsit5", max_steps=5)
    np.testing.assert_array_equal(result.statistics["failed"], np.ones(3))
    np.testing.assert_array_equal(result.statistics["steps"] + result.statistics["rejected"], np.full(3, 5.0))
    assert np.isfinite(result.x).all()
    assert messages == ["tsit5 did not finish 3 of 3 samples: raise max_steps"]
    assert not generate(field, jax.random.key(0), 3, "tsit5").statistics["failed"].any()
    assert len(messages) == 1


def test_numbers_that_are_not_finite_are_failures() -> None:
    field = Linear(jnp.asarray(jnp.nan), jnp.zeros(1))
    assert tsit5(field, jnp.ones((1, 2)), ends(LINEAR), max_steps=20).statistics["failed"] == 1.0


def test_without_diffrax_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffrax", None)
    with pytest.raises(ValueError, match=r"pip install -e '\.\[adaptive\]'"):
        tsit5(gaussian(LINEAR, targets.Velocity()), start(LINEAR), ends(LINEAR))


BAD: list[tuple[dict[str, Any], str]] = [
    ({"rtol": 0.0}, r"rtol = 0.0: must be a number in \(0, inf\)"),
    ({"atol": -1.0}, "atol = -1.0"),
    ({"max_steps": 0}, "max_steps = 0: must be an integer >= 1"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tsit5(gaussian(LINEAR, targets.Velocity()), start(LINEAR), ends(LINEAR), **options)
