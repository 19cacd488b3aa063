"""kill -9 at random moments, and every file of a checkpoint damaged in six ways: never silently another result."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

from geonoise_jax import config
from geonoise_jax.build import train
from geonoise_jax.errors import UserError
from tests.training_runs import assert_same_run, circles, final_state

pytestmark = pytest.mark.slow


PROGRAM = """
import sys
from pathlib import Path
from geonoise_jax import config
from geonoise_jax.build import train
print("started", flush=True)
train(config.loads(Path(sys.argv[1]).read_text()), sys.argv[2])
"""


def test_killed_at_forty_random_moments_it_is_the_same_run(tmp_path: Path) -> None:
    choice = circles(tmp_path / "data", training__num_steps=1500, checkpoint__every=25, training__log_every=25)
    (tmp_path / "choice.json").write_text(config.dumps(choice))
    moments, killed = random.Random(0), 0
    for _ in range(40):
        command = [sys.executable, "-c", PROGRAM, str(tmp_path / "choice.json"), str(tmp_path / "killed")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"started\n"
            time.sleep(moments.uniform(0.0, 6.0))
            killed += process.poll() is None
            process.send_signal(signal.SIGKILL)
            assert b"Traceback" not in process.communicate()[1]
    assert killed >= 10
    train(choice, tmp_path / "killed")
    train(choice, tmp_path / "whole")
    assert_same_run(choice, tmp_path / "whole", tmp_path / "killed")


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(bytes(content))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "flipped": flipped,
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "longer": lambda path: path.write_bytes(path.read_bytes() * 2),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_no_file_of_a_checkpoint_is_damaged_without_a_word(damage: str, tmp_path: Path) -> None:
    """The state is the one that was saved, or that of the checkpoint before, or there is an error of one line."""
    choice = circles(tmp_path / "data", training__num_steps=4, checkpoint__every=2, training__log_every=1)
    train(choice, tmp_path / "run")
    states = {}
    for step in (4, 2):
        states[step] = final_state(choice, tmp_path / "run")
        assert int(states[step].step) == step
        if step == 4:
            shutil.copytree(tmp_path / "run", tmp_path / "older")
            shutil.move(tmp_path / "run" / "checkpoints" / "4", tmp_path / "four")
    shutil.rmtree(tmp_path / "run")
    files = [path for path in (tmp_path / "older" / "checkpoints" / "4").rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        shutil.copytree(tmp_path / "older", tmp_path / "run")
        DAMAGES[damage](tmp_path / "run" / path.relative_to(tmp_path / "older"))
        with contextlib.suppress(UserError):
            state = final_state(choice, tmp_path / "run")
            jax.tree.map(np.testing.assert_array_equal, state, states[int(state.step)])
        shutil.rmtree(tmp_path / "run")
