"""The folder of one run: its config, claimed by the first run and checked by every later one."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from ml_collections import ConfigDict

from geonoise_jax import config as configs
from geonoise_jax import files, imports, processes
from geonoise_jax.data.arrays import Arrays
from geonoise_jax.errors import UserError
from geonoise_jax.training.run import Record

# Keys that may change between runs of one workdir: they do not touch what was learnt so far, and the state has the same
# form. Later steps are those of an uninterrupted run of the new config: bit for bit, or with another accumulation or
# sharding but for rounding and, if it is accumulated, the draws of dropout. The number of steps does touch it where the
# learning rate depends on it.
_FREE = (
    *("training.num_steps", "training.accumulate", "training.log_every", "training.evaluate_every"),
    *("checkpoint.", "sampling.", "evaluation."),
    # Of the path the checksum tells whether the data are the same.
    *("data.data_dir", "data.kwargs.path", "data.placement", "mesh.", "sharding."),
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


def usable(workdir: str | PurePath) -> PurePath:
    """Return the path of a workdir that a run could train in now; changes nothing.

    Raises:
        UserError: if it is no folder, cannot be written to, is in use by another run, or holds checkpoints or metrics
            of a run that is not described there.
    """
    processes.by_lead(lambda: _check_usable(workdir))
    return files.location(workdir, "workdir")


def _check_usable(workdir: str | PurePath) -> None:
    folder = files.usable_folder(workdir, "workdir")
    for name in ("checkpoints", "samples", "damaged_checkpoints"):
        if files.exists(folder / name):
            files.usable_folder(folder / name, "workdir")
    files.check_unlocked(folder, "workdir")
    _check_ownerless(folder)


@contextlib.contextmanager
def held(workdir: PurePath) -> Iterator[None]:
    """Be the only run in a workdir, which is made if need be; of several processes the lead holds it for all.

    Raises:
        UserError: if another run is in it, saying which.
    """
    with contextlib.ExitStack() as stack:
        with processes.agreeing(UserError):
            stack.enter_context(files.locked(workdir, "workdir"))
        yield


def compare(record: Record, folder: PurePath) -> None:
    """Refuse a workdir that belongs to another run; of several processes the lead compares.

    Raises:
        UserError: saying what differs.
    """
    processes.by_lead(lambda: record.compare(folder))


@dataclasses.dataclass(frozen=True)
class OfConfig:
    """The record of a run that a config describes; see ``training.run.Record``."""

    config: ConfigDict

    def compare(self, folder: PurePath) -> None:
        """Refuse a workdir that belongs to another run.

        Raises:
            ValueError: naming every key that differs.
        """
        if files.exists(folder / "run.json"):
            raise UserError(
                f"workdir = {str(folder)!r}: belongs to a run of own objects (run.json), not of a config; choose "
                "another workdir"
            )
        if not files.exists(folder / "config.json"):
            return
        changed = configs.differences(_stored_config(folder), self.config)
        clashes = {key: pair for key, pair in changed.items() if not key.startswith(_FREE)}
        if clashes:
            raise UserError(
                f"workdir = {str(folder)!r}: belongs to another config ({_listed(clashes)}); choose another workdir"
            )
        _check_rate(folder, self.config, changed)

    def write(self, folder: PurePath) -> None:
        """Store the config, and that this user gave it."""
        imports.trust(folder, self.config.to_dict())
        files.write_text(folder / "config.json", configs.dumps(self.config))


def claim(workdir: PurePath, record: Record, facts: Facts) -> None:
    """Write record and facts into a new workdir, or check them against those already there.

    Raises:
        ValueError: if the workdir belongs to another run or other data, in which case the error names everything that
            differs, or holds a run that nothing describes; or if it is no folder that all processes share.
    """
    processes.by_lead(lambda: _claim(workdir, record, facts))
    with processes.agreeing(UserError):
        if not files.exists(workdir / "data.json"):
            raise UserError(f"workdir = {str(workdir)!r}: must be on a file system that all processes share")


def _claim(workdir: PurePath, record: Record, facts: Facts) -> None:
    _check_ownerless(workdir)
    record.compare(workdir)
    _check_data(workdir, facts)
    files.write_json(workdir / "data.json", dataclasses.asdict(facts))
    record.write(workdir)


def read_config(workdir: str | PurePath) -> ConfigDict:
    """Return the config of a workdir.

    Raises:
        ValueError: if the folder does not exist or holds no run, or its config names imports that are not allowed, see
            ``imports``, or is damaged.
    """
    workdir = files.location(workdir, "workdir")
    path = workdir / "config.json"
    if files.exists(workdir / "run.json"):
        raise UserError(
            f"workdir = {str(workdir)!r}: is of a run of own objects (run.json): train, restore and sample it from the "
            "program that made it"
        )
    if not files.exists(path):
        what = (
            "no such folder" if not files.exists(workdir) else "no config.json in it: not the workdir of a training run"
        )
        raise UserError(f"workdir = {str(workdir)!r}: {what}")
    config = _stored_config(workdir)
    imports.require(workdir, config.to_dict())
    return config


def _stored_config(workdir: PurePath) -> ConfigDict:
    path = workdir / "config.json"
    try:
        return configs.loads(files.read_text(path))
    except UserError as error:
        # Of a config's keys, they name config.json, which is one of many.
        raise UserError(re.sub("^config.json:", lambda _: f"{path}:", str(error))) from error


def read_facts(workdir: PurePath) -> Facts:
    """Return the facts of a workdir's data.

    Raises:
        UserError: if they are missing or damaged.
    """
    path = workdir / "data.json"
    if not files.exists(path):
        raise UserError(f"workdir = {str(workdir)!r}: no data.json in it: not the workdir of a training run")
    stored = files.read_json(path)
    try:
        facts = Facts(**{**stored, "event_shape": tuple(stored["event_shape"])})
    except (TypeError, KeyError) as error:
        raise UserError(f"{path}: is damaged: must hold event_shape and num_classes ({error})") from error
    if not all(isinstance(size, int) for size in (*facts.event_shape, facts.num_classes or 0)):
        raise UserError(f"{path}: is damaged: event_shape and num_classes must be whole numbers")
    return facts


def _check_ownerless(workdir: PurePath) -> None:
    """Refuse what a run left whose config is gone: nothing says what it is, and it would be overwritten."""
    left = [name for name in ("checkpoints", "metrics.jsonl") if _holds(workdir / name)]
    if left and not any(files.exists(workdir / name) for name in ("config.json", "run.json")):
        raise UserError(
            f"workdir = {str(workdir)!r}: holds {' and '.join(left)} but no config.json that says of what; put it "
            "back, or choose another workdir"
        )


def _holds(path: PurePath) -> bool:
    """Return whether there is a file, or a folder with something in it."""
    return bool(files.listed(path)) if files.is_folder(path) else files.exists(path)


def _check_rate(workdir: PurePath, config: ConfigDict, changed: dict[str, tuple[Any, Any]]) -> None:
    """Refuse another number of steps where the learning rates of the steps already done depended on it."""
    steps = {key: pair for key, pair in changed.items() if key == "training.num_steps"}
    if steps and config.optimizer.decay != "constant":
        raise UserError(
            f"workdir = {str(workdir)!r}: {_listed(steps)}, but optimizer.decay = {config.optimizer.decay!r} laid the "
            "learning rate over the number of steps that the run began with, and would jump; keep that number, or "
            "choose another workdir (a run with optimizer.decay = 'constant' can be made longer)"
        )


def check_data(workdir: PurePath, facts: Facts) -> None:
    """Refuse a workdir that was trained on other data, and processes that have other data than each other.

    Raises:
        ValueError: naming all facts that differ.
    """
    processes.require_same("data", [facts.num_items, facts.checksum])
    processes.by_lead(lambda: _check_data(workdir, facts))


def _check_data(workdir: PurePath, facts: Facts) -> None:
    if not files.exists(workdir / "data.json"):
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
