"""What exact blind fields say of the paper's Table 2, system by system."""

from __future__ import annotations

from geonoise_jax.studies.blind_sampling.study import BREAKS, LARGEST_RESIDUAL, SAME_DISTANCE, Study
from geonoise_jax.studies.cases import Case, Claim, over_cases
from geonoise_jax.studies.verdicts import Verdict


def verdicts(study: Study) -> list[Verdict]:
    """Return whether each blind field breaks or is stable as claimed; of a stable one also whether it stays bounded.

    At the data is at most twice as far from them as the conditional field; bounded is at most one radius of the data
    away, which a residual is and a divergence is not.
    """
    found = []
    condition = f"exact fields of 16 points on a circle, {study.options.num_steps} Heun steps"
    ratio = Claim("Table 2", "", condition, "blind over conditional distance")
    for number, system in enumerate(study.systems):
        ratios, distances = _cases(study, number)
        name = f"{system.name}: the blind field"
        if system.claim == BREAKS:
            found.append(over_cases(ratios, ratio._replace(claim=f"{name} breaks"), at_least=SAME_DISTANCE))
            continue
        found.append(over_cases(ratios, ratio._replace(claim=f"{name} reaches the data"), at_most=SAME_DISTANCE))
        near = Claim("Table 2", f"{name} stays within one radius of the data", condition, "distance to the data")
        found.append(over_cases(distances, near, at_most=LARGEST_RESIDUAL))
    return found


def _cases(study: Study, number: int) -> tuple[list[Case], list[Case]]:
    """Return the ratio of blind to conditional quantile, and the blind quantile, in every dimension."""
    ratio = study.blind_quantile / study.conditional_quantile
    labels = [f"D = {dim}" for dim in study.options.dims]
    ratios, distances = (
        [Case(label, float(one), *map(float, ends)) for label, one, ends in zip(labels, values, intervals, strict=True)]
        for values, intervals in (
            (ratio[number], study.ratio_interval[number]),
            (study.blind_quantile[number], study.blind_interval[number]),
        )
    )
    return ratios, distances
