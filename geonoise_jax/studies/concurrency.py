"""Several exact fields at once: most of their time goes to compiling, which leaves the interpreter to others."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import jax

from geonoise_jax.progress import Progress

_MOST = 4

Result = TypeVar("Result")


def in_float64(label: str, tasks: Mapping[str, Callable[[], Result]]) -> list[Result]:
    """Run functions in float64, see :func:`at_once`."""

    def run(task: Callable[[], Result]) -> Result:
        # The setting is one of the thread.
        with jax.enable_x64(True):
            return task()

    return at_once(label, "fields", {name: functools.partial(run, task) for name, task in tasks.items()})


def at_once(label: str, unit: str, tasks: Mapping[str, Callable[[], Result]]) -> list[Result]:
    """Run functions, as many at once as there are cores and at most four, and show progress.

    Args:
        label: what they are of.
        unit: what each is called in the plural.
        tasks: the functions by what each is of.

    Returns:
        What they return, in their order.
    """
    progress, results = Progress(label, len(tasks), unit), []
    workers = min(_MOST, os.cpu_count() or 1, len(tasks))
    with contextlib.closing(progress), ThreadPoolExecutor(workers) as pool:
        running = {name: pool.submit(task) for name, task in tasks.items()}
        try:
            for name, future in running.items():
                results.append(future.result())
                progress.update(len(results), name)
        except BaseException:
            # Nobody waits for those that have not begun.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results
