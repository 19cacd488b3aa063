"""What each study may spend where all are made: one table. A study that is not named has its own defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from geonoise_jax.studies.workdirs import Training


class Budget(NamedTuple):
    """What one study may spend.

    Attributes:
        seconds: about what it takes on 2 cores, which says when all will be made; nothing else depends on it.
        options: of the study, in place of its defaults.
        training: of the run that it measures, where it needs one.
    """

    seconds: float = 60.0
    options: Mapping[str, Any] = {}
    training: Training | None = None


class Plan(NamedTuple):
    """The budgets of one study.

    Attributes:
        full: for its numbers.
        quick: for a try-out, beside what the study itself has for one.
    """

    full: Budget = Budget()
    quick: Budget = Budget(seconds=15.0)


_CIRCLES = "configs/circles.py:flow_matching,blind"
_DENSITY = "configs/digits.py:dual_score,conditional"
_CLASSES = "configs/digits.py:flow_matching,blind,class_conditional"
# What is compiled and trained in seconds.
_QUICK_DENSITY = "configs/circles.py:dual_score,conditional"
_QUICK_CLASSES = "configs/circles.py:flow_matching,blind,class_conditional"
_TINY = {"data__kwargs__num_train": 1000, "model__kwargs__width": 64, "training__batch_size": 64}


def _training(config: str, steps: int, **changes: Any) -> Training:
    further = {key.replace("__", "."): value for key, value in changes.items()}
    return Training(config, {"training.num_steps": steps, "sampling.every": 0, **further})


BUDGETS: dict[str, Plan] = {
    "excess_risk": Plan(
        Budget(170, {"num": 1024}, _training(_CIRCLES, 2000, checkpoint__every=125, checkpoint__keep=1000)),
        Budget(
            20,
            {"num": 256, "checkpoints": 2},
            _training(_CIRCLES, 200, checkpoint__every=100, checkpoint__keep=1000, **_TINY),
        ),
    ),
    "log_density": Plan(
        Budget(180, {}, _training(_DENSITY, 800)),
        Budget(20, {"num": 64, "levels": 5}, _training(_QUICK_DENSITY, 100, **_TINY)),
    ),
    "guidance": Plan(
        Budget(200, {"num": 250}, _training(_CLASSES, 1000)),
        Budget(20, {"num": 100, "scales": (1.0, 4.0)}, _training(_QUICK_CLASSES, 200, **_TINY)),
    ),
    "blind_sampling": Plan(Budget(240), Budget(40, {"dims": (8,), "num_steps": 40})),
    "circles": Plan(
        Budget(450, {"dims": (2, 32, 128), "steps": 1000}), Budget(30, {"dims": (2,), "systems": ("ddpm",)})
    ),
    "smoothing": Plan(Budget(420), Budget(20)),
    "alignment": Plan(Budget(120, {"train_dims": ()}), Budget(20)),
    "noise_readout": Plan(Budget(150), Budget(20)),
    "cfg_linear": Plan(Budget(20), Budget(15)),
    "images": Plan(
        Budget(400, {"steps": 300, "evaluations": (8, 32)}),
        Budget(40, {"systems": ("flow_matching",), "num": 300, "evaluations": (4,)}),
    ),
}


def budget_of(name: str, *, quick: bool) -> Budget:
    """Return what a study may spend."""
    return getattr(BUDGETS.get(name, Plan()), "quick" if quick else "full")
