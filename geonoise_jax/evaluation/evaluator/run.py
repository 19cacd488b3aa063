"""Evaluate workdirs: restore, sample what is missing, measure what is not recorded, show all of it."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import NamedTuple

import jax
import numpy as np

from geonoise_jax import files, processes
from geonoise_jax.errors import UserError
from geonoise_jax.evaluation.evaluator import cases, outputs, records
from geonoise_jax.evaluation.evaluator.bench import Bench, Job, Shared, bench
from geonoise_jax.evaluation.evaluator.cases import FOLDER, Case, Model, Restoring
from geonoise_jax.evaluation.evaluator.kept import Kept
from geonoise_jax.evaluation.evaluator.networks import Extractor
from geonoise_jax.evaluation.evaluator.options import LEAST, Options
from geonoise_jax.evaluation.evaluator.records import Log, Record
from geonoise_jax.evaluation.evaluator.samples import drawn
from geonoise_jax.evaluation.metrics import table as metrics
from geonoise_jax.evaluation.metrics.base import Featured, Inputs
from geonoise_jax.evaluation.point_sets import finite
from geonoise_jax.evaluation.restore import restore
from geonoise_jax.training import sharding

_LOG = logging.getLogger(__name__)


class Evaluation(NamedTuple):
    """What an evaluation found.

    Attributes:
        records: one for each number, as in ``results.jsonl``; those that were there before among them.
        missing: metrics that could not be computed, and why.
        table: all as text.
        files: pictures and the page.
    """

    records: list[Record]
    missing: list[tuple[str, str]]
    table: str
    files: list[PurePath]


def evaluate(
    workdirs: str | PurePath | Sequence[str | PurePath],
    options: Options | None = None,
    *,
    out: str | PurePath | None = None,
    restoring: Restoring = restore,
    shared: Shared | None = None,
) -> Evaluation:
    """Measure trained models against data, or against each other, by the metrics of ``metrics.table.METRICS``.

    Samples and features are kept below ``WORKDIR/evaluation``, and every number is appended to ``results.jsonl`` there
    once: what was interrupted goes on, what is repeated gives the same records, and a further metric or more samples
    cost what is missing. Of several processes all draw the samples, and the lead measures them, on its own devices; the
    others return nothing but its files.

    Args:
        workdirs: one workdir or more.
        options: what is measured and how samples are drawn; tuples are swept over.
        out: folder of the page and the pictures of all; ``evaluation`` of the first workdir by default.
        restoring: restores a workdir, as ``restore``; for runs of own objects
            ``functools.partial(restore, network=..., process=...)``.
        shared: an empty dict that several calls are given, in which references to the same data are kept with their
            floors; None for one of this call.

    Raises:
        UserError: on bad input, before anything is sampled: a workdir without a checkpoint, a sampler or a metric that
            is not known, a network of features without weights, a reference of another shape.
    """
    options = options or Options()
    given = [workdirs] if isinstance(workdirs, (str, PurePath)) else list(workdirs)
    folders = [files.location(each, "workdir") for each in given]
    if not folders or len({files.absolute(each) for each in folders}) < len(folders):
        raise UserError(f"workdir = {[str(each) for each in folders]}: must be one or more, none of them twice")
    if processes.several():
        return _together(folders, options, out, restoring)
    plans = [_plan(folder, options, restoring) for folder in folders]
    shared = {} if shared is None else shared
    benches = [
        bench(plan[0].trained, folder, options, restoring, shared) for folder, plan in zip(folders, plans, strict=True)
    ]
    with contextlib.ExitStack() as stack:
        for folder in folders:
            stack.enter_context(files.locked(folder / FOLDER, "workdir"))
        found: list[Record] = []
        missing: dict[tuple[str, str], None] = {}
        shown: list[outputs.Shown] = []
        for folder, plan, on in zip(folders, plans, benches, strict=True):
            log, run = Log(folder / FOLDER), files.absolute(folder).name
            for case in _cases(plan, options):
                new, shown_of, lacking = _of_case(case, on, options, log)
                found += [each for each in ({**one, "run": run} for one in new) if each not in found]
                missing |= dict.fromkeys((*on.missing, *lacking))
                shown.append(shown_of)
        target = folders[0] / FOLDER if out is None else files.location(out, "out")
        text, written = outputs.write(target, found, list(missing), shown)
        for folder in folders:
            outputs.to_tensorboard(folder, Log(folder / FOLDER).all)
    return Evaluation(found, list(missing), text, written)


def _together(
    folders: list[PurePath], options: Options, out: str | PurePath | None, restoring: Restoring
) -> Evaluation:
    """Evaluate in several processes: samples by all, and all else by the lead, which finds the samples kept."""
    with contextlib.ExitStack() as stack:
        with processes.agreeing(UserError):
            for folder in folders:
                stack.enter_context(files.locked(folder / FOLDER, "workdir"))
        for folder in folders:
            for case in _cases(_plan(folder, options, restoring), options):
                drawn(case, options.num)
    found: list[Evaluation] = []
    mesh = sharding.sampling_mesh(jax.local_devices())

    def measure() -> list[str]:
        found.append(evaluate(folders, options, out=out, restoring=functools.partial(restoring, mesh=mesh)))
        return [str(path) for path in found[0].files]

    written = processes.by_lead(measure)
    return found[0] if found else Evaluation([], [], "", [files.location(path) for path in written])


def _plan(folder: PurePath, options: Options, restoring: Restoring) -> list[Model]:
    """Return the models of a workdir, once they are known to be sampled as asked for."""
    plan = cases.models(folder, options, restoring)
    cases.cases(plan[0], options)
    return plan


def _cases(plan: list[Model], options: Options) -> Iterator[Case]:
    """Yield every way of sampling every model, of which one is held at a time."""
    for model in plan:
        yield from cases.cases(model, options)
        model.release()


def _of_case(
    case: Case, on: Bench, options: Options, log: Log
) -> tuple[list[Record], outputs.Shown, list[tuple[str, str]]]:
    """Return the records of a case, what is shown of it, and what could not be measured of it."""
    samples = drawn(case, options.num)
    missing: list[tuple[str, str]] = []
    inputs = _Gathered(case, on, options, samples)
    found: list[Record] = []
    for job in on.jobs:
        key = _key(case, on, job, options)
        recorded = {one["metric"] for one in log.of(key)}
        if not recorded >= set(job.entry.values):
            began = time.perf_counter()
            try:
                values = job.entry.load()(inputs.of(job))
            except UserError as error:
                missing.append((job.title, f"{case.way}: {error}"))
                continue
            facts = _facts(case, on, job, options, inputs)
            not_finite = inputs.not_finite if metrics.SAMPLES in job.entry.needs else 0
            for name, value in values.items():
                if name in recorded:
                    continue
                new = records.record(name, value, not_finite=not_finite, **facts, key=key)
                log.add({**new, **records.occasion(time.perf_counter() - began)})
        found += log.of(key)
    return found, outputs.show(case, samples, options.num, on.reference), missing


class _Gathered:
    """The inputs of metrics, each read or made when it is first needed."""

    def __init__(self, case: Case, on: Bench, options: Options, samples: Kept) -> None:
        self._case, self._on, self._options, self._samples = case, on, options, samples
        self._points: np.ndarray | None = None
        self._features: dict[str, Featured] = {}
        self.finite = np.concatenate([finite(batch["x"]) for batch in samples.batches(options.num)])
        self.evaluations = float(samples.read("evaluations", options.num).mean())

    @property
    def not_finite(self) -> int:
        """Number of samples that are not finite."""
        return int((~self.finite).sum())

    def of(self, job: Job) -> Inputs:
        """Return the inputs of a metric.

        Raises:
            UserError: if too few samples are finite.
        """
        needs, options = job.entry.needs, self._options
        if metrics.SAMPLES in needs and self.finite.sum() < LEAST:
            raise UserError(f"only {self.finite.sum()} of {len(self.finite)} samples are finite; must be {LEAST}")
        labels = self._case.labels(0, options.num)
        features = None
        if job.extractor is not None:
            features = self._of_network(job.extractor)
        of_points = metrics.SAMPLES in needs and features is None
        points = self._finite_points() if of_points else np.empty((0, 0))
        return Inputs(
            self._case.model.trained,
            points,
            None if labels is None else labels[self.finite],
            self._on.reference,
            self._on.circles,
            features,
            {name: getattr(options, name) for name in ("seed", "batch_size", "num_likelihood")},
        )

    def _of_network(self, extractor: Extractor) -> Featured:
        protocol = extractor.network.protocol
        if protocol not in self._features:
            known = self._on.features_of_reference(extractor)
            rows, logits = extractor.of_kept(self._samples, self._options.num)
            pair = None if logits is None or known.logits is None else (logits[self.finite], known.logits[1])
            self._features[protocol] = known._replace(samples=rows[self.finite], logits=pair)
        return self._features[protocol]

    def _finite_points(self) -> np.ndarray:
        if self._points is None:
            self._points = self._samples.read("x", self._options.num)[self.finite]
        return self._points


def _key(case: Case, on: Bench, job: Job, options: Options) -> str:
    """Return what a number depends on; likelihoods do not depend on how samples are drawn."""
    if metrics.SAMPLES in job.entry.needs:
        of: dict[str, object] = {"samples": case.digest, "num": options.num}
    else:
        names = ("step", "params", "parameters", "dtype")
        of = {name: case.description[name] for name in names}
        of |= {"seed": options.seed, "num": options.num_likelihood}
    net = None if job.extractor is None else job.extractor.network.protocol
    return records.identity(
        of=of, metric=job.metric, network=net, reference=on.reference_digest, versions=records.versions()
    )


def _facts(case: Case, on: Bench, job: Job, options: Options, inputs: _Gathered) -> Record:
    """Return what a record says besides the number."""
    described = case.description
    facts: Record = {
        "step": case.step,
        "params": described["params"],
        "seed": options.seed,
        "reference": None if on.reference is None else on.reference.title,
        "network": None if job.extractor is None else job.extractor.network.name,
        "network_protocol": None if job.extractor is None else job.extractor.network.protocol,
        "versions": records.versions(),
    }
    if metrics.SAMPLES not in job.entry.needs:
        return {**facts, "num": options.num_likelihood}
    names = ("sampler", "options", "guidance", "guidance_interval")
    return {
        **facts,
        "num": options.num,
        "way": case.way,
        "sampling": {name: described[name] for name in names if name in described},
        "evaluations": inputs.evaluations if np.isfinite(inputs.evaluations) else None,
        "samples": case.folder.name,
    }
