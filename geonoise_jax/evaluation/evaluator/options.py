"""What an evaluation may be asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from geonoise_jax import checks
from geonoise_jax.errors import UserError
from geonoise_jax.evaluation.best import BEST
from geonoise_jax.evaluation.metrics.table import METRICS
from geonoise_jax.evaluation.restore import PARAMS

LAST, ALL = "last", "all"
HELD_OUT, TRAINING = "held_out", "training"
# Two for each of the 20 groups that intervals come from.
LEAST = 40
_SWEPT = ("sampler", "num_steps", "guidance", "ema")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Choices of an evaluation; None means what the config of the run says. Tuples are swept over.

    Attributes:
        metrics: names of ``metrics.table.METRICS``; None: those that the data allow and that take seconds.
        features: networks of features, ``efficientnet_lite0[:SIZE]``, ``inception[:PROTOCOL]`` or ``classifier``; None:
            ``efficientnet_lite0:112`` where its weights are installed.
        num: number of samples, at least 40.
        step: ``last``, ``all``, ``best``, of a run with ``checkpoint.keep_best``, or the number of updates of a
            checkpoint.
        params: ``ema``, the averaged parameters, or ``raw``.
        ema: widths of averages that are rebuilt of a run's snapshots, in place of ``params``.
        seed: seed of the start noise.
        sampler: names of samplers; another one than the config's starts with its own options.
        sampler_options: options of the sampler, which replace those of the config one by one.
        num_steps: steps of the time grid.
        grid, start_time, end_time, denoise: as for sampling.
        guidance: scales of classifier-free guidance.
        guidance_interval: noise levels at which it is applied; empty for all.
        batch_size: samples computed at once over all devices.
        reference: a workdir, whose samples are compared with, or a file of points or of published moments; None: the
            data set of the run.
        held_out: the split that training did not see.
        against: ``held_out``, or ``training``: samples are compared with training items, as published Fréchet distances
            are, and the floor is that of held-out ones.
        num_reference: items to compare with that are used; None for all.
        num_likelihood: held-out items whose likelihood is taken; None for all.

    Raises:
        ValueError: if a value is out of its range.
    """

    metrics: tuple[str, ...] | None = None
    features: tuple[str, ...] | None = None
    num: int = 1000
    step: str | int = LAST
    params: str = "ema"
    ema: tuple[float, ...] = ()
    seed: int = 0
    sampler: tuple[str, ...] = ()
    sampler_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    num_steps: tuple[int, ...] = ()
    grid: str | None = None
    start_time: float | None = None
    end_time: float | None = None
    denoise: bool | None = None
    guidance: tuple[float, ...] = ()
    guidance_interval: tuple[float, ...] | None = None
    batch_size: int | None = None
    reference: PurePath | None = None
    held_out: str = "test"
    against: str = HELD_OUT
    num_reference: int | None = None
    num_likelihood: int | None = 256

    def __post_init__(self) -> None:
        """Validate what no later step would refuse before it samples."""
        for name in self.metrics or ():
            checks.choice("metrics", name, METRICS)
        if self.metrics == ():
            raise UserError(f"metrics = (): must be one or more of {', '.join(METRICS)}")
        checks.integer("num", self.num, low=LEAST)
        checks.choice("params", self.params, PARAMS)
        checks.choice("against", self.against, (HELD_OUT, TRAINING))
        if self.reference is not None:
            checks.without_effect("reference", {"against": (self.against, HELD_OUT)})
        if self.step not in (LAST, ALL, BEST):
            checks.integer("step", self.step, low=0)
        for name in ("num_reference", "batch_size", "num_likelihood"):
            if getattr(self, name) is not None:
                checks.integer(name, getattr(self, name), low=LEAST if name == "num_reference" else 1)
        for name in (*_SWEPT, "metrics", "features"):
            values = getattr(self, name) or ()
            if len(set(values)) < len(values):
                raise UserError(f"{name} = {values}: must not name anything twice")
        if self.ema:
            checks.without_effect("ema", {"params": (self.params, "ema")})
