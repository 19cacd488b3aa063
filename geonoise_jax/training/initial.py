"""Parameters to start from that another run has learnt: fine-tuning, or a schedule anew."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from pathlib import PurePath

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from geonoise_jax import files
from geonoise_jax.checks import integer, refused
from geonoise_jax.errors import UserError
from geonoise_jax.training.checkpoint import Checkpoints
from geonoise_jax.training.sharding import path_name
from geonoise_jax.training.state import TrainState

AVERAGED, RAW = "ema", "raw"
_LOG = logging.getLogger(__name__)
_NAMED = 8


@dataclasses.dataclass(frozen=True)
class InitFrom:
    """The parameters of a run's checkpoint, from which another run starts.

    Attributes:
        workdir: of the run that learnt them.
        step: of the checkpoint; None for the latest.
        params: ``ema``, the averaged parameters, or ``raw``, those of the step itself.

    Raises:
        ValueError: on an empty path, a negative step, or other params.
    """

    workdir: str | PurePath
    step: int | None = None
    params: str = AVERAGED

    def __post_init__(self) -> None:
        """Validate."""
        files.location(self.workdir, "init_from.workdir")
        if self.step is not None:
            integer("init_from.step", self.step, low=0)
        if self.params not in (AVERAGED, RAW):
            raise refused("init_from.params", self.params, f"{AVERAGED!r} or {RAW!r}")


@dataclasses.dataclass(frozen=True)
class Taken:
    """What a network took of another's parameters.

    Attributes:
        step: of the checkpoint.
        taken: names of the arrays that were there with the same shape.
        fresh: those that were not, with what is wanted and what is there.
        unused: names of arrays that the network has no place for.
    """

    step: int
    taken: tuple[str, ...]
    fresh: dict[str, str]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        """Count, and name what differs."""
        parts = [f"{len(self.taken)} of {len(self.taken) + len(self.fresh)} arrays of step {self.step}"]
        if self.fresh:
            parts.append("fresh: " + _listed([f"{name} {why}" for name, why in self.fresh.items()]))
        if self.unused:
            parts.append("not used: " + _listed(list(self.unused)))
        return "; ".join(parts)


def started_from(state: TrainState, origin: InitFrom) -> tuple[TrainState, Taken]:
    """Return a fresh state with the parameters of another run wherever name and shape agree.

    The averages start from them too; the optimizer and the step are those of the fresh state. Values are cast to the
    dtypes, and placed as the arrays, of the state.

    Raises:
        ValueError: if there is no such checkpoint, it is damaged, or no array agrees.
    """
    step, learnt = _read(origin)
    there = {path_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(learnt)[0]}
    taken, fresh = [], {}

    def chosen(path: tuple, leaf: Array) -> Array:
        name = path_name(path)
        found = there.pop(name, None)
        if found is None or found.shape != leaf.shape:
            fresh[name] = f"{list(leaf.shape)} (there {'nothing' if found is None else list(found.shape)})"
            return leaf
        taken.append(name)
        # By way of the host: of several processes each has read it onto a device of its own.
        return jax.device_put(np.asarray(found).astype(leaf.dtype), leaf.sharding)

    params = jax.tree_util.tree_map_with_path(chosen, state.params)
    report = Taken(step, tuple(taken), fresh, tuple(there))
    if not taken:
        raise UserError(f"init_from.workdir = {str(origin.workdir)!r}: no array fits this network ({report})")
    copies = [jax.tree.map(jnp.copy, params) for _ in range(1 + len(state.posthoc))]
    return dataclasses.replace(state, params=params, ema_params=copies[0], posthoc=tuple(copies[1:])), report


def log_started(origin: InitFrom, report: Taken) -> None:
    """Say where the parameters come from."""
    _LOG.info("parameters (%s) from %s: %s", origin.params, origin.workdir, report)


def _read(origin: InitFrom) -> tuple[int, PyTree[Array]]:
    try:
        with contextlib.closing(Checkpoints(files.location(origin.workdir), read_only=True)) as checkpoints:
            return checkpoints.restore_unknown(origin.step, averaged=origin.params == AVERAGED)
    except UserError as error:
        raise UserError(f"init_from: {error}") from error


def _listed(items: list[str]) -> str:
    return ", ".join(items[:_NAMED]) + (f" and {len(items) - _NAMED} more" if len(items) > _NAMED else "")
