"""The study of learnt log-densities: no difference where the network is exact, and its table, picture and refusals."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax import config
from geonoise_jax.build import train
from geonoise_jax.evaluation.restore import Trained
from geonoise_jax.exact import FiniteSet, Gaussian
from geonoise_jax.fields import DensityField, Preconditioner
from geonoise_jax.process import schedules, targets
from geonoise_jax.process.process import Process
from geonoise_jax.studies import log_density
from geonoise_jax.studies.log_density import Options, Study
from geonoise_jax.studies.verdicts import Outcome
from tests.command_line import run
from tests.stub_networks import Stub
from tests.training_runs import circles

RUN = Path("run")
SIGMA, DIM = 0.7, 3
TRAINING = SIGMA * np.random.default_rng(1).standard_normal((30, DIM)).astype(np.float32)
POINTS = SIGMA * np.random.default_rng(0).standard_normal((40, DIM)).astype(np.float32)


def study_of(monkeypatch: pytest.MonkeyPatch, shift: float) -> Study:
    """Of the exact density of Gaussian data, but for a constant below half of the noise levels."""

    def network(_: None, v: jax.Array, feature: jax.Array, __: None) -> jax.Array:
        pairing = v / 2 + 1 / DIM
        correction = jnp.where(feature < 0, shift, 0.0) * jnp.exp(400 * feature) / SIGMA
        return correction[:, None] * pairing / (pairing**2).sum(1, keepdims=True)

    process = Process(schedules.VE(t_min=0.02, t_max=50.0), targets.Noise())
    field = DensityField(None, Stub(network), process, (DIM,), False, preconditioner=Preconditioner(SIGMA))
    facts: Any = None
    trained = Trained(field, config.load("configs/circles.py:dual_score"), facts, 7)
    monkeypatch.setattr(log_density, "restore", lambda *_, **__: trained)
    population = {"population": Gaussian([0.0] * DIM, [SIGMA**2] * DIM)}
    monkeypatch.setattr(log_density, "laws", lambda _: (population, FiniteSet(TRAINING)))
    monkeypatch.setattr(log_density.build, "finite_set", lambda *_: FiniteSet(POINTS))
    return log_density.measure(Options(RUN, num=64, levels=6))


def test_an_exact_density_differs_by_what_it_is_changed_by(monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_of(monkeypatch, 0.0)
    np.testing.assert_allclose(study.noise, np.geomspace(0.02, 50.0, 6), rtol=1e-4)
    assert study.learnt.shape == (6, 64)
    np.testing.assert_allclose(study.learnt, study.exact["population"], atol=1e-4)
    shifted = study_of(monkeypatch, 2.0)
    low = (study.noise < 1.0)[:, None]
    np.testing.assert_allclose(shifted.learnt, study.learnt - np.where(low, 2.0, 0.0), atol=1e-4)
    text = log_density.table(shifted)
    assert text.startswith("circles, VE, step 7: log p(u | t) in nats, 3 dimensions, means over 64 held-out points\n")
    cells = [re.split(r" {2,}", line.strip()) for line in text.splitlines()[6:]]
    differences = [[float(part) for part in row[3].split(" +- ")] for row in cells]
    np.testing.assert_allclose([value for value, _ in differences], [-2.0] * 3 + [0.0] * 3, atol=1e-3)
    assert all(error < 1e-3 for _, error in differences)
    # Above b / a = 1 nothing was changed.
    (population,) = log_density.verdicts(shifted)
    assert population.outcome is Outcome.HOLDS
    everywhere = shifted._replace(learnt=study.exact["population"] + 1.0)
    assert log_density.verdicts(everywhere)[0].outcome is Outcome.FAILS
    assert log_density.verdicts(shifted._replace(noise=0.01 * shifted.noise)) == []
    means, errors = zip(*([float(part) for part in row[1].split(" +- ")] for row in cells), strict=True)
    np.testing.assert_allclose(means, shifted.learnt.mean(1), rtol=0.01)
    np.testing.assert_allclose(errors, shifted.error(shifted.learnt), rtol=0.34)


def test_standard_errors_count_a_point_that_is_noised_again_once() -> None:
    """The scatter of means over repeated choices of the points and their noise."""
    rng = np.random.default_rng(0)

    def study(rows: np.ndarray, levels: int) -> tuple[Study, np.ndarray]:
        points, noise = rng.standard_normal((levels, rows.max() + 1)), rng.standard_normal((levels, len(rows)))
        values = points[:, rows] + 0.5 * noise
        return Study("", 1, np.ones(levels), values, {}, rows), values

    for rows in (np.arange(60), np.arange(60) % 20, rng.integers(0, 40, 60)):
        made, values = study(rows, 3000)
        assert np.sqrt(np.square(made.error(values)).mean()) == pytest.approx(values.mean(1).std(), rel=0.08)
    single, values = study(np.arange(60), 5)
    np.testing.assert_allclose(single.error(values), values.std(1, ddof=1) / np.sqrt(60))


def test_held_out_points_that_training_saw_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    study_of(monkeypatch, 0.0)
    monkeypatch.setattr(log_density.build, "finite_set", lambda *_: FiniteSet(np.concatenate([POINTS, TRAINING[:3]])))
    with pytest.raises(ValueError, match="held_out = 'test': 3 of its 43 points are points of the training split"):
        log_density.measure(Options(RUN))


def test_study_of_a_run(tmp_path: Path) -> None:
    choice = circles(tmp_path / "data", "dual_score", training__num_steps=20, model__class_conditional=False)
    train(choice, tmp_path / "run")
    ended = run("figure", "log_density", f"--workdir={tmp_path / 'run'}", f"--out={tmp_path / 'new' / 'a'}")
    assert ended.status == 0, ended.err
    assert ended.out.splitlines()[-1] == str(tmp_path / "new" / "a.png")
    arrays = np.load(tmp_path / "new" / "a.npz")
    exact = {"exact population", "exact training set", "error population", "error training set"}
    assert set(arrays) == {"title", "dim", "noise", "learnt", "rows", *exact}
    assert arrays["learnt"].shape == arrays["exact population"].shape == (13, 256)
    # At the highest level nothing is left to learn, and all are one.
    for name in ("exact population", "exact training set"):
        np.testing.assert_allclose(arrays[name][-1], arrays["learnt"][-1], atol=0.05)


def test_a_field_that_is_no_density_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    study_of(monkeypatch, 0.0)
    restore: Any = log_density.restore
    field: Any = object()
    trained = dataclasses.replace(restore(), field=field)
    monkeypatch.setattr(log_density, "restore", lambda *_, **__: trained)
    with pytest.raises(ValueError, match=r"workdir = 'run': must hold a density \(dual_score\), not a object"):
        log_density.measure(Options(RUN))


def test_one_observation_or_level_is_too_few() -> None:
    with pytest.raises(ValueError, match="num = 1: must be an integer >= 2"):
        Options(RUN, num=1)
    with pytest.raises(ValueError, match="levels = 1: must be an integer >= 2"):
        Options(RUN, levels=1)
