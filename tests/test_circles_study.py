"""Small networks on circles: configs, numbers of made-up samples, verdicts; a run goes on where it was stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geonoise_jax.drawing.outputs import rendered
from geonoise_jax.evaluation.floors import Distance
from geonoise_jax.evaluation.point_metrics import SlicedWasserstein
from geonoise_jax.exact import Circles
from geonoise_jax.studies import circles
from geonoise_jax.studies.circles import models, report
from geonoise_jax.studies.circles.models import BLIND, CONDITIONAL, SYSTEMS, Model
from geonoise_jax.studies.circles.study import Measured, Options, Result, Study, _measured, ratio
from geonoise_jax.studies.verdicts import Outcome

TINY: dict[str, Any] = {"dims": (2,), "systems": ("flow_matching",), "seeds": 2, "steps": 4, "num": 24, "width": 8}


def on_circles(num: int, seed: int, off: float = 0.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    angle, radius = random.uniform(0, 2 * np.pi, num), np.where(np.arange(num) % 4 == 0, 1.0, 2.0) + off
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), np.zeros(num)], axis=1)


def test_numbers_of_samples_at_a_known_distance() -> None:
    law = Circles((1.0, 2.0), frame=np.eye(3)[:, :2])
    sets = np.stack([on_circles(400, 0, 0.1), on_circles(400, 1)])
    sets[1, 0] = np.nan
    found = _measured(sets, law, SlicedWasserstein(on_circles(400, 2)))
    np.testing.assert_allclose(found.median, [0.1, 0.0], atol=1e-6)
    np.testing.assert_allclose(found.q90, [0.1, 0.0], atol=1e-6)
    assert found.not_finite.tolist() == [0, 1]
    assert found.sliced[0] < 0.2 < found.sliced[1] == np.inf
    assert found.inner == pytest.approx([0.25, 99 / 399])
    sets[1, ::2] = np.nan
    assert _measured(sets, law, SlicedWasserstein(on_circles(400, 2))).q90[1] == np.inf


def made_up(ratios: dict[str, float], twin: float = 0.05) -> Study:
    """A study in which each blind model is so many times as far from the circles as its twin, up to 1%."""
    options = Options(dims=(2, 8), seeds=3)
    results = []
    for model in models.models(options.dims, options.systems):
        factor = ratios.get(model.system, 1.0) if model.conditioning == BLIND else 1.0
        q90 = twin * factor * np.array([0.99, 1.0, 1.01] if model.conditioning == BLIND else [1.0] * 3)
        numbers = Measured(q90 / 2, q90, q90, np.full(3, 0.5), np.zeros(3))
        one = Measured(*(each[:1] for each in numbers))
        points = on_circles(50, 0)[:, :2]
        blind = model.conditioning == BLIND
        exact = (one, points) if blind else (None, None)
        results.append(Result(model, numbers, exact[0], np.ones(3), points, exact[1]))
    return Study(options, tuple(results), {dim: Distance(0.05, 0.01) for dim in options.dims})


def test_verdicts_follow_the_ratio_to_the_twin() -> None:
    found = report.verdicts(made_up({"ddpm": 5.0, "flow_matching": 1.5, "edm": 2.0, "eqm": 3.0}))
    told = {each.claim.split(" samples")[0]: each.outcome for each in found}
    assert told == {
        "blind DDPM": Outcome.HOLDS,
        "blind flow matching": Outcome.HOLDS,
        "blind EDM": Outcome.UNTOLD,
        "blind EqM": Outcome.FAILS,
        "blind x-prediction": Outcome.HOLDS,
    }
    assert found[0].value == pytest.approx(5.0, rel=1e-3)
    assert found[0].low < 5.0 < found[0].high


def test_a_twin_that_has_not_learnt_leaves_it_untold() -> None:
    found = report.verdicts(made_up({"ddpm": 5.0}, twin=0.3))
    assert {each.outcome for each in found} == {Outcome.UNTOLD}
    assert "the twin itself is 0.3 from the circles" in found[0].condition


def test_a_blind_model_that_is_lost_does_not_sample_as_cleanly() -> None:
    study = made_up({"flow_matching": np.inf})
    assert (ratio(study, 2, "flow_matching") == np.inf).all()
    lost = next(each for each in report.verdicts(study) if "flow" in each.claim)
    assert lost.outcome is Outcome.FAILS
    assert "inf [" in report.table(study)
    assert rendered(report.picture(study)).size[0] > 1000


def test_table_page_and_arrays_have_every_model() -> None:
    study = made_up({"ddpm": 5.0})
    text = report.table(study)
    assert text.count("conditional  ") == 4 * len(SYSTEMS)
    assert "D=2: 0.050 +- 0.010" in text
    assert len(report.pages(study, rendered(report.picture(study)))[".md"].splitlines()) == 2 + 10 + 1 + 2 + 10
    found = report.arrays(study)
    assert found["q90"].shape == (20, 3)
    assert found["exact_q90"].shape == (10,)
    assert found["shown_exact"].shape == (10, 50, 2)


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("conditioning", [BLIND, CONDITIONAL])
def test_configs_are_those_of_the_systems(system: str, conditioning: str) -> None:
    chosen = models.config_of(Model(32, system, conditioning), 7, 16, 24, 2)
    run = models.run_of(chosen)
    assert (run.data.event_shape, run.budget.num_steps, run.budget.batch_size) == ((32,), 7, 16)
    assert run.blind == (conditioning == BLIND)
    law = models.law_of(chosen)
    points = models.of_data(law, 500, 0, 9)
    assert np.sqrt(np.mean(points**2)) == pytest.approx(chosen.data.sigma_data, rel=0.1)
    np.testing.assert_allclose(np.unique(np.linalg.norm(points, axis=1).round(3)), [1.0, 2.0])


def test_it_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = Options(**TINY, runs=tmp_path / "runs")
    real = models.trained
    made: list[bool] = []

    def stopped(*arguments: Any) -> Any:
        if made:
            raise KeyboardInterrupt
        made.append(arguments[0].model.blind)
        return real(*arguments)

    monkeypatch.setattr(models, "trained", stopped)
    with pytest.raises(KeyboardInterrupt):
        circles.measure(options)
    kept = {path.name: path.read_bytes() for path in (tmp_path / "runs").glob("*.npz")}
    assert len(kept) == 1
    monkeypatch.setattr(models, "trained", real)
    first = circles.measure(options)
    assert all((tmp_path / "runs" / name).read_bytes() == value for name, value in kept.items())
    monkeypatch.setattr(models, "trained", None)
    again = circles.measure(options)
    for one, other in zip(first.results, again.results, strict=True):
        np.testing.assert_array_equal(one.trained.q90, other.trained.q90)
    assert circles.table(first) == circles.table(again)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dims": (1,)}, "dims = 1: must be an integer >= 2"),
        ({"dims": (8, 2)}, r"dims = \(8, 2\): must be ascending"),
        ({"systems": ("score",)}, "systems = 'score'"),
        ({"seeds": 1}, "seeds = 1: must be an integer >= 2"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options(**options)
