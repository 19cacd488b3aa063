"""The record of evaluations: one line of JSON for each number, appended whole, each once."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import platform
import time
from pathlib import PurePath
from typing import Any

from geonoise_jax import files
from geonoise_jax.evaluation.floors import DRAWS
from geonoise_jax.evaluation.metrics.base import Value

NAME = "results.jsonl"
Record = dict[str, Any]
# What may differ between a number and its repetition.
_OCCASION = ("time", "seconds")
_DIGITS = 16
_PACKAGES = ("geonoise_jax", "jax", "jaxlib", "numpy", "scipy")


def identity(**parts: Any) -> str:
    """Return the key of a number: what it depends on, in few digits."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:_DIGITS]


def record(name: str, value: Value, *, not_finite: int, **facts: Any) -> Record:
    """Return the record of one number.

    With samples that are not finite there is no value, and ``finite_only`` has that of the others.

    Args:
        name: the number's name.
        value: the number.
        not_finite: samples that are not finite.
        **facts: of what it is.
    """
    found = value.estimate
    numbers = {"value": found.value, "low": found.low, "high": found.high, "spread": found.spread}
    shown = {key: _plain(number) for key, number in numbers.items()}
    floor = None
    if value.floor is not None:
        floor = {"value": _plain(value.floor.value), "spread": _plain(value.floor.spread), "draws": DRAWS}
    return {
        "metric": name,
        **(dict.fromkeys(shown) if not_finite else shown),
        **({"finite_only": shown["value"]} if not_finite else {}),
        "interval": value.interval,
        "better": value.better,
        "floor": floor,
        "at_floor": None if not_finite else value.at_floor,
        "note": found.note,
        "not_finite": not_finite,
        "protocol": value.protocol,
        **facts,
    }


def occasion(seconds: float) -> Record:
    """Return what is true of this computation of a number alone."""
    return {"seconds": round(seconds, 2), "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}


def versions() -> dict[str, str]:
    """Return the versions that a number may depend on."""
    return {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}}


class Log:
    """``results.jsonl`` of a folder.

    Args:
        folder: the folder, of which the caller is the only writer.

    Raises:
        UserError: if the file is damaged, but for a last line that a crash has torn, which is dropped.
    """

    def __init__(self, folder: PurePath) -> None:
        self.path = folder / NAME
        self._lines = files.JsonLines(self.path)
        self._records = self._lines.read(torn=True)
        if not self._lines.is_ended():
            self._lines.replace(self._records)

    def of(self, key: str) -> list[Record]:
        """Return the records with a key."""
        return [each for each in self._records if each.get("key") == key]

    def add(self, new: Record) -> None:
        """Append a record."""
        self._lines.append(new, allow_nan=False)
        self._records.append(new)

    @property
    def all(self) -> list[Record]:
        """All records, oldest first."""
        return list(self._records)


def read(path: str | PurePath) -> list[Record]:
    """Return the records of a ``results.jsonl``; none where there is no such file.

    Raises:
        UserError: if it is damaged, but for a last line that a crash has torn.
    """
    return files.JsonLines(path).read(torn=True)


def numbers_of(one: Record) -> Record:
    """Return a record without what its repetition may have otherwise."""
    return {name: value for name, value in one.items() if name not in _OCCASION}


def _plain(number: float) -> float | None:
    """Return a number as JSON has it; one that is not finite is none."""
    return float(number) if math.isfinite(number) else None


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
