"""Small tokenizers in each layout: the same ids and texts as in transformers, or refused by name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from small_vocabulary import (
    END,
    MERGES,
    VOCAB,
    N,
    added,
    differences,
    in_transformers,
    one_file,
    roles_in,
    two_files,
    write_files,
)

from numpy_gpt2.tokenizer import Tokenizer

EOT = added("<|endoftext|>", END)
PAD = {"__type": "AddedToken", **added("<pad>")}
BACKEND = {"tokenizer_class": "PreTrainedTokenizerFast"}
WORDS = {"covid": N, "covid-19": N + 1, "wo": N + 2}
FIRST = {"<pad>": 0, "<a>": 1, **{token: id + 2 for token, id in VOCAB.items()}}  # special tokens at the beginning


SWAPPED = VOCAB | {"h": VOCAB["e"], "e": VOCAB["h"]}


def openai_files(vocab: Any = VOCAB) -> dict[str, Any]:
    """The same tokenizer under OpenAI's names, which transformers does not read."""
    return {"encoder.json": vocab, "vocab.bpe": two_files()["merges.txt"]}


def decoder(*tokens: dict[str, Any]) -> dict[str, Any]:
    """A `tokenizer_config.json` with an `added_tokens_decoder`."""
    return {"added_tokens_decoder": {str(token.pop("id")): token for token in map(dict, tokens)}}


def config(**settings: Any) -> dict[str, Any]:
    return two_files(tokenizer_config=settings)


EQUAL: dict[str, dict[str, Any]] = {
    "two files": two_files(),
    "two files, other line ends": {**two_files(), "merges.txt": two_files()["merges.txt"].replace("\n", "\r\n")},
    "two files, no version and no last line end": {"vocab.json": VOCAB, "merges.txt": "\n".join(MERGES)},
    "no <|endoftext|> in the vocabulary": two_files({t: id for t, id in VOCAB.items() if id != END}),
    "<|endoftext|> among the added tokens": two_files(
        {t: id for t, id in VOCAB.items() if id != END}, added_tokens={"<|endoftext|>": END}
    ),
    "added tokens are no special ones": two_files(added_tokens={"<pad>": N, "<a>": N + 1}),
    "words": two_files(added_tokens=WORDS | {"wo": N + 2}),
    "added tokens in another order": two_files(added_tokens={"<a>": N + 1, "<pad>": N}),
    "the word of a merge": two_files(added_tokens={"hell": VOCAB["hell"], "<a>": N}),
    "a character": two_files(added_tokens={"l": VOCAB["l"]}),
    "an added token of bytes": two_files(added_tokens={"[é]": N, "Ġx": N + 1, "[ é]": N + 2, "漢": N + 3, "né": N + 4}),
    "special by its role": two_files(
        added_tokens={"<pad>": N, "<a>": N + 1}, special_tokens_map={"pad_token": "<pad>"}
    ),
    "special by its role, described": two_files(special_tokens_map={"pad_token": added("<pad>"), "bos_token": "<a>"}),
    "special by old name, not in 5": two_files(
        added_tokens={"<a>": N}, special_tokens_map={"additional_special_tokens": ["<a>"]}
    ),
    "special by old name": two_files(special_tokens_map={"additional_special_tokens": ["<a>", "<mask>"]}),
    "the map comes after the configuration": two_files(
        special_tokens_map={"pad_token": "<a>"}, tokenizer_config={"pad_token": "<pad>"}
    ),
    "the map takes a role from a token that is not special then": two_files(
        added_tokens={"<a>": N, "<pad>": N + 1},
        special_tokens_map={"pad_token": "<pad>"},
        tokenizer_config={"pad_token": "<a>"},
    ),
    "a token named in two ways": config(unk_token={**PAD, "content": "<|endoftext|>", "normalized": True}),
    "all roles": config(
        mask_token="<mask>", pad_token="<pad>", cls_token="<a>", sep_token="[é]", eos_token="<|im_end|>"
    ),
    "a pad token that is in no file": config(pad_token="<pad>"),
    "a pad token that is in no file, described": config(pad_token=PAD, unk_token=None),
    "a pad token that is <|endoftext|>": config(pad_token="<|endoftext|>", bos_token=None),
    "extra special tokens": config(extra_special_tokens=["<|im_start|>", "<|im_end|>"], pad_token="<pad>"),
    "extra special tokens by the old name": config(additional_special_tokens=["<|im_start|>"]),
    "extra special tokens, described": config(extra_special_tokens=[{**PAD, "content": "<a>", "special": False}]),
    "extra special tokens among the added ones": two_files(
        added_tokens={"<a>": N}, tokenizer_config={"additional_special_tokens": ["<a>"]}
    ),
    "a decoder": two_files(tokenizer_config=decoder(EOT, added("<pad>", N), added("<a>", N + 1, special=False))),
    "a decoder that comes before older files": two_files(
        added_tokens={"<mask>": N}, special_tokens_map={"pad_token": "<a>"}, tokenizer_config=decoder(added("<pad>", N))
    ),
    "a decoder in another order": two_files(tokenizer_config=decoder(added("<a>", N + 1), added("<pad>", N))),
    "a token by its role and in the decoder": two_files(
        tokenizer_config={"pad_token": "<pad>", **decoder(added("<pad>", N, special=False, normalized=True))}
    ),
    "overlapping tokens of a kind": two_files(tokenizer_config=decoder(added("<a>", N), added("<a>b", N + 1))),
    "a word within a special token": two_files(
        tokenizer_config=decoder(EOT, added("text", N, special=False, normalized=True))
    ),
    "special tokens at the beginning": two_files(FIRST, tokenizer_config=decoder(added("<pad>", 0), added("<a>", 1))),
    "special tokens at the beginning, by their roles": two_files(
        FIRST, tokenizer_config={"pad_token": "<pad>", "cls_token": "<a>"}
    ),
    "settings as GPT-2's": config(
        add_prefix_space=False, add_bos_token=False, errors="replace", model_max_length=1024, pad_token=None
    ),
    "spaces that were to be cleaned up": config(clean_up_tokenization_spaces=True, tokenizer_class="GPT2TokenizerFast"),
    "tokenizer.json": one_file(),
    "tokenizer.json, all of it": one_file(tokenizer_config=BACKEND),
    "tokenizer.json, merges as lines": one_file(changes={"model.merges": MERGES}),
    "tokenizer.json as transformers 5 writes it": one_file(
        changes={
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [{"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
                "special_tokens": {},
            }
        },
        tokenizer_config=BACKEND,
    ),
    "tokenizer.json without a post-processor": one_file(changes={"post_processor": None}, tokenizer_config=BACKEND),
    "tokenizer.json with added tokens": one_file(EOT, added("<pad>", N), added("<a>", N + 1, special=False)),
    "tokenizer.json with added tokens, all of it": one_file(
        EOT, added("<pad>", N), added("<a>", N + 1, special=False), tokenizer_config=BACKEND
    ),
    "tokenizer.json, and a decoder that agrees": one_file(
        EOT, added("<pad>", N), tokenizer_config=decoder(EOT, added("<pad>", N))
    ),
    "tokenizer.json, and added tokens that agree": one_file(
        EOT, added("<pad>", N), added_tokens={"<pad>": N}, special_tokens_map={"pad_token": "<pad>"}
    ),
    "tokenizer.json, and a role": one_file(tokenizer_config={"pad_token": "<pad>"}),
    "tokenizer.json, and a role, all of it": one_file(tokenizer_config={**BACKEND, "pad_token": "<pad>"}),
    "tokenizer.json, and the role of a token that is not special": one_file(
        EOT, added("<pad>", N, special=False), tokenizer_config={**BACKEND, "pad_token": "<pad>"}
    ),
    "tokenizer.json that says GPT-2's <|endoftext|> is normalized": one_file(
        added("<|endoftext|>", END, normalized=True)
    ),
    "special tokens at the beginning of tokenizer.json": one_file(
        added("<pad>", 0), added("<a>", 1), added("<|endoftext|>", END + 2), vocab=FIRST, tokenizer_config=BACKEND
    ),
    "truncation": one_file(
        changes={"truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}}
    ),
    "padding": one_file(
        changes={
            "padding": {
                "strategy": {"Fixed": 9},
                "direction": "Right",
                "pad_to_multiple_of": None,
                "pad_id": 0,
                "pad_type_id": 0,
                "pad_token": "<pad>",
            }
        },
    ),
    "padding, all of it": one_file(
        changes={
            "padding": {
                "strategy": "BatchLongest",
                "direction": "Right",
                "pad_to_multiple_of": None,
                "pad_id": 0,
                "pad_type_id": 0,
                "pad_token": "<pad>",
            }
        },
        tokenizer_config=BACKEND,
    ),
    "a beginning that tokenizer.json overrules": one_file(changes={"model.unk_token": "<|endoftext|>"}),
    "no dropout": one_file(changes={"model.dropout": 0.0}, tokenizer_config=BACKEND),
    "tokenizer.json comes before two other files": {**two_files(added_tokens={}), **one_file(EOT, added("<a>", N))},
    "tokenizer.json comes before two others that differ": {**two_files(SWAPPED, MERGES[:4]), **one_file()},
    "tokenizer.json comes before two others that differ, all of it": {
        **two_files(SWAPPED, MERGES[:4]),
        **one_file(tokenizer_config=BACKEND),
    },
    "tokenizer.json comes before OpenAI's files": {**one_file(), **openai_files()},
    "two files come before OpenAI's, with an added token": {
        **two_files({**VOCAB, "<a>": N}, tokenizer_config=decoder(EOT, added("<a>", N))),
        **openai_files(),
    },
}

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "OpenAI's files that differ": ({**one_file(), **openai_files(SWAPPED)}, "differ from tokenizer.json there"),
    "a space before the text": (config(add_prefix_space=True), "add_prefix_space is True, which is not supported"),
    "a number in place of no": (config(add_prefix_space=0), "add_prefix_space is 0, which is not supported"),
    "a line end within the first line of the merges": (
        {**two_files(), "merges.txt": two_files()["merges.txt"].replace("\n", "\r", 1)}, "'he' is made by no merge"
    ),
    "a beginning": (config(add_bos_token=True), "add_bos_token is True, which is not supported"),
    "an end": (config(add_eos_token=True), "add_eos_token is True"),
    "special tokens are text": (config(split_special_tokens=True), "split_special_tokens is True"),
    "spaces that are cleaned up": (
        config(clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output=True),
        "corrupt_output is True",
    ),
    "another class": (config(tokenizer_class="LlamaTokenizer"), "tokenizer_class is 'LlamaTokenizer'"),
    "another class, in config.json": (
        two_files(config={"model_type": "gpt2", "tokenizer_class": "BertTokenizer"}),
        "tokenizer_class is 'BertTokenizer'",
    ),
    "code of its own": (config(auto_map={"AutoTokenizer": ["a.B", None]}), "auto_map is"),
    "another vocabulary in the configuration": (config(vocab={"a": 0}), "vocab is {'a': 0}"),
    "all of tokenizer.json, without one": (config(**BACKEND), "needs a tokenizer.json"),
    "a role of its own": (config(image_token="<image>"), "the role 'image_token'"),
    "roles of their own": (config(extra_special_tokens={"image_token": "<image>"}), "one list of extra special tokens"),
    "two lists": (
        config(extra_special_tokens=["<a>"], additional_special_tokens=["<pad>"]), "one list of extra special tokens"
    ),
    "a role without a type": (config(pad_token=added("<pad>")), "is not an added token"),
    "a role of a number": (config(pad_token=5), "5 is not an added token"),
    "<|endoftext|> is none": (
        config(bos_token="<a>", eos_token="<a>", unk_token="<a>"), "<|endoftext|> is not one of the special tokens"
    ),
    "<|endoftext|> is none in tokenizer.json": (
        one_file(added("<a>", N), tokenizer_config=BACKEND), "<|endoftext|> is not one of the special tokens"
    ),
    "<|endoftext|> is not special in tokenizer.json": (
        one_file({**EOT, "special": False}, tokenizer_config=BACKEND), "<|endoftext|> is not one of the special tokens",
    ),
    "an id that is taken": (two_files(added_tokens={"<pad>": 5}), "the id 5, but transformers gives it the id 264"),
    "an id after a gap": (two_files(tokenizer_config=decoder(added("<pad>", N + 1))), f"the id {N + 1}, but"),
    "an id in a gap": (
        two_files({t: id + (id > 5) for t, id in VOCAB.items()}, added_tokens={"<pad>": 6}),
        "the id 6, but transformers",
    ),
    "an id in tokenizer.json": (one_file(EOT, added("<pad>", N + 2)), f"the id {N + 2}, but transformers gives it"),
    "a content that is no text": (one_file(EOT, added(["<pad>"], N)), "is not an added token"),
    "a content that is a number": (two_files(tokenizer_config=decoder(added(5, N))), "is not an added token"),
    "a token named in two ways that overlaps another": (
        config(unk_token={**PAD, "content": "<|endoftext|>", "normalized": True}, pad_token="<|end"),
        "overlap, but are of two kinds",
    ),
    "a content without a character": (two_files(added_tokens={"": N}), "is not an added token"),
    "half a surrogate pair": (two_files(added_tokens={"\ud800": N}), "half a surrogate pair"),
    "no content": (two_files(tokenizer_config={"added_tokens_decoder": {"264": {}}}), "is not an added token"),
    "no decoder": (two_files(tokenizer_config={"added_tokens_decoder": None}), "must have an object for each id"),
    "twice": (one_file(EOT, EOT), "describe an added token twice"),
    "added tokens that disagree": (one_file(EOT, added("<pad>", N), added_tokens={"<a>": N}), "different added tokens"),
    "a decoder that disagrees": (
        one_file(EOT, tokenizer_config=decoder(EOT, added("<a>", N))), "different added tokens"
    ),
    "a special token within a word": (
        two_files(tokenizer_config=decoder(EOT, added("a<|endoftext|>", N, special=False))),
        "overlap, but are of two kinds"
    ),
    "a word within a special token of a kind": (
        two_files(tokenizer_config=decoder(EOT, added("text", N, special=False))),
        "overlap, but are of two kinds"
    ),
    "a token that begins before another": (
        two_files(tokenizer_config=decoder(added("<a>", N), added("b<", N + 1, normalized=True))),
        "overlap, but are of two kinds"
    ),
    **{
        f"{flag} in {where}": (files, f"{flag} of the added token '<pad>' is True, not False")
        for flag in ("lstrip", "rstrip", "single_word")
        for where, files in {
            "a role": config(pad_token={**PAD, flag: True}),
            "the map": two_files(special_tokens_map={"pad_token": {"content": "<pad>", flag: True}}),
            "a decoder": two_files(tokenizer_config=decoder(added("<pad>", N, **{flag: True}))),
            "tokenizer.json": one_file(EOT, added("<pad>", N, **{flag: True})),
        }.items()
    },
    **{
        f"{path} is {value!r}": (one_file(changes={path: value}, tokenizer_config=BACKEND), complaint)
        for path, value, complaint in (
            ("model.dropout", 0.1, "model.dropout is 0.1"),
            ("model.continuing_subword_prefix", "##", "model.continuing_subword_prefix is '##'"),
            ("model.end_of_word_suffix", "</w>", "model.end_of_word_suffix is '</w>', which is not supported"),
            ("model.ignore_merges", True, "model.ignore_merges is True, which is not supported"),
            ("model", [], "model.type is None, which is not supported"),
            ("model.type", "WordPiece", "model.type is 'WordPiece', which is not supported"),
            ("model.vocab", {"a": 0}, "'<|endoftext|>' the id 263, but transformers gives it the id 1"),
            ("model.merges", [], "do not make a tokenizer: 'he' is made by no merge"),
            ("model.merges", [1], "does not describe a tokenizer"),
            ("added_tokens", 5, "does not describe a tokenizer"),
            ("pre_tokenizer", None, "pre_tokenizer.type is None"),
            ("version", "2.0", "version is '2.0', which is not supported"),
            ("model.vocab", {"a": "b"}, "must give a whole number for each token"),
            ("model.merges", [["a", "b", "c"]], "does not describe a tokenizer"),
            ("model.merges", [["h", "e"], ["h", "e"]], "the merge 'h e' is there twice"),
            ("pre_tokenizer.add_prefix_space", True, "pre_tokenizer.add_prefix_space is True, which is not supported"),
            ("pre_tokenizer.use_regex", False, "pre_tokenizer.use_regex is False, which is not supported"),
            ("pre_tokenizer", {"type": "Sequence", "pretokenizers": []}, "pre_tokenizer.type is 'Sequence'"),
            ("normalizer", {"type": "NFC"}, "normalizer is {'type': 'NFC'}, which is not supported"),
            ("decoder", None, "decoder.type is None, which is not supported"),
            ("post_processor.type", "RobertaProcessing", "post_processor.type is 'RobertaProcessing'"),
            (
                "post_processor",
                {
                    "type": "TemplateProcessing",
                    "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A"}}],
                },
                "post_processor.single is",
            ),
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("files", EQUAL.values(), ids=EQUAL)
def test_the_same_ids_and_texts_as_in_transformers(files: dict[str, Any], tmp_path: Path) -> None:
    folder = write_files(tmp_path, files)
    assert differences(Tokenizer.load(folder, N + 20), in_transformers(folder)) == []


@pytest.mark.parametrize(("files", "complaint"), REFUSED.values(), ids=REFUSED)
def test_refused_by_name(files: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)):
        Tokenizer.load(write_files(tmp_path, files))


@pytest.mark.parametrize("name", EQUAL)
def test_what_is_saved_is_the_same_in_transformers(name: str, tmp_path: Path) -> None:
    ours = Tokenizer.load(write_files(tmp_path / "loaded", EQUAL[name]))
    saved = write_files(tmp_path / "saved", {})
    ours.save(saved)
    again = Tokenizer.load(saved)
    assert (again.encoder, again.ranks, again.special, again.added, again.roles) == (
        ours.encoder,
        ours.ranks,
        ours.special,
        ours.added,
        ours.roles,
    )
    theirs = in_transformers(saved)
    assert differences(ours, theirs) == []
    assert roles_in(theirs) == roles_in(in_transformers(tmp_path / "loaded"))


def test_a_tokenizer_made_here_gives_its_tokens_roles(tmp_path: Path) -> None:
    encoder = {**VOCAB, "<pad>": N, "<a>": N + 1}
    roles = {"eos_token": "<|endoftext|>", "pad_token": "<pad>", "additional_special_tokens": ["<a>"]}
    Tokenizer(encoder, MERGES, ["<pad>", "<a>"], roles=roles).save(write_files(tmp_path, {}))
    found = {name: value for name, value in roles_in(in_transformers(tmp_path)).items() if value}
    assert found == {"eos_token": "<|endoftext|>", "pad_token": "<pad>", "extra_special_tokens": ["<a>"]}


@pytest.mark.parametrize(
    ("roles", "complaint"),
    [
        ({"pad_token": "<a>"}, "'<a>', which has the role 'pad_token', is not one of the special tokens"),
        ({"pad_token": None}, "None, which has the role 'pad_token', is not one of the special tokens"),
        ({"pad_token": ["<pad>"]}, "['<pad>'], which has the role 'pad_token', is not one of the special tokens"),
        ({"image_token": "<pad>"}, "the role 'image_token' of '<pad>' is not known here"),
        ({"additional_special_tokens": "<pad>"}, "the role 'additional_special_tokens' of '<pad>' is not known here"),
        (
            {"additional_special_tokens": ["<pad>", "<a>"]},
            "'<a>', which has the role 'additional_special_tokens', is not",
        ),
    ],
    ids=str,
)
def test_a_role_that_is_not_known_or_not_that_of_a_special_token(roles: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)):
        Tokenizer({**VOCAB, "<pad>": N}, MERGES, ["<pad>"], roles=roles)
