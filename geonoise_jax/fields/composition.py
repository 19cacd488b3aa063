"""Sums of fields: the composition of models by adding their energies (Du et al. 2023; Wang & Du 2025)."""

from __future__ import annotations

import collections
import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from jaxtyping import ArrayLike as ArrayLike

from geonoise_jax.checks import refused
from geonoise_jax.errors import UserError
from geonoise_jax.fields.base import EnergyField, Field, arguments, text
from geonoise_jax.fields.guidance import check_same_process
from geonoise_jax.process.process import Process


@functools.partial(jax.tree_util.register_dataclass, data_fields=["fields", "weights"], meta_fields=[])
@dataclasses.dataclass(frozen=True, repr=False)
class SumField:
    """The weighted sum of fields of one process.

    What it means depends on the fields:

    * gradients of energies (EqM-E, and EqM as far as it is one): the gradient of the weighted sum of the energies, a
      product of experts, for any weights;
    * conditional fields of a target with c = 0 (Noise, Score): the field of the product of the densities p_i(u | t) to
      the powers of the weights, at each t. That is not the diffusion of a product of the data densities;
    * conditional fields of other targets, ``f_t = (c / a) u + lambda grad E_t``: the same if the weights sum to one.

    Attributes:
        fields: fields of one process and event shape.
        weights: one weight per field, [k]; leaves of the pytree.

    Raises:
        ValueError: if there is no field, the fields differ in process or event shape, or there is another number of
            weights.
    """

    fields: tuple[Field, ...]
    weights: Float[Array, "k"] | tuple[Float[ArrayLike, ""], ...]

    def __post_init__(self) -> None:
        """Validate that the fields can be added."""
        if not self.fields:
            raise UserError("SumField.fields = (): must hold at least one field")
        # Pytree utilities put other things than fields and weights here.
        if all(isinstance(field, Field) for field in self.fields):
            for other in self.fields[1:]:
                check_same_process("SumField", self.fields[0], other)
        if isinstance(self.weights, (tuple, jax.Array)) and _shape(self.weights) != (len(self.fields),):
            raise refused("SumField.weights", self.weights, f"{len(self.fields)} numbers, one per field")

    def __repr__(self) -> str:
        """Return the kinds of fields and their weights."""
        kinds = collections.Counter(type(field).__name__ for field in self.fields)
        summands = [f"{count} {kind}" for kind, count in kinds.items()]
        return text(self, *summands, weights=self.weights)

    @property
    def process(self) -> Process:
        """Schedule and target."""
        return self.fields[0].process

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.fields[0].event_shape

    @property
    def blind(self) -> bool:
        """Whether all of the fields are blind."""
        return all(field.blind for field in self.fields)

    def __call__(
        self, u: Float[ArrayLike, "b *event"], t: Float[ArrayLike, "*#b"] | None = None
    ) -> Float[Array, "b *event"]:
        """Return the weighted sum of the predictions; t may be left out if all fields are blind."""
        at = arguments(self, u, t)
        return self._weighted([field(*at) for field in self.fields])

    def with_labels(self, labels: Int[Array, "b"] | None) -> SumField:
        """Return the same sum, with these classes for every field that has classes.

        Raises:
            ValueError: if none has.
        """
        if not any(hasattr(field, "with_labels") for field in self.fields):
            raise UserError("SumField.fields: one of them must have classes to take labels")
        labelled = tuple(field.with_labels(labels) if hasattr(field, "with_labels") else field for field in self.fields)
        return dataclasses.replace(self, fields=labelled)

    def energy(self, u: Float[Array, "b *event"], t: Float[Array, "b"] | None = None) -> Float[Array, "b"]:
        """Return the weighted sum of the energies, of which the field is the gradient.

        Raises:
            ValueError: if one of the fields has no energy.
        """
        energies = [field for field in self.fields if isinstance(field, EnergyField)]
        if len(energies) < len(self.fields):
            raise UserError("SumField.fields: all of them must have an energy")
        return self._weighted([field.energy(u, t) for field in energies])

    def _weighted(self, values: list[Float[Array, "b ..."]]) -> Float[Array, "b ..."]:
        weights = jnp.asarray(self.weights, values[0].dtype)
        terms = [weight * value for weight, value in zip(weights, values, strict=True)]
        return sum(terms[1:], start=terms[0])


def _shape(weights: Array | tuple[Float[ArrayLike, ""], ...]) -> tuple[int, ...]:
    return (len(weights),) if isinstance(weights, tuple) else weights.shape
