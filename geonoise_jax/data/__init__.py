"""Data sets and input pipelines; TFDS is imported only when a data set is prepared or read, TensorFlow never by us."""

from geonoise_jax.data.arrays import Arrays
from geonoise_jax.data.circle_points import CirclesSpec, circles_frame
from geonoise_jax.data.in_memory import from_items, from_numpy
from geonoise_jax.data.load import load_arrays
from geonoise_jax.data.pipeline import Pipeline
from geonoise_jax.data.prepare import described, prepare

__all__ = [
    "Arrays",
    "CirclesSpec",
    "Pipeline",
    "circles_frame",
    "described",
    "from_items",
    "from_numpy",
    "load_arrays",
    "prepare",
]
