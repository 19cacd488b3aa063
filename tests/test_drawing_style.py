"""What is written on figures: captions of samples, percentages, round steps; colours."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from geonoise_jax.drawing import style
from geonoise_jax.drawing.pictures import caption, image_grid, sample_picture, to_pixels
from geonoise_jax.drawing.text import percent


def test_a_caption_says_where_samples_come_from() -> None:
    """Run, step, sampler and evaluations, in lines that fit above the grid, which keeps all of its pixels."""
    line = caption("fm", 4000, "heun", np.full(9, 200.0))
    assert line == "fm · step 4,000 · heun · 200 evaluations"
    assert caption("fm", 0, "tsit5", np.array([30.0, 33.0])) == "fm · step 0 · tsit5 · 32 evaluations on average"
    assert caption("fm", 7, "kvaerno5") == "fm · step 7 · kvaerno5"
    x = np.random.default_rng(0).uniform(-1, 1, (9, 8, 8, 1))
    grid = np.asarray(image_grid(to_pixels(x)))
    heights = []
    for title in (line, "a run of a long name · step 4,000 · predictor_corrector · 200 evaluations", "x" * 90):
        picture = sample_picture(x, title=title)
        pixels = np.asarray(picture)
        np.testing.assert_array_equal(pixels[-len(grid) :, : grid.shape[1]], grid)
        above = pixels[: -len(grid)]
        assert above.min() < 100
        # No letter is cut: the margins are white.
        assert (above[:, -4:] == 255).all()
        assert (above[-2:] == 255).all()
        heights.append(len(above))
    assert heights[0] < heights[1]
    assert sample_picture(x.repeat(3, axis=-1), title=line).mode == "RGB"


@pytest.mark.parametrize("share", [0.0, 0.002, 0.123, 0.0996, 0.996, 1.1, 123.4])
def test_percentages_are_plain_numbers(share: float) -> None:
    text = percent(share)
    assert "e" not in text
    assert float(text.removesuffix("%").replace(",", "")) == pytest.approx(100 * share, rel=0.05, abs=0.5)


@pytest.mark.parametrize("steps", [(0, 20, 40, 60), (0, 250, 20_000), (0, 1, 1_000_000), (5,), (0, 700, 900)])
def test_step_axes_have_round_numbers(steps: tuple[int, ...]) -> None:
    axes = Figure().subplots()
    style.step_axis(axes, steps)
    ticks, words = axes.get_xticks(), [label.get_text() for label in axes.get_xticklabels()]
    assert 2 <= len(ticks) <= 8
    assert ticks[0] == 0
    assert all(min(step for step in steps if step) <= tick <= steps[-1] for tick in ticks[1:])
    values = [float(word.replace("k", "e3").replace("M", "e6")) for word in words]
    np.testing.assert_allclose(values, ticks)


def test_the_style_is_that_of_the_figures_alone() -> None:
    """A notebook keeps its own."""
    before = Figure().subplots().spines["top"].get_visible()
    with style.paper():
        axes = Figure().subplots()
        assert not axes.spines["top"].get_visible()
        assert axes.plot([0, 1])[0].get_color() == style.COLORS[0]
    assert Figure().subplots().spines["top"].get_visible() == before


@pytest.mark.parametrize("width", [4.0, 7.35, 20.0])
def test_a_title_fits_the_figure(width: float) -> None:
    figure = Figure(figsize=(width, 3.0))
    with style.paper():
        style.headed(figure, "Fashion-MNIST, 28 x 28: 200 updates of 64 images, 10 evaluations of the network a sample")
    figure.draw_without_rendering()
    (title,) = [each for each in figure.findobj(Text) if each.get_text().startswith("Fashion")]
    assert title.get_window_extent().x1 <= figure.bbox.x1
