"""Lines of JSON in a bucket: the same history as on a disk, whatever ends the writer, at a cost that is known."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest

from geonoise_jax import files
from geonoise_jax.errors import UserError
from geonoise_jax.files import lines as lines_module
from geonoise_jax.files.lines import FAN, JsonLines
from geonoise_jax.training.metrics import MetricsLog, is_whole, read, seconds_at
from tests import fake_bucket
from tests.fake_bucket import FakeClient

PATH = "gs://bucket/run/metrics.jsonl"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    return fake_bucket.install(monkeypatch)


def objects(*steps: int) -> list[dict[str, Any]]:
    return [{"step": step} for step in steps]


def folder_of_parts(tmp_path: Path) -> Path:
    """A file in parts on a local disk."""
    path = tmp_path / "metrics.jsonl"
    path.mkdir()
    return path


@pytest.mark.parametrize("where", ["bucket", "file", "folder"])
def test_lines_are_added_and_replaced_alike_everywhere(where: str, client: FakeClient, tmp_path: Path) -> None:
    paths: dict[str, str | Path] = {"bucket": PATH, "file": tmp_path / "a.jsonl", "folder": folder_of_parts(tmp_path)}
    path = paths[where]
    log = JsonLines(path)
    assert log.read() == []
    for step in range(5):
        log.append({"step": step})
        assert JsonLines(path).read() == objects(*range(step + 1))
    log.replace(objects(0, 1))
    log.append({"step": 7})
    again = JsonLines(path)
    again.append({"step": 8})
    assert (JsonLines(path).read(), again.exists(), again.is_whole(), again.is_ended()) == (
        objects(0, 1, 7, 8),
        True,
        True,
        True,
    )
    log = JsonLines(path)
    log.replace([])
    assert JsonLines(path).read() == []
    log.append({"step": 1})
    assert JsonLines(path).read() == objects(1)


def test_the_cost_of_many_lines(client: FakeClient) -> None:
    num, log = 3 * FAN**2 + 5 * FAN + 7, JsonLines(PATH)
    for step in range(num):
        log.append({"step": step})
    assert JsonLines(PATH).read() == objects(*range(num))
    assert len(client.names()) == 3 + 5 + 7
    writes = sum(word == "write" for word, _ in client.calls)
    assert writes == num + num // FAN + num // FAN**2
    size = sum(len(held.content) for held in client.objects["bucket"].values())
    assert client.sent <= size * (1 + math.log(num, FAN))
    # The names sort as the lines do.
    text = b"".join(client.objects["bucket"][name].content for name in client.names())
    assert text.decode().splitlines() == [f'{{"step": {step}}}' for step in range(num)]


class KilledError(BaseException):
    """What ends a process without a word."""


def test_whatever_ends_the_writer_no_line_is_lost_or_there_twice(
    client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines_module, "FAN", 3)
    for fatal in itertools.count(1):
        client.objects["bucket"].clear()
        left = itertools.count()

        def kill(word: str, _: str, left: Any = left, fatal: int = fatal) -> None:
            if word in ("write", "delete") and next(left) == fatal:
                raise KilledError

        client.before = kill
        log, done, replaced = JsonLines(PATH), 0, False
        try:
            for step in range(20):
                log.append({"step": step})
                done = step + 1
            log.replace(objects(*range(15)))
            replaced = True
        except KilledError:
            pass
        client.before = lambda *_: None
        again = JsonLines(PATH)
        found = len(again.read())
        assert again.read() == objects(*range(found))
        # A line that was being written may be there.
        assert found in ({15} if replaced else {done, done + 1} if done < 20 else {20, 15}), fatal
        again.append({"step": found})
        assert JsonLines(PATH).read() == objects(*range(found + 1))
        if replaced:
            break
    assert fatal > 30


def test_a_reader_meets_parts_that_are_being_put_together(client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_module, "FAN", 4)
    writer = JsonLines(PATH)
    for step in range(3):
        writer.append({"step": step})
    client.before = lambda word, _: writes_one(client, writer) if word == "read" else None
    assert JsonLines(PATH).read() == objects(*range(4))


def writes_one(client: FakeClient, writer: JsonLines) -> None:
    client.before = lambda *_: None
    writer.append({"step": 3})


def test_a_file_that_was_copied_into_a_bucket_goes_on(client: FakeClient) -> None:
    client.objects["bucket"]["run/metrics.jsonl"] = fake_bucket.Object(b'{"step": 0}\n{"step": 1}\n', 1)
    assert JsonLines(PATH).read() == objects(0, 1)
    JsonLines(PATH).append({"step": 2})
    assert JsonLines(PATH).read() == objects(0, 1, 2)
    assert "run/metrics.jsonl" not in client.names()


def test_damage_is_named(client: FakeClient) -> None:
    log = JsonLines(PATH)
    for step in range(3):
        log.append({"step": step})
    client.objects["bucket"]["run/metrics.jsonl/000001/00000001-00000002.jsonl"].content = b"[]\n"
    with pytest.raises(UserError, match=r"metrics.jsonl: line 2: is damaged: must be a JSON object"):
        JsonLines(PATH).read()
    client.objects["bucket"]["run/metrics.jsonl/000001/00000001-00000002.jsonl"].content = b""
    with pytest.raises(UserError, match=r"metrics.jsonl: is damaged: has 2 lines; must have 3"):
        JsonLines(PATH).read()


def test_the_metrics_of_a_run(client: FakeClient) -> None:
    folder = files.location("gs://bucket/run")
    with pytest.raises(UserError, match="no such file"):
        read(folder / "metrics.jsonl")
    log = MetricsLog(folder)
    log.rewind(0)
    for step in range(1, 6):
        log.write(step, {"loss": 0.5, "seconds": 10.0 * step})
    log = MetricsLog(folder)
    log.rewind(3)
    log.write(4, {"loss": 0.25, "seconds": 35.0})
    assert log.seconds == 30.0
    assert [(line["step"], line["seconds"]) for line in read(log.path)] == [(1, 10), (2, 20), (3, 30), (4, 35)]
    assert (seconds_at(log.path, 3), is_whole(log.path)) == (30.0, True)
