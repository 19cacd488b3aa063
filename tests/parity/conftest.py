"""The parity suite: every test of this folder has the marker ``parity``, runs in float64, and reports its agreements.

It needs the packages of ``requirements.txt`` and ``peers.txt``; ``bash tests/parity/run.sh`` installs them into an
environment of their own and runs it. Where torch is missing these modules are not even imported.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import pytest

from tests.parity.agreement import DOUBLE, Agree, Agreement, compare, table
from tests.parity.torchvision_build import import_torchvision

_PEERS = (
    *("torch", "torchvision", "diffusers", "flow_matching", "torchcfm", "k_diffusion"),
    *("pytorch_fid", "torch_fidelity", "cleanfid", "efficientnet_lite_pytorch", "prdc"),
)
_HERE = Path(__file__).parent


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    missing = [name for name in _PEERS if importlib.util.find_spec(name) is None]
    if not missing:
        import_torchvision()
        return None
    if not collection_path.name.startswith("test_"):
        return None
    if config.option.markexpr == "parity":
        raise pytest.UsageError(f"the parity suite needs {', '.join(missing)}: bash tests/parity/run.sh")
    return True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.parity)
            # diffusers hands torch tensors to numpy in a way that numpy is about to drop.
            item.add_marker(pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.stats.get(outcome, [])]
    # Properties, unlike anything that a fixture could keep, come back from the processes of pytest-xdist.
    found = [value for report in reports for name, value in report.user_properties if name == "agreement"]
    if agreements := sorted(Agreement(*each) for each in found):
        terminalreporter.section("agreement with other implementations, worst relative difference")
        for line in table(agreements):
            terminalreporter.write_line(line)


@pytest.fixture
def agree(record_property: Callable[[str, object], None]) -> Agree:
    """Assert and note an agreement."""

    def check(peer: str, quantity: str, ours: object, theirs: object, bound: float = DOUBLE) -> None:
        found = compare(peer, quantity, ours, theirs, bound)
        record_property("agreement", dataclasses.astuple(found))
        assert found.difference <= bound, f"{peer}, {quantity}: they differ by {found.difference:.2e} > {bound:.0e}"

    return check


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    """Compute in float64 on both sides, torch in one thread."""
    import torch

    before, threads = torch.get_default_dtype(), torch.get_num_threads()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    with jax.enable_x64(True):
        yield
    torch.set_default_dtype(before)
    torch.set_num_threads(threads)
