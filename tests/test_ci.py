"""What continuous integration runs, on the fake machine of the launcher's tests."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from tests.test_launch import ROOT, Machine


def test_ci_checks_lint_types_and_tests_in_order(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "a machine")
    (machine.home / "bin/true").symlink_to(shutil.which("true") or "/bin/true")
    lint = ["== environment", "== lint", "ruff", "<check>", "<.>"]
    rest = ["== format", "ruff", "<format>", "<--check>", "<.>", "== types", "mypy"]
    words = ["python", "<-m>", "<pytest>", "<-n>", "<2>", "<--dist>", "<loadfile>"]
    rest += ["== tests", *words, "== tests of faults and of several processes", *words, "<-m>", "<slow>"]
    long = re.findall(r"tests/test_\w+\.py", (ROOT / ".ci/run").read_text())
    assert len(long) > 5
    assert all((ROOT / path).exists() for path in long)
    rest += [f"<{path}>" for path in long]
    machine.script = machine.repo / ".ci/run"
    for status, shown in ((0, lint + rest), (3, lint)):
        result = machine.run(CI="true", FAKE_EXIT=str(status))
        assert result.returncode == status
        assert [line for line in result.stdout.splitlines() if line not in ("", str(machine.repo))] == shown
