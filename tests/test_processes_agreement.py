"""Decisions of several processes, here threads with a store in common in place of jax's coordination service."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from geonoise_jax import files, processes
from geonoise_jax.errors import UserError
from geonoise_jax.processes import agreement, ending
from geonoise_jax.signals import StopRequest
from geonoise_jax.training.sharding import sampling_mesh

DEVICES = 8  # see conftest


class Store:
    """The key-value store of jax's client."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self._changed = threading.Condition()

    def key_value_set(self, key: str, text: str) -> None:
        with self._changed:
            if key in self.texts:
                raise RuntimeError("ALREADY_EXISTS")
            self.texts[key] = text
            self._changed.notify_all()

    def blocking_key_value_get(self, key: str, milliseconds: int) -> str:
        with self._changed:
            if not self._changed.wait_for(lambda: key in self.texts, min(milliseconds / 1000, 10.0)):
                raise RuntimeError("DEADLINE_EXCEEDED")
            return self.texts[key]


class Member(threading.local):
    """jax's record of the processes, in one of them."""

    client: Any = None
    num_processes = 1
    process_id = 0
    numbers: Any = None


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Return a function that runs another one in several processes, and returns what each returned or raised."""
    member = Member()
    monkeypatch.setattr(agreement, "_state", lambda: member)

    class Numbers:
        def __next__(self) -> int:
            return next(member.numbers)

    monkeypatch.setattr(agreement, "_numbers", Numbers())

    def of_all(act: Callable[[int], Any], num: int = 3) -> list[Any]:
        store, found = Store(), list[Any]([None] * num)

        def one(number: int) -> None:
            member.client, member.num_processes, member.process_id = store, num, number
            member.numbers = iter(range(100))
            try:
                found[number] = act(number)
            except Exception as error:
                found[number] = error

        threads = [threading.Thread(target=one, args=(number,)) for number in range(num)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20.0)
        return found

    return of_all


def told(found: list[Any]) -> list[tuple[type, str]]:
    return [(type(error), str(error)) for error in found]


def test_the_lead_decides(together: Callable[..., list[Any]]) -> None:
    assert together(lambda number: processes.agreed([number, "a"])) == [[0, "a"]] * 3
    assert together(processes.gathered) == [[0, 1, 2]] * 3
    assert together(lambda _: processes.is_lead()) == [True, False, False]


def test_the_lead_acts_alone(together: Callable[..., list[Any]]) -> None:
    """What agrees among all is then the lead's own affair."""

    def act(number: int) -> Any:
        inner = processes.by_lead(lambda: [processes.count(), processes.agreed(number), processes.gathered(number)])
        return inner, processes.count()

    assert together(act) == [([1, 0, [0]], 3)] * 3


def test_errors_of_the_lead_are_those_of_all(together: Callable[..., list[Any]]) -> None:
    def refuse(error: Exception) -> Callable[[int], Any]:
        def act(_: int) -> Any:
            def fail() -> None:
                raise error

            return processes.by_lead(fail)

        return act

    assert told(together(refuse(UserError("a = 1: bad")))) == [(UserError, "a = 1: bad")] * 3
    found = told(together(refuse(KeyError("x"))))
    assert found == [(KeyError, "'x'"), (processes.PeerError, "'x'"), (processes.PeerError, "'x'")]


@pytest.mark.parametrize("bad", [0, 2])
def test_an_error_of_any_is_that_of_all(bad: int, together: Callable[..., list[Any]]) -> None:
    def act(kind: type[Exception]) -> Callable[[int], Any]:
        def one(number: int) -> str:
            with processes.agreeing(UserError):
                if number == bad:
                    raise kind("no")
            return "went on"

        return one

    assert told(together(act(UserError))) == [(UserError, "no")] * 3
    kinds: list[type[Exception]] = [processes.PeerError] * 3
    kinds[bad] = OSError
    assert told(together(act(OSError))) == [(kind, "no") for kind in kinds]


def test_processes_of_different_things_are_named(together: Callable[..., list[Any]]) -> None:
    assert together(lambda _: processes.require_same("data", [1, None])) == [None] * 3
    for text in map(str, together(lambda number: processes.require_same("data", number // 2))):
        assert text == "data: must be the same in all processes; that of process 2 differs from that of process 0"


def test_only_the_lead_writes(together: Callable[..., list[Any]], tmp_path: Any) -> None:
    def act(number: int) -> None:
        path = tmp_path / f"{number}"
        files.write_text(path, "a")
        files.append_line(tmp_path / f"lines{number}", "b")
        files.write_arrays(tmp_path / f"arrays{number}.npz", {"x": np.zeros(2)})
        with files.locked(tmp_path / "locked"):
            processes.barrier()

    assert together(act) == [None] * 3
    assert {path.name for path in tmp_path.iterdir()} == {"0", "lines0", "arrays0.npz", "locked"}


def test_a_signal_to_one_stops_all_after_the_same_step(together: Callable[..., list[Any]]) -> None:
    """However far the loops of the processes are from each other."""
    member = agreement._state()

    class Thread(threading.Thread):
        """A thread of the process that starts it."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.of = member.client, member.num_processes, member.process_id

        def run(self) -> None:
            member.client, member.num_processes, member.process_id = self.of
            super().run()

    from geonoise_jax.processes import stopping

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stopping.threading, "Thread", Thread)
        patch.setattr(stopping, "_runs", iter([0] * 3))

        def act(number: int) -> tuple[int, str | None, bool]:
            request, step, turn = StopRequest(), 20, threading.Event()
            with processes.SharedStop(request) as stop:
                while not stop.reached(step):
                    step += 1
                    turn.wait(0.001 * (1 + 2 * number))
                    if (number, step) == (1, 30):
                        request.received = signal.SIGTERM
                received = stop.signal()
            return step, received.name if received else None, request.received is not None

        found = together(act)
    assert len({(step, name) for step, name, _ in found}) == 1, found
    assert found[0][0] >= 30
    assert found[0][1] == "SIGTERM"
    # A launcher's signal to the others is still their first.
    assert [own for *_, own in found] == [False, True, False]


def test_a_signal_after_the_last_step_is_that_of_all(together: Callable[..., list[Any]]) -> None:
    def act(number: int) -> Any:
        request = StopRequest()
        stop = processes.SharedStop(request)
        request.received = signal.SIGINT if number == 2 else None
        return stop.signal()

    assert together(act) == [signal.SIGINT] * 3


def test_in_one_process_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "put", None)
    monkeypatch.setattr(agreement, "wait", None)
    assert (processes.agreed((1, 2)), processes.gathered(3), processes.count()) == ((1, 2), [3], 1)
    processes.barrier()
    with pytest.raises(KeyError), processes.agreeing(UserError):
        raise KeyError("a")
    request = StopRequest()
    with processes.SharedStop(request) as stop:
        assert not stop.reached(3)
        request.received = signal.SIGINT
        assert stop.reached(3)
        assert stop.signal() is signal.SIGINT
    processes.tell(1, "a")
    assert (processes.leave(3), processes.lost(RuntimeError("Gloo"))) == (3, None)


def test_a_lost_process_is_told_from_other_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "several", lambda: True)
    inner = ValueError("UNKNOWN: Gloo AllReduce failed: Connection closed by peer [127.0.0.1]:3\nmore")
    outer = UserError("checkpoint 3 was not saved")
    outer.__cause__ = inner
    for error in (inner, outer):
        assert "another process is gone (UNKNOWN: Gloo AllReduce failed" in str(processes.lost(error))
    assert processes.lost(UserError("other")) is None


def test_arrays_are_made_and_fetched_row_by_row() -> None:
    where = NamedSharding(sampling_mesh(), PartitionSpec("data"))
    whole, asked = np.arange(32.0).reshape(16, 2), list[int]()

    def rows(at: slice) -> np.ndarray:
        asked.append(len(whole[at]))
        return whole[at]

    spread = processes.placed(whole.shape, where, rows)
    assert asked == [16 // jax.device_count()] * jax.device_count()
    found = processes.to_host({"a": spread, "b": jnp.ones(3)})
    np.testing.assert_array_equal(found["a"], whole)
    assert isinstance(found["b"], np.ndarray)
