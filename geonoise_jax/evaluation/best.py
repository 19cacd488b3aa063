"""The best checkpoint of a run that evaluated itself."""

from __future__ import annotations

from pathlib import PurePath

from geonoise_jax import files
from geonoise_jax.errors import UserError
from geonoise_jax.evaluation.metrics import table
from geonoise_jax.training import workdir
from geonoise_jax.training.watched import LOWER, Best

BEST = "best"
# The loss on held-out data, which every evaluation inside a run has.
LOSS = "loss"


def directions(metrics: tuple[str, ...]) -> dict[str, str]:
    """Return every number that an evaluation with these metrics may choose a checkpoint by, and which are better."""
    entries = [table.METRICS[name] for name in metrics]
    return {LOSS: LOWER, **{value: entry.better for entry in entries for value in entry.values}}


def best_step(folder: str | PurePath, steps: list[int]) -> int:
    """Return that of some steps of a workdir whose evaluation was the best by its ``checkpoint.keep_best``.

    Raises:
        ValueError: if its config keeps none, or none of the steps was evaluated.
    """
    given = f"step = {BEST!r}: workdir = {str(folder)!r}"
    config = workdir.read_config(folder)
    name = config.checkpoint.keep_best
    if not name:
        raise UserError(f"{given} was trained without checkpoint.keep_best; its checkpoints are of {steps}")
    found = Best(name, directions(tuple(config.evaluation.metrics))[name]).step(files.location(folder), steps)
    if found is None:
        raise UserError(f"{given}: none of its checkpoints {steps} was evaluated yet")
    return found
