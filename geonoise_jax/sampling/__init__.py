"""Samplers: from any Field to samples, on the schedule and target code that training uses."""

from geonoise_jax.sampling.generate import sample as sample
from geonoise_jax.sampling.ode import euler as euler
from geonoise_jax.sampling.ode import heun as heun
from geonoise_jax.sampling.ode import trajectory as trajectory
