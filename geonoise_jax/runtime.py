"""What the command line does to its process: settings that jax reads, standard streams, errors and signals."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import logging
import os
import platform
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from absl import logging as absl_logging

from geonoise_jax import files, processes, signals
from geonoise_jax.errors import UserError
from geonoise_jax.progress import LogHandler, Output

# jaxlib 0.10 sends CPU convolutions to a library that uses little more than one core; this flag restores the
# multi-threaded ones (forward convolutions about twice as fast). Other versions do not know it and would abort.
_CPU_CONVOLUTIONS = "--xla_cpu_experimental_ynn_fusion_type=-individual_convolution,-individual_dot"
_VERSIONS_WITH_FLAG = ("0.10.2",)
_JAX_NOTE = "\n--------------------\nFor simplicity, JAX has removed"
# Compiled programs are kept from process to process: as many bytes of them, and those that took as long to compile.
_KEPT_BYTES, _KEPT_SECONDS = 2**30, 0.2


def configure() -> None:
    """Set up logging of this package, the XLA flags of this jaxlib and a cache of compiled programs.

    The command line does. A program that wants the same calls it before jax is imported. What the user has set is kept,
    and nothing here can fail a program: an unknown jaxlib gets no flag, and without a folder there is no cache.
    """
    _hush_orbax()
    logger = logging.getLogger("geonoise_jax")
    logger.handlers[:] = [LogHandler(Output())]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    flags = os.environ.get("XLA_FLAGS", "")
    if _jaxlib_version() in _VERSIONS_WITH_FLAG and "ynn_fusion_type" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {_CPU_CONVOLUTIONS}".strip()
    _keep_programs()


def _hush_orbax() -> None:
    """Keep Orbax's threads from narrating, also of what fails in them, which the call that waits for them raises."""
    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    sys.unraisablehook = _unraisable


def _unraisable(unraisable: Any) -> None:
    """Leave out that writes which failed found nobody waiting for them any more."""
    error = unraisable.exc_value
    if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
        sys.__unraisablehook__(unraisable)


def _keep_programs() -> None:
    """Tell jax where to keep compiled programs, unless the user has said so or wants none."""
    if {"JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"} & set(os.environ):
        return
    folder = files.cache_folder() / "programs" / _processor()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if not os.access(folder, os.W_OK):
        return
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(_KEPT_BYTES))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", str(_KEPT_SECONDS))


def _processor() -> str:
    """Return a name of this kind of processor: programs for one may not run on another that shares the home folder."""
    kind = platform.machine() + platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        kind += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(kind.encode()).hexdigest()[:16]


def open_streams() -> None:
    """Give the standard streams that the process was started without somewhere to go.

    The next file that is opened would take the number of one, and with it what libraries write to that number.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def flushed(stream: TextIO | None) -> OSError | None:
    """Flush a standard stream; of one that cannot be written, drop what it holds and return why.

    The interpreter flushes again when it ends, and changes the exit status where that fails.
    """
    if stream is None:
        return None
    try:
        stream.flush()
    except OSError as error:
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
        return error
    return None


def status_of(run: Callable[[], int], name: str, *, debug: bool = False) -> int:
    """Run a command and return its exit status, saying in one line on standard error what ended it early.

    Where it is one of several processes, they all end with the status of the first that ends early.

    Args:
        run: the command; returns its status.
        name: of the command, with which the line begins.
        debug: give the traceback too of what has one line.
    """
    with signals.stopping() as came:
        try:
            status = _run(run, name, debug)
        except KeyboardInterrupt as stop:
            came.append(getattr(stop, "number", signal.SIGINT))
        except Exception:
            # What a signal raises inside of another library may come out of it as an error of its own.
            if not came:
                processes.crashed(name)
                raise
    if came:
        return _early(name, signals.status(came[0]), f"stopped by {came[0].name}")
    return processes.leave(status)


def _run(run: Callable[[], int], name: str, debug: bool) -> int:
    try:
        status = run()
        if error := flushed(sys.stdout):
            raise error
        return status
    except BrokenPipeError:
        # Whoever read the output has seen enough.
        return 0
    except Exception as error:
        gone = processes.lost(error)
        message = explained(error) if gone is None else gone
        if message is None:
            raise
        if debug:
            traceback.print_exc()
        # What a bucket that is away has kept from going well is worth another try.
        status = 1 if isinstance(error, files.UnavailableError) else 2
        return _early(name, status if gone is None else processes.LOST, message)


def _early(name: str, status: int, message: str) -> int:
    """Say what ended a command early, to the other processes too, and return its status."""
    line = f"{name}: {' '.join(message.splitlines())}"
    processes.tell(status, line)
    Output().write(f"{line}\n")
    return status


def explained(error: Exception) -> str | None:
    """Return the line that an error means for the user, or None if it is a fault of the program."""
    # jax adds lines on its own frames to what passes through it.
    text = str(error).partition(_JAX_NOTE)[0]
    if isinstance(error, (UserError, OSError)):
        return text
    line = text.partition("\n")[0]
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text:
        return (
            f"out of memory ({line or 'MemoryError'}); make sizes smaller, such as a batch size, --num or the network"
        )
    if isinstance(error, OverflowError):
        return f"a number is too large ({line})"
    asked = os.environ.get("JAX_PLATFORMS")
    if asked and isinstance(error, (RuntimeError, AssertionError)) and _no_backend():
        return f"JAX_PLATFORMS = {asked!r}: jax cannot use that here; unset it, or set it to cpu"
    return None


def _no_backend() -> bool:
    """Whether jax finds no device of the kind that is asked for, which it says in several ways."""
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError):
        return True
    return False


def _jaxlib_version() -> str:
    try:
        return importlib.metadata.version("jaxlib")
    except importlib.metadata.PackageNotFoundError:
        return ""
