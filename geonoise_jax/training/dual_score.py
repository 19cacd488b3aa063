r"""Dual score matching: both derivatives of an energy network are regressed (Guth, Kadkhodaie & Simoncelli 2025).

For ``u = a x + b eps`` in D dimensions the energy of the corruption kernel is

    -log p(u | x, t) = |u - a x|^2 / 2b^2 + D log b + (D / 2) log(2 pi)

Its derivatives at fixed u and x, at which ``u - a x = b eps``, are the two targets:

    (space)  eps / b
    (time)   D b'/b - (b'/b) |eps|^2 - (a'/b) x . eps

Their means given (u, t) are the derivatives of -log p(u | t), since both commute with the integral over x in
``p(u | t) = int p(u | x, t) p(x) dx``. For data of mean square sigma_data^2 per entry the time target has, given t,
mean 0 and variance D v,

    v = 2 (b'/b)^2 + (a' sigma_data / b)^2

The weight b^2 / D gives the error in space unit scale. What an energy gets wrong is of order D, and so is its
derivative in t: the weight of the error in time, 1 / (2 D^2 v), counts it per entry too, whatever the schedule, its
time variable and D. Without this D, time drowns space and images are not learnt. On VE the weights are sigma^2 / D and,
for the derivative in sigma^2, (sigma^2 / D)^2.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxtyping import Array, Float, Key

from geonoise_jax import checks
from geonoise_jax.errors import UserError
from geonoise_jax.fields import DensityField, NetworkField
from geonoise_jax.process.process import Coeffs, expand
from geonoise_jax.training.losses import Draws, Objective, call_options, mean_square


@dataclasses.dataclass(frozen=True)
class DualScore(Objective):
    """The objective of a :class:`~geonoise_jax.fields.DensityField`; the loss weight multiplies both errors.

    Attributes (besides those of Objective):
        sigma_data: standard deviation of the data, in the scale of the time error.
        time_weight: factor of the time error; 0 leaves plain denoising score matching.

    Raises:
        ValueError: if sigma_data is not positive or time_weight is negative.
    """

    sigma_data: float = 0.5
    time_weight: float = 1.0

    def __post_init__(self) -> None:
        """Validate the fields."""
        super().__post_init__()
        checks.real_field(self, "sigma_data", low=0.0, open_low=True)
        checks.real_field(self, "time_weight", low=0.0)

    @classmethod
    def network_field(cls, *arguments: Any, **options: Any) -> DensityField:
        """Return the field that is trained, made of the arguments of ``fields.DensityField``."""
        given = {name: value for name, value in options.items() if name != "reads_as" or value is not None}
        return DensityField(*arguments, **given)

    def per_sample(self, field: NetworkField, draws: Draws, key: Key[Array, ""] | None = None) -> Float[Array, "n"]:
        """Return what each sample adds to the loss; arguments as for ``Objective.loss``.

        Raises:
            ValueError: if the field is no DensityField.
        """
        space, time = self.errors(field, draws, key)
        return self.loss_weight(draws.t) * (space + self.time_weight * time)

    def errors(
        self, field: NetworkField, draws: Draws, key: Key[Array, ""] | None = None
    ) -> tuple[Float[Array, "n"], Float[Array, "n"]]:
        """Return the squared errors in space and in time of each sample, times their weights of the module docstring.

        Raises:
            ValueError: if the field is no DensityField.
        """
        if not isinstance(field, DensityField):
            raise UserError(f"field is a {type(field).__name__}: dual score matching needs a DensityField")
        k = field.process.coeffs(draws.t)
        u = field.process.corrupt(draws.x, draws.eps, draws.t)
        labelled = dataclasses.replace(field, labels=draws.labels)
        in_space, in_time = labelled.scores(u, draws.t, **call_options(key, draws))
        space = mean_square(expand(k.b, u) * in_space - draws.eps)
        dim = draws.x[0].size
        scale = 2.0 * (k.db / k.b) ** 2 + (k.da * self.sigma_data / k.b) ** 2
        return space, (in_time - time_target(draws, k)) ** 2 / (2 * dim**2 * scale)


def time_target(draws: Draws, k: Coeffs) -> Float[Array, "n"]:
    """Return the derivative of -log p(u | x, t) in t at fixed u and x."""
    dim = draws.x[0].size
    noise = dim * mean_square(draws.eps)
    overlap = (draws.x * draws.eps).reshape(len(noise), -1).sum(axis=1)
    return k.db / k.b * (dim - noise) - k.da / k.b * overlap
