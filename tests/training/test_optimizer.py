"""Steps against PyTorch: clipping, AdamW in float64, the learning rate; and whole runs of a small model."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from conftest import DTYPES, SHAPES, in_pytorch, random_ids, random_model
from in_torch import assert_near, named_parameters, training_loss

from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.params import Array, HParams, Params, init_params, named_arrays, replace
from numpy_gpt2.training.gradients import Wanted, gradients
from numpy_gpt2.training.optimizer import AdamW, Muon, clip_by_global_norm, learning_rate, orthogonalized
from numpy_gpt2.training.parallel import batch_gradients

torch = pytest.importorskip("torch")

HPARAMS = SHAPES[1]
N_HEAD = HPARAMS.n_head
LAST_BLOCK = Wanted(2, embeddings=False)
RATES = [1e-3, 5e-3, 1e-2, 2e-2, 1e-2, 0.0, 3e-2, 1e-3, 1e-4, 1e-1]


def copied(params: Params) -> Params:
    return replace(params, {name: array.copy() for name, array in named_arrays(params)})


def random_gradients(params: Params, step: int) -> Params:
    """Of very different sizes, and some 0."""
    rng = np.random.default_rng(step)
    arrays = {
        name: (rng.normal(0, 10.0 ** rng.integers(-6, 3), a.shape) * (rng.random(a.shape) < 0.9)).astype(a.dtype)
        for name, a in named_arrays(params)
    }
    return replace(params, arrays)


def adamw_in_torch(named: dict[str, Any], **options: Any) -> Any:
    """AdamW of tensors by name: decay on embeddings and weights, not on biases and gains."""
    decay = options.pop("weight_decay", 0.1)
    matrices = [tensor for name, tensor in named.items() if name in ("wte", "wpe") or name.endswith("/w")]
    vectors = [tensor for name, tensor in named.items() if name.endswith(("/b", "/g"))]
    assert len(matrices) + len(vectors) == len(named)
    groups = [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, **{"betas": (0.9, 0.95), "eps": 1e-8, **options})


def step_in_torch(optimizer: Any, named: dict[str, Any], grads: dict[str, Array], rate: float) -> None:
    for name, tensor in named.items():
        tensor.grad = torch.tensor(grads[name])
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()


def tensors(params: Params) -> dict[str, Any]:
    return {name: torch.tensor(array, requires_grad=True) for name, array in named_arrays(params)}


class TestAdamW:
    @pytest.mark.parametrize(
        ("ours", "theirs"),
        [
            ({}, {}),
            ({"beta1": 0.8, "beta2": 0.999}, {"betas": (0.8, 0.999)}),
            ({"eps": 0.1, "weight_decay": 0.0}, {"eps": 0.1, "weight_decay": 0.0}),
            ({"weight_decay": 1.5}, {"weight_decay": 1.5}),
        ],
        ids=["defaults", "betas", "eps", "decay"],
    )
    @pytest.mark.parametrize("n_threads", [1, 2])
    def test_ten_steps_are_those_of_pytorch(self, ours: dict[str, Any], theirs: dict[str, Any], n_threads: int) -> None:
        params = random_model(HPARAMS).params
        named, optimizer = tensors(params), AdamW(params, **ours)
        peer = adamw_in_torch(named, **theirs)
        for step, rate in enumerate(RATES):
            grads = random_gradients(params, step)
            optimizer.update(params, grads, rate, n_threads)
            step_in_torch(peer, named, dict(named_arrays(grads)), rate)
            for name, array in named_arrays(params):
                assert_near(array, named[name].detach().numpy(), 1e-13, f"{name} after step {step}")
        assert optimizer.n_updates == 10
        for name, tensor in named.items():
            assert_near(optimizer.m[name], peer.state[tensor]["exp_avg"].numpy(), 1e-13)
            assert_near(optimizer.v[name], peer.state[tensor]["exp_avg_sq"].numpy(), 1e-13)

    def test_the_first_step_goes_as_far_as_the_learning_rate(self) -> None:
        params = random_model(HPARAMS).params
        before, grads = copied(params), random_gradients(params, 0)
        AdamW(params, weight_decay=0.0, eps=1e-30).update(params, grads, 0.01)
        for now, old, g in zip(*(dict(named_arrays(tree)).values() for tree in (params, before, grads)), strict=True):
            np.testing.assert_allclose(old - now, 0.01 * np.sign(g), atol=1e-14)

    def test_with_gradients_of_the_model_itself(self) -> None:
        """Each side computes its own, from its own parameters."""
        gpt2 = random_model(HPARAMS)
        ids, targets = random_ids(HPARAMS, 3, 9), random_ids(HPARAMS, 3, 9, seed=1)
        peer = in_pytorch(gpt2)
        named, optimizer = dict(named_parameters(peer)), AdamW(gpt2.params)
        their_optimizer = adamw_in_torch(named)
        for rate in RATES:
            loss, grads = gradients(ids, targets, gpt2.params, N_HEAD)
            optimizer.update(gpt2.params, grads, rate)
            their_optimizer.zero_grad()
            their_loss = training_loss(peer, ids, targets)
            their_loss.backward()
            for group in their_optimizer.param_groups:
                group["lr"] = rate
            their_optimizer.step()
            assert loss == pytest.approx(their_loss.item(), rel=1e-9)
        for name, array in named_arrays(gpt2.params):
            assert_near(array, named[name].detach().numpy(), 1e-8, name)

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("n_threads", [1, 2, 3])
    def test_arrays_longer_than_a_part_and_given_by_name(self, dtype: str, n_threads: int) -> None:
        rng = np.random.default_rng(0)
        shapes = {"wte": (401, 331), "a/w": (7, 11), "a/b": (66_000,)}
        arrays = {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}
        named = {name: torch.tensor(array, requires_grad=True) for name, array in arrays.items()}
        optimizer, peer = AdamW(arrays), adamw_in_torch(named)
        for rate in RATES[:3]:
            grads = {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}
            optimizer.update(arrays, grads, rate, n_threads)
            step_in_torch(peer, named, grads, rate)
        for name, array in arrays.items():
            assert_near(array, named[name].detach().numpy(), {"float32": 1e-6, "float64": 1e-13}[dtype], name)

    def test_any_number_of_threads_gives_the_same_numbers(self) -> None:
        trees = [random_model(SHAPES[0], "float32").params for _ in range(3)]
        for n_threads, params in enumerate(trees, 1):
            optimizer = AdamW(params)
            for step in range(3):
                optimizer.update(params, random_gradients(params, step), 0.01, n_threads)
        for one, *others in zip(*(dict(named_arrays(params)).values() for params in trees), strict=True):
            for other in others:
                np.testing.assert_array_equal(one, other)

    def test_parameters_that_are_not_given_at_first_stay(self) -> None:
        """As the blocks before the first one that is trained."""
        gpt2 = random_model(HPARAMS)
        before = dict(named_arrays(copied(gpt2.params)))
        names = [name for name in before if name.startswith(("h2/", "ln_f/"))]
        optimizer = AdamW({name: array for name, array in named_arrays(gpt2.params) if name in names})
        assert [*optimizer.m] == [*optimizer.v] == names
        ids = random_ids(HPARAMS, 2, 9)
        named = {name: torch.tensor(before[name], requires_grad=True) for name in names}
        peer = adamw_in_torch(named)
        for rate in RATES:
            _, grads = batch_gradients(ids, ids[:, ::-1], gpt2.params, N_HEAD, wanted=LAST_BLOCK)
            optimizer.update(gpt2.params, grads, rate)
            step_in_torch(peer, named, dict(named_arrays(grads)), rate)
        for name, array in named_arrays(gpt2.params):
            if name in names:
                assert_near(array, named[name].detach().numpy(), 1e-12, name)
                assert not np.array_equal(array, before[name])
            else:
                np.testing.assert_array_equal(array, before[name], err_msg=name)

    @pytest.mark.parametrize("n_threads", [1, 2])
    def test_parameters_whose_derivatives_are_not_wanted_stay(self, n_threads: int) -> None:
        """They do not decay either."""
        gpt2, ids = random_model(HPARAMS), random_ids(HPARAMS, 2, 9)
        before, optimizer = dict(named_arrays(copied(gpt2.params))), AdamW(gpt2.params, weight_decay=0.5)
        for rate in RATES[:3]:
            _, grads = batch_gradients(ids, ids[:, ::-1], gpt2.params, N_HEAD, n_threads, wanted=LAST_BLOCK)
            optimizer.update(gpt2.params, grads, rate, n_threads)
        changed = {name for name, array in named_arrays(gpt2.params) if (array != before[name]).any()}
        assert changed == {name for name in before if name.startswith(("h2/", "ln_f/"))}

    def test_derivatives_that_may_only_be_read_count_as_any_others(self) -> None:
        """They must not be taken for those that are not wanted."""
        params, others = random_model(HPARAMS).params, random_model(HPARAMS).params
        grads = random_gradients(params, 0)
        AdamW(others).update(others, grads, 0.1)
        norm = clip_by_global_norm(grads, math.inf)
        for _, array in named_arrays(grads):
            array.flags.writeable = False
        AdamW(params).update(params, grads, 0.1)
        for (name, array), (_, other) in zip(named_arrays(params), named_arrays(others), strict=True):
            np.testing.assert_array_equal(array, other, err_msg=name)
        assert clip_by_global_norm(grads, math.inf) == norm > 0

    def test_an_array_in_another_order_of_memory_is_changed_or_refused(self) -> None:
        params = random_model(HPARAMS).params
        params = replace(params, {"h0/mlp/c_fc/w": np.asfortranarray(params.h[0].mlp.c_fc.w)})
        before = params.h[0].mlp.c_fc.w.copy()
        try:
            AdamW(params).update(params, random_gradients(params, 0), 0.1)
        except ValueError:
            return
        assert not np.array_equal(params.h[0].mlp.c_fc.w, before)

    def test_gradients_are_not_changed(self) -> None:
        params = random_model(HPARAMS).params
        grads = random_gradients(params, 0)
        before = copied(grads)
        AdamW(params).update(params, grads, 0.1)
        for array, old in zip(dict(named_arrays(grads)).values(), dict(named_arrays(before)).values(), strict=True):
            np.testing.assert_array_equal(array, old)


def by_singular_values(x: Array) -> Array:
    """What five iterations of Newton and Schulz do, to each singular value alone."""
    u, s, v = np.linalg.svd(x, full_matrices=False)
    s = s / (np.sqrt(np.sum(s * s)) + 1e-7)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return (u * s) @ v


class TestOrthogonalized:
    @pytest.mark.parametrize("shape", [(6, 6), (4, 16), (16, 4), (1, 5)])
    def test_only_the_singular_values_change(self, shape: tuple[int, int]) -> None:
        x = np.random.default_rng(0).normal(size=shape)
        found = orthogonalized(1e-3 * x)
        np.testing.assert_allclose(found, by_singular_values(1e-3 * x), atol=1e-12)
        np.testing.assert_allclose(found, orthogonalized(x), atol=1e-3)  # the length does not matter
        lengths = np.linalg.svd(found, compute_uv=False)
        assert lengths.min() > 0.6
        assert lengths.max() < 1.25

    def test_a_small_direction_becomes_as_long_as_the_others(self) -> None:
        x = np.diag([1.0, 0.1, 0.01])
        assert np.linalg.svd(orthogonalized(x), compute_uv=False).min() > 0.6

    def test_float32_stays_and_zeros_stay_zeros(self) -> None:
        assert orthogonalized(np.ones((2, 3), np.float32)).dtype == np.float32
        assert not orthogonalized(np.zeros((2, 3))).any()


class TestMuon:
    def test_ten_steps_of_a_matrix_are_those_of_pytorch(self) -> None:
        """As nearly as PyTorch computes: it orthogonalizes in bfloat16, with two to three digits."""
        rng = np.random.default_rng(0)
        named = {"h0/mlp/c_fc/w": rng.normal(size=(8, 32)), "h0/mlp/c_proj/w": rng.normal(size=(32, 8))}
        peers = [torch.tensor(array, requires_grad=True) for array in named.values()]
        peer = torch.optim.Muon(peers, momentum=0.9, weight_decay=0.3, adjust_lr_fn="match_rms_adamw")
        before = {name: array.copy() for name, array in named.items()}
        optimizer = Muon(named, momentum=0.9, weight_decay=0.3)
        for _ in range(10):
            grads = {name: rng.normal(size=array.shape) for name, array in named.items()}
            optimizer.update(named, grads, 0.02)
            for tensor, grad in zip(peers, grads.values(), strict=True):
                tensor.grad = torch.tensor(grad)
            for group in peer.param_groups:
                group["lr"] = 0.02
            peer.step()
        for (name, array), tensor in zip(named.items(), peers, strict=True):
            moved = array - before[name]
            assert np.linalg.norm(array - tensor.detach().numpy()) < 0.01 * np.linalg.norm(moved)

    @pytest.mark.parametrize("n_threads", [1, 2])
    def test_each_part_of_a_model_is_updated_by_its_own_rule(self, n_threads: int) -> None:
        params = random_model(HPARAMS).params
        expected, of_adamw = dict(named_arrays(copied(params))), copied(params)
        optimizer, adamw = Muon(params, weight_decay=0.2), AdamW(params, weight_decay=0.2)
        means = {name: np.zeros_like(array) for name, array in expected.items()}
        for step, rate in enumerate(RATES):
            grads = random_gradients(params, step)
            optimizer.update(params, grads, rate, n_threads)
            adamw.update(of_adamw, grads, rate)
            for name, g in named_arrays(grads):
                if name not in optimizer.matrices:
                    continue
                means[name] = 0.95 * means[name] + 0.05 * g
                parts = np.split(0.95 * means[name] + 0.05 * g, 3 if "c_attn" in name else 1, axis=1)
                scale = 0.2 * math.sqrt(max(parts[0].shape))
                u = np.concatenate([by_singular_values(part) for part in parts], axis=1)
                expected[name] = (1 - 0.2 * rate) * expected[name] - rate * scale * u
        alone = dict(named_arrays(of_adamw))
        for name, array in named_arrays(params):
            if name in optimizer.matrices:
                np.testing.assert_allclose(array, expected[name], rtol=1e-9, atol=1e-12)
            else:
                np.testing.assert_array_equal(array, alone[name])
        assert len(optimizer.matrices) == 4 * HPARAMS.n_layer
        assert {*optimizer.matrices} | {*optimizer.v} == {*optimizer.m}
        assert not {*optimizer.matrices} & {*optimizer.v}

    def test_what_is_not_wanted_stays(self) -> None:
        params = random_model(HPARAMS).params
        before = copied(params)
        optimizer = Muon(params)
        ids, targets = random_ids(HPARAMS, 2, 6), random_ids(HPARAMS, 2, 6, seed=1)
        _, grads = gradients(ids, targets, params, N_HEAD, wanted=LAST_BLOCK)
        optimizer.update(params, grads, 0.01)
        for (name, array), (_, old) in zip(named_arrays(params), named_arrays(before), strict=True):
            assert np.array_equal(array, old) == (not name.startswith(("h2/", "ln_f/")))


class TestClipping:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("n_threads", [1, 3])
    def test_against_pytorch(self, dtype: str, n_threads: int) -> None:
        """PyTorch adds 1e-6 to the norm, which is about 2000 here."""
        params = random_model(HPARAMS, dtype).params
        grads = random_gradients(params, 1)
        named = tensors(params)
        for name, array in named_arrays(grads):
            named[name].grad = torch.tensor(array)
        norm = torch.nn.utils.clip_grad_norm_(named.values(), 0.7).item()
        assert norm > 500
        rel = {"float32": 1e-5, "float64": 1e-12}[dtype]
        assert clip_by_global_norm(grads, 0.7, n_threads) == pytest.approx(norm, rel=rel)
        for name, array in named_arrays(grads):
            assert_near(array, named[name].grad.numpy(), max(rel, 1e-8), name)
        assert clip_by_global_norm(grads, 1.0) == pytest.approx(0.7, rel=rel)

    @pytest.mark.parametrize("highest", [5.0, 5.1, math.inf])
    def test_what_is_short_enough_stays(self, highest: float) -> None:
        grads = {"a": np.array([3.0, 0.0]), "b": np.array([[4.0]])}
        assert clip_by_global_norm(grads, highest) == 5
        assert grads["a"].tolist() == [3, 0]
        assert grads["b"].tolist() == [[4]]

    @pytest.mark.parametrize(("odd", "norm"), [(math.nan, math.nan), (math.inf, math.inf), (-math.inf, math.inf)])
    def test_what_is_not_finite_is_said_and_nothing_is_changed(self, odd: float, norm: float) -> None:
        grads = {"a": np.array([3.0, odd]), "b": np.array([[4.0]])}
        assert clip_by_global_norm(grads, 1.0) == pytest.approx(norm, nan_ok=True)
        np.testing.assert_array_equal(grads["a"], [3, odd])
        assert grads["b"].tolist() == [[4]]

    def test_derivatives_that_are_not_computed_stay_as_they_are(self) -> None:
        gpt2, ids = random_model(HPARAMS), random_ids(HPARAMS, 2, 9)
        _, grads = gradients(ids, ids, gpt2.params, N_HEAD, wanted=LAST_BLOCK)
        expected = math.sqrt(sum(float((array**2).sum()) for _, array in named_arrays(grads)))
        assert clip_by_global_norm(grads, expected / 2) == pytest.approx(expected, rel=1e-12)
        assert not grads.wte.any()
        assert clip_by_global_norm(grads, 1e9) == pytest.approx(expected / 2, rel=1e-12)

    def test_arrays_longer_than_a_part(self) -> None:
        grads = {"a": np.full((300, 300), 2.0)}
        assert clip_by_global_norm(grads, 60.0, n_threads=2) == 600
        np.testing.assert_allclose(grads["a"], 0.2, rtol=1e-15)


class TestLearningRate:
    def test_it_rises_in_equal_parts_to_the_highest(self) -> None:
        rates = [learning_rate(step, 100, 0.5, 0.1, 10) for step in range(11)]
        np.testing.assert_allclose(rates, [*(0.05 * np.arange(1, 11)), 0.5], rtol=1e-15)

    def test_it_falls_like_the_cosine_of_pytorch_to_the_lowest(self) -> None:
        peer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(peer, T_max=90, eta_min=0.1)
        for step in range(10, 101):
            assert learning_rate(step, 100, 0.5, 0.1, 10) == pytest.approx(schedule.get_last_lr()[0], rel=1e-9)
            peer.step()
            schedule.step()
        assert learning_rate(55, 100, 0.5, 0.1, 10) == pytest.approx(0.3)
        assert learning_rate(100, 100, 0.5, 0.1, 10) == 0.1

    @pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 1), (5, 5), (5, 9), (9, 0), (9, 8)])
    def test_short_runs(self, steps: int, warmup: int) -> None:
        rates = [learning_rate(step, steps, 0.5, 0.1, warmup) for step in range(steps)]
        assert all(0 < rate <= 0.5 for rate in rates)
        assert rates[0] == (0.5 / warmup if warmup else 0.5)
        peak = rates.index(max(rates))
        assert rates[: peak + 1] == sorted(rates[: peak + 1])
        assert rates[peak:] == sorted(rates[peak:], reverse=True)

    def test_it_can_stay(self) -> None:
        assert {learning_rate(step, 7, 0.5, 0.5, 0) for step in range(7)} == {0.5}


# Whole runs

SMALL = HParams(n_vocab=50, n_ctx=16, n_embd=32, n_head=4, n_layer=2)


def test_a_batch_is_learned_by_heart() -> None:
    params = init_params(SMALL)
    text = random_ids(SMALL, 4, 17)
    ids, targets = text[:, :-1], text[:, 1:]
    optimizer, loss = AdamW(params), math.inf
    for step in range(120):
        loss, grads = batch_gradients(ids, targets, params, SMALL.n_head)
        if step == 0:
            assert loss == pytest.approx(math.log(50), rel=0.02)
        clip_by_global_norm(grads, 1.0)
        optimizer.update(params, grads, learning_rate(step, 120, 2e-2, 2e-3, 5))
    assert loss < 0.01
    learned = GPT2(SMALL, params, tokenizer=None, name="by heart")
    assert learned.logits(ids).argmax(axis=-1).tolist() == targets.tolist()


def test_forty_steps_in_float32_are_those_of_pytorch() -> None:
    """From the same start, on the same batches; each side with its own gradients, clipping and AdamW."""
    gpt2 = GPT2(SMALL, init_params(SMALL), tokenizer=None, name="new")
    peer = in_pytorch(gpt2)
    named, optimizer = dict(named_parameters(peer)), AdamW(gpt2.params)
    their_optimizer = adamw_in_torch(named)
    losses = []
    for step in range(40):
        text = (random_ids(SMALL, 8, 1, seed=step) + 7 * np.arange(17)) % SMALL.n_vocab  # there is a rule to learn
        rate = learning_rate(step, 40, 1e-2, 1e-3, 5)
        loss, grads = batch_gradients(text[:, :-1], text[:, 1:], gpt2.params, SMALL.n_head, n_threads=2)
        norm = clip_by_global_norm(grads, 0.5)
        optimizer.update(gpt2.params, grads, rate)

        their_optimizer.zero_grad()
        their_loss = training_loss(peer, text[:, :-1], text[:, 1:])
        their_loss.backward()
        their_norm = torch.nn.utils.clip_grad_norm_(peer.parameters(), 0.5)
        for group in their_optimizer.param_groups:
            group["lr"] = rate
        their_optimizer.step()
        assert abs(loss - their_loss.item()) < 1e-5
        assert norm == pytest.approx(their_norm.item(), rel=1e-3)
        losses.append(loss)
    assert losses[-1] < losses[0] / 2
    assert gpt2.params.wte.dtype == np.float32
