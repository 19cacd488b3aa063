"""From a field to samples: the schedule's own start, a sampler, batches sharded over devices."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, Key, UInt32

from geonoise_jax.errors import UserError
from geonoise_jax.exact.delivery import listening
from geonoise_jax.fields import Field
from geonoise_jax.process.grids import GRIDS
from geonoise_jax.process.keys import root_key, threefry
from geonoise_jax.process.process import Process, check_start
from geonoise_jax.process.schedules import Schedule
from geonoise_jax.sampling import checks
from geonoise_jax.sampling.samplers import Sampler, find

_LOG = logging.getLogger(__name__)
# What a sampler's own noise is drawn from: the key of the sample with this number folded in. The key itself draws the
# start, so that all samplers start alike.
_SAMPLER_NOISE = 0x5A4D
# Steps and grid of a sampler that takes the steps of a grid, where they are not given.
NUM_STEPS = 100
GRID = "uniform"
# Samplers that go on until they are done, unless max_steps comes first; EqM descent by default spends all its steps.
_STOPPING = ("bddm",)


class Samples(NamedTuple):
    """Samples on the host.

    Attributes:
        x: samples in data space.
        statistics: what the sampler measured of each sample, such as ``evaluations`` of the field.
    """

    x: Float[np.ndarray, "num *event"]
    statistics: dict[str, Float[np.ndarray, "num ..."]]


def sample(
    field: Field,
    key: Key[Array, ""],
    num: int,
    sampler: str | Sampler = "heun",
    num_steps: int | None = None,
    **options: Any,
) -> Float[np.ndarray, "num *event"]:
    """Draw samples of the data from a field: the ``x`` of :func:`generate`, which documents the arguments."""
    return generate(field, key, num, sampler, num_steps, **options).x


def generate(
    field: Field,
    key: Key[Array, ""],
    num: int,
    sampler: str | Sampler = "heun",
    num_steps: int | None = None,
    *,
    grid: str | None = None,
    denoise: bool = False,
    x: Float[np.ndarray | Array, "num *event"] | None = None,
    start_time: float | None = None,
    end_time: float | None = None,
    labels: Int[np.ndarray | Array, "num"] | None = None,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
    on_batch: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Samples:
    """Draw samples of the data from a field, with what the sampler measured of each.

    Sample i depends on (key, i) alone: the batch size and the number of devices change nothing beyond rounding. An
    argument that would have no effect is refused.

    Args:
        field: any Field: exact or trained, blind or conditional.
        key: PRNG key of any kind.
        num: number of samples.
        sampler: a name of ``samplers.SAMPLERS``, or a ``samplers.Sampler``.
        num_steps: number of steps of the grid; 100 by default. Adaptive and autonomous samplers take none.
        grid: ``"uniform"`` in t, the default, ``"rho"`` (EDM) or ``"log_snr"``. Adaptive and autonomous samplers take
            none.
        denoise: replace the observation at t_min by the estimate of x at one more field evaluation; otherwise it is
            divided by a(t_min) and keeps noise of scale b(t_min) / a(t_min).
        x: data to start from, floats in model space, noised to the start; needed where a is not negligible there,
            refused where it is 0.
        start_time: time at which to start, if not t_max: less noise keeps more of x.
        end_time: time at which to end, if not t_min. Autonomous samplers take none.
        labels: class of each sample, for a class-conditional network.
        batch_size: samples computed at once; all by default. It is rounded up to a multiple of the devices, and a last
            partial batch is padded, so that there is one compile.
        mesh: devices to shard each batch over, along its first axis.
        on_batch: called as ``on_batch(done, num)`` after each batch.
        options: options of the sampler.

    Returns:
        Samples in data space and statistics, on the host. Where an exact field misses the accuracy asked of it,
        ``statistics["exact_error"]`` is the largest estimated error, [num], and it is warned of. Samples that an
        adaptive sampler could not finish are logged as a warning and marked in ``statistics["failed"]``.

    Raises:
        ValueError: on an unknown sampler, grid or option, a size that is not positive, a value out of its range, an
            argument without effect, ``x`` that are no floats, or ``x`` or ``labels`` of the wrong length.
    """
    fixed = _fixed(field, sampler, num_steps, grid, denoise, start_time, end_time, options)
    batch_size = _check_sizes(num, num if batch_size is None else batch_size, mesh)
    for name, value in (("x", x), ("labels", labels)):
        if value is not None and len(value) != num:
            raise UserError(f"len({name}) = {len(value)}: must be num = {num}")
    if x is not None:
        checks.model_space("x", x)
    _check_start(fixed["within"], start_time, x is not None)
    run = functools.partial(_sample_batch, **fixed)
    batches, missed = [], []
    # Threefry from here on: the draws of other kinds of keys depend on the batch that a key is in.
    for start, size, (keys, *data) in _batches(threefry(key), num, batch_size, mesh, x, labels):
        with _errors_of(len(keys)) as error:
            batches.append(jax.tree.map(lambda rows, size=size: np.asarray(rows)[:size], run(field, keys, *data)))
        missed.append(error[:size])
        if on_batch is not None:
            on_batch(start + size, num)
    samples = Samples(*jax.tree.map(lambda *parts: np.concatenate(parts), *batches))
    if any(error.any() for error in missed):
        samples.statistics["exact_error"] = np.concatenate(missed)
    _warn_of_failures(sampler, samples)
    return samples


@contextlib.contextmanager
def _errors_of(num: int) -> Iterator[Float[np.ndarray, "{num}"]]:
    """Collect the largest errors that exact fields report of a batch meanwhile."""
    worst = np.zeros(num)

    def hear(errors: Float[np.ndarray, "rows"]) -> None:
        if len(errors) == num:
            np.maximum(worst, errors, out=worst)

    with listening(hear):
        yield worst


def plan(
    schedule: Schedule,
    sampler: str | Sampler,
    num_steps: int | None = None,
    grid: str | None = None,
    **options: Any,
) -> tuple[Sampler, Float[Array, "times"]]:
    """Return the sampler and the times that these options mean for a schedule; only the ends for one without a grid.

    Raises:
        ValueError: on an unknown sampler, grid or option, a number of steps that is not positive, or a grid or a number
            of steps for a sampler that takes none.
    """
    chosen = find(sampler, options)
    if not chosen.gridded:
        _refuse_given(f"{sampler}, which takes no grid", num_steps=num_steps, grid=grid)
        return chosen, GRIDS[GRID](schedule, 1)
    grid = GRID if grid is None else grid
    if grid not in GRIDS:
        raise UserError(f"grid = {grid!r}: must be one of {', '.join(GRIDS)}")
    return chosen, GRIDS[grid](schedule, NUM_STEPS if num_steps is None else num_steps)


def _refuse_given(why: str, **unused: Any) -> None:
    """Refuse what is given (not None) although it has no effect."""
    checks.without_effect(why, {name: (value, None) for name, value in unused.items()})


def check(
    field: Field,
    sampler: str | Sampler = "heun",
    num_steps: int | None = None,
    *,
    grid: str | None = None,
    denoise: bool = False,
    start_time: float | None = None,
    end_time: float | None = None,
    x: bool | None = False,
    labels: bool = False,
    batch_size: int | None = None,
    **options: Any,
) -> None:
    """Refuse what :func:`generate` would refuse of a field and its arguments, without evaluating the field.

    Args:
        field: any Field; its arrays may be ``jax.ShapeDtypeStruct``.
        x: whether data to start from will be given; None if that is still open.
        labels: whether samples will have class labels.
        sampler, num_steps, grid, denoise, start_time, end_time, batch_size, options: as for :func:`generate`.

    Raises:
        ValueError: as :func:`generate`.
    """
    fixed = _fixed(field, sampler, num_steps, grid, denoise, start_time, end_time, options)
    if x is not None:
        _check_start(fixed["within"], start_time, x)
    _check_sizes(1, 1 if batch_size is None else batch_size, None)
    keys = jax.eval_shape(lambda: jax.random.split(root_key(0), 2))
    data = jax.ShapeDtypeStruct((2, *field.event_shape), jnp.result_type(float)) if x is not False else None
    classes = jax.ShapeDtypeStruct((2,), jnp.int32) if labels else None
    jax.eval_shape(functools.partial(_sample_batch, **fixed), field, keys, data, classes)


def _fixed(
    field: Field,
    sampler: str | Sampler,
    num_steps: int | None,
    grid: str | None,
    denoise: bool,
    start_time: float | None,
    end_time: float | None,
    options: dict[str, Any],
) -> dict[str, Any]:
    """Return what is the same for every batch."""
    within = sampled_range(field.process.schedule, start_time, end_time)
    chosen, times = plan(within, sampler, num_steps, grid, **options)
    if denoise and not chosen.timed:
        raise UserError(f"denoise = {denoise}: must be False with {sampler}, which already ends at an estimate of x")
    if not chosen.timed:
        _refuse_given(f"{sampler}, which ends where it has converged", end_time=end_time)
    _check_interval(field, within)
    return {
        "times": times,
        "within": within,
        "sampler": chosen,
        "options": tuple(sorted(options.items())),
        "denoise": denoise,
    }


def _check_interval(field: Field, within: Schedule) -> None:
    """Refuse guidance on an interval of noise levels of which none is sampled."""
    interval = getattr(field, "interval", None)
    if interval is not None and not (interval[0] <= within.t_max and within.t_min <= interval[1]):
        raise UserError(
            f"guidance interval = {interval}: has no effect, as sampling goes from t = {within.t_max:g} to "
            f"{within.t_min:g}; leave the guidance out"
        )


def _check_start(within: Schedule, start_time: float | None, from_data: bool) -> None:
    """Refuse to start from pure noise where it is not, saying which time is to blame, and from data where they are."""
    if from_data:
        with jax.ensure_compile_time_eval():
            kept = float(within.scales(jnp.asarray(within.t_max, jnp.result_type(float)))[0])
        if kept == 0.0:
            raise UserError(f"x: has no effect with a start at t = {within.t_max:g}, where a = 0; leave it out")
        return
    try:
        check_start(within)
    except ValueError as error:
        if start_time is None:
            raise
        raise UserError(f"start_time = {start_time:g}: too early to start from noise alone ({error})") from error


def sampled_range(schedule: Schedule, start_time: float | None, end_time: float | None) -> Schedule:
    """Return the part of a schedule that sampling from ``start_time`` to ``end_time`` covers.

    Raises:
        ValueError: if a time is not inside the schedule's range, or they are not in order.
    """
    low, high = schedule.t_min, schedule.t_max
    start, end = high if start_time is None else float(start_time), low if end_time is None else float(end_time)
    if not low < start <= high:
        raise UserError(f"start_time = {start_time}: must be in ({low:g}, {high:g}]")
    if not low <= end < start:
        raise UserError(f"end_time = {end_time}: must be in [{low:g}, {start:g})")
    return dataclasses.replace(schedule, t_min=end, t_max=start)


def class_turns(num: int, num_classes: int) -> Int[np.ndarray, "num"] | None:
    """Return labels in which the classes take turns, or None where there are no classes."""
    return np.arange(num, dtype=np.int32) % num_classes if num_classes else None


@functools.partial(jax.jit, static_argnames=("within", "sampler", "options", "denoise"))
def _sample_batch(
    field: Any,
    keys: Key[Array, "b"],
    x: Float[Array, "b *event"] | None,
    labels: Int[Array, "b"] | None,
    *,
    times: Float[Array, "times"],
    within: Schedule,
    sampler: Sampler,
    options: tuple[tuple[str, Any], ...],
    denoise: bool,
) -> tuple[Float[Array, "b *event"], dict[str, Float[Array, "b ..."]]]:
    if labels is not None:
        if not hasattr(field, "with_labels"):
            raise UserError(f"labels: must be None for a {type(field).__name__}, which has no classes")
        field = field.with_labels(labels)
    u = _start(Process(within, field.process.parameterization), keys, field.event_shape, x)
    noise_keys = jax.vmap(lambda key: jax.random.fold_in(key, _SAMPLER_NOISE))(keys)
    u, statistics = sampler(field, u, times, noise_keys, **dict(options))
    return (_to_data(field, u, within.t_min, denoise) if sampler.timed else u), statistics


def _start(
    process: Process, keys: Key[Array, "b"], event_shape: tuple[int, ...], x: Float[Array, "b *event"] | None
) -> Float[Array, "b *event"]:
    if x is None:
        return jax.vmap(lambda key: process.start(key, event_shape))(keys)
    return jax.vmap(lambda key, x: process.start(key, event_shape, x))(keys, x)


def _to_data(field: Field, u: Float[Array, "b *event"], end: float, denoise: bool) -> Float[Array, "b *event"]:
    """Return the samples that observations at the end time stand for."""
    process = field.process
    t = jnp.full(u.shape[0], end, u.dtype)
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
        if not isinstance(value, (int, np.integer)) or value < 1:
            raise UserError(f"{name} = {value}: must be at least 1")
    devices = 1 if mesh is None else mesh.size
    return -(-min(batch_size, num) // devices) * devices


def _warn_of_failures(sampler: str | Sampler, samples: Samples) -> None:
    num, statistics = len(samples.x), samples.statistics
    if failed := int(np.sum(statistics.get("failed", 0))):
        _LOG.warning("%s did not finish %d of %d samples: raise max_steps", sampler, failed, num)
    if sampler in _STOPPING and (unfinished := int(np.sum(statistics["converged"] == 0))):
        _LOG.warning("%s reached max_steps before it converged with %d of %d samples", sampler, unfinished, num)
    infinite = int(np.sum(~np.isfinite(samples.x).reshape(num, -1).all(axis=1)))
    if infinite:
        _LOG.warning("%s: %d of %d samples are not finite", sampler, infinite, num)
