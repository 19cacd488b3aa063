"""What smoothed fields and networks say of the paper's ordering, and how well it was foreseen."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from geonoise_jax.studies.cases import Case, Claim, over_cases
from geonoise_jax.studies.smoothing.agreement import agreement, told_by_rest
from geonoise_jax.studies.smoothing.study import (
    CEILING,
    CLEAN,
    EXACT,
    FLOOR,
    MOLLIFIED,
    NETWORK,
    SLOPE,
    TARGETS,
    Study,
    interval,
    quantile,
)
from geonoise_jax.studies.verdicts import Verdict

_SAID = {
    EXACT: "an exact field",
    MOLLIFIED: "a field averaged over u",
    FLOOR: "a prior without low noise",
    CEILING: "a prior without high noise",
    SLOPE: "a field of limited slope at the data",
    NETWORK: "a network",
}
_SLOWER = (MOLLIFIED, FLOOR, SLOPE)
_AS_FAR, _HALF, _APART, _PREDICTED = 0.99, 0.5, 0.1, 1.3


def verdicts(study: Study) -> list[Verdict]:
    """Return whether the ordering is the paper's, what is clean under every smoothing, and how well it was foreseen."""
    properties = [name for name in _SAID if _cells(study, name) is not None]
    found = [_ordering(study, name) for name in properties]
    found += [_target(study, name, number) for name in properties for number in range(len(TARGETS))]
    return [*found, *_slower(study), *_foreseen(study), *_networks(study), _growth(study)]


def _cells(study: Study, name: str) -> Float[np.ndarray, "S K V n"] | None:
    """Return distances of all fields of a property, or None if there are none."""
    found = study.trained.distance if name == NETWORK else study.ends.distance[:, :, study.columns(name)]
    return found if found.shape[2] else None


def _dims(study: Study) -> list[str]:
    return [f"D = {dim}" for dim in study.options.dims]


def _condition(study: Study, name: str) -> str:
    options = study.options
    values = options.widths if name == NETWORK else [each[1] for each in options.smoothings if each[0] == name]
    what = {MOLLIFIED: "h", FLOOR: "b / a at least", CEILING: "b / a at most", SLOPE: "L", NETWORK: "width"}
    return _SAID[name] + (f", {what[name]} {', '.join(f'{value:g}' for value in values)}" if name in what else "")


def _ordering(study: Study, name: str) -> Verdict:
    """Whether noise prediction is unclean where velocity is clean, at how many of the values."""
    clean = quantile(study_cells(study, name)) <= CLEAN
    noise, velocity = (_place(each) for each in ("ddpm", "flow_matching"))
    shares = (clean[velocity] & ~clean[noise]).mean(-1)
    cases = [Case.exact(label, float(share)) for label, share in zip(_dims(study), shares, strict=True)]
    claim = f"{_SAID[name]} makes blind velocity clean and leaves blind noise prediction unclean"
    about = Claim("Table 2", claim, _condition(study, name), "share of the values where that is so")
    return over_cases(cases, about, at_least=1.0)


def study_cells(study: Study, name: str) -> Float[np.ndarray, "S K V n"]:
    """Return distances of all fields of a property.

    Raises:
        ValueError: if there are none.
    """
    found = _cells(study, name)
    if found is None:
        raise ValueError(f"{name}: the study has no such field")
    return found


def _place(system: str) -> int:
    return [target.system for target in TARGETS].index(system)


def _target(study: Study, name: str, number: int) -> Verdict:
    """Whether a target is clean, or not, as the paper has it, for the value that is farthest from it."""
    target, cells = TARGETS[number], study_cells(study, name)[number]
    values, ends = quantile(cells), interval(cells)
    worst = values.argmax(1) if target.stable else values.argmin(1)
    rows = zip(_dims(study), values, ends, worst, strict=True)
    cases = [Case(label, float(value[at]), *map(float, end[at])) for label, value, end, at in rows]
    claim = f"blind {target.name} is {'clean' if target.stable else 'unclean'} with {_SAID[name]}"
    about = Claim("Table 2", claim, _condition(study, name), "90% quantile of the distance to the data")
    limits = {"at_most": CLEAN} if target.stable else {"at_least": CLEAN}
    return over_cases(cases, about, **limits)


def _slower(study: Study) -> list[Verdict]:
    """Whether what slows a field down, toward the data, ever brings its samples nearer."""
    values, found = quantile(study.ends.distance), []
    columns = [column for name in _SLOWER for column in study.columns(name)]
    for number, target in enumerate(TARGETS):
        if target.clock and columns:
            ratios = (values[number][:, columns] / values[number][:, :1]).min(1)
            cases = [Case.exact(label, float(ratio)) for label, ratio in zip(_dims(study), ratios, strict=True)]
            claim = f"no average over u, floor or limited slope brings {target.name} nearer to the data"
            condition = "same starts; the smallest over all values"
            about = Claim("this study", claim, condition, "90% quantile, smoothed / exact")
            found.append(over_cases(cases, about, at_least=_AS_FAR))
    return found


def _foreseen(study: Study) -> list[Verdict]:
    """How far quantiles are from those of the clock, and how often the point of rest tells what is clean."""
    found = []
    for number, target in enumerate(TARGETS):
        cases = [_case(study, number, column, label) for column, label in enumerate(_dims(study))]
        if target.clock:
            claim = f"the clock in one dimension foresees the residual of {target.name}, within {_PREDICTED - 1.0:.0%}"
            quantity, limits = "farthest ratio of measured and foreseen 90% quantile, folded", {"at_most": _PREDICTED}
        else:
            claim = f"{target.name} is clean exactly if its point of rest is at the data and attracts"
            quantity, limits = "share of the smoothings where that is so", {"at_least": 1.0}
        found.append(over_cases(cases, Claim("this study", claim, "all smoothings", quantity), **limits))
    return found


def _case(study: Study, number: int, column: int, label: str) -> Case:
    """Return the ratio farthest from 1, or its inverse if that is larger; the share told by the point of rest."""
    if not TARGETS[number].clock:
        return Case.exact(label, float(told_by_rest(study, number, column).mean()))
    found = agreement(study, number, column)
    at = int(np.abs(np.log(found.ratio)).argmax())
    ratio, low, high = (float(each[at]) for each in (found.ratio, found.low, found.high))
    if ratio < 1.0:
        ratio, low, high = 1.0 / ratio, 1.0 / high, 1.0 / low if low > 0.0 else np.inf
    return Case(label, ratio, min(low, ratio), max(high, ratio))


def _networks(study: Study) -> list[Verdict]:
    """Whether the widest network ends at half the distance of the exact field that it approaches."""
    if not study.options.widths:
        return []
    found = []
    widest = study.trained.distance[:, :, -1]
    for number, target in enumerate(TARGETS):
        values = quantile(widest[number]) / quantile(study.own.distance[number])
        ends = interval(widest[number]) / interval(study.own.distance[number])[:, ::-1]
        rows = zip(_dims(study), values, ends, strict=True)
        cases = [Case(label, float(value), *map(float, end)) for label, value, end in rows]
        claim = f"a blind network of {target.name} ends at half the distance of its exact field, or nearer"
        condition = f"width {study.options.widths[-1]}, {study.options.steps:,} updates"
        about = Claim("Table 2, figure 5", claim, condition, "90% quantile, network / exact field")
        found.append(over_cases(cases, about, at_most=_HALF))
    return found


def _growth(study: Study) -> Verdict:
    """Whether the residual of noise prediction grows with D beyond that of velocity."""
    noise, velocity = exponents(study)
    claim = "the residual of noise prediction grows with the dimension, that of velocity does not"
    condition = f"clock of one datum, D from {study.options.growth[0]} to {study.options.growth[-1]}"
    cases = [Case.exact(condition, noise - velocity)]
    about = Claim("Table 2", claim, f"exponents in D {noise:.2f} and {velocity:.2f}", "difference of the exponents")
    return over_cases(cases, about, at_least=_APART)


def exponents(study: Study) -> tuple[float, float]:
    """Return the exponents in D of the residuals of noise prediction and velocity, fitted to the clock of one datum."""
    noise, velocity = (
        float(np.polyfit(np.log(study.options.growth), np.log(row), 1)[0]) if len(row) > 1 else float("nan")
        for row in study.growth
    )
    return noise, velocity
