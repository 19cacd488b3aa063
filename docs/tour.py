"""A tour in four pictures: an exact field, a trained one beside it, samples of both, and their way from noise to data.

python docs/tour.py [FOLDER] writes them into FOLDER (default: tour), in about two minutes on 2 CPU cores.
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt

import geonoise_jax as gn
from geonoise_jax.data import from_numpy
from geonoise_jax.drawing.plane import draw_plane
from geonoise_jax.nets import ResidualMLP
from geonoise_jax.training.run import Budget, Run, Sampling

POINTS = np.array([[-1.5, -1.0], [-1.2, 1.3], [0.2, 0.3], [1.2, 1.5], [1.6, -1.2]], np.float32)
PROCESS = gn.Process(gn.Linear(), gn.Velocity())  # flow matching: u = (1 - t) x + t eps
TIMES = np.linspace(0.999, 0.001, 101)


def exact(folder: Path) -> gn.Marginal:
    """The exact field of five points: posterior of t, energy, and the three terms of equation (14)."""
    marginal = gn.Marginal(gn.FiniteSet(POINTS), PROCESS, gn.Uniform(0.001, 0.999), accuracy=1e-3)
    draw_plane(
        marginal, folder / "1_exact_field.png", queries=jax.numpy.array([[0.25, 0.35], [0.9, 0.0]]), points=POINTS
    )
    return marginal


def trained(folder: Path, num_steps: int) -> gn.NetworkField:
    """A blind network trained on the same five points: objects, no config."""
    run = Run(
        network=ResidualMLP(conditional=False, width=128, depth=3),
        data=from_numpy(np.tile(POINTS, (200, 1)), name="five points"),
        process=PROCESS,
        budget=Budget(num_steps=num_steps, batch_size=256, checkpoint_every=num_steps),
        sampling=Sampling(every=0),
    )
    gn.train(run, folder / "run")
    return gn.restore(folder / "run", network=run.network, process=PROCESS).field


def compare(fields: dict[str, gn.ExactField | gn.NetworkField], folder: Path) -> None:
    """Both fields as arrows, on one grid."""
    axis = np.linspace(-2.5, 2.5, 21, dtype=np.float32)
    u = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    figure, panels = plt.subplots(1, 2, figsize=(10, 5), layout="constrained", sharey=True)
    for panel, (name, field) in zip(panels, fields.items(), strict=True):
        arrows = -np.asarray(field(u))
        panel.quiver(*u.T, *arrows.T, color="0.35", angles="xy", width=0.003)
        panel.plot(*POINTS.T, "o", color="#d55e00")
        panel.set(title=f"- f(u), {name}", aspect="equal", xlabel="$u_1$")
    panels[0].set_ylabel("$u_2$")
    figure.savefig(folder / "2_fields.png", dpi=120)


def sampled(fields: dict[str, gn.ExactField | gn.NetworkField], folder: Path) -> None:
    """Samples of both fields from the same noise, and the ways of some of them."""
    for number, (kind, num) in enumerate((("samples", 400), ("trajectories", 24)), start=3):
        figure, panels = plt.subplots(1, 2, figsize=(10, 5), layout="constrained", sharey=True)
        for panel, (name, field) in zip(panels, fields.items(), strict=True):
            path = gn.sample(field, jax.random.key(0), num, sampler="heun", times=TIMES, trajectory=True)
            if kind == "samples":
                panel.plot(*path[0].T, ".", color="0.8", label="noise")
                panel.plot(*path[-1].T, ".", color="#0072b2", label="samples")
            else:
                for way in path.transpose(1, 0, 2):
                    panel.plot(*way.T, "-", color="#0072b2", alpha=0.5, linewidth=1)
            panel.plot(*POINTS.T, "o", color="#d55e00", label="data")
            panel.set(title=f"{kind}, {name}", aspect="equal", xlabel="$u_1$", xlim=(-3, 3), ylim=(-3, 3))
        panels[0].set_ylabel("$u_2$")
        if kind == "samples":
            panels[0].legend(loc="upper left")
        figure.savefig(folder / f"{number}_{kind}.png", dpi=120)


def main(folder: Path, num_steps: int = 3000) -> None:
    """Write the four pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    fields = {"exact blind field": gn.ExactField(exact(folder)), "trained blind network": trained(folder, num_steps)}
    compare(fields, folder)
    sampled(fields, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "tour"))
