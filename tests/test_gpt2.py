"""What a user calls: `load`, and the methods of the model that it returns."""

from __future__ import annotations

import contextlib
import inspect
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import platformdirs
import pytest
from conftest import SHAPES, finish, greedy, in_pytorch, random_ids, random_model

import numpy_gpt2
from numpy_gpt2 import generation, layers
from numpy_gpt2 import model as model_module
from numpy_gpt2.decoding import prefill
from numpy_gpt2.decoding.row import Row
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.hub.names import is_on_disk, model_folder
from numpy_gpt2.inside import tables
from numpy_gpt2.params import Array, HParams, Linear, build, count_params, named_arrays, replace
from numpy_gpt2.text.special_ids import SpecialIds
from numpy_gpt2.tokenizer import Tokenizer

TINY = model_folder("tiny")
PROMPTS = ["Once upon a time", "The king", "\n\nThere was", "It's 3 o'clock, said the fox; ", "née 昔々 🙂", ""]


def test_the_embedded_model(tiny: GPT2) -> None:
    assert tiny.hparams == (4096, 256, 256, 4, 4)
    assert count_params(tiny.hparams) == 4_273_664
    assert tiny.tokenizer
    assert tiny.tokenizer.n_vocab == 4096
    assert repr(tiny).startswith("<GPT2 tiny: 4,273,664 parameters")


def test_logits_are_float32_or_as_asked(tiny: GPT2) -> None:
    assert tiny.logits([1, 2]).dtype == np.float32
    precise = numpy_gpt2.load("tiny", dtype="float64")
    assert precise.logits([1, 2]).dtype == np.float64
    np.testing.assert_allclose(tiny.logits([1, 2]), precise.logits([1, 2]), atol=1e-4)


def test_transformers_opens_the_embedded_model_too(tiny: GPT2) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    theirs = transformers.GPT2LMHeadModel.from_pretrained(TINY, dtype=torch.float32).eval()
    assert tiny.tokenizer
    ids = tiny.tokenizer.encode("The king was")
    with torch.no_grad():
        logits = theirs(torch.tensor([ids])).logits[0].numpy()
    np.testing.assert_allclose(tiny.logits(ids), logits, rtol=0, atol=1e-4 * np.abs(logits).max())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["wte", "wpe", "h1/mlp/c_fc/w", "h0/ln_1/g", "ln_f/b"])
def test_parameters_that_are_not_finite_numbers_are_noticed_whatever_is_asked(name: str, value: float) -> None:
    """The token embeddings also where the token is not in the text."""
    model = random_model(SHAPES[0], "float32")
    dict(named_arrays(model.params))[name][-1 if name == "wte" else 0] = value
    asked: list[Callable[[], Any]] = [
        lambda: model.generate([1, 2, 3], temperature=0, return_details=True),
        lambda: model.generate([1, 2, 3], seed=0, return_details=True),
        lambda: [*model.score([1, 2, 3])],
        lambda: model.loss([1, 2, 3]),
        lambda: model.perplexity([1, 2, 3]),
        lambda: model.logits([1, 2, 3]),
        lambda: model.logits([[3], [1]], model.new_past(2)),
        lambda: tables.next_tokens(model, [1, 2, 3]),
        lambda: tables.logit_lens(model, [1, 2, 3]),
    ]
    if name != "wte":
        asked += [
            lambda: model.hidden_states([1, 2, 3]),
            lambda: tables.attention_weights(model, [1, 2, 3]),
            lambda: tables.unmasked_weights(model, [1, 2, 3], 0),
            lambda: tables.stream_sizes(model, [1, 2, 3]),
        ]
    for ask in asked:
        with np.errstate(all="ignore"), pytest.raises(ValueError, match="^the model's logits are not finite numbers: "):
            ask()


def test_a_past_of_another_model_is_refused(tiny: GPT2) -> None:
    other = numpy_gpt2.init(tiny.hparams)
    with pytest.raises(ValueError, match="this past was made for another model"):
        tiny.logits([1], other.new_past())


def test_a_random_model_of_gpt2s_vocabulary_writes_text() -> None:
    model = numpy_gpt2.init(SHAPES[1]._replace(n_vocab=50257))
    assert model.generate("Hello", max_new_tokens=5, seed=0)
    assert numpy_gpt2.init(SHAPES[1]).tokenizer is None


def test_one_row_of_ids_gives_one_row_of_logits() -> None:
    gpt2 = random_model(SHAPES[0])
    np.testing.assert_array_equal(gpt2.logits([1, 2, 3]), gpt2.logits([[1, 2, 3]])[0])
    assert gpt2.logits((4,)).shape == (1, 300)


def test_text_is_accepted_in_place_of_its_ids() -> None:
    tiny = numpy_gpt2.load("tiny")
    assert tiny.tokenizer
    ids = tiny.tokenizer.encode("The king was")
    np.testing.assert_array_equal(tiny.logits("The king was"), tiny.logits(ids))
    np.testing.assert_array_equal(tiny.hidden_states("The king was")[3], tiny.hidden_states(ids)[3])
    assert tiny.loss("The king was") == tiny.loss(ids)


@pytest.mark.parametrize("name", ["gpt2", "124M", "tiny"])
def test_a_folder_with_the_name_of_a_released_model_is_written_as_a_path(
    tiny: GPT2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """`load` would load the released model instead."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"'{name}' is the name of a released model: .* write it as './{name}'"):
        numpy_gpt2.save(tiny, name)
    numpy_gpt2.save(tiny, f"./{name}")
    assert (tmp_path / name / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("name", "meant"),
    [("GPT2", "gpt2"), ("124m", "124M"), ("gpt2_medium", "gpt2-medium"), ("gpt-2", "gpt2"), ("Tiny", "tiny")],
)
def test_a_name_that_is_nearly_that_of_a_model(name: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"there is no model '{name}' .did you mean '{meant}'"):
        numpy_gpt2.load(name)


IDS = [1, 2, 3, 1, 2, 3, 1]
LONG = [i * i % 11 for i in range(30)]


def with_head(model: GPT2) -> GPT2:
    """The model with a second head."""
    head = Linear(w=np.linspace(-1, 1, model.hparams.n_embd)[:, None], b=np.ones(1))
    return GPT2(model.hparams, model.params, None, model.name, head)


def with_past(model: GPT2) -> Array:
    past = model.new_past()
    model.logits(IDS, past)
    return model.logits([4, 5], past)


def log_probabilities(model: GPT2, prompt: list[int] | list[list[int]], **options: Any) -> Array:
    made = model.generate(prompt, 8, return_details=True, **options)
    return np.array([each.log_probabilities for each in (made if isinstance(made, list) else [made])])


USES: dict[str, Callable[[GPT2], Any]] = {
    "logits": lambda model: model.logits(IDS),
    "logits of a long text": lambda model: model.logits(LONG),
    "logits with a past": with_past,
    "hidden states": lambda model: np.array(model.hidden_states(IDS)),
    "generate": lambda model: log_probabilities(model, IDS, temperature=0),
    "generate after a long prompt": lambda model: log_probabilities(model, LONG, temperature=0),
    "generate from several prompts": lambda model: log_probabilities(model, [IDS, [4], IDS], seed=0),
    "generate and slide": lambda model: log_probabilities(model, LONG + IDS, seed=0, slide=True),
    "generate with drafts": lambda model: log_probabilities(model, IDS, temperature=0, prompt_lookup_num_tokens=9),
    "generate with an assistant": lambda model: log_probabilities(
        model, IDS, seed=0, assistant_model=random_model(SHAPES[1]._replace(n_layer=1))
    ),
    "stream": lambda model: [*model.stream(IDS, 20, seed=0)],
    "score": lambda model: np.concatenate([each.log_probabilities for each in model.score(IDS)], axis=1),
    "score a long text": lambda model: np.concatenate(
        [each.log_probabilities for each in model.score(LONG + LONG, stride=9)], axis=1
    ),
    "loss": lambda model: model.loss(IDS),
    "perplexity": lambda model: model.perplexity(IDS),
    "double heads": lambda model: with_head(model).double_heads([[IDS, IDS[::-1]]], labels=[[IDS, IDS]])[0],
    "the textbook loop": lambda model: generation.generate(
        IDS, model.params, model.hparams.n_head, 20, np.random.default_rng(0)
    ),
}

FUNCTIONS = [
    (module, name)
    for module in (layers, model_module)
    for name, function in vars(module).items()
    if inspect.isfunction(function) and function.__module__ == module.__name__
]


def is_used(name: str, use: str) -> bool:
    """Whether this function of `layers` or `model` has a part in this use of a model."""
    if name == "logits":  # the methods call its three parts
        return use == "the textbook loop"
    if name == "log_softmax":
        return "generate" in use or "score" in use or use in ("loss", "perplexity", "double heads")
    if use == "hidden states":  # between the blocks
        return name not in ("transformer", "output_head")
    return True


@contextlib.contextmanager
def counting_runs(function: Any) -> Iterator[list[None]]:
    """Within this context, the list grows by one whenever the code of the function runs, whatever name it has there."""
    runs: list[None] = []

    def profile(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code is function.__code__:
            runs.append(None)

    before = sys.getprofile()
    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        yield runs
    finally:
        sys.setprofile(before)
        threading.setprofile(None)


class TestReplacedFunctions:
    """Whoever puts another function into `layers` or `model` has changed the model."""

    @pytest.fixture(autouse=True)
    def two_workers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Long texts are read by two threads."""
        monkeypatch.setattr(prefill, "count_workers", lambda params, n_tokens: 2 if n_tokens > 20 else 1)

    def test_they_are_found(self) -> None:
        names = {name for _, name in FUNCTIONS}
        assert names > {"block", "layer_norm", "gelu", "causal_mask", "merge_heads", "embed", "output_head"}

    @pytest.mark.parametrize("use", USES)
    @pytest.mark.parametrize(("module", "name"), FUNCTIONS, ids=lambda value: getattr(value, "__name__", value))
    def test_a_replaced_function_takes_effect(
        self, module: Any, name: str, use: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model, original = random_model(SHAPES[1]), getattr(module, name)
        before = USES[use](model)
        calls: list[None] = []

        def replaced(*args: Any, **keywords: Any) -> Array:
            calls.append(None)
            result = original(*args, **keywords)
            hidden = np.arange(result.shape[-1]) > 0  # by another mask: every token but the first
            return result & ~hidden if result.dtype == bool else result**2

        with monkeypatch.context() as patch, counting_runs(original) as runs:
            patch.setattr(module, name, replaced)
            after = USES[use](model)
        assert len(runs) == len(calls), "it is also called by another name"
        assert bool(calls) == is_used(name, use)
        assert np.array_equal(before, after) != is_used(name, use)
        np.testing.assert_array_equal(USES[use](model), before)

    def test_with_relu_in_place_of_gelu_the_logits_are_those_of_pytorch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        torch = pytest.importorskip("torch")
        model = random_model(SHAPES[1])
        ids = random_ids(SHAPES[1], 2, 9)
        peer = in_pytorch(model)
        for block in peer.transformer.h:
            block.mlp.act = torch.nn.ReLU()
        monkeypatch.setattr(layers, "gelu", lambda x: np.maximum(x, 0))
        with torch.no_grad():
            expected = peer(torch.tensor(ids)).logits.numpy()
        assert np.abs(model.logits(ids) - expected).max() <= 1e-10 * np.abs(expected).max()

    @pytest.mark.parametrize("name", [name for name, _ in named_arrays(random_model(SHAPES[2]).params)])
    def test_a_replaced_parameter_takes_effect(self, name: str, tmp_path: Path) -> None:
        """Everywhere, as if the model had been made with it."""
        hparams = SHAPES[2]
        model = random_model(hparams, "float32")
        past = model.new_past()
        old = {name: (array, array.copy()) for name, array in named_arrays(model.params)}
        new = old[name][0][::-1] * 2 + 1
        model.params = replace(model.params, {name: new})
        made = GPT2(hparams, build(hparams, lambda n, shape: new if n == name else old[n][1]), None, "made")
        for use in ("logits", "hidden states", "generate", "stream", "score", "double heads"):
            np.testing.assert_array_equal(USES[use](model), USES[use](made))
        assert not np.array_equal(USES["hidden states"](model), USES["hidden states"](random_model(hparams, "float32")))
        with pytest.raises(ValueError, match="this past was made for another model"):
            model.logits([1], past)
        numpy_gpt2.save(model, tmp_path)
        np.testing.assert_array_equal(numpy_gpt2.load(tmp_path).logits(IDS), model.logits(IDS))
        for n, array in named_arrays(model.params):
            assert array is (new if n == name else old[n][0])  # not copied
        for array, copy in old.values():
            np.testing.assert_array_equal(array, copy)


class TestNames:
    @pytest.fixture(autouse=True)
    def models_dir(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("NUMPY_GPT2_MODELS", str(tmp_path / "models"))
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "huggingface"))
        monkeypatch.chdir(tmp_path)
        return tmp_path / "models"

    @pytest.mark.parametrize(("name", "other"), [("gpt2", "124M"), ("124M", "gpt2"), ("gpt2-xl", "1558M")])
    def test_a_model_that_is_there_through_the_other_door_is_used(
        self, models_dir: Path, downloaded: list[str], caplog: pytest.LogCaptureFixture, name: str, other: str
    ) -> None:
        shutil.copytree(TINY, models_dir / other)
        with caplog.at_level("DEBUG", "numpy_gpt2"):
            assert numpy_gpt2.load(name).hparams.n_vocab == 4096
        assert downloaded == []
        assert caplog.messages[0].startswith(f"{name} is in {models_dir / other}: ")
        shutil.copytree(TINY, models_dir / name)
        caplog.clear()
        numpy_gpt2.load(name)
        assert caplog.messages == []

    @pytest.mark.parametrize("name", ["124M", "gpt2", "distilgpt2"])
    def test_a_model_is_loaded_from_the_folder_of_its_name(self, models_dir: Path, name: str) -> None:
        shutil.copytree(TINY, model_folder(name))
        assert numpy_gpt2.load(name).hparams.n_vocab == 4096

    def test_an_argument_takes_precedence_over_the_environment(self, tmp_path: Path) -> None:
        shutil.copytree(TINY, tmp_path / "elsewhere" / "124M")
        assert numpy_gpt2.load("124M", models_dir=tmp_path / "elsewhere").hparams.n_vocab == 4096

    def test_by_default_models_are_in_the_users_cache(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("NUMPY_GPT2_MODELS")
        cache = platformdirs.user_cache_path("numpy_gpt2", appauthor=False)
        assert model_folder("124M") == cache / "models" / "124M"

    @pytest.mark.parametrize("spelling", ["./mine", "mine", "mine/", "{here}/mine"])
    def test_a_folder(self, tmp_path: Path, spelling: str) -> None:
        shutil.copytree(TINY, tmp_path / "mine")
        assert numpy_gpt2.load(spelling.format(here=tmp_path)).hparams.n_vocab == 4096
        assert numpy_gpt2.load(Path("mine")).hparams.n_vocab == 4096

    def test_a_name_is_not_a_folder(self, tmp_path: Path, models_dir: Path) -> None:
        """If the current folder has a folder `124M`, then `./124M` is that folder, and `124M` still the model."""
        shutil.copytree(TINY, tmp_path / "124M")
        assert model_folder("124M") == models_dir / "124M"
        assert numpy_gpt2.load("./124M").hparams.n_vocab == 4096

    @pytest.mark.parametrize("name", ["125M", "", "gpt3", "tiny2", "a\0b"])
    def test_an_unknown_name_is_refused_with_the_known_ones(self, name: str) -> None:
        with pytest.raises(ValueError, match="there is no model .*tiny, gpt2, gpt2-medium,.*1558M, and owner/name"):
            numpy_gpt2.load(name)

    @pytest.fixture
    def downloaded(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The names of the models that were downloaded; in place of each comes tiny."""
        names = []

        def download(name: str, models_dir: str | None = None) -> Path:
            names.append(name)
            return shutil.copytree(TINY, model_folder(name, models_dir), dirs_exist_ok=True)

        monkeypatch.setattr("numpy_gpt2.hub.download.download", download)
        return names

    def test_a_model_that_is_not_on_disk_is_downloaded(self, downloaded: list[str], tmp_path: Path) -> None:
        assert numpy_gpt2.load("gpt2").hparams.n_vocab == 4096
        assert numpy_gpt2.load("gpt2").hparams.n_vocab == 4096
        assert numpy_gpt2.load("124M", tmp_path / "elsewhere").hparams.n_vocab == 4096
        assert downloaded == ["gpt2", "124M"]

    @pytest.mark.parametrize("file", ["hparams.json", "vocab.bpe", "model.safetensors"])
    def test_an_incomplete_model_is_downloaded(self, models_dir: Path, downloaded: list[str], file: str) -> None:
        shutil.copytree(TINY, models_dir / "124M")
        (models_dir / "124M" / "config.json").unlink()
        assert is_on_disk("124M")
        (models_dir / "124M" / file).unlink()
        assert not is_on_disk("124M")
        numpy_gpt2.load("124M")
        assert downloaded == ["124M"]

    def test_a_folder_is_never_downloaded(self, downloaded: list[str]) -> None:
        with pytest.raises(FileNotFoundError, match="there is no folder 124M"):
            numpy_gpt2.load("./124M")
        assert downloaded == []

    def test_the_home_of_a_user_who_does_not_exist(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(FileNotFoundError, match="there is no folder ~nobody-of-this-name/model"):
            numpy_gpt2.load("~nobody-of-this-name/model")
        monkeypatch.setenv("NUMPY_GPT2_MODELS", "~nobody-of-this-name")
        assert model_folder("124M") == Path("~nobody-of-this-name/124M")
        assert not is_on_disk("124M")

    def test_the_users_home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("USERPROFILE", str(tmp_path))
        assert model_folder("~/mine") == model_folder(Path("~/mine")) == tmp_path / "mine"

    def test_a_string_that_could_be_a_repository_is_a_folder_if_there_is_one(
        self, tmp_path: Path, downloaded: list[str]
    ) -> None:
        shutil.copytree(TINY, tmp_path / "owner" / "name")
        assert numpy_gpt2.load("owner/name").hparams.n_vocab == 4096
        assert downloaded == []
        numpy_gpt2.load("owner/other@v1")
        assert downloaded == ["owner/other@v1"]

    @pytest.mark.parametrize("folder", ["./nowhere", "./124M", Path("tiny")], ids=str)
    def test_a_folder_that_does_not_exist(self, folder: str | Path) -> None:
        with pytest.raises(FileNotFoundError, match="there is no folder (nowhere|124M|tiny)"):
            numpy_gpt2.load(folder)

    def test_a_vocabulary_of_another_size(self, tmp_path: Path) -> None:
        folder = tmp_path / "mixed"
        shutil.copytree(TINY, folder)
        for file in ("encoder.json", "vocab.bpe"):
            shutil.copy(TINY.parent / "gpt2" / file, folder / file)
        with pytest.raises(ValueError, match="the vocabulary has 50257 tokens, but the hyperparameters say 4096"):
            numpy_gpt2.load(folder)

    @pytest.mark.parametrize("n_vocab", [4096, 4224])
    def test_a_model_may_have_more_ids_than_tokens_or_fewer(self, tmp_path: Path, n_vocab: int) -> None:
        """As transformers leaves it, where the vocabulary is padded to a multiple, or not resized for a new token."""
        transformers = pytest.importorskip("transformers")
        numpy_gpt2.save(with_vocabulary_of_tiny(n_vocab), tmp_path)
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
        theirs.add_special_tokens({"pad_token": "<pad>"})
        theirs.save_pretrained(tmp_path)
        ours = numpy_gpt2.load(tmp_path)
        assert ours.hparams.n_vocab == n_vocab
        assert ours.tokenizer
        assert ours.tokenizer.encode("The<pad>", allow_special=True) == theirs.encode("The<pad>")
        ids = [*range(4000, max(n_vocab, 4097))]
        assert ours.tokenizer.decode(ids) == theirs.decode(ids)
        with pytest.raises(ValueError, match=f"token id {ids[-1] + 1} is outside the vocabulary"):
            ours.tokenizer.decode([ids[-1] + 1])
        assert isinstance(ours.generate("The king", max_new_tokens=5, seed=0), str)

    def test_transformers_gives_the_special_tokens_of_a_saved_model_their_ids(self, tmp_path: Path) -> None:
        transformers = pytest.importorskip("transformers")
        model = with_vocabulary_of_tiny(4100)
        assert model.tokenizer
        old = sorted(model.tokenizer.encoder, key=model.tokenizer.encoder.__getitem__)
        tokens = ["<first>", *old[:2000], "<middle>", "word", *old[2000:], "<last>"]
        encoder = {token: id for id, token in enumerate(tokens)}
        special = ("<first>", "<middle>", "<last>")
        model.tokenizer = Tokenizer(encoder, [*model.tokenizer.ranks], special, added=["word"])
        numpy_gpt2.save(model, tmp_path)
        again, theirs = numpy_gpt2.load(tmp_path).tokenizer, transformers.AutoTokenizer.from_pretrained(tmp_path)
        assert again
        text = "The <first> king<middle> has words<last><|endoftext|>"
        for allowed in True, False:
            ids = model.tokenizer.encode(text, allowed)
            assert ids == again.encode(text, allowed) == theirs.encode(text, split_special_tokens=not allowed)
        assert [theirs.convert_tokens_to_ids(token) for token in special] == [0, 2001, 4099]
        assert theirs.decode(theirs.encode("The<middle> king"), skip_special_tokens=True) == "The king"


def with_vocabulary_of_tiny(n_vocab: int) -> GPT2:
    """A small random model with so many ids, and the vocabulary of tiny, which has 4096 tokens."""
    model = numpy_gpt2.init(HParams(n_vocab=n_vocab, n_ctx=32, n_embd=8, n_head=2, n_layer=1))
    model.tokenizer = Tokenizer.load(TINY)
    return model


@pytest.fixture(scope="module")
def precise_tiny() -> GPT2:
    return numpy_gpt2.load("tiny", dtype="float64")


class TestAgainstHuggingFace:
    """In float64, in which no two logits are equal by rounding."""

    @pytest.fixture(autouse=True)
    def load(self, precise_tiny: GPT2) -> None:
        self.tiny = precise_tiny
        assert self.tiny.tokenizer
        self.tokenizer = self.tiny.tokenizer

    def by_hugging_face(self, prompt: str, **options: Any) -> Any:
        torch = pytest.importorskip("torch")
        ids = self.tokenizer.encode(prompt) or [4095]
        return in_pytorch(self.tiny).generate(
            torch.tensor([ids]),
            attention_mask=torch.ones((1, len(ids)), dtype=torch.int64),
            **{"do_sample": False, "pad_token_id": 0, "eos_token_id": 4095, **options},
        )

    def text(self, prompt: str, ids: Any) -> str:
        """The text that follows the prompt, in ids from transformers."""
        n_prompt = len(self.tokenizer.encode(prompt) or [4095])
        return self.tokenizer.decode(ids[0, n_prompt:].tolist()).removesuffix("<|endoftext|>")

    @pytest.mark.parametrize("prompt", PROMPTS, ids=ascii)
    def test_greedy_text_of_tiny(self, prompt: str) -> None:
        expected = self.text(prompt, self.by_hugging_face(prompt, max_new_tokens=100))
        assert self.tiny.generate(prompt, max_new_tokens=100, temperature=0) == expected
        assert len(expected) > 50

    def test_prompts_of_different_lengths_in_one_batch(self) -> None:
        expected = [self.text(prompt, self.by_hugging_face(prompt, max_new_tokens=40)) for prompt in PROMPTS]
        assert self.tiny.generate(PROMPTS, max_new_tokens=40, temperature=0) == expected

    def test_repetition_penalty(self) -> None:
        prompt = "The king said: the king, the king"
        expected = self.text(prompt, self.by_hugging_face(prompt, max_new_tokens=40, repetition_penalty=1.3))
        made = self.tiny.generate(prompt, max_new_tokens=40, temperature=0, repetition_penalty=1.3)
        assert made == expected != self.tiny.generate(prompt, max_new_tokens=40, temperature=0)

    def test_max_length_counts_the_prompt(self) -> None:
        for prompt in PROMPTS:
            expected = self.text(prompt, self.by_hugging_face(prompt, max_length=30, max_new_tokens=None))
            assert self.tiny.generate(prompt, max_length=30, temperature=0) == expected

    def test_log_probabilities_are_those_of_the_model_alone(self) -> None:
        """The penalty and the temperature do not change them."""
        torch = pytest.importorskip("torch")
        made = self.tiny.generate(
            "The king", max_new_tokens=20, temperature=0.7, repetition_penalty=1.2, seed=1, return_details=True
        )
        ids = self.tokenizer.encode("The king")
        with torch.no_grad():
            logits = in_pytorch(self.tiny)(torch.tensor([ids + made.ids])).logits[0, len(ids) - 1 : -1]
        theirs = torch.log_softmax(logits, dim=-1).numpy()[np.arange(20), made.ids]
        np.testing.assert_allclose(made.log_probabilities, theirs, rtol=0, atol=1e-10)


def cut(text: str) -> tuple[str, str]:
    """Five characters of a text, and what stands before they first come."""
    found = text[7:12]
    return found, text[: text.index(found)]


class TestGenerate:
    def test_a_list_of_prompts_gives_a_list(self, tiny: GPT2) -> None:
        texts = ["The king", "A fox said"]
        alone = [tiny.generate(text, 6, temperature=0) for text in texts]
        assert tiny.generate(texts, 6, temperature=0) == alone
        assert tiny.generate(texts[:1], 6, temperature=0) == alone[:1]
        assert tiny.generate(texts[0], 6, temperature=0, num_return_sequences=2) == [alone[0]] * 2
        assert tiny.generate(texts, 6, temperature=0, num_return_sequences=2) == [[alone[0]] * 2, [alone[1]] * 2]
        assert tiny.generate(texts[:1], 6, temperature=0, num_return_sequences=2) == [[alone[0]] * 2]

    def test_ids_are_accepted_wherever_text_is(self, tiny: GPT2) -> None:
        assert tiny.tokenizer
        ids = tiny.tokenizer.encode("The king")
        expected = tiny.generate("The king", 5, temperature=0)
        assert expected
        for prompt in (ids, tuple(ids), np.array(ids), np.array(ids, np.uint16)):
            assert tiny.generate(prompt, 5, temperature=0) == expected
        several: list[Any] = [[ids, "The king"], ("The king", tuple(ids)), np.array([ids, ids]), iter([ids, ids])]
        for prompts in several:
            assert tiny.generate(prompts, 5, temperature=0) == [expected] * 2
        assert "".join(tiny.stream(ids, 5, temperature=0)) == expected
        once: Any = iter(ids)
        assert "".join(tiny.stream(once, 5, temperature=0)) == expected
        assert tiny.tokenizer
        batch = tiny.tokenizer.encode_batch(["The king", "A fox said", ""])
        assert tiny.generate(batch, 5, temperature=0) == tiny.generate(["The king", "A fox said", ""], 5, temperature=0)

    def test_no_prompts_give_no_texts(self, tiny: GPT2) -> None:
        several: list[Any] = [[], (), iter([]), np.zeros((0, 3), int)]
        for nothing in several:
            assert tiny.generate(nothing) == tiny.generate(nothing, num_return_sequences=3) == []

    def test_five_continuations_are_repeatable_by_seed(self, tiny: GPT2) -> None:
        first, again, other = (
            tiny.generate("Hello, I'm a language model,", max_new_tokens=20, num_return_sequences=5, seed=seed)
            for seed in (1, 1, 2)
        )
        assert first == again
        assert len({*first, *other}) == 10
        assert tiny.generate("Hello, I'm a language model,", 20, seed=1) == first[0]

    def test_without_a_seed_texts_differ(self, tiny: GPT2) -> None:
        assert len({tiny.generate("The king", max_new_tokens=16) for _ in range(4)}) > 1
        assert len({*tiny.generate("The king", max_new_tokens=16, num_return_sequences=4)}) > 1

    def test_the_full_text(self, tiny: GPT2) -> None:
        assert tiny.tokenizer
        text = tiny.generate("The king", 6, temperature=0)
        for prompt in ("The king", tiny.tokenizer.encode("The king")):
            assert tiny.generate(prompt, 6, temperature=0, return_full_text=True) == "The king" + text
            pieces = list(tiny.stream(prompt, 6, temperature=0, return_full_text=True))
            assert (pieces[0], "".join(pieces)) == ("The king", "The king" + text)
        assert tiny.generate("", 6, temperature=0, return_full_text=True) == tiny.generate("", 6, temperature=0)

    def test_the_details(self, tiny: GPT2) -> None:
        assert tiny.tokenizer
        stop, before = cut(tiny.generate("The king", temperature=0))
        made = tiny.generate("The king", temperature=0, stop=[stop, "xyz"], return_details=True)
        assert made.text == before
        assert made.finish_reason == "stop"
        assert tiny.tokenizer.decode(made.ids).startswith(made.text)
        assert len(made.log_probabilities) == len(made.ids)
        (listed,) = tiny.generate(["The king"], temperature=0, stop=stop, return_details=True)
        assert listed.text == made.text

    def test_tokens_of_a_stop_string_are_not_in_the_ids(self, tiny: GPT2) -> None:
        assert tiny.tokenizer
        plain = tiny.generate("The king", 9, temperature=0, return_details=True)
        pieces = [tiny.tokenizer.decode([id]) for id in plain.ids]
        n = next(i for i, piece in enumerate(pieces) if i and piece not in "".join(pieces[:i]))
        made = tiny.generate("The king", temperature=0, stop=pieces[n], return_details=True)
        assert (made.text, made.ids) == ("".join(pieces[:n]), plain.ids[:n])
        assert len(made.log_probabilities) == n

    def test_the_model_may_end_the_text(self, tiny: GPT2) -> None:
        assert tiny.tokenizer
        end = tiny.tokenizer.end_of_text

        def as_likely_as_any(logits: Array) -> Array:
            return np.where(np.arange(4096) == end, logits.max(axis=-1, keepdims=True), logits)

        with numpy_gpt2.patch({"logits": as_likely_as_any}):
            made = tiny.generate("The king", 30, num_return_sequences=20, seed=1, return_details=True)
        ended = [generation for generation in made if generation.finish_reason == "end_of_text"]
        assert ended
        assert all(end not in generation.ids for generation in made)
        assert all(
            len(generation.ids) < 30 and generation.text == tiny.tokenizer.decode(generation.ids)
            for generation in ended
        )

    def test_half_a_stop_string_at_the_end_is_text(self, tiny: GPT2) -> None:
        text = tiny.generate("The king", 4, temperature=0)
        assert tiny.generate("The king", 4, temperature=0, stop=text[-2:] + "!") == text

    def test_numbers_of_numpy_are_accepted(self, tiny: GPT2) -> None:
        expected = tiny.generate("The king", 200, seed=1, top_k=40)
        options: dict[str, Any] = {"seed": np.uint8(1), "top_k": np.uint8(40)}
        assert tiny.generate("The king", np.uint8(200), **options) == expected  # type: ignore[arg-type]
        several: dict[str, Any] = {"num_return_sequences": np.uint8(200), "max_length": np.int8(4)}
        assert len(tiny.generate(["The king"] * 2, **several)[1]) == 200

    def test_stop_strings_may_be_any_iterable(self, tiny: GPT2) -> None:
        text, before = cut(tiny.generate("The king", 9, temperature=0))
        several: list[Any] = [[text], (text,), iter(["xyz", text]), np.array([text, "xyz"])]
        for stop in several:
            assert tiny.generate("The king", 9, temperature=0, stop=stop) == before

    def test_a_call_that_is_refused_draws_no_random_numbers(self, tiny: GPT2) -> None:
        seed = np.random.SeedSequence(5)
        with pytest.raises(ValueError, match="token id 4096"):
            tiny.generate([4096], seed=seed)
        assert tiny.generate("The king", 5, seed=seed) == tiny.generate("The king", 5, seed=5)

    def test_slide_continues_beyond_the_context(self, tiny: GPT2) -> None:
        endless = GPT2(tiny.hparams, tiny.params, tiny.tokenizer, "endless", special_ids=SpecialIds())
        made = endless.generate("The king", 300, temperature=0, return_details=True)
        assert made.finish_reason == "context"
        slid = endless.generate("The king", 300, temperature=0, slide=True, return_details=True)
        assert (len(slid.ids), slid.finish_reason) == (300, "length")
        assert slid.text.startswith(made.text)
        assert len(endless.generate("word " * 300, 9, temperature=0, slide=True, return_details=True).ids) == 9

    def test_progress(self, tiny: GPT2) -> None:
        steps: list[int] = []
        tiny.generate(["The king", "A fox"], 5, temperature=0, num_return_sequences=2, progress=steps.append)
        assert steps == [4] * 5
        for _ in tiny.stream("The king", 3, temperature=0, progress=steps.append):
            pass
        assert steps[5:] == [1] * 3

    def test_an_empty_prompt_begins_at_end_of_text(self, tiny: GPT2) -> None:
        assert tiny.generate("", 5, temperature=0) == tiny.generate([4095], 5, temperature=0)
        assert "".join(tiny.stream([], 5, temperature=0)) == tiny.generate([4095], 5, temperature=0)
        assert tiny.generate(["", "The king"], 5, temperature=0)[0] == tiny.generate("", 5, temperature=0)

    def test_end_of_text_in_a_prompt_is_only_text(self, tiny: GPT2) -> None:
        assert tiny.generate("<|endoftext|>", 5, temperature=0) != tiny.generate("", 5, temperature=0)

    @pytest.mark.parametrize(
        ("prompt", "options", "complaint"),
        [
            ("word " * 300, {}, r"\d+ tokens are too many for this model, whose context holds 256"),
            ([1] * 257, {}, "257 tokens are too many for this model, whose context holds 256"),
            ([4096], {}, "token id 4096 is outside the vocabulary"),
            ([1.5], {}, "token ids must be whole numbers"),
            (b"bytes", {}, "token ids must be whole numbers"),
            (5, {}, "token ids must be whole numbers"),
            ([[[1], [2]]], {}, "a prompt is one row of token ids"),
            ([[[1], [2, 3]]], {}, "token ids must be one row of numbers, or several rows of the same length"),
            (["a", [1, 4096]], {}, "prompt 2: token id 4096 is outside"),
            (["a", "word " * 300], {}, r"prompt 2: \d+ tokens are too many"),
            ("a\ud800", {}, "the text is not UTF-8"),
            ("a", {"temperature": -1}, "temperature must be 0"),
            ("a", {"top_k": -1}, "top_k must be"),
            ("a", {"top_p": 2}, "top_p must be"),
            ("a", {"min_p": 2}, "min_p must be"),
            ("a", {"repetition_penalty": 0}, "repetition_penalty must be"),
            ("a", {"max_new_tokens": -1}, "max_new_tokens must be"),
            ("a", {"max_new_tokens": 2.5}, "max_new_tokens must be"),
            ("a", {"max_length": -1}, "max_length must be"),
            ("a b c", {"max_length": 2}, "the prompt has 3 tokens, more than max_length, 2"),
            ("a", {"max_length": 2, "max_new_tokens": 2}, "give max_new_tokens or max_length"),
            ("a", {"seed": -1}, "seed must be"),
            ("a", {"seed": 1.5}, "seed must be"),
            ("a", {"stop": ""}, "a stop string must be text, and at least one character, not ''"),
            ("a", {"stop": ["b", 3]}, "a stop string must be text, and at least one character, not 3"),
            ("a", {"stop": 3}, "stop must be text, or a list of texts, not 3"),
            ("a", {"temperature": "hot"}, "temperature must be a number, not 'hot'"),
            ("a", {"top_p": None}, "top_p must be a number, not None"),
            ("a", {"top_k": "3"}, "top_k must be a number, not '3'"),
            ("a", {"stop": "\ud800"}, "the text is not UTF-8"),
            ("a", {"num_return_sequences": 0}, "num_return_sequences must be a whole number, 1 or more"),
        ],
        ids=str,
    )
    def test_bad_arguments_are_refused(self, tiny: GPT2, prompt: Any, options: dict[str, Any], complaint: str) -> None:
        with pytest.raises(ValueError, match=f"^{complaint}"):
            tiny.generate(prompt, **options)

    @pytest.mark.parametrize("name", ["temprature", "sampling", "method", "top_K", "n_head"])
    def test_an_unknown_option_is_named(self, tiny: GPT2, name: str) -> None:
        options: dict[str, Any] = {"temperature": 0, name: 1}
        for method in (tiny.generate, tiny.stream):
            complaint = rf"^'{name}' is not an option here(; did you mean '\w+'\?)?$"
            with pytest.raises(TypeError, match=complaint):
                method("a", 3, **options)

    def test_a_stream_refuses_before_its_first_piece(self, tiny: GPT2) -> None:
        with pytest.raises(ValueError, match="temperature must be"):
            tiny.stream("a", temperature=-1)
        with pytest.raises(ValueError, match="tokens are too many"):
            tiny.stream("word " * 300)
        with pytest.raises(TypeError, match="'num_return_sequences' is not an option here"):
            tiny.stream("a", num_return_sequences=2)
        with pytest.raises(ValueError, match="one prompt at a time"):
            tiny.stream(["a", "b"])  # type: ignore[list-item]


class TestWithoutAVocabulary:
    """Ids in, ids out."""

    model = random_model(SHAPES[1])

    def test_text_is_refused(self) -> None:
        for make in (self.model.generate, self.model.stream):
            with pytest.raises(ValueError, match="has no vocabulary and knows only ids: give token ids"):
                make("a")
            with pytest.raises(ValueError, match="has no vocabulary and knows only ids: a stop string is text"):
                make([1, 2], stop="x")
        with pytest.raises(ValueError, match="has no vocabulary"):
            self.model.generate("a", return_details=True)
        with pytest.raises(ValueError, match="has no vocabulary .* the ids of a Generation are always those of the co"):
            self.model.generate([1, 2], return_details=True, return_full_text=True)

    @pytest.mark.parametrize("drafts", [{}, {"prompt_lookup_num_tokens": 4}], ids=str)
    def test_ids_are_what_the_loop_makes(self, drafts: dict[str, Any]) -> None:
        expected = finish([Row([1, 2], greedy, 9), Row([3], greedy, 9)], self.model)
        options: dict[str, Any] = {"max_new_tokens": 9, "temperature": 0, **drafts}
        assert self.model.generate([1, 2], **options) == expected[0]
        assert self.model.generate([[1, 2], [3]], **options) == expected
        assert self.model.generate([1, 2], num_return_sequences=2, **options) == [expected[0]] * 2
        assert self.model.generate([[1, 2]], num_return_sequences=2, **options) == [[expected[0]] * 2]
        assert self.model.generate([[1, 2], [3]], return_full_text=True, **options) == [
            [1, 2, *expected[0]],
            [3, *expected[1]],
        ]
        details = self.model.generate([1, 2], return_details=True, **options)
        assert (details.text, details.ids, details.finish_reason) == ("", expected[0], "length")
        assert {type(id) for id in self.model.generate(np.array([1, 2]), return_full_text=True, **options)} == {int}

    @pytest.mark.parametrize("drafts", [{}, {"prompt_lookup_num_tokens": 4}], ids=str)
    def test_a_stream_has_the_same_ids(self, drafts: dict[str, Any]) -> None:
        options: dict[str, Any] = {"max_new_tokens": 9, "temperature": 0, **drafts}
        for full in (False, True):
            expected = self.model.generate([1, 2], return_full_text=full, **options)
            assert [*self.model.stream([1, 2], return_full_text=full, **options)] == expected

    def test_a_stream_gives_each_id_when_it_is_there(self) -> None:
        steps: list[int] = []
        stream = self.model.stream([1, 2], 5, seed=0, progress=steps.append)
        assert [len(steps) for _ in stream] == [1, 2, 3, 4, 5]
        assert stream.finish_reason == "length"

    def test_an_empty_prompt_begins_after_the_token_that_the_configuration_names(self) -> None:
        model = GPT2(self.model.hparams, self.model.params, None, "with ids", special_ids=SpecialIds((), 7))
        expected = model.generate([7], 5, temperature=0)
        assert model.generate([[]], 5, temperature=0, return_full_text=True) == [expected]
        assert [*model.stream([], 5, temperature=0)] == expected
        for ask in (lambda: self.model.generate([[]]), lambda: self.model.stream([])):
            with pytest.raises(ValueError, match="there are no token ids to read"):
                ask()

    def test_a_token_that_ends_a_text(self) -> None:
        ids = self.model.generate([1, 2], 9, temperature=0)
        model = GPT2(self.model.hparams, self.model.params, None, "with ids", special_ids=SpecialIds((ids[4],)))
        assert model.generate([1, 2], 9, temperature=0) == ids[: ids.index(ids[4])]
