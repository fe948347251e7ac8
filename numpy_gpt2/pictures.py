"""Pictures of a model: functions that draw what `inspection.py` returns into a given matplotlib axis.

    fig, ax = matplotlib.pyplot.subplots()
    draw_attention(ax, weights[3, 1], labels)

The functions that end a picture, `..._figure`, put several axes together for `python -m numpy_gpt2.explore`.

Colours can be told apart with any kind of colour vision: cividis for amounts, purple and orange for signs, and
for lines those of Okabe and Ito 2008, "Color Universal Design".
"""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.ft2font import FT2Font
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.ticker import EngFormatter, FormatStrFormatter, LogLocator, MaxNLocator, NullFormatter

from .files import write_atomically
from .inspection import Chance, Lens, Sizes, Statistics
from .params import Array

LINES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#000000")
MASKED = "#dddddd"
BOXES = ("#cfe3f2", "#fbe3b8", "#c8ebdd")
WEIGHT = "attention weight (square-root scale)"
DPI = 150
FORMATS = (".png", ".svg", ".pdf")
LENS_TOKENS = 24  # in a row, at most,
LENS_ROWS = 12  # and so many rows; a longer text is in one row, without what is predicted


@functools.cache
def font_characters() -> frozenset[int]:
    """The characters that matplotlib's font has."""
    return frozenset(FT2Font(findfont(FontProperties())).get_charmap())


def drawable(label: str) -> str:
    r"""A label with nothing that the font cannot draw: such characters are written by their numbers.

    >>> drawable("naïve ␣日")
    'naïve ␣\\u65e5'
    """
    known = font_characters()
    return "".join(c if ord(c) in known else c.encode("unicode_escape").decode() for c in label)


def shorten(label: str, n: int) -> str:
    """At most n characters, the last of them an ellipsis if some are left out."""
    return label if len(label) <= n else label[: n - 1] + "…"


def plain(text: Text) -> Text:
    """Draws a text as it is: two dollar signs in it are no formula."""
    text.set_parse_math(False)
    return text


def font_size(n: int, inches: float) -> float:
    """The size, in points, at which n labels have room beside each other."""
    return min(9.0, 72 * inches / max(n, 1) * 0.8)


def label_tokens(axis: Any, labels: Sequence[str], inches: float, rotation: float = 0) -> None:
    """Writes the tokens along an axis; of a text so long that they would be too small to read, every second, third, ...

    Args:
        axis: `ax.xaxis` or `ax.yaxis`.
        labels: the tokens.
        inches: how long the axis is in the picture.
        rotation: of the labels, in degrees.
    """
    every = int(np.ceil(len(labels) * 6.5 / (72 * inches * 0.8)))  # 6.5 points are the smallest that one reads
    ticks = range(0, len(labels), max(1, every))
    size = font_size(len(ticks), inches)
    axis.set_ticks(ticks, [drawable(shorten(labels[i], 14)) for i in ticks], rotation=rotation, fontsize=size)
    for text in axis.get_ticklabels():
        plain(text)
    axis.set_tick_params(length=2, pad=2)


def title(ax: Axes, text: str) -> None:
    """The title of an axis."""
    plain(ax.set_title(drawable(text), fontsize=10, loc="left"))


def inches(ax: Axes) -> tuple[float, float]:
    """About how wide and how high an axis is in its picture."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    box = ax.get_position()
    width, height = figure.get_size_inches()
    return float(box.width * width), float(box.height * height)


def draw_attention(
    ax: Axes, weights: Array, labels: Sequence[str] | None = None, name: str = "", is_masked: bool = True
) -> Any:
    """Who looks at whom: a row for each token that looks, a column for each that is looked at.

    What the mask hides is grey. The colour grows with the square root of the weight, so that small ones show.

    Shapes: weights `[n_seq, n_seq]`, n_seq labels; without labels, the tokens are not named.
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
    """The likeliest next tokens as bars, before and, where that differs, after temperature, top-k and top-p."""
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
    """Where a token is drawn, in characters."""

    line: int
    left: float
    width: float


def boxes(labels: Sequence[str], ids: Sequence[int], width: int) -> list[Box]:
    """Places tokens side by side, in as many lines of `width` characters as they need."""
    placed: list[Box] = []
    line, left = 0, 0.0
    for label, id in zip(labels, ids, strict=True):
        needed = max(len(label), 0.75 * len(str(id))) + 1
        if left > 0 and left + needed > width:
            line, left = line + 1, 0.0
        placed.append(Box(line, left, needed))
        left += needed
    return placed


def draw_tokens(ax: Axes, labels: Sequence[str], ids: Sequence[int], width: int = 70) -> int:
    """How a text splits: a box for each token, in lines of about `width` characters, with its id below.

    Returns the number of lines.
    """
    texts = [shorten(drawable(label), width - 2) for label in labels]
    placed = boxes(texts, ids, width)
    for i, (box, text, id) in enumerate(zip(placed, texts, ids, strict=True)):
        middle = box.left + (box.width - 0.15) / 2
        ax.add_patch(Rectangle((box.left, box.line), box.width - 0.15, 0.82, fc=BOXES[i % 3], ec="#888888", lw=0.5))
        plain(ax.text(middle, box.line + 0.3, text, ha="center", va="center", family="monospace", fontsize=9))
        ax.text(middle, box.line + 0.64, str(id), ha="center", va="center", fontsize=6, color="#444444")
    n_lines = placed[-1].line + 1
    ax.set_xlim(0, width)
    ax.set_ylim(n_lines, -0.1)
    ax.axis("off")
    return n_lines


def draw_lens(ax: Axes, lens: Lens, labels: Sequence[str], predicted: Sequence[Sequence[str]], name: str = "") -> Any:
    """What each layer would predict: layers from bottom to top, tokens from left to right.

    Shapes: of lens `[n_layer + 1, n_seq]`, n_seq labels, n_layer + 1 times n_seq predicted tokens.
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


def draw_matrix(ax: Axes, matrix: Array, name: str = "") -> Any:
    """A matrix as an image, purple below zero and orange above, or a vector as a line.

    The colours end where all but one number in a thousand are within them.

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
    """The first n numbers of the position embeddings, along the positions.

    Shapes: wpe `[n_ctx, n_embd]`.
    """
    for i in range(min(n, wpe.shape[1])):
        ax.plot(wpe[:, i], color=LINES[i % len(LINES)], lw=1, label=f"number {i}")
    ax.set_xlabel("position")
    ax.legend(fontsize=7, ncols=3)
    title(ax, "the first numbers of each")


def draw_similarity(ax: Axes, similarity: Array) -> Any:
    """How similar positions are to each other.

    Shapes: `[n_ctx, n_ctx]`.
    """
    image = ax.imshow(similarity, cmap="PuOr_r", vmin=-1, vmax=1, interpolation="nearest")
    ax.set_xlabel("position")
    ax.set_ylabel("position")
    title(ax, "how similar each is to each other (cosine)")
    return image


def draw_part_sizes(ax: Axes, table: Sequence[Statistics]) -> None:
    """How many parameters each kind of part has, those of all blocks together."""
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
    title(ax, f"where the {total:,} parameters are")


def draw_deviations(ax: Axes, table: Sequence[Statistics]) -> None:
    """The standard deviation of the weights of each kind, block after block."""
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
    """How large the residual stream is after each block, and what attention and MLP added to it."""
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


def square(n_seq: int) -> float:
    """The side, in inches, of a picture of all pairs of n_seq tokens."""
    return float(np.clip(2 + 0.17 * n_seq, 4.5, 14))


def params_figure(table: Sequence[Statistics], name: str) -> Figure:
    """Where the parameters are, and how large."""
    figure = Figure((12, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_part_sizes(left, table)
    draw_deviations(right, table)
    plain(figure.suptitle(drawable(f"parameters of {name}"), fontsize=12))
    return figure


def tokens_figure(labels: Sequence[str], ids: Sequence[int], name: str) -> Figure:
    """A text in boxes."""
    figure = Figure((9, 1), layout="constrained")
    n_lines = draw_tokens(figure.subplots(), labels, ids)
    figure.set_size_inches(9, 0.6 + 0.42 * n_lines)
    plain(figure.suptitle(drawable(f"{len(ids)} tokens, as {name} reads them"), fontsize=12))
    return figure


def next_figure(chances: Sequence[Chance], labels: Sequence[str], name: str, drawn_with: str) -> Figure:
    """The likeliest next tokens."""
    figure = Figure((7, 1.6 + 0.3 * len(chances)), layout="constrained")
    draw_next(figure.subplots(), chances, labels, name, drawn_with)
    return figure


def attention_figure(weights: Array, labels: Sequence[str], name: str, is_masked: bool = True) -> Figure:
    """One head.

    Shapes: weights `[n_seq, n_seq]`.
    """
    side = square(len(labels))
    figure = Figure((side + 1, side), layout="constrained")
    ax = figure.subplots()
    image = draw_attention(ax, weights, labels, name, is_masked)
    ax.set_ylabel("this token looks")
    ax.set_xlabel("at this token")
    figure.colorbar(image, label=WEIGHT, shrink=0.7)
    return figure


def heads_figure(weights: Array, labels: Sequence[str], name: str) -> Figure:
    """All heads of one block, side by side.

    Shapes: weights `[n_head, n_seq, n_seq]`.
    """
    n_head = len(weights)
    n_columns = min(4, int(np.ceil(np.sqrt(n_head))))
    n_rows = int(np.ceil(n_head / n_columns))
    side = float(np.clip(1.2 + 0.11 * len(labels), 2.6, 7))
    figure = Figure((n_columns * side + 1, n_rows * side), layout="constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False)
    for i, ax in enumerate(axes.flat):
        if i >= n_head:
            ax.axis("off")
            continue
        image = draw_attention(ax, weights[i], labels, f"head {i}")
        if i % n_columns:
            ax.set_yticklabels([])
        if i + n_columns < n_head:
            ax.set_xticklabels([])
    figure.colorbar(image, ax=axes, label=WEIGHT, shrink=0.5)
    plain(figure.suptitle(drawable(name), fontsize=12))
    return figure


def layers_figure(weights: Array, name: str) -> Figure:
    """All heads of all blocks, small.

    Shapes: weights `[n_layer, n_head, n_seq, n_seq]`.
    """
    n_layer, n_head = weights.shape[:2]
    figure = Figure((0.85 * n_head + 2, 0.85 * n_layer + 1), layout="constrained")
    axes = figure.subplots(n_layer, n_head, squeeze=False)
    for layer in range(n_layer):
        for head in range(n_head):
            image = draw_attention(axes[layer, head], weights[layer, head])
            if layer == 0:
                axes[layer, head].set_title(f"head {head}", fontsize=8)
        axes[layer, 0].set_ylabel(f"h{layer}", rotation=0, ha="right", va="center", fontsize=9)
    figure.colorbar(image, ax=axes, label=WEIGHT, shrink=0.6)
    plain(figure.suptitle(drawable(name), fontsize=12))
    return figure


def lens_figure(lens: Lens, labels: Sequence[str], predicted: Sequence[Sequence[str]], name: str) -> Figure:
    """The logit lens, a long text in several rows."""
    n_rows, n_seq = lens.ids.shape
    n_panels = int(np.ceil(n_seq / LENS_TOKENS))
    if n_panels > LENS_ROWS:
        n_panels = 1
    n_columns = int(np.ceil(n_seq / n_panels))
    figure = Figure(
        (float(np.clip(2.5 + 0.55 * n_columns, 6, 24)), 0.8 + n_panels * (1.2 + 0.32 * n_rows)), layout="constrained"
    )
    axes = figure.subplots(n_panels, 1, squeeze=False)[:, 0]
    for i, ax in enumerate(axes):
        cut = slice(i * n_columns, (i + 1) * n_columns)
        part = Lens(lens.ids[:, cut], lens.probabilities[:, cut])
        image = draw_lens(ax, part, labels[cut], [row[cut] for row in predicted])
        ax.set_xlim(-0.5, n_columns - 0.5)  # as wide a token in the last row as in the others
    axes[-1].set_xlabel("after this token")
    figure.colorbar(image, ax=axes, label="probability", shrink=max(0.3, 1 / n_panels))
    plain(figure.suptitle(drawable(name), fontsize=12))
    return figure


def positions_figure(wpe: Array, similarity: Array, name: str) -> Figure:
    """The position embeddings, three times.

    Shapes: wpe `[n_ctx, n_embd]`, similarity `[n_ctx, n_ctx]`.
    """
    figure = Figure((15, 5), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    figure.colorbar(draw_matrix(left, wpe, "the embeddings, wpe"), ax=left)
    left.set_xlabel("number")
    left.set_ylabel("position")
    draw_position_lines(middle, wpe)
    figure.colorbar(draw_similarity(right, similarity), ax=right)
    plain(figure.suptitle(drawable(f"position embeddings of {name}"), fontsize=12))
    return figure


def weights_figure(matrix: Array, name: str) -> Figure:
    """One parameter, or a part of it."""
    figure = Figure((8, 6), layout="constrained")
    ax = figure.subplots()
    image = draw_matrix(ax, matrix, name)
    ax.set_xlabel("index" if image is None else "column")
    if image is not None:
        ax.set_ylabel("row")
        figure.colorbar(image)
    return figure


def stream_figure(sizes: Sizes, name: str) -> Figure:
    """The residual stream through the blocks."""
    figure = Figure((7, 4.5), layout="constrained")
    draw_stream(figure.subplots(), sizes, name)
    return figure


def mask_figure(masked: Array, unmasked: Array, labels: Sequence[str], name: str) -> Figure:
    """The same head with the mask and without.

    Shapes: twice `[n_seq, n_seq]`.
    """
    side = min(square(len(labels)), 10)
    figure = Figure((2 * side + 1, side + 0.4), layout="constrained")
    axes = figure.subplots(1, 2)
    draw_attention(axes[0], masked, labels, "masked: a decoder, such as GPT-2, may see itself and back")
    image = draw_attention(axes[1], unmasked, labels, "unmasked: an encoder may see all", is_masked=False)
    axes[1].set_yticklabels([])
    figure.colorbar(image, ax=axes, label=WEIGHT, shrink=0.7)
    plain(figure.suptitle(drawable(name), fontsize=12))
    return figure


def ending(text: str, n: int = 60) -> str:
    """The last characters of a text, in quotes, for a title."""
    return repr(text if len(text) <= n else "…" + text[1 - n :])


def check_format(file: Path) -> None:
    """Checks that a file's ending is one of a picture.

    Raises:
        ValueError: it is not.
    """
    if file.suffix.lower() not in FORMATS:
        raise ValueError(f"{file} is none of the pictures that are drawn here: {', '.join(FORMATS)}")


def save_figure(figure: Figure, file: Path) -> None:
    """Writes a picture, whose ending says in which format; a file that was there is lost only when it is whole.

    Raises:
        OSError: it cannot be written.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format=file.suffix.removeprefix(".").lower(), dpi=DPI)
    write_atomically(file, lambda temporary: temporary.write_bytes(buffer.getvalue()))
