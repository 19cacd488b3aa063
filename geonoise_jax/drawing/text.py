"""Tables as aligned text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence


def aligned(rows: Iterable[Sequence[str]], *, left: int = 1) -> list[str]:
    """Return the lines of a table, with a rule below its heading.

    Args:
        rows: cells, row by row; the first row is the heading.
        left: number of columns, from the first, that are flush left; the others are flush right.
    """
    rows = list(rows)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:left], widths[:left], strict=True)]
        cells += [cell.rjust(width) for cell, width in zip(row[left:], widths[left:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return lines


def markdown(rows: Iterable[Sequence[str]], *, left: int | None = None) -> str:
    """Return a table in Markdown.

    Args:
        rows: cells, row by row; the first row is the heading.
        left: number of columns, from the first, that are flush left, the others being flush right; None: it is left
            to the reader.
    """
    heading, *body = rows
    known = len(heading) if left is None else left
    rule = ["---"] * known + ["---:"] * (len(heading) - known)
    return "\n".join(f"| {' | '.join(row)} |" for row in (heading, rule, *body))


def percent(share: float) -> str:
    """Return a share in percent, to two digits or as a whole number: 0.2%, 12%, 110%."""
    value = 100.0 * share
    return f"{value:.2g}%" if abs(value) < 9.95 else f"{value:,.0f}%"


def with_error(mean: float, error: float, *, digits: int | None = None, sign: str = "") -> str:
    """Return ``mean +- error``, both written to the digits of the error that count.

    Args:
        mean: the number; one that is not finite stands alone.
        error: its standard error or spread, not negative; without a finite one above zero, four digits are written.
        digits: significant digits of the error; by default one, or two where the first is a 1.
        sign: "+" for a sign on positive numbers too.
    """
    if not math.isfinite(mean):
        return f"{mean:{sign}}"
    if not 0.0 < error < math.inf:
        return f"{mean:{sign}.4f} +- {error:.4f}"
    count = digits or (2 if f"{error:.0e}".startswith("1") else 1)
    exponent = int(f"{error:.{count - 1}e}".partition("e")[2])
    places = max(0, count - 1 - exponent)
    return f"{mean:{sign}.{places}f} +- {error:.{places}f}"
