"""A run that begins with the parameters of another: what is taken, what is fresh, what is refused."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax import build, config
from geonoise_jax.build import train
from geonoise_jax.cli import _initial
from geonoise_jax.config import ConfigDict
from geonoise_jax.errors import UserError
from geonoise_jax.training.checkpoint import Checkpoints
from geonoise_jax.training.initial import InitFrom, started_from
from geonoise_jax.training.state import TrainState
from geonoise_jax.training.train import initial_state
from geonoise_jax.training.train import train as train_run
from tests.training_runs import circles, final_state, prepare


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def learnt(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ConfigDict]:
    """A run with checkpoints of steps 20, 40 and 60."""
    folder, choice = tmp_path_factory.mktemp("learnt") / "run", circles(data_dir)
    train(choice, folder)
    return folder, choice


def other(learnt: tuple[Path, ConfigDict], data_dir: Path, **overrides: Any) -> ConfigDict:
    return circles(data_dir, **{"init_from.workdir": learnt[0], "optimizer.learning_rate": 2e-3, **overrides})


def begun(choice: ConfigDict, folder: Path) -> TrainState:
    folder.mkdir(exist_ok=True)
    checkpoints = Checkpoints(folder)
    try:
        return initial_state(prepare(choice, folder), checkpoints)
    finally:
        checkpoints.close()


def assert_equal(one: Any, two: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, one, two)


def test_averages_begin_parameters_and_averages_and_nothing_else(
    learnt: tuple[Path, ConfigDict], data_dir: Path, tmp_path: Path
) -> None:
    there, fresh = final_state(learnt[1], learnt[0]), prepare(learnt[1], tmp_path).init()
    state = begun(other(learnt, data_dir), tmp_path / "run")
    assert_equal(state.params, there.ema_params)
    assert_equal(state.ema_params, there.ema_params)
    assert int(state.step) == 0
    assert_equal(jax.tree.leaves(state.opt_state), jax.tree.leaves(fresh.opt_state))


@pytest.mark.parametrize(("params", "name"), [("ema", "ema_params"), ("raw", "params")])
def test_step_and_kind_of_parameters_can_be_chosen(
    learnt: tuple[Path, ConfigDict], data_dir: Path, tmp_path: Path, params: str, name: str
) -> None:
    choice = other(learnt, data_dir, **{"init_from.step": 40, "init_from.params": params})
    checkpoints = Checkpoints(learnt[0], read_only=True)
    abstract = prepare(learnt[1], tmp_path).abstract
    read = checkpoints.restore_ema if params == "ema" else checkpoints.restore_raw
    _, wanted = read(getattr(abstract, name), 40)
    checkpoints.close()
    assert_equal(begun(choice, tmp_path / "run").params, wanted)


def test_a_run_that_goes_on_does_not_begin_again_and_does_not_need_the_other(
    learnt: tuple[Path, ConfigDict], data_dir: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(learnt[0], copy)
    choice = other((copy, learnt[1]), data_dir, **{"training.num_steps": 20})
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(config.override(choice, [("training.num_steps", "40")]), whole)
    train(choice, parts)
    shutil.rmtree(copy)
    train(config.override(choice, [("training.num_steps", "40")]), parts)
    assert_equal(final_state(choice, whole), final_state(choice, parts))


def test_what_does_not_fit_is_fresh_and_named(learnt: tuple[Path, ConfigDict], data_dir: Path, tmp_path: Path) -> None:
    choice = other(learnt, data_dir, **{"model.kwargs.depth": 2, "model.class_conditional": False})
    setup = prepare(choice, tmp_path)
    fresh = setup.init()
    state, report = started_from(setup.init(), InitFrom(learnt[0]))
    assert report.step == 60
    assert report.taken
    assert report.fresh
    assert report.unused  # the embedding of classes
    assert all(name in str(report) for name in report.unused)
    leaves = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(fresh.params)}
    changed = [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.params)
        if not jnp.array_equal(leaf, leaves[jax.tree_util.keystr(path)])
    ]
    assert len(changed) == len(report.taken)


def test_what_was_taken_is_logged(
    learnt: tuple[Path, ConfigDict], data_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        begun(other(learnt, data_dir), tmp_path / "run")
    said = [record.getMessage() for record in caplog.records if "parameters (ema) from" in record.getMessage()]
    assert len(said) == 1
    assert "arrays of step 60" in said[0]


def test_a_run_of_own_objects_begins_with_another_too(learnt: tuple[Path, ConfigDict], tmp_path: Path) -> None:
    start = build.run(learnt[1])
    run = dataclasses.replace(
        start, init_from=InitFrom(learnt[0]), budget=dataclasses.replace(start.budget, num_steps=1)
    )
    train_run(run, tmp_path / "run")
    with pytest.raises(UserError, match="init_from: "):
        train_run(dataclasses.replace(run, init_from=None), tmp_path / "run")


def test_another_origin_is_another_run(learnt: tuple[Path, ConfigDict], data_dir: Path, tmp_path: Path) -> None:
    choice = other(learnt, data_dir, **{"training.num_steps": 1})
    train(choice, tmp_path / "run")
    with pytest.raises(UserError, match=r"init_from\.step: -1 there, 40 now"):
        train(config.override(choice, [("init_from.step", "40")]), tmp_path / "run")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"init_from.step": 7}, "init_from: workdir = .*no checkpoint of step 7"),
        ({"init_from.step": -2}, r"init_from\.step = -2: must be"),
        ({"init_from.params": "best"}, r"init_from\.params = 'best': must be 'ema' or 'raw'"),
        ({"init_from.workdir": "nowhere"}, "init_from: workdir = .*has no checkpoint yet"),
        ({"init_from.workdir": "", "init_from.step": 3}, r"init_from\.step = 3: has no effect"),
        (
            {"model.kwargs.width": 5, "data.kwargs.dim": 4, "model.class_conditional": False},
            "no array fits this network",
        ),
    ],
)
def test_what_cannot_begin_a_run_is_refused(
    learnt: tuple[Path, ConfigDict], data_dir: Path, tmp_path: Path, overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        begun(other(learnt, data_dir, **overrides), tmp_path / "run")


@pytest.mark.parametrize(
    ("text", "folder", "step"),
    [("run", "run", "-1"), ("run:40", "run", "40"), ("a:b", "a:b", "-1"), ("there:3", "there:3", "-1")],
)
def test_words_of_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, folder: str, step: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there:3").mkdir()
    assert _initial(text) == [("init_from.workdir", str(tmp_path / folder)), ("init_from.step", step)]
    assert _initial(None) == []
