"""The folder of one run: its config, claimed by the first run and checked by every later one."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from ml_collections import ConfigDict

from geonoise_jax import config as configs

# Keys that may change between runs of one workdir: they do not touch what was learnt so far.
_FREE = ("training.num_steps", "checkpoint.", "sampling.", "data.data_dir", "data.placement", "mesh.")


@dataclasses.dataclass(frozen=True)
class Facts:
    """What sampling needs to know of the training data, so that a workdir is enough without it.

    Attributes:
        event_shape: shape of one sample.
        num_classes: number of classes, or None for data without labels.
    """

    event_shape: tuple[int, ...]
    num_classes: int | None


def claim(workdir: Path, config: ConfigDict, facts: Facts) -> None:
    """Write config and facts into a new workdir, or check the config against the one already there.

    Raises:
        ValueError: if the workdir belongs to another config; the error names every key that differs.
    """
    path = workdir / "config.json"
    if path.exists():
        changed = configs.differences(configs.loads(path.read_text()), config)
        clashes = {key: pair for key, pair in changed.items() if not key.startswith(_FREE)}
        if clashes:
            listed = "; ".join(f"{key}: {old!r} there, {new!r} now" for key, (old, new) in clashes.items())
            raise ValueError(
                f"workdir = {str(workdir)!r}: belongs to another config ({listed}); choose another workdir"
            )
    workdir.mkdir(parents=True, exist_ok=True)
    _write(workdir / "data.json", json.dumps(dataclasses.asdict(facts)) + "\n")
    _write(path, configs.dumps(config))


def read_config(workdir: Path) -> ConfigDict:
    """Return the config of a workdir.

    Raises:
        ValueError: if the folder does not exist or holds no run.
    """
    path = workdir / "config.json"
    if not path.exists():
        what = "no such folder" if not workdir.exists() else "no config.json in it: not the workdir of a training run"
        raise ValueError(f"workdir = {str(workdir)!r}: {what}")
    return configs.loads(path.read_text())


def read_facts(workdir: Path) -> Facts:
    """Return the facts of a workdir's data.

    Raises:
        ValueError: if they are missing.
    """
    path = workdir / "data.json"
    if not path.exists():
        raise ValueError(f"workdir = {str(workdir)!r}: no data.json in it: not the workdir of a training run")
    stored = json.loads(path.read_text())
    return Facts(tuple(stored["event_shape"]), stored["num_classes"])


def _write(path: Path, text: str) -> None:
    """Write a small file so that it appears whole or not at all."""
    draft = path.with_suffix(".tmp")
    draft.write_text(text)
    draft.replace(path)
