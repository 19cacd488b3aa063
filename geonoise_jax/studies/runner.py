"""How any study runs: measure, write its picture and its numbers, and say its table and its verdicts."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
from pathlib import PurePath
from typing import Any, NamedTuple

import numpy as np

from geonoise_jax import files
from geonoise_jax.drawing.outputs import beside, rendered, write, write_svg
from geonoise_jax.errors import UserError
from geonoise_jax.studies import table
from geonoise_jax.studies.verdicts import Row, row_lines

# Longer arrays are read from the .npz.
_LONGEST_LIST = 1_000


class Result(NamedTuple):
    """What a study found.

    Attributes:
        table: its results as text.
        rows: its verdicts in words.
        further: files that it has besides picture and numbers.
    """

    table: str
    rows: tuple[Row, ...]
    further: tuple[PurePath, ...]


def run(name: str, out: str | PurePath, options: Any) -> str:
    """Run a study, and write ``OUT.png``, ``OUT.svg``, ``OUT.npz``, ``OUT.json`` and, if it has some, further files.

    Args:
        name: one of :data:`geonoise_jax.studies.STUDIES`.
        out: the common name of the files without ending.
        options: the ``Options`` of its module.

    Returns:
        The results as text, what they say of the paper's sentences, and the further files that were written.

    Raises:
        ValueError: if there is no such study, or it cannot be made with these options.
    """
    found = make(name, out, options)
    blocks = [[found.table], row_lines(found.rows), [str(each) for each in found.further]]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def make(name: str, out: str | PurePath, options: Any, fingerprint: str = "") -> Result:
    """Run a study as :func:`run` does, for :func:`kept` to find what it says.

    Args:
        name: name of the study.
        out: the common name of the files without ending.
        options: the ``Options`` of its module.
        fingerprint: what the numbers depend on; empty where nobody is to look for them.

    Raises:
        ValueError: as :func:`run`.
    """
    module = table.find(name).load()
    study = module.measure(options)
    picture, arrays, verdicts = module.picture(study), module.arrays(study), tuple(_optional(module, "verdicts", study))
    write_svg(beside(out, ".svg"), picture)
    drawn = rendered(picture)
    write(out, drawn, arrays)
    further = []
    for ending, content in dict(_optional(module, "pages", study, drawn)).items():
        further.append(beside(out, ending))
        with files.replacing(further[-1]) as file:
            file.write(content.encode() if isinstance(content, str) else content)
    found = Result(module.table(study), tuple(each.row for each in verdicts), tuple(further))
    said = {
        "study": name,
        "fingerprint": fingerprint,
        "options": {key: str(value) for key, value in vars(options).items()},
        "table": found.table,
        "further": [each.name for each in further],
        **_numbers(arrays),
        **dict(_optional(module, "numbers", study)),
        "verdicts": [each.to_dict() for each in verdicts],
    }
    # Last: where it is, the others are.
    files.write_text(beside(out, ".json"), json.dumps(said, indent=1, allow_nan=False) + "\n")
    return found


def kept(out: str | PurePath, fingerprint: str) -> Result | None:
    """Return what :func:`make` found, where it was of the same fingerprint and all of its files are there."""
    path = beside(out, ".json")
    if not files.exists(path):
        return None
    try:
        said = files.read_json(path)
        if said["fingerprint"] != fingerprint:
            return None
        further = tuple(path.with_name(each) for each in said["further"])
        found = Result(said["table"], tuple(map(Row.of_dict, said["verdicts"])), further)
    except (UserError, LookupError, TypeError):
        return None
    pictures = (beside(out, ending) for ending in (".png", ".svg", ".npz"))
    return found if all(map(files.exists, (*pictures, *further))) else None


def _optional(module: Any, name: str, *arguments: Any) -> Any:
    """Return what a function of the module says; nothing if it has none of this name."""
    return getattr(module, name)(*arguments) if hasattr(module, name) else ()


def _numbers(arrays: dict[str, Any]) -> dict[str, Any]:
    short = {key: np.asarray(value) for key, value in arrays.items()}
    return {"arrays": {key: _listed(value.tolist()) for key, value in short.items() if value.size <= _LONGEST_LIST}}


def _listed(value: Any) -> Any:
    """Return nested lists with None for numbers that JSON has no word for."""
    if isinstance(value, list):
        return [_listed(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def options(
    name: str, workdir: PurePath | None, given: dict[str, Any], out: PurePath | None = None, *, quick: bool = False
) -> Any:
    """Return the ``Options`` of a study as a command line gives them.

    Args:
        name: name of the study.
        workdir: workdir of a training run, or None.
        given: further options by name.
        out: folder of the runs of a study that trains, unless ``runs`` is given.
        quick: take those of a try-out in place of what is not given.

    Raises:
        ValueError: if a workdir is missing or is no argument, an option is unknown, a value is out of its range, or the
            study has no try-out.
    """
    entry = table.find(name)
    if workdir is None and entry.workdir == table.NEEDED:
        raise UserError(f"--workdir: must be given for {name}")
    if workdir is not None and entry.workdir == table.NONE:
        raise UserError(f"--workdir: is no argument of {name}, which needs no run")
    if "workdir" in given:
        raise UserError(f"--option=workdir: give the workdir of {name} as --workdir")
    kind = entry.load().Options
    known = [field.name for field in dataclasses.fields(kind) if field.name != "workdir"]
    for option in given:
        if option not in known:
            raise UserError(f"--option {option}: no option of {name}; its options are {', '.join(known)}")
    if quick:
        tried = quick_options(name)
        if not tried:
            raise UserError(f"--quick: has no effect on {name}, which has no shorter form; leave it out")
        given = {**tried, **given}
    if out is not None and "runs" in known:
        given = {"runs": out, **given}
    return kind(**given, **({} if workdir is None else {"workdir": workdir}))


def quick_options(name: str) -> dict[str, Any]:
    """Return the options of a study that is only tried out, as its module has them; none where it has no such form."""
    module = table.find(name).load()
    if any(field.name == "quick" for field in dataclasses.fields(module.Options)):
        return {"quick": True}
    quick = getattr(module, "QUICK", None)
    if quick is None:
        return {}
    return {
        field.name: getattr(quick, field.name)
        for field in dataclasses.fields(quick)
        if getattr(quick, field.name) != field.default
    }


def command(name: str, out: PurePath, options: Any, *, quick: bool = False) -> str:
    """Return the command line that makes a study.

    Args:
        name: name of the study.
        out: the common name of its files.
        options: its choices.
        quick: whether they are those of its try-out where they are not said.
    """
    kind, words = type(options), ["geonoise", "figure", name, f"--out={out}"]
    workdir = getattr(options, "workdir", None)
    before = kind(**(quick_options(name) if quick else {}), **({} if workdir is None else {"workdir": workdir}))
    if workdir is not None:
        words.append(f"--workdir={workdir}")
    if quick:
        words.append("--quick")
    for field in dataclasses.fields(kind):
        value = getattr(options, field.name)
        if field.name not in ("runs", "workdir") and value != getattr(before, field.name):
            words.append(f"--option={field.name}={value}")
    return shlex.join(words)
