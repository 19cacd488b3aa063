"""The named samplers and how each is called."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from geonoise_jax import checks
from geonoise_jax.errors import UserError
from geonoise_jax.fields import Field
from geonoise_jax.sampling.adaptive import kvaerno5, tsit5
from geonoise_jax.sampling.autonomous import eqm_descent, eqm_nesterov, eqm_nesterov_released
from geonoise_jax.sampling.denoising import bddm
from geonoise_jax.sampling.discrete import ancestral, ddim, dpmpp_2m
from geonoise_jax.sampling.ode import euler, heun
from geonoise_jax.sampling.outcome import Outcome
from geonoise_jax.sampling.sde import edm_churn, predictor_corrector, reverse_sde


@dataclasses.dataclass(frozen=True)
class Sampler:
    """One sampler, as a hashable value that a jitted function may take as static.

    Attributes:
        run: the function. It takes ``field``, ``u`` and those of ``times`` and ``keys`` that its signature names, and
            options by keyword; it returns observations, or an Outcome.
        cost: field evaluations of a sample as a function of the number of steps and the options, or None where each
            sample decides for itself.
    """

    run: Callable[..., Any]
    cost: Callable[..., int | None] | None = None

    def __str__(self) -> str:
        """Return the name of the function."""
        return self.run.__name__

    @property
    def timed(self) -> bool:
        """Whether it goes along a grid of times; otherwise it is autonomous, and its Outcome is in data space."""
        return "times" in self._parameters

    @property
    def gridded(self) -> bool:
        """Whether it takes the steps of a grid; an adaptive sampler uses the ends of it alone, an autonomous none."""
        return self.cost is not None

    @property
    def options(self) -> dict[str, Any]:
        """Names and defaults of the options."""
        parameters = self._parameters.values()
        return {each.name: each.default for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY}

    def evaluations(self, num_steps: int, **options: Any) -> int | None:
        """Return the field evaluations of one sample on a grid of so many steps; None where that is not fixed."""
        return None if self.cost is None else self.cost(num_steps, **{**self.options, **options})

    def __call__(
        self,
        field: Field,
        u: Float[Array, "b *event"],
        times: Float[Array, "times"],
        keys: Key[Array, "b"],
        **options: Any,
    ) -> Outcome:
        """Run on a batch of observations at ``times[0]``.

        Args:
            field: any Field that the sampler accepts.
            u: observations at ``times[0]``.
            times: decreasing times; an autonomous sampler does not see them.
            keys: one PRNG key a sample; a deterministic sampler does not see them.
            options: those of :attr:`options` that are not to have their defaults.

        Raises:
            ValueError: if an option is out of its range.
        """
        arguments = [value for name, value in (("times", times), ("keys", keys)) if name in self._parameters]
        result = self.run(field, u, *arguments, **options)
        if isinstance(result, Outcome):
            return result
        evaluations = self.evaluations(len(times) - 1, **options)
        counts = {} if evaluations is None else {"evaluations": jnp.full(len(u), evaluations, u.dtype)}
        return Outcome(result, counts)

    @property
    def _parameters(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.run).parameters


def _once(num_steps: int, **_: Any) -> int:
    return num_steps


def _twice(num_steps: int, **_: Any) -> int:
    return 2 * num_steps


def _with_corrector(num_steps: int, *, corrector_steps: int, **_: Any) -> int:
    return (1 + corrector_steps) * num_steps


SAMPLERS: dict[str, Sampler] = {
    "euler": Sampler(euler, _once),
    "heun": Sampler(heun, _twice),
    "ddim": Sampler(ddim, _once),
    "ancestral": Sampler(ancestral, _once),
    "dpmpp_2m": Sampler(dpmpp_2m, _once),
    "edm_churn": Sampler(edm_churn, _twice),
    "reverse_sde": Sampler(reverse_sde, _once),
    "predictor_corrector": Sampler(predictor_corrector, _with_corrector),
    "tsit5": Sampler(tsit5),
    "kvaerno5": Sampler(kvaerno5),
    "eqm_descent": Sampler(eqm_descent),
    "eqm_nesterov": Sampler(eqm_nesterov),
    "eqm_nesterov_released": Sampler(eqm_nesterov_released),
    "bddm": Sampler(bddm),
}


def find(name: str | Sampler, options: Mapping[str, Any], arguments: Sequence[str] = ()) -> Sampler:
    """Return a sampler by name, or the one given, once it is known to have these options.

    Args:
        name: one of ``SAMPLERS``, or a sampler.
        options: what it is to be called with.
        arguments: what the caller takes besides, for which a mistyped word may have been meant.

    Raises:
        ValueError: on an unknown sampler, or on an option that it does not have.
    """
    found = name if isinstance(name, Sampler) else SAMPLERS[checks.choice("sampler", name, SAMPLERS)]
    known = found.options
    for option, value in options.items():
        if option not in known:
            has = f"its options are {', '.join(known)}" if known else "it has none"
            near = checks.nearest(option, (*known, *arguments))
            hint = f"; did you mean {near!r}?" if near else ""
            raise UserError(f"{option} = {checks.shown(value)}: no option of the sampler {str(name)!r}; {has}{hint}")
    return found
