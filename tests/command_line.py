"""The command line run in this process, and what it changes on disk."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any, NamedTuple

from geonoise_jax.cli import main

# A run of a second.
CONFIG = "--config=configs/circles.py:flow_matching,conditional"
SMALL = {
    "data.kwargs.dim": 3,
    "data.kwargs.num_train": 64,
    "data.kwargs.num_test": 8,
    "model.kwargs.width": 8,
    "model.kwargs.depth": 1,
    "model.class_conditional": True,
    "optimizer.learning_rate": 0.05,
    "optimizer.warmup_steps": 0,
    "training.num_steps": 6,
    "training.batch_size": 16,
    "training.log_every": 2,
    "checkpoint.every": 3,
    "sampling.every": 0,
    "sampling.num_steps": 4,
}


class Ended(NamedTuple):
    """How a command ended."""

    status: Any
    out: str
    err: str


def run(*words: str | Path) -> Ended:
    """The command line on these words."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            status: Any = main([str(word) for word in words])
        except SystemExit as ended:
            status = ended.code
    return Ended(status, out.getvalue(), err.getvalue())


def snapshot(*folders: Path) -> dict[str, tuple[int, int]]:
    """Size and time of the last change of everything below some folders, themselves included."""
    paths = [path for folder in folders if folder.exists() for path in (folder, *folder.rglob("*"))]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in paths}
