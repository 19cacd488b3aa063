"""The programs of a config, traced and compiled for devices that need not be there."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from geonoise_jax import build, files
from geonoise_jax import config as configs
from geonoise_jax.config import ConfigDict
from geonoise_jax.errors import UserError
from geonoise_jax.hardware.counting import count
from geonoise_jax.planning import facts, memory, stand_in
from geonoise_jax.planning.collectives import collectives
from geonoise_jax.planning.facts import Compiled, Facts, Memory, Program
from geonoise_jax.sampling.generation import traced
from geonoise_jax.training import sharding, train

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Request:
    """What to plan.

    Attributes:
        config: the config, as ``config.dumps`` has it.
        name: of the config, for people.
        topology: name of the devices.
        quick: count and estimate, but do not compile.
        two_sizes: compile the step at half the batch too.
        sampler: the sampler too.
    """

    config: str
    name: str
    topology: str
    quick: bool = False
    two_sizes: bool = False
    sampler: bool = True


def survey(request: Request, devices: Sequence[jax.Device], say: Say) -> Facts:
    """Trace the programs of a config for devices, and compile them unless the plan is quick.

    Args:
        request: what to plan.
        devices: of the topology; for a quick plan any as many, as only their number matters.
        say: told what is being done.

    Raises:
        ValueError: on a config that cannot be built, or not on these devices.
    """
    config = configs.absolute(configs.loads(request.config))
    platform = request.topology.partition(":")[0] if not request.quick else "cpu"
    config = as_on(config, platform)
    say("shapes")
    setup = described(config, devices)
    versions = _versions(request.topology)
    finish = None if request.quick else lambda name, low: compiled(name, low, versions, say)
    programs = [step(setup, finish, say)]
    half = config.training.batch_size // 2
    if request.two_sizes and not half % (config.training.accumulate * setup.mesh.shape["data"]):
        smaller = configs.override(config, [("training.batch_size", str(half))])
        programs.append(step(described(smaller, devices), finish, say))
    if request.sampler:
        programs.append(sampler(setup, finish, say))
    params = setup.abstract.params
    return Facts(
        topology=request.topology,
        config=request.name,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(params)),
        num_steps=config.training.num_steps,
        accumulate=config.training.accumulate,
        sharded=memory.on_device(params) < memory.whole(params),
        data=memory.on_device(setup.resident),
        programs=tuple(programs),
    )


def as_on(config: ConfigDict, platform: str) -> ConfigDict:
    """Return the config as it is built where the devices are: only a CPU has energy networks convolve by patches."""
    kwargs = config.model.kwargs
    if platform == "cpu" or config.model.output == "direct" or config.model.name != "UNet" or "convolution" in kwargs:
        return config
    return configs.override(config, [("model.kwargs.convolution", "xla")])


def described(config: ConfigDict, devices: Sequence[jax.Device]) -> train.Setup:
    """Return a run on its devices, from shapes alone.

    Raises:
        ValueError: on a config that cannot be built, or not on these devices.
    """
    run = build.run(config, stand_in.arrays(config))
    return train.prepare(run, Path("plan"), list(devices), put=sharding.described)


def step(setup: train.Setup, finish: Any, say: Say) -> Program:
    """Trace one training step, and compile it with ``finish(name, lowered)`` if there is one."""
    say("tracing the training step")
    began = time.perf_counter()
    found = setup.step.trace(setup.abstract, setup.batch(0), setup.resident)
    estimate, grads = memory.of_step(setup)
    return _finished("step", found, setup.run.budget.batch_size, estimate, grads, None, began, finish)


def sampler(setup: train.Setup, finish: Any, say: Say) -> Program:
    """Trace one batch of the config's sampler with averaged parameters, and compile it likewise."""
    say("tracing the sampler")
    began = time.perf_counter()
    run = setup.run
    field = run.sampling.field(run.field(setup.abstract.ema_params))
    found, size, evaluations = traced(
        field, run.sampling.num, **run.sampling.options, labels=bool(run.num_classes), mesh=setup.mesh
    )
    estimate = memory.of_sampler(field, size, setup.mesh.size)
    return _finished("sampler", found, size, estimate, 0, evaluations, began, finish)


def _finished(
    name: str,
    found: jax.stages.Traced,
    batch: int,
    estimate: Memory,
    grads: int,
    evaluations: int | None,
    began: float,
    finish: Any,
) -> Program:
    counted = count(found.jaxpr)
    lowered = None if finish is None else found.lower()
    seconds = time.perf_counter() - began
    return Program(
        name=name,
        batch=batch,
        flops=tuple((kind.dtype, kind.precision, flops) for kind, flops in counted.flops.items()),
        unbounded=counted.unbounded,
        memory=estimate,
        grads=grads,
        evaluations=evaluations,
        lowered_seconds=seconds,
        compiled=None if finish is None else finish(f"{name}, batch {batch}", lowered),
    )


def compiled(name: str, lowered: jax.stages.Lowered, versions: str, say: Say) -> Compiled:
    """Compile a program, or look up what its compilation said before: by its text, devices and versions."""
    text = lowered.as_text()
    key = hashlib.sha256(f"{versions}\n{text}".encode()).hexdigest()[:32]
    path = files.cache_folder() / "plans" / f"{key}.json"
    if path.exists():
        say(f"known from before: {name}")
        return facts.compiled_from(files.read_json(path))
    say(f"compiling: {name}")
    clock, processor = time.perf_counter(), time.process_time()
    found, refused = None, ""
    try:
        found = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        refused = _memory_line(error)
    spent = time.perf_counter() - clock, time.process_time() - processor
    made = said_of(found, spent, refused)
    files.write_json(path, facts.to_json(made))
    return made


def _memory_line(error: Exception) -> str:
    """Return the line with which a compiler says that memory is too small; raise what else it says."""
    text = str(error)
    if "RESOURCE_EXHAUSTED" not in text:
        raise UserError(f"the compiler gave up: {text.splitlines()[0]}") from error
    telling = ("Used", "xceeded", "out of memory")
    lines = [line.strip() for line in text.splitlines() if any(words in line for words in telling)]
    return (lines or text.splitlines())[0]


def said_of(found: jax.stages.Compiled | None, spent: tuple[float, float], refused: str = "") -> Compiled:
    """Return what a compiled program says of itself.

    Args:
        found: the program, or None if the compiler gave up.
        spent: time and processor time of the compilation, seconds.
        refused: what the compiler said if it gave up.
    """
    if found is None:
        return Compiled(None, None, None, (), *spent, refused)
    stats, costs = found.memory_analysis(), found.cost_analysis() or {}
    sizes = None
    if stats is not None:
        sizes = Memory(
            arguments=stats.argument_size_in_bytes,
            outputs=stats.output_size_in_bytes,
            aliased=stats.alias_size_in_bytes,
            temporaries=stats.temp_size_in_bytes,
            code=stats.generated_code_size_in_bytes,
        )
    return Compiled(sizes, costs.get("flops"), costs.get("bytes accessed"), collectives(found.as_text() or ""), *spent)


def _versions(topology: str) -> str:
    import importlib.metadata

    known = []
    for package in ("jax", "jaxlib", "libtpu", "jax-cuda13-plugin", "jax-cuda12-plugin"):
        try:
            known.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return f"{topology} {', '.join(known)}"
