"""What a checkpoint says of its arrays, by path: ``{"params/in/kernel": "float32[3,16]"}``."""

from __future__ import annotations

import json
import zlib
from typing import Any

import jax
import jax.numpy as jnp


def nested(held: dict[str, str], name: str) -> dict[str, Any]:
    """Return the part of this name of what a checkpoint holds, as nested dicts of abstract arrays."""
    tree: dict[str, Any] = {}
    for path, kind in held.items():
        first, *parents = path.split("/")
        if first != name:
            continue
        node = tree
        for parent in parents[:-1]:
            node = node.setdefault(parent, {})
        node[parents[-1]] = abstract(kind)
    return tree


def abstract(kind: str) -> jax.ShapeDtypeStruct:
    """Return the array of a type such as ``float32[3,16]``, on the host's device where there is one."""
    dtype, _, shape = kind.removesuffix("]").partition("[")
    try:
        device = jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        device = jax.local_devices()[0]
    where = jax.sharding.SingleDeviceSharding(device)
    return jax.ShapeDtypeStruct(tuple(int(n) for n in shape.split(",") if n), jnp.dtype(dtype), sharding=where)


def way_out(found: dict[str, str]) -> str:
    """Return what to do about arrays of other types than a checkpoint holds."""
    # The running means have the precision that jax computes in; parameters may be float32 in either.
    mode = any(held.startswith("float64") for held in found.values())
    if mode != (jnp.result_type(float) == jnp.float64):
        return f"the run was trained with jax_enable_x64 = {mode}: set JAX_ENABLE_X64={int(mode)}"
    return "the network or the data is another than the run's"


def text_sum(value: dict[str, str]) -> int:
    """Return a checksum of the types themselves."""
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())
