"""Pictures: where every pixel of a grid lands, scatter plots of whatever a sampler returns, and the demo's report."""

from __future__ import annotations

import base64
import dataclasses
import html.parser
import io
import itertools
import math
import re
import warnings
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from geonoise_jax.demo import report as demo_report
from geonoise_jax.demo.outcomes import Baselines, Outcome
from geonoise_jax.drawing import pictures
from geonoise_jax.drawing.pictures import image_grid, sample_picture, save, scatter, to_pixels
from geonoise_jax.evaluation.floors import Distance
from geonoise_jax.studies.verdicts import Outcome as Told
from geonoise_jax.systems import SYSTEMS


def images(num: int, height: int, width: int, channels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (num, height, width, channels), np.uint8)


GAP = 2
GRIDS = [
    # num, height, width, columns -> factor, rows, columns
    ((1, 8, 8, None), (8, 1, 1)),
    ((5, 8, 8, None), (8, 2, 3)),
    ((9, 8, 8, None), (8, 3, 3)),
    ((6, 8, 8, 2), (8, 3, 2)),
    ((3, 8, 8, 5), (8, 1, 5)),
    ((4, 5, 7, None), (10, 2, 2)),
    ((4, 3, 20, None), (4, 2, 2)),
    ((4, 32, 32, None), (2, 2, 2)),
    ((2, 33, 31, None), (2, 1, 2)),
    ((2, 64, 90, None), (1, 1, 2)),
]


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("given", "want"), GRIDS)
def test_every_tile_is_in_its_place_and_all_else_is_white(given: Any, want: Any, channels: int) -> None:
    num, height, width, columns = given
    factor, rows, across = want
    tiles = images(num, height, width, channels)
    picture = image_grid(tiles, columns=columns)
    assert picture.mode == {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    pixels = np.asarray(picture).reshape(picture.height, picture.width, channels)
    assert pixels.shape == (rows * (height * factor + GAP) + GAP, across * (width * factor + GAP) + GAP, channels)
    rest = np.ones(pixels.shape, bool)
    for position, tile in enumerate(tiles):
        top = GAP + (position // across) * (height * factor + GAP)
        left = GAP + (position % across) * (width * factor + GAP)
        place = np.s_[top : top + height * factor, left : left + width * factor]
        np.testing.assert_array_equal(pixels[place], np.kron(tile, np.ones((factor, factor, 1), np.uint8)))
        rest[place] = False
    assert (pixels[rest] == 255).all()


@pytest.mark.parametrize("channels", [2, 5])
def test_the_first_of_channels_that_have_no_colours(channels: int) -> None:
    tiles = images(3, 4, 4, channels)
    assert image_grid(tiles).tobytes() == image_grid(tiles[..., :1]).tobytes()


def test_no_images_are_refused() -> None:
    with pytest.raises(ValueError, match="images: there must be at least one"):
        image_grid(images(0, 8, 8, 1))


def test_model_space_to_pixels() -> None:
    x = np.array([-1.0, 1.0, 0.0, -1.001, 7.0, -np.inf, np.inf, np.nan, -1 + 2 / 255, 0.999])
    want = [0, 255, 128, 0, 255, 0, 255, 0, 1, 255]
    pixels = to_pixels(x.reshape(1, 1, -1, 1))
    assert (pixels.dtype.name, pixels.shape) == ("uint8", (1, 1, 10, 1))
    np.testing.assert_array_equal(pixels.ravel(), want)
    grey = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    np.testing.assert_array_equal(to_pixels((grey.astype(np.float32) - 127.5) / 127.5), grey)


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures behind the scatter plots that a test makes."""
    made: list[Figure] = []
    render = pictures.to_image

    def record(figure: Figure) -> Image.Image:
        made.append(figure)
        return render(figure)

    monkeypatch.setattr(pictures, "to_image", record)
    return made


@pytest.mark.parametrize("dim", [1, 2, 8])
@pytest.mark.parametrize("with_reference", [True, False])
def test_scatter_shows_both_sets_in_the_plane_of_the_reference(
    dim: int, with_reference: bool, figures: list[Figure]
) -> None:
    rng = np.random.default_rng(0)
    scale = np.array([3.0, 1.0, *[0.01] * 6])[:dim]
    samples, data = (rng.standard_normal((num, dim)) * scale + 5.0 for num in (40, 60))
    reference = data if with_reference else None
    picture = scatter(samples, reference, title="step 7")
    assert (picture.format, picture.size) == ("PNG", (750, 750))
    (panel,) = figures[0].axes
    base = data if with_reference else samples
    shown = [np.column_stack(line.get_data()) for line in panel.get_lines()]
    assert [len(points) for points in shown] == ([60, 40] if with_reference else [40])
    # Coordinates are those of the samples about the mean of the base, up to signs: distances in the plane are kept.
    np.testing.assert_allclose(shown[0].mean(axis=0), 0.0, atol=1e-9)
    np.testing.assert_allclose(shown[-1][:, 0].std(), samples[:, 0].std(), rtol=0.05)
    if dim <= 2:
        lengths = np.linalg.norm(samples - base.mean(axis=0), axis=1)
        np.testing.assert_allclose(np.linalg.norm(shown[-1], axis=1), lengths, rtol=1e-9)
    limit = 2 * np.abs(shown[0]).max()
    np.testing.assert_allclose(panel.get_xlim(), (-limit, limit))
    np.testing.assert_allclose(panel.get_ylim(), (-limit, limit))
    assert panel.get_title("left") == "step 7"


@pytest.mark.parametrize("dim", [1, 2, 8])
def test_samples_outside_and_not_finite_are_counted_and_not_let_in(dim: int, figures: list[Figure]) -> None:
    data = np.random.default_rng(0).standard_normal((50, dim))
    samples = data[:20].astype(np.float32)
    samples[:5] = [[1e3], [3e38], [-np.inf], [np.nan], [1e30]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = scatter(samples, data, title="blind")
        scatter(samples, None)
    assert picture.size == (750, 750)
    assert figures[0].axes[0].get_title("left") == "blind  (5 outside)"
    limits = [figure.axes[0].get_xlim()[1] for figure in figures]
    assert limits[0] < 20
    assert math.isfinite(limits[1])


@pytest.mark.parametrize("samples", [np.zeros((6, 3)), np.zeros((1, 3)), np.full((6, 3), np.nan)])
def test_sets_without_a_plane_are_shown_all_the_same(samples: np.ndarray, figures: list[Figure]) -> None:
    lost = np.isnan(samples).any(axis=1).sum()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scatter(samples, None)
        scatter(np.ones((4, 3)), samples)
    assert figures[0].axes[0].get_title("left") == (f"  ({lost} outside)" if lost else "")
    assert figures[0].axes[0].get_xlim() == (-1.0, 1.0)


def test_the_picture_suits_the_samples() -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (4, 8, 8, 1))
    assert sample_picture(x).tobytes() == image_grid(to_pixels(x)).tobytes()
    vectors = x.reshape(4, -1)
    assert sample_picture(vectors, vectors, title="a").tobytes() == scatter(vectors, vectors, title="a").tobytes()


def test_a_picture_is_saved_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "made" / "on the way" / "run.1.png"
    old, new = (image_grid(images(num, 8, 8, 1)) for num in (1, 4))
    save(old, path)
    assert Image.open(path).tobytes() == old.tobytes()

    def torn(file: IO[bytes], **_: Any) -> None:
        file.write(b"half a pic")
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(new, "save", torn)
        with pytest.raises(ValueError, match=r"run.1.png: cannot be written \(disk full\)"):
            save(new, path)
    assert Image.open(path).tobytes() == old.tobytes()
    save(new, path)
    assert Image.open(path).tobytes() == new.tobytes()
    assert [file.name for file in path.parent.iterdir()] == ["run.1.png"]


def outcome(system: str, blind: bool, distance: float, seed: int = 0, spread: float = 0.003) -> Outcome:
    samples = np.random.default_rng(seed).uniform(-1.5, 1.5, (80, 8, 8, 1))
    if math.isinf(distance):
        samples[3, 2, 2, 0], spread = np.nan, 0.0
    loss = [(10, 1.0), (20, 0.5)]
    return Outcome(system, blind, loss, samples, Distance(distance, spread), train_seconds=61.2, sample_seconds=3.0)


BASELINES = Baselines(Distance(0.05, 0.002), Distance(0.7, 0.01), held_out=0.0047)
HELD_OUT = np.random.default_rng(9).uniform(-1, 1, (90, 8, 8, 1))
PAIRS = tuple(itertools.product(("flow_matching", "ddpm"), (False, True)))


def outcomes(*distances: float) -> list[Outcome]:
    """Conditional and blind flow matching, conditional and blind DDPM."""
    return [outcome(*pair, distance) for pair, distance in zip(PAIRS, distances, strict=True)]


EXPECTED = outcomes(0.06, 0.07, 0.06, 0.9)


def test_the_table_lines_up() -> None:
    lines = demo_report.table(EXPECTED, BASELINES).splitlines()
    head, rule, *rows = lines[:8]
    starts = [match.start() for match in re.finditer(r"-+", rule)]
    assert [head[start:].split("  ")[0].strip() for start in starts] == [
        "model",
        "distance",
        "x floor",
        "training",
        "sampling",
    ]
    cells = [[row[a:b].strip() for a, b in itertools.pairwise([*starts, None])] for row in rows]
    assert cells == [
        ["flow matching (velocity target), conditional", "0.060 +- 0.003", "1.20 +- 0.08", "1:01", "0:03"],
        ["flow matching (velocity target), blind", "0.070 +- 0.003", "1.40 +- 0.08", "1:01", "0:03"],
        ["DDPM (noise target), conditional", "0.060 +- 0.003", "1.20 +- 0.08", "1:01", "0:03"],
        ["DDPM (noise target), blind", "0.900 +- 0.003", "18.0 +- 0.7", "1:01", "0:03"],
        ["training digits (floor)", "0.050 +- 0.002", "1", "", ""],
        ["Gaussian noise", "0.700 +- 0.010", "14.0 +- 0.6", "", ""],
    ]
    said = [demo_report.meaning(80, BASELINES), demo_report.reached(EXPECTED, BASELINES)]
    assert lines[8:] == ["", *said[0], "", *said[1], *demo_report.findings(EXPECTED, BASELINES)]


def test_who_reached_the_floor_is_told_with_the_spread() -> None:
    near = outcomes(0.057, 0.058, 0.043, math.inf)
    (said,) = demo_report.reached(near, BASELINES)
    assert said.endswith(
        "within the spread: flow matching (velocity target), conditional; DDPM (noise target), conditional."
    )
    (said,) = demo_report.reached(near[1:2], BASELINES)
    assert said.endswith("within the spread: no model.")
    assert demo_report.reached([], BASELINES) == []


def test_what_is_common_to_all_rows_is_said() -> None:
    assert "80 samples" in demo_report.meaning(80, BASELINES)[0]
    assert "by about 0.005" in demo_report.meaning(80, BASELINES)[1]


VERDICTS = [
    # flow matching and DDPM: conditional, blind; then whether each blind model works and agrees with the paper
    ((0.06, 0.07, 0.06, 0.9), ("works", "Agrees"), ("breaks", "Agrees")),
    ((0.06, 0.9, 0.06, 0.07), ("breaks", "DISAGREES"), ("works", "DISAGREES")),
    ((0.06, 0.10, 0.06, 0.15), ("works", "Agrees"), ("breaks", "Agrees")),
    ((0.06, math.inf, 0.06, math.inf), ("breaks", "DISAGREES"), ("breaks", "Agrees")),
]


@pytest.mark.parametrize(("distances", "flow_matching", "ddpm"), VERDICTS)
def test_findings_say_what_happened_beside_what_the_paper_claims(distances: Any, flow_matching: Any, ddpm: Any) -> None:
    sentences = demo_report.findings(outcomes(*distances), BASELINES)
    expected = {"ddpm": ddpm, "flow_matching": flow_matching}
    for sentence, (system, (verdict, agreement)) in zip(sentences, expected.items(), strict=True):
        assert sentence.startswith(f"{demo_report.TITLES[system]}: blind {verdict} here (")
        assert f"The paper: {demo_report.CLAIMS[system][0]}." in sentence
        assert sentence.endswith(f" {agreement}.")


@pytest.mark.parametrize(("distances", "flow_matching", "ddpm"), VERDICTS)
def test_what_findings_say_are_verdicts(distances: Any, flow_matching: Any, ddpm: Any) -> None:
    told = demo_report.verdicts(outcomes(*distances), BASELINES)
    agreeing = [each[1] == "Agrees" for each in (ddpm, flow_matching)]
    assert [each.outcome for each in told] == [Told.HOLDS if agrees else Told.FAILS for agrees in agreeing]
    assert told[1].value == pytest.approx(distances[1] / 0.06)
    assert told[1].low <= told[1].value <= told[1].high
    unlearnt = demo_report.verdicts(outcomes(0.06, 0.07, math.inf, 0.9), BASELINES)[0]
    assert unlearnt.outcome is Told.UNTOLD
    assert unlearnt.condition.startswith("its conditional twin does not sample digits yet")


@pytest.mark.parametrize("blind", [0.119, 0.12, 0.1201, 0.125])
def test_there_is_no_verdict_within_the_spread_of_the_limit(blind: float) -> None:
    sentence = demo_report.findings(outcomes(0.06, blind, 0.06, 0.9), BASELINES)[1]
    assert "flow matching (velocity target): no verdict here (" in sentence
    assert "agrees" not in sentence.lower()


@pytest.mark.parametrize(("blind", "near"), [(0.053, True), (0.06, True), (0.068, True), (0.07, False), (0.05, False)])
def test_a_difference_within_the_spread_is_not_sold_as_one(blind: float, near: bool) -> None:
    """Two distances with a spread of 0.003 each are 0.0085 apart before they differ."""
    sentence = demo_report.findings(outcomes(0.06, blind, 0.06, 0.9), BASELINES)[1]
    assert "flow matching (velocity target): blind works here (" in sentence
    assert ("as near to the digits as its conditional twin within the spread" in sentence) == near
    assert f"{blind / 0.06:.2f} +- 0.0" in sentence


def test_findings_give_the_ratio_and_no_verdict_without_a_sound_twin() -> None:
    assert "(15.0 +- 0.8 times as far from the digits" in demo_report.findings(EXPECTED, BASELINES)[0]
    assert "(inf times" in demo_report.findings(outcomes(0.06, 0.07, 0.06, math.inf), BASELINES)[0]
    # A quarter of the distance of noise is 0.175.
    for twin, blind in itertools.product((math.inf, math.nan, 0.5, 0.172), (0.06, math.inf)):
        sentence = demo_report.findings(outcomes(0.06, 0.07, twin, blind), BASELINES)[0]
        assert "DDPM (noise target): no verdict here" in sentence
        assert "agrees" not in sentence.lower()
    assert demo_report.findings([], BASELINES) == []
    assert [sentence[:4] for sentence in demo_report.findings(EXPECTED[2:], BASELINES)] == ["DDPM"]
    assert demo_report.findings(EXPECTED[1:2], BASELINES) == []


class Page(html.parser.HTMLParser):
    """Checks that tags are balanced and collects text, attributes and table rows."""

    VOID = frozenset({"meta", "img", "br", "hr", "link", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


@pytest.mark.parametrize("last", [0.9, math.inf])
def test_the_page_is_whole_and_self_contained(last: float) -> None:
    made = outcomes(0.06, 0.07, 0.06, last)
    text = demo_report.page(made, BASELINES, HELD_OUT, steps=1200, seconds=333.0)
    page = Page(text)
    assert page.open == []
    assert text.startswith("<!doctype html>")
    assert not re.search(r"https?:|//|@import|url\(|<script|<link|file:", re.sub(r"base64,[A-Za-z0-9+/=]*", "", text))
    assert len(page.references) == 4 + 1 + 1
    assert all(reference.startswith("data:image/png;base64,") for reference in page.references)
    shown = [np.asarray(Image.open(io.BytesIO(base64.b64decode(r.split(",")[1])))) for r in page.references]
    for pixels, samples in zip(shown, [*(o.samples for o in made), HELD_OUT], strict=False):
        np.testing.assert_array_equal(pixels, np.asarray(image_grid(to_pixels(samples[: demo_report._SHOWN]))))
    for fact in (
        "1200 steps each",
        "took 5:33",
        "80 samples and 90 held-out",
        *demo_report.findings(made, BASELINES),
        *demo_report.meaning(80, BASELINES),
        *demo_report.reached(made, BASELINES),
    ):
        assert fact in " ".join(page.text.split())


def test_the_page_and_the_table_say_the_same() -> None:
    rows = Page(demo_report.page(EXPECTED, BASELINES, HELD_OUT, steps=1, seconds=1.0)).rows
    lines = demo_report.table(EXPECTED, BASELINES).splitlines()
    assert len(rows) == 7
    for cells, line in zip(rows[1:], lines[2:8], strict=True):
        assert " ".join(cells).split() == line.split()
    assert {len(cells) for cells in rows} == {5}


def test_text_in_the_page_is_escaped() -> None:
    strange = {"<b>&": ("x < y & z", True)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_report, "TITLES", {"<b>&": "<b>&"})
        patch.setattr(demo_report, "CLAIMS", strange)
        made = [dataclasses.replace(each, system="<b>&") for each in EXPECTED[:2]]
        page = Page(demo_report.page(made, BASELINES, HELD_OUT, steps=1, seconds=1.0))
    assert page.open == []
    assert "x < y & z" in page.text
    assert page.rows[1][0] == "<b>&, conditional"


def test_the_side_by_side_picture_has_a_panel_for_each_model_and_the_real_digits() -> None:
    wide, narrow = (demo_report.side_by_side(made, HELD_OUT) for made in (EXPECTED, EXPECTED[:1]))
    assert wide.mode == "RGBA"
    assert (wide.width, wide.height) == (round(3.2 * 5 * 150), round(3.6 * 150))
    assert narrow.width == round(3.2 * 2 * 150)
    assert len(np.unique(np.asarray(wide))) > 100


def test_many_models_are_shown_in_rows_of_six() -> None:
    many = demo_report.side_by_side([*EXPECTED, *EXPECTED], HELD_OUT)
    assert (many.width, many.height) == (round(3.2 * 6 * 75), round(3.6 * 2 * 75))


def test_every_system_has_a_title() -> None:
    assert demo_report.TITLES.keys() == SYSTEMS.keys() >= demo_report.CLAIMS.keys()
