"""Table and curves of the excess risk of a network along training."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from geonoise_jax.drawing import style
from geonoise_jax.drawing.text import aligned, percent, with_error
from geonoise_jax.studies.cases import Case, Claim, over_cases
from geonoise_jax.studies.excess_risk.estimates import Estimate, Summary, summarise
from geonoise_jax.studies.excess_risk.study import HELD_OUT, TRAIN, Study
from geonoise_jax.studies.verdicts import Verdict

# A difference counts as seen from this many standard errors on.
_SEEN = 4.0
# A loss that differs by less than this share is the same.
_CLOSE = 0.1
# Of the splits, or of what is compared: lines with full and with open marks, which are told apart where they coincide.
_LOOKS: tuple[dict[str, Any], ...] = (
    {"linestyle": "-", "marker": "o"},
    {"linestyle": (0, (4, 2)), "marker": "s", "markerfacecolor": "white", "markersize": 6.0, "zorder": 1.9},
)
_FLOORS = ((0, (5, 1.5, 1, 1.5)), ":")
_UNIT = "weighted squared error per entry"


def table(study: Study) -> str:
    """Return the results as text: a block for each split, the noise levels at the end, and what is seen."""
    summary = summarise(study)
    blocks = [_along_training(summary, split) for split in range(len(summary.splits))]
    return "\n\n".join([_heading(summary), *blocks, _by_level(summary), *findings(summary)])


def findings(summary: Summary) -> list[str]:
    """Return sentences: the approach to each law's field on its own draws, and what happens on held-out points."""
    approaches = [_approach(summary, law, split) for law, split in summary.own]
    return [*approaches, *(_memory(summary, law) for law, name in enumerate(summary.laws) if name == "training set")]


def verdicts(study: Study) -> list[Verdict]:
    """Return what the run says of equations (4) and (6): where the loss is least, and whether training gets there."""
    summary = summarise(study)
    return [_identity(summary), *(_learnt(summary, law, split) for law, split in summary.own)]


def _identity(summary: Summary) -> Verdict:
    worst = [
        Case.exact(f"{summary.laws[law]}, step {step}", float(abs(z)))
        for law, split in summary.own
        for step, z in zip(summary.steps, _z(summary, np.s_[:, law, split]), strict=True)
    ]
    return over_cases(
        [max(worst, key=lambda case: case.value)],
        Claim(
            source="eqs. 4, 6",
            claim="the loss exceeds its least value by the squared distance to the exact field",
            condition=f"{summary.num} draws a split, worst case",
            quantity="difference in standard errors",
        ),
        at_most=_SEEN,
    )


def _learnt(summary: Summary, law: int, split: int) -> Verdict:
    """Whether the network is the exact field of a law: of training points, judged on draws that it never saw."""
    name = summary.laws[law]
    seen = summary.splits[split] == TRAIN and HELD_OUT in summary.splits
    where = summary.splits.index(HELD_OUT) if seen else split
    gap, error = (float(part[-1, law, where]) for part in (summary.gap.mean, summary.gap.error))
    floor = float(summary.floor.mean[law, where])
    return over_cases(
        [Case.of(f"step {summary.steps[-1]}", gap / floor, error / floor)],
        Claim(
            source="eqs. 4, 6",
            claim=f"the trained network is the exact field of the {name}, to {_CLOSE:.0%} of its loss",
            condition=f"{summary.title}, {summary.splits[where]} draws",
            quantity="loss less that of the exact field, relative",
        ),
        at_least=-_CLOSE,
        at_most=_CLOSE,
    )


@style.paper()
def picture(study: Study) -> Figure:
    """Return losses and floors by step, the excess risk by step, and the excess risk by noise level at the end."""
    summary = summarise(study)
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    losses, excess, levels = figure.subplots(1, 3)
    _plot_losses(summary, losses)
    _plot_excess(summary, excess)
    _plot_levels(summary, levels)
    style.headed(figure, f"{summary.title}: a network and the exact fields of its data")
    return figure


def arrays(study: Study) -> dict[str, np.ndarray]:
    """Return the fields of :class:`Study`, and those of :class:`Summary` as ``mean_NAME`` and ``error_NAME``."""
    found = {field.name: np.asarray(getattr(study, field.name)) for field in dataclasses.fields(study)}
    summary = summarise(study)
    for field in dataclasses.fields(summary):
        value = getattr(summary, field.name)
        if isinstance(value, Estimate):
            found |= {f"mean_{field.name}": value.mean, f"error_{field.name}": value.error}
    return found | {"level_t": summary.level_t, "level_noise": summary.level_noise}


def _heading(summary: Summary) -> str:
    return (
        f"{summary.title}\n"
        f"{summary.num} draws per split; weighted squares, means over entries, with standard errors over such draws.\n"
        "excess: E w|f - f*|^2, f the network and f* the exact field of a law of the data.\n"
        "gap: loss of f less that of f*, on the same draws. Where the draws follow the law (marked *), excess and gap\n"
        "have one expectation; z is their difference in standard errors."
    )


def _along_training(summary: Summary, split: int) -> str:
    header, columns = ["step", "loss"], [[str(step) for step in summary.steps], _cells(summary.loss, np.s_[:, split])]
    floors = []
    for law, name in enumerate(summary.laws):
        at = np.s_[:, law, split]
        own = (law, split) in summary.own
        header += [f"excess, {name}{' *' if own else ''}", "gap", *(["z"] if own else [])]
        columns += [_cells(summary.excess, at), _cells(summary.gap, at), *([_z_scores(summary, at)] if own else [])]
        floors.append(f"loss of the exact field, {name}: {_cells(summary.floor, np.s_[law : law + 1, split])[0]}")
    rows = zip(*columns, strict=True)
    return "\n".join([f"Draws from the split: {summary.splits[split]}", *floors, *aligned([header, *rows], left=0)])


def _by_level(summary: Summary) -> str:
    """The last checkpoint by noise level, for each law on its own draws."""
    header = ["t from", "to", "b/a from", "to"]
    columns = [[f"{value:.4g}" for value in end] for end in (*summary.level_t.T, *summary.level_noise.T)]
    for law, split in summary.own:
        excess = summary.level_excess.mean[law, split]
        # Of no excess at all, every bin has the share 0.
        shares = excess / max(excess.sum(), np.finfo(float).tiny)
        header += [f"excess, {summary.laws[law]}", "share", "floor"]
        columns += [_cells(summary.level_excess, np.s_[law, split]), [f"{share:.0%}" for share in shares]]
        columns.append(_cells(summary.level_floor, np.s_[law, split]))
    title = f"Step {summary.steps[-1]} by noise level, in bins of equal probability; each law on its own draws"
    return "\n".join([title, *aligned([header, *zip(*columns, strict=True)], left=0)])


def _approach(summary: Summary, law: int, split: int) -> str:
    excess, floor = _cells(summary.excess, np.s_[:, law, split]), summary.floor.mean[law, split]
    share = summary.excess.mean[-1, law, split] / floor
    worst = np.abs(_z(summary, np.s_[:, law, split])).max()
    identity = "agree" if worst <= _SEEN else "DISAGREE"
    return (
        f"Exact field of the {summary.laws[law]}, {summary.splits[split]} draws: the excess risk went from "
        f"{excess[0]} before training to {excess[-1]} after {summary.steps[-1]} steps, {percent(share)} of the floor "
        f"{floor:.3g}; excess and gap {identity} at every step (|z| <= {worst:.1f})."
    )


def _memory(summary: Summary, law: int) -> str:
    """Compare the network with the field of its training points where memory does not help."""
    split = summary.splits.index("held out")
    gap, error = (part[-1, law, split] for part in (summary.gap.mean, summary.gap.error))
    (apart,) = _cells(summary.excess, np.s_[-1:, law, split])
    seen = (
        "cannot be told apart from" if abs(gap) <= _SEEN * error else "is worse than" if gap > 0 else "is better than"
    )
    meaning = (
        " A network that generalises does not become the field of its training points." if gap < -_SEEN * error else ""
    )
    return (
        f"On held-out draws the network {seen} the exact field of the training points: their losses differ by "
        f"{with_error(gap, error, sign='+')}, and their fields by {apart}.{meaning}"
    )


def _z(summary: Summary, at: Any) -> np.ndarray:
    # An exact field has no cross term at all: zero, not 0 / 0.
    return summary.cross.mean[at] / np.maximum(summary.cross.error[at], np.finfo(float).tiny)


def _z_scores(summary: Summary, at: Any) -> list[str]:
    return [f"{z:+.1f}" for z in _z(summary, at)]


def _cells(terms: Estimate, at: Any) -> list[str]:
    return [with_error(mean, error, digits=2) for mean, error in zip(terms.mean[at], terms.error[at], strict=True)]


def _plot_losses(summary: Summary, axes: Any) -> None:
    for split, name in enumerate(summary.splits):
        look = {**_LOOKS[split], "color": style.COLORS[split]}
        _with_errors(axes, summary.steps, summary.loss, np.s_[:, split], label=f"network, {name} draws", **look)
        for law, dashes in zip(range(len(summary.laws)), _FLOORS, strict=False):
            axes.axhline(summary.floor.mean[law, split], color=style.COLORS[split], linestyle=dashes, linewidth=1.0)
    for name, dashes in zip(summary.laws, _FLOORS, strict=False):
        label = f"exact field of the {name}, by colour of the draws"
        axes.plot([], [], color=style.REFERENCE, linestyle=dashes, linewidth=1.0, label=label)
    # The untrained network is left out of the range, or nothing could be told apart in it.
    top = max(summary.loss.mean[1:].max(), summary.floor.mean.max())
    bottom = min(summary.loss.mean[1:].min(), summary.floor.mean.min())
    axes.set(title="Loss", ylabel=_UNIT, ylim=(bottom - 0.1 * (top - bottom), top + 0.5 * (top - bottom)))
    _finish_steps(summary, axes)


def _plot_excess(summary: Summary, axes: Any) -> None:
    for law, name in enumerate(summary.laws):
        for split, look in enumerate(_LOOKS):
            at, label = np.s_[:, law, split], f"{name}, {summary.splits[split]} draws"
            _with_errors(axes, summary.steps, summary.excess, at, label=label, color=style.COLORS[law], **look)
    for law, split in summary.own:
        label = f"{summary.laws[law]}: loss less floor, same draws"
        look = {"color": style.COLORS[law], "markersize": 7.0, "markeredgewidth": 1.2}
        axes.plot(summary.steps, summary.gap.mean[:, law, split], "x", label=label, **look)
    axes.set(title=r"Excess risk $E\,w\,|f - f^*|^2$ over an exact field", yscale="log")
    _headroom(axes, len(summary.laws))
    _finish_steps(summary, axes)


def _plot_levels(summary: Summary, axes: Any) -> None:
    noise = np.sqrt(summary.level_noise.prod(axis=1))
    for law, split in summary.own:
        for terms, look, word in (
            (summary.level_excess, _LOOKS[0], "excess"),
            (summary.level_floor, _LOOKS[1], "floor"),
        ):
            label = f"{word}, {summary.laws[law]}, {summary.splits[split]} draws"
            _with_errors(axes, noise, terms, np.s_[law, split], label=label, color=style.COLORS[law], **look)
    title = f"By noise level, at step {summary.steps[-1]:,}"
    axes.set(title=title, xlabel="noise-to-signal ratio b / a", xscale="log", yscale="log")
    _headroom(axes, len(summary.laws))
    axes.legend(loc="upper right")


def _with_errors(axes: Any, x: np.ndarray, terms: Estimate, at: Any, **look: Any) -> None:
    axes.errorbar(x, terms.mean[at], terms.error[at], **look)


def _headroom(axes: Any, laws: int) -> None:
    """Leave room for the legend above the curves of a logarithmic axis."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * (high / low) ** (0.1 + 0.12 * laws))


def _finish_steps(summary: Summary, axes: Any) -> None:
    style.step_axis(axes, summary.steps.tolist())
    axes.legend(loc="upper right")
