"""`trace` records what the model computes, and leaves nothing behind."""

from __future__ import annotations

import functools
import gc
import inspect
import re
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from by_hand import by_hand, part_names
from conftest import DTYPES, SHAPES, in_pytorch, random_ids, random_model
from notebook import cells

import numpy_gpt2
from numpy_gpt2 import layers, model
from numpy_gpt2.decoding import prefill
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.params import Array, HParams

HPARAMS = SHAPES[1]  # 3 layers, 5 heads, 10 wide, a context of 40


@pytest.mark.parametrize("hparams", SHAPES)
@pytest.mark.parametrize("n_batch", [1, 3])
def test_every_array_is_recorded_and_equals_that_of_a_pass_by_hand(hparams: HParams, n_batch: int) -> None:
    gpt2 = random_model(hparams)
    ids = random_ids(hparams, n_batch, 7)
    with numpy_gpt2.trace() as t:
        gpt2.logits(ids)
    expected = by_hand(gpt2.params, hparams.n_head, ids)
    assert [*t] == part_names(hparams.n_layer)
    assert {*t} == {*expected}
    for name in t:
        np.testing.assert_allclose(t[name], expected[name], rtol=1e-9, atol=1e-12, err_msg=name)
        assert t[name].dtype == expected[name].dtype


@pytest.mark.parametrize("dtype", DTYPES)
def test_attentions_and_hidden_states_are_those_of_transformers(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    gpt2 = random_model(HPARAMS, dtype)
    ids = random_ids(HPARAMS, 2, 30)
    with numpy_gpt2.trace() as t:
        gpt2.logits(ids)
    with torch.no_grad():
        said = in_pytorch(gpt2)(torch.tensor(ids), output_attentions=True, output_hidden_states=True)
    close: Any = {"rtol": 1e-3, "atol": 1e-4} if dtype == "float32" else {"rtol": 1e-8, "atol": 1e-11}
    for i, weights in enumerate(said.attentions):
        np.testing.assert_allclose(t[f"h{i}/attn/weights"], weights, **close)
    ours = [t["x"], *(t[f"h{i}"] for i in range(HPARAMS.n_layer - 1)), t["ln_f"]]
    for x, theirs in zip(ours, said.hidden_states, strict=True):
        np.testing.assert_allclose(x, theirs, **close)
    np.testing.assert_allclose(t["logits"], said.logits, **close)
    assert t["h0"].dtype == dtype


def test_a_text_read_with_a_past_is_recorded_as_if_read_at_once() -> None:
    """Keys that a pass had not seen have the score minus infinity and the weight 0."""
    gpt2 = random_model(HPARAMS)
    ids = random_ids(HPARAMS, 2, 23)
    with numpy_gpt2.trace() as whole:
        gpt2.logits(ids)
    with numpy_gpt2.trace() as with_past:
        past = gpt2.new_past(2)
        gpt2.logits(ids[:, :10], past)
        for i in range(10, 23, 3):
            gpt2.logits(ids[:, i : i + 3], past)
    with numpy_gpt2.trace() as in_pieces, prefill.tokens_at_once(2 * 4):
        past = gpt2.new_past(2)
        x = prefill.read(ids, gpt2.params, HPARAMS.n_head, past)
        model.output_head(x, gpt2.params)
    for t in (with_past, in_pieces):
        assert [*t] == [*whole]
        for name in whole:
            if name == "positions" or name.endswith("mask"):
                assert (t[name] == whole[name]).all()
            else:
                np.testing.assert_allclose(t[name], whole[name], rtol=1e-9, atol=1e-12, err_msg=name)
        assert (t["h1/attn/weights"][..., ~np.tril(np.ones((23, 23), bool))] == 0).all()


def test_a_prompt_is_recorded_in_one_piece() -> None:
    """Even where prompts are otherwise read a few tokens at a time."""
    gpt2 = random_model(HPARAMS)
    ids = random_ids(HPARAMS, 1, 23)
    with prefill.tokens_at_once(4), numpy_gpt2.trace(["h1/attn/scores"], steps=True) as t:
        gpt2.logits(ids)
        gpt2.generate(ids[0], 1, temperature=0, return_details=True)
    assert [step.shape for step in t.steps] == [(1, 5, 23, 23)] * 2
    assert np.isfinite(t["step0/h1/attn/scores"][..., -1, :]).all()
    longer = random_model(HPARAMS._replace(n_ctx=prefill.TOKENS_AT_ONCE + 10), "float32")
    with numpy_gpt2.trace("h0", steps=True) as t:
        longer.logits(random_ids(longer.hparams, 1, prefill.TOKENS_AT_ONCE + 9))
    assert [step.shape[1] for step in t.steps] == [prefill.TOKENS_AT_ONCE + 9]


def test_reading_in_pieces_resumes_after_the_block() -> None:
    gpt2 = random_model(HPARAMS)
    sizes = []

    def watch(frame: Any, event: str, arg: Any) -> None:
        if frame.f_code is model.transformer.__code__:
            sizes.append(frame.f_locals["x"].shape[1])

    with prefill.tokens_at_once(4):
        with numpy_gpt2.trace():
            pass
        before = sys.gettrace()
        sys.settrace(watch)
        try:
            gpt2.logits(random_ids(HPARAMS, 1, 10))
        finally:
            sys.settrace(before)
    assert sizes == [4, 4, 2]


def test_steps_of_a_generation(tiny: GPT2) -> None:
    with numpy_gpt2.trace(steps=True) as t:
        said = tiny.generate("The king was very", 4, temperature=0, return_details=True)
    assert tiny.tokenizer
    ids = tiny.tokenizer.encode("The king was very") + said.ids
    with numpy_gpt2.trace() as whole:
        tiny.logits(ids[:-1])
    assert {name.split("/")[0] for name in t} == {"step0", "step1", "step2", "step3"}
    assert [name for name in t if name.startswith("step2/")] == [f"step2/{name}" for name in whole]
    assert t["step0/h1/attn/weights"].shape == (1, 4, 4, 4)
    for i in (1, 2, 3):
        np.testing.assert_allclose(
            t[f"step{i}/h3/attn/weights"][0, :, 0], whole["h3/attn/weights"][0, :, 3 + i, : 4 + i], rtol=1e-3, atol=1e-5
        )
        np.testing.assert_allclose(t[f"step{i}/h2"][0, 0], whole["h2"][0, 3 + i], rtol=1e-3, atol=1e-4)
        assert t[f"step{i}/logits"].argmax() == said.ids[i]
        assert t[f"step{i}/h2/mlp"] is t[f"step{i}/h2/mlp/c_proj"]


def test_the_passes_of_a_generation_are_joined_unless_steps_are_asked_for(tiny: GPT2) -> None:
    with numpy_gpt2.trace("h?/attn/weights") as t:
        said = tiny.generate("The king was very", 4, temperature=0, return_details=True)
    assert tiny.tokenizer
    with numpy_gpt2.trace("h?/attn/weights") as whole:
        tiny.logits(tiny.tokenizer.encode("The king was very") + said.ids[:-1])
    assert [*t] == [*whole]
    for name in t:
        np.testing.assert_allclose(t[name], whole[name], rtol=1e-3, atol=1e-5)


def test_the_logits_of_a_generation(tiny: GPT2) -> None:
    with numpy_gpt2.trace() as t:
        said = tiny.generate("The king was very", 4, temperature=0, return_details=True)
    assert t["logits"].shape == (1, 4, 4096)
    assert t["logits"].argmax(-1)[0].tolist() == said.ids
    assert t["positions"].tolist() == [[*range(7)]]


def test_a_pass_that_does_not_continue_the_last_one_starts_a_new_recording() -> None:
    gpt2 = random_model(HPARAMS)
    a, b = gpt2.new_past(), gpt2.new_past()
    gpt2.logits([1, 2, 3], a)
    gpt2.logits([4, 5, 6], b)
    with numpy_gpt2.trace(["h0", "positions"]) as t:  # a different past
        gpt2.logits([7, 8], a)
        gpt2.logits([9], b)
    assert (t["h0"].shape, t["positions"].tolist()) == ((1, 1, 10), [[3]])
    with numpy_gpt2.trace(["h0", "positions"]) as t:  # a different past of the same length
        gpt2.logits([1], a)
        b.lengths[:] = a.lengths
        gpt2.logits([9], b)
    assert (t["h0"].shape, t["positions"].tolist()) == ((1, 1, 10), [[6]])
    b.lengths[:] = 4
    with numpy_gpt2.trace(["h0", "positions"]) as t:  # a past that was rewound
        gpt2.logits([7, 8], b)
        b.lengths[:] = 3
        gpt2.logits([9], b)
    assert (t["h0"].shape, t["positions"].tolist()) == ((1, 1, 10), [[3]])
    with numpy_gpt2.trace(["h0", "positions"]) as t:  # no past, then one
        gpt2.logits([7, 8])
        gpt2.logits([9], b)
        gpt2.logits([1, 2], b)
    assert (t["h0"].shape, t["positions"].tolist()) == ((1, 3, 10), [[4, 5, 6]])
    with numpy_gpt2.trace("h0") as t:  # a new past
        gpt2.logits([7, 8], b)
        gpt2.logits([9, 1, 2], gpt2.new_past())
    assert t["h0"].shape == (1, 3, 10)


def test_the_output_head_alone() -> None:
    """It may be called several times, with vectors of any shape. Each call gets a name of its own."""
    gpt2 = random_model(HPARAMS)
    with numpy_gpt2.trace("logits*") as t:
        x = model.embed(random_ids(HPARAMS, 1, 3), gpt2.params)
        x = model.transformer(x, gpt2.params, HPARAMS.n_head)
        for n in (1, 2, 3):
            model.output_head(x[:, :n], gpt2.params)
    assert [(step.name, step.shape) for step in t.steps] == [
        ("logits", (1, 1, 11)),
        ("logits_2", (1, 2, 11)),
        ("logits_3", (1, 3, 11)),
    ]


def test_several_texts_by_steps(tiny: GPT2) -> None:
    """The texts have different lengths. Then a text whose context slides."""
    with numpy_gpt2.trace(["h0", "logits"], steps=True) as t:
        tiny.generate(["The king", "A fox and a wolf"], 3, temperature=0)
    assert [(step.name, step.shape[:2]) for step in t.steps if step.name.endswith("h0")] == [
        ("step0/h0", (2, 5)),
        ("step1/h0", (2, 1)),
        ("step2/h0", (2, 1)),
    ]
    with numpy_gpt2.trace("h0", steps=True) as t:
        tiny.generate([1] * 255, 4, temperature=0, slide=True)
    assert [step.shape[1] for step in t.steps] == [255, 1, 127, 1, 1]


def test_a_variable_changed_in_place_or_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    def ablated(x: Array, params: Any) -> Array:
        hidden = layers.gelu(layers.linear(x, params.c_fc))
        hidden[..., 3] = 0
        twice = hidden * 2
        del twice
        return layers.linear(hidden, params.c_proj)

    monkeypatch.setattr(layers, "mlp", ablated)
    gpt2 = random_model(HPARAMS)
    with numpy_gpt2.trace("h1/mlp/*") as t:
        gpt2.logits(random_ids(HPARAMS, 1, 5))
    assert (t["h1/mlp/hidden"][..., 3] == 0).all()
    assert (t["h1/mlp/hidden"] != 0).any()


def test_a_function_that_returns_a_slice_of_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    def mlp(x: Array, params: Any) -> Array:
        twice = np.concatenate([layers.linear(layers.linear(x, params.c_fc), params.c_proj)] * 2)
        return twice[: len(x)]

    monkeypatch.setattr(layers, "mlp", mlp)
    gpt2 = random_model(HPARAMS)
    with numpy_gpt2.trace("h1/mlp*") as t:
        gpt2.logits(random_ids(HPARAMS, 3, 5))
    assert t["h1/mlp/twice"].shape == (6, 5, 10)
    assert (t["h1/mlp"] == t["h1/mlp/twice"][:3]).all()


def test_a_wrapped_function(monkeypatch: pytest.MonkeyPatch) -> None:
    original = layers.mlp

    @functools.wraps(original)
    def wrapper(*args: Any) -> Any:
        noise = np.zeros(3)
        return original(*args) + noise.sum()

    monkeypatch.setattr(layers, "mlp", wrapper)
    gpt2 = random_model(HPARAMS)
    with numpy_gpt2.trace() as t:
        gpt2.logits(random_ids(HPARAMS, 1, 5))
    assert [*t] == part_names(HPARAMS.n_layer)


def test_several_continuations_of_one_prompt_by_steps(tiny: GPT2) -> None:
    """The prompt is read as a batch of one, its continuations as a batch of three."""
    with numpy_gpt2.trace("h0", steps=True) as t:
        tiny.generate("The king", 3, num_return_sequences=3, seed=0)
    assert [(step.name, step.shape) for step in t.steps] == [
        ("step0/h0", (1, 2, 256)),
        ("step1/h0", (3, 1, 256)),
        ("step2/h0", (3, 1, 256)),
    ]
    with numpy_gpt2.trace(
        "h0"
    ) as last:  # the passes cannot be joined, so recording starts anew with the batch of three
        tiny.generate("The king", 3, num_return_sequences=3, seed=0)
    assert (last["h0"] == np.concatenate([t["step1/h0"], t["step2/h0"]], axis=1)).all()


def test_another_text_starts_a_new_recording() -> None:
    gpt2 = random_model(HPARAMS)
    first, second = random_ids(HPARAMS, 1, 5), random_ids(HPARAMS, 2, 3, seed=1)
    with numpy_gpt2.trace() as alone:
        gpt2.logits(second)
    with numpy_gpt2.trace() as t:
        gpt2.logits(first)
        gpt2.logits(second)
    assert [*t] == [*alone]
    assert all((t[name] == alone[name]).all() for name in t)
    with numpy_gpt2.trace(steps=True) as t:
        gpt2.logits(first)
        gpt2.logits(second)
    assert len(t) == 2 * len(alone)
    assert t["step0/h0"].shape == (1, 5, 10)
    assert (t["step1/h0"] == alone["h0"]).all()


class TestOwnVectors:
    """Vectors that somebody embeds, changes or makes, and gives to `model.transformer`."""

    gpt2 = random_model(HPARAMS)
    ids = random_ids(HPARAMS, 1, 5)

    def transformer(self, x: Array) -> Array:
        return model.transformer(x, self.gpt2.params, HPARAMS.n_head)

    @pytest.mark.parametrize("steps", [False, True])
    def test_embeddings_that_are_looked_at_or_changed_belong_to_one_pass(self, steps: bool) -> None:
        with numpy_gpt2.trace(steps=steps) as t:
            x = model.embed(self.ids, self.gpt2.params)
            model.output_head(x, self.gpt2.params)
            made = self.transformer(x + 0.1)
        step = "step0/" if steps else ""
        assert {"x", "h0", "h2", "ln_f", "logits"} <= {name.removeprefix(step) for name in t}
        assert all(name.startswith(step) for name in t)
        np.testing.assert_array_equal(t[f"{step}ln_f"], made)

    def test_a_pass_over_what_a_pass_returned_is_another_one(self) -> None:
        with numpy_gpt2.trace("h0", steps=True) as t:
            y = self.transformer(model.embed(self.ids, self.gpt2.params))
            self.transformer(y)
        assert [*t] == ["step0/h0", "step1/h0"]
        with numpy_gpt2.trace("h0") as last:
            self.transformer(self.transformer(np.ones((1, 5, HPARAMS.n_embd))))
        with numpy_gpt2.trace("h0") as alone:
            self.transformer(self.transformer(np.ones((1, 5, HPARAMS.n_embd))))
        np.testing.assert_array_equal(last["h0"], alone["h0"])
        assert last["h0"].shape == (1, 5, HPARAMS.n_embd)


def test_token_types_and_hidden_states() -> None:
    gpt2 = random_model(HPARAMS)
    ids, types = random_ids(HPARAMS, 1, 5), random_ids(HPARAMS, 1, 5, seed=1)
    with numpy_gpt2.trace() as t:
        states = gpt2.hidden_states(ids, types)
    np.testing.assert_array_equal(t["x"] + gpt2.params.wte[types], t["x_2"])  # x is without the types, x_2 with them
    for x, name in zip(states, ["x_2", "h0", "h1", "ln_f"], strict=True):
        np.testing.assert_array_equal(x, t[name])
    assert "logits" not in t


def test_a_block_that_is_used_twice() -> None:
    gpt2 = random_model(HPARAMS)
    params = gpt2.params._replace(h=(gpt2.params.h[0],) * 2)
    with numpy_gpt2.trace("h?/attn/weights") as t:
        model.logits(random_ids(HPARAMS, 1, 5), params, HPARAMS.n_head)
    assert [(step.name, step.shape) for step in t.steps] == [
        ("h0/attn/weights", (1, 5, 5, 5)),
        ("h1/attn/weights", (1, 5, 5, 5)),
    ]


def test_a_learners_own_function(monkeypatch: pytest.MonkeyPatch) -> None:
    """Someone who replaces a layer sees the other parts, and what the new layer calls."""

    def relu_mlp(x: Array, params: Any) -> Array:
        hidden = np.maximum(layers.linear(x, params.c_fc), 0)
        return layers.linear(hidden, params.c_proj)

    monkeypatch.setattr(layers, "mlp", relu_mlp)
    gpt2 = random_model(HPARAMS)
    with numpy_gpt2.trace("h1*") as t:
        gpt2.logits(random_ids(HPARAMS, 1, 5))
    np.testing.assert_allclose(
        np.maximum(t["h1/mlp/c_fc"], 0) @ gpt2.params.h[1].mlp.c_proj.w + gpt2.params.h[1].mlp.c_proj.b,
        t["h1"] - t["h1/x"],
    )


def test_patterns() -> None:
    gpt2 = random_model(HPARAMS)
    ids = random_ids(HPARAMS, 1, 5)
    with numpy_gpt2.trace() as everything:
        gpt2.logits(ids)
    for pattern, expected in [
        ("h*/attn/weights", ["h0/attn/weights", "h1/attn/weights", "h2/attn/weights"]),
        (["h[02]", "ln_f"], ["h0", "h2", "ln_f"]),
        ("H0", []),
        ([], []),
    ]:
        with numpy_gpt2.trace(pattern) as t:
            gpt2.logits(ids)
        assert [*t] == expected
        assert all((t[name] == everything[name]).all() for name in t)
    with numpy_gpt2.trace(["step1/h0", "ln_f"], steps=True) as t:
        gpt2.logits(ids)
        gpt2.logits(ids)
    assert [*t] == ["step0/ln_f", "step1/h0", "step1/ln_f"]
    with numpy_gpt2.trace("h1/attn") as t:  # its second name
        gpt2.logits(ids)
    assert (t["h1/attn"] == everything["h1/attn/c_proj"]).all()


def test_only_requested_arrays_are_copied() -> None:
    gpt2 = random_model(HPARAMS)

    class Copied(np.ndarray[Any, Any]):
        n_copies = 0

        def copy(self, order: Any = "C") -> Any:
            Copied.n_copies += 1
            return super().copy(order)

    params = gpt2.params._replace(wte=gpt2.params.wte.view(Copied))
    with numpy_gpt2.trace("h1/mlp/hidden"):
        model.logits(random_ids(HPARAMS, 1, 5), params, HPARAMS.n_head)
    assert Copied.n_copies == 1


def test_arrays_are_copies_and_each_is_kept_once() -> None:
    gpt2 = random_model(HPARAMS)
    ids = random_ids(HPARAMS, 1, 5)
    past = gpt2.new_past()
    with numpy_gpt2.trace() as t:
        logits = gpt2.logits(ids, past)
    kept = {name: t[name].copy() for name in t}
    past.k[:] = past.v[:] = logits[:] = 7
    for name in t:
        assert (t[name] == kept[name]).all()
    names = [name for name in t if not name.endswith(("mask", "positions"))]
    for i, name in enumerate(names):
        for other in names[:i]:
            assert not np.shares_memory(t[name], t[other])
            assert t[name].shape != t[other].shape or not (t[name] == t[other]).all(), (name, other)


def test_the_source_lines_of_steps(tiny: GPT2) -> None:
    with numpy_gpt2.trace() as t:
        tiny.logits([1, 2, 3])
    assert [step.name for step in t.steps] == [*t]
    assert all(step.shape == t[step.name].shape for step in t.steps)
    source = {step.name: step for step in t.steps}
    assert source["h3/attn/weights"].source.startswith("weights = softmax(scores)")
    assert source["h3/attn/scores"].source.startswith("np.copyto(scores")  # its last change
    assert source["h3/ln_2"].source.startswith("return params.g * ")
    assert source["h3"].source.startswith("x = x + mlp(")
    assert source["logits"].source.startswith("logits = product(x, params.wte.T)")
    lines, first = inspect.getsourcelines(layers.mlp)
    assert source["h3/mlp/hidden"].file == layers.__file__
    assert "hidden = " in lines[source["h3/mlp/hidden"].line - first]
    # Each line assigns the variable of its name.
    for step in t.steps:
        variable = step.name.split("/")[-1]
        if not re.fullmatch(r"h\d+|c_attn|c_fc|c_proj|ln_[12f]", variable):
            assert re.search(rf"\b{re.sub('_2$', '', variable)}\b.* = |np.copyto\({variable}, ", step.source), step


def test_nothing_is_left_after_the_block() -> None:
    gpt2 = random_model(HPARAMS)
    ids = random_ids(HPARAMS, 1, 5)
    before = sys.gettrace()
    with numpy_gpt2.trace() as t:
        logits = gpt2.logits(ids)
    assert sys.gettrace() is before
    names = [*t]
    gpt2.logits(ids)
    assert [*t] == names
    parameter, returned = weakref.ref(gpt2.params.h[0].mlp.c_fc.w), weakref.ref(logits)
    del gpt2, logits
    gc.collect()
    assert parameter() is None  # while the trace is still alive
    assert returned() is None
    kept = weakref.ref(t["h0/ln_1"])
    with numpy_gpt2.trace("h0") as other:
        random_model(HPARAMS).logits(ids)
    arrays = [weakref.ref(each) for each in other.values()]
    assert len(arrays) == 1
    del other
    gc.collect()
    assert all(each() is None for each in arrays)
    assert kept() is not None
    assert t["h0"].shape == (1, 5, 10)


@pytest.mark.parametrize("where", ["in the block", "in the model"])
def test_after_an_exception(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gpt2 = random_model(HPARAMS)
    before = sys.gettrace()

    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    def pass_and_fail() -> None:
        gpt2.logits([1, 2])
        if where == "in the block":
            raise ZeroDivisionError
        monkeypatch.setattr(layers, "mlp", fail)
        gpt2.logits([3, 4])

    with pytest.raises(ZeroDivisionError), numpy_gpt2.trace() as t:
        pass_and_fail()
    assert sys.gettrace() is before
    if where == "in the block":
        assert [*t] == part_names(HPARAMS.n_layer)
    else:  # the second text, up to the exception
        assert [*t][-1] == "h0/ln_2"
        assert "h0" not in t
    monkeypatch.undo()
    with numpy_gpt2.trace() as t:
        gpt2.logits([1, 2])
    assert [*t] == part_names(HPARAMS.n_layer)


def test_another_trace_function_is_restored() -> None:
    seen: list[str] = []

    def theirs(frame: Any, event: str, arg: Any) -> None:
        seen.append(frame.f_code.co_name)

    before = sys.gettrace()
    sys.settrace(theirs)
    try:
        with numpy_gpt2.trace():
            pass
        assert sys.gettrace() is theirs
    finally:
        sys.settrace(before)


def test_nested_traces(tiny: GPT2) -> None:
    """Each records what is computed in its own block, by its own names."""
    with numpy_gpt2.trace("h[01]", steps=True) as outer:
        tiny.logits([1, 2])
        with numpy_gpt2.trace() as inner:
            tiny.logits([1, 2, 3])
        with numpy_gpt2.trace("h0/mlp", steps=True) as other:
            tiny.logits([4, 5, 6])
    with numpy_gpt2.trace() as alone:
        tiny.logits([1, 2, 3])
    assert [(step.name, step.shape[1]) for step in outer.steps] == [
        (f"step{i}/h{block}", n) for i, n in enumerate([2, 3, 3]) for block in range(2)
    ]
    assert [*inner] == [*alone]
    for name in alone:
        np.testing.assert_array_equal(inner[name], alone[name])
    np.testing.assert_array_equal(outer["step1/h1"], alone["h1"])
    assert [*other] == ["step0/h0/mlp/c_proj"]


def test_an_inner_trace_that_ends_by_an_exception(tiny: GPT2) -> None:
    before = sys.gettrace()

    def trace_and_fail() -> None:
        with numpy_gpt2.trace("h1"):
            tiny.logits([1, 2, 3])
            raise ZeroDivisionError

    with numpy_gpt2.trace("h0") as outer:
        with pytest.raises(ZeroDivisionError):
            trace_and_fail()
        tiny.logits([1, 2])
    assert sys.gettrace() is before
    assert outer["h0"].shape == (1, 2, 256)


def test_a_trace_that_is_switched_off(tiny: GPT2) -> None:
    """It has what was recorded until then, and says that this is not all."""
    before = sys.gettrace()
    t = None

    def trace_and_switch_off() -> None:
        nonlocal t
        with numpy_gpt2.trace("h0") as t:
            tiny.logits([1, 2, 3])
            sys.settrace(None)

    with pytest.raises(RuntimeError, match="not watched to the end of the block"):
        trace_and_switch_off()
    assert sys.gettrace() is before
    assert t is not None
    assert t["h0"].shape == (1, 3, 256)


def test_traces_that_end_in_another_order_than_they_began(tiny: GPT2) -> None:
    """As those that generators hold. Afterwards, nothing is left switched on."""

    def shapes(*ids: int) -> Iterator[Any]:
        with numpy_gpt2.trace("h0", steps=True) as t:
            yield tiny.logits([ids])
        yield [step.shape[1] for step in t.steps]

    before = sys.gettrace()
    first, second = shapes(1, 2), shapes(1, 2, 3)
    next(first)
    next(second)
    assert next(first) == [2, 3]
    assert sys.gettrace() is not before
    tiny.logits([1, 2, 3, 4])
    assert next(second) == [3, 4]
    assert sys.gettrace() is before
    assert not prefill.reads_whole()


def test_names_that_were_not_recorded(tiny: GPT2) -> None:
    with numpy_gpt2.trace("h0") as t:
        with pytest.raises(KeyError, match="nothing is here yet: a trace is filled at the end"):
            t["h0"]
        tiny.logits([1, 2, 3])
    with pytest.raises(KeyError, match="'h1' is not among the 1 arrays that were recorded\"$"):
        t["h1"]
    with numpy_gpt2.trace() as everything:
        tiny.logits([1, 2, 3])
    with pytest.raises(KeyError, match="'h3/attn/weigths' is not .*; did you mean 'h3/attn/weights'"):
        everything["h3/attn/weigths"]
    assert repr(t) == "<Trace of 1 arrays>\n  h0  float32[1, 3, 256]"
    assert repr(everything).splitlines()[4:6] == ["  h0/ln_1/variance  float32[1, 3, 1]", "  ... 86 more ..."]
    head, positions, *_, logits = cells(everything)
    assert (head, positions[:2]) == (["name", "array", "line"], ["positions", "int64[3]"])
    assert logits == ["logits", "float32[1, 3, 4096]", "logits = product(x, params.wte.T)"]
    assert t != dict(t)
    assert {t: 1}[t] == 1
    assert t.get("h1") is None


def test_sampling_is_not_recorded(tiny: GPT2) -> None:
    """Although it calls softmax."""
    with numpy_gpt2.trace() as t:
        tiny.generate("The king", 2, seed=0)
    assert {*t} == {*part_names(4)}
