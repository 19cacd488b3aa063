"""Reading sets larger than memory: images per second and peak memory, in memory and read as needed.

Run: python tests/benchmarks/bench_streamed.py [FOLDER FOR ABOUT 600 MB OF FILES]

Each line is of a process of its own, on Linux. A limit of memory is forced, of a quarter of the set, so that `auto`
streams it. The rate of reading alone is that of the host's part of a batch; the other that beside an accelerator that
takes 20 ms a step.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

ITEMS = {"npy": 120_000, "records": 40_000, "folder": 6_000}
SHAPE, BATCH = (32, 32, 3), 64
READ, WARM, STEP_SECONDS = 200, 3, 0.02


def blocks(num: int) -> Any:
    """Yield random images in blocks: smooth, so that PNG compresses them as it does photographs."""
    rng = np.random.default_rng(0)
    for start in range(0, num, 1000):
        coarse = rng.integers(0, 256, (min(1000, num - start), 8, 8, 3), dtype=np.uint8)
        yield start, coarse.repeat(4, 1).repeat(4, 2) ^ rng.integers(0, 16, (len(coarse), *SHAPE), dtype=np.uint8)


def make_npy(folder: Path) -> None:
    file = np.lib.format.open_memmap(folder / "x.npy", mode="w+", dtype=np.uint8, shape=(ITEMS["npy"], *SHAPE))
    for start, images in blocks(len(file)):
        file[start : start + len(images)] = images


def make_folder(folder: Path) -> None:
    from PIL import Image

    for start, images in blocks(ITEMS["folder"]):
        part = folder / "images" / f"class{start // 1000}"
        part.mkdir(parents=True)
        for number, image in enumerate(images):
            Image.fromarray(image).save(part / f"{start + number}.png")


def builder(folder: Path) -> Any:
    import tensorflow_datasets as tfds

    class BenchImages(tfds.core.GeneratorBasedBuilder):
        """Images as TFDS stores them without TensorFlow."""

        VERSION = tfds.core.Version("1.0.0")
        RELEASE_NOTES: ClassVar[dict[str, str]] = {}

        def _info(self) -> Any:
            image = tfds.features.Tensor(shape=SHAPE, dtype=np.uint8, encoding=tfds.features.Encoding.BYTES)
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({"image": image}))

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            del dl_manager
            return {"train": self._generate_examples()}

        def _generate_examples(self) -> Any:
            for start, images in blocks(ITEMS["records"]):
                yield from ((start + number, {"image": image}) for number, image in enumerate(images))

    return BenchImages(data_dir=folder, file_format="array_record")


def arguments(kind: str, folder: Path) -> dict[str, Any]:
    if kind == "records":
        builder(folder)
        return {"name": "bench_images", "data_dir": folder}
    path = folder / ("x.npy" if kind == "npy" else "images")
    return {"name": kind, "builder_kwargs": {"path": path}}


def measure(kind: str, place: str, folder: Path) -> dict[str, float]:
    """In a process of its own: rates, and the peak of memory above that before the set is opened."""
    import jax

    from geonoise_jax.data import load_arrays, memory
    from geonoise_jax.data.pipeline import Pipeline
    from geonoise_jax.training.feeding import Feed

    nbytes = ITEMS[kind] * int(np.prod(SHAPE))
    if place == "auto":
        memory.available = lambda: nbytes // 4
    given = arguments(kind, folder)
    if kind == "folder":
        load_arrays(split="train[:50]", **given)  # the imports
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = resident("VmRSS")
    data = load_arrays(split="train", **given, placement=place)
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    feed: Any = Feed(Pipeline(data, BATCH, 0, placement=place), one, lambda batch, _: batch)  # type: ignore[arg-type]

    def step(number: int) -> None:
        feed(READ + WARM + number)
        time.sleep(STEP_SECONDS)

    rate, beside = timed(feed, READ), timed(step, READ)
    feed.close()
    peak = resident("VmHWM") - before
    return {"streamed": data.is_streamed, "mib": nbytes / 2**20, "peak": peak, "alone": rate, "beside": beside}


def resident(what: str) -> float:
    """MiB of this process's memory, now or at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 2**10


def timed(call: Any, steps: int) -> float:
    for number in range(WARM):
        call(number)
    began = time.perf_counter()
    for number in range(WARM, WARM + steps):
        call(number)
    return steps * BATCH / (time.perf_counter() - began)


def main() -> None:
    if len(sys.argv) == 4:
        print(json.dumps(measure(sys.argv[1], sys.argv[2], Path(sys.argv[3]))))
        return
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as name:
        folder = Path(name)
        make_npy(folder)
        make_folder(folder)
        builder(folder).download_and_prepare()
        for kind in ITEMS:
            found = {}
            for place in ("host", "auto"):
                command = [sys.executable, __file__, kind, place, name]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found[place] = json.loads(done.stdout.splitlines()[-1])
            report(kind, found["host"], found["auto"])


def report(kind: str, host: dict[str, float], auto: dict[str, float]) -> None:
    print(f"{kind}: {ITEMS[kind]} images, {host['mib']:.0f} MiB; streamed: {bool(auto['streamed'])}")
    print(f"  peak memory above the start  in memory {host['peak']:.0f} MiB, streamed {auto['peak']:.0f} MiB")
    for what in ("alone", "beside"):
        ratio = auto[what] / host[what]
        print(f"  {what:7} images/s  in memory {host[what]:.0f}, streamed {auto[what]:.0f}, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
