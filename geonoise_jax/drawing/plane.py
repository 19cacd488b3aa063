"""The geometry of an exact field in the plane: posterior of the noise level, energy, blind field and its terms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from geonoise_jax.drawing import style
from geonoise_jax.errors import UserError
from geonoise_jax.exact import Decomposition, Marginal, Posterior

_ENERGY_CELLS, _ARROW_CELLS = 121, 21
_CONTOURS = 24
_MARKS = style.COLORS
_STYLE: dict[str, Any] = {"pivot": "mid", "angles": "xy", "scale": 26.0, "width": 0.004}


@style.paper()
def draw_plane(
    marginal: Marginal,
    path: str | Path,
    *,
    queries: Float[np.ndarray, "Q 2"],
    points: Float[np.ndarray, "N 2"] | None = None,
    limit: float = 2.5,
) -> Path:
    """Draw a law of the plane, as seen by a blind model, into one picture of six panels.

    The posterior p(t | u) at the queries; the marginal energy with its descent direction; the blind field f*; and the
    three terms of equation (14) of arXiv:2602.18428 that add up to it. Arrows show the field with its sign reversed,
    the way in which descent moves (for a target that points towards the noise), all equally long; their colour is the
    length.

    Args:
        marginal: exact fields of a law of the plane.
        path: the picture's file, a .png.
        queries: where the posterior is drawn, at most 8.
        points: data to be marked.
        limit: the picture shows [-limit, limit]^2.

    Returns:
        The file.

    Raises:
        ValueError: if events are not points of the plane, or there are no queries or more than 8.
    """
    if marginal.event_shape != (2,):
        raise UserError(f"marginal.event_shape = {marginal.event_shape}: must be (2,), a law of the plane")
    if not 1 <= len(queries) <= len(_MARKS):
        raise UserError(f"len(queries) = {len(queries)}: must be 1 to {len(_MARKS)}")
    fine, coarse = _lattice(limit, _ENERGY_CELLS), _lattice(limit, _ARROW_CELLS)
    parts = marginal.decompose(jnp.asarray(coarse.reshape(-1, 2)))
    energy = np.asarray(marginal.energy(jnp.asarray(fine.reshape(-1, 2)))).reshape(fine.shape[:2])
    figure = Figure(figsize=(13, 8), layout="constrained")
    axes = figure.subplots(2, 3).ravel()
    _posterior(axes[0], marginal.posterior(jnp.asarray(queries)), queries)
    contours = axes[1].contourf(fine[..., 0], fine[..., 1], energy, levels=_CONTOURS, cmap="viridis")
    figure.colorbar(contours, ax=axes[1], label="nats", shrink=0.85)
    axes[1].quiver(*coarse.reshape(-1, 2).T, *_unit(-np.asarray(parts.energy_grad)).T, color="white", **_STYLE)
    axes[1].set_title("marginal energy E(u) and its descent, $-\\nabla E$")
    for axis, (title, arrows) in zip(axes[2:], _arrows(parts).items(), strict=True):
        shown = axis.quiver(*coarse.reshape(-1, 2).T, *_unit(arrows).T, _log_length(arrows), cmap="viridis", **_STYLE)
        figure.colorbar(shown, ax=axis, label="log10 of the length", shrink=0.85)
        axis.set_title(title)
    for axis in axes[1:]:
        if points is not None:
            axis.scatter(*np.asarray(points).T, s=40, c="white", edgecolors="black", zorder=3)
        axis.scatter(*np.asarray(queries).T, s=60, c=_MARKS[: len(queries)], marker="X", edgecolors="black", zorder=4)
        axis.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xlabel="$u_1$", ylabel="$u_2$")
        axis.grid(visible=False)
    title = f"{marginal.process.schedule}, {marginal.process.parameterization}, {marginal.prior.time_law}"
    style.headed(figure, f"{title}\ncircles: data; crosses: the queries of the first panel; arrows: direction alone")
    path = Path(path)
    figure.savefig(path, dpi=130)
    return path


def _lattice(limit: float, cells: int) -> Float[np.ndarray, "n n 2"]:
    ticks = (np.arange(cells) + 0.5) / cells * 2.0 * limit - limit
    return np.stack(np.meshgrid(ticks, ticks), axis=-1)


def _arrows(parts: Decomposition) -> dict[str, np.ndarray]:
    """Name the fields of the panels, reversed."""
    fields = {
        "blind field, $-f^*$": parts.field,
        "natural gradient, $-E[\\lambda]\\,\\nabla E$": parts.natural,
        "transport correction (reversed)": parts.transport,
        "drift, $-E[c/a]\\,u$": parts.drift,
    }
    return {name: -np.asarray(values) for name, values in fields.items()}


def _unit(arrows: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(arrows, axis=1, keepdims=True)
    return arrows / np.where(length > 0.0, length, 1.0)


def _log_length(arrows: np.ndarray) -> np.ndarray:
    """Return log10 of the lengths; those below a thousandth of the largest, a zero among them, as that."""
    length = np.linalg.norm(arrows, axis=1)
    return np.log10(np.maximum(length, 1e-3 * length.max() or 1.0))


def _posterior(axis: Axes, posterior: Posterior, queries: Float[np.ndarray, "Q 2"]) -> None:
    """Plot p(t | u) of every query over t."""
    for t, density, u, colour in zip(posterior.t, posterior.density, queries, _MARKS, strict=False):
        axis.plot(t, density, color=colour, label=f"u = ({u[0]:.2g}, {u[1]:.2g})")
    axis.set(title="posterior of the noise level, p(t | u)", xlabel="t", ylabel="density", yscale="log")
    top = float(np.asarray(posterior.density).max())
    axis.set_ylim(1e-4 * top, 2.0 * top)
    axis.legend(fontsize="small")
