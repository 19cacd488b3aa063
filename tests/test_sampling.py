"""From a field to samples: terminal law, independence of batching and devices, one compile, bad input."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from geonoise_jax.exact import Gaussian, Marginal
from geonoise_jax.fields import ExactField, Field
from geonoise_jax.process import schedules, targets
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import SCHEDULES, Schedule
from geonoise_jax.process.targets import Target
from geonoise_jax.process.times import Uniform
from geonoise_jax.sampling import SAMPLERS, sample
from geonoise_jax.sampling.generation import generate
from tests.sampling_oracles import MEAN, VAR, gaussian

AUTONOMOUS = ["eqm_descent", "eqm_nesterov", "eqm_nesterov_released", "bddm"]
ALL_SCHEDULES = [pytest.param(schedule(), id=schedule.__name__) for schedule in SCHEDULES]


def gaussian_field(schedule: Schedule, target: Target) -> ExactField:
    law = Uniform(schedule.t_min, schedule.t_max)
    return ExactField(Marginal(Gaussian(MEAN, VAR), Process(schedule, target), law), blind=False)


@pytest.mark.parametrize("schedule", ALL_SCHEDULES)
def test_terminal_mean_and_variance(schedule: Schedule) -> None:
    """In float32, from the schedule's own start: samples have the mean and variance of the data."""
    num = 8192
    samples = sample(gaussian(schedule, targets.Velocity()), jax.random.key(3), num, num_steps=64, grid="log_snr")
    a, b = (float(scale) for scale in schedule.scales(jnp.asarray(schedule.t_min)))
    a_max, b_max = (float(scale) for scale in schedule.scales(jnp.asarray(schedule.t_max)))
    spread = VAR + (b / a) ** 2
    # What starting from pure noise leaves out, exactly: the data's part of the start.
    start_error = a_max * np.abs(MEAN) / np.sqrt(a_max**2 * VAR + b_max**2)
    mean_tolerance = np.sqrt(spread) * (4.5 / math.sqrt(num) + start_error) + 2e-3
    np.testing.assert_array_less(np.abs(samples.mean(axis=0) - MEAN), mean_tolerance)
    variance_tolerance = 4.5 * math.sqrt(2 / num) + (a_max / b_max) ** 2 * VAR + 5e-3
    np.testing.assert_array_less(np.abs(samples.var(axis=0) / spread - 1.0), variance_tolerance)


def test_denoise_removes_the_noise_that_is_left() -> None:
    schedule = schedules.Linear(t_min=0.2)
    field = gaussian_field(schedule, targets.Velocity())
    options: dict[str, Any] = {"num": 4096, "num_steps": 50}
    noisy = sample(field, jax.random.key(0), **options)
    np.testing.assert_allclose(noisy.var(axis=0), VAR + 0.25**2, rtol=0.1)
    clean = sample(field, jax.random.key(0), **options, denoise=True)
    np.testing.assert_allclose(clean.var(axis=0), VAR**2 / (VAR + 0.25**2), rtol=0.1)


@pytest.mark.parametrize("schedule", [schedules.EDMScaled(), schedules.VE()])
def test_samples_are_in_data_space(schedule: Schedule) -> None:
    """The observation at t_min is divided by a(t_min), which is 2 for EDM's scaled schedule."""
    samples = sample(gaussian_field(schedule, targets.EDMNetwork()), jax.random.key(0), 4096, grid="rho", num_steps=40)
    np.testing.assert_allclose(samples.std(axis=0), np.sqrt(VAR), rtol=0.06)


@pytest.mark.parametrize("sampler", ["heun", "ancestral", "edm_churn"])
def test_batching_and_devices_change_nothing(sampler: str) -> None:
    """Nor do they for the noise that a sampler draws on its way."""
    field = gaussian(schedules.Linear(), targets.Velocity())
    mesh = Mesh(np.asarray(jax.devices()).reshape(4, 2), ("data", "model"))
    whole = sample(field, jax.random.key(5), 21, sampler, 5)
    calls: list[tuple[int, int]] = []
    report = lambda done, num: calls.append((done, num))  # noqa: E731
    parts = sample(field, jax.random.key(5), 21, sampler, 5, batch_size=7, mesh=mesh, on_batch=report)
    np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-5)
    assert calls == [(8, 21), (16, 21), (21, 21)]
    assert len(np.unique(whole, axis=0)) == 21


def test_start_from_data() -> None:
    schedule = schedules.Linear(t_max=0.3)
    field = gaussian_field(schedule, targets.Velocity())
    with pytest.raises(ValueError, match="not negligible"):
        sample(field, jax.random.key(0), 4)
    x = MEAN + np.sqrt(VAR) * np.random.default_rng(0).standard_normal((4096, 3))
    samples = sample(field, jax.random.key(0), 4096, x=x.astype(np.float32), num_steps=20)
    np.testing.assert_allclose(samples.var(axis=0), VAR, rtol=0.1)
    # Little noise was added, so each sample stays near its datum.
    assert np.corrcoef(samples[:, 1], x[:, 1])[0, 1] > 0.9


def test_a_start_time_is_a_shorter_schedule() -> None:
    """The grid and the noise of the start are those of the schedule cut off there; the field's own stays as it is."""
    whole, part = schedules.VPLinear(), schedules.VPLinear(t_max=0.4)
    x = np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32)
    want = sample(gaussian(part, targets.Noise()), jax.random.key(0), 8, x=x, num_steps=5)
    field = gaussian(whole, targets.Noise())
    np.testing.assert_array_equal(sample(field, jax.random.key(0), 8, x=x, num_steps=5, start_time=0.4), want)
    with pytest.raises(ValueError, match="not negligible"):
        sample(field, jax.random.key(0), 8, start_time=0.4)


def test_all_samplers_start_alike() -> None:
    """Without its noise a stochastic sampler draws the samples of the deterministic one, key by key."""
    field = gaussian(schedules.VPLinear(), targets.Noise())
    ends = [
        sample(field, jax.random.key(0), 4, name, 5, **options)
        for name, options in (("ddim", {}), ("reverse_sde", {"stochasticity": 0}))
    ]
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-5)


@dataclasses.dataclass(frozen=True)
class Scaled:
    """A blind field with one parameter and labels that counts how often it is traced."""

    scale: jax.Array
    labels: jax.Array | None
    process: Process
    counter: list[int]
    blind: bool = True
    event_shape: tuple[int, ...] = (2,)

    def with_labels(self, labels: jax.Array) -> Scaled:
        return dataclasses.replace(self, labels=labels)

    def __call__(self, u: jax.Array, t: jax.Array) -> jax.Array:  # noqa: ARG002
        self.counter.append(1)
        classes = jnp.zeros(len(u)) if self.labels is None else self.labels
        return self.scale * (u - classes[:, None])


class _Hashable(list):
    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)


jax.tree_util.register_dataclass(Scaled, ["scale", "labels"], ["process", "counter", "blind", "event_shape"])
PROCESSES = {
    "bddm": Process(schedules.VE(), targets.Signal()),
    "eqm_descent": Process(schedules.Linear(t_min=0.01), targets.Equilibrium()),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_new_parameters_and_labels_do_not_retrace(name: str) -> None:
    counter = _Hashable()
    family = "eqm_descent" if name.startswith("eqm") else name
    process = PROCESSES.get(family, Process(schedules.Linear(), targets.Velocity()))
    traced, results = [], []
    for value in (0.5, 0.6, 0.7):
        field = Scaled(jnp.asarray(value), None, process, counter)
        assert isinstance(field, Field)
        labels = np.array([0, 1, 2]) if value < 0.6 else np.array([2, 2, 1])
        steps = 4 if SAMPLERS[name].gridded else None
        results.append(sample(field, jax.random.key(0), 3, name, steps, labels=labels))
        traced.append(len(counter))
    assert traced[0] > 0
    assert traced[1:] == traced[:1] * 2
    assert not np.allclose(results[0], results[1])


@pytest.mark.parametrize("name", [name for name, each in SAMPLERS.items() if each.cost])
def test_evaluations_are_counted(name: str) -> None:
    """The number told is the number of calls of the field in a step, times the steps, for every sample."""
    counter = _Hashable()
    field = Scaled(jnp.ones(()), None, Process(schedules.Linear(), targets.Velocity()), counter)
    result = generate(field, jax.random.key(0), 3, name, 4)
    np.testing.assert_array_equal(result.statistics["evaluations"], np.full(3, 4.0 * len(counter)))
    assert SAMPLERS[name].evaluations(4) == 4 * len(counter)


def test_evaluations_depend_on_options() -> None:
    pc = SAMPLERS["predictor_corrector"]
    assert (pc.evaluations(10), pc.evaluations(10, corrector_steps=3)) == (20, 40)
    assert SAMPLERS["eqm_descent"].evaluations(10) is None


def test_options_of_a_sampler() -> None:
    assert SAMPLERS["ddim"].options == {"eta": 0.0, "clip": math.inf}
    assert SAMPLERS["heun"].options == {}
    assert [name for name, each in SAMPLERS.items() if not each.timed] == AUTONOMOUS
    assert [name for name, each in SAMPLERS.items() if not each.gridded] == ["tsit5", "kvaerno5", *AUTONOMOUS]


def test_autonomous_samplers_end_in_data_space() -> None:
    """No time, hence no division by a(t_min) and no last estimate; what they measure comes along."""
    process = Process(schedules.Linear(t_min=0.01), targets.Equilibrium())
    field = Scaled(jnp.ones(()), None, process, _Hashable())
    result = generate(field, jax.random.key(0), 4, "eqm_descent", step_size=0.1, max_steps=3, batch_size=2)
    start = np.stack([process.start(jax.random.fold_in(jax.random.key(0), i), (2,)) for i in range(4)])
    np.testing.assert_allclose(result.x, start * 0.9**3, rtol=1e-5)
    np.testing.assert_array_equal(result.statistics["evaluations"], np.full(4, 3.0))
    with pytest.raises(ValueError, match="denoise = True: must be False with eqm_descent"):
        generate(field, jax.random.key(0), 4, "eqm_descent", denoise=True)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"sampler": "rk4"}, "sampler = 'rk4': must be one of euler, heun, ddim"),
    ({"grid": "karras"}, "grid = 'karras': must be one of uniform, rho, log_snr"),
    ({"num": 0}, "num = 0: must be an integer >= 1"),
    ({"num_steps": 0}, "num_steps = 0"),
    ({"num_steps": 3.5}, "num_steps = 3.5"),
    ({"num": 4.0}, "num = 4.0"),
    ({"batch_size": 0}, "batch_size = 0"),
    ({"labels": np.zeros(3, np.int32)}, r"labels.shape = \[3\]: must be \[4\]"),
    ({"start_time": 2.0}, r"start_time = 2.0: must be a number in \(0.001, 0.999\]"),
    ({"sampler": "dpmpp_2m", "lower_order_final": "no"}, "lower_order_final = 'no': must be True or False"),
    ({"sampler": "edm_churn", "s_noise": math.inf}, r"s_noise = inf: must be a number in \[0, inf\)"),
    ({"start_time": 0.3}, "start_time = 0.3: too early to start from noise alone"),
    ({"start_time": -0.5}, "start_time = -0.5: must be a number in"),
    ({"end_time": math.nan}, "end_time = nan: must be a number in"),
    ({"labels": np.zeros(4, np.int32)}, "labels: must be None for a GaussianField, which has no classes"),
    ({"eta": 0.5}, "eta = 0.5: no option of the sampler 'heun'; it has none"),
    (
        {"sampler": "reverse_sde", "eta": 0.5},
        "no option of the sampler 'reverse_sde'; its options are stochasticity, diffusion",
    ),
    ({"sampler": "ddim", "eta": 1.5}, r"eta = 1.5: must be a number in \[0, 1\]"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input(options: dict[str, Any], message: str) -> None:
    field = gaussian(schedules.Linear(), targets.Velocity())
    with pytest.raises(ValueError, match=message):
        sample(field, jax.random.key(0), **{"num": 4, **options})


def test_samples_of_any_numbers_are_those_of_all_together() -> None:
    field = gaussian(schedules.Linear(), targets.Velocity())
    options: dict[str, Any] = {"sampler": "reverse_sde", "num_steps": 6}
    together = sample(field, jax.random.key(0), 10, **options)
    apart = [sample(field, jax.random.key(0), num, first=first, **options) for first, num in ((0, 4), (4, 6))]
    np.testing.assert_allclose(np.concatenate(apart), together, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="first = -1: must be an integer >= 0"):
        sample(field, jax.random.key(0), 2, first=-1, **options)
