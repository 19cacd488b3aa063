"""Configurations: the defaults, and how a config is loaded, overridden and stored.

A config is a locked ``ConfigDict``. What is an object in the code is a *spec* ``{name, kwargs}`` in the config; the
kwargs of a spec are free here and are checked against the object's own signature when ``build`` makes it.
"""

from geonoise_jax.config.defaults import AUTONOMOUS as AUTONOMOUS
from geonoise_jax.config.defaults import GRIDLESS as GRIDLESS
from geonoise_jax.config.defaults import UNSET_GRID as UNSET_GRID
from geonoise_jax.config.defaults import UNSET_STEPS as UNSET_STEPS
from geonoise_jax.config.defaults import UNSET_TIME as UNSET_TIME
from geonoise_jax.config.defaults import ConfigDict as ConfigDict
from geonoise_jax.config.defaults import base_config as base_config
from geonoise_jax.config.defaults import differences as differences
from geonoise_jax.config.defaults import keys as keys
from geonoise_jax.config.defaults import set_spec as set_spec
from geonoise_jax.config.defaults import spec as spec
from geonoise_jax.config.loading import absolute as absolute
from geonoise_jax.config.loading import load as load
from geonoise_jax.config.overrides import fit_sampling as fit_sampling
from geonoise_jax.config.overrides import literal as literal
from geonoise_jax.config.overrides import override as override
from geonoise_jax.config.stored import dumps as dumps
from geonoise_jax.config.stored import loads as loads
