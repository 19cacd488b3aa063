"""launch/local.sh against a fake machine: stand-ins on a restricted PATH, no network, nothing installed.

The stand-ins record what they are asked to do; only bash, the POSIX tools and the script itself are real.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BASH = shutil.which("bash") or "/bin/bash"
TOOLS = ["bash", "cat", "cp", "dirname", "env", "grep", "mkdir", "mv", "rm", "rmdir", "sleep", "tail"]
OPTIONAL_TOOLS = ["flock", "sha256sum", "shasum"]

# Prints its own name, the working directory and every argument, and exits as told.
SHOW = """printf '%s\\n' "${0##*/}" "$PWD"; for a in "$@"; do printf '<%s>\\n' "$a"; done; exit "${FAKE_EXIT:-0}\""""

PYTHON = """case "$*" in
  *version_info*) echo VERSION ;;
  *'-m venv'*) for d in "$@"; do :; done; mkdir -p "$d/bin"; cp "$0" "$d/bin/python"; cp "$0" "$d/bin/python3"
    : >"$d/pyvenv.cfg"; echo "venv $0" >>"$HOME/calls" ;;
  *'import ensurepip'*) [[ -z ${FAKE_NO_ENSUREPIP-} ]] ;;
  *'-m ensurepip'*) : >"${0%/*}/pip" ;;
  *'-m pip --version'*) [[ -e ${0%/*}/pip ]] ;;
  *'-m pip install'*) exec fake-install pip "$0" "$@" ;;
  *default_backend*) echo "check ${JAX_PLATFORMS-unset}" >>"$HOME/calls"; echo 'CUDA_ERROR'; exit "${FAKE_BLIND:-0}" ;;
  *) SHOW ;;
esac"""

UV = 'case "$1 $2" in "pip install") exec fake-install uv "$4" "$@" ;; --version*) echo uv ;; *) exit 9 ;; esac'

INSTALL = """echo "install $1 ${!#} in $PWD" >>"$HOME/calls"
case ${FAKE_INSTALL:-ok} in
  ok) sleep "${FAKE_SECONDS:-0}"; for name in geonoise ruff mypy show; do cp "$HOME/show" "${2%/*}/$name"; done ;;
  hang) : >"${2%/*}/half-written"; : >"$HOME/hangs"; exec sleep 60 ;;
  *) printf '%s\\n' "$FAKE_INSTALL"; exit 1 ;;
esac"""

PIP_OFFLINE = """WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(...)': /simple/jax/
ERROR: No matching distribution found for jax"""
UV_OFFLINE = "error: Failed to fetch\n  Caused by: dns error: failed to lookup address information"


class Machine:
    """A fake machine with a copy of the repository's launcher, its own PATH and, in its HOME, a record of calls."""

    def __init__(self, home: Path) -> None:
        self.home, self.repo, self.user_dir = home, home / "repo", home / "user dir"
        self.script, self.venv = self.repo / "launch/local.sh", self.repo / ".venv"
        for name in ("bin", "devices", "pci", "repo/launch", "repo/.ci", "user dir"):
            (home / name).mkdir(parents=True)
        script = (ROOT / "launch/local.sh").read_text()
        for variable, real, fake in (("devices", "/dev", "devices"), ("pci_devices", "/sys/bus/pci/devices", "pci")):
            line = f"\n{variable}={real}\n"
            assert script.count(line) == 1
            script = script.replace(line, f"\n{variable}='{home / fake}'\n")
        self.script.write_text(script)
        shutil.copy(ROOT / ".ci/run", self.repo / ".ci/run")
        (self.repo / "pyproject.toml").write_text("[project]\n")
        for tool in [*TOOLS, *OPTIONAL_TOOLS]:
            if path := shutil.which(tool):
                (home / "bin" / tool).symlink_to(path)
        self.stub("fake-install", INSTALL)
        self.stub("../show", SHOW)
        (home / "calls").touch()
        self.python()

    def stub(self, name: str, body: str) -> Path:
        path = self.home / "bin" / name
        path.write_text(f"#!{BASH}\n{body}\n")
        path.chmod(0o755)
        return path

    def python(self, version: str = "3.11", name: str = "python3") -> Path:
        return self.stub(name, PYTHON.replace("VERSION", version).replace("SHOW", SHOW))

    def gpu(self, driver: str, capability: str = "9.0") -> None:
        answer = f'case $1 in *compute_cap*) echo "{driver}, {capability}" ;; *) echo "{driver}" ;; esac'
        self.stub("nvidia-smi", answer)

    def start(self, *args: str, **variables: str) -> subprocess.Popen[str]:
        """Start the launcher in the user's own directory, as the leader of its own process group."""
        command, pipe = [BASH, str(self.script), *args], subprocess.PIPE
        env = {"PATH": str(self.home / "bin"), "HOME": str(self.home), **variables}
        return subprocess.Popen(
            command, cwd=self.user_dir, env=env, stdout=pipe, stderr=pipe, text=True, start_new_session=True
        )

    def run(self, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*args, **variables)
        output, errors = process.communicate(timeout=30)
        return subprocess.CompletedProcess(args, process.returncode, output, errors)

    def calls(self, kind: str) -> list[str]:
        """The recorded calls of one kind (venv, install, check), without the word itself."""
        lines = (self.home / "calls").read_text().splitlines()
        return [line.removeprefix(f"{kind} ") for line in lines if line.startswith(f"{kind} ")]

    def extras(self) -> list[str]:
        """The extras of every installation so far."""
        return [line.split("[")[1].split("]")[0] for line in self.calls("install")]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A fake machine with Python 3.11, no uv and no accelerator."""
    return Machine(tmp_path / "a machine")


def succeeded(result: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines of standard output of a call that has to succeed."""
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """Check that a call failed before its command, with one paragraph on standard error that holds the words."""
    message = result.stderr.splitlines()[-1]
    assert result.returncode == 1
    assert result.stdout == ""
    assert message.startswith("launch/local.sh: ")
    assert all(word in message for word in words), message


# --- The command

NAMES = ("demo", "sample", "evaluate", "exact", "figure", "data", "plan", "--version")
SUBCOMMANDS = [["train", "--workdir=a b"], *([word] for word in NAMES)]


@pytest.mark.parametrize("arguments", [[], *SUBCOMMANDS])
def test_subcommands_are_given_to_geonoise_and_nothing_means_demo(machine: Machine, arguments: list[str]) -> None:
    shown = [f"<{argument}>" for argument in arguments or ["demo"]]
    assert succeeded(machine.run(*arguments)) == ["geonoise", str(machine.user_dir), *shown]


def test_test_is_pytest_in_the_repository_root(machine: Machine) -> None:
    expected = ["python", str(machine.repo), "<-m>", "<pytest>", "<-k>", "<a or b>"]
    assert succeeded(machine.run("test", "-k", "a or b")) == expected
    assert succeeded(machine.run("test"))[2:] == ["<-m>", "<pytest>", "<-n>", "<2>", "<--dist>", "<loadfile>"]


def test_any_command_keeps_directory_arguments_and_exit_status(machine: Machine) -> None:
    arguments = ["two words", "", "*", "$HOME", "-x", 'quo"te']
    result = machine.run("show", *arguments, FAKE_EXIT="37")
    assert result.stdout.splitlines() == ["show", str(machine.user_dir), *(f"<{a}>" for a in arguments)]
    assert result.returncode == 37


def test_help_installs_nothing(machine: Machine) -> None:
    assert "GEONOISE_ACCELERATOR" in "".join(succeeded(machine.run("--help")))
    assert not machine.venv.exists()


def test_command_does_not_hold_the_lock(machine: Machine) -> None:
    held = "[[ -e /proc/self/fd/9 || -e $VIRTUAL_ENV/.geonoise-lock.d ]] && echo held || echo free"
    assert succeeded(machine.run("bash", "-c", held)) == ["free"]
    (machine.home / "bin/flock").unlink(missing_ok=True)
    assert succeeded(machine.run("bash", "-c", held, GEONOISE_VENV="another")) == ["free"]


# --- Python


def test_no_python(machine: Machine) -> None:
    (machine.home / "bin/python3").unlink()
    refused(machine.run(), "Python 3.11 or newer", "no Python at all", "PYTHON=/path/to/python")


@pytest.mark.parametrize("version", ["2.7", "3.9", "3.10"])
def test_old_python_is_named(machine: Machine, version: str) -> None:
    path = machine.python(version)
    refused(machine.run(), f"{path} ({version})")
    refused(machine.run(PYTHON="python3"), f"PYTHON names is python3 ({version})")
    assert not machine.venv.exists()


def test_broken_shims_and_old_interpreters_are_skipped(machine: Machine) -> None:
    machine.python("3.8")
    machine.stub("python3.13", "exit 127")
    good = machine.python("3.12", "python3.12")
    succeeded(machine.run())
    (machine.venv / ".geonoise-stamp").write_text("")
    succeeded(machine.run(PATH=f"{machine.venv}/bin:{machine.home}/bin"))  # as from within the environment
    assert machine.calls("venv") == [str(good)] * 2


def test_named_python_is_used_and_another_version_rebuilds(machine: Machine) -> None:
    other = machine.python("3.13", "other-python")
    succeeded(machine.run())
    succeeded(machine.run(PYTHON="other-python"))
    succeeded(machine.run())  # the environment stays what it was made to be
    assert machine.calls("venv") == [str(machine.home / "bin/python3"), str(other)]


def test_debian_python_without_ensurepip(machine: Machine) -> None:
    refused(machine.run(FAKE_NO_ENSUREPIP="1"), "python3-venv")
    machine.stub("uv", UV)
    succeeded(machine.run(FAKE_NO_ENSUREPIP="1"))


# --- Installation


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_first_call_installs_with_uv_where_it_is_and_the_second_only_checks(machine: Machine, installer: str) -> None:
    machine.stub(installer, UV)
    succeeded(machine.run())
    again = machine.run()
    assert (again.returncode, again.stderr) == (0, "")
    assert machine.calls("install") == [f"{installer} .[dev] in {machine.repo}"]


def test_changed_pyproject_reinstalls_in_place_and_a_failure_keeps_what_worked(machine: Machine) -> None:
    succeeded(machine.run())
    (machine.repo / "pyproject.toml").write_text("[project]\nname = 'changed'\n")
    refused(machine.run(FAKE_INSTALL=PIP_OFFLINE))
    succeeded(machine.run())
    assert len(machine.calls("install")) == 3
    assert len(machine.calls("venv")) == 1


def test_moved_repository_gets_a_new_environment(machine: Machine) -> None:
    succeeded(machine.run())
    machine.script = machine.repo.rename(machine.home / "moved") / "launch/local.sh"
    succeeded(machine.run())
    assert len(machine.calls("venv")) == 2


def test_environment_elsewhere_is_one_however_it_is_spelt(machine: Machine) -> None:
    place = machine.user_dir / "elsewhere"
    for spelling in ("elsewhere", str(place), f"{place}/"):
        succeeded(machine.run(GEONOISE_VENV=spelling))
    assert len(machine.calls("install")) == 1
    assert not machine.venv.exists()


@pytest.mark.parametrize("said", [PIP_OFFLINE, UV_OFFLINE])
def test_network_failure(machine: Machine, said: str) -> None:
    refused(result := machine.run(FAKE_INSTALL=said), "package index could not be reached", "HTTPS_PROXY")
    assert said.splitlines()[-1] in result.stderr
    succeeded(machine.run())


def test_other_failures_show_the_last_lines(machine: Machine) -> None:
    refused(machine.run(FAKE_INSTALL="OSError: No space left on device"), "disk is full")
    refused(result := machine.run(FAKE_INSTALL="error: cannot compile"), "installation failed")
    assert "error: cannot compile" in result.stderr


@pytest.mark.parametrize("locking", ["flock", "mkdir"])
@pytest.mark.parametrize("update", [False, True])
def test_killed_installation_is_repaired(machine: Machine, locking: str, update: bool) -> None:
    if locking == "mkdir":
        (machine.home / "bin/flock").unlink(missing_ok=True)
    if update:
        succeeded(machine.run())
        (machine.repo / "pyproject.toml").write_text("[project]\nname = 'changed'\n")
    process = machine.start(FAKE_INSTALL="hang")
    deadline = time.monotonic() + 20
    while not (machine.home / "hangs").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert (machine.venv / "bin/half-written").exists()
    succeeded(machine.run())
    assert not (machine.venv / "bin/half-written").exists()
    succeeded(machine.run(FAKE_INSTALL="must not be called"))


@pytest.mark.parametrize("locking", ["flock", "mkdir"])
def test_simultaneous_first_calls_install_once(machine: Machine, locking: str) -> None:
    if locking == "mkdir":
        (machine.home / "bin/flock").unlink(missing_ok=True)
    processes = [machine.start(FAKE_SECONDS="0.4") for _ in range(3)]
    outputs = [process.communicate(timeout=30) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    assert len(machine.calls("install")) == 1


def test_directory_of_another_is_left_alone(machine: Machine) -> None:
    (machine.venv / "bin").mkdir(parents=True)
    refused(machine.run(), "was not made by this script")
    assert [path.name for path in machine.venv.iterdir()] == ["bin"]


# --- Accelerators


@pytest.mark.parametrize(
    ("driver", "capability", "extras"),
    [
        ("580.65.06", "9.0", "dev,cuda"),
        ("580.65.06", "7.0", "dev,cuda12"),
        ("580.65.06", "12.0", "dev,cuda"),
        ("579.99", "9.0", "dev,cuda12"),
        ("535.104.05", "8.0", "dev,cuda12"),
        ("525.60.13", "7.5", "dev,cuda12"),
    ],
)
def test_nvidia_driver_chooses_cuda(machine: Machine, driver: str, capability: str, extras: str) -> None:
    machine.gpu(driver, capability)
    succeeded(machine.run(JAX_PLATFORMS="cpu"))
    assert machine.extras() == [extras]
    assert machine.calls("check") == ["unset"]


def test_gpu_that_is_hidden_broken_or_too_old_counts_as_none(machine: Machine) -> None:
    machine.gpu("580.65.06")
    succeeded(machine.run(CUDA_VISIBLE_DEVICES=""))
    for answer in ("echo has failed; exit 9", "case $1 in *compute_cap*) exit 2 ;; *) echo 470.57.02 ;; esac"):
        machine.stub("nvidia-smi", answer)
        result = machine.run()
        succeeded(result)
    assert "470.57.02" in result.stderr
    assert machine.extras() == ["dev"]


@pytest.mark.parametrize(
    ("device", "pci", "variables", "extras"),
    [
        ("accel0", "0x8086 0x0063", {}, "dev,tpu"),
        ("vfio/0", "0x1ae0 0x0063", {}, "dev,tpu"),
        ("vfio/0", "0x8086 0x0063", {"TPU_WORKER_ID": "0"}, "dev,tpu"),
        ("vfio/0", "0x8086 0x0063", {}, "dev"),
        ("vfio/0", "0x1ae0 0x0042", {}, "dev"),  # another of Google's devices
        ("accel/accel0", "0x8086 0x0063", {}, "dev"),  # the kernel's own class of accelerators
        ("vfio/vfio", "0x1ae0 0x0063", {}, "dev"),
    ],
)
def test_tpu(machine: Machine, device: str, pci: str, variables: dict[str, str], extras: str) -> None:
    path = machine.home / "devices" / device
    path.parent.mkdir(exist_ok=True)
    path.touch()
    (machine.home / "pci/0000:00:05.0").mkdir()
    for name, value in zip(("vendor", "device"), pci.split(), strict=True):
        (machine.home / "pci/0000:00:05.0" / name).write_text(f"{value}\n")
    succeeded(machine.run(**variables))
    assert machine.extras() == [extras]


def test_accelerator_can_be_chosen_among_the_known(machine: Machine) -> None:
    machine.gpu("580.65.06")
    command = ("bash", "-c", "echo ${JAX_PLATFORMS-unset}")
    assert succeeded(machine.run(*command, GEONOISE_ACCELERATOR="cpu")) == ["cpu"]
    assert succeeded(machine.run(*command, GEONOISE_ACCELERATOR="cuda12")) == ["unset"]
    refused(machine.run(GEONOISE_ACCELERATOR="gpu"), "'gpu'", "cpu, cuda, cuda12 and tpu")
    assert machine.extras() == ["dev", "dev,cuda12"]


def test_jax_that_does_not_see_the_gpu_is_reported_until_it_does(machine: Machine) -> None:
    machine.gpu("580.65.06")
    for _ in range(2):
        result = machine.run(FAKE_BLIND="1")
        refused(result, "does not see it", "GEONOISE_ACCELERATOR=cpu", "LD_LIBRARY_PATH")
        assert "CUDA_ERROR" in result.stderr
    succeeded(machine.run(GEONOISE_ACCELERATOR="cpu", FAKE_BLIND="1"))
    succeeded(machine.run())
    assert machine.extras() == ["dev,cuda"] * 3  # not once more for the CPU
    assert len(machine.calls("venv")) == 1


def test_gpu_that_appears_is_added_and_one_that_goes_is_reported(machine: Machine) -> None:
    succeeded(machine.run())
    machine.gpu("580.65.06")
    assert "holds jax for cpu" in machine.run().stderr
    (machine.home / "bin/nvidia-smi").unlink()
    assert "holds jax for cuda" in machine.run().stderr
    assert machine.extras() == ["dev", "dev,cuda"]
    assert len(machine.calls("venv")) == 1


def test_cuda_13_makes_way_for_an_older_driver_but_cuda_12_stays(machine: Machine) -> None:
    for driver in ("580.65.06", "535.104.05", "580.65.06"):
        machine.gpu(driver)
        succeeded(machine.run())
    assert machine.extras() == ["dev,cuda", "dev,cuda12"]
    succeeded(machine.run(GEONOISE_ACCELERATOR="cuda"))
    assert machine.run(GEONOISE_ACCELERATOR="cpu").stderr == ""
    assert machine.extras() == ["dev,cuda", "dev,cuda12", "dev,cuda"]
    assert len(machine.calls("venv")) == 3  # two CUDA plugins in one environment would clash
