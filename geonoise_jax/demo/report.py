"""Table, picture and self-contained page of the demo."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from geonoise_jax.demo.outcomes import Baselines, Outcome
from geonoise_jax.drawing import style
from geonoise_jax.drawing.page import embedded, table_row
from geonoise_jax.drawing.pictures import image_grid, to_image, to_pixels
from geonoise_jax.drawing.text import aligned, with_error
from geonoise_jax.evaluation.floors import Distance
from geonoise_jax.progress import duration
from geonoise_jax.studies.verdicts import Outcome as Told
from geonoise_jax.studies.verdicts import Verdict, judge

_SHOWN = 36
_HEADING = ("model", "distance", "x floor", "training", "sampling")
# A blind model breaks at this multiple of its twin's distance; a twin has learnt at this share of that of noise.
_BREAKS = 2.0
_LEARNT = 0.25
_RULE = f"more than {_BREAKS:g} counts as breaking"

# What the paper says of each system without noise conditioning (arXiv:2602.18428, abstract and section 5), and whether
# it expects it to break. Of the other systems it says nothing by name.
CLAIMS = {
    "ddpm": ("noise prediction is unstable when blind", True),
    "flow_matching": ("velocity prediction stays stable when blind", False),
    "edm": ("EDM stays stable when blind", False),
    "uedm": ("uEDM stays stable when blind", False),
    "eqm": ("equilibrium matching stays stable when blind", False),
}
TITLES = {
    "ddpm": "DDPM (noise target)",
    "iddpm": "improved DDPM",
    "score": "score, VP",
    "score_ve": "score, VE",
    "flow_matching": "flow matching (velocity target)",
    "stochastic_interpolant": "stochastic interpolant",
    "v_prediction": "v-prediction",
    "x_prediction": "x-prediction",
    "edm": "EDM",
    "uedm": "uEDM",
    "eqm": "equilibrium matching",
    "eqm_energy": "equilibrium energy",
    "bddm": "blind denoising diffusion",
    "dual_score": "dual score matching",
}
_COLUMNS = 6


def table(outcomes: Sequence[Outcome], baselines: Baselines) -> str:
    """Return the results as aligned text, one model a line, and what is seen."""
    rows = [_HEADING, *(_row(outcome, baselines) for outcome in outcomes), *_scale(baselines)]
    count = len(outcomes[0].samples)
    return "\n".join(
        [
            *aligned(rows, left=len(_HEADING)),
            "",
            *meaning(count, baselines),
            "",
            *reached(outcomes, baselines),
            *findings(outcomes, baselines),
        ]
    )


def meaning(count: int, baselines: Baselines) -> list[str]:
    """Return sentences: what varies by what stands behind each distance, and what that leaves out."""
    return [
        f"+-: standard deviation of the distance of {count} samples or digits; the floor is a mean over draws. "
        "Of two rows, differences below twice the root of the sum of both squares are within the spread.",
        "All rows share the held-out digits, and other ones would move all rows together, by about "
        f"{baselines.held_out:.1g}. Each model is one training run, whose own scatter is not measured.",
    ]


def reached(outcomes: Sequence[Outcome], baselines: Baselines) -> list[str]:
    """Return a sentence that names the models which are as near as training digits, or nothing without models."""
    near = [_name(each) for each in outcomes if not each.distance.differs(baselines.floor)]
    said = f"As near to the held-out digits as training digits, within the spread: {'; '.join(near) or 'no model'}."
    return [said] if outcomes else []


def findings(outcomes: Sequence[Outcome], baselines: Baselines) -> list[str]:
    """Return one sentence per system: what happened to its blind model, beside what the paper claims.

    There is no verdict on a blind model whose conditional twin has not learnt to sample either, nor on one whose
    distance from its twin cannot be told from the limit.
    """
    pairs = _pairs(outcomes)
    return [_sentence(system, *pair, baselines) for system, pair in pairs.items()]


def verdicts(outcomes: Sequence[Outcome], baselines: Baselines) -> list[Verdict]:
    """Return what :func:`findings` says as values."""
    return [_verdict(system, *pair, baselines) for system, pair in _pairs(outcomes).items()]


def _pairs(outcomes: Sequence[Outcome]) -> dict[str, tuple[Distance, Distance]]:
    """Return the distances of the blind model and of its conditional twin, of each system that the paper speaks of."""
    found = {}
    for system in CLAIMS:
        pair = {outcome.blind: outcome.distance for outcome in outcomes if outcome.system == system}
        if len(pair) == 2:
            found[system] = pair[True], pair[False]
    return found


def _verdict(system: str, blind: Distance, twin: Distance, baselines: Baselines) -> Verdict:
    claim, breaks = CLAIMS[system]
    ratio = blind.over(twin)
    low, high = ratio.range()
    if _has_learnt(twin, baselines):
        condition = _RULE
        works = judge(low, high, at_most=_BREAKS)
        told = {Told.HOLDS: Told.FAILS, Told.FAILS: Told.HOLDS}.get(works, works) if breaks else works
    else:
        condition, told = f"{_unlearnt(twin)})", Told.UNTOLD
    return Verdict(
        source="abstract, sec. 5",
        claim=f"{TITLES[system]}: {claim}",
        condition=condition,
        quantity="blind over conditional distance",
        value=ratio.value,
        low=low,
        high=high,
        outcome=told,
    )


def _has_learnt(twin: Distance, baselines: Baselines) -> bool:
    """Return whether a conditional model samples digits, without which its blind twin is not judged."""
    return twin.range()[1] <= _LEARNT * baselines.noise.value


def _unlearnt(twin: Distance) -> str:
    """Say why a blind model is not judged; the bracket is left open."""
    return f"its conditional twin does not sample digits yet (distance {with_error(*twin)}"


def _sentence(system: str, blind: Distance, twin: Distance, baselines: Baselines) -> str:
    """Say what happened, and whether that is what the paper says."""
    claim, expect_break = CLAIMS[system]
    outcome = _verdict(system, blind, twin, baselines).outcome
    how = f"{with_error(*blind.over(twin))} times as far from the digits as its conditional twin"
    if not blind.differs(twin):
        ratio = with_error(*blind.over(twin))
        how = f"as near to the digits as its conditional twin within the spread: {ratio} times as far"
    if not _has_learnt(twin, baselines):
        share = f"not clearly less than {_LEARNT:g} of that of noise); train longer."
        said, agrees = f"no verdict here, since {_unlearnt(twin)}, {share}", ""
    elif outcome is Told.UNTOLD:
        said, agrees = f"no verdict here ({how}; {_RULE}, which the spread does not tell); draw more samples.", ""
    else:
        agreeing = outcome is Told.HOLDS
        happened = "breaks" if expect_break == agreeing else "works"
        said, agrees = f"blind {happened} here ({how}; {_RULE}).", " Agrees." if agreeing else " DISAGREES."
    return f"{TITLES[system]}: {said} The paper: {claim}.{agrees}"


@style.paper()
def side_by_side(outcomes: Sequence[Outcome], held_out: np.ndarray) -> Image.Image:
    """Return the grids of all models and of real digits in one picture."""
    panels = [(_name(outcome), outcome.samples) for outcome in outcomes] + [("real digits (held out)", held_out)]
    columns = min(len(panels), _COLUMNS)
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(3.2 * columns, 3.6 * rows), layout="constrained", dpi=150 if rows == 1 else 75)
    for axes in figure.subplots(rows, columns, squeeze=False).ravel():
        axes.set_axis_off()
    for axes, (title, images) in zip(figure.axes, panels, strict=False):
        axes.imshow(_grid(images), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_title(title, loc="center", weight="normal")
    return to_image(figure, figure.dpi)


def page(outcomes: Sequence[Outcome], baselines: Baselines, held_out: np.ndarray, *, steps: int, seconds: float) -> str:
    """Return the report as one HTML page without external files."""
    grids = [(_name(outcome), outcome.samples) for outcome in outcomes] + [("real digits (held out)", held_out)]
    cells = "".join(
        f'<figure><img alt="{html.escape(title)}" src="{embedded(_grid(images))}">'
        f"<figcaption>{html.escape(title)}</figcaption></figure>"
        for title, images in grids
    )
    rows = "".join(map(table_row, [*(_row(outcome, baselines) for outcome in outcomes), *_scale(baselines)]))
    count = len(outcomes[0].samples)
    notes = "".join(
        f"<li>{html.escape(sentence)}</li>"
        for sentence in [*reached(outcomes, baselines), *findings(outcomes, baselines)]
    )
    return _PAGE.format(
        grids=cells,
        rows=rows,
        notes=notes,
        meaning=html.escape(" ".join(meaning(count, baselines))),
        curves=embedded(_curves(outcomes)),
        steps=steps,
        models=len(outcomes),
        count=count,
        held_out=len(held_out),
        seconds=duration(seconds),
    )


def _name(outcome: Outcome) -> str:
    return f"{TITLES[outcome.system]}, {'blind' if outcome.blind else 'conditional'}"


def _row(outcome: Outcome, baselines: Baselines) -> tuple[str, ...]:
    return (
        _name(outcome),
        with_error(*outcome.distance),
        with_error(*outcome.distance.over(baselines.floor)),
        duration(outcome.train_seconds),
        duration(outcome.sample_seconds),
    )


def _scale(baselines: Baselines) -> list[tuple[str, ...]]:
    """Return the rows that give the others a scale."""
    ratio = with_error(*baselines.noise.over(baselines.floor))
    return [
        ("training digits (floor)", with_error(*baselines.floor), "1", "", ""),
        ("Gaussian noise", with_error(*baselines.noise), ratio, "", ""),
    ]


def _grid(images: np.ndarray) -> Image.Image:
    return image_grid(to_pixels(images[:_SHOWN]))


@style.paper()
def _curves(outcomes: Sequence[Outcome]) -> Image.Image:
    systems = list(dict.fromkeys(outcome.system for outcome in outcomes))
    columns = min(len(systems), 4)
    rows = math.ceil(len(systems) / columns)
    figure = Figure(figsize=(4.5 * columns, 3.2 * rows), layout="constrained", dpi=120)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[len(systems) :]:
        axes.set_axis_off()
    for axes, system in zip(panels, systems, strict=False):
        for outcome in outcomes:
            if outcome.system == system:
                steps, losses = zip(*outcome.loss, strict=True)
                look = {"linestyle": "--"} if outcome.blind else {}
                axes.plot(steps, losses, label="blind" if outcome.blind else "conditional", **look)
        axes.set(title=TITLES[system], xlabel="step", ylabel="training loss", yscale="log")
        axes.legend()
    return to_image(figure, figure.dpi)


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>geonoise_jax demo</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
.grids {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(12rem, 1fr)); gap: 1rem; }}
figure {{ margin: 0; }}
figure img {{ width: 100%; image-rendering: pixelated; border: 1px solid #ccc; }}
figcaption {{ font-size: .85rem; text-align: center; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: .3rem .8rem; border-bottom: 1px solid #ddd; text-align: left; font-variant-numeric: tabular-nums; }}
.curves {{ max-width: 100%; }}
</style>
</head>
<body>
<h1>Which blind models work?</h1>
<p>{models} models of the 8&times;8 handwritten digits: the same U-Net, {steps} steps each. A <em>conditional</em>
network is told the noise level; a <em>blind</em> one sees only the noisy image. Nothing here was computed
beforehand: all comes from the runs in the folder of this page, the last call of <code>geonoise demo</code> took
{seconds}.</p>
<h2>Samples</h2>
<div class="grids">{grids}</div>
<h2>Distance to held-out digits</h2>
<table>
<tr><th>model</th><th>distance</th><th>&times; floor</th><th>training</th><th>sampling</th></tr>
{rows}
</table>
<p>Sliced 2-Wasserstein distance between {count} samples and {held_out} held-out digits, pixels in [&minus;1, 1].
The floor is the distance of {count} training digits to the same held-out digits. Times include compilation.</p>
<p>{meaning}</p>
<ul>{notes}</ul>
<h2>Training loss</h2>
<img class="curves" alt="training loss by step" src="{curves}">
<p>Losses of different systems are of different targets and not comparable with each other.</p>
</body>
</html>
"""
