"""Paths in a bucket: which are taken, what is there, whole writes, and what is said when a bucket says no."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image

from geonoise_jax import files
from geonoise_jax.errors import UserError
from geonoise_jax.evaluation.evaluator.kept import Kept
from geonoise_jax.evaluation.evaluator.records import Log
from geonoise_jax.training import workdir
from geonoise_jax.training.posthoc_ema import Snapshots
from tests import fake_bucket
from tests.command_line import run
from tests.fake_bucket import FakeClient

RUN = "gs://bucket/run"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    return fake_bucket.install(monkeypatch)


def test_paths(client: FakeClient, tmp_path: Path) -> None:
    for text in (RUN, "gs:/bucket/run", "gs://bucket//run/", "gs://bucket/./run", Path(RUN), files.location(RUN)):
        found = files.location(text, "workdir")
        assert (str(found), found.name, str(found / "a" / "b")) == (RUN, "run", f"{RUN}/a/b")
        assert not isinstance(found, Path)
    assert files.absolute(RUN) == files.location(RUN)
    assert files.location(tmp_path) == tmp_path
    assert isinstance(files.location(tmp_path), Path)
    assert not client.calls


@pytest.mark.parametrize(
    "path", ["gs://", "gs://bucket", "gs://bucket/", "gs://B/x", "gs://b/a*", "gs://b/a/../b", "gs://b/x#1"]
)
def test_what_is_no_path_of_a_bucket_is_refused(path: str, client: FakeClient) -> None:
    with pytest.raises(UserError, match=f"^workdir = {re.escape(repr(path))}: must be gs://BUCKET/FOLDER"):
        files.location(path, "workdir")


@pytest.mark.parametrize("path", ["s3://bucket/run", "https://x.org/a", Path("s3://bucket/run"), "file:///a"])
def test_other_addresses_are_refused(path: str | Path) -> None:
    with pytest.raises(UserError, match=r"^workdir = '\w+:/.*': must be a local path or gs://BUCKET/FOLDER"):
        files.location(path, "workdir")


@pytest.mark.skipif(importlib.util.find_spec("gcsfs") is not None, reason="the packages for buckets are installed")
def test_without_the_packages_it_is_said_what_to_install() -> None:
    said = "buckets need gcsfs and google-cloud-storage: pip install 'geonoise_jax[gcs]', or give a local path"
    with pytest.raises(UserError, match=re.escape(f"workdir = '{RUN}': {said}")):
        files.location(RUN, "workdir")
    ended = run("sample", f"--workdir={RUN}")
    assert (ended.status, ended.err.count("\n")) == (2, 1)
    assert said in ended.err


def test_data_stay_local(client: FakeClient) -> None:
    with pytest.raises(UserError, match="only local paths are supported here"):
        files.local(RUN, "data.data_dir")


def test_files_are_whole_and_folders_are_what_lies_below(client: FakeClient) -> None:
    arrays = {"a": np.arange(3), "text": "ü"}
    files.write_text(f"{RUN}/deep/a.txt", "ü")
    files.write_arrays(f"{RUN}/b.npz", arrays)
    files.write_picture(f"{RUN}/c.png", Image.new("L", (2, 2)))
    assert files.read_text(f"{RUN}/deep/a.txt") == "ü"
    with files.opened(f"{RUN}/b.npz") as file, np.load(file) as stored:
        assert stored["a"].tolist() == [0, 1, 2]
    assert [path.name for path in files.listed(RUN)] == ["b.npz", "c.png", "deep"]
    assert files.listed("gs://bucket/nothing") == []
    kinds = {
        name: (files.exists(f"{RUN}/{name}"), files.is_folder(f"{RUN}/{name}")) for name in ("deep", "b.npz", "de")
    }
    assert kinds == {"deep": (True, True), "b.npz": (True, False), "de": (False, False)}
    files.remove(f"{RUN}/b.npz")
    files.remove(f"{RUN}/b.npz")
    assert client.names() == ["run/c.png", "run/deep/a.txt"]


def half(path: str) -> None:
    with files.replacing(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt


def test_what_fails_midway_writes_nothing(client: FakeClient) -> None:
    files.write_text(f"{RUN}/a", "old")
    with pytest.raises(KeyboardInterrupt):
        half(f"{RUN}/a")
    assert files.read_text(f"{RUN}/a") == "old"


def test_a_folder_is_moved_whole_before_the_first_object_is_gone(client: FakeClient) -> None:
    for name in ("a", "b/c"):
        files.write_text(f"{RUN}/checkpoints/8/{name}", name)
    files.write_text(f"{RUN}/checkpoints/80", "another")
    client.calls.clear()
    files.move_folder(f"{RUN}/checkpoints/8", f"{RUN}/damaged/8")
    words = [word for word, _ in client.calls]
    assert words.index("delete") > max(at for at, word in enumerate(words) if word == "write")
    assert client.names() == ["run/checkpoints/80", "run/damaged/8/a", "run/damaged/8/b/c"]
    assert files.unreadable(f"{RUN}/damaged/8") == ""


def failing(name: str, message: str) -> Callable[[str, str], None]:
    def fail(word: str, _: str) -> None:
        raise requests.ConnectionError(message) if name == "ConnectionError" else fake_bucket.error(name, message)

    return fail


@pytest.mark.parametrize(
    ("name", "message", "said", "kind"),
    [
        ("Forbidden", "x lacks storage.objects.list\nmore", "no permission: x lacks storage.objects.list", UserError),
        ("Unauthorized", "Anonymous caller", "no valid credentials; see `gcloud", UserError),
        ("GoogleAuthError", "none found", "no valid credentials; see `gcloud", UserError),
        ("NotFound", "404", "no such file, or no bucket 'bucket'", UserError),
        ("ServerError", "503", "503", files.UnavailableError),
        ("ConnectionError", "refused", "the storage cannot be reached: refused", files.UnavailableError),
        ("TransportError", "refused", "the storage cannot be reached: refused", files.UnavailableError),
    ],
)
def test_a_refusal_is_one_line_with_its_cause(
    name: str, message: str, said: str, kind: type[UserError], client: FakeClient
) -> None:
    client.before = failing(name, message)
    for what, call in {
        "cannot be read": lambda: files.read_text(RUN),
        "cannot be written": lambda: files.write_text(RUN, ""),
        "cannot be listed": lambda: files.listed(RUN),
        "cannot be seen": lambda: files.exists(RUN),
    }.items():
        with pytest.raises(UserError) as raised:
            call()
        assert str(raised.value).startswith(f"{RUN}: {what} ({said}")
        assert "\n" not in str(raised.value)
        assert type(raised.value) is kind
    with pytest.raises(kind, match=r"^[^(]*: cannot be read \(") as raised:  # and not that it is to be removed
        files.read_arrays(f"{RUN}/a.npz")
    assert type(raised.value) is kind
    with pytest.raises(kind, match=r"^[^(]*: cannot be read \(") as raised:
        Snapshots(files.location(RUN)).widths(1)
    assert type(raised.value) is kind
    with pytest.raises(kind) as raised:
        files.usable_folder(RUN, "workdir")
    assert str(raised.value).startswith(f"workdir = {RUN!r}: cannot be used ({said}")


def test_usable_folders(client: FakeClient) -> None:
    assert files.usable_folder(RUN, room=2**60) == files.location(RUN)
    assert not {word for word, _ in client.calls} & {"write", "delete"}
    client.objects["bucket"]["file"] = fake_bucket.Object(b"", 1)
    with pytest.raises(UserError, match="^run = 'gs://bucket/file': is a file, not a folder$"):
        files.usable_folder("gs://bucket/file", "run")
    with pytest.raises(UserError, match=r"^run = 'gs://none/x': cannot be used \(no such file, or no bucket 'none'\)$"):
        files.usable_folder("gs://none/x", "run")


def test_where_only_part_of_a_bucket_may_be_written_to_it_is_tried(client: FakeClient) -> None:
    client.allowed.clear()
    files.usable_folder(RUN)
    assert [word for word, _ in client.calls if word in ("write", "delete")] == ["write", "delete"]
    assert client.names() == []

    def refuse(word: str, _: str) -> None:
        if word == "write":
            raise fake_bucket.error("Forbidden", "no create")

    client.before = refuse
    with pytest.raises(UserError, match=r"^path = 'gs://bucket/run': cannot be used \(no permission: no create\)$"):
        files.usable_folder(RUN)


def test_a_workdir_is_claimed_and_read(client: FakeClient) -> None:
    facts = workdir.Facts((2,), None, 0.0, 1.0, 5, 6)
    record: Any = type("Record", (), {"compare": lambda *_: None, "write": lambda *_: None})()
    folder = workdir.usable(RUN)
    with workdir.held(folder):
        workdir.claim(folder, record, facts)
        assert client.names() == ["run/.writer.json", "run/data.json"]
    assert client.names() == ["run/data.json"]
    assert workdir.read_facts(folder) == facts
    with pytest.raises(UserError, match=f"workdir = '{RUN}': no config.json in it"):
        workdir.read_config(RUN)
    with pytest.raises(UserError, match="no such folder"):
        workdir.read_config("gs://bucket/none")
    files.write_text(f"{RUN}/metrics.jsonl/000001/00000000-00000001.jsonl", "{}\n")
    with pytest.raises(UserError, match=r"holds metrics.jsonl but no config.json"):
        workdir.usable(RUN)


def test_what_an_evaluation_keeps(client: FakeClient) -> None:
    folder = files.location(RUN) / "evaluation"
    kept = Kept(folder / "1-a")
    kept.add({"x": np.arange(4.0)})
    kept.add({"x": np.arange(4.0, 6.0)})
    assert Kept(folder / "1-a").read("x", 5).tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    log = Log(folder)
    log.add({"key": "a", "value": 1.0})
    log.add({"key": "b", "value": 2.0})
    assert [each["value"] for each in Log(folder).all] == [1.0, 2.0]


def test_stored_averages(client: FakeClient) -> None:
    snapshots = Snapshots(RUN)
    for step in (2, 4):
        snapshots.save(step, (0.05,), ({"a": np.full(3, float(step))},))
    assert snapshots.steps == [2, 4]
    assert snapshots.read(4)[0]["a"].tolist() == [4.0] * 3
    snapshots.rewind(2)
    assert Snapshots(RUN).steps == [2]
