"""Small training runs shared by the tests of the training room."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from geonoise_jax import build, config
from geonoise_jax.config import ConfigDict
from geonoise_jax.training import train as training
from geonoise_jax.training.checkpoint import Checkpoints
from geonoise_jax.training.state import TrainState

# Wall-clock figures, the only ones that may differ between a run and its repetition.
TIMING = {"seconds", "steps_per_second", "images_per_second"}

# Of a few seconds: class-conditional, with dropout, so that every use of randomness is in it.
SMALL: dict[str, Any] = {
    "data.kwargs.dim": 3,
    "data.kwargs.num_train": 200,
    "data.kwargs.num_test": 20,
    "model.kwargs.width": 16,
    "model.kwargs.depth": 1,
    "model.kwargs.dropout": 0.1,
    "model.class_conditional": True,
    "training.num_steps": 60,
    "training.batch_size": 32,
    "training.log_every": 10,
    "checkpoint.every": 20,
    "sampling.every": 0,
}


def circles(data_dir: Path, variant: str = "flow_matching,conditional", **overrides: Any) -> ConfigDict:
    """A run of a few seconds: class-conditional, with dropout, so that every use of randomness is in it."""
    small = {**SMALL, "data.data_dir": data_dir}
    assignments = {**small, **{key.replace("__", "."): value for key, value in overrides.items()}}
    choice = config.load(f"configs/circles.py:{variant}")
    return config.override(choice, [(key, str(value)) for key, value in assignments.items()])


def prepare(choice: ConfigDict, folder: Path, devices: list[jax.Device] | None = None) -> training.Setup:
    """All objects of the run of a config."""
    return training.prepare(build.run(choice), folder, devices)


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl without wall-clock figures."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMING} for line in lines]


def final_state(choice: ConfigDict, folder: Path, devices: list[jax.Device] | None = None) -> TrainState:
    """The latest checkpoint of a workdir."""
    checkpoints = Checkpoints(folder)
    state = checkpoints.restore(prepare(choice, folder, devices).abstract)
    checkpoints.close()
    assert state is not None
    return state


def assert_same_run(choice: ConfigDict, one: Path, other: Path) -> None:
    """Two workdirs hold bitwise the same state and the same metrics."""
    states = [final_state(choice, folder) for folder in (one, other)]
    jax.tree.map(np.testing.assert_array_equal, *states)
    assert metrics_of(one) == metrics_of(other)
