"""The study of guidance: on a network that is exact for two points, and on a run through the command line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax import build, config
from geonoise_jax.build import train
from geonoise_jax.config import ConfigDict
from geonoise_jax.data import from_numpy
from geonoise_jax.data.arrays import Arrays
from geonoise_jax.drawing.outputs import rendered
from geonoise_jax.drawing.text import with_error
from geonoise_jax.evaluation.floors import Distance
from geonoise_jax.evaluation.restore import Trained
from geonoise_jax.fields import NetworkField
from geonoise_jax.process import schedules, targets
from geonoise_jax.process.process import Process
from geonoise_jax.studies import guidance, labelled
from geonoise_jax.studies.guidance import Options, Run, Share, Study
from geonoise_jax.studies.verdicts import Outcome
from tests.command_line import run
from tests.stub_networks import Stub
from tests.training_runs import circles

RUN = Path("run")
CLASSES = np.array([[[[1.0], [-1.0]]], [[[-1.0], [1.0]]]], np.float32)  # two images of 1 x 2 pixels
CONFIG = config.override(config.load("configs/digits.py:flow_matching,blind,class_conditional"), [])


def two_points(_: None, u: jax.Array, t: jax.Array, labels: jax.Array) -> jax.Array:
    """The exact velocity: of one point for a class, of both, equally probable, for label 2."""
    flat, points, level = u.reshape(len(u), 2), jnp.asarray(CLASSES.reshape(2, 2)), t[:, None] * 0.999
    away = ((flat[:, None] - (1.0 - level)[:, None] * points[None]) ** 2).sum(-1)
    both = jax.nn.softmax(-away / (2.0 * level**2), axis=1)
    weights = jnp.where((labels < 2)[:, None], jax.nn.one_hot(labels, 2), both)
    return ((flat - weights @ points) / level).reshape(u.shape)


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> Trained:
    process = Process(schedules.Linear(), targets.Velocity())
    field = NetworkField(None, Stub(two_points, num_classes=2), process, (1, 2, 1), False)
    facts: Any = None
    trained = Trained(field, CONFIG, facts, 7)
    monkeypatch.setattr(labelled, "restore", lambda *_, **__: trained)
    monkeypatch.setattr(guidance.build, "arrays", lambda _, split: points(seed=split is None))
    return trained


def points(seed: int) -> Arrays:
    """A split: each of both points ten times, by almost nothing apart from each other."""
    events = np.repeat(CLASSES, 10, axis=0)
    events += np.random.default_rng(seed).normal(0.0, 1e-6, events.shape).astype(np.float32)
    return Arrays(events=events, labels=np.repeat([0, 1], 10).astype(np.int32), num_classes=2)


def test_samples_are_of_the_class_that_guidance_asks_for(restored: Trained) -> None:
    study = guidance.measure(Options(RUN, num=200, scales=(0.0, 1.0, 2.0)))
    assert [(each.scale, each.interval is None) for each in study.runs] == [
        (0.0, True),
        (1.0, True),
        (2.0, True),
        (0.0, False),
        (2.0, False),
    ]
    low, high = study.runs[-1].interval or (0.0, 0.0)
    np.testing.assert_allclose([low, high], [0.2, 0.8], rtol=1e-4)
    nothing, plain, guided, partly_nothing, partly = study.runs
    assert 0.35 < nothing.accuracy.value < 0.65
    assert nothing.accuracy.error == pytest.approx(0.5 / np.sqrt(200), rel=0.1)
    # Below the interval the class is asked for again, and its field leads to it from anywhere.
    assert [each.accuracy.value for each in (plain, guided, partly_nothing, partly)] == [1.0] * 4
    np.testing.assert_allclose(plain.samples, CLASSES[study.labels], atol=0.01)
    assert plain.distance.value < 0.01
    # The classes of samples and of data take turns, and so have no scatter; without the class they have.
    assert plain.distance.spread < 1e-3 < 0.01 < nothing.distance.spread
    assert study.accuracy.value == 1.0
    assert study.floor == pytest.approx((0.0, 0.0), abs=1e-5)
    assert restored.step == 7


def test_the_table_and_the_picture(restored: Trained) -> None:
    study = guidance.measure(Options(RUN, num=8, scales=(1.0, 3.0), interval=(0.25, 0.5)))
    lines = guidance.table(study).splitlines()
    assert lines[0] == "digits, Linear, Velocity, step 7: 8 samples per run"
    # Of 8 right ones out of 8 the posterior of the share has a deviation of 7%, of 20 out of 20 one of 3%.
    cells = [re.split(r" {2,}", line) for line in lines[7:11]]
    assert [row[:-1] for row in cells] == [
        ["1", "all", "100.0% +- 7.2%"],
        ["3", "all", "100.0% +- 7.2%"],
        ["3", "0.25 to 0.5", "100.0% +- 7.2%"],
        ["data", "100.0% +- 3.3%"],
    ]
    distances = [*(run.distance for run in study.runs), study.floor]
    assert [row[-1] for row in cells] == [with_error(*distance) for distance in distances]
    assert lines[12:] == guidance.findings(study)
    assert rendered(guidance.picture(study)).size[0] > 1000
    assert restored.config is CONFIG


def test_runs_as_near_as_data_are_told_with_the_spread() -> None:
    labels, share = np.arange(4), Share(0.5, 0.1)
    distances = [Distance(0.052, 0.003), Distance(0.09, 0.003), Distance(0.066, 0.003)]
    intervals = (None, None, (0.2, 0.8))
    runs = tuple(
        Run(1.0 + number, interval, np.zeros((4, 1)), share, distance)
        for number, (interval, distance) in enumerate(zip(intervals, distances, strict=True))
    )
    (said,) = guidance.findings(Study("", labels, runs, share, Distance(0.06, 0.003)))
    assert said.endswith("within the spread: 1 (all); 3 (0.2 to 0.8).")


def test_verdicts_are_of_differences_to_no_guidance() -> None:
    shares = [Share(0.8, 0.01), Share(0.9, 0.02), Share(0.79, 0.01)]
    distances = [Distance(0.05, 0.003), Distance(0.06, 0.004), Distance(0.09, 0.003)]
    runs = tuple(
        Run(scale, None, np.zeros((4, 1)), share, distance)
        for scale, share, distance in zip((1.0, 2.0, 4.0), shares, distances, strict=True)
    )
    study = Study("", np.arange(4), runs, shares[0], distances[0])
    accuracy, distance = guidance.verdicts(study)
    assert accuracy.outcome is Outcome.HOLDS_IF
    assert accuracy.condition == "against scale 1, 4 samples a run, scale: holds for 2; not told for 4"
    assert (accuracy.value, accuracy.high) == pytest.approx((-0.01, -0.01 + 1.96 * np.hypot(0.01, 0.01)))
    assert distance.outcome is Outcome.HOLDS
    assert distance.value == pytest.approx(0.01)
    assert guidance.verdicts(study._replace(runs=runs[1:])) == []


def test_a_split_that_training_saw_is_refused(restored: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guidance.build, "arrays", lambda *_: points(seed=0))
    with pytest.raises(ValueError, match="held_out = 'other': 20 of its 20 points are points of the training split"):
        guidance.measure(Options(RUN, held_out="other"))


def small(folder: Path, **changes: Any) -> ConfigDict:
    return circles(folder / "data", training__num_steps=20, sampling__num_steps=4, **changes)


def test_study_of_a_run(tmp_path: Path) -> None:
    """Vectors, whose picture has no samples, in an odd number."""
    train(small(tmp_path), tmp_path / "run")
    words = ("--option=num=33", "--option=scales=(1.0,3.0)", f"--out={tmp_path / 'new' / 'a'}")
    ended = run("figure", "guidance", f"--workdir={tmp_path / 'run'}", *words)
    assert ended.status == 0, ended.err
    arrays = np.load(tmp_path / "new" / "a.npz")
    names = {"samples", "accuracy", "distance", "interval", "scale", "labels", "data_accuracy", "floor"}
    assert set(arrays) == names
    assert arrays["distance"].shape == arrays["accuracy"].shape == (3, 2)
    assert (arrays["distance"][:, 1] > 0).all()
    assert arrays["samples"].shape == (3, 33, 3)
    np.testing.assert_array_equal(arrays["scale"], [1.0, 3.0, 3.0])
    assert (tmp_path / "new" / "a.png").exists()


def test_what_is_refused(tmp_path: Path) -> None:
    train(small(tmp_path, model__label_dropout=0.0), tmp_path / "run")
    ended = run("figure", "guidance", f"--workdir={tmp_path / 'run'}")
    assert ended.err.endswith("must hold a class-conditional model with model.label_dropout > 0\n")
    assert run("figure", "guidance").err == "geonoise figure: --workdir: must be given for guidance\n"
    with pytest.raises(ValueError, match=r"scales = \(\): must be a tuple of one or more values"):
        Options(RUN, scales=())
    with pytest.raises(ValueError, match="num = 1: must be an integer >= 2"):
        Options(RUN, num=1)
    ended = run("figure", "guidance", f"--workdir={tmp_path / 'run'}", "--option=num=x")
    assert ended.err == "geonoise figure: num = 'x': must be an integer >= 2\n"


def test_items_without_a_class_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    data = from_numpy(np.arange(8.0).reshape(4, 2), [0, -1, 1, -1])
    monkeypatch.setattr(build, "arrays", lambda *_: data)
    points, labels = labelled.labelled(config.base_config(), None)
    np.testing.assert_array_equal(points, [[0.0, 1.0], [4.0, 5.0]])
    np.testing.assert_array_equal(labels, [0, 1])
