"""Samples from a workdir, as a picture and as arrays."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from geonoise_jax import build
from geonoise_jax.evaluation.restore import Trained, restore_field
from geonoise_jax.figures import pictures
from geonoise_jax.progress import Progress
from geonoise_jax.sampling.generate import class_turns, sample
from geonoise_jax.training.sharding import sampling_mesh

_PICTURE = 256


@dataclasses.dataclass(frozen=True)
class Options:
    """Choices for drawing samples; None means what the config of the run says.

    Attributes:
        num: number of samples.
        seed: seed of the start noise.
        sampler: solver name.
        num_steps: steps of the time grid.
        grid: name of the time grid.
        batch_size: samples computed at once over all devices, rounded up to a multiple of the devices.
        label: one class for all samples of a class-conditional model; otherwise the classes take turns.
    """

    num: int
    seed: int = 0
    sampler: str | None = None
    num_steps: int | None = None
    grid: str | None = None
    batch_size: int | None = None
    label: int | None = None


def draw(folder: str | Path, out: str | Path, options: Options) -> list[Path]:
    """Restore a workdir's field, draw samples over all devices, and write ``OUT.png`` and ``OUT.npz``.

    The .npz holds ``samples`` [num, *event] in model space, ``labels`` if there are classes, and ``step``.

    Returns:
        The files written.

    Raises:
        ValueError: if the folder is no workdir, or an option is out of its range.
    """
    mesh = sampling_mesh()
    trained = restore_field(folder, mesh)
    labels = class_labels(trained, options)
    progress = Progress("sample", options.num, "samples")
    samples = sample(
        trained.field,
        jax.random.key(options.seed),
        options.num,
        **sampling_options(options, trained.config),
        labels=labels,
        mesh=mesh,
        on_batch=lambda done, _: progress.update(done),
    )
    progress.close()
    return _write(Path(out), samples, labels, trained.step)


def sampling_options(options: Options, config: ConfigDict) -> dict[str, Any]:
    """Return the config's arguments of ``sampling.sample``, replaced by the options that are not None."""
    configured = build.sampling_options(config)
    given = {name: getattr(options, name, None) for name in configured}
    return {name: configured[name] if value is None else value for name, value in given.items()}


def class_labels(trained: Trained, options: Options) -> np.ndarray | None:
    """Return the class of each sample, or None for a model without classes.

    Raises:
        ValueError: if a label is given that the model does not have.
    """
    classes = trained.field.module.num_classes
    if options.label is not None and not 0 <= options.label < classes:
        allowed = f"in 0..{classes - 1}" if classes else "left out: the model has no classes"
        raise ValueError(f"label = {options.label}: must be {allowed}")
    if options.label is not None:
        return np.full(options.num, options.label, np.int32)
    return class_turns(options.num, classes)


def _write(out: Path, samples: np.ndarray, labels: np.ndarray | None, step: int) -> list[Path]:
    out.parent.mkdir(parents=True, exist_ok=True)
    png, npz = out.with_name(out.name + ".png"), out.with_name(out.name + ".npz")
    pictures.save(pictures.sample_picture(samples[:_PICTURE], title=f"step {step}"), png)
    arrays: dict[str, Any] = {"samples": samples, "step": step}
    np.savez_compressed(npz, **(arrays if labels is None else {**arrays, "labels": labels}))
    return [png, npz]
