r"""Drift perturbation: how far the sampling velocities of two fields of one process are apart, in four units.

Equations of "The Geometry of Noise" (arXiv:2602.18428), e = |f_A - f_B| the estimation error:

(22, 64)  Delta v = |nu| e                                  per unit t
(P1)      |nu / b'| e                                       per unit b: what is left once the clock is the noise itself
(P2)      |omega| e,  omega of ``Process.step``             of one discrete step, which needs no clock at all

The choice of the time variable multiplies (22) by dt / dt', and so can make it diverge or vanish; (P1) and (P2) do not
know it. Any two fields serve: exact blind and exact conditional, trained blind and trained conditional, trained and
exact.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from jaxtyping import ArrayLike as ArrayLike

from geonoise_jax import checks
from geonoise_jax.fields import Field
from geonoise_jax.fields.guidance import check_same_process
from geonoise_jax.process.process import Process, expand


class Perturbation(NamedTuple):
    """How far two fields are apart.

    Attributes:
        estimation: ``|f_A - f_B|``, in units of the target.
        per_time: (22), length per unit t.
        per_noise: (P1), length per unit b.
    """

    estimation: Float[Array, "*b"]
    per_time: Float[Array, "*b"]
    per_noise: Float[Array, "*b"]


def perturbation(field: Field, other: Field, u: Float[Array, "b *event"], t: Float[ArrayLike, "*#b"]) -> Perturbation:
    """Return how far two fields of one process are apart at observations of known noise levels.

    Args:
        field: any Field, such as the exact blind one.
        other: any Field of the same process, such as the exact conditional one.
        u: observations; on the trajectory they are ``process.corrupt(x, eps, t)``, at a fixed distance from a datum
            :func:`at_distance`.
        t: their noise levels, one each or one for all.

    Returns:
        Arrays [b].

    Raises:
        ValueError: if the fields differ in process or event shape, or u are no events of theirs.
    """
    check_same_process("perturbation", field, other)
    times = jnp.broadcast_to(jnp.asarray(t, u.dtype), (len(u),))
    return in_units(field.process, distance(field(u, times), other(u, times)), times)


def in_units(process: Process, estimation: Float[Array, "*b"], t: Float[ArrayLike, "*#b"]) -> Perturbation:
    """Return an estimation error at noise levels t in all units, (22) and (P1).

    The last is infinite where b' = 0.
    """
    times = jnp.broadcast_to(jnp.asarray(t, estimation.dtype), estimation.shape)
    _, nu = process.velocity_coeffs(times)
    return Perturbation(estimation, jnp.abs(nu) * estimation, jnp.abs(nu / process.coeffs(times).db) * estimation)


def of_steps(
    process: Process, estimation: Float[Array, "steps *b"], times: Float[Array, "steps+1"]
) -> Float[Array, "steps *b"]:
    """Return the error that each step of a grid adds, (P2), a length.

    Args:
        process: schedule and target.
        estimation: ``|f_A - f_B|`` at ``times[:-1]``.
        times: grid, decreasing.

    Raises:
        ValueError: if there is not one estimation error for each step.
    """
    checks.shape("estimation", estimation, (len(times) - 1, *(["b"] * (estimation.ndim - 1))))
    _, omega = process.step(times[1:], times[:-1])
    return jnp.abs(expand(omega, estimation)) * estimation


class AlongPath(NamedTuple):
    """How far two fields are apart along a sampler's path.

    Attributes:
        perturbation: at every time of the path, arrays [times, b].
        steps: what each discrete step adds, (P2).
    """

    perturbation: Perturbation
    steps: Float[Array, "times-1 b"]


def along_path(
    field: Field, other: Field, path: Float[Array, "times b *event"], times: Float[Array, "times"]
) -> AlongPath:
    """Return how far two fields are apart along a path, such as that of :func:`geonoise_jax.sampling.trajectory`.

    Args:
        field, other: two Fields of one process.
        path: observations at every time.
        times: decreasing times.

    Raises:
        ValueError: if the fields differ in process or event shape, or there is not one time for each observation.
    """
    checks.shape("times", times, (len(path),))
    found = jax.lax.map(lambda at: perturbation(field, other, *at), (path, times.astype(path.dtype)))
    return AlongPath(found, of_steps(field.process, found.estimation[:-1], times.astype(path.dtype)))


def at_distance(
    x: Float[Array, "b *event"], direction: Float[Array, "b *event"], radius: Float[ArrayLike, "*#b"]
) -> Float[Array, "b *event"]:
    """Return points at a distance from data, ``x + radius direction / |direction|``.

    Args:
        x: data.
        direction: any vectors that are not zero.
        radius: distances, one each or one for all.
    """
    lengths = jnp.broadcast_to(jnp.asarray(radius, x.dtype), (len(x),)) / distance(direction, jnp.zeros_like(direction))
    return x + expand(lengths, x) * direction


def distance(first: Float[Array, "b *event"], second: Float[Array, "b *event"]) -> Float[Array, "b"]:
    """Return the Euclidean distance of each pair of events."""
    return jnp.sqrt(jnp.square(first - second).reshape(len(first), -1).sum(-1))


class Rms(NamedTuple):
    """Root mean square over draws, and its standard error to first order.

    Attributes:
        value: root of the mean square.
        error: standard error.
    """

    value: Float[Array, "*k"]
    error: Float[Array, "*k"]


def rms(values: Float[Array, "*k b"]) -> Rms:
    """Return the root mean square of independent draws along the last axis, at least 2.

    Computed relative to the largest, so that values below the root of the smallest number keep their accuracy.

    Raises:
        ValueError: if there is one draw only, whose scatter is unknown.
    """
    checks.integer("draws", values.shape[-1], low=2)
    top = jnp.abs(values).max(-1, keepdims=True)
    squares = jnp.square(values / jnp.where(top > 0.0, top, 1.0))
    mean = squares.mean(-1)
    error = squares.std(-1, ddof=1) / jnp.sqrt(float(values.shape[-1]))
    root, scale = jnp.sqrt(mean), top[..., 0]
    return Rms(scale * root, scale * error / (2.0 * jnp.where(root > 0.0, root, 1.0)))
