"""The dtypes of the training state: fixed from the first step on, stored, and checked when a run is resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import pytest

from geonoise_jax.build import train
from geonoise_jax.config import ConfigDict
from geonoise_jax.evaluation.restore import restore
from geonoise_jax.training.checkpoint import Checkpoints
from geonoise_jax.training.checkpoint_errors import OtherTypesError
from geonoise_jax.training.state import types
from tests.training_runs import assert_same_run, circles, prepare

AVERAGES = ["constant", "power", "ramped"]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def short(data_dir: Path, num_steps: int = 4, **overrides: Any) -> ConfigDict:
    few = {"training__num_steps": num_steps, "checkpoint__every": 2, "training__log_every": 3}
    return circles(data_dir, **{**few, "optimizer__decay": "constant", **overrides})


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_a_step_changes_no_dtype(dtype: str, average: str, x64: bool, data_dir: Path, tmp_path: Path) -> None:
    if dtype == "float64" and not x64:
        pytest.skip("jax has no float64 then")
    with jax.enable_x64(x64):
        choice = short(data_dir, ema__name=average, model__kwargs__dtype=dtype, optimizer__decay="cosine")
        if average == "constant":
            choice.ema["kwargs"] = {"warmup": True}
        setup = prepare(choice, tmp_path)
        after, _ = jax.eval_shape(setup.step, setup.abstract, setup.batch(0), setup.resident)
        assert types(after) == types(setup.abstract)


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
def test_a_run_under_x64_resumes_bit_for_bit(dtype: str, data_dir: Path, tmp_path: Path, x64: None) -> None:
    first, choice = (short(data_dir, steps, model__kwargs__dtype=dtype) for steps in (2, 4))
    train(first, tmp_path / "parts")
    train(choice, tmp_path / "parts")
    train(choice, tmp_path / "whole")
    assert_same_run(choice, tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("before", [False, True])
def test_resuming_in_another_precision_is_refused_by_name(before: bool, data_dir: Path, tmp_path: Path) -> None:
    with jax.enable_x64(before):
        train(short(data_dir, 2), tmp_path)
    held = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    here, there = ("float32", "float64") if before else ("float64", "float32")
    with jax.enable_x64(not before):
        with pytest.raises(OtherTypesError) as error:
            train(short(data_dir, 4), tmp_path)
        # The parameters are float32 in both precisions.
        assert restore(tmp_path).step == 2
    message = str(error.value)
    assert rf"checkpoint 2 holds window/loss/total as {there}[], which must be {here}[] here" in message
    assert f"jax_enable_x64 = {before}: set JAX_ENABLE_X64={int(before)}" in message
    config_files = {"config.json", "data.json"}
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {path for path in held if after.get(path) != held[path] and path.name not in config_files} == set()


def test_parameters_of_another_shape_are_refused_by_name(data_dir: Path, tmp_path: Path) -> None:
    train(short(data_dir, 2), tmp_path)
    other = prepare(short(data_dir, 2, model__kwargs__width=8), tmp_path).abstract
    checkpoints = Checkpoints(tmp_path)
    for step in (None, 2):
        with pytest.raises(OtherTypesError, match=r"checkpoint 2 holds ema_params/\S+ as float32\[.*16.*must be .*8"):
            checkpoints.restore_ema(other.ema_params, step)
    with pytest.raises(OtherTypesError, match="the network or the data is another than the run's"):
        checkpoints.restore(other)
    checkpoints.close()
    assert (tmp_path / "checkpoints" / "2").is_dir()


def test_damaged_types_are_damage(data_dir: Path, tmp_path: Path) -> None:
    train(short(data_dir, 4), tmp_path)
    meta = next((tmp_path / "checkpoints" / "4" / "meta").rglob("metadata"))
    meta.write_text(meta.read_text().replace("float32[16", "float32[17"))
    assert restore(tmp_path).step == 2
