"""What a study says of a sentence of the paper: the claim in our words, and whether the numbers bear it out.

A verdict is a value, so that a page can collect those of all studies and a test can assert them. Agreement and
disagreement are both results; where the interval of what was measured reaches over the limit, neither is told.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from geonoise_jax.checks import choice
from geonoise_jax.drawing.text import aligned
from geonoise_jax.errors import UserError


class Outcome(enum.StrEnum):
    """Whether a claim is borne out."""

    HOLDS = "holds"
    HOLDS_IF = "holds if"
    FAILS = "does not hold"
    UNTOLD = "cannot be told"


# Of a table of verdicts.
HEADING = ("source", "claim", "measured", "condition", "verdict")


class Row(NamedTuple):
    """A verdict in words.

    Attributes:
        source: who claims it, and where.
        claim: the claim.
        measured: what was measured, with its interval.
        condition: under what.
        outcome: whether the claim is borne out.
    """

    source: str
    claim: str
    measured: str
    condition: str
    outcome: Outcome

    @classmethod
    def of_dict(cls, stored: Mapping[str, Any]) -> Row:
        """Return the row of what :meth:`Verdict.to_dict` returned."""
        return cls(**{name: stored[name] for name in cls._fields} | {"outcome": Outcome(stored["outcome"])})


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A claim beside what was measured.

    Attributes:
        source: equation, figure or section of the paper, or the reference, that claims it.
        claim: the claim, in our own words.
        condition: what it was measured under; of ``HOLDS_IF``, the condition under which it holds.
        quantity: what ``value`` is, with its unit.
        value: what was measured.
        low: lower end of its 95% interval; equal to ``value`` where the number is exact.
        high: upper end.
        outcome: whether the claim is borne out.
    """

    source: str
    claim: str
    condition: str
    quantity: str
    value: float
    low: float
    high: float
    outcome: Outcome

    def __post_init__(self) -> None:
        """Validate the interval and the words."""
        for name in ("source", "claim", "condition", "quantity"):
            if not getattr(self, name):
                raise UserError(f"{name} = '': must be said")
        object.__setattr__(self, "outcome", Outcome(choice("outcome", self.outcome, [each.value for each in Outcome])))
        if not (math.isnan(self.value) or self.low <= self.value <= self.high):
            raise UserError(f"value = {self.value!r}: must lie in its interval [{self.low!r}, {self.high!r}]")

    @property
    def measured(self) -> str:
        """The value with its interval, and what it is."""
        ends = "" if self.low == self.high else f" [{self.low:.3g}, {self.high:.3g}]"
        return f"{self.quantity} {self.value:.3g}{ends}"

    @property
    def row(self) -> Row:
        """The cells of its line in a table."""
        return Row(self.source, self.claim, self.measured, self.condition, self.outcome)

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON holds, also what was measured in words; a number that is not finite is None."""
        found = dataclasses.asdict(self)
        numbers = {name: found[name] if math.isfinite(found[name]) else None for name in ("value", "low", "high")}
        return {**found, **numbers, "measured": self.measured, "outcome": self.outcome.value}


def judge(low: float, high: float, *, at_least: float = -math.inf, at_most: float = math.inf) -> Outcome:
    """Return whether a claim of limits holds for a number that lies between two ends.

    Args:
        low: lower end of the number's interval.
        high: its upper end.
        at_least: the smallest number of which the claim holds.
        at_most: the largest.

    Returns:
        ``HOLDS`` if every number of the interval is within the limits, ``FAILS`` if none is, else ``UNTOLD``; that too
        where an end is not a number.
    """
    if at_least <= low and high <= at_most:
        return Outcome.HOLDS
    return Outcome.FAILS if high < at_least or low > at_most else Outcome.UNTOLD


def row_lines(rows: Sequence[Row]) -> list[str]:
    """Return verdicts as the lines of a table: source, claim, measured under which condition, outcome."""
    return aligned([HEADING, *rows], left=len(HEADING)) if rows else []
