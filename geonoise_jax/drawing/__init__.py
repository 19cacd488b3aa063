"""Pictures, tables and pages, whatever they show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from geonoise_jax import lazy as _lazy

if TYPE_CHECKING:
    from geonoise_jax.drawing.pictures import image_grid as image_grid
    from geonoise_jax.drawing.pictures import sample_picture as sample_picture
    from geonoise_jax.drawing.pictures import save as save
    from geonoise_jax.drawing.pictures import scatter as scatter
    from geonoise_jax.drawing.pictures import to_pixels as to_pixels
    from geonoise_jax.drawing.plane import draw_plane as draw_plane
else:
    __getattr__, __dir__ = _lazy.exports(
        __name__,
        {
            f"{__name__}.pictures": ("image_grid", "sample_picture", "save", "scatter", "to_pixels"),
            f"{__name__}.plane": ("draw_plane",),
        },
    )
