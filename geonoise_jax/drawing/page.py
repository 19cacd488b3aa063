"""Pieces of self-contained pages: images inside the page itself, rows of tables."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

from PIL import Image


def embedded(image: Image.Image) -> str:
    """Return an image as the address of itself, a PNG in a data URI."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def table_row(cells: Sequence[str], tag: str = "td") -> str:
    """Return a row of a table, its text escaped; of a heading with the tag ``th``."""
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def whole(title: str, body: str, style: str = "") -> str:
    """Return a page that is readable at the width of a phone.

    Args:
        title: its title.
        body: HTML, all text in it escaped.
        style: further rules of CSS.
    """
    return _PAGE.format(title=html.escape(title), style=_STYLE + style, body=body)


_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 1rem auto; padding: 0 1rem; color: #222; }
img { max-width: 100%; display: block; margin: .5rem 0; }
.wide { overflow-x: auto; } .wide img { min-width: 44rem; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #ddd; text-align: left; white-space: nowrap; }
td { font-variant-numeric: tabular-nums; }
dt { font-weight: 600; } dd { margin: 0 0 .5rem 1rem; font-size: .9rem; overflow-wrap: anywhere; }
h1, h2, h3 { overflow-wrap: anywhere; }
"""
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""
