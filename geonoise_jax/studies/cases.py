"""One verdict on a claim that was measured in several cases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from geonoise_jax.errors import UserError
from geonoise_jax.studies.verdicts import Outcome, Verdict, judge

# Half of a 95% interval in standard errors.
SIGMAS = 1.96
_WORDS = {Outcome.HOLDS: "holds for", Outcome.FAILS: "not for", Outcome.UNTOLD: "not told for"}


class Case(NamedTuple):
    """What was measured in one case.

    Attributes:
        label: name of the case, such as ``"D = 8"``.
        value: the number.
        low, high: ends of its 95% interval.
    """

    label: str
    value: float
    low: float
    high: float

    @classmethod
    def exact(cls, label: str, value: float) -> Case:
        """Return a case whose number has no uncertainty."""
        return cls(label, value, value, value)

    @classmethod
    def of(cls, label: str, value: float, error: float) -> Case:
        """Return a case from a number and its standard error; of a number that is not finite, that alone."""
        reach = SIGMAS * error if math.isfinite(value) and math.isfinite(error) else 0.0
        return cls(label, value, value - reach, value + reach)


class Claim(NamedTuple):
    """What is claimed, and what is measured of it.

    Attributes:
        source, claim, quantity: as of :class:`Verdict`.
        condition: what all cases have in common; the cases themselves are added.
    """

    source: str
    claim: str
    condition: str
    quantity: str


def over_cases(
    cases: Sequence[Case], claim: Claim, *, at_least: float = -math.inf, at_most: float = math.inf
) -> Verdict:
    """Return the verdict on a claim of limits: it holds, or fails, if it does in every case, and else holds in some.

    The number told is that of the case that is farthest on the wrong side.

    Args:
        cases: one or more.
        claim: what is claimed.
        at_least, at_most: the limits within which the claim holds.

    Raises:
        ValueError: if there is no case.
    """
    if not cases:
        raise UserError("cases: there must be at least one")
    outcomes = [judge(case.low, case.high, at_least=at_least, at_most=at_most) for case in cases]
    worst = max(cases, key=lambda case: _excess(case.value, at_least, at_most))
    named = {each: [case.label for case, told in zip(cases, outcomes, strict=True) if told is each] for each in Outcome}
    if len(set(outcomes)) == 1:
        overall, said = outcomes[0], f", {', '.join(case.label for case in cases)}"
    else:
        overall = Outcome.HOLDS_IF if named[Outcome.HOLDS] else Outcome.FAILS
        said = ": " + "; ".join(f"{word} {', '.join(named[each])}" for each, word in _WORDS.items() if named[each])
    value, low, high = map(float, worst[1:])
    return Verdict(claim.source, claim.claim, claim.condition + said, claim.quantity, value, low, high, overall)


def _excess(value: float, at_least: float, at_most: float) -> float:
    """Return how far a number is on the wrong side of the limits; a number that is none is farthest."""
    return math.inf if math.isnan(value) else max(at_least - value, value - at_most)
