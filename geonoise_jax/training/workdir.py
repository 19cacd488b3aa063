"""The folder of one run: its config, claimed by the first run and checked by every later one."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from geonoise_jax import config as configs
from geonoise_jax import imports
from geonoise_jax.data.arrays import Arrays
from geonoise_jax.errors import UserError
from geonoise_jax.training.run import Record

# Keys that may change between runs of one workdir: they do not touch what was learnt so far, and the state has the same
# form. Later steps are those of an uninterrupted run of the new config: bit for bit, or with another accumulation or
# sharding but for rounding and, if it is accumulated, the draws of dropout. The number of steps does touch it where the
# learning rate depends on it.
_FREE = (
    *("training.num_steps", "training.accumulate", "training.log_every", "checkpoint.", "sampling."),
    *("data.data_dir", "data.placement", "mesh.", "sharding."),
)


@dataclasses.dataclass(frozen=True)
class Facts:
    """What sampling needs to know of the training data, so that a workdir is enough without it.

    Attributes:
        event_shape: shape of one sample.
        num_classes: number of classes, or None for data without labels.
        center, scale: how stored values become those of model space, see ``data.Arrays``; None in workdirs of versions
            that did not store them, as are the other two.
        num_items: number of items.
        checksum: ``Arrays.checksum`` of them.
    """

    event_shape: tuple[int, ...]
    num_classes: int | None
    center: float | None = None
    scale: float | None = None
    num_items: int | None = None
    checksum: int | None = None


def facts_of(data: Arrays) -> Facts:
    """Return the facts of a data set."""
    return Facts(data.event_shape, data.num_classes, data.center, data.scale, len(data), data.checksum())


@dataclasses.dataclass(frozen=True)
class OfConfig:
    """The record of a run that a config describes; see ``training.run.Record``."""

    config: ConfigDict

    def compare(self, folder: Path) -> None:
        """Refuse a workdir that belongs to another run.

        Raises:
            ValueError: naming every key that differs.
        """
        if (folder / "run.json").exists():
            raise UserError(
                f"workdir = {str(folder)!r}: belongs to a run of own objects (run.json), not of a config; choose "
                "another workdir"
            )
        path = folder / "config.json"
        if not path.exists():
            return
        changed = configs.differences(configs.loads(path.read_text()), self.config)
        clashes = {key: pair for key, pair in changed.items() if not key.startswith(_FREE)}
        if clashes:
            raise UserError(
                f"workdir = {str(folder)!r}: belongs to another config ({_listed(clashes)}); choose another workdir"
            )
        _check_rate(folder, self.config, changed)

    def write(self, folder: Path) -> None:
        """Store the config, and that this user gave it."""
        imports.trust(folder, self.config.to_dict())
        _write(folder / "config.json", configs.dumps(self.config))


def claim(workdir: Path, record: Record, facts: Facts) -> None:
    """Write record and facts into a new workdir, or check them against those already there.

    Raises:
        ValueError: if the workdir belongs to another run or other data; the error names everything that differs.
    """
    record.compare(workdir)
    _check_data(workdir, facts)
    workdir.mkdir(parents=True, exist_ok=True)
    _write(workdir / "data.json", json.dumps(dataclasses.asdict(facts)) + "\n")
    record.write(workdir)


def read_config(workdir: Path) -> ConfigDict:
    """Return the config of a workdir.

    Raises:
        ValueError: if the folder does not exist or holds no run, or its config names imports that are not allowed, see
            ``imports``.
    """
    path = workdir / "config.json"
    if (workdir / "run.json").exists():
        raise UserError(
            f"workdir = {str(workdir)!r}: is of a run of own objects (run.json): train, restore and sample it from the "
            "program that made it"
        )
    if not path.exists():
        what = "no such folder" if not workdir.exists() else "no config.json in it: not the workdir of a training run"
        raise UserError(f"workdir = {str(workdir)!r}: {what}")
    config = configs.loads(path.read_text())
    imports.require(workdir, config.to_dict())
    return config


def read_facts(workdir: Path) -> Facts:
    """Return the facts of a workdir's data.

    Raises:
        ValueError: if they are missing.
    """
    path = workdir / "data.json"
    if not path.exists():
        raise UserError(f"workdir = {str(workdir)!r}: no data.json in it: not the workdir of a training run")
    stored = json.loads(path.read_text())
    return Facts(**{**stored, "event_shape": tuple(stored["event_shape"])})


def _check_rate(workdir: Path, config: ConfigDict, changed: dict[str, tuple[Any, Any]]) -> None:
    """Refuse another number of steps where the learning rates of the steps already done depended on it."""
    steps = {key: pair for key, pair in changed.items() if key == "training.num_steps"}
    if steps and config.optimizer.decay != "constant":
        raise UserError(
            f"workdir = {str(workdir)!r}: {_listed(steps)}, but optimizer.decay = {config.optimizer.decay!r} laid the "
            "learning rate over the number of steps that the run began with, and would jump; keep that number, or "
            "choose another workdir (a run with optimizer.decay = 'constant' can be made longer)"
        )


def _check_data(workdir: Path, facts: Facts) -> None:
    if not (workdir / "data.json").exists():
        return
    old, new = dataclasses.asdict(read_facts(workdir)), dataclasses.asdict(facts)
    clashes = {name: (old[name], new[name]) for name in new if old[name] is not None and old[name] != new[name]}
    if clashes:
        raise UserError(
            f"workdir = {str(workdir)!r}: was trained on other data ({_listed(clashes)}); choose another workdir, or "
            "give the data.data_dir with the data it was trained on"
        )


def _listed(clashes: dict[str, tuple[Any, Any]]) -> str:
    return "; ".join(f"{key}: {old!r} there, {new!r} now" for key, (old, new) in clashes.items())


def _write(path: Path, text: str) -> None:
    """Write a small file so that it appears whole or not at all."""
    draft = path.with_suffix(".tmp")
    draft.write_text(text)
    draft.replace(path)
