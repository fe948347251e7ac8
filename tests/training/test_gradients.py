"""Each backward function against PyTorch's autograd and against finite differences, in float64; then whole models."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
from conftest import DTYPES, SHAPES, in_pytorch, random_ids, random_model
from in_torch import assert_gradients_near, assert_near, dropout_by, loss_and_gradients

from numpy_gpt2 import layers, model
from numpy_gpt2.evaluation.scoring import IGNORED
from numpy_gpt2.params import MLP, Array, Attention, Block, HParams, Linear, Params, init_params, named_arrays, replace
from numpy_gpt2.training import forward, gradients
from numpy_gpt2.training.forward import Dropout, Kept
from numpy_gpt2.training.gradients import EVERYTHING, Wanted

torch = pytest.importorskip("torch")
functional = torch.nn.functional

N_BATCH, N_SEQ, N_HEAD = 2, 5, 3
HPARAMS = HParams(n_vocab=20, n_ctx=7, n_embd=12, n_head=N_HEAD, n_layer=1)
PARAMS = random_model(HPARAMS).params
BLOCK = PARAMS.h[0]
# 4 of 20 tokens: each text has one that is repeated
IDS = random_ids(HPARAMS, N_BATCH, N_SEQ) % 4


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(0, 1, shape)


X = random(N_BATCH, N_SEQ, 12)
Q, K, V = (random(N_BATCH, N_HEAD, N_SEQ, 4, seed=seed) for seed in (1, 2, 3))
CAUSAL = np.tril(np.ones((N_SEQ, N_SEQ), bool))
ANY_MASK = np.logical_or(random(N_SEQ, N_SEQ, seed=4) > 0, np.eye(N_SEQ) > 0)


class Case(NamedTuple):
    """A function and its derivatives. What it is given are arrays, or trees of them."""

    function: Callable[..., Array]
    backward: Callable[..., Any]  # takes what the function takes, and d_y; returns what the function takes
    in_torch: Callable[..., Any]  # the function again, of tensors and trees of them
    given: tuple[Any, ...]


def attention_in_torch(x: Any, params: Any) -> Any:
    q, k, v = (
        part.unflatten(-1, (N_HEAD, -1)).transpose(1, 2)
        for part in functional.linear(x, params.c_attn.w.T, params.c_attn.b).chunk(3, dim=-1)
    )
    a = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    return functional.linear(a.transpose(1, 2).flatten(2), params.c_proj.w.T, params.c_proj.b)


def mlp_in_torch(x: Any, params: Any) -> Any:
    hidden = functional.gelu(functional.linear(x, params.c_fc.w.T, params.c_fc.b), approximate="tanh")
    return functional.linear(hidden, params.c_proj.w.T, params.c_proj.b)


def layer_norm_in_torch(x: Any, params: Any) -> Any:
    return functional.layer_norm(x, [x.shape[-1]], params.g, params.b, eps=1e-5)


def block_in_torch(x: Any, params: Any) -> Any:
    x = x + attention_in_torch(layer_norm_in_torch(x, params.ln_1), params.attn)
    return x + mlp_in_torch(layer_norm_in_torch(x, params.ln_2), params.mlp)


def kept(**arrays: Array) -> Kept:
    """What a part of a block needs of what is kept; whatever else it reads is NaN."""
    return Kept(**dict.fromkeys(Kept._fields, np.array(np.nan)))._replace(**arrays)


def attention_backward(x: Array, params: Attention, d_y: Array) -> tuple[Array, Attention]:
    qkv = layers.linear(x, params.c_attn)
    merged = layers.merge_heads(layers.attention(*forward.split_qkv(qkv, N_HEAD), CAUSAL))
    return gradients.multi_head_attention_backward(x, params, N_HEAD, d_y, kept(qkv=qkv, merged=merged))


def mlp_backward(x: Array, params: MLP, d_y: Array) -> tuple[Array, MLP]:
    return gradients.mlp_backward(x, params, d_y, kept(fc=layers.linear(x, params.c_fc)))


def block_backward(x: Array, params: Block, d_y: Array) -> tuple[Array, Block]:
    return gradients.block_backward(x, params, N_HEAD, d_y, forward.block(x, params, N_HEAD)[1])


def embed(wte: Any, wpe: Any) -> Array:
    return model.embed(IDS, PARAMS._replace(wte=wte, wpe=wpe))


def embed_backward(wte: Array, wpe: Array, d_x: Array) -> tuple[Array, Array]:
    d_wte, d_wpe = np.zeros_like(wte), np.zeros_like(wpe)
    gradients.embed_backward(IDS, d_x, d_wte, d_wpe)
    return d_wte, d_wpe


def output_head_backward(x: Array, wte: Array, d_logits: Array) -> tuple[Array, Array]:
    d_wte = np.zeros_like(wte)
    d_x = gradients.output_head_backward(x, PARAMS._replace(wte=wte), d_logits, d_wte)
    return d_x, d_wte


def attention_case(mask: Array, q: Array = Q) -> Case:
    return Case(
        lambda q, k, v: layers.attention(q, k, v, mask),
        lambda q, k, v, d_a: gradients.attention_backward(q, k, v, mask, d_a),
        lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, attn_mask=torch.tensor(mask)),
        (q, K, V),
    )


def linear_case(*shape: int) -> Case:
    return Case(
        layers.linear,
        gradients.linear_backward,
        lambda x, params: functional.linear(x, params.w.T, params.b),
        (random(*shape, 6), Linear(random(6, 11, seed=1), random(11, seed=2))),
    )


CASES = {
    "softmax": Case(
        layers.softmax,
        lambda x, d_y: (gradients.softmax_backward(x, d_y),),
        partial(torch.softmax, dim=-1),
        (3 * random(2, 3, 5),),
    ),
    "gelu": Case(
        layers.gelu,
        lambda x, d_y: (gradients.gelu_backward(x, d_y),),
        partial(functional.gelu, approximate="tanh"),
        (np.concatenate([2 * random(200), np.linspace(-9, 9, 19)]),),
    ),
    "layer_norm": Case(layers.layer_norm, gradients.layer_norm_backward, layer_norm_in_torch, (X + 0.5, BLOCK.ln_1)),
    # the variance is as small as the 1e-5 that is added to it
    "layer_norm of nearly equal numbers": Case(
        layers.layer_norm, gradients.layer_norm_backward, layer_norm_in_torch, (0.5 + 3e-3 * X, BLOCK.ln_1)
    ),
    "linear of a vector": linear_case(),
    "linear of a text": linear_case(7),
    "linear of one token": linear_case(1, 1),
    "linear of a batch": linear_case(2, 5),
    "linear of heads": linear_case(2, 3, 4),
    "attention": attention_case(CAUSAL),
    "attention with another mask": attention_case(ANY_MASK),
    "attention with large scores": attention_case(CAUSAL, 30 * Q),
    "split_heads": Case(
        lambda x: layers.split_heads(x, N_HEAD),
        lambda x, d_y: (gradients.split_heads_backward(d_y),),
        lambda x: x.view(N_BATCH, N_SEQ, N_HEAD, 4).permute(0, 2, 1, 3),
        (X,),
    ),
    "merge_heads": Case(
        layers.merge_heads,
        lambda x, d_y: (gradients.merge_heads_backward(d_y, N_HEAD),),
        lambda x: x.permute(0, 2, 1, 3).reshape(N_BATCH, N_SEQ, 12),
        (Q,),
    ),
    "multi_head_attention": Case(
        lambda x, params: layers.multi_head_attention(x, params, N_HEAD),
        attention_backward,
        attention_in_torch,
        (X, BLOCK.attn),
    ),
    "mlp": Case(layers.mlp, mlp_backward, mlp_in_torch, (X, BLOCK.mlp)),
    "block": Case(lambda x, params: layers.block(x, params, N_HEAD), block_backward, block_in_torch, (X, BLOCK)),
    "embed": Case(
        embed,
        embed_backward,
        lambda wte, wpe: functional.embedding(torch.tensor(IDS), wte) + wpe[:N_SEQ],
        (PARAMS.wte, PARAMS.wpe),
    ),
    "output_head": Case(
        lambda x, wte: model.output_head(x, PARAMS._replace(wte=wte)),
        output_head_backward,
        lambda x, wte: x @ wte.T,
        (X, PARAMS.wte),
    ),
}


def leaves(tree: Any) -> Iterator[Any]:
    """The arrays of a tree."""
    if isinstance(tree, tuple):
        for part in tree:
            yield from leaves(part)
    else:
        yield tree


def with_leaves(tree: Any, arrays: Iterator[Any]) -> Any:
    """The same tree of other arrays."""
    if not isinstance(tree, tuple):
        return next(arrays)
    parts = [with_leaves(part, arrays) for part in tree]
    return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)


def assert_slope(loss: Callable[[Array], float], x: Array, d_x: Array, limit: float = 1e-6) -> None:
    """The loss changes as d_x says if x moves a little in random directions."""
    for seed in range(3):
        direction = random(*x.shape, seed=100 + seed)
        h = 1e-5 / np.linalg.norm(direction)
        slope = (loss(x + h * direction) - loss(x - h * direction)) / (2 * h)
        assert abs(slope - np.sum(d_x * direction)) <= limit * np.linalg.norm(d_x) * np.linalg.norm(direction)


@pytest.mark.parametrize("name", CASES)
class TestEveryFunction:
    def test_against_autograd(self, name: str) -> None:
        case = CASES[name]
        tensors = [torch.tensor(array, requires_grad=True) for array in leaves(case.given)]
        y = case.in_torch(*with_leaves(case.given, iter(tensors)))
        assert_near(case.function(*case.given), y.detach().numpy())
        d_y = random(*y.shape, seed=9)
        y.backward(torch.tensor(d_y))
        ours = case.backward(*case.given, d_y)
        for array, tensor in zip(leaves(ours), tensors, strict=True):
            assert_near(array, tensor.grad.numpy())

    def test_against_finite_differences(self, name: str) -> None:
        case = CASES[name]
        d_y = random(*case.function(*case.given).shape, seed=9)
        arrays, derivatives = [*leaves(case.given)], [*leaves(case.backward(*case.given, d_y))]
        for i, (array, derivative) in enumerate(zip(arrays, derivatives, strict=True)):

            def loss(moved: Array, i: int = i) -> float:
                given = with_leaves(case.given, iter([*arrays[:i], moved, *arrays[i + 1 :]]))
                return float(np.sum(d_y * case.function(*given)))

            assert_slope(loss, array, derivative)

    def test_float32_stays_float32_and_what_is_given_stays_as_it_is(self, name: str) -> None:
        case = CASES[name]
        d_y = random(*case.function(*case.given).shape, seed=9)
        precise = [*leaves(case.backward(*case.given, d_y))]
        arrays = [array.astype("float32") for array in leaves(case.given)]
        before = [array.copy() for array in arrays]
        ours = [*leaves(case.backward(*with_leaves(case.given, iter(arrays)), d_y.astype("float32")))]
        for array, expected in zip(ours, precise, strict=True):
            # differences of nearly equal numbers, and of scores in the hundreds, are less precise
            assert_near(array, expected.astype("float32"), 1e-3 if "nearly" in name or "large" in name else 1e-5)
        for array, copied in zip(arrays, before, strict=True):
            np.testing.assert_array_equal(array, copied)


def test_the_derivatives_of_embeddings_are_added_to_what_is_there() -> None:
    d_x, d_wte, d_wpe = X.copy(), random(20, 12, seed=1), random(7, 12, seed=2)
    expected = d_wte.copy(), d_wpe.copy()
    for row, ids in enumerate(IDS):
        for position, id in enumerate(ids):
            expected[0][id] += d_x[row, position]
            expected[1][position] += d_x[row, position]
    gradients.embed_backward(IDS, d_x, d_wte, d_wpe)
    assert_near(d_wte, expected[0])
    assert_near(d_wpe, expected[1])


def test_the_derivatives_of_the_head_are_added_to_what_is_there() -> None:
    d_wte, d_logits = random(20, 12, seed=1), random(N_BATCH, N_SEQ, 20, seed=2)
    expected = d_wte + np.einsum("bpv,bpi->vi", d_logits, X)
    d_x = gradients.output_head_backward(X, PARAMS, d_logits, d_wte)
    assert_near(d_wte, expected)
    np.testing.assert_array_equal(gradients.output_head_backward(X, PARAMS, d_logits, None), d_x)


class TestCrossEntropy:
    LOGITS = 3 * random(N_BATCH, N_SEQ, 20)

    @pytest.mark.parametrize("ignored", [[], [3], [0, 1, 4, 5, 9]], ids=str)
    def test_against_autograd_and_finite_differences(self, ignored: list[int]) -> None:
        targets = random_ids(HPARAMS, N_BATCH, N_SEQ, seed=1)
        targets.flat[ignored] = IGNORED
        logits = torch.tensor(self.LOGITS, requires_grad=True)
        theirs = functional.cross_entropy(
            logits.flatten(0, 1), torch.tensor(targets).flatten(), ignore_index=IGNORED, reduction="sum"
        )
        (theirs / 13).backward()
        assert gradients.cross_entropy(self.LOGITS, targets, 13) == pytest.approx(theirs.item() / 13, rel=1e-12)
        d_logits = gradients.cross_entropy_backward(self.LOGITS, targets, 13)
        assert_near(d_logits, logits.grad.numpy())
        assert not d_logits[targets == IGNORED].any()
        assert_slope(lambda moved: gradients.cross_entropy(moved, targets, 13), self.LOGITS, d_logits)

    def test_large_logits(self) -> None:
        logits, targets = np.array([[1e4, 0.0, -1e4], [1e4, 0.0, -1e4]]), np.array([0, 1])
        assert gradients.cross_entropy(logits, targets, 2) == 5e3
        np.testing.assert_array_equal(gradients.cross_entropy_backward(logits, targets, 2), [[0, 0, 0], [0.5, -0.5, 0]])

    def test_float32_stays_float32(self) -> None:
        targets = random_ids(HPARAMS, N_BATCH, N_SEQ, seed=1)
        d_logits = gradients.cross_entropy_backward(self.LOGITS.astype("float32"), targets, 13)
        expected = gradients.cross_entropy_backward(self.LOGITS, targets, 13)
        assert_near(d_logits, expected.astype("float32"), 1e-6)


# Whole models


def batch(hparams: HParams, kind: str) -> tuple[Array, Array]:
    """Ids and targets."""
    n_batch, n_seq = {"one token": (1, 1), "several of one token": (3, 1), "one text": (1, hparams.n_ctx - 2)}.get(
        kind, (3, hparams.n_ctx)
    )
    ids, targets = random_ids(hparams, n_batch, n_seq), random_ids(hparams, n_batch, n_seq, seed=1)
    if kind == "repeated ids":
        return ids % 3, targets % 4
    if kind == "masked":
        targets[np.random.default_rng(2).random(targets.shape) < 0.4] = IGNORED
        targets[1] = IGNORED
        targets[0, -1] = 5
    elif kind == "padded":
        lengths = np.array([[hparams.n_ctx // 2], [hparams.n_ctx], [1]])
        is_text = np.arange(hparams.n_ctx) < lengths
        return np.where(is_text, ids, 0), np.where(is_text, targets, IGNORED)
    return ids, targets


KINDS = ["as long as the context", "repeated ids", "masked", "padded", "one text", "one token", "several of one token"]


@pytest.mark.parametrize("hparams", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
class TestEveryParameterOfAModel:
    def test_against_pytorch(self, hparams: HParams, kind: str) -> None:
        gpt2 = random_model(hparams)
        ids, targets = batch(hparams, kind)
        loss, grads = gradients.gradients(ids, targets, gpt2.params, hparams.n_head)
        their_loss, theirs = loss_and_gradients(in_pytorch(gpt2), ids, targets)
        assert loss == pytest.approx(their_loss, rel=1e-12)
        assert_gradients_near(grads, theirs)

    def test_against_finite_differences(self, hparams: HParams, kind: str) -> None:
        gpt2 = random_model(hparams)
        ids, targets = batch(hparams, kind)
        _, grads = gradients.gradients(ids, targets, gpt2.params, hparams.n_head)
        named, counts = dict(named_arrays(gpt2.params)), targets != IGNORED
        is_target = targets[counts][:, None] == np.arange(hparams.n_vocab)

        def loss(name: str, moved: Array) -> float:
            logits = model.logits(ids, replace(gpt2.params, {name: moved}), hparams.n_head)[counts]
            return float(np.mean(np.log(np.exp(logits).sum(axis=-1)) - logits[is_target]))

        for name, derivative in named_arrays(grads):
            assert_slope(partial(loss, name), named[name], derivative, 1e-5)


@pytest.mark.parametrize("positions_at_once", [1, 3, 7])
def test_logits_replaced_by_their_derivatives_a_few_positions_at_a_time(
    monkeypatch: pytest.MonkeyPatch, positions_at_once: int
) -> None:
    gpt2 = random_model(SHAPES[1])
    ids, targets = batch(SHAPES[1], "masked")
    monkeypatch.setattr(gradients, "POSITIONS_AT_ONCE", positions_at_once)
    loss, grads = gradients.gradients(ids, targets, gpt2.params, 5)
    their_loss, theirs = loss_and_gradients(in_pytorch(gpt2), ids, targets)
    assert loss == pytest.approx(their_loss, rel=1e-12)
    assert_gradients_near(grads, theirs)


def test_float32_stays_float32_and_nothing_given_is_changed() -> None:
    gpt2 = random_model(SHAPES[1], "float32")
    ids, targets = batch(SHAPES[1], "masked")
    before = [array.copy() for array in (ids, targets, *leaves(gpt2.params))]
    drop = Dropout(0.1)
    for each in (forward.NO_DROPOUT, drop):
        _, grads = gradients.gradients(ids, targets, gpt2.params, 5, drop=each)
        assert {array.dtype for array in leaves(grads)} == {np.dtype("float32")}
    for array, copied in zip((ids, targets, *leaves(gpt2.params)), before, strict=True):
        np.testing.assert_array_equal(array, copied)
    loss, grads = gradients.gradients(ids, targets, gpt2.params, 5)
    their_loss, theirs = loss_and_gradients(in_pytorch(gpt2), ids, targets)
    assert loss == pytest.approx(their_loss, rel=1e-5)
    assert_gradients_near(grads, theirs, 1e-4)


def test_derivatives_are_a_tree_like_the_parameters() -> None:
    params = random_model(SHAPES[0]).params
    _, grads = gradients.gradients(*batch(SHAPES[0], "masked"), params, 3)
    assert type(grads) is Params
    assert [(name, array.shape) for name, array in named_arrays(grads)] == [
        (name, array.shape) for name, array in named_arrays(params)
    ]


# Dropout


def factors_of(drop: Dropout, hparams: HParams, n_batch: int, n_seq: int, dtype: str = "float64") -> list[Array]:
    """By what dropout multiplies, in the order of the forward pass."""
    vectors, weights = (n_batch, n_seq, hparams.n_embd), (n_batch, hparams.n_head, n_seq, n_seq)
    factors = [drop.within(0)(np.ones(vectors, dtype))]
    for i in range(hparams.n_layer):
        of_block = drop.within(i + 1)
        factors.append(of_block(np.ones(weights, dtype), forward.WEIGHTS))
        factors.append(of_block(np.ones(vectors, dtype), forward.ATTENTION_OUT))
        factors.append(of_block(np.ones(vectors, dtype), forward.MLP_OUT))
    return factors


@pytest.mark.parametrize("hparams", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["masked", "one text"])
@pytest.mark.parametrize("rate", [0.1, 0.6])
def test_dropout_has_the_same_masks_in_both_directions(hparams: HParams, kind: str, rate: float) -> None:
    gpt2, drop = random_model(hparams), Dropout(rate, (3, 4))
    ids, targets = batch(hparams, kind)
    factors = factors_of(drop, hparams, *ids.shape)
    assert all((factor == 0).any() and (factor > 1).any() for factor in factors)
    loss, grads = gradients.gradients(ids, targets, gpt2.params, hparams.n_head, drop=drop)
    with dropout_by(factors):
        their_loss, theirs = loss_and_gradients(in_pytorch(gpt2), ids, targets)
    assert loss == pytest.approx(their_loss, rel=1e-12)
    assert_gradients_near(grads, theirs)
    assert loss != pytest.approx(gradients.gradients(ids, targets, gpt2.params, hparams.n_head)[0], rel=1e-3)


def assert_identical(some: tuple[float, Any], others: tuple[float, Any]) -> None:
    assert some[0] == others[0]
    for array, other in zip(leaves(some[1]), leaves(others[1]), strict=True):
        np.testing.assert_array_equal(array, other)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("drop", [forward.NO_DROPOUT, Dropout(0.2)], ids=["no dropout", "dropout"])
@pytest.mark.parametrize("wanted", [EVERYTHING, Wanted(1, embeddings=False)], ids=["all", "some"])
def test_what_is_computed_again_is_the_same_bit_for_bit(dtype: str, drop: Dropout, wanted: Wanted) -> None:
    params = random_model(SHAPES[1], dtype).params
    ids, targets = batch(SHAPES[1], "masked")
    given = (ids, targets, params, 5)
    assert_identical(
        gradients.gradients(*given, drop=drop, sparing=True, wanted=wanted),
        gradients.gradients(*given, drop=drop, wanted=wanted),
    )


def test_with_sparing_each_block_is_computed_a_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise nothing would be spared."""
    gpt2, given, original = random_model(SHAPES[1]), batch(SHAPES[1], "masked"), forward.block
    calls = []

    def counted(*args: Any) -> Any:
        calls.append(args)
        return original(*args)

    monkeypatch.setattr(forward, "block", counted)
    gradients.gradients(*given, gpt2.params, 5)
    assert len(calls) == 3
    gradients.gradients(*given, gpt2.params, 5, sparing=True)
    assert len(calls) == 3 + 6
    gradients.gradients(*given, gpt2.params, 5, sparing=True, wanted=Wanted(2, embeddings=False))
    assert len(calls) == 3 + 6 + 4


# The last blocks only


@pytest.mark.parametrize("drop", [forward.NO_DROPOUT, Dropout(0.2)], ids=["no dropout", "dropout"])
@pytest.mark.parametrize("first_block", [0, 1, 2, 3])
def test_the_derivatives_of_the_last_blocks_are_those_of_the_whole(first_block: int, drop: Dropout) -> None:
    params = random_model(SHAPES[1]).params
    given = (*batch(SHAPES[1], "masked"), params, 5)
    loss, whole = gradients.gradients(*given, drop=drop)
    loss_of_some, some = gradients.gradients(*given, drop=drop, wanted=Wanted(first_block, embeddings=first_block == 0))
    assert loss_of_some == loss
    computed = [*leaves((some.h[first_block:], some.ln_f))]
    for array, other in zip(computed, leaves((whole.h[first_block:], whole.ln_f)), strict=True):
        np.testing.assert_array_equal(array, other)
    assert len(some.h) == 3
    if first_block == 0:
        np.testing.assert_array_equal(some.wte, whole.wte)
        np.testing.assert_array_equal(some.wpe, whole.wpe)
    else:
        assert_not_computed((some.wte, some.wpe), (params.wte, params.wpe))
        assert_not_computed(some.h[:first_block], params.h[:first_block])


def assert_not_computed(derivatives: Any, params: Any) -> None:
    """Zeros that take no memory and cannot be written to."""
    for array, parameter in zip(leaves(derivatives), leaves(params), strict=True):
        assert array.shape == parameter.shape
        assert array.dtype == parameter.dtype
        assert not array.any()
        assert set(array.strides) == {0}  # one number for all
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 1


@pytest.mark.parametrize("drop", [forward.NO_DROPOUT, Dropout(0.2)], ids=["no dropout", "dropout"])
def test_without_embeddings_the_other_derivatives_are_those_of_the_whole(drop: Dropout) -> None:
    params = random_model(SHAPES[1]).params
    given = (*batch(SHAPES[1], "masked"), params, 5)
    loss, whole = gradients.gradients(*given, drop=drop)
    loss_of_some, some = gradients.gradients(*given, drop=drop, wanted=Wanted(embeddings=False))
    assert_identical((loss_of_some, (some.h, some.ln_f)), (loss, (whole.h, whole.ln_f)))
    assert_not_computed((some.wte, some.wpe), (params.wte, params.wpe))


@pytest.mark.parametrize(
    "options",
    [{}, {"wanted": Wanted(1, embeddings=False)}, {"wanted": Wanted(embeddings=False)}, {"sparing": True}],
    ids=str,
)
def test_derivatives_are_added_to_those_of_a_call_before(options: dict[str, Any]) -> None:
    params = random_model(SHAPES[1]).params
    one, other = batch(SHAPES[1], "masked"), batch(SHAPES[1], "repeated ids")
    (_, of_one), (_, of_other) = (gradients.gradients(*each, params, 5, **options) for each in (one, other))
    expected = [x + y for x, y in zip(leaves(of_one), leaves(of_other), strict=True)]
    loss, total = gradients.gradients(*other, params, 5, **options, total=of_one)
    assert loss == gradients.gradients(*other, params, 5)[0]
    for array, begun, sums in zip(leaves(total), leaves(of_one), expected, strict=True):
        np.testing.assert_allclose(array, sums, rtol=1e-12, atol=1e-12)
        assert array is begun or not array.flags.writeable  # in the same memory


def learn(params: Params | None = None) -> tuple[float, Params]:
    return gradients.gradients(IDS, (IDS + 1) % 20, params or PARAMS, N_HEAD)


def test_gelu_and_its_derivatives_can_be_replaced_by_relu(monkeypatch: pytest.MonkeyPatch) -> None:
    gpt2 = random_model(SHAPES[1])
    ids, targets = batch(SHAPES[1], "masked")
    monkeypatch.setattr(layers, "gelu", lambda x: np.maximum(x, 0))
    monkeypatch.setattr(gradients, "gelu_backward", lambda x, d_y: np.where(x > 0, d_y, 0))
    loss, grads = gradients.gradients(ids, targets, gpt2.params, 5)
    peer = in_pytorch(gpt2)
    for block in peer.transformer.h:
        block.mlp.act = torch.nn.ReLU()
    their_loss, theirs = loss_and_gradients(peer, ids, targets)
    assert loss == pytest.approx(their_loss, rel=1e-12)
    assert_gradients_near(grads, theirs)


# What is refused

WHOLE_NUMBERS = r"must be whole numbers in the shape \[2, 5\]"
RANGE = "it must hold numbers from 0 to 19"


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"ids": IDS[0]}, r"ids must have the shape \[n_batch, n_seq\]: a single text is ids\[None\]"),
        ({"ids": IDS[None]}, r"ids must have the shape \[n_batch, n_seq\]: a single text is ids\[None\]"),
        ({"ids": IDS.astype(float)}, rf"ids {WHOLE_NUMBERS}, not float64 in the shape \[2, 5\]"),
        ({"ids": IDS + 19}, rf"ids holds \d+; {RANGE}"),
        ({"ids": np.insert(IDS[:, 1:], 0, -1, axis=1)}, f"ids holds -1; {RANGE}"),
        ({"ids": np.insert(IDS[:, 1:], 0, IGNORED, axis=1)}, f"ids holds -100; {RANGE}"),
        ({"targets": IDS[0]}, rf"targets {WHOLE_NUMBERS}, not int64 in the shape \[5\]"),
        ({"targets": IDS[:, :4]}, rf"targets {WHOLE_NUMBERS}, not int64 in the shape \[2, 4\]"),
        ({"targets": IDS[:1]}, rf"targets {WHOLE_NUMBERS}, not int64 in the shape \[1, 5\]"),
        ({"targets": IDS.astype(float)}, rf"targets {WHOLE_NUMBERS}, not float64 in the shape \[2, 5\]"),
        ({"targets": IDS + 19}, rf"targets holds \d+; {RANGE}, or -100 for one that does not count"),
        ({"targets": IDS - 20}, rf"targets holds -\d+; {RANGE}, or -100 for one that does not count"),
        (
            {"ids": np.zeros((1, 8), int), "targets": np.zeros((1, 8), int)},
            "8 tokens are too many for this model, whose context holds 7",
        ),
        ({"n_head": 5}, "n_head must divide n_embd, 12, and be that of the model; it is 5"),
        ({"n_head": 0}, "n_head must be a whole number, 1 or more, not 0"),
        ({"n_head": -3}, "n_head must be a whole number, 1 or more, not -3"),
    ],
)
def test_a_batch_from_which_the_model_cannot_learn(changed: dict[str, Any], expected: str) -> None:
    given = {"ids": IDS, "targets": IDS, "params": PARAMS, "n_head": N_HEAD, **changed}
    with pytest.raises(ValueError, match=f"^{expected}$"):
        gradients.gradients(**given)


def test_lists_are_a_batch_as_well() -> None:
    of_lists = gradients.gradients(IDS.tolist(), IDS.tolist(), PARAMS, N_HEAD)
    assert_identical(of_lists, gradients.gradients(IDS, IDS, PARAMS, N_HEAD))


def test_a_batch_as_long_as_the_context() -> None:
    ids = np.zeros((1, HPARAMS.n_ctx), int)
    assert gradients.gradients(ids, ids, PARAMS, N_HEAD)[0] > 0


class TestWhetherTheyAreWanted:
    def test_what_is_not_wanted_takes_no_memory_and_is_told_from_the_others(self) -> None:
        for array in leaves(gradients.unwanted(PARAMS)):
            assert not gradients.is_wanted(array)
        assert_not_computed(gradients.unwanted(PARAMS), PARAMS)
        for array in leaves(PARAMS):
            assert gradients.is_wanted(array)

    @pytest.mark.parametrize("shape", [(1,), (3,), (2, 3)])
    def test_derivatives_that_may_only_be_read_are_wanted(self, shape: tuple[int, ...]) -> None:
        array = np.zeros(shape)
        array.flags.writeable = False
        assert gradients.is_wanted(array)
        assert gradients.is_wanted(array.T)


def test_without_any_target_there_is_nothing_to_learn() -> None:
    with pytest.raises(ValueError, match="^there is nothing to learn: every target is -100, which does not count$"):
        gradients.gradients(IDS, np.full_like(IDS, IGNORED), PARAMS, N_HEAD)


def test_an_untrained_model_expects_every_token_alike() -> None:
    assert learn(init_params(HPARAMS))[0] == pytest.approx(math.log(20), rel=0.01)
