"""The double-heads model against transformers' `GPT2DoubleHeadsModel`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SHAPES, hugging_face_config, random_ids, random_model

import numpy_gpt2
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.machine.files import read_object, write_json
from numpy_gpt2.params import HParams, Linear

HPARAMS = SHAPES[1]
IDS = random_ids(HPARAMS, 6, 9).reshape(2, 3, 9)
TYPES = random_ids(HPARAMS, 6, 9, seed=1).reshape(2, 3, 9)
AT = np.array([[0, 8, 3], [2, 2, 7]])


def peer(hparams: HParams) -> Any:
    """A `GPT2DoubleHeadsModel` in float64, whose parameters are all random and large."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = transformers.GPT2DoubleHeadsModel(hugging_face_config(hparams)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    return model


def saved(model: Any, folder: Path) -> GPT2:
    """A model of transformers, loaded from the folder that it was saved to."""
    model.save_pretrained(folder)
    return numpy_gpt2.load(folder, dtype="float64")


@pytest.mark.parametrize("hparams", SHAPES, ids=str)
def test_logits_and_losses(hparams: HParams, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    theirs = peer(hparams)
    ours = saved(theirs, tmp_path)
    n_seq = hparams.n_ctx
    ids, types, labels = (random_ids(hparams, 6, n_seq, seed=i).reshape(2, 3, n_seq) for i in range(3))
    labels[0, 1] = labels[1, :, :3] = -100
    at = np.random.default_rng(0).integers(0, n_seq, (2, 3))
    arguments = {"mc_token_ids": at, "token_type_ids": types, "labels": labels, "mc_labels": np.array([2, 0])}
    with torch.no_grad():
        expected = theirs(torch.tensor(ids), **{name: torch.tensor(value) for name, value in arguments.items()})
    made = ours.double_heads(ids, **arguments)
    assert made.loss == pytest.approx(expected.loss.item(), rel=1e-10)
    assert made.mc_loss == pytest.approx(expected.mc_loss.item(), rel=1e-10)
    for one, other in ((made.logits, expected.logits), (made.mc_logits, expected.mc_logits)):
        assert one.shape == tuple(other.shape)
        np.testing.assert_allclose(one, other.numpy(), rtol=0, atol=1e-10 * float(other.abs().max()))


def test_optional_arguments(tmp_path: Path) -> None:
    """The classification tokens are by default the last ones. Without labels there are no losses."""
    torch = pytest.importorskip("torch")
    theirs = peer(HPARAMS)
    made = saved(theirs, tmp_path).double_heads(IDS)
    with torch.no_grad():
        expected = theirs(torch.tensor(IDS))
    np.testing.assert_allclose(made.mc_logits, expected.mc_logits.numpy(), rtol=0, atol=1e-10)
    assert made.loss is made.mc_loss is None


def test_an_ignored_label(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    theirs = peer(HPARAMS)
    with torch.no_grad():
        expected = theirs(torch.tensor(IDS), mc_labels=torch.tensor([1, -100])).mc_loss.item()
    made = saved(theirs, tmp_path).double_heads(IDS, mc_labels=[1, -100])
    assert made.mc_loss == pytest.approx(expected, rel=1e-10)


def test_saving_and_loading_in_both_libraries(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    theirs = peer(HPARAMS)
    ours = saved(theirs, tmp_path / "theirs")
    numpy_gpt2.save(ours, tmp_path / "ours")
    back, info = transformers.GPT2DoubleHeadsModel.from_pretrained(
        tmp_path / "ours", dtype=torch.float64, output_loading_info=True
    )
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.no_grad():
        one, other = theirs(torch.tensor(IDS)), back.eval()(torch.tensor(IDS))
    torch.testing.assert_close(one.mc_logits, other.mc_logits, rtol=0, atol=1e-12)
    again = numpy_gpt2.load(tmp_path / "ours", dtype="float64")
    np.testing.assert_array_equal(again.double_heads(IDS).mc_logits, ours.double_heads(IDS).mc_logits)
    assert read_object(tmp_path / "ours" / "config.json")["architectures"] == ["GPT2DoubleHeadsModel"]


def test_the_head_is_saved_with_the_model(tmp_path: Path) -> None:
    plain = random_model(HPARAMS)
    head = Linear(w=np.arange(10.0).reshape(10, 1), b=np.array([0.5]))
    model = GPT2(HPARAMS, plain.params, None, "with a head", head)
    numpy_gpt2.save(model, tmp_path)
    loaded = numpy_gpt2.load(tmp_path, dtype="float64")
    assert loaded.multiple_choice_head
    np.testing.assert_array_equal(loaded.multiple_choice_head.w, head.w)
    x = model.hidden_states(IDS.reshape(6, 9))[-1].reshape(2, 3, 9, 10)
    expected = [[x[b, c, AT[b, c]] @ head.w[:, 0] + 0.5 for c in range(3)] for b in range(2)]
    np.testing.assert_allclose(model.double_heads(IDS, AT).mc_logits, expected, rtol=0, atol=1e-12)
    numpy_gpt2.save(plain, tmp_path)
    assert numpy_gpt2.load(tmp_path).multiple_choice_head is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("summary_type", "mean"),
        ("summary_use_proj", False),
        ("summary_proj_to_labels", False),
        ("summary_activation", "tanh"),
    ],
)
def test_other_kinds_of_head_are_refused(tmp_path: Path, name: str, value: Any) -> None:
    head = Linear(w=np.ones((10, 1)), b=np.ones(1))
    numpy_gpt2.save(GPT2(HPARAMS, random_model(HPARAMS).params, None, "with a head", head), tmp_path)
    config = tmp_path / "config.json"
    write_json(config, {**read_object(config), name: value})
    with pytest.raises(ValueError, match=f"config.json: {name} is {value!r}, but only GPT-2's"):
        numpy_gpt2.load(tmp_path)


def test_a_head_of_another_shape_is_refused(tmp_path: Path) -> None:
    head = Linear(w=np.ones((10, 2)), b=np.ones(2))
    numpy_gpt2.save(GPT2(HPARAMS, random_model(HPARAMS).params, None, "with a head", head), tmp_path)
    with pytest.raises(ValueError, match=r"summary.weight of the shape \[1, 10\]"):
        numpy_gpt2.load(tmp_path)


def test_a_model_without_the_head_says_so() -> None:
    with pytest.raises(ValueError, match="has no multiple-choice head; a folder that GPT2DoubleHeadsModel saved has"):
        random_model(HPARAMS).double_heads(IDS)


@pytest.mark.parametrize(
    ("ids", "options", "complaint"),
    [
        (IDS[0], {}, r"ids must have the shape \[n_batch, n_choices, n_seq\], not \[3, 9\]"),
        (IDS + 11, {}, "is outside the vocabulary"),
        (np.zeros((1, 1, 41), int), {}, "41 tokens are too many"),
        (IDS[:, :0], {}, r"ids must have the shape .*, not \[2, 0, 9\]"),
        (IDS, {"mc_token_ids": AT + 1}, "mc_token_ids holds 9; it must hold numbers from 0 to 8"),
        (IDS, {"mc_token_ids": -AT}, "mc_token_ids holds -8"),
        (IDS, {"mc_token_ids": AT[0]}, r"mc_token_ids must be whole numbers in the shape \[2, 3\]"),
        (IDS, {"token_type_ids": TYPES + 11}, "token_type_ids holds"),
        (IDS, {"token_type_ids": TYPES - 100}, "token_type_ids holds"),
        (IDS, {"labels": IDS[..., 1:]}, r"labels must be whole numbers in the shape \[2, 3, 9\]"),
        (np.zeros((1, 2, 0), int), {}, r"ids must have the shape .*, not \[1, 2, 0\]"),
        ([[[1, 2], [3]]], {}, "choices of the same length: pad the shorter ones on the right"),
        (IDS, {"labels": IDS + 11}, "labels holds"),
        (IDS, {"mc_labels": [[1, 0]]}, r"mc_labels must be whole numbers in the shape \[2\]"),
        (IDS, {"mc_labels": [3, 0]}, "mc_labels holds 3; it must hold numbers from 0 to 2, or -100"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused(ids: Any, options: dict[str, Any], complaint: str) -> None:
    head = Linear(w=np.ones((10, 1)), b=np.ones(1))
    with pytest.raises(ValueError, match=complaint):
        GPT2(HPARAMS, random_model(HPARAMS).params, None, "with a head", head).double_heads(ids, **options)
