"""What an evaluation keeps: rows that continue each other, records that JSON can hold; and neighbours of samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from geonoise_jax.evaluation.evaluator import outputs, records
from geonoise_jax.evaluation.evaluator.kept import Kept
from geonoise_jax.evaluation.evaluator.records import Log
from geonoise_jax.evaluation.floors import Distance
from geonoise_jax.evaluation.intervals import Estimate
from geonoise_jax.evaluation.metrics.base import LOWER, Value


def test_kept_rows_continue_each_other(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "rows")
    assert kept.held == 0
    for start in (0, 3, 5):
        kept.add({"x": np.arange(start, start + (3 if start == 0 else 2))})
    assert kept.held == 7
    assert [len(batch["x"]) for batch in kept.batches(4)] == [3, 1]
    np.testing.assert_array_equal(kept.read("x", 6), np.arange(6))
    with pytest.raises(ValueError, match="holds 7 rows; must hold 8"):
        kept.read("x", 8)
    (tmp_path / "rows" / "00000003-00000005.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match="is damaged or cannot be read"):
        kept.read("x", 7)
    (tmp_path / "rows" / "00000003-00000005.npz").unlink()
    assert kept.held == 3
    kept.add({"x": np.arange(3, 5)})
    np.testing.assert_array_equal(kept.read("x", 7), np.arange(7))


def test_records_have_no_numbers_that_json_has_not(tmp_path: Path) -> None:
    value = Value(Estimate(float("inf"), 0.0, 0.0, float("nan")), "none", LOWER, "p", Distance(1.0, 0.1))
    log = Log(tmp_path)
    log.add(records.record("far", value, not_finite=0, key="k"))
    (read,) = records.read(log.path)
    assert (read["value"], read["high"], read["floor"]["value"]) == (None, None, 1.0)
    assert Log(tmp_path).of("k") == [read]


def test_nearest_points_are_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "_ENTRIES", 40)
    rng = np.random.default_rng(0)
    x, points = rng.standard_normal((4, 2, 2, 1)), rng.standard_normal((30, 2, 2, 1))
    distance = np.linalg.norm((x[:, None] - points[None]).reshape(4, 30, 4), axis=-1)
    np.testing.assert_array_equal(outputs.nearest(x, points, 3), np.argsort(distance, axis=1)[:, :3])
