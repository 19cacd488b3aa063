"""Samples from a workdir, as a picture and as arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import jax.numpy as jnp
import numpy as np

from geonoise_jax import build, files
from geonoise_jax.drawing import animation, pictures
from geonoise_jax.drawing.outputs import write
from geonoise_jax.errors import UserError
from geonoise_jax.evaluation.point_files import Space, as_events, read_points, space_of
from geonoise_jax.evaluation.restore import Trained, restore
from geonoise_jax.progress import Progress
from geonoise_jax.sampling.generation import Samples
from geonoise_jax.sampling.samplers import find

_PICTURE = 256
_NUM = 64
# Samples of a model, which may be started from again, leave [-1, 1] by less.
_REACH = 3.0
_OF_GENERATE = ("sampler", "num_steps", "grid", "start_time", "end_time", "denoise", "batch_size")


@dataclasses.dataclass(frozen=True)
class Options:
    """Choices for drawing samples; None means what the config of the run says.

    Attributes:
        num: number of samples; None: as many as there are data to start from, or 64.
        x: .npy or .npz file of data to start from, [num, *event] or flattened, which are noised to the start: floats in
            model space, or integers as the data set stores them; or an image or a folder of images.
        seed: seed of the start noise.
        sampler: name of the sampler; another one than the config's starts with its own options, and without what it has
            no use for: num_steps and grid, end_time and denoise.
        sampler_options: options of the sampler, which replace those of the config one by one.
        num_steps: steps of the time grid.
        grid: name of the time grid.
        start_time: time at which sampling starts.
        end_time: time at which it ends.
        denoise: whether the last observation is replaced by the estimate of x.
        batch_size: samples computed at once over all devices, rounded up to a multiple of the devices.
        label: one class for all samples of a class-conditional model; otherwise the classes take turns.
        step: number of updates of the checkpoint, or ``best``; None for the latest sound one.
        params: ``ema``, the averaged parameters, or ``raw``, those that training updates.
        guidance: scale of classifier-free guidance.
        guidance_interval: noise levels, lowest and highest, at which it is applied; empty for all. With a guidance of
            1 that of the config is left out.
        png: whether each sample is written as a picture of its own too.
        uint8: whether all samples are written as pixels 0..255 too.
        animate: whether their way from noise is written as a GIF too.
    """

    num: int | None = None
    x: Path | None = None
    seed: int = 0
    sampler: str | None = None
    sampler_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    num_steps: int | None = None
    grid: str | None = None
    start_time: float | None = None
    end_time: float | None = None
    denoise: bool | None = None
    batch_size: int | None = None
    label: int | None = None
    step: int | str | None = None
    params: str = "ema"
    guidance: float | None = None
    guidance_interval: tuple[float, ...] | None = None
    png: bool = False
    uint8: bool = False
    animate: bool = False


def draw(folder: str | PurePath, out: str | PurePath, options: Options) -> list[PurePath]:
    """Restore a workdir's field, draw samples over all devices, and write ``OUT.png`` and ``OUT.npz``.

    The .npz holds ``samples`` [num, *event] in model space, what the sampler measured of each (``evaluations`` of the
    network and, for samplers that read it off, ``noise_level``), ``labels`` if there are classes, and ``step``. With
    ``png`` the folder ``OUT`` holds each sample as ``000000.png``, ``000001.png``, ...; with ``uint8`` there is
    ``OUT.npy``, uint8 [num, H, W, C]; with ``animate`` the way of the samples from noise, as ``OUT.gif``.

    Returns:
        The files written.

    Raises:
        ValueError: if the folder is no workdir, or an option is out of its range.
    """
    out = files.location(out, "out")
    given = None if options.x is None else read_points(options.x, "x")
    trained = restore(folder, step=options.step, params=options.params)
    _check_pictures(options, trained.field.event_shape)
    x = None if given is None else as_events(given, _space(trained))
    num = _number(options.num, x)
    labels = trained.labels(num, options.label)
    chosen = {name: getattr(options, name) for name in _OF_GENERATE if getattr(options, name) is not None}
    if options.sampler is not None:
        chosen["sampler"] = build.sampler(options.sampler)
    # Among the arguments of sampling.generate they could not be told from these.
    find(chosen.get("sampler", trained.sampling.options.get("sampler", "heun")), options.sampler_options)
    progress = Progress("sample", num, "samples")
    samples = trained.generate(
        num,
        options.seed,
        labels=labels,
        guidance=options.guidance,
        guidance_interval=options.guidance_interval,
        x=x,
        on_batch=lambda done, _: progress.update(done),
        trajectory=options.animate,
        **chosen,
        **options.sampler_options,
    )
    progress.close()
    title = pictures.caption(
        files.absolute(folder).name, trained.step, samples.sampler, samples.statistics.get("evaluations")
    )
    written = _write(out, samples, labels, trained.step, title)
    if options.png or options.uint8:
        written += pictures.write_each(out, pictures.to_pixels(samples.x), png=options.png, npy=options.uint8)
    if options.animate:
        written.append(_animated(out, trained, samples, title))
    return written


def _animated(out: PurePath, trained: Trained, samples: Samples, title: str) -> PurePath:
    states, times = np.asarray(samples.trajectory), np.asarray(samples.times)
    a, b = (np.asarray(scale) for scale in trained.field.process.schedule.scales(jnp.asarray(times)))
    path = out.with_name(out.name + ".gif")
    animation.save(path, animation.frames(states, times, np.hypot(a, b), title=title))
    return path


def _space(trained: Trained) -> Space:
    facts = trained.facts
    scaling = None if facts.center is None or facts.scale is None else (facts.center, facts.scale)
    return space_of(trained.config, trained.field.event_shape, scaling, _REACH)


def _check_pictures(options: Options, event: tuple[int, ...]) -> None:
    for name in ("png", "uint8"):
        if getattr(options, name) and len(event) != 3:
            raise UserError(f"{name} = True: has no effect on samples {list(event)}, which are no images; leave it out")
    if options.png and event[-1] not in (1, 3, 4):
        raise UserError(f"png = True: samples {list(event)} have {event[-1]} channels; pictures have 1, 3 or 4")


def _number(num: int | None, x: np.ndarray | None) -> int:
    if num is not None and x is not None and num != len(x):
        raise UserError(f"num = {num}: must be left out or {len(x)}, the number of data to start from (x)")
    return len(x) if x is not None else _NUM if num is None else num


def _write(out: PurePath, samples: Samples, labels: np.ndarray | None, step: int, title: str) -> list[PurePath]:
    arrays: dict[str, Any] = {"samples": samples.x, "step": step, **samples.statistics}
    if labels is not None:
        arrays["labels"] = labels
    return write(out, pictures.sample_picture(samples.x[:_PICTURE], title=title), arrays)
