"""What is known of a program: counted, estimated, or the compiler's; plain values that JSON holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device.

    Attributes:
        arguments: parameters, averages, optimizer, data that stay there, and the batch.
        outputs: what the program returns.
        aliased: of the outputs, what takes the place of arguments.
        temporaries: largest sum of everything else that is there at one time.
        code: the program itself, where it lies in device memory.
    """

    arguments: int
    outputs: int
    aliased: int
    temporaries: int
    code: int = 0

    @property
    def peak(self) -> int:
        """Largest sum of all."""
        return self.arguments + self.outputs - self.aliased + self.temporaries + self.code


@dataclasses.dataclass(frozen=True)
class Collective:
    """Communication of one kind between devices in one run of a program.

    Attributes:
        kind: such as ``all-reduce``.
        dtype: such as ``f32``.
        count: number of them; those in a loop are counted once.
        bytes: sum of what they return on one device.
    """

    kind: str
    dtype: str
    count: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler says of a program.

    Attributes:
        memory: bytes on one device, or None where it does not fit.
        flops: arithmetic operations on one device, all of them; None where the compiler does not count.
        bytes: bytes read and written on one device, None likewise.
        collectives: communication.
        seconds: time that it took.
        cpu_seconds: processor time that it took.
        refused: what the compiler said if it gave up, such as too little memory.
    """

    memory: Memory | None
    flops: float | None
    bytes: float | None
    collectives: tuple[Collective, ...]
    seconds: float
    cpu_seconds: float
    refused: str = ""


@dataclasses.dataclass(frozen=True)
class Program:
    """One program of a run on one topology.

    Attributes:
        name: ``step`` or ``sampler``.
        batch: samples that it computes at once, over all devices.
        flops: counted products over all devices: ``(dtype, precision, FLOPs)`` of each format.
        unbounded: loops whose length only the data decide; their bodies are counted once.
        memory: estimate of the memory on one device, by formula.
        grads: of its temporaries, those that do not grow with the batch: the gradients.
        evaluations: of the network for a sample; None where each sample decides, and for a step.
        lowered_seconds: time to trace and lower.
        compiled: what the compiler says; None in a quick plan.
    """

    name: str
    batch: int
    flops: tuple[tuple[str, str, float], ...]
    unbounded: int
    memory: Memory
    grads: int
    evaluations: int | None
    lowered_seconds: float
    compiled: Compiled | None = None

    @property
    def planned(self) -> bool:
        """Whether the compiler has said how much memory it takes."""
        return self.compiled is not None and self.compiled.memory is not None

    @property
    def total(self) -> float:
        """FLOPs of all products over all devices."""
        return sum(flops for *_, flops in self.flops)


@dataclasses.dataclass(frozen=True)
class Facts:
    """All that the report is made of.

    Attributes:
        topology: name of the devices.
        config: name of the config, for people.
        parameters: number of parameters of the network.
        num_steps, accumulate: the budget of the config.
        sharded: whether parameters are split over devices.
        data: size of the data that stay on every device, bytes.
        programs: the step, perhaps at another batch as well, and the sampler.
    """

    topology: str
    config: str
    parameters: int
    num_steps: int
    accumulate: int
    sharded: bool
    data: int
    programs: tuple[Program, ...]

    def find(self, name: str) -> list[Program]:
        """Return the programs of a name, that of the config's own batch first."""
        return [program for program in self.programs if program.name == name]


def to_json(value: Any) -> dict[str, Any]:
    """Return facts as dictionaries and lists."""
    return dataclasses.asdict(value)


def compiled_from(stored: Mapping[str, Any]) -> Compiled:
    """Return what :func:`to_json` made of a ``Compiled``."""
    memory = stored["memory"]
    return Compiled(
        **{
            **stored,
            "memory": None if memory is None else Memory(**memory),
            "collectives": tuple(Collective(**each) for each in stored["collectives"]),
        }
    )


def facts_from(stored: Mapping[str, Any]) -> Facts:
    """Return what :func:`to_json` made of ``Facts``."""

    def program(each: Mapping[str, Any]) -> Program:
        compiled = each["compiled"]
        return Program(
            **{
                **each,
                "flops": tuple((dtype, precision, float(flops)) for dtype, precision, flops in each["flops"]),
                "memory": Memory(**each["memory"]),
                "compiled": None if compiled is None else compiled_from(compiled),
            }
        )

    return Facts(**{**stored, "programs": tuple(program(each) for each in stored["programs"])})
