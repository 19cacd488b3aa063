"""Sampling with times and noise of one's own, the way that samples take, and arguments of the wrong kind."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from geonoise_jax.process import grids, schedules, targets
from geonoise_jax.sampling import SAMPLERS, generate, sample, trajectory
from geonoise_jax.sampling import generation as module
from geonoise_jax.sampling.samplers import Sampler
from geonoise_jax.sampling.stepping import march
from tests.sampling_oracles import gaussian

SCHEDULE = schedules.Linear()
FIELD = gaussian(SCHEDULE, targets.Velocity())
KEY = jax.random.key(0)
TIMES = np.array([0.999, 0.7, 0.2, 0.001])
NOISE = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
MESH = Mesh(np.asarray(jax.devices()).reshape(4, 2), ("data", "model"))
GRIDDED = [name for name, each in SAMPLERS.items() if each.gridded]


def test_times_of_ones_own_replace_the_grid() -> None:
    """Given the times of a grid, as they come out of float32 too, samples are those of the grid."""
    for name, grid in grids.GRIDS.items():
        times = grid(SCHEDULE, 4)
        want = sample(FIELD, KEY, 5, "dpmpp_2m", 4, grid=name)
        np.testing.assert_allclose(sample(FIELD, KEY, 5, "dpmpp_2m", times=times), want, rtol=1e-6)
    result = generate(FIELD, KEY, 5, times=TIMES)
    np.testing.assert_array_equal(result.statistics["evaluations"], np.full(5, 6.0))


def test_times_may_be_a_part_of_the_schedule() -> None:
    x = NOISE + 1.0
    want = sample(FIELD, KEY, 5, "euler", 3, x=x, start_time=0.5, end_time=0.2)
    np.testing.assert_allclose(sample(FIELD, KEY, 5, "euler", x=x, times=[0.5, 0.4, 0.3, 0.2]), want, rtol=1e-5)
    with pytest.raises(ValueError, match=r"^times\[0\] = 0.5: too early to start from noise alone"):
        sample(FIELD, KEY, 5, times=[0.5, 0.2])


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([0.5], r"times = \[0.5\]: must be two or more decreasing times"),
        ("fast", "times = 'fast': must be two or more decreasing times"),
        (np.ones((3, 2)), r"times = float64\[3, 2\]: must be two or more decreasing times"),
        ([0.9, 0.5, 0.5, 0.1], r"times\[2\] = 0.5: must be smaller than the time before, 0.5"),
        ([0.1, 0.9], r"times\[1\] = 0.9: must be smaller than the time before, 0.1"),
        ([0.9, np.nan, 0.1], r"times\[1\] = nan: must be in \[0.001, 0.999\], the range of the schedule"),
        ([1.0, 0.5], r"times\[0\] = 1.0: must be in \[0.001, 0.999\]"),
        ([0.9, 0.0], r"times\[1\] = 0.0: must be in"),
    ],
)
def test_bad_times(times: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample(FIELD, KEY, 5, times=times)


@pytest.mark.parametrize("option", [{"num_steps": 4}, {"grid": "rho"}, {"start_time": 0.9}, {"end_time": 0.1}])
def test_what_times_replace_is_refused_beside_them(option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(option))} = .*: has no effect with times; leave it out"):
        sample(FIELD, KEY, 5, times=TIMES, **option)


def test_noise_of_ones_own_replaces_that_of_the_key() -> None:
    """The start is a x + b noise; what else a sampler draws stays the key's."""
    b = float(SCHEDULE.scales(jnp.asarray(0.999))[1])
    first = generate(FIELD, KEY, 5, "ancestral", 4, noise=NOISE, trajectory=True).trajectory
    assert first is not None
    np.testing.assert_allclose(first[0], b * NOISE, rtol=1e-6)
    x = np.ones((5, 3), np.float32)
    begun = sample(FIELD, KEY, 5, times=[0.5, 0.1], x=x, noise=NOISE, trajectory=True)
    np.testing.assert_allclose(begun[0], 0.5 * x + 0.5 * NOISE, rtol=1e-6)
    keys = [jax.random.fold_in(KEY, i) for i in range(5)]
    drawn = np.stack([jax.random.normal(key, (3,)) for key in keys])
    want = sample(FIELD, KEY, 5, "ancestral", 4)
    np.testing.assert_allclose(sample(FIELD, KEY, 5, "ancestral", 4, noise=drawn), want, rtol=1e-5)


@pytest.mark.parametrize("name", GRIDDED)
def test_a_trajectory_passes_through_every_time(name: str) -> None:
    """The start, the end that becomes the sample, and in between what a shorter grid ends with."""
    result = generate(FIELD, KEY, 5, name, times=TIMES, noise=NOISE, trajectory=True)
    assert result.times is not None
    assert result.trajectory is not None
    assert result.trajectory.shape == (4, 5, 3)
    np.testing.assert_allclose(result.times, TIMES, rtol=1e-6)
    a, b = (np.asarray(scale) for scale in SCHEDULE.scales(jnp.asarray(TIMES[[0, -1]])))
    np.testing.assert_allclose(result.trajectory[0], b[0] * NOISE, rtol=1e-6)
    np.testing.assert_allclose(result.trajectory[-1] / a[1], result.x, rtol=1e-6)
    plain = generate(FIELD, KEY, 5, name, times=TIMES, noise=NOISE)
    np.testing.assert_allclose(plain.x, result.x, rtol=1e-6)
    assert plain.trajectory is plain.times is None
    options = {"lower_order_final": False} if name == "dpmpp_2m" else {}
    if name != "edm_churn":  # whose churn depends on the number of levels
        path = sample(FIELD, KEY, 5, name, times=TIMES, noise=NOISE, trajectory=True, **options)
        short = sample(FIELD, KEY, 5, name, times=TIMES[:3], noise=NOISE, trajectory=True, **options)
        np.testing.assert_allclose(path[:3], short, rtol=1e-5)


def test_a_trajectory_is_that_of_the_solver() -> None:
    times = jnp.asarray(TIMES)
    path = sample(FIELD, KEY, 5, "heun", times=times, noise=NOISE, trajectory=True)
    want = jax.jit(lambda u: trajectory("heun", FIELD, u, times.astype(jnp.float32)))(path[0])
    np.testing.assert_allclose(path, want, rtol=1e-5)


def test_batches_and_devices_change_no_trajectory() -> None:
    options: dict[str, Any] = {"times": TIMES, "trajectory": True}
    whole = generate(FIELD, KEY, 21, "ancestral", **options)
    parts = generate(FIELD, KEY, 21, "ancestral", **options, batch_size=7, mesh=MESH)
    assert whole.trajectory is not None
    assert parts.trajectory is not None
    np.testing.assert_allclose(parts.trajectory, whole.trajectory, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(parts.x, whole.x, rtol=1e-4, atol=1e-5)


def test_what_is_beyond_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.os, "sysconf", lambda name: {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2**18}[name])
    with pytest.raises(ValueError, match=r"^trajectory = True: \[101, 3000000, 3\] numbers would take 3.4 GiB of"):
        generate(FIELD, KEY, 3_000_000, num_steps=100, trajectory=True)
    with pytest.raises(ValueError, match=r"^num = 1000000000: \[1000000000, 3\] numbers would take 11.2 GiB of"):
        generate(FIELD, KEY, 1_000_000_000, batch_size=10)


@pytest.mark.parametrize("name", sorted(SAMPLERS.keys() - set(GRIDDED)))
def test_samplers_without_a_grid_take_no_times_and_have_no_trajectory(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^times = float64\[4\]: must be None with {name}, which takes no grid"):
        sample(FIELD, KEY, 5, name, times=TIMES)
    with pytest.raises(ValueError, match=f"^trajectory = True: must be False with {name}, which goes along no grid"):
        sample(FIELD, KEY, 5, name, trajectory=True)


def test_a_sampler_of_ones_own_has_a_trajectory_if_it_marches() -> None:
    def shrink(field: Any, u: Any, times: Any) -> Any:
        return march(lambda u, _: 0.5 * u, u, times)

    own = Sampler(shrink, lambda num_steps: num_steps)
    path = sample(FIELD, KEY, 5, own, times=TIMES, noise=NOISE, trajectory=True)
    np.testing.assert_allclose(path[1:], 0.5 * path[:-1], rtol=1e-6)
    still = Sampler(lambda field, u, times: u + 0.0 * times[0], lambda num_steps: num_steps)  # noqa: ARG005
    with pytest.raises(
        ValueError, match="^trajectory = True: must be False with a sampler that does not take its steps"
    ):
        sample(FIELD, KEY, 5, still, times=TIMES, trajectory=True)


class Unregistered:
    process, blind, event_shape = FIELD.process, True, (3,)

    def __call__(self, u: Any, t: Any) -> Any:
        return u + t


WRONG: list[tuple[dict[str, Any], str]] = [
    (
        {"field": lambda u, t: u + t},
        "field = <function .*: must be a Field, with process, blind and event_shape, such as",
    ),
    ({"field": KEY, "key": FIELD}, "field = .*: must be a Field"),
    ({"field": Unregistered()}, "field: Unregistered must be a pytree; decorate it with jax.tree_util.register_datacl"),
    ({"key": 0}, r"key = 0: must be one PRNG key, such as jax.random.key\(0\)"),
    ({"key": jax.random.split(KEY)}, r"key = key<fry>\[2\]: must be one PRNG key"),
    ({"num": 4.0}, "num = 4.0: must be an integer >= 1"),
    ({"num": "4"}, "num = '4': must be an integer >= 1"),
    ({"batch_size": True}, "batch_size = True: must be an integer >= 1"),
    ({"sampler": "huen"}, "sampler = 'huen': unknown; did you mean 'heun'?"),
    ({"sampler": 3}, "sampler = 3: must be one of euler, heun"),
    ({"grid": "logsnr"}, "grid = 'logsnr': unknown; did you mean 'log_snr'?"),
    ({"nsteps": 5}, "nsteps = 5: no option of the sampler 'heun'; it has none; did you mean 'num_steps'?"),
    ({"sampler": "ddim", "Eta": 1}, "Eta = 1: no option of the sampler 'ddim'; .*; did you mean 'eta'?"),
    ({"sampler": "ddim", "eta": [1.0]}, r"eta = \[1.0\]: must be a number, a word or a truth value"),
    ({"noise": np.zeros((4, 2))}, r"noise.shape = \[4, 2\]: must be \[4, 3\]"),
    ({"noise": np.zeros((4, 3), int)}, "noise.dtype = int64, 0..0: must be floats"),
    ({"x": np.zeros((4, 8, 8, 1))}, r"x.shape = \[4, 8, 8, 1\]: must be \[4, 3\]"),
    ({"labels": np.zeros(4)}, r"labels = float64\[4\]: must be integers, \[4\], one class for each sample"),
    ({"denoise": "no"}, "denoise = 'no': must be True or False"),
    ({"trajectory": 1}, "trajectory = 1: must be True or False"),
    ({"start_time": "1"}, "start_time = '1': must be a number in"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=[message[:24] for _, message in WRONG])
def test_arguments_of_the_wrong_kind(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        sample(**{"field": FIELD, "key": KEY, "num": 4, **arguments})


def test_options_may_be_numbers_of_numpy_and_jax() -> None:
    want = sample(FIELD, KEY, 4, "ddim", 3, eta=0.5)
    for eta in (np.float32(0.5), np.asarray(0.5), jnp.asarray(0.5)):
        np.testing.assert_array_equal(sample(FIELD, KEY, 4, "ddim", 3, eta=eta), want)
