"""Comparison with reference values: cases of known data, process and prior, computed in 34-digit arithmetic.

The file ships with the package; its own ``format`` field says its conventions: ``cases`` with the names of a process
family, the data, the prior, one query ``u``, one time ``t_eval`` and the expected ``values``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from geonoise_jax.errors import UserError
from geonoise_jax.exact.base import Distribution
from geonoise_jax.exact.distributions import Gaussian, Mixture
from geonoise_jax.exact.finite import FiniteSet
from geonoise_jax.exact.marginal import Marginal
from geonoise_jax.exact.planes import Circles, Subspace
from geonoise_jax.process import schedules, targets, times
from geonoise_jax.process.process import Process, expand

PATH = Path(__file__).with_name("reference_cases.json")

FAMILIES: dict[str, tuple[type[schedules.Schedule], targets.Target]] = {
    "fm": (schedules.Linear, targets.Velocity()),
    "eqm": (schedules.Linear, targets.Equilibrium()),
    "eqm_trunc": (schedules.Linear, targets.Equilibrium(decay="truncated")),
    "ddpm": (schedules.VPLinear, targets.Noise()),
    "vp_x": (schedules.VPLinear, targets.Signal()),
    "vp_v": (schedules.VPLinear, targets.VPrediction()),
    "vp_vdot": (schedules.VPLinear, targets.Velocity()),
    "ddpm_cos": (schedules.Cosine, targets.Noise()),
    "ddpm_disc": (schedules.VPDiscrete, targets.Noise()),
    "edm": (schedules.VE, targets.Signal()),
    "ve_eps": (schedules.VE, targets.Noise()),
    "edm_precond": (schedules.EDMScaled, targets.EDMNetwork()),
    "uedm": (schedules.UEDM, targets.UEDM()),
}
# Differences of two nearly equal fields: their error is relative to the fields, not to the difference.
DIFFERENCES = {"est_err": "f_t", "delta_v": "v_oracle"}


class Case(NamedTuple):
    """One reference case.

    Attributes:
        name: its id.
        marginal: data, process and prior.
        u: the query, [1, D].
        t: the time of the conditional quantities.
        expected: values by quantity.
    """

    name: str
    marginal: Marginal
    u: Float[Array, "1 D"]
    t: float
    expected: dict[str, Any]


class Worst(NamedTuple):
    """The largest relative error of one quantity, and the case in which it occurs."""

    error: float
    case: str


def load(path: str | Path = PATH, accuracy: float | None = None) -> list[Case]:
    """Read reference cases.

    Args:
        path: the JSON file; those of the package by default.
        accuracy: of the integrals over t, see Marginal.
    """
    content = json.loads(Path(path).read_text())
    cases = []
    for case in content["cases"]:
        process, law = _process(case["family"], case["prior"])
        marginal = Marginal(_data(case["data"], content["datasets"]), process, law, accuracy=accuracy)
        u = jnp.asarray([case["u"]], jnp.result_type(float))
        cases.append(Case(case["id"], marginal, u, float(case["t_eval"]), case["values"]))
    return cases


def evaluate(marginal: Marginal, u: Float[Array, "B *event"], t: float) -> dict[str, Float[Array, "B ..."]]:
    """Return every quantity that a reference case may hold."""
    posterior, parts = marginal.posterior(u), marginal.decompose(u)
    process, schedule = marginal.process, marginal.process.schedule
    times = jnp.full((len(u),), t, u.dtype)
    k = process.coeffs(times)
    conditional = marginal.conditional_field(u, t)
    mu, nu = process.velocity_coeffs(times)
    v_oracle, v_blind = (expand(mu, u) * u + expand(nu, u) * f for f in (conditional, parts.field))
    score = marginal.distribution.log_density(u, k.a, k.b)
    return {
        "logp": marginal.log_density(u),
        "mean_t": posterior.mean,
        "var_t": posterior.var,
        "lambda_bar": parts.gain,
        "c_bar": parts.drift_scale,
        "f_star": marginal.field(u),
        "natural": parts.natural,
        "transport": parts.transport,
        "drift": parts.drift,
        "E_inv_b": marginal.inverse_noise_moment(u, 1.0),
        "E_inv_b2": marginal.inverse_noise_moment(u, 2.0),
        "grad_E": marginal.energy_grad(u),
        "post_mean_x": marginal.posterior_denoiser(u),
        "a": k.a,
        "b": k.b,
        "c": k.c,
        "d": k.d,
        "da": k.da,
        "db": k.db,
        "mu": mu,
        "nu": nu,
        "snr": jnp.exp(schedule.log_snr(times)),
        "lam": process.gain(times),
        "c_scale": process.drift_scale(times),
        "logp_t": score,
        "D_t": marginal.denoiser(u, t),
        "f_t": conditional,
        "grad_E_t": marginal.energy_grad_at(u, t),
        "est_err": marginal.estimation_error(u, t),
        "v_oracle": v_oracle,
        "v_blind": v_blind,
        "delta_v": jnp.abs(nu) * marginal.estimation_error(u, t),
    }


def errors(case: Case) -> dict[str, float]:
    """Return the max-norm relative error of every expected quantity; the absolute error where zero is expected."""
    computed = evaluate(case.marginal, case.u, case.t)
    result = {}
    for name, expected in case.expected.items():
        value = np.asarray(computed[name][0], np.float64)
        size = np.abs(np.asarray(case.expected[DIFFERENCES.get(name, name)], np.float64)).max()
        result[name] = float(np.abs(value - np.asarray(expected, np.float64)).max() / (size or 1.0))
    return result


def worst_errors(cases: Sequence[Case], on_case: Callable[[int, Case], None] | None = None) -> dict[str, Worst]:
    """Return the worst case of every quantity; infinitely bad where the computed value is not a number.

    Args:
        cases: the cases.
        on_case: called after each with the number done and the case, e.g. to show progress.
    """
    worst: dict[str, Worst] = {}
    for done, case in enumerate(cases, start=1):
        for quantity, error in errors(case).items():
            found = Worst(math.inf if math.isnan(error) else error, case.name)
            worst[quantity] = max(worst.get(quantity, found), found, key=lambda one: one.error)
        if on_case is not None:
            on_case(done, case)
    return worst


def _process(family: str, prior: dict[str, Any]) -> tuple[Process, times.TimeLaw]:
    if family not in FAMILIES:
        raise UserError(f"family = {family!r}: must be one of {sorted(FAMILIES)}")
    schedule, target = FAMILIES[family]
    low, high = float(prior["tmin"]), float(prior["tmax"])
    process = Process(schedule(t_min=low, t_max=high), target)
    if schedule is schedules.VPDiscrete:
        return process, times.Discrete(int(low), int(high))
    kind = prior["kind"]
    if kind == "lognormal":
        return process, times.LogNormal(prior["mean"], prior["std"], low, high)
    if kind not in ("uniform", "loguniform"):
        raise UserError(f"prior kind = {kind!r}: must be 'uniform', 'loguniform' or 'lognormal'")
    return process, (times.Uniform if kind == "uniform" else times.LogUniform)(low, high)


def _data(data: dict[str, Any], datasets: dict[str, Any]) -> Distribution:
    kind = data["kind"]
    if kind == "discrete":
        return FiniteSet(datasets[data["dataset"]], data.get("w"))
    if kind == "gauss":
        return Gaussian(data["X"][0], data["S"][0])
    if kind == "gmm":
        return Mixture(data["X"], data["S"], data.get("w"))
    if kind not in ("subspace", "circles"):
        raise UserError(f"data kind = {kind!r}: must be 'discrete', 'gauss', 'gmm', 'subspace' or 'circles'")
    dim = data["D"]
    frame = np.stack([np.ones(dim), (-1.0) ** np.arange(dim)], axis=1) / np.sqrt(dim)
    if kind == "subspace":
        return Subspace(frame, data["s"])
    return Circles(data["R"], data.get("w"), frame)
