"""Arrays in .npy and .npz files as data sets."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geonoise_jax.data import Arrays, load_arrays, memory
from geonoise_jax.data.load import scaling
from geonoise_jax.data.numpy_files import npz_member, read_rows
from tests.own_files import pixels

IMAGES = pixels(0, 20, 4, 6, 3)
LABELS = np.arange(20) % 3
VECTORS = np.random.default_rng(0).normal(size=(20, 5))


def load(kind: str, path: Path, split: str = "train", *, value_range: Any = (), **kwargs: Any) -> Arrays:
    return load_arrays(kind, split, builder_kwargs={"path": str(path), **kwargs}, value_range=value_range)


@pytest.fixture
def npy(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", IMAGES)
    np.save(tmp_path / "y.npy", LABELS)
    return tmp_path / "x.npy"


def test_items_and_labels_come_in_the_order_of_the_file(npy: Path) -> None:
    arrays = load("npy", npy, "train[5:12]", labels=str(npy.with_name("y.npy")))
    np.testing.assert_array_equal(arrays.events, IMAGES[5:12])
    np.testing.assert_array_equal(arrays.labels, LABELS[5:12])
    assert (arrays.num_classes, arrays.center, arrays.scale) == (3, 127.5, 2 / 255)
    assert scaling("npy", builder_kwargs={"path": str(npy)}) == (127.5, 2 / 255)
    unlabelled = load("npy", npy)
    assert (len(unlabelled), unlabelled.labels, unlabelled.num_classes) == (20, None, None)


@pytest.mark.parametrize("order", [">f4", "<f8", ">i2"])
def test_byte_orders_and_orders_of_axes_are_made_this_machines(order: str, tmp_path: Path) -> None:
    stored = np.asfortranarray((10 * VECTORS).astype(order))
    np.save(tmp_path / "x.npy", stored)
    arrays = load("npy", tmp_path / "x.npy", "train[3:9]", value_range=(-100, 100) if "i" in order else ())
    np.testing.assert_array_equal(arrays.events, stored[3:9])
    assert arrays.events.dtype.isnative
    assert arrays.events.flags.c_contiguous


def test_a_file_for_each_split(tmp_path: Path) -> None:
    for split, rows in (("train", slice(0, 15)), ("test", slice(15, 20))):
        np.save(tmp_path / f"x_{split}.npy", IMAGES[rows])
        np.save(tmp_path / f"y_{split}.npy", LABELS[rows])
    labels = str(tmp_path / "y_{split}.npy")
    arrays = load("npy", tmp_path / "x_{split}.npy", "test[:2]+train[:1]", labels=labels)
    np.testing.assert_array_equal(arrays.events, IMAGES[[15, 16, 0]])
    np.testing.assert_array_equal(arrays.labels, LABELS[[15, 16, 0]])
    with pytest.raises(ValueError, match=r"no such split; there is test \(5 items\), train \(15 items\)"):
        load("npy", tmp_path / "x_{split}.npy", "val")
    with pytest.raises(ValueError, match=r"data.kwargs.labels = .*: must have \{split\}"):
        load("npy", tmp_path / "x_{split}.npy", labels=str(tmp_path / "y_test.npy"))
    with pytest.raises(ValueError, match="no such files in"):
        load("npy", tmp_path / "z_{split}.npy")


@pytest.mark.parametrize(
    ("names", "kwargs"),
    [
        (("x", "labels"), {}),
        (("samples", "labels"), {}),
        (("arr_0", "arr_1"), {}),
        (("mine", "classes"), {"x": "mine", "labels": "classes"}),
        (("x_train", "y_train"), {}),
        (("train_images", "train_labels"), {}),
        (("a-train", "b-train"), {"x": "a-{split}", "labels": "b-{split}"}),
    ],
)
def test_arrays_of_a_npz_are_found_by_their_names(
    names: tuple[str, str], kwargs: dict[str, str], tmp_path: Path
) -> None:
    arrays_of_file: dict[str, Any] = {names[0]: IMAGES, names[1]: LABELS[:, None]}
    np.savez(tmp_path / "a.npz", **arrays_of_file)
    arrays = load("npz", tmp_path / "a.npz", **kwargs)
    np.testing.assert_array_equal(arrays.events, IMAGES)
    np.testing.assert_array_equal(arrays.labels, LABELS)


def test_splits_of_a_npz_have_the_classes_of_all(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x_train=IMAGES, y_train=LABELS, x_test=IMAGES[:3], y_test=np.zeros(3, int))
    arrays = load("npz", tmp_path / "a.npz", "test")
    assert (len(arrays), arrays.num_classes) == (3, 3)
    assert load("npz", tmp_path / "a.npz", "test", num_classes=7).num_classes == 7


def test_a_single_array_needs_no_name_and_several_do(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", whatever=VECTORS)
    assert load("npz", tmp_path / "a.npz").labels is None
    np.savez(tmp_path / "a.npz", one=VECTORS, two=VECTORS)
    with pytest.raises(ValueError, match=r"has arrays one, two; say which are the items by data.kwargs.x"):
        load("npz", tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"data.kwargs.x = 'three': no such array in .*, which has one, two"):
        load("npz", tmp_path / "a.npz", x="three")
    with pytest.raises(ValueError, match=r"data.kwargs.labels = 'three': no array 'three'"):
        load("npz", tmp_path / "a.npz", x="one", labels="three")


def test_grey_images_get_a_channel_and_channels_come_last(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", IMAGES[..., 0])
    np.testing.assert_array_equal(load("npy", tmp_path / "x.npy").events, IMAGES[..., :1])
    np.save(tmp_path / "x.npy", np.moveaxis(IMAGES, -1, 1))
    with pytest.raises(ValueError, match=r"looks like \[N, C, H, W\]; say channels_first=True"):
        load("npy", tmp_path / "x.npy")
    np.testing.assert_array_equal(load("npy", tmp_path / "x.npy", channels_first=True).events, IMAGES)
    assert load("npy", tmp_path / "x.npy", channels_first=False).event_shape == (3, 4, 6)


def test_labels_that_are_all_hidden_are_none(npy: Path) -> None:
    np.save(npy.with_name("y.npy"), np.full(20, -1))
    assert load("npy", npy, labels=str(npy.with_name("y.npy"))).num_classes is None


BAD: list[tuple[Any, dict[str, Any], str]] = [
    (np.array([{}, {}]), {}, "has dtype object; must be real numbers"),
    (VECTORS > 0, {}, "has dtype bool; must be real numbers"),
    (VECTORS + 1j, {}, "has dtype complex128"),
    (np.array(["a", "b"]), {}, "must be real numbers"),
    (np.zeros(()), {}, "has no rows"),
    (np.zeros(4), {}, r"must be \[N, \*event\], not empty: \[4\]"),
    (np.zeros((3, 0)), {}, r"must be \[N, \*event\], not empty: \[3, 0\]"),
    (np.where(np.arange(100).reshape(20, 5) == 73, np.nan, VECTORS), {}, "1 of 20 items hold others, .* index 14: nan"),
    (np.full((3, 2, 2, 1), 0.5), {}, r"npy/train have values 0.5..0.5 and would be taken for -1..1: say .* data.range"),
    ((10 * VECTORS).astype(np.int64), {}, "must be uint8 or floating, got int64; .* data.range"),
]


@pytest.mark.parametrize(("array", "kwargs", "message"), BAD)
def test_bad_arrays_are_refused(array: Any, kwargs: dict[str, Any], message: str, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(ValueError, match=message) as caught:
        load("npy", tmp_path / "x.npy", **kwargs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS[:7], r"have shape \[7\]; must be \[20\]"),
        (np.eye(20), "not one-hot vectors"),
        (LABELS + 0.5, "have dtype float64; must be integers"),
        (LABELS - 2, "the one at index 0 is -2; must be 0 or more, or -1"),
        (LABELS + 2**40, "index 0 is 1099511627776"),
        (np.array(["cat"] * 20), "has dtype <U3"),
    ],
)
def test_bad_labels_are_refused(labels: np.ndarray, message: str, npy: Path) -> None:
    np.save(npy.with_name("y.npy"), labels)
    with pytest.raises(ValueError, match=rf"data.kwargs.labels = .*{message}"):
        load("npy", npy, labels=str(npy.with_name("y.npy")))


def test_damaged_files_are_named(npy: Path) -> None:
    whole = npy.read_bytes()
    odd = whole.replace(b"False", b"(((((")
    for damaged in (b"", b"text", whole[:100], whole[:-1], whole.replace(b"|u1", b"|O1"), odd):
        npy.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"data.kwargs.path = .*x.npy'?: (not a readable .npy file|has dtype)"):
            load("npy", npy)
    np.savez_compressed(npy.with_name("a.npz"), x=IMAGES)
    whole = npy.with_name("a.npz").read_bytes()
    # The method of compression of the one member stands at byte 8 of its head, and at byte 10 in the directory.
    place = whole.rindex(b"PK\1\2") + 10
    method = whole[:8] + b"\x63" + whole[9:place] + b"\x63" + whole[place + 1 :]
    for damaged in (b"", b"text", whole[:-9], whole[:300] + b"\0\0\0" + whole[303:], method):
        npy.with_name("a.npz").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a.npz'.*: not a readable .np[yz] file of numbers"):
            load("npz", npy.with_name("a.npz"))


def test_a_file_that_claims_more_than_the_memory_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 2**30)
    head = np.lib.format.header_data_from_array_1_0(np.zeros((1, 3)))
    with (tmp_path / "x.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {**head, "shape": (2**40, 3)})
    with pytest.raises(ValueError, match="x.npy': not a readable .npy file of numbers .it ends before the last number"):
        load("npy", tmp_path / "x.npy")
    with pytest.raises(ValueError, match="needs 2.46e.04 GiB of memory"):
        load_arrays("npy", "train", builder_kwargs={"path": tmp_path / "x.npy"}, placement="host")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.write(tmp_path / "x.npy", "x.npy")
    with pytest.raises(ValueError, match="of memory"):
        load("npz", tmp_path / "a.npz")


def test_rows_of_a_compressed_array_are_found(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=VECTORS)
    member = npz_member(tmp_path / "a.npz", "title", "x")
    np.testing.assert_array_equal(read_rows(member, 18), VECTORS[18:])
    assert read_rows(member, 3, 3).shape == (0, 5)


def test_unknown_arguments_name_the_nearest(npy: Path) -> None:
    with pytest.raises(ValueError, match=r"data.kwargs.label: no argument of data set 'npy'; did you mean labels"):
        load("npy", npy, label="y.npy")
