"""What is said of the data of a config."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geonoise_jax.data import from_numpy, memory
from geonoise_jax.drawing.data_grid import captioned_grid
from geonoise_jax.evaluation import data_info
from tests.command_line import run
from tests.own_files import photos


def info(*words: str | Path, config: str = "configs/images.py") -> dict[str, str]:
    """The rows that are printed."""
    ended = run("data", "info", f"--config={config}", *words)
    assert ended.status == 0, ended.err
    return dict(line.split("  ", 1) for line in ended.out.strip().splitlines())


def test_a_folder_is_described_and_shown(tmp_path: Path) -> None:
    written = photos(tmp_path / "in", "cat/1.png", "cat/2.png", "dog/3.png", "4.png")
    words = (f"--config.data.kwargs.path={tmp_path / 'in'}", "--config.data.kwargs.size=None")
    rows = {key: value.strip() for key, value in info(*words, f"--out={tmp_path / 'a.png'}").items()}
    x = np.stack(list(written.values())) / 127.5 - 1.0
    assert rows["data set"] == f"folder '{tmp_path / 'in'}', split train"
    assert rows["splits"] == "train (4 items), and slices such as train[:90%]"
    assert rows["items"] == "4, of which a batch takes 64"
    assert rows["shape"] == "6x8x3 (height x width x channels)"
    assert rows["classes"] == "2: cat 2, dog 1; without a class 1"
    assert rows["model space"].endswith(f"mean {x.mean():.4g}, standard deviation {x.std():.4g}")
    assert rows["sigma_data"] == f"0.5; the standard deviation suggests --config.data.sigma_data={x.std():.2g}"
    assert rows["memory"] == f"{(4 * 144 + 16) / 2**20:.3g} MiB, on the device"
    assert Image.open(tmp_path / "a.png").size > (2 * 64, 2 * 48)
    changed = info(*words, "--split=train[:2]")
    assert changed["items"].strip().startswith("2,")
    assert changed["checksum"] != rows["checksum"]


def test_vectors_and_sets_without_classes_are_described(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(40, 3)))
    words = ("--config.data.name=npy", f"--config.data.kwargs.path={tmp_path / 'x.npy'}", f"--out={tmp_path / 'a.png'}")
    rows = info(*words, config="configs/circles.py")
    assert (rows["classes"].strip(), rows["shape"].strip()) == ("none", "3")
    assert (tmp_path / "a.png").is_file()


def test_where_a_set_larger_than_memory_goes_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (9000, 4, 4, 3)).astype(np.uint8)
    np.save(tmp_path / "x.npy", images)
    monkeypatch.setattr(memory, "available", lambda: 2**18)
    words = ("--config.data.name=npy", f"--config.data.kwargs.path={tmp_path / 'x.npy'}", f"--out={tmp_path / 'a.png'}")
    rows = info(*words, "--config.data.augment.name=edm")
    assert rows["augmented"].strip() == "edm"
    said = "0.412 MiB, read from files as needed (a process may hold 0.125 MiB); 0.00293 MiB a batch, 4 read ahead"
    assert rows["memory"].strip() == said
    x = images[::3] / 127.5 - 1.0
    assert rows["model space"].endswith(f"mean {x.mean():.4g}, standard deviation {x.std():.4g}, of 3000 items")


def test_faults_are_one_line(tmp_path: Path) -> None:
    ended = run("data", "info", "--config=configs/images.py")
    assert (ended.status, ended.err.count("\n")) == (2, 1)
    assert ended.err.startswith("geonoise data: data.kwargs.path: must be given")
    photos(tmp_path, "a.png")
    ended = run("data", "info", "--config=configs/images.py", f"--config.data.kwargs.path={tmp_path}", "--out=a.jpg")
    assert ended.err == "geonoise data: out = 'a.jpg': must be the name of a .png file\n"


@pytest.mark.parametrize("size", [1, 3000])
def test_statistics_are_those_of_all_entries(size: int) -> None:
    events = np.random.default_rng(0).integers(0, 256, (size, 2, 3, 1)).astype(np.uint8)
    found, x = data_info.statistics(from_numpy(events)), events / 127.5 - 1.0
    np.testing.assert_allclose(found, (x.min(), x.max(), x.mean(), x.std()), rtol=1e-5)


def test_captions_are_under_their_images() -> None:
    images = np.zeros((3, 32, 64, 3), np.uint8)
    plain, named = captioned_grid(images, []), captioned_grid(images, ["a", "b", "a very long name of a class"])
    assert named.size[1] > plain.size[1]
    assert (np.asarray(plain)[4:36, 4:68] == 0).all()
    assert (np.asarray(named)[36:46, 4:68] < 128).any()
