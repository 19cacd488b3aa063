"""Every quantity of every reference case (34-digit arithmetic) in float64."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from geonoise_jax.exact import Marginal, reference

with jax.enable_x64(True):
    CASES = reference.load()

# Of every kind of data and most families; `geonoise exact --selfcheck`, tested too, compares all.
QUICK = ("00", "24", "42", "61")

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=case.name, marks=[] if case.name[:2] in QUICK else pytest.mark.slow) for case in CASES],
)
def test_reference_case(case: reference.Case) -> None:
    errors = reference.errors(case)
    assert set(errors) == set(case.expected)
    worst = max(errors, key=errors.__getitem__)
    assert errors[worst] <= 1e-10, f"{worst}: {errors[worst]:.1e}"


def test_estimated_error_bounds_the_true_one_and_falls_with_the_accuracy() -> None:
    case = next(case for case in CASES if case.name == "07-fm-d128-far")
    expected = np.asarray(case.expected["f_star"])
    true, estimated = [], []
    for accuracy in (1e-2, 1e-5):
        rough = Marginal(
            case.marginal.distribution, case.marginal.process, case.marginal.prior.time_law, accuracy=accuracy
        )
        true.append(np.abs(np.asarray(rough.field(case.u)[0]) - expected).max() / np.abs(expected).max())
        estimated.append(float(rough.posterior(case.u).error[0]))
        assert true[-1] <= min(estimated[-1], accuracy)
    assert true[1] < true[0]
    assert estimated[1] < estimated[0]
