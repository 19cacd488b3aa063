"""A bucket in memory in place of Google's client, of which it has what ``files.bucket`` uses, generations among it."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from geonoise_jax.files import bucket

# Classes of errors of Google's packages, and what they derive from.
ERRORS: dict[str, dict[str, Any]] = {
    "google.api_core.exceptions": {
        "GoogleAPIError": Exception,
        "RetryError": "GoogleAPIError",
        "NotFound": "GoogleAPIError",
        "PreconditionFailed": "GoogleAPIError",
        "Unauthorized": "GoogleAPIError",
        "Forbidden": "GoogleAPIError",
        "TooManyRequests": "GoogleAPIError",
        "ServerError": "GoogleAPIError",
    },
    "google.auth.exceptions": {"GoogleAuthError": Exception, "TransportError": "GoogleAuthError"},
    "google.cloud.storage.exceptions": {"InvalidResponse": Exception},
}


@dataclasses.dataclass
class Object:
    """One object as it is stored."""

    content: bytes
    generation: int


class FakeClient:
    """Objects of buckets, and a count of what was asked of them.

    Attributes:
        objects: by bucket, then by name.
        calls: what was done, in order: a word and a name.
        before: called before each request with its word and name; may raise.
        allowed: permissions that are granted.
    """

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Object]] = {"bucket": {}}
        self.calls: list[tuple[str, str]] = []
        self.sent = 0
        self.before: Callable[[str, str], None] = lambda *_: None
        self.allowed: set[str] = set(bucket._PERMISSIONS)
        self.generations = itertools.count(1)

    def bucket(self, name: str) -> FakeBucket:
        return FakeBucket(self, name)

    def request(self, word: str, owner: str, name: str = "") -> dict[str, Object]:
        self.before(word, name)
        self.calls.append((word, name))
        if owner not in self.objects:
            raise error("NotFound", "404 no bucket")
        return self.objects[owner]

    def list_blobs(self, owner: str, prefix: str = "", **options: Any) -> Listing:
        held = self.request("list", owner, prefix)
        return Listing(self.bucket(owner), sorted(held), prefix, options.get("delimiter"), options.get("max_results"))

    def names(self, prefix: str = "") -> list[str]:
        return sorted(name for name in self.objects["bucket"] if name.startswith(prefix))


class Listing:
    """Blobs of a listing, and, once they were gone through, the folders beside them."""

    def __init__(
        self, owner: FakeBucket, names: list[str], prefix: str, delimiter: str | None, most: int | None
    ) -> None:
        self.prefixes: set[str] = set()
        self._blobs: list[FakeBlob] = []
        for name in (each for each in names if each.startswith(prefix)):
            rest = name[len(prefix) :]
            if delimiter and delimiter in rest:
                self.prefixes.add(prefix + rest.partition(delimiter)[0] + delimiter)
            else:
                self._blobs.append(owner.blob(name))
        self._blobs = self._blobs[:most]

    def __iter__(self) -> Iterator[FakeBlob]:
        return iter(self._blobs)


@dataclasses.dataclass
class FakeBucket:
    """A bucket by its name."""

    client: FakeClient
    name: str

    def blob(self, name: str) -> FakeBlob:
        return FakeBlob(self, name)

    def get_blob(self, name: str, **_: Any) -> FakeBlob | None:
        held = self.client.request("get", self.name, name)
        return FakeBlob(self, name, held[name].generation) if name in held else None

    def test_iam_permissions(self, asked: list[str], **_: Any) -> list[str]:
        return [each for each in asked if each in self.client.allowed]


@dataclasses.dataclass
class FakeBlob:
    """An object by its name, there or not."""

    bucket: FakeBucket
    name: str
    generation: int | None = None

    def _held(self, word: str, match: int | None = None) -> dict[str, Object]:
        held = self.bucket.client.request(word, self.bucket.name, self.name)
        found = held[self.name].generation if self.name in held else 0
        if match is not None and match != found:
            raise error("PreconditionFailed", "412 conditionNotMet")
        return held

    def exists(self, **_: Any) -> bool:
        return self.name in self._held("get")

    def download_as_bytes(self, if_generation_match: int | None = None, **_: Any) -> bytes:
        held = self._held("read", if_generation_match)
        if self.name not in held:
            raise error("NotFound", "404 no object")
        return held[self.name].content

    def upload_from_string(self, content: bytes, if_generation_match: int | None = None, **_: Any) -> None:
        held, client = self._held("write", if_generation_match), self.bucket.client
        self.generation = next(client.generations)
        held[self.name] = Object(content, self.generation)
        client.sent += len(content)

    def delete(self, if_generation_match: int | None = None, **_: Any) -> None:
        held = self._held("delete", if_generation_match)
        if self.name not in held:
            raise error("NotFound", "404 no object")
        del held[self.name]

    def rewrite(self, source: FakeBlob, **_: Any) -> tuple[None, int, int]:
        content = source.download_as_bytes()
        self.upload_from_string(content)
        return None, len(content), len(content)


def error(name: str, message: str = "") -> Exception:
    """An error of Google's packages, as they are installed or stood in for."""
    module = next(module for module, names in ERRORS.items() if name in names)
    found = getattr(sys.modules[module], name)(message)
    return found if isinstance(found, Exception) else Exception(message)


def install(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    """Have ``files.bucket`` use a bucket in memory, named ``bucket``, and return what holds it."""
    client = FakeClient()
    if bucket._PACKAGES and not _has("google.cloud.storage"):
        _stand_in(monkeypatch)
    else:
        for module in ERRORS:
            importlib.import_module(module)
    monkeypatch.setattr(bucket, "_installed", lambda _: True)
    monkeypatch.setattr(bucket, "_client", lambda: client)
    bucket._allows_all.cache_clear()
    return client


def _has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put modules of Google's packages in place that have no more than their errors."""
    names = ["google.api_core", "google.auth", "google.cloud", "google.cloud.storage", "google.cloud.storage.retry"]
    modules = {name: types.ModuleType(name) for name in [*names, *ERRORS]}
    for name, classes in ERRORS.items():
        for each, base in classes.items():
            kind = getattr(modules[name], base) if isinstance(base, str) else base
            setattr(modules[name], each, type(each, (kind,), {"cause": None}))
    retry: Any = modules["google.cloud.storage.retry"]
    retry.DEFAULT_RETRY = types.SimpleNamespace(with_timeout=lambda seconds: seconds)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
        parent, _, last = name.rpartition(".")
        if parent in modules:
            setattr(modules[parent], last, module)
