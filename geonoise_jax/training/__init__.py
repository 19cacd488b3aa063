"""Training runs: losses, state, step, sharding, checkpoints, and ``training.train.train`` that puts them together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from geonoise_jax import lazy as _lazy

if TYPE_CHECKING:
    from geonoise_jax.training.checkpoint import Checkpoints as Checkpoints
    from geonoise_jax.training.initial import InitFrom as InitFrom
    from geonoise_jax.training.state import TrainState as TrainState
    from geonoise_jax.training.train import DivergedError as DivergedError
    from geonoise_jax.training.train import Result as Result
else:
    __getattr__, __dir__ = _lazy.exports(
        __name__,
        {
            f"{__name__}.checkpoint": ("Checkpoints",),
            f"{__name__}.initial": ("InitFrom",),
            f"{__name__}.state": ("TrainState",),
            f"{__name__}.train": ("DivergedError", "Result"),
        },
    )
