"""Metrics of images by features of a network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from geonoise_jax.errors import UserError
from geonoise_jax.evaluation.floors import Distance
from geonoise_jax.evaluation.frechet import Frechet, frechet_infinity, frechet_interval
from geonoise_jax.evaluation.inception_score import SPLITS, inception_score
from geonoise_jax.evaluation.intervals import GROUPS as NUM_GROUPS
from geonoise_jax.evaluation.intervals import Estimate, jackknife, jackknifed
from geonoise_jax.evaluation.kernel_distance import polynomial
from geonoise_jax.evaluation.kernel_sums import KernelDistance
from geonoise_jax.evaluation.manifolds import density_coverage, precision_recall
from geonoise_jax.evaluation.metrics.base import GROUPS, HIGHER, LOWER, Featured, Inputs, Value, estimated
from geonoise_jax.evaluation.moments import Moments, grouped, merged

Rows = Float[np.ndarray, "n d"]


def frechet(inputs: Inputs) -> dict[str, Value]:
    """Return the Fréchet distance of the moments of the features at hand, as it is published."""
    found = _features(inputs)
    measure = Frechet(_reference(inputs))
    parts = grouped([found.samples], NUM_GROUPS)
    whole = merged(parts)
    distance = measure.distance(whole)
    without = [measure(whole.without(part)) for part in parts]
    sets = [jackknife(distance.value, without, [part.count or 1 for part in parts])]
    estimate = jackknifed(distance.value, sets, correct=False, lowest=0.0, note=distance.note)
    counts = " and ".join("unknown" if count is None else str(count) for count in distance.counts)
    protocol = f"{found.network.protocol}; Fréchet distance of {counts} features"
    interval = f"{GROUPS} of the samples, the reference fixed"
    floor = inputs.floor_of_features("frechet", measure)
    return {"frechet": Value(estimate, interval, LOWER, protocol, floor)}


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
    found, data = _features(inputs), _rows(inputs)
    pair = precision_recall(found.samples, data)
    protocol = f"{found.network.protocol}; k = 3; {len(found.samples)} samples, {len(data)} held out"

    def of_draw(name: str) -> Callable[[Rows], float]:
        return lambda rows: getattr(precision_recall(rows, data, groups=2), name).value

    return _pair(inputs, pair, ("precision", "recall"), of_draw, protocol)


def density(inputs: Inputs) -> dict[str, Value]:
    """Return density and coverage."""
    found, data = _features(inputs), _rows(inputs)
    pair = density_coverage(found.samples, data)
    protocol = f"{found.network.protocol}; k = 5; {len(found.samples)} samples, {len(data)} held out"

    def of_draw(name: str) -> Callable[[Rows], float]:
        return lambda rows: getattr(density_coverage(rows, data, groups=2), name).value

    return _pair(inputs, pair, ("density", "coverage"), of_draw, protocol)


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


def _pair(
    inputs: Inputs,
    found: tuple[Estimate, Estimate],
    names: tuple[str, str],
    of_draw: Callable[[str], Callable[[Rows], float]],
    protocol: str,
) -> dict[str, Value]:
    return {
        name: Value(estimate, GROUPS, HIGHER, protocol, inputs.floor_of_features(name, of_draw(name)))
        for name, estimate in zip(names, found, strict=True)
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
