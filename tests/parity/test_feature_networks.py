"""Feature networks against the peers' own, with the same weights: files, resizing, features and logits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cleanfid.resize
import jax.numpy as jnp
import numpy as np
import pytest
import pytorch_fid.inception
import torch
from efficientnet_lite_pytorch import EfficientNet
from torch.nn import functional
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from geonoise_jax.evaluation.features import efficientnet_lite0, extract, inception, torch_files, weights
from geonoise_jax.evaluation.features.resizing import resize
from tests.parity.agreement import Agree
from tests.torch_state_files import random_state

FEATURES = 1e-4
RESIZED = 1e-5
SIZES = [(32, 32), (64, 48), (299, 299), (320, 512)]
RNG = np.random.default_rng


def pixels(height: int, width: int, num: int = 2) -> np.ndarray:
    """Images with structure at all scales, so that features differ between them."""
    rng = RNG(height * width)
    coarse = np.kron(rng.integers(0, 256, (num, 4, 4, 3)), np.ones((1, -(-height // 4), -(-width // 4), 1)))
    fine = rng.normal(0, 30, (num, height, width, 3))
    return np.clip(coarse[:, :height, :width] + fine, 0, 255).astype(np.uint8)


def channels_first(images: np.ndarray, dtype: Any = torch.float64) -> torch.Tensor:
    return torch.as_tensor(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).to(dtype)


def by_torch(images: np.ndarray) -> np.ndarray:
    found = functional.interpolate(channels_first(images), size=(299, 299), mode="bilinear", align_corners=False)
    return found.permute(0, 2, 3, 1).numpy()


def by_torch_fidelity(images: np.ndarray) -> np.ndarray:
    """In float32, which its places follow."""
    given = channels_first(images, torch.float32)
    found = interpolate_bilinear_2d_like_tensorflow1x(given, size=(299, 299), align_corners=False)
    return found.permute(0, 2, 3, 1).numpy()


def by_clean_fid(images: np.ndarray) -> np.ndarray:
    return np.stack([cleanfid.resize.build_resizer("clean")(image) for image in images])


RESIZERS: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "bilinear": ("torch", by_torch),
    "bilinear_tf1": ("torch-fidelity", by_torch_fidelity),
    "bicubic_pil": ("clean-fid", by_clean_fid),
}


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("rule", RESIZERS)
def test_resizing(agree: Agree, rule: str, height: int, width: int) -> None:
    peer, resizer = RESIZERS[rule]
    images = pixels(height, width)
    ours = jnp.clip(resize(jnp.asarray(images, jnp.float32), 299, rule), 0.0, 255.0)
    agree(peer, f"resizing of images, {rule}", ours, resizer(images), RESIZED)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """Random weights with the names and shapes that pytorch-fid's network has."""
    with pytest.MonkeyPatch.context() as patch:
        # The network as it is built, before weights are asked for.
        patch.setattr(pytorch_fid.inception, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(torch.nn.Module, "load_state_dict", lambda *_, **__: None)
        like = pytorch_fid.inception.fid_inception_v3().state_dict()
    counts = {name: value for name, value in like.items() if name.endswith("num_batches_tracked")}
    values = random_state({name: tuple(value.shape) for name, value in like.items() if name not in counts})
    return {name: counts[name] if name in counts else torch.as_tensor(values[name]) for name in like}


@pytest.fixture(scope="module", params=[False, True], ids=["old format", "zip"])
def file(state: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory, request: Any) -> Path:
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(state, path, _use_new_zipfile_serialization=request.param)
    return path


def test_files_of_torch_are_read_as_torch_reads_them(agree: Agree, file: Path, state: dict[str, torch.Tensor]) -> None:
    found = torch_files.read(file)
    assert list(found) == list(state)
    for name, value in state.items():
        assert found[name].dtype == value.numpy().dtype
        if value.numel() and value.abs().max() > 0:
            agree("torch", "every array of a state dict", found[name], value)


@pytest.mark.parametrize(("height", "width"), SIZES[:2])
def test_features_of_pytorch_fid(
    agree: Agree, state: dict[str, torch.Tensor], file: Path, monkeypatch: pytest.MonkeyPatch, height: int, width: int
) -> None:
    monkeypatch.setattr(pytorch_fid.inception, "load_state_dict_from_url", lambda *_, **__: state)
    theirs = pytorch_fid.inception.InceptionV3([3]).eval()
    images = pixels(height, width)
    with torch.no_grad():
        wanted = theirs(channels_first(images) / 255)[0][:, :, 0, 0]
    agree("pytorch-fid", "features", extract(inception("pytorch_fid", path=file), images).features, wanted, FEATURES)


@pytest.mark.parametrize(("height", "width"), SIZES[:2])
def test_features_of_torch_fidelity(agree: Agree, file: Path, height: int, width: int) -> None:
    theirs = FeatureExtractorInceptionV3(
        "inception-v3-compat",
        ["2048", "logits_unbiased"],
        feature_extractor_weights_path=str(file),
        feature_extractor_internal_dtype="float64",
    )
    images = pixels(height, width)
    features, logits = theirs(channels_first(images, torch.uint8))
    found = extract(inception("torch_fidelity", path=file), images)
    agree("torch-fidelity", "features", found.features, features, FEATURES)
    agree("torch-fidelity", "logits without bias", found.logits, logits, FEATURES)


@pytest.mark.parametrize("size", [112, 224])
def test_efficientnet_lite0(agree: Agree, size: int) -> None:
    """Its padding depends on the size, for which it is built."""
    theirs = EfficientNet.from_name("efficientnet-lite0", image_size=size).eval()
    theirs.load_state_dict(torch.load(weights.efficientnet_lite0()))
    images = pixels(size, size)
    with torch.no_grad():
        seen = (channels_first(images) - 127) / 128
        features, logits = theirs.extract_features(seen).mean((2, 3)), theirs(seen)
    found = extract(efficientnet_lite0(size=size), images)
    agree("efficientnet-lite-pytorch", "features", found.features, features, FEATURES)
    agree("efficientnet-lite-pytorch", "logits", found.logits, logits, FEATURES)
