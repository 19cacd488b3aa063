r"""Sums over the points of a finite set, accurate near the data and fast far from it.

With * one of the points for which a x is nearest to u, delta_k = x_k - x_*, and a reference level a_r,
o_r = a(0) - a_r, h = a_r - a = o - o_r:

(34)  w_k(u, t) = pi_k exp(z_k) / sum_j pi_j exp(z_j),
      z_k = (|u - a x_*|^2 - |u - a x_k|^2) / 2 b^2
          = (a / b^2) (tilt_k + h slope_k)                              near points, by differences
            tilt_k = delta_k . (r - a_r delta_k / 2),  slope_k = delta_k . (x_* + delta_k / 2)
          = (a / b^2) (u . x_k - u . x_* - a (|x_k|^2 - |x_*|^2) / 2)   the others, by one matrix product
      |u - a x_*|^2 = |r|^2 + 2 h r . x_* + h^2 |x_*|^2,  r = u - a_r x_*
(35)  D_t = x_* + sum_k w_k delta_k,  R_t = u - a D_t = r + h x_* - a sum_k w_k delta_k

At the reference level the first form of z has no cancellation; the second is off by 1e-7 |u| |x| / b^2 in float32,
which is harmless once b is large enough for many points to matter. A sum over noise levels t of any multiple of D_t and
R_t needs the weights only through ``sum_t (alpha - a beta)_t w_tk``: one more matrix product, however many levels there
are.

All functions work on the points of one device; ``axis`` names the mesh axis over which the others are, if any.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from geonoise_jax.exact.base import LOG_2PI, Level, Scores
from geonoise_jax.exact.projection import HIGHEST, Far, Projection, thin
from geonoise_jax.exact.quadrature import ORDER
from geonoise_jax.exact.turns import in_turns

_SAMPLE = 1024
_HEADROOM = 30.0
_TIE = 1e-5
_ABOUT = 1.5


def scores(projection: Projection, level: Level, used: Bool[Array, "B T"] | None, axis: str | None) -> Scores:
    """Return log p(u | t), with the log normalisers of the weights, [B, T], in its cache; 0 at levels not used."""
    if used is None:
        return _scores(projection, level, jnp.ones(level.b.shape[1], bool), axis)
    return in_turns(lambda few, rows: _scores(few, rows[0], rows[1].any(axis=0), axis), projection, (level, used))


def _scores(projection: Projection, level: Level, used: Bool[Array, "T"], axis: str | None) -> Scores:
    dim = projection.centre.shape[1]
    sample = thin(projection, _SAMPLE).far

    def log_sum(group: tuple[Array, Level]) -> tuple[Array, ...]:
        any_used, at = group
        found = jax.checkpoint(lambda at: _log_sum(projection, sample, at, axis))
        zero = jnp.zeros_like(at.b)
        return jax.lax.cond(any_used, found, lambda _: (zero, zero, zero), at)

    groups = jax.lax.map(log_sum, (_grouped(used, fill=False).any(axis=1), Level(*map(_grouped, level))))
    normaliser, blur, mixing = (values.reshape(-1, len(level.b))[: level.b.shape[1]].T for values in groups)
    own, terms, reference = _own_density(projection, level)
    offset = -dim * jnp.log(reference.b) - 0.5 * _distance2(projection, reference) / reference.b**2
    length = jax.lax.stop_gradient(jnp.sqrt(projection.centre2[:, 0]))
    grain = float(jnp.finfo(own.dtype).eps) * jax.lax.stop_gradient(terms)
    return Scores(normaliser + own, offset[:, 0] - 0.5 * dim * LOG_2PI, normaliser, blur, grain, mixing, length)


def _own_density(projection: Projection, level: Level) -> tuple[Float[Array, "B T"], Float[Array, "B T"], Level]:
    """Return the log density of the centre alone, relative to the one at its likeliest level, its terms, that level.

    The two parts of its change are of size D, and so would be their rounding if the whole were formed at every level.
    """
    dim = projection.centre.shape[1]
    height = -0.5 * _distance2(projection, level) / level.b**2 - dim * jnp.log(level.b)
    likeliest = jnp.argmax(jax.lax.stop_gradient(height), axis=1)[:, None]
    at = Level(*(jnp.take_along_axis(values, likeliest, axis=1) for values in level))
    step, raised = (level.b - at.b) / at.b, level.deficit - at.deficit
    both = (level.deficit - projection.deficit) + (at.deficit - projection.deficit)
    change = raised * (2.0 * projection.cross + both * projection.centre2)
    rest = _distance2(projection, at) / at.b**2
    shrink = step * (2.0 + step) / (1.0 + step) ** 2
    nearer, farther, wider = 0.5 * rest * shrink, 0.5 * change / (level.b * level.b), dim * jnp.log1p(step)
    # Terms that cancel leave their rounding.
    return nearer - farther - wider, jnp.abs(nearer) + jnp.abs(farther) + jnp.abs(wider), at


def _distance2(projection: Projection, level: Level) -> Float[Array, "B n"]:
    """Return ``|u - a x_*|^2``."""
    h = level.deficit - projection.deficit
    return projection.residual2 + h * (2.0 * projection.cross + h * projection.centre2)


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
    rows = level, normaliser, jnp.moveaxis(coefficient, 0, 1)
    summed = in_turns(lambda few, rows: _summed_weights(few, *rows), projection, rows)
    near, far = jax.tree.map(lambda values: jnp.moveaxis(values, 1, 0), summed)
    moved = jnp.einsum("jbk,bkd->jbd", near, projection.near.delta, precision=HIGHEST)
    if far is not None:
        flat = far.reshape(far.shape[0] * far.shape[1], -1)[:, : len(points)]
        product = jnp.dot(flat, points, precision=HIGHEST).reshape(moved.shape)
        moved += product - flat.sum(-1).reshape(*moved.shape[:2], 1) * projection.centre[None]
    if axis is not None:
        moved = jax.lax.psum(moved, axis)
    centre = (alpha + beta * (level.deficit - projection.deficit)[None]).sum(-1)[..., None]
    return moved + centre * projection.centre[None] + beta.sum(-1)[..., None] * projection.residual[None]


def _near_exponents(projection: Projection, at: Level) -> Float[Array, "g B K"]:
    """Return ``log pi_k + z_k`` of the near points at levels [g, B], by differences."""
    near, a, b, deficit = projection.near, *(values[..., None] for values in at)
    inner = near.tilt[None] + (deficit - projection.deficit[None]) * near.slope[None]
    return near.log_weight[None] + a / (b * b) * inner


def _far_exponents(projection: Projection, far: Far, at: Level) -> Float[Array, "g B R L"]:
    """Return ``log pi_k + z_k`` of the other points at levels [g, B], from the matrix product."""
    a, b = (values[..., None, None] for values in (jnp.maximum(at.a, jnp.finfo(at.a.dtype).eps ** 2), at.b))
    square = far.square[None] - projection.centre2[..., None]
    return a / (b * b) * (far.product[None] - 0.5 * a * square[None]) + far.log_weight[None, None]


def _log_sum(
    projection: Projection, sample: Far | None, at: Level, axis: str | None
) -> tuple[Float[Array, "g B"], Float[Array, "g B"], Float[Array, "g B"]]:
    """Return ``log sum_k pi_k exp(z_k)`` at levels [g, B], over all devices, and by how many nats it may be blurred.

    The last is by how much it may shift the weights of points against each other.
    """
    near = _near_exponents(projection, at)
    top = near.max(-1)
    if sample is not None:
        top = jnp.maximum(top, _far_exponents(projection, sample, at).max((-2, -1)))
    top = jax.lax.stop_gradient(top)
    total, far = jnp.exp(near - top[..., None]).sum(-1), jnp.zeros_like(top)
    if projection.far is not None:
        total, top, far = _add_far(projection, projection.far, at, total, top)
    log_sum = _over_devices(top, total, axis)
    blurs = _blur(projection, at, near, log_sum, far * jnp.exp(top - log_sum), axis)
    return log_sum, *jax.lax.stop_gradient(blurs)


def _blur(
    projection: Projection,
    at: Level,
    near: Float[Array, "g B K"],
    log_sum: Float[Array, "g B"],
    share: Float[Array, "g B"],
    axis: str | None,
) -> tuple[Float[Array, "g B"], Float[Array, "g B"]]:
    """Return the rounding errors of exponents, in nats, averaged over the points by weight, and those that mix.

    Where one point has all the weight no rounding takes it away.

    Those of the near points are of the size of their two terms. Those of the others, whose weight is ``share``, are
    of the size of ``|u| |x|``; being independent, they average out over many points. About the reference level
    there are at least ``share / w``, w the weight of the last near point, above which no other can be; elsewhere there
    may be one. Duplicates round alike: where the last near point has some, all others may be.
    """
    weight, rate = jnp.exp(near - log_sum[..., None]), at.a / (at.b * at.b)
    h = jnp.abs(at.deficit - projection.deficit[None, :, 0])[..., None]
    terms = jnp.abs(projection.near.tilt)[None] + h * jnp.abs(projection.near.slope)[None]
    rounded, last, most = (weight * terms).sum(-1), weight.min(-1), weight.max(-1)
    alike = (near <= near.min(-1, keepdims=True) + _TIE).sum(-1) > 1
    elsewhere = (at.b > _ABOUT * projection.noise[None, :, 0]) | (_ABOUT * at.b < projection.noise[None, :, 0])
    # More than as many points can have together: the near ones are not those that count most here.
    others_count = 0 if projection.far is None else projection.far.square.size
    misplaced = share > others_count * last
    last = jnp.where(alike | elsewhere | misplaced, 1.0, last)
    if axis is not None:
        rounded, share = jax.lax.psum(rounded, axis), jax.lax.psum(share, axis)
        last, most = jax.lax.pmax(last, axis), jax.lax.pmax(most, axis)
    length = jnp.sqrt(projection.centre2[:, 0])
    product = (jnp.sqrt(projection.residual2[:, 0]) + length) * length
    others = jnp.sqrt(share * jnp.minimum(last, share)) * product[None]
    unit = float(jnp.finfo(near.dtype).eps) * rate
    return unit * (rounded + others), unit * (jnp.clip(2.0 * (1.0 - most), 0.0, 1.0) * rounded + others)


def _over_devices(top: Float[Array, "g B"], total: Float[Array, "g B"], axis: str | None) -> Float[Array, "g B"]:
    """Return ``log(exp(top) total)`` summed over all devices."""
    if axis is None:
        return top + jnp.log(total)
    highest = jax.lax.pmax(top, axis)
    return highest + jnp.log(jax.lax.psum(total * jnp.exp(top - highest), axis))


def _add_far(
    projection: Projection, far: Far, at: Level, total: Float[Array, "g B"], top: Float[Array, "g B"]
) -> tuple[Float[Array, "g B"], Float[Array, "g B"], Float[Array, "g B"]]:
    """Add the far points' ``exp(z - top)`` to ``total``; return it, ``top``, raised where the sum overflows, and them.

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
    return sums + total * jnp.exp(top - high), high, sums


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
    coefficient: Float[Array, "B J T"],
) -> tuple[Float[Array, "B J K"], Float[Array, "B J R L"] | None]:
    """Return ``sum_t coefficient_t w_tk`` of the near and of the other points.

    Levels are taken in groups whose exponentials one fused loop adds up while the scores pass through the cache once.
    """
    far = projection.far
    num = coefficient.shape[1]

    def add_group(totals: tuple[Array, Array | None], group: tuple[Level, Array, Array]) -> tuple[Array, Array | None]:
        near_sum, far_sum = totals
        levels, log_norm, factor = group
        weight = jnp.exp(_near_exponents(projection, levels) - log_norm[..., None])
        near_sum += jnp.einsum("gbj,gbk->bjk", factor, weight, precision=HIGHEST)
        if far is not None and far_sum is not None:
            for i in range(len(log_norm)):
                at = Level(*(values[i : i + 1] for values in levels))
                weight = jnp.exp(_far_exponents(projection, far, at) - log_norm[i][None, :, None, None])
                far_sum += factor[i][..., None, None] * weight[0][:, None]
        return near_sum, far_sum

    def add_used(totals: tuple[Array, Array | None], group: tuple[Level, Array, Array]) -> tuple[tuple, None]:
        return jax.lax.cond(
            jnp.any(group[2] != 0.0), jax.checkpoint(add_group), lambda same, _: same, totals, group
        ), None

    batch, near = projection.near.tilt.shape
    near_sum = jnp.zeros((batch, num, near), normaliser.dtype)
    far_sum = None if far is None else jnp.zeros((batch, num, *far.product.shape[1:]), normaliser.dtype)
    groups = (Level(*map(_grouped, level)), _grouped(normaliser), _grouped(coefficient, fill=0.0))
    return jax.lax.scan(add_used, (near_sum, far_sum), groups)[0]


def _grouped(values: Float[Array, "... T"], fill: float | None = None) -> Float[Array, "G g ..."]:
    """Cut the last axis into groups in front; the last group is filled up with its last level, or with ``fill``."""
    num = values.shape[-1]
    group = -(-num // -(-num // ORDER))
    widths = [(0, 0)] * (values.ndim - 1) + [(0, -num % group)]
    padded = jnp.pad(values, widths, mode="edge") if fill is None else jnp.pad(values, widths, constant_values=fill)
    return jnp.moveaxis(padded, -1, 0).reshape(-1, group, *values.shape[:-1])
