"""What `inspection.py` says of a model, against PyTorch, transformers, and what a person would count."""

from __future__ import annotations

import math

import numpy as np
import pytest
from conftest import SHAPES, in_pytorch, random_ids, random_model
from hypothesis import given
from hypothesis import strategies as st

from numpy_gpt2 import inspection, layers
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.params import HParams, named_arrays
from numpy_gpt2.tokenizer import BYTE_TO_CHARACTER, Tokenizer, byte_spelling

HPARAMS = SHAPES[1]


def test_parameter_statistics() -> None:
    torch = pytest.importorskip("torch")
    gpt2 = random_model(HPARAMS)
    table = inspection.parameter_statistics(gpt2.params)
    arrays = dict(named_arrays(gpt2.params))
    assert [row.name for row in table] == [*arrays]
    assert sum(row.size for row in table) == sum(p.numel() for p in in_pytorch(gpt2).parameters())
    for row in table:
        tensor = torch.tensor(arrays[row.name])
        assert row.shape == tuple(tensor.shape)
        assert row.mean == pytest.approx(tensor.mean().item(), abs=1e-12)
        assert row.deviation == pytest.approx(tensor.std(unbiased=False).item())
    far = gpt2.params._replace(wte=np.full((9999, 99), 1e4 + 0.1, np.float32))
    table = inspection.parameter_statistics(far)
    assert table[0].mean == pytest.approx(float(far.wte[0, 0]), rel=1e-9)  # summed in float64


@pytest.mark.parametrize("text", ["Hello tokenizers", "antidisestablishmentarianism", "naïve 日本語\n\n\tx = 1", " "])
def test_merges_replayed_make_each_token(text: str) -> None:
    tokenizer = Tokenizer.gpt2()
    found = inspection.tokens(tokenizer, text)
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
def test_pieces_show_every_character(text: str) -> None:
    shown = inspection.visible(text.encode())
    assert shown.isprintable()
    assert " " not in shown
    assert bool(shown) == bool(text)


def test_a_token_that_two_merges_make() -> None:
    """The one that comes first has made it."""
    merges = ["a b", "ab c", "b c", "a bc"]
    tokens = [*BYTE_TO_CHARACTER.values(), "ab", "abc", "bc", "<|endoftext|>"]
    tokenizer = Tokenizer({token: id for id, token in enumerate(tokens)}, merges)
    assert [(token.piece, token.merges) for token in inspection.tokens(tokenizer, "abc")] == [("abc", ["a b", "ab c"])]


def test_the_special_token_has_no_merges() -> None:
    """As text it is thirteen characters."""
    found = inspection.tokens(Tokenizer.gpt2(), "<|endoftext|>")
    assert "".join(token.piece for token in found) == "<|endoftext|>"
    assert len(found) > 1


def test_next_tokens_are_those_of_transformers(tiny: GPT2) -> None:
    torch = pytest.importorskip("torch")
    warpers = pytest.importorskip("transformers").generation.logits_process
    assert tiny.tokenizer
    ids = torch.tensor([tiny.tokenizer.encode("The king was")])
    with torch.no_grad():
        logits = in_pytorch(tiny)(ids).logits[:, -1].double()
    said = inspection.next_tokens(tiny, "The king was", 12, temperature=0.7, top_k=9, top_p=0.8)
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
    greedy = inspection.next_tokens(tiny, "The king was", 3, temperature=0)
    assert [chance.drawn for chance in greedy] == [1, 0, 0]


def test_attention_weights_are_those_of_transformers() -> None:
    torch = pytest.importorskip("torch")
    gpt2 = random_model(HPARAMS)
    ids = random_ids(HPARAMS, 1, 33)
    with torch.no_grad():
        said = in_pytorch(gpt2)(torch.tensor(ids), output_attentions=True)
    np.testing.assert_allclose(
        inspection.attention_weights(gpt2, ids[0]), torch.cat(said.attentions), rtol=1e-8, atol=1e-12
    )


def test_unmasked_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where attention takes a few queries at a time."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(layers, "QUERIES", 4)
    gpt2 = random_model(HPARAMS)
    ids = random_ids(HPARAMS, 1, 13)
    peer = in_pytorch(gpt2).transformer
    with torch.no_grad():
        x = peer(torch.tensor(ids), output_hidden_states=True).hidden_states[1]
        q, k, _ = peer.h[1].attn.c_attn(peer.h[1].ln_1(x)).split(HPARAMS.n_embd, dim=-1)
        q, k = (y.view(13, HPARAMS.n_head, -1).transpose(0, 1) for y in (q, k))
        expected = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), dim=-1)
    np.testing.assert_allclose(inspection.unmasked_weights(gpt2, ids[0], 1), expected, rtol=1e-8, atol=1e-12)


def test_habits() -> None:
    """Counted by hand: token 2 looks back 2 and 1 tokens and at itself with 0.5, 0.2, 0.3."""
    weights = np.array([[1, 0, 0], [0.4, 0.6, 0], [0.5, 0.2, 0.3]])
    said = inspection.habits(weights)
    assert said == pytest.approx((0.45, 0.45, 0.3, (0.4 + 0.5 * 2 + 0.2) / 2))


def test_the_lens_is_that_of_pytorch() -> None:
    torch = pytest.importorskip("torch")
    gpt2 = random_model(HPARAMS)
    ids = random_ids(HPARAMS, 1, 9)
    peer = in_pytorch(gpt2)
    with torch.no_grad():
        said = peer(torch.tensor(ids), output_hidden_states=True)
        states = said.hidden_states
        every = [*(peer.lm_head(peer.transformer.ln_f(x)) for x in states[:-1]), said.logits]
        probabilities, best = zip(*(torch.softmax(x[0], -1).max(-1) for x in every), strict=True)
    lens = inspection.logit_lens(gpt2, ids[0])
    assert lens.ids.tolist() == [row.tolist() for row in best]
    np.testing.assert_allclose(lens.probabilities, torch.stack(probabilities), rtol=1e-8)


def test_position_similarity() -> None:
    torch = pytest.importorskip("torch")
    params = random_model(HPARAMS).params
    wpe = torch.tensor(params.wpe)
    expected = torch.cosine_similarity(wpe[:, None], wpe[None], dim=-1)
    np.testing.assert_allclose(inspection.position_similarity(params), expected, rtol=1e-9, atol=1e-12)
    params.wpe[3] = 0  # a position without a direction
    assert (inspection.position_similarity(params)[3] == 0).all()


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
    sizes = inspection.stream_sizes(gpt2, ids[0])
    assert sizes.attention.tolist() == pytest.approx(added["attn"])
    assert sizes.mlp.tolist() == pytest.approx(added["mlp"])
    assert sizes.stream[:-1].tolist() == pytest.approx([x.square().mean().sqrt().item() for x in states[1:-1]])


def test_many_blocks() -> None:
    gpt2 = random_model(HParams(n_vocab=5, n_ctx=4, n_embd=2, n_head=1, n_layer=101))
    assert len(inspection.stream_sizes(gpt2, [1, 2]).stream) == 101
    assert inspection.attention_weights(gpt2, [1, 2], 100).shape == (1, 2, 2)
    assert inspection.attention_weights(gpt2, [1, 2]).shape == (101, 1, 2, 2)


def test_slices_of_a_parameter(tiny: GPT2) -> None:
    w = tiny.params.h[1].attn.c_attn.w
    for name, expected in [
        ("h1/attn/c_attn/w", w),
        ("h1/attn/c_attn/w[:300,:300]", w[:300, :300]),
        (" h1/attn/c_attn/w [ 3 ] ", w[3]),
        ("h1/attn/c_attn/w[-5:, ::7]", w[-5:, ::7]),
        ("h1/attn/c_attn/w[2,3]", w[2, 3]),
    ]:
        assert np.array_equal(inspection.parameter(tiny.params, name), expected)


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
def test_names_that_no_parameter_has(tiny: GPT2, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        inspection.parameter(tiny.params, name)


def test_texts_that_cannot_be_read(tiny: GPT2) -> None:
    with pytest.raises(ValueError, match="no text to look at"):
        inspection.read_ids(tiny, "")
    with pytest.raises(ValueError, match="300 tokens are too many for this model, whose context holds 256"):
        inspection.read_ids(tiny, " the" * 300)
    with pytest.raises(ValueError, match="without a vocabulary"):
        inspection.read_ids(random_model(HPARAMS), "Hello")
    with pytest.raises(ValueError, match="this is several"):
        inspection.attention_weights(tiny, [[1, 2], [3, 4]])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="outside the vocabulary"):
        inspection.logit_lens(tiny, [4096])


def test_labels() -> None:
    assert inspection.token_labels(None, [[3, 1]]) == ["3", "1"]
    tokenizer = Tokenizer.gpt2()
    ids = tokenizer.encode(" a\n€🦊")
    assert inspection.token_labels(tokenizer, ids) == ["␣a", "⏎", "€", "\\xf0\\x9f", "\\xa6", "\\x8a"]
    assert byte_spelling(" ") == "Ġ"


def test_the_source_is_shown_without_its_docstring() -> None:
    shown = inspection.source(layers.softmax)
    assert shown.splitlines()[0] == "def softmax(x: Array) -> Array:"
    assert '"""' not in shown
    assert "e = np.exp(x - np.max(x, axis=-1, keepdims=True))" in shown
    code = compile("from __future__ import annotations\nimport numpy as np\n" + shown, "shown", "exec")
    scope: dict[str, object] = {}
    exec(code, scope)
    assert scope["softmax"](np.zeros(4)).tolist() == [0.25] * 4  # type: ignore[operator]
