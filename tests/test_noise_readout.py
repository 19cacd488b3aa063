"""Noise levels read off subspaces and networks, probes of layers, and classes that are read rightly."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import chi2

from geonoise_jax.drawing.outputs import rendered
from geonoise_jax.exact import Subspace
from geonoise_jax.fields import NetworkField
from geonoise_jax.nets.mlp import ResidualMLP
from geonoise_jax.studies.noise_readout import report, study
from geonoise_jax.studies.noise_readout.probes import Distances, features, read_class, read_level
from geonoise_jax.studies.noise_readout.study import GEOMETRY, POSTERIOR, PROBE, PROCESS, Options, Readings, Study
from geonoise_jax.studies.verdicts import Outcome


def network(conditional: bool = False) -> NetworkField:
    module = ResidualMLP(width=8, depth=2, conditional=conditional)
    u = jnp.zeros((1, 3))
    params = module.init(jax.random.key(0), u, jnp.zeros(1) if conditional else None)["params"]
    params["output"]["kernel"] = jax.random.normal(jax.random.key(1), (8, 3))
    return NetworkField(params, module, PROCESS, (3,), not conditional)


def test_features_of_the_last_block_give_the_prediction() -> None:
    field = network()
    u = np.random.default_rng(0).standard_normal((600, 3)).astype(np.float32)
    found = features(field, u, "block_1")
    assert found.shape == (600, 8)
    out = found @ np.asarray(field.params["output"]["kernel"]) + np.asarray(field.params["output"]["bias"])
    np.testing.assert_allclose(out, field(u), rtol=1e-4, atol=1e-5)


def test_features_are_of_blind_networks() -> None:
    with pytest.raises(ValueError, match="must be blind"):
        features(network(conditional=True), np.zeros((2, 3), np.float32), "block_1")


def test_probes_read_what_is_linear() -> None:
    generator = np.random.default_rng(0)
    seen, slope = generator.standard_normal((400, 5)), np.arange(5.0)
    np.testing.assert_allclose(
        read_level((seen[:300], seen[:300] @ slope), seen[300:]), seen[300:] @ slope, rtol=0.05, atol=0.05
    )
    labels = (seen[:, 0] > 0.0).astype(int)
    assert (read_class((seen[:300], labels[:300]), seen[300:]) == labels[300:]).mean() > 0.95
    away = np.linalg.norm(seen, axis=1)
    errors = read_level((seen[:300], away[:300]), seen[300:]) - away[300:]
    assert errors.std() > 0.9 * away[300:].std(), "a norm is not linear"


def test_distances_to_the_best_subspace() -> None:
    generator = np.random.default_rng(0)
    frame = np.linalg.qr(generator.standard_normal((10, 3)))[0]
    distances = Distances.of(5.0 * generator.standard_normal((50, 3)) @ frame.T)
    level = generator.uniform(0.1, 1.0, 500)
    u = generator.standard_normal((500, 3)) @ frame.T + level[:, None] * generator.standard_normal((500, 10))
    assert distances.best(u, level) == 3
    # sigma_hat^2 (D - d) / sigma^2 is of the chi-square law.
    square = 7.0 * np.square(distances.sigma_hat(u, 3) / level)
    assert square.mean() == pytest.approx(7.0, abs=4.0 * math.sqrt(14.0 / 500))
    assert chi2.cdf(square, 7).mean() == pytest.approx(0.5, abs=0.06)


def test_the_posterior_of_a_subspace_is_its_integral() -> None:
    """By quadrature of the density in closed form, one observation after another."""
    frame = np.eye(5)[:, :2].astype(np.float32)
    u = np.asarray([[0.3, -0.2, 0.2, 0.1, -0.3], [1.0, 0.5, 0.6, -0.4, 0.2]], np.float32)
    mean, width = study.exact_posterior(Subspace(frame, 1.0), u)
    for number, one in enumerate(u.astype(float)):
        along, off = (one[:2] ** 2).sum(), (one[2:] ** 2).sum()

        def weight(t: float, power: int = 0, along: float = along, off: float = off) -> float:
            both = (1.0 - t) ** 2 + t * t
            return t**power * math.exp(-0.5 * off / t**2 - 0.5 * along / both) / (t**3 * both)

        total, first, second = (quad(weight, 1e-3, 0.999, (power,), points=[0.2])[0] for power in range(3))
        assert mean[number] == pytest.approx(first / total, rel=2e-3)
        assert width[number] == pytest.approx(math.sqrt(second / total - (first / total) ** 2), rel=5e-3)


def test_the_floor_is_what_the_posterior_mean_reaches() -> None:
    found = study.of_subspace(16, Options(num=2000))
    floor = np.square(found.width)
    squares = found.squares[POSTERIOR]
    error = 3.0 * (squares - floor).std() / math.sqrt(2000)
    assert abs(squares.mean() - floor.mean()) < error
    assert found.squares[GEOMETRY].mean() > 0.98 * floor.mean()
    assert np.isnan(found.read[PROBE]).all()


def made_up(probe: float = 1.5, middle: float = 0.9) -> Study:
    """A study in which the probe errs so many times as the posterior, and features tell so many classes."""
    options = Options(dims=(4, 16), levels=(0.02, 0.5))
    generator = np.random.default_rng(0)
    level = generator.uniform(0.01, 0.99, 400)
    noise = 0.02 * np.where(np.arange(400) % 2, 1.0, -1.0)
    scales = np.array([1.0, 1.05, probe, 10.0])
    digits = Readings(level, level + scales[:, None] * noise, np.full(400, 0.02))
    nothing = Readings(level, digits.read.copy(), digits.width)
    nothing.read[2:] = np.nan
    hits = np.zeros((2, 2, 200), bool)
    hits[:, 0, :100], hits[0, 1, :50], hits[1, 1, : int(200 * middle)] = True, True, True
    pixels = np.zeros((2, 200), bool)
    pixels[:, :80] = True
    return Study(options, (nothing, nothing), (digits, digits), 30, (0, 100), hits, pixels)


def test_verdicts_follow_errors_and_shares() -> None:
    told = [each.outcome for each in report.verdicts(made_up())]
    assert told == [Outcome.HOLDS, Outcome.HOLDS, Outcome.FAILS, *3 * [Outcome.HOLDS]]
    other = report.verdicts(made_up(probe=3.0, middle=0.2))
    assert [each.outcome for each in other[1:]] == 5 * [Outcome.FAILS]
    assert other[1].value == pytest.approx(3.0)
    assert other[3].value == pytest.approx(-0.3)


def test_it_is_drawn_and_written() -> None:
    made = made_up()
    text = report.table(made)
    assert "Gaussian, d = 2 in R^16" in text
    assert "0.0300 [0.0300, 0.0300]" in text
    assert "d = 30 of 64" in text
    found = report.arrays(made)
    assert found["read"].shape == (4, 4, 400)
    assert found["hits"].shape == (2, 2, 200)
    assert rendered(report.picture(made)).size[0] > 1000


def test_errors_are_shown_by_noise_level() -> None:
    centres, errors = report.binned(np.array([0.01, 0.02, 0.99]), np.array([1.0, 3.0, 4.0]))
    np.testing.assert_allclose(centres, [0.0625, 0.9375])
    np.testing.assert_allclose(errors, [math.sqrt(2.0), 2.0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dims": (2,)}, "dims = 2: must be an integer >= 3"),
        ({"levels": (0.0,)}, "levels = 0.0: must be"),
        ({"steps": 9}, "steps = 9: must be an integer >= 10"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options(**options)
