"""From a field to samples: the schedule's own start, a solver, batches sharded over devices."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, Key, UInt32

from geonoise_jax.fields import Field
from geonoise_jax.process.grids import GRIDS
from geonoise_jax.process.process import check_start
from geonoise_jax.process.schedules import Schedule
from geonoise_jax.sampling.ode import SOLVERS, Solver


def sample(
    field: Field,
    key: Key[Array, ""],
    num: int,
    sampler: str = "heun",
    num_steps: int = 100,
    *,
    grid: str = "uniform",
    denoise: bool = False,
    x: Float[np.ndarray | Array, "num *event"] | None = None,
    labels: Int[np.ndarray | Array, "num"] | None = None,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
    on_batch: Callable[[int, int], None] | None = None,
) -> Float[np.ndarray, "num *event"]:
    """Draw samples of the data from a field.

    Sample i depends on (key, i) alone: the batch size and the number of devices change nothing beyond rounding.

    Args:
        field: any Field: exact or trained, blind or conditional.
        key: PRNG key.
        num: number of samples.
        sampler: ``"euler"`` or ``"heun"``.
        num_steps: number of steps of the grid.
        grid: ``"uniform"`` in t, ``"rho"`` (EDM) or ``"log_snr"``.
        denoise: replace the observation at t_min by the estimate of x at one more field evaluation; otherwise it is
            divided by a(t_min) and keeps noise of scale b(t_min) / a(t_min).
        x: data to start from, noised to t_max; needed where a(t_max) is not negligible.
        labels: class of each sample, for a class-conditional network.
        batch_size: samples computed at once; all by default. It is rounded up to a multiple of the devices, and a last
            partial batch is padded, so that there is one compile.
        mesh: devices to shard each batch over, along its first axis.
        on_batch: called as ``on_batch(done, num)`` after each batch.

    Returns:
        Samples in data space, on the host.

    Raises:
        ValueError: on an unknown sampler or grid, a size that is not positive, or ``x`` or ``labels`` of the wrong
            length.
    """
    solver, times = plan(field.process.schedule, sampler, num_steps, grid)
    batch_size = _check_sizes(num, num if batch_size is None else batch_size, mesh)
    for name, value in (("x", x), ("labels", labels)):
        if value is not None and len(value) != num:
            raise ValueError(f"len({name}) = {len(value)}: must be num = {num}")
    if x is None:
        check_start(field.process.schedule)
    run = functools.partial(_sample_batch, times=times, solver=solver, denoise=denoise)
    batches = []
    for start, size, (keys, *data) in _batches(key, num, batch_size, mesh, x, labels):
        batches.append(np.asarray(run(field, keys, *data))[:size])
        if on_batch is not None:
            on_batch(start + size, num)
    return np.concatenate(batches)


def plan(schedule: Schedule, sampler: str, num_steps: int, grid: str) -> tuple[Solver, Float[Array, "{num_steps}+1"]]:
    """Return the solver and the times that these options mean for a schedule.

    Raises:
        ValueError: on an unknown sampler or grid, or a number of steps that is not positive.
    """
    return _lookup("sampler", sampler, SOLVERS), _lookup("grid", grid, GRIDS)(schedule, num_steps)


def class_turns(num: int, num_classes: int) -> Int[np.ndarray, "num"] | None:
    """Return labels in which the classes take turns, or None where there are no classes."""
    return np.arange(num, dtype=np.int32) % num_classes if num_classes else None


@functools.partial(jax.jit, static_argnames=("solver", "denoise"))
def _sample_batch(
    field: Any,
    keys: Key[Array, "b"],
    x: Float[Array, "b *event"] | None,
    labels: Int[Array, "b"] | None,
    *,
    times: Float[Array, "times"],
    solver: Callable,
    denoise: bool,
) -> Float[Array, "b *event"]:
    if labels is not None:
        field = field.with_labels(labels)
    process = field.process
    if x is None:
        u = jax.vmap(lambda key: process.start(key, field.event_shape))(keys)
    else:
        u = jax.vmap(lambda key, x: process.start(key, field.event_shape, x))(keys, x)
    u = solver(field, u, times)
    t = jnp.full(u.shape[0], process.schedule.t_min, u.dtype)
    if denoise:
        return process.recover(u, field(u, t), t)[0]
    return u / process.coeffs(t[0]).a


@jax.jit
def _keys_of_samples(key: Key[Array, ""], numbers: UInt32[Array, "b"]) -> Key[Array, "b"]:
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, numbers)


def _batches(
    key: Key[Array, ""], num: int, batch_size: int, mesh: Mesh | None, *data: Any
) -> Iterator[tuple[int, int, list[Any]]]:
    """Yield (start, true size, [keys, *data]) with every array padded to batch_size by repeating its last row."""
    place = jnp.asarray if mesh is None else functools.partial(jax.device_put, device=_row_sharding(mesh))
    for start in range(0, num, batch_size):
        rows = np.minimum(np.arange(start, start + batch_size), num - 1)
        keys = _keys_of_samples(key, place(rows.astype(np.uint32)))
        arrays = [None if values is None else place(np.asarray(values)[rows]) for values in data]
        yield start, min(batch_size, num - start), [keys, *arrays]


def _row_sharding(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec(mesh.axis_names))


def _check_sizes(num: int, batch_size: int, mesh: Mesh | None) -> int:
    for name, value in (("num", num), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name} = {value}: must be at least 1")
    devices = 1 if mesh is None else mesh.size
    return -(-min(batch_size, num) // devices) * devices


def _lookup(name: str, value: str, table: dict[str, Any]) -> Any:
    if value not in table:
        raise ValueError(f"{name} = {value!r}: must be one of {', '.join(table)}")
    return table[value]
