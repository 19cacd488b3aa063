"""One self-contained page of all studies: every verdict in one table, then each study's picture and numbers."""

from __future__ import annotations

import base64
import html
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from geonoise_jax import files
from geonoise_jax.drawing.outputs import beside
from geonoise_jax.drawing.page import whole
from geonoise_jax.studies.runner import Result
from geonoise_jax.studies.verdicts import HEADING, Outcome, Row

# A picture of at most as many bytes is shown as curves, which are sharp at any size.
_MOST_SVG = 400_000
# How an outcome looks, told apart without colours too, and how several are spoken of.
_SIGNS = {Outcome.HOLDS: "✓", Outcome.HOLDS_IF: "◐", Outcome.FAILS: "✗", Outcome.UNTOLD: "?"}
_WORDS = {
    Outcome.HOLDS: ("holds", "hold"),
    Outcome.HOLDS_IF: ("holds under a condition", "hold under a condition"),
    Outcome.FAILS: ("does not hold", "do not hold"),
    Outcome.UNTOLD: ("cannot be told", "cannot be told"),
}
_ANIMATED = (".webp", ".gif")


class Part(NamedTuple):
    """A study on the page.

    Attributes:
        name: its name.
        about: what it is about, as a phrase.
        commands: command lines that make it.
        out: the common name of its files.
        found: what it found; None where it could not be made.
        failure: why it could not; empty where it could.
    """

    name: str
    about: str
    commands: tuple[str, ...] = ()
    out: Path | None = None
    found: Result | None = None
    failure: str = ""

    @property
    def rows(self) -> tuple[Row, ...]:
        """Its verdicts."""
        return () if self.found is None else self.found.rows


def page(parts: Sequence[Part], total: int, versions: Mapping[str, str], *, quick: bool) -> str:
    """Return the page.

    Args:
        parts: the studies.
        total: how many there are to be.
        versions: of the libraries, by name.
        quick: whether the numbers are of a try-out.
    """
    rows = [row for each in parts for row in each.rows]
    body = [
        "<h1>Blind diffusion models: what is claimed, and what is measured</h1>",
        f"<p>{_said(_INTRODUCTION)}</p>",
        f"<nav>{' '.join(map(_link, parts))}</nav>",
        *_notices(parts, total, quick),
        "<h2>All verdicts</h2>",
        f"<p>{_said(sentence(rows))}</p>" + _tally(rows),
        _verdicts(parts),
        *map(_study, parts),
        f"<footer><p>Made with {_said(', '.join(map(' '.join, versions.items())))}.</p></footer>",
    ]
    return whole("Blind diffusion models: claims and measurements", "\n".join(body), _STYLE)


def sentence(rows: Sequence[Row]) -> str:
    """Return what the verdicts come to, in one sentence."""
    if not rows:
        return "It judges no claim."
    if len(rows) == 1:
        (row,) = rows
        return f"The claim of {row.source} that {row.claim} {_WORDS[row.outcome][0]}: {row.measured} ({row.condition})."
    counts = Counter(row.outcome for row in rows)
    told = [f"{counts[each]} {_WORDS[each][counts[each] > 1]}" for each in Outcome if counts[each]]
    return f"Of {len(rows)} claims {_listed(told)}."


def _listed(words: Sequence[str]) -> str:
    *before, last = words
    return f"{', '.join(before)} and {last}" if before else last


def _notices(parts: Sequence[Part], total: int, quick: bool) -> Iterable[str]:
    if quick:
        yield f'<p class="notice">{_said(_TRIED_OUT)}</p>'
    if len(parts) < total:
        yield f'<p class="notice">{len(parts)} of {total} studies so far.</p>'
    failed = [each for each in parts if each.failure]
    if failed:
        listed = "".join(f"<li>{_link(each)}: {_said(each.failure)}</li>" for each in failed)
        yield f'<div class="notice">Could not be made:<ul>{listed}</ul></div>'


def _tally(rows: Sequence[Row]) -> str:
    counts = Counter(row.outcome for row in rows)
    return f'<p class="tally">{" ".join(f"<span>{_badge(each)} {counts[each]}</span>" for each in Outcome)}</p>'


def _verdicts(parts: Sequence[Part]) -> str:
    lines = [_line(row, _link(each)) for each in parts for row in each.rows]
    return _table(("study", *HEADING), lines)


def _table(heading: Sequence[str], lines: Sequence[str]) -> str:
    head = "".join(f"<th>{_said(each)}</th>" for each in heading)
    return f'<table class="verdicts"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'


def _line(row: Row, study: str = "") -> str:
    """Return the line of a verdict; on a narrow screen its cells stand below each other, named by their headings."""
    cells = {"study": study} if study else {}
    cells |= {name: _said(value) for name, value in zip(HEADING, row, strict=True)} | {HEADING[-1]: _badge(row.outcome)}
    return "<tr>" + "".join(f'<td data-name="{name}">{cell}</td>' for name, cell in cells.items()) + "</tr>"


def _badge(outcome: Outcome) -> str:
    return f'<span class="badge {outcome.name.lower()}">{_SIGNS[outcome]} {outcome.value}</span>'


def _link(part: Part) -> str:
    return f'<a href="#{part.name}">{_said(part.name)}</a>'


def _study(part: Part) -> str:
    blocks = [f"<h2>{_said(part.name)}</h2>"]
    if part.found is None or part.out is None:
        blocks.append(
            f'<p class="notice">Was to show {_said(part.about)}; could not be made: {_said(part.failure)}</p>'
        )
    else:
        blocks.append(f"<p>This shows {_said(part.about)}. {_said(sentence(part.rows))}</p>")
        blocks += [f'<div class="wide">{_picture(path, part.about)}</div>' for path in _pictures(part.out, part.found)]
        if len(part.rows) > 1:
            blocks.append(_hidden("Claims one by one", _table(HEADING, [_line(row) for row in part.rows])))
        blocks.append(_hidden("Numbers", f'<pre class="wide">{_said(part.found.table)}</pre>'))
    commands = "\n".join(part.commands)
    blocks.append(f'<pre class="wide">{_said(commands)}</pre>' if commands else "")
    return f'<section id="{part.name}">\n' + "\n".join(blocks) + "\n</section>"


def _hidden(summary: str, content: str) -> str:
    return f"<details><summary>{_said(summary)}</summary>{content}</details>"


def _pictures(out: Path, found: Result) -> list[Path]:
    """Return the files of a study that are shown: its picture, and an animation in the first of the known kinds."""
    svg = Path(beside(out, ".svg"))
    picture = svg if svg.stat().st_size <= _MOST_SVG else Path(beside(out, ".png"))
    animations = [Path(each) for ending in _ANIMATED for each in found.further if each.suffix == ending]
    return [picture, *animations[:1]]


def _picture(path: Path, about: str) -> str:
    kind = {".svg": "svg+xml"}.get(path.suffix, path.suffix[1:])
    with files.opened(path) as file:
        content = base64.b64encode(file.read()).decode()
    return f'<img src="data:image/{kind};base64,{content}" alt="{_said(about)}">'


def _said(text: str) -> str:
    return html.escape(text)


_INTRODUCTION = (
    "Diffusion and flow models that are not told the noise level, after The Geometry of Noise (arXiv:2602.18428): what "
    "the paper and others claim of them, beside what exact fields and trained networks do. A claim holds where the "
    "whole interval of what was measured bears it out, and cannot be told where the interval reaches over the limit; "
    "claims are in our words, intervals are of 95% unless it says otherwise."
)
_TRIED_OUT = "A try-out at sizes that show little: the numbers are those of geonoise figure all without --quick."
_STYLE = """
section, footer { border-top: 1px solid #ddd; margin-top: 2rem; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem; }
.notice { background: #fff4d6; border-left: .3rem solid #e69f00; padding: .5rem .8rem; overflow-wrap: anywhere; }
.badge { display: inline-block; white-space: nowrap; border: 1px solid; border-left-width: .4rem; border-radius: .2rem;
  padding: 0 .4rem; background: #fff; }
.badge.holds { border-color: #009e73; } .badge.holds_if { border-color: #0072b2; }
.badge.fails { border-color: #d55e00; } .badge.untold { border-color: #7f7f7f; }
.tally { display: flex; flex-wrap: wrap; gap: .4rem 1.2rem; }
.verdicts td, .verdicts th { white-space: normal; vertical-align: top; overflow-wrap: break-word; }
details { margin: .7rem 0; } summary { cursor: pointer; }
pre { font-size: .8rem; line-height: 1.35; background: #f6f6f6; padding: .6rem; }
@media (max-width: 48rem) {
  h1 { font-size: 1.5rem; line-height: 1.25; }
  .verdicts thead { display: none; }
  .verdicts tr { display: block; padding: .6rem 0; border-bottom: 1px solid #bbb; }
  .verdicts td { display: block; border: 0; padding: .1rem 0 .1rem 5.5rem; position: relative;
    overflow-wrap: anywhere; }
  .verdicts td::before { content: attr(data-name); position: absolute; left: 0; color: #666; }
}
"""
