"""Samples from a workdir, as a picture and as arrays."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from geonoise_jax import build
from geonoise_jax.config import fit_sampling, set_spec, spec
from geonoise_jax.errors import UserError
from geonoise_jax.evaluation.point_files import Space, as_events, read_points, space_of
from geonoise_jax.evaluation.restore import Trained, restore_field
from geonoise_jax.figures import pictures
from geonoise_jax.figures.outputs import write
from geonoise_jax.process.keys import root_key
from geonoise_jax.progress import Progress
from geonoise_jax.sampling.generation import Samples, class_turns, generate
from geonoise_jax.training.sharding import sampling_mesh

_PICTURE = 256
_NUM = 64
# Samples of a model, which may be started from again, leave [-1, 1] by less.
_REACH = 3.0


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
        guidance: scale of classifier-free guidance.
        guidance_interval: noise levels, lowest and highest, at which it is applied; empty for all. With a guidance of
            1 that of the config is left out.
        png: whether each sample is written as a picture of its own too.
        uint8: whether all samples are written as pixels 0..255 too.
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
    guidance: float | None = None
    guidance_interval: tuple[float, ...] | None = None
    png: bool = False
    uint8: bool = False


def draw(folder: str | Path, out: str | Path, options: Options) -> list[Path]:
    """Restore a workdir's field, draw samples over all devices, and write ``OUT.png`` and ``OUT.npz``.

    The .npz holds ``samples`` [num, *event] in model space, what the sampler measured of each (``evaluations`` of the
    network and, for samplers that read it off, ``noise_level``), ``labels`` if there are classes, and ``step``. With
    ``png`` the folder ``OUT`` holds each sample as ``000000.png``, ``000001.png``, ...; with ``uint8`` there is
    ``OUT.npy``, uint8 [num, H, W, C].

    Returns:
        The files written.

    Raises:
        ValueError: if the folder is no workdir, or an option is out of its range.
    """
    given = None if options.x is None else read_points(options.x, "x")
    mesh = sampling_mesh()
    trained = restore_field(folder, mesh)
    _check_pictures(options, trained.field.event_shape)
    choice = chosen(trained.config, options)
    x = None if given is None else as_events(given, _space(trained))
    num = _number(options.num, x)
    labels = class_labels(trained, num, options.label)
    progress = Progress("sample", num, "samples")
    samples = generate(
        build.sampling_field(choice, trained.field),
        root_key(options.seed),
        num,
        **build.sampling_options(choice),
        x=x,
        labels=labels,
        mesh=mesh,
        on_batch=lambda done, _: progress.update(done),
    )
    progress.close()
    written = _write(Path(out), samples, labels, trained.step)
    if options.png or options.uint8:
        written += pictures.write_each(Path(out), pictures.to_pixels(samples.x), png=options.png, npy=options.uint8)
    return written


def chosen(config: ConfigDict, options: Options) -> ConfigDict:
    """Return a copy of the config whose sampling section has the options that are given, and nothing without effect."""
    config = copy.deepcopy(config)
    sampling = config.sampling
    if options.sampler is not None and options.sampler != sampling.sampler.name:
        set_spec(sampling.sampler, spec(options.sampler))
    with sampling.unlocked():
        sampling.sampler["kwargs"].update(options.sampler_options)
        for name in ("num_steps", "grid", "start_time", "end_time", "denoise", "batch_size"):
            if getattr(options, name) is not None:
                sampling[name] = getattr(options, name)
        if options.guidance is not None:
            sampling.guidance.scale = options.guidance
        if options.guidance_interval is not None:
            sampling.guidance.interval = options.guidance_interval
    given = {name for name in ("num_steps", "grid", "end_time", "denoise") if getattr(options, name) is not None}
    return fit_sampling(config, given | ({"guidance.interval"} if options.guidance_interval else set()))


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


def class_labels(trained: Trained, num: int, label: int | None) -> np.ndarray | None:
    """Return the class of each sample, one for all or in turns, or None for a model without classes.

    Raises:
        ValueError: if a label is given that the model does not have.
    """
    classes = trained.field.module.num_classes
    if label is not None and not 0 <= label < classes:
        allowed = f"in 0..{classes - 1}" if classes else "left out: the model has no classes"
        raise UserError(f"label = {label}: must be {allowed}")
    if label is not None:
        return np.full(num, label, np.int32)
    return class_turns(num, classes)


def _write(out: Path, samples: Samples, labels: np.ndarray | None, step: int) -> list[Path]:
    arrays: dict[str, Any] = {"samples": samples.x, "step": step, **samples.statistics}
    if labels is not None:
        arrays["labels"] = labels
    return write(out, pictures.sample_picture(samples.x[:_PICTURE], title=f"step {step}"), arrays)
