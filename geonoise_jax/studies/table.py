"""All studies. A study is a module with

    Options             a frozen dataclass of choices, ``workdir`` among them where a run is needed or can be given
    measure(Options)    the numbers, a ``Study``
    table(Study)        them as text
    picture(Study)      them as a figure
    arrays(Study)       them as arrays by name
    verdicts(Study)     what they say of the paper's sentences, where they do
    numbers(Study)      further numbers by name, as JSON holds them, where it has some
    pages(Study, Image) them as further files by ending, text or bytes, where it has some
    QUICK               Options of a try-out, where it has one and ``Options`` has no field ``quick``

and one line of this table.
"""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple, Protocol

from geonoise_jax.errors import UserError

NEEDED, OPTIONAL, NONE = "needed", "optional", "none"


class Entry(NamedTuple):
    """One line of the table.

    Attributes:
        module: where the study lives; imported when it is asked for.
        about: what it is about, for the command line.
        workdir: whether a training run is ``NEEDED``, ``OPTIONAL`` or no argument (``NONE``).
    """

    module: str
    about: str
    workdir: str

    def load(self) -> Module:
        """Import the module."""
        module: Any = importlib.import_module(self.module)
        return module


class Module(Protocol):
    """What a study's module offers."""

    Options: Any

    def measure(self, options: Any) -> Any:
        """Return the numbers."""

    def table(self, study: Any) -> str:
        """Return them as text."""

    def picture(self, study: Any) -> Any:
        """Return them as a figure."""

    def arrays(self, study: Any) -> dict[str, Any]:
        """Return them as arrays by name."""


_ROOM = "geonoise_jax.studies"
STUDIES = {
    "excess_risk": Entry(
        f"{_ROOM}.excess_risk", "how far a network is from the exact field of its config, along training", NEEDED
    ),
    "log_density": Entry(f"{_ROOM}.log_density", "how far a learnt log-density is from exact ones", NEEDED),
    "guidance": Entry(f"{_ROOM}.guidance", "what guidance does to a class-conditional model", NEEDED),
    "cfg_linear": Entry(f"{_ROOM}.cfg_linear", "guidance as a mean shift and contrastive components", OPTIONAL),
    "blind_sampling": Entry(f"{_ROOM}.blind_sampling", "which blind models an exact field lets sample", NONE),
    "smoothing": Entry(f"{_ROOM}.smoothing", "whether smoothing a blind field restores the paper's ordering", NONE),
    "circles": Entry(f"{_ROOM}.circles", "which small networks sample blind, by dimension, beside exact fields", NONE),
    "alignment": Entry(f"{_ROOM}.alignment", "noise prediction on flow matching's path, sampled blind", NONE),
    "noise_readout": Entry(f"{_ROOM}.noise_readout", "noise level and class, read off data and off features", NONE),
    "images": Entry(f"{_ROOM}.images", "blind and conditional models of images, trained and evaluated", NONE),
    "stability_race": Entry(f"{_ROOM}.stability_race", "how drift errors of blind fields go to zero noise", NONE),
    "table1": Entry(f"{_ROOM}.table1", "every coefficient of all named systems", NONE),
    "eqm_stop": Entry(f"{_ROOM}.eqm_stop", "when descent of an equilibrium field may stop", OPTIONAL),
    "landscape": Entry(f"{_ROOM}.landscape", "marginal energy, gradient and blind field of a few points", NONE),
    "decomposition": Entry(f"{_ROOM}.decomposition", "a blind field as natural gradient, transport and drift", NONE),
    "posterior": Entry(f"{_ROOM}.posterior", "what is known of the noise level near a datum", NONE),
    "static_field": Entry(f"{_ROOM}.static_field", "particles that ride one frozen blind field, animated", NONE),
    "shells": Entry(f"{_ROOM}.shells", "how well the distance to the data tells the noise level", NONE),
}


def find(name: str) -> Entry:
    """Return the line of a study.

    Raises:
        ValueError: if there is no such study.
    """
    if name not in STUDIES:
        raise UserError(f"name = {name!r}: must be one of {', '.join(STUDIES)}")
    return STUDIES[name]
