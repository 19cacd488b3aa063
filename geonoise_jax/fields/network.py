"""A network with its parameters, as a Field: precondition, apply, read out."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from typing import Any

import jax
from jaxtyping import Array, Float, Int, PyTree
from jaxtyping import ArrayLike as ArrayLike

from geonoise_jax import checks
from geonoise_jax.checks import refused
from geonoise_jax.errors import UserError
from geonoise_jax.fields.base import arguments, compiled, text
from geonoise_jax.fields.conversion import reread
from geonoise_jax.fields.energy import ENERGIES
from geonoise_jax.fields.preconditioning import Preconditioner
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import Schedule
from geonoise_jax.process.targets import Target

NOISE_FEATURES = ("time", "log_snr", "smooth_log_snr", "c_noise")
OUTPUTS = ("direct", *ENERGIES)
# Values of jax_default_matmul_precision that every device has.
MATMUL_PRECISIONS = ("default", "high", "highest")

# What is static of a network field.
META_FIELDS = (
    "module",
    "process",
    "event_shape",
    "blind",
    "noise_feature",
    "output",
    "preconditioner",
    "reads_as",
    "matmul_precision",
)
_SHOWN_IF_SET = ("noise_feature", "labels", "output", "preconditioner", "reads_as", "matmul_precision", "offset")


@functools.partial(jax.tree_util.register_dataclass, data_fields=["params", "labels"], meta_fields=META_FIELDS)
@dataclasses.dataclass(frozen=True, repr=False)
class NetworkField:
    """A Flax network with its parameters, as a Field.

    Attributes:
        params: parameter tree of ``module``.
        module: Linen module called as ``module.apply({"params": params}, u, feature, labels)``.
        process: schedule and target that the field predicts.
        event_shape: shape of one sample.
        blind: whether the network has no noise input; it is then never shown t.
        noise_feature: what a conditional network is shown of t, see :func:`noise_feature`.
        labels: class of each sample of the batch, [b], or None.
        output: ``"direct"``, the network's output is the prediction; or one of ``ENERGIES``, the prediction is the
            gradient of that scalar (EqM-E).
        preconditioner: scales the network's input and output and adds a skip connection, in terms of the target that
            is predicted; None for neither.
        reads_as: the target that the network predicts, if it is another than that of ``process``, to which it is then
            converted. ``Signal()`` on a process of the Velocity target is x-prediction with velocity loss.
        matmul_precision: one of ``MATMUL_PRECISIONS``, jax's ``default_matmul_precision`` for the network and its
            gradients wherever the field is evaluated; None leaves it to the caller's.

    Raises:
        ValueError: if ``output`` or ``matmul_precision`` is unknown, if a blind network is given a preconditioner or
            another target to convert, which both use t, if ``reads_as`` is singular on the schedule, or if the module
            cannot be hashed.
    """

    params: PyTree[Array]
    module: Any
    process: Process
    event_shape: tuple[int, ...]
    blind: bool
    noise_feature: str = "time"
    labels: Int[Array, "b"] | None = None
    output: str = "direct"
    preconditioner: Preconditioner | None = None
    reads_as: Target | None = None
    matmul_precision: str | None = None

    def __post_init__(self) -> None:
        """Validate the read-out."""
        name = type(self).__name__
        checks.choice(f"{name}.output", self.output, OUTPUTS)
        if self.matmul_precision is not None:
            checks.choice(f"{name}.matmul_precision", self.matmul_precision, MATMUL_PRECISIONS)
        for option in ("preconditioner", "reads_as"):
            value = getattr(self, option)
            if self.blind and value is not None:
                raise refused(f"{name}.{option}", value, "None for a blind network, as it depends on t")
        _ = self.predicted  # refuses a target that is singular on the schedule
        try:
            hash(self.module)
        except TypeError as error:
            raise UserError(
                f"{name}.module: must be hashable, to be part of compiled functions ({error}); give tuples for lists"
            ) from error

    def __repr__(self) -> str:
        """Return the network by its class and size, and what is set."""
        count = sum(getattr(leaf, "size", 0) for leaf in jax.tree.leaves(self.params))
        unset = {field.name: field.default for field in dataclasses.fields(self) if field.name in _SHOWN_IF_SET}
        values = {name: getattr(self, name) for name in unset}
        chosen = {name: value for name, value in values.items() if value is not unset[name]}
        return text(self, type(self.module).__name__, f"{count:,} parameters", **chosen)

    @property
    def predicted(self) -> Process:
        """The process whose target the network predicts before it is converted to that of ``process``."""
        return self.process if self.reads_as is None else Process(self.process.schedule, self.reads_as)

    @property
    def null_label(self) -> int | None:
        """The label that means "no class", or None for a network without classes."""
        return getattr(self.module, "num_classes", 0) or None

    def with_labels(self, labels: Int[Array, "b"] | None) -> NetworkField:
        """Return the same field for a batch of these classes."""
        return dataclasses.replace(self, labels=labels)

    def __call__(
        self, u: Float[ArrayLike, "b *event"], t: Float[ArrayLike, "*#b"] | None = None
    ) -> Float[Array, "b *event"]:
        """Return the network's prediction of the target; t may be left out if the network is blind."""
        return self._predict(*arguments(self, u, t))

    @compiled
    def _predict(self, u: Float[Array, "b *event"], t: Float[Array, "b"] | None) -> Float[Array, "b *event"]:
        return self.apply(u, t)

    def apply(
        self, u: Float[Array, "b *event"], t: Float[Array, "b"] | None, **options: Any
    ) -> Float[Array, "b *event"]:
        """Return the prediction, with options of the module's call such as ``train=True, rngs={"dropout": key}``."""
        r = self._direct(u, t, options) if self.output == "direct" else self._energy_grad(u, t, options)
        return r if self.reads_as is None or t is None else reread(u, r, t, self.predicted, self.process)

    @compiled
    def energy(
        self, u: Float[Array, "b *event"], t: Float[Array, "b"] | None = None, **options: Any
    ) -> Float[Array, "b"]:
        """Return the scalar whose gradient in u is what the network predicts.

        Args:
            u: observations.
            t: noise levels; may be left out if the network is blind.
            **options: as in :meth:`apply`.

        Raises:
            ValueError: if the output is not an energy, or t is left out of a conditional network.
        """
        if self.output == "direct":
            raise refused("output", self.output, f"one of {', '.join(ENERGIES)} for a field with an energy")

        def energy(v: Float[Array, "b *event"]) -> Float[Array, "b"]:
            return ENERGIES[self.output](v, self._network(v, t, options))

        if self.preconditioner is None or t is None:
            return energy(u)
        return self.preconditioner.potential(energy, self.predicted, u, t)

    def _direct(
        self, u: Float[Array, "b *event"], t: Float[Array, "b"] | None, options: dict[str, Any]
    ) -> Float[Array, "b *event"]:
        if self.preconditioner is None or t is None:
            return self._network(u, t, options)
        return self.preconditioner.predict(lambda v: self._network(v, t, options), self.predicted, u, t)

    def _energy_grad(
        self, u: Float[Array, "b *event"], t: Float[Array, "b"] | None, options: dict[str, Any]
    ) -> Float[Array, "b *event"]:
        return jax.grad(lambda u: self.energy(u, t, **options).sum())(u)

    def _network(
        self, u: Float[Array, "b *event"], t: Float[Array, "b"] | None, options: dict[str, Any]
    ) -> Float[Array, "b *event"]:
        if not self.blind and t is None:
            raise refused("t", t, "the noise levels, [b], as the network is conditional")
        feature = None if self.blind or t is None else noise_feature(self.process.schedule, t, self.noise_feature)
        # The gradients of a product have the precision that it was traced with.
        chosen = self.matmul_precision
        with contextlib.nullcontext() if chosen is None else jax.default_matmul_precision(chosen):
            return self.module.apply({"params": self.params}, u, feature, self.labels, **options)


def noise_feature(schedule: Schedule, t: Float[Array, "b"], kind: str) -> Float[Array, "b"]:
    """Return the number by which a conditional network is told the noise level.

    The networks here embed it in sinusoids of 1000 to 0.1 radians per unit (``nets.conditioning``).

    Args:
        schedule: the schedule that t belongs to.
        t: noise levels.
        kind: ``"time"``, t / t_max, of order one as DDPM's step over 1000 is; ``"log_snr"``, log(b / a) / 4, of order
            one too, so that its sinusoids tell levels a thousandth apart; ``"smooth_log_snr"``, a hundredth of that,
            for networks whose derivative in t is used, which the other two make rough; or ``"c_noise"``, a thousandth:
            the c_noise = log(sigma) / 4 of Karras et al. (2022) with sinusoids of 1 to 0.0001 radians per unit of it,
            those of the positional embedding of their DDPM++. (Their NCSN++ has random Fourier features instead.)

    Raises:
        ValueError: if kind is unknown.
    """
    if kind == "time":
        return t / schedule.t_max
    scales = {"log_snr": 0.25, "smooth_log_snr": 0.25e-2, "c_noise": 0.25e-3}
    checks.choice("noise_feature", kind, NOISE_FEATURES)
    return scales[kind] * schedule.eta(t)
