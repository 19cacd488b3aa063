"""From a config to a training run, and the door of training for configs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath
from typing import Any

import jax
import optax
from ml_collections import ConfigDict

from geonoise_jax import checks, processes
from geonoise_jax import config as configs
from geonoise_jax.build.dataset import arrays
from geonoise_jax.build.networks import LOSS_NAMES, augmentation, field_options, guidance, network, sampling_options
from geonoise_jax.build.processes import loss_weight, process, scale, time_law
from geonoise_jax.build.specs import from_spec, frozen
from geonoise_jax.data.arrays import Arrays
from geonoise_jax.errors import UserError
from geonoise_jax.training import optimizer as optimizers
from geonoise_jax.training import workdir
from geonoise_jax.training.ema import EMA, EMAS
from geonoise_jax.training.initial import AVERAGED, InitFrom
from geonoise_jax.training.losses import Objective
from geonoise_jax.training.posthoc_ema import SIGMA_REL, PosthocEMA
from geonoise_jax.training.run import Budget, Run, Sampling, Watch, recorded
from geonoise_jax.training.sharding import Layout
from geonoise_jax.training.train import Result, carry_on, finished, mesh_of
from geonoise_jax.training.workdir import OfConfig

Watching = Callable[[ConfigDict, Arrays], Watch]


def train(
    config: ConfigDict,
    folder: str | PurePath,
    *,
    data: Arrays | None = None,
    devices: list[jax.Device] | None = None,
    watching: Watching | None = None,
) -> Result:
    """Train the model of a config in a workdir, or go on with it; see ``training.train``.

    The workdir is compared with the config before data are loaded, and nothing more is done if it is trained already.

    Args:
        config: see ``geonoise_jax.config``.
        folder: the workdir.
        data: the training set, by default that of the config.
        devices: devices of the mesh; all by default.
        watching: returns what evaluates the run of a config on its data while it trains, which this room does not
            know how to; ``evaluation.train`` gives it. None where ``training.evaluate_every`` is 0.

    Raises:
        ValueError: on a config that cannot be built, or a workdir of another one or of other data.
    """
    folder = workdir.usable(folder)
    config = configs.absolute(config)
    parts = _without_data(config)
    mesh_of(parts["budget"], parts["layout"], devices)
    processes.require_same("config", configs.dumps(config))
    workdir.compare(OfConfig(config), folder)
    every = _evaluate_every(config, watching)
    done = finished(folder, parts["budget"], parts["sampling"], every)
    if done is not None:
        return done
    return carry_on(_run(config, parts, data, watching if every else None), folder, devices=devices)


def run(config: ConfigDict, data: Arrays | None = None) -> Run:
    """Return the training run of a config, on its data set unless another is given.

    Raises:
        ValueError: on a config that cannot be built.
    """
    config = configs.absolute(config)
    return _run(config, _without_data(config), data)


def _evaluate_every(config: ConfigDict, watching: Watching | None) -> int:
    """Return the number of updates between evaluations, refusing those that would be of no effect or not be made."""
    every, checkpoint = config.training.evaluate_every, config.checkpoint
    checks.integer("training.evaluate_every", every, low=0)
    if every == 0:
        checks.without_effect("training.evaluate_every = 0", {"checkpoint.keep_best": (checkpoint.keep_best, "")})
    elif watching is None:
        raise UserError(
            f"training.evaluate_every = {every}: must be 0 here; evaluation.train evaluates while it trains"
        )
    elif checkpoint.keep_best and every % checkpoint.every:
        raise UserError(
            f"training.evaluate_every = {every}: must be a multiple of checkpoint.every = {checkpoint.every} with "
            "checkpoint.keep_best: only a checkpoint can be kept"
        )
    return int(every)


def _run(config: ConfigDict, parts: dict[str, Any], data: Arrays | None, watching: Watching | None = None) -> Run:
    data = arrays(config, sharing=processes.neighbours()) if data is None else data
    module = network(config, data.num_classes)
    made = Run(
        network=module,
        data=data,
        objective=objective(config, module),
        seed=config.seed,
        watch=None if watching is None else watching(config, data),
        flip=config.data.flip,
        augment=augmentation(config),
        placement=config.data.placement,
        **parts,
    )
    return recorded(made, OfConfig(config))


def _without_data(config: ConfigDict) -> dict[str, Any]:
    """Return the parts of a run that need no data, which may take minutes to load: their errors come before that."""
    time_law(config)
    return {
        "process": process(config),
        "field_options": field_options(config),
        "optimizer": optimizer(config),
        "learning_rate": learning_rate(config),
        "average": from_spec("ema", config.ema, EMAS, kind=EMA),
        "posthoc": posthoc_ema(config),
        "budget": budget(config),
        "layout": layout(config),
        "sampling": sampling(config),
        "init_from": init_from(config),
    }


def init_from(config: ConfigDict) -> InitFrom | None:
    """Return the run whose parameters a config starts from; None for fresh ones.

    Raises:
        ValueError: on a step or kind of parameters without a workdir, besides what ``InitFrom`` refuses.
    """
    folder, step, params = (config.init_from[name] for name in ("workdir", "step", "params"))
    if not folder:
        given = {"init_from.step": (step, -1), "init_from.params": (params, AVERAGED)}
        checks.without_effect("init_from.workdir = ''", given)
        return None
    return InitFrom(folder, None if step == -1 else step, params)


def posthoc_ema(config: ConfigDict) -> PosthocEMA | None:
    """Return the averages that are kept for after training; None for none.

    Raises:
        ValueError: on widths without snapshots, besides what ``PosthocEMA`` refuses.
    """
    every, widths = config.posthoc_ema.every, frozen(config.posthoc_ema.sigma_rel)
    if every == 0:
        checks.without_effect("posthoc_ema.every = 0", {"posthoc_ema.sigma_rel": (widths, SIGMA_REL)})
        return None
    return PosthocEMA(every, widths)


def budget(config: ConfigDict) -> Budget:
    """Return the budget of a config."""
    names = ("num_steps", "batch_size", "accumulate", "log_every")
    training = {name: config.training[name] for name in names}
    return Budget(**training, checkpoint_every=config.checkpoint.every, keep=config.checkpoint.keep)


def layout(config: ConfigDict) -> Layout:
    """Return how a config is spread over devices."""
    rules = frozen(config.sharding.rules)
    return Layout(config.mesh.data, config.mesh.model, config.sharding.parameters, rules)


def sampling(config: ConfigDict) -> Sampling:
    """Return how a config is sampled."""
    weight, interval = guidance(config)
    every, num = config.sampling.every, config.sampling.num
    return Sampling(every=every, num=num, guidance=weight, interval=interval, options=sampling_options(config))


def objective(config: ConfigDict, module: Any) -> Objective:
    """Return what a config draws and minimises for its network."""
    return from_spec(
        "loss",
        config.loss,
        LOSS_NAMES,
        defaults=scale(config),
        kind=Objective,
        time_law=time_law(config),
        loss_weight=loss_weight(config),
        stratified=config.time_law.stratified,
        label_dropout=config.model.label_dropout,
        null_label=getattr(module, "num_classes", 0) or None,
    )


def learning_rate(config: ConfigDict) -> optax.Schedule:
    """Return the learning rate of a config by step."""
    options, num_steps = config.optimizer, config.training.num_steps
    return optimizers.learning_rate(
        options.learning_rate, warmup_steps=options.warmup_steps, decay=options.decay, num_steps=num_steps
    )


def optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """Return the optax chain of a config: clip by global norm (unless 0), then the named optimizer on its rate."""
    rate, kind = learning_rate(config), optax.GradientTransformation
    made = from_spec("optimizer", config.optimizer, optimizers.OPTIMIZERS, kind=kind, learning_rate=rate)
    return optimizers.clipped(made, config.optimizer.clip_norm)
