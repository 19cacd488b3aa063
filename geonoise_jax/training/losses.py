"""The regression loss, equation (4): E w(t) || f(u) - (c x + d eps) ||^2, as a mean over events and their entries."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from geonoise_jax.errors import UserError
from geonoise_jax.fields import NetworkField
from geonoise_jax.process.times import TimeLaw
from geonoise_jax.process.weights import LossWeight


class Draws(NamedTuple):
    """Everything random about the loss of one batch of n samples, drawn before it is split into micro-batches."""

    x: Float[Array, "n *event"]
    eps: Float[Array, "n *event"]
    t: Float[Array, "n"]
    labels: Int[Array, "n"] | None
    augment: Float[Array, "n a"] | None = None


@dataclasses.dataclass(frozen=True)
class Objective:
    """What training draws and how it weighs it.

    Attributes:
        time_law: density of the noise level.
        loss_weight: w(t).
        stratified: draw one noise level in each of n equal slices of probability.
        label_dropout: probability that the label is replaced by the null class.
        null_label: index of the null class, or None for a network without classes.
    """

    time_law: TimeLaw
    loss_weight: LossWeight
    stratified: bool = True
    label_dropout: float = 0.0
    null_label: int | None = None

    def __post_init__(self) -> None:
        """Validate the dropout probability."""
        if not 0.0 <= self.label_dropout <= 1.0:
            raise UserError(f"model.label_dropout = {self.label_dropout}: must be in [0, 1]")

    @classmethod
    def network_field(cls, *arguments: Any, **options: Any) -> NetworkField:
        """Return the field that is trained, made of the arguments of ``fields.NetworkField``."""
        return NetworkField(*arguments, **options)

    def draw(self, key: Key[Array, ""], x: Float[Array, "n *event"], labels: Int[Array, "n"] | None) -> Draws:
        """Draw noise, noise levels and hidden labels for a batch of data."""
        key_t, key_eps, key_label = jax.random.split(key, 3)
        t = self.time_law.sample(key_t, x.shape[0], stratified=self.stratified)
        eps = jax.random.normal(key_eps, x.shape, x.dtype)
        if self.null_label is None or labels is None:
            return Draws(x, eps, t, None)
        hidden = jax.random.bernoulli(key_label, self.label_dropout, labels.shape)
        return Draws(x, eps, t, jnp.where(hidden, self.null_label, labels))

    def loss(self, field: NetworkField, draws: Draws, key: Key[Array, ""] | None = None) -> Float[Array, ""]:
        """Return the loss of a network on drawn samples.

        Args:
            field: the network with the parameters to be trained.
            draws: the samples.
            key: PRNG key of dropout; None evaluates without it.
        """
        return jnp.mean(self.per_sample(field, draws, key))

    def per_sample(self, field: NetworkField, draws: Draws, key: Key[Array, ""] | None = None) -> Float[Array, "n"]:
        """Return what each sample adds to the loss; arguments as for :meth:`loss`."""
        process = field.process
        u = process.corrupt(draws.x, draws.eps, draws.t)
        wanted = process.target(draws.x, draws.eps, draws.t)
        error = field.with_labels(draws.labels).apply(u, draws.t, **call_options(key, draws)) - wanted
        return self.loss_weight(draws.t) * mean_square(error)


def call_options(key: Key[Array, ""] | None, draws: Draws) -> dict[str, Any]:
    """Return the options of a network's call: in training, with dropout from a key; and how images were augmented."""
    told = {} if draws.augment is None else {"augment": draws.augment}
    return told if key is None else {"train": True, "rngs": {"dropout": key}, **told}


def mean_square(error: Float[Array, "n *event"]) -> Float[Array, "n"]:
    """Return the mean square of the entries of each event."""
    return jnp.mean(error.reshape(error.shape[0], -1) ** 2, axis=1)
