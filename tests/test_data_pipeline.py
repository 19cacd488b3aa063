"""The batch stream: pure in (seed, step), exactly once per epoch, the same on any topology and placement."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from geonoise_jax.data import Arrays, Pipeline

# Dividing, straddling and larger-than-the-data batches.
SIZES = [(12, 4), (10, 4), (7, 3), (5, 5), (3, 8), (4, 30), (1, 4)]


def numbered(size: int) -> Arrays:
    """A data set whose items are their own numbers, without labels."""
    return Arrays(events=np.arange(size, dtype=np.float32)[:, None])


def pictures(size: int = 20) -> Arrays:
    rng = np.random.default_rng(0)
    events = rng.integers(0, 256, (size, 4, 3, 2)).astype(np.uint8)
    labels = rng.integers(0, 5, size).astype(np.int32)
    return Arrays(events=events, labels=labels, center=127.5, scale=1 / 127.5, num_classes=5)


def stream_of(pipeline: Pipeline, steps: int) -> np.ndarray:
    return np.concatenate([pipeline.index(step) for step in range(steps)])


@pytest.mark.parametrize(("size", "batch_size"), SIZES)
def test_every_item_once_per_epoch_across_straddling_batches(size: int, batch_size: int) -> None:
    steps = 4 * size // batch_size + 4
    stream = stream_of(Pipeline(numbered(size), batch_size, seed=1), steps)
    epochs = len(stream) // size
    np.testing.assert_array_equal(np.sort(stream[: epochs * size].reshape(epochs, size)), [np.arange(size)] * epochs)
    tail = stream[epochs * size :]
    assert len(set(tail.tolist())) == len(tail)


@pytest.mark.parametrize(("size", "batch_size"), SIZES)
def test_batch_is_a_pure_function_of_seed_and_step(size: int, batch_size: int) -> None:
    """Asked out of order, repeatedly, and by a fresh object as after a resume, the batch is the same."""
    used = Pipeline(numbered(size), batch_size, seed=1, placement="host")
    forward = [used.batch(step)["events"] for step in range(30)]
    for step in (29, 3, 17, 3, 0):
        np.testing.assert_array_equal(used.batch(step)["events"], forward[step])
        fresh = Pipeline(numbered(size), batch_size, seed=1, placement="host")
        np.testing.assert_array_equal(fresh.batch(step)["events"], forward[step])


@pytest.mark.parametrize(("size", "batch_size"), [(10, 12), (7, 24), (100, 12)])
@pytest.mark.parametrize("processes", [2, 3, 4, 12])
@pytest.mark.parametrize("placement", ["host", "device"])
def test_slices_of_all_processes_make_the_batch(size: int, batch_size: int, processes: int, placement: str) -> None:
    def make(rank: int, count: int) -> Pipeline:
        return Pipeline(
            numbered(size), batch_size, seed=2, placement=placement, process_index=rank, process_count=count
        )

    ranks = [make(rank, processes) for rank in range(processes)]
    assert {pipeline.local_batch_size for pipeline in ranks} == {batch_size // processes}
    for step in (0, 1, 5, 1000):
        for name, whole in make(0, 1).batch(step).items():
            np.testing.assert_array_equal(np.concatenate([rank.batch(step)[name] for rank in ranks]), whole)


def test_seeds_and_epochs_give_different_orders() -> None:
    size = 50
    orders = [stream_of(Pipeline(numbered(size), size, seed), 6).reshape(6, size) for seed in (0, 1, 2**40)]
    distinct = {order.tobytes() for order in np.concatenate(orders)}
    assert len(distinct) == 18
    assert np.arange(size, dtype=np.int32).tobytes() not in distinct


def test_orders_are_uniform() -> None:
    """Each item comes first in its epoch equally often: chi-square with 4 degrees of freedom below its 1e-4 tail."""
    firsts = stream_of(Pipeline(numbered(5), 5, seed=0), 2000).reshape(2000, 5)[:, 0]
    counts = np.bincount(firsts, minlength=5)
    assert ((counts - 400) ** 2 / 400).sum() < 23.5


def test_placements_decode_to_the_same_bits_under_jit() -> None:
    arrays = pictures()
    assert arrays.labels is not None
    decoded = {}
    for placement in ("host", "device"):
        pipeline = Pipeline(arrays, 8, seed=0, placement=placement)
        resident = jax.tree.map(jnp.asarray, pipeline.resident)
        decoded[placement] = jax.jit(pipeline.decode)(pipeline.batch(3), resident)
        index = pipeline.index(3)
        np.testing.assert_array_equal(decoded[placement]["x"], arrays.to_model(arrays.events[index]))
        np.testing.assert_array_equal(decoded[placement]["labels"], arrays.labels[index])
        assert {name: values.dtype for name, values in decoded[placement].items()} == {
            "x": "float32",
            "labels": "int32",
        }
    jax.tree.map(np.testing.assert_array_equal, decoded["host"], decoded["device"])


def test_device_batches_are_indices_and_host_batches_stored_items() -> None:
    arrays = pictures()
    device, host = (Pipeline(arrays, 8, seed=0, placement=placement) for placement in ("device", "host"))
    assert {name: values.dtype for name, values in device.batch(0).items()} == {"index": np.int32}
    assert device.resident["events"] is arrays.events
    assert {name: values.dtype for name, values in host.batch(0).items()} == {"events": np.uint8, "labels": np.int32}
    assert host.resident == {}


def test_decode_on_a_mesh_keeps_the_batch_sharded() -> None:
    """Replicated data and a sharded index give a sharded batch with the values of one device."""
    mesh = Mesh(np.array(jax.devices()), ("data",))
    pipeline = Pipeline(pictures(), 16, seed=0, placement="device")
    resident = jax.device_put(pipeline.resident, NamedSharding(mesh, P()))
    batch = jax.device_put(pipeline.batch(2), NamedSharding(mesh, P("data")))
    decoded = jax.jit(pipeline.decode)(batch, resident)
    assert decoded["x"].sharding.is_equivalent_to(NamedSharding(mesh, P("data")), 4)
    single = pipeline.decode(pipeline.batch(2), jax.tree.map(jnp.asarray, pipeline.resident))
    jax.tree.map(np.testing.assert_array_equal, decoded, single)


def test_data_without_labels_decode_without_labels() -> None:
    for placement in ("host", "device"):
        pipeline = Pipeline(numbered(6), 4, seed=0, placement=placement)
        decoded = pipeline.decode(pipeline.batch(0), jax.tree.map(jnp.asarray, pipeline.resident))
        assert set(decoded) == {"x"}
        np.testing.assert_array_equal(decoded["x"][:, 0], pipeline.index(0))


def test_flip_mirrors_about_half_of_the_images_by_key() -> None:
    arrays = pictures(400)
    pipeline = Pipeline(arrays, 400, seed=0, flip=True)
    resident = jax.tree.map(jnp.asarray, pipeline.resident)
    x = np.asarray(Pipeline(arrays, 400, seed=0).decode(pipeline.batch(0), resident)["x"])
    decode = jax.jit(pipeline.decode)
    flipped = np.asarray(decode(pipeline.batch(0), resident, jax.random.key(1))["x"])
    mirrored = (flipped != x).any(axis=(1, 2, 3))
    np.testing.assert_array_equal(flipped[mirrored], x[mirrored][:, :, ::-1])
    assert 160 < mirrored.sum() < 240
    np.testing.assert_array_equal(flipped, decode(pipeline.batch(0), resident, jax.random.key(1))["x"])
    assert (flipped != np.asarray(decode(pipeline.batch(0), resident, jax.random.key(2))["x"])).any()


def test_without_flip_a_key_changes_nothing() -> None:
    pipeline = Pipeline(pictures(), 8, seed=0, placement="host")
    without, with_key = (pipeline.decode(pipeline.batch(0), {}, key) for key in (None, jax.random.key(0)))
    jax.tree.map(np.testing.assert_array_equal, without, with_key)


def test_auto_placement_follows_the_budget() -> None:
    arrays = pictures()
    assert arrays.nbytes == 20 * (4 * 3 * 2 + 4)
    assert Pipeline(arrays, 4, 0, device_budget_bytes=arrays.nbytes).placement == "device"
    assert Pipeline(arrays, 4, 0, device_budget_bytes=arrays.nbytes - 1).placement == "host"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size = 0: must be an integer >= 1"),
        ({"batch_size": 2.0}, "batch_size"),
        ({"process_index": 0, "process_count": 3}, "batch_size must be divisible by process_count=3, got 4"),
        ({"process_index": 2, "process_count": 2}, "process_index must be below process_count=2, got 2"),
        ({"process_index": -1}, "process_index"),
        ({"process_count": 0}, "process_count"),
        ({"seed": -1}, "seed"),
        ({"placement": "gpu"}, r"placement must be one of \('auto', 'host', 'device', 'stream'\), got 'gpu'"),
        ({"flip": True}, "flip needs images"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Pipeline(**{"arrays": numbered(6), "batch_size": 4, "seed": 0, **arguments})


@pytest.mark.parametrize("step", [-1, 1.5, None])
def test_bad_step_is_named(step: Any) -> None:
    with pytest.raises(ValueError, match="step = .*: must be an integer >= 0"):
        Pipeline(numbered(6), 4, 0).batch(step)


def test_flip_without_key_is_refused() -> None:
    pipeline = Pipeline(pictures(), 4, 0, placement="host", flip=True)
    with pytest.raises(ValueError, match="key"):
        pipeline.decode(pipeline.batch(0), {})
