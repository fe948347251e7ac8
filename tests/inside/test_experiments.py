"""Experiments against PyTorch, and on a model whose heads are constructed by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import SHAPES, in_pytorch, random_ids, random_model

import numpy_gpt2
from numpy_gpt2 import layers
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.inside import experiments
from numpy_gpt2.inside.experiments import Question
from numpy_gpt2.inside.patches import mean, put, scale, zero
from numpy_gpt2.params import Array, HParams, init_params

HPARAMS = SHAPES[1]  # 3 layers, 5 heads, 10 wide, a context of 40
WOMAN, MAN = "The old woman was so angry that", "The old man was so angry that"


def log_probabilities(logits: Array) -> Array:
    return logits - np.log(np.exp(logits).sum())


class InPyTorch:
    """A model in PyTorch, in which hooks change what modules return."""

    def __init__(self, gpt2: GPT2) -> None:
        self.torch = pytest.importorskip("torch")
        self.model = in_pytorch(gpt2)

    def last_logits(self, ids: Array, *hooks: tuple[Any, Any]) -> Array:
        """The logits of the token that follows, with hooks: `(module, f)`, where f changes the module's output."""
        handles = [module.register_forward_hook(lambda m, i, output, f=f: f(output)) for module, f in hooks]
        try:
            with self.torch.no_grad():
                return self.model(self.torch.tensor(ids)).logits[0, -1].numpy()
        finally:
            for handle in handles:
                handle.remove()

    def input_hook(self, module: Any, f: Any) -> Any:
        return module.register_forward_pre_hook(lambda m, args: (f(args[0]), *args[1:]))


class TestAblation:
    gpt2 = random_model(HPARAMS)
    ids = random_ids(HPARAMS, 1, 9)

    def test_each_part_switched_off_in_pytorch(self) -> None:
        theirs = InPyTorch(self.gpt2)
        found = experiments.ablation(self.gpt2, self.ids[0], token=3)
        whole = log_probabilities(theirs.last_logits(self.ids))[3]
        assert found.question == Question(3)
        np.testing.assert_allclose(found.whole, whole)
        d_head = HPARAMS.n_embd // HPARAMS.n_head
        for i, block in enumerate(theirs.model.transformer.h):
            for j in range(HPARAMS.n_head):

                def silence(x: Any, j: int = j) -> Any:  # what the heads give to c_proj, side by side
                    x = x.clone()
                    x[..., j * d_head : (j + 1) * d_head] = 0
                    return x

                handle = theirs.input_hook(block.attn.c_proj, silence)
                without = log_probabilities(theirs.last_logits(self.ids))[3]
                handle.remove()
                np.testing.assert_allclose(found.heads[i, j], without - whole, rtol=1e-9, atol=1e-12)
            without = log_probabilities(theirs.last_logits(self.ids, (block.mlp, lambda x: x * 0)))[3]
            np.testing.assert_allclose(found.mlps[i], without - whole, rtol=1e-9, atol=1e-12)
        assert np.unique(found.heads.round(9)).size == HPARAMS.n_layer * HPARAMS.n_head

    def test_the_mean_and_another_token(self) -> None:
        theirs = InPyTorch(self.gpt2)
        found = experiments.ablation(self.gpt2, self.ids[0], 3, 7, change=mean)
        logits = theirs.last_logits(self.ids)
        np.testing.assert_allclose(found.whole, logits[3] - logits[7])
        mlp = theirs.model.transformer.h[1].mlp
        logits = theirs.last_logits(self.ids, (mlp, lambda x: x.mean(1, keepdim=True).expand_as(x)))
        np.testing.assert_allclose(found.mlps[1], logits[3] - logits[7] - found.whole, rtol=1e-9)

    def test_by_default_the_likeliest_token(self, tiny: GPT2) -> None:
        found = experiments.ablation(tiny, WOMAN)
        assert found.question == Question(int(tiny.logits(WOMAN)[-1].argmax()))
        assert found.heads.shape == (4, 4)

    def test_progress(self) -> None:
        passes: list[int] = []
        experiments.ablation(self.gpt2, self.ids[0], progress=passes.append)
        assert passes == [1] * HPARAMS.n_layer * (HPARAMS.n_head + 1)

    def test_any_change(self) -> None:
        zeroed = experiments.ablation(self.gpt2, self.ids[0], 3)
        for change in scale(0), put(np.zeros(1)):
            found = experiments.ablation(self.gpt2, self.ids[0], 3, change=change)
            np.testing.assert_array_equal(found.heads, zeroed.heads)
        early = experiments.ablation(self.gpt2, self.ids[0], 3, change=zero(position=[0, 1]))
        assert (early.heads != zeroed.heads).all()
        with pytest.raises(TypeError, match="change must be a change such as zero, mean or scale.0.5., not str"):
            experiments.ablation(self.gpt2, self.ids[0], 3, change="mean")  # type: ignore[arg-type]

    def test_a_part_that_is_not_there_is_not_taken_for_one_without_effect(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(layers, "multi_head_attention", lambda x, params, n_head, past=None: x * 2)
        with pytest.raises(ValueError, match="the patch of 'h0/attn/a' was not used: no array had such a name"):
            experiments.ablation(self.gpt2, self.ids[0], 3)

    def test_the_same_token_twice(self, tiny: GPT2) -> None:
        with pytest.raises(ValueError, match="the token and the other are the same, '␣she'"):
            experiments.ablation(tiny, WOMAN, " she", " she")


class TestActivationPatching:
    gpt2 = random_model(HPARAMS)
    clean, corrupted = random_ids(HPARAMS, 1, 6), random_ids(HPARAMS, 1, 6, seed=1)

    @pytest.mark.parametrize("part", ["stream", "attention", "mlp"])
    def test_the_same_by_hooks_in_pytorch(self, part: Any) -> None:
        theirs = InPyTorch(self.gpt2)
        stack = theirs.model.transformer
        modules = {
            "stream": [stack.drop, *stack.h],
            "attention": [block.attn.c_proj for block in stack.h],
            "mlp": [block.mlp for block in stack.h],
        }[part]
        found = experiments.activation_patching(self.gpt2, self.clean[0], self.corrupted[0], 3, 7, part)
        kept: dict[Any, Any] = {}

        def keep(module: Any) -> Any:
            return lambda output: kept.__setitem__(module, first(output).clone())

        def first(output: Any) -> Any:
            return output[0] if isinstance(output, tuple) else output

        logits = theirs.last_logits(self.clean, *((m, keep(m)) for m in modules))
        np.testing.assert_allclose(found.clean, logits[3] - logits[7], rtol=1e-9)
        logits = theirs.last_logits(self.corrupted)
        np.testing.assert_allclose(found.corrupted, logits[3] - logits[7], rtol=1e-9)
        for row, module in enumerate(modules):
            for position in range(6):

                def put(output: Any, module: Any = module, position: int = position) -> None:
                    first(output)[:, position] = kept[module][:, position]

                logits = theirs.last_logits(self.corrupted, (module, put))
                np.testing.assert_allclose(found.patched[row, position], logits[3] - logits[7], rtol=1e-9, atol=1e-12)
        assert len(found.names) == len(modules)
        assert np.isfinite(found.restored).all()

    def test_in_tiny_the_head_that_matters_most_brings_the_gender_to_the_last_position(self, tiny: GPT2) -> None:
        """Before its block it is at the noun, the only token that differs; from there on, at the end of the text."""
        found = experiments.activation_patching(tiny, WOMAN, MAN, " she", " he")
        assert found.names == ["x", "h0", "h1", "h2", "h3"]
        np.testing.assert_allclose(found.restored[0], [0, 0, 1, 0, 0, 0, 0], atol=1e-4)
        np.testing.assert_allclose(found.restored[-1], [0, 0, 0, 0, 0, 0, 1], atol=1e-4)
        block = experiments.ablation(tiny, WOMAN, " she", " he").heads.argmin() // 4
        assert (found.restored[: block + 1, 2] > 0.85).all()
        assert (found.restored[block + 1 :, -1] > 0.85).all()

    def test_progress_and_parts_of_a_batch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Both texts begin with the same token, where nothing can be restored."""
        clean, corrupted = (np.append([5], ids[0]) for ids in (self.clean, self.corrupted))
        found: list[int] = []
        together = experiments.activation_patching(self.gpt2, clean, corrupted, 3, progress=found.append)
        assert found == [4, 6, 6, 6, 6]
        assert (together.patched[:, 0] == together.corrupted).all()
        monkeypatch.setattr(experiments, "TOKENS_AT_ONCE", 20)
        in_parts = experiments.activation_patching(self.gpt2, clean, corrupted, 3, progress=found.append)
        assert found[5:] == [4, *[2, 2, 2] * 4]
        np.testing.assert_allclose(in_parts.patched, together.patched, rtol=1e-12)

    def test_the_share_that_is_restored(self) -> None:
        """Whichever text has the higher prediction."""
        for first, second in (self.clean, self.corrupted), (self.corrupted, self.clean):
            found = experiments.activation_patching(self.gpt2, first[0], second[0], 3)
            expected = (found.patched - found.corrupted) / (found.clean - found.corrupted)
            np.testing.assert_allclose(found.restored, expected)
            np.testing.assert_allclose(found.restored[-1], [0, 0, 0, 0, 0, 1], atol=1e-12)

    def test_what_cannot_be_compared(self, tiny: GPT2) -> None:
        with pytest.raises(ValueError, match="same number of tokens, and have 7 and 3"):
            experiments.activation_patching(tiny, WOMAN, "The old man")
        with pytest.raises(ValueError, match="there is nothing to restore"):
            experiments.activation_patching(tiny, MAN, MAN)
        with pytest.raises(ValueError, match="part must be stream, attention or mlp, not 'head'"):
            experiments.activation_patching(tiny, WOMAN, MAN, part="head")  # type: ignore[arg-type]


class TestAttribution:
    gpt2 = random_model(HPARAMS)
    ids = random_ids(HPARAMS, 1, 9)

    @pytest.mark.parametrize("other", [None, 7])
    def test_the_terms_sum_to_the_logit_in_pytorch(self, other: int | None) -> None:
        logits = InPyTorch(self.gpt2).last_logits(self.ids)
        found = experiments.attribution(self.gpt2, self.ids[0], 3, other)
        np.testing.assert_allclose(found.total, logits[3] - (logits[7] if other else 0), rtol=1e-11)

    def test_each_term_is_what_its_part_adds_with_the_last_norm_held(self) -> None:
        """The parts come from PyTorch's modules. Without a part, and the norm held, the logit lacks its term."""
        theirs = InPyTorch(self.gpt2)
        torch, stack = theirs.torch, theirs.model.transformer
        kept: dict[Any, Any] = {}
        for module in [stack.ln_f, *(part for block in stack.h for part in (block.attn.c_proj, block.mlp))]:
            module.register_forward_hook(lambda m, given, output: kept.update({m: (given[0][0, -1], output[0, -1])}))
        logit = theirs.last_logits(self.ids)[3]
        x, _ = kept[stack.ln_f]
        deviation = torch.sqrt(x.var(unbiased=False) + 1e-5)

        def term(part: Any) -> float:
            normalised = (x - part - (x - part).mean()) / deviation * stack.ln_f.weight + stack.ln_f.bias
            return float(logit - normalised @ theirs.model.lm_head.weight[3])

        with torch.no_grad():
            found = experiments.attribution(self.gpt2, self.ids[0], 3)
            close: Any = {"rtol": 1e-8, "atol": 1e-11}
            np.testing.assert_allclose(found.token_embedding, term(stack.wte.weight[self.ids[0, -1]]), **close)
            np.testing.assert_allclose(found.position_embedding, term(stack.wpe.weight[8]), **close)
            d_head = HPARAMS.n_embd // HPARAMS.n_head
            for i, block in enumerate(stack.h):
                heads, _ = kept[block.attn.c_proj]  # side by side, [n_embd]
                for j in range(HPARAMS.n_head):
                    rows = slice(j * d_head, (j + 1) * d_head)
                    expected = term(heads[rows] @ block.attn.c_proj.weight[rows])
                    np.testing.assert_allclose(found.heads[i, j], expected, **close)
                np.testing.assert_allclose(found.biases[i], term(block.attn.c_proj.bias), **close)
                np.testing.assert_allclose(found.mlps[i], term(kept[block.mlp][1]), **close)

    @pytest.mark.parametrize("name", ["h1/attn", "h1", "ln_f"])
    def test_terms_that_do_not_sum_to_the_logit_are_refused(self, name: str) -> None:
        """A patch of `a` changes the terms, one of what follows makes something else of them."""
        with numpy_gpt2.patch({"h1/attn/a": scale(0.5)}):
            experiments.attribution(self.gpt2, self.ids[0], 3)
        said = r"the terms sum to -?\d+\.\d+, but the model's value is -?\d+\.\d+: a patch or a replaced function"
        with pytest.raises(ValueError, match=said), numpy_gpt2.patch({name: scale(0.5)}):
            experiments.attribution(self.gpt2, self.ids[0], 3)

    def test_in_float32(self, tiny: GPT2) -> None:
        found = experiments.attribution(tiny, WOMAN, " she", " he")
        she, he = (tiny.tokenizer.encode(token)[0] for token in (" she", " he"))  # type: ignore[union-attr]
        logits = tiny.logits(WOMAN)[-1]
        assert found.total == pytest.approx(float(logits[she] - logits[he]), abs=1e-5)


def constructed_model() -> GPT2:
    """A model of two blocks whose heads look at places that are known.

    The residual stream has room for the token, for the position, and for a copy of the token before. In block 0, heads
    look at the token before (and write its copy), at the token itself, and at the first token. In block 1, they look
    at the tokens whose copy is the token itself (induction), at the same token, and at the token before.
    """
    n_vocab = n_ctx = 16
    hparams = HParams(n_vocab, n_ctx, n_embd=48, n_head=3, n_layer=2)
    params = init_params(hparams, dtype="float64")
    token, position, copy = (slice(i, i + 16) for i in (0, 16, 32))
    for block in params.h:
        for linear in (*block.attn, *block.mlp):
            linear.w[:] = linear.b[:] = 0
    params.wte[:] = params.wpe[:] = 0
    params.wte[:, token] = np.eye(16)
    params.wpe[:, position] = np.eye(16)
    previous = np.eye(16, k=-1)  # from a position to the one before
    previous[0, 0] = 1
    to_first = np.zeros((16, 16))
    to_first[:, 0] = 1
    looks: list[list[tuple[slice, Array, slice]]] = [  # for each head: where queries come from, how, and keys
        [(position, previous, position), (position, np.eye(16), position), (position, to_first, position)],
        [(token, np.eye(16), copy), (token, np.eye(16), token), (position, previous, position)],
    ]
    for block, heads in zip(params.h, looks, strict=True):
        for j, (of_query, how, of_key) in enumerate(heads):
            block.attn.c_attn.w[of_query, 16 * j : 16 * (j + 1)] = 10 * how
            block.attn.c_attn.w[of_key, 48 + 16 * j : 48 + 16 * (j + 1)] = 10 * np.eye(16)
    params.h[0].attn.c_attn.w[token, 96:112] = np.eye(16)  # values of the first head
    params.h[0].attn.c_proj.w[:16, copy] = np.eye(16)
    return GPT2(hparams, params, tokenizer=None, name="constructed")


class TestHeadScores:
    def test_heads_constructed_to_do_just_that(self) -> None:
        scores = experiments.head_scores(constructed_model())
        assert scores.previous.shape == (2, 3)
        assert scores.previous[0, 0] > 0.99
        assert scores.itself[0, 1] > 0.99
        assert scores.first[0, 2] > 0.99
        assert scores.induction[1, 0] == pytest.approx(15 / 16)  # the first token is marked as its own follower, too
        assert scores.duplicate[1, 1] > 0.49  # the other half is on the token itself
        assert scores.previous[1, 2] > 0.99
        found = np.concatenate([score.ravel() for score in scores])
        assert (found < 0.3).sum() == len(found) - 7  # and `itself` of the head that looks for the same token

    def test_by_the_definition(self) -> None:
        gpt2 = random_model(SHAPES[1])
        ids = [3, 1, 4, 5, 9]
        with_torch = InPyTorch(gpt2)
        with with_torch.torch.no_grad():
            weights = with_torch.model(with_torch.torch.tensor([ids + ids]), output_attentions=True).attentions
        scores = experiments.head_scores(gpt2, ids)
        for i, of_block in enumerate(weights):
            for j, w in enumerate(of_block[0].numpy()):
                assert scores.first[i, j] == pytest.approx(np.mean([w[q, 0] for q in range(1, 10)]))
                assert scores.itself[i, j] == pytest.approx(np.mean([w[q, q] for q in range(1, 10)]))
                assert scores.previous[i, j] == pytest.approx(np.mean([w[q, q - 1] for q in range(1, 10)]))
                assert scores.duplicate[i, j] == pytest.approx(np.mean([w[5 + q, q] for q in range(5)]))
                assert scores.induction[i, j] == pytest.approx(np.mean([w[5 + q, q + 1] for q in range(5)]))

    def test_tiny_has_an_induction_head_and_before_it_one_that_looks_back(self, tiny: GPT2) -> None:
        """The first reads what the second has copied, so it is in a later block."""
        scores = experiments.head_scores(tiny, "The princess kissed the frog, and the old king gave a golden cup away.")
        assert scores.induction.max() > 0.2
        assert scores.previous.max() > 0.3
        assert scores.previous.argmax() // 4 < scores.induction.argmax() // 4

    def test_the_seed_of_the_random_ids(self) -> None:
        gpt2 = constructed_model()
        assert experiments.random_ids(gpt2, seed=1) == experiments.random_ids(gpt2, seed=1)
        assert experiments.random_ids(gpt2, seed=1) != experiments.random_ids(gpt2)
        by_seed = [experiments.head_scores(gpt2, seed=seed).itself[1, 2] for seed in (0, 1)]
        assert by_seed[0] != by_seed[1]

    def test_lengths(self) -> None:
        gpt2 = random_model(SHAPES[1])
        with pytest.raises(ValueError, match="2 to 20 tokens can be read twice, and this has 1"):
            experiments.head_scores(gpt2, [1])
        with pytest.raises(ValueError, match="2 to 20 tokens can be read twice, and this has 21"):
            experiments.head_scores(gpt2, [1] * 21)
        with pytest.raises(ValueError, match="there is no text to look at"):
            experiments.head_scores(gpt2, [])
        with pytest.raises(ValueError, match="a context of 3 tokens is too short for a text that comes twice"):
            experiments.head_scores(random_model(HPARAMS._replace(n_ctx=3)))
        assert len(experiments.random_ids(gpt2)) == 20  # of 11 tokens
        assert len({*experiments.random_ids(constructed_model())}) == 8


def test_tokens_by_text(tiny: GPT2) -> None:
    assert experiments.token_id(tiny, 7) == 7
    assert experiments.token_id(tiny, "<|endoftext|>") == tiny.tokenizer.end_of_text  # type: ignore[union-attr]
    for token, sentence in [
        ("woman", r"'woman' is not one token but \d: .*; did you mean ' woman'\?"),
        (" zebra", r"' zebra' is not one token but 4: \['␣', 'ze', 'b', 'ra'\]$"),
        ("", r"'' is not one token but 0: \[\]$"),
        (4096, "token must be a whole number, 0 to 4095, not 4096"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            experiments.token_id(tiny, token)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="knows only ids"):
        experiments.token_id(random_model(HPARAMS), " she")
