"""Files as ``torch.save`` writes them, in both of its formats, put together without torch, for good and for ill."""

from __future__ import annotations

import functools
import pickle
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from geonoise_jax.evaluation.features.pretrained import inception_names
from geonoise_jax.nets.inception import InceptionV3

KINDS = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "uint16": "BFloat16Storage",
    "bool": "BoolStorage",
}
EMPTY_DICT = b"ccollections\nOrderedDict\n)R"


class Tensor(NamedTuple):
    """A view of a storage, as it stands in the pickle; by default all of it, row by row."""

    key: str
    shape: Sequence[int]
    strides: Sequence[int]
    offset: int = 0


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def sizes(values: Sequence[int]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def whole(key: str, array: np.ndarray) -> Tensor:
    return Tensor(key, array.shape, [step // array.itemsize for step in array.strides])


def tensor(view: Tensor, storage: np.ndarray, *, old: bool) -> bytes:
    """The opcodes that rebuild one tensor."""
    head = b"(" + text("storage") + f"ctorch\n{KINDS[storage.dtype.name]}\n".encode()
    pid = head + text(view.key) + text("cpu") + number(storage.size) + (b"N" if old else b"") + b"tQ"
    arguments = pid + number(view.offset) + sizes(view.shape) + sizes(view.strides) + b"\x89" + EMPTY_DICT
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


def state(views: Mapping[str, Tensor], storages: Mapping[str, np.ndarray], *, old: bool) -> bytes:
    """The pickle of a state dict, with the versions of modules that torch puts beside its entries."""
    entries = b"".join(text(name) + tensor(view, storages[view.key], old=old) for name, view in views.items())
    versions = b"}" + text("_metadata") + EMPTY_DICT + b"s"
    return b"\x80\x02" + EMPTY_DICT + b"(" + entries + b"u" + versions + b"b."


def write(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    *,
    old: bool = False,
    views: Mapping[str, Tensor] | None = None,
    content: bytes | None = None,
    order: str = "little",
) -> Path:
    """Write a file of torch.

    Args:
        path: the file.
        arrays: the storages by key; without views, the tensors by name too.
        old: whether in the format before torch 1.6.
        views: the tensors by name.
        content: another pickle for that of the state dict.
        order: of bytes, as the file says.
    """
    views = {name: whole(name, array) for name, array in arrays.items()} if views is None else views
    content = state(views, arrays, old=old) if content is None else content
    (_write_old if old else _write_zip)(path, arrays, content, order)
    return path


def _write_zip(path: Path, storages: Mapping[str, np.ndarray], content: bytes, order: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/byteorder", order)
        for key, array in storages.items():
            archive.writestr(f"archive/data/{key}", array.tobytes())
        archive.writestr("archive/version", "3\n")


def _write_old(path: Path, storages: Mapping[str, np.ndarray], content: bytes, order: str) -> None:
    system = {
        "protocol_version": 1001,
        "little_endian": order == "little",
        "type_sizes": {"short": 2, "int": 4, "long": 4},
    }
    head = b"".join(pickle.dumps(each, 2) for each in (0x1950A86A20F9469CFC6C, 1001, system))
    data = b"".join(struct.pack("<q", array.size) + array.tobytes() for array in storages.values())
    path.write_bytes(head + content + pickle.dumps(list(storages), 2) + data)


def random_state(abstract: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights for the layers of a torch network: kernels that keep the scale, normalisations near the identity.

    Args:
        abstract: shapes by dotted names.
        seed: of the numbers.
    """
    rng = np.random.default_rng(seed)

    def numbers(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if len(shape) > 1:
            return rng.normal(size=shape) * np.sqrt(2.0 / np.prod(shape[1:]))
        wide = name.endswith(("running_var", "weight"))
        return rng.uniform(0.5, 1.5, shape) if wide else 0.1 * rng.normal(size=shape)

    return {name: numbers(name, shape).astype(np.float32) for name, shape in abstract.items()}


@functools.cache
def inception_shapes() -> dict[str, tuple[int, ...]]:
    """Shapes by name of the arrays in the published file of the Inception network."""
    example = jnp.zeros((1, 75, 75, 3))
    abstract = jax.eval_shape(InceptionV3().init, jax.random.key(0), example)["params"]
    found: dict[str, tuple[int, ...]] = {"fc.bias": (1008,)}
    for path, leaf in jax.tree_util.tree_leaves_with_path(abstract):
        *layer, kind = (entry.key for entry in path)
        if kind == "kernel":
            conv, norm = inception_names(tuple(layer))
            order = (3, 2, 0, 1) if leaf.ndim == 4 else (1, 0)
            found[f"{conv}.weight"] = tuple(leaf.shape[axis] for axis in order)
            for name in ("weight", "bias", "running_mean", "running_var") if norm else ():
                found[f"{norm}.{name}"] = (leaf.shape[-1],)
    return found
