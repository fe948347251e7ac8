"""The files that describe the shape of a model: OpenAI's `hparams.json` and Hugging Face's `config.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import hugging_face_config

from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.params import HParams
from numpy_gpt2.weights.config import is_written_here, read_config, read_hparams, write_configs

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
        expected.eos_token_id = None  # without a vocabulary, nothing ends a text
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
