"""A bucket on this machine for the tests of this folder, which are left out where its packages are not installed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes_runs import free_port

collect_ignore = ["emulator.py"]
NEEDED = ("gcsfs", "gcp_storage_emulator")


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """The address of an empty bucket, which this process and those that it starts reach."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"without {' and '.join(missing)}: bash tests/remote/run.sh")
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", address)
        patch.setenv("TENSORSTORE_GCS_HTTP_URL", address)
        patch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "none")
        # Asks another service of Google's, which the emulator has not.
        patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        program = [sys.executable, str(Path(__file__).with_name("emulator.py")), str(port), "bucket"]
        with subprocess.Popen(program, stderr=subprocess.DEVNULL) as process:
            _wait(process, address)
            try:
                yield "gs://bucket"
            finally:
                process.kill()


def _wait(process: subprocess.Popen[bytes], address: str) -> None:
    for _ in range(600):
        try:
            urllib.request.urlopen(address, timeout=5.0).close()
            return
        except OSError:
            assert process.poll() is None
            time.sleep(0.1)
    raise AssertionError("the emulator does not answer")
