"""Tables as text."""

from __future__ import annotations

from typing import Any

import pytest

from geonoise_jax.drawing.text import aligned, with_error

ROWS = [("name", "x", "unit"), ("long name", "12", "s"), ("n", "3", "")]


def test_columns_are_aligned_on_the_side_that_is_asked_for() -> None:
    assert aligned(ROWS) == ["name        x  unit", "---------  --  ----", "long name  12     s", "n           3"]
    assert aligned(ROWS, left=3) == ["name       x   unit", "---------  --  ----", "long name  12  s", "n          3"]
    assert aligned(iter(ROWS), left=0)[0] == "     name   x  unit"


@pytest.mark.parametrize(
    ("numbers", "options", "text"),
    [
        ((0.0605, 0.0031), {}, "0.060 +- 0.003"),
        ((0.05544, 0.00142), {}, "0.0554 +- 0.0014"),
        ((0.05544, 0.000996), {}, "0.0554 +- 0.0010"),
        ((20.1, 0.42), {}, "20.1 +- 0.4"),
        ((351.7, 5.2), {}, "352 +- 5"),
        ((3517.0, 52.0), {}, "3517 +- 52"),
        ((-0.3, 0.02), {"sign": "+"}, "-0.30 +- 0.02"),
        ((0.3, 0.02), {"sign": "+"}, "+0.30 +- 0.02"),
        ((0.0011, 0.00035), {"digits": 2}, "0.00110 +- 0.00035"),
        ((0.25, 0.0), {}, "0.2500 +- 0.0000"),
        ((0.25, float("nan")), {}, "0.2500 +- nan"),
        ((float("inf"), 0.0), {}, "inf"),
    ],
)
def test_a_number_is_written_to_the_digits_of_its_error(
    numbers: tuple[float, float], options: dict[str, Any], text: str
) -> None:
    assert with_error(*numbers, **options) == text
