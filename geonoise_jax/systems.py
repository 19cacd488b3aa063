"""The named systems of the field: what each changes in a config, blind and conditional, and the words of a variant."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

from geonoise_jax.config import UNSET_GRID, UNSET_STEPS, ConfigDict, set_spec, spec
from geonoise_jax.errors import UserError, nearest

Changes = Mapping[str, Any]

CONDITIONING = ("blind", "conditional")
CLASSES = {"class_conditional": {"model.class_conditional": True}}

_STEPS = "sampling.num_steps"


@dataclasses.dataclass(frozen=True)
class System:
    """What a system changes in the defaults; keys are dotted, values are specs or plain values.

    Attributes:
        common: changes of both kinds of network.
        blind: further changes if the network is blind; None where a blind network makes no sense.
        conditional: further changes if it is conditional; None where that makes no sense.
        bounded: further changes of both where the entries of the data lie in [-1, 1], as pixels do.
        why: the reason for a None.
    """

    common: Changes
    blind: Changes | None = dataclasses.field(default_factory=dict)
    conditional: Changes | None = dataclasses.field(default_factory=dict)
    bounded: Changes = dataclasses.field(default_factory=dict)
    why: str = ""


def _process(schedule: Mapping[str, Any], target: str, law: str = "Uniform", **kwargs: Any) -> dict[str, Any]:
    return {"schedule": schedule, "target": spec(target, **kwargs), "time_law": spec(law)}


def _sampler(name: str, num_steps: int = 50, grid: str = "uniform", **kwargs: Any) -> dict[str, Any]:
    return {"sampling.sampler": spec(name, **kwargs), _STEPS: num_steps, "sampling.grid": grid}


def _autonomous(name: str, **kwargs: Any) -> dict[str, Any]:
    return _sampler(name, UNSET_STEPS, UNSET_GRID, **kwargs)


def _clipped(name: str) -> dict[str, Any]:
    """Clip the estimate of x to the range of the pixels, as the released code of both DDPMs does."""
    return {"sampling.sampler": spec(name, clip=1.0)}


# The preconditioner of Karras et al. (2022), for data of the standard deviation data.sigma_data; with their c_noise,
# and with its frequencies a thousand times higher.
_EDM = {"model.preconditioner": spec("edm"), "model.noise_feature": "c_noise"}
_PRECONDITIONED = {**_EDM, "model.noise_feature": "log_snr"}
# Their setting for CIFAR-10: 18 levels, of which the last is followed by 0, reached by an Euler step: 35 evaluations.
_EDM_SAMPLER = {**_sampler("heun", 17, "rho"), "sampling.denoise": True}
# The released recipe of Wang & Du (2025), whose steps are for g = 4 min(1, t / 0.2).
_EQM = {
    **_process(spec("Linear"), "Equilibrium", decay="truncated"),
    **_autonomous("eqm_nesterov_released", step_size=0.0017, momentum=0.3, max_steps=249),
}
# No descent of a field that is shown t: the probability-flow ODE down to where the target's gain 1 / g is large.
_EQM_ODE = {"schedule": spec("Linear", t_min=0.01), **_sampler("heun"), "sampling.denoise": True}
_EQM_ENERGY = {**_EQM, "model.output": "dot"}

SYSTEMS: dict[str, System] = {
    # Ho et al. 2020; Song et al. 2021 for the sampler. That of Ho et al. for CIFAR-10 is ancestral with 999 steps,
    # variance="fixed_large", clip=1 and sampling.denoise.
    "ddpm": System(
        {**_process(spec("VPDiscrete"), "Noise", "Discrete"), **_sampler("ddim", 100)}, bounded=_clipped("ddim")
    ),
    # The betas of Nichol & Dhariwal 2021, without their learnt variances. Above step 990 a < 0.015: a noise prediction
    # would be amplified hundreds of times.
    "iddpm": System(
        {
            **_process(spec("VPDiscrete", betas="cosine", t_max=990.0), "Noise", "Discrete"),
            **_sampler("ancestral", 100),
        },
        bounded=_clipped("ancestral"),
    ),
    # Song et al. 2021: sub-VP aside, their two equations with the weight that makes all noise levels count alike.
    "score": System(
        {
            **_process(spec("VPLinear"), "Score"),
            "loss_weight": spec("NoisePower", exponent=2.0),
            **_sampler("predictor_corrector", 100),
            "sampling.denoise": True,
        },
        conditional=_PRECONDITIONED,
    ),
    "score_ve": System(
        {
            **_process(spec("VE", t_min=0.01, t_max=50.0), "Score", "LogUniform"),
            "loss_weight": spec("NoisePower", exponent=2.0),
            **_sampler("predictor_corrector", 100, "log_snr"),
            "sampling.denoise": True,
        },
        conditional=_PRECONDITIONED,
    ),
    # Lipman et al. 2023.
    "flow_matching": System({**_process(spec("Linear"), "Velocity"), **_sampler("heun")}),
    # Albergo & Vanden-Eijnden 2023.
    "stochastic_interpolant": System({**_process(spec("Trigonometric"), "Velocity"), **_sampler("heun")}),
    # The target of Salimans & Ho 2022, on DDPM's schedule in continuous time.
    "v_prediction": System({**_process(spec("VPLinear"), "VPrediction"), **_sampler("ddim", 100)}),
    # Li & He 2025: the network predicts x and the loss is that of the velocity, whose 1 / t they cut off at 0.05.
    "x_prediction": System(
        {**_process(spec("Linear", t_min=0.05), "Signal"), **_sampler("heun"), "sampling.denoise": True},
        conditional={
            "target": spec("Velocity"),
            "time_law": spec("LogitNormal", mean=0.8, std=0.8),
            "model.reads_as": spec("Signal"),
        },
    ),
    # Karras et al. 2022. A blind network cannot be preconditioned: what is inside the preconditioner is trained
    # alone, on the scaled observation (Sun et al. 2025); EDM's solver is that of the observation before it is scaled.
    "edm": System(
        {"time_law": spec("LogNormal", mean=-1.2, std=1.2), **_EDM_SAMPLER},
        blind={
            "schedule": spec("EDMScaled"),
            "target": spec("EDMNetwork"),
            "sampling.sampler": spec("edm_churn", s_churn=0.0),
        },
        conditional={
            "schedule": spec("VE"),
            "target": spec("Signal"),
            "loss_weight": spec("EDM"),
            **_EDM,
        },
    ),
    # Sun et al. 2025, with EDM's sampler and noise feature.
    "uedm": System(
        {
            **_process(spec("UEDM"), "UEDM"),
            "time_law": spec("LogNormal", mean=-1.2, std=1.2),
            **_EDM_SAMPLER,
        },
        conditional={"model.noise_feature": "c_noise"},
    ),
    # Wang & Du 2025.
    "eqm": System(_EQM, conditional=_EQM_ODE),
    "eqm_energy": System(_EQM_ENERGY, conditional=_EQM_ODE),
    # Kadkhodaie et al. 2026. Its first noise level drowns the data; more would only be longer. It stops where the
    # error of a network hides the noise that is left, and does not smooth on. The weight 1 / sigma is between that of
    # the error of x, which high levels rule, and of the error relative to sigma, which low ones do: no preconditioner
    # shrinks there what a blind network puts out.
    "bddm": System(
        {
            **_process(spec("VE", t_min=0.05, t_max=20.0), "Signal", "LogUniform"),
            "loss_weight": spec("NoisePower", exponent=-1.0),
            **_autonomous("bddm", step_size=0.05, alpha=0.5, sigma_end=0.1, max_steps=1000),
        },
        conditional=None,
        why="a blind denoiser",
    ),
    # Guth et al. 2025.
    "dual_score": System(
        {
            **_process(spec("VE", t_min=0.01, t_max=50.0), "Noise", "LogUniform"),
            "loss": spec("dual_score"),
            "model.output": "affine",
            "model.noise_feature": "smooth_log_snr",
            "model.preconditioner": spec("edm"),
            **_sampler("heun", 50, "log_snr"),
        },
        blind=None,
        why="a density at every noise level",
    ),
}

RECIPES: dict[str, Changes] = {
    # arXiv:2602.18428: 10,000 steps, batch 128, average of rate 0.999.
    "paper": {"training.num_steps": 10_000, "training.batch_size": 128, "ema": spec("constant", rate=0.999)}
}


def with_variant(
    config: ConfigDict, variant: str, recipes: Mapping[str, Changes] | None = None, *, bounded: bool = False
) -> ConfigDict:
    """Select a system, its conditioning and a recipe, e.g. ``flow_matching,blind`` or ``edm,conditional,paper``.

    Args:
        config: the config to change in place.
        variant: comma-separated words in any order, at most one of each kind: a system, by default
            ``flow_matching``; ``blind`` or ``conditional``, by default what the config says unless the system allows
            only the other; ``class_conditional``; a recipe, applied last.
        recipes: further recipes, of this data set.
        bounded: whether the entries of the data lie in [-1, 1], as pixels do.

    Returns:
        The same config.

    Raises:
        ValueError: on an unknown word, two words of one kind, or a conditioning that the system does not have.
    """
    recipes = {**RECIPES, **(recipes or {})}
    kinds = {"system": SYSTEMS, "conditioning": CONDITIONING, "classes": CLASSES, "recipe": recipes}
    chosen = _choose(variant, kinds)
    system = SYSTEMS[chosen["system"] or "flow_matching"]
    config.model.blind = _is_blind(chosen, system, config.model.blind)
    further = system.blind if config.model.blind else system.conditional
    within = system.bounded if bounded else {}
    parts = (system.common, further, within, CLASSES.get(chosen["classes"] or ""), recipes.get(chosen["recipe"] or ""))
    for changes in parts:
        apply(config, changes or {})
    return config


def apply(config: ConfigDict, changes: Changes) -> ConfigDict:
    """Change a config in place: ``{dotted key: spec or value}``; a spec replaces the name and all arguments."""
    for key, value in copy.deepcopy(dict(changes)).items():
        *parents, leaf = key.split(".")
        node = config
        for parent in parents:
            node = node[parent]
        if isinstance(value, Mapping):
            set_spec(node[leaf], value)
        else:
            node[leaf] = value
    return config


def _choose(variant: str, kinds: Mapping[str, Any]) -> dict[str, str | None]:
    """Sort the words of a variant by kind."""
    chosen: dict[str, str | None] = dict.fromkeys(kinds)
    for word in (word.strip() for word in variant.split(",")):
        kind = next((kind for kind, table in kinds.items() if word in table), None)
        if kind is None and word:
            known = [name for table in kinds.values() for name in table]
            raise UserError(f"variant = {variant!r}: unknown word {word!r}{nearest(word, known)}")
        if kind is not None and chosen[kind] not in (None, word):
            raise UserError(f"variant = {variant!r}: names more than one {kind}: {chosen[kind]}, {word}")
        if kind is not None:
            chosen[kind] = word
    return chosen


def _is_blind(chosen: Mapping[str, str | None], system: System, default: bool) -> bool:
    """Decide the conditioning; refuse one that the system does not have."""
    only = "conditional" if system.blind is None else "blind" if system.conditional is None else None
    wanted = chosen["conditioning"]
    if only is None:
        return default if wanted is None else wanted == "blind"
    if wanted not in (None, only):
        raise UserError(f"variant: {chosen['system']} is {system.why}, so that it can only be {only}, not {wanted}")
    return only == "blind"


def image_data(config: ConfigDict, name: str, *, flip: bool = False, sigma_data: float = 0.5, **net: Any) -> ConfigDict:
    """Set an image set and the U-Net for it, in place.

    Args:
        config: the config.
        name: the TFDS name.
        flip: whether training mirrors images left-right.
        sigma_data: standard deviation of the pixels in [-1, 1].
        **net: arguments of :class:`geonoise_jax.nets.unet.UNet`.
    """
    data = {"data": spec(name), "data.flip": flip, "data.sigma_data": sigma_data}
    return apply(config, {**data, "model": spec("UNet", **net)})


def variants() -> tuple[str, ...]:
    """Return every pair of a system and a conditioning that it has, as ``SYSTEM,CONDITIONING``."""
    pairs = ((name, kind, getattr(system, kind)) for name, system in SYSTEMS.items() for kind in CONDITIONING)
    return tuple(f"{name},{kind}" for name, kind, changes in pairs if changes is not None)
