"""Pictures of a model: functions that draw what `tables.py` returns into a given matplotlib axis.

    fig, ax = matplotlib.pyplot.subplots()
    draw_attention(ax, weights[3, 1], labels)

All colours are safe for colour-blind readers: cividis for amounts, purple and orange for negative and positive
numbers, and for lines the palette of Okabe and Ito 2008, "Color Universal Design".
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.ft2font import FT2Font
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.ticker import EngFormatter, FormatStrFormatter, LogLocator, MaxNLocator, NullFormatter

from ..params import Array
from .tables import Chance, Lens, Sizes, Statistics

LINES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#000000")
MASKED = "#dddddd"
BOXES = ("#cfe3f2", "#fbe3b8", "#c8ebdd")
TOKENS_WIDTH = 70  # of a line of tokens, in characters
WEIGHT = "attention weight (square-root scale)"


@functools.cache
def font_characters() -> frozenset[int]:
    """The characters in matplotlib's font."""
    return frozenset(FT2Font(findfont(FontProperties())).get_charmap())


def drawable(label: str) -> str:
    r"""The label, with an escape sequence for each character that the font lacks.

    >>> drawable("naïve ␣日")
    'naïve ␣\\u65e5'
    """
    known = font_characters()
    return "".join(c if ord(c) in known else c.encode("unicode_escape").decode() for c in label)


def shorten(label: str, n: int) -> str:
    """The label, cut to n characters, of which the last is an ellipsis."""
    return label if len(label) <= n else label[: n - 1] + "…"


def plain(text: Text) -> Text:
    """Makes matplotlib draw a text literally: it would take two dollar signs for the ends of a formula."""
    text.set_parse_math(False)
    return text


def font_size(n: int, inches: float) -> float:
    """The font size, in points, at which n labels fit along an axis of this length."""
    return min(9.0, 72 * inches / max(n, 1) * 0.8)


def label_tokens(axis: Any, labels: Sequence[str], inches: float, rotation: float = 0) -> None:
    """Labels an axis with tokens. Where all of them would be too small to read, labels every second one, or fewer.

    Args:
        axis: `ax.xaxis` or `ax.yaxis`.
        labels: the tokens.
        inches: the length of the axis.
        rotation: of the labels, in degrees.
    """
    every = int(np.ceil(len(labels) * 6.5 / (72 * inches * 0.8)))  # 6.5 points is the smallest readable size
    ticks = range(0, len(labels), max(1, every))
    size = font_size(len(ticks), inches)
    axis.set_ticks(ticks, [drawable(shorten(labels[i], 14)) for i in ticks], rotation=rotation, fontsize=size)
    for text in axis.get_ticklabels():
        plain(text)
    axis.set_tick_params(length=2, pad=2)


def title(ax: Axes, text: str) -> None:
    """Sets the title of an axis."""
    plain(ax.set_title(drawable(text), fontsize=10, loc="left"))


def inches(ax: Axes) -> tuple[float, float]:
    """The approximate width and height of an axis."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    box = ax.get_position()
    width, height = figure.get_size_inches()
    return float(box.width * width), float(box.height * height)


def draw_attention(
    ax: Axes, weights: Array, labels: Sequence[str] | None = None, name: str = "", is_masked: bool = True
) -> Any:
    """Attention weights: a row for each query, a column for each key.

    Keys that the mask hides are grey. Colours follow the square root of the weight, which makes small weights
    visible. Without labels, the axes have no ticks.

    Shapes: weights `[n_seq, n_seq]`, n_seq labels.
    """
    hidden = np.triu(np.ones(weights.shape, bool), k=1) if is_masked else np.zeros(weights.shape, bool)
    ax.set_facecolor(MASKED)
    image = ax.imshow(
        np.ma.masked_array(weights, hidden),
        cmap="cividis",
        norm=PowerNorm(0.5, vmin=0, vmax=1),
        interpolation="nearest",
        aspect="auto",
    )
    if labels is None:
        ax.set_xticks([])
        ax.set_yticks([])
    else:
        width, height = inches(ax)
        label_tokens(ax.xaxis, labels, width, rotation=90)
        label_tokens(ax.yaxis, labels, height)
    title(ax, name)
    return image


def draw_next(
    ax: Axes, chances: Sequence[Chance], labels: Sequence[str], name: str = "", drawn_with: str = "the options"
) -> None:
    """The likeliest next tokens as bars: their probabilities and, if they differ, those that tokens are drawn with."""
    y = np.arange(len(chances))
    if any(c.drawn != c.probability for c in chances):
        ax.barh(y - 0.2, [c.probability for c in chances], 0.4, color=LINES[0], label="probability")
        ax.barh(y + 0.2, [c.drawn for c in chances], 0.4, color=LINES[1], label=f"with {drawn_with}")
        ax.legend(fontsize=8)
    else:
        ax.barh(y, [c.probability for c in chances], color=LINES[0])
    ax.invert_yaxis()
    label_tokens(ax.yaxis, labels, inches(ax)[1])
    ax.set_xlabel("probability")
    title(ax, name)


class Box(NamedTuple):
    """The place of a token in a picture. Widths are in characters."""

    text: str
    line: int
    left: float
    width: float


def boxes(labels: Sequence[str], ids: Sequence[int], width: int = TOKENS_WIDTH) -> list[Box]:
    """Places tokens side by side, in lines of about `width` characters."""
    placed: list[Box] = []
    line, left = 0, 0.0
    for label, id in zip(labels, ids, strict=True):
        text = shorten(drawable(label), width - 2)
        needed = max(len(text), 0.75 * len(str(id))) + 1
        if left > 0 and left + needed > width:
            line, left = line + 1, 0.0
        placed.append(Box(text, line, left, needed))
        left += needed
    return placed


def draw_tokens(ax: Axes, labels: Sequence[str], ids: Sequence[int], width: int = TOKENS_WIDTH) -> None:
    """How a text splits: a box with the text and the id of each token, in lines of about `width` characters."""
    placed = boxes(labels, ids, width)
    for i, (box, id) in enumerate(zip(placed, ids, strict=True)):
        middle = box.left + (box.width - 0.15) / 2
        ax.add_patch(Rectangle((box.left, box.line), box.width - 0.15, 0.82, fc=BOXES[i % 3], ec="#888888", lw=0.5))
        plain(ax.text(middle, box.line + 0.3, box.text, ha="center", va="center", family="monospace", fontsize=9))
        ax.text(middle, box.line + 0.64, str(id), ha="center", va="center", fontsize=6, color="#444444")
    ax.set_xlim(0, width)
    ax.set_ylim(placed[-1].line + 1, -0.1)
    ax.axis("off")


def draw_lens(ax: Axes, lens: Lens, labels: Sequence[str], predicted: Sequence[Sequence[str]], name: str = "") -> Any:
    """The logit lens: what each layer would predict, with layers from bottom to top and tokens from left to right.

    Shapes: the arrays of lens `[n_layer + 1, n_seq]`, n_seq labels, predicted n_layer + 1 lists of n_seq tokens.
    """
    n_rows, n_seq = lens.ids.shape
    image = ax.imshow(
        lens.probabilities, cmap="cividis", vmin=0, vmax=1, origin="lower", aspect="auto", interpolation="nearest"
    )
    width, height = inches(ax)
    label_tokens(ax.xaxis, labels, width, rotation=90)
    ax.set_yticks(range(n_rows), ["embeddings", *(f"after h{i}" for i in range(n_rows - 1))], fontsize=8)
    size = min(8.0, 72 * width / n_seq / 4.5, 72 * height / n_rows * 0.6)
    if size >= 4:
        for row in range(n_rows):
            for column in range(n_seq):
                is_light = lens.probabilities[row, column] > 0.4
                text = drawable(shorten(predicted[row][column], 8))
                color = "black" if is_light else "white"
                plain(ax.text(column, row, text, ha="center", va="center", fontsize=size, color=color))
    title(ax, name)
    return image


def draw_effects(ax: Axes, effects: Array, rows: Sequence[str], columns: Sequence[str], name: str = "") -> Any:
    """A table of effects, with negative numbers in purple and positive ones in orange. NaN stays empty.

    Shapes: effects `[n_rows, n_columns]`, with their labels. Rows go from bottom to top, as data does in the model.
    """
    largest = float(np.nanmax(np.abs(effects), initial=0)) or 1.0
    image = draw_cells(ax, effects, rows, columns, cmap="PuOr_r", vmin=-largest, vmax=largest)
    write_cells(ax, effects, is_light=np.abs(effects) < 0.7 * largest)
    title(ax, name)
    return image


def draw_scores(ax: Axes, scores: Array, rows: Sequence[str], columns: Sequence[str], name: str = "") -> Any:
    """A table of numbers from 0 to 1.

    Shapes: scores `[n_rows, n_columns]`, with their labels. Rows go from bottom to top.
    """
    image = draw_cells(ax, scores, rows, columns, cmap="cividis", vmin=0, vmax=1)
    write_cells(ax, scores, is_light=scores > 0.4)
    title(ax, name)
    return image


def draw_cells(ax: Axes, values: Array, rows: Sequence[str], columns: Sequence[str], **colours: Any) -> Any:
    """A matrix as an image with labels, from bottom to top."""
    ax.set_facecolor(MASKED)
    image = ax.imshow(values, origin="lower", aspect="auto", interpolation="nearest", **colours)
    width, height = inches(ax)
    label_tokens(ax.xaxis, columns, width, rotation=90)
    label_tokens(ax.yaxis, rows, height)
    return image


def write_cells(ax: Axes, values: Array, is_light: Array) -> None:
    """Writes the numbers into the cells of an image, if there is room: in black where the colour is light."""
    n_rows, n_columns = values.shape
    width, height = inches(ax)
    size = min(8.0, 72 * width / n_columns / 3.5, 72 * height / n_rows * 0.6)
    if size < 4:
        return
    for row, column in np.argwhere(np.isfinite(values)):
        color = "black" if is_light[row, column] else "white"
        number = round(float(values[row, column]), 2) + 0.0  # not -0.0
        ax.text(column, row, f"{number:.2f}", ha="center", va="center", fontsize=size, color=color)


def draw_matrix(ax: Axes, matrix: Array, name: str = "") -> Any:
    """Draws a matrix as an image, with negative numbers in purple and positive ones in orange, or a vector as a line.

    The colour scale covers all but the largest 0.1% of the numbers.

    Shapes: `[n]` or `[n_rows, n_columns]`.
    """
    title(ax, name)
    if matrix.ndim < 2:
        ax.plot(np.atleast_1d(matrix), color=LINES[0], lw=0.8, marker="." if matrix.size < 50 else "")
        ax.axhline(0, color="#888888", lw=0.5)
        return None
    largest = float(np.quantile(np.abs(matrix), 0.999)) or 1.0
    return ax.imshow(matrix, cmap="PuOr_r", vmin=-largest, vmax=largest, aspect="auto", interpolation="nearest")


def draw_position_lines(ax: Axes, wpe: Array, n: int = 6) -> None:
    """The first n dimensions of the position embeddings, as functions of the position.

    Shapes: wpe `[n_ctx, n_embd]`.
    """
    for i in range(min(n, wpe.shape[1])):
        ax.plot(wpe[:, i], color=LINES[i % len(LINES)], lw=1, label=f"dimension {i}")
    ax.set_xlabel("position")
    ax.legend(fontsize=7, ncols=3)
    title(ax, "the first dimensions")


def draw_similarity(ax: Axes, similarity: Array) -> Any:
    """The cosine similarity of the embeddings of all pairs of positions.

    Shapes: `[n_ctx, n_ctx]`.
    """
    image = ax.imshow(similarity, cmap="PuOr_r", vmin=-1, vmax=1, interpolation="nearest")
    ax.set_xlabel("position")
    ax.set_ylabel("position")
    title(ax, "cosine similarity of the embeddings")
    return image


def draw_part_sizes(ax: Axes, table: Sequence[Statistics]) -> None:
    """The number of parameters in each kind of part, summed over the blocks."""
    sizes: dict[str, int] = {}
    for row in table:
        part = kind(row.name).rpartition("/")[0] or row.name
        sizes[part] = sizes.get(part, 0) + row.size
    bars = ax.barh([*sizes], [*sizes.values()], color=LINES[0])
    total = sum(sizes.values())
    ax.bar_label(bars, [f"{size:,} ({size / total:.1%})" for size in sizes.values()], fontsize=7, padding=3)
    ax.invert_yaxis()
    ax.set_xlim(0, 1.45 * max(sizes.values()))
    ax.tick_params(labelsize=8)
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.set_xlabel("parameters")
    title(ax, f"number of parameters by part ({total:,} in all)")


def draw_deviations(ax: Axes, table: Sequence[Statistics]) -> None:
    """The standard deviation of each kind of weights, block by block."""
    kinds: dict[str, list[float]] = {}
    for row in table:
        if row.name.startswith("h") and row.name.endswith("/w"):
            kinds.setdefault(kind(row.name), []).append(row.deviation)
    for (name, deviations), color in zip(kinds.items(), LINES, strict=False):
        ax.plot(deviations, color=color, marker=".", label=name)
    ax.set_xlabel("block")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_ylim(bottom=0)
    ax.legend(fontsize=7)
    title(ax, "standard deviation of the weights")


def kind(name: str) -> str:
    """A parameter's name without the number of its block.

    >>> kind("h11/mlp/c_fc/w"), kind("wte")
    ('mlp/c_fc/w', 'wte')
    """
    block, _, rest = name.partition("/")
    return rest if block[1:].isdigit() else name


def draw_stream(ax: Axes, sizes: Sizes, name: str = "") -> None:
    """The size of the residual stream after each block, and of what attention and MLP add to it."""
    for label, values, color in zip(
        ("residual stream", "added by attention", "added by the MLP"), sizes, LINES, strict=False
    ):
        ax.plot(values, color=color, marker="o", ms=4, label=label)
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("block")
    ax.set_ylabel("root mean square")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(fontsize=8, loc="lower right")
    title(ax, name)
