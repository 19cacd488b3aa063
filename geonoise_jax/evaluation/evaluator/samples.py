"""Samples of a case, drawn where they are missing and kept in its workdir."""

from __future__ import annotations

import contextlib

from geonoise_jax import files
from geonoise_jax.evaluation.evaluator.cases import Case, batch_size, draw
from geonoise_jax.evaluation.evaluator.kept import Kept
from geonoise_jax.progress import Progress

DESCRIPTION = "sampling.json"


def drawn(case: Case, num: int) -> Kept:
    """Return the first ``num`` samples of a case, of which those that are missing are drawn, batch by batch.

    Each batch is kept once it is finished. Sample i depends on the seed and i alone.
    """
    kept = Kept(case.folder)
    if kept.held < num:
        files.write_json(kept.folder / DESCRIPTION, case.description)
        progress = Progress(f"sample {case.model.workdir.name}, step {case.step}, {case.way}", num, "samples")
        size = batch_size(case, num)
        with contextlib.closing(progress):
            while kept.held < num:
                kept.add(draw(case, kept.held, size))
                progress.update(min(kept.held, num))
    return kept
