"""The one style of validation: what passes comes back, what does not is named with its value and what it must be."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax import checks
from geonoise_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Owner:
    low: Any = 1
    high: Any = 2


PASS: list[tuple[Any, Any]] = [
    (lambda: checks.real("x", 2, low=1.0), 2.0),
    (lambda: checks.real("x", np.float32(0.5), high=1.0), 0.5),
    (lambda: checks.real("x", jnp.asarray(0.5)), 0.5),
    (lambda: checks.real("x", math.inf, infinite=True), math.inf),
    (lambda: checks.integer("n", np.int64(3), low=3), 3),
    (lambda: checks.truth("b", False), False),
    (lambda: checks.choice("c", "heun", {"heun": 1, "euler": 2}), "heun"),
    (lambda: checks.shape("u", np.zeros((4, 3)), ("b", 3)), None),
    (lambda: checks.without_effect("blind", {"x": (1, 1), "y": (None, None)}), None),
    (lambda: checks.integer_field(Owner(low=3.0), "low", low=0), 3),
    (lambda: checks.real_field(Owner(), "low"), 1.0),
]
REFUSED: list[tuple[Any, str]] = [
    (lambda: checks.real("x", "2"), "x = '2': must be a number in (-inf, inf)"),
    (lambda: checks.real("x", True), "x = True: must be a number in (-inf, inf)"),
    (lambda: checks.real("x", math.nan, infinite=True), "x = nan: must be a number in [-inf, inf]"),
    (lambda: checks.real("x", math.inf, low=0.0), "x = inf: must be a number in [0, inf)"),
    (lambda: checks.real("x", 0, low=0.0, open_low=True), "x = 0: must be a number in (0, inf)"),
    (lambda: checks.real("x", 1.0, low=0.0, high=1.0, open_high=True), "x = 1.0: must be a number in [0, 1)"),
    (lambda: checks.real("x", np.ones(2)), "x = float64[2]: must be a number in (-inf, inf)"),
    (lambda: checks.integer("n", 4.0, low=1), "n = 4.0: must be an integer >= 1"),
    (lambda: checks.integer("n", True, low=1), "n = True: must be an integer >= 1"),
    (lambda: checks.integer("n", 0, low=1), "n = 0: must be an integer >= 1"),
    (lambda: checks.truth("b", "False"), "b = 'False': must be True or False"),
    (lambda: checks.choice("c", "huen", ("heun", "euler")), "c = 'huen': unknown; did you mean 'heun'?"),
    (lambda: checks.choice("c", "HEUN", ("heun", "euler")), "c = 'HEUN': unknown; did you mean 'heun'?"),
    (lambda: checks.choice("c", "rk4", ("heun", "euler")), "c = 'rk4': must be one of heun, euler"),
    (lambda: checks.choice("c", None, ("heun", "euler")), "c = None: must be one of heun, euler"),
    (lambda: checks.shape("u", np.zeros((4, 2)), ("b", 3)), "u.shape = [4, 2]: must be [b, 3]"),
    (lambda: checks.shape("u", 3, ("b",)), "u.shape = 3: must be [b]"),
    (lambda: checks.without_effect("blind", {"x": (2, 1)}), "x = 2: has no effect with blind; leave it out"),
    (lambda: checks.without_effect("blind", {"x": (np.ones(3), None)}), "x = float64[3]: has no effect with blind; l"),
    (lambda: checks.real_field(Owner(), "low", low=2.0), "Owner.low = 1: must be a number in [2, inf)"),
    (lambda: checks.integer_field(Owner(1.5), "low", low=0), "Owner.low = 1.5: must be an integer >= 0"),
    (lambda: checks.ordered_fields(Owner(2), "low", "high"), "Owner.low = 2: must be smaller than Owner.high = 2"),
]


@pytest.mark.parametrize(("check", "result"), PASS)
def test_what_passes_comes_back_as_the_type_that_is_said(check: Any, result: Any) -> None:
    found = check()
    assert found == result
    assert type(found) is type(result)


@pytest.mark.parametrize(("check", "message"), REFUSED, ids=[message[:32] for _, message in REFUSED])
def test_what_does_not_is_named_in_a_line(check: Any, message: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(message)}") as error:
        check()
    assert "\n" not in str(error.value)


def test_fields_are_stored_as_checked() -> None:
    owner = Owner(low=3.0, high=np.float32(4.0))
    checks.integer_field(owner, "low", low=0)
    checks.real_field(owner, "high")
    checks.ordered_fields(owner, "low", "high")
    assert (type(owner.low), type(owner.high)) == (int, float)
