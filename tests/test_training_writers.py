"""Where metrics go besides their file: TensorBoard where it is installed, and writers of other packages."""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import importlib.util
import logging
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from geonoise_jax.training import metrics, writers


class Recorder:
    """A writer that remembers, and fails at a step."""

    def __init__(self, workdir: Path, fails_at: int = -1) -> None:
        self.calls: list[Any] = [workdir]
        self._fails_at = fails_at

    def write(self, step: int, values: Mapping[str, float]) -> None:
        if step == self._fails_at:
            raise ConnectionError("no network")
        self.calls.append((step, dict(values)))

    def close(self) -> None:
        self.calls.append("closed")


class Entry:
    """An entry point."""

    def __init__(self, name: str, make: Callable[[Path], Any]) -> None:
        self.name, self._make = name, make

    def load(self) -> Callable[[Path], Any]:
        return self._make


def offered(monkeypatch: pytest.MonkeyPatch, **makers: Callable[[Path], Any]) -> None:
    """Install packages with these writers, and TensorBoard not."""
    entries = [Entry(name, make) for name, make in makers.items()]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: entries if group == writers.GROUP else [])
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboardX" else find(name))


def test_writers_are_given_what_the_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Recorder] = []

    def make(workdir: Path) -> Recorder:
        made.append(Recorder(workdir))
        return made[-1]

    offered(monkeypatch, one=make)
    log = metrics.MetricsLog(tmp_path)
    log.rewind(0)
    log.write(5, {"loss": 1.5})
    log.close()
    assert made[0].calls == [tmp_path, (5, {"loss": 1.5}), "closed"]
    assert metrics.read(log.path) == [{"step": 5, "loss": 1.5}]


def test_one_that_fails_is_left_out_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = Recorder(tmp_path), Recorder(tmp_path, fails_at=2)

    def broken(_: Path) -> Any:
        raise ImportError("needs an account")

    offered(monkeypatch, good=lambda _: good, bad=lambda _: bad, broken=broken)
    monkeypatch.setattr(logging.getLogger("geonoise_jax"), "propagate", True)
    log = metrics.MetricsLog(tmp_path)
    log.rewind(0)
    for step in (1, 2, 3):
        log.write(step, {})
    log.close()
    assert good.calls[1:] == [(1, {}), (2, {}), (3, {}), "closed"]
    assert bad.calls[1:] == [(1, {})]
    assert [line["step"] for line in metrics.read(log.path)] == [1, 2, 3]
    assert [record.getMessage() for record in caplog.records] == [
        "metrics are no longer given to broken: ImportError: needs an account",
        "metrics are no longer given to bad: ConnectionError: no network",
    ]


def test_tensorboard_is_told_where_a_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int) -> None:
            calls.append((folder, purge_step))

        def add_scalar(self, *words: Any) -> None:
            calls.append(words)

        def close(self) -> None:
            calls.append("closed")

    library = types.ModuleType("tensorboardX")
    library.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    library.__spec__ = importlib.machinery.ModuleSpec("tensorboardX", None)
    monkeypatch.setitem(sys.modules, "tensorboardX", library)
    log = metrics.MetricsLog(tmp_path)
    log.rewind(20)
    log.write(30, {"loss": 0.5, "learning_rate": 0.1})
    log.close()
    folder = str(tmp_path / "tensorboard")
    assert calls == [(folder, 21), ("loss", 0.5, 30), ("learning_rate", 0.1, 30), "closed"]
