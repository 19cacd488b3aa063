"""A plan as text and as JSON: each figure with what it is, counted, the compiler's, a formula's or a bound."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from geonoise_jax.drawing.text import percent
from geonoise_jax.planning import facts as known
from geonoise_jax.planning import figures
from geonoise_jax.planning.facts import Facts, Program
from geonoise_jax.planning.topology import Topology, parse
from geonoise_jax.progress import duration

_WIDTHS = (32, 46)
# From this share of the limit to its inverse an estimate decides nothing: it has been wrong by as much.
_NEAR = 0.6
_MOVED = {
    "compiler": "bound, the compiler's bytes",
    "floor": "bound, each byte once, temporaries twice",
    "formula": "formula, each byte once, temporaries twice",
}
_BY = {
    "two sizes": "compiler, a line through two batches",
    "one size": "compiler at one batch, the rest a line",
    "formula": "formula",
}


def text(facts: Facts) -> str:
    """Return a plan for people."""
    place = parse(facts.topology)
    chip, step = place.chip, facts.find("step")[0]
    rows = step.batch // place.count
    lines = [
        f"{facts.config} on {place}: {place.count} x {chip.title} ({chip.source})",
        f"{facts.parameters:,} parameters, {'split over' if facts.sharded else 'whole on'} the devices; "
        f"{step.batch:,} samples a step, {rows:,} on each device"
        + (f" in {facts.accumulate} parts" if facts.accumulate > 1 else ""),
    ]
    lines += ["", "Memory of a step on one device", *_memory(facts, place)]
    lines += ["", "Work of a step", *_work(step, place)]
    lines += ["", "Time of a step, at best", *_time(facts, step, place)]
    for program in facts.find("sampler"):
        lines += ["", "Sampler", *_sampler(program, place)]
    lines += ["", *_spent(facts)]
    if advice := advised(facts):
        lines += ["", "What to change", *(f"  {each}" for each in advice)]
    return "\n".join(lines)


def data(facts: Facts) -> dict[str, Any]:
    """Return a plan as JSON has it: the facts, and the figures made of them; sizes in bytes, times in seconds."""
    place = parse(facts.topology)
    chip, count = place.chip, place.count
    return {
        "facts": known.to_json(facts),
        "chip": dataclasses.asdict(chip),
        "devices": count,
        "bounds": {
            name: dataclasses.asdict(figures.bounds(facts.find(name)[0], chip, count))
            for name in dict.fromkeys(program.name for program in facts.programs)
        },
        "memory_limit": figures.limit(chip, count),
        "memory_growth": dataclasses.asdict(figures.growth(facts, count)),
        "largest_batch": figures.largest_batch(facts, chip, count),
        "advice": advised(facts),
    }


def advised(facts: Facts) -> list[str]:
    """Return what would make a plan fit, or faster."""
    place = parse(facts.topology)
    found = [] if _fits(facts, place) else _to_fit(facts, place)
    step = facts.find("step")[0]
    share = step.memory.peak / figures.limit(place.chip, place.count)
    if step.compiled is None and place.chip.memory is not None and _NEAR < share < 1.0 / _NEAR:
        found.append("compile, without --quick: a formula does not know on which side of the limit this is")
    return found + _to_speed_up(facts, place)


def _row(label: str, value: str, source: str) -> str:
    return f"  {label:<{_WIDTHS[0]}}{value:<{_WIDTHS[1]}}  {source}".rstrip()


def _memory(facts: Facts, place: Topology) -> list[str]:
    step, most = facts.find("step")[0], figures.limit(place.chip, place.count)
    memory, compiled = figures.used(step), step.compiled
    by = "compiler" if step.planned else "formula"
    lines = []
    if compiled is not None and compiled.refused:
        lines.append(f"  does not fit, says the compiler: {compiled.refused}")
    exact = "" if by == "compiler" else ", exact"
    lines += [
        _row("state, data and batch", size(memory.arguments), by + exact),
        _row("temporaries", size(memory.temporaries), by),
    ]
    if memory.code:
        lines.append(_row("the program itself", size(memory.code), by))
    share = f"{size(memory.peak)} of {size(most)} ({percent(memory.peak / most)})"
    whose = {"tpu": "usable", "cuda": "that jax takes by default", "cpu": "of this machine, shared"}
    lines.append(_row("all at once", share, f"{by}; {whose[place.chip.platform]}"))
    if by == "compiler":
        lines.append(_row("for comparison", size(step.memory.peak), "formula"))
    largest = figures.largest_batch(facts, place.chip, place.count)
    lines.append(_row("largest batch that fits", f"{largest:,}", _BY[figures.growth(facts, place.count).by]))
    return lines


def _work(step: Program, place: Topology) -> list[str]:
    total = step.total
    lines = [_row("products and convolutions", f"{total:.3g} FLOPs, {total / place.count:.3g} a device", "counted")]
    for dtype, precision, flops in sorted(step.flops, key=lambda each: -each[-1]):
        if len(step.flops) > 1 or dtype == "float32":
            lines.append(_row(f"  {_format(dtype, precision)}", percent(flops / total), "counted"))
    compiled = step.compiled
    if compiled is None:
        return lines
    if compiled.flops is not None:
        lines.append(_row("all operations", f"{compiled.flops:.3g} FLOPs a device", "compiler"))
    if compiled.bytes is not None:
        lines.append(_row("read and written", f"{size(compiled.bytes)} a device", "compiler"))
    lines += [
        _row(each.kind, f"{each.count} of {each.dtype}, together {size(each.bytes)}", "compiler")
        for each in compiled.collectives
    ]
    return lines if compiled.collectives or compiled.refused else [*lines, _row("collectives", "none", "compiler")]


def _format(dtype: str, precision: str) -> str:
    """Precision is a matter of float32 alone."""
    return f"{dtype}, precision {precision}" if dtype == "float32" else dtype


def _time(facts: Facts, step: Program, place: Topology) -> list[str]:
    found = figures.bounds(step, place.chip, place.count)
    if found.step is None or found.arithmetic is None or found.memory is None:
        return [f"  not known: {place.chip.source}"]
    lines = [
        _row("arithmetic", seconds(found.arithmetic), "bound, by the peak of each format"),
        _row("memory", seconds(found.memory), _MOVED[found.moved_by]),
    ]
    if found.communication is not None:
        lines.append(_row("communication", seconds(found.communication), "bound; may go on beside the rest"))
    rate = 1.0 / found.step
    peak = f"of {place.chip.bfloat16:.3g} FLOP/s in bfloat16"
    lines += [
        _row("a step", f"{seconds(found.step)}, {rate:.3g} steps/s, {step.batch * rate:.3g} samples/s", "bound"),
        _row("MFU", f"at most {percent(found.mfu or 0.0)}", f"bound, {peak}"),
        _row(f"all {facts.num_steps:,} steps", f"at least {hours(facts.num_steps * found.step)}", "bound"),
    ]
    return lines


def _sampler(program: Program, place: Topology) -> list[str]:
    found = figures.bounds(program, place.chip, place.count)
    memory = figures.used(program)
    by = "compiler" if program.planned else "formula, without the network's own"
    lines = [
        _row("samples at once", f"{program.batch:,}, {program.batch // place.count:,} on each device", ""),
        _row("products and convolutions", f"{program.total:.3g} FLOPs", "counted"),
        _row("memory on one device", size(memory.peak), by),
    ]
    if program.unbounded:
        lines[1] += f", the body of {program.unbounded} loop(s) of unknown length once"
    if program.evaluations is not None:
        lines.insert(1, _row("evaluations of the network", f"{program.evaluations} a sample", "counted"))
    if found.arithmetic is not None and not program.unbounded:
        rate = f"{program.batch / found.arithmetic:.3g} samples/s"
        lines.append(_row("arithmetic", f"{seconds(found.arithmetic)}, {rate}", "bound, by the peak of each format"))
    return lines


def _spent(facts: Facts) -> list[str]:
    done = [program for program in facts.programs if program.compiled is not None]
    if not done:
        return ["Nothing was compiled: a quick plan, of what is counted and of formulas."]
    return [
        f"Compiled: {program.name} of {program.batch:,} in {duration(each.seconds)} "
        f"({duration(each.cpu_seconds)} of one core)"
        for program in done
        if (each := program.compiled) is not None
    ]


def _fits(facts: Facts, place: Topology) -> bool:
    step = facts.find("step")[0]
    refused = step.compiled is not None and bool(step.compiled.refused)
    return not refused and figures.used(step).peak <= figures.limit(place.chip, place.count)


def _to_fit(facts: Facts, place: Topology) -> list[str]:
    chip, count, step = place.chip, place.count, facts.find("step")[0]
    found = []
    parts = figures.fitting_accumulate(facts, chip, count)
    if parts is not None and parts > facts.accumulate:
        found.append(f"training.accumulate={parts}: the same batch in {parts} parts, by the line above")
    if not facts.sharded and count > 1:
        saved = (step.memory.aliased) * (1 - 1 / count)
        found.append(f"sharding.parameters=fsdp: the state split over the devices, {size(saved)} less on each")
    if any(dtype == "float32" and flops > 0.5 * step.total for dtype, _, flops in step.flops):
        found.append("model.kwargs.dtype=bfloat16: half of the activations")
    largest = figures.largest_batch(facts, chip, count)
    if largest:
        found.append(f"training.batch_size={largest}: the largest that fits")
    return found or ["more devices, or a smaller network: the state alone does not fit"]


def _to_speed_up(facts: Facts, place: Topology) -> list[str]:
    """Name the cheaper format of products where they are what bounds a step, and most are in a dear one."""
    chip, step = place.chip, facts.find("step")[0]
    found = figures.bounds(step, chip, place.count)
    if chip.bfloat16 is None or found.arithmetic is None or found.arithmetic != found.step:
        return []
    slow = sum(flops for dtype, precision, flops in step.flops if (dtype, precision) == ("float32", "highest"))
    one, default = chip.peak("float32", "highest"), chip.peak("float32", "default")
    if slow < 0.5 * step.total or one is None or default is None:
        return []
    return [
        f"matmul_precision=default: products of float32 up to {default / one:.3g} times as fast, in fewer bits",
        f"model.kwargs.dtype=bfloat16: products up to {chip.bfloat16 / one:.3g} times as fast, activations of half "
        "the size",
    ]


def size(num: float) -> str:
    """Return a number of bytes as people read it."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if num >= factor:
            return f"{num / factor:.3g} {unit}"
    return f"{num:.0f} bytes"


def seconds(time: float) -> str:
    """Return a short time as people read it."""
    if time == 0.0:
        return "0 s"
    power = math.floor(math.log10(time) / 3)
    unit = {0: "s", -1: "ms", -2: "us", -3: "ns"}.get(min(power, 0), "ns")
    return f"{time * {'s': 1.0, 'ms': 1e3, 'us': 1e6, 'ns': 1e9}[unit]:.3g} {unit}"


def hours(time: float) -> str:
    """Return a long time as people read it."""
    return f"{time / 3600:.3g} h" if time >= 3600 else duration(time)
