"""Evaluations inside a run: what they measure, resumed runs that have the same lines, and the best checkpoint kept."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from geonoise_jax import build
from geonoise_jax.config import ConfigDict
from geonoise_jax.data import Arrays
from geonoise_jax.evaluation import Options, draw, evaluate, saved_steps, train, watch
from geonoise_jax.evaluation.best import directions
from geonoise_jax.evaluation.metrics.table import METRICS
from geonoise_jax.evaluation.restore import restore
from geonoise_jax.evaluation.watching import Watch, of_config
from geonoise_jax.training import train as training
from geonoise_jax.training import watched
from geonoise_jax.training.losses import Draws
from geonoise_jax.training.watched import Best, NewestAndBest, missing
from tests.command_line import run
from tests.own_run import own_run
from tests.training_runs import assert_same_run, circles, metrics_of

NAMES = ("sliced_wasserstein", "manifold")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def choice(data_dir: Path, **overrides: Any) -> ConfigDict:
    small = {"training__evaluate_every": 20, "evaluation__num": 48, "evaluation__metrics": NAMES}
    small |= {"data__kwargs__num_test": 100, "sampling__num_steps": 4, "sampling__batch_size": 48}
    small |= {"optimizer__decay": "constant"}
    return circles(data_dir, **{**small, "checkpoint__keep": 1, "checkpoint__keep_best": "loss", **overrides})


@pytest.fixture(scope="module")
def whole(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(choice(data_dir), folder)
    return folder


def evaluations(folder: Path) -> dict[int, dict[str, float]]:
    """The numbers of evaluations by step."""
    lines = [line for line in metrics_of(folder) if any(name.startswith("held_out/") for name in line)]
    found = {
        line.pop("step"): {name.removeprefix("held_out/"): value for name, value in line.items()} for line in lines
    }
    assert len(found) == len(lines), "a step was evaluated twice"
    return found


def test_a_run_evaluates_itself(whole: Path) -> None:
    found = evaluations(whole)
    assert list(found) == [20, 40, 60]
    quarters = {f"loss_quarter{number}" for number in (1, 2, 3, 4)}
    of_metrics = {f"{name}{part}" for name in NAMES for part in ("", "_spread", "_floor", "_floor_spread")}
    for one in found.values():
        assert set(one) == {"loss", "loss_error"} | quarters | of_metrics
        assert one["loss"] == pytest.approx(np.mean([one[name] for name in quarters]))
        assert one["sliced_wasserstein"] > one["sliced_wasserstein_floor"] > 0
    assert found[60]["loss"] < found[20]["loss"]
    assert len({one["sliced_wasserstein_floor"] for one in found.values()}) == 1


def test_the_loss_is_the_expected_one_by_noise_level(data_dir: Path) -> None:
    """Of a network whose loss is its noise level: the mean over quarters of the time law, lowest first."""
    made = build.run(choice(data_dir))
    looks = of_config(choice(data_dir), made.data)

    class Level:
        def draw(self, *arguments: Any) -> Draws:
            return made.goal().draw(*arguments)

        def per_sample(self, _: Any, draws: Draws) -> Any:
            return draws.t

    setup = training.prepare(made, Path("unused"))
    run_of_levels: Any = _Altered(made, Level())
    found = looks.measure(run_of_levels, setup.init().ema_params, setup.mesh)
    low, high = made.process.schedule.t_min, made.process.schedule.t_max
    for number in range(4):
        expected = low + (high - low) * (number + 0.5) / 4
        assert found[f"held_out/loss_quarter{number + 1}"] == pytest.approx(expected, abs=2e-3)


class _Altered:
    """A run with another objective."""

    def __init__(self, made: Any, goal: Any) -> None:
        self._made, self._goal = made, goal

    def goal(self) -> Any:
        return self._goal

    def __getattr__(self, name: str) -> Any:
        return getattr(self._made, name)


def test_the_loss_is_that_of_an_optimum_on_its_data(data_dir: Path) -> None:
    """Pairs of items and noise levels are the same at every call, and items do not go with noise levels."""
    made = build.run(choice(data_dir))
    looks = of_config(choice(data_dir), made.data)
    one, two = (looks._draws(made, 32) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, one, two)
    t = np.concatenate([each.t for each in one])
    x = np.concatenate([each.x for each in one])
    assert len(t) == 1024
    radius = np.linalg.norm(x, axis=1)
    assert abs(np.corrcoef(t, radius)[0, 1]) < 0.15
    # Each batch has the whole range of noise levels.
    assert all(np.ptp(each.t) > 0.9 for each in one)


def test_what_is_not_finite_is_counted(data_dir: Path) -> None:
    made = build.run(choice(data_dir))
    looks = of_config(choice(data_dir), made.data)
    setup = training.prepare(made, Path("unused"))
    broken = jax.tree.map(lambda leaf: leaf * np.nan, setup.init().ema_params)
    assert looks.measure(made, broken, setup.mesh) == {"held_out/not_finite": 48.0}


@pytest.mark.parametrize("lost", ["evaluation", "all after 20"])
def test_killed_between_checkpoint_and_evaluation_it_is_made_up(
    lost: str, whole: Path, data_dir: Path, tmp_path: Path
) -> None:
    """As a kill leaves the workdir: the checkpoint is there, the line is not."""
    folder = Path(shutil.copytree(whole, tmp_path / "killed"))
    log = folder / "metrics.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    last = next(at for at, line in enumerate(lines) if json.loads(line)["step"] == 60 and "held_out/loss" in line)
    if lost == "evaluation":
        log.write_text("".join(lines[:last]))
    else:
        # In the middle of the line.
        log.write_text("".join(lines[:last]) + lines[last][:30])
    assert training.finished(folder, build.run(choice(data_dir)).budget, build.sampling(choice(data_dir)), 20) is None
    train(choice(data_dir), folder)
    assert metrics_of(folder) == metrics_of(whole)


def test_stopped_and_resumed_it_has_the_same_lines_and_the_same_best(
    whole: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = Watch.measure
    for crash in (40, 60):
        with monkeypatch.context() as patch:

            def dying(self: Watch, made: Any, params: Any, mesh: Any, crash: int = crash) -> Any:
                if max(saved_steps(tmp_path / "run")) == crash:
                    raise KeyboardInterrupt
                return measure(self, made, params, mesh)

            patch.setattr(Watch, "measure", dying)
            with pytest.raises(KeyboardInterrupt):
                train(choice(data_dir), tmp_path / "run")
    train(choice(data_dir), tmp_path / "run")
    assert_same_run(choice(data_dir), whole, tmp_path / "run")
    assert saved_steps(tmp_path / "run") == saved_steps(whole)


def test_a_finished_run_does_nothing(whole: Path, data_dir: Path) -> None:
    before = (whole / "metrics.jsonl").read_bytes()
    assert train(choice(data_dir), whole).first == 60
    assert (whole / "metrics.jsonl").read_bytes() == before


def relined(folder: Path, name: str, values: dict[int, float]) -> None:
    """Write other values of an evaluation into the metrics."""
    log = folder / "metrics.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for line in lines:
        if name in line:
            line[name] = values[line["step"]]
    log.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def test_the_best_is_kept_beside_the_newest_and_found(data_dir: Path, tmp_path: Path) -> None:
    """Step 20 is made the best; it outlives later ones, across a resumption."""
    folder = tmp_path / "run"
    train(choice(data_dir, training__num_steps=20), folder)
    relined(folder, "held_out/loss", {20: 1e-6})
    train(choice(data_dir), folder)
    assert saved_steps(folder) == [20, 60]
    assert restore(folder, step="best").step == 20
    with_draw = draw.Options(step="best", num=4)
    draw.draw(folder, tmp_path / "samples", with_draw)
    assert np.load(tmp_path / "samples.npz")["step"] == 20
    found = evaluate(folder, Options(metrics=("manifold",), num=40, step="best"))
    assert [one["step"] for one in found.records] == [20]
    # By another number another one is.
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"keep_best": "loss"', '"keep_best": "manifold"'))
    relined(folder, "held_out/manifold", {20: 3.0, 40: 1.0, 60: 2.0})
    assert restore(folder, step="best").step == 60, "40 has no checkpoint"


def test_without_keep_best_the_newest_alone_are_kept(data_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(choice(data_dir, training__num_steps=20, checkpoint__keep_best=""), folder)
    relined(folder, "held_out/loss", {20: 1e-6})
    train(choice(data_dir, checkpoint__keep_best=""), folder)
    assert saved_steps(folder) == [60]
    with pytest.raises(ValueError, match=r"step = 'best': .* was trained without checkpoint.keep_best.*\[60\]"):
        restore(folder, step="best")
    with pytest.raises(ValueError, match="step = 'first': must be a number of updates, or best"):
        restore(folder, step="first")


@pytest.mark.parametrize(("better", "step"), [(watched.LOWER, 1), (watched.HIGHER, 3), (watched.ZERO, 2)])
def test_the_best_by_each_direction(better: str, step: int, tmp_path: Path) -> None:
    values = {1: -5.0, 2: 0.5, 3: 4.0, 4: 0.5}
    lines = [{"step": at, "held_out/a": value} for at, value in values.items()] + [{"step": 5, "loss": 0.1}]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    best = Best("a", better)
    assert best.step(tmp_path, [1, 2, 3, 4, 5]) == step
    assert best.step(tmp_path, [4]) == 4
    assert best.step(tmp_path, [5]) is None
    assert Best("b").step(tmp_path, [1]) is None
    assert best.step(tmp_path / "none", [1]) is None
    with pytest.raises(ValueError, match="better = 'best'"):
        Best("a", "best")


def test_the_policy_keeps_the_newest_and_the_best() -> None:
    @dataclasses.dataclass
    class Info:
        step: int

    infos = [Info(step) for step in (1, 2, 3, 4)]
    chosen = {1: [True, False, True, True], 4: [False, False, True, True], None: [False, False, True, True]}
    for best, kept in chosen.items():

        def best_of(steps: Sequence[int], best: int | None = best) -> int | None:
            assert list(steps) == [1, 2, 3, 4]
            return best

        assert NewestAndBest(2, best_of).should_preserve(infos, context=None) == kept


def test_directions_are_those_of_the_values(whole: Path) -> None:
    """The table says beforehand what each value says of itself."""
    found = evaluate(whole, Options(metrics=(*NAMES, "energy_distance", "two_sample", "modes"), num=48))
    assert all(METRICS[one["metric"]].better == one["better"] for one in found.records)
    assert directions(("spectrum", "precision_recall")) == {
        "loss": "lower",
        "spectrum": "nearer to zero",
        "precision": "higher",
        "recall": "higher",
    }


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"training__evaluate_every": 0},
            "checkpoint.keep_best = 'loss': has no effect with training.evaluate_every = 0",
        ),
        ({"training__evaluate_every": -1}, "training.evaluate_every = -1: must be an integer >= "),
        ({"training__evaluate_every": 30}, "must be a multiple of checkpoint.every = 20 with checkpoint.keep_best"),
        ({"checkpoint__keep_best": "los"}, "checkpoint.keep_best = 'los': unknown; did you mean 'loss'"),
        ({"checkpoint__keep_best": "modes"}, "checkpoint.keep_best = 'modes': "),
        ({"evaluation__metrics": ("manifolds",)}, "evaluation.metrics = 'manifolds': unknown; did you mean 'manifold'"),
        ({"evaluation__metrics": ("kid",)}, "evaluation.metrics = kid: is too slow while a run trains"),
        ({"evaluation__metrics": ("spectrum",)}, "evaluation.metrics = spectrum: is of images"),
        ({"evaluation__num": 10}, "evaluation.num = 10: must be an integer >= 40"),
        ({"evaluation__held_out": "train"}, "are points of the training split"),
        ({"evaluation__held_out": "validation"}, "validation"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_before_training(
    overrides: dict[str, Any], message: str, data_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        train(choice(data_dir, **overrides), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_build_alone_does_not_leave_evaluations_out_silently(data_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="training.evaluate_every = 20: must be 0 here; evaluation.train"):
        build.train(choice(data_dir), tmp_path / "run")


def test_a_run_of_own_objects_is_watched(tmp_path: Path) -> None:
    points = np.random.default_rng(1).standard_normal((80, 2)).astype(np.float32)
    data = own_run().data
    looks = watch(data, Arrays(events=points, split="held out"), every=5, num=40, keep_best="sliced_wasserstein")
    training.train(own_run(watch=looks), tmp_path / "own")
    assert list(evaluations(tmp_path / "own")) == [5, 10]
    training.train(own_run(), tmp_path / "own")


def test_the_command_line_trains_and_finds_the_best(data_dir: Path, tmp_path: Path) -> None:
    words = [f"--config.{key}={value}" for key, value in flat(choice(data_dir)).items()]
    ended = run(
        "train", "--config=configs/circles.py:flow_matching,conditional", *words, f"--workdir={tmp_path / 'run'}"
    )
    assert ended.status == 0, ended.err
    assert list(evaluations(tmp_path / "run")) == [20, 40]
    ended = run("sample", f"--workdir={tmp_path / 'run'}", "--step=best", "--num=4")
    assert ended.status == 0, ended.err
    ended = run("sample", f"--workdir={tmp_path / 'run'}", "--step=worst", "--num=4")
    assert (ended.status, ended.err) == (2, "geonoise sample: step = 'worst': must be a number of updates, or best\n")


def flat(made: ConfigDict) -> dict[str, Any]:
    keys = [
        *("data.data_dir", "data.kwargs.dim", "data.kwargs.num_train", "data.kwargs.num_test", "model.kwargs.width"),
        *("model.kwargs.depth", "training.batch_size", "checkpoint.every", "checkpoint.keep_best", "evaluation.num"),
        *("training.evaluate_every", "sampling.every", "sampling.num_steps", "evaluation.metrics"),
    ]
    found: dict[str, Any] = {}
    for key in keys:
        node: Any = made
        for part in key.split("."):
            node = node[part]
        found[key] = node
    return {**found, "training.num_steps": 40}


def test_missing_is_due_and_not_there(tmp_path: Path) -> None:
    assert not missing(tmp_path, 0, 20)
    assert not missing(tmp_path, 20, 0)
    assert not missing(tmp_path, 20, 30)
    assert missing(tmp_path, 20, 40)
    (tmp_path / "metrics.jsonl").write_text('{"step": 40, "loss": 1.0}\n')
    assert missing(tmp_path, 20, 40)
    (tmp_path / "metrics.jsonl").write_text('{"step": 40, "held_out/loss": 1.0}\n')
    assert not missing(tmp_path, 20, 40)
