"""From a field to samples: the schedule's own start, a sampler, batches sharded over devices."""

from __future__ import annotations

import functools
import logging
import math
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key
from jaxtyping import ArrayLike as ArrayLike

from geonoise_jax import checks, processes
from geonoise_jax.errors import UserError
from geonoise_jax.fields import Field
from geonoise_jax.process.keys import root_key, threefry
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import Schedule
from geonoise_jax.sampling import given
from geonoise_jax.sampling.batches import batches, by_rows, size_of
from geonoise_jax.sampling.exactness import Exactness
from geonoise_jax.sampling.planning import Request, check_begin, planned
from geonoise_jax.sampling.samplers import Sampler
from geonoise_jax.sampling.stepping import recording

_LOG = logging.getLogger(__name__)
# What a sampler's own noise is drawn from: the key of the sample with this number folded in. The key itself draws the
# start, so that all samplers start alike.
_SAMPLER_NOISE = 0x5A4D
# Samplers that go on until they are done, unless max_steps comes first; EqM descent by default spends all its steps.
_STOPPING = ("bddm",)


class Samples(NamedTuple):
    """Samples on the host.

    Attributes:
        x: samples in data space.
        statistics: what the sampler measured of each sample, such as ``evaluations`` of the field.
        sampler: name of the sampler.
        times: the times of the trajectory, if one was asked for.
        trajectory: the observations ``u = a x + b eps`` at these times, the start included, of which the last led to
            ``x``.
    """

    x: Float[np.ndarray, "num *event"]
    statistics: dict[str, Float[np.ndarray, "num ..."]]
    sampler: str = ""
    times: Float[np.ndarray, "times"] | None = None
    trajectory: Float[np.ndarray, "times num *event"] | None = None


def sample(
    field: Field,
    key: Key[Array, ""],
    num: int,
    sampler: str | Sampler = "heun",
    num_steps: int | None = None,
    **options: Any,
) -> Float[np.ndarray, "*times num *event"]:
    """Draw samples of the data from a field: the ``x`` of :func:`generate`, which documents the arguments.

    With ``trajectory=True`` its trajectory instead, the observations at all times, [times, num, *event].
    """
    samples = generate(field, key, num, sampler, num_steps, **options)
    return samples.x if samples.trajectory is None else samples.trajectory


def generate(
    field: Field,
    key: Key[Array, ""],
    num: int,
    sampler: str | Sampler = "heun",
    num_steps: int | None = None,
    *,
    grid: str | None = None,
    times: Float[ArrayLike, "times"] | None = None,
    denoise: bool = False,
    x: Float[np.ndarray | Array, "num *event"] | None = None,
    noise: Float[np.ndarray | Array, "num *event"] | None = None,
    start_time: float | None = None,
    end_time: float | None = None,
    trajectory: bool = False,
    labels: Int[np.ndarray | Array, "num"] | None = None,
    first: int = 0,
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
        times: a grid of one's own in place of these two and of start and end: decreasing times of the schedule.
        denoise: replace the observation at t_min by the estimate of x at one more field evaluation; otherwise it is
            divided by a(t_min) and keeps noise of scale b(t_min) / a(t_min).
        x: data to start from, floats in model space, noised to the start; needed where a is not negligible there,
            refused where it is 0.
        noise: eps of the start, standard normal, in place of that of the key. What a stochastic sampler draws on its
            way is still the key's.
        start_time: time at which to start, if not t_max: less noise keeps more of x.
        end_time: time at which to end, if not t_min. Autonomous samplers take none.
        trajectory: keep the observations at all times too. They take as many times the memory of the samples as there
            are times: on the devices that of one batch, on the host that of all samples. Adaptive and autonomous
            samplers, which go along no grid, have none.
        labels: class of each sample, for a class-conditional network.
        first: number i of the first sample: those before it are left out.
        batch_size: samples computed at once; all by default. It is rounded up to a multiple of the devices, and a last
            partial batch is padded, so that there is one compile.
        mesh: devices to shard each batch over, along its first axis; those of several processes, if all of them call
            this with the same arguments, of which each has all samples then.
        on_batch: called as ``on_batch(done, num)`` after each batch.
        options: options of the sampler.

    Returns:
        Samples in data space and statistics, on the host. Where an exact field misses the accuracy asked of it,
        ``statistics["exact_error"]`` is the largest estimated error, [num], and it is warned of. Samples that an
        adaptive sampler could not finish are logged as a warning and marked in ``statistics["failed"]``.

    Raises:
        ValueError: on an unknown sampler, grid or option, a size that is not positive, a value out of its range, an
            argument without effect, something that is no field or no key, ``x``, ``noise`` or ``labels`` of another
            type or shape, or a trajectory beyond the memory of this machine.
    """
    given.field(field)
    given.key(key)
    request = Request(sampler, num_steps, grid, times, denoise, start_time, end_time, trajectory, options)
    chosen = planned(field, request)
    batch_size = size_of(num, batch_size, mesh)
    for name, events in (("x", x), ("noise", noise)):
        if events is not None:
            given.model_space(name, events, (num, *field.event_shape))
    if labels is not None:
        given.labels("labels", labels, num)
    check_begin(chosen.within, request, x is not None)
    dtype = np.dtype(chosen.times.dtype)
    checks.integer("first", first, low=0)
    _check_room(f"num = {num}", (num, *field.event_shape), dtype)
    path = None
    if trajectory:
        states = (len(chosen.times), num, *field.event_shape)
        _check_room("trajectory = True", states, dtype)
        path = np.empty(states, dtype)
    parts, exactness = [], Exactness()
    # Threefry from here on: the draws of other kinds of keys depend on the batch that a key is in.
    for start, size, (keys, *data) in batches(threefry(key), num, batch_size, mesh, x, noise, labels, first=first):
        with exactness.of_batch(len(keys), size):
            *ends, ways = _sample_batch(field, keys, *data, times=chosen.times, **chosen.static)
            parts.append(jax.tree.map(lambda rows, size=size: rows[:size], processes.to_host(ends)))
        if path is not None:
            path[:, start : start + size] = processes.to_host(ways)[:, :size]
        if on_batch is not None:
            on_batch(start + size, num)
    drawn, statistics = jax.tree.map(lambda *each: np.concatenate(each), *parts)
    samples = Samples(drawn, statistics, str(sampler))
    if path is not None:
        samples = samples._replace(times=np.asarray(chosen.times), trajectory=path)
    exactness.tell(samples.statistics)
    _warn_of_failures(sampler, samples)
    return samples


def _check_room(name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Refuse an array that is larger than the memory of this machine."""
    size = math.prod(shape) * dtype.itemsize
    if hasattr(os, "sysconf") and size > (memory := os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")):
        raise UserError(
            f"{name}: {list(shape)} numbers would take {size / 2**30:.1f} GiB of the {memory / 2**30:.1f} GiB of this "
            "machine; ask for fewer samples or times"
        )


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
    request = Request(
        sampler, num_steps, grid, denoise=denoise, start_time=start_time, end_time=end_time, options=options
    )
    chosen = planned(field, request)
    if x is not None:
        check_begin(chosen.within, request, x)
    size_of(1, batch_size, None)
    run = functools.partial(_sample_batch, times=chosen.times, **chosen.static)
    jax.eval_shape(run, field, *_described(field, 2, None, x=x is not False, labels=labels))


def traced(
    field: Field,
    num: int,
    sampler: str | Sampler = "heun",
    num_steps: int | None = None,
    *,
    grid: str | None = None,
    denoise: bool = False,
    start_time: float | None = None,
    end_time: float | None = None,
    labels: bool = False,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
    **options: Any,
) -> tuple[jax.stages.Traced, int, int | None]:
    """Return the program of one batch of :func:`generate`, traced from shapes alone.

    Args:
        field: any Field; its arrays may be ``jax.ShapeDtypeStruct``, with shardings on the devices of the mesh.
        labels: whether samples have class labels.
        num, sampler, num_steps, grid, denoise, start_time, end_time, batch_size, mesh, options: as for
            :func:`generate`; the devices of the mesh need not be there.

    Returns:
        The program, the samples of its batch, and the evaluations of the field for each of them: None where each
        decides for itself.

    Raises:
        ValueError: as :func:`generate`.
    """
    request = Request(
        sampler, num_steps, grid, denoise=denoise, start_time=start_time, end_time=end_time, options=options
    )
    chosen, size = planned(field, request), size_of(num, batch_size, mesh)
    times = jax.ShapeDtypeStruct(chosen.times.shape, chosen.times.dtype)
    data = _described(field, size, mesh, x=False, labels=labels)
    evaluations = chosen.sampler.evaluations(len(times) - 1, **dict(chosen.options))
    last = None if evaluations is None else evaluations + denoise
    return _sample_batch.trace(field, *data, times=times, **chosen.static), size, last


def _described(field: Field, size: int, mesh: Mesh | None, *, x: bool, labels: bool) -> tuple[Any, ...]:
    """Return shapes and places of the keys, data, noise and labels of a batch."""
    rows = None if mesh is None else by_rows(mesh)

    def rows_of(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((size, *shape), dtype, sharding=rows)

    keys = rows_of((), jax.eval_shape(lambda: root_key(0)).dtype)
    data = rows_of(field.event_shape, jnp.result_type(float)) if x else None
    return keys, data, None, rows_of((), jnp.int32) if labels else None


def class_turns(num: int, num_classes: int, first: int = 0) -> Int[np.ndarray, "num"] | None:
    """Return labels of samples ``first``, ..., in which the classes take turns, or None where there are no classes."""
    return (first + np.arange(num, dtype=np.int32)) % num_classes if num_classes else None


@functools.partial(jax.jit, static_argnames=("within", "sampler", "options", "denoise", "trajectory"))
def _sample_batch(
    field: Any,
    keys: Key[Array, "b"],
    x: Float[Array, "b *event"] | None,
    noise: Float[Array, "b *event"] | None,
    labels: Int[Array, "b"] | None,
    *,
    times: Float[Array, "times"],
    within: Schedule,
    sampler: Sampler,
    options: tuple[tuple[str, Any], ...],
    denoise: bool,
    trajectory: bool,
) -> tuple[Float[Array, "b *event"], dict[str, Float[Array, "b ..."]], Float[Array, "times b *event"] | None]:
    if labels is not None:
        if not hasattr(field, "with_labels"):
            raise UserError(f"labels: must be None for a {type(field).__name__}, which has no classes")
        field = field.with_labels(labels)
    process = Process(within, field.process.parameterization)
    u = jax.vmap(lambda key, x, noise: process.start(key, field.event_shape, x, noise=noise))(keys, x, noise)
    noise_keys = jax.vmap(lambda key: jax.random.fold_in(key, _SAMPLER_NOISE))(keys)
    with recording(trajectory) as paths:
        u, statistics = sampler(field, u, times, noise_keys, **dict(options))
    if trajectory and len(paths) != 1:
        raise UserError("trajectory = True: must be False with a sampler that does not take its steps by ``march``")
    path = paths[0] if trajectory else None
    if denoise and "evaluations" in statistics:
        statistics = {**statistics, "evaluations": statistics["evaluations"] + 1}
    return (_to_data(field, u, within.t_min, denoise) if sampler.timed else u), statistics, path


def _to_data(field: Field, u: Float[Array, "b *event"], end: float, denoise: bool) -> Float[Array, "b *event"]:
    """Return the samples that observations at the end time stand for."""
    process = field.process
    t = jnp.full(u.shape[0], end, u.dtype)
    if denoise:
        return process.recover(u, field(u, t), t)[0]
    return u / process.coeffs(t[0]).a


def _warn_of_failures(sampler: str | Sampler, samples: Samples) -> None:
    num, statistics = len(samples.x), samples.statistics
    if failed := int(np.sum(statistics.get("failed", 0))):
        _LOG.warning("%s did not finish %d of %d samples: raise max_steps", sampler, failed, num)
    if sampler in _STOPPING and (unfinished := int(np.sum(statistics["converged"] == 0))):
        _LOG.warning("%s reached max_steps before it converged with %d of %d samples", sampler, unfinished, num)
    infinite = int(np.sum(~np.isfinite(samples.x).reshape(num, -1).all(axis=1)))
    if infinite:
        _LOG.warning("%s: %d of %d samples are not finite", sampler, infinite, num)
