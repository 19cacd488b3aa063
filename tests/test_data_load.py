"""Preparing and loading: concurrent processes, public sets on disk, refusals that say what to do."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.server
import importlib
import importlib.util
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import tensorflow_datasets as tfds

from geonoise_jax.data import CirclesSpec, load_arrays, memory, prepare, public
from geonoise_jax.data.circles import Circles
from geonoise_jax.data.load import scaling

# The package has a function of the same name.
prepare_module = importlib.import_module("geonoise_jax.data.prepare")
SMALL: dict[str, Any] = {"num_train": 30, "num_test": 10}


class GeonoiseTestImages(tfds.core.GeneratorBasedBuilder):
    """Stands for a public image set; feature types that TFDS can write without TensorFlow."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar[list[tfds.core.BuilderConfig]] = [
        tfds.core.BuilderConfig(name=name)
        for name in ("uint8", "unlabelled", "int16", "text", "float32", "unit", "model", "binary")
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        image = tfds.features.Tensor(shape=(4, 4, 3), dtype=self._image_dtype())
        features: dict[str, Any] = {"image": image, "label": tfds.features.ClassLabel(num_classes=3)}
        if self.builder_config.name == "unlabelled":
            features.pop("label")
        if self.builder_config.name == "text":
            features = {"words": tfds.features.Tensor(shape=(4, 4, 3), dtype=np.uint8)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _image_dtype(self) -> type[np.generic]:
        if self.builder_config.name in ("float32", "unit", "model"):
            return np.float32
        return np.int16 if self.builder_config.name == "int16" else np.uint8

    def _values(self, image: np.ndarray) -> np.ndarray:
        changed = {"unit": image / 255, "model": image / 127.5 - 1, "binary": image // 128}
        return changed.get(self.builder_config.name, image)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, Any]]]:
        del dl_manager
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, Any]]:
        # More items than one chunk of the reader.
        for key, image in enumerate(public_images()):
            values = {"image": self._values(image).astype(self._image_dtype()), "words": image, "label": key % 3}
            yield key, {name: values[name] for name in self.info.features}


def public_images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (1500, 4, 4, 3)).astype(np.uint8)


def written(config: str, data_dir: Path) -> str:
    builder = GeonoiseTestImages(config=config, data_dir=data_dir, file_format="array_record")
    builder.download_and_prepare()
    return f"geonoise_test_images/{config}"


def test_public_images_are_read_whole_and_scaled(tmp_path: Path) -> None:
    arrays = load_arrays(written("uint8", tmp_path), "train", data_dir=tmp_path)
    assert arrays.labels is not None
    assert (arrays.num_classes, str(arrays.events.dtype), str(arrays.labels.dtype)) == (3, "uint8", "int32")
    expected = sorted((image.tobytes(), key % 3) for key, image in enumerate(public_images()))
    assert sorted((x.tobytes(), int(y)) for x, y in zip(arrays.events, arrays.labels, strict=True)) == expected
    x = arrays.to_model(arrays.events)
    assert (x.min(), x.max()) == (-1.0, 1.0)


def test_labels_are_optional(tmp_path: Path) -> None:
    arrays = load_arrays(written("unlabelled", tmp_path), "train", data_dir=tmp_path)
    assert (arrays.labels, arrays.num_classes, len(arrays)) == (None, None, 1500)


@pytest.mark.parametrize(("config", "message"), [("int16", "must be uint8 or floating"), ("text", "image or point")])
def test_other_features_are_refused(tmp_path: Path, config: str, message: str) -> None:
    name = written(config, tmp_path)
    with pytest.raises(ValueError, match=message):
        load_arrays(name, "train", data_dir=tmp_path)


RANGES = [("float32", "0..255", (0, 255)), ("unit", "0..1", (0.0, 1.0)), ("binary", "0..1", (0, 1))]


@pytest.mark.parametrize(("config", "found", "value_range"), RANGES)
def test_images_of_another_range_are_refused_unless_it_is_given(
    config: str, found: str, value_range: tuple[float, float], tmp_path: Path
) -> None:
    name = written(config, tmp_path)
    with pytest.raises(ValueError, match=rf"{config}/train have values {found}.*data\.range"):
        load_arrays(name, "train", data_dir=tmp_path)
    arrays = load_arrays(name, "train", data_dir=tmp_path, value_range=value_range)
    x = arrays.to_model(arrays.events)
    assert (x.min(), x.max()) == (-1.0, 1.0)
    assert (arrays.center, arrays.scale) == scaling(name, data_dir=tmp_path, value_range=value_range)
    with pytest.raises(ValueError, match=rf"have values {found}, .* must be in \[-1, 1\]"):
        load_arrays(name, "train", data_dir=tmp_path, value_range=(0, 0.5))


def test_float_images_of_model_space_and_integers_of_a_given_range_are_read(tmp_path: Path) -> None:
    model = load_arrays(written("model", tmp_path), "train", data_dir=tmp_path)
    assert (model.center, model.scale) == (0.0, 1.0)
    integers = load_arrays(written("int16", tmp_path), "train", data_dir=tmp_path, value_range=(0, 255))
    assert integers.events.dtype == np.int16
    assert integers.to_model(integers.events).max() == 1.0


@pytest.mark.parametrize("value_range", [(1,), (0, 0), (3, 2), (0, float("inf")), "ab", (0, 1, 2)])
def test_a_bad_range_is_named(value_range: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data.range = .*: must be \(\) or two finite numbers"):
        load_arrays("circles", "train", data_dir=tmp_path, builder_kwargs=SMALL, value_range=value_range)


def test_data_larger_than_the_memory_are_refused_with_both_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = written("uint8", tmp_path)
    monkeypatch.setattr(memory, "available", lambda: 1500 * 48 - 1)
    match = r"1500 items of shape \[4, 4, 3\], uint8: needs 6.71e-05 GiB of memory, of which 6.71e-05 GiB are available"
    with pytest.raises(ValueError, match=match):
        load_arrays(name, "train", data_dir=tmp_path, placement="host")
    assert len(load_arrays(name, "train[:99%]", data_dir=tmp_path, placement="host")) == 1485
    assert load_arrays(name, "train", data_dir=tmp_path).is_streamed


def test_the_available_memory_is_the_least_of_machine_and_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meminfo, group = tmp_path / "meminfo", [tmp_path / name for name in ("max", "current", "stat")]
    monkeypatch.setattr(memory, "_MEMINFO", meminfo)
    monkeypatch.setattr(memory, "_GROUPS", (tuple(map(str, group)),))
    assert memory.available() is None
    memory.require(2**60, "anything", "")
    meminfo.write_text("MemTotal: 9 kB\nMemAvailable:    5 kB\n")
    assert memory.available() == 5 * 1024
    for path, text in zip(group, ("4096\n", "3000\n", "anon 1\ninactive_file 500\n"), strict=True):
        path.write_text(text)
    assert memory.available() == 1596
    group[0].write_text("max\n")
    assert memory.available() == 5 * 1024


def test_another_file_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(*_: Any, **__: Any) -> None:
        raise NotImplementedError

    name = written("uint8", tmp_path)
    monkeypatch.setattr(GeonoiseTestImages, "as_data_source", unreadable)
    with pytest.raises(ValueError, match="must be in the format array_record"):
        load_arrays(name, "train", data_dir=tmp_path)


@pytest.mark.parametrize("name", ["fashion_mnist", "cifar10"])
def test_unprepared_public_set_without_tensorflow_says_what_to_do(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=rf"extra `tfds`.*tfds build {name} --file_format=array_record"):
        load_arrays(name, "train", data_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_missing_download_without_network_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the file lies in the folder that the message names, nothing is missing and TFDS goes to work."""
    asked: list[str] = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", lambda self, **_: asked.append(self.name))
    monkeypatch.setattr(public, "_reachable", lambda _: False)
    manual = tmp_path / "downloads" / "manual"
    with pytest.raises(ValueError, match=rf"cannot be reached.*{manual}.*cifar-10-binary.tar.gz"):
        prepare("cifar10", data_dir=tmp_path)
    assert asked == []
    manual.mkdir(parents=True)
    (manual / "cifar-10-binary.tar.gz").touch()
    prepare("cifar10", data_dir=tmp_path)
    assert asked == ["cifar10"]


def test_any_answer_of_a_server_counts_as_reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        url = f"http://127.0.0.1:{server.server_port}/file"
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert public._reachable(url)  # answered 501, as the handler implements no method
        thread.join()
    assert not public._reachable(url)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digitz", "unknown data set 'digitz': did you mean digits"),
        ("fashon_mnist", "did you mean fashion_mnist"),
        ("qqqqqqqq", "known are circles, digits and the names of TFDS"),
    ],
)
def test_unknown_name_suggests_the_nearest(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load_arrays(name, "train", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("digits", {"config": "small"}, r"builder_kwargs of digits must be among \[\], got \['config'\]"),
        ("circles", {"radius": 1}, "builder_kwargs of circles .*'radii'.*got .*'radius'"),
        ("circles", {"dim": 1}, "dim"),
        ("cifar10", {"version": "9.9.9"}, "9.9.9"),
        ("cifar10", {"colour": "grey"}, "colour"),
    ],
)
def test_bad_builder_keywords_are_named(name: str, kwargs: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        prepare(name, data_dir=tmp_path, builder_kwargs=kwargs)


def test_unknown_split_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="validation"):
        load_arrays("circles", "validation", data_dir=tmp_path, builder_kwargs=SMALL)


def test_incomplete_folder_is_refused_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "digits" / "1.0.0"
    folder.mkdir(parents=True)
    with pytest.raises(ValueError, match=f"{folder} is incomplete: delete it"):
        load_arrays("digits", "train", data_dir=tmp_path)


def test_the_default_folder_is_that_of_tfds(tmp_path: Path) -> None:
    """TFDS reads its environment variable when it is imported, hence the new interpreter."""
    program = "import geonoise_jax.data as d; print(d.prepare('circles', builder_kwargs={'num_train': 9}).data_dir)"
    environment = {**os.environ, "TFDS_DATA_DIR": str(tmp_path)}
    printed = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert Path(printed.stdout.strip()).is_relative_to(tmp_path / "circles")


def test_concurrent_callers_write_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock is of the open file, so threads exclude each other as processes do."""
    written_splits: list[str] = []
    draw = CirclesSpec.draw

    def slow_draw(spec: CirclesSpec, split: str) -> Any:
        written_splits.append(split)
        time.sleep(0.2)
        return draw(spec, split)

    monkeypatch.setattr(CirclesSpec, "draw", slow_draw)
    stdout = sys.stdout
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        builders = list(pool.map(lambda _: prepare("circles", data_dir=tmp_path, builder_kwargs=SMALL), range(4)))
    assert written_splits == ["train", "test"]
    assert all(sorted(builder.info.splits) == ["test", "train"] for builder in builders)
    assert sys.stdout is stdout


def test_concurrent_processes_load_the_same(tmp_path: Path) -> None:
    program = f"""
import geonoise_jax.data as data
arrays = data.load_arrays("circles", "train", data_dir={str(tmp_path)!r}, builder_kwargs={SMALL!r})
print(arrays.events.tobytes().hex())
"""
    started = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert outputs[0] == outputs[1] != ""


@pytest.mark.parametrize("moment", ["made", "waiting"])
def test_no_builder_made_before_another_process_was_done_is_used(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would know of no splits. The other process is done right after the builder is made, or while we wait."""
    make, locked = prepare_module._builder, prepare_module._locked
    other = Circles.of(CirclesSpec(**SMALL), data_dir=tmp_path, file_format="array_record")
    events: list[None] = []

    def made(*arguments: Any) -> tfds.core.DatasetBuilder:
        builder = make(*arguments)
        if moment == "made" and not events:
            events.append(other.download_and_prepare())
        return builder

    @contextlib.contextmanager
    def waited(folder: Path) -> Iterator[None]:
        events.append(other.download_and_prepare())
        with locked(folder):
            yield

    monkeypatch.setattr(prepare_module, "_builder", made)
    monkeypatch.setattr(prepare_module, "_locked", waited)
    assert len(load_arrays("circles", "train", data_dir=tmp_path, builder_kwargs=SMALL)) == 30
    assert len(events) == 1


def test_a_faster_host_without_our_lock_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its finished folder makes our rename fail; the data are there, so the call succeeds."""
    write = Circles.download_and_prepare

    def beaten(self: Circles, **kwargs: Any) -> None:
        write(self, **kwargs)
        raise OSError("Directory not empty")

    monkeypatch.setattr(Circles, "download_and_prepare", beaten)
    assert len(load_arrays("circles", "train", data_dir=tmp_path, builder_kwargs=SMALL)) == 30


def test_a_full_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(Circles, "download_and_prepare", full)
    with pytest.raises(OSError, match="No space left"):
        load_arrays("circles", "train", data_dir=tmp_path, builder_kwargs=SMALL)
