"""Noise prediction on the path of flow matching: amplifiers, pushes, configs, and verdicts on made-up distances."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from geonoise_jax.drawing.outputs import rendered
from geonoise_jax.process.process import Process
from geonoise_jax.studies.alignment import models, report
from geonoise_jax.studies.alignment.models import Push, Wanted, push
from geonoise_jax.studies.alignment.study import (
    ALIGNED,
    MISALIGNED,
    SHORT,
    SYSTEMS,
    VELOCITY,
    Options,
    Study,
    trained_systems,
)
from geonoise_jax.studies.kept import kept
from geonoise_jax.studies.verdicts import Outcome


def test_the_drift_amplifies_by_the_signal_that_is_left_at_the_start() -> None:
    found = [each.amplification for each in SYSTEMS]
    np.testing.assert_allclose(found, [np.exp(5.025), 999.0, 0.999 / 0.05, 1.0], rtol=3e-3)


@dataclasses.dataclass(frozen=True)
class Multiple:
    """A field that predicts a multiple of what it sees."""

    process: Process
    factor: float
    event_shape: tuple[int, ...] = (4,)
    blind: bool = True

    def __call__(self, u: jax.Array, t: Any = None) -> jax.Array:  # noqa: ARG002
        return self.factor * u


@pytest.mark.parametrize("number", [MISALIGNED, ALIGNED])
def test_push_is_what_the_prediction_exceeds_the_noise_by(number: int) -> None:
    """Of a prediction ``k u`` of the noise: ``d|u| / dlog a = (1 - k / b) |u|`` on VP, ``(1 - k) |u|`` on Linear."""
    found = push(Multiple(SYSTEMS[number].process, 1.1), seed=0, num=50)
    assert found.inward == pytest.approx(0.1, rel=2e-3)
    assert found.outward == 0.0
    assert push(Multiple(SYSTEMS[number].process, 0.9), seed=0, num=50).outward == 1.0


@pytest.mark.parametrize("number", [MISALIGNED, ALIGNED, VELOCITY])
@pytest.mark.parametrize("blind", [True, False])
def test_networks_are_of_the_systems_of_the_study(number: int, blind: bool) -> None:
    run = models.small.run_of(models.config_of(Wanted(SYSTEMS[number].process, 8, blind, 7, 2)))
    assert run.process == SYSTEMS[number].process
    assert (run.blind, run.data.event_shape, run.budget.num_steps) == (blind, (8,), 7)


def made_up(exact: dict[int, float], trained: float = 1.0, twin: float = 0.05) -> Study:
    """A study in which blind fields are so many times as far from the data as conditional ones, and one network is."""
    options = Options(dims=(2, 8), train_dims=(8,), num=100, seeds=3)
    systems, dims, ways, samples = len(SYSTEMS), 2, 2, options.num
    spread = 0.01 * np.linspace(0.99, 1.01, samples)
    distances = np.tile(spread, (systems, dims, ways, 2, 1))
    for number, factor in exact.items():
        distances[number, ..., 1, :] *= factor
    networks = np.full((len(trained_systems()), 1, ways, 2, options.seeds, samples), twin)
    networks[1, ..., 1, :, :] *= trained * np.array([0.99, 1.0, 1.01])[:, None]
    pushes = tuple(tuple(Push(0.1, 0.01, 0.2) for _ in range(dims)) for _ in SYSTEMS)
    signal = np.tile(np.geomspace(1e-3, 0.999, 5), (systems, 1))
    return Study(options, distances, np.ones((systems, dims, 5)), signal, pushes, networks)


def test_verdicts_follow_the_ratio_of_blind_to_conditional() -> None:
    found = report.verdicts(made_up({MISALIGNED: 5.0, ALIGNED: 1.2, SHORT: 3.0}, trained=4.0))
    heun, trained = found[:4], found[8:11]
    assert [each.outcome for each in heun] == [Outcome.HOLDS, Outcome.HOLDS, Outcome.FAILS, Outcome.HOLDS]
    assert heun[SHORT].value == pytest.approx(3.0)
    assert [each.outcome for each in trained] == [Outcome.FAILS, Outcome.FAILS, Outcome.HOLDS]
    assert trained[1].value == pytest.approx(4.0, rel=1e-3)
    assert trained[1].low < 4.0 < trained[1].high


def test_nothing_is_told_of_a_network_that_has_not_learnt() -> None:
    found = report.verdicts(made_up({}, twin=0.3))
    assert {each.outcome for each in found[8:]} == {Outcome.UNTOLD}


def test_samples_that_are_not_finite_are_far_away() -> None:
    study = made_up({})
    study.exact[ALIGNED, 0, 0, 1] = np.inf
    assert study.quantile[ALIGNED, 0, 0, 1] == np.inf
    assert report.verdicts(study)[ALIGNED].outcome is Outcome.HOLDS_IF
    assert rendered(report.picture(study)).size[0] > 1000
    assert "inf [0.01] x inf" in report.table(study)


def test_table_and_arrays_have_every_system() -> None:
    study = made_up({MISALIGNED: 5.0})
    text = report.table(study)
    assert text.count("VP, noise") == 2 + 1 + 2
    assert "0.0504 [0.01] x 5.00" in text
    found = report.arrays(study)
    assert found["ratio"].shape == (4, 2, 2, 3)
    assert found["push"].shape == (4, 2, 3)


def test_without_networks_there_are_exact_fields_alone() -> None:
    study = made_up({})
    bare = study._replace(options=Options(dims=(2, 8), train_dims=(), num=100), trained=study.trained[:, :0])
    assert len(report.verdicts(bare)) == 8
    assert "Networks" not in report.table(bare)
    assert rendered(report.picture(bare)).size[0] > 500


def test_what_was_made_is_read(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> dict[str, np.ndarray]:
        made.append(1)
        return {"x": np.arange(3)}

    first, again, other = (kept(tmp_path, "name", (key,), make) for key in ("a", "a", "b"))
    np.testing.assert_array_equal(first["x"], again["x"])
    assert len(made) == 2
    assert len(list(tmp_path.glob("name-*.npz"))) == 2
    assert other["x"].shape == (3,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dims": (1,)}, "dims = 1: must be an integer >= 2"),
        ({"num": 19}, "num = 19: must be an integer >= 20"),
        ({"seeds": 1}, "seeds = 1: must be an integer >= 2"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options(**options)
