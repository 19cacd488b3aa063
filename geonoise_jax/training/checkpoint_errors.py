"""What can be wrong with a checkpoint: each an error of its own, since only damage moves anything aside."""

from __future__ import annotations

import errno
import os

from geonoise_jax.errors import UserError

# The most of an error of another library that is quoted.
_REASON = 200
_FAILURES = ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "EIO", "ESTALE", "ENOENT")
# File layers quote them in the midst of their own words.
_OF_THE_SYSTEM = tuple(os.strerror(getattr(errno, name)) for name in _FAILURES if hasattr(errno, name))


class DamagedCheckpointError(UserError):
    """The contents of a checkpoint, or of every checkpoint of a workdir, are not what was saved."""


class UnreadableCheckpointError(UserError):
    """A checkpoint may be sound, but the system does not let it be read, as while its file server is away."""


class UnsavedError(UserError):
    """A checkpoint could not be saved."""


class OtherTypesError(UserError):
    """A sound checkpoint holds arrays of other dtypes or shapes than are asked for."""


def reason(error: Exception) -> str:
    """Return what the system said, where an error of another library quotes it, or its first line, shortened."""
    text = str(error)
    quoted = next((words for words in _OF_THE_SYSTEM if words in text), None)
    if quoted:
        return quoted[0].lower() + quoted[1:]
    line = text.splitlines()[0] if text else type(error).__name__
    return line if len(line) <= _REASON else line[: _REASON - 3] + "..."
