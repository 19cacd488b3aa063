"""All metrics by name: where each lives, what it needs, and which numbers it gives."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from geonoise_jax.training.watched import HIGHER, LOWER, ZERO

# What a metric may need besides the model: samples; points or moments to compare with; points; images; a network of
# features; one with classes; data that is circles.
SAMPLES, REFERENCE, POINTS = "samples", "a reference", "points to compare with"
IMAGES, FEATURES, LOGITS, COVARIANCE = "images", "features", "a network with classes", "more samples than features"
CIRCLES, INTEGERS = "data that are circles", "a data set of integers"


class Entry(NamedTuple):
    """One line of the table.

    Attributes:
        place: module and function, imported when it is first used.
        about: what it measures.
        needs: what it needs.
        values: names of the numbers that it gives.
        better: which of them are better.
    """

    place: str
    about: str
    needs: tuple[str, ...]
    values: tuple[str, ...]
    better: str = LOWER

    @property
    def is_cheap(self) -> bool:
        """Whether it is computed of samples alone, without a network or an integration."""
        return SAMPLES in self.needs and FEATURES not in self.needs

    def load(self) -> Callable[[Any], Mapping[str, Any]]:
        """Import the function, a ``metrics.base.Metric``."""
        module, _, name = self.place.partition(":")
        metric: Callable[[Any], Mapping[str, Any]] = getattr(importlib.import_module(module), name)
        return metric


_ROOM = "geonoise_jax.evaluation.metrics"
_POINTS = (SAMPLES, POINTS)
_FEATURES = (SAMPLES, IMAGES, FEATURES)
METRICS = {
    "sliced_wasserstein": Entry(
        f"{_ROOM}.points:sliced_wasserstein", "sliced 2-Wasserstein distance", _POINTS, ("sliced_wasserstein",)
    ),
    "wasserstein2": Entry(
        f"{_ROOM}.points:wasserstein2", "exact 2-Wasserstein distance of small sets", _POINTS, ("wasserstein2",)
    ),
    "energy_distance": Entry(f"{_ROOM}.points:energy_distance", "energy distance", _POINTS, ("energy_distance",)),
    "gaussian_mmd": Entry(
        f"{_ROOM}.points:gaussian_mmd", "maximum mean discrepancy of a Gaussian kernel", _POINTS, ("gaussian_mmd",)
    ),
    "two_sample": Entry(
        f"{_ROOM}.points:two_sample", "accuracy of a classifier of samples against data", _POINTS, ("two_sample",)
    ),
    "manifold": Entry(
        f"{_ROOM}.points:manifold", "distance from the circles that the data lies on", (SAMPLES, CIRCLES), ("manifold",)
    ),
    "modes": Entry(f"{_ROOM}.points:modes", "weights of the circles", (SAMPLES, CIRCLES), ("modes",)),
    "spectrum": Entry(
        f"{_ROOM}.images:spectrum", "excess of power at high frequencies", (*_POINTS, IMAGES), ("spectrum",), ZERO
    ),
    "frechet": Entry(
        f"{_ROOM}.features:frechet", "Fréchet distance", (*_FEATURES, REFERENCE, COVARIANCE), ("frechet",)
    ),
    "frechet_law": Entry(
        f"{_ROOM}.features:frechet_law",
        "Fréchet distance without the bias of finite sets",
        (*_FEATURES, REFERENCE, COVARIANCE),
        ("frechet_law",),
    ),
    "frechet_limit": Entry(
        f"{_ROOM}.features:frechet_limit",
        "Fréchet distance extrapolated to infinitely many samples",
        (*_FEATURES, REFERENCE, COVARIANCE),
        ("frechet_limit",),
    ),
    "kid": Entry(f"{_ROOM}.features:kid", "kernel inception distance", (*_FEATURES, POINTS), ("kid",)),
    "precision_recall": Entry(
        f"{_ROOM}.features:precision", "precision and recall", (*_FEATURES, POINTS), ("precision", "recall"), HIGHER
    ),
    "density_coverage": Entry(
        f"{_ROOM}.features:density", "density and coverage", (*_FEATURES, POINTS), ("density", "coverage"), HIGHER
    ),
    "inception_score": Entry(
        f"{_ROOM}.features:score", "inception score", (*_FEATURES, LOGITS), ("inception_score",), HIGHER
    ),
    "bits_per_dim": Entry(
        f"{_ROOM}.likelihoods:bits", "bits per dimension of held-out items", (POINTS, INTEGERS), ("bits_per_dim",)
    ),
    "log_likelihood": Entry(
        f"{_ROOM}.likelihoods:nats", "log density of held-out points", (POINTS,), ("log_likelihood",), HIGHER
    ),
}
# What is measured where nothing is named, if it can be.
OF_IMAGES = ("sliced_wasserstein", "spectrum", "frechet", "kid", "precision_recall")
OF_POINTS = ("sliced_wasserstein", "energy_distance", "two_sample", "manifold", "modes")
