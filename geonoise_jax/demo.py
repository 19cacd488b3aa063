"""The demo: blind and conditional flow matching and DDPM on real digits, one net and one budget, side by side."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from geonoise_jax import build, config
from geonoise_jax.evaluation.point_metrics import sliced_wasserstein
from geonoise_jax.evaluation.restore import restore_field
from geonoise_jax.figures import demo_report, pictures
from geonoise_jax.progress import duration
from geonoise_jax.sampling.generate import sample
from geonoise_jax.training import metrics
from geonoise_jax.training.sharding import sampling_mesh
from geonoise_jax.training.train import train

SYSTEMS = ("flow_matching", "ddpm")
CONDITIONINGS = ("conditional", "blind")
_STEPS = 1200
_QUICK_STEPS = 200
_SAMPLES = 512


class InterruptedDemoError(Exception):
    """A training run of the demo was stopped by a signal, whose name is the second argument."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one model of the demo did.

    Attributes:
        system: name of the system.
        blind: whether the network had no noise input.
        loss: running mean of the training loss by step.
        samples: generated digits in model space.
        distance: sliced Wasserstein distance of the samples to held-out digits.
        train_seconds: training time, compilation included.
        sample_seconds: sampling time, compilation included.
    """

    system: str
    blind: bool
    loss: list[tuple[int, float]]
    samples: Float[np.ndarray, "n 8 8 1"]
    distance: float
    train_seconds: float
    sample_seconds: float


@dataclasses.dataclass(frozen=True)
class Baselines:
    """Distances that give the others a scale, for as many points as there are samples.

    Attributes:
        floor: training digits to held-out digits.
        noise: standard normal noise to held-out digits.
    """

    floor: float
    noise: float


def run(out: Path, *, quick: bool = False) -> str:
    """Train and sample four models, write ``samples.png`` and ``report.html`` into ``out``, and return the table.

    An interrupted demo goes on where it stopped when it is started again with the same folder.

    Args:
        out: folder of the results; the runs are in ``out/runs``.
        quick: train for fewer steps.

    Raises:
        ValueError: if the folder holds runs of another config.
        InterruptedDemoError: if a signal stopped a training run; its state is saved.
    """
    began = time.perf_counter()
    steps = _QUICK_STEPS if quick else _STEPS
    settings = {
        (system, conditioning): demo_config(system, conditioning, steps)
        for system in SYSTEMS
        for conditioning in CONDITIONINGS
    }
    some = next(iter(settings.values()))
    held_out, training = (_points(some, split) for split in ("test", "train"))
    outcomes = [
        _outcome(choice, out / "runs" / f"{system}-{conditioning}{'-quick' if quick else ''}", held_out)
        for (system, conditioning), choice in settings.items()
    ]
    baselines = _baselines(training, held_out)
    pictures.save(demo_report.side_by_side(outcomes, held_out), out / "samples.png")
    seconds = time.perf_counter() - began
    page = demo_report.page(outcomes, baselines, held_out, steps=steps, seconds=seconds)
    (out / "report.html").write_text(page, encoding="utf-8")
    table = demo_report.table(outcomes, baselines)
    return f"{table}\n\n{out / 'samples.png'}\n{out / 'report.html'}\ntotal time {duration(seconds)}"


def demo_config(system: str, conditioning: str, num_steps: int) -> ConfigDict:
    """Return the config of one model of the demo: the digits config with the demo's budget."""
    choice = config.load(f"configs/digits.py:{system},{conditioning}")
    overrides = {
        "training.num_steps": num_steps,
        "training.log_every": num_steps // 20,
        "checkpoint.every": num_steps // 2,
        "sampling.every": 0,
    }
    return config.override(choice, [(key, str(value)) for key, value in overrides.items()])


def _outcome(choice: ConfigDict, folder: Path, held_out: np.ndarray) -> Outcome:
    result = train(choice, folder)
    if result.stopped_by:
        saved = f"{result.stopped_by}: saved step {result.step} of {folder}; the same command goes on there"
        raise InterruptedDemoError(saved, result.stopped_by)
    lines = metrics.read(folder / "metrics.jsonl")
    began = time.perf_counter()
    samples = _draw(choice, folder)
    sample_seconds = time.perf_counter() - began
    return Outcome(
        system=folder.name.split("-")[0],
        blind=choice.model.blind,
        loss=[(line["step"], line["loss"]) for line in lines],
        samples=samples,
        distance=sliced_wasserstein(samples, held_out) if np.isfinite(samples).all() else float("inf"),
        train_seconds=lines[-1]["seconds"],
        sample_seconds=sample_seconds,
    )


def _draw(choice: ConfigDict, folder: Path) -> np.ndarray:
    mesh = sampling_mesh()
    trained = restore_field(folder, mesh)
    options = choice.sampling
    batch = -(-_SAMPLES // mesh.size) * mesh.size
    return sample(
        trained.field,
        jax.random.key(1),
        _SAMPLES,
        options.sampler,
        options.num_steps,
        grid=options.grid,
        batch_size=batch,
        mesh=mesh,
    )


def _points(choice: ConfigDict, split: str) -> np.ndarray:
    data = build.arrays(choice, split)
    return np.asarray(data.to_model(data.events))


def _baselines(training: np.ndarray, held_out: np.ndarray) -> Baselines:
    generator = np.random.default_rng(0)
    some = training[generator.permutation(len(training))[:_SAMPLES]]
    noise = generator.standard_normal((_SAMPLES, *training.shape[1:]))
    return Baselines(sliced_wasserstein(some, held_out), sliced_wasserstein(noise, held_out))
