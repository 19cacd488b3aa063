"""Train, sample and exactly analyse noise-conditional and noise-blind diffusion and flow models in JAX.

The public names are here, ``import geonoise_jax as gn``; each is imported when it is first used, jax included.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from geonoise_jax import lazy as _lazy

__version__ = "0.1.0"

if TYPE_CHECKING:
    from geonoise_jax import build as build
    from geonoise_jax import config as config
    from geonoise_jax import data as data
    from geonoise_jax import drawing as drawing
    from geonoise_jax import evaluation as evaluation
    from geonoise_jax import exact as exact
    from geonoise_jax import fields as fields
    from geonoise_jax import nets as nets
    from geonoise_jax import process as process
    from geonoise_jax import sampling as sampling
    from geonoise_jax import stability as stability
    from geonoise_jax import studies as studies
    from geonoise_jax import training as training
    from geonoise_jax.errors import UserError as UserError
    from geonoise_jax.evaluation.restore import restore as restore
    from geonoise_jax.exact import Circles as Circles
    from geonoise_jax.exact import Distribution as Distribution
    from geonoise_jax.exact import FiniteSet as FiniteSet
    from geonoise_jax.exact import Gaussian as Gaussian
    from geonoise_jax.exact import Marginal as Marginal
    from geonoise_jax.exact import Mixture as Mixture
    from geonoise_jax.exact import QuadratureWarning as QuadratureWarning
    from geonoise_jax.exact import Subspace as Subspace
    from geonoise_jax.fields import ConvertedField as ConvertedField
    from geonoise_jax.fields import DensityField as DensityField
    from geonoise_jax.fields import ExactField as ExactField
    from geonoise_jax.fields import Field as Field
    from geonoise_jax.fields import GuidedField as GuidedField
    from geonoise_jax.fields import NetworkField as NetworkField
    from geonoise_jax.fields import Preconditioner as Preconditioner
    from geonoise_jax.fields import SumField as SumField
    from geonoise_jax.process import VE as VE
    from geonoise_jax.process import Cosine as Cosine
    from geonoise_jax.process import Discrete as Discrete
    from geonoise_jax.process import EDMNetwork as EDMNetwork
    from geonoise_jax.process import EDMScaled as EDMScaled
    from geonoise_jax.process import Equilibrium as Equilibrium
    from geonoise_jax.process import Linear as Linear
    from geonoise_jax.process import LogitNormal as LogitNormal
    from geonoise_jax.process import LogNormal as LogNormal
    from geonoise_jax.process import LogUniform as LogUniform
    from geonoise_jax.process import Noise as Noise
    from geonoise_jax.process import Process as Process
    from geonoise_jax.process import Schedule as Schedule
    from geonoise_jax.process import Score as Score
    from geonoise_jax.process import Signal as Signal
    from geonoise_jax.process import Target as Target
    from geonoise_jax.process import TimeLaw as TimeLaw
    from geonoise_jax.process import Trigonometric as Trigonometric
    from geonoise_jax.process import Uniform as Uniform
    from geonoise_jax.process import Velocity as Velocity
    from geonoise_jax.process import VPDiscrete as VPDiscrete
    from geonoise_jax.process import VPLinear as VPLinear
    from geonoise_jax.process import VPrediction as VPrediction
    from geonoise_jax.process import grids as grids
    from geonoise_jax.process import schedules as schedules
    from geonoise_jax.process import targets as targets
    from geonoise_jax.process import times as times
    from geonoise_jax.process import weights as weights
    from geonoise_jax.sampling import Samples as Samples
    from geonoise_jax.sampling import denoise as denoise
    from geonoise_jax.sampling import energy_score as energy_score
    from geonoise_jax.sampling import generate as generate
    from geonoise_jax.sampling import sample as sample
    from geonoise_jax.training.train import train as train
else:
    __getattr__, __dir__ = _lazy.exports(
        __name__,
        {
            "geonoise_jax.errors": ("UserError",),
            "geonoise_jax.evaluation.restore": ("restore",),
            "geonoise_jax.exact": (
                *("Circles", "Distribution", "FiniteSet", "Gaussian", "Marginal", "Mixture", "QuadratureWarning"),
                "Subspace",
            ),
            "geonoise_jax.fields": (
                *("ConvertedField", "DensityField", "ExactField", "Field", "GuidedField", "NetworkField"),
                *("Preconditioner", "SumField"),
            ),
            "geonoise_jax.process": (
                *("Cosine", "Discrete", "EDMNetwork", "EDMScaled", "Equilibrium", "Linear", "LogNormal", "LogUniform"),
                *("LogitNormal", "Noise", "Process", "Schedule", "Score", "Signal", "Target", "TimeLaw"),
                *("Trigonometric", "Uniform", "VE", "VPDiscrete", "VPLinear", "VPrediction", "Velocity"),
            ),
            "geonoise_jax.sampling": ("Samples", "denoise", "energy_score", "generate", "sample"),
            "geonoise_jax.training.train": ("train",),
        },
        modules={
            **{
                room: f"{__name__}.{room}"
                for room in (
                    *("build", "config", "data", "drawing", "evaluation", "exact", "fields", "nets", "process"),
                    *("sampling", "stability", "studies", "training"),
                )
            },
            **{each: f"{__name__}.process.{each}" for each in ("grids", "schedules", "targets", "times", "weights")},
        },
        advice={"UEDM": "it is a schedule and a target: use schedules.UEDM or targets.UEDM"},
    )
