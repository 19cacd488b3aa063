"""Objects in buckets of Google Cloud Storage, of which the packages of the extra ``gcs`` take care.

Folders are there in the names of objects alone. A path is an ``etils.epath`` path, as Orbax takes it, of which only
``files`` sees more than its name. An object comes into being whole, or takes another's place in one moment, and each
such change gives it another generation, by which two writers are told apart.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import importlib.util
import logging
import mimetypes
import os
import re
import uuid
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

from geonoise_jax.errors import UserError

SCHEME = "gs"
FILE, FOLDER = "file", "folder"
_PACKAGES = {"gcsfs": "gcsfs", "google.cloud.storage": "google-cloud-storage"}
_ADDRESS = re.compile(r"gs:/+([a-z0-9][a-z0-9._-]+)/+(.+)")
# What the packages take for a pattern, or for the generation of an object.
_PATTERN = re.compile(r"[*?\[\]#\0]")
_PERMISSIONS = ("storage.objects.create", "storage.objects.delete", "storage.objects.get", "storage.objects.list")
# How long a failure that may pass is tried again.
_PATIENCE, _FIRST_PATIENCE = 120.0, 20.0
_AT_ONCE, _REASON = 8, 200
# What they say of each try, and of a failure with its traceback, is in the error that comes of it.
_LOGGERS = {"gcsfs": logging.CRITICAL, "urllib3.connectionpool": logging.ERROR, "google.auth": logging.ERROR}


class UnavailableError(UserError):
    """A bucket could not be reached, or not be used for now: the same may well go well later."""


class Version(NamedTuple):
    """An object as it was at one time.

    Attributes:
        content: its bytes.
        generation: what tells it from the object before and after it.
    """

    content: bytes
    generation: int


def holds(path: PurePath) -> bool:
    """Return whether a path is one of a bucket, and can be used as it is."""
    return str(path).startswith(f"{SCHEME}://")


def located(text: str, name: str) -> PurePath:
    """Return the path of ``gs://BUCKET/FOLDER``.

    Args:
        text: as the user gave it; ``gs:/``, which a ``Path`` makes of it, will do.
        name: what gave it, for errors.

    Raises:
        UserError: if it is none, has letters that would be taken for a pattern, or packages are missing.
    """
    found = _ADDRESS.fullmatch(text)
    parts = [part for part in found[2].split("/") if part not in ("", ".")] if found else []
    if found is None or not parts or ".." in parts or _PATTERN.search(text):
        raise UserError(f"{name} = {text!r}: must be gs://BUCKET/FOLDER, without any of * ? [ ] # and ..")
    missing = [package for module, package in _PACKAGES.items() if not _installed(module)]
    if missing:
        raise UserError(
            f"{name} = {text!r}: buckets need {' and '.join(missing)}: pip install 'geonoise_jax[gcs]', or give a "
            "local path"
        )
    _prepare()
    from etils import epath

    return epath.Path(f"{SCHEME}://{'/'.join([found[1], *parts])}")


def kind(path: PurePath) -> str | None:
    """Return whether there is a ``FILE``, a ``FOLDER`` that something is in, or nothing (None)."""
    with _naming(path, "cannot be seen"):
        if any(True for _ in _listing(f"{path}/", max_results=1)):
            return FOLDER
        return FILE if _blob(path).exists(retry=_retry()) else None


def names(folder: PurePath) -> list[str]:
    """Return the names of what is directly in a folder, sorted; none where there is no folder."""
    with _naming(folder, "cannot be listed"):
        listing = _listing(f"{folder}/", delimiter="/")
        found = [blob.name for blob in listing]
        start = len(_split(f"{folder}/")[1])
        return sorted({name[start:].rstrip("/") for name in (*found, *listing.prefixes)} - {""})


def read(path: PurePath) -> bytes:
    """Return the contents of an object."""
    with _naming(path, "cannot be read"):
        return _blob(path).download_as_bytes(retry=_retry())


def read_all(paths: Sequence[PurePath]) -> list[bytes]:
    """Return the contents of several objects, read at once."""
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(read, paths))


def write(path: PurePath, content: bytes) -> None:
    """Write an object, whole or not at all."""
    with _naming(path, "cannot be written"):
        _upload(path, content)


def remove(*paths: PurePath) -> None:
    """Remove objects; those that are gone already are as well."""
    if len(paths) == 1:
        _remove(paths[0])
    elif paths:
        with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(_remove, paths))


def move(source: PurePath, target: PurePath) -> None:
    """Move all objects of a folder: first all are copied, then all are removed."""
    start = len(_split(source)[1])
    with _naming(source, "cannot be moved"):
        old = list(_listing(f"{source}/"))
        for blob in old:
            _copy(blob, _bucket(target).blob(_split(target)[1] + blob.name[start:]))
    remove(*(_path(blob.bucket.name, blob.name) for blob in old))


def unreadable(folder: PurePath) -> str:
    """Return why an object below a folder cannot be read, or nothing if all can."""
    try:
        with _naming(folder, "cannot be listed"):
            found = [_path(blob.bucket.name, blob.name) for blob in _listing(f"{folder}/")]
        for path in found:
            read(path)
    except UserError as error:
        return str(error)
    return ""


def require_usable(folder: PurePath, given: str) -> None:
    """Refuse a folder whose bucket is not there or must not be written to, or that is a file; it stays as it is.

    Args:
        folder: the folder.
        given: what gave it and what it is, with which the error begins.
    """
    bucket, _ = _split(folder)
    try:
        with _naming(folder, "cannot be used"):
            if not _allows_all(bucket):
                _try_writing(folder)
        is_file = kind(folder) == FILE
    except UserError as error:
        raise type(error)(f"{given}: {str(error).removeprefix(f'{folder}: ')}") from error
    if is_file:
        raise UserError(f"{given}: is a file, not a folder")


def create(path: PurePath, content: bytes) -> int | None:
    """Write an object that is not there yet, and return its generation; None if there is one."""
    return _conditional(path, content, 0)


def replace(path: PurePath, content: bytes, generation: int) -> int | None:
    """Write an object in place of one generation, and return the new one; None if that is no longer there."""
    return _conditional(path, content, generation)


def version(path: PurePath) -> Version | None:
    """Return an object as it is; None if there is none."""
    from google.api_core import exceptions

    with _naming(path, "cannot be read"):
        try:
            blob = _bucket(path).get_blob(_split(path)[1], retry=_retry())
            if blob is None:
                return None
            return Version(blob.download_as_bytes(if_generation_match=blob.generation, retry=_retry()), blob.generation)
        except (exceptions.NotFound, exceptions.PreconditionFailed):
            # Another took its place meanwhile.
            return None


def remove_generation(path: PurePath, generation: int) -> None:
    """Remove an object if it is still of this generation."""
    from google.api_core import exceptions

    with _naming(path, "cannot be removed"), contextlib.suppress(exceptions.NotFound, exceptions.PreconditionFailed):
        _blob(path).delete(if_generation_match=generation, retry=_retry())


def _conditional(path: PurePath, content: bytes, generation: int) -> int | None:
    from google.api_core import exceptions

    with _naming(path, "cannot be written"):
        try:
            return _upload(path, content, if_generation_match=generation)
        except (exceptions.PreconditionFailed, exceptions.NotFound):
            return None


def _upload(path: PurePath, content: bytes, **conditions: int) -> int:
    blob = _blob(path)
    kind_of = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    blob.upload_from_string(content, content_type=kind_of, retry=_retry(), **conditions)
    return int(blob.generation)


@functools.cache
def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


@functools.cache
def _prepare() -> None:
    """Have Orbax's file layer see what other processes write, and have the packages leave the word to the error."""
    import fsspec

    # A listing that is kept is wrong as soon as another process writes.
    fsspec.config.conf.setdefault("gcs", {}).setdefault("use_listings_cache", False)
    # Where TensorFlow is installed, etils would take its file system, another one with other settings.
    os.environ.setdefault("EPATH_USE_TF", "0")
    for name, level in _LOGGERS.items():
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(level)


@functools.cache
def _client() -> Any:
    from google.cloud import storage

    try:
        return storage.Client()
    except OSError as error:
        # No object needs it, but the client does, and Orbax's too.
        raise UserError(f"no project is known; set GOOGLE_CLOUD_PROJECT to the name of one ({error})") from error


@functools.cache
def _allows_all(bucket: str) -> bool:
    """Return whether all of a bucket may be read and written; it is found out where there is none."""
    # The permissions of a bucket that is not there may be asked for.
    next(iter(_client().list_blobs(bucket, max_results=1, retry=_retry(_FIRST_PATIENCE))), None)
    asked = list(_PERMISSIONS)
    return {*asked} <= {*_client().bucket(bucket).test_iam_permissions(asked, retry=_retry(_FIRST_PATIENCE))}


def _try_writing(folder: PurePath) -> None:
    """Find out whether a folder may be written to in a bucket of which only parts may be."""
    blob = _blob(folder / f".try-{uuid.uuid4().hex}")
    blob.upload_from_string(b"", if_generation_match=0, retry=_retry(_FIRST_PATIENCE))
    blob.delete(retry=_retry(_FIRST_PATIENCE))


def _remove(path: PurePath) -> None:
    from google.api_core import exceptions

    with _naming(path, "cannot be removed"), contextlib.suppress(exceptions.NotFound):
        _blob(path).delete(retry=_retry())


def _copy(old: Any, new: Any) -> None:
    token, _, _ = new.rewrite(old, retry=_retry())
    while token is not None:
        token, _, _ = new.rewrite(old, token=token, retry=_retry())


def _retry(seconds: float = _PATIENCE) -> Any:
    from google.cloud.storage.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_timeout(seconds)


def _split(path: PurePath | str) -> tuple[str, str]:
    bucket, _, key = str(path).removeprefix(f"{SCHEME}://").partition("/")
    return bucket, key


def _path(bucket: str, key: str) -> PurePath:
    from etils import epath

    return epath.Path(f"{SCHEME}://{bucket}/{key}")


def _bucket(path: PurePath) -> Any:
    return _client().bucket(_split(path)[0])


def _blob(path: PurePath) -> Any:
    return _bucket(path).blob(_split(path)[1])


def _listing(prefix: str, **options: Any) -> Any:
    bucket, start = _split(prefix)
    return _client().list_blobs(bucket, prefix=start, retry=_retry(), **options)


@contextlib.contextmanager
def _naming(path: PurePath, what: str) -> Iterator[None]:
    """Say of any failure of the storage in one line what could not be done to which path, and why."""
    import requests
    from google.api_core import exceptions as api
    from google.auth import exceptions as auth
    from google.cloud.storage.exceptions import InvalidResponse

    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {what} ({error})") from error
    except (api.NotFound, api.PreconditionFailed) as error:
        raise UserError(f"{path}: {what} (no such file, or no bucket {_split(path)[0]!r})") from error
    except (api.GoogleAPIError, auth.GoogleAuthError, requests.RequestException, InvalidResponse, OSError) as error:
        kind_of, why = _cause(error)
        raise kind_of(f"{path}: {what} ({why})") from error


def _cause(error: Exception) -> tuple[type[UserError], str]:
    """Return the kind of an error of the storage's packages, and what it means in few words."""
    import requests
    from google.api_core import exceptions as api
    from google.auth import exceptions as auth

    if isinstance(error, api.RetryError) and isinstance(error.cause, Exception):
        error = error.cause
    text = getattr(error, "message", None) or str(error)
    line = next(iter(str(text).splitlines()), type(error).__name__)
    short = line if len(line) <= _REASON else line[: _REASON - 3] + "..."
    if isinstance(error, (auth.TransportError, requests.ConnectionError, requests.Timeout)):
        return UnavailableError, f"the storage cannot be reached: {short}"
    if isinstance(error, (auth.GoogleAuthError, api.Unauthorized)):
        return UserError, (
            "no valid credentials; see `gcloud auth application-default login`, or GOOGLE_APPLICATION_CREDENTIALS"
        )
    if isinstance(error, api.Forbidden):
        return UserError, f"no permission: {short}"
    return (UnavailableError if isinstance(error, (api.ServerError, api.TooManyRequests)) else UserError), short
