"""The training loop, top to bottom: validate, mesh, data, build, initialise or restore, loop, close."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from clu import parameter_overview
from jax.sharding import Mesh
from jaxtyping import Array, PyTree
from ml_collections import ConfigDict

from geonoise_jax import build, files
from geonoise_jax.data.arrays import Arrays
from geonoise_jax.errors import UserError
from geonoise_jax.figures import pictures
from geonoise_jax.process.keys import root_key
from geonoise_jax.progress import Progress
from geonoise_jax.sampling.generation import check, class_turns, sample
from geonoise_jax.signals import StopRequest
from geonoise_jax.training import ema, sharding, workdir
from geonoise_jax.training.checkpoint import Checkpoints
from geonoise_jax.training.dual_score import DualScore
from geonoise_jax.training.losses import Objective
from geonoise_jax.training.metrics import MetricsLog
from geonoise_jax.training.optimizer import learning_rate, optimizer
from geonoise_jax.training.state import TrainState, init_key, init_state
from geonoise_jax.training.step import StepReport, make_step

_LOG = logging.getLogger(__name__)
LOSSES = {"regression": Objective, "dual_score": DualScore}
# Points of the data behind a scatter plot of samples.
_REFERENCE = 2000


class DivergedError(UserError):
    """The loss, a gradient or an update was not finite."""


@dataclasses.dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes:
        step: number of updates done.
        stopped_by: name of the signal that stopped it, or None if it ran to the end.
        seconds: time spent in the loop by all runs of the workdir, compilation included.
    """

    step: int
    stopped_by: str | None
    seconds: float


@dataclasses.dataclass(frozen=True)
class Setup:
    """Everything a run needs that does not change while it trains."""

    config: ConfigDict
    folder: Path
    mesh: Mesh
    data: Arrays
    module: Any
    step: Callable[..., tuple[TrainState, StepReport]]
    init: Callable[[], TrainState]
    abstract: TrainState
    resident: dict[str, Array]
    batch: Callable[[int], dict[str, Array]]


def train(config: ConfigDict, folder: str | Path, *, devices: list[jax.Device] | None = None) -> Result:
    """Train the model of a config in a workdir, resuming from what the workdir holds.

    The result of a run is the same, bit for bit on one kind of device, however often it was interrupted.

    Args:
        config: see ``geonoise_jax.config``.
        folder: the workdir: config.json, checkpoints/, metrics.jsonl, samples/.
        devices: devices of the mesh; all by default.

    Returns:
        The last step and why the run ended.

    Raises:
        ValueError: on a config that cannot be built or a workdir of another config.
        DivergedError: if a step was not finite; the step is named, and the checkpoints are from before it.
    """
    folder = workdir.usable(folder)
    setup = prepare(config, folder, devices)
    facts = workdir.facts_of(setup.data)
    workdir.check(folder, config, facts)
    with workdir.held(folder), contextlib.ExitStack() as stack:
        workdir.claim(folder, config, facts)
        checkpoints = stack.enter_context(contextlib.closing(Checkpoints(folder, keep=config.checkpoint.keep)))
        log = stack.enter_context(contextlib.closing(MetricsLog(folder)))
        state = initial_state(setup, checkpoints)
        log.rewind(int(state.step))
        return _Loop(setup, checkpoints, log).run(state)


def prepare(config: ConfigDict, folder: Path, devices: list[jax.Device] | None = None) -> Setup:
    """Build all objects of a run; touches no file of the workdir.

    Raises:
        ValueError: on a config that cannot be built.
    """
    _check_intervals(config)
    mesh = sharding.make_mesh(config, devices)
    data = build.arrays(config)
    stream = build.pipeline(config, data)
    module = build.network(config, data.num_classes)
    chain = optimizer(config)
    init = functools.partial(init_state, module, data.event_shape, chain, init_key(config.seed))
    abstract, shardings = _placed(config, mesh, jax.eval_shape(init))
    _check_sampling(config, module, abstract.ema_params, data.event_shape)
    step = make_step(
        build.network_field(config, module, None, data.event_shape),
        _objective(config, module),
        chain,
        build.from_spec("ema", config.ema, ema.EMAS),
        stream.decode,
        accumulate=config.training.accumulate,
        log_every=config.training.log_every,
    )
    whole, rows = sharding.replicated(mesh), sharding.by_rows(mesh)
    step_root = jax.random.fold_in(root_key(config.seed), 2)
    jitted = jax.jit(
        lambda state, batch, resident: step(state, batch, resident, step_root),
        in_shardings=(shardings, rows, whole),
        out_shardings=(shardings, whole),
        donate_argnums=0,
    )
    return Setup(
        config=config,
        folder=folder,
        mesh=mesh,
        data=data,
        module=module,
        step=jitted,
        init=jax.jit(init, out_shardings=shardings),
        abstract=abstract,
        resident=_put(stream.resident, whole),
        batch=lambda number: _put(stream.batch(number), rows),
    )


def initial_state(setup: Setup, checkpoints: Checkpoints) -> TrainState:
    """Return the state to start from.

    1. The latest sound checkpoint of the workdir, onto this run's devices, however many saved it.
    2. A fresh state from the seed.
    """
    restored = checkpoints.restore(setup.abstract)
    if restored is not None:
        _LOG.info("resuming %s at step %d", setup.folder, int(restored.step))
        return restored
    state = setup.init()
    overview = parameter_overview.get_parameter_overview(state.params, include_stats=False)
    files.write_text(setup.folder / "parameters.txt", overview + "\n")
    return state


class _Loop:
    """The loop proper: dispatch a step, then look at the report of the one before."""

    def __init__(self, setup: Setup, checkpoints: Checkpoints, log: MetricsLog) -> None:
        self._setup, self._checkpoints, self._log = setup, checkpoints, log
        self._rate = learning_rate(setup.config)

    def run(self, state: TrainState) -> Result:
        config = self._setup.config
        first, last = int(state.step), config.training.num_steps
        if first < last:
            _LOG.info("matmul_precision of the network: %s", config.matmul_precision)
        self._progress = Progress("train", last, "steps", start=first)
        step, previous = first, None
        self._make_up(first, state)
        self._began = time.perf_counter() - self._log.seconds
        with StopRequest(lambda: f"finishing step {step}, then saving") as stop, contextlib.closing(self._progress):
            while step < last and stop.received is None:
                step += 1
                state, report = self._setup.step(state, self._setup.batch(step - 1), self._setup.resident)
                # The report of the step before is fetched while this one runs.
                self._examine(previous)
                previous = (step, report)
                if self._pauses(step) or step == last:
                    self._examine(previous)
                    previous = None
                    self._pause(step, state)
            self._examine(previous)
            self._checkpoints.save(state)
            self._checkpoints.wait()
        return Result(step, stop.received.name if stop.received else None, time.perf_counter() - self._began)

    def _pauses(self, step: int) -> bool:
        return step % self._setup.config.checkpoint.every == 0 or self._draws(step)

    def _draws(self, step: int) -> bool:
        every = self._setup.config.sampling.every
        return bool(every) and step % every == 0

    def _make_up(self, step: int, state: TrainState) -> None:
        """Draw the samples that a run did not come to when it ended between a checkpoint and the samples due with it.

        Samples due earlier were there before that checkpoint was saved.
        """
        if step and self._draws(step) and not samples_path(self._setup.folder, step).exists():
            draw_samples(self._setup, step, state.ema_params)

    def _examine(self, report: tuple[int, StepReport] | None) -> None:
        """Stop on a step that is not finite; write its metrics if they are due."""
        if report is None:
            return
        step, values = report[0], jax.device_get(report[1])
        if not values.finite:
            steps = self._checkpoints.steps
            kept = f"the checkpoints of steps {steps} are kept" if steps else "there is no checkpoint yet"
            raise DivergedError(
                f"step {step}: loss = {values.loss:g}; loss, gradient or update is not finite; {kept}; "
                "lower optimizer.learning_rate or optimizer.clip_norm in a new workdir"
            )
        batch = self._setup.config.training.batch_size
        speed = f"  {self._progress.rate * batch:.0f} images/s" if self._progress.rate else ""
        self._progress.update(step, f"loss {values.loss:.4f}{speed}")
        if step % self._setup.config.training.log_every == 0:
            self._write(step, values)

    def _write(self, step: int, values: StepReport) -> None:
        means = {name: float(value) for name, value in values.window.items()}
        speed = {
            "seconds": time.perf_counter() - self._began,
            "steps_per_second": self._progress.rate,
            "images_per_second": self._progress.rate * self._setup.config.training.batch_size,
        }
        self._log.write(step, {**means, "learning_rate": float(self._rate(step - 1)), **speed})

    def _pause(self, step: int, state: TrainState) -> None:
        """Save and draw samples where they are due, from a state known to be finite."""
        if step % self._setup.config.checkpoint.every == 0:
            self._checkpoints.save(state)
        if self._draws(step):
            draw_samples(self._setup, step, state.ema_params)


def draw_samples(setup: Setup, step: int, params: PyTree[Array]) -> None:
    """Write ``samples/STEP.png`` from the averaged parameters, always from the same noise."""
    num = setup.config.sampling.num
    field = build.network_field(setup.config, setup.module, params, setup.data.event_shape)
    samples = sample(
        build.sampling_field(setup.config, field),
        root_key(setup.config.seed),
        num,
        **build.sampling_options(setup.config),
        labels=class_turns(num, setup.module.num_classes),
        mesh=setup.mesh,
    )
    reference = setup.data.to_model(setup.data.events[:_REFERENCE])
    picture = pictures.sample_picture(samples, reference, title=f"step {step}")
    pictures.save(picture, samples_path(setup.folder, step))


def samples_path(folder: Path, step: int) -> Path:
    """Return the file of the samples that a run in this workdir draws at a step."""
    return folder / "samples" / f"{step:08d}.png"


def _objective(config: ConfigDict, module: Any) -> Objective:
    return build.from_spec(
        "loss",
        config.loss,
        LOSSES,
        defaults=build.scale(config),
        time_law=build.time_law(config),
        loss_weight=build.loss_weight(config),
        stratified=config.time_law.stratified,
        label_dropout=config.model.label_dropout,
        null_label=module.num_classes or None,
    )


def _placed(config: ConfigDict, mesh: Mesh, abstract: TrainState) -> tuple[TrainState, Any]:
    shardings = sharding.state_shardings(config, mesh, abstract)

    def place(leaf: jax.ShapeDtypeStruct, where: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)

    return jax.tree.map(place, abstract, shardings), shardings


def _put(local: dict[str, np.ndarray], where: Any) -> dict[str, Array]:
    return {name: jax.make_array_from_process_local_data(where, values) for name, values in local.items()}


def _check_sampling(config: ConfigDict, module: Any, params: PyTree, event_shape: tuple[int, ...]) -> None:
    """Refuse before training what would fail at the first sample grid; without one, later starts may be from data."""
    field = build.sampling_field(config, build.network_field(config, module, params, event_shape))
    from_data = False if config.sampling.every else None
    check(field, x=from_data, labels=bool(module.num_classes), **build.sampling_options(config))


def _check_intervals(config: ConfigDict) -> None:
    for key, low in (
        ("training.num_steps", 1),
        ("training.log_every", 1),
        ("checkpoint.every", 1),
        ("checkpoint.keep", 1),
        ("sampling.every", 0),
        ("sampling.num", 1),
    ):
        group, name = key.split(".")
        if config[group][name] < low:
            raise UserError(f"{key} = {config[group][name]}: must be at least {low}")
