"""Bounds on time and batch from the facts of a program and the figures of a chip.

    arithmetic:     sum over formats of (FLOPs of a device) / (peak of the format);
    memory:         (bytes read and written on a device) / (bandwidth);
    communication:  (bytes that a device sends) / (interconnect), as if nothing else went on meanwhile;
    step:           at least the larger of arithmetic and memory, the roofline of Williams et al. (2009);
    MFU:            FLOPs / (step x devices x bfloat16 peak), so at most its value for the roofline.

Where the compiler does not count bytes, each byte of arguments and outputs is taken to be moved once and each of the
temporaries twice, which is less than any program moves.
"""

from __future__ import annotations

import dataclasses
import os

from geonoise_jax.hardware.chips import Chip
from geonoise_jax.planning.facts import Collective, Facts, Memory, Program

# What a program may have of the device memory. GPU: what jax takes by default, see XLA_PYTHON_CLIENT_MEM_FRACTION. TPU:
# what its compiler leaves, 15.75 of 16 GiB.
USABLE = {"tpu": 15.75 / 16, "cuda": 0.75, "cpu": 1.0}


@dataclasses.dataclass(frozen=True)
class Bounds:
    """Least times of one run of a program on its devices, seconds; None where a figure of the chip is missing.

    Attributes:
        arithmetic, memory, communication: see the module.
        moved: bytes read and written on a device.
        moved_by: whose count that is: ``compiler``; ``floor``, what its plan of memory moves at least; ``formula``,
            the same of the estimated memory.
        step: the least time, of arithmetic and memory.
        mfu: the largest share of the bfloat16 peak.
    """

    arithmetic: float | None
    memory: float | None
    communication: float | None
    moved: float
    moved_by: str
    step: float | None
    mfu: float | None


def bounds(program: Program, chip: Chip, devices: int) -> Bounds:
    """Return the bounds of a program."""
    arithmetic = _arithmetic(program, chip, devices)
    moved, moved_by = traffic(program)
    memory = None if chip.bandwidth is None else moved / chip.bandwidth
    step = None if arithmetic is None or memory is None else max(arithmetic, memory)
    mfu = None
    if step and chip.bfloat16:
        mfu = program.total / (step * devices * chip.bfloat16)
    return Bounds(arithmetic, memory, _communication(program, chip, devices), moved, moved_by, step, mfu)


def _arithmetic(program: Program, chip: Chip, devices: int) -> float | None:
    total = 0.0
    for dtype, precision, flops in program.flops:
        peak = chip.peak(dtype, precision)
        if peak is None:
            return None
        total += flops / devices / peak
    return total


def traffic(program: Program) -> tuple[float, str]:
    """Return the bytes that a program moves on a device, and whose count that is."""
    if program.compiled is not None and program.compiled.bytes is not None:
        return program.compiled.bytes, "compiler"
    memory = used(program)
    moved = memory.arguments + memory.outputs + 2.0 * memory.temporaries
    return moved, "floor" if program.planned else "formula"


def _communication(program: Program, chip: Chip, devices: int) -> float | None:
    if program.compiled is None or chip.interconnect is None or devices == 1:
        return None
    return sum(sent(each, devices) for each in program.compiled.collectives) / chip.interconnect


def sent(collective: Collective, devices: int) -> float:
    """Return the bytes that each device must send, at least: around a ring, of which a reduction needs two rounds.

    Of a ``reduce-scatter`` the whole is as many times its result as there are devices.
    """
    rounds = {"all-reduce": 2.0, "reduce-scatter": float(devices)}.get(collective.kind, 1.0)
    return rounds * (devices - 1) / devices * collective.bytes


def used(program: Program) -> Memory:
    """Return the memory that a program takes: the compiler's where it has said so, else the formula's."""
    compiled = program.compiled
    return program.memory if compiled is None or compiled.memory is None else compiled.memory


def limit(chip: Chip, devices: int) -> float:
    """Return the bytes that a program may take on a device; for CPU devices their part of this machine's memory."""
    if chip.memory is not None:
        return USABLE[chip.platform] * chip.memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / devices


@dataclasses.dataclass(frozen=True)
class Growth:
    """Memory of a step as a line in the rows that a device computes at once.

    Attributes:
        fixed: bytes without any.
        per_row: bytes for each.
        by: what the line is through: ``two sizes``, ``one size`` (its gradients being fixed) or ``formula``.
    """

    fixed: float
    per_row: float
    by: str

    def rows(self, most: float) -> int:
        """Return the largest number of rows in so many bytes; 0 for none."""
        return max(int((most - self.fixed) // self.per_row), 0) if self.per_row > 0 else 0


def growth(facts: Facts, devices: int) -> Growth:
    """Return how the memory of the step grows with the batch."""
    steps = facts.find("step")
    points = [(_rows(facts, step, devices), used(step).peak) for step in steps]
    if len(steps) > 1 and all(step.planned for step in steps) and points[0][0] > points[1][0]:
        slope = (points[0][1] - points[1][1]) / (points[0][0] - points[1][0])
        return Growth(points[0][1] - slope * points[0][0], slope, "two sizes")
    step, memory = steps[0], used(steps[0])
    grows = max(memory.temporaries - step.grads, 0)
    return Growth(memory.peak - grows, grows / points[0][0], "one size" if step.planned else "formula")


def _rows(facts: Facts, step: Program, devices: int) -> float:
    return step.batch / (devices * facts.accumulate)


def largest_batch(facts: Facts, chip: Chip, devices: int) -> int:
    """Return the largest batch that fits, over all devices and micro-batches; 0 if none does."""
    return growth(facts, devices).rows(limit(chip, devices)) * devices * facts.accumulate


def fitting_accumulate(facts: Facts, chip: Chip, devices: int) -> int | None:
    """Return the least ``training.accumulate`` with which the config's batch fits; None if none does."""
    rows = facts.find("step")[0].batch // devices
    most = growth(facts, devices).rows(limit(chip, devices))
    return next((parts for parts in range(1, rows + 1) if rows % parts == 0 and rows // parts <= most), None)
