"""Metrics of images by features of a network."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from geonoise_jax.errors import UserError
from geonoise_jax.evaluation.floors import Distance
from geonoise_jax.evaluation.frechet import Frechet, frechet_infinity, frechet_interval, left_out
from geonoise_jax.evaluation.inception_score import SPLITS, inception_score
from geonoise_jax.evaluation.intervals import GROUPS as NUM_GROUPS
from geonoise_jax.evaluation.intervals import jackknifed
from geonoise_jax.evaluation.kernel_distance import polynomial
from geonoise_jax.evaluation.kernel_sums import KernelDistance
from geonoise_jax.evaluation.manifolds import density_coverage, precision_recall
from geonoise_jax.evaluation.metrics.base import GROUPS, HIGHER, LOWER, Featured, Inputs, Value, estimated
from geonoise_jax.evaluation.moments import Moments, grouped, merged

Rows = Float[np.ndarray, "n d"]
_FIXED = f"{GROUPS} of the samples, the reference fixed"
_NEIGHBOURS = {
    "precision": "95%, exact binomial, the reference fixed",
    "recall": _FIXED,
    "density": "95%, Student's t over samples, the reference fixed",
    "coverage": _FIXED,
}


def frechet(inputs: Inputs) -> dict[str, Value]:
    """Return the Fréchet distance of the moments of the features at hand, as it is published."""
    found = _features(inputs)
    measure = Frechet(_reference(inputs))
    parts = grouped([found.samples], NUM_GROUPS)
    distance = measure.distance(merged(parts))
    sets = [left_out(measure, distance.value, parts)]
    estimate = jackknifed(distance.value, sets, correct=False, lowest=0.0, note=distance.note)
    counts = " and ".join("unknown" if count is None else str(count) for count in distance.counts)
    protocol = f"{found.network.protocol}; Fréchet distance of {counts} features"
    floor = inputs.floor_of_features("frechet", measure)
    return {"frechet": Value(estimate, _FIXED, LOWER, protocol, floor)}


def frechet_law(inputs: Inputs) -> dict[str, Value]:
    """Return the Fréchet distance of the laws behind the features: without the bias of finite sets."""
    found = _features(inputs)
    reference = _reference(inputs)
    estimate = frechet_interval(found.samples, reference)
    protocol = f"{found.network.protocol}; Fréchet distance of the laws, bias of order 1/N removed"
    return {"frechet_law": Value(estimate, f"{GROUPS} of both sets", LOWER, protocol, Distance(0.0, 0.0))}


def frechet_limit(inputs: Inputs) -> dict[str, Value]:
    """Return the Fréchet distance extrapolated to infinitely many samples (FID infinity)."""
    found = _features(inputs)
    estimate = frechet_infinity(found.samples, _reference(inputs))
    protocol = f"{found.network.protocol}; Fréchet distance, extrapolated in 1/N (Chong and Forsyth 2020)"
    return {"frechet_limit": Value(estimate, f"{GROUPS}, the reference fixed", LOWER, protocol)}


def kid(inputs: Inputs) -> dict[str, Value]:
    """Return the kernel inception distance, of all features at once."""
    found = _features(inputs)
    measure = KernelDistance(_rows(inputs), polynomial())
    protocol = f"{found.network.protocol}; kernel ((x.y)/d + 1)^3, unbiased, all features"
    floor = inputs.floor_of_features("kid", measure)
    return {"kid": Value(measure.estimate(found.samples), GROUPS, LOWER, protocol, floor)}


def precision(inputs: Inputs) -> dict[str, Value]:
    """Return precision and recall."""
    return _of_neighbours(inputs, precision_recall, 3)


def density(inputs: Inputs) -> dict[str, Value]:
    """Return density and coverage."""
    return _of_neighbours(inputs, density_coverage, 5)


def score(inputs: Inputs) -> dict[str, Value]:
    """Return the inception score; its floor is that of real images."""
    found = _features(inputs)
    if found.logits is None:
        raise UserError(f"features = {found.network.name}: must be a network with classes, for an inception score")
    ours, known = found.logits
    estimate = estimated(inception_score(ours))
    protocol = f"{found.network.protocol}; inception score, {SPLITS} splits of {len(ours) // SPLITS}"
    floor = inputs.floor_of_features("inception_score", lambda rows: inception_score(rows).value, known)
    return {"inception_score": Value(estimate, "95%, Student's t over splits", HIGHER, protocol, floor)}


def _of_neighbours(inputs: Inputs, measure: Callable[..., Any], k: int) -> dict[str, Value]:
    """Return both numbers of a measure of nearest neighbours; a draw of their floors is measured once for both."""
    found, data = _features(inputs), _rows(inputs)
    pair, drawn = measure(found.samples, data, k=k, data_fixed=True), {}
    protocol = f"{found.network.protocol}; k = {k}; {len(found.samples)} samples, {len(data)} held out"

    def of_draw(name: str, rows: Rows) -> float:
        digest = hashlib.sha256(np.ascontiguousarray(rows).data).digest()
        if digest not in drawn:
            drawn[digest] = measure(rows, data, k=k, groups=2, data_fixed=True)
        return float(getattr(drawn[digest], name).value)

    floors = {name: inputs.floor_of_features(name, functools.partial(of_draw, name)) for name in pair._fields}
    return {
        name: Value(getattr(pair, name), _NEIGHBOURS[name], HIGHER, protocol, floor) for name, floor in floors.items()
    }


def _features(inputs: Inputs) -> Featured:
    if inputs.features is None:
        raise UserError("features: must name a network, which this metric needs")
    return inputs.features


def _reference(inputs: Inputs) -> Rows | Moments:
    held_out = _features(inputs).held_out
    if held_out is not None:
        return held_out
    if inputs.reference is None or inputs.reference.moments is None:
        raise UserError("reference: must be points or moments, which this metric compares samples with")
    return inputs.reference.moments


def _rows(inputs: Inputs) -> Rows:
    held_out = _features(inputs).held_out
    if held_out is None:
        raise UserError("reference: must be points, not moments alone, for this metric")
    return held_out
