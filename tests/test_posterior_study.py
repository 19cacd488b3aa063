"""Posteriors of the noise level at probes that move onto a datum: chi laws, and what is said of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import gamma

from geonoise_jax.drawing.outputs import rendered
from geonoise_jax.studies import posterior
from geonoise_jax.studies.points import POINTS, SCHEDULES, directions
from geonoise_jax.studies.posterior import QUICK, RADII, SHOWN, Approach, Options, Study, _approach
from geonoise_jax.studies.verdicts import Outcome


@pytest.fixture(scope="module")
def study() -> Study:
    return posterior.measure(QUICK)


def by(study: Study) -> dict[tuple[str, int], Approach]:
    return {(each.law, each.dim): each for each in study.approaches}


def chi_moment(m: float, q: float) -> float:
    return float(2.0 ** (q / 2.0) * gamma((m + q) / 2.0) / gamma(m / 2.0))


def test_means_and_widths_tend_to_those_of_the_chi_law(study: Study) -> None:
    found = by(study)["b ~ √t", 8]
    assert found.m == 6
    first, second = chi_moment(6, -1), chi_moment(6, -2)
    np.testing.assert_allclose(found.mean[-1] / RADII[-1], first, rtol=1e-5)
    np.testing.assert_allclose(found.width[-1], np.sqrt(second / first**2 - 1.0), rtol=1e-5)
    np.testing.assert_allclose(found.width_limit, found.width[-1], rtol=1e-5)
    np.testing.assert_allclose(found.collapse, 1.0, atol=1e-4)
    np.testing.assert_allclose(found.sharpening, 0.0, atol=1e-4)


def test_the_shrinkage_of_flow_matching_tilts_the_law(study: Study) -> None:
    found = by(study)["b ~ t", 8]
    np.testing.assert_allclose(found.mean[-1] / RADII[-1], found.mean_limit, rtol=1e-5)
    np.testing.assert_allclose(found.width[-1], found.width_limit, rtol=1e-5)
    # By direction, which it would not without.
    assert np.ptp(found.width[-1]) > 0.01
    assert found.width.mean(axis=1)[-1] == pytest.approx(1.0 / np.sqrt(14.0), rel=0.25)


def test_at_few_dimensions_the_posterior_hardly_collapses(study: Study) -> None:
    found = by(study)
    assert found["b ~ √t", 1].collapse.max() < 1e-3
    assert found["b ~ √t", 1].mean[-1].min() > 0.3
    for key in (("b ~ t", 1), ("b ~ √t", 2)):
        # Of a logarithm: E[b] falls like 1 / log 1 / r.
        assert found[key].collapse.min() > 0.03
        assert found[key].collapse.max() < 0.2
    assert 0.8 < found["b ~ t", 2].collapse.mean() < 1.0


def test_densities_are_per_unit_of_log_b(study: Study) -> None:
    for each in study.approaches:
        assert each.b.shape[0] == len(SHOWN)
    each = by(study)["b ~ t", 8]
    b, density = each.b[-1], each.density[-1]
    used = density > 0.0
    total = np.trapezoid(density[used], np.log(b[used]))
    assert total == pytest.approx(1.0, abs=0.01)


def test_a_mean_at_some_distance_is_the_integral(x64: None) -> None:
    """One radius and direction, by another library's quadrature over t, of all three data."""
    found = _approach(SCHEDULES["Linear"], 2, 0)
    u = POINTS[3][0] + RADII[1] * directions(2, 4, 0)[2]

    def evidence(t: float) -> float:
        square = np.square(u - (1.0 - t) * POINTS[3]).sum(axis=1)
        return float(np.exp(-0.5 * square / t**2).sum() / t**2)

    parts = [quad(lambda t, q: t**q * evidence(t), 1e-4, 0.999, (q,), limit=200)[0] for q in (0, 1, 2)]
    mean = parts[1] / parts[0]
    assert found.mean[1, 2] == pytest.approx(mean, rel=1e-6)
    assert found.sd[1, 2] == pytest.approx(np.sqrt(parts[2] / parts[0] - mean**2), rel=1e-6)


def test_verdicts_say_where_the_claims_hold(study: Study) -> None:
    told = [
        (each.claim.split()[0], each.condition.split("; value")[0], each.outcome) for each in posterior.verdicts(study)
    ]
    assert told == [
        ("the", "b ~ t, D = 1, 2, 8", Outcome.HOLDS),
        ("the", "b ~ √t, D = 1", Outcome.FAILS),
        ("the", "b ~ √t, D = 2, 8", Outcome.HOLDS),
        ("near", "b ~ t, D = 2, 8", Outcome.FAILS),
        ("near", "b ~ √t, D = 8", Outcome.FAILS),
    ]


def test_it_is_drawn_and_written(study: Study) -> None:
    assert rendered(posterior.picture(study)).format == "PNG"
    written = posterior.arrays(study)
    assert written["mean"].shape == (6, len(RADII), 8)
    assert f"{study.approaches[2].width[-1].mean():.4f}" in posterior.table(study)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"dims": (0,)}, "dims = 0: must be an integer >= 1"), ({"seed": -1}, "seed = -1: must be an integer >= 0")],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options(**options)
