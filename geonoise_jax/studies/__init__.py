"""Studies: what exact fields say of samplers, trained networks and learnt densities. One module each, one table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from geonoise_jax import lazy as _lazy

if TYPE_CHECKING:
    from geonoise_jax.studies.runner import run as run
    from geonoise_jax.studies.table import STUDIES as STUDIES
else:
    __getattr__, __dir__ = _lazy.exports(__name__, {f"{__name__}.runner": ("run",), f"{__name__}.table": ("STUDIES",)})
