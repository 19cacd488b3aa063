"""Decisions of all processes: that of the lead process, an error of any, a value of each.

The calls of one process meet those of the others by their order, so that all processes make the same ones.
"""

from __future__ import annotations

import contextlib
import contextvars
import itertools
import json
import platform
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from geonoise_jax.errors import UserError

T = TypeVar("T")
_PREFIX = "geonoise"
# What ends a wait is that the other process answers, or is found to be gone, see ``processes.ending``.
_PATIENCE_MS = 24 * 3600 * 1000
_numbers = itertools.count()
_alone = contextvars.ContextVar("alone", default=False)


class PeerError(RuntimeError):
    """Another process failed, in a way that is no user's error."""


def _state() -> Any:
    """Return jax's record of the processes, or None where jax is not even imported."""
    # jax has no public name for its client of the coordination service; orbax takes it from here as well.
    distributed = sys.modules.get("jax._src.distributed")
    return None if distributed is None else distributed.global_state


def client() -> Any:
    """Return jax's client of the coordination service, or None in a process that has joined no others."""
    return None if (state := _state()) is None else state.client


def count() -> int:
    """Return the number of processes that act together: 1 without others, and within :func:`by_lead`."""
    return 1 if client() is None or _alone.get() else _state().num_processes


def index() -> int:
    """Return the number of this process, 0 for the lead."""
    return 0 if client() is None else _state().process_id


def several() -> bool:
    """Return whether there are other processes to act with."""
    return count() > 1


def is_lead() -> bool:
    """Return whether this is the process that writes files and speaks to the user."""
    return index() == 0


def agreed(value: T) -> T:
    """Return the lead's value, in all processes.

    Args:
        value: plain values of JSON; tuples come out as lists. Only the lead's counts.
    """
    return by_lead(lambda: value)


def by_lead(make: Callable[[], T]) -> T:
    """Have the lead do something, and return in all processes what it returned, or raise what it raised.

    Within it the lead acts alone, as a process without others.

    Args:
        make: returns plain values of JSON; tuples come out as lists in the other processes.

    Raises:
        UserError: the lead's.
        PeerError: in the others, for any other exception of the lead's.
    """
    if not several():
        return make()
    key = f"{_PREFIX}/{next(_numbers)}"
    if not is_lead():
        return _answer(json.loads(wait(key)))
    token = _alone.set(True)
    try:
        value = make()
    except Exception as error:
        put(key, json.dumps({"error": _described(error)}))
        raise
    finally:
        _alone.reset(token)
    put(key, json.dumps({"value": value}))
    return value


def gathered(value: Any) -> list[Any]:
    """Return the values of all processes, by their number.

    Args:
        value: plain values of JSON; tuples come out as lists.
    """
    if not several():
        return [value]
    key = f"{_PREFIX}/{next(_numbers)}"
    put(f"{key}/{index()}", json.dumps(value))
    return [json.loads(wait(f"{key}/{number}")) for number in range(count())]


def neighbours() -> int:
    """Return how many of the processes are on this machine, this one included; all processes call it."""
    host = platform.node()
    return gathered(host).count(host)


def barrier() -> None:
    """Return once all processes have called this."""
    gathered(None)


@contextlib.contextmanager
def agreeing(*kinds: type[Exception]) -> Iterator[None]:
    """Raise in all processes what is raised in this context in one of them.

    Args:
        *kinds: exceptions that are raised again as what they are; others become a :class:`PeerError`.
    """
    if not several():
        yield
        return
    try:
        yield
    except Exception as error:
        gathered(_described(error))
        raise
    told = [each for each in gathered(None) if each is not None]
    if told:
        name, text, _ = told[0]
        raise next((kind for kind in kinds if kind.__name__ == name), PeerError)(text)


def require_same(name: str, value: Any) -> None:
    """Refuse processes that were started with different things.

    Args:
        name: what it is, for the error.
        value: plain values of JSON.

    Raises:
        UserError: naming the processes that differ from the lead.
    """
    values = gathered(value)
    others = [number for number, each in enumerate(values) if each != values[0]]
    if others:
        raise UserError(
            f"{name}: must be the same in all processes; that of {', '.join(f'process {each}' for each in others)} "
            "differs from that of process 0"
        )


def put(key: str, text: str) -> None:
    """Store a text for all processes; what is stored stays."""
    client().key_value_set(key, text)


def wait(key: str, milliseconds: int = _PATIENCE_MS) -> str:
    """Return a text once a process has stored it."""
    return client().blocking_key_value_get(key, milliseconds)


def _described(error: Exception) -> tuple[str, str, bool]:
    return type(error).__name__, str(error), isinstance(error, UserError)


def _answer(told: dict[str, Any]) -> Any:
    if "error" not in told:
        return told["value"]
    _, text, of_user = told["error"]
    raise (UserError if of_user else PeerError)(text)
