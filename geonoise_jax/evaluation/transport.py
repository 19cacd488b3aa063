"""The exact 2-Wasserstein distance of small sets of points.

Each point of two sets of n and m has the mass 1/n or 1/m. With every point repeated up to the least common multiple of
the two numbers all masses are equal, and an optimal coupling is an assignment (Birkhoff's theorem), which SciPy finds
(Crouse 2016) in a time that grows with the cube of that number.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from geonoise_jax.errors import UserError
from geonoise_jax.evaluation.floors import DRAWS, Distance, with_spread
from geonoise_jax.evaluation.point_sets import rows, same_shape

# Rows of the square of costs: 200 MB, some seconds.
MOST = 5000


class Wasserstein2:
    """The 2-Wasserstein distance to one reference set, for many sets of points.

    Samples of the reference's own law are far from it in many dimensions: compare with such a floor
    (:mod:`geonoise_jax.evaluation.floors`) of the same number of points, which must be even for the spread by halves.

    Args:
        reference: m points.

    Raises:
        UserError: if there is no point, or one is not finite.
    """

    def __init__(self, reference: Float[np.ndarray, "m *event"]) -> None:
        self._reference = rows("y", reference, least=1)
        self._event = np.shape(reference)[1:]

    def __call__(self, points: Float[np.ndarray, "n *event"]) -> float:
        """Return the distance of n points to the reference.

        Raises:
            UserError: if there is no point, one is not finite or of another shape, or the least common multiple of n
                and m is above :data:`MOST`.
        """
        flat = rows("x", points, least=1)
        same_shape("x", np.shape(points)[1:], "y", self._event)
        n, m = len(flat), len(self._reference)
        size = math.lcm(n, m)
        if size > MOST:
            raise UserError(
                f"x.shape[0] = {n}: must have a least common multiple with the {m} points of y of at most {MOST}, not "
                f"{size}; take as many of both"
            )
        costs = cdist(flat, self._reference, "sqeuclidean")
        costs = costs.repeat(size // n, axis=0).repeat(size // m, axis=1)
        return math.sqrt(costs[linear_sum_assignment(costs)].mean())


def wasserstein2(
    x: Float[np.ndarray, "n *event"], y: Float[np.ndarray, "m *event"], *, halvings: int = DRAWS, seed: int = 0
) -> Distance:
    """Return the exact 2-Wasserstein distance of two sets, with its spread between such sets x.

    Args:
        x, y: n and m points of one shape, n even; y counts as fixed.
        halvings: how often x is halved; each costs two more distances.
        seed: seed of the halves.

    Raises:
        UserError: as :class:`Wasserstein2`, or if n is not even.
    """
    if len(x) % 2:
        raise UserError(f"x.shape[0] = {len(x)}: must be even, for a spread by halves; Wasserstein2(y)(x) needs none")
    rows("x", x)
    return with_spread(x, Wasserstein2(y), halvings=halvings, seed=seed)
