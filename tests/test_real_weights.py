"""The real models, compared with published results. Without the weights on disk, these tests are skipped."""

from __future__ import annotations

import pytest

import numpy_gpt2
from numpy_gpt2.hub.names import RELEASED, is_on_disk
from numpy_gpt2.params import count_params, named_arrays

pytestmark = pytest.mark.weights

# prompt, number of tokens, and the beginning of the published continuation
CONTINUATIONS = [
    (
        "Alan Turing theorized that computers would one day become",
        40,
        (
            " the most powerful machines on the planet.\n\nThe computer is a machine that can perform complex "
            "calculations, and it can perform these calculations in a way that is very similar to the human brain."
        ),
    ),
    ("The dog", 18, " was found in a field near the intersection of West and West Streets.\n\nThe dog"),
]


def needs(name: str) -> pytest.MarkDecorator:
    reason = f"{name} is not on disk (numpy-gpt2 download {name})"
    return pytest.mark.skipif(not is_on_disk(name), reason=reason)


@needs("gpt2")
@pytest.mark.parametrize(("prompt", "n_tokens", "published"), CONTINUATIONS, ids=["Alan Turing", "The dog"])
def test_greedy_continuations_are_the_published_ones(prompt: str, n_tokens: int, published: str) -> None:
    assert numpy_gpt2.load("gpt2").generate(prompt, n_tokens, temperature=0).startswith(published)


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs(name)) for name in RELEASED])
def test_the_number_of_parameters(name: str) -> None:
    model = numpy_gpt2.load(name)
    assert sum(array.size for _, array in named_arrays(model.params)) == count_params(RELEASED[name])
    assert model.hparams == RELEASED[name]
    assert model.tokenizer
    assert model.tokenizer.encoder == numpy_gpt2.Tokenizer.gpt2().encoder


@needs("gpt2")
def test_the_published_continuations_in_one_batch() -> None:
    texts = numpy_gpt2.load("gpt2").generate([prompt for prompt, _, _ in CONTINUATIONS], 40, temperature=0)
    for text, (_, _, published) in zip(texts, CONTINUATIONS, strict=True):
        assert text.startswith(published)
