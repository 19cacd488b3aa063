"""The commands and the program of docs/own_data.md, run as printed but for the size of the net and the budget."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from geonoise_jax import cli, config
from tests.command_line import run

PAGE = (Path(__file__).parents[1] / "docs" / "own_data.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
COMMANDS = [shlex.split(line) for line in re.findall(r"^geonoise (.*)$", PAGE, flags=re.MULTILINE)]
INFO, TRAIN, SAMPLE, NPY, NPZ, START = COMMANDS
SMALL = (
    "--config.data.kwargs.size=8",
    "--config.model.kwargs.base_channels=4",
    "--config.model.kwargs.blocks_per_level=1",
    "--config.model.kwargs.channel_multipliers=(1,)",
    "--config.model.kwargs.middle_attention=False",
    "--config.training.num_steps=1",
    "--config.training.batch_size=8",
    "--config.sampling.every=0",
    "--config.sampling.num_steps=2",
    "--config.sampling.batch_size=8",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the page works, with its photographs."""
    folder = tmp_path_factory.mktemp("docs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(PROGRAMS[0], {})
    return folder


def test_what_info_prints_is_as_printed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    ended = run(*INFO)
    assert ended.status == 0, ended.err
    (printed,) = re.findall(r"```\n(data set .*?)```", PAGE, flags=re.DOTALL)
    # Decoders of the JPEG files that scikit-learn ships may differ by a bit.
    assert [line for line in ended.out.splitlines() if "checksum" not in line] == [
        line for line in printed.splitlines() if "checksum" not in line
    ]
    assert Image.open("look.png").size[0] > 500


def test_photographs_are_trained_on_and_sampled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    ended = run(*TRAIN, *SMALL)
    assert ended.status == 0, ended.err
    ended = run(*SAMPLE[:-2], "--num=8", "--png", "--uint8")
    assert ended.status == 0, ended.err
    assert np.load("runs/mine/samples/samples.npy").shape == (8, 8, 8, 3)
    assert len(list(Path("runs/mine/samples/samples").glob("*.png"))) == 8


def test_the_other_commands_parse() -> None:
    for command in (NPY, NPZ, START):
        arguments, overrides = cli._parse(command)
        if getattr(arguments, "config", None):
            config.override(config.load(arguments.config), overrides)


def test_the_program_with_arrays_runs() -> None:
    namespace: dict[str, Any] = {}
    exec(PROGRAMS[1], namespace)
    np.testing.assert_array_equal(namespace["arrays"].events, namespace["same"].events)
    np.testing.assert_array_equal(namespace["arrays"].labels, namespace["same"].labels)
