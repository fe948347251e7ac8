"""Whole pictures for `numpy-gpt2 explore`: each arranges drawings of `pictures.py` in a figure, with titles."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ..machine.files import write_atomically
from ..params import Array
from .pictures import (
    WEIGHT,
    boxes,
    draw_attention,
    draw_deviations,
    draw_effects,
    draw_lens,
    draw_matrix,
    draw_next,
    draw_part_sizes,
    draw_position_lines,
    draw_scores,
    draw_similarity,
    draw_stream,
    draw_tokens,
    drawable,
    plain,
)
from .tables import Chance, Lens, Sizes, Statistics

DPI = 150
LARGEST = 2**15  # pixels, in either direction
LENS_TOKENS = 24  # the most tokens in a row of the logit lens
LENS_ROWS = 12  # the most rows; a longer text gets a single row, without the predicted tokens


def square(n_seq: int) -> float:
    """The side, in inches, of a picture with a cell for each pair of n_seq tokens."""
    return float(np.clip(2 + 0.17 * n_seq, 4.5, 14))


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size, in inches.

    Raises:
        ValueError: the picture would be too large.
    """
    pixels = int(DPI * width), int(DPI * height)
    if max(pixels) > LARGEST:
        raise ValueError(
            f"the picture would have {pixels[0]} by {pixels[1]} pixels, and at most {LARGEST} each way can be drawn: "
            "show less"
        )
    return Figure((width, height), layout="constrained")


def params_figure(table: Sequence[Statistics], name: str) -> Figure:
    """How many parameters each part has, and how large they are."""
    figure = new_figure(12, 5)
    left, right = figure.subplots(1, 2)
    draw_part_sizes(left, table)
    draw_deviations(right, table)
    plain(figure.suptitle(drawable(f"parameters of {name}"), fontsize=12))
    return figure


def tokens_figure(labels: Sequence[str], ids: Sequence[int], name: str) -> Figure:
    """How a text splits into tokens."""
    n_lines = boxes(labels, ids)[-1].line + 1
    figure = new_figure(9, 0.6 + 0.42 * n_lines)
    draw_tokens(figure.subplots(), labels, ids)
    plain(figure.suptitle(drawable(f"{len(ids)} tokens, as split by {name}"), fontsize=12))
    return figure


def next_figure(chances: Sequence[Chance], labels: Sequence[str], name: str, drawn_with: str) -> Figure:
    """The likeliest next tokens."""
    figure = new_figure(7, 1.6 + 0.3 * len(chances))
    draw_next(figure.subplots(), chances, labels, name, drawn_with)
    return figure


def attention_figure(weights: Array, labels: Sequence[str], name: str, is_masked: bool = True) -> Figure:
    """The attention weights of one head.

    Shapes: weights `[n_seq, n_seq]`.
    """
    side = square(len(labels))
    figure = new_figure(side + 1, side)
    ax = figure.subplots()
    image = draw_attention(ax, weights, labels, name, is_masked)
    ax.set_ylabel("token that looks (query)")
    ax.set_xlabel("token looked at (key)")
    figure.colorbar(image, label=WEIGHT, shrink=0.7)
    return figure


def heads_figure(weights: Array, labels: Sequence[str], name: str) -> Figure:
    """The attention weights of all heads of one block, side by side.

    Shapes: weights `[n_head, n_seq, n_seq]`.
    """
    n_head = len(weights)
    n_columns = min(4, int(np.ceil(np.sqrt(n_head))))
    n_rows = int(np.ceil(n_head / n_columns))
    side = float(np.clip(1.2 + 0.11 * len(labels), 2.6, 7))
    figure = new_figure(n_columns * side + 1, n_rows * side)
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
    """The attention weights of all heads of all blocks, in small panels.

    Shapes: weights `[n_layer, n_head, n_seq, n_seq]`.
    """
    n_layer, n_head = weights.shape[:2]
    figure = new_figure(0.85 * n_head + 2, 0.85 * n_layer + 1)
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
    """The logit lens, for a long text in several rows."""
    n_rows, n_seq = lens.ids.shape
    n_panels = int(np.ceil(n_seq / LENS_TOKENS))
    if n_panels > LENS_ROWS:
        n_panels = 1
    n_columns = int(np.ceil(n_seq / n_panels))
    width = float(np.clip(2.5 + 0.55 * n_columns, 6, 24))
    figure = new_figure(width, 0.8 + n_panels * (1.2 + 0.32 * n_rows))
    axes = figure.subplots(n_panels, 1, squeeze=False)[:, 0]
    for i, ax in enumerate(axes):
        cut = slice(i * n_columns, (i + 1) * n_columns)
        part = Lens(lens.ids[:, cut], lens.probabilities[:, cut])
        image = draw_lens(ax, part, labels[cut], [row[cut] for row in predicted])
        ax.set_xlim(-0.5, n_columns - 0.5)  # tokens are as wide in the last row as in the others
    axes[-1].set_xlabel("predicted to follow this token")
    figure.colorbar(image, ax=axes, label="probability", shrink=max(0.3, 1 / n_panels))
    plain(figure.suptitle(drawable(name), fontsize=12))
    return figure


def positions_figure(wpe: Array, similarity: Array, name: str) -> Figure:
    """The position embeddings: the matrix, some of its columns, and the similarity of its rows.

    Shapes: wpe `[n_ctx, n_embd]`, similarity `[n_ctx, n_ctx]`.
    """
    figure = new_figure(15, 5)
    left, middle, right = figure.subplots(1, 3)
    figure.colorbar(draw_matrix(left, wpe, "the embeddings, wpe"), ax=left)
    left.set_xlabel("dimension")
    left.set_ylabel("position")
    draw_position_lines(middle, wpe)
    figure.colorbar(draw_similarity(right, similarity), ax=right)
    plain(figure.suptitle(drawable(f"position embeddings of {name}"), fontsize=12))
    return figure


def weights_figure(matrix: Array, name: str) -> Figure:
    """A parameter, or a slice of one."""
    figure = new_figure(8, 6)
    ax = figure.subplots()
    image = draw_matrix(ax, matrix, name)
    ax.set_xlabel("index" if image is None else "column")
    if image is not None:
        ax.set_ylabel("row")
        figure.colorbar(image)
    return figure


def stream_figure(sizes: Sizes, name: str) -> Figure:
    """The size of the residual stream, block by block."""
    figure = new_figure(7, 4.5)
    draw_stream(figure.subplots(), sizes, name)
    return figure


def mask_figure(masked: Array, unmasked: Array, labels: Sequence[str], name: str) -> Figure:
    """The attention weights of one head with the mask and without it.

    Shapes: masked and unmasked `[n_seq, n_seq]`.
    """
    side = min(square(len(labels)), 10)
    figure = new_figure(2 * side + 1, side + 0.4)
    axes = figure.subplots(1, 2)
    draw_attention(axes[0], masked, labels, "masked, as in a decoder: itself and earlier tokens")
    image = draw_attention(axes[1], unmasked, labels, "unmasked, as in an encoder: all tokens", is_masked=False)
    axes[1].set_yticklabels([])
    figure.colorbar(image, ax=axes, label=WEIGHT, shrink=0.7)
    plain(figure.suptitle(drawable(name), fontsize=12))
    return figure


def effects_figure(
    effects: Array, rows: Sequence[str], columns: Sequence[str], name: str, label: str, note: str = ""
) -> Figure:
    """A table of effects, with a label that says what the colours mean, and perhaps a note below.

    Shapes: `[n_rows, n_columns]`.
    """
    n_rows, n_columns = effects.shape
    figure = new_figure(float(np.clip(3 + 0.5 * n_columns, 6, 24)), float(np.clip(1.6 + 0.32 * n_rows, 3, 20)))
    ax = figure.subplots()
    figure.colorbar(draw_effects(ax, effects, rows, columns), label=label)
    ax.set_xlabel(note, fontsize=8)
    plain(figure.suptitle(drawable(name), fontsize=11))
    return figure


def scores_figure(scores: Mapping[str, Array], name: str) -> Figure:
    """Several scores of all heads, side by side.

    Shapes: each `[n_layer, n_head]`.
    """
    n_layer, n_head = next(iter(scores.values())).shape
    width, height = float(np.clip(0.42 * n_head, 1.8, 7)), float(np.clip(1.4 + 0.32 * n_layer, 3, 20))
    figure = new_figure(len(scores) * width + 1.2, height)
    axes = figure.subplots(1, len(scores), squeeze=False)[0]
    rows, columns = [f"h{i}" for i in range(n_layer)], [str(i) for i in range(n_head)]
    for ax, (title, values) in zip(axes, scores.items(), strict=True):
        image = draw_scores(ax, values, rows, columns, title)
        ax.set_xlabel("head", fontsize=8)
        if ax is not axes[0]:
            ax.set_yticklabels([])
    figure.colorbar(image, ax=axes, label="average weight")
    plain(figure.suptitle(drawable(name), fontsize=11))
    return figure


def ending(text: str, n: int = 60) -> str:
    """The last n characters of a text, in quotes, for a title."""
    return repr(text if len(text) <= n else "…" + text[1 - n :])


def save_figure(figure: Figure, file: Path, dpi: int = DPI) -> None:
    """Writes a picture in the format that the suffix names. An existing file is replaced once the new one is complete.

    Raises:
        OSError: the file cannot be written.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format=file.suffix.removeprefix(".").lower(), dpi=dpi)
    write_atomically(file, lambda temporary: temporary.write_bytes(buffer.getvalue()))
