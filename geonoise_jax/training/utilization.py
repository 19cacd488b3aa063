"""How much of its devices a run uses: model FLOPs utilisation, MFU (Chowdhery et al. 2022, PaLM, appendix B).

    MFU = (FLOPs of a step) x (steps per second) / (devices x peak of a device in bfloat16)

The FLOPs are those of the products and convolutions of the traced step, see ``hardware.counting``; the peak is that of
``hardware.chips``, in bfloat16 whatever the format of the run, so that runs compare.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from geonoise_jax.hardware import chips
from geonoise_jax.hardware.counting import count


class Utilization:
    """The MFU of a step, whose FLOPs are counted once, when they are first needed."""

    def __init__(self, trace: Callable[[], jax.stages.Traced], devices: Sequence[jax.Device]) -> None:
        """Find the peak of the devices.

        Args:
            trace: traces the step, from jax's cache if the step has run.
            devices: those of its mesh, of one kind.
        """
        self._trace = trace
        chip = chips.of_kind(devices[0].device_kind)
        self._peak = None if chip is None or chip.bfloat16 is None else chip.bfloat16 * len(devices)

    @functools.cached_property
    def flops(self) -> float:
        """FLOPs of a step over all devices."""
        return count(self._trace().jaxpr).total

    def metrics(self, steps_per_second: float) -> dict[str, float]:
        """Return ``{"mfu": ...}``, or nothing where the peak of the devices is not in the table."""
        return {} if self._peak is None else {"mfu": self.flops * steps_per_second / self._peak}


def of_setup(setup: Any) -> Utilization:
    """Return that of a ``training.train.Setup``."""

    def trace() -> jax.stages.Traced:
        return setup.step.trace(setup.abstract, setup.batch(0), setup.resident)

    return Utilization(trace, list(setup.mesh.devices.flat))
