"""Tensors from files of ``torch.save``, without torch and without running what a file says.

A pickle is a program. This reader knows the five things that a state dict of tensors is made of: ``OrderedDict``,
``torch._utils._rebuild_tensor_v2``, the storage types, tuples of numbers and strings. Whatever else a file names is
refused before it is imported, and a tensor has to lie within its storage. Two formats exist: the zip archive since
torch 1.6 (``*/data.pkl`` beside ``*/data/KEY``), and before it pickles in a row (magic number, version, system, state
dict, storage keys), followed by each storage as its length and its bytes.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from geonoise_jax import files
from geonoise_jax.errors import UserError

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
# Storages by the name of their type; bfloat16 comes as its upper half of a float32.
_DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


class _Storage(NamedTuple):
    key: str
    kind: str
    size: int


class _View(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Allowed:
    """What a pickle may call, and nothing that a pickle could change."""

    __slots__ = ("_function",)
    _function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setattr__(self, name: str, value: Any) -> None:
        raise pickle.UnpicklingError("it changes what is not its own")

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it changes what is not its own")


class _StateDict(dict[Any, Any]):
    """A mapping that drops the attributes that torch pickles beside its entries, the versions of modules."""

    def __setstate__(self, state: Any) -> None:
        pass


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return _Allowed(_StateDict)
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Allowed(_view)
        if module == "torch" and name in _DTYPES:
            return name
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is no part of a state dict")

    def persistent_load(self, pid: Any) -> _Storage:
        # The sixth entry of the old format is a view of another storage, which state dicts do not have.
        label, kind, key, _, size, *view = pid
        if label != "storage" or kind not in _DTYPES or (view and view != [None]):
            raise pickle.UnpicklingError("it has a storage of an unknown kind")
        return _Storage(str(key), kind, _count(size))


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Read a state dict of tensors that ``torch.save`` wrote, in its zip format or that before torch 1.6.

    Args:
        path: the file.

    Returns:
        Arrays by name, each its own copy in row-major order; bfloat16 becomes float32.

    Raises:
        UserError: if it cannot be read, is damaged, or holds anything but a mapping of names to tensors.
    """
    path = files.local(path, "weights")
    try:
        return _of_zip(path) if zipfile.is_zipfile(path) else _of_pickles(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    # What damaged pickles and archives raise is of every kind.
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{path}: is damaged, or no state dict of torch ({reason})") from error


def _of_zip(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        index = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(index) != 1:
            raise pickle.UnpicklingError("the archive has no single data.pkl")
        root = index[0].removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise pickle.UnpicklingError("its bytes are in big-endian order")
        views = _views(_Unpickler(io.BytesIO(archive.read(index[0]))).load())
        storages = {
            view.storage.key: _numbers(view.storage, archive.read(f"{root}data/{view.storage.key}"))
            for view in {view.storage.key: view for view in views.values()}.values()
        }
    return _arrays(views, storages)


def _of_pickles(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file:
        head = [_Unpickler(file).load() for _ in range(3)]
        if head[:2] != [_MAGIC, _VERSION] or not head[2]["little_endian"]:
            raise pickle.UnpicklingError("it does not begin as a file of torch with little-endian numbers")
        views = _views(_Unpickler(file).load())
        known = {view.storage.key: view.storage for view in views.values()}
        storages = {}
        for key in _Unpickler(file).load():
            storage = known.pop(key)
            if int.from_bytes(file.read(8), "little", signed=True) != storage.size:
                raise pickle.UnpicklingError(f"storage {key} has not the length that its tensors have")
            storages[key] = _numbers(storage, file.read(storage.size * np.dtype(_DTYPES[storage.kind]).itemsize))
    return _arrays(views, storages)


def _view(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _View:
    if not isinstance(storage, _Storage) or len(shape) != len(strides):
        raise pickle.UnpicklingError("it has a tensor without a storage")
    return _View(storage, _count(offset), tuple(map(_count, shape)), tuple(map(_count, strides)))


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise pickle.UnpicklingError(f"{value!r} is no size")
    return value


def _views(content: Any) -> Mapping[str, _View]:
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(view, _View) for name, view in content.items()
    ):
        raise pickle.UnpicklingError("its content is no mapping of names to tensors")
    return content


def _numbers(storage: _Storage, data: bytes) -> np.ndarray:
    numbers = np.frombuffer(data, _DTYPES[storage.kind])
    if numbers.size != storage.size:
        raise pickle.UnpicklingError(f"storage {storage.key} is cut short")
    if storage.kind == "BFloat16Storage":
        return (numbers.astype(np.uint32) << 16).view(np.float32)
    return numbers


def _arrays(views: Mapping[str, _View], storages: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: _array(name, view, storages[view.storage.key]) for name, view in views.items()}


def _array(name: str, view: _View, numbers: np.ndarray) -> np.ndarray:
    if not _within(view.shape, view.strides, view.offset, numbers.size):
        raise pickle.UnpicklingError(f"tensor {name} lies outside of its storage")
    strides = [step * numbers.itemsize for step in view.strides]
    start = numbers[view.offset :]
    return np.lib.stride_tricks.as_strided(start, view.shape, strides, writeable=False).copy()


def _within(shape: Sequence[int], strides: Sequence[int], offset: int, size: int) -> bool:
    """Whether every element has a place, and none is asked for more often than the storage is long."""
    if math.prod(shape) == 0:
        return offset <= size
    last = offset + sum((length - 1) * step for length, step in zip(shape, strides, strict=True))
    return last < size and math.prod(shape) <= size
