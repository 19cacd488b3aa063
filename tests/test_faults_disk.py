"""Disks that are full or read-only, as the system has them: one line, nothing half done, and the run goes on later."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from geonoise_jax.build import train
from geonoise_jax.config import ConfigDict, dumps
from tests.training_runs import assert_same_run, circles

PROGRAM = """
import resource, sys
from geonoise_jax import cli
limit = int(sys.argv[1])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
sys.exit(cli.main(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def choice(tmp_path_factory: pytest.TempPathFactory) -> ConfigDict:
    folder = tmp_path_factory.mktemp("data")
    choice = circles(folder, training__num_steps=4, checkpoint__every=2, training__log_every=1)
    train(choice, folder / "prepared")
    return choice


def started(choice: ConfigDict, folder: Path, limit: int = 0) -> subprocess.CompletedProcess[str]:
    """The run of a workdir in a process that may write no file larger than a limit."""
    folder.mkdir(exist_ok=True)
    if not (folder / "config.json").exists():
        (folder / "config.json").write_text(dumps(choice))
    words = [sys.executable, "-c", PROGRAM, str(limit), "train", f"--workdir={folder}"]
    # What jax cannot keep for the next process, it says.
    env = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "0"}
    return subprocess.run(words, capture_output=True, text=True, check=False, env=env)


def lines(ended: subprocess.CompletedProcess[str]) -> list[str]:
    """What was said but for how far it is."""
    return [
        line
        for line in ended.stderr.splitlines()
        if not line.startswith(("train: ", "data: ", "matmul_precision", "resuming"))
    ]


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_written_is_one_line_and_the_run_goes_on_later(
    choice: ConfigDict, tmp_path: Path
) -> None:
    ended = started(choice, tmp_path / "run", limit=9000)
    said = f"geonoise train: workdir = '{tmp_path / 'run'}': the checkpoint of step 2 was not saved (file too large); "
    assert (ended.returncode, lines(ended)) == (2, [f"{said}earlier ones are kept"])
    train(choice, tmp_path / "run")
    train(choice, tmp_path / "whole")
    assert_same_run(choice, tmp_path / "whole", tmp_path / "run")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 6 MiB, where the system lets one be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        shutil.which("mount") is None
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", folder], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_run_goes_on_where_there_is_room(
    choice: ConfigDict, disk: Path, tmp_path: Path
) -> None:
    train(choice, disk / "run")
    more = json.loads((disk / "run" / "config.json").read_text())
    more["training"]["num_steps"] = 8
    (disk / "run" / "config.json").write_text(json.dumps(more))
    checkpoint = sum(path.stat().st_blocks * 512 for path in (disk / "run" / "checkpoints" / "4").rglob("*"))
    with (disk / "ballast").open("wb") as ballast:
        ballast.write(b"0" * (shutil.disk_usage(disk).free - checkpoint // 2))
    ended = started(choice, disk / "run")
    assert (ended.returncode, len(lines(ended))) == (2, 1), ended.stderr
    assert "no space left on device" in lines(ended)[0] or "has no room" in lines(ended)[0]
    (disk / "ballast").unlink()
    resumed = started(choice, disk / "run")
    assert (resumed.returncode, resumed.stdout) == (0, f"trained to step 8: {disk / 'run'}\n")


@pytest.mark.slow
def test_a_read_only_disk_is_one_line_before_anything_is_done(choice: ConfigDict, disk: Path) -> None:
    train(choice, disk / "run")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    ended = started(choice, disk / "run")
    assert (ended.returncode, len(lines(ended))) == (2, 1)
    assert f"workdir = '{disk / 'run'}': cannot be written to: no permission, or read-only" in lines(ended)[0]
