"""Devices: the mesh, and where each array of the training state lives on it.

Rules act on the tree of the state, not on the model: the path of a leaf, such as
``opt_state/0/mu/down_0/conv/kernel``, is searched with each regular expression in turn, and the first match decides.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from geonoise_jax.errors import UserError, nearest

AXES = ("data", "model")
LAYOUTS = ("replicated", "fsdp")
# Below this size a split parameter costs more in communication than it saves in memory.
_FSDP_MIN_ELEMENTS = 4096


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a run is spread over devices; it may change between runs of one workdir.

    Attributes:
        data, model: sizes of the two axes of the mesh; one of them may be -1, all devices that the other leaves.
        parameters: ``replicated``, or ``fsdp``, which splits the largest axis that the data axis divides.
        rules: ``(regex, axes)`` for what they match of the paths of the training state, before ``parameters``; axes are
            a mesh axis or None for each array axis.

    Raises:
        ValueError: on an unknown layout of the parameters, or sizes that are not positive.
    """

    data: int = -1
    model: int = 1
    parameters: str = "replicated"
    rules: Sequence[tuple[str, Sequence[str | None]]] = ()

    def __post_init__(self) -> None:
        """Validate all but the names of axes, which errors give with the leaf that they do not fit."""
        sizes = [self.data, self.model]
        if any(size != -1 and size < 1 for size in sizes) or sizes == [-1, -1]:
            raise UserError(f"mesh = {dict(zip(AXES, sizes, strict=True))}: sizes must be >= 1, one of them may be -1")
        if self.parameters not in LAYOUTS:
            raise UserError(f"sharding.parameters = {self.parameters!r}: unknown{nearest(self.parameters, LAYOUTS)}")


def all_devices() -> list[jax.Device]:
    """Return the devices of a mesh for which none are named: those of all processes."""
    return jax.devices()


def make_mesh(layout: Layout, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Return the mesh of axes ``data`` and ``model`` over all devices.

    Raises:
        ValueError: if the sizes do not use all devices.
    """
    ordered = devices is None
    devices = all_devices() if devices is None else devices
    sizes = [layout.data, layout.model]
    if -1 in sizes:
        sizes[sizes.index(-1)] = len(devices) // abs(math.prod(sizes)) or 1
    if math.prod(sizes) != len(devices):
        raise UserError(
            f"mesh = {dict(zip(AXES, sizes, strict=True))}: must use exactly the {len(devices)} devices there are"
        )
    return Mesh(_by_topology(sizes, devices) if ordered else np.asarray(devices).reshape(sizes), AXES)


def _by_topology(sizes: Sequence[int], devices: Sequence[jax.Device]) -> np.ndarray:
    """Return devices in an order in which neighbours in the mesh are neighbours in the machine; slices split data."""
    slices = {getattr(device, "slice_index", 0) for device in devices}
    if len(slices) > 1 and sizes[0] % len(slices) == 0:
        within = [sizes[0] // len(slices), *sizes[1:]]
        return mesh_utils.create_hybrid_device_mesh(within, [len(slices), *[1] * len(sizes[1:])], devices)
    return mesh_utils.create_device_mesh(sizes, devices)


def sampling_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Return a mesh with all devices on the data axis, for work that only splits batches."""
    devices = all_devices() if devices is None else devices
    return Mesh(np.asarray(devices).reshape(-1, 1), AXES)


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def by_rows(mesh: Mesh) -> NamedSharding:
    """Return the sharding of a batch: its first axis over the data axis of the mesh."""
    return NamedSharding(mesh, PartitionSpec("data"))


def put(local: dict[str, np.ndarray], where: NamedSharding) -> dict[str, Array]:
    """Return this process's part of arrays as arrays on the devices."""
    return {name: jax.make_array_from_process_local_data(where, values) for name, values in local.items()}


def described(local: dict[str, np.ndarray], where: NamedSharding) -> dict[str, jax.ShapeDtypeStruct]:
    """Return shapes and places of what :func:`put` would return, for devices that are not there."""
    return {
        name: jax.ShapeDtypeStruct(values.shape, jax.dtypes.canonicalize_dtype(values.dtype), sharding=where)
        for name, values in local.items()
    }


def state_shardings(layout: Layout, mesh: Mesh, abstract: PyTree[jax.ShapeDtypeStruct]) -> PyTree[NamedSharding]:
    """Return the sharding of every leaf of the training state.

    Raises:
        ValueError: on an unknown mesh axis, or a rule that does not fit a leaf it matches.
    """
    rules = [(pattern, tuple(axes)) for pattern, axes in layout.rules]

    def place(path: Any, leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        name = path_name(path)
        for pattern, axes in rules:
            if leaf.ndim and re.search(pattern, name):
                return NamedSharding(mesh, _checked(pattern, axes, name, leaf.shape, mesh))
        split = _fsdp(leaf.shape, mesh.shape["data"]) if layout.parameters == "fsdp" else PartitionSpec()
        return NamedSharding(mesh, split)

    return jax.tree_util.tree_map_with_path(place, abstract)


def check_batch(batch_size: int, accumulate: int, mesh: Mesh) -> None:
    """Refuse a batch that cannot be divided over micro-batches and the data axis of the mesh."""
    parts = accumulate * mesh.shape["data"]
    if batch_size % parts:
        raise UserError(
            f"training.batch_size = {batch_size}: must be a positive multiple of training.accumulate = {accumulate} "
            f"times the {mesh.shape['data']} devices of the data axis, {parts}"
        )


def path_name(path: Any) -> str:
    """Return the path of a leaf as ``a/b/c``."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _fsdp(shape: tuple[int, ...], size: int) -> PartitionSpec:
    divisible = [axis for axis, length in enumerate(shape) if length % size == 0]
    if size == 1 or math.prod(shape) < _FSDP_MIN_ELEMENTS or not divisible:
        return PartitionSpec()
    largest = max(divisible, key=lambda axis: shape[axis])
    return PartitionSpec(*("data" if axis == largest else None for axis in range(len(shape))))


def _checked(
    pattern: str, axes: tuple[str | None, ...], name: str, shape: tuple[int, ...], mesh: Mesh
) -> PartitionSpec:
    problem = ""
    if len(axes) != len(shape):
        problem = f"names {len(axes)} axes"
    for axis, length in zip(axes, shape, strict=False):
        if axis is not None and axis not in mesh.shape:
            problem = f"unknown mesh axis {axis!r}{nearest(axis, mesh.shape)}"
        elif axis is not None and length % mesh.shape[axis]:
            problem = f"mesh axis {axis!r} of size {mesh.shape[axis]} does not divide {length}"
    if problem:
        raise UserError(f"sharding.rules: {pattern!r} -> {axes} matches {name} of shape {shape}, but {problem}")
    return PartitionSpec(*axes)
