"""The Field protocol: what samplers, stability measures and evaluation see of a model, exact or trained.

A field maps observations u and their noise levels t to predictions of the target, r = c x + d eps. A *blind* field
(autonomous, f* in equation (6) of the paper) ignores t; a *conditional* one is f_t of equation (5).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Protocol, runtime_checkable

import jax
from jaxtyping import Array, Float, Int, PyTree

from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import Schedule

NOISE_FEATURES = ("time", "log_snr")


@runtime_checkable
class Field(Protocol):
    """A prediction of the target of ``process`` at (u, t).

    Implementations are pytrees whose static part is hashable, so that a jitted sampler takes any of them and new
    parameter values cause no retrace.
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
@dataclasses.dataclass(frozen=True)
class ExactField:
    """The Bayes-optimal field of a known data distribution.

    Attributes:
        marginal: an ``exact.marginal.Marginal``.
        blind: True for f*(u) = E[f_t(u) | u], False for f_t(u).
    """

    marginal: ExactMarginal
    blind: bool = True

    @property
    def process(self) -> Process:
        """Schedule and target of the marginal."""
        return self.marginal.process

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one event of the data distribution."""
        return self.marginal.event_shape

    def __call__(self, u: Float[Array, "b *event"], t: Float[Array, "b"]) -> Float[Array, "b *event"]:
        """Return f*(u) or f_t(u)."""
        return self.marginal.field(u) if self.blind else self.marginal.conditional_field(u, t)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["params", "labels"],
    meta_fields=["module", "process", "event_shape", "blind", "noise_feature"],
)
@dataclasses.dataclass(frozen=True)
class NetworkField:
    """A Flax network with its parameters, as a Field.

    Attributes:
        params: parameter tree of ``module``.
        module: Linen module called as ``module.apply({"params": params}, u, feature, labels)``.
        process: schedule and target that the network was trained on.
        event_shape: shape of one sample.
        blind: whether the network has no noise input; it is then never shown t.
        noise_feature: what a conditional network is shown of t, see :func:`noise_feature`.
        labels: class of each sample of the batch, [b], or None.
    """

    params: PyTree[Array]
    module: Any
    process: Process
    event_shape: tuple[int, ...]
    blind: bool
    noise_feature: str = "time"
    labels: Int[Array, "b"] | None = None

    def with_labels(self, labels: Int[Array, "b"] | None) -> NetworkField:
        """Return the same field for a batch of these classes."""
        return dataclasses.replace(self, labels=labels)

    def __call__(self, u: Float[Array, "b *event"], t: Float[Array, "b"]) -> Float[Array, "b *event"]:
        """Return the network's prediction of the target."""
        return self.apply(u, t)

    def apply(self, u: Float[Array, "b *event"], t: Float[Array, "b"], **options: Any) -> Float[Array, "b *event"]:
        """Return the prediction, with options of the module's call such as ``train=True, rngs={"dropout": key}``."""
        feature = None if self.blind else noise_feature(self.process.schedule, t, self.noise_feature)
        return self.module.apply({"params": self.params}, u, feature, self.labels, **options)


def noise_feature(schedule: Schedule, t: Float[Array, "b"], kind: str) -> Float[Array, "b"]:
    """Return the number of order one by which a conditional network is told the noise level.

    Args:
        schedule: the schedule that t belongs to.
        t: noise levels.
        kind: ``"time"``, t / t_max; or ``"log_snr"``, log(b / a) / 4 (the ``c_noise`` of Karras et al. 2022).

    Raises:
        ValueError: if kind is unknown.
    """
    if kind == "time":
        return t / schedule.t_max
    if kind == "log_snr":
        return 0.25 * schedule.eta(t)
    raise ValueError(f"noise_feature = {kind!r}: must be one of {', '.join(NOISE_FEATURES)}")
