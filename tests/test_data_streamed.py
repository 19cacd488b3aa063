"""Sets that are read as needed: the same items as in memory, checked as they come, with faults that name the file."""

from __future__ import annotations

import os
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geonoise_jax import build
from geonoise_jax.data import Arrays, Pipeline, load_arrays, memory
from geonoise_jax.data.rows import NoReaderError, UnreadableItemError
from tests.own_files import photos, pixels

NUM = 40


def npy(folder: Path, **options: Any) -> dict[str, Any]:
    """Images and labels in files, and how they are named."""
    np.save(folder / "x.npy", pixels(0, NUM, 5, 6, 3))
    np.save(folder / "y.npy", np.arange(NUM) % 3)
    return {"name": "npy", "builder_kwargs": {"path": folder / "x.npy", "labels": folder / "y.npy", **options}}


def folder(folder: Path, **options: Any) -> dict[str, Any]:
    photos(folder / "in", *(f"{name}/{number}.png" for name in ("cat", "dog") for number in range(NUM // 2)))
    return {"name": "folder", "builder_kwargs": {"path": folder / "in", **options}}


def records(folder: Path) -> dict[str, Any]:
    return {"name": "digits", "data_dir": folder}


SOURCES: dict[str, Any] = {
    "npy": npy,
    "npy of [N, C, H, W]": lambda folder: npy(folder, channels_first=False),
    "folder": folder,
    "tiles": lambda path: folder(path, size=3, fit="tiles"),
    "records": records,
}
SPLITS = ("train", "train[5:30]", "train[30:]+train[:7]")


def both(arguments: dict[str, Any], split: str = "train") -> tuple[Arrays, Arrays]:
    """A set in memory, and read as needed."""
    whole, streamed = (load_arrays(split=split, **arguments, placement=placement) for placement in ("host", "stream"))
    return whole, streamed


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("source", SOURCES)
def test_items_are_those_of_the_set_in_memory(source: str, split: str, tmp_path: Path) -> None:
    whole, streamed = both(SOURCES[source](tmp_path), split)
    assert (whole.is_streamed, streamed.is_streamed) == (False, True)
    for name in ("event_shape", "nbytes", "num_classes", "class_names", "center", "scale", "name", "split"):
        assert getattr(streamed, name) == getattr(whole, name), name
    index = np.random.default_rng(0).integers(0, len(whole), 60)
    for name, values in whole.take(index).items():
        found = streamed.take(index)[name]
        np.testing.assert_array_equal(found, values)
        assert found.dtype == values.dtype
    assert streamed.checksum() == whole.checksum()
    np.testing.assert_array_equal(streamed.events[3:9:2], whole.events[3:9:2])
    np.testing.assert_array_equal(streamed.events[-1], whole.events[-1])
    np.testing.assert_array_equal(np.asarray(streamed.labels), whole.labels)


def test_an_item_is_found_in_its_file(tmp_path: Path) -> None:
    for source, place in (("records", "record 33 of "), ("npy", "row 33 of ")):
        streamed: Any = both(SOURCES[source](tmp_path), SPLITS[2])[1]
        assert streamed.events.of.reader.where(3).startswith(place)
        assert f"{place[:-6]}2 of " in streamed.events.of.reader.where(len(streamed) - 5)


def test_items_are_asked_for_as_of_an_array(tmp_path: Path) -> None:
    whole, streamed = both(npy(tmp_path))
    for rows in (-1, [3, -2], whole.labels == 1, slice(None, None, 7), np.zeros((2, 2), int)):
        np.testing.assert_array_equal(streamed.events[rows], whole.events[rows])
    with pytest.raises(IndexError, match=r"rows must be in -40\.\.39, got 3\.\.40"):
        streamed.events[[3, 40]]


@pytest.mark.parametrize("source", ["npy", "folder", "records"])
def test_batches_are_those_of_the_set_in_memory(source: str, tmp_path: Path) -> None:
    whole, streamed = both(SOURCES[source](tmp_path))
    pipelines = Pipeline(whole, 16, seed=3, placement="host"), Pipeline(streamed, 16, seed=3)
    assert [each.placement for each in pipelines] == ["host", "stream"]
    for step in (0, 1, 7, 200):
        one, other = (each.batch(step) for each in pipelines)
        assert set(one) == set(other)
        for name, values in one.items():
            np.testing.assert_array_equal(other[name], values)


def test_a_set_goes_where_it_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments, nbytes = npy(tmp_path), NUM * 5 * 6 * 3
    monkeypatch.setattr(memory, "available", lambda: 2 * nbytes)
    assert not load_arrays(split="train", **arguments).is_streamed
    assert load_arrays(split="train", **arguments, sharing=2).is_streamed, "two processes share the memory"
    monkeypatch.setattr(memory, "available", lambda: 2 * nbytes - 1)
    assert load_arrays(split="train", **arguments).is_streamed
    assert not load_arrays(split="train", **arguments, placement="host").is_streamed
    monkeypatch.setattr(memory, "available", lambda: None)
    assert not load_arrays(split="train", **arguments).is_streamed


def test_what_cannot_be_read_by_items_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = pixels(0, NUM, 5, 6, 3)
    np.savez(tmp_path / "x.npz", x=images)
    np.save(tmp_path / "f.npy", np.asfortranarray(images))
    for name, file, message in (("npz", "x.npz", "save the arrays as"), ("npy", "f.npy", "is in Fortran order")):
        arguments: dict[str, Any] = {"name": name, "builder_kwargs": {"path": tmp_path / file}}
        with pytest.raises(NoReaderError, match=message):
            load_arrays(split="train", **arguments, placement="stream")
        monkeypatch.setattr(memory, "available", lambda: images.nbytes)
        assert not load_arrays(split="train", **arguments).is_streamed, "more than its half, but there is memory"
        monkeypatch.setattr(memory, "available", lambda: images.nbytes - 1)
        with pytest.raises(ValueError, match=f"needs .* are available; read a part, .*; data.kwargs.path.*{message}"):
            load_arrays(split="train", **arguments)


def test_what_needs_all_items_in_memory_is_refused_with_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, streamed = both(npy(tmp_path))
    np.testing.assert_array_equal(build.model_points(streamed), streamed.to_model(np.asarray(streamed.events)))
    monkeypatch.setattr(memory, "available", lambda: 100)
    with pytest.raises(ValueError, match=r"40 points of npy/train in float32: needs .* of memory.*; take a part"):
        build.model_points(streamed)
    with pytest.raises(ValueError, match="all events of npy/train: needs .* of memory.*; take a part"):
        np.asarray(streamed.events)


def test_only_what_is_asked_for_is_in_memory(tmp_path: Path) -> None:
    file = np.lib.format.open_memmap(tmp_path / "x.npy", mode="w+", dtype=np.uint8, shape=(4000, 32, 32, 3))
    file[:] = 7
    file[::5] = 200
    del file
    tracemalloc.start()
    streamed = load_arrays("npy", "train", builder_kwargs={"path": tmp_path / "x.npy"}, placement="stream")
    pipeline = Pipeline(streamed, 64, seed=0)
    for step in range(20):
        pipeline.batch(step)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The 256 items that are looked at first, twice over for a moment.
    assert peak < 3 * 256 * 3072 < streamed.nbytes / 5


def test_threads_read_the_same(tmp_path: Path) -> None:
    for source in ("npy", "folder", "records"):
        _, streamed = both(SOURCES[source](tmp_path))
        order = np.random.default_rng(0).integers(0, len(streamed), (8, 50))
        found: dict[int, np.ndarray] = {}

        def read(part: int, data: Arrays = streamed, rows: np.ndarray = order, out: Any = found) -> None:
            out[part] = data.take(rows[part])["events"]

        threads = [threading.Thread(target=read, args=(part,)) for part in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for part in range(8):
            np.testing.assert_array_equal(found[part], streamed.take(order[part])["events"])


def test_a_damaged_or_vanished_image_is_named(tmp_path: Path) -> None:
    _, streamed = both(folder(tmp_path))
    reader: Any = streamed.events.of.reader  # type: ignore[attr-defined]
    path = Path(reader.where(7))
    path.write_bytes(path.read_bytes()[:60])
    everything = np.arange(NUM)
    match = rf"item 7 of folder/train \({path}\) cannot be read: is damaged or cannot be read"
    with pytest.raises(UnreadableItemError, match=match):
        streamed.take(everything)
    path.unlink()
    with pytest.raises(UnreadableItemError, match=rf"item 7 of folder/train \({path}\).*No such file"):
        streamed.take(everything[::-1])
    assert len(streamed.take(np.delete(everything, 7))["events"]) == NUM - 1


def test_a_shortened_array_file_is_named(tmp_path: Path) -> None:
    _, streamed = both(npy(tmp_path), "train[10:]")
    size = (tmp_path / "x.npy").stat().st_size
    os.truncate(tmp_path / "x.npy", size - 100)
    match = (
        r"item 28 of npy/train\[10:\] \(row 38 of data.kwargs.path = '.*x.npy'\) cannot be read: the file ends before"
    )
    with pytest.raises(UnreadableItemError, match=match):
        streamed.take(np.arange(30))
    assert len(streamed.take(np.arange(28))["events"]) == 28


def test_damaged_records_are_named(tmp_path: Path) -> None:
    _, streamed = both(records(tmp_path))
    (file,) = tmp_path.rglob("*digits-train*")
    content = bytearray(file.read_bytes())
    position = len(content) // 2
    content[position : position + 40] = bytes(40)
    file.write_bytes(content)
    with pytest.raises(
        UnreadableItemError, match=rf"item \d+ of digits/train \(record \d+ of {file}\) cannot be read: "
    ):
        streamed.take(np.arange(len(streamed)))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "must be finite numbers, but holds nan"),
        (-np.inf, "holds -inf"),
        (1.5, r"has values .*\.\.1\.5, which"),
    ],
)
def test_bad_values_are_named_as_they_come(value: float, message: str, tmp_path: Path) -> None:
    images = np.random.default_rng(0).uniform(-1, 1, (1000, 4, 4, 3)).astype(np.float32)
    images[500, 2, 1, 0] = value
    np.save(tmp_path / "x.npy", images)
    streamed = load_arrays("npy", "train", builder_kwargs={"path": tmp_path / "x.npy"}, placement="stream")
    with pytest.raises(UnreadableItemError, match=rf"item 500 of npy/train \(row 500 of .*x.npy'\) .*{message}"):
        streamed.take(np.asarray([3, 500, 7]))
    assert np.isfinite(streamed.take(np.asarray([3, 7]))["events"]).all()


def test_images_of_another_range_are_refused_before_training(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).uniform(0, 1, (30, 4, 4, 3)).astype(np.float32))
    arguments: dict[str, Any] = {"name": "npy", "split": "train", "builder_kwargs": {"path": tmp_path / "x.npy"}}
    with pytest.raises(ValueError, match=r"would be taken for -1\.\.1"):
        load_arrays(**arguments, placement="stream")
    with pytest.raises(UnreadableItemError, match="say which stored values become -1 and 1"):
        load_arrays(**arguments, placement="stream", value_range=(0.0, 0.5))
    assert load_arrays(**arguments, placement="stream", value_range=(0.0, 1.0)).scale == 2.0


def test_a_set_that_is_read_as_needed_cannot_be_put_elsewhere_later(tmp_path: Path) -> None:
    whole, streamed = both(npy(tmp_path))
    with pytest.raises(
        ValueError, match="placement must be auto or stream for npy/train, read as needed, got 'device'"
    ):
        Pipeline(streamed, 4, seed=0, placement="device")
    assert Pipeline(whole, 4, seed=0, placement="stream").placement == "host"
    with pytest.raises(ValueError, match=r"data.placement = 'disk': must be one of auto, host, device, stream"):
        load_arrays(split="train", **npy(tmp_path), placement="disk")


def test_files_are_closed(tmp_path: Path) -> None:
    open_files = Path("/proc/self/fd")
    if not open_files.is_dir():
        pytest.skip("this system does not list the files that a process has open")
    before = len(list(open_files.iterdir()))
    for _ in range(5):
        both(npy(tmp_path))
    assert len(list(open_files.iterdir())) <= before + 1
