"""State dicts of torch are read in both formats, and nothing that such a file names is run."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from geonoise_jax.evaluation.features.torch_files import read
from tests.torch_state_files import EMPTY_DICT, KINDS, Tensor, number, sizes, text, write

RNG = np.random.default_rng
STORAGE = {"0": np.arange(24, dtype=np.float32)}


def ones(dtype: str) -> np.ndarray:
    return (100 * RNG(0).random((2, 3))).astype(dtype)


@pytest.mark.parametrize("old", [False, True])
def test_tensors_come_back_by_name_in_every_dtype(tmp_path: Path, old: bool) -> None:
    arrays = {dtype: ones(dtype) for dtype in KINDS if dtype != "uint16"}
    arrays |= {"scalar": np.array(3.5, np.float32), "none": np.zeros((0, 3), np.float32)}
    found = read(write(tmp_path / "weights.pth", arrays, old=old))
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_bfloat16_becomes_float32(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5, 3e38, 1e-30], np.float32)
    upper = (values.view(np.uint32) >> 16).astype(np.uint16)
    found = read(write(tmp_path / "weights.pth", {"0": upper}))["0"]
    np.testing.assert_allclose(found, values, rtol=2**-7)
    assert found.dtype == np.float32


@pytest.mark.parametrize("old", [False, True])
def test_views_share_a_storage_in_any_order_of_axes(tmp_path: Path, old: bool) -> None:
    views = {"turned": Tensor("0", (3, 4), (1, 3), 2), "last": Tensor("0", (2,), (1,), 22)}
    found = read(write(tmp_path / "weights.pth", STORAGE, old=old, views=views))
    np.testing.assert_array_equal(found["turned"], np.arange(2, 14).reshape(4, 3).T)
    np.testing.assert_array_equal(found["last"], [22, 23])
    assert found["turned"].flags.c_contiguous
    assert found["turned"].flags.writeable


def called(module: str, name: str, argument: str) -> bytes:
    return f"c{module}\n{name}\n(".encode() + text(argument) + b"tR"


ATTACKS = {
    "os.system": called("os", "system", "touch ran"),
    "posix.system": called("posix", "system", "touch ran"),
    "builtins.eval": called("builtins", "eval", "open('ran', 'w')"),
    "builtins.getattr": called("builtins", "getattr", "x"),
    "torch.load": called("torch", "load", "x"),
    "torch._utils._rebuild_parameter": called("torch._utils", "_rebuild_parameter", "x"),
    "collections.OrderedDict.fromkeys": called("collections", "OrderedDict.fromkeys", "x"),
}


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_else_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, old: bool) -> None:
    monkeypatch.chdir(tmp_path)
    content = b"\x80\x02" + ATTACKS[name] + b"."
    with pytest.raises(ValueError, match=rf"weights.pth: is damaged.*names {name}"):
        read(write(tmp_path / "weights.pth", {}, old=old, content=content))
    assert not (tmp_path / "ran").exists()


def test_what_may_be_called_cannot_be_changed(tmp_path: Path) -> None:
    for callee in (b"ctorch._utils\n_rebuild_tensor_v2\n", b"ccollections\nOrderedDict\n"):
        for change in (b"}" + text("_function") + number(1) + b"s", b"N}" + text("_function") + number(1) + b"s\x86"):
            content = b"\x80\x02" + callee + change + b"b."
            with pytest.raises(ValueError, match="changes what is not its own"):
                read(write(tmp_path / "weights.pth", {}, content=content))


def single(view: Tensor) -> Callable[[Path], Path]:
    return lambda path: write(path, STORAGE, views={"w": view})


def broken(change: Callable[[bytes], bytes], old: bool) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        write(path, STORAGE, old=old)
        path.write_bytes(change(path.read_bytes()))
        return path

    return make


DAMAGED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "beyond its end": (single(Tensor("0", (5, 5), (5, 1))), "tensor w lies outside of its storage"),
    "an offset beyond": (single(Tensor("0", (1,), (1,), 24)), "tensor w lies outside of its storage"),
    "before its start": (single(Tensor("0", (2,), (1,), -1)), "-1 is no size"),
    "a negative stride": (single(Tensor("0", (2,), (-1,), 1)), "-1 is no size"),
    "repeated at will": (single(Tensor("0", (2**20, 2**10), (0, 0))), "tensor w lies outside of its storage"),
    "strides of other axes": (single(Tensor("0", (2, 3), (1,))), "a tensor without a storage"),
    "cut short": (broken(lambda data: data[:-4], old=True), "storage 0 is cut short"),
    "cut in the archive": (broken(lambda data: data[:-40], old=False), "is damaged"),
    "a wrong length": (broken(lambda data: data.replace(b"\x18" + 7 * b"\0", b"\x17" + 7 * b"\0"), old=True), "length"),
    "no file of torch": (broken(lambda _: pickle.dumps({"w": 1}), old=True), "is damaged"),
    "text": (broken(lambda _: b"<html>404</html>", old=True), "is damaged"),
    "nothing": (broken(lambda _: b"", old=True), "is damaged"),
    "no mapping": (lambda path: write(path, {}, content=b"\x80\x02" + sizes([1]) + b"."), "no mapping of names"),
    "no tensors": (
        lambda path: write(path, {}, content=b"\x80\x02" + EMPTY_DICT + text("w") + number(1) + b"s."),
        "no mapping of names",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_said(tmp_path: Path, name: str) -> None:
    make, message = DAMAGED[name]
    with pytest.raises(ValueError, match=message) as raised:
        read(make(tmp_path / "weights.pth"))
    assert str(tmp_path / "weights.pth") in str(raised.value)


@pytest.mark.parametrize("old", [False, True])
def test_storages_of_another_byte_order_are_refused(tmp_path: Path, old: bool) -> None:
    with pytest.raises(ValueError, match="endian"):
        read(write(tmp_path / "weights.pth", STORAGE, old=old, order="big"))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none.pth: cannot be read"):
        read(tmp_path / "none.pth")
