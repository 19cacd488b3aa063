"""A trained field from a workdir alone: no data set, no config file, any devices."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from geonoise_jax import build
from geonoise_jax.fields import NetworkField
from geonoise_jax.training import sharding, workdir
from geonoise_jax.training.checkpoint import Checkpoints
from geonoise_jax.training.state import init_params


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


def restore_field(folder: str | Path, mesh: Mesh) -> Trained:
    """Restore the averaged parameters of the latest sound checkpoint of a workdir.

    Raises:
        ValueError: if the folder is no workdir or has no readable checkpoint.
    """
    folder = Path(folder)
    config, facts = workdir.read_config(folder), workdir.read_facts(folder)
    module = build.network(config, facts.num_classes)
    shapes = jax.eval_shape(functools.partial(init_params, module, facts.event_shape), jax.random.key(0))
    where = sharding.replicated(mesh)
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), shapes)
    checkpoints = Checkpoints(folder, read_only=True)
    try:
        step, params = checkpoints.restore_ema(abstract)
    finally:
        checkpoints.close()
    return Trained(build.network_field(config, module, params, facts.event_shape), config, facts, step)
