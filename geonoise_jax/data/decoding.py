"""Work on many image files, in threads: what cannot be read is said of all files together."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import UInt8

from geonoise_jax.data import images
from geonoise_jax.errors import UserError
from geonoise_jax.progress import Progress

# Decoding leaves the interpreter free.
_WORKERS = min(8, os.cpu_count() or 1)
_CHUNK = 1024
# More files show their progress.
_MANY = 2000
# Files that an error names.
_NAMED = 5
Task = TypeVar("Task")
Answer = TypeVar("Answer")


def for_each(
    label: str,
    tasks: Sequence[Task],
    work: Callable[[Task], Answer],
    name_of: Callable[[Task], str],
    title: str,
) -> list[Answer]:
    """Do some work on every file and return the answers in order.

    Args:
      label: what is done, for the line of progress.
      tasks: the files, and what is to be done with them.
      work: called from threads.
      name_of: name of the file of a task, for errors.
      title: how errors call all files.

    Raises:
      ValueError: naming the files that cannot be read.
    """
    answers: list[Any] = []
    bad: list[str] = []

    def tried(task: Task) -> Any:
        try:
            return work(task)
        except images.UnreadableImageError as error:
            bad.append(f"{name_of(task)} {error}")
            return None

    progress = Progress(label, len(tasks), "images") if len(tasks) > _MANY else None
    pool = ThreadPoolExecutor(_WORKERS)
    try:
        with images.quiet():
            for start in range(0, len(tasks), _CHUNK):
                answers += pool.map(tried, tasks[start : start + _CHUNK])
                if progress:
                    progress.update(len(answers))
    finally:
        pool.shutdown(cancel_futures=True)
        if progress:
            progress.close()
    if bad:
        more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
        raise UserError(f"{title}: {len(bad)} of {len(tasks)} files: {'; '.join(sorted(bad)[:_NAMED])}{more}")
    return answers


def read_files(
    paths: Sequence[Path], shape: tuple[int, ...], fit: str, title: str
) -> UInt8[np.ndarray, "n height width c"]:
    """Decode image files and bring them to one shape, see `images.fitted`.

    Raises:
      ValueError: naming the files that cannot be read.
    """
    size = (shape[0], shape[1])
    rows = for_each(
        "read",
        paths,
        lambda path: images.fitted(images.read(path, shape[-1]), size, fit),
        lambda path: repr(str(path)),
        title,
    )
    return np.concatenate(rows)
