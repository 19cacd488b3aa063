"""The optax chain of a config: clipping, the optimizer, its learning-rate schedule."""

from __future__ import annotations

from typing import Any

import optax
from ml_collections import ConfigDict

from geonoise_jax import build
from geonoise_jax.config import nearest
from geonoise_jax.errors import UserError

OPTIMIZERS = {"adam": optax.adam, "adamw": optax.adamw, "sgd": optax.sgd, "lion": optax.lion}
DECAYS = ("constant", "cosine")


def learning_rate(config: ConfigDict) -> optax.Schedule:
    """Return the learning rate as a function of the step: linear warm-up, then constant or cosine to zero.

    Raises:
        ValueError: on a rate, warm-up or decay outside its range.
    """
    options = config.optimizer
    if not options.learning_rate > 0:
        raise UserError(f"optimizer.learning_rate = {options.learning_rate}: must be positive")
    if options.warmup_steps < 0:
        raise UserError(f"optimizer.warmup_steps = {options.warmup_steps}: must be at least 0")
    if options.decay not in DECAYS:
        raise UserError(f"optimizer.decay = {options.decay!r}: unknown{nearest(options.decay, DECAYS)}")
    # Step 0 already learns: the ramp goes from 1 / warmup_steps to 1.
    ramp = optax.linear_schedule(
        options.learning_rate / max(options.warmup_steps, 1), options.learning_rate, max(options.warmup_steps - 1, 1)
    )
    if options.decay == "constant":
        body: optax.Schedule = optax.constant_schedule(options.learning_rate)
    else:
        steps = max(config.training.num_steps - options.warmup_steps, 1)
        body = optax.cosine_decay_schedule(options.learning_rate, steps)
    return optax.join_schedules([ramp, body], [options.warmup_steps]) if options.warmup_steps else body


def optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """Return the chain: clip by global norm (unless 0), then the named optax optimizer on the schedule.

    Raises:
        ValueError: on an unknown optimizer or argument, or a negative clip_norm.
    """
    if config.optimizer.clip_norm < 0:
        raise UserError(f"optimizer.clip_norm = {config.optimizer.clip_norm}: must be at least 0 (0: no clipping)")
    chain: list[Any] = []
    if config.optimizer.clip_norm > 0:
        chain.append(optax.clip_by_global_norm(config.optimizer.clip_norm))
    chain.append(build.from_spec("optimizer", config.optimizer, OPTIMIZERS, learning_rate=learning_rate(config)))
    return optax.chain(*chain)
