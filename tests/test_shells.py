"""The noise level read off distances: chi laws, their moments, and how often two levels are confused."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi, kstest

from geonoise_jax.drawing.outputs import rendered
from geonoise_jax.exact import Marginal, Subspace
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import VE
from geonoise_jax.process.targets import Noise
from geonoise_jax.process.times import Uniform
from geonoise_jax.stability import chi_moment
from geonoise_jax.studies import shells
from geonoise_jax.studies.shells import QUICK, Options, Study, distances
from geonoise_jax.studies.verdicts import Outcome


@pytest.fixture(scope="module")
def study() -> Study:
    return shells.measure(QUICK)


@pytest.mark.parametrize("dim", [3, 8])
def test_distances_follow_the_chi_law(dim: int) -> None:
    r = distances(dim, QUICK)
    assert r.shape == (QUICK.num,)
    assert kstest(r, chi(dim - 2).cdf).pvalue > 1e-3
    np.testing.assert_array_equal(r, distances(dim, QUICK))
    assert (distances(dim, Options(dims=(3, 8), num=100, seed=1)) != r[:100]).all()


def test_moments_of_chi() -> None:
    for m in (1, 2, 7, 126):
        assert chi_moment(m, 1.0) == pytest.approx(chi(m).mean())
        assert chi_moment(m, 2.0) == pytest.approx(m)
    assert chi_moment(3, -1.0) == pytest.approx(math.sqrt(2.0 / math.pi))
    assert chi_moment(1, -1.0) == math.inf


def test_estimates_hold_their_exact_numbers(study: Study) -> None:
    for shell in study.shells:
        assert shell.m == shell.dim - 2
        for each in (shell.bias, shell.square_bias, shell.mean_bias, shell.width, shell.confused):
            if math.isfinite(each.value):
                assert each.low <= each.value <= each.high
                assert abs(each.value - each.exact) <= 1.6 * 0.5 * (each.high - each.low) + 1e-12
    first, second, last = study.shells
    assert first.bias.exact == pytest.approx(math.sqrt(2.0 / math.pi) - 1.0)
    assert second.bias.exact == pytest.approx(-1.0 / (4.0 * 6.0), rel=0.05)
    assert last.width.exact == pytest.approx(1.0, abs=2e-3)
    assert first.mean_bias.value == math.inf


def test_the_exact_field_has_the_posterior_mean(x64: None) -> None:
    """Of a subspace so wide that it is flat, and noise levels over a range that nothing ends."""
    frame = np.eye(8)[:, :2]
    law = Marginal(Subspace(jnp.asarray(frame), 1e4), Process(VE(t_min=1e-4, t_max=1e3), Noise()), Uniform(1e-4, 1e3))
    u = jnp.asarray([[3.0, -1.0, *np.full(6, 0.5)]])
    expected = 0.5 * math.sqrt(6.0) * chi_moment(5, -1.0)
    np.testing.assert_allclose(law.posterior(u).mean, expected, rtol=1e-4)


def test_confused_levels_are_those_of_the_likelier_one(study: Study) -> None:
    """By both densities at every distance."""
    r = distances(8, QUICK)
    root = math.sqrt(shells.POWER_RATIO)

    def likelier_is_large(r: np.ndarray) -> np.ndarray:
        return chi.logpdf(r / root, 6) - math.log(root) > chi.logpdf(r, 6)

    wrong = 0.5 * (likelier_is_large(r).mean() + 1.0 - likelier_is_large(root * r).mean())
    assert study.shells[1].confused.value == pytest.approx(wrong, abs=1e-9)


def test_verdicts_say_where_the_claims_hold(study: Study) -> None:
    told = [(each.quantity, each.outcome) for each in shells.verdicts(study)]
    assert told[:1] == [("bias of sigma_hat", Outcome.FAILS)]
    assert told[2:4] == [("spread in that unit", Outcome.FAILS), ("share confused", Outcome.FAILS)]
    assert [outcome for _, outcome in told[4:]] == [Outcome.HOLDS] * 4
    assert told[1][1] in (Outcome.HOLDS, Outcome.UNTOLD)


def test_it_is_drawn_and_written(study: Study) -> None:
    assert rendered(shells.picture(study)).format == "PNG"
    written = shells.arrays(study)
    assert written["bias"].shape == (3, 4)
    assert written["dim"].tolist() == [3, 8, 128]
    assert f"[{study.shells[0].bias.exact:.4f}]" in shells.table(study)
    assert "infinite" in shells.table(study)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data_dim": 3}, r"data_dim = 3: must be smaller than all dims"),
        ({"num": 99}, "num = 99: must be an integer >= 100"),
        ({"dims": (8, 8)}, r"dims = \(8, 8\): must be increasing"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options(**options)
