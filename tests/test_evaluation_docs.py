"""The commands and programs of docs/evaluation.md, run as printed but for the size of the net and its training."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from geonoise_jax.evaluation.evaluator.networks import NAMES
from geonoise_jax.evaluation.metrics.table import METRICS
from tests.command_line import run

PAGE = (Path(__file__).parents[1] / "docs" / "evaluation.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
TRAIN, *EVALUATE = [shlex.split(line) for line in re.findall(r"^geonoise (.*)$", PAGE, flags=re.MULTILINE)]
SMALL = (
    "--config.model.kwargs.base_channels=4",
    "--config.model.kwargs.channel_multipliers=(1,)",
    "--config.training.num_steps=4",
    "--config.checkpoint.every=2",
    "--config.sampling.every=0",
    "--config.sampling.num_steps=2",
)


def test_the_page_names_every_metric_and_network() -> None:
    table = PAGE[PAGE.index("| metric |") : PAGE.index("Features are")]
    assert set(re.findall(r"`(\w+)`", table)) == set(METRICS)
    for name in NAMES:
        assert f"`{name}" in PAGE


@pytest.mark.slow
def test_commands_and_programs_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ended = run(*TRAIN, *SMALL)
    assert ended.status == 0, ended.err
    for command in EVALUATE:
        ended = run(*command)
        assert ended.status == 0, ended.err
        assert "sliced_wasserstein" in ended.out
    assert (tmp_path / "along" / "curves.png").exists()
    for name in ("results.jsonl", "report.html", "curves.png"):
        assert (tmp_path / "runs" / "fm" / "evaluation" / name).exists()
    namespace: dict[str, Any] = {}
    for program in PROGRAMS:
        exec(program, namespace)
    assert namespace["samples"].shape == (100, 8, 8, 1)
    assert namespace["floor"]["value"] < namespace["value"]
