"""Training on sets that are read as needed: the same run as in memory, and one clear error where a file is damaged."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from geonoise_jax import build
from geonoise_jax.build import train
from geonoise_jax.config import ConfigDict
from geonoise_jax.data import memory
from geonoise_jax.data.pipeline import Pipeline
from geonoise_jax.errors import UserError
from geonoise_jax.training.checkpoint import Checkpoints
from tests.training_runs import assert_same_run, circles, prepare


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def of_npy(folder: Path, **overrides: Any) -> ConfigDict:
    """A run of 24 steps on 200 vectors of a file, six steps an epoch."""
    if not (folder / "x.npy").exists():
        np.save(folder / "x.npy", np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32))
    choice = circles(folder, model__class_conditional=False, training__num_steps=24, checkpoint__every=8)
    with choice.unlocked():
        choice.data.name, choice.data.data_dir, choice.data.kwargs = "npy", "", {"path": str(folder / "x.npy")}
        for key, value in overrides.items():
            choice.data[key] = value
    return choice


def test_a_streamed_run_is_that_in_memory_bit_for_bit(data_dir: Path, tmp_path: Path) -> None:
    """However often it is stopped and goes on with another placement."""
    constant = {"optimizer__decay": "constant"}
    runs = {place: circles(data_dir, data__placement=place, **constant) for place in ("host", "device", "stream")}
    one = jax.devices()[:1]
    for place, choice in runs.items():
        train(choice, tmp_path / place, devices=one)
    assert_same_run(runs["stream"], tmp_path / "host", tmp_path / "stream")
    assert_same_run(runs["stream"], tmp_path / "device", tmp_path / "stream")
    for place, steps in (("stream", 20), ("host", 41), ("stream", 60)):
        choice = circles(data_dir, data__placement=place, training__num_steps=steps, **constant)
        train(choice, tmp_path / "mixed", devices=one)
    assert_same_run(runs["stream"], tmp_path / "device", tmp_path / "mixed")


def test_batches_over_eight_devices_are_those_in_memory(data_dir: Path, tmp_path: Path) -> None:
    setups = [
        prepare(circles(data_dir, data__placement=place), tmp_path, jax.devices()) for place in ("host", "stream")
    ]
    for step in (0, 1, 5, 6, 40):
        one, other = (setup.batch(step) for setup in setups)
        for name, values in one.items():
            np.testing.assert_array_equal(other[name], values)
            assert other[name].sharding == values.sharding
    setups[1].batch.close()


def test_where_the_data_are_is_said_in_one_line(
    data_dir: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with caplog.at_level(logging.INFO, logger="geonoise_jax"):
        train(circles(data_dir, training__num_steps=1), tmp_path / "a")
        monkeypatch.setattr(memory, "available", lambda: 4000)
        train(circles(data_dir, training__num_steps=1), tmp_path / "b")
    said = [message for message in caplog.messages if "circles/train" in message or "shape" in message]
    assert said == [
        "data: circles/train, 200 items, 0.00305 MiB, on the devices",
        "200 items of shape [3], float32: 0.00229 MiB, of which this process may hold 0.00191 MiB: read from "
        "their files as they are needed",
        "data: circles/train, 200 items, 0.00305 MiB, read from files as needed, 4 batches ahead",
    ]


def test_a_file_that_is_cut_short_stops_the_run_with_what_it_learnt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And once it is mended, the run goes on as if nothing had been."""
    choice = of_npy(tmp_path, placement="stream")
    train(choice, tmp_path / "whole")
    content, index = (tmp_path / "x.npy").read_bytes(), Pipeline.index

    def cutting(self: Pipeline, step: int) -> np.ndarray:
        if step == 9:
            os.truncate(tmp_path / "x.npy", len(content) - 4)
        return index(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "index", cutting)
        with pytest.raises(UserError, match=r"item 199 of npy/train \(row 199 of .*x.npy'\) cannot be read") as caught:
            train(choice, tmp_path / "run")
    with contextlib.closing(Checkpoints(tmp_path / "run", read_only=True)) as checkpoints:
        steps = list(checkpoints.steps)
    assert str(caught.value).startswith(f"step {steps[-1] + 1}: ")
    assert str(caught.value).endswith(
        f"the checkpoints of steps {steps} are kept: mend the data, and run the same command again"
    )
    assert steps[-1] % 8, "the last is of the step before, whatever is due"
    (tmp_path / "x.npy").write_bytes(content)
    train(choice, tmp_path / "run")
    assert_same_run(choice, tmp_path / "whole", tmp_path / "run")


def test_a_number_that_is_not_finite_is_named_by_its_row(tmp_path: Path) -> None:
    choice = of_npy(tmp_path, placement="stream")
    data = build.dataset.arrays(choice)
    points = np.load(tmp_path / "x.npy")
    points[133, 1] = np.nan
    np.save(tmp_path / "new.npy", points)
    (tmp_path / "new.npy").replace(tmp_path / "x.npy")
    train(choice, tmp_path / "old", data=data)
    with pytest.raises(
        UserError, match=r"item 133 of npy/train \(row 133 of .*\) must be finite numbers, but holds nan"
    ):
        train(choice, tmp_path / "new")
