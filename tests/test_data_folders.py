"""A folder of images as a data set: splits, classes, order, sizes, and files that cannot be used."""

from __future__ import annotations

import logging
import os
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geonoise_jax.data import Arrays, decoding, load_arrays, memory
from tests.own_files import photos, pixels, save


def load(path: Path, split: str = "train", **kwargs: Any) -> Arrays:
    return load_arrays("folder", split, builder_kwargs={"path": str(path), **kwargs})


def rows(arrays: Arrays) -> list[bytes]:
    return [event.tobytes() for event in arrays.events]


def test_a_flat_folder_is_one_split_without_classes(tmp_path: Path) -> None:
    written = photos(tmp_path, "a.png", "b.PNG", "c.bmp", "ü.png")
    arrays = load(tmp_path)
    assert (arrays.labels, arrays.num_classes, arrays.event_shape) == (None, None, (6, 8, 3))
    assert sorted(rows(arrays)) == sorted(array.tobytes() for array in written.values())
    x = arrays.to_model(arrays.events)
    assert -1.0 <= x.min() < -0.9 < 0.9 < x.max() <= 1.0
    assert load(tmp_path, channels=1).event_shape == (6, 8, 1)


def test_sub_folders_are_classes_and_images_beside_them_have_none(tmp_path: Path) -> None:
    written = photos(tmp_path, "dog/1.png", "cat/deep/2.png", "cat/3.png", "4.png")
    (tmp_path / "empty").mkdir()
    arrays = load(tmp_path)
    assert (arrays.class_names, arrays.num_classes) == (("cat", "dog"), 2)
    assert arrays.labels is not None
    found = dict(zip(rows(arrays), arrays.labels.tolist(), strict=True))
    labels = {"dog/1.png": 1, "cat/deep/2.png": 0, "cat/3.png": 0, "4.png": -1}
    assert found == {array.tobytes(): labels[name] for name, array in written.items()}


def test_train_and_test_folders_are_splits_with_the_classes_of_train(tmp_path: Path) -> None:
    written = photos(tmp_path, "train/cat/1.png", "train/dog/2.png", "test/dog/3.png")
    arrays = load(tmp_path, "test")
    assert (rows(arrays), arrays.class_names) == ([written["test/dog/3.png"].tobytes()], ("cat", "dog"))
    np.testing.assert_array_equal(arrays.labels, [1])
    with pytest.raises(ValueError, match=r"'val' .*no such split; there is train \(2 items\), test \(1 items\)"):
        load(tmp_path, "val")


def test_slices_divide_the_items_and_each_is_a_sample_of_all_classes(tmp_path: Path) -> None:
    photos(tmp_path, *(f"{name}/{i}.png" for name in "abcd" for i in range(10)), shape=(2, 2, 3))
    parts = [load(tmp_path, split) for split in ("train[:50%]", "train[50%:]")]
    assert rows(parts[0]) + rows(parts[1]) == rows(load(tmp_path))
    for part in parts:
        assert part.labels is not None
        assert len(set(part.labels.tolist())) == 4


def test_the_order_depends_on_names_alone(tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(9)] + [unicodedata.normalize("NFC", "é.png")]
    photos(tmp_path / "one", *names)
    for name in reversed(names):
        (tmp_path / "two").mkdir(exist_ok=True)
        shutil.copy(tmp_path / "one" / name, tmp_path / "two" / unicodedata.normalize("NFD", name))
    one, two = load(tmp_path / "one"), load(tmp_path / "two")
    assert rows(one) == rows(two)
    assert one.checksum() == two.checksum()
    save(tmp_path / "two" / "0.png", pixels(99, 6, 8, 3))
    assert load(tmp_path / "two").checksum() != one.checksum()


def test_names_that_are_no_text_can_be_printed(tmp_path: Path) -> None:
    try:
        photos(Path(os.fsdecode(bytes(tmp_path) + b"/\xff")), "a.png")
    except OSError:
        pytest.skip("the file system refuses such names")
    assert load(tmp_path).class_names == ("\\udcff",)


def test_hidden_files_are_passed_over_others_are_said_and_links_followed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photos(tmp_path / "in", "a.png", ".hidden.png", "__MACOSX/a.png", ".git/b.png")
    photos(tmp_path / "out", "c.png", "deep/d.png")
    (tmp_path / "in" / "notes.txt").touch()
    (tmp_path / "in" / "linked.png").symlink_to(tmp_path / "out" / "c.png")
    (tmp_path / "in" / "class").symlink_to(tmp_path / "out" / "deep", target_is_directory=True)
    (tmp_path / "out" / "deep" / "loop").symlink_to(tmp_path / "in" / "class", target_is_directory=True)
    os.mkfifo(tmp_path / "in" / "pipe.png")
    with caplog.at_level(logging.WARNING):
        arrays = load(tmp_path / "in")
    assert (len(arrays), arrays.class_names) == (3, ("class",))
    assert "passed over 1 files that are no images, such as 'notes.txt'" in caplog.text


def test_sizes_are_made_equal_by_the_rule_that_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    photos(tmp_path, "a.png", shape=(40, 64, 3))
    photos(tmp_path, "b.png", shape=(33, 20, 3))
    with pytest.raises(ValueError, match=r"'\w.png' is .*, but '\w.png' is .*x.*; give data.kwargs.size"):
        load(tmp_path)
    for fit in ("crop", "stretch", "pad"):
        assert load(tmp_path, size=16, fit=fit).events.shape == (2, 16, 16, 3)
    assert load(tmp_path, size=[8, 16]).event_shape == (8, 16, 3)
    assert not caplog.records
    load(tmp_path, size=32)
    assert "1 images are enlarged to data.kwargs.size, such as 'b.png'" in caplog.text


def test_tiles_are_items_of_their_own(tmp_path: Path) -> None:
    photos(tmp_path, "a.png", "b.png", shape=(33, 47, 3))
    photos(tmp_path, "small.png", shape=(8, 8, 3))
    whole = load(tmp_path, size=16, fit="tiles")
    assert whole.events.shape == (8, 16, 16, 3)
    parts = [load(tmp_path, split, size=16, fit="tiles") for split in ("train[:3]", "train[3:]")]
    assert rows(parts[0]) + rows(parts[1]) == rows(whole)
    with pytest.raises(ValueError, match="no image of .* is as large as a tile"):
        load(tmp_path, size=64, fit="tiles")


def test_grey_images_have_one_channel_unless_any_has_colours(tmp_path: Path) -> None:
    photos(tmp_path, "a.png", "b.png", shape=(6, 8))
    assert load(tmp_path).event_shape == (6, 8, 1)
    assert load(tmp_path, channels=3).event_shape == (6, 8, 3)
    photos(tmp_path, "c.png")
    assert load(tmp_path).event_shape == (6, 8, 3)


def test_files_that_cannot_be_read_are_named_together(tmp_path: Path) -> None:
    photos(tmp_path, "good.png")
    for number in range(7):
        (tmp_path / f"bad{number}.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"7 of 8 files: 'bad0.png' is no image .*'bad4.png' is no.* and 2 more$"):
        load(tmp_path)
    shutil.copy(tmp_path / "good.png", tmp_path / "cut.png")
    for path in tmp_path.glob("bad*"):
        path.unlink()
    whole = (tmp_path / "good.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:-60])
    with pytest.raises(ValueError, match=r"1 of 2 files: 'cut.png' is damaged"):
        load(tmp_path)


def test_layouts_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    def made(name: str, *names: str) -> Path:
        photos(tmp_path / name, *names)
        return tmp_path / name

    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.txt").touch()
    (tmp_path / "heic").mkdir()
    (tmp_path / "heic" / "IMG_1.HEIC").touch()
    cases = {
        "no images in it": tmp_path / "none",
        r"1 files are of a kind that is not read, such as 'IMG_1.HEIC'": tmp_path / "heic",
        "has images beside its splits test, train": made("a", "train/a.png", "test/a.png", "a.png"),
        "has folder 'raw' beside its splits test, train": made("b", "train/a.png", "test/a.png", "raw/a.png"),
        "has a folder 'test', which is a split, but none named train": made("c", "test/a.png", "cat/b.png"),
        "split test has a class 'cow' that train has not; .* cat": made("d", "train/cat/a.png", "test/cow/a.png"),
    }
    for message, path in cases.items():
        with pytest.raises(ValueError, match=rf"data.kwargs.path = .*{message}"):
            load(path)
    assert load(made("vehicles", "train/a.png", "car/b.png")).class_names == ("car", "train")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"size": 0}, "data.kwargs.size = 0: must be a side or"),
        ({"size": [8]}, "data.kwargs.size"),
        ({"size": True}, "data.kwargs.size"),
        ({"size": 2.5}, "data.kwargs.size"),
        ({"size": 8, "fit": "croq"}, "data.kwargs.fit = 'croq': must be one of crop, stretch, pad, tiles"),
        ({"fit": "pad"}, "has no effect without data.kwargs.size"),
        ({"channels": 4}, r"data.kwargs.channels = 4: must be 1 \(grey\) or 3"),
        ({"sise": 8}, "data.kwargs.sise: no argument of data set 'folder'; did you mean size"),
        ({"path": "nowhere"}, "data.kwargs.path = 'nowhere': no such folder, looked for from"),
        ({"path": ""}, "must be the path of a folder"),
        ({"path": 3}, "must be the path of a folder"),
        ({"path": "gs://b/x"}, "addresses are not read"),
        ({"path": __file__}, "must be a folder, but is a file"),
    ],
)
def test_bad_arguments_are_named(kwargs: dict[str, Any], message: str, tmp_path: Path) -> None:
    photos(tmp_path, "a.png")
    with pytest.raises(ValueError, match=message):
        load_arrays("folder", "train", builder_kwargs={"path": str(tmp_path), **kwargs})


def test_a_path_must_be_given_and_a_data_dir_must_not(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data.kwargs.path: must be given .* the folder with the images"):
        load_arrays("folder", "train")
    with pytest.raises(ValueError, match=r"data.data_dir = .*: has no effect on data set 'folder'"):
        load_arrays("folder", "train", data_dir=tmp_path, builder_kwargs={"path": str(tmp_path)})


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos(tmp_path / "mine", "a.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(load(Path("~/mine"))) == 1


def test_memory_is_looked_at_before_anything_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos(tmp_path, "a.png", "b.png")
    monkeypatch.setattr(memory, "available", lambda: 2 * 6 * 8 * 3 - 1)
    monkeypatch.setattr(decoding.images, "read", None)
    with pytest.raises(ValueError, match=r"2 items of shape \[6, 8, 3\], uint8: needs"):
        load_arrays("folder", "train", builder_kwargs={"path": tmp_path}, placement="host")


def test_large_folders_show_their_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos(tmp_path, *(f"{i}.png" for i in range(5)))
    load(tmp_path)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(decoding, "_MANY", 4)
    load(tmp_path)
    assert "read: 5/5 images (100%)" in capsys.readouterr().err
