"""Where the weights of others are looked for, in which order, and what is said when they are nowhere."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest

from geonoise_jax.evaluation.features import inception, weights
from geonoise_jax.evaluation.features.weights import INCEPTION, Published, locate
from geonoise_jax.files import cache_folder

CONTENT = b"weights" * 1000
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Published:
    """A file that can be had, with an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("OWN_WEIGHTS", raising=False)
    source = tmp_path / "source.pth"
    source.write_bytes(CONTENT)
    return Published("own.pth", len(CONTENT), SHA, source.as_uri(), "OWN_WEIGHTS")


def unreachable(published: Published) -> Published:
    return dataclasses.replace(published, url=Path("/none/weights.pth").as_uri())


def test_a_path_comes_before_the_variable_and_that_before_the_cache(
    published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, variable = tmp_path / "given.pth", tmp_path / "variable.pth"
    for path in (given, variable):
        path.write_bytes(b"others")
    assert locate(published) == cache_folder() / "own.pth"
    monkeypatch.setenv("OWN_WEIGHTS", str(variable))
    assert locate(published) == variable
    assert locate(published, given) == given


def test_a_download_is_checked_and_kept(published: Published) -> None:
    found = locate(published)
    assert found.read_bytes() == CONTENT
    assert locate(unreachable(published)) == found, "it was downloaded again"


def test_a_download_of_something_else_leaves_nothing(published: Published) -> None:
    other = dataclasses.replace(published, sha256="0" * 64)
    with pytest.raises(ValueError, match=f"download failed .*its sha256 is {SHA}, not as published"):
        locate(other)
    assert list(cache_folder().iterdir()) == []


def test_a_damaged_file_in_the_cache_is_refused(published: Published) -> None:
    locate(published).write_bytes(b"half of it")
    with pytest.raises(ValueError, match="own.pth: is damaged: its sha256 is .*; remove it; put own.pth"):
        locate(published)


def test_without_a_network_it_says_the_file_and_where_to_put_it(published: Published) -> None:
    with pytest.raises(ValueError, match="own.pth: not here, and the download failed") as raised:
        locate(unreachable(published))
    for part in ("7000 bytes", SHA, str(cache_folder()), "OWN_WEIGHTS=PATH", "path="):
        assert part in str(raised.value)


@pytest.mark.parametrize("way", ["path", "variable"])
def test_a_path_that_leads_nowhere_is_no_reason_to_download(
    published: Published, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = str(tmp_path / "none.pth")
    if way == "variable":
        monkeypatch.setenv("OWN_WEIGHTS", missing)
    name = "OWN_WEIGHTS" if way == "variable" else "path"
    with pytest.raises(ValueError, match=f"{name} = .*none.pth': no such file; put own.pth"):
        locate(published, missing if way == "path" else None)


def test_the_inception_network_says_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("GEONOISE_INCEPTION", raising=False)
    monkeypatch.setattr(weights, "INCEPTION", unreachable(INCEPTION))
    with pytest.raises(ValueError, match=f"{INCEPTION.file}.*{INCEPTION.sha256}.*GEONOISE_INCEPTION=PATH"):
        inception()
    with pytest.raises(ValueError, match="protocol = 'clean-fid': unknown; did you mean 'clean_fid'"):
        inception("clean-fid")
