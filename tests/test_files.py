"""Small files: paths, writes that are whole or not at all, damaged contents, and the lock of a folder."""

from __future__ import annotations

import ast
import errno
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from geonoise_jax import files
from geonoise_jax.errors import UserError
from tests.test_architecture import SOURCES, room, tree


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    "url", ["s3://bucket/run", "gs://b/r", "https://x.org/a", Path("s3://bucket/run"), "file:///a"]
)
def test_urls_are_refused(url: str | Path) -> None:
    with pytest.raises(UserError, match=r"^workdir = '\w+:/.*': only local paths are supported"):
        files.local(url, "workdir")


def test_local_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.local("~/run") == tmp_path / "run"
    assert files.local(Path("a:b/c")) == Path("a:b/c")
    assert files.local("C:/run") == Path("C:/run")
    for path, message in (("~nobody_at_all/x", "no such user"), ("", "must be the path"), ("a\0b", "must be the path")):
        with pytest.raises(UserError, match=message):
            files.local(path)


WRITERS: dict[str, Any] = {
    "text": lambda path: files.write_text(path, "new"),
    "json": lambda path: files.write_json(path, {"new": 1}),
    "arrays": lambda path: files.write_arrays(path, {"file": np.arange(3), "text": "ü"}),
    "picture": lambda path: files.write_picture(path, Image.new("L", (2, 2))),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_write_makes_its_folder_and_replaces(writer: str, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "file"
    for _ in range(2):
        WRITERS[writer](str(path))
    assert [each.name for each in path.parent.iterdir()] == ["file"]
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_no_draft(
    call: str, writer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    owner: Any = os if call == "fsync" else Path
    monkeypatch.setattr(owner, call, full)
    with pytest.raises(UserError, match=rf"^{re.escape(str(path))}: cannot be written \(no space left on device\)$"):
        WRITERS[writer](path)
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"


def half(path: Path, error: BaseException) -> None:
    with files.replacing(path) as file:
        file.write(b"half")
        raise error


def test_what_ends_the_work_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    for error in (KeyboardInterrupt(), ValueError("mine"), FileNotFoundError(errno.ENOENT, "gone", "/elsewhere")):
        with pytest.raises(type(error)) as raised:
            half(path, error)
        assert raised.value is error
        assert (path.read_text(), names(tmp_path)) == ("old", ["file"])
    # A process that ends without unwinding.
    with files.replacing(path):
        assert len(names(tmp_path)) == 2
        files.discard_drafts()
        assert names(tmp_path) == ["file"]
        files.write_text(next(iter(files.writing._DRAFTS)), "there again")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("folder", "out = '{}/folder': is a folder; must be the name of a file"),
        ("old/x.png", "{}/old/x.png: cannot be written (file exists)"),
        ("old/deep/x.png", "{}/old/deep/x.png: cannot be written (not a directory)"),
        ("n" * 300, "{}/" + "n" * 300 + ": cannot be written (file name too long)"),
    ],
)
def test_places_that_cannot_be_written_are_named(place: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "old").write_text("precious")
    with pytest.raises(UserError) as error:
        files.write_text(tmp_path / place, "new")
    assert str(error.value) == message.format(tmp_path)
    assert (names(tmp_path), (tmp_path / "old").read_text()) == (["folder", "old"], "precious")


def test_usable_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    before = names(tmp_path)
    assert files.usable_folder(tmp_path / "new" / "er", room=1) == tmp_path / "new" / "er"
    for place, message in (
        ("file", "run = '{0}/file': is a file, not a folder"),
        ("file/run", "run = '{0}/file/run': '{0}/file' is a file, not a folder"),
        ("link", "run = '{0}/link': is a broken link, not a folder"),
    ):
        with pytest.raises(UserError) as error:
            files.usable_folder(tmp_path / place, "run")
        assert str(error.value) == message.format(tmp_path)
    with pytest.raises(UserError, match=r"has no room: 1048576.0 GiB are needed and .* free; make room$"):
        files.usable_folder(tmp_path / "new", room=2**50)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match="cannot be written to: no permission, or read-only; choose another folder"):
        files.usable_folder(tmp_path / "new")
    assert names(tmp_path) == before


DAMAGED = [
    (b"", "is damaged: not valid JSON"),
    (b'{"a": 1', "is damaged: not valid JSON"),
    (b"\xff\xfe", "is damaged: no text from byte 0 on"),
    (b"[" * 100_000, "is damaged: JSON nested too deep"),
    (None, r"cannot be read \(no such file or directory\)"),
]


@pytest.mark.parametrize(("content", "message"), DAMAGED)
def test_damaged_json_is_named(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"^{re.escape(str(path))}: {message}") as error:
        files.read_json(path)
    assert "\n" not in str(error.value)


def test_drafts_of_killed_processes_go_with_the_next_writer(tmp_path: Path) -> None:
    killed = """if True:
        import os, signal
        from geonoise_jax import files
        with files.replacing("run/samples/a.png"):
            os.kill(os.getpid(), signal.SIGKILL)
    """
    assert subprocess.run([sys.executable, "-c", killed], cwd=tmp_path, check=False).returncode == -signal.SIGKILL
    (left,) = (tmp_path / "run" / "samples").iterdir()
    host, process = left.name.removeprefix(".draft-").rsplit("-", 2)[:2]
    old = time.time() - 7200.0
    kept = [left.with_name(name) for name in (f".draft-{host}-{os.getpid()}-0.tmp", f".draft-other-{process}-0.tmp")]
    for path in kept:
        path.touch()
        os.utime(path, (old, old))
    with files.locked(tmp_path / "run"):
        assert left.exists(), "it may be of another container"
    os.utime(left, (old, old))
    with files.locked(tmp_path / "run"):
        assert sorted((tmp_path / "run" / "samples").iterdir()) == sorted(kept)


@pytest.mark.parametrize("damage", ["emptied", "cut", "noise", "objects", "moved"])
def test_damaged_arrays_are_named(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, a=np.arange(100), b=np.array(["x", None]) if damage == "objects" else np.ones(3))
    whole = path.read_bytes()
    shifted = whole[:-6] + (2**31).to_bytes(4, "little") + whole[-2:]  # where the archive's directory lies
    made = {"emptied": b"", "cut": whole[:-30], "noise": b"\x93" * 100, "objects": whole, "moved": shifted}
    path.write_bytes(made[damage])
    with pytest.raises(UserError, match=rf"^{re.escape(str(path))}: is damaged.*; remove it, and it is made again$"):
        files.read_arrays(path)


def test_arrays_that_are_not_there_are_not_called_damaged(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.npz: cannot be read \(no such file or directory\)$"):
        files.read_arrays(tmp_path / "a.npz")


def test_lines_of_json(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    files.append_line(path, '{"a": 1}')
    files.append_line(path, '{"a": 2}')
    assert files.JsonLines(path).read() == [{"a": 1}, {"a": 2}]
    files.append_line(path, '{"a"')
    assert files.JsonLines(path).read(torn=True) == [{"a": 1}, {"a": 2}]
    with pytest.raises(UserError, match=r"a.jsonl: line 3: is damaged: not valid JSON"):
        files.JsonLines(path).read()
    files.append_line(path, "[]")
    with pytest.raises(UserError, match=r"a.jsonl: line 3: is damaged"):
        files.JsonLines(path).read(torn=True)
    path.write_text("7\n")
    with pytest.raises(UserError, match=r"a.jsonl: line 1: is damaged: must be a JSON object"):
        files.JsonLines(path).read()


HOLD = """
import sys, time
from geonoise_jax import files
with files.locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_holds_against_processes_and_threads_and_dies_with_its_holder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    with holder, holder.stdout:
        assert holder.stdout.readline() == "held\n"
        named = re.escape(f"workdir = {str(folder)!r}: is in use by process {holder.pid} on ")
        said = rf"^{named}\S+ since 20\d\d-.*; wait for it, stop it, or choose another folder$"
        for refused in (files.locked(folder, "workdir").__enter__, lambda: files.check_unlocked(folder, "workdir")):
            with pytest.raises(UserError, match=said):
                refused()
        holder.send_signal(signal.SIGKILL)
    assert json.loads((folder / ".writer.json").read_text())["pid"] == holder.pid
    files.check_unlocked(folder)
    with files.locked(folder):
        refusals: list[Exception] = []

        def other() -> None:
            try:
                files.check_unlocked(folder.parent / "." / "run")
            except UserError as error:
                refusals.append(error)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert f"process {os.getpid()} on" in str(refusals)
    with files.locked(folder):
        pass
    assert names(folder) == [".writer.lock"]


def test_files_are_written_here_only() -> None:
    """Whatever else writes would not be whole or not at all, nor know of other processes later."""
    writing = {"write_text", "write_bytes", "savez", "savez_compressed", "mkdir", "unlink", "rename", "rmtree", "dump"}
    for path in SOURCES:
        # Data sets are TFDS's, which has its own seam.
        # The folder of compiled programs is jax's.
        if room(path) in ("data", "files") or path.name == "runtime.py":
            continue
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "files":
                    continue
                modes = [each.value for each in node.args if isinstance(each, ast.Constant)]
                assert name not in writing, f"{path}:{node.lineno}"
                assert name != "open" or not {"w", "wb", "a", "x", "xb"} & set(modes), f"{path}:{node.lineno}"
