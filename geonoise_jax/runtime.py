"""Process-wide settings that must be made before jax starts."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import sys

from absl import logging as absl_logging

# jaxlib 0.10 sends CPU convolutions to a library that uses little more than one core; this flag restores the
# multi-threaded ones (forward convolutions about twice as fast). Other versions do not know it and would abort.
_CPU_CONVOLUTIONS = "--xla_cpu_experimental_ynn_fusion_type=-individual_convolution,-individual_dot"
_VERSIONS_WITH_FLAG = ("0.10.2",)


def configure() -> None:
    """Set up logging of this package and the XLA flags of this jaxlib; call it before jax is first used.

    Flags the user has set are kept. Nothing here can fail a program: an unknown jaxlib gets no flag.
    """
    # Orbax narrates every file it touches there; what matters of it reaches this package as exceptions.
    absl_logging.set_verbosity(absl_logging.ERROR)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("geonoise_jax")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    flags = os.environ.get("XLA_FLAGS", "")
    if _jaxlib_version() in _VERSIONS_WITH_FLAG and "ynn_fusion_type" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {_CPU_CONVOLUTIONS}".strip()


def _jaxlib_version() -> str:
    try:
        return importlib.metadata.version("jaxlib")
    except importlib.metadata.PackageNotFoundError:
        return ""
