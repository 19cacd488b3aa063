"""Table, picture and verdicts of linear guidance beside others."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from geonoise_jax.drawing import style
from geonoise_jax.drawing.text import aligned, percent
from geonoise_jax.evaluation.intervals import GROUPS, Estimate, jackknife, jackknifed, wilson
from geonoise_jax.studies.cases import Case, Claim, over_cases
from geonoise_jax.studies.cfg_linear.linear import COMPONENTS, SHIFT
from geonoise_jax.studies.cfg_linear.study import Study
from geonoise_jax.studies.verdicts import Verdict

_SOURCE = "Li et al. 2025"
_MOST = 0.5
# Noise levels, as b / a, below which the paper's networks are no longer linear, and above which the shift rules.
_LOW, _HIGH = 0.2, 3.0
_MARKERS = "os^"
# Of the axis of agreement.
_LOWEST = -0.3


def explained(study: Study, name: str, level: int, component: int | None = None) -> Estimate:
    """Return the share ``1 - E|h - g|^2 / E|h|^2`` that the linear guidance g explains of another, h.

    Args:
        study: the study.
        name: whose guidance h is.
        level: number of the noise level.
        component: g is that component alone; None for all three.
    """
    own, product = study.linear[level], study.products[name][level]
    if component is not None:
        own, product = study.components[component, level], study.with_components[name][component, level]

    def share(square: float, product: float, own: float) -> float:
        return (2.0 * product - own) / square

    return _estimate(share, study.squares[name][level], product, own)


def cosine(study: Study, name: str, level: int) -> Estimate:
    """Return ``E h.g / sqrt(E|h|^2 E|g|^2)`` of the linear guidance g and another, h."""

    def angle(square: float, product: float, own: float) -> float:
        return product / math.sqrt(square * own)

    return _estimate(angle, study.squares[name][level], study.products[name][level], study.linear[level])


def _estimate(statistic: Callable[..., float], *columns: Float[np.ndarray, "n"]) -> Estimate:
    """Return a function of means over observations, with the interval of the jackknife over groups of them."""
    table = np.stack(columns)
    group = np.arange(table.shape[1]) % min(GROUPS, table.shape[1])
    sizes = np.bincount(group).tolist()
    without = [statistic(*table[:, group != each].mean(axis=1)) for each in range(len(sizes))]
    whole = statistic(*table.mean(axis=1))
    return jackknifed(whole, [jackknife(whole, without, sizes)], correct=False)


def table(study: Study) -> str:
    """Return sizes of guidance and of its linear components, and how much these explain, by noise level, as text."""
    options = study.options
    heading = (
        f"{study.title}: guidance D_c(u) - D(u) at {study.linear.shape[1]} held-out images, root mean square of an "
        "entry.\nexplained: 1 - E|h - g|^2 / E|h|^2 of the guidance h by all three components g, and by the mean shift "
        "alone"
    )
    names = list(study.squares)
    header = ["b / a", *COMPONENTS, "linear", *names]
    header += [f"{name}: {what}" for name in names for what in ("explained", "by the shift", "cosine")]
    rows = [header]
    for level, ratio in enumerate(options.ratios):
        sizes = [*study.components[:, level], study.linear[level], *(study.squares[name][level] for name in names)]
        row = [f"{ratio:g}", *(f"{math.sqrt(each.mean()):.4f}" for each in sizes)]
        for name in names:
            row += [_said(explained(study, name, level)), f"{explained(study, name, level, SHIFT).value:.2f}"]
            row.append(f"{cosine(study, name, level).value:.2f}")
        rows.append(row)
    blocks = ["\n".join([heading, "", *aligned(rows)])]
    if study.guided:
        blocks.append("\n".join(_guided_lines(study)))
    return "\n\n".join(blocks)


def _said(found: Estimate) -> str:
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def _guided_lines(study: Study) -> list[str]:
    options = study.options
    heading = (
        f"{options.num_samples} samples of the network, guided with weight {options.scale:g} by: share whose nearest "
        "training images are of the class asked for,\nand sliced 2-Wasserstein distance to held-out images"
    )
    rows = [["guided by", "of its class", "distance"]]
    for each in study.guided:
        found = wilson(float(each.hits.mean()), len(each.hits))
        rows.append(
            [each.guide, f"{percent(found.value)} +- {percent(0.5 * (found.high - found.low))}", f"{each.distance:.3f}"]
        )
    return [heading, "", *aligned(rows)]


def verdicts(study: Study) -> list[Verdict]:
    """Return what the numbers say of linear guidance: where it resembles others, where not, and what it consists of."""
    ratios = list(enumerate(study.options.ratios))
    found = []
    for name in study.squares:
        middle = [(level, ratio) for level, ratio in ratios if ratio > _LOW]
        low = [(level, ratio) for level, ratio in ratios if ratio <= _LOW]
        where = f"{study.title}: {name} guidance"
        quantity = "share explained"
        claims = [
            ("linear guidance explains most of guidance at middle and high noise", middle, {"at_least": _MOST}),
            ("at low noise it does not", low, {"at_most": _MOST}),
        ]
        for claim, levels, limits in claims:
            cases = [_case(f"b / a = {ratio:g}", explained(study, name, level)) for level, ratio in levels]
            if cases:
                found.append(over_cases(cases, Claim(_SOURCE, claim, where, quantity), **limits))
        high = [
            _case(f"b / a = {ratio:g}", explained(study, name, level, SHIFT))
            for level, ratio in ratios
            if ratio > _HIGH
        ]
        if high:
            claim = "at high noise the mean shift is most of guidance"
            found.append(over_cases(high, Claim(_SOURCE, claim, where, f"{quantity} by the shift"), at_least=_MOST))
    return found + _of_samples(study)


def _of_samples(study: Study) -> list[Verdict]:
    """Return whether each guide draws more samples of the class that is asked for than none does."""
    if not study.guided:
        return []
    plain, *others = study.guided
    cases = []
    for each in others:
        gain = each.hits.astype(np.float64) - plain.hits
        cases.append(Case.of(each.guide, float(gain.mean()), float(gain.std(ddof=1)) / math.sqrt(len(gain))))
    where = f"{study.title}, weight {study.options.scale:g}, guided by"
    claim = Claim(
        _SOURCE,
        "guidance draws more samples of the class, by the network and by each component",
        where,
        "gain in share",
    )
    return [over_cases(cases, claim, at_least=0.0)]


def _case(label: str, found: Estimate) -> Case:
    return Case(label, found.value, found.low, found.high)


def arrays(study: Study) -> dict[str, Any]:
    """Return mean squares by noise level and observation, shares explained with their intervals, and samples."""
    names, levels = list(study.squares), range(len(study.times))
    found: dict[str, Any] = {"ratios": study.options.ratios, "times": study.times, "guides": names}
    found |= {"components": study.components, "linear": study.linear, "labels": study.labels}
    for name in ("squares", "products"):
        found[name] = np.stack([getattr(study, name)[each] for each in names])
    found["explained"] = np.asarray([[_numbers(explained(study, name, level)) for level in levels] for name in names])
    found["cosine"] = np.asarray([[_numbers(cosine(study, name, level)) for level in levels] for name in names])
    if study.guided:
        found["guided_by"] = [each.guide for each in study.guided]
        for name in ("hits", "distance", "samples"):
            found[name if name != "samples" else "x"] = np.stack([getattr(each, name) for each in study.guided])
    return found


def _numbers(found: Estimate) -> tuple[float, float, float]:
    return found.value, found.low, found.high


@style.paper()
def picture(study: Study) -> Figure:
    """Return sizes of the components, shares explained and, of a network, what each guide does to samples."""
    columns = 3 if study.guided else 2
    figure = Figure(figsize=(4.2 * columns, 4.2), layout="constrained")
    grid: Any = figure.subplots(1, columns)
    _draw_sizes(study, grid[0])
    _draw_explained(study, grid[1])
    if study.guided:
        _draw_guided(study, grid[2])
    style.headed(figure, f"{study.title}: classifier-free guidance and its linear model")
    return figure


def _draw_sizes(study: Study, axes: Any) -> None:
    ratios = study.options.ratios
    for number, name in enumerate(COMPONENTS):
        size = np.sqrt(study.components[number].mean(axis=1))
        label = name if number == SHIFT else f"{name} contrastive"
        axes.plot(ratios, size, color=style.COLORS[number], marker=_MARKERS[number], label=label)
    axes.plot(ratios, np.sqrt(study.linear.mean(axis=1)), "k-", label="linear guidance, all three")
    for name, line in zip(study.squares, ("--", ":"), strict=False):
        axes.plot(
            ratios, np.sqrt(study.squares[name].mean(axis=1)), line, color=style.REFERENCE, label=f"{name} guidance"
        )
    axes.set(
        xscale="log", xlabel="noise level b / a", ylabel="root mean square of an entry, in units of x", ylim=(0.0, None)
    )
    axes.set_title("Size of $D_c(u) - D(u)$")
    axes.legend()


def _draw_explained(study: Study, axes: Any) -> None:
    """Draw cosines and shares; a share far below zero, where the linear model is worse than nothing, is not shown."""
    ratios, levels = study.options.ratios, range(len(study.options.ratios))
    for number, name in enumerate(study.squares):
        color = style.COLORS[(6, 3)[number]]
        for statistic, line, label in ((cosine, "o-", "cosine"), (explained, "s--", "share explained")):
            value, low, high = np.asarray([_numbers(statistic(study, name, level)) for level in levels]).T
            value = np.where(value < _LOWEST, np.nan, value)
            look: dict[str, Any] = {"color": color, "label": f"{name} guidance, {label}"}
            axes.errorbar(ratios, value, [value - low, high - value], fmt=line, **look)
    axes.axhline(0.0, color=style.REFERENCE, linewidth=0.8)
    axes.set(
        xscale="log", xlabel="noise level b / a", ylabel="of the linear guidance with others", ylim=(_LOWEST, 1.05)
    )
    axes.set_title("Agreement with the linear model")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2, columnspacing=1.0)


def _draw_guided(study: Study, axes: Any) -> None:
    names = [each.guide for each in study.guided]
    found = [wilson(float(each.hits.mean()), len(each.hits)) for each in study.guided]
    value, low, high = np.asarray([_numbers(each) for each in found]).T
    places = np.arange(len(names))
    axes.barh(places, value, xerr=[value - low, high - value], color=style.COLORS[0], alpha=0.75, height=0.6)
    for place, each in zip(places, study.guided, strict=True):
        axes.text(0.02, place, f"distance {each.distance:.3f}", va="center", fontsize=7.5, color="white")
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set(xlabel="share of samples of the class asked for", xlim=(0.0, 1.02))
    axes.set_title(f"Samples guided with weight {study.options.scale:g} by")
    axes.grid(visible=False, axis="y")
