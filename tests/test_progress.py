"""Progress on a clock that the test winds."""

from __future__ import annotations

import io
import time

import pytest

from geonoise_jax.progress import Progress, duration


class Clock:
    """``time.perf_counter`` under control."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(time, "perf_counter", fake)
    return fake


def test_the_rate_leaves_out_the_first_update_and_the_time_before_it(clock: Clock) -> None:
    bar = Progress("train", 100, "steps", stream=io.StringIO())
    assert bar.rate == 0.0
    clock.now += 60.0  # compilation
    bar.update(10)
    assert bar.rate == 0.0
    clock.now += 5.0
    bar.update(30)
    assert bar.rate == pytest.approx(4.0)
    clock.now += 5.0
    assert bar.rate == pytest.approx(2.0)


def test_a_resumed_run_counts_its_own_steps_only(clock: Clock) -> None:
    stream = io.StringIO()
    bar = Progress("train", 1000, "steps", start=900, stream=stream)
    for done in (901, 911):
        bar.update(done)
        clock.now += 20.0
    assert bar.rate == pytest.approx(10 / 40)
    bar.update(921)
    assert stream.getvalue().splitlines()[-1] == "train: 921/1000 steps (92%)  0.5 steps/s  ETA 2:38"


def test_the_rate_of_another_unit_is_of_the_same_steps(clock: Clock) -> None:
    stream = io.StringIO()
    bar = Progress("train", 100, "steps", also=(32, "images"), stream=stream)
    bar.update(1)
    clock.now += 20.0
    bar.update(11)
    first, last = stream.getvalue().splitlines()
    assert first == "train: 1/100 steps (1%)"
    assert last == "train: 11/100 steps (11%)  0.5 steps/s, 16 images/s  ETA 2:58"


def test_lines_of_a_file(clock: Clock) -> None:
    """The first update, then one every 15 seconds, then the last."""
    stream = io.StringIO()
    bar = Progress("train", 40, "steps", stream=stream)
    for done in range(1, 41):
        bar.update(done, f"loss {done}")
        clock.now += 1.0
    bar.close()
    assert stream.getvalue() == (
        "train: 1/40 steps (2%)  loss 1\n"
        "train: 16/40 steps (40%)  1 steps/s  ETA 0:24  loss 16\n"
        "train: 31/40 steps (78%)  1 steps/s  ETA 0:09  loss 31\n"
        "train: 40/40 steps (100%)  1 steps/s  ETA 0:00  loss 40\n"
    )


def test_a_terminal_line_is_rewritten_and_ended_once(clock: Clock) -> None:
    stream = Terminal()
    bar = Progress("sample", 8, "samples", stream=stream)
    for done in range(1, 9):
        bar.update(done)
        clock.now += 0.25
    assert stream.getvalue().split("\r\x1b[2K") == [
        "",
        "sample: 1/8 samples (12%)",
        "sample: 3/8 samples (38%)  4 samples/s  ETA 0:01",
        "sample: 5/8 samples (62%)  4 samples/s  ETA 0:01",
        "sample: 7/8 samples (88%)  4 samples/s  ETA 0:00",
        "sample: 8/8 samples (100%)  4 samples/s  ETA 0:00",
    ]
    bar.close()
    bar.close()
    assert stream.getvalue().endswith("ETA 0:00\n")


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()])
def test_closing_what_showed_nothing_writes_nothing(stream: io.StringIO) -> None:
    Progress("train", 8, "steps", stream=stream).close()
    assert stream.getvalue() == ""


def test_standard_error_is_the_default(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    Progress("train", 0, "steps").update(0)
    captured = capsys.readouterr()
    assert captured.err == "train: 0/0 steps (0%)\n"
    assert captured.out == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (0.4, "0:00"),
        (59.6, "1:00"),
        (61, "1:01"),
        (3599.4, "59:59"),
        (3599.6, "1:00:00"),
        (90061, "25:01:01"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
