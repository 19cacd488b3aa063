"""What the exact fields say of the paper's stability analysis, equations (65) to (70) and Table 2."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from geonoise_jax.studies.cases import Case, Claim, over_cases
from geonoise_jax.studies.stability_race.study import Study
from geonoise_jax.studies.verdicts import Verdict

# An exponent this far from zero counts as growth or decay.
_FLAT = 0.1
# The lowest level and one of about a hundred times as much noise: an exponential in 1 / b^2 has not one exponent there.
_TWICE = 2.0


def verdicts(study: Study) -> list[Verdict]:
    """Return whether errors diverge, stay bounded or vanish as claimed, in the clock of the paper and without one."""
    found = [
        *_of(study, "VP eps", "(66)", "per unit t", "the drift error of blind noise prediction diverges", most=-_FLAT),
        *_of(study, "VP eps", "(66)", "per unit b", "it diverges beyond its clock, per unit noise", most=-_FLAT),
        *_of(study, "VE eps", "(66)", "per unit t", "on VE too it diverges", most=-_FLAT),
        *_of(study, "FM v", "(70)", "per unit t", "the drift error of flow matching stays bounded", least=-_FLAT),
        *_of(study, "FM v", "(70)", "fixed distance", "so it does at a fixed distance from a datum", least=-_FLAT),
        *_of(study, "VP v", "Table 2", "per unit t", "v-prediction has a bounded drift error", least=-_FLAT),
        *_of(study, "VE x (EDM)", "(69)", "per unit t", "the drift error of EDM vanishes", least=_FLAT),
        *_of(study, "VP x", "(69)", "per unit t", "the drift error of the signal on VP vanishes", least=_FLAT),
    ]
    return [*found, *_exponential(study), *_gains(study), *_ordering(study), *_noisy(study)]


def _of(
    study: Study, name: str, source: str, unit: str, claim: str, *, least: float = -math.inf, most: float = math.inf
) -> list[Verdict]:
    """Return the verdict on an exponent in t of a system, or nothing if the study has no such system."""
    number = _number(study, name)
    if number is None:
        return []
    units = {"per unit t": study.per_time, "per unit b": study.per_noise, "fixed distance": study.per_time}
    slopes = study.slope(number, units[unit], fixed=unit == "fixed distance")
    where = f"distance {study.options.radius:g}" if unit == "fixed distance" else "on the trajectory"
    about = Claim(f"eq. {source}" if "(" in source else source, claim, f"{name}, {where}", f"exponent in t, {unit}")
    return [over_cases(_cases(study, slopes), about, at_least=least, at_most=most)]


def _number(study: Study, name: str) -> int | None:
    names = [system.name for system in study.systems]
    return names.index(name) if name in names else None


def _cases(study: Study, values: Float[np.ndarray, "K 3"]) -> list[Case]:
    rows = zip(study.options.dims, values.tolist(), strict=True)
    return [Case(f"D = {dim}", *row) for dim, row in rows]


def _exponential(study: Study) -> list[Verdict]:
    """Whether the signal's error falls like exp(-C / b^2): its exponent in b would grow like b^-2 as b falls."""
    number = _number(study, "VE x (EDM)")
    if number is None:
        return []
    logs, x = study.rms(number, np.zeros_like(study.noise)), np.log(study.noise[number])
    local = np.diff(logs, axis=1) / np.diff(x)
    later = int(np.searchsorted(x, x[0] + math.log(100.0)))
    ratio = local[:, 0] / local[:, later]
    cases = [Case.exact(f"D = {dim}", float(one)) for dim, one in zip(study.options.dims, ratio, strict=True)]
    claim = "the signal's error falls exponentially, faster than any power of the noise"
    about = Claim("eq. (69)", claim, "VE x (EDM), t from 1e-4 to 1e-6", "exponent in b after over before")
    return [over_cases(cases, about, at_least=_TWICE)]


def _gains(study: Study) -> list[Verdict]:
    """Whether the gain of the signal grows like b^-2, and that of v-prediction is bounded."""
    rows = (("VE x (EDM)", "VP x"), "gains", "the gain of signal prediction grows like 1 / b^2", -math.inf, -1.9)
    bounded = (("FM v", "VP v"), "Table 2", "velocity targets have a bounded gain", -_FLAT, math.inf)
    found = []
    for names, source, claim, least, most in (rows, bounded):
        cases = [
            Case.exact(name, _gain_exponent(study, k)) for name in names if (k := _number(study, name)) is not None
        ]
        if cases:
            about = Claim("Table 2" if source == "gains" else source, claim, "at low noise", "exponent of |nu| in b")
            found.append(over_cases(cases, about, at_least=least, at_most=most))
    return found


def _gain_exponent(study: Study, number: int) -> float:
    logs = np.log(study.gain[number, :2]), np.log(study.noise[number, :2])
    return float(np.diff(logs[0])[0] / np.diff(logs[1])[0])


def _ordering(study: Study) -> list[Verdict]:
    """Whether noise prediction is worse off than flow matching, per unit noise."""
    noise, velocity = _number(study, "VP eps"), _number(study, "FM v")
    if noise is None or velocity is None:
        return []
    logs = [study.log_error[k][:, 0] + study.per_noise[k, 0] for k in (noise, velocity)]
    cases = [_ratio(f"D = {dim}", *pair) for dim, *pair in zip(study.options.dims, *logs, strict=True)]
    claim = "noise prediction makes a larger drift error than velocity prediction"
    about = Claim("Table 2", claim, "VP eps over FM v at t = 1e-6", "ratio per unit noise")
    return [over_cases(cases, about, at_least=_TWICE)]


def _noisy(study: Study) -> list[Verdict]:
    """Whether blind noise prediction goes wrong at low noise, where the paper's analysis is."""
    found = []
    for name in ("VP eps", "VE eps"):
        if (number := _number(study, name)) is not None:
            shares = study.noisy_share(number)
            means, errors = shares.mean(1), shares.std(1, ddof=1) / math.sqrt(shares.shape[1])
            values = zip(study.options.dims, means, errors, strict=True)
            cases = [Case.of(f"D = {dim}", float(mean), float(error)) for dim, mean, error in values]
            claim = "what blind noise prediction gets wrong comes from low noise"
            condition = f"{name}, {study.options.levels - 1} steps on the trajectory"
            about = Claim("eq. (66)", claim, condition, "share of the steps' error where b > a")
            found.append(over_cases(cases, about, at_most=0.5))
    return found


def _ratio(label: str, first: Float[np.ndarray, "n"], second: Float[np.ndarray, "n"]) -> Case:
    """Return the ratio of two root mean squares over draws, to first order in their errors."""
    squares = [np.exp(2.0 * each) for each in (first, second)]
    means = [each.mean() for each in squares]
    relative = [0.5 * each.std(ddof=1) / math.sqrt(len(each)) / mean for each, mean in zip(squares, means, strict=True)]
    ratio = math.sqrt(means[0] / means[1])
    return Case.of(label, ratio, ratio * math.hypot(*relative))
