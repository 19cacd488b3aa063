"""Shared test set-up: fake CPU devices, strict promotion, programs compiled fast, a persistent compile cache.

Most of the time of the tests is that of compiling programs that run once: XLA is asked for little optimisation. With
GEONOISE_TESTS_OPTIMIZED=1 it optimises as it does for users. There are 8 devices, of which what is told of none takes
two: a step on eight of a machine with two cores is slow. Modules with `DEVICES = 8` are about all of them.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Before jax is imported: the mesh tests need several devices, the others use the first one.
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
if os.environ.get("GEONOISE_TESTS_OPTIMIZED", "0") in ("", "0"):
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    # Programs in one piece, made without MLIR. Another version of jaxlib may abort on flags that it does not know.
    if importlib.metadata.version("jaxlib").startswith("0.10.") and "fusion_emitters" not in os.environ["XLA_FLAGS"]:
        os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(tempfile.gettempdir()) / "geonoise_jax_test_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import jax
import pytest
from absl import logging as absl_logging
from jax.experimental.compilation_cache import compilation_cache

from geonoise_jax.training import sharding

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.devices()  # the flags are read now, and not when tests have set others for child processes
# Names in modules that train: programs of whole steps, made again with every run. To keep those of all other modules on
# the disk takes longer than to make them.
_TRAINING = ("train", "training_runs", "prepare", "run")
# Programs of a module may serve the next ones, but those of a thousand tests would fill several GiB.
_FULL = 3 * 2**30
# A run in the background ignores these, and so would the programs under test, which keep to that.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def _resident() -> int:
    """Bytes of memory that this process has in use; where the system does not say, as if it were all."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else sys.maxsize


@pytest.fixture(scope="module", autouse=True)
def clean_process(request: pytest.FixtureRequest) -> Iterator[None]:
    """Undo what the command line does to its process, which other tests and their child processes would inherit."""
    devices = getattr(request.module, "DEVICES", 2)
    compilation_cache.reset_cache()  # whether it is used is asked once
    jax.config.update("jax_enable_compilation_cache", any(hasattr(request.module, name) for name in _TRAINING))
    logger, verbosity = logging.getLogger("geonoise_jax"), absl_logging.get_verbosity()
    before = logger.handlers[:], logger.level, logger.propagate
    hook, level = sys.unraisablehook, logging.getLogger("asyncio").level
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"].replace("device_count=8", f"device_count={devices}"))
        patch.setattr(sharding, "all_devices", lambda: jax.devices()[:devices])
        yield
    logger.handlers[:], logger.level, logger.propagate = before
    absl_logging.set_verbosity(verbosity)
    sys.unraisablehook = hook
    logging.getLogger("asyncio").setLevel(level)
    if _resident() > _FULL:
        jax.clear_caches()


@pytest.fixture
def x64() -> Iterator[None]:
    """Run one test in float64."""
    with jax.enable_x64(True):
        yield
