"""The table of coefficients: closed forms of known systems, and what is written."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from geonoise_jax.studies import runner, table1
from geonoise_jax.studies.table1 import COLUMNS, Options, Row, Study
from geonoise_jax.systems import variants


@pytest.fixture(scope="module")
def study() -> Study:
    return table1.measure(Options())


def row(study: Study, name: str) -> Row:
    return next(each for each in study.rows if name in each.names)


def test_every_system_has_one_line(study: Study) -> None:
    names = [name for each in study.rows for name in each.names]
    assert sorted(names) == sorted(variants())
    assert len({each.process for each in study.rows}) == len(study.rows)
    assert table1._name(row(study, "edm,blind")) == "edm (blind)"


def test_flow_matching_and_edm_have_their_closed_forms(study: Study) -> None:
    """At b / a = 1 flow matching is at t = 1 / 2, EDM at sigma = 1."""
    at = list(study.options.ratios).index(1.0)
    flow = dict(zip(COLUMNS, row(study, "flow_matching,blind").values[at], strict=True))
    expected = {"a": 0.5, "b": 0.5, "c": -1.0, "d": 1.0, "Delta": 1.0, "mu": 0.0, "nu": 1.0, "lambda": 1.0, "c/a": -2.0}
    # Half the ratio is t = 1 / 3.
    expected |= {"a'": -1.0, "b'": 1.0, "kappa": 1.0, "omega": 1.0 / 3.0 - 0.5}
    assert flow == pytest.approx(expected, abs=1e-12)
    edm = dict(zip(COLUMNS, row(study, "edm,conditional").values[at], strict=True))
    assert [edm[name] for name in ("mu", "nu", "lambda", "c/a", "kappa", "omega")] == pytest.approx(
        [1, -1, -1, 1, 0.5, 0.5]
    )


def test_invariants_hold_in_every_line(study: Study) -> None:
    """lambda nu = b^2 d log(b / a) / dt and mu + nu c / a = a' / a, whatever the target."""
    for each in study.rows:
        for values in each.values[np.isfinite(each.values).all(1)]:
            k = dict(zip(COLUMNS, values, strict=True))
            rate = k["b'"] / k["b"] - k["a'"] / k["a"]
            assert k["lambda"] * k["nu"] == pytest.approx(k["b"] ** 2 * rate, rel=1e-9)
            assert k["mu"] + k["nu"] * k["c/a"] == pytest.approx(k["a'"] / k["a"], rel=1e-9, abs=1e-12)


def test_numbers_of_the_whole_range(study: Study) -> None:
    flow = row(study, "flow_matching,blind").whole
    np.testing.assert_allclose(flow, [0.0, 1.0, 1.0, 1.0], atol=1e-6)
    order, exponent, drift, radial = row(study, "v_prediction,blind").whole
    assert -1.0 < order < -0.6
    assert 1.5 < exponent < 2.0
    assert drift == pytest.approx(1.0)
    assert radial == pytest.approx(math.sqrt(2.0), rel=1e-2)  # a is 1 / sqrt(2) where b = a
    assert row(study, "ddpm,blind").whole[2] == pytest.approx(157.0, rel=0.01)


def test_it_is_written(tmp_path: Path, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table1, "measure", lambda _: study)
    text = runner.run("table1", tmp_path / "t", Options())
    assert text.startswith(table1.table(study))
    written = (tmp_path / "t.md").read_text()
    rows = [line for line in written.splitlines() if line.startswith("| ")]
    assert len(rows) == 4 * (len(study.rows) + 2)
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match=r"ratios = 0.0: must be a number in \(0, inf\)"):
        Options(ratios=(0.0,))
