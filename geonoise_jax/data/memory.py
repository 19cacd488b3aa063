"""How much memory there is, and a refusal that says so before an array is made that does not fit."""

from __future__ import annotations

from pathlib import Path

import jax

from geonoise_jax.errors import UserError

_MEMINFO = Path("/proc/meminfo")
# Limit and use of a container, of both versions of Linux control groups.
_GROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
    ),
)


def require(nbytes: int, what: str, way_out: str) -> None:
    """Refuse to make arrays that do not fit into the memory that is available now.

    Args:
        nbytes: bytes that are needed.
        what: what they are for, the beginning of the error.
        way_out: what the user can do, the end of the error.

    Raises:
        ValueError: the message gives both sizes. There is none where the available memory is not known.
    """
    free = available()
    if free is not None and nbytes > free:
        raise UserError(f"{what}: needs {_gib(nbytes)} of memory, of which {_gib(free)} are available; {way_out}")


def available() -> int | None:
    """Return the bytes of host memory that a new array may take, or None where the system does not say.

    The least of what the machine and a container's limit leave, page cache counted as available.
    """
    known = [free for free in (_of_machine(), *(_of_group(*paths) for paths in _GROUPS)) if free is not None]
    return min(known) if known else None


def share(sharing: int = 1) -> int | None:
    """Return the bytes that a process may hold of a data set, or None where the available memory is not known.

    Half of what is available, divided among the processes that hold one on this machine: the other half is for the
    programs, what they read ahead and, on CPUs, the copy on the device.

    Args:
        sharing: number of these processes.
    """
    free = available()
    return None if free is None else free // (2 * sharing)


def device_copies() -> int:
    """Return how often an array that jax uses is in the host's memory: as made, and on a CPU device."""
    return 2 if jax.default_backend() == "cpu" else 1


def _of_machine() -> int | None:
    try:
        lines = _MEMINFO.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _of_group(limit: str, used: str, stat: str) -> int | None:
    try:
        bounds = int(Path(limit).read_text()), int(Path(used).read_text())
        lines = Path(stat).read_text().splitlines()
    except (OSError, ValueError):  # no such group, or "max": no limit
        return None
    cached = next(
        (int(line.split()[1]) for line in lines if line.startswith(("inactive_file ", "total_inactive_file "))), 0
    )
    return max(bounds[0] - bounds[1] + cached, 0)


def in_words(nbytes: int) -> str:
    """Return a size in GiB, or in MiB if it is small."""
    return f"{nbytes / 2**30:.3g} GiB" if nbytes >= 2**27 else f"{nbytes / 2**20:.3g} MiB"


def _gib(nbytes: int) -> str:
    return f"{nbytes / 2**30:.3g} GiB"
