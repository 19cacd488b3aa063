"""The Gauss-Legendre panels of the exact fields: their order, and what is left of the rounding of their nodes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax.exact import Distribution, FiniteSet, Gaussian, Marginal, survey
from geonoise_jax.exact.quadrature import ORDER, gauss_legendre
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import Linear
from geonoise_jax.process.targets import Velocity
from geonoise_jax.process.times import Uniform


def peak(centre: float, width: float, panels: int, reach: float = 6.0, shift: float = 0.0) -> np.ndarray:
    """Errors of mass, mean and standard deviation of a Gaussian, in units of its width, by panels of equal width."""
    low, high = centre - (reach - shift) * width, centre + (reach + shift) * width
    edges = jnp.linspace(low, high, panels + 1, dtype=jnp.result_type(float))[None]
    nodes, weights = (np.asarray(values[0], np.float64) for values in gauss_legendre(edges))
    # About the middle of the window as it is: rounding may move the whole.
    z = (nodes - centre) / width
    density = weights * np.exp(-0.5 * z * z) / (width * np.sqrt(2.0 * np.pi))
    mean = (density * z).sum() / density.sum()
    var = (density * (z - mean) ** 2).sum() / density.sum()
    return np.array([density.sum() - 1.0, mean, np.sqrt(var) - 1.0])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("degree", [0, 7, 2 * ORDER - 2])
def test_polynomials_are_exact(degree: int) -> None:
    nodes, weights = (np.asarray(values[0]) for values in gauss_legendre(jnp.asarray([[0.0, 0.25, 1.0]])))
    assert len(nodes) == 2 * ORDER
    assert (weights * nodes**degree).sum() == pytest.approx(1.0 / (degree + 1), rel=1e-13)


@pytest.mark.parametrize("centre", [0.0, -1.3, -4.6, 7.3])
@pytest.mark.parametrize("panels", [1, 2, 3])
def test_nodes_that_are_rounded_to_parts_of_a_peak_do_no_harm(centre: float, panels: int) -> None:
    """As far from zero and as narrow as the posteriors of images of 3,072 entries."""
    width = 1.0 / np.sqrt(2.0 * 3072)
    for shift in (0.0, 0.21, -0.4):
        assert np.abs(peak(centre, width, panels, shift=shift)).max() < 3e-6


@pytest.mark.usefixtures("x64")
def test_one_panel_holds_the_whole_of_a_peak() -> None:
    """Between the tails that are left out below: 1e-9 of the mass, and less than 3e-7 of the width."""
    for shift in (0.0, 0.3, -0.3):
        assert np.abs(peak(0.0, 1.0, 1, shift=shift)).max() < 3e-7


def test_panels_of_no_width_hold_nothing() -> None:
    nodes, weights = gauss_legendre(jnp.asarray([[1.0, 1.0, 1.5, 1.5]]))
    assert np.isfinite(np.asarray(nodes)).all()
    np.testing.assert_array_equal(np.asarray(weights[0, :ORDER]), 0.0)
    np.testing.assert_array_equal(np.asarray(weights[0, 2 * ORDER :]), 0.0)
    assert (np.asarray(weights[0, ORDER : 2 * ORDER]) > 0.0).all()
    assert jax.tree.leaves(weights)[0].dtype == jnp.float32


@pytest.mark.parametrize("distribution", [FiniteSet(np.eye(3, dtype=np.float32)), Gaussian(np.ones(3), np.eye(3))])
def test_no_argument_of_a_program_is_wider_than_the_observations(
    distribution: Distribution, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What jax makes of 64 bits depends on the precision that is enabled, which may be another at the next call."""
    widths: set[int] = set()

    def noting(function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            widths.update(np.asarray(leaf).dtype.itemsize for leaf in jax.tree.leaves(arguments[:5]))
            return function(*arguments)

        return call

    for name in ("_sparse", "_dense"):
        monkeypatch.setattr(survey, name, noting(getattr(survey, name)))
    process, law = Process(Linear(), Velocity()), Uniform(0.001, 0.999)
    Marginal(distribution, process, law).field(jnp.array([[0.3, 0.1, -0.2]], jnp.float32))
    assert widths <= {1, 4}
    assert widths
