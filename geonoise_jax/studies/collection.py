"""All studies in one folder and on one page, each kept and made again only where what it depends on has changed."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from geonoise_jax import files, signals
from geonoise_jax.errors import UserError
from geonoise_jax.progress import duration
from geonoise_jax.studies import collection_page, runner, workdirs
from geonoise_jax.studies.budgets import budget_of
from geonoise_jax.studies.collection_page import Part
from geonoise_jax.studies.fingerprint import fingerprint, versions
from geonoise_jax.studies.table import STUDIES

PAGE = "index.html"
# As if the budgets' times had been confirmed for as long before anything was made.
_PRIOR_SECONDS = 60.0
_FAST = "jax_disable_most_optimizations"
_LOG = logging.getLogger(__name__)


class Collection(NamedTuple):
    """All studies.

    Attributes:
        page: the page that shows them.
        parts: the studies.
    """

    page: Path
    parts: tuple[Part, ...]

    @property
    def failed(self) -> tuple[Part, ...]:
        """Those that could not be made."""
        return tuple(each for each in self.parts if each.failure)


def make_all(out: str | Path, *, quick: bool = False) -> Collection:
    """Make all studies, and a page of them, ``OUT/index.html``.

    What is there already and would come out the same is not made again: an interrupted call goes on where it was. A
    study that cannot be made does not keep the others from being made.

    Args:
        out: folder of the results, ``OUT/NAME.png`` and so on, and of training runs.
        quick: try everything out at sizes that show little.

    Raises:
        ValueError: if the folder cannot be used.
    """
    folder = files.local(out, "out")
    files.usable_folder(folder, "out")
    clock, parts = _Clock(quick=quick), list[Part]()
    with files.locked(folder, "out"), _compiled_fast(quick=quick), signals.stopping() as came:
        for number, name in enumerate(STUDIES, start=1):
            _LOG.info("%s: %d of %d studies, ETA at most %s", name, number, len(STUDIES), clock.left(number - 1))
            began = time.perf_counter()
            try:
                part, made = _part(name, folder, quick=quick)
            except Exception as error:
                # What a signal raises inside of another library may come out of it as an error of its own.
                if came:
                    raise signals.Stopped(came[0]) from error
                part, made = Part(name, STUDIES[name].about, failure=_why(name, error)), True
            parts.append(part)
            if made:
                seconds = time.perf_counter() - began
                clock.spent(name, seconds)
                _LOG.info("%s: took %s", name, duration(seconds))
            # Also of those so far: what takes long is looked at meanwhile.
            if made or number == len(STUDIES):
                _write_page(folder, parts, quick=quick)
    return Collection(folder / PAGE, tuple(parts))


def _part(name: str, folder: Path, *, quick: bool) -> tuple[Part, bool]:
    """Return a study, and whether it was made just now rather than kept."""
    budget, out = budget_of(name, quick=quick), folder / name
    workdir, commands = None, list[str]()
    if budget.training is not None:
        workdir = folder / "runs" / budget.training.name(name)
        workdirs.train(budget.training.choose(), workdir)
        commands.append(budget.training.command(workdir))
    shorter = quick and bool(runner.quick_options(name))
    options = runner.options(name, workdir, dict(budget.options), out, quick=shorter)
    commands.append(runner.command(name, out, options, quick=shorter))
    depends = fingerprint(name, options, quick=quick)
    found = runner.kept(out, depends)
    made = found is None
    if found is None:
        found = runner.make(name, out, options, depends)
    return Part(name, STUDIES[name].about, tuple(commands), out, found), made


@contextlib.contextmanager
def _compiled_fast(*, quick: bool) -> Iterator[None]:
    """Compile fast rather than well in a try-out, most of whose time goes to compiling what runs for a moment."""
    before = jax.config.values[_FAST]
    jax.config.update(_FAST, quick or before)
    try:
        yield
    finally:
        jax.config.update(_FAST, before)


def _why(name: str, error: Exception) -> str:
    """Say in one line why a study could not be made, and give the traceback of a fault of the program."""
    line = str(error).partition("\n")[0]
    if isinstance(error, (UserError, OSError)):
        _LOG.error("%s: %s", name, line)
        return line
    _LOG.error("%s failed", name, exc_info=error)
    return f"{type(error).__name__}: {line}"


def _write_page(folder: Path, parts: Sequence[Part], *, quick: bool) -> None:
    page = collection_page.page(parts, len(STUDIES), versions(), quick=quick)
    files.write_text(folder / PAGE, page)


class _Clock:
    """Time that is left, by the times of the budgets at the pace of this machine."""

    def __init__(self, *, quick: bool) -> None:
        self._expected = {name: budget_of(name, quick=quick).seconds for name in STUDIES}
        self._spent, self._done = _PRIOR_SECONDS, _PRIOR_SECONDS

    def spent(self, name: str, seconds: float) -> None:
        """Count what a study took."""
        self._spent += seconds
        self._done += self._expected[name]

    def left(self, done: int) -> str:
        """Say how long the studies after the first few take, all of them being made."""
        rest = sum(list(self._expected.values())[done:]) * self._spent / self._done
        return duration(rest)
