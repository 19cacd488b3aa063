"""The defaults of every config, and what is read off one: specs, leaves, differences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict as ConfigDict

FREE = "kwargs"
# What is not set in the section of sampling: a time, the number of steps, the grid.
UNSET_TIME = -1.0
UNSET_STEPS = -1
UNSET_GRID = ""
# Samplers without a clock, and all that do not take the steps of a grid: those too, and the adaptive ones.
AUTONOMOUS = ("eqm_descent", "eqm_nesterov", "eqm_nesterov_released", "bddm")
GRIDLESS = ("tsit5", "kvaerno5", *AUTONOMOUS)


def spec(name: str, **kwargs: Any) -> dict[str, Any]:
    """Return the spec of an object: its name in ``build`` and its keyword arguments."""
    return {"name": name, FREE: kwargs}


def base_config() -> ConfigDict:
    """Return the defaults that every config of the project starts from."""
    config = ConfigDict(
        {
            "seed": 0,
            # jax's default_matmul_precision for the network: "highest", so that float32 means float32 on every device.
            # jax's own "default" rounds the factors of products and convolutions to 10 bits (tensorfloat32) on NVIDIA
            # GPUs since Ampere and to 8 (bfloat16) on TPUs, which is faster and must be asked for by name here. CPUs
            # do not distinguish.
            "matmul_precision": "highest",
            # kwargs go to the TFDS builder; data_dir "" is TFDS's own default; placement: auto, host, device or stream.
            # range: the stored values that become -1 and 1 in model space; () for 0 and 255 where images are uint8,
            # and for values that are left as they are where they are floats.
            # sigma_data: standard deviation of the entries in model space, told to whatever has such an argument.
            "data": {
                **spec("digits"),
                "split": "train",
                "data_dir": "",
                "placement": "auto",
                "range": (),
                "flip": False,
                # none, or edm: further changes of images, which the network is told.
                "augment": spec("none"),
                "sigma_data": 0.5,
            },
            "schedule": spec("Linear"),
            "target": spec("Velocity"),
            # lo and hi default to the schedule's t_min and t_max.
            "time_law": {**spec("Uniform"), "stratified": True},
            "loss_weight": spec("Unit"),
            # regression, or dual_score for an energy network whose derivatives in u and t are both learnt.
            "loss": spec("regression"),
            "model": {
                **spec("UNet"),
                "blind": True,
                "noise_feature": "time",
                # direct, or the energy (dot, l2, affine) of which the prediction is the gradient.
                "output": "direct",
                # none or edm; conditional networks only.
                "preconditioner": spec("none"),
                # What the network predicts if not the target itself: another target, converted; conditional only.
                "reads_as": spec("same"),
                "class_conditional": False,
                # Probability of hiding a label from a class-conditional network, for classifier-free guidance.
                "label_dropout": 0.1,
            },
            # decay: constant or cosine; clip_norm 0 turns clipping off.
            "optimizer": {
                **spec("adam"),
                "learning_rate": 1e-3,
                "warmup_steps": 100,
                "decay": "constant",
                "clip_norm": 1.0,
            },
            "ema": spec("power", sigma_rel=0.1),
            # Further averages, from which one of any width is rebuilt after training; every: updates between snapshots
            # of them, 0 for none at all.
            "posthoc_ema": {"every": 0, "sigma_rel": (0.05, 0.1)},
            # A run whose parameters this one starts from; step -1: its latest; params: ema or raw.
            "init_from": {"workdir": "", "step": -1, "params": "ema"},
            # evaluate_every: updates between evaluations while training, 0 for none.
            "training": {
                "num_steps": 10_000,
                "batch_size": 128,
                "accumulate": 1,
                "log_every": 100,
                "evaluate_every": 0,
            },
            # What they measure besides the held-out loss: num samples against at most num_reference items of the split
            # held_out, by metrics that need no network of features.
            "evaluation": {
                "num": 256,
                "metrics": ("sliced_wasserstein",),
                "held_out": "test",
                "num_reference": 1000,
            },
            # -1: all devices that the other axis leaves. parameters: replicated or fsdp, or rules [[regex, axes], ...].
            "mesh": {"data": -1, "model": 1},
            "sharding": {"parameters": "replicated", "rules": ()},
            # keep_best: loss, or a number of the metrics above, by which the best checkpoint is kept beside the newest;
            # "" for none.
            "checkpoint": {"every": 1000, "keep": 3, "keep_best": ""},
            # every: steps between sample grids while training, 0 for none; num: samples of a grid.
            "sampling": {
                "sampler": spec("heun"),
                # For samplers that take the steps of a grid; -1 and "": 100 steps on the uniform grid.
                "num_steps": UNSET_STEPS,
                "grid": UNSET_GRID,
                "denoise": False,
                # Times at which sampling starts and ends; -1: the schedule's t_max and t_min, as in training.
                "start_time": UNSET_TIME,
                "end_time": UNSET_TIME,
                # Classifier-free guidance of a class-conditional model; interval: () for all times, or (lo, hi).
                "guidance": {"scale": 1.0, "interval": ()},
                "every": 1000,
                "num": 64,
                "batch_size": 256,
            },
        }
    )
    return config.lock()


def set_spec(node: ConfigDict, new: Mapping[str, Any]) -> None:
    """Replace the name and all keyword arguments of a spec in place."""
    with node.unlocked():
        node.name = new["name"]
        node[FREE] = ConfigDict(dict(new[FREE]))


def differences(old: ConfigDict, new: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """Return ``{dotted key: (old value, new value)}`` for all keys in which two configs differ."""
    flat_old, flat_new = (dict(_leaves(plain(config.to_dict()))) for config in (old, new))
    missing = "<not set>"
    return {
        key: (flat_old.get(key, missing), flat_new.get(key, missing))
        for key in sorted(flat_old.keys() | flat_new.keys())
        if flat_old.get(key, missing) != flat_new.get(key, missing)
    }


def keys(config: ConfigDict) -> list[str]:
    """Return the dotted keys of a config, those below a spec's kwargs left out."""
    return [key for key, _ in _leaves(config.to_dict()) if f".{FREE}." not in f".{key}."]


def plain(value: Any) -> Any:
    """Return a value with mappings as dicts and sequences as lists, as JSON has them."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (tuple, list)) else value


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
