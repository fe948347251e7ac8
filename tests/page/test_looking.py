"""The answers of "Look inside" against transformers, `trace`, `explain`, `patch`, `tables` and the sources."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import in_pytorch

import numpy_gpt2
from numpy_gpt2 import layers
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.inside import experiments, put, scale, tables, zero
from numpy_gpt2.inside.explanation import explain
from numpy_gpt2.page import looking
from numpy_gpt2.page.answers import Answers
from numpy_gpt2.page.arrays import picture, thinned

WOMAN, MAN = "The old woman was so angry that", "The old man was so angry that"


@pytest.fixture(scope="module")
def answers(tiny: GPT2) -> Answers:
    return Answers(tiny)


@pytest.fixture(scope="module")
def ids(tiny: GPT2) -> list[int]:
    assert tiny.tokenizer
    return tiny.tokenizer.encode(WOMAN)


def ask(answers: Answers, kind: str, text: str = WOMAN, **fields: Any) -> list[dict[str, Any]]:
    """The lines of an answer, after a way through JSON; none of them is an error."""
    lines = json.loads(json.dumps([*answers.answer({"kind": kind, "text": text, **fields})], allow_nan=False))
    assert not [line for line in lines if "error" in line]
    return lines


def error(answers: Answers, kind: str, **fields: Any) -> str:
    """The sentence that an answer ends with."""
    *_, line = answers.answer({"kind": kind, "text": WOMAN, **fields})
    return str(line["error"])


def cells(made: dict[str, Any]) -> np.ndarray:
    """The numbers that a picture stands for, minus infinity included; each is off by half a shade at most."""
    shades = np.frombuffer(base64.b64decode(made["bytes"]), np.uint8).reshape(made["rows"], made["columns"])
    numbers = made["low"] + (shades - 1.0) / 254 * (made["high"] - made["low"])
    return np.where(shades, numbers, -math.inf)


def is_picture_of(array: np.ndarray, made: dict[str, Any]) -> bool:
    half_a_shade = (made["high"] - made["low"]) / 254 / 2
    return np.allclose(cells(made), array, rtol=0, atol=half_a_shade * 1.0001)


class TestLook:
    def test_tokens_with_their_places(self, answers: Answers, tiny: GPT2, ids: list[int]) -> None:
        (line,) = ask(answers, "look")
        assert [token["id"] for token in line["tokens"]] == ids
        assert [WOMAN[token["begin"] : token["end"]] for token in line["tokens"]] == [
            token["text"] for token in line["tokens"]
        ]
        assert (line["n_layer"], line["n_head"], line["d_head"]) == (4, 4, 64)

    def test_of_a_long_text_the_newest_tokens_that_fit(self, answers: Answers, tiny: GPT2) -> None:
        text = "The king said no. " * 80
        (line,) = ask(answers, "look", text)
        assert tiny.tokenizer
        whole = tiny.tokenizer.encode(text)
        assert [token["id"] for token in line["tokens"]] == whole[-256:]
        assert line["n_unseen"] == len(whole) - 256
        assert line["tokens"][-1]["end"] == len(text)

    def test_there_is_nothing_to_look_at(self, answers: Answers) -> None:
        for kind in ("lens", "heads"):
            (line,) = answers.answer({"kind": kind, "text": ""})
            assert line == {"error": "there is no text to look at: write a few words first"}


class TestLines:
    @pytest.fixture
    def lines(self, answers: Answers) -> list[dict[str, Any]]:
        return ask(answers, "lines", layer=2)

    @pytest.fixture
    def arrays(self, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [line for line in lines if "name" in line]

    def test_functions_are_those_of_the_files(self, lines: list[dict[str, Any]]) -> None:
        functions = {line["function"]: line for line in lines if "lines" in line}
        assert {"logits", "embed", "transformer", "block", "attention", "softmax", "mlp", "gelu"} <= functions.keys()
        for function in functions.values():
            written = (Path(layers.__file__).parent / function["file"]).read_text().splitlines()
            first, n = function["first"], len(function["lines"])
            assert written[first - 1 : first - 1 + n] == function["lines"]
            assert function["lines"][0].startswith(f"def {function['function']}(")
            assert function["docstring"][0] == first + 1

    def test_arrays_are_those_of_a_trace(self, arrays: list[dict[str, Any]], tiny: GPT2, ids: list[int]) -> None:
        with numpy_gpt2.trace() as t:
            numpy_gpt2.model.logits(np.array([ids]), tiny.params, tiny.hparams.n_head)
        expected = [name for name in t if not name.startswith("h") or name.split("/")[0] == "h2"]
        assert [line["name"] for line in arrays] == expected
        for line in arrays:
            array = t[line["name"]]
            finite = array[np.isfinite(array)].astype(np.float64)
            assert line["shape"] == [*array.shape]
            assert line["n_infinite"] == np.count_nonzero(array == -np.inf)
            assert line["n_other"] == 0
            np.testing.assert_allclose(
                [line["low"], line["high"], line["mean"]],
                [finite.min(), finite.max(), finite.mean()],
                rtol=1e-5,
                atol=1e-7,
            )

    def test_each_array_stands_beside_its_line(self, lines: list[dict[str, Any]], arrays: list[dict[str, Any]]) -> None:
        functions = {line["function"]: line for line in lines if "lines" in line}
        for line in arrays:
            function = functions[line["function"]]
            assert function["lines"][line["line"] - function["first"]].strip() == line["source"]
        by_name = {line["name"]: line for line in arrays}
        assert by_name["h2/attn/weights"]["source"].startswith("weights = softmax(scores)")
        assert by_name["h2/attn/weights"]["variable"] == "weights"
        assert by_name["h2/attn/k"]["variable"] == "k"
        assert by_name["h2/mlp/c_proj"]["also"] == "h2/mlp"
        assert by_name["h2/mlp/c_proj"]["variable"] == ""
        assert by_name["h2"]["variable"] == "x"

    def test_axes_have_the_lengths_that_they_name(self, arrays: list[dict[str, Any]]) -> None:
        lengths = {"n_batch": 1, "n_seq": 7, "n_key": 7, "n_embd": 256, "n_head": 4, "d_head": 64, "n_vocab": 4096}
        for line in arrays:
            assert line["axes"], line["name"]
            assert [eval(axis, {}, lengths) for axis in line["axes"].strip("[]").split(", ")] == line["shape"]
            assert line["n_heads"] == (line["shape"][1] if len(line["shape"]) == 4 else None)

    def test_a_change_is_in_the_pass(self, answers: Answers) -> None:
        change = {"name": "h2/mlp", "how": "zero"}
        by_name = {line["name"]: line for line in ask(answers, "lines", layer=2, changes=[change]) if "name" in line}
        assert by_name["h2/mlp/c_proj"]["is_patched"]
        assert (by_name["h2/mlp/c_proj"]["low"], by_name["h2/mlp/c_proj"]["high"]) == (0, 0)
        assert not by_name["h2/mlp/hidden"]["is_patched"]

    def test_what_is_not_finite_is_told_apart(self, answers: Answers) -> None:
        changes = [{"name": f"h{i}", "how": "scale", "factor": 1000} for i in range(4)] * 2
        by_name = {line["name"]: line for line in ask(answers, "lines", layer=3, changes=changes) if "name" in line}
        variance = by_name["ln_f/variance"]
        assert (variance["low"], variance["n_infinite"], variance["n_other"]) == (None, 0, 7)
        (row,) = ask(answers, "row", name="ln_f/variance", row=0, changes=changes)
        assert row["values"] == ["inf"]

    def test_a_function_of_a_learner_is_shown(
        self, tiny: GPT2, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "my_layers.py").write_text(
            "import numpy as np\n\n\ndef relu(x):\n    y = np.maximum(x, 0)\n    return y * 1\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        import my_layers  # type: ignore[import-not-found]

        monkeypatch.setattr(layers, "gelu", my_layers.relu)
        lines = ask(Answers(tiny), "lines", layer=0)
        (function,) = [line for line in lines if line.get("file") == "my_layers.py"]
        assert (function["function"], function["first"], function["docstring"]) == ("relu", 4, None)
        assert function["lines"][1] == "    y = np.maximum(x, 0)"
        assert [line["name"] for line in lines if line.get("function") == "relu" and "name" in line]


class TestArray:
    def test_the_weights_of_a_head_are_those_of_transformers(
        self, answers: Answers, tiny: GPT2, ids: list[int]
    ) -> None:
        peer = in_pytorch(tiny)
        peer.set_attn_implementation("eager")
        with torch.no_grad():
            theirs = peer(torch.tensor([ids]), output_attentions=True).attentions
        for layer, head in ((0, 0), (3, 1)):
            (made,) = ask(answers, "array", name=f"h{layer}/attn/weights", head=head)
            assert is_picture_of(theirs[layer][0, head].numpy(), made)
            assert (made["row_labels"], made["column_labels"]) == ("tokens", "tokens")
            assert not made["is_derived"]
            (row,) = ask(answers, "row", name=f"h{layer}/attn/weights", head=head, row=5)
            np.testing.assert_allclose(row["values"], theirs[layer][0, head, 5].numpy(), atol=1e-5)

    def test_the_mean_and_the_maximum_of_heads_are_derived(self, answers: Answers, tiny: GPT2, ids: list[int]) -> None:
        weights = tables.attention_weights(tiny, ids, layer=1)
        (mean,) = ask(answers, "array", name="h1/attn/weights", head="mean")
        (most,) = ask(answers, "array", name="h1/attn/weights", head="max")
        assert is_picture_of(weights.mean(axis=0), mean)
        assert is_picture_of(weights.max(axis=0), most)
        assert mean["is_derived"]
        assert most["is_derived"]

    def test_exact_numbers_of_a_row(self, answers: Answers, tiny: GPT2, ids: list[int]) -> None:
        logits = tiny.logits(ids)
        (row,) = ask(answers, "row", name="logits", row=6)
        np.testing.assert_allclose(row["values"], logits[6], rtol=1e-4, atol=1e-5)
        (scores,) = ask(answers, "row", name="h0/attn/scores", head=0, row=2)
        assert [value is None for value in scores["values"]] == [False] * 3 + [True] * 4
        (rounded,) = {np.float32(value) == value for value in row["values"]}
        assert rounded, "they are the float32 numbers of the model, all digits of them"

    def test_masked_scores_are_byte_0(self, answers: Answers) -> None:
        (made,) = ask(answers, "array", name="h0/attn/scores", head=0)
        assert np.array_equal(np.isinf(cells(made)), ~np.tri(7, dtype=bool))

    @pytest.mark.parametrize(
        ("name", "head", "rows", "columns"),
        [
            ("positions", None, 1, 7),
            ("h1", None, 7, 256),
            ("h1/ln_1/variance", None, 7, 1),
            ("h1/attn/mask", None, 7, 7),
        ],
    )
    def test_rows_and_columns(self, answers: Answers, name: str, head: int | None, rows: int, columns: int) -> None:
        (made,) = ask(answers, "array", name=name, head=head)
        assert (made["rows"], made["columns"]) == (rows, columns)

    def test_what_is_too_wide_is_thinned_and_derived(self, answers: Answers, tiny: GPT2, ids: list[int]) -> None:
        (made,) = ask(answers, "array", name="logits", n_most=1024)
        assert (made["columns"], made["step"], made["is_derived"]) == (1024, [1, 4], True)
        groups = tiny.logits(ids).reshape(7, 1024, 4)
        farthest = np.take_along_axis(groups, np.abs(groups).argmax(axis=-1)[..., None], axis=-1)[..., 0]
        assert is_picture_of(farthest, made)

    def test_refused(self, answers: Answers) -> None:
        assert error(answers, "array", name="h1/attn/weights") == "h1/attn/weights has 4 heads: choose one"
        assert error(answers, "array", name="h1/mlp", head=1) == "h1/mlp has no axis of heads"
        assert error(answers, "array", name="h1/attn/weights", head=4) == "head must be a whole number, 0 to 3, not 4"
        assert (
            error(answers, "array", name="h1/attn/nothing")
            == "there is no array 'h1/attn/nothing' in a pass of this model"
        )
        assert error(answers, "array", name="h7/mlp") == "layer must be a whole number, 0 to 3, not 7"
        assert error(answers, "row", name="h1/mlp", row=7) == "row must be a whole number, 0 to 6, not 7"
        assert "must be the name of an array" in error(answers, "array", name="h*")


class TestPicture:
    def test_zero_is_in_the_middle_of_a_signed_scale(self) -> None:
        made = picture(np.array([[-2.0, 0.0, 2.0]]), 8)
        assert (made["low"], made["high"], made["is_signed"]) == (-2, 2, True)
        assert [*base64.b64decode(made["bytes"])] == [1, 128, 255]

    def test_nothing_but_zeros_and_infinities(self) -> None:
        assert [*base64.b64decode(picture(np.zeros((1, 2)), 8)["bytes"])] == [1, 1]
        assert [*base64.b64decode(picture(np.array([[-math.inf, -math.inf]]), 8)["bytes"])] == [0, 0]

    @pytest.mark.parametrize(("shape", "n_most"), [((5, 9), 3), ((10, 10), 3), ((1, 7), 2), ((3, 3), 3)])
    def test_thinned_keeps_what_is_farthest_from_zero(self, shape: tuple[int, int], n_most: int) -> None:
        array = np.random.default_rng(0).normal(size=shape)
        array[0, 0] = -math.inf
        thin, (i, j) = thinned(array, n_most)
        assert max(thin.shape) <= n_most
        for r, c in np.ndindex(*thin.shape):
            group = array[r * i : r * i + i, c * j : c * j + j].ravel()
            finite = group[np.isfinite(group)]
            assert thin[r, c] == (finite[np.abs(finite).argmax()] if finite.size else -math.inf)


class TestExplain:
    def test_a_masked_score_is_minus_infinity(self, answers: Answers) -> None:
        (line,) = ask(answers, "explain", name="h0/attn/scores", index=[0, 1, 2, 5])
        json.dumps(line, allow_nan=False)
        assert (line["value"], line["computed"], line["numbers"][-1]["value"]) == (None, None, None)

    @pytest.mark.parametrize(
        ("name", "index"),
        [
            ("x", (0, 3, 7)),
            ("h0/attn/scores", (0, 1, 5, 2)),
            ("h3/attn/weights", (0, 1, 4, 0)),
            ("h2/ln_1", (0, 6, 100)),
            ("h2/mlp/hidden", (0, 6, 1000)),
            ("h2", (0, 0, 0)),
            ("ln_f", (0, 6, 3)),
            ("logits", (0, 6, 340)),
        ],
    )
    def test_as_inside(self, answers: Answers, tiny: GPT2, ids: list[int], name: str, index: tuple[int, ...]) -> None:
        with numpy_gpt2.trace() as t:
            numpy_gpt2.model.logits(np.array([ids]), tiny.params, tiny.hparams.n_head)
        theirs = explain(t, name, index)
        (line,) = ask(answers, "explain", name=name, index=[*index], n_terms=3)
        assert line["formula"] == theirs.formula
        assert line["value"] == pytest.approx(theirs.value, rel=1e-4)
        assert line["computed"] == pytest.approx(line["value"], rel=1e-4)
        assert line["file"] in ("layers.py", "model.py")
        assert [number["text"] for number in line["numbers"]] == [number.text for number in theirs.numbers]
        for ours, number in zip(line["numbers"], theirs.numbers, strict=True):
            assert (ours["name"], tuple(ours["index"]), ours["n_terms"]) == (
                number.name,
                number.index,
                len(number.terms),
            )
            assert len(ours["terms"]) == min(3, len(number.terms))
            if number.terms:
                total = sum(term["value"] for term in ours["terms"]) + ours["rest"]
                assert total == pytest.approx(ours["value"], rel=1e-9, abs=1e-9)
                largest = max(abs(term.value) for term in number.terms)
                assert abs(ours["terms"][0]["value"]) == pytest.approx(largest, rel=1e-4)

    def test_in_a_pass_with_changes_a_sentence_says_that_the_value_is_another_one(self, answers: Answers) -> None:
        change = {"name": "h2/mlp/hidden", "how": "scale", "factor": 2}
        (line,) = ask(answers, "explain", name="h2/mlp/hidden", index=[0, 3, 5], changes=[change])
        assert line["value"] == pytest.approx(2 * line["computed"], rel=1e-5)
        assert "a patch has changed the array" in line["note"]

    def test_refused(self, answers: Answers) -> None:
        assert "no entry with the index" in error(answers, "explain", name="h2", index=[0, 99, 0])
        assert "there is no array" in error(answers, "explain", name="nothing", index=[0])
        assert "list of at most 4" in error(answers, "explain", name="h2", index="0")


class TestHeads:
    def test_pictures_and_habits(self, answers: Answers, tiny: GPT2, ids: list[int]) -> None:
        weights = tables.attention_weights(tiny, ids)
        lines = ask(answers, "heads")
        assert [line["layer"] for line in lines] == [0, 1, 2, 3]
        for line, of_layer in zip(lines, weights, strict=True):
            for head, of_head in zip(line["heads"], of_layer, strict=True):
                assert is_picture_of(of_head, head)
                assert head["habits"] == pytest.approx(tables.habits(of_head)._asdict(), rel=1e-4)

    def test_a_single_token_has_no_habits(self, answers: Answers) -> None:
        assert ask(answers, "heads", "The")[0]["heads"][0]["habits"] is None

    def test_small(self, answers: Answers) -> None:
        (head, *_) = ask(answers, "heads", size=4)[0]["heads"]
        assert (head["rows"], head["columns"], head["step"]) == (4, 4, [2, 2])

    def test_without_the_mask(self, answers: Answers, tiny: GPT2, ids: list[int]) -> None:
        (made,) = ask(answers, "unmasked", layer=3, head=2)
        assert is_picture_of(tables.unmasked_weights(tiny, ids, 3)[2], made)
        assert made["is_derived"]
        change = {"name": "h0/attn/q", "how": "zero"}
        (uniform,) = ask(answers, "unmasked", layer=0, head=1, changes=[change])
        assert is_picture_of(np.full((7, 7), 1 / 7), uniform)
        assert error(answers, "unmasked", layer=3, head=4) == "head must be a whole number, 0 to 3, not 4"


class TestLens:
    def test_as_in_the_tables_and_the_last_row_is_that_of_the_logits(
        self, answers: Answers, tiny: GPT2, ids: list[int]
    ) -> None:
        expected = tables.logit_lens(tiny, ids)
        lines = ask(answers, "lens")
        assert [line["name"] for line in lines] == ["x", "h0", "h1", "h2", "h3"]
        assert [[token["id"] for token in line["tokens"]] for line in lines] == expected.ids.tolist()
        np.testing.assert_allclose([line["probabilities"] for line in lines], expected.probabilities, rtol=1e-4)
        probabilities = layers.softmax(tiny.logits(ids))
        assert [token["id"] for token in lines[-1]["tokens"]] == probabilities.argmax(axis=-1).tolist()
        np.testing.assert_allclose(lines[-1]["probabilities"], probabilities.max(axis=-1), rtol=1e-4)

    def test_norms(self, answers: Answers, tiny: GPT2, ids: list[int]) -> None:
        norms = np.array([line["norms"] for line in ask(answers, "lens")])
        with torch.no_grad():
            states = in_pytorch(tiny)(torch.tensor([ids]), output_hidden_states=True).hidden_states
        for ours, theirs in zip(norms[:-1], states[:-1], strict=True):  # theirs has the last one normalised
            np.testing.assert_allclose(ours, theirs[0].square().mean(dim=-1).sqrt().numpy(), rtol=1e-4)
        assert norms[-1].mean() == pytest.approx(tables.stream_sizes(tiny, ids).stream[-1], rel=0.05)

    def test_with_a_change(self, answers: Answers, tiny: GPT2, ids: list[int]) -> None:
        *_, last = ask(answers, "lens", changes=[{"name": "h3/attn/a", "how": "zero", "head": 1}])
        with numpy_gpt2.patch({"h3/attn/a": zero(head=1)}):
            assert last["tokens"][-1]["id"] == int(tiny.logits(ids)[-1].argmax())


class TestAttribution:
    @pytest.mark.parametrize("position", [0, 3, 6])
    def test_terms_sum_to_the_logit(self, answers: Answers, tiny: GPT2, ids: list[int], position: int) -> None:
        token = 275
        (line,) = ask(answers, "attribution", position=position, token=token)
        logits = tiny.logits(ids)[position]
        total = sum(float(np.sum(term)) for term in line["terms"].values())
        assert total == pytest.approx(float(logits[token]), abs=1e-4)
        assert line["logit"] == pytest.approx(float(logits[token]), abs=1e-4)
        assert line["probability"] == pytest.approx(float(layers.softmax(logits)[token]), rel=1e-3)
        assert line["rank"] == 1 + int((logits > logits[token]).sum())

    def test_as_the_experiment_finds_them_and_by_default_of_the_likeliest(
        self, answers: Answers, tiny: GPT2, ids: list[int]
    ) -> None:
        (line,) = ask(answers, "attribution", position=6)
        found = experiments.attribution(tiny, ids)
        assert line["token"] == {"id": found.question.token, "text": " she"}
        np.testing.assert_allclose(line["terms"]["heads"], found.heads, atol=1e-6)
        np.testing.assert_allclose(line["terms"]["mlps"], found.mlps, atol=1e-6)
        assert line["rank"] == 1

    def test_with_a_change(self, answers: Answers, tiny: GPT2, ids: list[int]) -> None:
        (line,) = ask(answers, "attribution", position=4, token=503, changes=[{"name": "h1/mlp", "how": "zero"}])
        with numpy_gpt2.patch({"h1/mlp": zero}):
            assert line["total"] == pytest.approx(float(tiny.logits(ids)[4, 503]), abs=1e-4)
        refused = error(answers, "attribution", position=4, changes=[{"name": "h3", "how": "scale", "factor": 2}])
        assert "the terms sum to" in refused

    def test_refused(self, answers: Answers) -> None:
        assert error(answers, "attribution", position=7) == "position must be a whole number, 0 to 6, not 7"
        assert (
            error(answers, "attribution", position=0, token=4096) == "token must be a whole number, 0 to 4095, not 4096"
        )


CHANGES = [
    ([{"name": "h3/attn/a", "how": "zero", "head": 1}], lambda other: {"h3/attn/a": zero(head=1)}),
    (
        [{"name": "h1/mlp", "how": "scale", "factor": 0.5, "position": 2}],
        lambda other: {"h1/mlp": scale(0.5, position=2)},
    ),
    ([{"name": "h2", "how": "put", "text": MAN, "position": 2}], lambda other: {"h2": put(other["h2"], position=2)}),
    (
        [{"name": "h0/attn/a", "how": "zero", "head": 0}, {"name": "h2/mlp", "how": "zero"}],
        lambda other: {"h0/attn/a": zero(head=0), "h2/mlp": zero},
    ),
]


class TestExperiment:
    @pytest.mark.parametrize(("changes", "patch"), CHANGES)
    @pytest.mark.parametrize("position", [6, 3])
    def test_before_and_after_are_those_of_patch(
        self, answers: Answers, tiny: GPT2, ids: list[int], changes: list[dict[str, Any]], patch: Any, position: int
    ) -> None:
        _, line, *_ = ask(answers, "experiment", position=position, changes=changes, n=5)
        before = layers.softmax(tiny.logits(ids)[position].astype(np.float64))
        with numpy_gpt2.trace() as other:
            tiny.logits(MAN)
        with numpy_gpt2.patch(patch(other)):
            after = layers.softmax(tiny.logits(ids)[position].astype(np.float64))
        listed = {token["id"] for token in line["tokens"]}
        assert {*np.argsort(-before)[:5].tolist(), *np.argsort(-after)[:5].tolist()} == listed
        for token in line["tokens"]:
            assert token["before"] == pytest.approx(before[token["id"]], rel=1e-3)
            assert token["after"] == pytest.approx(after[token["id"]], rel=1e-3)

    @pytest.mark.parametrize(("changes", "patch"), CHANGES)
    def test_how_far_later_arrays_moved(
        self, answers: Answers, tiny: GPT2, ids: list[int], changes: list[dict[str, Any]], patch: Any
    ) -> None:
        moved = {
            line["name"]: line for line in ask(answers, "experiment", position=6, changes=changes) if "moved" in line
        }

        def run() -> numpy_gpt2.inside.recorder.Trace:
            with numpy_gpt2.trace() as t:
                numpy_gpt2.model.logits(np.array([ids]), tiny.params, tiny.hparams.n_head)
            return t

        before = run()
        with numpy_gpt2.trace() as other:
            tiny.logits(MAN)
        with numpy_gpt2.patch(patch(other)):
            after = run()
        first = min(int(change["name"][1]) for change in changes)
        earlier = {"positions"} | {name for name in before if first and name == "x"}
        assert [*moved] == [
            name for name in before if name not in earlier and not (name[0] == "h" and int(name[1]) < first)
        ]
        for name, line in moved.items():
            a, b = before[name], after[name]
            finite = np.isfinite(a)
            expected = np.linalg.norm(b[finite] * 1.0 - a[finite]) / np.linalg.norm(a[finite] * 1.0)
            assert line["moved"] == pytest.approx(expected, rel=1e-3, abs=1e-6), name
        assert any(line["moved"] > 0.01 for line in moved.values())
        progress = [line["progress"] for line in moved.values()]
        assert progress == sorted(progress)
        assert progress[-1] == 1

    def test_in_several_groups_the_same(self, tiny: GPT2, monkeypatch: pytest.MonkeyPatch) -> None:
        changes = [{"name": "h1/mlp", "how": "zero"}]
        together = ask(Answers(tiny), "experiment", position=6, changes=changes)
        monkeypatch.setattr(looking, "BYTES_AT_ONCE", 1)
        apart = ask(Answers(tiny), "experiment", position=6, changes=changes)
        without_progress = [[{**line, "progress": 0} for line in lines] for lines in (together, apart)]
        assert without_progress[0] == without_progress[1]

    @pytest.mark.parametrize(("changes", "patch"), CHANGES)
    @pytest.mark.parametrize("position", [6, 3])
    def test_its_python_does_the_same(
        self, answers: Answers, changes: list[dict[str, Any]], patch: Any, position: int
    ) -> None:
        first, line, *_ = ask(answers, "experiment", position=position, changes=changes, n=10)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(first["python"], {})
        found = [row.rsplit(" ", 1) for row in printed.getvalue().splitlines()]
        after = sorted(line["tokens"], key=lambda token: -token["after"])[:10]
        assert [eval(text) for text, _ in found] == [token["text"] for token in after]
        assert [float(number) for _, number in found] == pytest.approx([token["after"] for token in after], abs=1e-4)

    def test_its_python_reads_what_fits_into_the_context(self, answers: Answers) -> None:
        text = "The king said no. " * 80
        first, line, *_ = ask(answers, "experiment", text, position=250, changes=[])
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(first["python"], {})
        likeliest = max(line["tokens"], key=lambda token: token["after"])
        assert printed.getvalue().splitlines()[0] == f"{likeliest['text']!r} {round(likeliest['after'], 4)}"

    def test_its_python_runs_as_a_program(self, answers: Answers, tmp_path: Path) -> None:
        (program, *_) = ask(answers, "experiment", position=6, changes=[])
        done = subprocess.run([sys.executable, "-c", program["python"]], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("' she' 0.62")

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            ({"name": "h9", "how": "zero"}, "the patch of 'h9' was not used"),
            ({"name": "h1/mlp", "how": "zero", "head": 1}, "without an axis of heads"),
            ({"name": "h1/attn/a", "how": "zero", "head": 4}, "head of h1/attn/a must be a whole number, 0 to 3"),
            ({"name": "h1", "how": "put", "text": "The king"}, "must have its shape"),
            ({"name": "h1", "how": "put", "text": ""}, "there is no text to look at"),
            ({"name": "h1", "how": "put"}, "a change of the kind put needs the field 'text'"),
            ({"name": "h1", "how": "zero", "factor": 1}, "a change of the kind zero has no field 'factor'"),
            ({"name": "h1", "how": "scale", "factor": "2"}, "factor must be a number"),
            ({"name": "h1", "how": "scale", "factor": float("inf")}, "factor must be a number"),
            ({"name": "h1", "how": "melt"}, "one of zero, scale, put"),
            ({"name": "h*", "how": "zero"}, "must be the name of an array"),
            ("h1", "a change is an object"),
        ],
    )
    def test_refused(self, answers: Answers, change: Any, sentence: str) -> None:
        assert sentence in error(answers, "experiment", position=6, changes=[change])

    def test_a_refused_change_leaves_nothing_behind(self, answers: Answers) -> None:
        before = ask(answers, "lens")
        error(answers, "experiment", position=6, changes=[{"name": "h1/mlp", "how": "zero", "head": 1}])
        assert ask(answers, "lens") == before


class TestWrite:
    @pytest.mark.parametrize(
        "options", [{"temperature": 0}, {"temperature": 0.8, "top_k": 20}, {"top_p": 0.9}], ids=str
    )
    def test_the_text_of_generate(self, answers: Answers, tiny: GPT2, options: dict[str, Any]) -> None:
        lines = ask(answers, "write", max_new_tokens=12, seed=5, options=options)
        assert "".join(line["token"]["text"] for line in lines) == tiny.generate(
            WOMAN, max_new_tokens=12, seed=5, **options
        )

    def test_what_is_read_from_the_past_and_what_is_computed(
        self, answers: Answers, tiny: GPT2, ids: list[int]
    ) -> None:
        lines = ask(answers, "write", max_new_tokens=4, seed=1)
        assert [(line["n_past"], line["n_read"]) for line in lines] == [(0, 7), (7, 1), (8, 1), (9, 1)]
        assert [line["step"] for line in lines] == [0, 1, 2, 3]
        assert [line["n_bytes"] for line in lines] == [2 * 4 * 256 * 4 * n for n in (7, 8, 9, 10)]

    def test_probabilities(self, answers: Answers, tiny: GPT2, ids: list[int]) -> None:
        options = {"temperature": 0.5, "top_k": 3}
        lines = ask(answers, "write", max_new_tokens=3, seed=2, options=options)
        for line in lines:
            chances = {chance.id: chance for chance in tables.next_tokens(tiny, ids, n=4096, **options)}
            chance = chances[line["token"]["id"]]
            assert line["probability"] == pytest.approx(chance.probability, rel=1e-3)
            assert line["drawn"] == pytest.approx(chance.drawn, rel=1e-3)
            assert line["alternatives"][0]["probability"] == pytest.approx(
                max(c.probability for c in chances.values()), rel=1e-3
            )
            ids = [*ids, line["token"]["id"]]

    def test_up_to_the_end_of_the_context(self, answers: Answers) -> None:
        lines = ask(answers, "write", "The king said no. " * 80, max_new_tokens=200, seed=1)
        assert lines[0]["n_read"] + len(lines) == 257
        assert len(lines) == lines[0]["n_steps"] == 129


def test_only_the_model_that_is_asked_answers(answers: Answers) -> None:
    assert ask(answers, "heads", model="tiny") == ask(answers, "heads")
    (line,) = answers.answer({"kind": "heads", "text": WOMAN, "model": "gpt2"})
    assert line == {"error": "gpt2 no longer answers: tiny was loaded", "model": "tiny"}


def test_a_recording_is_used_again(tiny: GPT2, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = []

    def counted(names: Any) -> Any:
        recorded.append(names)
        return numpy_gpt2.trace(names)

    monkeypatch.setattr(looking, "trace", counted)
    answers = Answers(tiny)
    for name in ("h1/attn/weights", "h1/attn/q", "h1/attn/weights"):
        ask(answers, "array", name=name, head=0)
    assert len(recorded) == 1
    ask(answers, "array", name="h2/attn/q", head=0)
    ask(answers, "array", "The king", name="h2/attn/q", head=0)
    ask(answers, "array", name="h2/attn/q", head=0, changes=[{"name": "h0/mlp", "how": "zero"}])
    assert len(recorded) == 4
