"""The race of drift errors: exponents of the local model, verdicts, and what is written."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geonoise_jax.studies import runner, stability_race
from geonoise_jax.studies.stability_race import Options, Study
from geonoise_jax.studies.stability_race import report as reporting
from geonoise_jax.studies.stability_race.study import SYSTEMS, log_rms
from geonoise_jax.studies.verdicts import Outcome

NAMES = ("FM v", "VE x (EDM)")
SMALL = Options(dims=(3,), num=8, levels=17)


@pytest.fixture(scope="module")
def study() -> Study:
    return stability_race.measure(SMALL, tuple(system for system in SYSTEMS if system.name in NAMES))


def test_exponents_are_those_of_the_local_model(study: Study) -> None:
    """Of flow matching's velocity 0, of EDM's signal D - 2; at a fixed distance -1, whatever the target."""
    np.testing.assert_allclose(study.theory(0), 0.0, atol=1e-6)
    np.testing.assert_allclose(study.theory(1), 1.0, atol=1e-6)
    for number in range(2):
        value, low, high = study.slope(number, study.per_time)[0]
        assert low <= value <= high
        assert value == pytest.approx(study.theory(number)[0], abs=0.02)
        assert study.slope(number, study.per_time, fixed=True)[0, 0] == pytest.approx(-1.0, abs=0.02)
    np.testing.assert_allclose(study.exponents, 1.0, rtol=1e-6)
    np.testing.assert_allclose(study.per_time[0], 0.0, atol=1e-9)


def test_verdicts_of_the_race(study: Study) -> None:
    told = {each.claim: each for each in stability_race.verdicts(study)}
    expected = {
        "the drift error of flow matching stays bounded": Outcome.HOLDS,
        "so it does at a fixed distance from a datum": Outcome.FAILS,
        "the drift error of EDM vanishes": Outcome.HOLDS,
        "the signal's error falls exponentially, faster than any power of the noise": Outcome.FAILS,
        "the gain of signal prediction grows like 1 / b^2": Outcome.FAILS,
        "velocity targets have a bounded gain": Outcome.HOLDS,
    }
    assert {claim: each.outcome for claim, each in told.items()} == expected
    exponential = told["the signal's error falls exponentially, faster than any power of the noise"]
    assert exponential.value == pytest.approx(1.0, abs=0.02)


def test_steps_add_up_to_the_length_of_the_way(study: Study) -> None:
    """Flow matching's steps are as long as t; of the errors most are at high noise, where steps are long."""
    lengths = np.exp(study.per_step[0, 1:])
    np.testing.assert_allclose(lengths, np.diff(study.t[0]), rtol=1e-6)
    assert study.per_step[0, 0] == -np.inf
    share = study.noisy_share(0)
    assert share.shape == (1, 8)
    assert ((share > 0.0) & (share < 1.0)).all()


def test_it_is_written(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stability_race, "measure", lambda _: study)
    text = runner.run("stability_race", tmp_path / "race", SMALL)
    assert text.startswith(stability_race.table(study))
    assert "+1.00 (+1.00)" in text
    assert (tmp_path / "race.png").read_bytes().startswith(b"\x89PNG")
    with np.load(tmp_path / "race.npz") as arrays:
        assert arrays["name"].tolist() == list(NAMES)
        assert arrays["slope"].shape == (2, 1, 3)


def test_root_mean_squares_of_logarithms() -> None:
    logs = np.array([[-1000.0, -1001.0], [-np.inf, -np.inf], [0.0, math.log(7.0)]])
    expected = [-1000.0 + 0.5 * math.log(0.5 * (1.0 + math.exp(-2.0))), -np.inf, math.log(5.0)]
    np.testing.assert_allclose(log_rms(logs), expected)


@pytest.mark.parametrize(
    ("log", "shown"), [(math.log(0.73), "0.73"), (-1000.0 * math.log(10.0) + math.log(3.0), "3e-1000"), (-np.inf, "0")]
)
def test_numbers_from_logarithms(log: float, shown: str) -> None:
    assert reporting._number(log) == shown


def test_options_are_checked_and_quick_replaces_what_is_not_given() -> None:
    assert (Options(quick=True).dims, Options(quick=True, dims=(4,)).dims) == ((2, 8), (4,))
    refused: list[tuple[dict[str, Any], str]] = [
        ({"dims": (8, 2)}, "dims = .8, 2.: must be increasing"),
        ({"num": 1}, "num = 1: must be an integer >= 2"),
        ({"levels": 3}, "levels = 3: must be an integer >= 8"),
        ({"radius": 0.0}, "radius = 0.0: must be a number in"),
    ]
    for given, message in refused:
        with pytest.raises(ValueError, match=message):
            Options(**given)
