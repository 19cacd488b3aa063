"""All processes meet at the coordinator's port before jax does: jax aborts where one is missing, naming none.

Process 0 listens; each other process connects, says its number and how many it knows of, and waits for the answer,
which is either ``go`` or what is wrong, the same for all.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterable

from geonoise_jax.errors import UserError

_WORD = "geonoise-rendezvous"
_MISSING = " missing at the coordinator "
_RETRY_SECONDS = 0.2
_LINE = 4096


class MissingError(UserError):
    """Other processes did not come in time: they may the next time that all are started."""


def meet(coordinator: str, num_processes: int, process_id: int, seconds: float) -> None:
    """Return once all processes are there.

    Args:
        coordinator: ``HOST:PORT`` of process 0.
        num_processes: how many there are.
        process_id: number of this one.
        seconds: how long to wait for the others.

    Raises:
        MissingError: naming the coordinator and, where it is known, which processes are missing.
        UserError: if two have the same number, or know of different numbers of processes.
    """
    host, _, port = coordinator.rpartition(":")
    until = time.monotonic() + seconds
    title = f"process {process_id} of {num_processes}: "
    if process_id:
        answer = _ask(host.strip("[]"), int(port), f"{_WORD} {process_id} {num_processes}\n", until)
        if answer is None:
            raise MissingError(
                f"{title}process 0 is missing: nothing answers at the coordinator {coordinator} for {seconds:g} s; "
                f"start it, or open the port between the hosts{_proxies()}"
            )
        if answer != "go":
            raise _refusal(f"{title}{answer}")
    elif problem := _host(int(port), num_processes, until, coordinator, seconds):
        raise _refusal(f"{title}{problem}")


def _refusal(text: str) -> UserError:
    return (MissingError if _MISSING in text else UserError)(text)


def _host(port: int, num: int, until: float, coordinator: str, seconds: float) -> str:
    """Wait for all others and tell them how it went; returns what is wrong, or nothing."""
    there: dict[int, socket.socket] = {}
    problem = ""
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(_listening(port, until))
        except OSError as error:
            return f"the coordinator {coordinator} cannot listen ({error.strerror or error}); choose another port"
        while len(there) < num - 1 and not problem and (left := until - time.monotonic()) > 0:
            server.settimeout(left)
            try:
                one, _ = server.accept()
            except TimeoutError:
                break
            stack.enter_context(one)
            problem = _admitted(one, there, num)
        missing = [str(number) for number in range(1, num) if number not in there]
        if missing and not problem:
            problem = f"process {', '.join(missing)}{_MISSING}{coordinator} after {seconds:g} s"
        _answer(there.values(), problem or "go")
    return problem


def _admitted(one: socket.socket, there: dict[int, socket.socket], num: int) -> str:
    """Note who has come; returns what is wrong with it. Whoever speaks otherwise is none of ours."""
    one.settimeout(5.0)
    try:
        word, number, others = one.recv(_LINE).decode().split()
        own, known = int(number), int(others)
    except (OSError, ValueError):
        return ""
    if word != _WORD:
        return ""
    twice = own in there or own == 0
    there[own if not twice else -1] = one
    if known != num:
        return f"process {own} was started as one of {known} processes, process 0 as one of {num}"
    return f"two processes were started as number {own}" if twice else ""


def _answer(sockets: Iterable[socket.socket], text: str) -> None:
    for one in sockets:
        with contextlib.suppress(OSError):
            one.sendall(text.encode())
            # The others hang up first, so that the port is free at once.
            one.settimeout(5.0)
            one.recv(1)


def _ask(host: str, port: int, line: str, until: float) -> str | None:
    """Return what process 0 answers, or None if nothing does in time."""
    while (left := until - time.monotonic()) > 0:
        try:
            with socket.create_connection((host, port), timeout=left) as own:
                own.sendall(line.encode())
                # Process 0 ends the wait, a little later than here if it began later.
                own.settimeout(left + 10.0)
                if answer := own.recv(_LINE).decode():
                    return answer
        except OSError:
            pass
        time.sleep(_RETRY_SECONDS)
    return None


def _listening(port: int, until: float) -> socket.socket:
    """Return a socket on all addresses; one that is taken may be that of a process that is about to end."""
    both = socket.has_dualstack_ipv6()
    while True:
        try:
            family = socket.AF_INET6 if both else socket.AF_INET
            return socket.create_server(("", port), family=family, dualstack_ipv6=both)
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(_RETRY_SECONDS)


def _proxies() -> str:
    found = sorted(name for name in os.environ if name.lower().endswith("_proxy"))
    return f"; {', '.join(found)} may be in the way" if found else ""
