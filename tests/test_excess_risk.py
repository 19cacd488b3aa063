"""Excess risk: zero for the exact field, the loss over its floor for any other, each law on its own draws."""

from __future__ import annotations

import dataclasses
import functools
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from geonoise_jax import build, config
from geonoise_jax.build import train
from geonoise_jax.config import ConfigDict
from geonoise_jax.evaluation.laws import POPULATION, TRAINING_SET, laws
from geonoise_jax.evaluation.restore import fresh_field, restore, saved_steps
from geonoise_jax.exact import Circles, FiniteSet
from geonoise_jax.fields import ExactField, Field
from geonoise_jax.studies import excess_risk, runner
from geonoise_jax.studies.excess_risk import Options, Study, report
from geonoise_jax.studies.excess_risk import study as measurement
from geonoise_jax.studies.excess_risk.estimates import Estimate, Summary, estimate, summarise
from geonoise_jax.studies.excess_risk.study import HELD_OUT, TRAIN
from geonoise_jax.training.sharding import sampling_mesh
from tests.training_runs import circles, prepare

POINTS = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
OTHERS = np.random.default_rng(1).normal(size=(50, 2)).astype(np.float32)
# Text, arrays and path of a study.
Written = tuple[str, dict[str, Any], Path]
RUN = Path("run")
OPTIONS = Options(RUN, num=1024, batch_size=1024)

EDM = {"schedule.name": "VE", "target.name": "Signal", "time_law.name": "LogNormal", "loss_weight.name": "EDM"}
SYSTEMS: dict[str, tuple[str, dict[str, str]]] = {
    "blind velocity": ("flow_matching,blind", {}),
    "conditional noise, discrete": ("ddpm,conditional", {}),
    "blind signal, weighted": ("flow_matching,blind", EDM),
}


def system(name: str) -> ConfigDict:
    variant, changes = SYSTEMS[name]
    return config.override(config.load(f"configs/circles.py:{variant}"), list(changes.items()))


def same(field: Field) -> Any:
    return field


def _tilted(field: Field, u: Array, t: Array) -> Array:
    return field(u, t) + 0.5 * jnp.tanh(u)


def tilted(field: Field) -> Any:
    """Off the field by 0.5 tanh(u), as a network could be."""
    return jax.tree_util.Partial(_tilted, field)


def _opposite(field: Field, u: Array, t: Array) -> Array:
    return -field(u, t)


def opposite(field: Field) -> Any:
    return jax.tree_util.Partial(_opposite, field)


@functools.cache
def compared(name: str, trained: Callable[[Field], Any], best: Callable[[Field], Any] = same) -> Study:
    """Compare fields made of the exact field of six points, on draws from them and from others."""
    choice = system(name)
    field = ExactField(build.marginal(choice, FiniteSet(POINTS)), choice.model.blind)
    draws = {key: measurement.draw(choice, FiniteSet(x), OPTIONS) for key, x in ((TRAIN, POINTS), (HELD_OUT, OTHERS))}
    return measurement.compare({TRAINING_SET: best(field)}, draws, [(7, trained(field))], OPTIONS.batch_size)


def z(study: Study, split: str) -> float:
    cross = summarise(study).cross
    at = 0, 0, study.splits.index(split)
    return float(cross.mean[at] / cross.error[at])


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_exact_field_has_no_excess_risk(name: str) -> None:
    study = compared(name, same)
    assert not study.excess.any()
    np.testing.assert_array_equal(study.loss[:, None], study.floor[None])


@pytest.mark.parametrize("name", SYSTEMS)
def test_excess_risk_is_the_weighted_distance(name: str) -> None:
    choice, study = system(name), compared(name, tilted)
    u = measurement.draw(choice, FiniteSet(POINTS), OPTIONS).u
    expected = build.loss_weight(choice)(study.t) * (0.25 * np.tanh(u) ** 2).mean(axis=1)
    np.testing.assert_allclose(study.excess[0, 0, 0], expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("change", [tilted, opposite])
def test_loss_exceeds_its_floor_by_the_excess_risk(name: str, change: Callable[[Field], Any]) -> None:
    """Also where the loss weight is far from one: it belongs to the prior of the exact field."""
    study = compared(name, change)
    assert abs(z(study, TRAIN)) < 4
    assert study.excess[:, :, 0].mean() > 0


def test_a_wrong_exact_field_breaks_the_identity() -> None:
    for wrong in (tilted, opposite):
        assert abs(z(compared("blind velocity", same, wrong), TRAIN)) > 8


def test_the_identity_is_that_of_the_laws_own_draws() -> None:
    """Six points say little of fifty others: on these their exact field is no optimum."""
    assert abs(z(compared("blind velocity", opposite), HELD_OUT)) > 8
    assert summarise(compared("blind velocity", same)).own == ((0, 0),)


def test_draws_are_those_of_training() -> None:
    choice = system("blind signal, weighted")
    num = 64 * len(POINTS)
    one, other = (measurement.draw(choice, FiniteSet(x), Options(RUN, num=num)) for x in (POINTS, OTHERS))
    counts = (one.target[:, None] == POINTS).all(-1).sum(axis=0)
    assert counts.tolist() == [64] * len(POINTS), "every point equally often"
    np.testing.assert_array_equal(one.t, other.t)
    assert (np.diff(one.t) > 0).all()
    eps, other_eps = ((d.u - d.target) / d.noise[:, None] for d in (one, other))
    np.testing.assert_allclose(eps, other_eps, atol=1e-2)
    np.testing.assert_allclose(one.weight, one.noise**-2 + 0.56**-2, rtol=1e-5)


def test_standard_errors_are_those_of_stratified_draws() -> None:
    """The scatter of repeated means; the trend with the noise level is no part of it."""
    rng = np.random.default_rng(0)
    t = np.linspace(0, 10, 256)
    repeats = t + rng.normal(size=(2000, 256)) * (1 + t)
    mean, error = estimate(repeats)
    assert mean.std() == pytest.approx(np.sqrt((error**2).mean()), rel=0.08)
    in_bins = estimate(repeats, 4)
    assert in_bins.mean.shape == (2000, 4)
    np.testing.assert_allclose(in_bins.mean.mean(-1), mean)
    np.testing.assert_allclose(np.sqrt((in_bins.error**2).sum(-1)) / 4, error)


def test_checkpoints_are_spread_geometrically() -> None:
    assert measurement.spread(range(1025), 6) == [1, 4, 16, 64, 256, 1024]
    assert measurement.spread([250, 500, 750, 1000], 3) == [250, 500, 1000]
    assert measurement.spread([20], 5) == [20]
    with pytest.raises(ValueError, match="there is none after the first update"):
        measurement.spread([0], 5)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[ConfigDict, Path]:
    """A run with classes, which the study asks for the prediction without a label."""
    changes: dict[str, Any] = {"model__label_dropout": 0.5, "model__kwargs__dropout": 0.0, "training__num_steps": 80}
    rate: dict[str, Any] = {"optimizer__learning_rate": 1e-2, "optimizer__warmup_steps": 1}
    choice = circles(tmp_path_factory.mktemp("data"), "flow_matching,blind", checkpoint__keep=9, **changes, **rate)
    folder = tmp_path_factory.mktemp("run")
    train(choice, folder)
    return choice, folder


# The batch size does not divide the number of draws.
SMALL = Options(RUN, num=256, batch_size=96, checkpoints=3)


@pytest.fixture(scope="module")
def study(finished: tuple[ConfigDict, Path], tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A study of that run."""
    out = tmp_path_factory.mktemp("out") / "new" / "study.v1"
    text = runner.run("excess_risk", out, dataclasses.replace(SMALL, workdir=finished[1]))
    with np.load(out.with_name("study.v1.npz")) as arrays:
        return text, dict(arrays), out


def test_a_run_approaches_the_population(study: Written) -> None:
    text, arrays, _ = study
    assert arrays["steps"].tolist() == [0, 20, 40, 80]
    assert arrays["laws"].tolist() == [POPULATION, TRAINING_SET]
    excess = arrays["mean_excess"][:, 0, 1]
    assert (excess[1:] < 0.6 * excess[0]).all()
    np.testing.assert_allclose(arrays["excess"].mean(-1), arrays["mean_excess"])
    for words in ("circles: Linear schedule, Velocity target, blind", "excess, population *", "by noise level"):
        assert words in text
    assert "agree at every step" in text


def test_an_untrained_network_is_zero_here(study: Written, finished: Any) -> None:
    """So that its excess risk is the size of the exact field, and its loss that of the target."""
    choice, folder = finished
    arrays = study[1]
    law = FiniteSet(build.arrays(choice, "test").events)
    draws = measurement.draw(choice, law, SMALL)
    best = build.marginal(choice, build.distribution(choice)).field(jnp.asarray(draws.u))
    np.testing.assert_allclose(arrays["excess"][0, 0, 1], (np.asarray(best) ** 2).mean(axis=1), rtol=1e-3)
    np.testing.assert_allclose(arrays["loss"][0, 1], (draws.target**2).mean(axis=1), rtol=1e-5)
    fresh = fresh_field(folder, sampling_mesh())
    jax.tree.map(np.testing.assert_array_equal, fresh.field.params, prepare(choice, folder).init().params)
    assert fresh.step == 0


def test_the_picture_is_written(study: Written) -> None:
    out = study[2]
    assert sorted(path.name for path in out.parent.iterdir()) == [
        f"study.v1.{each}" for each in ("json", "npz", "png", "svg")
    ]
    assert out.with_name("study.v1.png").read_bytes().startswith(b"\x89PNG")


def test_laws_of_a_data_set_without_a_known_population(finished: tuple[ConfigDict, Path]) -> None:
    digits = config.load("configs/digits.py")
    config.override(digits, [("data.data_dir", str(finished[0].data.data_dir))])
    known, points = laws(digits)
    assert list(known) == [TRAINING_SET]
    assert known[TRAINING_SET] is points
    known, points = laws(finished[0])
    assert isinstance(known[POPULATION], Circles)
    assert known[TRAINING_SET] is points
    assert points.num_points == 200


def test_checkpoints_one_by_one(finished: tuple[ConfigDict, Path]) -> None:
    _, folder = finished
    mesh = sampling_mesh()
    assert saved_steps(folder) == [20, 40, 60, 80]
    early, late = (restore(folder, mesh=mesh, step=step) for step in (20, 80))
    assert (early.step, late.step) == (20, 80)
    latest = restore(folder, mesh=mesh)
    jax.tree.map(np.testing.assert_array_equal, late.field.params, latest.field.params)
    with pytest.raises(AssertionError):
        jax.tree.map(np.testing.assert_array_equal, early.field.params, late.field.params)
    with pytest.raises(ValueError, match=r"no checkpoint of step 30, but of \[20, 40, 60, 80\]"):
        restore(folder, mesh=mesh, step=30)


def summary_of(gap: float, excess: float = 0.2, cross: float = 0.0) -> Summary:
    """A study with these means, whose standard errors are 0.01."""

    def means(*shape: int, value: float) -> Estimate:
        return Estimate(np.full(shape, value), np.full(shape, 0.01))

    terms = {"gap": gap, "excess": excess, "cross": cross}
    return Summary(
        title="made up",
        steps=np.asarray([0, 5]),
        laws=(TRAINING_SET,),
        splits=(TRAIN, HELD_OUT),
        num=32,
        own=((0, 0),),
        loss=means(2, 2, value=1.0),
        floor=means(1, 2, value=0.8),
        **{name: means(2, 1, 2, value=value) for name, value in terms.items()},
        level_t=np.ones((1, 2)),
        level_noise=np.ones((1, 2)),
        level_floor=means(1, 2, 1, value=0.8),
        level_excess=means(1, 2, 1, value=excess),
    )


def findings_of(*means: float, **others: float) -> list[str]:
    return report.findings(summary_of(*means, **others))


@pytest.mark.parametrize(
    ("gap", "cross", "outcomes"),
    [
        (-0.2, 0.0, ("holds", "does not hold")),
        (0.04, -0.09, ("does not hold", "holds")),
        (0.08, 0.0, ("holds", "cannot be told")),
    ],
)
def test_verdicts_of_means(
    gap: float, cross: float, outcomes: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network is that of its training points if its loss on held-out draws is within a tenth of theirs, 0.8."""
    made: Any = summary_of(gap, cross=cross)
    monkeypatch.setattr(report, "summarise", lambda study: study)
    found = report.verdicts(made)
    assert tuple(each.outcome for each in found) == outcomes
    assert found[1].value == pytest.approx(gap / 0.8)
    assert found[1].condition == "made up, held out draws, step 5"
    assert found[1].high - found[1].value == pytest.approx(1.96 * 0.01 / 0.8)


@pytest.mark.parametrize(
    ("gap", "words"),
    [(-0.2, "is better than"), (0.2, "is worse than"), (0.01, "cannot be told apart from")],
)
def test_memory_is_told_from_generalisation_by_held_out_loss(gap: float, words: str) -> None:
    said = findings_of(gap)[-1]
    assert f"On held-out draws the network {words} the exact field of the training points" in said
    assert ("does not become the field of its training points" in said) == (gap < -0.1)


def test_findings_have_errors() -> None:
    approach, memory = findings_of(-0.2)
    assert "went from 0.200 +- 0.010 before training to 0.200 +- 0.010 after 5 steps" in approach
    assert "differ by -0.200 +- 0.010, and their fields by 0.200 +- 0.010" in memory


def test_findings_say_whether_the_identity_holds() -> None:
    assert "excess and gap agree at every step (|z| <= 0.0)" in findings_of(0.2)[0]
    assert "excess and gap DISAGREE at every step (|z| <= 9.0)" in findings_of(0.2, cross=-0.09)[0]


REFUSED: list[tuple[Callable[[], Any], str]] = [
    (lambda: Options(RUN, num=100), "num = 100: must be a positive multiple of 32"),
    (lambda: Options(RUN, num=0), "num = 0: must be an integer >= 1"),
    (lambda: Options(RUN, checkpoints=1), "checkpoints = 1: must be an integer >= 2"),
    (lambda: Options(RUN, batch_size=0), "batch_size = 0: must be an integer >= 1"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_options_are_checked(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_bad_input(finished: tuple[ConfigDict, Path], tmp_path: Path) -> None:
    choice, folder = finished
    with pytest.raises(ValueError, match="no such folder"):
        excess_risk.measure(Options(tmp_path / "none"))
    for split, shared, num in (("train", 200, 200), ("train[:50%]", 100, 100), ("train[190:]+test", 10, 30)):
        said = f"held_out = {split!r}: {shared} of its {num} points are points of the training split"
        with pytest.raises(ValueError, match=re.escape(said)):
            excess_risk.measure(Options(folder, held_out=split))
    only_files = tmp_path / "run"
    only_files.mkdir()
    for name in ("config.json", "data.json"):
        (only_files / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(ValueError, match="has no checkpoint yet"):
        excess_risk.measure(Options(only_files))
    labelled = config.loads(config.dumps(choice))
    config.override(labelled, [("model.label_dropout", "0.0")])
    (only_files / "config.json").write_text(config.dumps(labelled))
    with pytest.raises(ValueError, match="model.label_dropout = 0: the network has no prediction without a label"):
        excess_risk.measure(Options(only_files))


def test_damaged_checkpoints_are_left_out(
    finished: tuple[ConfigDict, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(finished[1], tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "40" / "meta")
    with caplog.at_level(logging.WARNING, logger="geonoise_jax"):
        study = excess_risk.measure(dataclasses.replace(SMALL, workdir=tmp_path / "run"))
    assert study.steps.tolist() == [0, 20, 80]
    assert "checkpoint 40 is damaged" in caplog.text
    for step in ("20", "80"):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / step / "meta")
    with pytest.raises(ValueError, match=r"none of the checkpoints \[20, 40, 80\] can be read"):
        excess_risk.measure(dataclasses.replace(SMALL, workdir=tmp_path / "run"))
