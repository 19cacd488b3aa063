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
