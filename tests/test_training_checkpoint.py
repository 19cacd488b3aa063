"""Damaged checkpoints: found, said, passed over; nothing lost."""

from __future__ import annotations

import itertools
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from geonoise_jax.build import train
from geonoise_jax.config import ConfigDict
from geonoise_jax.evaluation.restore import restore
from geonoise_jax.training.checkpoint import Checkpoints
from geonoise_jax.training.checkpoint_errors import DamagedCheckpointError
from geonoise_jax.training.fingerprint import fingerprint
from tests.training_runs import assert_same_run, circles, prepare


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[ConfigDict, Path]:
    choice = circles(tmp_path_factory.mktemp("data"))
    folder = tmp_path_factory.mktemp("run")
    train(choice, folder)
    return choice, folder


@pytest.fixture
def run(finished: tuple[ConfigDict, Path], tmp_path: Path) -> tuple[ConfigDict, Path]:
    """A copy of a finished run, to be damaged."""
    shutil.copytree(finished[1], tmp_path / "run")
    return finished[0], tmp_path / "run"


def data_files(item: Path) -> list[Path]:
    """Files with array contents, the largest first."""
    files = [path for path in item.rglob("d/*") if path.is_file()]
    assert files
    return sorted(files, key=lambda path: -path.stat().st_size)


def empty(step: Path) -> None:
    shutil.rmtree(step)
    step.mkdir()


def truncate(step: Path) -> None:
    for file in data_files(step):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip_bytes(step: Path) -> None:
    for file in data_files(step):
        content = bytearray(file.read_bytes())
        for position in range(len(content) // 4, len(content), max(len(content) // 7, 1)):
            content[position] ^= 0x10
        file.write_bytes(bytes(content))


def remove_meta(step: Path) -> None:
    shutil.rmtree(step / "meta")


DAMAGES = [truncate, remove_meta, *(pytest.param(each, marks=pytest.mark.slow) for each in (empty, flip_bytes))]


@pytest.mark.parametrize("damage", DAMAGES)
def test_training_falls_back_and_ends_the_same(
    damage: Callable[[Path], None],
    finished: tuple[ConfigDict, Path],
    run: tuple[ConfigDict, Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    choice, folder = run
    damage(folder / "checkpoints" / "60")
    with caplog.at_level(logging.INFO, logger="geonoise_jax"):
        train(choice, folder)
    assert "checkpoint 60 is damaged" in caplog.text
    assert "resuming" in caplog.text
    assert "at step 40" in caplog.text
    assert (folder / "damaged_checkpoints" / "60").is_dir()
    assert_same_run(choice, finished[1], folder)


@pytest.mark.parametrize("damage", DAMAGES)
def test_sampling_falls_back_and_changes_nothing(
    damage: Callable[[Path], None], run: tuple[ConfigDict, Path], caplog: pytest.LogCaptureFixture
) -> None:
    _, folder = run
    damage(folder / "checkpoints" / "60")
    with caplog.at_level(logging.WARNING, logger="geonoise_jax"):
        assert restore(folder).step == 40
    assert "checkpoint 60 is damaged" in caplog.text
    assert (folder / "checkpoints" / "60").is_dir()
    assert not (folder / "damaged_checkpoints").exists()


def test_no_sound_checkpoint_is_an_error_not_a_fresh_start(run: tuple[ConfigDict, Path]) -> None:
    choice, folder = run
    for step in (folder / "checkpoints").iterdir():
        truncate(step)
    with pytest.raises(DamagedCheckpointError, match=r"none of the checkpoints \[20, 40, 60\] can be read"):
        train(choice, folder)
    # They stay where they are, so that asked again it still does not start over.
    with pytest.raises(DamagedCheckpointError):
        train(choice, folder)


def test_no_checkpoint_yet(finished: tuple[ConfigDict, Path], run: tuple[ConfigDict, Path]) -> None:
    _, folder = run
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(ValueError, match="has no checkpoint yet"):
        restore(folder)
    assert not (folder / "checkpoints").exists()
    (folder / "checkpoints").mkdir()
    with pytest.raises(ValueError, match="has no checkpoint yet"):
        restore(folder)


def test_old_checkpoints_are_dropped(finished: tuple[ConfigDict, Path], tmp_path: Path) -> None:
    choice, folder = finished
    checkpoints = Checkpoints(folder)
    state = checkpoints.restore(prepare(choice, folder).abstract)
    checkpoints.close()
    assert state is not None
    kept = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3):
        kept.save(state.replace(step=jnp.asarray(step, jnp.int32)))  # type: ignore[attr-defined]
    assert kept.steps == [2, 3]
    kept.close()
    with pytest.raises(ValueError, match="checkpoint.keep = 0"):
        Checkpoints(tmp_path, keep=0)


LEAVES = {
    "float32": np.linspace(-1, 1, 24, dtype=np.float32).reshape(8, 3),
    "bfloat16": np.arange(16, dtype=np.float32).astype(jnp.bfloat16),
    "int32": np.arange(8, dtype=np.int32),
    "bool": np.arange(8) % 3 == 0,
    "uint8": np.arange(8, dtype=np.uint8),
    "scalar": np.float32(3.0),
}


@pytest.mark.parametrize("name", LEAVES)
def test_fingerprint_sees_every_bit_and_order(name: str) -> None:
    leaf = np.asarray(LEAVES[name])
    clean = fingerprint({"x": jnp.asarray(leaf)})
    raw = np.frombuffer(leaf.tobytes(), np.uint8)
    for byte, bit in itertools.product(range(raw.size), [0] if leaf.dtype == bool else range(8)):
        changed = raw.copy()
        changed[byte] ^= 1 << bit
        other = np.frombuffer(changed.tobytes(), leaf.dtype).reshape(leaf.shape)
        assert fingerprint({"x": jnp.asarray(other)}) != clean
    if leaf.size > 1:
        assert fingerprint({"x": jnp.asarray(np.roll(leaf, 1))}) != clean
    if leaf.dtype == np.float32:
        # The sign bit is the top bit of its word: sums without a hash lose pairs of them.
        assert fingerprint({"x": jnp.asarray(-leaf)}) != clean


def test_fingerprint_does_not_depend_on_the_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Computed by the host, by one device, or by eight on a split array."""
    mesh = Mesh(np.asarray(jax.devices()), ("data",))
    for leaf in LEAVES.values():
        array = np.asarray(leaf)
        spec = PartitionSpec("data") if array.ndim and array.shape[0] % 8 == 0 else PartitionSpec()
        sharded = jax.device_put(array, NamedSharding(mesh, spec))
        by_host = fingerprint([jnp.asarray(array)])
        with monkeypatch.context() as patch:
            patch.setattr(jax, "default_backend", lambda: "gpu")
            assert fingerprint([sharded]) == fingerprint([jnp.asarray(array)]) == by_host


def test_fingerprint_in_float64(x64: None, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.linspace(0, 1, 5)
    nudged = values.copy()
    nudged[3] = np.nextafter(nudged[3], 2.0)
    assert fingerprint([jnp.asarray(values)]) != fingerprint([jnp.asarray(nudged)])
    by_host = fingerprint([jnp.asarray(values)])
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert fingerprint([jnp.asarray(values)]) == by_host
