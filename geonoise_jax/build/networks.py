"""The network of a config, as a module and as a Field, and how it is sampled."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, PyTree
from ml_collections import ConfigDict

from geonoise_jax import imports
from geonoise_jax.build.processes import TARGET_NAMES, process, scale
from geonoise_jax.build.specs import by_name, from_spec, frozen, named, text_of
from geonoise_jax.config import UNSET_GRID, UNSET_STEPS, UNSET_TIME, base_config
from geonoise_jax.data.augmentation import Augmentation, EDMAugmentation
from geonoise_jax.errors import UserError, nearest
from geonoise_jax.fields import (
    MATMUL_PRECISIONS,
    NOISE_FEATURES,
    OUTPUTS,
    NetworkField,
    Preconditioner,
)
from geonoise_jax.nets.mlp import ResidualMLP
from geonoise_jax.nets.network import Module
from geonoise_jax.nets.unet import UNet
from geonoise_jax.sampling.samplers import Sampler, find
from geonoise_jax.training.dual_score import DualScore
from geonoise_jax.training.losses import Objective
from geonoise_jax.training.run import checked_guidance

PRECONDITIONER_NAMES: dict[str, Callable[..., Any]] = {"none": lambda: None, "edm": Preconditioner}
READS_AS_NAMES: dict[str, Callable[..., Any]] = {"same": lambda: None, **TARGET_NAMES}
NETWORK_NAMES = by_name((UNet, ResidualMLP))
AUGMENTATION_NAMES: dict[str, Callable[..., Any]] = {"none": lambda: None, "edm": EDMAugmentation}
LOSS_NAMES: dict[str, type[Objective]] = {"regression": Objective, "dual_score": DualScore}
# What is not passed on of the section of sampling.
_UNSET = {"num_steps": UNSET_STEPS, "grid": UNSET_GRID, "start_time": UNSET_TIME, "end_time": UNSET_TIME}


def network(config: ConfigDict, num_classes: int | None) -> Any:
    """Return the Flax module of a config.

    On CPU an energy network convolves by patches: its gradient is taken inside the samplers' loops.

    Args:
        config: the config.
        num_classes: classes of the data set, or None; used only if the model is class-conditional.

    Raises:
        ValueError: if the model is class-conditional and the data has no classes, or the net refuses its arguments.
    """
    if config.model.class_conditional and not num_classes:
        raise UserError(f"model.class_conditional = True: data set {config.data.name!r} has no labels")
    _refuse_model(config, "label_dropout", config.model.class_conditional, "model.class_conditional = False")
    classes = num_classes if config.model.class_conditional else 0
    defaults = {"convolution": "patches"} if config.model.output != "direct" and jax.default_backend() == "cpu" else {}
    augment = augmentation(config)
    told = 0 if augment is None else augment.labels
    given = {"conditional": not config.model.blind, "num_classes": classes, "augment_dim": told}
    module = from_spec("model", config.model, NETWORK_NAMES, defaults=defaults, kind=Module, **given)
    for name, value, unset in (("conditional", not config.model.blind, True), ("num_classes", classes, 0)):
        if getattr(module, name, unset) != value:
            key, made = "blind" if name == "conditional" else "class_conditional", type(module).__name__
            raise UserError(f"model.{key} = True: {made} must have a field {name}, by which it is told")
    if getattr(module, "augment_dim", 0) != told:
        name, made = config.data.augment.name, type(module).__name__
        raise UserError(f"data.augment.name = {name!r}: {made} must have a field augment_dim, by which it is told")
    return module


def augmentation(config: ConfigDict) -> Augmentation | None:
    """Return what is done to the images of a config besides mirroring; None for nothing.

    Raises:
        ValueError: on an unknown name or argument.
    """
    return from_spec("data.augment", config.data.augment, AUGMENTATION_NAMES)


def network_field(config: ConfigDict, module: Any, params: PyTree[Array], event_shape: tuple[int, ...]) -> NetworkField:
    """Return a network with its parameters as the Field that the loss of the config trains.

    Raises:
        ValueError: on an unknown loss, noise feature, output, preconditioner or target, or one that a blind network
            cannot have.
    """
    kind = named("loss", config.loss, LOSS_NAMES, Objective).network_field
    return kind(params, module, process(config), event_shape, config.model.blind, **field_options(config))


def field_options(config: ConfigDict) -> dict[str, Any]:
    """Return the further arguments of a NetworkField that a config decides.

    Raises:
        ValueError: as :func:`network_field`.
    """
    model = config.model
    if config.matmul_precision not in MATMUL_PRECISIONS:
        near = nearest(config.matmul_precision, MATMUL_PRECISIONS)
        raise UserError(f"matmul_precision = {config.matmul_precision!r}: unknown{near}")
    for name, known in (("noise_feature", NOISE_FEATURES), ("output", OUTPUTS)):
        if model[name] not in known:
            raise UserError(f"model.{name} = {model[name]!r}: unknown{nearest(model[name], known)}")
    _refuse_model(config, "noise_feature", not model.blind, "model.blind = True")
    tables = {"preconditioner": PRECONDITIONER_NAMES, "reads_as": READS_AS_NAMES}
    return {
        **{name: model[name] for name in ("noise_feature", "output")},
        **{
            name: from_spec(f"model.{name}", model[name], table, defaults=scale(config))
            for name, table in tables.items()
        },
        "matmul_precision": config.matmul_precision,
    }


def guidance(config: ConfigDict) -> tuple[float, Any]:
    """Return the scale of classifier-free guidance and the interval of noise levels of it, or None for all.

    Raises:
        ValueError: if guidance is asked of a model without classes, or of one that was never trained without them, or
            an interval is given without guidance.
    """
    asked, model = config.sampling.guidance, config.model
    return checked_guidance(
        asked.scale, frozen(asked.interval), classes=model.class_conditional, label_dropout=model.label_dropout
    )


def sampling_options(config: ConfigDict) -> dict[str, Any]:
    """Return the arguments of ``sampling.generate`` that a config decides, the options of the sampler among them.

    Raises:
        ValueError: on an unknown sampler, or kwargs that are no options of it.
    """
    sampling = config.sampling
    kwargs = {option: frozen(value) for option, value in sampling.sampler["kwargs"].items()}
    chosen = sampler(sampling.sampler.name)
    find(chosen, kwargs)
    values = {name: sampling[name] for name, unset in _UNSET.items() if sampling[name] != unset}
    values |= {name: sampling[name] for name in ("denoise", "batch_size")}
    return {"sampler": chosen, **values, **kwargs}


def sampler(name: str) -> Any:
    """Return the argument ``sampler`` of ``sampling.generate`` for a name: itself, or the sampler that it imports.

    Raises:
        ValueError: if it cannot be imported, or is no sampler.
    """
    key = "sampling.sampler"
    if not imports.is_import(name):
        return name
    made = imports.load(key, name)
    if isinstance(made, Sampler):
        return made
    parameters = list(inspect.signature(made).parameters) if inspect.isfunction(made) else []
    if parameters[:2] != ["field", "u"]:
        raise UserError(
            f"{key}.name = {name!r}: must be a Sampler, or a function of (field, u[, times][, keys], *, options), not "
            f"{text_of(made)} ({', '.join(parameters)})"
        )
    return Sampler(made, _uncounted if "times" in parameters else None)


def _uncounted(num_steps: int, **_: Any) -> None:
    """The cost of a sampler on a grid that does not say how often it evaluates the field."""


def _refuse_model(config: ConfigDict, name: str, used: bool, why: str) -> None:
    """Refuse a key of the model that has no effect, unless it has its default."""
    value, default = config.model[name], base_config().model[name]
    if not used and value != default:
        raise UserError(f"model.{name} = {value!r}: has no effect with {why}; leave it out")
