"""What a metric is given and what it returns."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from geonoise_jax.errors import UserError
from geonoise_jax.evaluation.features import FeatureNetwork
from geonoise_jax.evaluation.floors import Distance, Measure, with_spread
from geonoise_jax.evaluation.intervals import Estimate
from geonoise_jax.evaluation.reference import Reference
from geonoise_jax.evaluation.restore import Trained
from geonoise_jax.exact import Circles
from geonoise_jax.training.watched import HIGHER as HIGHER
from geonoise_jax.training.watched import LOWER as LOWER
from geonoise_jax.training.watched import ZERO as ZERO

HALVES = "two spreads to each side, by the distances of 20 random halvings"
GROUPS = "95%, jackknife over 20 groups"


class Value(NamedTuple):
    """A number with its interval and its floor.

    Attributes:
        estimate: the number, its standard error or spread, and the ends of its interval.
        interval: how the interval was made.
        better: ``LOWER``, ``HIGHER`` or ``ZERO``.
        protocol: all that the number depends on besides samples and reference.
        floor: the number of data in place of samples; None where there is none.
    """

    estimate: Estimate
    interval: str
    better: str
    protocol: str
    floor: Distance | None = None

    @property
    def at_floor(self) -> bool | None:
        """Whether it cannot be told from that of data; None without a floor."""
        return None if self.floor is None else not self.estimate.distance().differs(self.floor)


class Featured(NamedTuple):
    """Features of everything by one network.

    Attributes:
        network: the network.
        samples: features of the finite samples.
        held_out: of the held-out points; None where only moments are known.
        known: of the points that give the floor; None where there are none.
        logits: logits of samples and of the latter, of a network with classes.
    """

    network: FeatureNetwork
    samples: Float[np.ndarray, "n d"]
    held_out: Float[np.ndarray, "m d"] | None
    known: Float[np.ndarray, "N d"] | None
    logits: tuple[Float[np.ndarray, "n k"], Float[np.ndarray, "N k"] | None] | None = None


class Inputs(NamedTuple):
    """What a metric is computed of.

    Attributes:
        trained: the restored model.
        samples: the finite samples.
        labels: their classes, of a class-conditional model.
        reference: what they are compared with; None of metrics that need none.
        circles: the law of the data, where it is known to be circles.
        features: features by a network; None of metrics that need none.
        options: further choices by name.
    """

    trained: Trained
    samples: Float[np.ndarray, "n *event"]
    labels: Int[np.ndarray, "n"] | None
    reference: Reference | None = None
    circles: Circles | None = None
    features: Featured | None = None
    options: Mapping[str, Any] = {}

    @property
    def held_out(self) -> Float[np.ndarray, "m *event"]:
        """The points to compare with."""
        if self.reference is None or self.reference.held_out is None:
            raise UserError("reference: must be points, which this metric compares samples with")
        return self.reference.held_out

    def floor(self, name: str, measure: Measure) -> Distance | None:
        """Return the floor of a measure of points."""
        if self.reference is None:
            return None
        return self.reference.floor((name,), len(self.samples), measure, self.reference.known, self.labels)

    def floor_of_features(
        self, name: str, measure: Measure, known: Float[np.ndarray, "N d"] | None = None
    ) -> Distance | None:
        """Return the floor of a measure of features."""
        if self.reference is None or self.features is None:
            return None
        rows = self.features.known if known is None else known
        key = (name, self.features.network.protocol)
        return self.reference.floor(key, len(self.features.samples), measure, rows, self.labels)


Metric = Callable[[Inputs], Mapping[str, Value]]


def halved(inputs: Inputs, name: str, measure: Measure, protocol: str, *, better: str = LOWER) -> Value:
    """Return a distance of the samples with its spread by halves and its floor."""
    found = with_spread(inputs.samples, measure, labels=inputs.labels)
    low, high = found.range()
    lowest = -math.inf if better == ZERO else 0.0
    estimate = Estimate(found.value, found.spread, max(low, lowest), high)
    return Value(estimate, HALVES, better, protocol, inputs.floor(name, measure))


def estimated(found: Any) -> Estimate:
    """Return value, spread and interval of what has them among other things."""
    return Estimate(found.value, found.spread, found.low, found.high)
