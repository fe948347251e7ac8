"""`patch` changes what is inside a pass: everything else follows, and nothing is left behind."""

from __future__ import annotations

import gc
import inspect
import re
import sys
import threading
import warnings
import weakref
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pytest
from by_hand import block_names, by_hand, part_names
from conftest import SHAPES, in_pytorch, on_device, random_ids, random_model, random_prompts
from device_array import DeviceArray
from hypothesis import given, settings
from hypothesis import strategies as st

import numpy_gpt2
from numpy_gpt2 import generation, layers, model
from numpy_gpt2.decoding import prefill
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.inside.patches import Change, mean, patch, put, scale, zero
from numpy_gpt2.machine import threads
from numpy_gpt2.params import Array, Block, HParams, Linear, Params

HPARAMS = SHAPES[1]  # 3 layers, 5 heads, 10 wide, a context of 40
D_HEAD = 2
IDS = random_ids(HPARAMS, 2, 7)
CLOSE: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-12}
SECOND_NAMES = {"h1/attn": "h1/attn/c_proj", "h1/mlp": "h1/mlp/c_proj"}


@pytest.fixture(scope="module")
def gpt2() -> GPT2:
    return random_model(HPARAMS)


def with_block(gpt2: GPT2, i: int, change: Callable[[Block], Block]) -> GPT2:
    """The same model with another block i."""
    h = [change(block) if n == i else block for n, block in enumerate(gpt2.params.h)]
    return GPT2(gpt2.hparams, gpt2.params._replace(h=(*h,)), gpt2.tokenizer, "changed")


# Every name, once.


def random_change(name: str, array: Array) -> Array:
    """Another array of the same shape and type; each name has its own."""
    rng = np.random.default_rng([*name.encode()])
    if array.dtype == bool:
        return np.logical_or(rng.random(array.shape) < 0.5, np.eye(*array.shape) > 0)
    if name == "positions":
        return rng.permutation(HPARAMS.n_ctx)[: len(array)]
    factor = rng.uniform(0.5, 2, array.shape[1:])  # the same for each text: positive, so that minus infinity stays
    return array * factor


@pytest.mark.parametrize("name", [*part_names(HPARAMS.n_layer), *SECOND_NAMES])
def test_every_name_is_changed_before_it_is_used(gpt2: GPT2, name: str) -> None:
    """What follows from the change follows. A trace inside or around the patch records what flowed."""
    first_name = SECOND_NAMES.get(name, name)
    expected = by_hand(
        gpt2.params,
        HPARAMS.n_head,
        IDS,
        lambda each, array: random_change(name, array) if each == first_name else array,
    )
    with (
        numpy_gpt2.trace() as around,
        numpy_gpt2.patch({name: lambda array: random_change(name, array)}),
        numpy_gpt2.trace() as inside,
    ):
        logits = gpt2.logits(IDS)
    np.testing.assert_allclose(logits, expected["logits"], **CLOSE)
    assert [*around] == [*inside] == part_names(HPARAMS.n_layer)
    for each in expected:
        np.testing.assert_allclose(inside[each], expected[each], err_msg=each, **CLOSE)
        np.testing.assert_array_equal(around[each], inside[each])
    np.testing.assert_array_equal(inside[name], inside[first_name])


def bend(array: Array) -> Array:
    """Changes each number by itself, so that a text may be read in any pieces. 0 and minus infinity stay."""
    if array.dtype.kind == "i":
        return HPARAMS.n_ctx - 1 - array
    return array * (1.2 + 0.3 * np.cos(np.where(np.isfinite(array), array, 0)))


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from([name for name in part_names(HPARAMS.n_layer) if not name.endswith("mask")]),
    pieces=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    n_batch=st.integers(1, 3),
    seed=st.integers(0, 9),
)
def test_any_name_with_any_past(name: str, pieces: list[int], n_batch: int, seed: int) -> None:
    gpt2 = random_model(HPARAMS, seed=seed)
    ids = random_ids(HPARAMS, n_batch, sum(pieces), seed)
    expected = by_hand(gpt2.params, HPARAMS.n_head, ids, lambda each, array: bend(array) if each == name else array)
    past, ends = gpt2.new_past(n_batch), np.cumsum(pieces)
    with numpy_gpt2.trace() as t, numpy_gpt2.patch({name: bend}):
        logits = [gpt2.logits(ids[:, end - n : end], past) for n, end in zip(pieces, ends, strict=True)]
    np.testing.assert_allclose(np.concatenate(logits, axis=1), expected["logits"], **CLOSE)
    for each in t:
        expected_here = np.broadcast_to(expected[each], t[each].shape)  # positions and masks are alike for all texts
        np.testing.assert_allclose(t[each], expected_here, err_msg=each, **CLOSE)


# Changes that can also be made to the parameters, exactly.


def without_rows(linear: Linear, rows: slice | list[int]) -> Linear:
    w = linear.w.copy()
    w[rows] = 0
    return linear._replace(w=w)


def scaled_columns(linear: Linear, columns: slice, factor: float) -> Linear:
    w, b = linear.w.copy(), linear.b.copy()
    w[:, columns] *= factor
    b[columns] *= factor
    return Linear(w, b)


def silenced(linear: Linear) -> Linear:
    return Linear(*map(np.zeros_like, linear))


def third(i: int, n_embd: int) -> slice:
    return slice(i * n_embd, (i + 1) * n_embd)


def set_to_zero(array: Array) -> None:
    array[..., [3, 7]] = 0


Ablation: TypeAlias = "tuple[dict[str, Any], Callable[[Block, HParams], Block]]"

ABLATIONS: dict[str, Ablation] = {
    "a head": (
        {"h1/attn/a": zero(head=0)},
        lambda p, hp: p._replace(
            attn=p.attn._replace(c_proj=without_rows(p.attn.c_proj, slice(hp.n_embd // hp.n_head)))
        ),
    ),
    "attention": (
        {"h1/attn": zero},
        lambda p, hp: p._replace(attn=p.attn._replace(c_proj=silenced(p.attn.c_proj))),
    ),
    "the MLP": (
        {"h1/mlp": zero},
        lambda p, hp: p._replace(mlp=p.mlp._replace(c_proj=silenced(p.mlp.c_proj))),
    ),
    "neurons": (
        {"h1/mlp/hidden": set_to_zero},
        lambda p, hp: p._replace(mlp=p.mlp._replace(c_proj=without_rows(p.mlp.c_proj, [3, 7]))),
    ),
    "a norm": (
        {"h1/ln_1": scale(2)},
        lambda p, hp: p._replace(ln_1=p.ln_1._replace(g=p.ln_1.g * 2, b=p.ln_1.b * 2)),
    ),
    "queries": (
        {"h1/attn/q": scale(2)},
        lambda p, hp: p._replace(attn=p.attn._replace(c_attn=scaled_columns(p.attn.c_attn, third(0, hp.n_embd), 2))),
    ),
    "keys": (
        {"h1/attn/k": scale(0.5)},
        lambda p, hp: p._replace(attn=p.attn._replace(c_attn=scaled_columns(p.attn.c_attn, third(1, hp.n_embd), 0.5))),
    ),
    "values": (
        {"h1/attn/v": scale(-2)},
        lambda p, hp: p._replace(attn=p.attn._replace(c_attn=scaled_columns(p.attn.c_attn, third(2, hp.n_embd), -2))),
    ),
}


def in_pieces(gpt2: GPT2, ids: Array) -> list[Array]:
    past = gpt2.new_past(len(ids))
    return [gpt2.logits(ids[:, :4], past), gpt2.logits(ids[:, 4:5], past), gpt2.logits(ids[:, 5:], past)]


def after_texts_of_two_lengths(gpt2: GPT2, ids: Array) -> Array:
    past = gpt2.new_past(2)
    gpt2.logits(ids[:, :5], past)
    past.lengths[:] = [5, 2]
    return gpt2.logits(ids[:, 5:], past)


def scores(gpt2: GPT2, ids: Array) -> list[Array]:
    longer = random_ids(gpt2.hparams, 2, gpt2.hparams.n_ctx + 30)
    return [array for pieces in gpt2.score(longer) for array in pieces]


def generate(gpt2: GPT2, prompts: list[list[int]], n: int, **options: Any) -> list[Any]:
    """All ids and all log-probabilities."""
    flat = [gpt2.generate(prompts, n, return_details=True, **options)]
    while isinstance(flat[0], list):
        flat = [each for result in flat for each in result]
    return [part for each in flat for part in (each.ids, each.log_probabilities)]


def textbook_loop(gpt2: GPT2, ids: Array) -> list[int]:
    return generation.generate(ids[0].tolist(), gpt2.params, HPARAMS.n_head, 20, np.random.default_rng(0))


USES: dict[str, Callable[[GPT2, Array], Any]] = {
    "logits": lambda gpt2, ids: gpt2.logits(ids),
    "a past": in_pieces,
    "texts of two lengths": after_texts_of_two_lengths,
    "hidden states": lambda gpt2, ids: gpt2.hidden_states(ids),
    "token types": lambda gpt2, ids: gpt2.logits(ids, token_type_ids=ids[::-1]),
    "score": scores,
    "loss": lambda gpt2, ids: [gpt2.loss(ids)],
    "generate": lambda gpt2, ids: generate(gpt2, [[1, 2, 3]], 6, temperature=0),
    "prompts": lambda gpt2, ids: generate(gpt2, [[1, 2], [3, 4, 5, 6, 7], [8]], 6, seed=1),
    "several of each": lambda gpt2, ids: generate(gpt2, [[1, 2], [3]], 6, seed=2, num_return_sequences=3),
    "slide": lambda gpt2, ids: generate(gpt2, [[1] * 38], 5, seed=3, slide=True),
    "the textbook loop": textbook_loop,
}


@pytest.fixture(scope="module", params=ABLATIONS)
def ablation(request: Any) -> tuple[GPT2, dict[str, Any], GPT2]:
    """A model, a patch, and the model with the same change made to its parameters."""
    gpt2 = random_model(HPARAMS, "float32")
    changes, change = ABLATIONS[request.param]
    return gpt2, changes, with_block(gpt2, 1, lambda block: change(block, HPARAMS))


@pytest.mark.parametrize("use", USES)
def test_it_is_the_same_change_made_to_the_parameters(ablation: tuple[GPT2, dict[str, Any], GPT2], use: str) -> None:
    """Bit for bit. Afterwards, everything is as it was."""
    gpt2, changes, changed = ablation
    ids = random_ids(HPARAMS, 2, 7)
    before = USES[use](gpt2, ids)
    with numpy_gpt2.patch(changes):
        actual = USES[use](gpt2, ids)
    after = USES[use](gpt2, ids)
    for ours, theirs in zip([*actual, *after], [*USES[use](changed, ids), *before], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    if use != "the textbook loop":  # which gives no numbers, only tokens
        assert any(not np.array_equal(a, b) for a, b in zip(actual, before, strict=True))


def test_embeddings_and_positions(gpt2: GPT2) -> None:
    def states(params: Params) -> list[Array]:
        return GPT2(HPARAMS, params, None, "changed").hidden_states(IDS)

    params = gpt2.params
    doubled = states(params._replace(wte=params.wte * 2, wpe=params.wpe * 2))
    backwards = states(params._replace(wpe=params.wpe[::-1]))
    pairs: list[tuple[dict[str, Any], list[Array]]] = [
        ({"x": scale(2)}, doubled),
        ({"positions": lambda positions: HPARAMS.n_ctx - 1 - positions}, backwards),
    ]
    for changes, expected in pairs:
        with numpy_gpt2.patch(changes):
            actual = gpt2.hidden_states(IDS)
        np.testing.assert_array_equal(actual, expected)


def test_a_key_that_is_hidden(gpt2: GPT2) -> None:
    """By the mask, by its scores, and by its weights with the others made larger: the same."""

    def mask(array: Array) -> None:
        array[3:, 2] = False

    def scores(array: Array) -> None:
        array[..., 3:, 2] = -np.inf

    def weights(array: Array) -> Array:
        array[..., 3:, 2] = 0
        return array / array.sum(-1, keepdims=True)

    logits = []
    hiding: dict[str, Any] = {"mask": mask, "scores": scores, "weights": weights}
    for name, change in hiding.items():
        with numpy_gpt2.patch({f"h1/attn/{name}": change}):
            logits.append(gpt2.logits(IDS))
    np.testing.assert_array_equal(logits[1], logits[0])
    np.testing.assert_allclose(logits[2], logits[0], **CLOSE)
    assert not np.allclose(logits[0], gpt2.logits(IDS))


def test_a_model_that_sees_what_follows(gpt2: GPT2) -> None:
    """As in PyTorch without a causal mask."""
    torch = pytest.importorskip("torch")
    with numpy_gpt2.patch({"h*/attn/mask": np.ones((7, 7), bool)}):
        logits = gpt2.logits(IDS)
    with torch.no_grad():
        seen = torch.zeros(2, 1, 7, 7, dtype=torch.float64)  # added to the scores, in place of the causal mask
        said = in_pytorch(gpt2)(torch.tensor(IDS), attention_mask=seen).logits
    np.testing.assert_allclose(logits, said, **CLOSE)


# Against PyTorch's modules, changed by hooks.


def hooked(peer: Any, module: str, change: Callable[[Any], Any], before: bool = False) -> Any:
    """Lets a hook change what a module of the peer returns, or what it is given."""
    where = peer.get_submodule(module)
    if before:
        return where.register_forward_pre_hook(lambda module, args: (change(args[0]), *args[1:]))

    def hook(module: Any, args: Any, result: Any) -> Any:
        return (change(result[0]), *result[1:]) if isinstance(result, tuple) else change(result)

    return where.register_forward_hook(hook)


MODULES = [
    ("x", "transformer.drop"),
    ("h0/ln_1", "transformer.h.0.ln_1"),
    ("h1/attn/c_attn", "transformer.h.1.attn.c_attn"),
    ("h1/attn", "transformer.h.1.attn"),
    ("h2/ln_2", "transformer.h.2.ln_2"),
    ("h1/mlp/c_fc", "transformer.h.1.mlp.c_fc"),
    ("h0/mlp/hidden", "transformer.h.0.mlp.act"),
    ("h2/mlp", "transformer.h.2.mlp"),
    ("h1", "transformer.h.1"),
    ("ln_f", "transformer.ln_f"),
    ("logits", "lm_head"),
]
PLACES = [1, 4, 5]


@pytest.mark.parametrize(("name", "module"), MODULES)
def test_the_modules_of_pytorch_changed_by_hooks(gpt2: GPT2, name: str, module: str) -> None:
    """Everywhere and at some positions, in place, by a new array, and by the values of another text."""
    torch = pytest.importorskip("torch")
    peer = in_pytorch(gpt2)
    other_ids = random_ids(HPARAMS, 1, 9, seed=5)
    with numpy_gpt2.trace(name) as other:
        gpt2.logits(other_ids)

    def double_and_shift(array: Any) -> Any:
        array[:, PLACES] *= 2
        return array + 0.25

    def at_places(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def changed(x: Any) -> Any:
            x = x.clone()
            x[:, PLACES] = change(x)[:, PLACES]
            return x

        return changed

    pairs: list[tuple[Any, Callable[[Any], Any]]] = [
        (double_and_shift, lambda x: double_and_shift(x.clone())),
        (scale(0.3), lambda x: x * 0.3),
        (scale(0.3, position=PLACES), at_places(lambda x: x * 0.3)),
        (zero(position=PLACES), at_places(torch.zeros_like)),
        (mean(position=PLACES), at_places(lambda x: x.mean(1, keepdim=True).expand(x.shape))),
        (
            put(other[name], position=PLACES),
            at_places(lambda x: torch.tensor(other[name][:, :7]).expand(x.shape)),
        ),
    ]
    for ours, theirs in pairs:
        hook = hooked(peer, module, theirs)
        with torch.no_grad():
            said = peer(torch.tensor(IDS)).logits
        hook.remove()
        with numpy_gpt2.patch({name: ours}):
            logits = gpt2.logits(IDS)
        np.testing.assert_allclose(logits, said, **CLOSE)


@pytest.mark.parametrize("heads", [[0], [1, 4], range(5)])
def test_heads_of_pytorch_silenced_by_a_hook_in_generation(gpt2: GPT2, heads: Any) -> None:
    torch = pytest.importorskip("torch")
    peer = in_pytorch(gpt2)
    peer.generation_config.eos_token_id = None

    def silence(merged: Any) -> Any:
        merged = merged.clone()
        for head in heads:
            merged[..., head * D_HEAD : (head + 1) * D_HEAD] = 0
        return merged

    hooked(peer, "transformer.h.1.attn.c_proj", silence, before=True)
    for prompt in random_prompts(HPARAMS, [2, 5, 9]):
        ids = torch.tensor([prompt])
        (said,) = peer.generate(ids, attention_mask=torch.ones_like(ids), max_length=35, do_sample=False).tolist()
        with numpy_gpt2.patch({"h1/attn/a": zero(head=heads)}):
            ours = gpt2.generate(prompt, max_length=35, temperature=0, return_details=True).ids
        assert prompt + ours == said


# Generation.


@pytest.mark.parametrize("name", ["positions", "x", "h0", "h1/attn/k", "h1/attn/weights", "h2/mlp/hidden", "ln_f"])
@pytest.mark.parametrize("options", [{"temperature": 0}, {"temperature": 0.8, "top_k": 5}], ids=str)
def test_generation_is_that_of_the_textbook_loop(gpt2: GPT2, name: str, options: dict[str, Any]) -> None:
    """Which reads the whole text again for each token."""
    for seed, prompt in enumerate(random_prompts(HPARAMS, [1, 4, 9])):
        with numpy_gpt2.patch({name: bend}):
            said = generation.generate(prompt, gpt2.params, HPARAMS.n_head, 12, np.random.default_rng(seed), **options)
            ours = gpt2.generate(prompt, 12, seed=seed, return_details=True, **{"top_k": 0, **options}).ids
        if options["temperature"] == 0:
            assert prompt + ours == said
        alone = gpt2.generate(prompt, 12, seed=seed, return_details=True, **{"top_k": 0, **options})
        with numpy_gpt2.patch({name: bend}):
            batch = gpt2.generate([prompt, [2, 3, 4]], 12, seed=seed, return_details=True, **{"top_k": 0, **options})
        assert batch[0].ids == ours
        assert alone.log_probabilities != batch[0].log_probabilities


def test_steps_of_a_generation(gpt2: GPT2) -> None:
    """`step2/logits` are those from which the third new token is chosen."""
    plain = gpt2.generate([1, 2, 3], 6, temperature=0, return_details=True).ids

    def forbid(logits: Array) -> None:
        logits[:, plain[2]] = -99

    with numpy_gpt2.patch({"step2/logits": forbid}):
        ours = gpt2.generate([1, 2, 3], 6, temperature=0, return_details=True).ids
    assert ours[:2] == plain[:2]
    assert ours[2] != plain[2]
    with numpy_gpt2.trace("h1", steps=True) as t, numpy_gpt2.patch({"step[13]/h?": scale(0), "step2/h1": scale(2)}):
        gpt2.generate([1, 2, 3], 5, temperature=0, return_details=True)
    assert [(array == 0).all() for array in t.values()] == [False, True, False, True, False]
    with (
        pytest.raises(ValueError, match="'step6/h1' was not used: no array had such a name, and the last pass.* step4"),
        numpy_gpt2.patch({"step6/h1": zero}),
    ):
        gpt2.generate([1, 2, 3], 5, temperature=0, return_details=True)


@pytest.mark.parametrize("position", [0, 3, [2, 4, 6], range(3, 9)], ids=str)
def test_positions_are_counted_from_the_beginning_of_a_text(gpt2: GPT2, position: Any) -> None:
    """Also in generation step by step, and for prompts of different lengths."""
    chosen = [*position] if not isinstance(position, int) else [position]
    prompts = random_prompts(HPARAMS, [2, 6, 4])
    with numpy_gpt2.patch({"h1": scale(-1, position=position)}):
        texts = gpt2.generate(prompts, 8, temperature=0, return_details=True)

    def negate(name: str, array: Array) -> Array:
        if name == "h1":
            array[:, [i for i in chosen if i < array.shape[1]]] *= -1
        return array

    for prompt, text in zip(prompts, texts, strict=True):
        ids = [*prompt, *text.ids]
        found = by_hand(gpt2.params, HPARAMS.n_head, np.array([ids]), negate)
        assert found["logits"][0, len(prompt) - 1 : -1].argmax(-1).tolist() == text.ids


@pytest.mark.filterwarnings("ignore:the patch of")
@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(["h0", "h1/attn/a", "h1/attn/weights", "h2/attn/q", "h1/mlp/hidden", "h1/ln_2", "h0/x"]),
    heads=st.lists(st.integers(0, 4), max_size=3),
    positions=st.lists(st.integers(0, 12), max_size=5),
    pieces=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    lengths=st.lists(st.integers(1, 3), min_size=1, max_size=3),
)
def test_heads_and_positions_with_any_pasts(
    name: str, heads: list[int], positions: list[int], pieces: list[int], lengths: list[int]
) -> None:
    """Texts that have different lengths, and are continued together, are changed as each alone."""
    gpt2 = random_model(HPARAMS)
    given_heads = heads if "attn" in name else None
    texts = random_prompts(HPARAMS, [length + sum(pieces) for length in lengths])

    def halve(each: str, array: Array) -> Array:
        if each == name:
            where = np.zeros(array.shape, bool)
            where[..., [i for i in positions if i < array.shape[-2]], :] = True
            if given_heads is not None:
                where &= np.isin(np.arange(5), given_heads)[:, None, None]
            array[where] *= 0.5
        return array

    past = gpt2.new_past(len(texts))
    logits = []
    with numpy_gpt2.patch({name: scale(0.5, head=given_heads, position=positions)}):
        gpt2.logits([(text[:length] + [0] * 3)[:3] for text, length in zip(texts, lengths, strict=True)], past)
        past.lengths[:] = begins = np.array(lengths)
        for n in pieces:
            logits.append(gpt2.logits([text[i : i + n] for text, i in zip(texts, begins, strict=True)], past))
            begins = begins + n
    for text, length, row in zip(texts, lengths, np.concatenate(logits, axis=1), strict=True):
        expected = by_hand(gpt2.params, HPARAMS.n_head, np.array([text]), halve)["logits"][0, length:]
        np.testing.assert_allclose(row, expected, **CLOSE)


def test_a_stream_is_patched_only_within_the_block(tiny: GPT2) -> None:
    plain = tiny.generate("The king", 20, temperature=0)
    with numpy_gpt2.patch({"h3": zero}):
        changed = tiny.generate("The king", 20, temperature=0)
        within = "".join(tiny.stream("The king", 20, temperature=0))
    assert within == changed != plain
    said = "'h3' was not used: no pass of the model ran in the block$"
    with pytest.raises(ValueError, match=said), numpy_gpt2.patch({"h3": zero}):
        pieces = tiny.stream("The king", 20, temperature=0)
    assert "".join(pieces) == plain
    pieces = tiny.stream("The king", 20, temperature=0)
    first = next(pieces)
    with numpy_gpt2.patch({"step0/h3/mlp": scale(1.001)}):
        second = next(pieces)
    assert plain.startswith(first + second)


def test_keys_that_were_changed_stay_so_in_the_past(gpt2: GPT2) -> None:
    past, other = gpt2.new_past(2), gpt2.new_past(2)
    with numpy_gpt2.patch({"h1/attn/k": scale(3)}):
        gpt2.logits(IDS[:, :4], past)
    gpt2.logits(IDS[:, :4], other)
    np.testing.assert_array_equal(past.k[1], other.k[1] * 3)
    np.testing.assert_array_equal(past.k[0], other.k[0])


@pytest.mark.parametrize("n_threads", [1, 2, 4])
def test_long_texts_are_read_in_one_piece(n_threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the calling thread, however many threads there are. So all scores are one array, and so are all logits."""
    monkeypatch.setattr(threads, "count_threads", lambda: n_threads)
    longer = random_model(HPARAMS._replace(n_ctx=prefill.TOKENS_AT_ONCE * 3), "float32")
    ids = random_ids(longer.hparams, 1, prefill.TOKENS_AT_ONCE * 3)
    length, n_workers = prefill.plan(1, 768, longer.params)
    assert length < 768
    assert n_workers == n_threads
    seen: list[Any] = []

    def note(array: Array) -> None:
        seen.append((array.shape, threading.get_ident()))
        array[...] = 0

    runs: list[tuple[Callable[[], Any], int]] = [(lambda: longer.logits(ids), 768), (lambda: longer.loss(ids), 767)]
    for run, n in runs:
        seen.clear()
        with numpy_gpt2.patch({"h1/attn/scores": note, "logits": note}):
            result = run()
        assert seen == [((1, 5, n, n), threading.get_ident()), ((1, n, 11), threading.get_ident())]
    np.testing.assert_allclose(result, np.log(11), rtol=1e-6)


# Several changes.


def test_changes_are_made_in_order(gpt2: GPT2) -> None:
    """In a patch, from the first to the last; of nested patches, the outer one first."""

    def logits(*patches: dict[str, Any]) -> Array:
        if not patches:
            return gpt2.logits(IDS)
        with numpy_gpt2.patch(patches[0]):
            return logits(*patches[1:])

    double, shift = (lambda x: x * 2), (lambda x: x + 1)
    (double_first,) = {logits({"h1": lambda x: x * 2 + 1}).tobytes()}
    shift_first = logits({"h1": lambda x: (x + 1) * 2}).tobytes()
    assert double_first != shift_first
    for patches in [{"h1": double, "h[1]": shift}], [{"h1": double}, {"h1": shift}], [{"*h1": double, "h1": shift}]:
        assert logits(*patches).tobytes() == double_first
    for patches in [{"h1": shift, "h[1]": double}], [{"h1": shift}, {"h1": double}]:
        assert logits(*patches).tobytes() == shift_first
    outer_first = logits({"h1": double}, {"h0": scale(2)}, {"h1": shift})
    np.testing.assert_array_equal(outer_first, logits({"h0": scale(2), "h1": lambda x: x * 2 + 1}))


def test_a_pattern_that_matches_both_names_of_an_array_is_applied_once(gpt2: GPT2) -> None:
    def logits(changes: dict[str, Any]) -> Array:
        with numpy_gpt2.patch(changes):
            return gpt2.logits(IDS)

    once = logits({"h1/mlp": scale(2)})
    for name in "h1/mlp/c_proj", "h1/mlp/c_pro*", "h1/mlp*[!cn]", "*1/mlp/c_proj":
        np.testing.assert_array_equal(logits({name: scale(2)}), once)
    everything = logits({name: scale(2) for name in ("h1/mlp/c_fc", "h1/mlp/hidden", "h1/mlp/c_proj")})
    np.testing.assert_array_equal(logits({"h1/mlp*": scale(2)}), everything)
    twice = logits({"h1/mlp/c_proj": scale(2), "h1/mlp": scale(2)})
    np.testing.assert_array_equal(twice, logits({"h1/mlp": scale(4)}))


def test_a_pattern_of_several_blocks(gpt2: GPT2) -> None:
    with numpy_gpt2.trace() as t, numpy_gpt2.patch({"h[02]/attn/a": zero(head=[1, 2])}):
        gpt2.logits(IDS)
    for i in range(3):
        np.testing.assert_array_equal(
            (t[f"h{i}/attn/a"] == 0).all(axis=(0, 2, 3)), [False, i != 1, i != 1, False, False]
        )


def test_what_a_trace_says_of_a_second_name(gpt2: GPT2) -> None:
    with numpy_gpt2.trace(["h1/attn/c_proj", "h1/mlp"]) as t, numpy_gpt2.patch({"h1/attn": zero, "h1/mlp": scale(0)}):
        gpt2.logits(IDS)
    assert [*t] == ["h1/attn/c_proj", "h1/mlp/c_proj"]
    assert all((array == 0).all() for array in t.values())
    assert t["h1/attn"] is t["h1/attn/c_proj"]


@pytest.mark.parametrize("order", ["patch first", "trace first"])
def test_vectors_of_ones_own(gpt2: GPT2, order: str) -> None:
    """A patch may begin between the embeddings and the blocks."""
    params, n_head = gpt2.params, HPARAMS.n_head
    with numpy_gpt2.patch({"h1": scale(2, position=3)}):
        expected = model.transformer(model.embed(IDS, params), params, n_head)
    with numpy_gpt2.trace(steps=True) as t:
        x = model.embed(IDS, params)
        with numpy_gpt2.patch({"step0/h1": scale(2, position=3)}):
            actual = model.transformer(x, params, n_head)
    np.testing.assert_array_equal(actual, expected)
    assert {name.split("/")[0] for name in t} == {"step0"}
    assert {"step0/x", "step0/h1"} <= {*t}


# The ready-made changes.


def run(changes: dict[str, Any], gpt2: GPT2, name: str) -> Array:
    with numpy_gpt2.trace(name) as t, numpy_gpt2.patch(changes):
        gpt2.logits(IDS)
    return t[name]


def test_zero_mean_and_scale(gpt2: GPT2) -> None:
    with numpy_gpt2.trace() as t:
        gpt2.logits(IDS)
    for name in "h1", "h1/attn/a", "h1/mlp/hidden", "h1/ln_1/variance":
        plain = t[name]
        np.testing.assert_array_equal(run({name: zero}, gpt2, name), np.zeros_like(plain))
        np.testing.assert_array_equal(run({name: scale(0.5)}, gpt2, name), plain / 2)
        means = np.broadcast_to(plain.mean(-2, keepdims=True), plain.shape)
        np.testing.assert_array_equal(run({name: mean}, gpt2, name), means)
    plain = t["h1/attn/a"]
    changed = run({"h1/attn/a": mean(head=[1, 3], position=range(2, 5))}, gpt2, "h1/attn/a")
    for head in range(5):
        for position in range(7):
            is_changed = head in (1, 3) and position in (2, 3, 4)
            expected = plain[:, head].mean(1) if is_changed else plain[:, head, position]
            np.testing.assert_array_equal(changed[:, head, position], expected)


@pytest.mark.filterwarnings("ignore:the patch of")
def test_the_values_of_another_text(gpt2: GPT2) -> None:
    """As in activation patching: what is put in place of all positions, with the same length, is that text."""
    other = random_ids(HPARAMS, 2, 7, seed=3)
    with numpy_gpt2.trace() as t:
        said = gpt2.logits(other)
    for change in t["h1"], put(t["h1"]), lambda x: t["h1"], put(t["h1"], position=range(7)):
        with numpy_gpt2.patch({"h1": change}):
            np.testing.assert_array_equal(gpt2.logits(IDS), said)
    for i in range(7):
        changed = run({"h0": put(t["h0"][:1], position=i)}, gpt2, "h0")
        plain = run({"h0": scale(1, position=0)}, gpt2, "h0")
        plain[:, i] = t["h0"][0, i]
        np.testing.assert_array_equal(changed, plain)


def test_values_that_broadcast(gpt2: GPT2) -> None:
    vector, per_position = np.arange(10.0), np.arange(70.0).reshape(7, 10)
    np.testing.assert_array_equal(run({"h1": put(vector)}, gpt2, "h1"), np.broadcast_to(vector, (2, 7, 10)))
    np.testing.assert_array_equal(run({"h1": put(per_position)}, gpt2, "h1"), np.stack([per_position] * 2))
    changed = run({"h1": put(per_position, position=[2, 5])}, gpt2, "h1")
    np.testing.assert_array_equal(changed[:, [2, 5]], np.stack([per_position[[2, 5]]] * 2))
    changed = run({"h1": put(per_position[:3], position=[0, 2])}, gpt2, "h1")  # of a shorter text
    np.testing.assert_array_equal(changed[:, [0, 2]], np.stack([per_position[[0, 2]]] * 2))
    changed = run({"h1": put(vector, position=6)}, gpt2, "h1")
    np.testing.assert_array_equal(changed[:, 6], np.stack([vector] * 2))
    changed = run({"h1/attn/a": put(np.ones((5, 7, 2)), head=4, position=6)}, gpt2, "h1/attn/a")
    assert (changed == 1).sum() == 2 * 2


def test_replacing_by_position_with_a_past(gpt2: GPT2) -> None:
    """Texts of different lengths get the values of their own positions."""
    values = np.random.default_rng(0).normal(size=(2, 9, 10))
    past = gpt2.new_past(2)
    gpt2.logits(IDS[:, :5], past)
    past.lengths[:] = [5, 2]
    with numpy_gpt2.trace("h0") as t, numpy_gpt2.patch({"h0": put(values, position=[3, 6, 8])}):
        gpt2.logits(IDS[:, :4], past)
    np.testing.assert_array_equal(t["h0"][0, [1, 3]], values[0, [6, 8]])
    np.testing.assert_array_equal(t["h0"][1, 1], values[1, 3])
    assert not np.isin(t["h0"], values)[0, [0, 2]].any()
    assert not np.isin(t["h0"], values)[1, [0, 2, 3]].any()


@pytest.mark.filterwarnings("ignore:the patch of")
def test_a_function_may_return_a_view_of_what_it_is_given(gpt2: GPT2) -> None:
    plain = run({"h1": scale(1, position=0)}, gpt2, "h1")
    np.testing.assert_array_equal(run({"h1": lambda x: x[:, ::-1]}, gpt2, "h1"), plain[:, ::-1])
    np.testing.assert_array_equal(run({"h1": lambda x: x}, gpt2, "h1"), plain)


def test_how_a_change_is_shown() -> None:
    assert repr(zero) == "zero"
    assert repr(zero(head=1)) == "zero(head=[1])"
    assert repr(scale(0.5, head=range(2), position=(3,))) == "scale(0.5, head=[0, 1], position=[3])"
    assert repr(put(np.ones(2))) == "put(float64[2])"
    assert str(zero.__doc__) == "Puts 0 there."


# What is said.


WRONG: Any = [1, 2.5, "12", [1.0], True]  # for mypy, of any type


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: {"h1": 5}, TypeError, "patch of 'h1' must be a function, an array, or a change like zero: not int"),
        (lambda: {"h1": [0.0]}, TypeError, "or a change like zero: not list"),
        (lambda: {"h1": None}, TypeError, "not NoneType"),
        (lambda: {1: zero}, TypeError, "goes by the names of arrays, such as 'h3/attn/weights', not by 1"),
        (lambda: "h1", TypeError, "a patch takes changes by name, such as {'h3/mlp': zero}, not str"),
        (lambda: [("h1", zero)], TypeError, "not list"),
        (lambda: {"h1": zero(head=-1)}, ValueError, "head must be a whole number, 0 or more, not -1"),
        (lambda: {"h1": zero(position=WRONG[:2])}, ValueError, "position must be a whole number, 0 or more, not 2.5"),
        (lambda: {"h1": zero(position=WRONG[2])}, ValueError, "position must be a whole number, 0 or more, not '1'"),
        (lambda: {"h1": scale(2, head=WRONG[4])}, ValueError, "head must be a whole number"),
        (lambda: {"h1": put(WRONG[3])}, TypeError, "put takes an array, not list: numpy.array makes one"),
        (
            lambda: {"h1": put(np.ones((5, 10)), position=[4, 5])},
            ValueError,
            "the values are those of 5 positions: there are none for position 5",
        ),
    ],
)  # fmt: skip
def test_what_is_said_before_the_block(make: Callable[[], Any], error: type[Exception], said: str) -> None:
    before = sys.gettrace()
    with pytest.raises(error, match=re.escape(said)), numpy_gpt2.patch(make()):
        pytest.fail("the block has begun")
    assert sys.gettrace() is before


@pytest.mark.parametrize(
    ("name", "change", "error", "said"),
    [
        ("h1", np.ones((2, 7, 9)), ValueError, "the patch of h1 must have its shape, [2, 7, 10], and has [2, 7, 9]"),
        ("h1", np.ones((1, 7, 10)), ValueError, "[2, 7, 10], and has [1, 7, 10]"),
        ("h1", lambda x: x[0], ValueError, "[2, 7, 10], and has [7, 10]"),
        ("h1", np.ones((2, 7, 10), "float32"), TypeError, "patch of h1 must be of its type, float64, and is float32"),
        ("h1/attn/mask", lambda x: x * 1, TypeError, "of its type, bool, and is int64"),
        ("h1/attn/mask", scale(0.5), TypeError, "of its type, bool, and is float64"),
        ("positions", np.arange(7.0), TypeError, "of its type, int64, and is float64"),
        ("h1", lambda x: 3, TypeError, "must return an array, or None if it has changed the one given: not int"),
        ("h1", lambda x: x.tolist(), TypeError, "not list"),
        ("h1", lambda x: scale(2), TypeError, "not Change"),
        ("h1", put(np.ones(9)), ValueError, "[2, 7, 10], and has [9]"),
        ("h1", put(np.ones((3, 7, 10))), ValueError, "[2, 7, 10], and has [3, 7, 10]"),
        ("h1", put(np.ones((3, 7, 10)), position=3), ValueError, "[2, 7, 10], and has [3, 7, 10]"),
        ("h1", put(np.ones((1, 2, 7, 10)), position=3), ValueError, "[2, 7, 10], and has [1, 2, 7, 10]"),
        ("h1", put(np.ones((9, 3)), position=3), ValueError, "[2, 7, 10], and has [9, 3]"),
        ("h1", put(np.ones((8, 10))), ValueError, "[2, 7, 10], and has [8, 10]"),
        ("h1", put(np.ones(10, "float32")), TypeError, "float64, and is float32"),
        ("h1", zero(head=1), ValueError, "h1 has the shape [2, 7, 10], without an axis of heads: q, k, v, scores, e,"),
        ("h1/attn/qkv", zero(head=1), ValueError, "without an axis of heads"),
        ("h1/attn/mask", zero(head=1), ValueError, "without an axis of heads"),
        ("h1/attn/a", zero(head=5), ValueError, "head of h1/attn/a must be a whole number, 0 to 4, not 5"),
        ("h1/attn/mask", zero(position=1), ValueError, "[7, 7], without an axis of positions: leave out position"),
        ("positions", zero(position=1), ValueError, "[7], without an axis of positions"),
        ("positions", mean, ValueError, "over several positions, which the shape [7] does not have"),
    ],
)  # fmt: skip
def test_what_is_said_in_a_pass(gpt2: GPT2, name: str, change: Any, error: type[Exception], said: str) -> None:
    before, plain = sys.gettrace(), gpt2.logits(IDS)
    with pytest.raises(error, match=re.escape(said)), numpy_gpt2.patch({name: change}):
        gpt2.logits(IDS)
    assert sys.gettrace() is before
    np.testing.assert_array_equal(gpt2.logits(IDS), plain)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("h1/attn/weigths", "; did you mean 'h1/attn/weights'?"),
        ("H2/attn/a", "; did you mean 'h2/attn/a'?"),
        ("h1/mlp/hiden", "; did you mean 'h1/mlp/hidden'?"),
        ("h1/atn", "; did you mean 'h1/attn'?"),
        ("h1/mlp/c_fc/w", "; did you mean 'h1/mlp/c_fc'?"),
        ("nonsense", ""),
        ("", ""),
    ],
)
def test_a_name_that_matches_nothing(gpt2: GPT2, name: str, hint: str) -> None:
    with (
        pytest.raises(
            ValueError, match=re.escape(f"the patch of {name!r} was not used: no array had such a name{hint}")
        ),
        numpy_gpt2.patch({"h1": zero, name: zero}),
    ):
        gpt2.logits(IDS)


def test_a_mean_of_one_position(gpt2: GPT2) -> None:
    said = "which the shape [1, 1, 10] does not have: put(values) puts a mean there"
    with pytest.raises(ValueError, match=re.escape(said)), numpy_gpt2.patch({"h1": mean}):
        gpt2.generate([1, 2, 3], 2, return_details=True)
    with numpy_gpt2.patch({"h1": mean(position=[0, 1])}):  # nothing is to change in the steps that follow
        gpt2.generate([1, 2, 3], 2, return_details=True)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (scale(1), "it had these values"),
        (lambda x: None, "it had these values"),
        (lambda x: x.copy(), "it had these values"),
        (zero(position=7), "no text had tokens at these positions"),
        (zero(position=[]), "no text had tokens at these positions"),
    ],
    ids=["the same", "nothing", "a copy", "beyond the text", "no position"],
)
def test_a_change_that_changes_nothing(gpt2: GPT2, change: Any, why: str) -> None:
    """The warning is about the line of the block, so by default it is shown there once."""
    with (
        pytest.warns(UserWarning, match="has changed nothing") as warned,
        numpy_gpt2.patch({"h1": change, "h2": scale(2)}),
    ):
        gpt2.logits(IDS)
    (warning,) = warned
    assert str(warning.message) == f"the patch of 'h1' has changed nothing: {why}"
    assert warning.filename == __file__


def test_a_change_that_changes_something_once_is_not_mentioned(gpt2: GPT2) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with numpy_gpt2.patch({"h1": zero(position=4), "h?/attn/scores": scale(2)}):
            gpt2.generate([1, 2, 3], 4, return_details=True)


@pytest.mark.parametrize("change", [zero, scale(0), scale(-2), scale(0.5, head=1), put(np.zeros(1))], ids=repr)
def test_masked_scores_stay_masked(gpt2: GPT2, change: Any) -> None:
    """So no position sees what follows it, and a text that goes on leaves what came before as it is."""
    with numpy_gpt2.trace("h1/attn/*") as t, numpy_gpt2.patch({"h1/attn/scores": change}):
        logits = gpt2.logits(IDS)
        shorter = gpt2.logits(IDS[:, :4])
    seen = np.tril(np.ones((4, 4), bool))
    assert np.isfinite(t["h1/attn/scores"][..., seen]).all()
    assert (t["h1/attn/scores"][..., ~seen] == -np.inf).all()
    np.testing.assert_allclose(logits[:, :4], shorter, rtol=1e-9)


def test_a_mean_of_scores(gpt2: GPT2) -> None:
    with pytest.raises(ValueError, match="here it is not finite: masked scores have none"):  # noqa: SIM117
        with numpy_gpt2.patch({"h1/attn/scores": mean}):
            gpt2.logits(IDS)


def test_the_last_position_by_its_number() -> None:
    with pytest.raises(ValueError, match="counted from 0: of n tokens, the last one has n - 1, not -1"):
        zero(position=-1)


# Exceptions, and what is left.


def failing(error: type[BaseException]) -> Callable[[Array], None]:
    def fail(array: Array) -> None:
        raise error

    return fail


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, GeneratorExit])
def test_an_exception_in_a_change(gpt2: GPT2, error: type[BaseException]) -> None:
    before, plain = sys.gettrace(), gpt2.logits(IDS)
    past = gpt2.new_past(2)
    with pytest.raises(error), numpy_gpt2.patch({"h1": failing(error)}):
        gpt2.logits(IDS, past)
    assert sys.gettrace() is before
    assert (past.lengths == 0).all()
    np.testing.assert_array_equal(gpt2.logits(IDS, past), plain)

    def catch_it() -> None:
        with pytest.raises(error):
            gpt2.logits(IDS)
        np.testing.assert_array_equal(gpt2.logits(IDS), plain)  # it is off

    said = "was not watched to the end of the block: an exception in a patch, a debugger"
    with pytest.raises(RuntimeError, match=said), numpy_gpt2.patch({"h1": failing(error)}):
        catch_it()
    assert sys.gettrace() is before
    assert not prefill.reads_whole()


def test_an_exception_in_the_block(gpt2: GPT2) -> None:
    """It is not covered by what would otherwise be said at the end."""
    before = sys.gettrace()
    with pytest.raises(ZeroDivisionError), numpy_gpt2.patch({"no such name": zero}):
        raise ZeroDivisionError
    assert sys.gettrace() is before
    assert not prefill.reads_whole()


def test_an_exception_in_the_model_that_is_caught_in_the_block(gpt2: GPT2, monkeypatch: pytest.MonkeyPatch) -> None:
    original = layers.gelu

    def gelu(x: Array) -> Array:
        if x.shape[1] == 3:
            raise ZeroDivisionError
        return original(x)

    monkeypatch.setattr(layers, "gelu", gelu)
    expected = run({"h1/mlp": zero}, gpt2, "logits")
    with numpy_gpt2.patch({"h1/mlp": zero}):
        with pytest.raises(ZeroDivisionError):
            gpt2.logits(IDS[:, :3])
        np.testing.assert_array_equal(gpt2.logits(IDS), expected)


def test_an_inner_patch_that_fails_leaves_the_outer_ones_on(gpt2: GPT2) -> None:
    with numpy_gpt2.trace("h1/mlp") as t, numpy_gpt2.patch({"h1/mlp": zero}):
        with pytest.raises(ZeroDivisionError), numpy_gpt2.patch({"h2": failing(ZeroDivisionError)}):
            gpt2.logits(IDS)
        expected = gpt2.logits(IDS)
    np.testing.assert_array_equal(t["h1/mlp"], np.zeros((2, 7, 10)))
    with numpy_gpt2.patch({"h1/mlp": zero}):
        np.testing.assert_array_equal(gpt2.logits(IDS), expected)


def test_somebody_else_who_traces(gpt2: GPT2) -> None:
    def theirs(*_: Any) -> None:
        pass

    def patch_it(name: str) -> None:
        with numpy_gpt2.patch({"h1": zero}):
            gpt2.logits(IDS)
            if name == "switched off":
                sys.settrace(None)

    before = sys.gettrace()
    try:
        sys.settrace(theirs)
        patch_it("left alone")
        assert sys.gettrace() is theirs
        with pytest.raises(RuntimeError, match="another user of sys.settrace has switched it off"):
            patch_it("switched off")
        assert sys.gettrace() is theirs
    finally:
        sys.settrace(before)


def test_nothing_listens_without_a_patch(gpt2: GPT2) -> None:
    """So nothing is slower."""
    traced: list[Any] = []

    def note(array: Array) -> None:
        traced.append(sys.gettrace())
        array[...] = 0

    before = sys.gettrace()
    with numpy_gpt2.patch({"h1": note}):
        gpt2.logits(IDS)
        assert sys.gettrace() is not before
    assert sys.gettrace() is before
    for module in layers, model:
        assert not re.search(
            r"trac(e|ing)|patch|watch|observ|record", inspect.getsource(module).replace("dispatch", "")
        )


def test_nothing_is_kept_alive() -> None:
    ids = random_ids(HPARAMS, 1, 5)
    gpt2 = random_model(HPARAMS)
    seen: list[weakref.ref[Any]] = []

    def note(array: Array) -> None:
        seen.append(weakref.ref(array))
        if array.dtype.kind == "f":
            array *= 2

    change, values = scale(2), np.ones((1, 5, 10))
    with numpy_gpt2.patch({"*": note, "h1": change, "h0": values}):
        logits = gpt2.logits(ids)
    others: list[Any] = [logits, change, values, note, gpt2.params.h[0].mlp.c_fc.w, gpt2]
    kept = [*seen, *map(weakref.ref, others)]
    del others
    del logits, change, values, note, gpt2
    gc.collect()
    assert len(kept) > 70
    assert [each() for each in kept if each() is not None] == []


def test_after_an_exception_nothing_is_kept_alive() -> None:
    gpt2, change = random_model(HPARAMS), failing(ZeroDivisionError)
    with pytest.raises(ZeroDivisionError), numpy_gpt2.patch({"h1": change}):
        gpt2.logits(IDS)
    kept: list[weakref.ref[Any]] = [*map(weakref.ref, [gpt2, change, gpt2.params.wte])]
    del gpt2, change
    sys.last_traceback = None
    gc.collect()
    assert [each() for each in kept] == [None] * 3


# Threads.


def test_another_thread_is_left_alone(gpt2: GPT2) -> None:
    """While one thread is inside a patched pass, another one runs a pass, and one with a patch of its own."""
    plain, ours = gpt2.logits(IDS), run({"h1": zero}, gpt2, "logits")
    inside, done = threading.Event(), threading.Event()
    results: dict[str, Array] = {}

    def wait(array: Array) -> None:
        inside.set()
        assert done.wait(60)
        array[...] = 0

    def patched() -> None:
        with numpy_gpt2.patch({"h1": wait}):
            results["patched"] = gpt2.logits(IDS)

    def other() -> None:
        results["plain"] = gpt2.logits(IDS)
        with numpy_gpt2.patch({"h0/attn": zero}):
            results["other"] = gpt2.logits(IDS)
        assert not prefill.reads_whole()

    first = threading.Thread(target=patched)
    first.start()
    assert inside.wait(60)
    second = threading.Thread(target=other)
    second.start()
    second.join(60)
    assert sys.gettrace() is not None or not prefill.reads_whole()
    np.testing.assert_array_equal(gpt2.logits(IDS), plain)
    done.set()
    first.join(60)
    np.testing.assert_array_equal(results["patched"], ours)
    np.testing.assert_array_equal(results["plain"], plain)
    np.testing.assert_array_equal(results["other"], run({"h0/attn": zero}, gpt2, "logits"))


def test_two_threads_with_patches_of_their_own_at_the_same_time(gpt2: GPT2) -> None:
    barrier = threading.Barrier(2, timeout=60)
    results: dict[int, Array] = {}

    def work(i: int) -> None:
        def meet(array: Array) -> None:  # so that both are in the middle of a pass
            barrier.wait()
            array *= i + 2

        with numpy_gpt2.patch({"h0": meet}):
            results[i] = gpt2.logits(IDS)
            barrier.wait()

    workers = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    for i in range(2):
        np.testing.assert_array_equal(results[i], run({"h0": scale(i + 2)}, gpt2, "logits"))


# On a device.


@pytest.mark.parametrize(
    "changes",
    [
        {"h1/attn/a": zero(head=[1, 2]), "h2": scale(0.5, position=[1, 3])},
        {"h1/mlp": mean(position=range(3)), "x": scale(2), "logits": lambda x: x * 2},
        {"h1": put(np.ones((9, 10)), position=[2, 4]), "h?/attn/weights": zero(position=3)},
        {"h2/ln_2": put(np.ones(10)), "h0": np.ones((2, 7, 10))},
        {"h1/attn/mask": lambda mask: mask | (mask < 2), "positions": lambda positions: positions * 2},
    ],
    ids=lambda changes: "+".join(changes),
)
def test_on_a_device(gpt2: GPT2, changes: dict[str, Any]) -> None:
    """With an array as strict as CuPy's. A text read with a past, too, if the arrays have one shape."""
    moved = on_device(gpt2)
    logits = []
    for each in gpt2, moved:
        with numpy_gpt2.patch(changes):
            logits.append(each.logits(IDS))
    np.testing.assert_array_equal(logits[1], logits[0])
    assert not np.allclose(logits[0], gpt2.logits(IDS))


def test_values_on_a_device(gpt2: GPT2) -> None:
    moved = on_device(gpt2)
    values = np.random.default_rng(0).normal(size=(2, 9, 10))
    with numpy_gpt2.patch({"h1": put(values, position=[2, 4])}):
        expected = gpt2.logits(IDS)
    with numpy_gpt2.patch({"h1": put(DeviceArray(values), position=[2, 4])}):  # type: ignore[arg-type]
        np.testing.assert_array_equal(moved.logits(IDS), expected)
    past, pasts = gpt2.new_past(2), moved.new_past(2)
    with numpy_gpt2.patch({"h1": put(values, position=[2, 4]), "h0/attn/a": zero(head=1, position=[5, 6])}):
        for n in 5, 7:
            ids = IDS[:, n - 5 : n]
            np.testing.assert_array_equal(moved.logits(ids, pasts), gpt2.logits(ids, past))
            past.lengths[:] = pasts.lengths[:] = [4, 2]


def test_a_change_is_a_class_of_its_own() -> None:
    """Whoever wants another ready-made change writes one like those here."""
    clip = Change("clip", lambda array, positions: np.minimum(array, 0.1), position=[1])
    gpt2 = random_model(HPARAMS)
    changed = run({"h1": clip}, gpt2, "h1")
    assert changed[:, 1].max() == 0.1
    assert changed[:, 2:].max() > 0.1
    assert repr(clip) == "clip(position=[1])"


def test_the_names_of_a_block_are_those_of_the_table() -> None:
    assert len(block_names(0)) == 22


def test_the_patch_of_the_package_is_this_one() -> None:
    assert numpy_gpt2.patch is patch
