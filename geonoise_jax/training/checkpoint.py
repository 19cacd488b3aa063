"""Checkpoints with a checksum, and the fall-back to an older one when the latest is damaged.

Layout of ``workdir/checkpoints/STEP``: ``train`` (the state but for the average), ``ema`` (the averaged parameters, so
that evaluation reads nothing else) and ``meta`` (checksums, and the dtype and shape of every array, which Orbax would
cast to what is asked for without a word).
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePath
from typing import Any

import jax
import orbax.checkpoint as ocp
from jaxtyping import Array, PyTree

from geonoise_jax import files, processes
from geonoise_jax.checks import integer
from geonoise_jax.errors import UserError
from geonoise_jax.training.checkpoint_errors import (
    DamagedCheckpointError,
    OtherTypesError,
    UnreadableCheckpointError,
    UnsavedError,
    reason,
)
from geonoise_jax.training.checkpoint_manager import reader, writer
from geonoise_jax.training.fingerprint import fingerprint
from geonoise_jax.training.state import TrainState, types
from geonoise_jax.training.stored_types import abstract as abstract_array
from geonoise_jax.training.stored_types import nested, text_sum, way_out
from geonoise_jax.training.watched import NewestAndBest

_LOG = logging.getLogger(__name__)
_ATTEMPTS = 2


class Checkpoints:
    """The checkpoints of one workdir."""

    def __init__(
        self,
        workdir: PurePath,
        *,
        keep: int = 3,
        read_only: bool = False,
        best: Callable[[Sequence[int]], int | None] | None = None,
    ) -> None:
        """Open the folder, making it if need be.

        Args:
            workdir: the run's folder.
            keep: number of latest checkpoints that are kept.
            read_only: make and delete nothing.
            best: returns the best of some steps, if any is, which is kept beside them.

        Raises:
            ValueError: if keep is not positive.
        """
        self._workdir = files.absolute(files.location(workdir, "workdir"))
        self._keep = integer("checkpoint.keep", keep, low=1)
        self._read_only = read_only
        self._best = best
        self._manager, self._reader = self._open()

    @property
    def steps(self) -> list[int]:
        """Steps that have a checkpoint, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, state: TrainState) -> None:
        """Save the state under its step; does nothing if that step is saved already.

        Raises:
            UnsavedError: if it was not saved, or one before it whose saving went on meanwhile.
            UserError: if another run took over the lock of a workdir in a bucket.
        """
        step = int(state.step)
        if processes.agreed(step in self._manager.all_steps()):
            return
        processes.by_lead(lambda: files.still_locked(self._workdir))
        train, ema = _split(state)
        arrays = types(state)
        meta = {"train": fingerprint(train), "ema": fingerprint(ema), "types": arrays, "types_sum": text_sum(arrays)}
        items = ocp.args.Composite(
            train=ocp.args.StandardSave(train), ema=ocp.args.StandardSave(ema), meta=ocp.args.JsonSave(meta)
        )
        with self._saving(step):
            if not self._manager.save(step, args=items):
                raise UnsavedError(self._unsaved(step, f"there are checkpoints of later steps, {self.steps}"))

    def wait(self) -> None:
        """Wait for saves in progress.

        Raises:
            UnsavedError: if one failed.
        """
        with self._saving(None):
            self._manager.wait_until_finished()

    def restore(self, abstract: TrainState) -> TrainState | None:
        """Return the latest sound state, or None if nothing was ever saved.

        Damaged checkpoints are said so, moved to ``workdir/damaged_checkpoints`` and passed over. Any other error moves
        nothing.

        Args:
            abstract: shapes, dtypes and shardings (``ShapeDtypeStruct``) that the state is restored into.

        Raises:
            DamagedCheckpointError: if there are checkpoints and none is sound.
            OtherTypesError: if the latest sound one holds other arrays, dtypes or shapes.
            UnreadableCheckpointError: if the latest that is not damaged cannot be read.
            UserError: if there is no room for another checkpoint.
        """
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(abstract))
        files.usable_folder(self._workdir / "checkpoints", "workdir", room=size)
        train, ema = _split(abstract)
        found = self._latest_sound({"train": train, "ema": ema}, types(abstract), set_aside=True)
        return None if found is None else _join(abstract, found[1]["train"], found[1]["ema"])

    def restore_ema(self, abstract: PyTree[jax.ShapeDtypeStruct], step: int | None = None) -> tuple[int, PyTree[Array]]:
        """Return the step and the averaged parameters of a checkpoint, changing nothing on the disk.

        Args:
            abstract: shapes, dtypes and shardings that the parameters are restored into.
            step: the checkpoint of this step; None for the latest sound one.

        Raises:
            ValueError: if nothing was saved yet, or not at this step.
            DamagedCheckpointError: if the checkpoint of this step, or every checkpoint, is damaged.
            OtherTypesError: if the checkpoint holds other arrays, dtypes or shapes.
            UnreadableCheckpointError: if the checkpoint cannot be read.
        """
        wanted = types({"ema_params": abstract})
        if step is not None:
            if step not in self.steps:
                raise UserError(f"workdir = {str(self._workdir)!r}: no checkpoint of step {step}, but of {self.steps}")
            return step, self._read(step, {"ema": abstract}, wanted)["ema"]
        found = self._latest_sound({"ema": abstract}, wanted, set_aside=False)
        if found is None:
            raise UserError(f"workdir = {str(self._workdir)!r}: has no checkpoint yet")
        return found[0], found[1]["ema"]

    def restore_raw(self, abstract: PyTree[jax.ShapeDtypeStruct], step: int | None = None) -> tuple[int, PyTree[Array]]:
        """Return the step and the parameters themselves, not averaged; otherwise as :meth:`restore_ema`."""
        chosen = self._existing(step)
        # Orbax restores an item whole; what is beside the parameters has the types that are stored with it.
        train = self._stored(chosen)["train"]
        train["params"] = jax.tree.leaves(abstract)
        read = self._read_step(chosen, {"train": train}, types({"params": abstract}))
        return chosen, jax.tree.unflatten(jax.tree.structure(abstract), read["train"]["params"])

    def restore_unknown(self, step: int | None, *, averaged: bool) -> tuple[int, PyTree[Array]]:
        """Return the step and the parameters of a checkpoint, by the names and types that it says it holds.

        Args:
            step: the checkpoint of this step; None for the latest.
            averaged: the averaged parameters, not those of the step itself.

        Raises:
            ValueError: as :meth:`restore_ema`, and for a checkpoint of a version that did not store types.
        """
        chosen = self._existing(step)
        like = nested(self._types(chosen), "ema_params" if averaged else "params")
        return self.restore_ema(like, chosen) if averaged else self.restore_raw(like, chosen)

    def is_sound(self, step: int) -> bool:
        """Return whether a checkpoint can be read whole and holds what was saved, without knowing its run."""
        try:
            self._read(step, self._stored(step), {})
        # As in restoring: any failure to read means the same here.
        except Exception:
            return False
        return True

    def close(self) -> None:
        """Wait for saves in progress and close."""
        self._manager.wait_until_finished()
        self._manager.close()
        if self._reader is not self._manager:
            self._reader.close()

    def _open(self) -> tuple[ocp.CheckpointManager, ocp.CheckpointManager]:
        """Return what saves and what reads, which are one in one process."""
        folder = self._workdir / "checkpoints"
        if self._read_only and not files.is_folder(folder):
            raise UserError(f"workdir = {str(self._workdir)!r}: has no checkpoint yet")
        if self._read_only:
            return (only := reader(folder)), only
        kept = self._keep if self._best is None else NewestAndBest(self._keep, self._best)
        manager = writer(folder, kept)
        return manager, reader(folder) if processes.several() else manager

    def _latest_sound(
        self, abstract: dict[str, Any], wanted: dict[str, str], *, set_aside: bool
    ) -> tuple[int, dict[str, Any]] | None:
        steps, damaged = processes.agreed(self.steps), []
        for step in reversed(steps):
            try:
                found = step, self._read(step, abstract, wanted)
            except DamagedCheckpointError as error:
                _LOG.warning("%s: falling back to an older one", error)
                damaged.append(step)
                continue
            if set_aside and damaged:
                self._set_aside(damaged)
            return found
        if steps:
            raise DamagedCheckpointError(
                f"workdir = {str(self._workdir)!r}: none of the checkpoints {steps} can be read; restore one from a "
                "backup, or start again in another workdir"
            )
        return None

    def _read_step(self, step: int, abstract: dict[str, Any], wanted: dict[str, str]) -> dict[str, Any]:
        """Read one checkpoint that must be there and sound."""
        self._require(step)
        return self._read(step, abstract, wanted)

    def _read(self, step: int, abstract: dict[str, Any], wanted: dict[str, str]) -> dict[str, Any]:
        """Read one checkpoint, telling damage from what only keeps it from being read.

        Orbax raises whatever its file layers raise. Damaged is what fails again although every byte of it can be read.
        """
        failures: list[Exception] = []
        while len(failures) < _ATTEMPTS:
            try:
                return self._load(step, abstract, wanted)
            except (OtherTypesError, MemoryError):
                raise
            except Exception as error:
                if processes.lost(error):
                    raise
                with processes.agreeing(UnreadableCheckpointError):
                    self._check_readable(step, error)
                failures.append(error)
        raise DamagedCheckpointError(f"{self._named(step)} is damaged ({reason(failures[-1])})") from failures[-1]

    def _existing(self, step: int | None) -> int:
        """Return a step that has a checkpoint: the latest if none is asked for."""
        chosen = max(self.steps, default=None) if step is None else step
        if chosen is None:
            raise UserError(f"workdir = {str(self._workdir)!r}: has no checkpoint yet")
        self._require(chosen)
        return chosen

    def _require(self, step: int) -> None:
        if step not in self.steps:
            raise UserError(f"workdir = {str(self._workdir)!r}: no checkpoint of step {step}, but of {self.steps}")

    def _check_readable(self, step: int, error: Exception) -> None:
        """Raise where a failure to read is none of the checkpoint's."""
        if "RESOURCE_EXHAUSTED" in str(error):
            raise error
        if why := files.unreadable(self._workdir / "checkpoints" / str(step)):
            raise UnreadableCheckpointError(
                f"{self._named(step)} cannot be read now ({why}); nothing was changed; call again when it can"
            ) from error

    def _named(self, step: int) -> str:
        return f"workdir = {str(self._workdir)!r}: checkpoint {step}"

    def _load(self, step: int, abstract: dict[str, Any], wanted: dict[str, str]) -> dict[str, Any]:
        with processes.agreeing(OtherTypesError, MemoryError):
            meta = self._read_meta(step)
            self._check_types(step, meta, wanted)
            items = {name: ocp.args.StandardRestore(tree) for name, tree in abstract.items()}
            restored = self._reader.restore(step, args=ocp.args.Composite(**items))
        with processes.agreeing(UserError):
            for name in abstract:
                if fingerprint(restored[name]) != meta[name]:
                    raise UserError(f"the checksum of {name!r} does not match its contents")
        return {name: restored[name] for name in abstract}

    def _check_types(self, step: int, meta: dict[str, Any], wanted: dict[str, str]) -> None:
        """Refuse other dtypes and shapes; a checkpoint of a version that did not store them has none to compare."""
        if "types" not in meta:
            return
        found = meta["types"]
        if text_sum(found) != meta["types_sum"]:
            raise UserError("the checksum of the arrays' types does not match them")
        trees = {name.partition("/")[0] for name in wanted}
        held = {name: kind for name, kind in found.items() if name.partition("/")[0] in trees}
        others = [name for name in (*wanted, *held) if held.get(name) != wanted.get(name)]
        if others:
            name = others[0]
            raise OtherTypesError(
                f"{self._named(step)} holds {name} as {held.get(name, 'nothing')}, "
                f"which must be {wanted.get(name, 'absent')} here ({len(set(others))} of {len(wanted)} arrays differ); "
                f"{way_out(found)}"
            )

    def _stored(self, step: int) -> dict[str, Any]:
        """Return the items of a checkpoint as abstract arrays on one device, by the types that it says it holds."""
        held = self._types(step)
        train: dict[str, Any] = {each.name: [] for each in dataclasses.fields(TrainState) if each.name != "ema_params"}
        for path, kind in held.items():
            name = path.partition("/")[0]
            if name != "ema_params":
                train[name].append(abstract_array(kind))
        _drop_unused(train)
        return {"train": train, "ema": nested(held, "ema_params")}

    def _types(self, step: int) -> dict[str, str]:
        meta = self._read_meta(step)
        if "types" not in meta:
            raise UserError(
                f"workdir = {str(self._workdir)!r}: checkpoint {step} is of a version that did not store types; train "
                "it on, or take the averaged parameters"
            )
        return meta["types"]

    def _read_meta(self, step: int) -> dict[str, Any]:
        return self._reader.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]

    @contextlib.contextmanager
    def _saving(self, step: int | None) -> Iterator[None]:
        """Say of a failed save what it means."""
        try:
            yield
        except (UnsavedError, MemoryError):
            raise
        # Tensorstore raises ValueErrors for what the system refuses.
        except (OSError, ValueError, RuntimeError) as error:
            raise UnsavedError(self._unsaved(step, reason(error))) from error

    def _unsaved(self, step: int | None, reason: str) -> str:
        which = "a checkpoint" if step is None else f"the checkpoint of step {step}"
        return f"workdir = {str(self._workdir)!r}: {which} was not saved ({reason}); earlier ones are kept"

    def _set_aside(self, steps: list[int]) -> None:
        """Move damaged checkpoints away, so that their steps can be saved again; the manager rereads the folder."""
        self.close()
        processes.by_lead(lambda: self._move_aside(steps))
        self._manager, self._reader = self._open()

    def _move_aside(self, steps: list[int]) -> None:
        folder = self._workdir / "damaged_checkpoints"
        for step in steps:
            free = (folder / (f"{step}.{attempt}" if attempt else f"{step}") for attempt in itertools.count())
            target = next(path for path in free if not files.exists(path))
            files.move_folder(self._workdir / "checkpoints" / str(step), target)


def _split(state: TrainState) -> tuple[dict[str, Any], Any]:
    fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    ema = fields.pop("ema_params")
    _drop_unused(fields)
    # Leaves in a list: Orbax stores plain containers, whatever the classes of optax and clu are called next year.
    return {name: jax.tree.leaves(value) for name, value in fields.items()}, ema


def _drop_unused(fields: dict[str, Any]) -> None:
    """Leave out the further averages of a run without any, whose checkpoints have no place for them."""
    if not jax.tree.leaves(fields["posthoc"]):
        del fields["posthoc"]


def _join(like: TrainState, train: dict[str, Any], ema: Any) -> TrainState:
    values = {
        name: jax.tree.unflatten(jax.tree.structure(getattr(like, name)), leaves) for name, leaves in train.items()
    }
    return TrainState(ema_params=ema, **values)
