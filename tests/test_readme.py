"""The README's library example runs as printed, and what it names exists."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from geonoise_jax import cli, config
from geonoise_jax.process import schedules, targets, times

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


EXACT_FIELDS = (ROOT / "docs" / "exact_fields.md").read_text()
(SAMPLING,), (PLANE,) = (re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL) for page in (README, EXACT_FIELDS))


def test_library_example_gives_what_it_says() -> None:
    assert len(SAMPLING.strip().splitlines()) <= 17
    namespace: dict[str, Any] = {}
    exec(SAMPLING, namespace)
    samples = namespace["samples"]
    np.testing.assert_allclose(samples.mean(axis=0), [1.0, -1.0], atol=0.03)
    np.testing.assert_allclose(samples.var(axis=0), [0.3, 0.05], rtol=0.06)


def test_example_in_the_plane_gives_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    exec(PLANE, namespace)
    (means,) = re.findall(r"E\[t \| u\]: (\[.*?\])", PLANE)
    np.testing.assert_allclose(namespace["marginal"].posterior(namespace["u"]).mean, json.loads(means), atol=0.005)
    parts = namespace["parts"]
    np.testing.assert_allclose(parts.natural + parts.transport + parts.drift, parts.field, atol=1e-4)
    ratio = np.linalg.norm(parts.natural[3]) / np.linalg.norm(parts.field[3])
    assert f"natural gradient\nis {ratio:.0f} times as long" in EXACT_FIELDS
    assert Image.open("plane.png").size[0] > 1000


def test_commands_parse_and_their_configs_load() -> None:
    commands = re.findall(
        r"^bash launch/local.sh ((?:train|sample|exact|figure|demo|data) .*)$", README, flags=re.MULTILINE
    )
    assert {command.split()[0] for command in commands} >= {"train", "sample", "data"}
    for command in commands:
        arguments, overrides = cli._parse(command.split())
        if getattr(arguments, "config", None):
            config.override(config.load(arguments.config), overrides)


def test_lists_of_names_are_complete() -> None:
    for members in (schedules.SCHEDULES, targets.TARGETS, times.TIME_LAWS):
        assert all(f"`{member.__name__}`" in README for member in members)


def test_pictures_exist() -> None:
    for path in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (ROOT / path).is_file()
