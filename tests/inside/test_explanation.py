"""`explain` does for one entry of an array what the model has done, and says what it has done it with."""

from __future__ import annotations

import dataclasses
import gc
import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SHAPES, random_ids, random_model

import numpy_gpt2
from numpy_gpt2 import layers, model
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.inside.explanation import Explanation, explain, rows
from numpy_gpt2.inside.operands import Number
from numpy_gpt2.inside.patches import patch, scale, zero
from numpy_gpt2.inside.recorder import Step, Trace
from numpy_gpt2.params import Array, HParams, Params, build

HPARAMS = SHAPES[1]  # 3 layers, 5 heads, 10 wide, a context of 40


def look_up(t: Trace, number: Number) -> float:
    """The operand where it says that it is."""
    if number.name == "ids" or number.name == "token_type_ids":
        array = getattr(t, number.name)
    elif number.name.startswith(("wte", "wpe")) or number.name.endswith(("/w", "/b", "/g")):
        array = t.parameter(number.name)
    else:
        array = t[number.name]
    return array[number.index].item()


def check(t: Trace, explanation: Explanation, rtol: float = 1e-12) -> None:
    """That the result is what was recorded, that operands are where they say, and that the sums are right."""
    where = f"{explanation.name}{[*explanation.index]}"
    assert explanation.value == t[explanation.name][explanation.index], where
    np.testing.assert_allclose(explanation.computed, explanation.value, rtol=rtol, atol=rtol, err_msg=where)
    assert explanation.computed == explanation.numbers[-1].value
    assert explanation.note == "", where
    assert explanation.operands or explanation.name.endswith(("mask", "positions")), where
    for number in explanation.operands:
        assert number.value == look_up(t, number), (where, number)
    for number in explanation.numbers:
        products = [math.prod(factor.value for factor in term.factors) for term in number.terms]
        assert [term.value for term in number.terms] == products
        assert not products or math.isclose(number.value, math.fsum(products), rel_tol=1e-9, abs_tol=1e-12)


def check_all(t: Trace, n_each: int = 6, rtol: float = 1e-12) -> int:
    """Checks entries of every array: the first, the last, and some at random. Returns how many there were."""
    rng, n = np.random.default_rng(0), 0
    for name, array in t.items():
        indices = [(0,) * array.ndim, tuple(size - 1 for size in array.shape)]
        indices += [tuple(rng.integers(array.shape).tolist()) for _ in range(n_each)]
        for index in indices:
            check(t, explain(t, name, index), rtol)
            n += 1
    return n


@pytest.mark.parametrize("hparams", SHAPES)
@pytest.mark.parametrize("n_batch", [1, 3])
def test_every_array_of_a_pass(hparams: HParams, n_batch: int) -> None:
    gpt2 = random_model(hparams)
    with numpy_gpt2.trace() as t:
        gpt2.logits(random_ids(hparams, n_batch, 7))
    assert check_all(t) == 8 * (6 + 22 * hparams.n_layer)


@pytest.mark.parametrize("hparams", SHAPES)
def test_rounding_in_float32_is_no_difference(hparams: HParams) -> None:
    gpt2 = random_model(hparams, "float32")
    with numpy_gpt2.trace() as t:
        gpt2.logits(random_ids(hparams, 2, 7))
    check_all(t, n_each=20, rtol=1e-4)


def test_the_trained_model(tiny: GPT2) -> None:
    with numpy_gpt2.trace() as t:
        tiny.logits("Once upon a time there was a king who had three sons.")
    check_all(t, n_each=1, rtol=1e-4)


def test_second_names_and_how_many_terms_a_sum_has(tiny: GPT2) -> None:
    with numpy_gpt2.trace() as t:
        tiny.logits([1, 2, 3, 4, 5])
    for name, second in [("h3/attn/c_proj", "h3/attn"), ("h3/mlp/c_proj", "h3/mlp")]:
        one, other = explain(t, name, (0, 4, 7)), explain(t, second, (0, 4, 7))
        assert other == dataclasses.replace(one, name=second)
    n_terms = {
        name: [len(number.terms) for number in explain(t, name, index).numbers if number.terms]
        for name, index in {
            "h3/attn/scores": (0, 1, 4, 2),
            "h3/attn/weights": (0, 1, 3, 2),
            "h3/attn/a": (0, 1, 3, 2),
            "h3/attn": (0, 4, 2),
            "h3/mlp/c_fc": (0, 4, 2),
            "h3/mlp": (0, 4, 2),
            "h3/ln_2/centred": (0, 4, 2),
            "h3/ln_2/variance": (0, 4, 0),
            "logits": (0, 4, 2),
        }.items()
    }
    assert n_terms == {
        "h3/attn/scores": [64],
        "h3/attn/weights": [5],
        "h3/attn/a": [4],  # the fifth key lies behind
        "h3/attn": [256],
        "h3/mlp/c_fc": [256],
        "h3/mlp": [1024],
        "h3/ln_2/centred": [256],
        "h3/ln_2/variance": [256],
        "logits": [256],
    }


def test_the_column_of_queries_keys_and_values() -> None:
    gpt2 = random_model(HPARAMS)
    with numpy_gpt2.trace() as t:
        gpt2.logits(random_ids(HPARAMS, 2, 5))
    for name in ("qkv", "q", "k", "v"):
        explanation = explain(t, f"h1/attn/{name}", (1, 3, 4, 1))
        (column,) = (number.value for number in explanation.numbers if number.text.startswith("column"))
        assert t["h1/attn/c_attn"][1, 4, int(column)] == explanation.value


def test_where_the_line_is(tiny: GPT2) -> None:
    with numpy_gpt2.trace() as t:
        tiny.logits([1, 2, 3])
    for step in t.steps:
        explanation = explain(t, step.name, (0,) * len(step.shape))
        assert (explanation.source, explanation.file, explanation.line) == (step.source, step.file, step.line)


def test_token_types() -> None:
    gpt2 = random_model(HPARAMS)
    ids, types = random_ids(HPARAMS, 2, 5), random_ids(HPARAMS, 2, 5, seed=1)
    with numpy_gpt2.trace() as t:
        gpt2.logits(ids, token_type_ids=types)
    assert t.token_type_ids is not None
    np.testing.assert_array_equal(t.token_type_ids, types)
    check_all(t)
    type = explain(t, "x_2", (1, 3, 4)).numbers[1]
    assert (type.name, type.index, type.value) == ("token_type_ids", (1, 3), types[1, 3])
    assert "x_2" in {number.name for number in explain(t, "h0/x", (1, 3, 4)).operands}
    with numpy_gpt2.trace() as t:  # another text starts anew
        gpt2.logits(ids, token_type_ids=types)
        gpt2.logits(types, token_type_ids=ids)
    check(t, explain(t, "x_2", (1, 3, 4)))
    np.testing.assert_array_equal(t.token_type_ids, ids)
    with numpy_gpt2.trace() as t:
        gpt2.logits(ids, token_type_ids=types)
        gpt2.logits(ids)
    assert t.token_type_ids is None
    check(t, explain(t, "h0/x", (1, 3, 4)))
    with numpy_gpt2.trace(steps=True) as t:
        gpt2.logits(ids, token_type_ids=types)
    check(t, explain(t, "step0/h0/x", (1, 3, 4)))
    with numpy_gpt2.trace(["h0/*", "x"]) as t:  # x is there, and is not what enters block 0
        gpt2.logits(ids, token_type_ids=types)
    with pytest.raises(KeyError, match="explain needs x_2: record it as well"):
        explain(t, "h0/x", (1, 3, 4))


def test_passes_that_are_joined() -> None:
    gpt2 = random_model(HPARAMS)
    ids, types = random_ids(HPARAMS, 2, 11), random_ids(HPARAMS, 2, 11, seed=1)
    with numpy_gpt2.trace() as t:
        past = gpt2.new_past(2)
        for begin, end in [(0, 5), (5, 6), (6, 11)]:
            gpt2.logits(ids[:, begin:end], past, types[:, begin:end])
    check_all(t, n_each=20)
    unseen = explain(t, "h1/attn/scores", (1, 2, 3, 9))  # the pass that read query 3 had no key 9
    assert (unseen.value, unseen.computed) == (-math.inf, -math.inf)


def test_texts_of_different_lengths_with_a_past() -> None:
    """Padded on the right, then continued. Keys and values that were read before are not in the trace."""
    gpt2 = random_model(HPARAMS)
    ids = random_ids(HPARAMS, 2, 9)
    past = gpt2.new_past(2)
    gpt2.logits(ids[:, :5], past)
    past.lengths[:] = [5, 3]
    with numpy_gpt2.trace() as t:
        gpt2.logits(ids[:, 5:7], past)
        gpt2.logits(ids[:, 7:9], past)
    assert t["positions"].tolist() == [[5, 6, 7, 8], [3, 4, 5, 6]]
    for name in t:
        if name.endswith("attn/a"):
            with pytest.raises(ValueError, match="h./attn/v at position 0: record its pass as well, and not by steps"):
                explain(t, name, (1, 0, 3, 1))
        elif not name.endswith("scores"):
            for index in [(0,) * t[name].ndim, tuple(n - 1 for n in t[name].shape)]:
                check(t, explain(t, name, index))
    for text, query, key, row in [(0, 3, 8, 3), (0, 1, 6, 1), (1, 3, 6, 3), (1, 3, 3, 0), (1, 0, 3, 0)]:
        explanation = explain(t, "h1/attn/scores", (text, 2, query, key))
        check(t, explanation)
        assert explanation.numbers[1].terms[0].factors[1].index == (text, 2, row, 0)
    for index in [(0, 0, 3, 8), (1, 0, 3, 6), (1, 0, 3, 7)]:
        check(t, explain(t, "h1/attn/mask", index))
    check(t, explain(t, "h1/attn/scores", (1, 2, 3, 8)))  # behind the end of the shorter text
    for key in (0, 2):
        with pytest.raises(ValueError, match=f"explain needs h1/attn/k at position {key}: record its pass"):
            explain(t, "h1/attn/scores", (1, 2, 3, key))


def test_the_generation_of_a_text() -> None:
    gpt2 = random_model(HPARAMS)
    with numpy_gpt2.trace() as t:
        gpt2.generate([1, 2, 3, 4], 5, temperature=0, return_details=True)
    assert t["logits"].shape == (1, 5, 11)
    check_all(t)
    rows = [explain(t, "logits", (0, i, 7)).operands[0].index[1] for i in range(5)]
    assert rows == [3, 4, 5, 6, 7]


def test_steps_and_the_ends_of_padded_texts() -> None:
    gpt2 = random_model(HPARAMS)
    with numpy_gpt2.trace(steps=True) as t:
        gpt2.generate([[1, 2, 3, 4, 5], [6, 7], [8, 9, 10, 0]], 2, temperature=0, return_details=True)
    assert t["step0/logits"].shape == (3, 11)
    for text, row in enumerate([4, 1, 3]):
        explanation = explain(t, "step0/logits", (text, 7))
        check(t, explanation)
        assert explanation.operands[0].name == "step0/ln_f"
        assert explanation.operands[0].index == (text, row, 0)
    for name in ("positions", "h1/ln_1", "h1/attn/q", "h1/attn/mask", "h1/attn/weights", "h1/x", "h1", "ln_f/centred"):
        array = t[f"step1/{name}"]
        check(t, explain(t, f"step1/{name}", tuple(n - 1 for n in array.shape)))
    check(t, explain(t, "step0/h1/attn/a", (1, 2, 1, 1)))
    check(t, explain(t, "step1/h1/attn/scores", (0, 2, 0, 5)))
    with pytest.raises(ValueError, match="needs step1/h1/attn/k at position 4: record .*, and not by steps"):
        explain(t, "step1/h1/attn/scores", (0, 2, 0, 4))
    with pytest.raises(KeyError, match="explain needs ids, which are not known: with several steps"):
        explain(t, "step0/x", (0, 0, 0))


def test_several_texts_in_one_pass_with_the_logits_of_their_ends() -> None:
    gpt2 = random_model(HPARAMS, "float32")
    with numpy_gpt2.trace() as t, patch({"logits": lambda x: x.__setitem__((0, 3), 7.0)}):
        gpt2.generate([[1, 2, 3, 4, 5], [6, 7]], 1, temperature=0, return_details=True)
    assert explain(t, "logits", (1, 3)).operands[0].index == (1, 1, 0)
    patched = explain(t, "logits", (0, 3))  # no row fits, so it is the last one
    assert patched.operands[0].index == (0, 4, 0)
    assert patched.note.startswith("The recorded value is 7, not ")


def test_a_masked_score_and_its_weight(tiny: GPT2) -> None:
    with numpy_gpt2.trace() as t:
        tiny.logits([1, 2, 3])
    score = explain(t, "h2/attn/scores", (0, 3, 1, 2))
    assert [(n.text, n.value, n.name) for n in score.numbers] == [
        ("mask", False, "h2/attn/mask"),
        ("minus infinity: the key lies behind", -math.inf, ""),
    ]
    assert score.note == ""
    assert [n.value for n in explain(t, "h2/attn/e", (0, 3, 1, 2)).numbers][-2:] == [-math.inf, 0]
    assert explain(t, "h2/attn/weights", (0, 3, 1, 2)).computed == 0
    mask = explain(t, "h2/attn/mask", (1, 2))
    assert [(n.text, n.value) for n in mask.numbers] == [("key", 2), ("position", 1), ("key <= position", False)]


def test_the_index() -> None:
    gpt2 = random_model(HPARAMS)
    with numpy_gpt2.trace() as t:
        gpt2.logits(random_ids(HPARAMS, 1, 5))
    whole = explain(t, "h1/attn/scores", (0, 4, 3, 2))
    assert explain(t, "h1/attn/scores", (4, 3, 2)) == whole
    assert explain(t, "h1/attn/scores", (-1, -1, -2, -3)) == whole
    assert explain(t, "h1/attn/scores", np.array([0, 4, 3, 2])).index == (0, 4, 3, 2)  # type: ignore[arg-type]
    assert explain(t, "positions", 3) == explain(t, "positions", (3,))
    for index in [(0, 0, 0, 5), (0, 5, 0, 0), (-2, 0, 0, 0), (0, 0), (0, 0, 0, 0, 0), ()]:
        with pytest.raises(IndexError) as error:
            explain(t, "h1/attn/scores", index)
        assert str(error.value) == f"h1/attn/scores has the shape [1, 5, 5, 5], and no entry with the index {[*index]}"
    with numpy_gpt2.trace() as t:
        gpt2.logits(random_ids(HPARAMS, 2, 5))
    with pytest.raises(IndexError, match="has the shape"):  # which of the two texts?
        explain(t, "h1/attn/scores", (4, 3, 2))


def test_names_that_are_wrong_or_missing() -> None:
    gpt2 = random_model(HPARAMS)
    ids = random_ids(HPARAMS, 1, 5)
    with numpy_gpt2.trace() as everything:
        gpt2.logits(ids)
    with pytest.raises(KeyError, match="did you mean 'h1/attn/scores'"):
        explain(everything, "h1/attn/score", (0, 0, 0, 0))
    for name, needed in {
        "h1/attn/scores": "h1/attn/q and h1/attn/k and h1/attn/mask: record them as well",
        "h1/attn/weights": "h1/attn/scores and h1/attn/e: record them as well",
        "h1/x": "h0 and h1/attn: record them as well",
        "h0/x": "x and h0/attn: record them as well",
        "x": "positions: record it as well",
        "ln_f/centred": "h2: record it as well",
        "ln_f": "ln_f/centred and ln_f/variance: record them as well",
        "logits": "ln_f: record it as well",
    }.items():
        with numpy_gpt2.trace(name) as t:
            gpt2.logits(ids)
        with pytest.raises(KeyError) as error:
            explain(t, name, (0,) * t[name].ndim)
        assert error.value.args == (f"explain needs {needed}",)


def test_the_operands_are_all_that_has_to_be_recorded() -> None:
    gpt2 = random_model(HPARAMS)
    ids = random_ids(HPARAMS, 2, 5)
    with numpy_gpt2.trace() as everything:
        gpt2.logits(ids)
    for name in everything:
        index = tuple(n - 1 for n in everything[name].shape)
        operands = {number.name for number in explain(everything, name, index).operands}
        with numpy_gpt2.trace([name, *operands]) as t:
            gpt2.logits(ids)
        assert explain(t, name, index) == explain(everything, name, index)


def test_an_array_that_a_patch_has_changed() -> None:
    """The array is said to be changed, and what follows from it is not."""
    gpt2 = random_model(HPARAMS)
    changes: dict[str, Any] = {
        "h1/attn/e": zero(head=1),
        "h1/attn/weights": lambda x: np.nan_to_num(x, copy=False),
        "h1/attn/a": scale(2),
        "h1/mlp": scale(0.5),
    }
    with np.errstate(invalid="ignore"), numpy_gpt2.trace() as t, patch(changes):
        gpt2.logits(random_ids(HPARAMS, 1, 5))
    changed = explain(t, "h1/attn/e", (0, 1, 4, 2))
    assert changed.value == 0
    assert changed.computed > 0
    assert changed.note == str(changed).splitlines()[-1]
    assert changed.note == (
        f"The recorded value is 0, not {changed.computed:.6g}: a patch has changed the array, the parameters have "
        "changed since, or other code has computed it."
    )
    assert explain(t, "h1/attn/a", (0, 2, 4, 1)).note
    assert explain(t, "h1/mlp", (0, 4, 1)).note
    check(t, explain(t, "h1/attn/e", (0, 2, 4, 2)))
    check(t, explain(t, "h1/attn", (0, 4, 1)))
    check(t, explain(t, "h1", (0, 4, 1)))
    weight = explain(t, "h1/attn/weights", (0, 1, 4, 2))  # 0 / 0, and patched
    assert weight.note.startswith("The recorded value is 0, not nan: ")


def test_what_is_not_a_number_is_explained_as_that() -> None:
    gpt2 = random_model(HPARAMS)
    with np.errstate(invalid="ignore"), numpy_gpt2.trace() as t, patch({"h1/attn/e": zero(head=1)}):
        model.logits(random_ids(HPARAMS, 1, 5), gpt2.params, HPARAMS.n_head)
    weight = explain(t, "h1/attn/weights", (0, 1, 4, 2))  # 0 / 0
    assert math.isnan(weight.value)
    assert math.isnan(weight.computed)
    assert weight.note == ""


def test_a_patched_score_of_minus_infinity() -> None:
    gpt2 = random_model(HPARAMS)

    def hide(scores: Array) -> None:
        scores[..., 4, 2] = -math.inf

    with numpy_gpt2.trace() as t, patch({"h1/attn/scores": hide}):
        gpt2.logits(random_ids(HPARAMS, 1, 5))
    assert explain(t, "h1/attn/scores", (0, 1, 4, 2)).note.startswith("The recorded value is -inf, not ")
    for name in ("e", "weights"):
        check(t, explain(t, f"h1/attn/{name}", (0, 1, 4, 2)))
    assert len(explain(t, "h1/attn/a", (0, 1, 4, 1)).numbers[0].terms) == 4

    def show(scores: Array) -> None:
        scores[..., 2, 4] = 1.5

    with numpy_gpt2.trace() as t, patch({"h1/attn/scores": show}):
        gpt2.logits(random_ids(HPARAMS, 1, 5))
    assert explain(t, "h1/attn/scores", (0, 1, 2, 4)).note.startswith("The recorded value is 1.5, not -inf")


def test_parameters_that_have_changed_since_or_are_gone() -> None:
    gpt2 = random_model(HPARAMS)
    with numpy_gpt2.trace() as t:
        gpt2.logits(random_ids(HPARAMS, 1, 5))
    before = explain(t, "h1/mlp/c_fc", (0, 4, 7))
    gpt2.params.h[1].mlp.c_fc.b[7] += 1
    after = explain(t, "h1/mlp/c_fc", (0, 4, 7))
    assert after.computed == pytest.approx(before.computed + 1)
    assert after.note
    check(t, explain(t, "h1/mlp/c_fc", (0, 4, 8)))
    del gpt2
    gc.collect()
    check(t, explain(t, "h1/attn/scores", (0, 1, 4, 2)))  # without parameters
    for name in ("x", "h1/ln_1", "h1/mlp/c_fc", "ln_f/centred", "logits"):
        with pytest.raises(KeyError, match="in the model, which must still exist"):
            explain(t, name, (0, 4, 7))


def test_a_learners_own_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def relu_mlp(x: Array, params: Any) -> Array:
        hidden = np.maximum(layers.linear(x, params.c_fc), 0)
        twice = hidden * 2
        return layers.linear(twice / 2, params.c_proj)

    monkeypatch.setattr(layers, "mlp", relu_mlp)
    gpt2 = random_model(HPARAMS)
    with numpy_gpt2.trace() as t:
        gpt2.logits(random_ids(HPARAMS, 1, 5))
    hidden = explain(t, "h1/mlp/hidden", (0, 4, 7))
    assert hidden.source == "hidden = np.maximum(layers.linear(x, params.c_fc), 0)"
    assert hidden.computed == pytest.approx(float(layers.gelu(t["h1/mlp/c_fc"])[0, 4, 7]))
    assert hidden.value != hidden.computed
    assert hidden.note
    check(t, explain(t, "h1/mlp", (0, 4, 7)))
    with pytest.raises(ValueError, match="what layers.py and model.py compute, and 'h1/mlp/twice' is not"):
        explain(t, "h1/mlp/twice", (0, 4, 7))


def test_a_learners_own_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """One key for all heads."""

    def multi_query(x: Array, params: Any, n_head: int, past: None) -> Array:
        qkv = layers.split_heads(layers.linear(x, params.c_attn), 3 * n_head)
        q, k, v = qkv[:, :n_head], qkv[:, n_head : n_head + 1], qkv[:, 2 * n_head :]
        mask = layers.causal_mask(np.arange(x.shape[1]), x.shape[1])
        a = layers.attention(q, k, v, mask)
        return layers.linear(layers.merge_heads(a), params.c_proj)

    monkeypatch.setattr(layers, "multi_head_attention", multi_query)
    gpt2 = random_model(HPARAMS)
    with numpy_gpt2.trace() as t:
        gpt2.logits(random_ids(HPARAMS, 1, 5))
    check(t, explain(t, "h1/attn/q", (0, 1, 4, 1)))
    assert explain(t, "h1/attn/k", (0, 0, 4, 1)).note  # explain takes the number of heads from k
    with pytest.raises(ValueError, match=r"h1/attn/k has the shape \[1, 1, 5, 2\], which explain does not expect"):
        explain(t, "h1/attn/scores", (0, 1, 4, 2))


def test_vectors_of_ones_own() -> None:
    """Block 0 has read something else than `x`, or there is no `x`."""
    gpt2 = random_model(HPARAMS)
    with numpy_gpt2.trace() as t:
        x = model.embed(random_ids(HPARAMS, 1, 5), gpt2.params)
        model.transformer(x + 0.1, gpt2.params, HPARAMS.n_head)
    assert explain(t, "h0/x", (0, 4, 7)).note
    check(t, explain(t, "h1/x", (0, 4, 7)))
    with numpy_gpt2.trace() as t:
        model.transformer(np.ones((1, 5, HPARAMS.n_embd)), gpt2.params, HPARAMS.n_head)
    with pytest.raises(KeyError, match="explain needs x: record it as well"):
        explain(t, "h0/ln_1/centred", (0, 4, 7))
    check(t, explain(t, "h0/attn/mask", (4, 2)))


def test_plain_data(tiny: GPT2) -> None:
    """For a page in a browser."""
    with numpy_gpt2.trace() as t:
        tiny.logits([1, 2, 3])
    for name in t:
        explanation = explain(t, name, (0,) * t[name].ndim)
        data = json.loads(json.dumps(dataclasses.asdict(explanation)))
        assert data["name"] == name
        assert data["value"] == explanation.value
        assert len(data["numbers"]) == len(explanation.numbers)


class TestText:
    """What a learner reads, of numbers that can be checked by hand."""

    def text(self, folder: Path, source: str, arrays: dict[str, Any], index: tuple[int, ...], **known: Any) -> str:
        """The explanation of an entry of the last array."""
        (folder / "code.py").write_text(f"\n{source}\n")
        t = Trace()
        as_arrays = {name: np.array(array) for name, array in arrays.items()}
        t.steps += [Step(name, array.shape, str(folder / "code.py"), 2) for name, array in as_arrays.items()]
        t.fill(as_arrays, {}, known.get("params"))
        t.ids = known.get("ids")
        return "\n" + str(explain(t, [*arrays][-1], index)) + "\n"

    def params(self, **arrays: Any) -> Params:
        """Parameters of a model that is two wide; those that are not given are ones."""
        hparams = HParams(n_vocab=3, n_ctx=4, n_embd=2, n_head=1, n_layer=1)
        return build(hparams, lambda name, shape: np.array(arrays.get(name.replace("/", "_"), np.ones(shape)), float))

    def test_a_score(self, tmp_path: Path) -> None:
        arrays = {
            "h3/attn/q": [[[[0.0, 0, 0, 0], [1, -2, 0.5, 10]]]],
            "h3/attn/k": [[[[3.0, 4, 1, 0.25], [0, 0, 0, 0]]]],
            "h3/attn/mask": [[True, False], [True, True]],
            "h3/attn/scores": [[[[0.0, -math.inf], [-1, 0]]]],
        }
        assert (
            self.text(tmp_path, "scores = q @ k", arrays, (0, 0, 1, 0))
            == """
h3/attn/scores[0, 0, 1, 0] = -1
    code.py:2  scores = q @ k
    scores = q k^T / sqrt(d_head), and minus infinity where mask is False

mask                True        h3/attn/mask[1, 0]
     1   * 3           3.00000  h3/attn/q[0, 0, 1, 0] * h3/attn/k[0, 0, 0, 0]
    -2   * 4          -8.00000  h3/attn/q[0, 0, 1, 1] * h3/attn/k[0, 0, 0, 1]
     0.5 * 1           0.50000  h3/attn/q[0, 0, 1, 2] * h3/attn/k[0, 0, 0, 2]
    10   * 0.25        2.50000  h3/attn/q[0, 0, 1, 3] * h3/attn/k[0, 0, 0, 3]
sum of q * k          -2.00000
sqrt(d_head)           2
sum / sqrt(d_head)    -1
"""
        )
        assert (
            self.text(tmp_path, "scores = q @ k", arrays, (0, 0, 0, 1))
            == """
h3/attn/scores[0, 0, 0, 1] = -inf
    code.py:2  scores = q @ k
    scores = q k^T / sqrt(d_head), and minus infinity where mask is False

mask                                 False  h3/attn/mask[0, 1]
minus infinity: the key lies behind   -inf
"""
        )

    def test_a_weight(self, tmp_path: Path) -> None:
        arrays = {
            "h0/attn/scores": [[[[0.0, math.log(3), -math.inf]]]],
            "h0/attn/e": [[[[1 / 3, 1, 0]]]],
            "h0/attn/weights": [[[[0.25, 0.75, 0.0]]]],
        }
        assert (
            self.text(tmp_path, "weights = softmax(scores)", arrays, (0, 0, 0, 0))
            == """
h0/attn/weights[0, 0, 0, 0] = 0.25
    code.py:2  weights = softmax(scores)
    weights = exp(x - max(x)) / sum of exp(x - max(x)), where x is h0/attn/scores

x                     0         h0/attn/scores[0, 0, 0, 0]
max(x)                1.09861   h0/attn/scores[0, 0, 0, 1]
x - max(x)           -1.09861
e = exp(x - max(x))   0.333333  h0/attn/e[0, 0, 0, 0]
    e                 0.33333   h0/attn/e[0, 0, 0, 0]
    e                 1.00000   h0/attn/e[0, 0, 0, 1]
    e                 0.00000   h0/attn/e[0, 0, 0, 2]
sum of e              1.33333
e / sum of e          0.25
"""
        )

    def test_a_layer_norm(self, tmp_path: Path) -> None:
        arrays = {
            "h0/ln_2/centred": [[[-3.0, 3.0]]],
            "h0/ln_2/variance": [[[9.0 - 1e-5]]],
            "h0/ln_2": [[[-1.0, 10.5]]],
        }
        params = self.params(h0_ln_2_g=[1, 10], h0_ln_2_b=[0, 0.5])
        assert (
            self.text(tmp_path, "return g * x", arrays, (0, 0, 1), params=params)
            == """
h0/ln_2[0, 0, 1] = 10.5
    code.py:2  return g * x
    g * (centred / sqrt(variance + 1e-5)) + b

centred                           3        h0/ln_2/centred[0, 0, 1]
variance                          8.99999  h0/ln_2/variance[0, 0, 0]
sqrt(variance + 1e-5)             3
centred / sqrt(variance + 1e-5)   1
g                                10        h0/ln_2/g[1]
g * quotient                     10
b                                 0.5      h0/ln_2/b[1]
g * quotient + b                 10.5
"""
        )

    def test_a_gelu_that_was_changed(self, tmp_path: Path) -> None:
        arrays = {"h0/mlp/c_fc": [[[2.0]]], "h0/mlp/hidden": [[[1.0]]]}
        assert (
            self.text(tmp_path, "hidden = gelu(x)", arrays, (0, 0, 0))
            == """
h0/mlp/hidden[0, 0, 0] = 1
    code.py:2  hidden = gelu(x)
    gelu(x) = 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), where x is h0/mlp/c_fc

x                                2         h0/mlp/c_fc[0, 0, 0]
x^3                              8
sqrt(2 / pi) (x + 0.044715 x^3)  1.88119
tanh of that                     0.954598
0.5 x (1 + tanh)                 1.9546

The recorded value is 1, not 1.9546: a patch has changed the array, the parameters have changed since, or other code \
has computed it.
"""
        )

    def test_an_embedding(self, tmp_path: Path) -> None:
        params = self.params(wte=[[0, 0], [0, 0], [7, 1]], wpe=[[0, 0], [0, 0.25], [0, 0], [0, 0]])
        arrays = {"positions": [0, 1], "x": [[[0.0, 0], [7, 1.25]]]}
        text = self.text(tmp_path, "x = wte + wpe", arrays, (0, 1, 1), params=params, ids=np.array([[0, 2]]))
        assert (
            text
            == """
x[0, 1, 1] = 1.25
    code.py:2  x = wte + wpe
    x = wte[id] + wpe[position]

id         2     ids[0, 1]
position   1     positions[1]
wte        1     wte[2, 1]
wpe        0.25  wpe[1, 1]
wte + wpe  1.25
"""
        )

    def test_a_long_sum_shows_its_largest_terms(self, tmp_path: Path) -> None:
        """What is shown of it adds up."""
        w = np.zeros((10, 3))
        w[:, 1] = [1, -1, 2, 0.5, 0.25, 0, -0.001, 100, 3, 7]
        params = self.params(h0_mlp_c_fc_w=w, h0_mlp_c_fc_b=[0, 0.5, 0])
        arrays = {"h0/ln_2": np.ones((1, 1, 10)), "h0/mlp/c_fc": [[[0, 113.249, 0]]]}
        assert (
            self.text(tmp_path, "return x @ w + b", arrays, (0, 0, 1), params=params)
            == """
h0/mlp/c_fc[0, 0, 1] = 113.249
    code.py:2  return x @ w + b
    x w + b, where x is h0/ln_2

    1 * 100                       100.000  h0/ln_2[0, 0, 7] * h0/mlp/c_fc/w[7, 1]
    1 *   7                         7.000  h0/ln_2[0, 0, 9] * h0/mlp/c_fc/w[9, 1]
    1 *   3                         3.000  h0/ln_2[0, 0, 8] * h0/mlp/c_fc/w[8, 1]
    1 *   2                         2.000  h0/ln_2[0, 0, 2] * h0/mlp/c_fc/w[2, 1]
    1 *   1                         1.000  h0/ln_2[0, 0, 0] * h0/mlp/c_fc/w[0, 1]
    1 *  -1                        -1.000  h0/ln_2[0, 0, 1] * h0/mlp/c_fc/w[1, 1]
    ... 4 more terms that sum to    0.749
sum of x * w                      112.749
b                                   0.5    h0/mlp/c_fc/b[1]
sum + b                           113.249
"""
        )

    def test_every_long_sum_adds_up_as_it_is_shown(self, tiny: GPT2) -> None:
        n_sums = 0
        with numpy_gpt2.trace() as t:
            tiny.logits([1, 2, 3, 4, 5])
        for name in t:
            for i in (0, 1):
                for number in explain(t, name, tuple((3 * n // 4 + i) % n for n in t[name].shape)).numbers:
                    if len(number.terms) > 8:
                        *shown, total = [Decimal(digits) for _, digits, _ in rows(number)]
                        assert len(shown) == 7
                        assert sum(shown) == total
                        n_sums += 1
        assert n_sums > 70
