"""How any study runs: measure, write its picture and its numbers, and return its table."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from geonoise_jax import files
from geonoise_jax.drawing.outputs import write
from geonoise_jax.errors import UserError
from geonoise_jax.studies import table


def run(name: str, out: str | Path, options: Any) -> str:
    """Run a study, and write ``OUT.png``, ``OUT.npz`` and, of a study that has some, further files.

    Args:
        name: one of :data:`geonoise_jax.studies.STUDIES`.
        out: the common name of the files without ending.
        options: the ``Options`` of its module.

    Returns:
        The results as text, and the further files that were written.

    Raises:
        ValueError: if there is no such study, or it cannot be made with these options.
    """
    module = table.find(name).load()
    study = module.measure(options)
    picture = module.picture(study)
    write(out, picture, module.arrays(study))
    written = []
    for ending, text in getattr(module, "pages", _none)(study, picture).items():
        written.append(Path(out).with_name(Path(out).name + ending))
        files.write_text(written[-1], text)
    return "\n".join([module.table(study), *([""] if written else []), *map(str, written)])


def _none(_: Any, __: Any) -> dict[str, str]:
    return {}


def options(name: str, workdir: Path | None, given: dict[str, Any], out: Path | None = None) -> Any:
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
