"""Concentric circles in a random plane of R^D, drawn exactly: the geometry, free of any data-set library.

A point is x = P z with z = R_i (cos phi, sin phi), the circle i drawn with probability w_i and phi uniform. P is a
[D, 2] matrix with orthonormal columns, so |x| = R_i exactly and P^T x = z. The exact field of this distribution needs
only `radii`, `weights` and `circles_frame(dim, seed)`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32, Int32

from geonoise_jax import checks
from geonoise_jax.data.streams import stream
from geonoise_jax.errors import UserError

SPLITS = ("train", "test")

# Folder names are limited to 255 bytes on common file systems.
_LONGEST_NAME = 160


def circles_frame(dim: int, seed: int) -> Float[np.ndarray, "D 2"]:
    """Return the plane of the circles: a uniformly random orthonormal frame.

    It is the Q of the QR decomposition of a Gaussian matrix, with column signs such that R has a positive diagonal:
    this choice makes the decomposition unique and Q uniform on the Stiefel manifold (Mezzadri 2007, "How to generate
    random matrices from the classical compact groups", Notices of the AMS 54).

    Args:
      dim: dimension D of the ambient space, at least 2.
      seed: seed of the data set, at least 0.

    Returns:
      P, shape [D, 2], float64, with P^T P = I.

    Raises:
      ValueError: `dim` or `seed` is not an integer in its range.
    """
    dim, seed = checks.integer("dim", dim, low=2), checks.integer("seed", seed, low=0)
    q, r = np.linalg.qr(stream("circles frame", seed).standard_normal((dim, 2)))
    return q * np.sign(np.diag(r))


@dataclasses.dataclass(frozen=True, kw_only=True)
class CirclesSpec:
    """Parameters of one data set of concentric circles.

    Attributes:
      dim: dimension D of the ambient space, at least 2.
      radii: distinct positive radii R_i, one per circle. The default, 1 and 2, gives two well-separated circles of
        order one: the network sees them as they are.
      weights: positive weights of the circles, normalised to sum 1; equal when None.
      seed: seed of the frame and of the points, at least 0.
      num_train: number of training points.
      num_test: number of test points, drawn independently of the training points.

    Raises:
      ValueError: a parameter is out of its range (the message names it).
    """

    dim: int = 2
    radii: Sequence[float] = (1.0, 2.0)
    weights: Sequence[float] | None = None
    seed: int = 0
    num_train: int = 50_000
    num_test: int = 10_000

    def __post_init__(self) -> None:
        for name, lowest in (("dim", 2), ("seed", 0), ("num_train", 1), ("num_test", 1)):
            object.__setattr__(self, name, checks.integer(name, getattr(self, name), low=lowest))
        radii = _positive_floats("radii", self.radii)
        if len(set(radii)) < len(radii):
            raise UserError(f"radii must be distinct, got {radii}")
        weights = (1.0,) * len(radii) if self.weights is None else _positive_floats("weights", self.weights)
        if len(weights) != len(radii):
            raise UserError(f"weights must have one entry per radius ({len(radii)}), got {weights}")
        object.__setattr__(self, "radii", radii)
        object.__setattr__(self, "weights", tuple(weight / math.fsum(weights) for weight in weights))

    @property
    def name(self) -> str:
        """Name of the data set, different for different parameters and usable as a folder name."""
        radii = f"radii{_joined(self.radii)}_weights{_joined(self.weights or ())}"
        if len(radii) > _LONGEST_NAME:
            radii = f"circles{len(self.radii)}_{hashlib.sha256(radii.encode()).hexdigest()[:16]}"
        return f"dim{self.dim}_{radii}_seed{self.seed}_train{self.num_train}_test{self.num_test}"

    def draw(self, split: str) -> tuple[Float32[np.ndarray, "N D"], Int32[np.ndarray, "N"]]:
        """Draw the points of one split.

        Args:
          split: "train" or "test"; their random streams are independent.

        Returns:
          Points x (rounded to float32 at the end only) and the index of the circle of each.

        Raises:
          ValueError: unknown split.
        """
        if split not in SPLITS:
            raise UserError(f"split must be one of {SPLITS}, got {split!r}")
        num = self.num_train if split == "train" else self.num_test
        rng = stream(f"circles {split}", self.seed)
        labels = rng.choice(len(self.radii), size=num, p=self.weights).astype(np.int32)
        angles = rng.uniform(0.0, 2.0 * np.pi, num)
        z = np.asarray(self.radii)[labels, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        return (z @ circles_frame(self.dim, self.seed).T).astype(np.float32), labels


def _positive_floats(name: str, values: Sequence[float]) -> tuple[float, ...]:
    """Return `values` as floats; raises ValueError unless they are a non-empty sequence of positive finite numbers."""
    try:
        floats = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        raise UserError(f"{name} must be a sequence of positive numbers, got {values!r}") from None
    if not floats or not all(math.isfinite(value) and value > 0 for value in floats):
        raise UserError(f"{name} must be one or more positive finite numbers, got {floats}")
    return floats


def _joined(values: Sequence[float]) -> str:
    return "-".join(repr(value) for value in values)
