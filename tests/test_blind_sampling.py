"""The study of samplers without the noise level: its rule on made-up numbers, and known results at small D."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geonoise_jax.studies import blind_sampling, ring, runner
from geonoise_jax.studies.blind_sampling import study as measurement
from geonoise_jax.studies.blind_sampling.study import (
    AGREES,
    AT_DATA,
    BREAKS,
    COLLAPSED,
    DISAGREES,
    IN_PART,
    NOT_TOLD,
    OFF,
    RESIDUAL,
    STABLE,
    SYSTEMS,
    Options,
    Study,
    outcome,
    told,
    verdict,
)
from geonoise_jax.studies.quantiles import quantile_interval
from geonoise_jax.studies.verdicts import Outcome

BY_NAME = {system.name: system for system in SYSTEMS}
SMALL = Options(dims=(2, 8), num=64, num_steps=100, gaussian_dim=8, gaussian_num=512)


def study_of(*names: str, **options: Any) -> Study:
    return blind_sampling.measure(dataclasses.replace(SMALL, **options), tuple(BY_NAME[name] for name in names))


@pytest.fixture(scope="module")
def edm() -> Study:
    return study_of("VE x (EDM)")


@pytest.mark.parametrize(
    ("numbers", "ended"),
    [
        ((0.019, 0.01, 1.0), AT_DATA),
        ((0.021, 0.01, 1.0), RESIDUAL),
        ((0.019, 0.01, 0.1), AT_DATA),
        ((0.9, 0.01, 0.1), COLLAPSED),
        ((5.0, 0.01, 0.4), COLLAPSED),
        ((0.9, 0.01, 0.6), RESIDUAL),
        ((1.1, 0.01, 1.5), OFF),
        ((np.inf, 0.01, np.nan), OFF),
    ],
)
def test_outcomes_of_numbers(numbers: tuple[float, float, float], ended: str) -> None:
    assert outcome(*numbers) == ended


@pytest.mark.parametrize(
    ("claim", "verdicts"),
    [(STABLE, [AGREES, DISAGREES, IN_PART, DISAGREES]), (BREAKS, [DISAGREES, AGREES, IN_PART, AGREES])],
)
def test_verdicts_of_outcomes(claim: str, verdicts: list[str]) -> None:
    assert [verdict(claim, ended) for ended in (AT_DATA, COLLAPSED, RESIDUAL, OFF)] == verdicts


@pytest.mark.parametrize(
    ("blind", "conditional", "spread", "ended"),
    [
        ((0.017, 0.019), (0.0098, 0.0102), (1.0, 1.0), "at the data"),
        ((0.017, 0.022), (0.01, 0.01), (1.0, 1.0), "at the data or residual"),
        ((0.019, 0.019), (0.009, 0.011), (1.0, 1.0), "at the data or residual"),
        ((0.8, 0.9), (0.01, 0.01), (0.4, 0.6), "collapsed or residual"),
        ((0.8, 1.1), (0.01, 0.01), (0.8, 0.9), "residual or off"),
        ((5.0, 6.0), (0.01, 0.01), (0.4, 0.6), "collapsed or off"),
        ((5.0, np.inf), (0.01, 0.01), (np.nan, np.nan), "off"),
    ],
)
def test_an_outcome_is_told_if_all_numbers_in_the_intervals_say_it(
    blind: Any, conditional: Any, spread: Any, ended: str
) -> None:
    assert told(np.array(blind), np.array(conditional), np.array(spread)) == ended


@pytest.mark.parametrize(
    ("claim", "ended", "expected"),
    [
        (STABLE, "at the data or residual", NOT_TOLD),
        (STABLE, "residual or off", NOT_TOLD),
        (STABLE, "collapsed or off", DISAGREES),
        (BREAKS, "collapsed or off", AGREES),
        (BREAKS, "residual or off", NOT_TOLD),
    ],
)
def test_a_verdict_needs_outcomes_of_one_kind(claim: str, ended: str, expected: str) -> None:
    assert verdict(claim, ended) == expected


@pytest.mark.parametrize("num", [20, 64, 256])
def test_intervals_hold_the_quantile_as_often_as_they_say(num: int) -> None:
    """Of exponential numbers, whose 90% quantile is log 10."""
    ends = quantile_interval(np.random.default_rng(0).exponential(size=(4000, num)), 0.9)
    held = (ends[:, 0] <= np.log(10.0)) & (np.log(10.0) <= ends[:, 1])
    # At least 95%, and not much more but for the steps of few samples.
    assert 0.94 < held.mean() < 0.99
    assert np.isinf(ends[:, 1]).all() == (num == 20)


def test_infinite_distances_are_the_largest() -> None:
    values = np.concatenate([np.arange(70.0), np.full(30, np.inf)])[None]
    np.testing.assert_array_equal(quantile_interval(values, 0.9), [[np.inf, np.inf]])
    low, high = quantile_interval(values, 0.5)[0]
    assert 35 < low < 50 < high < 65


def test_signal_prediction_reaches_the_data_but_for_two_dimensions(edm: Study) -> None:
    """At D = 2 the blind denoiser is Weiszfeld's map, whose attractor is the geometric median: the centre."""
    assert edm.outcomes == [[COLLAPSED, AT_DATA]]
    assert edm.verdicts == [[DISAGREES, AGREES]]
    assert edm.blind_quantile[0, 0] == pytest.approx(1.0, abs=0.1)
    assert edm.spread[0, 0] < 0.2
    assert edm.blind_quantile[0, 1] == pytest.approx(0.009, abs=0.002)


def test_verdicts_name_the_dimensions_in_which_a_claim_holds(edm: Study) -> None:
    data, bounded = blind_sampling.verdicts(edm)
    assert data.outcome is Outcome.HOLDS_IF
    assert data.condition.endswith(": holds for D = 8; not for D = 2")
    assert data.value == pytest.approx(edm.blind_quantile[0, 0] / edm.conditional_quantile[0, 0])
    assert data.high > data.value > data.low > 2.0
    assert bounded.claim == "VE x (EDM): the blind field stays within one radius of the data"
    breaking = dataclasses.replace(edm, systems=(BY_NAME["VP eps"],))
    (broken,) = blind_sampling.verdicts(breaking)
    assert broken.condition.endswith(": holds for D = 2; not for D = 8")
    assert broken.value == pytest.approx(edm.blind_quantile[0, 1] / edm.conditional_quantile[0, 1])


def test_the_conditional_field_keeps_the_noise_of_t_min(edm: Study) -> None:
    """Whose norm is chi distributed; the 90% quantile of chi is 2.146 at D = 2 and 3.655 at D = 8."""
    np.testing.assert_allclose(edm.conditional_quantile[0], 0.002 * np.array([2.146, 3.655]), rtol=0.15)


def test_moments_of_the_gaussian(edm: Study) -> None:
    error, *ratios = edm.conditional_moments[0]
    assert error < 3.0 * np.sqrt(1.25 / SMALL.gaussian_num)
    np.testing.assert_allclose(ratios, 1.0, atol=0.15)
    assert edm.blind_moments[0, 1:3].max() < 0.95
    assert edm.blind_moments[0, 3] == pytest.approx(1.0, abs=0.1)


@pytest.mark.slow
def test_noise_and_velocity_prediction_and_descent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement, "_on_gaussian", lambda *_: (np.ones(4), np.ones(4)))
    study = study_of("VE eps", "FM v", "EqM, descent", dims=(8,))
    # The residual is max(0, N(0, 1/2)) long: 64 samples do not tell its 90% quantile, 0.91, from 1.
    assert study.outcomes == [[OFF], ["residual or off"], [AT_DATA]]
    assert study.blind_quantile[0, 0] > 20.0
    assert 0.4 < study.blind_quantile[1, 0] < 1.0
    assert study.blind_quantile[2, 0] < 1e-4
    lines = [" ".join(line.split()) for line in blind_sampling.table(study).splitlines()]
    assert {"VE eps breaks off: agrees", "FM v stable residual or off: not told"} <= set(lines)


def test_it_is_written_and_the_same_again(edm: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again = study_of("VE x (EDM)")
    monkeypatch.setattr(blind_sampling, "measure", lambda _: again)
    text = runner.run("blind_sampling", tmp_path / "new" / "blind.v1", SMALL)
    assert (tmp_path / "new" / "blind.v1.png").read_bytes().startswith(b"\x89PNG")
    with np.load(tmp_path / "new" / "blind.v1.npz") as arrays:
        np.testing.assert_array_equal(arrays["blind"], edm.blind)
        np.testing.assert_array_equal(arrays["blind_quantile"], edm.blind_quantile)
        assert arrays["verdicts"].tolist() == edm.verdicts
        assert arrays["dims"].tolist() == [2, 8]
    assert text.startswith(blind_sampling.table(edm))
    assert "collapsed: disagrees  at the data: agrees" in text


def test_distances_count_what_is_not_finite_as_infinite() -> None:
    points, frame = ring.ring(5)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(frame.T @ frame, np.eye(2), atol=1e-12)
    off = points[:3] * np.array([[1.0], [1.5], [np.nan]], np.float32)
    np.testing.assert_allclose(ring.nearest(off, points), [0.0, 0.5, np.inf], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dims": ()}, "dims = .*: must be a tuple of one or more values"),
        ({"dims": (8, 2)}, "dims = .8, 2.: must be increasing"),
        ({"dims": (1, 2)}, "dims = 1: must be an integer >= 2"),
        ({"num": 5}, "num = 5: must be an integer >= 10"),
        ({"num_steps": 0}, "num_steps = 0: must be an integer >= 1"),
        ({"gaussian_dim": 2}, "gaussian_dim = 2: must be an integer >= 3"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options(**options)
