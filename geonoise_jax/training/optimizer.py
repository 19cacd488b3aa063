"""The learning rate along a run, and the optax chain that it is trained by."""

from __future__ import annotations

import optax

from geonoise_jax.checks import integer, real
from geonoise_jax.errors import UserError, nearest

OPTIMIZERS = {"adam": optax.adam, "adamw": optax.adamw, "sgd": optax.sgd, "lion": optax.lion}
DECAYS = ("constant", "cosine")


def learning_rate(
    peak: float = 1e-3, *, warmup_steps: int = 100, decay: str = "constant", num_steps: int | None = None
) -> optax.Schedule:
    """Return the learning rate as a function of the step: linear warm-up, then constant or cosine to zero.

    Args:
        peak: the rate after the warm-up.
        warmup_steps: steps of the warm-up; 0 for none.
        decay: one of ``DECAYS``.
        num_steps: steps of the run, at the end of which the cosine is zero.

    Raises:
        ValueError: on a rate, warm-up or decay outside its range, or a cosine without a number of steps.
    """
    real("optimizer.learning_rate", peak, low=0.0, open_low=True)
    integer("optimizer.warmup_steps", warmup_steps, low=0)
    if decay not in DECAYS:
        raise UserError(f"optimizer.decay = {decay!r}: unknown{nearest(decay, DECAYS)}")
    # Step 0 already learns: the ramp goes from 1 / warmup_steps to 1.
    ramp = optax.linear_schedule(peak / max(warmup_steps, 1), peak, max(warmup_steps - 1, 1))
    if decay == "constant":
        body: optax.Schedule = optax.constant_schedule(peak)
    elif num_steps is None:
        raise UserError("optimizer.decay = 'cosine': needs num_steps, the steps of the run")
    else:
        body = optax.cosine_decay_schedule(peak, max(num_steps - warmup_steps, 1))
    return optax.join_schedules([ramp, body], [warmup_steps]) if warmup_steps else body


def clipped(optimizer: optax.GradientTransformation, clip_norm: float = 1.0) -> optax.GradientTransformation:
    """Return an optimizer that is given gradients of at most this global norm; 0 turns clipping off.

    Raises:
        ValueError: on a negative clip_norm.
    """
    real("optimizer.clip_norm", clip_norm, low=0.0)
    return optax.chain(*([optax.clip_by_global_norm(clip_norm)] if clip_norm > 0 else []), optimizer)
