"""The training loop, top to bottom: validate, mesh, data, build, initialise or restore, loop, close."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import time
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

import jax
from clu import parameter_overview
from jax.sharding import Mesh
from jaxtyping import Array, PyTree

from geonoise_jax import files, processes
from geonoise_jax.data.rows import UnreadableItemError
from geonoise_jax.drawing import pictures
from geonoise_jax.errors import UserError
from geonoise_jax.process.keys import root_key
from geonoise_jax.progress import Progress
from geonoise_jax.sampling.generation import check, class_turns, generate
from geonoise_jax.signals import StopRequest
from geonoise_jax.training import metrics, sharding, utilization, watched, workdir
from geonoise_jax.training.checkpoint import Checkpoints
from geonoise_jax.training.description import Description
from geonoise_jax.training.feeding import Feed
from geonoise_jax.training.initial import log_started, started_from
from geonoise_jax.training.metrics import MetricsLog
from geonoise_jax.training.posthoc_ema import Snapshots
from geonoise_jax.training.run import Budget, Record, Run, Sampling, check_network
from geonoise_jax.training.state import TrainState, init_key, init_state
from geonoise_jax.training.step import StepReport, make_step

_LOG = logging.getLogger(__name__)
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
        first: number of updates that were done before; equal to step if there was nothing to do.
    """

    step: int
    stopped_by: str | None
    seconds: float
    first: int = 0


@dataclasses.dataclass(frozen=True)
class Setup:
    """Everything a run needs that does not change while it trains."""

    run: Run
    folder: PurePath
    mesh: Mesh
    step: jax.stages.Wrapped
    init: Callable[[], TrainState]
    abstract: TrainState
    resident: dict[str, Array]
    batch: Feed


def train(run: Run, folder: str | PurePath, *, devices: list[jax.Device] | None = None) -> Result:
    """Train in a workdir, resuming from what the workdir holds.

    The result of a run is the same, bit for bit on one kind of device, however often it was interrupted.

    Args:
        run: what to train, see :class:`~geonoise_jax.training.run.Run`; ``build.run`` makes one from a config.
        folder: the workdir: config.json or run.json, checkpoints/, metrics.jsonl, samples/.
        devices: devices of the mesh; all by default.

    Returns:
        The last step and why the run ended.

    Raises:
        ValueError: on a run that cannot be built or a workdir of another one.
        DivergedError: if a step was not finite; the step is named, and the checkpoints are from before it.
    """
    if not isinstance(run, Run):
        raise UserError(f"run is a {type(run).__name__}: must be a Run; build.train takes a config")
    folder = workdir.usable(folder)
    workdir.compare(record_of(run), folder)
    done = finished(folder, run.budget, run.sampling, watched.every(run.watch))
    if done is not None:
        return done
    return carry_on(run, folder, devices=devices)


def carry_on(run: Run, folder: PurePath, *, devices: list[jax.Device] | None = None) -> Result:
    """Begin or resume a run, as :func:`train` does once it knows that the workdir is usable, the run's and unfinished.

    Raises:
        ValueError: on a run that cannot be built or a workdir of another one or of other data.
        DivergedError: if a step was not finite.
    """
    setup = prepare(run, folder, devices)
    facts = workdir.facts_of(run.data)
    workdir.check_data(folder, facts)
    with workdir.held(folder), contextlib.ExitStack() as stack:
        workdir.claim(folder, record_of(run), facts)
        stack.enter_context(contextlib.closing(setup.batch))
        best = watched.best_of(run.watch, folder)
        checkpoints = stack.enter_context(contextlib.closing(Checkpoints(folder, keep=run.budget.keep, best=best)))
        log = stack.enter_context(contextlib.closing(MetricsLog(folder)))
        state = initial_state(setup, checkpoints)
        log.rewind(int(state.step))
        Snapshots(folder).rewind(int(state.step))
        return _Loop(setup, checkpoints, log).run(state)


def record_of(run: Run) -> Record:
    """Return what a workdir knows a run by."""
    return run.record or Description(run)


def finished(folder: PurePath, budget: Budget, sampling: Sampling, evaluate_every: int = 0) -> Result | None:
    """Return the result of a run that has nothing left to do in this workdir, or None; compiles and changes nothing.

    Its files are read, so that damage is seen, and made again where it can be: a checkpoint, a torn line of metrics.

    Raises:
        ValueError: if a file is damaged that cannot be made again.
    """
    known = processes.by_lead(lambda: _finished(folder, budget, sampling, evaluate_every))
    return None if known is None else Result(*known)


def _finished(
    folder: PurePath, budget: Budget, sampling: Sampling, evaluate_every: int
) -> tuple[int, None, float, int] | None:
    log = folder / "metrics.jsonl"
    if not files.is_folder(folder / "checkpoints") or not metrics.is_whole(log):
        return None
    workdir.read_facts(folder)
    checkpoints = Checkpoints(folder, read_only=True)
    try:
        step = max(checkpoints.steps, default=0)
        unseen = _missing(folder, sampling, step) or watched.missing(folder, evaluate_every, step)
        if step < budget.num_steps or unseen or not checkpoints.is_sound(step):
            return None
    finally:
        checkpoints.close()
    return step, None, metrics.seconds_at(log, step), step


def prepare(
    run: Run, folder: PurePath, devices: list[jax.Device] | None = None, put: Callable[..., Any] = sharding.put
) -> Setup:
    """Build all objects of a run; touches no file of the workdir.

    Args:
        run: what to train.
        folder: the workdir.
        devices: devices of the mesh; all by default.
        put: how data come onto the devices: ``sharding.described`` for devices that are not there.

    Raises:
        ValueError: on parts that do not fit each other.
    """
    mesh = mesh_of(run.budget, run.layout, devices)
    check_network(run)
    stream = run.pipeline()
    chain, _ = run.chain()
    further = () if run.posthoc is None else run.posthoc.rules
    key = init_key(run.seed)
    init = functools.partial(init_state, run.network, run.data.event_shape, chain, key, len(further))
    abstract, shardings = _placed(run.layout, mesh, jax.eval_shape(init))
    _check_sampling(run, abstract.ema_params)
    step = make_step(
        run.field(None),
        run.goal(),
        chain,
        run.average,
        stream.decode,
        accumulate=run.budget.accumulate,
        log_every=run.budget.log_every,
        posthoc=further,
        unroll=mesh.devices.flat[0].platform == "cpu",
    )
    whole, rows = sharding.replicated(mesh), sharding.by_rows(mesh)
    step_root = jax.random.fold_in(root_key(run.seed), 2)
    jitted = jax.jit(
        lambda state, batch, resident: step(state, batch, resident, step_root),
        in_shardings=(shardings, rows, whole),
        out_shardings=(shardings, whole),
        donate_argnums=0,
    )
    return Setup(
        run=run,
        folder=folder,
        mesh=mesh,
        step=jitted,
        init=jax.jit(init, out_shardings=shardings),
        abstract=abstract,
        resident=put(stream.resident, whole),
        batch=Feed(stream, rows, put),
    )


def mesh_of(budget: Budget, layout: sharding.Layout, devices: list[jax.Device] | None = None) -> Mesh:
    """Return the devices of a run, of which each has the same part of a batch.

    Raises:
        ValueError: if the layout does not use all devices, or they do not divide the batch.
    """
    mesh = sharding.make_mesh(layout, devices)
    sharding.check_batch(budget.batch_size, budget.accumulate, mesh)
    return mesh


def initial_state(setup: Setup, checkpoints: Checkpoints) -> TrainState:
    """Return the state to start from.

    1. The latest sound checkpoint of the workdir, onto this run's devices, however many saved it.
    2. A fresh state from the seed, with the parameters of another run if the run is to start from there.
    """
    restored = checkpoints.restore(setup.abstract)
    if restored is not None:
        _LOG.info("resuming %s at step %d", setup.folder, int(restored.step))
        return restored
    state, origin = setup.init(), setup.run.init_from
    if origin is not None:
        state, taken = started_from(state, origin)
        log_started(origin, taken)
    overview = parameter_overview.get_parameter_overview(state.params, include_stats=False)
    files.write_text(setup.folder / "parameters.txt", overview + "\n")
    return state


class _Loop:
    """The loop proper: dispatch a step, then look at the report of the one before."""

    def __init__(self, setup: Setup, checkpoints: Checkpoints, log: MetricsLog) -> None:
        self._setup, self._checkpoints, self._log = setup, checkpoints, log
        self._budget, self._sampling = setup.run.budget, setup.run.sampling
        _, self._rate = setup.run.chain()
        self._used = utilization.of_setup(setup)

    def run(self, state: TrainState) -> Result:
        first, last = int(state.step), self._budget.num_steps
        if first < last:
            _LOG.info("%s", self._setup.batch)
            _LOG.info("matmul_precision of the network: %s", self._setup.run.field(None).matmul_precision)
        self._progress = Progress("train", last, "steps", start=first, also=(self._budget.batch_size, "images"))
        step, previous = first, None
        self._began = time.perf_counter() - self._log.seconds
        self._make_up(first, state)
        request = StopRequest(lambda: f"finishing step {step}, then saving")
        with request, processes.SharedStop(request) as stop, contextlib.closing(self._progress):
            while step < last and not stop.reached(step):
                step += 1
                batch = self._batch(step, state, previous)
                state, report = self._setup.step(state, batch, self._setup.resident)
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
            received = stop.signal()
        return Result(step, received.name if received else None, time.perf_counter() - self._began, first)

    def _batch(self, step: int, state: TrainState, report: tuple[int, StepReport] | None) -> dict[str, Array]:
        """Return the batch of a step; where it cannot be read, keep what was learnt before."""
        try:
            return self._setup.batch(step - 1)
        except UnreadableItemError as error:
            self._examine(report)
            if not processes.several():  # the others would have to take part
                self._checkpoints.save(state)
                self._checkpoints.wait()
            saved = f"the checkpoints of steps {self._checkpoints.steps} are kept"
            raise UserError(f"step {step}: {error}; {saved}: mend the data, and run the same command again") from error

    def _pauses(self, step: int) -> bool:
        further = self._setup.run.posthoc
        stores = further is not None and further.due(step, self._budget.num_steps)
        looks = watched.due(watched.every(self._setup.run.watch), step)
        return stores or looks or step % self._budget.checkpoint_every == 0 or _draws(self._sampling, step)

    def _make_up(self, step: int, state: TrainState) -> None:
        """Draw and measure what a run did not come to when it ended between a checkpoint and what is due with it.

        What was due earlier was there before that checkpoint was saved.
        """
        if processes.agreed(_missing(self._setup.folder, self._sampling, step)):
            draw_samples(self._setup, step, state.ema_params)
        if processes.agreed(watched.missing(self._setup.folder, watched.every(self._setup.run.watch), step)):
            self._evaluate(step, state)

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
        self._progress.update(step, f"loss {values.loss:.4f}")
        if step % self._budget.log_every == 0:
            self._write(step, values)

    def _write(self, step: int, values: StepReport) -> None:
        means = {name: float(value) for name, value in values.window.items()}
        speed = {"seconds": time.perf_counter() - self._began}
        if steps := self._progress.rate:  # not known at the first step
            speed |= {"steps_per_second": steps, "images_per_second": steps * self._budget.batch_size}
            speed |= self._used.metrics(steps)
        rate = {} if self._rate is None else {"learning_rate": float(self._rate(step - 1))}
        self._log.write(step, {**means, **rate, **speed})

    def _pause(self, step: int, state: TrainState) -> None:
        """Save and draw samples where they are due, from a state known to be finite."""
        if (further := self._setup.run.posthoc) is not None and further.due(step, self._budget.num_steps):
            Snapshots(self._setup.folder).save(step, further.sigma_rel, state.posthoc)
        if step % self._budget.checkpoint_every == 0:
            self._checkpoints.save(state)
        if _draws(self._sampling, step):
            draw_samples(self._setup, step, state.ema_params)
        if watched.due(watched.every(self._setup.run.watch), step):
            self._evaluate(step, state)

    def _evaluate(self, step: int, state: TrainState) -> None:
        if (watch := self._setup.run.watch) is not None:
            found = watch.measure(self._setup.run, state.ema_params, self._setup.mesh)
            self._log.write(step, {**found, "seconds": time.perf_counter() - self._began})


def draw_samples(setup: Setup, step: int, params: PyTree[Array]) -> None:
    """Write ``samples/STEP.png`` from the averaged parameters, always from the same noise, all processes together."""
    run = setup.run
    samples = generate(
        run.sampling.field(run.field(params)),
        root_key(run.seed),
        run.sampling.num,
        **run.sampling.options,
        labels=class_turns(run.sampling.num, run.num_classes),
        mesh=setup.mesh,
    )
    if not processes.is_lead():
        return
    reference = None if run.data.is_image else run.data.to_model(run.data.events[:_REFERENCE])
    name = files.absolute(setup.folder).name
    title = pictures.caption(name, step, samples.sampler, samples.statistics.get("evaluations"))
    picture = pictures.sample_picture(samples.x, reference, title=title)
    pictures.save(picture, samples_path(setup.folder, step))


def samples_path(folder: PurePath, step: int) -> PurePath:
    """Return the file of the samples that a run in this workdir draws at a step."""
    return folder / "samples" / f"{step:08d}.png"


def _draws(sampling: Sampling, step: int) -> bool:
    return bool(sampling.every) and step > 0 and step % sampling.every == 0


def _missing(folder: PurePath, sampling: Sampling, step: int) -> bool:
    return _draws(sampling, step) and not files.exists(samples_path(folder, step))


def _placed(layout: sharding.Layout, mesh: Mesh, abstract: TrainState) -> tuple[TrainState, Any]:
    shardings = sharding.state_shardings(layout, mesh, abstract)

    def place(leaf: jax.ShapeDtypeStruct, where: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)

    return jax.tree.map(place, abstract, shardings), shardings


def _check_sampling(run: Run, params: PyTree) -> None:
    """Refuse before training what would fail at the first sample grid; without one, later starts may be from data."""
    field = run.sampling.field(run.field(params))
    from_data = False if run.sampling.every else None
    check(field, x=from_data, labels=bool(run.num_classes), **run.sampling.options)
