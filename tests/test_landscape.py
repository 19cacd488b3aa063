"""The landscape of the marginal energy: wells as deep as the singularities have them, maps of the law."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import gamma

from geonoise_jax.drawing.outputs import rendered
from geonoise_jax.studies import landscape
from geonoise_jax.studies.landscape import QUICK, Options, Study
from geonoise_jax.studies.landscape.study import RADII, _well
from geonoise_jax.studies.near_datum import SMALLEST_NOISE
from geonoise_jax.studies.points import POINTS, SCHEDULES, around, directions, embedded
from geonoise_jax.studies.verdicts import Outcome


@pytest.fixture(scope="module")
def study() -> Study:
    return landscape.measure(QUICK)


def test_maps_are_minus_log_of_the_density(study: Study) -> None:
    """Of one datum, by quadrature of another library."""
    x, row, column = POINTS[1][0], 3, 15
    u = np.array([study.axis[column], study.axis[row]])
    low, high = 1e-3, 0.999

    def density(t: float) -> float:
        return float(np.exp(-np.square(u - (1 - t) * x).sum() / (2 * t * t)) / (2 * np.pi * t * t)) / (high - low)

    def gradient(t: float, axis: int) -> float:
        return density(t) * float((u - (1 - t) * x)[axis]) / t**2

    p = quad(density, low, high, epsabs=0.0)[0]
    slope = [quad(gradient, low, high, (axis,), epsabs=0.0)[0] / p for axis in (0, 1)]
    assert study.maps[1].energy[row, column] == pytest.approx(-np.log(p), rel=1e-7)
    assert study.maps[1].energy_grad[row, column] == pytest.approx(np.hypot(*slope), rel=1e-7)
    field = [quad(lambda t, i: gradient(t, i) * t - density(t) * x[i], low, high, (axis,))[0] / p for axis in (0, 1)]
    assert study.maps[1].field[row, column] == pytest.approx(np.hypot(*field), rel=1e-6)
    assert all(each.error < 1e-8 for each in study.maps.values())
    assert study.maps.keys() == {1, 3, 5}


def test_wells_have_the_exponents_of_their_singularities(study: Study) -> None:
    by = {(well.law, well.dim): well for well in study.wells}
    assert {key: well.m for key, well in by.items()} == {
        ("b ~ t", 1): 0,
        ("b ~ t", 2): 1,
        ("b ~ √t", 1): -1,
        ("b ~ √t", 2): 0,
    }
    for well in study.wells:
        value, low, high = well.exponent
        assert low <= value <= high
        assert value == pytest.approx(well.m, abs=5e-3)
    # A power falls by m log 10 a decade, a logarithm of a logarithm by less and less, a cusp not at all.
    falls = {key: np.diff(well.depth)[::2] + np.diff(well.depth)[1::2] for key, well in by.items()}
    np.testing.assert_allclose(falls["b ~ t", 2][3:], np.log(10.0), rtol=1e-3)
    for key in (("b ~ t", 1), ("b ~ √t", 2)):
        assert (np.diff(falls[key]) < 0.0).all()
        assert falls[key][-1] == pytest.approx(np.log(8.0 / 7.0), rel=0.3)
    assert falls["b ~ √t", 1][-1] < 1e-4
    assert abs(study.trained.growth("energy")[0]) < 1e-3


def test_slopes_are_those_of_the_energy(study: Study) -> None:
    for well in study.wells:
        middle = np.diff(well.energy, axis=0) / np.diff(np.log(RADII))[:, None]
        np.testing.assert_allclose(middle, 0.5 * (well.slope[1:] + well.slope[:-1]), atol=0.05 * abs(well.m) + 0.03)


def test_the_field_of_noise_at_a_datum_is_the_mean_of_chi() -> None:
    """E[s] with s of the chi law of m degrees; the natural gradient is m / (m - 1) as long."""
    with jax.enable_x64(True):
        family = SCHEDULES["VPLinear"]
        found = _well(family, family.from_noise(SMALLEST_NOISE), "Noise", 5, family.law, 0)
    mean = np.sqrt(2.0) * gamma(2.0) / gamma(1.5)
    np.testing.assert_allclose(found.field[-1], mean, rtol=1e-5)
    np.testing.assert_allclose(found.natural[-1], 1.5 * mean, rtol=1e-5)


def test_verdicts_say_where_the_claims_hold(study: Study) -> None:
    told = {(each.claim.split()[1], each.condition[:13]): each.outcome for each in landscape.verdicts(study)}
    assert told["marginal", "b ~ t, Veloci"] is Outcome.HOLDS
    assert told["marginal", "b ~ t from 0."] is Outcome.FAILS
    assert told["natural", "b ~ t, Veloci"] is Outcome.FAILS
    assert told["whole", "b ~ t, Veloci"] is Outcome.HOLDS
    wells = [each for each in landscape.verdicts(study) if "b ~ √t" in each.condition and "marginal" in each.claim]
    assert [(each.outcome, "D = 1" in each.condition) for each in wells] == [
        (Outcome.FAILS, True),
        (Outcome.HOLDS, False),
    ]


def test_it_is_drawn_and_written(study: Study) -> None:
    surfaces = Study(Options(cells=24, dims=(1, 2), surfaces=True), *(getattr(study, name) for name in PARTS))
    for each in (study, surfaces):
        assert rendered(landscape.picture(each)).format == "PNG"
    text = landscape.table(study)
    assert "1.000 [1.000, 1.000]" in text
    written = landscape.arrays(study)
    assert written["energy_3"].shape == (24, 24)
    assert written["well_slope"].shape == (5, len(RADII), 8)
    assert written["well_law"][-1] == "b ~ t from 0.001"


PARTS = ("axis", "maps", "wells", "trained")


def test_directions_come_in_opposite_pairs() -> None:
    unit = directions(3, 4, 0)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1.0)
    np.testing.assert_array_equal(unit[:4], -unit[4:])
    u = around(np.ones(3), np.array([0.5, 0.1]), unit)
    np.testing.assert_allclose(np.linalg.norm(u - 1.0, axis=-1), [[0.5] * 8, [0.1] * 8])
    np.testing.assert_array_equal(embedded(POINTS[3], 4)[:, 2:], 0.0)
    np.testing.assert_array_equal(embedded(POINTS[3], 1), POINTS[3][:, :1])


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_begin_at_a_noise_scale(name: str, x64: None) -> None:
    schedule = SCHEDULES[name].from_noise(1e-6)
    a, b = schedule.scales(jnp.asarray(schedule.t_min))
    assert float(b) == pytest.approx(1e-6, rel=1e-6)
    assert float((1.0 - a) / b) == pytest.approx(SCHEDULES[name].rho, abs=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "Linaer"}, "schedule = 'Linaer': unknown; did you mean 'Linear'"),
        ({"target": "weather"}, "target = 'weather': must be one of Velocity, Noise"),
        ({"cells": 7}, "cells = 7: must be an integer >= 8"),
        ({"limit": 0.0}, "limit = 0.0: must be a number"),
        ({"surfaces": "False"}, "surfaces = 'False': must be True or False"),
        ({"dims": (2, 1)}, r"dims = \(2, 1\): must be increasing"),
        ({"dims": (0,)}, "dims = 0: must be an integer >= 1"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options(**options)
