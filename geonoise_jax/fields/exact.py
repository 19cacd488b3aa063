"""The Bayes-optimal fields of a known data distribution, as Fields."""

from __future__ import annotations

import dataclasses
import functools
from typing import Protocol, runtime_checkable

import jax
from jaxtyping import Array, Float
from jaxtyping import ArrayLike as ArrayLike

from geonoise_jax.fields.base import arguments
from geonoise_jax.process.process import Process


@runtime_checkable
class ExactMarginal(Protocol):
    """What :class:`ExactField` needs of ``exact.marginal.Marginal``."""

    @property
    def process(self) -> Process:
        """Schedule and target."""

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one event."""

    def field(self, u: Float[Array, "b *event"]) -> Float[Array, "b *event"]:
        """Blind optimum f*(u), equation (6)."""

    def conditional_field(self, u: Float[Array, "b *event"], t: Float[Array, "b"]) -> Float[Array, "b *event"]:
        """Conditional optimum f_t(u), equation (5)."""


@functools.partial(jax.tree_util.register_dataclass, data_fields=["marginal"], meta_fields=["blind"])
@dataclasses.dataclass(frozen=True, repr=False)
class ExactField:
    """The Bayes-optimal field of a known data distribution.

    Attributes:
        marginal: an ``exact.marginal.Marginal``.
        blind: True for f*(u) = E[f_t(u) | u], False for f_t(u).
    """

    marginal: ExactMarginal
    blind: bool = True

    def __repr__(self) -> str:
        """Return the law and the kind of optimum."""
        return f"ExactField({self.marginal!r}, blind={self.blind})"

    @property
    def process(self) -> Process:
        """Schedule and target of the marginal."""
        return self.marginal.process

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one event of the data distribution."""
        return self.marginal.event_shape

    def __call__(
        self, u: Float[ArrayLike, "b *event"], t: Float[ArrayLike, "*#b"] | None = None
    ) -> Float[Array, "b *event"]:
        """Return f*(u), for which t may be left out, or f_t(u).

        A marginal compiles its parts by itself. As a whole it is not compiled: only where it sees its numbers can it
        compute again those that are not accurate enough.
        """
        at = arguments(self, u, t)
        return self.marginal.field(at[0]) if self.blind else self.marginal.conditional_field(*at)
