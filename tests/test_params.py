"""The parameter tree: names and shapes against transformers' own, and the random initialisation."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from conftest import SHAPES, hugging_face_config
from device_array import DeviceArray
from notebook import Cells, cells

import numpy_gpt2
from numpy_gpt2.params import Array, HParams, LayerNorm, build, count_params, init_params, named_arrays, replace, shapes
from numpy_gpt2.weights.folder import hugging_face_name

# The hyperparameters of the released models, from their hparams.json, and the number of their parameters.
RELEASED = [
    (HParams(n_vocab=50257, n_ctx=1024, n_embd=768, n_head=12, n_layer=6), 81_912_576),
    (HParams(n_vocab=50257, n_ctx=1024, n_embd=768, n_head=12, n_layer=12), 124_439_808),
    (HParams(n_vocab=50257, n_ctx=1024, n_embd=1024, n_head=16, n_layer=24), 354_823_168),
    (HParams(n_vocab=50257, n_ctx=1024, n_embd=1280, n_head=20, n_layer=36), 774_030_080),
    (HParams(n_vocab=50257, n_ctx=1024, n_embd=1600, n_head=25, n_layer=48), 1_557_611_200),
]


@pytest.mark.parametrize("hparams", SHAPES, ids=str)
def test_names_and_shapes_are_those_of_transformers(hparams: HParams) -> None:
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    theirs_by_name = transformers.GPT2Model(hugging_face_config(hparams)).named_parameters()
    theirs = {name: tuple(parameter.shape) for name, parameter in theirs_by_name}
    ours = {hugging_face_name(name): array.shape for name, array in named_arrays(init_params(hparams))}
    assert ours == theirs


@pytest.mark.parametrize(("hparams", "parameters"), RELEASED, ids=str)
def test_parameter_counts_of_released_models(hparams: HParams, parameters: int) -> None:
    zero = np.float32(0)
    params = build(hparams, lambda name, shape: np.broadcast_to(zero, shape))  # takes no memory
    assert count_params(hparams) == sum(array.size for _, array in named_arrays(params)) == parameters


@pytest.mark.parametrize("hparams", SHAPES, ids=str)
def test_names_shapes_and_arrays_belong_together(hparams: HParams) -> None:
    """`shapes` and `named_arrays` give the same names as `build`, in the same order."""
    built: list[tuple[str, tuple[int, ...]]] = []

    def make(name: str, shape: tuple[int, ...]) -> Array:
        built.append((name, shape))
        return np.zeros(shape)

    params = build(hparams, make)
    assert [*shapes(hparams).items()] == built
    assert sorted((name, array.shape) for name, array in named_arrays(params)) == sorted(built)


def test_initialisation_is_that_of_the_paper() -> None:
    params = init_params(HParams(n_vocab=1000, n_ctx=500, n_embd=64, n_head=2, n_layer=8))
    for name, array in named_arrays(params):
        assert array.dtype == np.float32
        if name.endswith("/g"):
            assert (array == 1).all()
        elif name.endswith("/b"):
            assert (array == 0).all()
        else:
            expected = 0.01 if name == "wpe" else 0.02 / 4 if name.endswith("c_proj/w") else 0.02  # 4 = sqrt(2 * 8)
            assert array.std() == pytest.approx(expected, rel=0.05)
            assert abs(array.mean()) < expected / 10


def test_parameters_depend_on_the_seed_alone() -> None:
    first, again, other = (numpy_gpt2.init(SHAPES[0], seed=seed).logits([1, 2]) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


class TestRepr:
    """Shapes in place of numbers."""

    params = init_params(SHAPES[1])  # n_embd=10, 3 blocks

    def test_the_whole_tree_shows_one_block(self) -> None:
        c_attn, c_proj = "Linear(w=float32[10, 30], b=float32[30])", "Linear(w=float32[10, 10], b=float32[10])"
        mlp = "MLP(c_fc=Linear(w=float32[10, 40], b=float32[40]), c_proj=Linear(w=float32[40, 10], b=float32[10]))"
        assert repr(self.params).splitlines() == [
            "Params(",
            "  wte=float32[11, 10],",
            "  wpe=float32[40, 10],",
            "  h=3 x Block(",
            "    ln_1=LayerNorm(g=float32[10], b=float32[10]),",
            f"    attn=Attention(c_attn={c_attn}, c_proj={c_proj}),",
            "    ln_2=LayerNorm(g=float32[10], b=float32[10]),",
            f"    mlp={mlp}",
            "  ),",
            "  ln_f=LayerNorm(g=float32[10], b=float32[10])",
            ")",
        ]

    def test_a_part(self) -> None:
        assert repr(self.params.h[0].attn.c_attn) == str(self.params.h[0].attn.c_attn)
        assert repr(init_params(SHAPES[1], dtype="float64").ln_f) == "LayerNorm(g=float64[10], b=float64[10])"

    def test_the_largest_model_takes_a_few_lines(self) -> None:
        hparams, _ = RELEASED[-1]
        params = build(hparams, lambda name, shape: np.broadcast_to(np.float32(0), shape))
        assert len(repr(params).splitlines()) == 11
        assert len(repr(params.h).splitlines()) < 300

    def test_arrays_of_another_library_name_it(self) -> None:
        arrays: list[Any] = [DeviceArray(array) for array in self.params.ln_f]
        ln_f = LayerNorm(*arrays)
        assert repr(ln_f) == "LayerNorm(g=device_array float32[10], b=device_array float32[10])"

    def test_what_is_no_array(self) -> None:
        assert repr(self.params.ln_f._replace(g=None)) == "LayerNorm(g=of type NoneType, b=float32[10])"  # type: ignore[arg-type]
        assert "h=()" in repr(self.params._replace(h=()))

    def test_in_a_notebook(self) -> None:
        assert cells(self.params.h[0].mlp.c_fc) == [
            ["name", "shape", "dtype"],
            ["w", "[10, 40]", "float32"],
            ["b", "[40]", "float32"],
        ]
        rows = cells(self.params)[1:]
        one = self.params._replace(h=self.params.h[:1])
        assert rows == [[name, str([*array.shape]), "float32"] for name, array in named_arrays(one)]
        params: Any = self.params
        assert Cells(params._repr_html_()).caption == "Params with 3 blocks, of which the first is shown"


class TestAssignment:
    @pytest.fixture
    def params(self) -> Any:
        return init_params(SHAPES[0])

    def test_says_both_ways(self, params: Any) -> None:
        complaint = (
            r"write into an array, as by `c_attn.w\[:\] = array`, or .* `model.params = numpy_gpt2.params.replace\("
        )
        for part, name in ((params, "wte"), (params, "h"), (params.h[0], "attn"), (params.h[1].attn.c_attn, "w")):
            old = getattr(part, name)
            with pytest.raises(AttributeError, match=complaint):
                setattr(part, name, copy.deepcopy(old))
            assert getattr(part, name) is old

    def test_a_name_that_is_none(self, params: Any) -> None:
        with pytest.raises(AttributeError, match="^Linear has no parameter 'weight', only w, b$"):
            params.h[0].attn.c_attn.weight = 5

    def test_in_place(self, params: Any) -> None:
        """Python assigns the result of `*=` once it has changed the array."""
        before = params.ln_f.g.copy()
        params.ln_f.g *= 3
        params.ln_f.b[:] = 2
        np.testing.assert_array_equal(params.ln_f.g, 3 * before)
        assert (params.ln_f.b == 2).all()

    def test_copies(self, params: Any) -> None:
        for again in (copy.copy(params), copy.deepcopy(params), pickle.loads(pickle.dumps(params))):
            np.testing.assert_equal(dict(named_arrays(again)), dict(named_arrays(params)))


class TestReplace:
    """`test_gpt2` has what each parameter of a model does."""

    params = init_params(SHAPES[0])

    @pytest.mark.parametrize(
        ("name", "meant"),
        [
            ("h0.attn.c_attn.w", "h0/attn/c_attn/w"),
            ("model/h0/attn/c_attn/w", "h0/attn/c_attn/w"),
            ("h.1.mlp.c_fc.weight", "h1/mlp/c_fc/w"),
            ("ln_f/weight", "ln_f/g"),
        ],
    )
    def test_a_name_that_is_none(self, name: str, meant: str) -> None:
        with pytest.raises(ValueError, match=f"^there is no parameter '{name}'; did you mean '{meant}'"):
            replace(self.params, {name: self.params.wte})

    def test_a_name_that_is_like_no_other(self) -> None:
        with pytest.raises(ValueError, match="^there is no parameter 'x'$"):
            replace(self.params, {"x": self.params.wte})

    @pytest.mark.parametrize(
        ("array", "found"),
        [
            (np.zeros((48, 48), np.float32), r"float32\[48, 48\]"),
            (np.zeros((48, 144)), r"float64\[48, 144\]"),
            (np.zeros((48, 144), ">f4"), r">f4\[48, 144\]"),
            (np.zeros((48, 144), int), r"int64\[48, 144\]"),
            (np.float32(1), r"float32\[\]"),
            ([1.0], "of type list"),
            (1.0, "of type float"),
            (DeviceArray(np.zeros((48, 144), np.float32)), r"device_array float32\[48, 144\]"),
        ],
        ids=str,
    )
    def test_an_array_of_another_kind(self, array: Any, found: str) -> None:
        with pytest.raises(
            ValueError, match=rf"^h0/attn/c_attn/w must be float32\[48, 144\], as it is now, not {found}$"
        ):
            replace(self.params, {"h0/attn/c_attn/w": array})

    def test_several_at_once(self) -> None:
        new = {"wte": self.params.wte + 1, "h1/ln_2/b": self.params.h[1].ln_2.b + 1}
        replaced = replace(self.params, new)
        assert {name for name, array in named_arrays(replaced) if array is new.get(name)} == {*new}
        assert replace(self.params, {}) == self.params
