"""What exact fields say of their accuracy while samples are drawn from them: once, for each sample."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from geonoise_jax.exact.delivery import Report, in_one_warning, listening, say


class Exactness:
    """The largest errors that exact fields report of the samples, a batch at a time."""

    def __init__(self) -> None:
        """Begin with nothing heard."""
        self._errors: list[Float[np.ndarray, "2 size"]] = []
        self._of_samples: list[Report] = []
        self._others: list[Report] = []

    @contextlib.contextmanager
    def of_batch(self, num: int, size: int) -> Iterator[None]:
        """Hear what is reported meanwhile of ``num`` samples, of which the first ``size`` are kept."""
        reports: list[Report] = []
        with listening(reports.append):
            yield
        worst = np.zeros((2, num))
        for report in reports:
            if report.error.shape != worst.shape:
                self._others.append(report)
                continue
            self._of_samples.append(report)
            larger = ~(report.error.sum(axis=0) <= worst.sum(axis=0))
            worst[:, larger] = report.error[:, larger]
        self._errors.append(worst[:, :size])

    def tell(self, statistics: dict[str, np.ndarray]) -> None:
        """Add ``exact_error`` to the statistics of the samples, and warn once, if there was anything to say."""
        if self._of_samples:
            errors = np.concatenate(self._errors, axis=1)
            statistics["exact_error"] = errors.sum(axis=0)
            say(dataclasses.replace(self._of_samples[0], error=errors, calls=len(self._of_samples)), stacklevel=4)
        with in_one_warning():
            for report in self._others:
                say(report)
