"""Pictures: their contents are complete and readable."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.inside import tables
from numpy_gpt2.params import Array

pytest.importorskip("matplotlib")
from matplotlib.figure import Figure
from matplotlib.image import imread

from numpy_gpt2.inside import figures, pictures

SHORT = "The king gave his daughter to the poor miller's son."
LONG = (
    "Once upon a time there was a poor woodcutter who lived with his wife and his two children at the edge of a "
    "great forest; he had little to bite and little to break, and once, when great dearth fell on the land, he could "
    "no longer get even daily bread."
)


@pytest.fixture(autouse=True)
def no_warnings() -> Any:
    """Matplotlib warns of characters that its font lacks, and of layouts that do not fit."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture(params=[SHORT, LONG])
def text(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Read:
    """A text as the model sees it."""

    def __init__(self, model: GPT2, text: str) -> None:
        self.ids = tables.read_ids(model, text)
        self.labels = tables.token_labels(model.tokenizer, self.ids)
        self.weights = tables.attention_weights(model, self.ids[0])


def draw(figure: Figure, tmp_path: Path) -> Array:
    """Saves a picture, at a low resolution to save time, and reads it back."""
    figures.save_figure(figure, tmp_path / "picture.png", dpi=40)
    image = imread(tmp_path / "picture.png")
    assert image.std() > 0.01
    return image


def ticks(axis: Any) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def sizes(axis: Any) -> set[float]:
    return {label.get_fontsize() for label in axis.get_ticklabels()}


def test_one_head(tiny: GPT2, text: str, tmp_path: Path) -> None:
    read = Read(tiny, text)
    figure = figures.attention_figure(read.weights[3, 1], read.labels, "block h3, head 1")
    draw(figure, tmp_path)
    ax, colorbar = figure.axes
    assert ax.get_title(loc="left") == "block h3, head 1"
    assert ticks(ax.xaxis) == ticks(ax.yaxis) == read.labels
    assert min(sizes(ax.xaxis) | sizes(ax.yaxis)) >= 6
    assert "␣" in "".join(read.labels)
    assert colorbar.get_ylabel() == "attention weight (square-root scale)"
    assert ax.get_ylabel() == "token that looks (query)"
    assert ax.get_xlabel() == "token looked at (key)"
    shown = ax.images[0].get_array()
    assert isinstance(shown, np.ma.MaskedArray)
    assert (shown.mask == np.triu(np.ones(shown.shape, bool), 1)).all()
    assert (shown.filled(0) == read.weights[3, 1]).all()


def test_the_heads_of_a_block(tiny: GPT2, text: str, tmp_path: Path) -> None:
    read = Read(tiny, text)
    figure = figures.heads_figure(read.weights[2], read.labels, "block h2")
    draw(figure, tmp_path)
    panels = figure.axes[:-1]
    assert [ax.get_title(loc="left") for ax in panels] == ["head 0", "head 1", "head 2", "head 3"]
    for i, ax in enumerate(panels):
        assert (np.asarray(ax.images[0].get_array()) == read.weights[2, i]).all()
    assert min(sizes(panels[0].yaxis)) >= 6
    assert set(ticks(panels[0].yaxis)) <= set(read.labels)


def test_numbers_of_heads_that_do_not_fill_a_grid(tmp_path: Path) -> None:
    for n_head in (1, 2, 3, 5, 25):
        figure = figures.heads_figure(np.full((n_head, 2, 2), 0.5), ["a", "b"], "heads")
        draw(figure, tmp_path)
        assert sum(bool(ax.images) for ax in figure.axes[:-1]) == n_head


def test_all_heads(tiny: GPT2, text: str, tmp_path: Path) -> None:
    read = Read(tiny, text)
    figure = figures.layers_figure(read.weights, "all")
    draw(figure, tmp_path)
    panels = figure.axes[:-1]
    assert len(panels) == 4 * 4
    assert [ax.get_ylabel() for ax in panels[::4]] == [f"h{i}" for i in range(4)]
    assert (np.asarray(panels[4 * 3 + 2].images[0].get_array()) == read.weights[3, 2]).all()


def test_the_lens(tiny: GPT2, text: str, tmp_path: Path) -> None:
    read = Read(tiny, text)
    lens = tables.logit_lens(tiny, read.ids[0])
    predicted = [tables.token_labels(tiny.tokenizer, row) for row in lens.ids]
    figure = figures.lens_figure(lens, read.labels, predicted, "lens")
    draw(figure, tmp_path)
    panels = figure.axes[:-1]
    assert len(panels) == -(-len(read.labels) // figures.LENS_TOKENS)
    assert panels[-1].get_xlabel() == "predicted to follow this token"
    assert [label for ax in panels for label in ticks(ax.xaxis)] == read.labels
    assert ticks(panels[0].yaxis) == ["embeddings", *(f"after h{i}" for i in range(4))]
    first_column = [t.get_text() for t in panels[0].texts if round(t.get_position()[0]) == 0]
    assert first_column == [pictures.shorten(row[0], 8) for row in predicted]
    assert min(float(t.get_fontsize()) for ax in panels for t in ax.texts) >= 6


def test_tokens(tiny: GPT2, text: str, tmp_path: Path) -> None:
    assert tiny.tokenizer
    tokens = tables.tokens(tiny.tokenizer, text)
    figure = figures.tokens_figure([t.piece for t in tokens], [t.id for t in tokens], "tiny")
    draw(figure, tmp_path)
    written = [t.get_text() for t in figure.axes[0].texts]
    assert written[::2] == [t.piece for t in tokens]
    assert written[1::2] == [str(t.id) for t in tokens]
    boxes = [tuple(patch.get_window_extent().bounds) for patch in figure.axes[0].patches]
    assert len({*boxes}) == len(tokens)


def test_the_next_token(tiny: GPT2, tmp_path: Path) -> None:
    for options, n_bars in (({}, 5), ({"top_k": 2}, 10)):
        chances = tables.next_tokens(tiny, SHORT, 5, **options)
        labels = tables.token_labels(tiny.tokenizer, [chance.id for chance in chances])
        figure = figures.next_figure(chances, labels, "next", "top-k 2")
        draw(figure, tmp_path)
        assert ticks(figure.axes[0].yaxis) == labels
        widths = [bar.get_width() for bar in figure.axes[0].patches]  # type: ignore[attr-defined]
        assert widths[:5] == [chance.probability for chance in chances]
        assert len(widths) == n_bars


def test_the_mask(tiny: GPT2, text: str, tmp_path: Path) -> None:
    read = Read(tiny, text)
    unmasked = tables.unmasked_weights(tiny, read.ids[0], 1)[2]
    figure = figures.mask_figure(read.weights[1, 2], unmasked, read.labels, "mask")
    draw(figure, tmp_path)
    masked_ax, unmasked_ax, _ = figure.axes
    assert np.ma.is_masked(masked_ax.images[0].get_array())
    assert not np.ma.is_masked(unmasked_ax.images[0].get_array())
    assert "decoder" in masked_ax.get_title(loc="left")
    assert "encoder" in unmasked_ax.get_title(loc="left")


def test_parameters_positions_weights_and_stream(tiny: GPT2, tmp_path: Path) -> None:
    figure = figures.params_figure(tables.parameter_statistics(tiny.params), "tiny")
    draw(figure, tmp_path)
    left, right = figure.axes
    parts = ["wte", "wpe", "ln_1", "attn/c_attn", "attn/c_proj", "ln_2", "mlp/c_fc", "mlp/c_proj", "ln_f"]
    assert ticks(left.yaxis) == parts
    assert sum(bar.get_width() for bar in left.patches) == 4273664  # type: ignore[attr-defined]
    assert [len(np.asarray(line.get_ydata())) for line in right.lines] == [4] * 4

    similarity = tables.position_similarity(tiny.params)
    figure = figures.positions_figure(tiny.params.wpe, similarity, "tiny")
    draw(figure, tmp_path)
    assert [len(ax.images) for ax in figure.axes[:3]] == [1, 0, 1]
    assert len(figure.axes[1].lines) == 6

    for name in ("wte", "h0/ln_1/g", "h1/attn/c_attn/w[:30,:30]", "wpe[3,4]"):
        figure = figures.weights_figure(tables.parameter(tiny.params, name), name)
        draw(figure, tmp_path)
        assert figure.axes[0].get_title(loc="left") == name

    figure = figures.stream_figure(tables.stream_sizes(tiny, SHORT), "stream")
    draw(figure, tmp_path)
    assert [line.get_label() for line in figure.axes[0].lines] == [
        "residual stream",
        "added by attention",
        "added by the MLP",
    ]


def test_an_array_of_zeros(tmp_path: Path) -> None:
    draw(figures.weights_figure(np.zeros((3, 4)), "zeros"), tmp_path)


@pytest.mark.parametrize("text", ["It costs $5, or $6.", "日本語 and 🦊", r"\alpha $x^", "a\tb\r\n", "\x00\x07", "x"])
def test_odd_texts(tiny: GPT2, text: str, tmp_path: Path) -> None:
    """Dollar signs make no formula. A character missing from the font would cause a warning."""
    read = Read(tiny, text)
    draw(figures.attention_figure(read.weights[0, 0], read.labels, f"attention of {text}"), tmp_path)
    lens = tables.logit_lens(tiny, read.ids[0])
    predicted = [tables.token_labels(tiny.tokenizer, row) for row in lens.ids]
    draw(figures.lens_figure(lens, read.labels, predicted, text), tmp_path)
    draw(figures.tokens_figure(read.labels, read.ids[0].tolist(), text), tmp_path)
    chances = tables.next_tokens(tiny, text, 3)
    draw(figures.next_figure(chances, ["$a$", "日", "\\"], f"after {figures.ending(text)}", "top-k 2"), tmp_path)


def test_a_text_that_fills_the_context(tiny: GPT2, tmp_path: Path) -> None:
    """Not every token has a label, but the labels are readable."""
    read = Read(tiny, " the" * 256)
    figure = figures.attention_figure(read.weights[0, 0], read.labels, "long")
    draw(figure, tmp_path)
    assert 40 < len(ticks(figure.axes[0].xaxis)) < 256
    assert min(sizes(figure.axes[0].xaxis)) >= 6
    lens = tables.Lens(np.zeros((7, 1024), int), np.full((7, 1024), 0.5))
    figure = figures.lens_figure(lens, ["a"] * 1024, [["b"] * 1024] * 7, "lens")
    draw(figure, tmp_path)
    assert figure.get_size_inches().max() < 25


def test_pictures_are_drawn_into_a_given_axis(tiny: GPT2, tmp_path: Path) -> None:
    read = Read(tiny, SHORT)
    figure = Figure()
    left, right = figure.subplots(1, 2)
    pictures.draw_attention(left, read.weights[0, 0], read.labels, "mine")
    pictures.draw_matrix(right, tiny.params.wpe, "wpe")
    draw(figure, tmp_path)
    assert figure.axes == [left, right]
    assert ticks(left.yaxis) == read.labels


def test_a_file_is_replaced_only_by_a_complete_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "picture.svg"
    file.write_text("mine")
    figure = figures.weights_figure(np.zeros(3), "zeros")

    def disk_full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", disk_full)
        with pytest.raises(OSError, match="No space"):
            figures.save_figure(figure, file)
    assert file.read_text() == "mine"
    figures.save_figure(figure, file)
    assert "<svg" in file.read_text()
    assert [*tmp_path.iterdir()] == [file]


def test_a_picture_that_is_too_large_is_refused() -> None:
    with pytest.raises(ValueError, match="would have 1350 by 37890 pixels, and at most 32768 each way can be drawn"):
        figures.tokens_figure(["a" * 60] * 600, [0] * 600, "tiny")
    with pytest.raises(ValueError, match="would have 1050 by 45240 pixels"):
        figures.next_figure([tables.Chance(0, 0.5, 0.5)] * 1000, ["a"] * 1000, "tiny", "")
