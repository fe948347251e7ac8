"""What `tables.py` says about a model, compared with PyTorch, transformers, and counts by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from conftest import SHAPES, in_pytorch, random_ids, random_model
from hypothesis import given
from hypothesis import strategies as st

from numpy_gpt2.decoding import prefill
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.inside import tables
from numpy_gpt2.params import HParams, named_arrays
from numpy_gpt2.tokenizer import BYTE_TO_CHARACTER, Tokenizer, byte_spelling

HPARAMS = SHAPES[1]


def test_parameter_statistics() -> None:
    torch = pytest.importorskip("torch")
    gpt2 = random_model(HPARAMS)
    statistics = tables.parameter_statistics(gpt2.params)
    arrays = dict(named_arrays(gpt2.params))
    assert [row.name for row in statistics] == [*arrays]
    assert sum(row.size for row in statistics) == sum(p.numel() for p in in_pytorch(gpt2).parameters())
    for row in statistics:
        tensor = torch.tensor(arrays[row.name])
        assert row.shape == tuple(tensor.shape)
        assert row.mean == pytest.approx(tensor.mean().item(), abs=1e-12)
        assert row.deviation == pytest.approx(tensor.std(unbiased=False).item())
    far = gpt2.params._replace(wte=np.full((9999, 99), 1e4 + 0.1, np.float32))
    statistics = tables.parameter_statistics(far)
    assert statistics[0].mean == pytest.approx(float(far.wte[0, 0]), rel=1e-9)  # summed in float64


@pytest.mark.parametrize("text", ["Hello tokenizers", "antidisestablishmentarianism", "naïve 日本語\n\n\tx = 1", " "])
def test_replaying_the_merges_of_a_token_makes_it(text: str) -> None:
    tokenizer = Tokenizer.gpt2()
    found = tables.tokens(tokenizer, text)
    assert [token.id for token in found] == tokenizer.encode(text)
    assert b"".join(token.bytes for token in found).decode() == text
    for token in found:
        parts = [BYTE_TO_CHARACTER[byte] for byte in token.bytes]
        for pair in token.merges:
            left, right = pair.split(" ")
            i = 0
            while i < len(parts) - 1:
                if parts[i : i + 2] == [left, right]:
                    parts[i : i + 2] = [left + right]
                i += 1
        assert parts == [tokenizer.decoder[token.id]]
        assert [tokenizer.ranks[pair] for pair in token.merges] == sorted({tokenizer.ranks[p] for p in token.merges})


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_the_visible_form_of_a_text_is_printable(text: str) -> None:
    shown = tables.visible(text.encode())
    assert shown.isprintable()
    assert " " not in shown
    assert bool(shown) == bool(text)


def test_a_token_that_two_merges_could_make() -> None:
    """The merge that comes first in the list made it."""
    merges = ["a b", "ab c", "b c", "a bc"]
    tokens = [*BYTE_TO_CHARACTER.values(), "ab", "abc", "bc", "<|endoftext|>"]
    tokenizer = Tokenizer({token: id for id, token in enumerate(tokens)}, merges)
    assert [(token.piece, token.merges) for token in tables.tokens(tokenizer, "abc")] == [("abc", ["a b", "ab c"])]


def test_the_special_token_has_no_merges() -> None:
    """In a text, it is thirteen ordinary characters."""
    found = tables.tokens(Tokenizer.gpt2(), "<|endoftext|>")
    assert "".join(token.piece for token in found) == "<|endoftext|>"
    assert len(found) > 1


def test_next_tokens_are_those_of_transformers(tiny: GPT2) -> None:
    torch = pytest.importorskip("torch")
    warpers = pytest.importorskip("transformers").generation.logits_process
    assert tiny.tokenizer
    ids = torch.tensor([tiny.tokenizer.encode("The king was")])
    with torch.no_grad():
        logits = in_pytorch(tiny)(ids).logits[:, -1].double()
    said = tables.next_tokens(tiny, "The king was", 12, temperature=0.7, top_k=9, top_p=0.8)
    probabilities, expected_ids = torch.softmax(logits, -1)[0].topk(12)
    assert [chance.id for chance in said] == expected_ids.tolist()
    assert [chance.probability for chance in said] == pytest.approx(probabilities.tolist(), rel=1e-3)
    for warper in (
        warpers.TemperatureLogitsWarper(0.7),
        warpers.TopKLogitsWarper(9),
        warpers.TopPLogitsWarper(0.8),
    ):
        logits = warper(ids, logits)
    drawn = torch.softmax(logits, -1)[0, expected_ids]
    assert [chance.drawn for chance in said] == pytest.approx(drawn.tolist(), rel=1e-3)
    assert [chance.drawn for chance in said][-1] == 0
    greedy = tables.next_tokens(tiny, "The king was", 3, temperature=0)
    assert [chance.drawn for chance in greedy] == [1, 0, 0]


def test_attention_weights_are_those_of_transformers() -> None:
    torch = pytest.importorskip("torch")
    gpt2 = random_model(HPARAMS)
    ids = random_ids(HPARAMS, 1, 33)
    with torch.no_grad():
        said = in_pytorch(gpt2)(torch.tensor(ids), output_attentions=True)
    np.testing.assert_allclose(
        tables.attention_weights(gpt2, ids[0]), torch.cat(said.attentions), rtol=1e-8, atol=1e-12
    )


def test_unmasked_weights() -> None:
    """Also within a context where texts are read a few tokens at a time."""
    torch = pytest.importorskip("torch")
    gpt2 = random_model(HPARAMS)
    ids = random_ids(HPARAMS, 1, 13)
    peer = in_pytorch(gpt2).transformer
    with torch.no_grad():
        x = peer(torch.tensor(ids), output_hidden_states=True).hidden_states[1]
        q, k, _ = peer.h[1].attn.c_attn(peer.h[1].ln_1(x)).split(HPARAMS.n_embd, dim=-1)
        q, k = (y.view(13, HPARAMS.n_head, -1).transpose(0, 1) for y in (q, k))
        expected = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), dim=-1)
    for n in (None, 4):
        with prefill.tokens_at_once(n):
            weights = tables.unmasked_weights(gpt2, ids[0], 1)
        np.testing.assert_allclose(weights, expected, rtol=1e-8, atol=1e-12)


def test_habits() -> None:
    """Computed by hand: token 2 gives 0.5 and 0.2 to the tokens 2 and 1 before it, and 0.3 to itself."""
    weights = np.array([[1, 0, 0], [0.4, 0.6, 0], [0.5, 0.2, 0.3]])
    said = tables.habits(weights)
    assert said == pytest.approx((0.45, 0.45, 0.3, (0.4 + 0.5 * 2 + 0.2) / 2))


def test_the_lens_is_that_of_transformers() -> None:
    torch = pytest.importorskip("torch")
    gpt2 = random_model(HPARAMS)
    ids = random_ids(HPARAMS, 1, 9)
    peer = in_pytorch(gpt2)
    with torch.no_grad():
        said = peer(torch.tensor(ids), output_hidden_states=True)
        states = said.hidden_states
        every = [*(peer.lm_head(peer.transformer.ln_f(x)) for x in states[:-1]), said.logits]
        probabilities, best = zip(*(torch.softmax(x[0], -1).max(-1) for x in every), strict=True)
    lens = tables.logit_lens(gpt2, ids[0])
    assert lens.ids.tolist() == [row.tolist() for row in best]
    np.testing.assert_allclose(lens.probabilities, torch.stack(probabilities), rtol=1e-8)


def test_position_similarity() -> None:
    torch = pytest.importorskip("torch")
    params = random_model(HPARAMS).params
    wpe = torch.tensor(params.wpe)
    expected = torch.cosine_similarity(wpe[:, None], wpe[None], dim=-1)
    np.testing.assert_allclose(tables.position_similarity(params), expected, rtol=1e-9, atol=1e-12)
    params.wpe[3] = 0  # a zero vector has no direction
    assert (tables.position_similarity(params)[3] == 0).all()


def test_stream_sizes() -> None:
    torch = pytest.importorskip("torch")
    gpt2 = random_model(HPARAMS)
    ids = random_ids(HPARAMS, 1, 9)
    peer = in_pytorch(gpt2).transformer
    added: dict[str, list[float]] = {"attn": [], "mlp": []}
    for block in peer.h:
        block.attn.register_forward_hook(lambda *args: added["attn"].append(args[-1][0].square().mean().sqrt().item()))
        block.mlp.register_forward_hook(lambda *args: added["mlp"].append(args[-1].square().mean().sqrt().item()))
    with torch.no_grad():
        states = peer(torch.tensor(ids), output_hidden_states=True).hidden_states
    sizes = tables.stream_sizes(gpt2, ids[0])
    assert sizes.attention.tolist() == pytest.approx(added["attn"])
    assert sizes.mlp.tolist() == pytest.approx(added["mlp"])
    assert sizes.stream[:-1].tolist() == pytest.approx([x.square().mean().sqrt().item() for x in states[1:-1]])


def test_many_blocks() -> None:
    gpt2 = random_model(HParams(n_vocab=5, n_ctx=4, n_embd=2, n_head=1, n_layer=101))
    assert len(tables.stream_sizes(gpt2, [1, 2]).stream) == 101
    assert tables.attention_weights(gpt2, [1, 2], 100).shape == (1, 2, 2)
    assert tables.attention_weights(gpt2, [1, 2]).shape == (101, 1, 2, 2)


def test_slices_of_a_parameter(tiny: GPT2) -> None:
    w = tiny.params.h[1].attn.c_attn.w
    for name, expected in [
        ("h1/attn/c_attn/w", w),
        ("h1/attn/c_attn/w[:300,:300]", w[:300, :300]),
        (" h1/attn/c_attn/w [ 3 ] ", w[3]),
        ("h1/attn/c_attn/w[-5:, ::7]", w[-5:, ::7]),
        ("h1/attn/c_attn/w[2,3]", w[2, 3]),
    ]:
        assert np.array_equal(tables.parameter(tiny.params, name), expected)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("h1/attn/c_atn/w", "there is no parameter 'h1/attn/c_atn/w'; did you mean 'h1/attn/c_attn/w'"),
        ("", r"there is no parameter '' \("),
        ("h9/foo", r"there is no parameter 'h9/foo' \(`explore params`"),
        ("wte[:,", r"'wte\[:,' is not a name, or a name and a slice such as \[:300,:300\]"),
        ("wte[a]", r"wte has the shape \[4096, 256\], and \[a\] is no slice of it"),
        ("wte[1,2,3]", "is outside of it"),
        ("wte[5000]", "is outside of it"),
        ("wte[::0]", "is no slice of it"),
        ("wte[1:2:3:4]", "is no slice of it"),
        ("wte[]", "is no slice of it"),
        ("wte[__import__('os')]", "is no slice of it"),
        ("wte[5:5]", "nothing of it is in"),
    ],
)
def test_bad_names_of_parameters(tiny: GPT2, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tables.parameter(tiny.params, name)


def test_texts_that_cannot_be_read(tiny: GPT2) -> None:
    with pytest.raises(ValueError, match="no text to look at"):
        tables.read_ids(tiny, "")
    with pytest.raises(ValueError, match="300 tokens are too many for this model, whose context holds 256"):
        tables.read_ids(tiny, " the" * 300)
    with pytest.raises(ValueError, match="has no vocabulary"):
        tables.read_ids(random_model(HPARAMS), "Hello")
    with pytest.raises(ValueError, match="this is several"):
        tables.attention_weights(tiny, [[1, 2], [3, 4]])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="outside the vocabulary"):
        tables.logit_lens(tiny, [4096])


def test_labels() -> None:
    assert tables.token_labels(None, [[3, 1]]) == ["3", "1"]
    tokenizer = Tokenizer.gpt2()
    ids = tokenizer.encode(" a\n€🦊")
    assert tables.token_labels(tokenizer, ids) == ["␣a", "⏎", "€", "\\xf0\\x9f", "\\xa6", "\\x8a"]
    assert byte_spelling(" ") == "Ġ"


@pytest.mark.parametrize("layer", [-1, 4])
def test_a_block_that_the_model_does_not_have(tiny: GPT2, layer: int) -> None:
    for function in (tables.attention_weights, tables.unmasked_weights):
        with pytest.raises(ValueError, match=f"layer must be a whole number, 0 to 3, not {layer}"):
            function(tiny, "The king", layer)
