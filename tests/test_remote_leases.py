"""The lock of a folder in a bucket: one holder, found out while it lives, and not for ever when it is gone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from geonoise_jax import files
from geonoise_jax.errors import UserError
from geonoise_jax.files import bucket, leases
from tests import fake_bucket
from tests.fake_bucket import FakeClient, Object

RUN = "gs://bucket/run"
NAME = "run/.writer.json"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeClient]:
    monkeypatch.setattr(leases, "BEAT", 0.05)
    monkeypatch.setattr(leases, "SILENCE", 0.6)
    monkeypatch.setattr(leases, "LOOK", 0.01)
    yield fake_bucket.install(monkeypatch)
    assert not leases._HELD


def held_elsewhere(client: FakeClient, **record: Any) -> None:
    """Put there what a process of another machine writes."""
    other = {"pid": 7, "host": "other", "since": "2026-01-01", "token": "t", "machine": "m", "started": "1", **record}
    client.objects["bucket"][NAME] = Object((json.dumps(other) + "\n").encode(), next(client.generations))


def test_a_holder_renews_and_leaves_nothing(client: FakeClient) -> None:
    with files.locked(RUN):
        first = client.objects["bucket"][NAME].generation
        threading.Event().wait(0.5)
        assert client.objects["bucket"][NAME].generation > first
        files.still_locked(RUN)
    assert client.names() == []


def test_threads_of_one_process_exclude_each_other(client: FakeClient) -> None:
    said = rf"^workdir = {RUN!r}: is in use by process {os.getpid()} on \S+ since 20.*; wait for it, stop it, or choose"
    with files.locked(RUN), pytest.raises(UserError, match=said):
        files.locked(RUN, "workdir").__enter__()
    files.check_unlocked(RUN)


def test_a_living_process_of_this_machine_is_refused_at_once(
    client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_elsewhere(client, pid=os.getpid(), machine=leases._machine(), started=leases._started(os.getpid()))
    monkeypatch.setattr(leases, "LOOK", 1e6)
    with pytest.raises(UserError, match=f"in use by process {os.getpid()} on other"):
        files.check_unlocked(RUN)


def test_a_dead_process_of_this_machine_is_no_obstacle(client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    monkeypatch.setattr(leases, "LOOK", 1e6)
    # The number of the process may be another's by now.
    for pid, started in ((ended.pid, "1"), (os.getpid(), "1")):
        held_elsewhere(client, pid=pid, machine=leases._machine(), started=started)
        with files.locked(RUN):
            assert json.loads(client.objects["bucket"][NAME].content)["pid"] == os.getpid()


def test_a_holder_elsewhere_is_found_out_by_its_renewal(client: FakeClient) -> None:
    held_elsewhere(client)
    seen = []

    def renew(word: str, name: str) -> None:
        if (word, name) == ("get", NAME):
            seen.append(word)
            if len(seen) == 3:
                held_elsewhere(client)

    client.before = renew
    said = f"workdir = {RUN!r}: is in use by process 7 on other since 2026-01-01; wait for it"
    with pytest.raises(UserError, match=re.escape(said)):
        files.check_unlocked(RUN, "workdir")
    assert len(seen) == 3


def test_one_that_is_silent_is_taken_over_and_finds_out(client: FakeClient) -> None:
    lease = leases.Lease(files.location(RUN), ".writer.json", {"pid": 1, "host": "a", "since": "b"})
    lease.take()
    lease._ended.set()
    lease._thread.join()
    # As if it were suspended on another machine.
    held_elsewhere(client)
    lease._generation = client.objects["bucket"][NAME].generation
    with files.locked(RUN):
        lease._ended.clear()
        lease._renew()
        assert lease.lost
        for write in (lambda: files.write_text(f"{RUN}/a", ""), lambda: files.still_locked(RUN)):
            with pytest.raises(UserError, match=f"{RUN}: is in use by another process, which took it over after"):
                write()
        files.write_text("gs://bucket/elsewhere/a", "")
        # Letting go takes nothing from the other.
        lease._thread = threading.Thread()
        lease._thread.start()
        lease.release()
        assert NAME in client.names()


def test_of_two_that_take_over_one_does(client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    held_elsewhere(client)
    replace = bucket.replace

    def quicker(*arguments: Any) -> int | None:
        held_elsewhere(client, pid=8)
        return replace(*arguments)

    monkeypatch.setattr(bucket, "replace", quicker)
    with pytest.raises(UserError, match="in use by process 8"):
        files.locked(RUN).__enter__()


def test_an_answer_that_was_lost_makes_no_second_holder(client: FakeClient) -> None:
    write = fake_bucket.FakeBlob.upload_from_string
    lost: list[int] = []

    def upload(self: Any, content: bytes, **options: Any) -> None:
        write(self, content, **options)
        if not lost:
            lost.append(1)
            write(self, content, if_generation_match=0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fake_bucket.FakeBlob, "upload_from_string", upload)
        with files.locked(RUN):
            assert lost
    assert client.names() == []


def test_a_bucket_that_is_away_for_a_while_takes_nothing_from_the_holder(client: FakeClient) -> None:
    with files.locked(RUN):
        client.before = lambda word, _: away() if word == "write" else None
        threading.Event().wait(0.3)
        client.before = lambda *_: None
        threading.Event().wait(0.3)
        files.still_locked(RUN)


def away() -> None:
    raise fake_bucket.error("ServerError", "503")
