"""What the models of images say of the paper's Figures 3 and 4: which systems lose by not seeing the noise level."""

from __future__ import annotations

import math
from typing import Any

from geonoise_jax.evaluation.floors import Distance
from geonoise_jax.studies.cases import Case, Claim, over_cases
from geonoise_jax.studies.images.models import Model
from geonoise_jax.studies.images.study import Result, Study
from geonoise_jax.studies.verdicts import Verdict

# A blind model breaks at this multiple of the distance of its conditional twin, as in the demo.
_BREAKS = 2.0
_NOTHING = Distance(math.nan, 0.0)
_DISTANCES = ("sliced_wasserstein", "frechet")
_CLAIMS = {
    "ddpm": ("blind noise prediction (DDPM) breaks", True),
    "flow_matching": ("blind flow matching works", False),
    "edm": ("blind EDM works", False),
    "eqm": ("equilibrium matching works without the noise level", False),
}


def verdicts(study: Study) -> list[Verdict]:
    """Return, for each system, whether its blind model is more than twice as far from the data as its twin."""
    results = {each.model: each for each in study.results}
    found = []
    for system in study.options.systems:
        claim, breaks = _CLAIMS[system]
        pair = [results[Model(system, conditioning)] for conditioning in ("blind", "conditional")]
        condition = f"{study.options.data}, {pair[0].step} updates, {_BREAKS:g} counts as breaking, by"
        about = Claim("Figs. 3, 4", claim, condition, "blind over conditional distance")
        low, high = (_BREAKS, math.inf) if breaks else (0.0, _BREAKS)
        found.append(over_cases(_ratios(*pair), about, at_least=low, at_most=high))
    return found


def _ratios(blind: Result, twin: Result) -> list[Case]:
    cases = []
    for one in blind.records:
        if one["metric"] in _DISTANCES:
            other = next(each for each in twin.records if _kind(each) == _kind(one))
            # A twin that breaks itself tells nothing.
            ratio = _distance(one).over(_distance(other)) if other["value"] is not None else _NOTHING
            label = " ".join(filter(None, (one["metric"].replace("_", " "), one["network"])))
            cases.append(Case(label, ratio.value, *ratio.range()))
    return cases


def _kind(one: dict[str, Any]) -> tuple[Any, Any]:
    return one["metric"], one["network"]


def _distance(one: dict[str, Any]) -> Distance:
    """Return a distance with its spread; infinite where samples are not finite."""
    return Distance(math.inf, 0.0) if one["value"] is None else Distance(one["value"], one["spread"])
