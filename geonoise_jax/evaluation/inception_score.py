"""The inception score: how sure a classifier is of each item, and how many classes all items have together."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import log_softmax, logsumexp

from geonoise_jax import checks
from geonoise_jax.errors import UserError
from geonoise_jax.evaluation.intervals import mean_of
from geonoise_jax.evaluation.point_sets import rows

SPLITS = 10


class InceptionScore(NamedTuple):
    """The inception score.

    Attributes:
        value: mean over the splits.
        spread: its standard error.
        low, high: ends of the interval that contains, with 95%, the mean score of sets of ``num`` items.
        over_splits: standard deviation over the splits, of divisor ``splits``, which is what is published.
        num: items of the smallest split. The score grows with it: values of other numbers cannot be compared.
    """

    value: float
    spread: float
    low: float
    high: float
    over_splits: float
    num: int


def inception_score(logits: Float[np.ndarray, "n c"], *, splits: int = SPLITS, seed: int | None = 0) -> InceptionScore:
    """Return exp E_x KL(p(c | x) || p(c)) over splits of the items (Salimans et al. 2016, section 4).

    Args:
        logits: of c classes, a row for each item, before the softmax; float64 inside, in logarithms throughout.
        splits: number of splits, at least 2.
        seed: seed of the order in which items are split; None: as given, which is wrong for items sorted by class.

    Raises:
        UserError: if there are fewer items than splits, or rows that are not finite (they are counted).
    """
    checks.integer("splits", splits, low=2)
    flat = rows("logits", logits, least=splits)
    if np.ndim(logits) != 2:
        raise UserError(f"logits.shape = {list(np.shape(logits))}: must be [n, c]")
    order = np.arange(len(flat)) if seed is None else np.random.default_rng(seed).permutation(len(flat))
    ends = [index * len(flat) // splits for index in range(splits + 1)]
    log_p = log_softmax(flat[order], axis=1)
    scores = np.array([_score(log_p[start:stop]) for start, stop in itertools.pairwise(ends)])
    mean = mean_of(scores)
    return InceptionScore(*mean[:4], float(scores.std()), len(flat) // splits)


def _score(log_p: Float[np.ndarray, "k c"]) -> float:
    log_marginal = logsumexp(log_p, axis=0) - math.log(len(log_p))
    return math.exp((np.exp(log_p) * (log_p - log_marginal)).sum(axis=1).mean())
