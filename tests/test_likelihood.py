"""Bits per dimension and nats: against integrals of known densities, their intervals, protocols and refusals."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from geonoise_jax.evaluation import likelihood
from geonoise_jax.evaluation.likelihood import Options, bits_per_dim, dequantised, log_likelihood
from geonoise_jax.evaluation.restore import Trained
from geonoise_jax.fields import DensityField, NetworkField, Preconditioner
from geonoise_jax.process import schedules, targets
from geonoise_jax.process.process import Process
from geonoise_jax.training.workdir import Facts
from tests.sampling_oracles import GaussianField
from tests.stub_networks import Stub

LINEAR = Process(schedules.Linear(), targets.Velocity())
VP = Process(schedules.VPLinear(t_min=0.05), targets.Velocity())
MEAN, STD = np.array([0.1, -0.2]), np.array([0.3, 0.5])
CENTER, SCALE = 8.0, 0.125
FINE = Options(solver="heun", num_steps=128)


def gaussian_field(process: Process = LINEAR) -> Any:
    return GaussianField(MEAN, STD**2, process, event_shape=(2,))


def density_of_samples(process: Process) -> Any:
    """The law in which the sampler's own start ends, in x-space; per entry, as the flow of a Gaussian is."""
    schedule = process.schedule
    (a, b), (a_1, b_1) = (
        [float(each) for each in schedule.scales(jnp.asarray(t))] for t in (schedule.t_min, schedule.t_max)
    )
    var, var_1 = a**2 * STD**2 + b**2, a_1**2 * STD**2 + b_1**2
    stretch = np.sqrt(var / var_1)
    return scipy.stats.norm(MEAN - stretch * a_1 * MEAN / a, stretch * b_1 / a)


def stored_items(num: int) -> np.ndarray:
    """Integers of the model's own law, rounded."""
    x = np.random.default_rng(0).normal(MEAN, STD, (num, 2))
    return np.clip(np.rint(x / SCALE + CENTER), 0, 16).astype(np.uint8)


@pytest.mark.parametrize("process", [LINEAR, VP], ids=["Linear", "VPLinear"])
def test_nats_are_of_samples_in_data_space(process: Process, x64: None) -> None:
    x = np.random.default_rng(0).normal(MEAN, STD, (50, 2))
    found = log_likelihood(gaussian_field(process), x, options=FINE)
    want = density_of_samples(process).logpdf(x).sum(axis=1)
    np.testing.assert_allclose(found.per_item, want, atol=5e-3)
    assert found.value == pytest.approx(want.mean(), abs=found.numerical_error)
    assert found.standard_error == pytest.approx(want.std(ddof=1) / math.sqrt(50), rel=1e-2)
    reach = 2.0 * found.standard_error + found.numerical_error
    assert (found.low, found.high) == pytest.approx((found.value - reach, found.value + reach))
    assert (found.unit, found.failed, found.evaluations) == ("nats", 0, 384)
    assert found.draw_spread is None
    assert found.learnt is None


def expected_bits(items: np.ndarray) -> np.ndarray:
    """E over the level of -log2 p(x), from a fine sum."""
    law, v = density_of_samples(LINEAR), (np.arange(400) + 0.5) / 400 - 0.5
    x = (items[:, None].astype(float) - CENTER + v[:, None]) * SCALE
    return -law.logpdf(x).sum(axis=2).mean(axis=1) / (2 * math.log(2.0)) - math.log2(SCALE)


def test_bits_per_dimension_are_the_mean_over_a_level_and_bound_those_of_its_probability(x64: None) -> None:
    items = stored_items(300)
    found = bits_per_dim(
        gaussian_field(), items, options=Options(draws=4, solver="heun", num_steps=32), scaling=(CENTER, SCALE)
    )
    assert found.draw_spread is not None
    assert found.value == pytest.approx(expected_bits(items).mean(), abs=2 * found.draw_spread + found.numerical_error)
    law = density_of_samples(LINEAR)
    edges = (items.astype(float)[None] + np.array([-0.5, 0.5])[:, None, None] - CENTER) * SCALE
    true = -np.log2(np.diff(law.cdf(edges), axis=0)[0]).mean()
    assert true < expected_bits(items).mean() < true + 0.05
    assert found.per_item.shape == (300,)
    assert found.value == pytest.approx(found.per_item.mean())


def test_a_level_of_one_in_256_adds_seven_bits() -> None:
    items = stored_items(20)
    settings: dict[str, Any] = {"options": Options(solver="heun", num_steps=8)}
    wide = bits_per_dim(gaussian_field(), items, scaling=(8.0, 2 / 256), **settings)
    nats = log_likelihood(gaussian_field(), dequantised(items, 8.0, 2 / 256, 0), **settings)
    assert wide.value == pytest.approx(-nats.value / (2 * math.log(2.0)) + 7.0, rel=1e-6)
    assert wide.standard_error == pytest.approx(nats.standard_error / (2 * math.log(2.0)), rel=1e-5)
    assert wide.numerical_error == pytest.approx(nats.numerical_error / (2 * math.log(2.0)), rel=1e-5)


def test_the_intervals_hold_the_mean_of_all_items(x64: None) -> None:
    """Two standard errors: 95 of 100."""
    items = stored_items(4000)
    whole = expected_bits(items).mean()
    hits = 0
    for seed in range(40):
        part = items[100 * seed : 100 * seed + 100]
        settings = Options(solver="heun", num_steps=16, seed=seed)
        found = bits_per_dim(gaussian_field(), part, options=settings, scaling=(CENTER, SCALE))
        hits += abs(found.value - whole) < 2.0 * found.standard_error + found.numerical_error
    assert hits >= 35


def test_dequantisation_fills_the_level_and_depends_on_seed_draw_and_number_alone() -> None:
    items = stored_items(3000)
    x = dequantised(items, CENTER, SCALE, seed=3, draw=1)
    v = x / SCALE + CENTER - items
    assert (np.abs(v) <= 0.5 + 1e-5).all()
    assert scipy.stats.kstest(v.ravel() + 0.5, "uniform").pvalue > 1e-3
    np.testing.assert_array_equal(dequantised(items[:10], CENTER, SCALE, 3, 1), x[:10])
    for seed, draw in ((3, 0), (4, 1)):
        assert (dequantised(items, CENTER, SCALE, seed, draw) != x).any(axis=1).all()


def test_the_protocol_says_all_that_a_number_depends_on() -> None:
    settings = Options(draws=2, seed=5, solver="heun", num_steps=4, divergence="hutchinson", probes=3, end_time=1e-3)
    told: list[tuple[int, int]] = []
    found = bits_per_dim(
        gaussian_field(),
        stored_items(6),
        options=settings,
        scaling=(CENTER, SCALE),
        on_batch=lambda *at: told.append(at),
    )
    for part in ("6 items", "uniform dequantisation of levels 0.125 wide (2 draws)", "t = 0.001 (a = 0.999", "heun, 4"):
        assert part in found.protocol
    for part in ("t = 0.999", "N(0, 0.999^2)", "3 rademacher probes", "seed 5"):
        assert part in found.protocol
    assert told == [(6, 12), (12, 12)]


def test_batches_change_nothing() -> None:
    items = stored_items(7)
    settings: dict[str, Any] = {"solver": "heun", "num_steps": 4, "divergence": "hutchinson", "probes": 2, "draws": 2}
    one, other = (
        bits_per_dim(gaussian_field(), items, options=Options(batch_size=size, **settings), scaling=(CENTER, SCALE))
        for size in (None, 2)
    )
    np.testing.assert_allclose(one.per_item, other.per_item, rtol=1e-5)


def test_every_draw_has_its_own_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likelihood, "dequantised", lambda items, *_: items.astype(np.float32))
    found = bits_per_dim(
        dataclasses.replace(gaussian_field(), var=np.array([0.1, 0.2])),
        np.zeros((1, 2), np.uint8),
        options=Options(draws=2, solver="heun", num_steps=4, divergence="hutchinson", probes=1, noise="gaussian"),
        scaling=(0.0, 1.0),
    )
    assert found.draw_spread is not None
    assert found.draw_spread > 0.01


def test_the_error_of_probes_is_how_the_value_scatters_with_them() -> None:
    """Of points, on which the seed does nothing else; with an exact trace there is none."""
    x = np.random.default_rng(0).normal(MEAN, STD, (5, 2)).astype(np.float32)
    settings: dict[str, Any] = {"solver": "heun", "num_steps": 4}
    probes = {"divergence": "hutchinson", "probes": 4, "noise": "gaussian", **settings}
    found = [log_likelihood(gaussian_field(), x, options=Options(seed=seed, **probes)) for seed in range(50)]
    scatter = np.std([each.value for each in found], ddof=1)
    assert np.sqrt(np.mean([each.probe_error**2 for each in found])) == pytest.approx(scatter, rel=0.35)
    assert found[0].probe_error < found[0].standard_error
    assert log_likelihood(gaussian_field(), x, options=Options(divergence="exact", **settings)).probe_error == 0.0
    once = log_likelihood(gaussian_field(), x, options=Options(**{**probes, "probes": 1}))
    assert once.probe_error == math.inf


def test_the_error_of_probes_falls_with_draws_and_is_in_the_unit() -> None:
    settings: dict[str, Any] = {"solver": "heun", "num_steps": 4, "divergence": "hutchinson", "noise": "gaussian"}
    one, nine = (
        bits_per_dim(
            gaussian_field(), stored_items(40), options=Options(draws=draws, **settings), scaling=(CENTER, SCALE)
        )
        for draws in (1, 9)
    )
    assert nine.probe_error == pytest.approx(one.probe_error / 3.0, rel=0.2)
    nats = log_likelihood(
        gaussian_field(), dequantised(stored_items(40), CENTER, SCALE, 0), options=Options(**settings)
    )
    assert one.probe_error == pytest.approx(nats.probe_error / (2.0 * math.log(2.0)), rel=1e-3)


SIGMA = 0.7


def density_field(shift: float) -> DensityField:
    """The exact density of N(0, SIGMA^2) in 2 dimensions, but for a constant below half of the noise levels."""

    def network(_: None, v: jax.Array, feature: jax.Array, __: None) -> jax.Array:
        pairing = v / 2 + 1 / 2
        correction = jnp.where(feature < 0, shift, 0.0) * jnp.exp(400 * feature) / SIGMA
        return correction[:, None] * pairing / (pairing**2).sum(1, keepdims=True)

    process = Process(schedules.VE(t_min=0.02, t_max=50.0), targets.Noise())
    return DensityField(None, Stub(network), process, (2,), False, preconditioner=Preconditioner(SIGMA))


def test_beside_the_ode_of_a_density_stands_the_density_itself() -> None:
    items = stored_items(20)
    found = bits_per_dim(density_field(0.0), items, options=FINE, scaling=(CENTER, SCALE))
    assert found.learnt is not None
    np.testing.assert_allclose(found.learnt.per_item, found.per_item, atol=2e-3)
    x = dequantised(items, CENTER, SCALE, 0)
    want = scipy.stats.norm(0.0, math.hypot(SIGMA, 0.02)).logpdf(x).sum(axis=1).mean()
    nats = log_likelihood(density_field(2.0), x, options=FINE).learnt
    assert nats is not None
    assert nats.value == pytest.approx(want - 2.0, abs=1e-3)
    assert nats.low == pytest.approx(nats.value - 2.0 * nats.standard_error)


def labelled(label_dropout: float) -> Trained:
    """Of class c the Gaussian around c / 4, and around 1 where there is no class."""

    def network(_: None, u: jax.Array, t: jax.Array, labels: jax.Array) -> jax.Array:
        mean = (jnp.asarray([0.0, 0.25, 1.0])[labels])[:, None]
        a, b = (1.0 - t * 0.999)[:, None], (t * 0.999)[:, None]
        x = mean + a * 0.04 / (a * a * 0.04 + b * b) * (u - a * mean)
        return (u - a * x) / b - x

    field = NetworkField(None, Stub(network, num_classes=2), LINEAR, (2,), False)
    facts = Facts((2,), 2, CENTER, SCALE)
    return Trained(field, None, facts, 7, label_dropout=label_dropout)


def test_a_restored_model_knows_its_scaling_and_what_it_was_trained_for() -> None:
    items = np.full((4, 2), 8, np.uint8)
    quick = Options(solver="heun", num_steps=16)
    of_class = bits_per_dim(labelled(0.0), items, options=quick, labels=np.array([0, 1, 0, 1], np.int32))
    assert (of_class.per_item[1::2] > of_class.per_item[::2] + 0.3).all()
    without = bits_per_dim(labelled(0.1), items, options=quick)
    assert without.value > of_class.value + 3.0
    with pytest.raises(ValueError, match="labels = None: must be the class of each item"):
        bits_per_dim(labelled(0.0), items, options=quick)


def test_a_failure_leaves_no_mean() -> None:
    x = np.zeros((3, 2))
    x[1] = np.nan
    found = log_likelihood(gaussian_field(), x.astype(np.float32), options=Options(solver="heun", num_steps=4))
    assert found.failed == 1
    assert math.isnan(found.value)
    assert np.isfinite(found.per_item[[0, 2]]).all()


def test_a_single_item_has_no_standard_error() -> None:
    found = log_likelihood(gaussian_field(), np.zeros((1, 2), np.float32), options=Options(solver="heun", num_steps=4))
    assert found.standard_error == math.inf
    assert (found.low, found.high) == (-math.inf, math.inf)


ITEMS = stored_items(3)
REFUSED: list[tuple[Callable[[], Any], str]] = [
    (
        lambda: bits_per_dim(gaussian_field(), ITEMS.astype(np.float32), scaling=(8, 1)),
        "items.dtype = float32: must be",
    ),
    (lambda: bits_per_dim(gaussian_field(), ITEMS), "scaling = None: must be (center, scale)"),
    (lambda: bits_per_dim(gaussian_field(), ITEMS, scaling=(8.0, 0.0)), "scaling[1] = 0.0: must be"),
    (lambda: bits_per_dim(gaussian_field(), ITEMS[:, :1], scaling=(8.0, 1.0)), "u.shape = [3, 1]: must be [b, 2]"),
    (lambda: log_likelihood(gaussian_field(), ITEMS), "x.dtype = uint8, "),
    (lambda: log_likelihood(gaussian_field(), ITEMS * 0.1, options=Options(draws=2)), "draws = 2: has no effect"),
    (lambda: Options(draws=0), "draws = 0: must be an integer >= 1"),
    (lambda: likelihood.log_likelihood("run", ITEMS * 0.1), "field = 'run': must be a Field"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("call", "message"), REFUSED, ids=[message[:24] for _, message in REFUSED])
def test_bad_input_is_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
