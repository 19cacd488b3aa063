"""The three terms of blind fields: their limits at a datum, and what is said of them."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from scipy.special import gamma
from scipy.stats import truncnorm

from geonoise_jax.drawing.outputs import rendered
from geonoise_jax.process.process import Process
from geonoise_jax.studies import decomposition
from geonoise_jax.studies.decomposition import QUICK, Options, Study, limits, report
from geonoise_jax.studies.decomposition.study import ENDS, RADII, _norms
from geonoise_jax.studies.points import POINTS, SCHEDULES, TARGETS, directions, embedded
from geonoise_jax.studies.verdicts import Outcome


def chi_moment(m: float, q: float) -> float:
    return float(2.0 ** (q / 2.0) * gamma((m + q) / 2.0) / gamma(m / 2.0))


@pytest.fixture(scope="module")
def study() -> Study:
    return decomposition.measure(QUICK)


@pytest.mark.parametrize("m", [0.5, 1, 2, 7, 126])
def test_moments_without_a_tilt_are_those_of_chi(m: float) -> None:
    found = limits.moments(m, 0.0, (-1, 1, 2, 0))
    expected = [chi_moment(m, q) if m + q > 0 else np.inf for q in (-1, 1, 2, 0)]
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_a_tilt_shifts_the_moments() -> None:
    """Of one degree: a normal law around minus the tilt, cut at 0, whose mean has a closed form."""
    for tilt in (-2.0, 1.5):
        expected = truncnorm(tilt, np.inf, loc=-tilt)
        found = limits.moments(1.0, tilt, (1, 2))
        np.testing.assert_allclose(found, [expected.mean(), expected.var() + expected.mean() ** 2], rtol=1e-8)


def test_limits_of_one_datum_without_shrinkage() -> None:
    """Of noise prediction m / (m - 1) and -1 / (m - 1) in units of E[s]; of EqM m / (m - 2) and -2 / (m - 2)."""
    unit, datum = directions(7, 2, 0), np.arange(7.0)
    m = 6.0
    natural, transport = limits.terms(SCHEDULES["VE"], 1, datum, unit)
    np.testing.assert_allclose(natural, m / (m - 1) * chi_moment(m, 1) * unit, rtol=1e-7)
    np.testing.assert_allclose(transport, -1 / (m - 1) * chi_moment(m, 1) * unit, rtol=1e-7)
    natural, transport = limits.terms(SCHEDULES["VE"], 2, datum, unit)
    np.testing.assert_allclose(natural, m / (m - 2) * unit, rtol=1e-7)
    np.testing.assert_allclose(transport, -2 / (m - 2) * unit, rtol=1e-7)


@pytest.mark.parametrize(
    ("schedule", "target", "scale", "power"),
    [
        ("Linear", "Velocity", 1, 1),
        ("Linear", "Noise", 1, 1),
        ("Linear", "Signal", -1, 2),
        ("Linear", "Equilibrium", 1, 2),
        ("VPLinear", "Noise", 1, 1),
        ("VPLinear", "VPrediction", 1, 1),
        ("VPLinear", "Velocity", 0.05, 0),
        ("VE", "Signal", -1, 2),
    ],
)
def test_gains_are_powers_of_the_noise_scale(schedule: str, target: str, scale: float, power: int) -> None:
    process = Process(SCHEDULES[schedule].from_noise(1e-7), TARGETS[target]())
    assert limits.gain_power(process)[0] == pytest.approx(scale, rel=1e-4)
    assert limits.gain_power(process)[1] == power


def test_terms_tend_to_their_limits(study: Study) -> None:
    for norms in study.norms:
        if norms.dim > 2:
            np.testing.assert_allclose(norms.natural[-1], norms.natural_limit, rtol=1e-4)
            np.testing.assert_allclose(norms.transport[-1], norms.transport_limit, rtol=1e-4)
            assert np.abs(norms.exponent).max() < 1e-4
        else:
            assert np.isinf(norms.natural_limit).all()
            # Both grow like a logarithm, by as much, and cancel.
            grown = norms.natural[-1] - norms.natural[-3], norms.transport[-1] - norms.transport[-3]
            np.testing.assert_allclose(*grown, rtol=1e-2)
            assert grown[0].min() > 0.1
            assert norms.field[-1].max() < 2.0
    np.testing.assert_allclose(study.norms[0].drift[-1], np.linalg.norm(POINTS[3][0]), rtol=1e-4)


@pytest.mark.parametrize(("schedule", "target"), [("VPLinear", "Noise"), ("Linear", "Equilibrium")])
def test_terms_of_other_systems_tend_to_their_limits(schedule: str, target: str) -> None:
    with jax.enable_x64(True):
        norms = _norms(5, Options(schedule=schedule, target=target))
    np.testing.assert_allclose(norms.natural[-1], norms.natural_limit, rtol=1e-4)
    np.testing.assert_allclose(norms.transport[-1], norms.transport_limit, rtol=1e-4)


def test_arrows_stand_head_to_tail(study: Study) -> None:
    plane = study.plane
    np.testing.assert_allclose(plane.natural + plane.transport + plane.drift, plane.field, atol=1e-8)
    chains, cell = report._chains(study), 2.0 * QUICK.limit / QUICK.cells
    (first, natural), (second, transport), (third, drift) = (chains[name] for name in ("natural", "transport", "drift"))
    np.testing.assert_array_equal(first, plane.u)
    aside = np.linalg.norm(second - first - natural, axis=1), np.linalg.norm(third - second - transport, axis=1)
    np.testing.assert_allclose(aside, report._ASIDE * cell, rtol=1e-6)
    np.testing.assert_allclose(natural + transport + drift, chains["field"][1], atol=1e-8)
    for end in (natural, natural + transport, natural + transport + drift):
        assert np.linalg.norm(end, axis=1).max() <= 0.5 * cell


def test_the_mean_gain_grows_like_a_logarithm_and_the_field_does_not(study: Study) -> None:
    assert study.gain_growth == pytest.approx(1.0, abs=0.02)
    assert (np.diff(study.gain) > 1.0).all()
    np.testing.assert_allclose(study.field_norm, study.field_norm[-1], rtol=1e-3)
    assert len(study.gain) == len(ENDS)


def test_verdicts_say_where_the_claims_hold(study: Study) -> None:
    told = [(each.quantity.split(" in ")[0].split(" for")[0], each.outcome) for each in decomposition.verdicts(study)]
    assert told == [
        ("exponent of |transport| / |natural|", Outcome.FAILS),
        ("|transport| / |f*|", Outcome.FAILS),
        ("|transport| / |f*|", Outcome.FAILS),
        ("exponent of |transport|", Outcome.HOLDS),
        ("growth", Outcome.FAILS),
        ("least lambda", Outcome.HOLDS),
        ("least lambda", Outcome.FAILS),
    ]
    *_, metric, no_metric = decomposition.verdicts(study)
    assert "targets Velocity, Noise, VPrediction, Equilibrium;" in metric.condition
    assert "targets Signal;" in no_metric.condition


def test_it_is_drawn_and_written(study: Study) -> None:
    assert rendered(decomposition.picture(study)).format == "PNG"
    assert f"{study.norms[1].transport[-1].mean():.4g}" in decomposition.table(study)
    written = decomposition.arrays(study)
    assert written["transport"].shape == (3, len(RADII), 8)
    assert written["plane_natural"].shape == (16, 2)
    assert embedded(POINTS[3], 8).shape == (3, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points": 2}, "points = '2': must be one of 1, 3, 5"),
        ({"target": "Velocty"}, "target = 'Velocty': unknown; did you mean 'Velocity'"),
        ({"cells": 1}, "cells = 1: must be an integer >= 2"),
        ({"dims": (1, 8)}, "dims = 1: must be an integer >= 2"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options(**options)
