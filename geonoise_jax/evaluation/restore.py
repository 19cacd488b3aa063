"""A trained field from a workdir alone: no data set, no config file, any devices."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from geonoise_jax import build
from geonoise_jax.errors import UserError
from geonoise_jax.fields import NetworkField
from geonoise_jax.training import sharding, workdir
from geonoise_jax.training.checkpoint import Checkpoints
from geonoise_jax.training.state import init_key, init_params


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained field and where it came from.

    Attributes:
        field: the network with its averaged parameters, on every device of the mesh.
        config: the config of the run.
        facts: shape and classes of the data.
        step: number of updates of the checkpoint.
    """

    field: NetworkField
    config: ConfigDict
    facts: workdir.Facts
    step: int


def restore_field(folder: str | Path, mesh: Mesh, step: int | None = None) -> Trained:
    """Restore the averaged parameters of one checkpoint of a workdir, by default the latest sound one.

    Raises:
        ValueError: if the folder is no workdir or has no readable checkpoint, or not one of this step.
    """
    folder = Path(folder)
    config, facts, module = _network(folder)
    shapes = jax.eval_shape(functools.partial(init_params, module, facts.event_shape), init_key(0))
    where = sharding.replicated(mesh)
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), shapes)
    checkpoints = Checkpoints(folder, read_only=True)
    try:
        step, params = checkpoints.restore_ema(abstract, step)
    finally:
        checkpoints.close()
    return Trained(build.network_field(config, module, params, facts.event_shape), config, facts, step)


def fresh_field(folder: str | Path, mesh: Mesh) -> Trained:
    """Return the field of a workdir before its first update, its parameters initialised anew as a run does.

    Raises:
        ValueError: if the folder is no workdir.
    """
    config, facts, module = _network(Path(folder))
    init = functools.partial(init_params, module, facts.event_shape)
    params = jax.jit(init, out_shardings=sharding.replicated(mesh))(init_key(config.seed))
    return Trained(build.network_field(config, module, params, facts.event_shape), config, facts, 0)


def saved_steps(folder: str | Path) -> list[int]:
    """Return the steps of the checkpoints of a workdir, ascending.

    Raises:
        ValueError: if there is none.
    """
    checkpoints = Checkpoints(Path(folder), read_only=True)
    try:
        steps = checkpoints.steps
    finally:
        checkpoints.close()
    if not steps:
        raise UserError(f"workdir = {str(folder)!r}: has no checkpoint yet")
    return steps


def _network(folder: Path) -> tuple[ConfigDict, workdir.Facts, Any]:
    config, facts = workdir.read_config(folder), workdir.read_facts(folder)
    return config, facts, build.network(config, facts.num_classes)
