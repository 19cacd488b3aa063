"""One verdict for all dimensions that agree: of the one that is nearest to the limit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from geonoise_jax.studies.verdicts import Outcome, Verdict, judge


class _Case(Protocol):
    @property
    def dim(self) -> int: ...


Case = TypeVar("Case", bound=_Case)


def grouped(
    cases: Iterable[Case],
    said: tuple[str, str],
    quantity: str,
    where: Callable[[Case], str],
    measured: Callable[[Case], tuple[float, float, float]],
    **limit: float,
) -> list[Verdict]:
    """Judge a claim in each case, and return one verdict for all dimensions of one setting and outcome.

    Args:
        cases: what was measured, each in one dimension.
        said: source and claim.
        quantity: what is measured.
        where: the setting of a case in words.
        measured: value and ends of its range over directions.
        **limit: ``at_least`` or ``at_most``, of the values of which the claim holds.
    """
    groups: dict[tuple[str, Outcome], list[Case]] = {}
    for case in cases:
        groups.setdefault((where(case), judge(*measured(case)[1:], **limit)), []).append(case)
    found = []
    for (setting, outcome), members in groups.items():
        # The hardest case of a claim that holds, the mildest of one that fails.
        largest = ("at_most" in limit) == (outcome is not Outcome.FAILS)
        shown = (max if largest else min)(members, key=lambda case: measured(case)[0])
        dims = ", ".join(str(case.dim) for case in members)
        condition = f"{setting}, D = {dims}; value: D = {shown.dim}, its range over directions"
        found.append(Verdict(*said, condition, quantity, *measured(shown), outcome))
    return found
