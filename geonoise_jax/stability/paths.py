"""What errors become along a sampler: the measured radial factor, and the bound of Sun et al. beside the real error.

Sun et al. (2025), "Is noise conditioning necessary for denoising generative models?" (arXiv:2502.13129), bound what a
blind field R adds to the sample of a conditional one. With u_{i+1} = kappa_i u_i + omega_i f(u_i),

(S1)  |u - u'| at the end <= sum_i A_i B_i,   A_i = prod_{j > i} (|kappa_j| + |omega_j| L_j),   B_i = |omega_i| delta_i

where delta_i is the distance of the two fields at the blind path and L_j a Lipschitz constant of the conditional field
between both paths. Here both are measured: L_j is the largest spectral norm of the Jacobian, by power iteration, at
points of the segment between the two paths.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key
from jaxtyping import ArrayLike as ArrayLike

from geonoise_jax import checks
from geonoise_jax.fields import Field
from geonoise_jax.fields.guidance import check_same_process
from geonoise_jax.process.process import expand
from geonoise_jax.sampling import trajectory
from geonoise_jax.stability.perturbation import distance


class Bound(NamedTuple):
    """The bound (S1), sample by sample.

    Attributes:
        amplification: ``A_i``.
        perturbation: ``B_i``, a length.
        lipschitz: ``L_i``, in units of the target per length.
        bound: ``sum_i A_i B_i``.
        realised: how far the two samples really are apart.
    """

    amplification: Float[Array, "steps b"]
    perturbation: Float[Array, "steps b"]
    lipschitz: Float[Array, "steps b"]
    bound: Float[Array, "b"]
    realised: Float[Array, "b"]


def error_bound(
    field: Field,
    other: Field,
    u: Float[Array, "b *event"],
    times: Float[Array, "steps+1"],
    key: Key[Array, ""],
    *,
    iterations: int = 20,
    points: int = 3,
) -> Bound:
    """Return the bound (S1) of the distance between the samples of two fields, and that distance.

    Args:
        field: the field whose path is followed, such as the blind one.
        other: the field that it is compared with, such as the conditional one of the same process.
        u: observations at ``times[0]``, where both start.
        times: grid, decreasing; both fields are sampled by the discrete step (DDIM).
        key: PRNG key of the starts of power iteration.
        iterations: of power iteration, which approaches a spectral norm from below.
        points: points of the segment between the two paths, its ends included, at which the Jacobian is measured.

    Raises:
        ValueError: if the fields differ in process or event shape, or a number is too small.
    """
    check_same_process("error_bound", field, other)
    checks.integer("points", points, low=1)
    times = times.astype(u.dtype)
    path, beside = (trajectory("ddim", each, u, times) for each in (field, other))
    kappa, omega = field.process.step(times[1:], times[:-1])
    weights = jnp.linspace(0.0, 1.0, points, dtype=u.dtype)

    def step(at: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        here, there, t = at
        level = jnp.full(len(here), t, here.dtype)
        delta = distance(field(here, level), other(here, level))
        norms = [spectral_norm(other, here + w * (there - here), level, key, iterations=iterations) for w in weights]
        return delta, jnp.stack(norms).max(0)

    delta, lipschitz = jax.lax.map(step, (path[:-1], beside[:-1], times[:-1]))
    growth = jnp.abs(expand(kappa, lipschitz)) + jnp.abs(expand(omega, lipschitz)) * lipschitz
    later = jnp.cumprod(growth[::-1], axis=0)[::-1]
    amplification = jnp.concatenate([later[1:], jnp.ones_like(later[:1])])
    perturbation = jnp.abs(expand(omega, delta)) * delta
    bound = (amplification * perturbation).sum(0)
    return Bound(amplification, perturbation, lipschitz, bound, distance(path[-1], beside[-1]))


def spectral_norm(
    field: Field,
    u: Float[Array, "b *event"],
    t: Float[ArrayLike, "*#b"],
    key: Key[Array, ""],
    *,
    iterations: int = 20,
) -> Float[Array, "b"]:
    """Return the spectral norm of the Jacobian df/du of each observation, by power iteration on ``J^T J``.

    It is the local Lipschitz constant of the field, approached from below.

    Args:
        field: any Field that can be differentiated.
        u: observations.
        t: noise levels, one each or one for all.
        key: PRNG key of the start.
        iterations: products with ``J^T J``.

    Raises:
        ValueError: if there are no iterations.
    """
    checks.integer("iterations", iterations, low=1)
    times = jnp.broadcast_to(jnp.asarray(t, u.dtype), (len(u),))

    def at(u: Array) -> Array:
        return field(u, times)

    value, push = jax.linearize(at, u)
    pull = jax.linear_transpose(push, jnp.zeros_like(value))

    def iterate(_: Array, v: Array) -> Array:
        return _unit(pull(push(v))[0])

    v = jax.lax.fori_loop(0, iterations, iterate, _unit(jax.random.normal(key, u.shape, u.dtype)))
    return distance(push(v), jnp.zeros_like(value))


class Radial(NamedTuple):
    """What becomes of an error of the distance to a datum.

    Attributes:
        factor: ratio of the error at the end to that at the start.
        radius: distance to the datum at the end, without the error.
    """

    factor: Float[Array, "b"]
    radius: Float[Array, "b"]


def measured_radial_factor(
    field: Field,
    x: Float[Array, "b *event"],
    eps: Float[Array, "b *event"],
    times: Float[Array, "times"],
    *,
    size: float = 0.01,
    solver: str = "heun",
) -> Radial:
    """Return what a sampler makes of an error of the radius, beside which ``local.radial_factor`` is to be held.

    Two samples start at ``a x + b (1 +- size) eps`` and go down the grid; the ratio is that of the difference of their
    distances to ``a x``.

    Args:
        field: any Field; a blind one keeps or amplifies what a conditional one forgets.
        x: data.
        eps: noise of the start, which is that of ``times[0]``.
        times: grid, decreasing.
        size: relative error of the radius at the start.
        solver: see :func:`geonoise_jax.sampling.trajectory`.

    Raises:
        ValueError: if the size is not in (0, 1), or the solver is unknown.
    """
    size = checks.real("size", size, low=0.0, high=1.0, open_low=True, open_high=True)
    times = times.astype(x.dtype)
    process = field.process
    starts = [process.corrupt(x, (1.0 + sign * size) * eps, times[0]) for sign in (-1.0, 1.0)]
    ends = [trajectory(solver, field, start, times)[-1] for start in starts]
    radii = [
        [distance(u, process.coeffs(t).a * x) for u in pair] for pair, t in ((starts, times[0]), (ends, times[-1]))
    ]
    (low, high), (low_end, high_end) = radii
    return Radial((high_end - low_end) / (high - low), 0.5 * (low_end + high_end))


def _unit(v: Float[Array, "b *event"]) -> Float[Array, "b *event"]:
    length = distance(v, jnp.zeros_like(v))
    return v / expand(jnp.where(length > 0.0, length, 1.0), v)
