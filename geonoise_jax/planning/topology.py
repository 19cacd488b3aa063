"""Slices and nodes by name, such as ``v5e:4x4`` or ``h100:8``: their devices, and what their compiler needs."""

from __future__ import annotations

import dataclasses
import importlib.resources
import importlib.util
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from geonoise_jax import checks
from geonoise_jax.errors import UserError
from geonoise_jax.hardware import chips
from geonoise_jax.hardware.chips import Chip

if TYPE_CHECKING:
    import jax

_TEXT = re.compile(r"(?P<chip>[a-z0-9-]+):(?P<shape>[1-9]\d*(?:x[1-9]\d*)*)")
# Axes of a slice, and the accelerator type of Cloud TPU for N chips; v4 and v5p count cores, two a chip.
_AXES = {"v4": 3, "v5p": 3, "v5e": 2, "v6e": 2}
_TYPES = {"v4": ("v4", 2), "v5p": ("v5p", 2), "v5e": ("v5litepod", 1), "v6e": ("v6e", 1)}
# GPUs of a node that NVLink connects.
_NODE = 8
# GPUs whose description the compiler can be given: that of the H100 is XLA's own, printed by a program compiled on one;
# an H200 is the same chip with other memory.
_DESCRIBED = ("h100", "h200")
_PLUGINS = ("jax_plugins.xla_cuda13", "jax_plugins.xla_cuda12")


@dataclasses.dataclass(frozen=True)
class Topology:
    """Devices of one kind, connected.

    Attributes:
        name: key of ``hardware.chips.CHIPS``.
        shape: of the slice; the number of devices alone for GPUs and CPU.
    """

    name: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        """Return the name as it is given."""
        return f"{self.name}:{'x'.join(map(str, self.shape))}"

    @property
    def chip(self) -> Chip:
        """The row of the table."""
        return chips.chip(self.name)

    @property
    def count(self) -> int:
        """Number of devices."""
        return math.prod(self.shape)


def parse(text: str) -> Topology:
    """Return the topology of a name.

    Raises:
        ValueError: on anything but CHIP:SHAPE, an unknown chip (naming the nearest) or a shape that it does not have.
    """
    wanted = "CHIP:SHAPE, such as v5e:4x4, v5p:2x2x1, h100:8 or cpu:2"
    found = _TEXT.fullmatch(text.strip().lower())
    if found is None:
        raise checks.refused("topology", text, wanted)
    name, shape = found["chip"], tuple(int(size) for size in found["shape"].split("x"))
    try:
        chips.chip(name)
    except UserError as error:
        raise UserError(f"topology = {text!r}: {error}") from None
    axes = _AXES.get(name, 1)
    if len(shape) != axes:
        example = {1: "8", 2: "4x4", 3: "2x2x1"}[axes]
        raise checks.refused("topology", text, f"{name}:{example} or the like, of {axes} axes")
    return Topology(name, shape)


def require(topology: Topology) -> None:
    """Refuse a topology whose compiler is not installed here, or cannot be told about the chip.

    Raises:
        ValueError: naming the extra to install.
    """
    given, platform = f"topology = {str(topology)!r}", topology.chip.platform
    rest = "in a clone with `pip install '.[{}]'`, which needs no such device; or plan with --quick"
    if platform == "tpu" and importlib.util.find_spec("libtpu") is None:
        raise UserError(
            f"{given}: the compiler, libtpu, is not installed; install the extra `tpu`, {rest.format('tpu')}"
        )
    if platform == "cuda" and topology.name not in _DESCRIBED:
        known = " and ".join(_DESCRIBED)
        raise UserError(f"{given}: only {known} can be described to the compiler here; plan with --quick")
    if platform == "cuda" and not any(_installed(plugin) for plugin in _PLUGINS):
        rest = rest.format("cuda")
        raise UserError(f"{given}: the compiler, jax's CUDA plugin, is not installed; install the extra `cuda`, {rest}")


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def environment(topology: Topology, old: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process that compiles for a topology, with a CPU as its only real device.

    Args:
        topology: what to compile for.
        old: the environment of this process.
    """
    new = {
        **old,
        "JAX_PLATFORMS": "cpu",
        # Compile times are to be those of compiling.
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    if topology.chip.platform == "tpu":
        kind, cores = _TYPES[topology.name]
        new |= {
            "TPU_SKIP_MDS_QUERY": "1",
            "TPU_WORKER_HOSTNAMES": "localhost",
            "TPU_ACCELERATOR_TYPE": f"{kind}-{cores * topology.count}",
            "TPU_STDERR_LOG_LEVEL": "3",
            "TPU_MIN_LOG_LEVEL": "3",
        }
    if topology.chip.platform == "cuda":
        new["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"
    if topology.chip.platform == "cpu":
        flags = [flag for flag in old.get("XLA_FLAGS", "").split() if "host_platform_device_count" not in flag]
        new["XLA_FLAGS"] = " ".join([*flags, f"--xla_force_host_platform_device_count={topology.count}"])
    return new


def devices(topology: Topology) -> list[jax.Device]:
    """Return the devices of a topology, for which programs can be compiled, in a process of :func:`environment`.

    Raises:
        ValueError: if the compiler does not know the topology.
    """
    import jax
    from jax.experimental import topologies

    platform = topology.chip.platform
    if platform == "cpu":
        here = jax.devices("cpu")
        if len(here) < topology.count:
            raise UserError(f"topology = {str(topology)!r}: must have at most {len(here)} devices in this process")
        return here[: topology.count]
    try:
        if platform == "tpu":
            # Hosts of 2x2 chips where there are so many; the two cores of a chip as one device, as jax has them there.
            host = [min(2, topology.shape[0]), min(2, topology.shape[1]), 1]
            cores = {"chip_config_name": "megacore"} if topology.name == "v4" else {}
            found = topologies.get_topology_desc(
                platform="tpu", topology_name=str(topology), chips_per_host_bounds=host, **cores
            )
            return list(found.devices)
        nodes = -(-topology.count // _NODE)
        text = f"1x{nodes}x{topology.count // nodes}"
        described = topologies.get_topology_desc(
            platform="cuda", topology_name=topology.name, topology=text, target_config=target_config(topology)
        )
        return list(described.devices)[: topology.count]
    except (RuntimeError, ValueError, NotImplementedError, AssertionError) as error:
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"topology = {str(topology)!r}: the compiler refuses it ({line})") from error


def target_config(topology: Topology) -> str:
    """Return the description of a GPU that XLA compiles for: its target config, in text format."""
    text = (importlib.resources.files("geonoise_jax.planning") / "h100.textproto").read_text(encoding="utf-8")
    if topology.name == "h200":
        chip = topology.chip
        text = re.sub(r"device_memory_size: \d+", f"device_memory_size: {chip.memory}", text)
        text = re.sub(r"memory_bandwidth: \d+", f"memory_bandwidth: {int(chip.bandwidth or 0)}", text)
        text = text.replace("NVIDIA H100 80GB HBM3", chip.kinds[0])
    return text
