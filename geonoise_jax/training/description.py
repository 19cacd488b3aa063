"""What a workdir knows a run of own objects by: ``run.json``, their descriptions, compared when the run goes on."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from geonoise_jax import files
from geonoise_jax.errors import UserError
from geonoise_jax.training.run import Run, Sampling

NAME = "run.json"
# What may change between runs of one workdir does not touch what was learnt so far.
_COMPARED = (
    "network",
    "process",
    "field",
    "objective",
    "optimizer",
    "learning_rate",
    "average",
    "posthoc",
    "init_from",
    "batch_size",
    "seed",
    "flip",
    "augment",
)
# Steps whose learning rates tell schedules apart.
_STEPS = (0, 10, 100, 1000, 10_000, 100_000)
# Where functions and objects without a description of their own lie in memory.
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


@dataclasses.dataclass(frozen=True)
class Description:
    """The record of a run that no config describes; see ``training.run.Record``.

    Own optimizers are known by their learning rate, if it is given, and as such: other settings of theirs are for the
    program to keep.
    """

    run: Run

    def compare(self, folder: PurePath) -> None:
        """Refuse a workdir that belongs to another run.

        Raises:
            ValueError: naming all that differs.
        """
        if files.exists(folder / "config.json"):
            raise UserError(f"workdir = {str(folder)!r}: belongs to the run of a config; choose another workdir")
        if not files.exists(folder / NAME):
            return
        old, new = read(folder), self._described()
        clashes = [name for name in _COMPARED if old.get(name) != new[name]]
        if clashes:
            listed = "; ".join(f"{name}: {old.get(name)!r} there, {new[name]!r} now" for name in clashes)
            raise UserError(f"workdir = {str(folder)!r}: belongs to another run ({listed}); choose another workdir")

    def write(self, folder: PurePath) -> None:
        """Store the description."""
        files.write_json(folder / NAME, self._described())

    def _described(self) -> dict[str, Any]:
        run = self.run
        _, rate = run.chain()
        optimizer = "an own optax optimizer" if run.optimizer is not None else "the default"
        return {
            "network": text(run.network),
            "process": text(run.process),
            "field": {name: plain(value) for name, value in sorted(run.field_options.items())},
            "objective": text(run.goal()),
            "kind": type(run.field(None)).__name__,
            "label_dropout": run.goal().label_dropout,
            "optimizer": optimizer,
            "learning_rate": None if rate is None else [float(rate(step)) for step in _STEPS],
            "average": text(run.average),
            "posthoc": None if run.posthoc is None else text(run.posthoc),
            "init_from": None if run.init_from is None else text(run.init_from),
            "batch_size": run.budget.batch_size,
            "seed": run.seed,
            "flip": run.flip,
            "augment": None if run.augment is None else text(run.augment),
            "budget": dataclasses.asdict(run.budget),
            "sampling": {each.name: plain(getattr(run.sampling, each.name)) for each in dataclasses.fields(Sampling)},
        }


def read(folder: PurePath) -> dict[str, Any]:
    """Return the description in a workdir.

    Raises:
        ValueError: if it is damaged.
    """
    path = folder / NAME
    stored = files.read_json(path)
    if not isinstance(stored, dict):
        raise UserError(f"{path}: must hold a JSON object; restore it from a backup")
    return stored


def sampling_of(described: dict[str, Any]) -> Sampling:
    """Return the sampling of a described run, but for options that are objects."""
    stored = dict(described["sampling"])
    interval = tuple(stored.pop("interval") or ()) or None
    return Sampling(interval=interval, options=values(stored.pop("options")), **stored)


def values(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of stored values that are no objects; lists become tuples."""
    plain = {name: value for name, value in stored.items() if not isinstance(value, dict)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}


def text(value: Any) -> str:
    """Return the description of an object on one line, the same in every process."""
    return " ".join(_ADDRESS.sub("", repr(value)).split())


def plain(value: Any) -> Any:
    """Return a value that JSON can store as it is, and an object as ``{"object": description}``."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    return {"object": text(value)}
