"""Adaptive against fixed budgets of Equilibrium Matching: the comparison itself, and what it says of an exact field."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax.build import dataset, train
from geonoise_jax.data.arrays import Arrays
from geonoise_jax.drawing.outputs import rendered
from geonoise_jax.exact import FiniteSet
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import Linear
from geonoise_jax.process.targets import Equilibrium
from geonoise_jax.sampling.samplers import SAMPLERS
from geonoise_jax.studies import eqm_stop, runner
from geonoise_jax.studies.eqm_stop import DESCENTS, MIXED, NOISE, QUICK, Case, Options, Study, smallest_budget
from geonoise_jax.studies.ring import exact_field, ring
from geonoise_jax.studies.verdicts import Outcome
from tests.training_runs import circles


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return list(eqm_stop.measure(QUICK).cases)


def by(cases: list[Case], start: str) -> list[Case]:
    return [case for case in cases if case.start == start]


def test_the_adaptive_stop_saves_evaluations_at_the_same_distance(cases: list[Case]) -> None:
    assert [(case.start, case.sampler) for case in cases] == [(s, d) for d in DESCENTS for s in (MIXED, NOISE)]
    for case in cases:
        assert case.converged.all()
        chosen = np.quantile(case.distance[::2], 0.9)
        assert case.path[case.budget - 1] <= (1.0 + 1e-5) * chosen < case.path[case.budget - 2]
        judged = case.evaluations[1::2]
        assert case.saved == pytest.approx(1.0 - judged.mean() / case.budget)
        assert judged.mean() < case.budget <= case.evaluations.max()
        low, high = case.interval
        assert 0.0 < low < case.saved < high < low + 0.4
        assert case.fixed_distance.shape == judged.shape
        assert np.quantile(case.fixed_distance, 0.9) < 2.0 * np.quantile(case.distance[1::2], 0.9)
    for mixed, noise in zip(by(cases, MIXED), by(cases, NOISE), strict=True):
        assert mixed.evaluations.mean() / mixed.budget < noise.evaluations.mean() / noise.budget


def test_all_stop_where_the_field_is_small(cases: list[Case]) -> None:
    """Near a datum f = 20 (u - x), with g = 20 t there: |f| / sqrt(8) = tolerance is a distance."""
    edge = QUICK.tolerance * np.sqrt(8.0) / 20.0
    for case in cases:
        assert case.distance.max() < 1.02 * edge
        # One step ago none was there, and momentum makes steps longer; one sample of the mixed levels starts closer.
        assert case.distance[case.evaluations > 1].min() > 0.5 * edge


@pytest.mark.parametrize("name", [pytest.param("eqm_nesterov", marks=pytest.mark.slow), "eqm_nesterov_released"])
def test_paths_are_those_of_the_samplers(name: str) -> None:
    """Of which plain descent is the one without momentum."""
    points = ring(8)[0]
    field = exact_field(FiniteSet(points), Process(Linear(), Equilibrium("truncated")), blind=True)
    options = {"step_size": 0.01, "momentum": 0.6}
    u = jax.random.normal(jax.random.key(0), (4, 8))
    path = eqm_stop.fixed_path(field, jnp.asarray(points), u, name, 12, **options)
    end = jax.jit(functools.partial(SAMPLERS[name].run, max_steps=12, **options))(field, u).u
    np.testing.assert_allclose(path[-1], eqm_stop.nearest_distance(end, jnp.asarray(points)), rtol=1e-5)


def test_the_smallest_budget() -> None:
    distance = np.linspace(0.0, 1.0, 11)
    assert smallest_budget(np.array([3.0, 1.0, 0.9, 0.5]), distance) == 3
    assert smallest_budget(np.array([3.0, 1.0, 0.95]), distance) == 0
    assert smallest_budget(np.array([0.1]), distance) == 1


def times(num: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Paths that fall by a tenth a step from random heights, and stop at 1: distances, ends and evaluations."""
    heights = np.exp(np.random.default_rng(seed).uniform(0.5, 4.0, num))
    along = heights * 0.9 ** np.arange(1, 60)[:, None]
    evaluations = 1 + (along > 1.0).sum(0)
    return along, along[evaluations - 1, np.arange(num)], evaluations.astype(float)


def test_a_budget_is_not_chosen_on_the_samples_it_is_judged_on() -> None:
    along, ends, evaluations = times(64, 0)
    path, budget, at_budget, saved, interval = eqm_stop.judge(along, ends, evaluations, 0)
    assert eqm_stop.judge(along, ends, evaluations, 0)[-1] == interval
    slow = evaluations.copy()
    slow[1::2] += 7.0
    moved = along.copy()
    moved[:, 1::2] *= 50.0
    other = eqm_stop.judge(moved, ends, slow, 0)
    assert other[1] == budget
    np.testing.assert_array_equal(other[0], path)
    assert other[3] == pytest.approx(saved - 7.0 / budget)
    np.testing.assert_allclose(other[2], 50.0 * at_budget)


def test_the_interval_holds_the_saving_of_many_samples() -> None:
    """In 92% or more of the repetitions, of a nominal 95%: the budget is a quantile of few samples."""
    truth = saving(*times(20_000, 1))
    intervals = [eqm_stop.judge(*times(64, seed), seed)[4] for seed in range(2, 42)]
    assert sum(low <= truth <= high for low, high in intervals) >= 34
    assert np.mean([high - low for low, high in intervals]) < 0.3


def saving(along: np.ndarray, ends: np.ndarray, evaluations: np.ndarray) -> float:
    return 1.0 - evaluations.mean() / smallest_budget(np.quantile(along, 0.9, axis=1), ends)


def test_nearest_distances_are_exact_differences() -> None:
    points = np.random.default_rng(0).standard_normal((50, 2, 3)).astype(np.float32) + 10.0
    u = points[:20] + np.float32(1e-3)
    expected = np.linalg.norm((u - points[:20]).reshape(20, -1), axis=1)
    np.testing.assert_allclose(eqm_stop.nearest_distance(jnp.asarray(u), jnp.asarray(points)), expected, rtol=1e-5)


def test_it_is_written_and_the_same_again(cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(eqm_stop, "DESCENTS", DESCENTS[:1])
        again = eqm_stop.measure(QUICK).cases
    for one, other in zip(cases[: len(again)], again, strict=True):
        np.testing.assert_array_equal(one.evaluations, other.evaluations)
    monkeypatch.setattr(eqm_stop, "measure", lambda _: Study(QUICK, cases))
    text = runner.run("eqm_stop", tmp_path / "new" / "stop.v1", QUICK)
    assert (tmp_path / "new" / "stop.v1.png").read_bytes().startswith(b"\x89PNG")
    with np.load(tmp_path / "new" / "stop.v1.npz") as arrays:
        np.testing.assert_array_equal(arrays["interval"], [case.interval for case in cases])
        assert arrays["sampler"].tolist() == [case.sampler for case in cases]
        np.testing.assert_array_equal(arrays["budget"], [case.budget for case in cases])
        np.testing.assert_array_equal(arrays["path"][0, : len(cases[0].path)], cases[0].path)
    assert text.startswith(eqm_stop.table(Study(QUICK, cases)))
    assert [each.outcome for each in eqm_stop.verdicts(Study(QUICK, cases))] == [Outcome.HOLDS] * 2
    low, high = cases[0].interval
    assert text.splitlines()[7].endswith(f"{cases[0].saved:.0%}  {low:.0%} to {high:.0%}")


def test_a_budget_that_is_never_reached_is_said_so() -> None:
    n = np.full(10, 7.0)
    judged = eqm_stop.judge(np.full((1, 10), 9.0), n, n, 0)
    assert judged[1] == 0
    lost = Case("exact", "eqm_descent", NOISE, n, 0.0 * n, n, *judged)
    assert eqm_stop.table(Study(QUICK, [lost])).splitlines()[-1].split()[-1] == "none"
    assert rendered(eqm_stop.picture(Study(QUICK, [lost]))).format == "PNG"
    (untold,) = eqm_stop.verdicts(Study(QUICK, [lost]))
    assert untold.outcome is Outcome.UNTOLD
    assert np.isnan(untold.value)


@pytest.mark.slow
def test_a_trained_field_and_its_training_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"model.class_conditional": False, "training.num_steps": 20}
    folder = tmp_path / "run"
    train(circles(tmp_path / "data", "eqm,blind", **changes), folder)
    options = Options(workdir=folder, num=20, step_size=0.01, tolerance=0.0, max_steps=5)
    cases = eqm_stop.measure(options).cases
    assert {case.field for case in cases} == {"circles, step 20"}
    # Without a tolerance no sample settles: each takes what is the fixed budget, and ends at the same place.
    for case in cases:
        np.testing.assert_array_equal(case.evaluations, 5.0)
        assert not case.converged.any()
        assert case.path[4:] == pytest.approx([np.quantile(case.distance[::2], 0.9)])
    # Distances are those of model space, whatever the stored values are.
    stored = Arrays(events=np.array([[0, 8, 16]], np.uint8), center=8.0, scale=0.125)
    monkeypatch.setattr(dataset, "arrays", lambda *_: stored)
    ((_, _, points),) = eqm_stop._fields(options)
    np.testing.assert_array_equal(points, [[-1.0, 0.0, 1.0]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dims": ()}, "dims = .*: must be a tuple of one or more values"),
        ({"dims": (1,)}, "dims = 1: must be an integer >= 2"),
        ({"num": 19}, "num = 19: must be an integer >= 20"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options(**options)
