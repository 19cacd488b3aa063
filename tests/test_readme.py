"""The README's library example runs as printed, and what it names exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from geonoise_jax import cli, config
from geonoise_jax.process import schedules, targets, times

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_library_example_gives_what_it_says() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(example.strip().splitlines()) <= 17
    namespace: dict[str, Any] = {}
    exec(example, namespace)
    samples = namespace["samples"]
    np.testing.assert_allclose(samples.mean(axis=0), [1.0, -1.0], atol=0.03)
    np.testing.assert_allclose(samples.var(axis=0), [0.3, 0.05], rtol=0.06)


def test_commands_parse_and_their_configs_load() -> None:
    commands = re.findall(r"^bash launch/local.sh ((?:train|sample) .*)$", README, flags=re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        arguments = cli.parser().parse_args(command.split())
        if arguments.command == "train":
            config.load(arguments.config)


def test_lists_of_names_are_complete() -> None:
    for members in (schedules.SCHEDULES, targets.TARGETS, times.TIME_LAWS):
        assert all(f"`{member.__name__}`" in README for member in members)


def test_pictures_exist() -> None:
    for path in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (ROOT / path).is_file()
