"""The picture of a run."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("matplotlib")
from matplotlib.image import imread

from numpy_gpt2.training import figures

LOSSES = [3.0, 2.5, 2.75, 2.0, 1.5]
LINES: list[dict[str, Any]] = [{"step": i + 1, "loss": loss} for i, loss in enumerate(LOSSES)]


@pytest.fixture(autouse=True)
def no_warnings() -> Any:
    """Matplotlib warns of layouts that do not fit."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def curves(axis: Any) -> list[tuple[list[float], list[float]]]:
    return [([*line.get_xdata()], [*line.get_ydata()]) for line in axis.lines]


def test_the_loss_of_each_step_and_its_running_mean(tmp_path: Path) -> None:
    figure = figures.loss_figure(LINES, "my-model")
    (axis,) = figure.axes
    steps = [1, 2, 3, 4, 5]
    assert curves(axis) == [(steps, LOSSES), (steps, [*figures.running_mean(np.array(LOSSES))])]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("step", "loss (nats per token)")
    legend = axis.get_legend()
    assert legend
    assert [text.get_text() for text in legend.get_texts()] == ["each step", "running mean"]
    assert figure.get_suptitle() == "training of my-model"
    figures.save_figure(figure, tmp_path / "loss.png", dpi=40)
    assert imread(tmp_path / "loss.png").std() > 0.01


def test_bits_per_byte_of_the_held_out_text_beside_it(tmp_path: Path) -> None:
    """The evaluation before the first step is in the log without a loss."""
    lines = [{"step": 0, "bits_per_byte": 4.0}, *LINES[:3], {**LINES[3], "bits_per_byte": 2.5}, LINES[4]]
    figure = figures.loss_figure(lines, "my-model")
    left, right = figure.axes
    assert curves(left)[0] == ([1, 2, 3, 4, 5], LOSSES)
    assert curves(right) == [([0, 4], [4.0, 2.5])]
    assert right.get_ylabel() == "bits per byte of the held-out text"
    figures.save_figure(figure, tmp_path / "loss.png", dpi=40)
    assert imread(tmp_path / "loss.png").std() > 0.01


@pytest.mark.parametrize("lines", [[], LINES[:1], [{"step": 0, "bits_per_byte": 4.0}]], ids=["none", "one", "no loss"])
def test_a_run_that_has_hardly_begun(lines: list[dict[str, Any]], tmp_path: Path) -> None:
    figures.save_figure(figures.loss_figure(lines, "my-model"), tmp_path / "loss.png", dpi=40)
    assert (tmp_path / "loss.png").exists()


def test_steps_are_whole_numbers() -> None:
    figure = figures.loss_figure(LINES[:2], "my-model")
    figure.draw_without_rendering()
    assert all(float(tick).is_integer() for tick in figure.axes[0].get_xticks())


@given(st.lists(st.floats(-100, 100), max_size=90))
def test_the_running_mean_is_that_of_a_plain_loop(values: list[float]) -> None:
    n = max(1, len(values) // 20)
    expected = [np.mean(values[max(0, i + 1 - n) : i + 1]) for i in range(len(values))]
    np.testing.assert_allclose(figures.running_mean(np.array(values)), expected, atol=1e-9)
