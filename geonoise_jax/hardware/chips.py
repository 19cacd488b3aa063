"""A table of accelerator chips: memory, peak arithmetic, bandwidth, each with its source.

All peaks are of dense arithmetic. A vendor's figure "with sparsity" is twice that, and no network here has it.

A TPU multiplies in bfloat16. A float32 product is made of such products: 1 at jax's precision ``default``, 3 at
``high``, 6 at ``highest`` (the passes of XLA's TPU compiler, as jax documents ``jax.lax.Precision``). An NVIDIA GPU
multiplies float32 in tensorfloat32 on its tensor cores at ``default`` and ``high``, and in float32 without them at
``highest``.
"""

from __future__ import annotations

import dataclasses

from geonoise_jax.errors import UserError, nearest

_GIB, _GB, _TERA = 2**30, 10**9, 1e12
# Products in bfloat16 that make up one of float32, by jax's precision.
_TPU_PASSES = {"default": 1, "high": 3, "highest": 6}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """One kind of chip, as jax sees it: one device.

    Attributes:
        title: name for people.
        platform: ``tpu``, ``cuda`` or ``cpu``, as topologies are asked for.
        kinds: what ``jax.Device.device_kind`` may be.
        memory: bytes of device memory; None where it is the machine's.
        bfloat16: peak of products in bfloat16, FLOP/s; None where there is no such figure.
        bandwidth: of the device memory, bytes/s; None likewise.
        interconnect: bytes/s that a chip sends to the others at best, in one direction; None likewise.
        float32, tensorfloat32: peaks of GPUs in these formats, FLOP/s.
        source: where the figures are from.
    """

    title: str
    platform: str
    kinds: tuple[str, ...]
    memory: int | None
    bfloat16: float | None
    bandwidth: float | None
    interconnect: float | None
    float32: float | None = None
    tensorfloat32: float | None = None
    source: str

    def peak(self, dtype: str, precision: str) -> float | None:
        """Return the peak of products of arrays of a dtype at jax's precision, FLOP/s; None where it is not known.

        Args:
            dtype: of the factors, such as ``float32`` or ``bfloat16``.
            precision: ``default``, ``high`` or ``highest``.
        """
        if self.bfloat16 is None:
            return None
        if dtype in ("bfloat16", "float16"):
            return self.bfloat16
        if dtype != "float32":
            return None
        if self.platform == "tpu":
            return self.bfloat16 / _TPU_PASSES[precision]
        return self.float32 if precision == "highest" else self.tensorfloat32


def _tpu(title: str, kinds: tuple[str, ...], gib: int, peak: float, bandwidth: float, ici: float, source: str) -> Chip:
    return Chip(
        title=title,
        platform="tpu",
        kinds=kinds,
        memory=gib * _GIB,
        bfloat16=peak * _TERA,
        bandwidth=bandwidth * _GB,
        interconnect=ici * _GB,
        source=source,
    )


def _gpu(
    title: str,
    kinds: tuple[str, ...],
    *,
    gb: int,
    peaks: tuple[float, float, float],
    bandwidth: float,
    link: float,
    source: str,
) -> Chip:
    """A GPU, whose peaks are those of bfloat16, tensorfloat32 and float32, and whose link is both directions' sum."""
    bfloat16, tensorfloat32, float32 = (peak * _TERA for peak in peaks)
    return Chip(
        title=title,
        platform="cuda",
        kinds=kinds,
        memory=gb * _GB,
        bfloat16=bfloat16,
        tensorfloat32=tensorfloat32,
        float32=float32,
        bandwidth=bandwidth * _GB,
        interconnect=link / 2 * _GB,
        source=source,
    )


# TPUs: Google Cloud's documentation, the page of each version, table of specifications: bf16 peak per chip, HBM
# capacity (GB there, binary as the compiler counts it) and bandwidth, interchip interconnect, of whose two directions
# half is taken. v4: 275 TFLOPs, 32 GiB, 1200 GBps, six links of 50 GBps. v5e: 197, 16, 819, 1600 Gbps (400 GBps
# bidirectional). v5p: 459, 95, 2765, 4800 Gbps (1200 GBps bidirectional). v6e: 918, 32, 1638, 800 GBps bidirectional.
# GPUs: NVIDIA's data sheets, without sparsity. A100 (2021): 312 / 156 / 19.5 TFLOPS, 1555 GB/s with 40 GB and 2039 with
# 80, NVLink 600 GB/s. H100 SXM (2023): 989.4 / 494.7 / 66.9, 3.35 TB/s, NVLink 900 GB/s. H200 SXM (2024): the same
# chip, 141 GB, 4.8 TB/s. L4 (2023): 121 / 60 / 30.3, 300 GB/s, PCIe gen 4 x16, 64 GB/s.
CHIPS: dict[str, Chip] = {
    "v4": _tpu("TPU v4", ("TPU v4",), 32, 275, 1200, 300, "Google Cloud, TPU v4"),
    "v5e": _tpu("TPU v5e", ("TPU v5 lite", "TPU v5e"), 16, 197, 819, 200, "Google Cloud, TPU v5e"),
    "v5p": _tpu("TPU v5p", ("TPU v5", "TPU v5p"), 95, 459, 2765, 600, "Google Cloud, TPU v5p"),
    "v6e": _tpu("TPU v6e", ("TPU v6 lite", "TPU v6e"), 32, 918, 1638, 400, "Google Cloud, TPU v6e"),
    "a100": _gpu(
        "A100 SXM 40 GB",
        ("NVIDIA A100-SXM4-40GB", "A100-SXM4-40GB"),
        gb=40,
        peaks=(312, 156, 19.5),
        bandwidth=1555,
        link=600,
        source="NVIDIA A100 data sheet",
    ),
    "a100-80gb": _gpu(
        "A100 SXM 80 GB",
        ("NVIDIA A100-SXM4-80GB", "A100-SXM4-80GB"),
        gb=80,
        peaks=(312, 156, 19.5),
        bandwidth=2039,
        link=600,
        source="NVIDIA A100 data sheet",
    ),
    "h100": _gpu(
        "H100 SXM 80 GB",
        ("NVIDIA H100 80GB HBM3",),
        gb=80,
        peaks=(989.4, 494.7, 66.9),
        bandwidth=3350,
        link=900,
        source="NVIDIA H100 data sheet",
    ),
    "h200": _gpu(
        "H200 SXM 141 GB",
        ("NVIDIA H200",),
        gb=141,
        peaks=(989.4, 494.7, 66.9),
        bandwidth=4800,
        link=900,
        source="NVIDIA H200 data sheet",
    ),
    "l4": _gpu(
        "L4 24 GB",
        ("NVIDIA L4",),
        gb=24,
        peaks=(121, 60, 30.3),
        bandwidth=300,
        link=64,
        source="NVIDIA L4 data sheet",
    ),
    # A processor has no figure that a table could know.
    "cpu": Chip(
        title="CPU",
        platform="cpu",
        kinds=("cpu",),
        memory=None,
        bfloat16=None,
        bandwidth=None,
        interconnect=None,
        source="none: a processor has no peak that a table could know",
    ),
}


def chip(name: str) -> Chip:
    """Return a chip of the table by its name in a topology.

    Raises:
        ValueError: if the table has no such chip; the message has the nearest, or all.
    """
    if name not in CHIPS:
        raise UserError(f"chip = {name!r}: unknown{nearest(name, CHIPS)}")
    return CHIPS[name]


def of_kind(device_kind: str) -> Chip | None:
    """Return the chip that jax calls so, see ``jax.Device.device_kind``; None if the table has none such."""
    return next((each for each in CHIPS.values() if device_kind in each.kinds), None)
