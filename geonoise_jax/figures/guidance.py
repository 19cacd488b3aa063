"""Table and picture of samples at several guidance scales."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from geonoise_jax.figures import style
from geonoise_jax.figures.pictures import image_grid, to_image, to_pixels
from geonoise_jax.figures.text import aligned, with_error

if TYPE_CHECKING:
    from geonoise_jax.evaluation.guidance import Run, Share, Study

_OF_A_CLASS = 2


def table(study: Study) -> str:
    """Return the runs as text, with the held-out data and the chance of guessing beside them."""
    heading = (
        f"{study.title}: {len(study.labels)} samples per run\n"
        "of its class: share of samples whose nearest training data have the class that was asked for\n"
        "distance: sliced 2-Wasserstein, to held-out data; data: mean over draws of training data, classes alike\n"
        "+-: standard deviation over such samples; the held-out data and the network are the same for all"
    )
    rows = [["scale", "noise levels", "of its class", "distance"]]
    rows += [[f"{run.scale:g}", _levels(run), _percent(run.accuracy), with_error(*run.distance)] for run in study.runs]
    rows.append(["data", "", _percent(study.accuracy), with_error(*study.floor)])
    return "\n".join([heading, "", *aligned(rows, left=2), "", *findings(study)])


def findings(study: Study) -> list[str]:
    """Return a sentence that names the runs which are as near to the held-out data as training data."""
    near = [f"{run.scale:g} ({_levels(run)})" for run in study.runs if not run.distance.differs(study.floor)]
    return [f"As near to the held-out data as training data, within the spread: {'; '.join(near) or 'no scale'}."]


@style.paper()
def picture(study: Study) -> Image.Image:
    """Return accuracy and distance by scale and, of images, some samples of each class."""
    images = study.runs[0].samples.ndim == 4
    figure = Figure(figsize=(13.0 if images else 4.6, 5.0), layout="constrained")
    grid = figure.add_gridspec(2, 2 if images else 1, width_ratios=[1, 3] if images else None)
    accuracy, distance = (figure.add_subplot(grid[row, 0]) for row in range(2))
    _curve(accuracy, study, "accuracy", study.accuracy)
    accuracy.set(title="Share that is of the class asked for", ylabel="share")
    _curve(distance, study, "distance", study.floor)
    distance.set(title="Distance to held-out data", xlabel="guidance scale", ylabel="sliced 2-Wasserstein")
    accuracy.legend(loc="lower right")
    if images:
        _show_samples(figure.add_subplot(grid[:, 1]), study)
    style.headed(figure, f"{study.title}: classifier-free guidance")
    return to_image(figure)


def _curve(axes: Any, study: Study, name: str, reference: tuple[float, float]) -> None:
    looks: tuple[dict[str, Any], ...] = (
        {"marker": "o"},
        {"marker": "s", "linestyle": "--", "markerfacecolor": "white"},
    )
    for limited, label, look in zip((False, True), ("at all noise levels", "in the middle"), looks, strict=True):
        # Without guidance there is nothing to limit: that run belongs to both curves.
        runs = [run for run in study.runs if run.scale == 1.0 or (run.interval is not None) == limited]
        runs.sort(key=lambda run: run.scale)
        if runs:
            values, errors = zip(*(getattr(run, name) for run in runs), strict=True)
            axes.errorbar([run.scale for run in runs], values, errors, label=label, **look)
    value, error = reference
    axes.axhline(value, color=style.REFERENCE, linestyle=":", label="data")
    axes.axhspan(value - error, value + error, color="0.6", alpha=0.2, linewidth=0)


def _show_samples(axes: Any, study: Study) -> None:
    order = np.argsort(study.labels, kind="stable")
    firsts = [row for label in np.unique(study.labels) for row in order[study.labels[order] == label][:_OF_A_CLASS]]
    tiles = np.concatenate([to_pixels(run.samples[firsts]) for run in study.runs])
    shown = image_grid(tiles, columns=len(firsts))
    axes.imshow(shown, cmap="gray", vmin=0, vmax=255, aspect="equal")
    height = shown.height / len(study.runs)
    labels = [f"{run.scale:g}" + ("" if run.interval is None else " (middle)") for run in study.runs]
    axes.set_yticks([(row + 0.5) * height for row in range(len(labels))], labels)
    width, classes = shown.width / len(firsts), study.labels[firsts]
    centres = [(np.flatnonzero(classes == label).mean() + 0.5) * width for label in np.unique(classes)]
    axes.set_xticks(centres, [str(label) for label in np.unique(classes)])
    axes.set(title="Samples, by guidance scale and class", xlabel="class asked for", ylabel="guidance scale")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)


def _levels(run: Run) -> str:
    return "all" if run.interval is None else f"{run.interval[0]:.3g} to {run.interval[1]:.3g}"


def _percent(share: Share) -> str:
    return f"{share.value:.1%} +- {share.error:.1%}"
