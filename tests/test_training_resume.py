"""Interruption and resumption: a run is bit for bit the same however often it was stopped."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from geonoise_jax import build, config
from geonoise_jax.build import train
from geonoise_jax.config import ConfigDict
from geonoise_jax.data.pipeline import Pipeline
from geonoise_jax.signals import StopRequest
from geonoise_jax.training import train as training
from geonoise_jax.training.workdir import OfConfig, claim, facts_of
from tests.training_runs import assert_same_run, circles, final_state, metrics_of


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def whole(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[ConfigDict, Path]:
    """An uninterrupted run."""
    choice, folder = circles(data_dir), tmp_path_factory.mktemp("whole")
    assert train(choice, folder).stopped_by is None
    return choice, folder


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, number: signal.Signals) -> None:
    """Send this process a signal when the batch of a step is made."""
    original = Pipeline.batch

    def batch(self: Pipeline, at: int) -> dict[str, np.ndarray]:
        if at == step:
            os.kill(os.getpid(), number)
        return original(self, at)

    monkeypatch.setattr(Pipeline, "batch", batch)


@pytest.mark.parametrize(
    ("steps", "number"),
    [
        ([0, 41], signal.SIGINT),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in [
                *(([7], signal.SIGTERM), ([7], signal.SIGINT), ([20, 41], signal.SIGINT)),
                *(([20, 41], signal.SIGTERM), ([0, 33, 58], signal.SIGTERM)),
            ]
        ),
    ],
)
def test_stopped_and_resumed_is_the_same_run(
    steps: list[int],
    number: signal.Signals,
    whole: tuple[ConfigDict, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    choice, reference = whole
    for step in steps:
        with monkeypatch.context() as patch:
            stop_at(patch, step, number)
            result = train(choice, tmp_path)
        # The signal comes while the batch is made; that step is still done, and saved.
        assert (result.step, result.stopped_by) == (step + 1, number.name)
    assert train(choice, tmp_path).stopped_by is None
    assert_same_run(choice, reference, tmp_path)


def test_killed_between_checkpoints_repeats_from_the_last(whole: tuple[ConfigDict, Path], tmp_path: Path) -> None:
    """kill -9 at step 47, after the checkpoint of step 40 and the metrics of step 40."""
    choice, reference = whole
    (tmp_path / "choice.json").write_text(config.dumps(choice))
    program = """
import os, signal, sys
from pathlib import Path
from geonoise_jax import build, config
from geonoise_jax.data.pipeline import Pipeline
from geonoise_jax.training import train as training
from geonoise_jax.build import train
from geonoise_jax.training.workdir import claim, facts_of
original = Pipeline.batch
def batch(self, step):
    if step == 47:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, step)
Pipeline.batch = batch
folder = Path(sys.argv[1])
train(config.loads((folder / "choice.json").read_text()), folder / "run")
"""
    outcome = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, check=False)
    assert outcome.returncode == -signal.SIGKILL, outcome.stderr.decode()
    run = tmp_path / "run"
    assert int(final_state(choice, run).step) == 40
    # A line torn by the crash, and one of a step that will be repeated.
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 50, "loss": 1.0, "seconds": 1.0}\n{"step": 6')
    train(choice, run)
    assert_same_run(choice, reference, run)


@pytest.mark.slow
def test_unet_with_flips_and_accumulation_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choice = config.load("configs/digits.py:ddpm,blind")
    assignments = {
        "data.data_dir": tmp_path / "data",
        "data.flip": True,
        "model.kwargs.base_channels": 8,
        "model.kwargs.channel_multipliers": "(1,)",
        "model.kwargs.dropout": 0.2,
        "training.num_steps": 6,
        "training.batch_size": 32,
        "training.accumulate": 2,
        "training.log_every": 2,
        "checkpoint.every": 4,
        "sampling.every": 0,
    }
    config.override(choice, [(key, str(value)) for key, value in assignments.items()])
    train(choice, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at(patch, 2, signal.SIGTERM)
        assert train(choice, tmp_path / "parts").step == 3
    train(choice, tmp_path / "parts")
    assert_same_run(choice, tmp_path / "whole", tmp_path / "parts")


def test_finished_run_is_left_alone(whole: tuple[ConfigDict, Path]) -> None:
    choice, folder = whole
    before = (folder / "metrics.jsonl").read_bytes(), sorted((folder / "checkpoints").iterdir())
    assert train(choice, folder).step == 60
    assert ((folder / "metrics.jsonl").read_bytes(), sorted((folder / "checkpoints").iterdir())) == before


def test_more_steps_go_on_from_the_end(data_dir: Path, tmp_path: Path) -> None:
    """And the other keys that a resumed run may change leave the steps already done as they would have been."""
    constant: dict[str, Any] = {"optimizer__decay": "constant"}
    train(circles(data_dir, training__num_steps=30, **constant), tmp_path / "parts")
    other: dict[str, Any] = {"checkpoint__keep": 1, "sampling__num_steps": 2, "data__placement": "host"}
    longer = circles(data_dir, training__num_steps=60, **constant, **other)
    train(longer, tmp_path / "parts")
    train(longer, tmp_path / "whole")
    assert_same_run(longer, tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("steps", [3, 5])
def test_another_number_of_steps_is_refused_where_the_rate_depends_on_it(
    steps: int, data_dir: Path, tmp_path: Path
) -> None:
    """A cosine over more steps begins again high: from 0 to the full rate at the end of the first run."""
    train(circles(data_dir, training__num_steps=4, optimizer__decay="cosine"), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=rf"training.num_steps: 4 there, {steps} now, but optimizer.decay = 'cosine'"):
        train(circles(data_dir, training__num_steps=steps, optimizer__decay="cosine"), tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_other_data_are_refused(data_dir: Path, tmp_path: Path) -> None:
    """As a folder may hold that is given by data.data_dir, which a resumed run may change."""
    choice = circles(data_dir, training__num_steps=1)
    train(choice, tmp_path)
    data = build.arrays(choice)
    for changed, message in (
        (dataclasses.replace(data, events=data.events + 1), r"\(checksum: \d+ there, \d+ now\)"),
        (dataclasses.replace(data, events=data.events[1:], labels=None), "num_items: 200 there, 199 now"),
        (dataclasses.replace(data, events=data.events[:, 1:]), r"event_shape: \(3,\) there, \(2,\) now"),
    ):
        with pytest.raises(ValueError, match=rf"was trained on other data .*{message}"):
            claim(tmp_path, OfConfig(choice), facts_of(changed))
    claim(tmp_path, OfConfig(choice), facts_of(data))


def test_second_signal_ends_at_once() -> None:
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received is signal.SIGTERM
        with pytest.raises(KeyboardInterrupt, match="second SIGINT"):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_different_seeds_differ(whole: tuple[ConfigDict, Path], data_dir: Path, tmp_path: Path) -> None:
    """The comparison of runs above can fail."""
    choice, reference = whole
    other = circles(data_dir, seed=1)
    train(other, tmp_path)
    assert metrics_of(reference) != metrics_of(tmp_path)
    leaves = (
        jax.tree.leaves(final_state(which, folder).params) for which, folder in ((choice, reference), (other, tmp_path))
    )
    assert any(not np.array_equal(a, b) for a, b in zip(*leaves, strict=True))


@pytest.mark.parametrize("at", [20, 40])
def test_samples_due_with_a_checkpoint_are_made_up(
    at: int, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that ends after a checkpoint and before the samples due at the same step draws them when it is resumed."""
    choice = circles(data_dir, training__num_steps=40, sampling__every=10, sampling__num=8, sampling__num_steps=2)
    original = training.draw_samples

    def killed(setup: training.Setup, step: int, params: Any) -> None:
        if step == at:
            raise MemoryError
        original(setup, step, params)

    with monkeypatch.context() as patch:
        patch.setattr(training, "draw_samples", killed)
        with pytest.raises(MemoryError):
            train(choice, tmp_path)
    samples = tmp_path / "samples"
    assert not (samples / f"{at:08d}.png").exists()
    assert int(final_state(choice, tmp_path).step) == at
    train(choice, tmp_path)
    assert sorted(path.name for path in samples.iterdir()) == [f"{step:08d}.png" for step in (10, 20, 30, 40)]
    before = [path.stat().st_mtime_ns for path in samples.iterdir()]
    train(choice, tmp_path)
    assert [path.stat().st_mtime_ns for path in samples.iterdir()] == before
