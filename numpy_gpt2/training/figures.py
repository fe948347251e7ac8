"""The picture of a run: the loss of its steps, and how well it predicts the text that was held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..inside.figures import new_figure, save_figure
from ..inside.pictures import LINES

__all__ = ["loss_figure", "save_figure"]


def loss_figure(lines: Sequence[Mapping[str, Any]], name: str) -> Figure:
    """The loss over the steps and, beside it, bits per byte of the held-out text, if there are any.

    Args:
        lines: those of the log: `step`, `loss`, and `bits_per_byte` where the model was evaluated.
        name: of the model, for the title.
    """
    evaluated = [line for line in lines if line.get("bits_per_byte") is not None]
    learned = [line for line in lines if line.get("loss") is not None]
    figure = new_figure(10 if evaluated else 6, 4)
    axes = figure.subplots(1, 2 if evaluated else 1, squeeze=False)[0]
    figure.suptitle(f"training of {name}")
    steps, losses = [line["step"] for line in learned], np.array([line["loss"] for line in learned])
    axes[0].plot(steps, losses, color=LINES[5], linewidth=0.6, label="each step")
    axes[0].plot(steps, running_mean(losses), color=LINES[0], label="running mean")
    axes[0].set(xlabel="step", ylabel="loss (nats per token)")
    axes[0].legend(frameon=False)
    for axis in axes:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if evaluated:
        points = [line["step"] for line in evaluated], [line["bits_per_byte"] for line in evaluated]
        axes[1].plot(*points, color=LINES[4], marker="o")
        axes[1].set(xlabel="step", ylabel="bits per byte of the held-out text")
    return figure


def running_mean(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """For each value, the mean of it and of those before it, as many as a twentieth of all. Shapes: `[n]` to `[n]`."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - max(1, len(values) // 20))
    return (sums[ends] - sums[starts]) / (ends - starts)
