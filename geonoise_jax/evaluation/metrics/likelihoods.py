"""Likelihoods of held-out data: metrics of the field, which need no samples."""

from __future__ import annotations

import math

import numpy as np

from geonoise_jax.errors import UserError
from geonoise_jax.evaluation.intervals import Estimate
from geonoise_jax.evaluation.likelihood import Likelihood, Options, bits_per_dim, log_likelihood
from geonoise_jax.evaluation.metrics.base import HIGHER, LOWER, Inputs, Value
from geonoise_jax.evaluation.reference import Reference
from geonoise_jax.progress import Progress

_INTERVAL = "two standard errors over items, that of probes among them, plus the error of integration"


def bits(inputs: Inputs) -> dict[str, Value]:
    """Return bits per dimension of held-out items that are stored as integers."""
    reference = _reference(inputs)
    if reference.data is None or not np.issubdtype(reference.data[0].events.dtype, np.integer):
        raise UserError("bits_per_dim: needs a data set of integers; log_likelihood takes points in model space")
    data = reference.data[0]
    events, labels = data.events[: _number(inputs)], _labels(inputs)
    progress = Progress("bits per dimension", len(events), "items")
    found = bits_per_dim(
        inputs.trained,
        events,
        options=_options(inputs),
        scaling=(data.center, data.scale),
        labels=labels,
        on_batch=lambda done, _: progress.update(done),
    )
    progress.close()
    return _values("bits_per_dim", found, reference, LOWER, classes=labels is not None)


def nats(inputs: Inputs) -> dict[str, Value]:
    """Return the mean log density of held-out points, in nats."""
    reference, labels = _reference(inputs), _labels(inputs)
    points = inputs.held_out[: _number(inputs)]
    progress = Progress("log likelihood", len(points), "points")
    found = log_likelihood(
        inputs.trained,
        points,
        options=_options(inputs),
        labels=labels,
        on_batch=lambda done, _: progress.update(done),
    )
    progress.close()
    return _values("log_likelihood", found, reference, HIGHER, classes=labels is not None)


def _values(name: str, found: Likelihood, reference: Reference, better: str, *, classes: bool) -> dict[str, Value]:
    of = f"{found.protocol}; of the first of {reference.title}{', each given its class' if classes else ''}"
    values = {name: Value(_estimate(found), _INTERVAL, better, of)}
    if found.learnt is not None:
        values[f"learnt_{name}"] = Value(_estimate(found.learnt), _INTERVAL, better, f"{found.learnt.protocol}; {of}")
    return values


def _estimate(found: Likelihood) -> Estimate:
    notes = [f"{found.failed} integrations did not arrive"] if found.failed else []
    if 0.0 < found.probe_error < math.inf:
        notes.append(f"of the standard error of {found.unit}, {found.probe_error:.2g} is that of the probes")
    note = "; ".join(notes)
    return Estimate(found.value, found.standard_error, found.low, found.high, note)


def _options(inputs: Inputs) -> Options:
    return Options(seed=inputs.options.get("seed", 0), batch_size=inputs.options.get("batch_size") or 256)


def _number(inputs: Inputs) -> int | None:
    """Return how many held-out items are used; None for all."""
    return inputs.options.get("num_likelihood")


def _labels(inputs: Inputs) -> np.ndarray | None:
    """Return the classes of the held-out items for a network that has classes, where all have one."""
    reference = inputs.reference
    if not inputs.trained.field.null_label or reference is None or reference.data is None:
        return None
    labels = reference.data[0].labels
    return None if labels is None or (labels < 0).any() else labels[: _number(inputs)]


def _reference(inputs: Inputs) -> Reference:
    if inputs.reference is None:
        raise UserError("reference: must be data, of which the likelihood is")
    return inputs.reference
