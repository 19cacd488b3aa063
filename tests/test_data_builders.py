"""Builders of the user, and data sets that somebody sent: what is prepared, read, and refused."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geonoise_jax.data import load_arrays, prepare
from tests.command_line import run

BUILDER = '''
"""A config with a data set of its own."""

import numpy as np
import tensorflow_datasets as tfds

from geonoise_jax.config import base_config, set_spec, spec


class OwnLines(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        point = tfds.features.Tensor(shape=(4,), dtype=np.float32)
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({"point": point}))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for key in range(20):
            yield key, {"point": np.full(4, key, np.float32)}


def get_config():
    config = base_config()
    set_spec(config.data, spec("own_lines"))
    set_spec(config.model, spec("ResidualMLP", width=8, depth=1))
    config.training.num_steps = 1
    config.training.batch_size = 8
    config.sampling.every = 0
    return config
'''


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config file that brings its builder, and the data set that it writes."""
    folder = tmp_path_factory.mktemp("builders")
    (folder / "mine.py").write_text(BUILDER)
    words = (f"--config={folder / 'mine.py'}", f"--workdir={folder / 'run'}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda _: None)
        ended = run("train", *words, f"--config.data.data_dir={folder / 'data'}")
    assert ended.status == 0, ended.err
    return folder


def test_a_config_file_may_bring_its_builder(written: Path) -> None:
    """Without TensorFlow, as long as its features can do without."""
    assert len(load_arrays("own_lines", "train[:50%]", data_dir=written / "data")) == 10


def test_what_is_prepared_is_read_without_the_builder(written: Path) -> None:
    program = f"""
from geonoise_jax.data import load_arrays
print(len(load_arrays("own_lines", "train", data_dir={str(written / "data")!r})))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.returncode) == ("20\n", 0), done.stderr


def test_a_builder_that_needs_tensorflow_says_so(tmp_path: Path) -> None:
    code = (
        BUILDER.replace("OwnLines", "OwnPictures")
        .replace("tfds.features.Tensor(shape=(4,), dtype=np.float32)", "tfds.features.Image(shape=(4, 1, 1))")
        .replace("np.full(4, key, np.float32)", "np.zeros((4, 1, 1), np.uint8)")
    )
    exec(code, {"__name__": "mine"})
    if importlib.util.find_spec("tensorflow"):
        pytest.skip("TensorFlow is here")
    with pytest.raises(ValueError, match="'own_pictures' cannot be prepared without tensorflow, which") as caught:
        prepare("own_pictures", data_dir=tmp_path)
    assert "\n" not in str(caught.value)


EVIL = "evil_module_of_a_stranger"


def crafted(written: Path, tmp_path: Path, name: str, change: Any) -> Path:
    """A copy of a prepared data set under another name, with other features, beside a module that must not run."""
    folder = tmp_path / "data" / name / "1.0.0"
    shutil.copytree(written / "data" / "own_lines" / "1.0.0", folder)
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps({**info, "name": name}))
    for path in folder.glob("own_lines*"):
        path.rename(folder / path.name.replace("own_lines", name))
    features = json.loads((folder / "features.json").read_text())
    (folder / "features.json").write_text(json.dumps(change(features)))
    (tmp_path / f"{EVIL}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    return tmp_path / "data"


def _replaced(features: dict[str, Any]) -> dict[str, Any]:
    features["featuresDict"]["features"]["point"]["pythonClassName"] = f"{EVIL}.Image"
    return features


def _nested(features: dict[str, Any]) -> dict[str, Any]:
    inner = json.dumps({"feature": {"type": f"{EVIL}.Image", "content": {}}})
    sequence = "tensorflow_datasets.core.features.sequence_feature.Sequence"
    features["featuresDict"]["features"]["point"] = {"pythonClassName": sequence, "jsonFeature": {"json": inner}}
    return features


CRAFTED = {
    "class": _replaced,
    "within_text": _nested,
    "old": lambda _: {"type": f"{EVIL}.Image", "content": {}},
    "other_spelling": lambda _: {"python_class_name": f"{EVIL}.Image"},
    "prefix": lambda _: {"pythonClassName": f"tensorflow_datasets_{EVIL}.Image"},
}


@pytest.mark.parametrize("kind", CRAFTED)
def test_files_do_not_make_a_module_run(
    kind: str, written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_dir = crafted(written, tmp_path, "from_a_stranger", CRAFTED[kind])
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        ValueError, match=rf"features.json names the class '\w*{EVIL}.Image', which is none of"
    ) as caught:
        load_arrays("from_a_stranger", "train", data_dir=data_dir)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_the_same_files_with_features_of_tfds_are_read(written: Path, tmp_path: Path) -> None:
    data_dir = crafted(written, tmp_path, "from_a_friend", lambda features: features)
    arrays = load_arrays("from_a_friend", "train", data_dir=data_dir)
    np.testing.assert_array_equal(np.sort(arrays.events[:, 0]), np.arange(20))


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "a/b/c",
        "../x",
        "a/..",
        "a b",
        "huggingface:mnist",
        "kaggle:x/y",
        "mnist/a=1",
        "Mnist",
        "x" * 9 + "\n",
        "gs://b/c",
        "/etc",
        "é",
    ],
)
def test_ill_formed_names_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data.name = .*: must be folder, npy, npz, or the name of") as caught:
        load_arrays(name, "train", data_dir=tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data_dir", ["gs://bucket/x", "s3://x", "gs:/x"])
@pytest.mark.parametrize("name", ["circles", "mnist"])
def test_addresses_are_no_folders(name: str, data_dir: str) -> None:
    with pytest.raises(ValueError, match=rf"data.data_dir = '{data_dir}': must be a local folder"):
        load_arrays(name, "train", data_dir=data_dir)


@pytest.mark.parametrize(
    ("key", "value"), [("config", "../../x"), ("version", ".."), ("config", "a/b"), ("config", 3), ("version", [1, 2])]
)
def test_no_argument_leads_out_of_the_folder(key: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"data.kwargs.{key} = {re.escape(repr(value))}: must be the name of a {key}"):
        load_arrays("from_a_stranger", "train", data_dir=tmp_path, builder_kwargs={key: value})
