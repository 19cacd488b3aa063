"""What is evaluated: models of workdirs, and the ways in which each is sampled."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import math
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

import jax.numpy as jnp
import numpy as np

from geonoise_jax import build
from geonoise_jax.config.defaults import plain
from geonoise_jax.errors import UserError
from geonoise_jax.evaluation.evaluator.options import ALL, LAST, Options
from geonoise_jax.evaluation.restore import Trained, adjusted, saved_steps
from geonoise_jax.sampling.batches import whole
from geonoise_jax.sampling.generation import check, class_turns
from geonoise_jax.sampling.planning import GRID, NUM_STEPS
from geonoise_jax.sampling.samplers import Sampler, find
from geonoise_jax.training.fingerprint import fingerprint
from geonoise_jax.training.run import Sampling, checked_guidance

FOLDER = "evaluation"
_DIGITS = 10
_TAKEN = ("grid", "start_time", "end_time", "denoise", "batch_size")
Restoring = Callable[..., Trained]


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """One set of parameters of a workdir, restored when it is needed.

    Attributes:
        workdir: the workdir.
        restoring: returns the restored model.
    """

    workdir: PurePath
    restoring: Callable[[], Trained]

    @functools.cached_property
    def trained(self) -> Trained:
        """The restored model."""
        return self.restoring()

    def release(self) -> None:
        """Let go of the restored model, which is restored again when it is needed."""
        vars(self).pop("trained", None)

    @functools.cached_property
    def fingerprint(self) -> str:
        """What tells these parameters from others."""
        sums = fingerprint(self.trained.field.params)
        return hashlib.sha256(repr(sums).encode()).hexdigest()[:_DIGITS]


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A model and one way to sample it.

    Attributes:
        model: the model.
        sampling: how samples are drawn.
        seed: seed of the start noise.
    """

    model: Model
    sampling: Sampling
    seed: int

    @property
    def step(self) -> int:
        """Number of updates of the parameters."""
        return self.model.trained.step

    @functools.cached_property
    def description(self) -> dict[str, Any]:
        """All that the samples depend on but their number, as JSON has it."""
        trained, options = self.model.trained, dict(self.sampling.options)
        options.pop("batch_size", None)
        name = options.pop("sampler", "heun")
        sampler = name if isinstance(name, Sampler) else find(name, {})
        if sampler.gridded:
            options = {"num_steps": NUM_STEPS, "grid": GRID, **options}
        guided = {} if self.sampling.guidance == 1.0 else {"guidance": self.sampling.guidance}
        interval = {} if self.sampling.interval is None else {"guidance_interval": list(self.sampling.interval)}
        return {
            "step": trained.step,
            "params": trained.params,
            "parameters": self.model.fingerprint,
            "sampler": str(name),
            "options": {key: plain(value) for key, value in sorted(options.items())},
            **guided,
            **interval,
            "seed": self.seed,
            "classes": trained.field.null_label or 0,
            "dtype": str(np.dtype(jnp.result_type(float))),
        }

    @functools.cached_property
    def digest(self) -> str:
        """Name of the description."""
        text = json.dumps(self.description, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]

    @property
    def folder(self) -> PurePath:
        """Where samples and features are kept."""
        return self.model.workdir / FOLDER / f"{self.step}-{self.digest}"

    @property
    def way(self) -> str:
        """Return sampler, steps and what else differs from a plain run, in few words."""
        found = self.description
        steps = found["options"].get("num_steps")
        words = [found["sampler"] + ("" if steps is None else f" {steps}")]
        words += [f"guidance {found['guidance']:g}"] if "guidance" in found else []
        words += [found["params"]] if found["params"] != "ema" else []
        return ", ".join(words)

    def labels(self, start: int, num: int) -> np.ndarray | None:
        """Return the classes of samples start, start + 1, ...: they take turns."""
        return class_turns(num, self.model.trained.field.null_label or 0, start)


def models(workdir: PurePath, options: Options, restoring: Restoring) -> list[Model]:
    """Return the models of a workdir that are asked for.

    Raises:
        UserError: if a workdir has no checkpoint, or not that of a step.
    """
    steps: list[int | str | None] = [None]
    if options.step == ALL:
        steps = list(saved_steps(workdir))
    elif options.step != LAST:
        steps = [options.step]
    averages: list[dict[str, Any]] = [{"ema": width} for width in options.ema] or [{"params": options.params}]
    chosen = itertools.product(steps, averages)
    return [Model(workdir, functools.partial(restoring, workdir, step=step, **average)) for step, average in chosen]


def cases(model: Model, options: Options) -> list[Case]:
    """Return the ways in which a model is sampled.

    Raises:
        UserError: on what ``sampling.generate`` would refuse, before anything is sampled.
    """
    trained = model.trained
    swept = itertools.product(options.sampler or (None,), options.num_steps or (None,), options.guidance or (None,))
    found = [Case(model, _sampling(trained, options, *each), options.seed) for each in swept]
    for case in found:
        checked_guidance(
            case.sampling.guidance,
            case.sampling.interval,
            classes=bool(trained.field.null_label),
            label_dropout=trained.label_dropout,
        )
        check(case.sampling.field(trained.field), labels=bool(trained.field.null_label), **case.sampling.options)
    return found


def draw(case: Case, start: int, num: int) -> dict[str, np.ndarray]:
    """Return samples start, start + 1, ... in model space, with the evaluations of the network that each took."""
    trained = case.model.trained
    samples = trained.generate(
        num,
        case.seed,
        labels=case.labels(start, num),
        guidance=case.sampling.guidance,
        guidance_interval=case.sampling.interval or (),
        first=start,
        **{**case.sampling.options, "batch_size": num},
    )
    evaluations = samples.statistics.get("evaluations", np.full(num, np.nan))
    return {"x": samples.x, "evaluations": np.asarray(evaluations, np.float32)}


def batch_size(case: Case, num: int) -> int:
    """Return how many of ``num`` samples are drawn at once: as asked for or less, so that batches are of one size."""
    largest = min(case.sampling.options.get("batch_size") or num, num)
    return whole(math.ceil(num / math.ceil(num / largest)), case.model.trained.mesh)


def _sampling(
    trained: Trained, options: Options, sampler: str | None, num_steps: int | None, guidance: float | None
) -> Sampling:
    given = {name: getattr(options, name) for name in _TAKEN if getattr(options, name) is not None}
    if num_steps is not None:
        given["num_steps"] = num_steps
    if sampler is not None:
        given["sampler"] = build.sampler(sampler)
    name = given.get("sampler", trained.sampling.options.get("sampler", "heun"))
    if clash := set(options.sampler_options) & {"first", "mesh", "labels", "x", "noise", *given}:
        raise UserError(f"option {sorted(clash)[0]}: is no option of the sampler {name}")
    find(name, options.sampler_options)
    given = {**given, **options.sampler_options}
    return adjusted(trained.sampling, given, guidance, options.guidance_interval)
