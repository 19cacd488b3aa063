"""Linear guidance: exact for Gaussian data, three components, and what they explain of other guidance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax.drawing.outputs import rendered
from geonoise_jax.exact import Gaussian, Marginal
from geonoise_jax.fields import NetworkField
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import VPLinear
from geonoise_jax.process.targets import Noise
from geonoise_jax.process.times import Uniform
from geonoise_jax.studies.cfg_linear import report, study
from geonoise_jax.studies.cfg_linear.linear import COMPONENTS, NEGATIVE, POSITIVE, SHIFT, Linear
from geonoise_jax.studies.cfg_linear.study import GUIDES, Guided, Options, Study
from geonoise_jax.studies.labelled import Labelled
from geonoise_jax.studies.verdicts import Outcome
from tests.stub_networks import Stub

PROCESS = Process(VPLinear(), Noise())


def data(num: int = 60, dim: int = 4) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = np.arange(num) % 3
    mix = generator.standard_normal((3, dim, dim))
    x = np.einsum("nij,nj->ni", mix[labels], generator.standard_normal((num, dim))) + labels[:, None]
    return x.astype(np.float32), labels


def test_the_linear_model_is_the_exact_field_of_gaussian_data(x64: None) -> None:
    x, labels = data()
    linear, t = Linear.of(x, labels, 3), 0.3
    a, b = (float(each) for each in PROCESS.schedule.scales(jnp.asarray(t)))
    u = np.random.default_rng(1).standard_normal((12, 4))
    asked = np.arange(12) % 3
    laws = [
        Gaussian(mean, cov) for mean, cov in [*zip(linear.means, linear.covs, strict=True), (linear.mean, linear.cov)]
    ]
    denoised = [np.asarray(Marginal(law, PROCESS, Uniform(0.001, 1.0)).denoiser(jnp.asarray(u), t)) for law in laws]
    for label, each in zip([0, 1, 2, None], denoised, strict=True):
        np.testing.assert_allclose(linear.denoise(u, label, a, b), each, rtol=1e-9, atol=1e-10)
    expected = np.stack([denoised[label][row] - denoised[3][row] for row, label in enumerate(asked)])
    np.testing.assert_allclose(linear.guidance(u, asked, a, b).sum(0), expected, rtol=1e-9, atol=1e-10)


def test_components_are_those_of_a_diagonal_model() -> None:
    """Class 0 is wider along the first axis and narrower along the second; the third is shared."""
    covs = np.stack([np.diag([4.0, 0.25, 1.0])] * 2)
    linear = Linear(np.array([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]), covs, np.zeros(3), np.eye(3))
    u, a, b = np.array([[2.0, 3.0, 5.0]]), 0.8, 0.5
    filters = [a * var / (a * a * var + b * b) for var in (4.0, 0.25, 1.0)]
    shift, positive, negative = linear.guidance(u, np.array([0]), a, b)[:, 0]
    np.testing.assert_allclose(shift, [1.0 - a * filters[2], 0.0, 0.0])
    np.testing.assert_allclose(positive, [(filters[0] - filters[2]) * (2.0 - a), 0.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(negative, [0.0, (filters[1] - filters[2]) * 3.0, 0.0], atol=1e-12)
    assert (SHIFT, POSITIVE, NEGATIVE) == (0, 1, 2)


def test_pure_noise_leaves_the_mean_shift() -> None:
    x, labels = data()
    linear = Linear.of(x, labels, 3)
    parts = linear.guidance(np.zeros((3, 4)), np.arange(3), 1e-6, 1.0)
    np.testing.assert_allclose(parts.sum(0), linear.means - linear.mean, atol=1e-4)
    np.testing.assert_allclose(parts[1:], 0.0, atol=1e-4)


def test_exact_guidance_is_a_difference_of_weighted_means() -> None:
    x, labels = data()
    times, asked = np.array([0.2, 0.6]), np.array([0, 1, 2, 1])
    seen = study.observations(PROCESS, x[:4], times, 0)
    found = study.exact_guidance(PROCESS, Labelled(x, labels), seen, asked, times)
    for level, t in enumerate(times):
        a, b = (float(each) for each in PROCESS.schedule.scales(jnp.asarray(t)))
        for row, label in enumerate(asked):
            log_weight = -np.square(seen[level, row] - a * x).sum(1) / (2.0 * b * b)
            means = []
            for chosen in (labels == label, np.ones(len(x), bool)):
                weight = np.exp(log_weight - log_weight[chosen].max()) * chosen
                means.append(weight @ x / weight.sum())
            np.testing.assert_allclose(found[level, row], means[0] - means[1], atol=2e-4)


def gaussian_network(linear: Linear) -> NetworkField:
    """The exact noise prediction of the linear model: of each class, and of all data for label 3."""
    means, covs = np.stack([*linear.means, linear.mean]), np.stack([*linear.covs, linear.cov])

    def predict(_: Any, u: jax.Array, feature: jax.Array, labels: jax.Array) -> jax.Array:
        a, b = (each[:, None] for each in PROCESS.schedule.scales(feature))
        away = u - a * jnp.asarray(means, jnp.float32)[labels]
        var = (a * a)[..., None] * jnp.asarray(covs, jnp.float32)[labels] + (b * b)[..., None] * jnp.eye(u.shape[1])[
            None
        ]
        return b * jnp.linalg.solve(var, away[..., None])[..., 0]

    return NetworkField(None, Stub(predict, num_classes=3), PROCESS, (4,), False)


def test_a_linear_network_is_explained_and_guided_alike() -> None:
    x, labels = data()
    linear = Linear.of(x, labels, 3)
    field, times = gaussian_network(linear), np.array([0.2, 0.6])
    seen = study.observations(PROCESS, x, times, 0)
    parts = np.stack([study._parts(linear, PROCESS, u, labels, t) for u, t in zip(seen, times, strict=True)], axis=1)
    found = study.network_guidance(field, seen, labels, times)
    np.testing.assert_allclose(found, parts.sum(0), atol=2e-3)
    options = Options(sample_steps=3, num_samples=12, ratios=(0.5, 2.0))
    made = study._study(options, "", times, parts, {"network": found}, (), labels)
    for level in range(2):
        assert report.explained(made, "network", level).value == pytest.approx(1.0, abs=1e-3)
        assert report.cosine(made, "network", level).value == pytest.approx(1.0, abs=1e-3)
        assert report.explained(made, "network", level, SHIFT).value < 0.9
    asked = np.arange(12) % 3
    network, by_linear, plain = (
        study.sampled(field, linear, name, asked, options) for name in ("network", "linear", "nothing")
    )
    np.testing.assert_allclose(by_linear, network, rtol=0.02, atol=0.02)
    assert np.abs(by_linear - plain).max() > 0.1


def made_up(**squares: float) -> Study:
    """A study whose guidance is so far from the linear one, at every level, in units of its size."""
    generator = np.random.default_rng(0)
    parts = generator.standard_normal((3, 3, 40, 50)) * np.array([3.0, 1.0, 1.0])[:, None, None, None]
    whole = parts.sum(0)
    others = {name: whole + size * 11**0.5 * generator.standard_normal(whole.shape) for name, size in squares.items()}
    options = Options(ratios=(0.1, 1.0, 10.0))
    return study._study(options, "made up", np.array([0.1, 0.5, 0.9]), parts, others, (), np.arange(0))


def test_shares_and_verdicts_of_guidance_with_known_noise() -> None:
    """Of h = g + size |g| noise the share explained is ``1 - size^2 / (1 + size^2)``."""
    made = made_up(exact=0.3, network=2.0)
    for name, size in (("exact", 0.3), ("network", 2.0)):
        found = report.explained(made, name, 1)
        assert found.value == pytest.approx(1.0 / (1.0 + size**2), abs=0.05)
        assert found.low < found.value < found.high
    # Of three independent components with powers 9, 1 and 1 the first explains 9 of 11 parts.
    assert report.explained(made, "exact", 1, SHIFT).value == pytest.approx(9.0 / 11.0 / 1.09, abs=0.05)
    told = [each.outcome for each in report.verdicts(made)]
    assert told == [Outcome.HOLDS, Outcome.FAILS, Outcome.HOLDS, Outcome.FAILS, Outcome.HOLDS, Outcome.FAILS]


def test_it_is_drawn_and_written() -> None:
    made = made_up(exact=0.3)
    hits = np.arange(20)[None] < np.array([4, 12, 14, 16, 18, 20])[:, None]
    guided = tuple(Guided(name, hit, 0.06, np.zeros((20, 4))) for name, hit in zip(GUIDES, hits, strict=True))
    full = made._replace(guided=guided, labels=np.zeros(20))
    assert report.verdicts(full)[-1].outcome is Outcome.HOLDS
    assert "20% +- 17%     0.060" in report.table(full)
    assert report.arrays(full)["x"].shape == (6, 20, 4)
    assert report.arrays(made)["explained"].shape == (1, 3, 3)
    assert [rendered(report.picture(each)).size[0] > 800 for each in (made, full)] == [True, True]
    assert GUIDES[3:] == COMPONENTS


def test_classes_need_items() -> None:
    x, labels = data(6)
    with pytest.raises(ValueError, match="class 3 has 0 items"):
        Linear.of(x, labels, 4)
    with pytest.raises(ValueError, match="per_class = 3: must be at most 2"):
        study.taken(Labelled(x, labels), 3)
    assert study.taken(Labelled(x, labels), 1).labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratios": (0.0, 1.0)}, "ratios = 0.0: must be"),
        ({"per_class": 1}, "per_class = 1: must be an integer >= 2"),
        ({"num_samples": 5, "workdir": Path("run")}, "num_samples = 5: must be an integer >= 10"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options(**options)
