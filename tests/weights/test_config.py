"""The files that describe the shape of a model: OpenAI's `hparams.json` and Hugging Face's `config.json`."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import hugging_face_config, in_pytorch, random_ids, random_model

import numpy_gpt2
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.params import Array, HParams, named_arrays
from numpy_gpt2.text.special_ids import SpecialIds
from numpy_gpt2.weights.config import CONFIG_KEYS, is_written_here, read_config, read_hparams, write_configs
from numpy_gpt2.weights.folder import hugging_face_name

HPARAMS = HParams(n_vocab=4096, n_ctx=7, n_embd=12, n_head=3, n_layer=2)


class TestHParams:
    @pytest.mark.parametrize(
        ("content", "complaint"),
        [
            ("", "is not JSON"),
            ('{"n_vocab": 50257,', "is not JSON"),
            ("[" * 100_000, "is not JSON"),
            ("[1, 2]", "must be a JSON object"),
            ('{"n_vocab": ' + "9" * 5000 + "}", "is not JSON"),
            ("{}", "does not say n_vocab, n_ctx, n_embd, n_head, n_layer"),
            ({"n_head": 5}, "n_embd must be a multiple of n_head"),
            ({"n_layer": -1}, "n_layer must be a positive whole number, not -1"),
            ({"n_layer": 1e9}, "n_layer must be a positive whole number, not 1000000000.0"),
            ({"n_ctx": "many"}, "n_ctx must be a positive whole number, not 'many'"),
            ({"n_embd": None}, "n_embd must be a positive whole number, not None"),
            ({"n_vocab": float("nan")}, "n_vocab must be a positive whole number, not nan"),
        ],
        ids=lambda value: str(value)[:40],
    )
    def test_invalid_content_is_refused(self, tmp_path: Path, content: str | dict[str, Any], complaint: str) -> None:
        file = tmp_path / "hparams.json"
        file.write_text(content if isinstance(content, str) else json.dumps({**HPARAMS._asdict(), **content}))
        with pytest.raises(ValueError, match=rf"hparams\.json.*{complaint}"):
            read_hparams(tmp_path)

    def test_other_entries_are_ignored(self, tmp_path: Path) -> None:
        (tmp_path / "hparams.json").write_text(json.dumps({**HPARAMS._asdict(), "comment": "mine"}))
        assert read_hparams(tmp_path) == HPARAMS

    def test_a_missing_file_or_folder(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="no model in .*: neither hparams.json nor config.json"):
            read_hparams(tmp_path)
        with pytest.raises(FileNotFoundError, match="there is no folder"):
            read_hparams(tmp_path / "nowhere")


class TestConfig:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        """A configuration that transformers wrote."""
        config = hugging_face_config(HPARAMS)
        config.architectures = ["GPT2LMHeadModel"]
        config.save_pretrained(tmp_path)
        return tmp_path / "config.json"

    def test_a_configuration_by_transformers_is_read(self, file: Path) -> None:
        assert read_hparams(file.parent) == HPARAMS
        assert not is_written_here(file)

    @pytest.mark.parametrize(
        ("change", "complaint"),
        [
            ({"model_type": "llama"}, "model_type is 'llama'"),
            ({"model_type": None}, "model_type is None"),
            ({"activation_function": "relu"}, "activation_function is 'relu', but only GPT-2's 'gelu_new' can be"),
            ({"activation_function": "gelu"}, "activation_function is 'gelu'"),
            ({"activation_function": ["gelu_new"]}, "activation_function is \\['gelu_new'\\]"),
            ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon is 1e-06"),
            ({"scale_attn_weights": False}, "scale_attn_weights is False"),
            ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
            ({"add_cross_attention": True}, "add_cross_attention is True"),
            ({"n_inner": 100}, "n_inner is 100, but GPT-2's is 4 \\* n_embd, 48"),
            (
                {"architectures": ["GPT2ForSequenceClassification"]},
                "the architecture is .*GPT2ForSeq",
            ),
            ({"architectures": 5}, "the architecture is 5"),
            ({"vocab_size": 0}, "n_vocab must be a positive whole number"),
            ({"n_head": 5}, "n_embd must be a multiple of n_head"),
        ],
        ids=str,
    )
    def test_an_option_that_is_not_gpt2s_is_named(self, file: Path, change: dict[str, Any], complaint: str) -> None:
        file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
        with pytest.raises(ValueError, match=rf"config\.json: {complaint}"):
            read_hparams(file.parent)

    @pytest.mark.parametrize(
        "change",
        [
            {"activation_function": "gelu_pytorch_tanh"},
            {"n_inner": 48},
            {"architectures": None},
            {"architectures": ["GPT2Model"]},
            {"architectures": ["GPT2DoubleHeadsModel"]},
            {"attn_pdrop": 0.5, "summary_type": "first", "reorder_and_upcast_attn": True},
        ],
        ids=str,
    )
    def test_options_that_do_not_change_the_result_are_accepted(self, file: Path, change: dict[str, Any]) -> None:
        file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
        assert read_hparams(file.parent) == HPARAMS

    def test_missing_options_have_gpt2s_values(self, file: Path) -> None:
        """Files from 2019 have fewer options."""
        content = json.loads(file.read_text())
        keys = ("vocab_size", "n_positions", "n_embd", "n_head", "n_layer")
        file.write_text(json.dumps({name: content[name] for name in keys}))
        assert read_config(file) == HPARAMS
        file.write_text(json.dumps({name: content[name] for name in keys[1:]}))
        with pytest.raises(ValueError, match="does not say vocab_size"):
            read_config(file)

    def test_two_files_that_disagree_are_refused(self, file: Path) -> None:
        (file.parent / "hparams.json").write_text(json.dumps(HPARAMS._asdict()))
        assert read_hparams(file.parent) == HPARAMS
        (file.parent / "hparams.json").write_text(json.dumps(HPARAMS._replace(n_head=4)._asdict()))
        for _ in range(2):
            with pytest.raises(ValueError, match=r"hparams\.json and config\.json beside it describe two different"):
                read_hparams(file.parent)
            write_configs(file.parent, HPARAMS, None, "float32")  # whatever wrote them

    def test_transformers_reads_a_written_configuration(self, tmp_path: Path) -> None:
        pytest.importorskip("torch")  # without it, transformers does not know the names of dtypes
        transformers = pytest.importorskip("transformers")
        write_configs(tmp_path, HPARAMS, None, "float64")
        assert is_written_here(tmp_path / "config.json")
        assert read_hparams(tmp_path) == HPARAMS
        theirs = transformers.AutoConfig.from_pretrained(tmp_path)
        expected = hugging_face_config(HPARAMS)
        expected.eos_token_id = expected.bos_token_id = None  # without a vocabulary, nothing ends or begins a text
        for name in expected.to_dict().keys() - {"architectures", "dtype", "transformers_version", "_name_or_path"}:
            assert getattr(theirs, name) == getattr(expected, name), name
        assert theirs.architectures == ["GPT2LMHeadModel"]
        assert str(theirs.dtype) == "torch.float64"

    def test_a_written_configuration_has_every_entry_that_transformers_writes(self, file: Path, tmp_path: Path) -> None:
        theirs = json.loads(file.read_text())
        (tmp_path / "ours").mkdir()
        write_configs(tmp_path / "ours", HPARAMS, None, "float32")
        ours = json.loads((tmp_path / "ours" / "config.json").read_text())
        assert {name for name in theirs.keys() - ours.keys() if not name.startswith("summary_")} <= {
            "transformers_version",
            "pad_token_id",
        }

    def test_the_end_of_text_keeps_its_id_when_tokens_are_added(self, tmp_path: Path, tiny: GPT2) -> None:
        assert tiny.tokenizer
        padded = type(tiny.tokenizer)({**tiny.tokenizer.encoder, "[PAD]": 4096}, [*tiny.tokenizer.ranks], ["[PAD]"])
        write_configs(tmp_path, HPARAMS._replace(n_vocab=4097), padded, "float32")
        config = json.loads((tmp_path / "config.json").read_text())
        assert (config["bos_token_id"], config["eos_token_id"]) == (4095, 4095)

    def test_a_configuration_that_transformers_saved_again_is_not_ours(self, tmp_path: Path) -> None:
        transformers = pytest.importorskip("transformers")
        write_configs(tmp_path, HPARAMS, None, "float32")
        transformers.AutoConfig.from_pretrained(tmp_path).save_pretrained(tmp_path)
        assert not is_written_here(tmp_path / "config.json")


ABSENT = "(absent)"  # the entry is deleted
ALIASES = {"hidden_size": 12, "num_attention_heads": 3, "num_hidden_layers": 2, "max_position_embeddings": 7}
OWN_NAMES = ("n_embd", "n_head", "n_layer", "n_positions")
TABLE_HPARAMS = HParams(n_vocab=11, n_ctx=7, n_embd=12, n_head=3, n_layer=2)

# Changes of a configuration after which transformers computes what is computed here.
EQUAL: list[dict[str, Any]] = [
    {},
    {"n_head": 2},
    {"n_head": 12},
    {"num_attention_heads": 2},
    {"num_attention_heads": 2, "n_head": 5},
    {"num_attention_heads": 4, "n_head": ABSENT},
    {"hidden_size": 12, "n_embd": 768},
    {"num_hidden_layers": 2, "n_layer": 12},
    {"max_position_embeddings": 7, "n_positions": 1024},
    {**ALIASES, **dict.fromkeys(OWN_NAMES, ABSENT)},
    {**ALIASES, **dict.fromkeys(OWN_NAMES, 5)},
    {"n_ctx": 3},
    {"activation_function": "gelu_pytorch_tanh"},
    {"activation_function": ABSENT},
    {"layer_norm_epsilon": ABSENT},
    {"n_inner": 48},
    {"n_inner": ABSENT},
    {"architectures": None},
    {"architectures": ["GPT2Model"]},
    {"architectures": ["GPT2DoubleHeadsModel"]},
    {"architectures": ["GPT2LMHeadModel", "Mine"]},
    {"model_type": ABSENT},
    {"attn_pdrop": 0.5, "embd_pdrop": 0.5, "resid_pdrop": 0.5},
    {"summary_type": "first", "summary_use_proj": False, "summary_activation": "tanh"},
    {"reorder_and_upcast_attn": True},
    {"use_cache": False},
    {"initializer_range": 1.0},
    {"tie_word_embeddings": ABSENT},
    {"tie_word_embeddings": False, "head": "wte"},
    {"tie_word_embeddings": True, "head": "wte"},
    {"torch_dtype": "float32", "dtype": ABSENT},
    {"is_decoder": True, "chunk_size_feed_forward": 1},
    {"id2label": {"0": "a", "1": "b", "2": "c"}, "problem_type": "regression"},
    {"output_hidden_states": True, "output_attentions": False},
    {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 0},
    {"quantization_config": None, "per_layer_config": None},
    {"pruned_heads": {}, "task_specific_params": {"text-generation": {"max_length": 50}}},
    {"transformers_version": "4.0.0", "n_special": 0, "predict_special_tokens": True, "mine": [1, None]},
]

# Changes that are refused, each with what the message names. Transformers refuses some of them as well; with the
# others, it computes something else, or what it computes depends on the class that loads the folder.
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"model_type": "llama"}, "model_type is 'llama'"),
    ({"model_type": None}, "model_type is None"),
    ({"activation_function": "relu"}, "activation_function is 'relu'"),
    ({"activation_function": "gelu"}, "activation_function is 'gelu'"),
    ({"activation_function": "silu"}, "activation_function is 'silu'"),
    ({"activation_function": None}, "activation_function is None"),
    ({"activation_function": ["gelu_new"]}, "activation_function is"),
    ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon is 1e-06"),
    ({"layer_norm_epsilon": 0}, "layer_norm_epsilon is 0"),
    ({"layer_norm_epsilon": "1e-5"}, "layer_norm_epsilon is '1e-5'"),
    ({"scale_attn_weights": False}, "scale_attn_weights is False"),
    ({"scale_attn_weights": None}, "scale_attn_weights is None"),
    ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
    ({"add_cross_attention": True}, "add_cross_attention is True"),
    ({"n_inner": 100}, "n_inner is 100"),
    ({"n_inner": 0}, "n_inner is 0"),
    ({"architectures": ["GPT2ForSequenceClassification"]}, "the architecture is .*GPT2ForSequenceClassification"),
    ({"architectures": "GPT2LMHeadModel"}, "the architecture is GPT2LMHeadModel"),
    ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantization_config is {'quant_method': 'gptq'"),
    ({"quantization_config": {}}, "quantization_config is {}"),
    ({"per_layer_config": {"0": {"n_head": 1}}}, "per_layer_config is {'0'"),
    ({"vocab_size": ABSENT}, "does not say vocab_size"),
    ({"n_head": ABSENT}, "does not say n_head"),
    ({"vocab_size": 12}, r"wte\.weight has the shape \[11, 12\]"),
    ({"n_head": 5}, "n_embd must be a multiple of n_head"),
    ({"num_attention_heads": 5}, "n_embd must be a multiple of n_head"),
    ({"num_attention_heads": None}, "n_head must be a positive whole number, not None"),
    ({"n_head": 3.0}, "n_head must be a positive whole number, not 3.0"),
    ({"n_head": "3"}, "n_head must be a positive whole number, not '3'"),
    ({"n_head": True}, "n_head must be a positive whole number, not True"),
    ({"hidden_size": 24}, r"wte\.weight has the shape \[11, 12\]"),
    ({"max_position_embeddings": 6}, r"wpe\.weight has the shape \[7, 12\]"),
    ({"num_hidden_layers": 1}, "holds 2 blocks, but the hyperparameters say 1"),
    ({"num_hidden_layers": 10**9}, "holds 2 blocks, but the hyperparameters say 1000000000"),
    ({"tie_word_embeddings": False}, "has no output head, lm_head.weight, but config.json says tie_word_embeddings"),
    ({"tie_word_embeddings": None}, "has no output head, lm_head.weight, but config.json says tie_word_embeddings"),
    ({"tie_word_embeddings": False, "head": "other"}, "lm_head.weight differs from wte"),
    ({"tie_word_embeddings": True, "head": "other"}, "lm_head.weight differs from wte"),
    ({"eos_token_id": "3"}, "eos_token_id must be a token id, or a list of them, not '3'"),
    ({"eos_token_id": 3.0}, "eos_token_id must be a token id, or a list of them, not 3.0"),
    ({"eos_token_id": [1, True]}, r"eos_token_id must be a token id, or a list of them, not \[1, True\]"),
]


class TestTable:
    """Configurations, each with the same parameters: the logits of transformers, or refused by name."""

    @pytest.fixture
    def model(self) -> GPT2:
        return random_model(TABLE_HPARAMS, "float32")

    @staticmethod
    def write(folder: Path, model: GPT2, change: dict[str, Any]) -> None:
        save_file = pytest.importorskip("safetensors.numpy").save_file
        change = dict(change)
        tensors: dict[str, Array] = {
            f"transformer.{hugging_face_name(name)}": array for name, array in named_arrays(model.params)
        }
        if head := change.pop("head", None):
            tensors["lm_head.weight"] = model.params.wte * (1 if head == "wte" else 2)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        config = hugging_face_config(TABLE_HPARAMS).to_dict() | {"architectures": ["GPT2LMHeadModel"]} | change
        config = {name: value for name, value in config.items() if value is not ABSENT}
        (folder / "config.json").write_text(json.dumps(config))

    @pytest.mark.parametrize("change", EQUAL, ids=lambda change: str(change)[:60])
    def test_equal(self, tmp_path: Path, model: GPT2, change: dict[str, Any]) -> None:
        torch = pytest.importorskip("torch")
        self.write(tmp_path, model, change)
        theirs = pytest.importorskip("transformers").GPT2LMHeadModel.from_pretrained(tmp_path).eval()
        ids = random_ids(TABLE_HPARAMS, 2, 7)
        with torch.no_grad():
            expected = theirs(torch.tensor(ids)).logits.numpy()
        np.testing.assert_allclose(numpy_gpt2.load(tmp_path).logits(ids), expected, rtol=0, atol=1e-4)

    @pytest.mark.parametrize(("change", "complaint"), REFUSED, ids=lambda value: str(value)[:60])
    def test_refused(self, tmp_path: Path, model: GPT2, change: dict[str, Any], complaint: str) -> None:
        self.write(tmp_path, model, change)
        with pytest.raises(ValueError, match=complaint) as raised:
            numpy_gpt2.load(tmp_path)
        assert str(tmp_path) in str(raised.value)

    @pytest.mark.parametrize("n", [300, pytest.param(20_000, marks=pytest.mark.slow(reason="twenty thousand files"))])
    def test_a_damaged_configuration_is_refused_or_read_as_there(self, tmp_path: Path, n: int) -> None:
        transformers = pytest.importorskip("transformers")
        rng, file, accepted = random.Random(n), tmp_path / "config.json", 0
        sound = json.dumps({**hugging_face_config(TABLE_HPARAMS).to_dict(), **ALIASES}).encode()
        for _ in range(n):
            i, j, k = (rng.randrange(len(sound) + 1) for _ in range(3))
            piece = rng.choice([sound[min(i, j) : max(i, j)], b"", b"1", b"-", b'"', bytes([rng.randrange(256)])])
            file.write_bytes(sound[:k] + piece + sound[rng.choice([i, k, k + 1]) :])
            with contextlib.suppress(ValueError):
                hparams = read_config(file)
                accepted += 1
                with contextlib.suppress(Exception):  # transformers refuses other types of values that do not matter
                    theirs = transformers.GPT2Config(**json.loads(file.read_text()))
                    expected = {name: getattr(theirs, keys[-1]) for name, keys in CONFIG_KEYS.items()}
                    assert hparams._asdict() == expected or pytest.fail(file.read_text())
        assert accepted > n / 20


class TestEndOfText:
    @pytest.mark.parametrize(
        ("in_config", "in_generation_config"),
        [
            (None, None),
            (ABSENT, None),
            ("second", None),
            (["third", "second"], None),
            (-1, None),
            (10**6, None),
            ("second", {}),
            ("second", {"eos_token_id": None}),
            (None, {"eos_token_id": "third"}),
            ("second", {"eos_token_id": ["third", "fourth"]}),
        ],
        ids=str,
    )
    def test_the_text_ends_where_it_ends_in_transformers(
        self, tmp_path: Path, in_config: Any, in_generation_config: Any
    ) -> None:
        """Without a vocabulary; the words stand for tokens of the continuation that would come without an end."""
        torch = pytest.importorskip("torch")
        model = random_model(TABLE_HPARAMS._replace(n_ctx=20, n_vocab=300), "float32", seed=25)
        whole = model.generate([1, 2], 9, temperature=0, return_details=True).ids
        assert len({*whole[:4]}) == 4
        tokens = dict(zip(["second", "third", "fourth"], whole[1:], strict=False))

        def ids(value: Any) -> Any:
            return [*map(ids, value)] if isinstance(value, list) else tokens.get(value, value)

        in_pytorch(model).save_pretrained(tmp_path)
        (tmp_path / "generation_config.json").unlink()
        config = {**json.loads((tmp_path / "config.json").read_text()), "eos_token_id": ids(in_config)}
        config = {name: value for name, value in config.items() if value is not ABSENT}
        (tmp_path / "config.json").write_text(json.dumps(config))
        if in_generation_config is not None:
            content = {name: ids(value) for name, value in in_generation_config.items()}
            (tmp_path / "generation_config.json").write_text(json.dumps(content))

        theirs = pytest.importorskip("transformers").GPT2LMHeadModel.from_pretrained(tmp_path).eval()
        expected = theirs.generate(torch.tensor([[1, 2]]), max_new_tokens=9, do_sample=False)[0, 2:].tolist()
        ours = numpy_gpt2.load(tmp_path)
        made = ours.generate([1, 2], 9, temperature=0, return_details=True)
        ended = expected[-1] in ours.special_ids.eos_token_ids
        assert made.ids == (expected[:-1] if ended else expected)
        assert made.finish_reason == ("end_of_text" if ended else "length")
        assert ended == any(token in tokens.values() for token in ours.special_ids.eos_token_ids)

    @pytest.mark.parametrize("ends", [(), (7,), (3, 299)])
    def test_a_saved_model_keeps_it(self, tmp_path: Path, ends: tuple[int, ...]) -> None:
        model = random_model(TABLE_HPARAMS)
        numpy_gpt2.save(GPT2(model.hparams, model.params, None, "", special_ids=SpecialIds(ends)), tmp_path)
        assert numpy_gpt2.load(tmp_path).special_ids.eos_token_ids == ends
        pytest.importorskip("torch")
        theirs = pytest.importorskip("transformers").GPT2LMHeadModel.from_pretrained(tmp_path).generation_config
        assert theirs.eos_token_id == {0: None, 1: 7, 2: [3, 299]}[len(ends)]

    @pytest.mark.parametrize("ids", [{"bos_token_id": 7, "pad_token_id": 9}, {"bos_token_id": 0}, {}])
    def test_a_text_without_a_prompt_begins_as_in_transformers_also_once_saved(
        self, tmp_path: Path, ids: dict[str, int]
    ) -> None:
        torch = pytest.importorskip("torch")
        theirs = in_pytorch(random_model(TABLE_HPARAMS))
        settings = {"bos_token_id": None, "pad_token_id": None, "eos_token_id": None, **ids}
        for name, id in settings.items():
            setattr(theirs.config, name, id)
            setattr(theirs.generation_config, name, id)
        theirs.save_pretrained(tmp_path / "theirs")
        ours = numpy_gpt2.load(tmp_path / "theirs")
        numpy_gpt2.save(ours, tmp_path / "ours")
        saved = pytest.importorskip("transformers").GPT2LMHeadModel.from_pretrained(tmp_path / "ours").eval()
        assert {name: getattr(saved.generation_config, name) for name in settings} == settings
        if "bos_token_id" not in ids:
            with pytest.raises(ValueError, match="there are no token ids"):
                ours.generate([[]], 5, temperature=0, return_details=True)
            return
        expected = saved.generate(max_new_tokens=5, do_sample=False)[0, 1:].tolist()
        assert (
            saved.generate(torch.tensor([[ids["bos_token_id"]]]), max_new_tokens=5, do_sample=False)[0, 1:].tolist()
            == expected
        )
        for model in (ours, numpy_gpt2.load(tmp_path / "ours")):
            assert model.generate([[]], 5, temperature=0, return_details=True)[0].ids == expected

    def test_without_a_configuration_it_is_that_of_the_vocabulary(self, tiny: GPT2) -> None:
        assert tiny.special_ids.eos_token_ids == (4095,)
        assert random_model(TABLE_HPARAMS).special_ids.eos_token_ids == ()
        assert numpy_gpt2.init(HPARAMS._replace(n_vocab=50257)).special_ids.eos_token_ids == (50256,)
