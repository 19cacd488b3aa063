"""Fields: what samplers, stability measures and evaluation see of a model, exact or trained."""

from __future__ import annotations

from geonoise_jax.fields.base import EnergyField, Field
from geonoise_jax.fields.composition import SumField
from geonoise_jax.fields.conversion import ConvertedField
from geonoise_jax.fields.density import DensityField, EnergyGradient
from geonoise_jax.fields.energy import ENERGIES
from geonoise_jax.fields.exact import ExactField, ExactMarginal
from geonoise_jax.fields.guidance import GuidedField
from geonoise_jax.fields.network import MATMUL_PRECISIONS, NOISE_FEATURES, OUTPUTS, NetworkField, noise_feature
from geonoise_jax.fields.preconditioning import Preconditioner

__all__ = [
    "ENERGIES",
    "MATMUL_PRECISIONS",
    "NOISE_FEATURES",
    "OUTPUTS",
    "ConvertedField",
    "DensityField",
    "EnergyField",
    "EnergyGradient",
    "ExactField",
    "ExactMarginal",
    "Field",
    "GuidedField",
    "NetworkField",
    "Preconditioner",
    "SumField",
    "noise_feature",
]
