"""Classifier-free guidance (Ho & Salimans 2022), on an interval of noise levels if asked (Kynkäänniemi et al. 2024).

The optimum is ``alpha u + beta score`` with coefficients of t alone, so that mixing two predictions with weights that
sum to one mixes their scores: ``f + (w - 1)(f - f_null)`` has the score of ``p(u) (p(u | class) / p(u))^w`` at each t.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from jaxtyping import ArrayLike as ArrayLike

from geonoise_jax.checks import refused
from geonoise_jax.errors import UserError
from geonoise_jax.fields.base import Field, arguments, text
from geonoise_jax.fields.network import NetworkField
from geonoise_jax.process.process import Process, expand


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["field", "scale", "null_field"], meta_fields=["interval"]
)
@dataclasses.dataclass(frozen=True, repr=False)
class GuidedField:
    """A class-conditional field, guided away from the one without classes.

    Attributes:
        field: the field of the classes: a NetworkField with labels, or any Field if ``null_field`` is given.
        scale: guidance weight w; 1 is no guidance, 0 no class. A leaf of the pytree: another value does not retrace.
            A scalar; where the field is called by hand, not in batches by a sampler, it may be one per sample.
        null_field: the field without classes, of the same process. None: that of the same network for its null class,
            in one call on a doubled batch.
        interval: times ``(lo, hi)`` outside of which there is no guidance; None for all times.

    Raises:
        ValueError: if the interval is not two increasing numbers, or given with a scale that is known to be 1, where it
            has no effect; or the two fields are of different processes. When called: if ``null_field`` is None and the
            network has no classes, or no labels were given.
    """

    field: Field
    scale: Float[ArrayLike, "*#b"]
    null_field: Field | None = None
    interval: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """Validate the interval and the pair."""
        if self.interval is not None:
            _check_interval(self.interval)
            if isinstance(self.scale, (int, float)) and self.scale == 1:
                raise UserError(f"GuidedField.interval = {self.interval}: has no effect with scale = 1; leave it out")
        # Pytree utilities put other things than fields here.
        if isinstance(self.field, Field) and isinstance(self.null_field, Field):
            check_same_process("GuidedField", self.field, self.null_field)

    def __repr__(self) -> str:
        """Return what is guided and how much."""
        fields = [type(each).__name__ for each in (self.field, self.null_field) if each is not None]
        return text(self, *fields, scale=self.scale, interval=self.interval)

    @property
    def process(self) -> Process:
        """Schedule and target."""
        return self.field.process

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.field.event_shape

    @property
    def blind(self) -> bool:
        """Whether t is ignored: guidance on an interval looks at it."""
        return self.interval is None and self.field.blind and (self.null_field is None or self.null_field.blind)

    def with_labels(self, labels: Int[Array, "b"] | None) -> GuidedField:
        """Return the same field for a batch of these classes.

        Raises:
            ValueError: if the field of the classes is no network.
        """
        return dataclasses.replace(self, field=_network(self.field).with_labels(labels))

    def __call__(
        self, u: Float[ArrayLike, "b *event"], t: Float[ArrayLike, "*#b"] | None = None
    ) -> Float[Array, "b *event"]:
        """Return the guided prediction of the target; t may be left out if the field is blind."""
        return self._guided(*arguments(self, u, t))

    def _guided(self, u: Float[Array, "b *event"], t: Any) -> Float[Array, "b *event"]:
        conditional, unconditional = self._both(u, t)
        weight = jnp.broadcast_to(jnp.asarray(self.scale, u.dtype), (len(u),))
        if self.interval is not None and t is not None:
            low, high = self.interval
            weight = jnp.where((low <= t) & (t <= high), weight, 1.0)
        return conditional + expand(weight - 1.0, u) * (conditional - unconditional)

    def _both(self, u: Float[Array, "b *event"], t: Any) -> tuple[Float[Array, "b *event"], Float[Array, "b *event"]]:
        if self.null_field is not None:
            return self.field(u, t), self.null_field(u, t)
        network = _network(self.field)
        if network.null_label is None or network.labels is None:
            raise refused("GuidedField.null_field", None, "a field, as the network has no classes or no labels")
        labels = jnp.concatenate([network.labels, jnp.full_like(network.labels, network.null_label)])
        both = network.with_labels(labels)(jnp.concatenate([u, u]), None if t is None else jnp.concatenate([t, t]))
        return both[: len(u)], both[len(u) :]


def _check_interval(interval: tuple[float, ...]) -> None:
    pair = len(interval) == 2 and all(isinstance(each, (int, float)) for each in interval)
    if not (pair and interval[0] < interval[1]):
        raise refused("GuidedField.interval", interval, "(lo, hi) with lo < hi")


def check_same_process(owner: str, first: Field, second: Field) -> None:
    """Require that two fields predict the same thing.

    Raises:
        ValueError: if they differ in process or in event shape.
    """
    for name in ("process", "event_shape"):
        values = getattr(first, name), getattr(second, name)
        if values[0] != values[1]:
            raise UserError(f"{owner}: the fields must not differ in {name}, {values[0]} and {values[1]}")


def _network(field: Field) -> NetworkField:
    if not isinstance(field, NetworkField):
        raise UserError(f"GuidedField.field = {type(field).__name__}: must be a NetworkField, the one with labels")
    return field
