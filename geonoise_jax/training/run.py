"""A training run as objects: what is trained on what, for how long, and how it is spread and watched.

:class:`Run` needs no config: a network, data and whatever is to differ from the defaults. ``build.run`` makes one of a
config.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, PyTree

from geonoise_jax.checks import integer
from geonoise_jax.data.arrays import Arrays
from geonoise_jax.data.augmentation import Augmentation
from geonoise_jax.data.pipeline import Pipeline
from geonoise_jax.errors import UserError
from geonoise_jax.fields import Field, GuidedField, NetworkField
from geonoise_jax.process import schedules, targets, times, weights
from geonoise_jax.process.keys import root_key
from geonoise_jax.process.process import Process
from geonoise_jax.training import ema, optimizer
from geonoise_jax.training.initial import InitFrom
from geonoise_jax.training.losses import Objective
from geonoise_jax.training.posthoc_ema import PosthocEMA
from geonoise_jax.training.sharding import Layout
from geonoise_jax.training.state import init_key, init_params
from geonoise_jax.training.watched import Best


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """How long a run is, and how often it reports and saves.

    Attributes:
        num_steps: number of updates.
        batch_size: samples of an update, over all devices.
        accumulate: micro-batches over which the gradient of one batch is summed.
        log_every: updates between lines of metrics.
        checkpoint_every: updates between checkpoints.
        keep: number of latest checkpoints that are kept.

    Raises:
        ValueError: if one is not a positive integer.
    """

    num_steps: int = 10_000
    batch_size: int = 128
    accumulate: int = 1
    log_every: int = 100
    checkpoint_every: int = 1000
    keep: int = 3

    def __post_init__(self) -> None:
        """Validate the numbers, by the names that they have in a config."""
        for field in dataclasses.fields(self):
            name = {"checkpoint_every": "checkpoint.every", "keep": "checkpoint.keep"}.get(field.name)
            integer(name or f"training.{field.name}", getattr(self, field.name), low=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """How samples are drawn from the averaged network, while it trains and by default afterwards.

    Attributes:
        every: updates between sample pictures; 0 for none.
        num: samples of a picture.
        guidance: scale of classifier-free guidance; 1 for none.
        interval: noise levels ``(lo, hi)`` of the guidance, or None for all.
        options: arguments of ``sampling.generate``: sampler, num_steps, grid, denoise, batch_size and so on.

    Raises:
        ValueError: if every is negative or num is not positive.
    """

    every: int = 1000
    num: int = 64
    guidance: float = 1.0
    interval: tuple[float, float] | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Validate the numbers, by the names that they have in a config."""
        integer("sampling.every", self.every, low=0)
        integer("sampling.num", self.num, low=1)

    def field(self, field: Field) -> Field:
        """Return the field that is sampled: with guidance if there is some."""
        return field if self.guidance == 1.0 else GuidedField(field, float(self.guidance), interval=self.interval)


def checked_guidance(
    scale: float, interval: Sequence[float] | None, *, classes: bool, label_dropout: float
) -> tuple[float, tuple[float, float] | None]:
    """Return scale and interval of guidance for a network that can give it.

    Raises:
        ValueError: if guidance is asked of a model without classes, or of one that was never trained without them, or
            an interval is given without guidance.
    """
    scale, within = float(scale), tuple(interval or ()) or None
    if scale == 1.0:
        if within is not None:
            raise UserError(
                f"sampling.guidance.interval = {within}: has no effect with sampling.guidance.scale = 1; leave it out"
            )
    elif not classes:
        raise UserError(f"sampling.guidance.scale = {scale}: must be 1 for a model without classes")
    elif not label_dropout > 0.0:
        raise UserError(
            f"sampling.guidance.scale = {scale}: must be 1 for a model trained with model.label_dropout = 0, "
            "which has no prediction without a class"
        )
    return scale, within  # type: ignore[return-value]


class Record(Protocol):
    """What a workdir knows its run by."""

    def compare(self, folder: PurePath) -> None:
        """Refuse a workdir that belongs to another run."""

    def write(self, folder: PurePath) -> None:
        """Store what identifies the run in its workdir."""


class Watch(Protocol):
    """Measures the averaged network while it trains; ``evaluation.watch`` makes one.

    Attributes:
        every: updates between evaluations.
        best: by which number the best checkpoint is kept beside the newest; None for none.
    """

    @property
    def every(self) -> int: ...
    @property
    def best(self) -> Best | None: ...

    def measure(self, run: Run, params: PyTree[Array], mesh: Mesh) -> Mapping[str, float]:
        """Return finite numbers by names that begin with ``watched.PREFIX``, of run and parameters alone."""


def default_process() -> Process:
    """Return the process of a run that names none: flow matching."""
    return Process(schedules.Linear(), targets.Velocity())


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Run:
    """Everything that training needs, built once.

    Attributes:
        network: Flax Linen module, called as ``net(u [b, *event], feature [b] | None, labels [b] | None,
            train=bool)``; its result has the shape of u. With an attribute ``conditional = False`` it is blind, and is
            given no noise feature; ``num_classes`` = C makes it class-conditional, with C as the label of "no class".
        data: the training set.
        process: schedule and target; by default :func:`default_process`.
        field_options: further arguments of ``fields.NetworkField``: noise_feature, output, preconditioner, reads_as,
            matmul_precision.
        objective: what is drawn and minimised; None: regression at noise levels uniform on the schedule's range.
        optimizer: optax chain; None: Adam at 1e-3 after a warm-up of 100 updates, gradients clipped to norm 1.
        learning_rate: the rate by step, of Adam and of the log; with an own optimizer of the log alone. None: the
            default rate, or none in the log.
        average: rule of the moving average of the parameters.
        posthoc: further averages from which any is rebuilt after training; None for none.
        budget, layout, sampling: see these classes.
        watch: what measures the network while it trains; None for nothing.
        init_from: the run whose parameters it starts from; None to start from fresh ones.
        seed: seed of everything random.
        flip: mirror each image left-right with probability 1/2.
        augment: what else is done to images and told to the network, which then has as many ``augment_dim``.
        placement: see ``data.Pipeline``.
        record: what the workdir knows the run by if not by these objects; ``dataclasses.replace`` drops it.

    Raises:
        ValueError: if data are no Arrays, the times that are drawn are not on the schedule's range, the classes of
            network, data and objective are not the same, or the network cannot be guided as ``sampling`` asks.
    """

    network: Any
    data: Arrays
    process: Process = dataclasses.field(default_factory=default_process)
    field_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    objective: Objective | None = None
    optimizer: optax.GradientTransformation | None = None
    learning_rate: optax.Schedule | None = None
    average: ema.EMA = dataclasses.field(default_factory=ema.Power)
    posthoc: PosthocEMA | None = None
    budget: Budget = dataclasses.field(default_factory=Budget)
    layout: Layout = dataclasses.field(default_factory=Layout)
    sampling: Sampling = dataclasses.field(default_factory=Sampling)
    watch: Watch | None = None
    init_from: InitFrom | None = None
    seed: int = 0
    flip: bool = False
    augment: Augmentation | None = None
    placement: str = "auto"
    record: Record | None = dataclasses.field(default=None, init=False)

    def __post_init__(self) -> None:
        """Validate what no other object validates."""
        if not isinstance(self.data, Arrays):
            raise UserError(f"Run.data is a {type(self.data).__name__}: must be geonoise_jax.data.Arrays(events=...)")
        goal, sampling = self.goal(), self.sampling
        checked_guidance(
            sampling.guidance, sampling.interval, classes=bool(self.num_classes), label_dropout=goal.label_dropout
        )
        self._check_classes(goal)
        told, wanted = getattr(self.network, "augment_dim", 0), self.augment.labels if self.augment else 0
        if told != wanted:
            raise UserError(f"network.augment_dim = {told}: must be {wanted}, the labels of augmentation")
        if self.objective is not None:
            times.check_within(self.objective.time_law, self.process.schedule)

    def __repr__(self) -> str:
        """Name the parts; a network and data may print as pages."""
        net, data, process = type(self.network).__name__, self.data, self.process
        target = type(process.parameterization).__name__
        return (
            f"Run({net} on {len(data)} items {list(data.event_shape)} of {data.name}/{data.split}, "
            f"{type(process.schedule).__name__} schedule, {target} target, {self.budget.num_steps} steps)"
        )

    def _check_classes(self, goal: Objective) -> None:
        classes, found = self.num_classes, self.data.num_classes
        if classes and classes != found:
            data = f"{self.data.name}/{self.data.split}"
            raise UserError(f"network.num_classes = {classes}: must be {found or 0}, the number of classes of {data}")
        if goal.null_label != (classes or None):
            wanted = f"{classes or None}, as the network has {classes} classes"
            raise UserError(f"objective.null_label = {goal.null_label}: must be {wanted}")

    @property
    def blind(self) -> bool:
        """Whether the network is given no noise level."""
        return not getattr(self.network, "conditional", True)

    @property
    def num_classes(self) -> int:
        """Number of classes that the network is told apart; 0 for none."""
        return getattr(self.network, "num_classes", 0)

    def goal(self) -> Objective:
        """Return the objective, the default one if none is given."""
        if self.objective is not None:
            return self.objective
        within = self.process.schedule
        law, weight = times.Uniform(within.t_min, within.t_max), weights.Unit(within)
        return Objective(law, weight, label_dropout=0.1 * bool(self.num_classes), null_label=self.num_classes or None)

    def chain(self) -> tuple[optax.GradientTransformation, optax.Schedule | None]:
        """Return the optimizer and its learning rate by step, where that is known."""
        if self.optimizer is not None:
            return self.optimizer, self.learning_rate
        rate = self.learning_rate or optimizer.learning_rate()
        return optimizer.clipped(optax.adam(rate)), rate

    def field(self, params: PyTree[Array] | None) -> NetworkField:
        """Return the network with these parameters as a Field."""
        options = {"matmul_precision": "highest", **self.field_options}
        return self.goal().network_field(
            params, self.network, self.process, self.data.event_shape, self.blind, **options
        )

    def pipeline(self) -> Pipeline:
        """Return the stream of training batches.

        Raises:
            ValueError: if the data has fewer items than a batch.
        """
        size, data = self.budget.batch_size, self.data
        if size > len(data):
            of = f"{data.name}/{data.split}"
            raise UserError(f"training.batch_size = {size}: must be at most {len(data)}, the number of items of {of}")
        # Which rows of a batch a process makes is said by the devices that they are for.
        whole = {"process_index": 0, "process_count": 1}
        options = {"placement": self.placement, "flip": self.flip, "augment": self.augment, **whole}
        return Pipeline(data, size, self.seed, **options)  # type: ignore[arg-type]


def recorded(run: Run, record: Record) -> Run:
    """Return the run, now known by this record."""
    known = dataclasses.replace(run)
    object.__setattr__(known, "record", record)
    return known


def check_network(run: Run) -> None:
    """Refuse a network that cannot be called as training does, or whose result has another shape than its input.

    Raises:
        ValueError: naming the class, what the call says, and how it is called.
    """
    shape, name = (2, *run.data.event_shape), type(run.network).__name__

    def call() -> Array:
        field = run.field(init_params(run.network, run.data.event_shape, init_key(0)))
        labels = jnp.zeros(2, jnp.int32) if run.num_classes else None
        key = root_key(0)
        u, t = jnp.zeros(shape), jnp.full(2, run.process.schedule.t_max)
        told = {"augment": jnp.zeros((2, run.augment.labels))} if run.augment else {}
        return field.with_labels(labels).apply(u, t, train=True, rngs={"dropout": key}, **told)

    if isinstance(run.network, type) or not (hasattr(run.network, "init") and hasattr(run.network, "apply")):
        raise UserError(f"network = {name}: must be a Flax Linen module instance, which has init and apply")
    try:
        found = jax.eval_shape(call)
    except TypeError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"network = {name}: must be called as net(u, t, labels, train=False), but: {reason}") from error
    returned = getattr(found, "shape", found)
    if returned != shape:
        raise UserError(f"network = {name}: must return an array of the shape of its input, {shape}, not {returned}")
