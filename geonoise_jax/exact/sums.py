r"""Sums over the points of a finite set, in forms that keep their accuracy near the data and their speed far from it.

With * the point nearest to u, delta_k = x_k - x_*, s = a(0), o = s - a, e = u - s x_*:

(34)  w_k(u, t) = pi_k exp(z_k) / sum_j pi_j exp(z_j),
      z_k = (|u - a x_*|^2 - |u - a x_k|^2) / 2 b^2
          = (a / b^2) (e . delta_k + o x_* . delta_k - a |delta_k|^2 / 2)           near points, by differences
          = (a / b^2) (u . x_k - u . x_* - a (|x_k|^2 - |x_*|^2) / 2)               the others, by one matrix product
      |u - a x_*|^2 = |e|^2 + 2 o e . x_* + o^2 |x_*|^2
(35)  D_t = x_* + sum_k w_k delta_k,   R_t = u - a D_t = e + o x_* - a sum_k w_k delta_k

The first form of z has no cancellation; the second is off by 1e-7 |u| |x| / b^2 in float32, which is harmless once b is
large enough for many points to matter. A sum over noise levels t of any multiple of D_t and R_t needs the weights only
through ``sum_t (alpha - a beta)_t w_tk``: one more matrix product, however many levels there are.

All functions work on the points of one device; ``axis`` names the mesh axis over which the others are, if any.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from geonoise_jax.exact.base import LOG_2PI, Level, Scores, centre_node, log_ratio

HIGHEST = jax.lax.Precision.HIGHEST
LANES = 1024
_GROUP = 16
_BLOCK = 64
_SAMPLE = 1024
_HEADROOM = 30.0
_OUT = -1e30  # instead of minus infinity, which times zero is not a number


class Near(NamedTuple):
    """Points to which u is compared by differences: ``delta`` [B, K, D], the three products [B, K], log weights."""

    delta: Float[Array, "B K D"]
    along_residual: Float[Array, "B K"]
    along_centre: Float[Array, "B K"]
    square: Float[Array, "B K"]
    log_weight: Float[Array, "B K"]


class Far(NamedTuple):
    """The other points, in rows of ``LANES``: ``u . x_k - u . x_*`` [B, R, L]; |x_k|^2 and log weights [R, L]."""

    product: Float[Array, "B R L"]
    square: Float[Array, "R L"]
    log_weight: Float[Array, "R L"]


class Projection(NamedTuple):
    """What is needed of u at every noise level.

    Attributes:
        residual: ``e = u - s x_*``, [B, D].
        centre: ``x_*``, [B, D].
        residual2, cross, centre2: ``|e|^2``, ``e . x_*``, ``|x_*|^2``, each [B, 1].
        near: the nearest points of this device.
        far: its other points; None if there are none.
    """

    residual: Float[Array, "B D"]
    centre: Float[Array, "B D"]
    residual2: Float[Array, "B 1"]
    cross: Float[Array, "B 1"]
    centre2: Float[Array, "B 1"]
    near: Near
    far: Far | None


def project(
    points: Float[Array, "N D"],
    square: Float[Array, "N"],
    log_weight: Float[Array, "N"],
    u: Float[Array, "B D"],
    signal: float,
    num_near: int,
    axis: str | None,
) -> Projection:
    """Compare queries with the points of this device."""
    product = jnp.dot(u, points.T, precision=HIGHEST)
    ranking = jnp.where(log_weight[None] > _OUT, signal * product - 0.5 * signal * signal * square[None], -jnp.inf)
    index = _largest(jax.lax.stop_gradient(ranking), num_near)
    close = points[index]
    residual = u[:, None] - signal * close
    centre = _nearest(close, (residual * residual).sum(-1), axis)
    residual = u - signal * centre
    near = _near(close, centre, residual, log_weight[index])
    far = None
    if num_near < len(points):
        relative = product - (u * centre).sum(-1, keepdims=True)
        far = _far(relative, square, log_weight, index)
    square_of, cross = (residual * residual).sum(-1, keepdims=True), (residual * centre).sum(-1, keepdims=True)
    return Projection(residual, centre, square_of, cross, (centre * centre).sum(-1, keepdims=True), near, far)


def scores(projection: Projection, level: Level, axis: str | None) -> Scores:
    """Return log p(u | t), with the log normalisers of the weights, [B, T], in its cache."""
    dim = projection.centre.shape[1]
    b2, o = level.b * level.b, level.deficit
    distance2 = projection.residual2 + 2.0 * o * projection.cross + o * o * projection.centre2
    sample = thin(projection, _SAMPLE).far
    groups = jax.lax.map(lambda at: _log_sum(projection, sample, at, axis), Level(*map(_grouped, level)))
    normaliser = groups.reshape(-1, len(b2))[: b2.shape[1]].T
    reference = centre_node(level.b)
    relative = normaliser - 0.5 * distance2 / b2 - dim * log_ratio(level.b, reference)
    return Scores(relative, -dim * jnp.log(reference[:, 0]) - 0.5 * dim * LOG_2PI, normaliser)


def average(
    points: Float[Array, "N D"],
    projection: Projection,
    level: Level,
    normaliser: Float[Array, "B T"],
    alpha: Float[Array, "J B T"],
    beta: Float[Array, "J B T"],
    axis: str | None,
) -> Float[Array, "J B D"]:
    """Return ``sum_t (alpha D_t + beta R_t)``."""
    coefficient = alpha - level.a[None] * beta
    near, far = _summed_weights(projection, level, normaliser, coefficient)
    moved = jnp.einsum("jbk,bkd->jbd", near, projection.near.delta, precision=HIGHEST)
    if far is not None:
        flat = far.reshape(far.shape[0] * far.shape[1], -1)[:, : len(points)]
        product = jnp.dot(flat, points, precision=HIGHEST).reshape(moved.shape)
        moved += product - flat.sum(-1).reshape(*moved.shape[:2], 1) * projection.centre[None]
    if axis is not None:
        moved = jax.lax.psum(moved, axis)
    centre = (alpha + beta * level.deficit[None]).sum(-1)[..., None]
    return moved + centre * projection.centre[None] + beta.sum(-1)[..., None] * projection.residual[None]


def thin(projection: Projection, keep: int) -> Projection:
    """Return a projection with about ``keep`` of the far points, spread over all and weighted for the others."""
    if projection.far is None or projection.far.square.size < 2 * keep:
        return projection
    stride = projection.far.square.shape[1] // max(1, keep // projection.far.square.shape[0])
    product, square, log_weight = (
        values[..., ::stride].reshape(*values.shape[:-2], 1, -1) for values in projection.far
    )
    return projection._replace(far=Far(product, square, log_weight + math.log(stride)))


def _largest(values: Float[Array, "B N"], count: int) -> Int[Array, "B K"]:
    """Return the positions of the ``count`` largest values: those of the blocks with the largest maxima hold them."""
    batch, size = values.shape
    if size <= count * _BLOCK:
        return jax.lax.top_k(values, count)[1]
    blocks = jnp.pad(values, ((0, 0), (0, -size % _BLOCK)), constant_values=-jnp.inf).reshape(batch, -1, _BLOCK)
    _, block = jax.lax.top_k(blocks.max(-1), count)
    candidates = jnp.take_along_axis(blocks, block[..., None], axis=1).reshape(batch, -1)
    _, place = jax.lax.top_k(candidates, count)
    return jnp.take_along_axis(block, place // _BLOCK, axis=1) * _BLOCK + place % _BLOCK


def _nearest(close: Float[Array, "B K D"], distance2: Float[Array, "B K"], axis: str | None) -> Float[Array, "B D"]:
    """Return the nearest point of all devices."""
    distance2 = jax.lax.stop_gradient(distance2)
    best = jnp.argmin(distance2, axis=1)[:, None]
    centre = jnp.take_along_axis(close, best[..., None], axis=1)[:, 0]
    if axis is None:
        return centre
    distance = jnp.take_along_axis(distance2, best, axis=1)
    here = jax.lax.axis_index(axis)
    holder = jax.lax.pmin(jnp.where(distance == jax.lax.pmin(distance, axis), here, jnp.iinfo(here.dtype).max), axis)
    return jax.lax.psum(jnp.where(holder == here, centre, 0.0), axis)


def _near(
    close: Float[Array, "B K D"],
    centre: Float[Array, "B D"],
    residual: Float[Array, "B D"],
    log_weight: Float[Array, "B K"],
) -> Near:
    delta = close - centre[:, None]
    along_residual = jnp.einsum("bkd,bd->bk", delta, residual, precision=HIGHEST)
    along_centre = jnp.einsum("bkd,bd->bk", delta, centre, precision=HIGHEST)
    return Near(delta, along_residual, along_centre, (delta * delta).sum(-1), log_weight)


def _far(
    product: Float[Array, "B N"],
    square: Float[Array, "N"],
    log_weight: Float[Array, "N"],
    index: Int[Array, "B K"],
) -> Far:
    """Lay the points out in rows, so that sums run along whole vectors, and take the near ones out."""
    product = product.at[jnp.arange(len(product))[:, None], index].set(_OUT)
    padding = -len(square) % LANES

    def rows(values: Float[Array, "... N"], fill: float) -> Float[Array, "... R L"]:
        widths = [(0, 0)] * (values.ndim - 1) + [(0, padding)]
        return jnp.pad(values, widths, constant_values=fill).reshape(*values.shape[:-1], -1, LANES)

    return Far(rows(product, _OUT), rows(square, 0.0), rows(log_weight, _OUT))


def _near_exponents(projection: Projection, at: Level) -> Float[Array, "g B K"]:
    """Return ``log pi_k + z_k`` of the near points at levels [g, B], by differences."""
    near, a, b, o = projection.near, *(values[..., None] for values in at)
    inner = near.along_residual[None] + o * near.along_centre[None] - 0.5 * a * near.square[None]
    return near.log_weight[None] + a / (b * b) * inner


def _far_exponents(projection: Projection, far: Far, at: Level) -> Float[Array, "g B R L"]:
    """Return ``log pi_k + z_k`` of the other points at levels [g, B], from the matrix product."""
    a, b = (values[..., None, None] for values in (jnp.maximum(at.a, jnp.finfo(at.a.dtype).eps ** 2), at.b))
    square = far.square[None] - projection.centre2[..., None]
    return a / (b * b) * (far.product[None] - 0.5 * a * square[None]) + far.log_weight[None, None]


def _log_sum(projection: Projection, sample: Far | None, at: Level, axis: str | None) -> Float[Array, "g B"]:
    """Return ``log sum_k pi_k exp(z_k)`` at levels [g, B], over all devices."""
    near = _near_exponents(projection, at)
    top = near.max(-1)
    if sample is not None:
        top = jnp.maximum(top, _far_exponents(projection, sample, at).max((-2, -1)))
    top = jax.lax.stop_gradient(top)
    total = jnp.exp(near - top[..., None]).sum(-1)
    if projection.far is not None:
        total, top = _add_far(projection, projection.far, at, total, top)
    if axis is None:
        return top + jnp.log(total)
    highest = jax.lax.pmax(top, axis)
    return highest + jnp.log(jax.lax.psum(total * jnp.exp(top - highest), axis))


def _add_far(
    projection: Projection, far: Far, at: Level, total: Float[Array, "g B"], top: Float[Array, "g B"]
) -> tuple[Float[Array, "g B"], Float[Array, "g B"]]:
    """Add the far points' ``exp(z - top)`` to ``total``; return it with ``top``, raised where the sum overflows.

    A sample of the points has given ``top``. Only if another point exceeds it by more than the range of exponentials,
    which is not expected, are all of them searched for the largest.
    """
    high = top + _HEADROOM
    sums = _over_rows(projection, far, at, lambda sums, z: sums + jnp.exp(z - high[..., None]), 0.0).sum(-1)

    def search() -> tuple[Array, Array]:
        highest = _over_rows(projection, far, at, jnp.maximum, -jnp.inf).max(-1)
        highest = jnp.maximum(high, jax.lax.stop_gradient(highest))
        return _over_rows(projection, far, at, lambda sums, z: sums + jnp.exp(z - highest[..., None]), 0.0).sum(
            -1
        ), highest

    sums, high = jax.lax.cond(jnp.isfinite(sums).all(), lambda: (sums, high), search)
    return sums + total * jnp.exp(top - high), high


def _over_rows(
    projection: Projection, far: Far, at: Level, combine: Callable[[Array, Array], Array], start: float
) -> Float[Array, "g B L"]:
    """Reduce the exponents over rows of points: elementwise on whole rows, which stay in the cache for all levels."""

    def step(total: Array, row: Array) -> tuple[Array, None]:
        one = Far(*(jax.lax.dynamic_slice_in_dim(x, row, 1, axis=x.ndim - 2) for x in far))
        return combine(total, _far_exponents(projection, one, at)[..., 0, :]), None

    shape = (*at.b.shape, far.square.shape[1])
    return jax.lax.scan(step, jnp.full(shape, start, at.b.dtype), jnp.arange(len(far.square)))[0]


def _summed_weights(
    projection: Projection,
    level: Level,
    normaliser: Float[Array, "B T"],
    coefficient: Float[Array, "J B T"],
) -> tuple[Float[Array, "J B K"], Float[Array, "J B R L"] | None]:
    """Return ``sum_t coefficient_t w_tk`` of the near and of the other points.

    Levels are taken in groups whose exponentials one fused loop adds up while the scores pass through the cache once.
    """
    far = projection.far
    rows = (len(coefficient),)

    def add_group(totals: tuple[Array, Array | None], group: tuple[Level, Array, Array]) -> tuple[tuple, None]:
        near_sum, far_sum = totals
        levels, log_norm, factor = group
        weight = jnp.exp(_near_exponents(projection, levels) - log_norm[..., None])
        near_sum += jnp.einsum("gjb,gbk->jbk", factor, weight, precision=HIGHEST)
        if far is not None and far_sum is not None:
            for i in range(len(log_norm)):
                at = Level(*(values[i : i + 1] for values in levels))
                weight = jnp.exp(_far_exponents(projection, far, at) - log_norm[i][None, :, None, None])
                far_sum += factor[i][..., None, None] * weight
        return (near_sum, far_sum), None

    near_sum = jnp.zeros(rows + projection.near.square.shape, normaliser.dtype)
    far_sum = None if far is None else jnp.zeros(rows + far.product.shape, normaliser.dtype)
    groups = (Level(*map(_grouped, level)), _grouped(normaliser), _grouped(coefficient, fill=0.0))
    return jax.lax.scan(add_group, (near_sum, far_sum), groups)[0]


def _grouped(values: Float[Array, "... T"], fill: float | None = None) -> Float[Array, "G g ..."]:
    """Cut the last axis into groups in front; the last group is filled up with its last level, or with ``fill``."""
    num = values.shape[-1]
    group = min(num, _GROUP)
    widths = [(0, 0)] * (values.ndim - 1) + [(0, -num % group)]
    padded = jnp.pad(values, widths, mode="edge") if fill is None else jnp.pad(values, widths, constant_values=fill)
    return jnp.moveaxis(padded, -1, 0).reshape(-1, group, *values.shape[:-1])
