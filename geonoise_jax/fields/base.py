"""The Field protocol.

A field maps observations u and their noise levels t to predictions of the target, r = c x + d eps. A *blind* field
(autonomous, f* in equation (6) of the paper) ignores t; a *conditional* one is f_t of equation (5).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from jaxtyping import ArrayLike as ArrayLike

from geonoise_jax.checks import shown
from geonoise_jax.errors import UserError
from geonoise_jax.process.process import Process

Method = TypeVar("Method", bound=Callable[..., Any])


@runtime_checkable
class Field(Protocol):
    """A prediction of the target of ``process`` at (u, t).

    Implementations are pytrees whose static part is hashable, so that a jitted sampler takes any of them and new
    parameter values cause no retrace. Those of this package also take one noise level for all observations, and none
    if they are blind: ``field(u)``.
    """

    @property
    def process(self) -> Process:
        """Schedule and target that the field belongs to."""

    @property
    def blind(self) -> bool:
        """Whether the field ignores t."""

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""

    def __call__(self, u: Float[Array, "b *event"], t: Float[Array, "b"]) -> Float[Array, "b *event"]:
        """Return the predicted target ``r`` for observations u at noise levels t."""


@runtime_checkable
class EnergyField(Field, Protocol):
    """A field whose prediction is the gradient of a scalar."""

    def energy(self, u: Float[Array, "b *event"], t: Float[Array, "b"] | None = None) -> Float[Array, "b"]:
        """Return the scalar."""


def arguments(
    field: Field, u: Float[ArrayLike, "b *event"], t: Float[ArrayLike, "*#b"] | None
) -> tuple[Float[Array, "b *event"], Any]:
    """Return what a field was called with as arrays: observations, and one noise level each.

    Args:
        field: the field that is called.
        u: observations.
        t: noise levels, one each or one for all; None, which stays None, for a blind field.

    Raises:
        ValueError: if u are no events of the field, t has another length, or is left out of a conditional field.
    """
    u = jnp.asarray(u)
    if u.shape[1:] != tuple(field.event_shape) or u.ndim == 0:
        wanted = ", ".join(["b", *map(str, field.event_shape)])
        raise UserError(f"u.shape = {list(u.shape)}: must be [{wanted}], observations of this {type(field).__name__}")
    if t is None:
        if not field.blind:
            raise UserError(
                f"t = None: must be the noise levels, one or [b], as this {type(field).__name__} is conditional"
            )
        return u, None
    t = jnp.asarray(t)
    if t.shape not in ((), (len(u),)):
        raise UserError(f"t.shape = {list(t.shape)}: must be [] or [{len(u)}], one noise level for each observation")
    dtype = t.dtype if jnp.issubdtype(t.dtype, jnp.floating) else u.dtype
    return u, jnp.broadcast_to(t.astype(dtype), (len(u),))


def compiled(method: Method) -> Method:
    """Compile a method of a field where it is called by hand: on known arrays, outside of any jitted function.

    Another field of the same structure, such as one with new parameters, and other numbers take the same program.
    """
    program = jax.jit(method)

    @functools.wraps(method)
    def call(field: Field, u: Any, t: Any = None, **options: Any) -> Any:
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((field, u, t)))
        return method(field, u, t, **options) if traced or options else program(field, u, t)

    return call  # type: ignore[return-value]


def text(field: Field, *parts: str, **settings: Any) -> str:
    """Return the repr of a field: parts as they are, the process, settings by name."""
    named = {**settings, "event_shape": field.event_shape, "blind": field.blind}
    inside = [*parts, repr(field.process), *(f"{name}={shown(value)}" for name, value in named.items())]
    return f"{type(field).__name__}({', '.join(inside)})"
