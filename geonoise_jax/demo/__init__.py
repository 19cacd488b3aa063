"""The demo: blind and conditional systems on real digits, one net and one budget, side by side.

Four models by default, flow matching and DDPM, all through the same sampler; or every system, each through its own.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from geonoise_jax import build, config, files
from geonoise_jax.demo import report
from geonoise_jax.demo.outcomes import Baselines, Outcome
from geonoise_jax.drawing import pictures
from geonoise_jax.evaluation.floors import DRAWS, Measure, floor, over_draws, reference_spread, with_spread
from geonoise_jax.evaluation.point_metrics import SlicedWasserstein
from geonoise_jax.evaluation.restore import restore
from geonoise_jax.process.keys import root_key
from geonoise_jax.progress import duration
from geonoise_jax.sampling.generation import sample
from geonoise_jax.training import metrics
from geonoise_jax.training.sharding import sampling_mesh

FOUR = ("flow_matching,conditional", "flow_matching,blind", "ddpm,conditional", "ddpm,blind")
_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Budget:
    """What each of the four models may spend.

    Attributes:
        train_steps: training steps.
        sample_steps: steps of Heun's sampler, of two network evaluations each; None: each system's own sampler.
        samples: number of samples that are drawn.
    """

    train_steps: int
    sample_steps: int | None
    samples: int


FULL = Budget(train_steps=1000, sample_steps=50, samples=512)
QUICK = Budget(train_steps=120, sample_steps=25, samples=256)
OWN_SAMPLERS = Budget(train_steps=1000, sample_steps=None, samples=512)


class InterruptedDemoError(Exception):
    """A training run of the demo was stopped by a signal, whose name is the second argument."""


def run(out: Path, budget: Budget = FULL, models: Sequence[str] = FOUR) -> str:
    """Train and sample models, write ``samples.png`` and ``report.html`` into ``out``, and return the table.

    An interrupted demo goes on where it stopped when it is started again with the same folder.

    Args:
        out: folder of the results; the runs are in ``out/runs``.
        budget: what each model may spend.
        models: variants of the digits config, ``SYSTEM,CONDITIONING``.

    Raises:
        ValueError: if the folder holds runs of another config.
        InterruptedDemoError: if a signal stopped a training run; its state is saved.
    """
    began = time.perf_counter()
    settings = [demo_config(model, budget) for model in models]
    held_out, training = (_points(settings[0], split) for split in ("test", "train"))
    distance_to_held_out = SlicedWasserstein(held_out)
    outcomes = []
    for number, (model, choice) in enumerate(zip(models, settings, strict=True), start=1):
        _LOG.info("%s (%d of %d)", model, number, len(models))
        folder = out / "runs" / f"{model.replace(',', '-')}-{budget.train_steps}"
        outcomes.append(_outcome(model, choice, folder, budget.samples, distance_to_held_out))
    baselines = _baselines(training, held_out, budget.samples)
    pictures.save(report.side_by_side(outcomes, held_out), out / "samples.png")
    seconds = time.perf_counter() - began
    page = report.page(outcomes, baselines, held_out, steps=budget.train_steps, seconds=seconds)
    files.write_text(out / "report.html", page)
    table = report.table(outcomes, baselines)
    return f"{table}\n\n{out / 'samples.png'}\n{out / 'report.html'}\ntotal time {duration(seconds)}"


def demo_config(model: str, budget: Budget) -> ConfigDict:
    """Return the config of one model of the demo: the digits config with the demo's budget."""
    choice = config.load(f"configs/digits.py:{model}")
    overrides: dict[str, Any] = {
        "training.num_steps": budget.train_steps,
        "training.log_every": budget.train_steps // 20,
        "checkpoint.every": budget.train_steps // 2,
        "sampling.batch_size": budget.samples,
        "sampling.every": 0,
    }
    if budget.sample_steps is not None:
        overrides |= {"sampling.sampler.name": "heun", "sampling.num_steps": budget.sample_steps}
    return config.override(choice, [(key, str(value)) for key, value in overrides.items()])


def _outcome(model: str, choice: ConfigDict, folder: Path, num: int, measure: Measure) -> Outcome:
    result = build.train(choice, folder)
    if result.stopped_by:
        saved = f"{result.stopped_by}: saved step {result.step} of {folder}; the same command goes on there"
        raise InterruptedDemoError(saved, result.stopped_by)
    lines = metrics.read(folder / "metrics.jsonl")
    began = time.perf_counter()
    samples = _draw(choice, folder, num)
    sample_seconds = time.perf_counter() - began
    return Outcome(
        system=model.partition(",")[0],
        blind=choice.model.blind,
        loss=[(line["step"], line["loss"]) for line in lines],
        samples=samples,
        distance=with_spread(samples, measure),
        train_seconds=lines[-1]["seconds"],
        sample_seconds=sample_seconds,
    )


def _draw(choice: ConfigDict, folder: Path, num: int) -> np.ndarray:
    mesh = sampling_mesh()
    field = restore(folder, mesh=mesh).field
    return sample(field, root_key(1), num, **build.sampling_options(choice), mesh=mesh)


def _points(choice: ConfigDict, split: str) -> np.ndarray:
    return build.model_points(build.arrays(choice, split))


def _baselines(training: np.ndarray, held_out: np.ndarray, num: int) -> Baselines:
    measure, generator = SlicedWasserstein(held_out), np.random.default_rng(0)
    noise = over_draws([measure(generator.standard_normal((num, *training.shape[1:]))) for _ in range(DRAWS)])
    common = reference_spread(training[generator.permutation(len(training))[:num]], held_out, SlicedWasserstein)
    return Baselines(floor(training, num, measure), noise, common)
