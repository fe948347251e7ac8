"""The watcher names what a layer computes, however that is written, and before it is used."""

from __future__ import annotations

import contextlib
import functools
import gc
import inspect
import sys
import textwrap
import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from by_hand import part_names
from conftest import SHAPES, random_ids, random_model

import numpy_gpt2
from numpy_gpt2 import layers, model
from numpy_gpt2.decoding import prefill
from numpy_gpt2.inside.patches import scale, zero
from numpy_gpt2.inside.statements import statements
from numpy_gpt2.inside.watcher import Observer, Pass, Seen, observed_by
from numpy_gpt2.params import Array

HPARAMS = SHAPES[1]
IDS = random_ids(HPARAMS, 2, 5)
GPT2 = random_model(HPARAMS)
PLAIN = GPT2.logits(IDS)

gelu, linear, softmax = layers.gelu, layers.linear, layers.softmax  # a learner may import them


class Names(Observer):
    """Notes what is seen: all names, or those that begin in one way; and second names with the first."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.passes: list[Pass] = []
        self.seen: list[Seen] = []

    def begin_pass(self, begun: Pass) -> None:
        self.passes.append(begun)

    def see(self, seen: Seen) -> None:
        if seen.name.startswith(self.prefix):
            self.seen.append(seen)

    @property
    def names(self) -> list[str]:
        return [
            seen.name.removeprefix(self.prefix)
            + (f" is {seen.first_name.removeprefix(self.prefix)}" if seen.first_name else "")
            for seen in self.seen
        ]


def names(prefix: str = "h1/mlp", ids: Array = IDS) -> list[str]:
    with observed_by(observer := Names(prefix)):
        GPT2.logits(ids)
    return observer.names


# Layers as a learner may write them: instead of `layers.mlp`, with the names that there are in it.


def assigned_and_returned(x: Array, params: Any) -> Array:
    hidden = gelu(linear(x, params.c_fc))
    out = linear(hidden, params.c_proj) * 2
    return out


def returned_later(x: Array, params: Any) -> Array:
    out = linear(gelu(linear(x, params.c_fc)), params.c_proj) * 2
    assert out.ndim == 3
    return out


def one_expression(x: Array, params: Any) -> Array:
    return linear(gelu(linear(x, params.c_fc)), params.c_proj)


def in_lines(x: Array, params: Any) -> Array:
    hidden = gelu(
        linear(
            x,
            params.c_fc,
        )
    )
    (
        first,
        *rest,
    ) = np.split(hidden, [10, 20], axis=-1)
    out = np.concatenate(
        [
            first,
            *rest,
        ],
        axis=-1,
    )
    return linear(
        out,
        params.c_proj,
    )


def in_place(x: Array, params: Any) -> Array:
    hidden = linear(x, params.c_fc)
    hidden *= 2
    hidden += 1
    out = linear(hidden, params.c_proj)
    out += x
    return out


def in_part(x: Array, params: Any) -> Array:
    hidden = gelu(linear(x, params.c_fc))
    hidden[..., 3] = 0
    hidden[..., 4] *= 2
    np.copyto(hidden, 0.0, where=hidden < -1)
    np.copyto(dst=hidden, src=1.0, where=hidden > 5)
    return linear(hidden, params.c_proj)


def part_in_part(x: Array, params: Any) -> Array:
    hidden = linear(x, params.c_fc)
    hidden[..., 3] = 0
    return linear(gelu(hidden), params.c_proj)


def in_part_in_a_branch(x: Array, params: Any) -> Array:
    if x.ndim == 3:
        hidden = gelu(linear(x, params.c_fc))
        if x.ndim > 2:
            hidden[..., 3] = 0
    else:
        hidden = x
    if x.ndim > 1:
        hidden[..., 4] = 0
    return linear(hidden, params.c_proj)


def in_part_in_a_loop(x: Array, params: Any) -> Array:
    hidden = gelu(linear(x, params.c_fc))
    for i in range(3):
        hidden[..., i] = i
    while hidden[..., 3].any():
        hidden[..., 3] = 0
    return linear(hidden, params.c_proj)


def a_loop(x: Array, params: Any) -> Array:
    hidden = np.tile(x, 4)
    for i in range(2):
        hidden = hidden + i
        doubled = hidden * 2
    return linear(doubled, params.c_proj)


def a_loop_that_returns(x: Array, params: Any) -> Array:
    out = x
    for i in range(2):
        out = out * 2 + i
    return out


def a_loop_that_is_left(x: Array, params: Any) -> Array:
    for _ in range(2):
        out = linear(gelu(linear(x, params.c_fc)), params.c_proj) + 1
        break
    out[..., 0] = 0
    return out


def branches(x: Array, params: Any) -> Array:
    if x.ndim == 3:
        hidden = gelu(linear(x, params.c_fc))
        out = linear(hidden, params.c_proj) * 2
    else:
        out = x * 0
    return out


def an_early_return(x: Array, params: Any) -> Array:
    hidden = gelu(linear(x, params.c_fc))
    if x.ndim == 3:
        return linear(hidden, params.c_proj)
    return x


def other_statements(x: Array, params: Any) -> Array:
    hidden: Any = gelu(linear(x, params.c_fc))
    with contextlib.nullcontext():
        try:
            more = hidden + 1
            raise ZeroDivisionError
        except ZeroDivisionError:
            less = more - 0.5
        finally:
            last = less * 2
    match last.ndim:
        case 3:
            out = linear(last, params.c_proj) * 3
    return out


def an_exception_in_a_statement(x: Array, params: Any) -> Array:
    hidden = gelu(linear(x, params.c_fc))
    with contextlib.suppress(ValueError):
        hidden = hidden @ hidden
    return linear(hidden, params.c_proj)


def deleted(x: Array, params: Any) -> Array:
    hidden = gelu(linear(x, params.c_fc))
    out = linear(hidden, params.c_proj) * 2
    twice = out * 2
    del twice, hidden
    return out


def a_walrus(x: Array, params: Any) -> Array:
    return linear((hidden := gelu(linear(x, params.c_fc))), params.c_proj) + hidden.mean()


def a_comprehension(x: Array, params: Any) -> Array:
    hidden = np.stack([gelu(row) for row in (row for row in linear(x, params.c_fc))])
    return linear(hidden, params.c_proj)


def a_closure(x: Array, params: Any) -> Array:
    def inner(y: Array) -> Array:
        z = y * 2
        return z

    hidden = inner(linear(x, params.c_fc))
    out = (lambda y: y + 1)(hidden)
    return linear(out, params.c_proj)


def an_alias(x: Array, params: Any) -> Array:
    hidden = gelu(linear(x, params.c_fc))
    kept = hidden
    same = kept
    return linear(same, params.c_proj)


def views_of_its_input(x: Array, params: Any) -> Array:
    same = x
    part = x[..., :5]
    hidden = np.concatenate([same, part, part] * 2, axis=-1)
    return linear(hidden, params.c_proj)


def its_own_parameters(x: Array, params: Any) -> Array:
    w, b = params.c_proj.w, params.c_proj.b
    turned = w.T
    hidden = gelu(linear(x, params.c_fc))
    return hidden @ turned.T + b


def called_twice_in_a_line(x: Array, params: Any) -> Array:
    return linear(gelu(linear(x, params.c_fc) + linear(x * 2, params.c_fc)), params.c_proj)


def one_function_within_the_same(x: Array, params: Any) -> Array:
    hidden = softmax(softmax(linear(x, params.c_fc)))
    return linear(hidden, params.c_proj)


def one_function_within_another(x: Array, params: Any) -> Array:
    hidden = np.tanh(softmax(linear(x, params.c_fc)))
    softmax(hidden)
    return linear(hidden, params.c_proj)


def small_numbers(x: Array, params: Any) -> Array:
    largest = np.max(x)
    zeroth = np.array(2.0)
    return linear(gelu(linear(x / largest, params.c_fc)), params.c_proj) * zeroth


def a_part_of_two_parts(x: Array, params: Any) -> Array:
    a, b = linear(gelu(linear(x, params.c_fc)), params.c_proj), linear(np.tile(x, 4), params.c_proj)
    return a + b


SHOWN: dict[Callable[..., Any], list[str]] = {
    layers.mlp: ["/c_fc", "/hidden", "/c_proj", " is /c_proj"],
    assigned_and_returned: ["/c_fc", "/hidden", "/c_proj", ""],
    returned_later: ["/c_fc", "/c_proj", "/out", " is /out"],
    one_expression: ["/c_fc", "/c_proj", " is /c_proj"],
    in_lines: ["/c_fc", "/hidden", "/first", "/out", "/c_proj", " is /c_proj"],
    in_place: ["/c_fc", "/hidden", "/hidden_2", "/c_proj", ""],
    in_part: ["/c_fc", "/hidden", "/c_proj", " is /c_proj"],
    part_in_part: ["/c_fc", "/hidden is /c_fc", "/c_proj", " is /c_proj"],
    in_part_in_a_branch: ["/c_fc", "/hidden", "/c_proj", " is /c_proj"],
    in_part_in_a_loop: ["/c_fc", "/hidden", "/c_proj", " is /c_proj"],
    a_loop: ["/hidden", "/hidden_2", "/doubled", "/hidden_3", "/doubled_2", "/c_proj", " is /c_proj"],
    a_loop_that_returns: ["/out", "/out_2", " is /out_2"],
    a_loop_that_is_left: ["/c_fc", "/c_proj", ""],
    branches: ["/c_fc", "/hidden", "/c_proj", ""],
    an_early_return: ["/c_fc", "/hidden", "/c_proj", " is /c_proj"],
    other_statements: ["/c_fc", "/hidden", "/more", "/less", "/last", "/c_proj", ""],
    an_exception_in_a_statement: ["/c_fc", "/hidden", "/c_proj", " is /c_proj"],
    deleted: ["/c_fc", "/hidden", "/c_proj", "/out", "/twice", " is /out"],
    a_walrus: ["/c_fc", "/c_proj", ""],
    a_comprehension: ["/c_fc", "/hidden", "/c_proj", " is /c_proj"],
    a_closure: ["/c_fc", "/hidden", "/out", "/c_proj", " is /c_proj"],
    an_alias: ["/c_fc", "/hidden", "/kept is /hidden", "/same is /hidden", "/c_proj", " is /c_proj"],
    views_of_its_input: ["/hidden", "/c_proj", " is /c_proj"],
    its_own_parameters: ["/c_fc", "/hidden", ""],
    called_twice_in_a_line: ["/c_fc", "/c_fc_2", "/c_proj", " is /c_proj"],
    one_function_within_the_same: ["/c_fc", "/e", "/e_2", "/e_3", "/hidden", "/c_proj", " is /c_proj"],
    one_function_within_another: ["/c_fc", "/e", "/e_2", "/hidden", "/e_3", "/e_4", "/c_proj", " is /c_proj"],
    small_numbers: ["/zeroth", "/c_fc", "/c_proj", ""],
    a_part_of_two_parts: ["/c_fc", "/c_proj", "/c_proj_2", ""],
}


@pytest.mark.parametrize("mlp", SHOWN, ids=lambda function: function.__name__)
def test_the_names_in_a_layer(mlp: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "mlp", mlp)
    assert names() == SHOWN[mlp]


@pytest.mark.parametrize("mlp", SHOWN, ids=lambda function: function.__name__)
def test_a_change_by_any_of_these_names_has_an_effect(mlp: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Afterwards, the parameters are what they were."""
    monkeypatch.setattr(layers, "mlp", mlp)
    plain = GPT2.logits(IDS)
    for name in SHOWN[mlp]:
        name = name.split(" ")[0]
        with numpy_gpt2.patch({f"h1/mlp{name}": lambda x: np.cos(x) + 2}):
            changed = GPT2.logits(IDS)
        if name not in ("/twice", "/doubled", "/e_3", "/e_4"):  # which nothing uses
            assert not np.allclose(changed, plain), name
        np.testing.assert_array_equal(GPT2.logits(IDS), plain)


@pytest.mark.parametrize("mlp", [in_part, part_in_part, in_part_in_a_branch, in_part_in_a_loop, a_loop_that_is_left])
def test_a_trace_has_the_last_value_of_an_array_that_was_changed_in_part(
    mlp: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "mlp", mlp)
    with numpy_gpt2.trace() as t:
        GPT2.logits(IDS)
    if mlp is a_loop_that_is_left:
        assert (t["h1/mlp"][..., 0] == 0).all()
    else:
        x = t["h1/mlp/hidden"]
        made = linear(gelu(x) if mlp is part_in_part else x, GPT2.params.h[1].mlp.c_proj)
        np.testing.assert_array_equal(made, t["h1/mlp"])
        assert (x[..., 3 if mlp is not in_part_in_a_loop else 0] == 0).all()


def test_a_pattern_is_applied_once_to_an_array_with_several_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "mlp", an_alias)
    with numpy_gpt2.trace("h1/mlp/*") as t, numpy_gpt2.patch({"h1/mlp/[hks]*": scale(2)}):
        GPT2.logits(IDS)
    np.testing.assert_array_equal(t["h1/mlp/hidden"], 2 * gelu(t["h1/mlp/c_fc"]))
    assert t["h1/mlp/same"] is t["h1/mlp/kept"] is t["h1/mlp/hidden"]


# A learner's own functions in place of those inside a layer.


def relu(x: Array) -> Array:
    larger = np.maximum(x, 0)
    return larger


def expression(x: Array) -> Array:
    return np.maximum(x, 0)


@pytest.mark.parametrize("own", [relu, expression, np.tanh, functools.partial(np.clip, a_min=0, a_max=1)])
def test_an_activation_of_ones_own(own: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its result has the name of the variable in `mlp`, whatever it is called inside."""
    monkeypatch.setattr(layers, "gelu", own)
    assert names() == ["/c_fc", "/hidden", "/c_proj", " is /c_proj"]
    with numpy_gpt2.trace() as t, numpy_gpt2.patch({"h1/mlp/hidden": zero}):
        GPT2.logits(IDS)
    np.testing.assert_array_equal(t["h1/mlp"], np.broadcast_to(GPT2.params.h[1].mlp.c_proj.b, (2, 5, 10)))


def test_a_softmax_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def softmax_1(x: Array) -> Array:
        """Its weights may sum to less than 1."""
        powers = np.exp(x)
        powers /= 1 + np.sum(powers, axis=-1, keepdims=True)
        return powers

    monkeypatch.setattr(layers, "softmax", softmax_1)
    assert names("h1/attn/")[6:9] == ["scores", "powers", "weights"]
    with numpy_gpt2.patch({"h1/attn/weights": zero}):
        changed = GPT2.logits(IDS)
    with numpy_gpt2.patch({"h1/attn/a": zero}):
        np.testing.assert_array_equal(GPT2.logits(IDS), changed)


def wrapped(original: Any, factor: float) -> Any:
    @functools.wraps(original)
    def wrapper(*args: Any) -> Any:
        result = original(*args)
        return result if factor == 1 else result * factor

    return wrapper


@pytest.mark.parametrize(("factor", "shown"), [(1, ["e", "e_2", "weights is e_2"]), (0.5, ["e", "e_2", "weights"])])
def test_a_wrapped_function_that_is_not_a_part(
    factor: float, shown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is inside is changed before the wrapper uses it."""
    monkeypatch.setattr(layers, "softmax", wrapped(layers.softmax, factor))
    assert names("h1/attn/")[7:10] == shown
    logits = []
    for name in "e_2", "weights", "a":
        with numpy_gpt2.patch({f"h1/attn/{name}": zero}):
            logits.append(GPT2.logits(IDS))
    assert not np.allclose(logits[0], PLAIN)
    np.testing.assert_array_equal(logits[0], logits[2])
    np.testing.assert_array_equal(logits[1], logits[2])


class Layers:
    def mlp(self, x: Array, params: Any) -> Array:
        hidden = gelu(linear(x, params.c_fc))
        return linear(hidden, params.c_proj)

    @staticmethod
    def static(x: Array, params: Any) -> Array:
        hidden = gelu(linear(x, params.c_fc))
        return linear(hidden, params.c_proj)

    @classmethod
    def of_class(cls, x: Array, params: Any) -> Array:
        hidden = gelu(linear(x, params.c_fc))
        return linear(hidden, params.c_proj)

    def __call__(self, x: Array, params: Any) -> Array:
        hidden = gelu(linear(x, params.c_fc))
        return linear(hidden, params.c_proj)


def with_options(bias: float, x: Array, params: Any, *, factor: float) -> Array:
    hidden = gelu(linear(x, params.c_fc)) * factor + bias
    return linear(hidden, params.c_proj)


@pytest.mark.parametrize(
    "mlp",
    [
        Layers().mlp,
        Layers.static,
        Layers().of_class,
        wrapped(layers.mlp, 1),
        wrapped(wrapped(layers.mlp, 1), 1),
        functools.partial(with_options, 1, factor=2),
        functools.partial(functools.partial(with_options, factor=2), 1),
        functools.partial(Layers().mlp),
        functools.partial(wrapped(layers.mlp, 1)),
        functools.lru_cache(0)(lambda x, params: layers.linear(gelu(linear(x, params.c_fc)), params.c_proj)),
    ],
    ids=str,
)
def test_functions_in_other_clothes(mlp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if isinstance(mlp, functools._lru_cache_wrapper):
        expected = ["/c_fc", "/c_proj", " is /c_proj"]
        mlp = wrapped(mlp.__wrapped__, 1)
    else:
        expected = ["/c_fc", "/hidden", "/c_proj", " is /c_proj"]
    monkeypatch.setattr(layers, "mlp", mlp)
    assert names() == expected
    with numpy_gpt2.patch({"h1/mlp": zero}):
        assert not np.allclose(GPT2.logits(IDS), PLAIN)


def test_an_object_that_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing inside has a name, but for the parts that it calls. A patch says so."""
    monkeypatch.setattr(layers, "mlp", Layers())
    assert names() == ["/c_fc", "/c_proj"]
    with pytest.raises(ValueError, match="'h1/mlp/hidden' was not used"), numpy_gpt2.patch({"h1/mlp/hidden": zero}):
        GPT2.logits(IDS)


def test_a_function_without_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it returns has a name, and what the parts inside return; its variables have none."""
    source = """
    def mlp(x: Array, params: Any) -> Array:
        hidden = layers.gelu(layers.linear(x, params.c_fc))
        out = layers.linear(hidden, params.c_proj) * 2
        return out
    """
    made: dict[str, Any] = {"layers": layers}
    exec(textwrap.dedent(source), made)
    monkeypatch.setattr(layers, "mlp", made["mlp"])
    assert statements(made["mlp"].__code__) == {}
    assert names() == ["/c_fc", "/c_proj", ""]
    logits = []
    for name in "h1/mlp", "h1/mlp/c_proj":
        with numpy_gpt2.patch({name: zero}):
            logits.append(GPT2.logits(IDS))
    np.testing.assert_array_equal(logits[0], logits[1])
    exec("def gelu(x: Array) -> Array:\n    y = x * 2\n    return y", made)
    monkeypatch.undo()
    monkeypatch.setattr(layers, "gelu", made["gelu"])
    assert names() == ["/c_fc", "/hidden", "/c_proj", " is /c_proj"]


def test_a_lambda_in_the_middle_of_an_expression(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lines are not statements of their own."""
    own = SimpleNamespace(
        gelu=[
            lambda x: x * 2,
        ]
    )
    monkeypatch.setattr(layers, "gelu", own.gelu[0])
    assert names() == ["/c_fc", "/hidden", "/c_proj", " is /c_proj"]


def test_recursion(monkeypatch: pytest.MonkeyPatch) -> None:
    def power(x: Array, n: int = 3) -> Array:
        if n == 0:
            return x
        y = x * 0.5
        return layers.gelu(y, n - 1)  # type: ignore[call-arg]

    monkeypatch.setattr(layers, "gelu", power)
    assert names() == ["/c_fc", "/y", "/y_2", "/y_3", "/hidden is /y_3", "/c_proj", " is /c_proj"]


def test_a_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    def halves(x: Array) -> Iterator[Array]:
        for part in np.split(x, 2, axis=-1):
            twice = part * 2
            yield twice

    def own_gelu(x: Array) -> Array:
        joined = np.concatenate([*layers.halves(x)], axis=-1)  # type: ignore[attr-defined]
        return joined

    monkeypatch.setattr(layers, "halves", halves, raising=False)
    monkeypatch.setattr(layers, "gelu", own_gelu)
    assert names() == ["/c_fc", "/twice", "/twice_2", "/hidden", "/c_proj", " is /c_proj"]
    for name in "twice", "twice_2":
        with numpy_gpt2.trace("h1/mlp/hidden") as t, numpy_gpt2.patch({f"h1/mlp/{name}": zero}):
            GPT2.logits(IDS)
        half = t["h1/mlp/hidden"][..., :20] if name == "twice" else t["h1/mlp/hidden"][..., 20:]
        assert (half == 0).all()
        assert (t["h1/mlp/hidden"] != 0).any()


def test_a_block_in_the_style_of_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    def block(x: Array, params: Any, n_head: int, past: Any = None) -> Array:
        residual = x
        x = layers.layer_norm(x, params.ln_1)
        x = layers.multi_head_attention(x, params.attn, n_head, past)
        x += residual
        residual = x
        x = layers.layer_norm(residual, params.ln_2)
        x = residual + layers.mlp(x, params.mlp)
        return x

    monkeypatch.setattr(layers, "block", block)
    np.testing.assert_allclose(GPT2.logits(IDS), PLAIN)
    shown = [name for name in names("h1") if name.split(" ")[0].count("/") < 2]
    assert shown == ["/ln_1", "/attn is /attn/c_proj", "/x", "/residual is /x", "/ln_2", "/mlp is /mlp/c_proj", ""]
    expected = []
    for name in "h1/attn", "h1/residual", "h1":
        with numpy_gpt2.patch({name: scale(0.5)}):
            expected.append(GPT2.logits(IDS))
    monkeypatch.undo()
    for name, logits in zip(["h1/attn", "h1/x", "h1"], expected, strict=True):
        with numpy_gpt2.patch({name: scale(0.5)}):
            np.testing.assert_allclose(GPT2.logits(IDS), logits, rtol=1e-9)


# What cannot be changed without changing something else.


def identity(x: Array, params: Any) -> Array:
    return x


def first_half(x: Array, params: Any) -> Array:
    return x[:, : x.shape[1]]


@pytest.mark.parametrize("norm", [identity, first_half, lambda x, params: x])
@pytest.mark.parametrize("name", ["h1/ln_1", "h1/ln_2", "h0/ln_1", "ln_f"])
def test_a_part_that_returns_what_it_was_given(norm: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To change that in place would change the residual stream. A trace records it."""
    monkeypatch.setattr(layers, "layer_norm", norm)
    plain = GPT2.logits(IDS)
    said = f"^{name} cannot be patched: it is what its function was given, which would"
    with pytest.raises(ValueError, match=said), numpy_gpt2.patch({name: zero}):
        GPT2.logits(IDS)
    with numpy_gpt2.trace() as t:
        np.testing.assert_array_equal(GPT2.logits(IDS), plain)
    np.testing.assert_array_equal(t["h1/ln_1"], t["h0"])
    np.testing.assert_array_equal(t["h1/ln_2"], t["h1/x"])


def bias_alone(x: Array, params: Any) -> Array:
    return params.c_proj.b


def rows_of_weights(x: Array, params: Any) -> Array:
    return params.c_proj.w[None, :5]


@pytest.mark.parametrize("mlp", [bias_alone, rows_of_weights])
def test_a_part_that_returns_a_parameter(mlp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parameters stay as they are."""
    monkeypatch.setattr(layers, "mlp", mlp)
    before = [array.copy() for array in GPT2.params.h[1].mlp.c_proj]
    said = "h1/mlp cannot be patched: it is what its function was given"
    with pytest.raises(ValueError, match=said), numpy_gpt2.patch({"h1/mlp": zero}):
        GPT2.logits(IDS)
    np.testing.assert_array_equal(before[0], GPT2.params.h[1].mlp.c_proj.w)
    np.testing.assert_array_equal(before[1], GPT2.params.h[1].mlp.c_proj.b)


def test_an_array_that_is_read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def mlp(x: Array, params: Any) -> Array:
        out = np.broadcast_to(np.ones(10), x.shape)
        return out

    monkeypatch.setattr(layers, "mlp", mlp)
    said = "^h1/mlp cannot be patched: it is read-only; let the function compute a copy"
    with pytest.raises(ValueError, match=said), numpy_gpt2.patch({"h1/mlp": zero}):
        GPT2.logits(IDS)


def test_what_a_past_holds_has_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def attention_with_a_past(x: Array, params: Any, n_head: int, past: Any = None) -> Array:
        lengths, positions = past.positions, past.positions[..., 0]
        stored = past.k
        x = x + lengths[0, 0, 0] + positions.sum() + stored.sum()
        return layers.linear(x, params.c_proj)

    def own_embed(ids: Array, params: Any, past: Any = None) -> Array:
        lengths = past.lengths
        vectors = params.wte
        return vectors[ids] + lengths[:, None, None]

    monkeypatch.setattr(layers, "multi_head_attention", attention_with_a_past)
    monkeypatch.setattr(model, "embed", own_embed)
    with observed_by(observer := Names()):
        GPT2.logits(IDS, GPT2.new_past(2))
    shown = [name for name in observer.names if name[0] != "h" or name.startswith("h1/attn")]
    assert shown == ["x", "h1/attn/x", "h1/attn/c_proj", "h1/attn is h1/attn/c_proj", *part_names(0)[2:]]


# Passes.


def test_what_is_known_when_a_pass_begins() -> None:
    past = GPT2.new_past(2)
    with observed_by(observer := Names("nothing")):
        GPT2.logits(IDS, past)
        GPT2.logits(IDS)
        model.transformer(np.zeros((1, 3, 10)), GPT2.params, HPARAMS.n_head)
        GPT2.hidden_states(IDS)
    assert [(each.params, each.past, each.n_seq) for each in observer.passes] == [
        (GPT2.params, past, 5),
        (GPT2.params, None, 5),
        (GPT2.params, None, 3),
        (GPT2.params, None, 5),
    ]
    assert [None if each.ids is None else each.ids.tolist() for each in observer.passes] == [
        *([IDS.tolist()] * 2),
        None,
        IDS.tolist(),
    ]


def test_a_transformer_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass over vectors that somebody gives to it begins there, whatever it is called."""

    def mine(x: Array, params: Any, n_head: int, past: Any = None) -> Array:
        for block in params.h[:1]:
            x = layers.block(x, block, n_head)
        return layers.layer_norm(x, params.ln_f)

    monkeypatch.setattr(model, "transformer", mine)
    with observed_by(observer := Names()):
        for _ in range(2):
            model.transformer(np.ones((1, 3, 10)), GPT2.params, HPARAMS.n_head)
    assert len(observer.passes) == 2
    assert observer.names.count("h0/attn/a") == 2
    assert "h1" not in observer.names


def test_a_model_whose_arguments_have_other_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass begins where the names are known."""

    def mine(vectors: Array, parameters: Any, n_head: int, past: Any = None) -> Array:
        for block in parameters.h:
            vectors = layers.block(vectors, block, n_head)
        return vectors

    def own_embed(tokens: Array, params: Any, past: Any = None) -> Array:
        return params.wte[tokens]

    monkeypatch.setattr(model, "transformer", mine)
    with observed_by(observer := Names()):
        model.logits(IDS, GPT2.params, HPARAMS.n_head)
    assert [each.n_seq for each in observer.passes] == [5]
    assert "h1/attn/a" in observer.names
    monkeypatch.undo()
    monkeypatch.setattr(model, "embed", own_embed)
    with observed_by(observer := Names()):
        model.logits(IDS, GPT2.params, HPARAMS.n_head)
    assert [each.n_seq for each in observer.passes] == [5]
    assert "h1/attn/a" in observer.names


def test_functions_that_are_replaced_inside_an_outer_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """An inner block follows the functions as they are when it begins."""
    with observed_by(outer := Names("h1/mlp")):
        GPT2.logits(IDS)
        original = layers.mlp
        monkeypatch.setattr(layers, "mlp", assigned_and_returned)
        assert names() == SHOWN[assigned_and_returned]
    assert outer.names == SHOWN[original] + SHOWN[assigned_and_returned]


def test_every_name_of_a_pass_and_every_second_name() -> None:
    expected: list[str] = []
    for name in part_names(HPARAMS.n_layer):
        expected.append(name)
        if name.endswith(("attn/c_proj", "mlp/c_proj")):
            expected.append(f"{name.removesuffix('/c_proj')} is {name}")
    assert names("") == expected


def test_what_an_interrupted_pass_has_left_without_a_name_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    def attention(q: Array, k: Array, v: Array, mask: Array) -> Array:
        first, second, third = softmax(q @ np.swapaxes(k, -1, -2))
        return first + second + third

    monkeypatch.setattr(layers, "attention", attention)
    with observed_by(observer := Names()):
        with pytest.raises(ValueError, match="not enough values to unpack"):
            GPT2.logits(IDS)
        monkeypatch.undo()
        observer.seen.clear()
        GPT2.logits(IDS)
    assert observer.names[:3] == ["positions", "x", "h0/ln_1/centred"]


def test_names_are_counted_anew_in_an_inner_block() -> None:
    """So that a patch finds `logits`, whatever an outer trace has seen before."""
    x = np.ones((1, 2, 10))
    with observed_by(outer := Names()):
        for _ in range(2):
            model.output_head(x, GPT2.params)
        with observed_by(inner := Names()):
            model.output_head(x, GPT2.params)
    assert outer.names == ["logits", "logits_2", "logits"]
    assert inner.names == ["logits"]


def test_heads_are_known_where_there_are_some() -> None:
    with observed_by(observer := Names()):
        GPT2.logits(IDS)
    assert {seen.n_head for seen in observer.seen if "/attn/" in seen.name and "c_" not in seen.name} == {5}


def test_the_function_of_a_name_is_where_it_says() -> None:
    with observed_by(observer := Names("h1")):
        GPT2.logits(IDS)
    for seen in observer.seen:
        assert seen.file == layers.__file__
        assert inspect.getsource(layers).splitlines()[seen.line - 1].strip()


def test_nothing_is_kept_by_an_observer_that_keeps_nothing() -> None:
    arrays: list[weakref.ref[Any]] = []

    class Weak(Names):
        def see(self, seen: Seen) -> None:
            arrays.append(weakref.ref(seen.array))
            gone = sum(each() is None for each in arrays)
            assert gone >= len(arrays) - 60  # while the pass goes on

    gpt2 = random_model(HPARAMS._replace(n_layer=20))
    with observed_by(Weak()):
        gpt2.logits(IDS)
        alive = [each for each in arrays if each() is not None]
        assert len(alive) <= 2
    gc.collect()
    assert len(arrays) > 400
    assert all(each() is None for each in arrays)


def test_an_observer_that_fails_is_switched_off() -> None:
    class Failing(Names):
        def see(self, seen: Seen) -> None:
            raise MemoryError

    before = sys.gettrace()
    with pytest.raises(MemoryError), observed_by(Failing()):
        GPT2.logits(IDS)
    assert sys.gettrace() is before
    np.testing.assert_array_equal(GPT2.logits(IDS), PLAIN)


def test_a_generator_that_ends_in_another_thread() -> None:
    """As in the thread pool of a web server: the thread in which it began is as before, from its next call on."""

    def pieces() -> Generator[Any, None, None]:
        with observed_by(Names()):
            yield GPT2.logits(IDS)

    before = sys.gettrace()
    begun = pieces()
    next(begun)
    assert prefill.reads_whole()
    thread = threading.Thread(target=begun.close)
    thread.start()
    thread.join()
    np.testing.assert_array_equal(GPT2.logits(IDS), PLAIN)
    assert sys.gettrace() is before
    assert not prefill.reads_whole()


def test_a_function_that_is_replaced_between_two_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    with observed_by(observer := Names("h1/mlp")):
        GPT2.logits(IDS)
        monkeypatch.setattr(layers, "mlp", in_part_in_a_branch)
        observer.seen.clear()
        GPT2.logits(IDS)
    assert "/c_fc" in observer.names
    assert "/hidden" in observer.names


def filled(x: Array, params: Any) -> Array:
    hidden = np.empty((*x.shape[:-1], 40))
    np.multiply(linear(x, params.c_fc), 2, out=hidden)
    return linear(hidden, params.c_proj)


def test_the_out_of_a_function(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `np.empty` returns is not shown; what is written into it is."""
    monkeypatch.setattr(layers, "mlp", filled)
    with numpy_gpt2.trace("h1/mlp/*") as t:
        logits = GPT2.logits(IDS)
    np.testing.assert_array_equal(t["h1/mlp/hidden"], 2 * t["h1/mlp/c_fc"])
    with numpy_gpt2.patch({"h1/mlp/hidden": zero}):
        assert (GPT2.logits(IDS) != logits).any()
