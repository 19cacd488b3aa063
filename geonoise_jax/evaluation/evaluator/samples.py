"""Samples of a case, drawn where they are missing and kept in its workdir."""

from __future__ import annotations

import contextlib
import functools

from geonoise_jax import files, processes
from geonoise_jax.evaluation.evaluator.cases import Case, batch_size, draw
from geonoise_jax.evaluation.evaluator.kept import Kept
from geonoise_jax.progress import Progress

DESCRIPTION = "sampling.json"


def drawn(case: Case, num: int) -> Kept:
    """Return the first ``num`` samples of a case, of which those that are missing are drawn, batch by batch.

    Each batch is kept once it is finished. Sample i depends on the seed and i alone. Several processes draw together.
    """
    kept = Kept(case.folder)
    held = processes.agreed(kept.held)
    if held < num:
        files.write_json(kept.folder / DESCRIPTION, case.description)
        progress = Progress(f"sample {case.model.workdir.name}, step {case.step}, {case.way}", num, "samples")
        size = batch_size(case, num)
        with contextlib.closing(progress):
            while held < num:
                batch = draw(case, held, size)
                processes.by_lead(functools.partial(kept.add, batch))
                held += size
                progress.update(min(held, num))
    return kept
