"""Metrics of points, images among them, as vectors."""

from __future__ import annotations

import numpy as np

from geonoise_jax.evaluation.kernel_distance import energy, gaussian, median_bandwidth
from geonoise_jax.evaluation.kernel_sums import KernelDistance
from geonoise_jax.evaluation.metrics.base import GROUPS, LOWER, Inputs, Value, estimated, halved
from geonoise_jax.evaluation.modes import circle_distances, manifold_distance, mode_weights, nearest_circle
from geonoise_jax.evaluation.point_metrics import SlicedWasserstein
from geonoise_jax.evaluation.transport import Wasserstein2
from geonoise_jax.evaluation.two_sample import classifier_two_sample

# Points of each set that the exact distance is taken of; even, so that they have halves.
_TRANSPORTED = 500


def sliced_wasserstein(inputs: Inputs) -> dict[str, Value]:
    """Return the sliced 2-Wasserstein distance."""
    measure = SlicedWasserstein(inputs.held_out)
    return {"sliced_wasserstein": halved(inputs, "sliced_wasserstein", measure, "1024 directions, seed 0")}


def wasserstein2(inputs: Inputs) -> dict[str, Value]:
    """Return the exact 2-Wasserstein distance of the first points of both sets."""
    num = min(len(inputs.samples), len(inputs.held_out), _TRANSPORTED) // 4 * 4
    measure = Wasserstein2(inputs.held_out[:num])
    labels = None if inputs.labels is None else inputs.labels[:num]
    few = inputs._replace(samples=inputs.samples[:num], labels=labels)
    return {"wasserstein2": halved(few, "wasserstein2", measure, f"exact, of {num} points of each set")}


def energy_distance(inputs: Inputs) -> dict[str, Value]:
    """Return the energy distance, without bias."""
    return {"energy_distance": _kernel(inputs, "energy_distance", KernelDistance(inputs.held_out, energy()), "|x - y|")}


def gaussian_mmd(inputs: Inputs) -> dict[str, Value]:
    """Return the squared maximum mean discrepancy, of the median distance of held-out points as bandwidth."""
    half = len(inputs.held_out) // 2
    width = median_bandwidth(inputs.held_out[:half], inputs.held_out[half:])
    measure = KernelDistance(inputs.held_out, gaussian(width))
    return {"gaussian_mmd": _kernel(inputs, "gaussian_mmd", measure, f"Gaussian kernel, bandwidth {width:.6g}")}


def two_sample(inputs: Inputs) -> dict[str, Value]:
    """Return the held-out accuracy of nearest neighbours that tell samples from data: one half if they cannot."""

    def accuracy(points: np.ndarray) -> float:
        return classifier_two_sample(points, inputs.held_out).value

    found = classifier_two_sample(inputs.samples, inputs.held_out)
    estimate = estimated(found)
    protocol = f"accuracy of nearest neighbours on {found.num} held-out points, seed 0; 0.5 by chance"
    floor = inputs.floor("two_sample", accuracy)
    return {"two_sample": Value(estimate, "95%, exact binomial", LOWER, protocol, floor)}


def manifold(inputs: Inputs) -> dict[str, Value]:
    """Return the mean distance of samples from the circles that the data lies on."""
    circles = inputs.circles
    if circles is None:
        return {}

    def mean(points: np.ndarray) -> float:
        return float(circle_distances(points, circles).mean())

    found = manifold_distance(inputs.samples, lambda points: circle_distances(points, circles))
    floor = inputs.floor("manifold", mean)
    return {"manifold": Value(found, "95%, Student's t", LOWER, "mean distance from the circles", floor)}


def modes(inputs: Inputs) -> dict[str, Value]:
    """Return how far the shares of the circles are from their weights, in total variation."""
    circles = inputs.circles
    if circles is None:
        return {}
    weights = None if circles.weights is None else np.asarray(circles.weights, np.float64)

    def variation(points: np.ndarray) -> float:
        return mode_weights(nearest_circle(points, circles), len(circles.radii), weights).distance

    unlabelled = inputs._replace(labels=None)
    protocol = "total variation of the circles' shares from their weights"
    return {"modes": halved(unlabelled, "modes", variation, protocol)}


def _kernel(inputs: Inputs, name: str, measure: KernelDistance, kernel: str) -> Value:
    protocol = f"{kernel}; squared, without bias"
    return Value(measure.estimate(inputs.samples), GROUPS, LOWER, protocol, inputs.floor(name, measure))
