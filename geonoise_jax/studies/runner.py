"""How any study runs: measure, write its picture and its numbers, and return its table and its verdicts."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import PurePath
from typing import Any

import numpy as np

from geonoise_jax import files
from geonoise_jax.drawing.outputs import beside, rendered, write, write_svg
from geonoise_jax.errors import UserError
from geonoise_jax.studies import table
from geonoise_jax.studies.verdicts import Verdict, verdict_lines

# Longer arrays are read from the .npz.
_LONGEST_LIST = 1_000


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
    module = table.find(name).load()
    study = module.measure(options)
    picture, arrays, verdicts = module.picture(study), module.arrays(study), tuple(_optional(module, "verdicts", study))
    write_svg(beside(out, ".svg"), picture)
    drawn = rendered(picture)
    write(out, drawn, arrays)
    files.write_text(beside(out, ".json"), _json(name, options, _optional(module, "numbers", study), arrays, verdicts))
    written = []
    for ending, content in dict(_optional(module, "pages", study, drawn)).items():
        written.append(beside(out, ending))
        with files.replacing(written[-1]) as file:
            file.write(content.encode() if isinstance(content, str) else content)
    blocks = [[module.table(study)], verdict_lines(verdicts), [str(each) for each in written]]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _optional(module: Any, name: str, *arguments: Any) -> Any:
    """Return what a function of the module says; nothing if it has none of this name."""
    return getattr(module, name)(*arguments) if hasattr(module, name) else ()


def _json(name: str, options: Any, numbers: Any, arrays: dict[str, Any], verdicts: tuple[Verdict, ...]) -> str:
    """Return a study as JSON: its choices, short arrays, what else it has to say, and verdicts."""
    short = {key: np.asarray(value) for key, value in arrays.items()}
    found = {
        "study": name,
        "options": {key: str(value) for key, value in vars(options).items()},
        "arrays": {key: _listed(value.tolist()) for key, value in short.items() if value.size <= _LONGEST_LIST},
        **dict(numbers),
        "verdicts": [each.to_dict() for each in verdicts],
    }
    return json.dumps(found, indent=1, allow_nan=False) + "\n"


def _listed(value: Any) -> Any:
    """Return nested lists with None for numbers that JSON has no word for."""
    if isinstance(value, list):
        return [_listed(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def options(name: str, workdir: PurePath | None, given: dict[str, Any], out: PurePath | None = None) -> Any:
    """Return the ``Options`` of a study as a command line gives them.

    Args:
        name: name of the study.
        workdir: workdir of a training run, or None.
        given: further options by name.
        out: folder of the runs of a study that trains, unless ``runs`` is given.

    Raises:
        ValueError: if a workdir is missing or is no argument, an option is unknown, or a value is out of its range.
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
    if out is not None and "runs" in known:
        given = {"runs": out, **given}
    return kind(**given, **({} if workdir is None else {"workdir": workdir}))
