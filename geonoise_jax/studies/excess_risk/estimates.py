"""Means of the terms of the excess risk and their standard errors."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from geonoise_jax.evaluation.laws import POPULATION, TRAINING_SET
from geonoise_jax.studies.excess_risk.study import BINS, HELD_OUT, TRAIN, Study

_OWN_SPLIT = {POPULATION: HELD_OUT, TRAINING_SET: TRAIN}


class Estimate(NamedTuple):
    """Monte-Carlo means and their standard errors, of one shape."""

    mean: Float[np.ndarray, "*k"]
    error: Float[np.ndarray, "*k"]


@dataclasses.dataclass(frozen=True)
class Summary:
    """Means over the draws of a study, and over bins of equal probability of its noise levels.

    Attributes:
        title, steps, laws, splits: those of the study.
        num: draws per split.
        own: pairs (law, split) where the cross term vanishes in expectation.
        loss: [K, S].
        floor: [L, S].
        excess: [K, L, S].
        gap: loss over floor on the same draws, [K, L, S].
        cross: gap over excess on the same draws, [K, L, S].
        level_t: noise levels at the ends of the bins, [bins, 2].
        level_noise: b / a there, [bins, 2].
        level_floor: [L, S, bins].
        level_excess: of the last checkpoint, [L, S, bins].
    """

    title: str
    steps: Int[np.ndarray, "K"]
    laws: tuple[str, ...]
    splits: tuple[str, ...]
    num: int
    own: tuple[tuple[int, int], ...]
    loss: Estimate
    floor: Estimate
    excess: Estimate
    gap: Estimate
    cross: Estimate
    level_t: Float[np.ndarray, "bins 2"]
    level_noise: Float[np.ndarray, "bins 2"]
    level_floor: Estimate
    level_excess: Estimate


def summarise(study: Study) -> Summary:
    """Return the means of a study and their standard errors."""
    gap = study.loss[:, None] - study.floor
    edges = np.arange(BINS + 1) * (len(study.t) // BINS)
    ends = np.stack([edges[:-1], edges[1:] - 1], axis=1)
    return Summary(
        title=study.title,
        steps=study.steps,
        laws=study.laws,
        splits=study.splits,
        num=len(study.t),
        own=tuple((i, study.splits.index(_OWN_SPLIT[law])) for i, law in enumerate(study.laws)),
        loss=estimate(study.loss),
        floor=estimate(study.floor),
        excess=estimate(study.excess),
        gap=estimate(gap),
        cross=estimate(gap - study.excess),
        level_t=study.t[ends],
        level_noise=study.noise[ends],
        level_floor=estimate(study.floor, BINS),
        level_excess=estimate(study.excess[-1], BINS),
    )


def estimate(values: Float[np.ndarray, "*k n"], bins: int | None = None) -> Estimate:
    """Return means over draws in order of the noise level, over all or in bins of equal probability.

    Each draw has its own slice of the time law, which lowers the error of the mean; pairs of neighbours, which differ
    by little but their noise, estimate what is left of it (collapsed strata, Cochran 1977, section 5A.12).

    Args:
        values: one number per draw.
        bins: number of bins, so that twice their number divides n; adds an axis [bins] to the result.
    """
    if bins is not None:
        values = values.reshape(*values.shape[:-1], bins, -1)
    n = values.shape[-1]
    squares = (values[..., ::2] - values[..., 1::2]) ** 2
    return Estimate(values.mean(-1), np.sqrt(squares.sum(-1)) / n)
