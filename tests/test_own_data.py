"""Own data from the command line: trained on, moved, sampled, and what is said of data that cannot be used."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geonoise_jax import build, config
from geonoise_jax.drawing.pictures import to_pixels
from tests.command_line import run
from tests.own_files import photos

SMALL = {
    "data.kwargs.size": "[4,6]",
    "model.kwargs.base_channels": 4,
    "model.kwargs.blocks_per_level": 1,
    "model.kwargs.channel_multipliers": "(1,)",
    "model.kwargs.middle_attention": False,
    "training.num_steps": 2,
    "training.batch_size": 8,
    "sampling.every": 0,
    "sampling.num_steps": 2,
}
CONFIG = "--config=configs/images.py:flow_matching,blind,class_conditional"


def train(workdir: Path, path: Path, **more: str) -> tuple[int, str]:
    changes = {**SMALL, "data.kwargs.path": path, **{key.replace("__", "."): value for key, value in more.items()}}
    words = [f"--config.{key}={value}" for key, value in changes.items() if value is not None]
    ended = run("train", CONFIG, f"--workdir={workdir}", *words)
    return ended.status, ended.err


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `photos`, and `run` trained on them."""
    folder = tmp_path_factory.mktemp("own")
    photos(folder / "photos", *(f"{name}/{i}.png" for name in ("cat", "dog") for i in range(5)), shape=(9, 8, 3))
    status, text = train(folder / "run", folder / "photos")
    assert status == 0, text
    return folder


def test_a_folder_may_move_but_not_change(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "photos", tmp_path / "moved")
    shutil.copytree(trained / "run", tmp_path / "run")
    more = {"training__num_steps": "3"}
    assert train(tmp_path / "run", tmp_path / "moved", **more)[0] == 0
    (tmp_path / "moved" / "cat" / "0.png").unlink()
    status, text = train(tmp_path / "run", tmp_path / "moved", training__num_steps="4")
    assert status == 2
    assert "was trained on other data (num_items: 10 there, 9 now" in text


def test_samples_start_from_images_and_are_written_as_such(trained: Path, tmp_path: Path) -> None:
    words = ("sample", f"--workdir={trained / 'run'}", f"--out={tmp_path / 'drawn'}", "--png", "--uint8", "--animate")
    (tmp_path / "drawn").mkdir()
    for old in ("000012.png", "mine.png"):
        (tmp_path / "drawn" / old).touch()
    ended = run(*words, f"--x={trained / 'photos'}", "--start-time=0.5")
    assert ended.status == 0, ended.err
    assert ended.out.split() == [
        str(tmp_path / name) for name in ("drawn.png", "drawn.npz", "drawn", "drawn.npy", "drawn.gif")
    ]
    array = np.load(tmp_path / "drawn.npy")
    assert (array.shape, array.dtype) == ((10, 4, 6, 3), np.uint8)
    with np.load(tmp_path / "drawn.npz") as stored:
        np.testing.assert_array_equal(array, to_pixels(stored["samples"]))
    names = sorted(path.name for path in (tmp_path / "drawn").iterdir())
    assert names == [*(f"{number:06d}.png" for number in range(10)), "mine.png"]
    np.testing.assert_array_equal(Image.open(tmp_path / "drawn" / "000007.png"), array[7])


def test_a_config_of_another_set_takes_own_data(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(40, 3)))
    words = {"data.name": "npy", "data.kwargs.path": tmp_path / "x.npy", "model.kwargs.width": 8}
    words |= {"training.num_steps": 1, "training.batch_size": 8, "sampling.every": 0}
    changes = [f"--config.{key}={value}" for key, value in words.items()]
    ended = run("train", "--config=configs/circles.py", f"--workdir={tmp_path / 'run'}", *changes)
    assert ended.status == 0, ended.err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"training.batch_size": "16"},
            "training.batch_size = 16: must be at most 10, the number of items of folder/train",
        ),
        (
            {"data.split": "train[5:5]"},
            "data.split = 'train[5:5]' of data set 'folder': holds no items; there is train (10",
        ),
        ({"data.kwargs.path": "nowhere"}, "data.kwargs.path = 'nowhere': no such folder"),
        ({"data.kwargs.fit": "cut"}, "data.kwargs.fit = 'cut': must be one of crop, stretch, pad, tiles"),
    ],
)
def test_faults_are_one_line_and_leave_no_workdir(
    more: dict[str, str], message: str, trained: Path, tmp_path: Path
) -> None:
    status, text = train(tmp_path / "run", trained / "photos", **more)
    assert status == 2
    assert text.startswith(f"geonoise train: {message}")
    assert text.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("size", [32, 64, 128])
def test_the_net_of_a_size_has_a_level_for_each_doubling(size: int) -> None:
    word = "" if size == 32 else f",size{size}"
    choice = config.load(f"configs/images.py:ddpm,conditional{word}")
    assert (choice.data.kwargs.size, choice.data.kwargs.fit) == (size, "crop")
    assert size // build.network(choice, None).factor == 8


def test_data_that_are_not_finite_are_refused_before_training(tmp_path: Path) -> None:
    points = np.ones((40, 3))
    points[17, 2] = np.nan
    np.save(tmp_path / "x.npy", points)
    words = ("--config.data.name=npy", f"--config.data.kwargs.path={tmp_path / 'x.npy'}")
    ended = run("train", "--config=configs/circles.py", f"--workdir={tmp_path / 'run'}", *words)
    assert ended.status == 2
    assert ended.err == (
        "geonoise train: events of npy/train must be finite numbers (in float32), but 1 of 40 items hold others, the "
        "first at index 17: nan\n"
    )
