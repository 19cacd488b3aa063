"""A field of one process seen as a field of another.

Two processes corrupt the same data. Where their ratios b / a agree, their observations agree up to a factor, so that
one network serves both: match t through ``eta = log(b / a)``, rescale u, recover x and eps, form the other target.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from jaxtyping import ArrayLike as ArrayLike

from geonoise_jax.errors import UserError
from geonoise_jax.fields.base import Field, arguments, text
from geonoise_jax.process.process import Process, expand
from geonoise_jax.process.schedules import Schedule

_SLACK = 1e-6


def reread(
    u: Float[Array, "b *event"], r: Float[Array, "b *event"], t: Float[Array, "b"], source: Process, wanted: Process
) -> Float[Array, "b *event"]:
    """Return the target of ``wanted`` from that of ``source``, two processes of one schedule, at one u and t."""
    return wanted.target(*source.recover(u, r, t), t)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["field"], meta_fields=["process"])
@dataclasses.dataclass(frozen=True, repr=False)
class ConvertedField:
    """A conditional field of one process as a field of another: the same denoiser, exactly.

    Attributes:
        field: a conditional Field.
        process: schedule and target of the result.

    Raises:
        ValueError: if the field is blind (the conversion uses t, so that the result would not be), or if the noise
            levels ``b / a`` of ``process`` exceed those on which the field is defined.
    """

    field: Field
    process: Process

    def __post_init__(self) -> None:
        """Refuse blind fields and noise levels that the field does not cover."""
        if not isinstance(self.field, Field):
            return  # pytree utilities put other things than fields here
        if self.field.blind:
            raise UserError("ConvertedField.field.blind = True: must be False, since the conversion uses t")
        problem = _uncovered(self.field.process.schedule, self.process.schedule)
        if problem:
            raise UserError(problem)

    def __repr__(self) -> str:
        """Return what is converted, and to what."""
        return text(self, f"{type(self.field).__name__} of {self.field.process}")

    @property
    def blind(self) -> bool:
        """False: the result depends on t."""
        return False

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.field.event_shape

    def with_labels(self, labels: Int[Array, "b"] | None) -> ConvertedField:
        """Return the same field for a batch of these classes.

        Raises:
            ValueError: if the converted field has no classes.
        """
        if not hasattr(self.field, "with_labels"):
            raise UserError(f"ConvertedField.field = {type(self.field).__name__}: must have classes to take labels")
        return dataclasses.replace(self, field=self.field.with_labels(labels))

    def __call__(
        self, u: Float[ArrayLike, "b *event"], t: Float[ArrayLike, "*#b"] | None = None
    ) -> Float[Array, "b *event"]:
        """Return the target of ``process`` predicted at (u, t)."""
        return self._converted(*arguments(self, u, t))

    def _converted(self, u: Float[Array, "b *event"], t: Float[Array, "b"]) -> Float[Array, "b *event"]:
        source = self.field.process
        if source.schedule == self.process.schedule:
            return reread(u, self.field(u, t), t, source, self.process)
        t_source, scale = _matched(source.schedule, self.process.schedule, t)
        u_source = expand(scale, u) * u
        x, eps = source.recover(u_source, self.field(u_source, t_source), t_source)
        return self.process.target(x, eps, t)


def _matched(source: Schedule, wanted: Schedule, t: Float[Array, "b"]) -> tuple[Float[Array, "b"], Float[Array, "b"]]:
    """Return the time of ``source`` with the noise level that ``wanted`` has at t, and ``u_source / u_wanted``."""
    t_source = jnp.clip(source.t_of_eta(wanted.eta(t)), source.t_min, source.t_max)
    # a / a = b / b = |(a, b)| / |(a, b)|, the last of which is never 0 / 0.
    return t_source, jnp.hypot(*source.scales(t_source)) / jnp.hypot(*wanted.scales(t))


@functools.lru_cache(maxsize=64)
def _uncovered(source: Schedule, wanted: Schedule) -> str:
    """Describe noise levels of ``wanted`` that ``source`` lacks, or return an empty string."""
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        low, high = (float(source.eta(t)) for t in (source.t_min, source.t_max))
        asked_low, asked_high = (float(wanted.eta(t)) for t in (wanted.t_min, wanted.t_max))
        if asked_low >= low - _SLACK and asked_high <= high + _SLACK:
            return ""
        allowed = [float(wanted.t_of_eta(eta)) for eta in (max(low, asked_low), min(high, asked_high))]
    return (
        f"ConvertedField.process.schedule = {wanted}: log(b / a) on [t_min, t_max] is [{asked_low:.4g}, "
        f"{asked_high:.4g}], but the field is defined on [{low:.4g}, {high:.4g}]; choose t_min >= {allowed[0]:.6g} and "
        f"t_max <= {allowed[1]:.6g}"
    )
