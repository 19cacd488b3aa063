"""Mean and covariance of features that stream by, and the files in which they are published.

Sums of squares about the mean are merged as Chan, Golub and LeVeque (1983, "Algorithms for computing the sample
variance", equation 2.1) do: nothing of the size of a mean is squared, and memory does not grow with the features.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float

from geonoise_jax import checks, files
from geonoise_jax.data.numpy_files import npz_member, npz_names, read_rows
from geonoise_jax.errors import UserError
from geonoise_jax.evaluation.intervals import GROUPS
from geonoise_jax.evaluation.point_sets import groups_of, rows, same_shape

_CHUNK = 8192
# Published covariances went through float32 at times.
_ROUNDING = 1e-5
_MEAN, _COVARIANCE, _COUNT = "mu", "sigma", "count"


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """Mean and covariance of features.

    Attributes:
        mean: [d], float64.
        covariance: [d, d], float64, of divisor ``count - 1``; zero for a single item.
        count: number of items; None where a published file does not say.

    Raises:
        UserError: if the shapes do not fit, or a number is not finite.
    """

    mean: Float[np.ndarray, "d"]
    covariance: Float[np.ndarray, "d d"]
    count: int | None = None

    def __post_init__(self) -> None:
        for field in ("mean", "covariance"):
            object.__setattr__(self, field, np.asarray(getattr(self, field), np.float64))
            if not np.isfinite(getattr(self, field)).all():
                raise UserError(f"Moments.{field}: must be finite")
        checks.shape("Moments.mean", self.mean, ("d",))
        checks.shape("Moments.covariance", self.covariance, (self.dim, self.dim))
        if self.count is not None:
            object.__setattr__(self, "count", checks.integer("Moments.count", self.count, low=1))

    @property
    def dim(self) -> int:
        """Number of features."""
        return len(self.mean)

    @property
    def spans(self) -> bool:
        """Whether there are more items than features, so that the covariance can have full rank."""
        return self.count is None or self.count > self.dim

    def merge(self, other: Moments) -> Moments:
        """Return the moments of both sets of items together.

        Raises:
            UserError: if the features differ in number, or a count is not known.
        """
        ours, theirs = self._counts(other)
        total = ours + theirs
        step = other.mean - self.mean
        scatter = self._scatter() + other._scatter() + np.outer(step, step) * (ours * theirs / total)
        return Moments(self.mean + step * (theirs / total), scatter / (total - 1), total)

    def without(self, part: Moments) -> Moments:
        """Return the moments of the items that are not in a part, which must be one of this set.

        Raises:
            UserError: if the features differ in number, a count is not known, or the part is not smaller.
        """
        total, out = self._counts(part)
        kept = total - out
        if kept < 1:
            raise UserError(f"part.count = {out}: must be smaller than the {total} items of the whole")
        mean = self.mean + (self.mean - part.mean) * (out / kept)
        step = part.mean - mean
        scatter = self._scatter() - part._scatter() - np.outer(step, step) * (kept * out / total)
        return Moments(mean, scatter / max(kept - 1, 1), kept)

    def _counts(self, other: Moments) -> tuple[int, int]:
        same_shape("Moments.mean", (other.dim,), "Moments.mean", (self.dim,))
        if self.count is None or other.count is None:
            raise UserError("Moments.count = None: must be known, to merge moments or take them apart")
        return self.count, other.count

    def _scatter(self) -> Float[np.ndarray, "d d"]:
        return self.covariance * ((self.count or 1) - 1)


def moments(features: Float[np.ndarray, "n *d"], *, name: str = "features") -> Moments:
    """Return mean and covariance of n features, at least one.

    Args:
        features: one item a row; further axes are flattened.
        name: how errors call them.

    Raises:
        UserError: if there are none, or rows are not finite (they are counted).
    """
    return accumulate(
        (features[start : start + _CHUNK] for start in range(0, max(len(features), 1), _CHUNK)), name=name
    )


def accumulate(batches: Iterable[Float[np.ndarray, "b *d"]], *, name: str = "features") -> Moments:
    """Return mean and covariance of features that come in batches, in memory that does not depend on their number.

    Raises:
        UserError: if there is no item, batches differ in shape, or rows of one are not finite (they are counted).
    """
    total: Moments | None = None
    for batch in batches:
        part = _of(batch, name)
        total = part if total is None else total.merge(part)
    if total is None:
        raise UserError(f"{name}: must be at least 1 item")
    return total


def grouped(
    batches: Iterable[Float[np.ndarray, "b *d"]], groups: int = GROUPS, *, name: str = "features"
) -> tuple[Moments, ...]:
    """Return the moments of groups of items, dealt in turn: what an interval needs of features that come in batches.

    Memory is that of ``groups`` covariances, however many items there are.

    Raises:
        UserError: as :func:`accumulate`, or if there are fewer than 2 items a group.
    """
    checks.integer("groups", groups, low=2)
    dealt = 0
    found: dict[int, Moments] = {}
    for batch in batches:
        turn = (dealt + np.arange(len(batch))) % groups
        for group in np.unique(turn):
            part = _of(batch[turn == group], name)
            found[int(group)] = found[int(group)].merge(part) if group in found else part
        dealt += len(batch)
    groups_of(dealt, groups, name)
    return tuple(found[group] for group in range(groups))


def merged(parts: Iterable[Moments]) -> Moments:
    """Return the moments of all items of some parts, at least one."""
    first, *others = parts
    for part in others:
        first = first.merge(part)
    return first


def write_moments(path: str | Path, found: Moments) -> None:
    """Write moments as ``.npz`` with the published names ``mu`` and ``sigma``, and ``count`` where it is known."""
    arrays = {_MEAN: found.mean, _COVARIANCE: found.covariance}
    files.write_arrays(path, arrays if found.count is None else {**arrays, _COUNT: np.asarray([found.count])})


def read_moments(path: str | Path) -> Moments:
    """Read moments from a ``.npz`` with ``mu`` and ``sigma``, as published for FID; other arrays are passed over.

    Nothing that the file may hold is executed.

    Raises:
        UserError: if it is no such file, an array is missing or of another shape, a number is not finite, or sigma is
            not symmetric or not positive semi-definite within the rounding of float32.
    """
    path = files.local(path)
    name = f"path = {str(path)!r}"
    names = npz_names(path, name)
    missing = [key for key in (_MEAN, _COVARIANCE) if key not in names]
    if missing:
        raise UserError(f"{name}: has arrays {', '.join(names) or 'none'}; must have {_MEAN} and {_COVARIANCE}")
    mean, covariance = (read_rows(npz_member(path, name, key)) for key in (_MEAN, _COVARIANCE))
    count = int(read_rows(npz_member(path, name, _COUNT))[0]) if _COUNT in names else None
    if mean.ndim != 1 or covariance.shape != 2 * mean.shape:
        found = f"{_MEAN} {list(mean.shape)} and {_COVARIANCE} {list(covariance.shape)}"
        raise UserError(f"{name}: has {found}; must be [d] and [d, d]")
    for key, array in ((_MEAN, mean), (_COVARIANCE, covariance)):
        if bad := int((~np.isfinite(array)).sum()):
            raise UserError(f"{name}: {bad} of {array.size} entries of {key} are not finite; must be none")
    return Moments(mean, _covariance(covariance.astype(np.float64), name), count)


def _of(batch: Float[np.ndarray, "b *d"], name: str) -> Moments:
    flat = rows(name, batch, least=1)
    mean = flat.mean(axis=0)
    centred = flat - mean
    # What rounding of the mean left, so that the scatter is about the mean that is stored.
    left = centred.mean(axis=0)
    scatter = centred.T @ centred - len(flat) * np.outer(left, left)
    return Moments(mean + left, scatter / max(len(flat) - 1, 1), len(flat))


def _covariance(sigma: Float[np.ndarray, "d d"], name: str) -> Float[np.ndarray, "d d"]:
    """Return the symmetric part of a covariance that is one."""
    scale = np.abs(sigma).max(initial=0.0)
    skew = np.abs(sigma - sigma.T).max(initial=0.0)
    if skew > _ROUNDING * scale:
        raise UserError(f"{name}: {_COVARIANCE} differs from its transpose by {skew:.3g}; must be symmetric")
    symmetric = 0.5 * (sigma + sigma.T)
    smallest = float(np.linalg.eigvalsh(symmetric)[0])
    if smallest < -_ROUNDING * scale:
        raise UserError(f"{name}: {_COVARIANCE} has the eigenvalue {smallest:.3g}; must be positive semi-definite")
    return symmetric
