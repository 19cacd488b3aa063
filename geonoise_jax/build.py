"""From a config to objects: literal tables of names, and one function for each object."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float32, PyTree
from ml_collections import ConfigDict

from geonoise_jax.config import UNSET_GRID, UNSET_STEPS, UNSET_TIME, base_config, nearest
from geonoise_jax.data import load, memory
from geonoise_jax.data.arrays import Arrays
from geonoise_jax.data.circle_points import CirclesSpec, circles_frame
from geonoise_jax.data.load import load_arrays
from geonoise_jax.data.pipeline import Pipeline, mirror
from geonoise_jax.errors import UserError
from geonoise_jax.exact import Circles, Distribution, FiniteSet, Marginal
from geonoise_jax.fields import (
    MATMUL_PRECISIONS,
    NOISE_FEATURES,
    OUTPUTS,
    DensityField,
    EnergyGradient,
    Field,
    GuidedField,
    NetworkField,
    Preconditioner,
)
from geonoise_jax.nets.mlp import ResidualMLP
from geonoise_jax.nets.unet import UNet
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import SCHEDULES, Schedule
from geonoise_jax.process.targets import TARGETS
from geonoise_jax.process.times import TIME_LAWS, TimeLaw
from geonoise_jax.process.weights import LOSS_WEIGHTS, LossWeight, Preconditioned
from geonoise_jax.sampling.samplers import find


def _by_name(classes: tuple[type, ...]) -> dict[str, Callable[..., Any]]:
    return {cls.__name__: cls for cls in classes}


SCHEDULE_NAMES = _by_name(SCHEDULES)
TARGET_NAMES = _by_name(TARGETS)
TIME_LAW_NAMES = _by_name(TIME_LAWS)
LOSS_WEIGHT_NAMES = _by_name((*LOSS_WEIGHTS, Preconditioned))
PRECONDITIONER_NAMES: dict[str, Callable[..., Any]] = {"none": lambda: None, "edm": Preconditioner}
READS_AS_NAMES: dict[str, Callable[..., Any]] = {"same": lambda: None, **TARGET_NAMES}
NETWORK_NAMES = _by_name((UNet, ResidualMLP))
# Items that are brought to model space at once.
_CHUNK = 1024
# What is not passed on of the section of sampling.
_UNSET = {"num_steps": UNSET_STEPS, "grid": UNSET_GRID, "start_time": UNSET_TIME, "end_time": UNSET_TIME}


def from_spec(
    key: str,
    spec: Mapping[str, Any],
    table: Mapping[str, Callable[..., Any]],
    *,
    defaults: Mapping[str, Any] | None = None,
    **given: Any,
) -> Any:
    """Call the object that a spec names.

    Args:
        key: dotted key of the spec, for errors.
        spec: ``{name, kwargs}``.
        table: known names.
        defaults: arguments for an object that has them; the spec may override them.
        **given: arguments that the spec may not name, since other keys of the config decide them.

    Returns:
        ``table[name](**{**defaults, **kwargs, **given})``; lists become tuples.

    Raises:
        ValueError: on an unknown name or argument, naming the nearest known, or anything but a truth value or number
            where the default is one; or whatever the object itself refuses.
    """
    name, kwargs = spec["name"], spec["kwargs"]
    if name not in table:
        raise UserError(f"{key}.name = {name!r}: unknown{nearest(name, table)}")
    # Linen adds the module's own name and parent to every signature.
    parameters = inspect.signature(table[name]).parameters
    known = set(parameters) - {"name", "parent"} - set(given)
    for argument, value in kwargs.items():
        if argument not in known:
            raise UserError(f"{key}.kwargs.{argument}: not an argument of {name}{nearest(argument, known)}")
        _check_kind(f"{key}.kwargs.{argument}", value, parameters[argument].default)
    possible = {argument: value for argument, value in (defaults or {}).items() if argument in known}
    arguments = {**possible, **kwargs, **given}
    return table[name](**{argument: _frozen(value) for argument, value in arguments.items()})


def scale(config: ConfigDict) -> dict[str, float]:
    """Return the argument that tells an object the scale of the data, one number for all objects of a config."""
    return {"sigma_data": float(config.data.sigma_data)}


def schedule(config: ConfigDict) -> Schedule:
    """Return the schedule of a config."""
    return from_spec("schedule", config.schedule, SCHEDULE_NAMES, defaults=scale(config))


def process(config: ConfigDict) -> Process:
    """Return the schedule and target of a config."""
    return Process(schedule(config), from_spec("target", config.target, TARGET_NAMES, defaults=scale(config)))


def time_law(config: ConfigDict) -> TimeLaw:
    """Return the time law, on the schedule's range unless the config narrows it.

    Raises:
        ValueError: if the law leaves the schedule's range, besides what :func:`from_spec` raises.
    """
    within = schedule(config)
    law = from_spec("time_law", config.time_law, TIME_LAW_NAMES, defaults={"lo": within.t_min, "hi": within.t_max})
    if law.lo < within.t_min or law.hi > within.t_max:
        raise UserError(
            f"time_law: [lo, hi] = [{law.lo:g}, {law.hi:g}] must lie within the schedule's "
            f"[t_min, t_max] = [{within.t_min:g}, {within.t_max:g}], which sampling covers"
        )
    return law


def loss_weight(config: ConfigDict) -> LossWeight:
    """Return the loss weight of a config."""
    given: dict[str, Any] = {"schedule": schedule(config)}
    if config.loss_weight.name == Preconditioned.__name__:
        given["target"] = process(config).parameterization
    return from_spec("loss_weight", config.loss_weight, LOSS_WEIGHT_NAMES, defaults=scale(config), **given)


def distribution(config: ConfigDict, split: str | None = None, *, working_memory: int = 2**30) -> Distribution:
    """Return the law of the data, in model space: what the optimum of training is the optimum for.

    Args:
        config: the config.
        split: the points of this split, each as probable as any other, and as its mirror image if the config flips
            images. None: the law that the data was drawn from where it is known (``circles``), and the points of the
            training split otherwise.
        working_memory: see :class:`geonoise_jax.exact.FiniteSet`.
    """
    if split is None and config.data.name == "circles":
        circles = CirclesSpec(**{key: _frozen(value) for key, value in config.data.kwargs.items()})
        return Circles(circles.radii, circles.weights, circles_frame(circles.dim, circles.seed))
    return finite_set(config, split, working_memory=working_memory)


def finite_set(config: ConfigDict, split: str | None = None, *, working_memory: int = 2**30) -> FiniteSet:
    """Return the law of the points of a split, in model space; arguments as for :func:`distribution`."""
    return FiniteSet(model_points(arrays(config, split), flip=config.data.flip), working_memory=working_memory)


def model_points(data: Arrays, *, flip: bool = False) -> Float32[np.ndarray, "N *event"]:
    """Return the items of a data set in model space and, with ``flip``, their mirror images after them.

    Raises:
        ValueError: if they do not fit into memory; the message gives the sizes.
    """
    shape = ((1 + flip) * len(data), *data.event_shape)
    nbytes = math.prod(shape) * np.dtype(np.float32).itemsize * memory.device_copies()
    what = f"{shape[0]} points of {data.name}/{data.split}{' with mirror images' if flip else ''} in float32"
    memory.require(nbytes, what, "take a part of the split, such as 'train[:10%]'")
    points = np.empty(shape, np.float32)
    for start in range(0, len(data), _CHUNK):
        rows = data.to_model(data.events[start : start + _CHUNK])
        points[start : start + len(rows)] = rows
        if flip:
            points[len(data) + start : len(data) + start + len(rows)] = mirror(rows)
    return points


def marginal(config: ConfigDict, law: Distribution | None = None, *, accuracy: float | None = None) -> Marginal:
    """Return the exact fields of a config: the ones that its network, if blind or conditional, should approach.

    The prior of the noise level is time law x loss weight, as in the expected loss.

    Args:
        config: the config.
        law: law of the data, by default :func:`distribution` of the config.
        accuracy: see :class:`geonoise_jax.exact.Marginal`.
    """
    law = distribution(config) if law is None else law
    return Marginal(law, process(config), time_law(config), loss_weight(config), accuracy=accuracy)


def arrays(config: ConfigDict, split: str | None = None) -> Arrays:
    """Return one split of the data set of a config, in memory; the training split by default."""
    return load_arrays(config.data.name, split or config.data.split, **_origin(config))


def scaling(config: ConfigDict) -> tuple[float, float]:
    """Return center and scale of the data set of a config, see ``data.Arrays``, without reading it."""
    return load.scaling(config.data.name, **_origin(config))


def split_sizes(config: ConfigDict) -> dict[str, int]:
    """Return the number of items of each split of the data set of a config."""
    origin = _origin(config)
    return load.split_sizes(config.data.name, data_dir=origin["data_dir"], builder_kwargs=origin["builder_kwargs"])


def _origin(config: ConfigDict) -> dict[str, Any]:
    return {
        "data_dir": config.data.data_dir or None,
        "builder_kwargs": {key: _frozen(value) for key, value in config.data.kwargs.items()},
        "value_range": _frozen(config.data.range),
    }


def pipeline(config: ConfigDict, data: Arrays) -> Pipeline:
    """Return the stream of training batches of a config.

    Raises:
        ValueError: if the data has fewer items than a batch.
    """
    if config.training.batch_size > len(data):
        raise UserError(
            f"training.batch_size = {config.training.batch_size}: must be at most {len(data)}, the number of items of "
            f"{data.name}/{data.split}"
        )
    return Pipeline(
        data, config.training.batch_size, config.seed, placement=config.data.placement, flip=config.data.flip
    )


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
    given = {"conditional": not config.model.blind, "num_classes": classes}
    return from_spec("model", config.model, NETWORK_NAMES, defaults=defaults, **given)


def network_field(config: ConfigDict, module: Any, params: PyTree[Array], event_shape: tuple[int, ...]) -> NetworkField:
    """Return a network with its parameters as a Field; for dual score matching, as a DensityField.

    Raises:
        ValueError: on an unknown noise feature, output, preconditioner or target, or one that a blind network cannot
            have.
    """
    model = config.model
    if config.matmul_precision not in MATMUL_PRECISIONS:
        near = nearest(config.matmul_precision, MATMUL_PRECISIONS)
        raise UserError(f"matmul_precision = {config.matmul_precision!r}: unknown{near}")
    for name, known in (("noise_feature", NOISE_FEATURES), ("output", OUTPUTS)):
        if model[name] not in known:
            raise UserError(f"model.{name} = {model[name]!r}: unknown{nearest(model[name], known)}")
    _refuse_model(config, "noise_feature", not model.blind, "model.blind = True")
    kind = DensityField if config.loss.name == "dual_score" else NetworkField
    reads_as = from_spec("model.reads_as", model.reads_as, READS_AS_NAMES, defaults=scale(config))
    preconditioner = from_spec(
        "model.preconditioner", model.preconditioner, PRECONDITIONER_NAMES, defaults=scale(config)
    )
    return kind(
        params,
        module,
        process(config),
        event_shape,
        model.blind,
        model.noise_feature,
        output=model.output,
        preconditioner=preconditioner,
        reads_as=EnergyGradient() if kind is DensityField and reads_as is None else reads_as,
        matmul_precision=config.matmul_precision,
    )


def sampling_field(config: ConfigDict, field: NetworkField) -> Field:
    """Return the field that is sampled: with classifier-free guidance if the config asks for it.

    Raises:
        ValueError: if guidance is asked of a model without classes, or of one that was never trained without them, or
            its interval is not ``(lo, hi)``, or given without guidance.
    """
    guidance = config.sampling.guidance
    interval = _frozen(guidance.interval) or None
    if guidance.scale == 1.0:
        if interval is not None:
            raise UserError(
                f"sampling.guidance.interval = {interval}: has no effect with sampling.guidance.scale = 1; leave it out"
            )
        return field
    if not config.model.class_conditional:
        raise UserError(f"sampling.guidance.scale = {guidance.scale}: must be 1 for a model without classes")
    if not config.model.label_dropout > 0.0:
        raise UserError(
            f"sampling.guidance.scale = {guidance.scale}: must be 1 for a model trained with model.label_dropout = 0, "
            "which has no prediction without a class"
        )
    return GuidedField(field, float(guidance.scale), interval=interval)


def sampling_options(config: ConfigDict) -> dict[str, Any]:
    """Return the arguments of ``sampling.generate`` that a config decides, the options of the sampler among them.

    Raises:
        ValueError: on an unknown sampler, or kwargs that are no options of it.
    """
    sampling = config.sampling
    kwargs = {option: _frozen(value) for option, value in sampling.sampler["kwargs"].items()}
    find(sampling.sampler.name, kwargs)
    values = {name: sampling[name] for name, unset in _UNSET.items() if sampling[name] != unset}
    values |= {name: sampling[name] for name in ("denoise", "batch_size")}
    return {"sampler": sampling.sampler.name, **values, **kwargs}


def _refuse_model(config: ConfigDict, name: str, used: bool, why: str) -> None:
    """Refuse a key of the model that has no effect, unless it has its default."""
    value, default = config.model[name], base_config().model[name]
    if not used and value != default:
        raise UserError(f"model.{name} = {value!r}: has no effect with {why}; leave it out")


def _check_kind(key: str, value: Any, default: Any) -> None:
    """Refuse what would be taken for true, such as "no", or fail only inside a traced program."""
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise UserError(f"{key} = {value!r}: must be True or False")
    elif isinstance(default, (int, float)) and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise UserError(f"{key} = {value!r}: must be a number, such as {default!r}")


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, (list, tuple)) else value
