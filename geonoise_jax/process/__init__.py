"""Schedules, targets, processes, time laws and sampling grids: pure jax, on which every other room stands.

``UEDM`` is a schedule and a target, which ``schedules`` and ``targets`` tell apart; loss weights are in ``weights``.
"""

from geonoise_jax.process import grids as grids
from geonoise_jax.process import schedules as schedules
from geonoise_jax.process import targets as targets
from geonoise_jax.process import times as times
from geonoise_jax.process import weights as weights
from geonoise_jax.process.process import Coeffs as Coeffs
from geonoise_jax.process.process import Process as Process
from geonoise_jax.process.schedules import VE as VE
from geonoise_jax.process.schedules import Cosine as Cosine
from geonoise_jax.process.schedules import EDMScaled as EDMScaled
from geonoise_jax.process.schedules import Linear as Linear
from geonoise_jax.process.schedules import Schedule as Schedule
from geonoise_jax.process.schedules import Trigonometric as Trigonometric
from geonoise_jax.process.schedules import VPDiscrete as VPDiscrete
from geonoise_jax.process.schedules import VPLinear as VPLinear
from geonoise_jax.process.targets import EDMNetwork as EDMNetwork
from geonoise_jax.process.targets import Equilibrium as Equilibrium
from geonoise_jax.process.targets import Noise as Noise
from geonoise_jax.process.targets import Score as Score
from geonoise_jax.process.targets import Signal as Signal
from geonoise_jax.process.targets import Target as Target
from geonoise_jax.process.targets import Velocity as Velocity
from geonoise_jax.process.targets import VPrediction as VPrediction
from geonoise_jax.process.times import Discrete as Discrete
from geonoise_jax.process.times import LogitNormal as LogitNormal
from geonoise_jax.process.times import LogNormal as LogNormal
from geonoise_jax.process.times import LogUniform as LogUniform
from geonoise_jax.process.times import TimeLaw as TimeLaw
from geonoise_jax.process.times import Uniform as Uniform
