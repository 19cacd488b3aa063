"""What the models of one workdir are measured with: a reference, networks of features, and metrics."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import PurePath
from typing import NamedTuple

import jax
import numpy as np

from geonoise_jax import build, files
from geonoise_jax.config.defaults import plain
from geonoise_jax.errors import UserError
from geonoise_jax.evaluation.evaluator import cases, networks
from geonoise_jax.evaluation.evaluator.networks import Extractor
from geonoise_jax.evaluation.evaluator.options import TRAINING, Options
from geonoise_jax.evaluation.evaluator.samples import drawn
from geonoise_jax.evaluation.metrics import table
from geonoise_jax.evaluation.metrics.base import Featured
from geonoise_jax.evaluation.reference import Reference, of_data, of_file, of_points
from geonoise_jax.evaluation.restore import Trained
from geonoise_jax.exact import Circles
from geonoise_jax.training.workdir import check_data, facts_of

_DIGITS = 16
Shared = dict[tuple[object, ...], Reference]
# How reasons begin which need not be said of metrics that were not asked for.
_OF_OTHER_DATA = "is of "


class Job(NamedTuple):
    """A metric to compute, with its network of features if it needs one."""

    metric: str
    extractor: Extractor | None = None

    @property
    def entry(self) -> table.Entry:
        """Its line of the table."""
        return table.METRICS[self.metric]

    @property
    def title(self) -> str:
        """How it is called beside others."""
        return self.metric if self.extractor is None else f"{self.metric} ({self.extractor.network.name})"


@dataclasses.dataclass(frozen=True, eq=False)
class Bench:
    """What the models of one workdir are measured with.

    Attributes:
        reference: what samples are compared with; None where there is none.
        circles: the law of the data, where it is known to be circles.
        jobs: the metrics that can be computed.
        missing: metrics that cannot be, and why.
    """

    reference: Reference | None
    circles: Circles | None
    jobs: tuple[Job, ...]
    missing: tuple[tuple[str, str], ...]
    _features: dict[str, Featured] = dataclasses.field(default_factory=dict)

    @property
    def reference_digest(self) -> str:
        """What tells this reference from others."""
        found = hashlib.sha256()
        if self.reference is not None:
            moments = self.reference.moments
            held = (None, None) if moments is None else (moments.mean, moments.covariance)
            for part in (self.reference.held_out, self.reference.known, *held):
                found.update(b"none" if part is None else np.ascontiguousarray(part).tobytes())
        return found.hexdigest()[:_DIGITS]

    def features_of_reference(self, extractor: Extractor) -> Featured:
        """Return the features of the reference by a network, with no samples yet."""
        net = extractor.network
        if net.protocol not in self._features:
            held_out = known = logits = None
            if self.reference is not None and self.reference.held_out is not None:
                held_out, _ = extractor.of_reference(self.reference.held_out, "held-out images")
            if self.reference is not None and self.reference.known is not None:
                known, logits = extractor.of_reference(self.reference.known, "images of the floor")
            empty = np.empty((0, net.dimension), np.float32)
            pair = (np.empty((0, net.num_classes), np.float32), logits) if net.num_classes else None
            self._features[net.protocol] = Featured(net, empty, held_out, known, pair)
        return self._features[net.protocol]


def bench(
    trained: Trained, workdir: PurePath, options: Options, restoring: cases.Restoring, shared: Shared | None = None
) -> Bench:
    """Return what a workdir is measured with.

    Args:
        trained: the restored model.
        workdir: its workdir.
        options: what is asked for.
        restoring: restores other workdirs.
        shared: references to data sets that other workdirs are measured with too.

    Raises:
        UserError: if a metric, a network or a reference that is named cannot be used, before anything is sampled.
    """
    reference, why = _reference(trained, workdir, options, restoring, {} if shared is None else shared)
    law = build.distribution(trained.config) if trained.config is not None and _is_circles(trained) else None
    circles = law if isinstance(law, Circles) else None
    is_image = len(trained.field.event_shape) == 3
    names = options.metrics or (table.OF_IMAGES if is_image else table.OF_POINTS)
    extractors = _extractors(names, trained, options, reference) if is_image else []
    jobs: list[Job] = []
    missing: list[tuple[str, str]] = []
    for name in names:
        of_features = table.FEATURES in table.METRICS[name].needs
        for job in [Job(name, each) for each in extractors] if of_features and extractors else [Job(name)]:
            if reason := _unmet(job, trained, reference, circles, options, why):
                missing.append((job.title, reason))
            else:
                jobs.append(job)
    if options.metrics is None:
        missing = [each for each in missing if not each[1].startswith(_OF_OTHER_DATA)]
    elif missing:
        raise UserError("; ".join(f"metrics = {title}: {reason}" for title, reason in missing))
    if options.reference is not None and files.is_folder(options.reference):
        reference = _samples_of(options.reference, options, restoring)
    return Bench(reference, circles, tuple(jobs), tuple(missing))


def _is_circles(trained: Trained) -> bool:
    return trained.config.data.name == "circles"


def _reference(
    trained: Trained, workdir: PurePath, options: Options, restoring: cases.Restoring, shared: Shared
) -> tuple[Reference | None, str]:
    """Return the reference, or why there is none."""
    given = options.reference
    if given is None:
        try:
            return _of_data(trained, workdir, options, shared), ""
        # A folder of data that is gone, or a download without a network.
        except (UserError, OSError) as error:
            name = "of the run" if trained.config is None else repr(trained.config.data.name)
            return None, f"needs the data set {name}, or a reference ({error})"
    if files.is_folder(given):
        # Its samples are drawn once all else is known to be right.
        found = Reference("", np.empty((0, *restoring(given).field.event_shape)))
    else:
        found = of_file(files.local(given, "reference"), trained)
    if found.held_out is not None and found.held_out.shape[1:] != trained.field.event_shape:
        shapes = f"{list(found.held_out.shape[1:])}; must be as the model's, {list(trained.field.event_shape)}"
        raise UserError(f"reference = {str(given)!r}: has events {shapes}")
    return found, ""


def _of_data(trained: Trained, workdir: PurePath, options: Options, shared: Shared) -> Reference:
    """Return the data set of a run, loaded once for all runs of it."""
    what = None if trained.config is None else json.dumps(plain(trained.config.data.to_dict()), sort_keys=True)
    asked = (options.held_out, options.num_reference, options.num, options.against)
    key = (what, *asked, bool(trained.field.null_label))
    found = shared.get(key)
    if found is None or found.data is None:
        found = of_data(trained, workdir, *asked[:3], seen=options.against == TRAINING)
        shared[key] = found
    else:
        check_data(workdir, facts_of(found.data[1]))
    return found


def _samples_of(workdir: PurePath, options: Options, restoring: cases.Restoring) -> Reference:
    """Return samples of another workdir, drawn as its config says, twice as many as are compared with them."""
    (case,) = cases.cases(cases.Model(workdir, lambda: restoring(workdir)), Options(seed=options.seed + 1))
    with files.locked(workdir / cases.FOLDER, "reference"):
        samples = drawn(case, 2 * options.num)
        return of_points(samples.read("x", 2 * options.num), f"samples of {workdir.name}, {case.step}, {case.way}")


def _extractors(
    names: tuple[str, ...], trained: Trained, options: Options, reference: Reference | None
) -> list[Extractor]:
    """Return the networks of features that are asked for, once they are known to take these images."""
    if not any(table.FEATURES in table.METRICS[name].needs for name in names):
        return []
    words = options.features
    if words is None:
        words = (networks.DEFAULT,) if networks.installed() else ()
    found = []
    for each in words:
        net = networks.network(each, reference)
        image = jax.ShapeDtypeStruct((1, *trained.field.event_shape), np.float32)
        jax.eval_shape(net.apply, net.params, image)
        moments = None if reference is None else reference.moments
        if moments is not None and moments.dim != net.dimension:
            raise UserError(
                f"reference: has moments of {moments.dim} features; must be {net.dimension}, those of {net.name}"
            )
        found.append(Extractor(net, trained.mesh))
    return found


def _unmet(
    job: Job,
    trained: Trained,
    reference: Reference | None,
    circles: Circles | None,
    options: Options,
    why: str,
) -> str:
    """Return what a metric lacks here; nothing if it can be computed."""
    needs = job.entry.needs
    net = None if job.extractor is None else job.extractor.network
    if table.IMAGES in needs and len(trained.field.event_shape) != 3:
        return f"{_OF_OTHER_DATA}images; the model's events are {list(trained.field.event_shape)}"
    if table.CIRCLES in needs and circles is None:
        return f"{_OF_OTHER_DATA}circles, data whose law is known"
    if {table.POINTS, table.REFERENCE, table.INTEGERS} & set(needs) and reference is None:
        return why
    if table.POINTS in needs and reference is not None and reference.held_out is None:
        return "needs points to compare with; the reference has moments alone"
    if table.SAMPLES not in needs and reference is not None and reference.seen:
        return "is of held-out items: against = held_out"
    if table.INTEGERS in needs and not _of_integers(reference):
        return f"{_OF_OTHER_DATA}a data set of integers; log_likelihood takes points of model space"
    if table.FEATURES in needs and net is None:
        return f"needs a network of features: features = {', '.join(networks.NAMES)}"
    if table.LOGITS in needs and net is not None and not net.num_classes:
        return f"needs a network with classes, which {net.name} is not"
    if table.COVARIANCE in needs and net is not None and options.num <= net.dimension:
        return (
            f"needs more samples than the {net.dimension} features of {net.name}, for a covariance of full rank: "
            f"num = {options.num}; kid and precision_recall do not"
        )
    return ""


def _of_integers(reference: Reference | None) -> bool:
    return (
        reference is not None
        and reference.data is not None
        and np.issubdtype(reference.data[0].events.dtype, np.integer)
    )
