"""Training runs that studies make for themselves."""

from __future__ import annotations

import logging
import shlex
import signal
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from geonoise_jax import build, config

_LOG = logging.getLogger(__name__)


class Training(NamedTuple):
    """A run that a study measures.

    Attributes:
        config: file and variant of its config.
        changes: keys of it with other values.
    """

    config: str
    changes: Mapping[str, Any]

    def choose(self) -> ConfigDict:
        """Return the config."""
        return config.override(config.load(self.config), [(key, str(value)) for key, value in self.changes.items()])

    def name(self, study: str) -> str:
        """Return a name for the workdir of a study's run, another for each length of training."""
        return f"{study}-{self.choose().training.num_steps}"

    def command(self, folder: PurePath) -> str:
        """Return the command line that trains it in a workdir."""
        words = [f"--config={self.config}", f"--workdir={folder}"]
        words += [f"--config.{key}={value}" for key, value in self.changes.items()]
        return shlex.join(["geonoise", "train", *words])


def train(chosen: ConfigDict, folder: PurePath) -> None:
    """Train in a workdir, or go on there.

    A signal ends the study as it ends any other command, once the state is saved.
    """
    result = build.train(chosen, folder)
    if result.stopped_by:
        _LOG.info("saved step %d of %s; the same command goes on there", result.step, folder)
        signal.raise_signal(signal.Signals[result.stopped_by])
        raise InterruptedError(f"{folder}: stopped by {result.stopped_by}")
