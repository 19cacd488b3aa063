"""Sets of points as the distances want them: one row a point, in float64, each finite; in groups for the jackknife."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from geonoise_jax import checks
from geonoise_jax.errors import UserError


def rows(name: str, points: Float[np.ndarray, "n *event"], *, least: int = 2) -> Float[np.ndarray, "n d"]:
    """Return points as rows of float64.

    Args:
        name: how errors call them.
        points: n points; integers count as the numbers that they are.
        least: the least number of points.

    Raises:
        UserError: if there are fewer points, they have no coordinate, or one is not finite; the latter are counted, so
            that whoever leaves them out does so knowingly.
    """
    points = np.asarray(points)
    if points.ndim < 1 or points.dtype.kind not in "fiu":
        raise UserError(f"{name} = {checks.shown(points)}: must be real points, [n, *event]")
    if len(points) < least:
        raise UserError(f"{name}.shape[0] = {len(points)}: must be at least {least} points")
    if points.size == 0:
        raise UserError(f"{name}.shape = {list(points.shape)}: must have at least one coordinate")
    flat = points.astype(np.float64).reshape(len(points), -1)
    bad = int((~finite(flat)).sum())
    if bad:
        raise UserError(f"{name}: {bad} of {len(flat)} rows are not finite; must be none")
    return flat


def finite(points: Float[np.ndarray, "n *event"]) -> Bool[np.ndarray, "n"]:
    """Return which points have only finite entries."""
    return np.isfinite(points).reshape(len(points), -1).all(axis=1)


def pair(
    x: Float[np.ndarray, "n *event"],
    y: Float[np.ndarray, "m *event"],
    *,
    least: int = 2,
    names: tuple[str, str] = ("x", "y"),
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "m d"]]:
    """Return two sets of points of one shape as rows of float64.

    Raises:
        UserError: as :func:`rows`, or if the shapes of their points differ.
    """
    flat = rows(names[0], x, least=least), rows(names[1], y, least=least)
    same_shape(names[0], np.shape(x)[1:], names[1], np.shape(y)[1:])
    return flat


def same_shape(name: str, shape: tuple[int, ...], other: str, wanted: tuple[int, ...]) -> None:
    """Require that points of two sets have one shape.

    Raises:
        UserError: if they have not.
    """
    if shape != wanted:
        raise UserError(f"{name}.shape[1:] = {shape}: must equal {other}.shape[1:] = {wanted}")


def groups_of(num: int, groups: int, name: str) -> Int[np.ndarray, "num"]:
    """Return the group of each of ``num`` points: they are dealt in turn, so that sorted classes are in every group.

    Args:
        num: number of points.
        groups: number of groups.
        name: how errors call the points.

    Raises:
        UserError: if there are fewer than 2 groups, or than 2 points a group.
    """
    checks.integer("groups", groups, low=2)
    if num < 2 * groups:
        raise UserError(f"{name}.shape[0] = {num}: must be at least {2 * groups}, two for each of {groups} groups")
    return np.arange(num) % groups
