"""Paths that a user gives for own data."""

from __future__ import annotations

from pathlib import Path

from geonoise_jax.errors import UserError


def found(key: str, value: object, *, folder: bool) -> Path:
    """Return an existing path, `~` expanded.

    Args:
      key: what gave it, for errors.
      value: the path.
      folder: whether it must be a folder, or else a file.

    Raises:
      ValueError: it is no text, does not exist, or is of the other kind.
    """
    wanted = "folder" if folder else "file"
    if not isinstance(value, (str, Path)) or not str(value) or "\0" in str(value):
        raise UserError(f"{key} = {value!r}: must be the path of a {wanted}")
    if "://" in str(value):
        raise UserError(f"{key} = {value!r}: must be a local {wanted}; addresses are not read")
    path = Path(value).expanduser()
    if not path.exists():
        seen = "" if path.is_absolute() else f", looked for from {str(Path.cwd())!r}"
        raise UserError(f"{key} = {str(value)!r}: no such {wanted}{seen}")
    if path.is_dir() != folder:
        raise UserError(f"{key} = {str(value)!r}: must be a {wanted}, but is a {'file' if folder else 'folder'}")
    return path
