"""The same training on any number of devices, however its parameters are laid out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from geonoise_jax.build import train
from geonoise_jax.config import ConfigDict
from geonoise_jax.training import sharding
from tests.training_runs import circles, final_state, metrics_of, prepare


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def on_eight(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eight")
    train(circles(data_dir), folder)
    return folder


def losses(folder: Path) -> np.ndarray:
    return np.array([line["loss"] for line in metrics_of(folder)])


def test_one_and_eight_devices_give_the_same_losses(data_dir: Path, on_eight: Path, tmp_path: Path) -> None:
    train(circles(data_dir), tmp_path, devices=jax.devices()[:1])
    np.testing.assert_allclose(losses(tmp_path), losses(on_eight), rtol=1e-4)


def test_checkpoint_of_eight_devices_goes_on_with_one(data_dir: Path, on_eight: Path, tmp_path: Path) -> None:
    train(circles(data_dir, training__num_steps=40, optimizer__decay="constant"), tmp_path / "run")
    longer = circles(data_dir, optimizer__decay="constant")
    train(longer, tmp_path / "run", devices=jax.devices()[:1])
    train(longer, tmp_path / "whole")
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(tmp_path / "whole"), rtol=1e-4)
    state = final_state(longer, tmp_path / "run", jax.devices()[:1])
    assert {leaf.sharding.num_devices for leaf in jax.tree.leaves(state)} == {1}


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("fsdp", {"sharding__parameters": "fsdp", "model__kwargs__width": 64}),
        pytest.param(
            "rules",
            {"sharding__rules": "(('block_0/.*/kernel', (None, 'model')),)", "mesh__model": 2},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_sharded_parameters_train_alike(name: str, overrides: dict[str, str], data_dir: Path, tmp_path: Path) -> None:
    short: dict[str, Any] = {"training__num_steps": 20}
    width: dict[str, Any] = {key: value for key, value in overrides.items() if key.startswith("model__")}
    choice = circles(data_dir, **short, **overrides)
    train(choice, tmp_path / name)
    train(circles(data_dir, **short, **width), tmp_path / "replicated")
    np.testing.assert_allclose(losses(tmp_path / name), losses(tmp_path / "replicated"), rtol=1e-4)
    state = final_state(choice, tmp_path / name)
    split = [leaf for leaf in jax.tree.leaves(state.params) if not leaf.sharding.is_fully_replicated]
    moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if not leaf.sharding.is_fully_replicated]
    assert split
    assert len(moments) == 2 * len(split)


@pytest.mark.slow
def test_accumulation_changes_nothing_but_rounding(data_dir: Path, tmp_path: Path) -> None:
    plain: dict[str, Any] = {"model__kwargs__dropout": 0.0, "training__num_steps": 30}
    train(circles(data_dir, **plain), tmp_path / "one")
    train(circles(data_dir, **plain, training__accumulate=4), tmp_path / "four")
    np.testing.assert_allclose(losses(tmp_path / "four"), losses(tmp_path / "one"), rtol=1e-4)


@pytest.mark.parametrize("placement", ["host", pytest.param("device", marks=pytest.mark.slow)])
def test_placement_of_the_data_changes_nothing(placement: str, data_dir: Path, on_eight: Path, tmp_path: Path) -> None:
    train(circles(data_dir, data__placement=placement), tmp_path)
    assert metrics_of(tmp_path) == metrics_of(on_eight)


DEVICES = 8  # see conftest
BAD = [
    (
        {"training__batch_size": 36},
        "batch_size = 36: must be a positive multiple of training.accumulate = 1 times the 8",
    ),
    (
        {"training__batch_size": 32, "training__accumulate": 3},
        "accumulate = 3 times the 8 devices of the data axis, 24",
    ),
    ({"training__accumulate": 0}, "training.accumulate = 0: must be an integer >= 1"),
    ({"mesh__data": 3}, "must use exactly the 8 devices"),
    ({"mesh__data": 0}, "sizes must be >= 1"),
    ({"mesh__model": -1}, "one of them may be -1"),
    ({"sharding__parameters": "fdsp"}, "sharding.parameters = 'fdsp': unknown; did you mean fsdp"),
    ({"sharding__rules": "(('output/kernel', ('data', None, None)),)"}, "names 3 axes"),
    ({"sharding__rules": "(('output/kernel', (None, 'modle')),)"}, "unknown mesh axis 'modle'; did you mean model"),
    ({"sharding__rules": "(('output/kernel', (None, 'data')),)"}, "mesh axis 'data' of size 8 does not divide 3"),
]


@pytest.mark.parametrize(("overrides", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_bad_layouts(overrides: dict[str, str], message: str, data_dir: Path, tmp_path: Path) -> None:
    choice: ConfigDict = circles(data_dir, **overrides)
    with pytest.raises(ValueError, match=re.escape(message)):
        train(choice, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_state_paths_name_parameters(data_dir: Path, tmp_path: Path) -> None:
    abstract = prepare(circles(data_dir), tmp_path).abstract
    names = [sharding.path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(abstract)]
    assert "params/output/kernel" in names
    assert any(re.fullmatch(r"opt_state/.*mu/output/kernel", name) for name in names)
