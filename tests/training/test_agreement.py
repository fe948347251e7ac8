"""Training refuses to learn with derivatives that are not those of what the model computes."""

from __future__ import annotations

from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import numpy as np
import pytest
from conftest import random_ids, random_model

import numpy_gpt2
from numpy_gpt2 import layers, model
from numpy_gpt2.params import HParams, Params
from numpy_gpt2.training import agreement, gradients
from numpy_gpt2.training.parallel import batch_gradients

HPARAMS = HParams(n_vocab=20, n_ctx=7, n_embd=12, n_head=3, n_layer=1)
PARAMS = random_model(HPARAMS).params
IDS = random_ids(HPARAMS, 2, 5)

REPLACEABLE = [
    *((layers, name) for name in ("softmax", "gelu", "layer_norm", "linear")),
    *((model, name) for name in ("embed", "output_head")),
]
ONE_BY_ONE = [
    *((layers, name) for name in ("attention", "split_heads", "merge_heads", "multi_head_attention", "mlp", "block")),
    *((model, name) for name in ("transformer", "logits")),
]


def learn() -> tuple[float, Params]:
    return gradients.gradients(IDS, (IDS + 1) % 20, PARAMS, HPARAMS.n_head)


def learn_in_threads() -> tuple[float, Params]:
    return batch_gradients(IDS, (IDS + 1) % 20, PARAMS, HPARAMS.n_head, n_threads=2)


def replaced(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> None:
    original = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *args: original(*args))


def ids_of(value: object) -> str:
    return value if isinstance(value, str) else ""


@pytest.mark.parametrize(("module", "name"), REPLACEABLE, ids=ids_of)
def test_a_replaced_function_whose_derivatives_were_not_replaced_is_refused(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    where = module.__name__.removeprefix("numpy_gpt2.")
    with monkeypatch.context() as patch:
        replaced(patch, module, name)
        advice = f"replace gradients.{name}_backward, too"
        for act in (learn, learn_in_threads):
            with pytest.raises(
                ValueError, match=f"^{where}.{name} was replaced, but its derivatives were not: {advice}$"
            ):
                act()
        replaced(patch, gradients, f"{name}_backward")
        learn()
        learn_in_threads()
    learn()


@pytest.mark.parametrize(("module", "name"), ONE_BY_ONE, ids=ids_of)
def test_a_function_whose_steps_are_computed_one_by_one_cannot_be_replaced(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    replaced(monkeypatch, module, name)
    if module is layers:
        replaced(monkeypatch, gradients, f"{name}_backward")
    where = module.__name__.removeprefix("numpy_gpt2.")
    for act in (learn, learn_in_threads):
        with pytest.raises(
            ValueError, match=f"^{where}.{name} was replaced, but training computes its steps one by one: "
        ):
            act()


@pytest.mark.usefixtures("compared_again")
def test_a_function_and_its_derivatives_that_do_not_belong_together_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(layers, "gelu", lambda x: np.maximum(x, 0))
    monkeypatch.setattr(gradients, "gelu_backward", lambda x, d_y: np.where(x > 0, 1.1 * d_y, 0))
    for _ in range(2):  # it is not taken for compared
        with pytest.raises(ValueError, match=f"^{DERIVATIVES}"):
            learn()


def test_within_a_trace_or_a_patch_nothing_is_learned() -> None:
    for context in (numpy_gpt2.trace(), numpy_gpt2.patch({"h0/mlp": lambda x: x})):
        with pytest.raises(ValueError, match="^a trace or a patch is active, .*: leave it first$"), context:
            learn()
        learn()


# An edited file

FORWARD = "`layers` or `model` computes something else than training does: change `training/forward.py`, "
DERIVATIVES = "the derivatives in `training/gradients.py` are not those of what `layers` and `model` compute: "


@pytest.fixture
def compared_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was compared is remembered for the process, and a file is edited before that."""
    monkeypatch.setattr(agreement, "_compared", set())


def edited(module: ModuleType, name: str, *changes: tuple[str, str]) -> CodeType:
    """The code of a function as it would be if the file of its module were edited."""
    assert module.__file__
    source = Path(module.__file__).read_text(encoding="utf-8")
    for before, after in changes:
        assert source.count(before) == 1
        source = source.replace(before, after)
    copy = ModuleType(module.__name__)
    copy.__package__ = module.__package__
    exec(compile(source, module.__file__, "exec"), copy.__dict__)
    code: CodeType = getattr(copy, name).__code__
    return code


PARALLEL = [
    ("    x = x + multi_head_attention(layer_norm(x, ", "    a = multi_head_attention(layer_norm(x, "),
    (
        "    x = x + mlp(layer_norm(x, params.ln_2), params.mlp)",
        "    x = x + a + mlp(layer_norm(x, params.ln_2), params.mlp)",
    ),
]


@pytest.mark.usefixtures("compared_again")
@pytest.mark.parametrize(
    ("module", "name", "changes", "expected"),
    [
        (layers, "gelu", [("0.044715 * x", "0.05 * x")], DERIVATIVES),
        (layers, "softmax", [("e = np.exp(x - ", "e = np.exp(0.5 * x - 0.5 * ")], DERIVATIVES),
        (layers, "log_softmax", [("    return x - np.log(", "    return x - 2 * np.log(")], DERIVATIVES),
        (layers, "layer_norm", [("np.sqrt(variance + 1e-5)", "np.sqrt(variance + 1e-3)")], DERIVATIVES),
        (
            layers,
            "linear",
            [("return product(x, params.w) + params.b", "return 2 * product(x, params.w) + params.b")],
            DERIVATIVES,
        ),
        (layers, "split_heads", [("n_embd // n_head), 1, 2)", "n_embd // n_head), 1, 2)[:, ::-1]")], DERIVATIVES),
        (layers, "attention", [("scores = (q / math.sqrt(q.shape[-1])) @", "scores = q @")], DERIVATIVES),
        (
            layers,
            "multi_head_attention",
            [("return linear(merge_heads(a), ", "return 2 * linear(merge_heads(a), ")],
            FORWARD,
        ),
        (
            layers,
            "mlp",
            [("return linear(hidden, params.c_proj)", "return linear(2 * hidden, params.c_proj)")],
            FORWARD,
        ),
        (layers, "block", PARALLEL, FORWARD),
        (model, "embed", [("x = params.wte[ids] + params.wpe", "x = params.wte[ids] + 2 * params.wpe")], DERIVATIVES),
        (
            model,
            "output_head",
            [("logits = product(x, params.wte.T)", "logits = 2 * product(x, params.wte.T)")],
            DERIVATIVES,
        ),
        (
            model,
            "transformer",
            [("    return layers.layer_norm(x, params.ln_f)", "    return 2 * layers.layer_norm(x, params.ln_f)")],
            FORWARD,
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isidentifier() else "",
)
def test_an_edited_function_whose_derivatives_are_as_they_were_is_refused(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, changes: list[tuple[str, str]], expected: str
) -> None:
    monkeypatch.setattr(getattr(module, name), "__code__", edited(module, name, *changes))
    for act in (learn, learn_in_threads, learn):
        with pytest.raises(ValueError, match=f"^{expected}"):
            act()


@pytest.mark.usefixtures("compared_again")
def test_a_function_that_is_written_in_another_way_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = ("(x + 0.044715 * x * x * x)", "x * (1 + 0.044715 * x * x)")
    monkeypatch.setattr(layers.gelu, "__code__", edited(layers, "gelu", changes))
    learn()


@pytest.mark.usefixtures("compared_again")
def test_a_function_and_its_derivatives_may_be_edited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers.gelu, "__code__", edited(layers, "gelu", ("0.5 * x * (1 + ", "x * (1 + ")))
    backward = ("dy_dx = 0.5 * (1 + t) + 0.5 * x", "dy_dx = 1 + t + x")
    monkeypatch.setattr(gradients.gelu_backward, "__code__", edited(gradients, "gelu_backward", backward))
    learn()


@pytest.mark.usefixtures("compared_again")
def test_it_is_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(agreement, "compare", lambda: calls.append(1))
    for _ in range(3):
        agreement.check()
    assert len(calls) == 1
    replaced(monkeypatch, layers, "gelu")
    replaced(monkeypatch, gradients, "gelu_backward")
    for _ in range(3):
        agreement.check()
    assert len(calls) == 2
