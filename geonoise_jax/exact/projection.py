"""Queries compared with the points of a finite set, once for all noise levels; see :mod:`geonoise_jax.exact.sums`."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from geonoise_jax.exact.base import Level

HIGHEST = jax.lax.Precision.HIGHEST
LANES = 1024
OUT = -1e30  # instead of minus infinity, which times zero is not a number
_BLOCK = 64


class Near(NamedTuple):
    """Points to which u is compared by differences.

    Attributes:
        number: their numbers.
        product: ``u . x_k - u . x_*`` as the matrix product has it.
        delta, tilt, slope: see :mod:`geonoise_jax.exact.sums`.
        log_weight: logarithms of their probabilities.
    """

    number: Int[Array, "B K"]
    product: Float[Array, "B K"]
    delta: Float[Array, "B K D"]
    tilt: Float[Array, "B K"]
    slope: Float[Array, "B K"]
    log_weight: Float[Array, "B K"]


class Far(NamedTuple):
    """The other points, in rows of ``LANES``: ``u . x_k - u . x_*`` [B, R, L]; |x_k|^2 and log weights [R, L]."""

    product: Float[Array, "B R L"]
    square: Float[Array, "R L"]
    log_weight: Float[Array, "R L"]


class Projection(NamedTuple):
    """What is needed of u at every noise level.

    Attributes:
        deficit, noise: ``o_r`` and b of the reference level, [B, 1]; b = 0 where it is the clean one.
        residual: ``r = u - a_r x_*``, [B, D].
        centre: ``x_*``, [B, D].
        residual2, cross, centre2: ``|r|^2``, ``r . x_*``, ``|x_*|^2``, each [B, 1].
        near: the points of this device that count most at the reference level.
        far: its other points; None if there are none.
    """

    deficit: Float[Array, "B 1"]
    noise: Float[Array, "B 1"]
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
    ranking = jnp.where(log_weight[None] > OUT, signal * product - 0.5 * signal * signal * square[None], -jnp.inf)
    index = _largest(jax.lax.stop_gradient(ranking), num_near)
    deficit = jnp.zeros((len(u), 1), u.dtype)
    others = product if num_near < len(points) else None
    near_product = product[jnp.arange(len(u))[:, None], index]
    return _compared(points, square, log_weight, u, signal, (deficit, deficit), index, near_product, others, axis)


def focus(
    points: Float[Array, "N D"],
    square: Float[Array, "N"],
    log_weight: Float[Array, "N"],
    projection: Projection,
    u: Float[Array, "B D"],
    level: Level,
    signal: float,
    axis: str | None,
) -> Projection:
    """Return a projection whose near points are those that count at one level of each query, [B].

    At high noise they are not the ones nearest to u, and the matrix product is least accurate for what counts most.
    """
    near, far = projection.near, projection.far
    a, b, deficit = level.a[:, None], level.b[:, None], level.deficit[:, None]
    index, near_product = near.number, near.product
    product: Array | None = None
    if far is not None:
        row = jnp.arange(len(u))[:, None]
        product = far.product.reshape(len(u), -1)[:, : len(points)].at[row, index].set(near_product)
        ranking = product - 0.5 * a * (square[None] - projection.centre2) + b * b / a * log_weight[None]
        index = _largest(jax.lax.stop_gradient(ranking), index.shape[1])
        near_product = product[row, index]
    return _compared(points, square, log_weight, u, signal, (deficit, b), index, near_product, product, axis)


def _compared(
    points: Float[Array, "N D"],
    square: Float[Array, "N"],
    log_weight: Float[Array, "N"],
    u: Float[Array, "B D"],
    signal: float,
    reference: tuple[Float[Array, "B 1"], Float[Array, "B 1"]],
    index: Int[Array, "B K"],
    near_product: Float[Array, "B K"],
    product: Float[Array, "B N"] | None,
    axis: str | None,
) -> Projection:
    """Return the projection with these near points.

    Args:
        points, square, log_weight: those of this device.
        u: queries.
        signal: a(0).
        reference: deficit and b of the reference level.
        index: numbers of the near points.
        near_product: ``u . x_k`` of the near points, up to what is the same for all points.
        product: that of all points; None if all are near.
        axis: mesh axis of the points.
    """
    deficit, noise = reference
    a, close = signal - deficit, points[index]
    # The products of all points, the centre included, come from one place: what they have in common cancels.
    centre, its_product = _nearest(close, near_product, u, a, axis)
    # Near the data a x_* rounds to more than the noise that is left; u - a(0) x_* does not.
    residual = (u - signal * centre) + deficit * centre
    delta = close - centre[:, None]
    tilt, slope = (
        _dot(delta, residual[:, None] - 0.5 * a[..., None] * delta),
        _dot(delta, centre[:, None] + 0.5 * delta),
    )
    near = Near(index, near_product - its_product, delta, tilt, slope, log_weight[index])
    residual2, cross, centre2 = (
        _dot(x, y)[:, None] for x, y in ((residual, residual), (residual, centre), (centre, centre))
    )
    far = None if product is None else _far(product - its_product, square, log_weight, index)
    return Projection(deficit, noise, residual, centre, residual2, cross, centre2, near, far)


def _nearest(
    close: Float[Array, "B K D"],
    product: Float[Array, "B K"],
    u: Float[Array, "B D"],
    signal: Float[Array, "B 1"],
    axis: str | None,
) -> tuple[Float[Array, "B D"], Float[Array, "B 1"]]:
    """Return the point of all devices for which ``signal x`` is nearest to u, and its product."""
    apart = jax.lax.stop_gradient(u[:, None] - signal[..., None] * close)
    distance2 = (apart * apart).sum(-1)
    best = jnp.argmin(distance2, axis=1)[:, None]
    centre, its_product = (
        jnp.take_along_axis(close, best[..., None], axis=1)[:, 0],
        jnp.take_along_axis(product, best, axis=1),
    )
    if axis is None:
        return centre, its_product
    distance = jnp.take_along_axis(distance2, best, axis=1)
    here = jax.lax.axis_index(axis)
    holder = jax.lax.pmin(jnp.where(distance == jax.lax.pmin(distance, axis), here, jnp.iinfo(here.dtype).max), axis)
    centre, its_product = (
        jax.lax.psum(jnp.where(holder == here, values, 0.0), axis) for values in (centre, its_product)
    )
    return centre, its_product


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


def _far(
    product: Float[Array, "B N"],
    square: Float[Array, "N"],
    log_weight: Float[Array, "N"],
    index: Int[Array, "B K"],
) -> Far:
    """Lay the points out in rows, so that sums run along whole vectors, and take the near ones out."""
    product = product.at[jnp.arange(len(product))[:, None], index].set(OUT)
    padding = -len(square) % LANES

    def rows(values: Float[Array, "... N"], fill: float) -> Float[Array, "... R L"]:
        widths = [(0, 0)] * (values.ndim - 1) + [(0, padding)]
        return jnp.pad(values, widths, constant_values=fill).reshape(*values.shape[:-1], -1, LANES)

    return Far(rows(product, OUT), rows(square, 0.0), rows(log_weight, OUT))


def thin(projection: Projection, keep: int) -> Projection:
    """Return a projection with about ``keep`` of the far points, spread over all and weighted for the others."""
    if projection.far is None or projection.far.square.size < 2 * keep:
        return projection
    stride = projection.far.square.shape[1] // max(1, keep // projection.far.square.shape[0])
    product, square, log_weight = (
        values[..., ::stride].reshape(*values.shape[:-2], 1, -1) for values in projection.far
    )
    return projection._replace(far=Far(product, square, log_weight + math.log(stride)))


def _dot(x: Float[Array, "... D"], y: Float[Array, "... D"]) -> Float[Array, "..."]:
    """Return ``x . y`` from sums of sums, whose rounding errors do not grow with D."""
    terms = x * y
    terms = jnp.pad(terms, [(0, 0)] * (terms.ndim - 1) + [(0, -terms.shape[-1] % _BLOCK)])
    return terms.reshape(*terms.shape[:-1], -1, _BLOCK).sum(-1).sum(-1)
