"""`numpy-gpt2 explore`: each table, each picture, and what it says when something is wrong."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import SHAPES, random_model

import numpy_gpt2
from numpy_gpt2.cli import explore
from numpy_gpt2.cli.parser import ArgumentParser
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.inside import experiments, mean, tables

TEXT = "The king gave his daughter to the miller."
WOMAN, MAN = "The old woman was so angry that", "The old man was so angry that"
VIEWS = [
    ["params"],
    ["tokens", TEXT],
    ["next", TEXT, "--temperature", "0.5", "--top-k", "4"],
    ["attention", TEXT],
    ["attention", TEXT, "--layer", "2"],
    ["attention", TEXT, "--layer", "2", "--head", "1"],
    ["lens", TEXT],
    ["positions"],
    ["weights", "h1/attn/c_attn/w[:300,:300]"],
    ["trace", TEXT],
    ["mask", TEXT, "--layer", "1", "--head", "3"],
    ["ablate", WOMAN, "--mean"],
    ["patch", WOMAN, MAN, "--part", "attention"],
    ["attribute", WOMAN, "--token", " she", "--other", " he"],
    ["heads", WOMAN],
    ["heads"],
]


@pytest.fixture(autouse=True)
def no_models_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMPY_GPT2_MODELS", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)


def run(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "numpy_gpt2", "explore", *args]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False, **options)


def table(capsys: pytest.CaptureFixture[str], *args: str) -> list[str]:
    """The lines that a view prints, in this process."""
    parser = ArgumentParser(prog="numpy-gpt2 explore")
    explore.add_options(parser)
    explore.run(parser.parse_args([args[0], "--model", "tiny", *args[1:]]))
    return capsys.readouterr().out.splitlines()


def test_every_view_is_tested_here() -> None:
    assert {args[0] for args in VIEWS} == {*explore.VIEWS}


@pytest.mark.parametrize("args", VIEWS, ids=" ".join)
def test_each_prints_a_table_and_draws_a_picture(
    args: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    plain = table(capsys, *args)
    assert len({*plain}) >= 2
    assert table(capsys, *args, "-o", "picture.png") == plain
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_params(tiny: GPT2, capsys: pytest.CaptureFixture[str]) -> None:
    lines = table(capsys, "params")
    assert lines[0].split() == ["name", "shape", "size", "mean", "deviation"]
    assert lines[1].split()[0] == "wte"
    assert lines[-1] == "4,273,664 parameters in 52 arrays"
    assert len(lines) == 52 + 3


def test_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    lines = table(capsys, "tokens", "The king")
    assert [line.split() for line in lines] == [
        ["position", "id", "piece", "bytes", "merges"],
        ["0", "330", "The", "54", "68", "65", "h", "e,", "T", "he"],
        ["1", "557", "␣king", "20", "6b", "69", "6e", "67", "i", "n,", "in", "g,", "Ġ", "k,", "Ġk", "ing"],
    ]


@pytest.mark.parametrize(
    ("args", "options"),
    [
        (["--top-k", "2"], {"top_k": 2}),
        (["--min-p", "0.1", "--repetition-penalty", "1.3"], {"min_p": 0.1, "repetition_penalty": 1.3}),
        (["--greedy"], {"temperature": 0}),
        ([], {}),
    ],
    ids=str,
)
def test_next(tiny: GPT2, capsys: pytest.CaptureFixture[str], args: list[str], options: dict[str, float]) -> None:
    """By default no sampling option has an effect, unlike those of `generate`."""
    text = "The king was very, very"
    lines = table(capsys, "next", text, "-n", "60", *args)
    assert lines[0].split() == ["rank", "id", "token", "probability", "drawn", "with"]
    expected = tables.next_tokens(tiny, text, 60, **options)
    assert len(lines) == 61
    for line, chance in zip(lines[1:], expected, strict=True):
        _, id, _, probability, drawn = line.split()
        assert (int(id), float(probability), float(drawn)) == pytest.approx(chance, abs=1e-6)
    assert any(chance.drawn != pytest.approx(chance.probability, abs=1e-6) for chance in expected) == bool(args)


def test_attention(tiny: GPT2, capsys: pytest.CaptureFixture[str]) -> None:
    weights = tables.attention_weights(tiny, TEXT)
    lines = table(capsys, "attention", TEXT, "--layer", "3", "--head", "2")
    labels = tables.token_labels(tiny.tokenizer, tables.read_ids(tiny, TEXT))
    for line, label, row in zip(lines[1:], labels, weights[3, 2], strict=True):
        assert line.split()[:3] == [label, labels[row.argmax()], f"{row.max():.3f}"]
    lines = table(capsys, "attention", TEXT)
    assert len(lines) == 2 + 4 * 4
    assert lines[2 + 3 * 4 + 2].split()[:3] == ["h3", "2", f"{weights[3, 2, 1:, 0].mean():.3f}"]


def test_lens_and_mask(tiny: GPT2, capsys: pytest.CaptureFixture[str]) -> None:
    ids = tables.read_ids(tiny, TEXT)
    lines = table(capsys, "lens", TEXT)
    last = tables.token_labels(tiny.tokenizer, tiny.logits(ids)[0].argmax(-1))
    assert [line.split()[-1] for line in lines[2:]] == last
    lines = table(capsys, "mask", TEXT, "--layer", "1", "--head", "3")
    assert lines[2].split()[1:3] == ["The", "1.000"]  # with the mask, the first token sees only itself
    assert 0 < float(lines[2].split()[-1]) < 1  # without it, also what follows
    assert float(lines[-1].split()[-1]) == 0  # nothing follows the last token


def test_trace(tiny: GPT2, capsys: pytest.CaptureFixture[str]) -> None:
    with numpy_gpt2.trace("h3/mlp/*") as t:
        tiny.logits(TEXT)
    lines = table(capsys, "trace", TEXT, "--names", "h3/mlp/*")
    assert [line.split()[0] for line in lines] == ["name", *t]
    assert f"[1, {t['h3/mlp/hidden'].shape[1]}, 1024]" in lines[2]
    assert f"layers.py:{t.steps[1].line}" in lines[2]


def test_ablate_patch_and_attribute(tiny: GPT2, capsys: pytest.CaptureFixture[str]) -> None:
    she_or_he = "--token", " she", "--other", " he"
    question = WOMAN, " she", " he"
    ablation = experiments.ablation(tiny, *question)
    lines = table(capsys, "ablate", WOMAN, *she_or_he)
    assert lines[0] == f"token: ␣she  other: ␣he  prediction: {ablation.whole:.4f}"
    assert lines[2].split() == "block head 0 head 1 head 2 head 3 mlp".split()
    for line, heads, mlp in zip(lines[3:], ablation.heads, ablation.mlps, strict=True):
        assert [float(x) for x in line.split()[1:]] == pytest.approx([*heads, mlp], abs=6e-4)
    patching = experiments.activation_patching(tiny, WOMAN, MAN, " she", " he", "mlp")
    lines = table(capsys, "patch", WOMAN, MAN, *she_or_he, "--part", "mlp")
    assert f"after clean: {patching.clean:.4f}  after corrupted: {patching.corrupted:.4f}" in lines[0]
    assert lines[5].split()[:3] == ["2", "␣woman", "␣man"]
    assert [float(x) for x in lines[5].split()[3:]] == pytest.approx(patching.restored[:, 2], abs=6e-4)
    attribution = experiments.attribution(tiny, *question)
    lines = table(capsys, "attribute", WOMAN, *she_or_he)
    assert f"logit: {attribution.total:.4f}  token embedding: {attribution.token_embedding:.4f}" in lines[0]
    expected = [*attribution.heads[3], attribution.biases[3], attribution.mlps[3]]
    assert [float(x) for x in lines[6].split()[1:]] == pytest.approx(expected, abs=6e-4)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What is given to the functions that draw effects and scores."""
    figures = pytest.importorskip("numpy_gpt2.inside.figures")
    given: list[tuple[Any, ...]] = []

    def watched(draw: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any) -> Any:
            given.append(args)
            return draw(*args)

        return noted

    for name in ("effects_figure", "scores_figure"):
        monkeypatch.setattr(figures, name, watched(getattr(figures, name)))
    return given


def test_what_the_pictures_of_experiments_say(
    tiny: GPT2, drawn: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    she_or_he = "--token", " she", "--other", " he"
    heads = [f"head {i}" for i in range(4)]
    blocks = [f"h{i}" for i in range(4)]
    table(capsys, "ablate", WOMAN, *she_or_he, "-o", "picture.png")
    effects, *words = drawn.pop()
    found = experiments.ablation(tiny, WOMAN, " she", " he")
    np.testing.assert_array_equal(effects, np.column_stack([found.heads, found.mlps]))
    assert words[:2] == [blocks, [*heads, "mlp"]]
    assert words[2] == "logit of '␣she' - logit of '␣he', and how it changes without one part (tiny)"
    assert words[3] == f"change from {found.whole:.2f}"
    lines = table(capsys, "ablate", WOMAN, "--mean", "-o", "picture.png")
    effects, *words = drawn.pop()
    np.testing.assert_array_equal(effects[:, :4], experiments.ablation(tiny, WOMAN, change=mean).heads)
    likeliest = tables.next_tokens(tiny, WOMAN, 1)[0].id
    (label,) = tables.token_labels(tiny.tokenizer, [likeliest])
    assert words[2] == f"log-probability of '{label}', and how it changes with the mean in place of one part (tiny)"
    assert lines[1] == "how the prediction changes with the mean in place of one part: a head, or an MLP"
    table(capsys, "patch", WOMAN, MAN, "-o", "picture.png")
    effects, *words = drawn.pop()
    patching = experiments.activation_patching(tiny, WOMAN, MAN)
    np.testing.assert_array_equal(effects, patching.restored)
    assert words[0] == patching.names
    assert words[1][1:4] == ["␣old", "␣man → ␣woman", "␣was"]
    assert words[2].startswith(
        f"log-probability of '{label}': {patching.corrupted:.2f}, and {patching.clean:.2f} after"
    )
    table(capsys, "attribute", WOMAN, "-o", "picture.png")
    effects, *words = drawn.pop()
    attribution = experiments.attribution(tiny, WOMAN)
    np.testing.assert_array_equal(effects[:, 4:], np.column_stack([attribution.biases, attribution.mlps]))
    assert words[2] == f"logit of '{label}': {attribution.total:.2f} is the sum of these terms (tiny)"
    assert words[4].startswith(f"besides: token embedding {attribution.token_embedding:.2f}, position embedding ")
    table(capsys, "heads", WOMAN, "-o", "picture.png")
    scores, name = drawn.pop()
    assert [*scores] == ["first", "itself", "previous", "duplicate", "induction"]
    assert name == "where the heads of tiny look, in the text read twice"


def test_the_progress_of_experiments(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Each ends where the bar is full."""
    bars: list[list[int]] = []

    @contextlib.contextmanager
    def bar(total: int, unit: str) -> Iterator[Any]:
        bars.append([total, 0])
        yield SimpleNamespace(update=lambda n: bars[-1].__setitem__(1, bars[-1][1] + n))

    monkeypatch.setattr("numpy_gpt2.cli.experiments.progress_bar", bar)
    table(capsys, "ablate", WOMAN)
    table(capsys, "patch", WOMAN, MAN)
    table(capsys, "patch", WOMAN, MAN, "--part", "mlp")
    assert bars == [[20, 20], [35, 35], [28, 28]]


def test_heads(tiny: GPT2, capsys: pytest.CaptureFixture[str]) -> None:
    for text in (None, WOMAN):
        scores = experiments.head_scores(tiny, text)
        lines = table(capsys, "heads", *filter(None, [text]))
        assert len(lines) == 3 + 4 * 4
        assert [float(x) for x in lines[3 + 3 * 4 + 1].split()[2:]] == pytest.approx(
            [s[3, 1] for s in scores], abs=6e-4
        )


def test_weights(tiny: GPT2, capsys: pytest.CaptureFixture[str]) -> None:
    lines = table(capsys, "weights", "h1/mlp/c_fc/b")
    b = tiny.params.h[1].mlp.c_fc.b
    numbers = [f"{x:.5f}" for x in (b.mean(dtype=np.float64), b.std(), b.min(), np.median(b), b.max())]
    assert [line.split() for line in lines] == [
        ["name", "shape", "mean", "deviation", "least", "median", "most"],
        ["h1/mlp/c_fc/b", "[1024]", *numbers],
    ]


@pytest.mark.parametrize("args", VIEWS, ids=" ".join)
def test_as_json_each_row_is_an_object(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    rows = [json.loads(line) for line in table(capsys, *args, "--json")]
    printed = "\n".join(table(capsys, *args))
    for row in rows:
        assert row.keys() == rows[0].keys()
        for value in row.values():
            if isinstance(value, str):
                visible = tables.visible(value.encode())
                assert value in printed or visible in printed or "�" in value
    assert all(key.replace("_", " ") in printed.replace("_", " ") for key in rows[0])


def test_numbers_in_json_are_not_rounded(tiny: GPT2, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [json.loads(line) for line in table(capsys, "next", TEXT, "-n", "3", "--json")]
    expected = tables.next_tokens(tiny, TEXT, 3)
    assert [(row["id"], row["probability"]) for row in rows] == [(each.id, each.probability) for each in expected]
    assert tiny.tokenizer
    assert [row["token"] for row in rows] == [tiny.tokenizer.decode([each.id]) for each in expected]
    (row, *_) = [json.loads(line) for line in table(capsys, "attention", TEXT, "--layer", "3", "--head", "2", "--json")]
    assert row == {"token": "The", "looks_most_at": ["The", 1.0], "then_at": None, "and_at": None}


def test_any_model_and_a_text_of_one_token(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model of another shape, with random weights and no vocabulary, so that it cannot read text."""
    numpy_gpt2.save(random_model(SHAPES[1], "float32"), tmp_path / "mine")
    result = run("params", "--model", str(tmp_path / "mine"))
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[1].split()[:3] == ["wte", "[11,", "10]"]
    result = run("next", "Hello", "--model", str(tmp_path / "mine"))
    assert result.returncode == 1
    assert "this model has no vocabulary" in result.stderr
    assert table(capsys, "attention", "The")[0].startswith("a single token can only look at itself")


@pytest.mark.parametrize("args", [args for args in VIEWS if TEXT in args], ids=" ".join)
def test_a_text_of_one_token(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Its rows are the same in a table and in JSON."""
    args = ["The" if arg == TEXT else arg for arg in args]
    lines, rows = table(capsys, *args), table(capsys, *args, "--json")
    assert all(len(json.loads(row)) for row in rows)
    assert len(lines) - len(rows) in (1, 2)  # the head of the table, and perhaps a title


@pytest.mark.parametrize(
    "args", [["tokens", "The king " * 5000], ["next", TEXT, "-n", "800"]], ids=lambda args: args[0]
)
def test_too_large_a_picture_is_refused_before_the_table_is_printed(
    args: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match="at most 32768 each way can be drawn: show less"):
        table(capsys, *args, "-o", "picture.png")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_arrays_that_hold_nan_or_infinity_are_named(
    value: float, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The pictures are drawn all the same."""
    warnings.simplefilter("ignore", RuntimeWarning)  # as the command does
    pytest.importorskip("matplotlib")
    model = numpy_gpt2.load("tiny")
    model.params.h[2].mlp.c_fc.w[3, 4] = value
    numpy_gpt2.save(model, tmp_path / "broken")
    for args in (["params"], ["weights", "h2/mlp/c_fc/w"]):
        caplog.clear()
        lines = table(capsys, *args, "-o", "picture.png", "--model", str(tmp_path / "broken"))
        assert any(line.startswith("h2/mlp/c_fc/w ") and str(value) in line for line in lines)
        assert [record.message for record in caplog.records] == ["NaN or infinity in h2/mlp/c_fc/w"]
    with pytest.raises(ValueError, match="not finite numbers: .*`numpy-gpt2 explore params`"):
        table(capsys, "next", TEXT, "--model", str(tmp_path / "broken"))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["next", ""], "there is no text to look at: give one, in quotes"),
        (["tokens", ""], "there is no text to look at"),
        (["attention", TEXT, "--layer", "4"], "--layer must be a whole number, 0 to 3, not 4"),
        (["attention", TEXT, "--layer", "0", "--head", "-1"], "--head must be a whole number, 0 to 3, not -1"),
        (["attention", TEXT, "--head", "0"], "say which with --layer"),
        (["mask", TEXT, "--layer", "9"], "--layer must be a whole number, 0 to 3"),
        (["next", TEXT, "-n", "0"], "-n must be a whole number, 1 or more, not 0"),
        (["next", TEXT, "--top-p", "2"], "top_p must be above 0 and at most 1"),
        (["lens", "the " * 300], "are too many for this model, whose context holds 256"),
        (["weights", "h9/ln_1/g"], "there is no parameter 'h9/ln_1/g'; did you mean"),
        (["trace", TEXT, "--names", "h9/*"], "no array has a name like 'h9/*'"),
        (["ablate", TEXT, "--token", " zebra"], "' zebra' is not one token but 4"),
        (["ablate", "The", "--mean"], "mean takes the mean over several positions"),
        (["patch", WOMAN, "The man"], "the same number of tokens, and have 7 and 2"),
        (["patch", MAN, MAN], "there is nothing to restore"),
        (["heads", "The"], "a text of 2 to 128 tokens can be read twice, and this has 1"),
        (
            ["params", "-o", "picture.txt"],
            "cannot be written to picture.txt: the name must end in .png, .svg, .pdf",
        ),
        (["params", "-o", "no/folder/picture.png"], "there is no folder no/folder for the picture"),
        (["params", "-o", "folder.png"], "folder.png is a folder: name a file in it for the picture"),
    ],
)
def test_bad_input_is_reported(args: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("folder.png").mkdir()
    with pytest.raises((ValueError, OSError)) as error:
        table(capsys, *args)
    assert message in str(error.value)


def test_as_a_process(tmp_path: Path) -> None:
    result = run("tokens", "-", input="Once upon a time\n")
    assert (result.returncode, result.stderr) == (0, "")
    assert len(result.stdout.splitlines()) == 5  # the line end at the end of the input is not a token
    assert run("tokens", input="Once upon a time\n").stdout == result.stdout
    for args in (["tokens"], ["tokens", "-"]):
        assert "there is no text to look at" in run(*args, input="").stderr
    result = run("weights", "h9/ln_1/g", "--model", "tiny")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("numpy_gpt2: there is no parameter 'h9/ln_1/g'; did you mean")
    assert len(result.stderr.splitlines()) == 1
    result = run("nonsense")
    assert result.returncode == 2
    assert "numpy_gpt2: argument VIEW: invalid choice: 'nonsense'" in result.stderr
    result = run("next", TEXT)
    assert result.returncode == 0
    assert "using tiny, a small model" in result.stderr


def test_tables_do_not_need_matplotlib(tmp_path: Path) -> None:
    (tmp_path / "matplotlib.py").write_text("raise ImportError('No module named matplotlib')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    assert run("params", env=environment).returncode == 0
    result = run("params", "-o", "picture.png", env=environment)
    assert (result.returncode, result.stdout) == (1, "")
    assert 'pip install "numpy_gpt2[plot]"' in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_closed_pipe(tmp_path: Path) -> None:
    command = f'"{sys.executable}" -m numpy_gpt2 explore trace "The king" --model tiny | head -n 1'
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert result.stdout.split()[0] == "name"
    assert result.stderr == ""
