"""The pages of docs/ say what is: every key of a config with its default, programs that run, commands that parse."""

from __future__ import annotations

import ast
import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from geonoise_jax import cli, config
from geonoise_jax.config import ConfigDict
from tests.command_line import run

DOCS = Path(__file__).parents[1] / "docs"
# Pages that tests of their own run, or without programs.
ELSEWHERE = (
    *("own_data.md", "own_classes.md", "exact_fields.md", "studies.md", "measured.md", "evaluation.md"),
    *("launching.md", "planning.md", "processes.md"),
)


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), flags=re.DOTALL | re.MULTILINE)


def described(tree: ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Keys with their values; kwargs are one value, and a spec without other keys is its name and them."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, ConfigDict) and key != "kwargs":
            found |= described(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value.to_dict() if isinstance(value, ConfigDict) else value
    return found


def test_every_key_of_a_config_is_there_with_its_default() -> None:
    rows = re.findall(r"^\| `([a-z_.]+)` \| `([^`]*)` \|", (DOCS / "config.md").read_text(), flags=re.MULTILINE)
    assert {key: ast.literal_eval(value) for key, value in rows} == described(config.base_config())
    assert len(rows) == len(dict(rows))


def test_commands_parse() -> None:
    commands = [
        line for page in DOCS.glob("*.md") for block in blocks(page.name, "bash") for line in block.splitlines()
    ]
    joined = "\n".join(commands).replace("\\\n", " ").splitlines()
    words = [command.replace("'", "").split()[1:] for command in joined if command.startswith("geonoise ")]
    assert {command[0] for command in words} >= {"train", "sample", "data"}
    for command in words:
        cli._parse(command)


def test_links_lead_somewhere() -> None:
    for page in [*DOCS.glob("*.md"), DOCS.parent / "README.md"]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), (page.name, target)


def test_programs_of_the_concepts_run() -> None:
    namespace: dict[str, Any] = {}
    for block in blocks("concepts.md", "python"):
        exec(block, namespace)
    assert namespace["samples"].shape == (64, 2)


@pytest.mark.slow
def test_programs_of_the_how_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run that they restore is a short one; the files of Fashion-MNIST are not everywhere."""
    monkeypatch.chdir(tmp_path)
    small = ["--config.model.kwargs.base_channels=8", "--config.training.num_steps=2", "--config.sampling.every=0"]
    assert run("train", "--config=configs/digits.py:flow_matching,blind", "--workdir=runs/fm", *small).status == 0
    restoring, path, beside, _ = blocks("how_to.md", "python")
    namespace: dict[str, Any] = {}
    for block in (restoring, path, beside):
        exec(block, namespace)
    assert namespace["samples"].shape == (16, 8, 8, 1)
    assert namespace["path"].shape == (21, 4, 8, 8, 1)
    assert namespace["gap"] > 0.0


def test_every_page_is_tested() -> None:
    tested = Path(__file__).read_text()
    for page in DOCS.glob("*.md"):
        assert page.name in ELSEWHERE or page.name in tested, page.name


@pytest.mark.slow
def test_the_tour_makes_its_four_pictures(tmp_path: Path) -> None:
    runpy.run_path(str(DOCS / "tour.py"))["main"](tmp_path, num_steps=50)
    assert [path.name for path in sorted(tmp_path.glob("*.png"))] == [
        *("1_exact_field.png", "2_fields.png", "3_samples.png", "4_trajectories.png")
    ]
    for path in tmp_path.glob("*.png"):
        with Image.open(path) as image:
            assert min(image.size) > 500
            assert len(np.unique(np.asarray(image.convert("L").resize((64, 64))))) > 16, "something is drawn"
