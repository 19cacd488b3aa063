"""A trained field from a workdir alone: no data set, no config file, any devices."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any, cast

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key, PyTree
from jaxtyping import ArrayLike as ArrayLike

from geonoise_jax import build, checks, files, imports
from geonoise_jax.errors import UserError
from geonoise_jax.evaluation.best import BEST, best_step
from geonoise_jax.fields import DensityField, NetworkField
from geonoise_jax.process.keys import root_key
from geonoise_jax.process.process import Process
from geonoise_jax.sampling.generation import Samples, class_turns, generate
from geonoise_jax.sampling.inverse import denoise
from geonoise_jax.sampling.samplers import find
from geonoise_jax.training import description, sharding, workdir
from geonoise_jax.training.checkpoint import Checkpoints
from geonoise_jax.training.initial import AVERAGED, RAW
from geonoise_jax.training.posthoc_ema import posthoc_ema
from geonoise_jax.training.run import Sampling, checked_guidance, default_process
from geonoise_jax.training.state import init_key, init_params

PARAMS = (AVERAGED, RAW)


@dataclasses.dataclass(frozen=True, repr=False)
class Trained:
    """A trained field and where it came from.

    Attributes:
        field: the network with its parameters, on every device of the mesh.
        config: the config of the run, a ConfigDict; None for a run of own objects.
        facts: shape and classes of the data.
        step: number of updates of the checkpoint.
        sampling: how the run draws samples.
        mesh: devices that samples are drawn on.
        params: ``ema``, the averaged parameters, ``ema:0.07``, an average of that width, or ``raw``, those that
            training updates.
        label_dropout: how often training hid the class, without which a network cannot be guided.
    """

    field: NetworkField
    config: Any
    facts: workdir.Facts
    step: int
    sampling: Sampling = dataclasses.field(default_factory=Sampling)
    mesh: Mesh | None = None
    params: str = "ema"
    label_dropout: float = 0.0

    def __repr__(self) -> str:
        """Name the parts; the field holds all parameters."""
        process = self.field.process
        parts = (
            f"{type(self.field.module).__name__} at step {self.step} ({self.params})",
            "blind" if self.field.blind else "conditional",
            f"{type(process.schedule).__name__} schedule",
            f"{type(process.parameterization).__name__} target",
            f"events {list(self.facts.event_shape)}",
        )
        return f"Trained({', '.join(parts)})"

    def sample(
        self,
        num: int = 64,
        key: Key[Array, ""] | int | None = None,
        *,
        labels: Int[np.ndarray, "num"] | int | None = None,
        guidance: float | None = None,
        guidance_interval: tuple[float, ...] | None = None,
        **options: Any,
    ) -> Float[np.ndarray, "num *event"]:
        """Draw samples in model space as the run does, apart from what is given here.

        Args:
            num: number of samples.
            key: a PRNG key or a seed; by default the seed 0.
            labels: classes of a class-conditional model, one for all or one each; by default they take turns.
            guidance: scale of classifier-free guidance.
            guidance_interval: noise levels of the guidance, by default those of the run; empty for all.
            **options: arguments of ``sampling.generate``, the options of the sampler among them. Another sampler than
                the run's starts with its own options, and without what it has no use for.

        Raises:
            ValueError: on what ``sampling.generate`` refuses.
        """
        return self.generate(
            num, key, labels=labels, guidance=guidance, guidance_interval=guidance_interval, **options
        ).x

    def generate(
        self,
        num: int = 64,
        key: Key[Array, ""] | int | None = None,
        *,
        labels: Int[np.ndarray, "num"] | int | None = None,
        guidance: float | None = None,
        guidance_interval: tuple[float, ...] | None = None,
        **options: Any,
    ) -> Samples:
        """Draw samples as :meth:`sample` does, with what the sampler measured of each."""
        chosen = adjusted(self.sampling, options, guidance, guidance_interval)
        checked_guidance(
            chosen.guidance, chosen.interval, classes=bool(self.field.null_label), label_dropout=self.label_dropout
        )
        return generate(
            chosen.field(self.field),
            root_key(int(key or 0)) if key is None or isinstance(key, (int, np.integer)) else key,
            num,
            **{"mesh": self.mesh, **chosen.options},
            labels=self.labels(num, labels),
        )

    def denoise(
        self, u: Float[ArrayLike, "b *event"], t: Float[ArrayLike, "*#b"] | None = None
    ) -> Float[Array, "b *event"]:
        """Return the estimate of x in observations u = a x + b eps; see ``sampling.denoise``.

        Args:
            u: observations, floats in model space.
            t: their noise levels; may be left out if the network is blind.

        Raises:
            ValueError: on what ``sampling.denoise`` refuses.
        """
        return denoise(self.field, jax.numpy.asarray(u), t)

    def labels(self, num: int, labels: Int[np.ndarray, "num"] | int | None = None) -> Int[np.ndarray, "num"] | None:
        """Return the class of each sample, one for all or in turns, or None for a model without classes.

        Raises:
            ValueError: if a label is given that the model does not have.
        """
        classes = self.field.null_label or 0
        if labels is None:
            return class_turns(num, classes)
        found = np.asarray(labels, np.int32)
        if not classes or not ((found >= 0) & (found < classes)).all():
            allowed = f"in 0..{classes - 1}" if classes else "left out: the model has no classes"
            raise UserError(f"label = {labels}: must be {allowed}")
        return np.full(num, found, np.int32) if found.ndim == 0 else found


def restore(
    folder: str | PurePath,
    *,
    network: Any = None,
    process: Process | None = None,
    step: int | str | None = None,
    params: str = "ema",
    ema: float | None = None,
    mesh: Mesh | None = None,
    allow_import: bool = False,
    **field_options: Any,
) -> Trained:
    """Restore the parameters of one checkpoint of a workdir, by default the latest sound one.

    Args:
        folder: the workdir.
        network: the Flax module of a run of own objects, and of such a run alone.
        process: its process, likewise.
        step: number of updates of the checkpoint, or ``best``, of a run with ``checkpoint.keep_best``.
        params: ``ema`` or ``raw``, see :class:`Trained`.
        ema: width of the average, rebuilt of those that a run with ``posthoc_ema`` stored (``training.posthoc_ema``);
            ``step`` is then any up to the last snapshot, by default that one.
        mesh: devices that hold the parameters and draw samples; all by default.
        allow_import: import what the config names, also in a workdir that somebody else made, see ``imports``.
        **field_options: those ``field_options`` of a run of own objects that are objects, such as a preconditioner.

    Raises:
        ValueError: if the folder is no workdir, or that of another network or process, or has no readable checkpoint,
            or not one of this step.
    """
    folder = files.location(folder, "workdir")
    mesh = sharding.sampling_mesh() if mesh is None else mesh
    if params not in PARAMS:
        raise UserError(f"params = {params!r}: must be one of {', '.join(PARAMS)}")
    with imports.allow(allow_import):
        at = _number(folder, step)
    if files.exists(folder / description.NAME):
        model = _own(folder, network, process, field_options)
    else:
        given = {"network": network, "process": process, **field_options}
        with imports.allow(allow_import):
            model = _of_config(folder, [name for name, value in given.items() if value is not None])
    shapes = jax.eval_shape(functools.partial(init_params, model.module, model.facts.event_shape), init_key(0))
    where = sharding.replicated(mesh)
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), shapes)
    if ema is not None:
        checks.without_effect("ema", {"params": (params, "ema")})
        params = f"ema:{ema:g}"
        found, values = _rebuilt(folder, ema, at, abstract)
    else:
        found, values = _read(folder, params, at, abstract)
    return Trained(
        model.field(values), model.config, model.facts, found, model.sampling, mesh, params, model.label_dropout
    )


def _number(folder: PurePath, step: int | str | None) -> int | None:
    """Return the number of updates of the checkpoint that is asked for; None for the latest."""
    if not isinstance(step, str):
        return step
    if step != BEST:
        raise checks.refused("step", step, f"a number of updates, or {BEST}")
    return best_step(folder, saved_steps(folder))


def _read(
    folder: PurePath, params: str, step: int | None, abstract: PyTree[jax.ShapeDtypeStruct]
) -> tuple[int, PyTree[Array]]:
    checkpoints = Checkpoints(folder, read_only=True)
    try:
        return (checkpoints.restore_ema if params == "ema" else checkpoints.restore_raw)(abstract, step)
    finally:
        checkpoints.close()


def _rebuilt(
    folder: PurePath, ema: float, step: int | None, abstract: PyTree[jax.ShapeDtypeStruct]
) -> tuple[int, PyTree[Array]]:
    """Return the average of a width that was chosen after training, as arrays of the network.

    Raises:
        ValueError: if the snapshots hold other arrays than the network, besides what ``posthoc_ema`` refuses.
    """
    rebuilt = posthoc_ema(folder, ema, step)
    shapes = [jax.tree.map(lambda leaf: tuple(leaf.shape), tree) for tree in (rebuilt.params, abstract)]
    if shapes[0] != shapes[1]:
        raise UserError(f"workdir = {str(folder)!r}: its snapshots of averages are of another network")
    values = jax.tree.map(
        lambda value, like: jax.device_put(value.astype(like.dtype), like.sharding), rebuilt.params, abstract
    )
    return rebuilt.step, values


def fresh_field(folder: str | PurePath, mesh: Mesh | None = None) -> Trained:
    """Return the field of a workdir before its first update, its parameters initialised anew as a run does.

    Raises:
        ValueError: if the folder is no workdir of a config.
    """
    mesh = sharding.sampling_mesh() if mesh is None else mesh
    model = _of_config(files.location(folder), [])
    init = functools.partial(init_params, model.module, model.facts.event_shape)
    params = jax.jit(init, out_shardings=sharding.replicated(mesh))(init_key(model.config.seed))
    return Trained(
        model.field(params), model.config, model.facts, 0, model.sampling, mesh, label_dropout=model.label_dropout
    )


def saved_steps(folder: str | PurePath) -> list[int]:
    """Return the steps of the checkpoints of a workdir, ascending.

    Raises:
        ValueError: if there is none.
    """
    checkpoints = Checkpoints(files.location(folder), read_only=True)
    try:
        steps = checkpoints.steps
    finally:
        checkpoints.close()
    if not steps:
        raise UserError(f"workdir = {str(folder)!r}: has no checkpoint yet")
    return steps


@dataclasses.dataclass(frozen=True)
class _Model:
    """What a workdir says of its network, without the parameters."""

    module: Any
    field: Callable[[PyTree[Array]], NetworkField]
    config: Any
    facts: workdir.Facts
    sampling: Sampling
    label_dropout: float


def _of_config(folder: PurePath, given: list[str]) -> _Model:
    config, facts = workdir.read_config(folder), workdir.read_facts(folder)
    if given:
        raise UserError(f"{given[0]}: must be left out: config.json of workdir = {str(folder)!r} describes the run")
    module = build.network(config, facts.num_classes)
    field = functools.partial(build.network_field, config, module, event_shape=facts.event_shape)
    return _Model(
        module, lambda params: field(params=params), config, facts, build.sampling(config), config.model.label_dropout
    )


def _own(folder: PurePath, network: Any, process: Process | None, options: dict[str, Any]) -> _Model:
    """Return the model of a run of own objects, once those that are given are known to be the run's."""
    stored, facts = description.read(folder), workdir.read_facts(folder)
    if process is None and stored["process"] == description.text(default_process()):
        process = default_process()
    for name, value in (("network", network), ("process", process)):
        if value is None:
            raise UserError(
                f"{name}: must be given: workdir = {str(folder)!r} is of a run of own objects, with {stored[name]}"
            )
        if description.text(value) != stored[name]:
            raise UserError(f"{name} = {description.text(value)}: workdir = {str(folder)!r} is of {stored[name]}")
    options = {**description.values(stored["field"]), **options}
    found = {name: description.plain(value) for name, value in sorted(options.items())}
    if found != stored["field"]:
        raise UserError(f"field options = {found}: workdir = {str(folder)!r} is of {stored['field']}")
    kind = DensityField if stored["kind"] == DensityField.__name__ else NetworkField
    blind, found_process = not getattr(network, "conditional", True), cast(Process, process)
    options = {"matmul_precision": "highest", **options}
    return _Model(
        network,
        lambda params: kind(params, network, found_process, facts.event_shape, blind, **options),
        None,
        facts,
        description.sampling_of(stored),
        stored["label_dropout"],
    )


def adjusted(
    sampling: Sampling,
    given: Mapping[str, Any],
    guidance: float | None = None,
    interval: tuple[float, ...] | None = None,
) -> Sampling:
    """Return a run's way to draw samples with what is given instead, and without what that leaves without effect.

    Args:
        sampling: how the run draws samples.
        given: arguments of ``sampling.generate``. Another sampler starts with its own options, and without what it has
            no use for: num_steps and grid, end_time and denoise.
        guidance: scale of classifier-free guidance; with 1 the run's interval is left out.
        interval: noise levels of the guidance.
    """
    defaults = dict(sampling.options)
    if given.get("sampler", defaults.get("sampler")) != defaults.get("sampler"):
        used = find(given["sampler"], {})
        common = {"start_time": True, "batch_size": True, "num_steps": used.gridded, "grid": used.gridded}
        common |= {"end_time": used.timed, "denoise": used.timed}
        defaults = {name: value for name, value in defaults.items() if common.get(name)}
    scale = sampling.guidance if guidance is None else guidance
    kept = sampling.interval if scale != 1.0 else None
    chosen: Any = kept if interval is None else tuple(interval) or None
    return dataclasses.replace(sampling, guidance=scale, interval=chosen, options={**defaults, **given})
