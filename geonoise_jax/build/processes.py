"""The mathematics of a config: schedule, target, time law, loss weight."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from geonoise_jax.build.specs import by_name, check_own, from_spec
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import SCHEDULES, Schedule
from geonoise_jax.process.targets import TARGETS, Target
from geonoise_jax.process.times import TIME_LAWS, TimeLaw, check_within
from geonoise_jax.process.weights import LOSS_WEIGHTS, LossWeight, Preconditioned

SCHEDULE_NAMES = by_name(SCHEDULES)
TARGET_NAMES = by_name(TARGETS)
TIME_LAW_NAMES = by_name(TIME_LAWS)
LOSS_WEIGHT_NAMES = by_name((*LOSS_WEIGHTS, Preconditioned))


def scale(config: ConfigDict) -> dict[str, float]:
    """Return the argument that tells an object the scale of the data, one number for all objects of a config."""
    return {"sigma_data": float(config.data.sigma_data)}


def schedule(config: ConfigDict) -> Schedule:
    """Return the schedule of a config."""
    made = from_spec("schedule", config.schedule, SCHEDULE_NAMES, defaults=scale(config), kind=Schedule)
    check_own("schedule", config.schedule, made.coeffs, 4, "coeffs(t)")
    return made


def process(config: ConfigDict) -> Process:
    """Return the schedule and target of a config."""
    within = schedule(config)
    target = from_spec("target", config.target, TARGET_NAMES, defaults=scale(config), kind=Target)
    check_own("target", config.target, lambda t: target.coeffs(within.coeffs(t), t), 2, "coeffs(schedule_coeffs, t)")
    return Process(within, target)


def time_law(config: ConfigDict) -> TimeLaw:
    """Return the time law, on the schedule's range unless the config narrows it.

    Raises:
        ValueError: if the law leaves the schedule's range, besides what :func:`from_spec` raises.
    """
    within = schedule(config)
    defaults = {"lo": within.t_min, "hi": within.t_max}
    law = from_spec("time_law", config.time_law, TIME_LAW_NAMES, defaults=defaults, kind=TimeLaw)
    check_own("time_law", config.time_law, lambda t: (law.log_density(t), law.quantile(t)), 2, "density and quantile")
    check_within(law, within)
    return law


def loss_weight(config: ConfigDict) -> LossWeight:
    """Return the loss weight of a config."""
    given: dict[str, Any] = {"schedule": schedule(config)}
    if config.loss_weight.name == Preconditioned.__name__:
        given["target"] = process(config).parameterization
    made = from_spec(
        "loss_weight", config.loss_weight, LOSS_WEIGHT_NAMES, defaults=scale(config), kind=LossWeight, **given
    )
    check_own("loss_weight", config.loss_weight, made, 1, "its call with t")
    return made
