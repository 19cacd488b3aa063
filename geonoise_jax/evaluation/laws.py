"""The laws of the data of a config that have an exact field."""

from __future__ import annotations

from ml_collections import ConfigDict

from geonoise_jax import build
from geonoise_jax.exact import Distribution, FiniteSet

POPULATION, TRAINING_SET = "population", "training set"


def laws(config: ConfigDict) -> tuple[dict[str, Distribution], FiniteSet]:
    """Return the laws of the data that have an exact field, by name, and that of the points of the training split."""
    population, points = build.distribution(config), build.finite_set(config)
    if isinstance(population, FiniteSet):
        return {TRAINING_SET: points}, points
    return {POPULATION: population, TRAINING_SET: points}, points
