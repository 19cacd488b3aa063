"""Public image sets: files fetched by hand or repacked, and ``geonoise data prepare`` and ``info NAME``."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow_datasets as tfds

from geonoise_jax.data import load_arrays, public, repacked
from tests.command_line import run

IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"


class File(NamedTuple):
    """A registered file."""

    filename: str
    checksum: str


def upstream(filename: str, content: bytes) -> tuple[bytes, File]:
    """An archive as upstream has it, and how a data set registers it."""
    archive = repacked.with_header(gzip.compress(content, mtime=0), filename)
    return archive, File(filename, hashlib.sha256(archive).hexdigest())


def debian(content: bytes) -> bytes:
    """The same archive as Debian packs it: another time, no name."""
    return gzip.compress(content, mtime=1591348973)


def test_header_has_the_name_and_the_time_of_upstream() -> None:
    archive, _ = upstream(IMAGES, b"images")
    assert archive[:4] == b"\x1f\x8b\x08\x08"
    assert int.from_bytes(archive[4:8], "little") == 1504176606
    assert archive[10:].startswith(b"train-images-idx3-ubyte\0")
    assert gzip.decompress(archive) == b"images"


def test_repacked_files_are_written_as_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(repacked.FOLDERS, "fashion_mnist", tmp_path / "distribution")
    (images, one), (labels, two) = upstream(IMAGES, b"images"), upstream(LABELS, b"labels")
    registered: dict[str, Any] = {"one": one, "two": two}
    manual, writable = tmp_path / "manual", tmp_path / "writable"
    for folder in (manual, tmp_path / "distribution"):
        folder.mkdir()
    assert repacked.collect("fashion_mnist", registered, manual, writable) == manual  # nothing at hand
    (manual / IMAGES).write_bytes(images)
    (tmp_path / "distribution" / LABELS).write_bytes(debian(b"labels"))
    assert repacked.collect("fashion_mnist", registered, manual, writable) == writable
    assert (writable / IMAGES).read_bytes() == images
    assert (writable / LABELS).read_bytes() == labels
    assert len(list(writable.iterdir())) == 2


def test_other_contents_are_not_passed_off_as_registered(tmp_path: Path) -> None:
    _, registered = upstream(IMAGES, b"images")
    (tmp_path / IMAGES).write_bytes(debian(b"other images"))
    found: dict[str, Any] = {"address": registered}
    assert repacked.collect("another", found, tmp_path, tmp_path / "writable") == tmp_path
    assert not (tmp_path / "writable").exists()


@pytest.fixture
def fashion(tmp_path: Path) -> tfds.core.DatasetBuilder:
    return tfds.builder("fashion_mnist", data_dir=tmp_path, try_gcs=False)


def test_files_of_debian_have_the_checksums_that_tfds_registers(
    fashion: tfds.core.DatasetBuilder, tmp_path: Path
) -> None:
    if not repacked.FOLDERS["fashion_mnist"].is_dir():
        pytest.skip("needs Debian's package dataset-fashion-mnist")
    registered = public._registered(fashion)
    folder = repacked.collect("fashion_mnist", registered, tmp_path, tmp_path / "manual")
    sums = {info.filename: info.checksum for info in registered.values()}
    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()} == sums


def test_files_by_hand_are_looked_for_in_the_folder_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def write(builder: tfds.core.DatasetBuilder, *, download_config: Any, **_: Any) -> None:
        asked.append(download_config.manual_dir)

    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    monkeypatch.setattr(public, "_reachable", lambda _: False)
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", write)
    manual = tmp_path / "by hand"
    words = ["data", "prepare", "cifar10", f"--data-dir={tmp_path}", f"--manual-dir={manual}"]
    refused = run(*words)
    assert refused.status == 2
    assert f"manual_dir = '{manual}': must be a folder" in refused.err
    manual.mkdir()
    refused = run(*words)
    assert refused.status == 2
    assert f"Put these files into {manual}" in refused.err
    (manual / "cifar-10-binary.tar.gz").touch()
    run(*words)
    assert asked == [manual]


def test_set_that_only_a_person_can_fetch_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    refused = run("data", "prepare", "imagenet2012", f"--data-dir={tmp_path}")
    assert refused.status == 2
    assert f"must be fetched by hand into {tmp_path}/downloads/manual: manual_dir should contain" in refused.err


def test_info_of_a_set_that_is_not_prepared_names_what_it_needs(tmp_path: Path) -> None:
    shown = run("data", "info", "imagenet_resized/64x64", f"--data-dir={tmp_path}")
    assert shown.status == 0
    assert "not prepared: geonoise data prepare imagenet_resized/64x64" in shown.out
    assert "Imagenet64_val_npz.zip (504.99 MiB)" in shown.out
    assert "Imagenet32" not in shown.out  # of another config
    assert list(tmp_path.iterdir()) == []


def test_prepare_and_info_by_name(tmp_path: Path) -> None:
    prepared = run("data", "prepare", "digits", f"--data-dir={tmp_path}")
    assert prepared.status == 0
    assert "train (1437 items), test (360 items)" in prepared.out
    shown = run("data", "info", "digits", f"--data-dir={tmp_path}", "--split=test")
    assert "360, of which" in shown.out
    assert run("data", "prepare", "digits", "--config.seed=1").status == 2
    assert run("data", "prepare", "digitz", f"--data-dir={tmp_path}").err.count("did you mean digits") == 1


@pytest.mark.slow
def test_fashion_mnist_is_prepared_from_the_files_of_debian(tmp_path: Path) -> None:
    if importlib.util.find_spec("tensorflow") is None or not repacked.FOLDERS["fashion_mnist"].is_dir():
        pytest.skip("needs the extra tfds, and Debian's package dataset-fashion-mnist")
    assert run("data", "prepare", "fashion_mnist", f"--data-dir={tmp_path}").status == 0
    data = load_arrays("fashion_mnist", "test", data_dir=tmp_path)
    assert data.events.shape == (10_000, 28, 28, 1)
    assert data.labels is not None
    assert np.bincount(data.labels).tolist() == [1000] * 10
