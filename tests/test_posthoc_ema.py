"""Averages chosen after training: rebuilt as computed directly, and stored by runs that are resumed or killed."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax import build, config
from geonoise_jax.build import train
from geonoise_jax.data.pipeline import Pipeline
from geonoise_jax.evaluation.restore import restore
from geonoise_jax.training import ema
from geonoise_jax.training.checkpoint import Checkpoints
from geonoise_jax.training.ema import Power
from geonoise_jax.training.posthoc_ema import PosthocEMA, Snapshots, posthoc_ema, project
from geonoise_jax.training.run import Run
from geonoise_jax.training.train import train as train_run
from tests.training_runs import circles, final_state

WIDTHS = (0.05, 0.10)


def averages(trajectory: np.ndarray, width: float) -> np.ndarray:
    """The power-function average of a trajectory after every step, update by update."""
    gamma, average, found = Power(width).gamma, np.zeros_like(trajectory[0]), []
    for step, params in enumerate(trajectory, start=1):
        kept = (1.0 - 1.0 / step) ** (gamma + 1.0)
        average = kept * average + (1.0 - kept) * params
        found.append(average)
    return np.stack(found)


def trajectory(steps: int) -> np.ndarray:
    """Of four parameters: one at rest, one that settles, one that oscillates, one that wanders."""
    s, rng = np.arange(1, steps + 1) / steps, np.random.default_rng(0)
    wander = np.cumsum(rng.standard_normal(steps)) / np.sqrt(steps)
    return np.stack([np.full(steps, 3.0), np.exp(-8.0 * s), np.sin(40.0 * s), wander], axis=1)


def stored(folder: Path, path: np.ndarray, every: int, widths: tuple[float, ...] = WIDTHS) -> Snapshots:
    snapshots, by_width = Snapshots(folder), [averages(path, width) for width in widths]
    for step in range(every, len(path) + 1, every):
        snapshots.save(step, widths, [{"net": {"w": values[step - 1]}} for values in by_width])
    return snapshots


def test_the_profile_of_the_updates_is_the_power_function() -> None:
    """Weights of unit impulses: (s^(g+1) - (s-1)^(g+1)) / t^(g+1), of relative standard deviation sigma_rel."""
    weights, gamma = averages(np.eye(500), 0.1)[-1], Power(0.1).gamma
    s = np.arange(501) / 500
    np.testing.assert_allclose(weights, np.diff(s ** (gamma + 1.0)), atol=1e-12)
    mean = (weights * s[1:]).sum()
    assert np.sqrt((weights * (s[1:] - mean) ** 2).sum()) == pytest.approx(0.1, rel=5e-3)


@pytest.mark.parametrize("step", [100, 500, 700, 1000])
@pytest.mark.parametrize("width", WIDTHS)
def test_stored_averages_are_rebuilt_as_they_are(width: float, step: int, tmp_path: Path) -> None:
    path = trajectory(1000)
    stored(tmp_path, path, every=100)
    rebuilt = posthoc_ema(tmp_path, width, step)
    np.testing.assert_allclose(rebuilt.params["net"]["w"], averages(path, width)[step - 1], rtol=0, atol=1e-9)
    assert rebuilt.step == step
    assert rebuilt.error < 1e-9


@pytest.mark.parametrize(("every", "error"), [(250, 0.15), (100, 0.06), (25, 0.01)])
@pytest.mark.parametrize("width", [0.03, 0.07, 0.12, 0.2])
def test_averages_between_are_rebuilt_within_the_error_that_is_stated(
    width: float, every: int, error: float, tmp_path: Path
) -> None:
    path = trajectory(1000)
    stored(tmp_path, path, every)
    rebuilt = posthoc_ema(tmp_path, width)
    off = np.abs(rebuilt.params["net"]["w"] - averages(path, width)[-1])
    np.testing.assert_array_less(off, rebuilt.error * np.ptp(path, axis=0) + 1e-9)
    assert rebuilt.error < (4.0 if width < WIDTHS[0] else 1.0) * error
    assert rebuilt.step == 1000


def test_a_step_without_a_snapshot_is_rebuilt_within_its_error(tmp_path: Path) -> None:
    path = trajectory(1000)
    stored(tmp_path, path, every=50)
    rebuilt = posthoc_ema(tmp_path, 0.1, step=930)
    off = np.abs(rebuilt.params["net"]["w"] - averages(path, 0.1)[929])
    np.testing.assert_array_less(off, rebuilt.error * np.ptp(path[:930], axis=0) + 1e-9)
    assert 0.0 < rebuilt.error < 0.3


def test_many_snapshots_and_steps_are_well_conditioned() -> None:
    times = np.repeat(np.arange(1, 257) * 4096, 2)
    found = project(times, np.tile(WIDTHS, 256), 2**20, 0.075)
    assert found.error < 2e-3
    assert found.weights.sum() == pytest.approx(1.0)
    assert np.abs(found.weights).sum() < 20.0


def run_of(data: Path, folder: Path, **changes: Any) -> config.ConfigDict:
    every = {"posthoc_ema__every": 15, "training__num_steps": 40, "checkpoint__every": 20, **changes}
    choice = circles(data, model__class_conditional=False, **every)
    train(choice, folder)
    return choice


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def whole(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    run_of(data_dir, folder)
    return folder


def arrays_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for step in Snapshots(folder).steps:
        for number, tree in enumerate(Snapshots(folder).read(step)):
            found |= {f"{step}/{number}/{name}": value for name, value in tree.items()}
    return found


def test_a_run_stores_the_averages_of_its_parameters(whole: Path, data_dir: Path) -> None:
    """The state's own, and the one that the config averages with is that of the same width."""
    assert Snapshots(whole).steps == [15, 30, 40]
    choice = circles(data_dir, model__class_conditional=False, posthoc_ema__every=15, training__num_steps=40)
    state = final_state(choice, whole)
    assert len(state.posthoc) == 2
    jax.tree.map(np.testing.assert_array_equal, state.posthoc[1], state.ema_params)
    rebuilt = restore(whole, ema=0.1)
    assert (rebuilt.step, rebuilt.params) == (40, "ema:0.1")
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, atol=1e-6),
        rebuilt.field.params,
        restore(whole).field.params,
    )
    assert [leaf.dtype for leaf in jax.tree.leaves(rebuilt.field.params)] == [
        leaf.dtype for leaf in jax.tree.leaves(restore(whole).field.params)
    ]
    short, raw = (restore(whole, **each).field.params for each in ({"ema": 0.03}, {"params": "raw"}))
    off = [float(jnp.abs(one - other).max()) for one, other in zip(*map(jax.tree.leaves, (short, raw)), strict=True)]
    assert 0.0 < max(off) < 0.2


def test_stopped_and_resumed_is_bit_for_bit_the_same(
    whole: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Pipeline.batch

    def batch(self: Pipeline, at: int) -> dict[str, np.ndarray]:
        if at == 24:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, at)

    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "batch", batch)
        run_of(data_dir, tmp_path)
    assert Snapshots(tmp_path).steps == [15]
    choice = run_of(data_dir, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, *(final_state(choice, folder) for folder in (whole, tmp_path)))
    mine, other = arrays_of(tmp_path), arrays_of(whole)
    assert mine.keys() == other.keys()
    jax.tree.map(np.testing.assert_array_equal, mine, other)


def test_killed_after_a_snapshot_the_run_writes_it_anew(
    whole: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of step 30, whose checkpoint is not there; a draft that a crash left is no snapshot."""
    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "batch", _failing_at(35))
        with pytest.raises(ZeroDivisionError):
            run_of(data_dir, tmp_path)
    folder = tmp_path / "posthoc_ema"
    assert Snapshots(tmp_path).steps == [15, 30]
    (folder / ".draft-1-0.tmp").write_bytes(b"")
    (folder / "00000030.npz").write_bytes(b"stale")
    run_of(data_dir, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, arrays_of(tmp_path), arrays_of(whole))


def _failing_at(step: int) -> Callable[[Pipeline, int], dict[str, np.ndarray]]:
    original = Pipeline.batch

    def batch(self: Pipeline, at: int) -> dict[str, np.ndarray]:
        if at == step:
            raise ZeroDivisionError
        return original(self, at)

    return batch


def test_by_default_nothing_changes(data_dir: Path, tmp_path: Path, whole: Path) -> None:
    choice = run_of(data_dir, tmp_path, posthoc_ema__every=0)
    assert not (tmp_path / "posthoc_ema").exists()
    state, other = final_state(choice, tmp_path), final_state(_like(whole), whole)
    assert state.posthoc == ()
    # Further averages touch nothing else either.
    for name in ("params", "ema_params", "opt_state"):
        jax.tree.map(np.testing.assert_array_equal, getattr(state, name), getattr(other, name))
    checkpoints = Checkpoints(tmp_path, read_only=True)
    stored_types = checkpoints._read_meta(40)["types"]
    items = checkpoints._stored(40)["train"]
    checkpoints.close()
    assert "posthoc" not in items
    assert not any(name.startswith("posthoc") for name in stored_types)
    with pytest.raises(ValueError, match=re.escape("has no snapshots of averages (posthoc_ema/)")):
        restore(tmp_path, ema=0.1)


def _like(folder: Path) -> config.ConfigDict:
    return config.loads((folder / "config.json").read_text())


def test_a_run_of_objects_stores_them_too_and_knows_them_again(data_dir: Path, tmp_path: Path) -> None:
    choice = circles(data_dir, model__class_conditional=False, training__num_steps=4)
    made: Run = dataclasses.replace(build.run(choice), posthoc=PosthocEMA(2, (0.2,)))
    train_run(made, tmp_path)
    assert Snapshots(tmp_path).steps == [2, 4]
    assert Snapshots(tmp_path).widths(4).tolist() == [0.2]
    with pytest.raises(ValueError, match="posthoc: "):
        train_run(dataclasses.replace(made, posthoc=None), tmp_path)


def test_bfloat16_is_stored_as_it_is(tmp_path: Path) -> None:
    value = jnp.asarray([1.0, 1.0078125, -3.0], jnp.bfloat16)
    Snapshots(tmp_path).save(7, (0.1,), [{"w": value}])
    np.testing.assert_array_equal(posthoc_ema(tmp_path, 0.1).params["w"], np.asarray(value, np.float32))


def test_average_updates_are_those_of_ema() -> None:
    path, average = trajectory(50), {"w": jnp.zeros(4)}
    for step, params in enumerate(path, start=1):
        average = ema.update(Power(0.1), average, {"w": jnp.asarray(params, jnp.float32)}, jnp.asarray(step))
    np.testing.assert_allclose(average["w"], averages(path, 0.1)[-1], atol=1e-5)


REFUSED: list[tuple[Callable[[Path], Any], str]] = [
    (lambda folder: posthoc_ema(folder, 0.3), "Power.sigma_rel = 0.3: must be"),
    (lambda folder: posthoc_ema(folder, 0.1, step=201), "step = 201: must be in 50..200"),
    (lambda folder: posthoc_ema(folder, 0.1, step=20), "step = 20: must be in 50..200"),
    (lambda folder: posthoc_ema(folder / "none", 0.1), "has no snapshots"),
    (lambda _: PosthocEMA(0), "posthoc_ema.every = 0: must be an integer >= 1"),
    (lambda _: PosthocEMA(5, (0.1, 0.1)), "posthoc_ema.sigma_rel = (0.1, 0.1): must be one or more different"),
    (lambda _: PosthocEMA(5, ()), "posthoc_ema.sigma_rel = (): must be"),
    (lambda _: PosthocEMA(5, (0.5,)), "Power.sigma_rel = 0.5: must be"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED, ids=[message[:24] for _, message in REFUSED])
def test_bad_input_is_refused(call: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    stored(tmp_path, trajectory(200), every=50)
    with pytest.raises(ValueError, match=re.escape(message)):
        call(tmp_path)


def test_bad_configs_and_damage_are_refused(data_dir: Path, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape("posthoc_ema.sigma_rel = (0.2,): has no effect with")):
        build.run(circles(data_dir, posthoc_ema__sigma_rel=(0.2,)))
    with pytest.raises(ValueError, match=re.escape("posthoc_ema.every: 15 there, 10 now")):
        run_of(data_dir, whole, posthoc_ema__every=10)
    with pytest.raises(ValueError, match="params = 'raw': has no effect with ema"):
        restore(whole, ema=0.1, params="raw")
    stored(tmp_path, trajectory(200), every=50)
    path = tmp_path / "posthoc_ema" / "00000100.npz"
    sound = path.read_bytes()
    middle = sound.index(b"1/net/w.npy") + 100
    path.write_bytes(sound[:middle] + bytes([sound[middle] ^ 255]) + sound[middle + 1 :])
    with pytest.raises(ValueError, match=re.escape(f"{path}: is damaged")):
        posthoc_ema(tmp_path, 0.07)
    path.unlink()
    assert posthoc_ema(tmp_path, 0.07).step == 200
