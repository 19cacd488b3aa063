"""Distances of features against pytorch-fid, torch-fidelity and prdc, each of the same features.

Differences that are conventions, not errors:

* KID of torch-fidelity is the mean over subsets drawn by a generator of its own; with one subset of all features it is
  :func:`~geonoise_jax.evaluation.kernel_distance.polynomial_mmd`.
* Splits of torch-fidelity's inception score are taken without shuffling.
* prdc counts points on the edge of a ball as outside, which no continuous features show.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geonoise_jax.evaluation.frechet import frechet_distance
from geonoise_jax.evaluation.inception_score import inception_score
from geonoise_jax.evaluation.kernel_distance import polynomial_mmd
from geonoise_jax.evaluation.manifolds import density_coverage, precision_recall
from tests.parity.agreement import Agree
from tests.parity.peers import fid_score, fidelity_isc, fidelity_kid, fidelity_prc, prdc

BOUND = 1e-6


def features(seed: int, num: int, dim: int) -> np.ndarray:
    """Skewed and of unequal scales, as those of a network after its last rectifier."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((dim, dim)) * np.exp(-3.0 * np.arange(dim) / dim)
    return np.maximum(rng.standard_normal((num, dim)) @ mixing / np.sqrt(dim) + 0.3, 0.0)


@pytest.mark.filterwarnings("ignore:The `disp` argument is deprecated:DeprecationWarning")
@pytest.mark.parametrize(("num", "dim"), [(500, 16), (1000, 128), (2000, 512)])
def test_frechet_distance(agree: Agree, num: int, dim: int) -> None:
    x, y = features(0, num, dim), features(1, num + 100, dim)
    moments = [(each.mean(axis=0), np.cov(each, rowvar=False)) for each in (x, y)]
    theirs = fid_score.calculate_frechet_distance(*moments[0], *moments[1])
    agree("pytorch-fid", "Fréchet distance", frechet_distance(x, y).value, theirs, BOUND)


@pytest.mark.parametrize(("num", "dim"), [(100, 16), (1000, 256)])
def test_kid(agree: Agree, num: int, dim: int) -> None:
    x, y = features(2, num, dim), features(3, num, dim)
    theirs = fidelity_kid.kid_features_to_metric(
        torch.as_tensor(x), torch.as_tensor(y), kid_subsets=1, kid_subset_size=num, verbose=False
    )
    value = theirs["kernel_inception_distance_mean"]
    agree("torch-fidelity", "kernel distance of one subset", polynomial_mmd(x, y).value, value, BOUND)


@pytest.mark.parametrize(("num", "splits"), [(1000, 10), (1003, 7)])
def test_inception_score(agree: Agree, num: int, splits: int) -> None:
    logits = 3.0 * np.random.default_rng(4).standard_normal((num, 1008))
    theirs = fidelity_isc.isc_features_to_metric(torch.as_tensor(logits), splits=splits, shuffle=False)
    ours = inception_score(logits, splits=splits, seed=None)
    agree("torch-fidelity", "inception score", ours.value, theirs["inception_score_mean"], BOUND)
    agree("torch-fidelity", "its scatter over splits", ours.over_splits, theirs["inception_score_std"], BOUND)


@pytest.mark.parametrize(("num", "dim", "k"), [(300, 4, 3), (1000, 64, 3), (400, 16, 5)])
def test_precision_and_recall(agree: Agree, num: int, dim: int, k: int) -> None:
    samples, data = features(5, num, dim), features(6, num + 50, dim) * 1.1
    theirs = fidelity_prc.prc_features_to_metric(
        torch.as_tensor(samples), torch.as_tensor(data), prc_neighborhood=k, save_cpu_ram=False, verbose=False
    )
    ours = precision_recall(samples, data, k=k)
    for name in ("precision", "recall"):
        agree("torch-fidelity", name, getattr(ours, name).value, theirs[name], BOUND)


@pytest.mark.parametrize(("num", "dim", "k"), [(300, 4, 3), (1000, 64, 5)])
def test_all_four_of_prdc(agree: Agree, num: int, dim: int, k: int) -> None:
    samples, data = features(7, num, dim), features(8, num + 50, dim) * 1.1
    theirs = prdc.compute_prdc(real_features=data, fake_features=samples, nearest_k=k)
    ours = {**precision_recall(samples, data, k=k)._asdict(), **density_coverage(samples, data, k=k)._asdict()}
    for name, value in theirs.items():
        agree("prdc", name, ours[name].value, value, BOUND)
