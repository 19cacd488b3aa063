"""Sample i depends on (key, i) alone: for every kind of key, every sampler and whatever the batch."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import geonoise_jax
from geonoise_jax.process import schedules, targets
from geonoise_jax.process.keys import root_key, threefry
from geonoise_jax.sampling import SAMPLERS, ddim, sample
from geonoise_jax.sampling.stepping import fresh_noise
from tests.sampling_oracles import MEAN, VAR, GaussianField, Process

KINDS = ("threefry2x32", "rbg", "unsafe_rbg")
NUM = 5


def words(key: jax.Array) -> np.ndarray:
    return np.asarray(jax.random.key_data(threefry(key)))


@pytest.mark.parametrize("kind", KINDS)
def test_threefry_keys_are_made_of_every_word_of_each_key_alone(kind: str) -> None:
    keys = jax.random.split(jax.random.key(3, impl=kind), 6).reshape(2, 3)
    made = threefry(keys)
    assert (made.shape, made.dtype) == ((2, 3), root_key(0).dtype)
    alone = [words(key) for key in keys.ravel()]
    np.testing.assert_array_equal(words(keys).reshape(6, -1), alone)
    np.testing.assert_array_equal(jax.jit(jax.vmap(words_of))(keys.ravel()), alone)
    data = np.asarray(jax.random.key_data(keys[0, 0]))
    changed = [data ^ np.uint32(word == np.arange(len(data))) for word in range(len(data))]
    made_of = [words(jax.random.wrap_key_data(jnp.asarray(each), impl=kind)) for each in [data, *changed]]
    assert len({each.tobytes() for each in made_of}) == len(data) + 1


def words_of(key: jax.Array) -> jax.Array:
    return jax.random.key_data(threefry(key))


def test_threefry_keys_stay_as_they_are() -> None:
    np.testing.assert_array_equal(words(jax.random.key(7, impl="threefry2x32")), [0, 7])
    np.testing.assert_array_equal(words(root_key(7)), [0, 7])


@pytest.fixture(params=KINDS)
def default_kind(request: pytest.FixtureRequest) -> Iterator[str]:
    before = jax.config.jax_default_prng_impl  # type: ignore[attr-defined]
    jax.config.update("jax_default_prng_impl", request.param)
    yield request.param
    jax.config.update("jax_default_prng_impl", before)


def test_keys_that_are_plain_words_mean_the_typed_ones(default_kind: str) -> None:
    np.testing.assert_array_equal(words(jax.random.PRNGKey(5)), words(jax.random.key(5)))
    assert words(jnp.stack([jax.random.PRNGKey(5)] * 3)).shape == (3, 2)
    assert str(jax.random.key_impl(root_key(5))) == "threefry2x32"


def fields() -> dict[str, GaussianField]:
    timed = GaussianField(MEAN, VAR, Process(schedules.Linear(), targets.Velocity()))
    blind = {
        "bddm": Process(schedules.VE(t_max=50.0), targets.Signal()),
        "eqm": Process(schedules.Linear(), targets.Equilibrium()),
    }
    chosen = {name: next((p for start, p in blind.items() if name.startswith(start)), None) for name in SAMPLERS}
    return {name: timed if p is None else AtHalf(MEAN, VAR, p, blind=True) for name, p in chosen.items()}


class AtHalf(GaussianField):
    """The field of one noise level, which is blind."""

    def __call__(self, u: jax.Array, t: jax.Array) -> jax.Array:
        return super().__call__(u, jnp.full_like(t, 0.5))


jax.tree_util.register_dataclass(AtHalf, ["mean", "var"], ["process", "blind", "event_shape"])


# kvaerno5, long to compile, draws no more than tsit5 and is run by the same code.
EACH = [pytest.param(name, marks=pytest.mark.slow) if name == "kvaerno5" else name for name in SAMPLERS]


@pytest.mark.parametrize("sampler", EACH)
def test_no_sample_depends_on_its_batch(sampler: str) -> None:
    if sampler in ("tsit5", "kvaerno5") and not importlib.util.find_spec("diffrax"):
        pytest.skip("needs diffrax")
    field = fields()[sampler]
    options: dict[str, Any] = {}
    if not SAMPLERS[sampler].timed:
        options = {"max_steps": 4}
    if sampler == "ddim":
        options = {"eta": 1.0}
    if SAMPLERS[sampler].timed and SAMPLERS[sampler].cost is not None:
        options["num_steps"] = 3
    # Rounding differs between programs; it may change a step of an adaptive sampler, whose tolerance is 1e-4.
    tolerance = 1e-3 if SAMPLERS[sampler].timed and SAMPLERS[sampler].cost is None else 2e-4
    by_kind = []
    for kind in KINDS:
        key = jax.random.key(1, impl=kind)
        whole = sample(field, key, NUM, sampler, **options)
        # One at a time, and as the first of more that do not fill their last batch.
        alone = sample(field, key, NUM, sampler, batch_size=1, **options)
        more = sample(field, key, NUM + 2, sampler, batch_size=NUM, **options)[:NUM]
        for other in (alone, more):
            np.testing.assert_allclose(other, whole, rtol=tolerance, atol=tolerance, err_msg=kind)
        assert len(np.unique(whole, axis=0)) == NUM
        by_kind.append(whole)
    assert not np.isclose(by_kind[0], by_kind[1]).any()


@pytest.mark.parametrize("kind", KINDS)
def test_nor_does_one_of_a_sampler_that_is_called_as_a_function(kind: str) -> None:
    field, times = fields()["ddim"], jnp.linspace(0.9, 0.1, 3)
    keys = jax.random.split(jax.random.key(2, impl=kind), NUM)
    u = jnp.ones((NUM, *MEAN.shape))
    whole = ddim(field, u, times, keys, eta=1.0)
    np.testing.assert_allclose(ddim(field, u[2:3], times, keys[2:3], eta=1.0), whole[2:3], rtol=1e-5)
    noise = fresh_noise(keys, jnp.asarray(4), u)
    np.testing.assert_allclose(fresh_noise(keys[3:], jnp.asarray(4), u[3:]), noise[3:], rtol=1e-6)


def test_no_key_of_the_package_is_of_the_default_kind() -> None:
    """The kind of every key is decided in one place."""
    root = Path(geonoise_jax.__file__).parent
    # Not in a message.
    makes = re.compile(r"^[^\"\n]*random\.(key|PRNGKey)\(", re.MULTILINE)
    assert [path.name for path in root.rglob("*.py") if makes.search(path.read_text())] == ["keys.py"]
