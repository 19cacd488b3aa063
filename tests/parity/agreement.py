"""What the parity tests assert and report: the worst relative difference of a quantity from a peer's."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np

DOUBLE = 1e-12  # what two float64 computations of one formula may differ by
SINGLE = 1e-5  # what a table that the peer keeps in float32 allows


@dataclasses.dataclass(frozen=True, order=True)
class Agreement:
    """One comparison: the largest difference over all entries, relative to the peer's largest entry."""

    peer: str
    quantity: str
    difference: float
    bound: float


class Agree(Protocol):
    """Asserts that an array of ours is the peer's, and notes by how much it differs.

    ``peer`` is the name of an installed distribution, ``quantity`` what is compared, ``bound`` the largest relative
    difference allowed.
    """

    def __call__(self, peer: str, quantity: str, ours: Any, theirs: Any, bound: float = DOUBLE) -> None: ...


def compare(peer: str, quantity: str, ours: Any, theirs: Any, bound: float) -> Agreement:
    """Measure one agreement.

    Raises:
        AssertionError: if the shapes differ or an entry is not finite.
    """
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape, f"{quantity}: our shape {ours.shape}, theirs {theirs.shape}"
    assert np.isfinite(ours).all(), f"{quantity}: ours is not finite"
    assert np.isfinite(theirs).all(), f"{quantity}: theirs is not finite"
    return Agreement(peer, quantity, float(np.abs(ours - theirs).max() / np.abs(theirs).max()), bound)


def table(agreements: Iterable[Agreement]) -> list[str]:
    """Return the lines of a table: for each peer and quantity the number of comparisons and the worst of them."""
    groups: dict[tuple[str, str], list[Agreement]] = {}
    for each in agreements:
        groups.setdefault((each.peer, each.quantity), []).append(each)
    lines = [f"{'peer':<30}{'quantity':<56}{'cases':>5}  {'worst':>8}  {'bound':>8}"]
    for (peer, quantity), members in groups.items():
        version = importlib.metadata.version(peer)
        worst = max(members, key=lambda each: each.difference / each.bound)
        name = f"{peer} {version}"
        lines.append(f"{name:<30}{quantity:<56}{len(members):>5}  {worst.difference:8.1e}  {worst.bound:8.0e}")
    return lines
