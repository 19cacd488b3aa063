"""One look for all figures: small sans-serif type, thin light grids, colours that colour-blind readers tell apart."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib import rcsetup
from matplotlib.figure import Figure

# Okabe & Ito (2008), "Color universal design", without the yellow that is lost on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
REFERENCE = "0.45"
_MOST_TICKS = 7
# Of a title, in the widest letters that sentences have on average.
_LETTERS_PER_INCH = 10.5
_RC: Any = {
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelsize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": rcsetup.cycler("color", COLORS),
    "grid.color": "0.92",
    "grid.linewidth": 0.7,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.fontsize": 7.5,
    # Curves that pass below a legend leave it readable.
    "legend.framealpha": 0.85,
    "legend.edgecolor": "none",
    "legend.fancybox": False,
    "legend.handlelength": 2.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "errorbar.capsize": 1.5,
    "figure.titlesize": 10.5,
    "figure.titleweight": "bold",
}


def paper() -> Any:
    """Return a context in which figures are made, also to be used as a decorator."""
    return matplotlib.rc_context(_RC)


def headed(figure: Figure, title: str) -> None:
    """Set the title of a figure at its left, where it stands over no title of a panel, in lines that fit its width."""
    letters = int(_LETTERS_PER_INCH * figure.get_figwidth())
    figure.suptitle("\n".join(textwrap.wrap(title, letters)), x=0.005, ha="left")


def step_axis(axes: Any, steps: Sequence[int]) -> None:
    """Make a logarithmic axis of training steps that has room for step 0, with round numbers in words.

    It is linear up to the first step after 0.
    """
    first, last = min(step for step in steps if step > 0), max(steps)
    axes.set_xscale("symlog", linthresh=first, linscale=0.3)
    ticks = [0, *_round_numbers(first, last)]
    axes.set_xticks(ticks, [thousands(tick) for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set(xlabel="training step", xlim=(-0.12 * first, 1.25 * last))


def thousands(number: int) -> str:
    """Return a number of steps in few letters: 500, 2k, 1.5M."""
    for size, unit in ((10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:g}{unit}"
    return f"{number:g}"


def _round_numbers(low: int, high: int) -> list[int]:
    """Return as many round numbers from low to high as an axis has room for; the ends where there are none."""
    for digits in ((1, 2, 5), (1, 3), (1,)):
        found = [digit * 10**power for power in range(len(str(high)) + 1) for digit in digits]
        found = [number for number in found if low <= number <= high]
        if 2 <= len(found) <= _MOST_TICKS:
            return found
    return [low, high] if low < high else [low]
