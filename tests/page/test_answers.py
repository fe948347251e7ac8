"""The answers against `generate`, `score`, `logits` and `sampling`, and half words against masks made by hand."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from conftest import SHAPES, random_model

import numpy_gpt2
from numpy_gpt2 import layers, sampling
from numpy_gpt2.decoding.half_words import take_back
from numpy_gpt2.evaluation import scoring
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.page import reading
from numpy_gpt2.page.answers import Answers
from numpy_gpt2.params import HParams
from numpy_gpt2.tokenizer import Tokenizer

TOKENIZER = Tokenizer.gpt2()
EACH_BYTES = [TOKENIZER.decode_bytes([id]) for id in range(50257)]
HPARAMS = HParams(n_vocab=50257, n_ctx=32, n_embd=8, n_head=2, n_layer=2)
WHOLE = "He went on, nevertheless"  # no token begins with its last ones and goes on
HALVES = ("Once upon a ti", "Once upon a ", "Un", "a beauti", "I don'", "a 日", "two\n", "living in sin", "naï")


def disagreeing(rest: bytes) -> list[int]:
    """The tokens that write something else than these bytes."""
    agree = {id for id, data in enumerate(EACH_BYTES) if data.startswith(rest) or rest.startswith(data)}
    return sorted({*range(50257)} - agree | {TOKENIZER.end_of_text})


def with_vocabulary(name: str = "small", seed: int = 0) -> GPT2:
    model = random_model(HPARAMS, seed=seed)
    return GPT2(model.hparams, model.params, TOKENIZER, name)


@pytest.fixture(scope="module")
def model() -> GPT2:
    return with_vocabulary()


@pytest.fixture
def answers(model: GPT2, tmp_path: Path) -> Answers:
    return Answers(model, str(tmp_path))


def ask(answers: Answers, kind: str, **fields: Any) -> list[dict[str, Any]]:
    """The lines of an answer, after a way through JSON; none of them is an error."""
    lines = json.loads(json.dumps([*answers.answer({"kind": kind, **fields})], allow_nan=False))
    assert not [line for line in lines if "error" in line]
    return lines


def error(answers: Answers, request: Any) -> str:
    """The sentence with which a request is refused."""
    (line,) = answers.answer(request)
    assert line.keys() == {"error"}
    return str(line["error"])


def continuations(lines: Sequence[dict[str, Any]], n: int) -> list[tuple[str, list[int], str]]:
    """The text, the ids and the finish reason of each row of a suggestion."""
    rows = [[line for line in lines if line.get("row") == i] for i in range(n)]
    return [
        (
            "".join(line.get("text", "") for line in row),
            [id for line in row for id in line.get("ids", [])],
            row[-1]["finish_reason"],
        )
        for row in rows
    ]


class TestAbout:
    def test_the_model(self, answers: Answers) -> None:
        (line,) = ask(answers, "about")
        assert line["model"] == "small"
        assert line["n_parameters"] == sum(
            array.size for _, array in numpy_gpt2.params.named_arrays(answers.model.params)
        )
        assert {name: line[name] for name in HPARAMS._fields} == HPARAMS._asdict()

    def test_the_options_are_those_of_sampling(self, answers: Answers) -> None:
        (line,) = ask(answers, "about")
        for told, option in zip(line["options"], sampling.OPTIONS, strict=True):
            assert {name: told[name] for name in ("name", "default", "range", "help")} == {
                name: getattr(option, name) for name in ("name", "default", "range", "help")
            }
            assert told["whole"] == (option.name == "top_k")
            assert option.accepts(told["low"])
            assert not option.accepts(told["low"] - 1e-4)
            assert option.accepts(math.inf if told["high"] is None else told["high"])
            assert told["high"] is None or not option.accepts(told["high"] * 1.01)


class TestSuggest:
    @pytest.mark.parametrize("text", [WHOLE, ""])
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"temperature": 0},
            {"temperature": 0.7, "top_k": 5, "repetition_penalty": 1.3},
            {"top_k": 0, "top_p": 0.6},
        ],
        ids=str,
    )
    def test_after_a_whole_word_the_rows_are_those_of_generate(
        self, answers: Answers, text: str, options: dict[str, Any]
    ) -> None:
        lines = ask(answers, "suggest", text=text, n=3, max_new_tokens=9, seed=7, stop=[], options=options)
        assert lines[0] == {"model": "small", "seed": 7, "n_dropped": 0, "half_word": "", "n_unseen": 0}
        expected = answers.model.generate(
            text, max_new_tokens=9, num_return_sequences=3, seed=7, return_details=True, **options
        )
        assert continuations(lines, 3) == [(each.text, each.ids, each.finish_reason) for each in expected]

    def test_stop_strings(self, answers: Answers) -> None:
        """Text and ids that a stop string may cut off are held back."""
        whole = answers.model.generate(WHOLE, max_new_tokens=20, temperature=0)
        seen = set()
        for begin, length in itertools.product(range(5, 30, 4), (1, 3, 8)):
            stop = [whole[begin : begin + length]]
            options: dict[str, Any] = {"temperature": 0}
            lines = ask(answers, "suggest", text=WHOLE, n=1, max_new_tokens=20, seed=1, stop=stop, options=options)
            made = answers.model.generate(WHOLE, max_new_tokens=20, stop=stop, return_details=True, **options)
            assert continuations(lines, 1) == [(made.text, made.ids, made.finish_reason)]
            seen.add(made.finish_reason)
        assert "stop" in seen

    def test_end_of_text(self, model: GPT2, answers: Answers) -> None:
        """A model that ends a text at the likeliest token."""
        first = model.generate(WHOLE, max_new_tokens=1, temperature=0, return_details=True).ids[0]
        ending = GPT2(
            model.hparams,
            model.params,
            TOKENIZER,
            "small",
            special_ids=model.special_ids._replace(eos_token_ids=(first,)),
        )
        lines = ask(Answers(ending), "suggest", text=WHOLE, n=1, seed=0, options={"temperature": 0})
        assert continuations(lines, 1) == [("", [], "end_of_text")]
        assert lines[-1]["tokens"] == 0

    def test_a_line_for_each_row_and_step(self, answers: Answers) -> None:
        """So that whoever goes away is noticed at the next token."""
        lines = ask(answers, "suggest", text=WHOLE, n=2, max_new_tokens=5, seed=3)
        assert [line["row"] for line in lines if "text" in line] == [0, 1] * 5

    @pytest.mark.parametrize("text", HALVES)
    @pytest.mark.parametrize("options", [{"temperature": 0}, {"temperature": 1.5, "top_k": 3}, {"top_p": 0.9}], ids=str)
    def test_a_half_word_is_completed(self, answers: Answers, text: str, options: dict[str, float]) -> None:
        lines = ask(answers, "suggest", text=text, n=3, max_new_tokens=6, seed=5, options=options)
        ids = TOKENIZER.encode(text)
        n = lines[0]["n_dropped"]
        assert n > 0
        assert lines[0]["half_word"] == TOKENIZER.decode_bytes(ids[len(ids) - n :]).decode(errors="ignore")
        assert continuations(lines, 3) == by_hand(answers.model, ids, n, 3, 6, 5, options)

    def test_the_text_goes_on_without_a_gap(self, answers: Answers) -> None:
        for text in HALVES:
            lines = ask(answers, "suggest", text=text, n=4, max_new_tokens=8, seed=2, options={"top_k": 1000})
            ids = TOKENIZER.encode(text)[: -lines[0]["n_dropped"]]
            for piece, new, _ in continuations(lines, 4):
                assert (TOKENIZER.decode_bytes(ids + new)).decode(errors="replace") == text + piece

    def test_the_seed_that_was_chosen_gives_the_same_texts(self, answers: Answers) -> None:
        first = ask(answers, "suggest", text="A k", n=2, seed=None)
        again = ask(answers, "suggest", text="A k", n=2, seed=first[0]["seed"])
        assert continuations(again, 2) == continuations(first, 2)
        assert ask(answers, "suggest", text="A k")[0]["seed"] != first[0]["seed"]

    @pytest.mark.parametrize(("max_new_tokens", "n_seen"), [(1, 32), (12, 21), (17, 16), (40, 16)])
    def test_a_long_text_is_continued_from_its_newest_tokens(
        self, answers: Answers, max_new_tokens: int, n_seen: int
    ) -> None:
        """As many as leave room, and at least half of the context."""
        text = "one two three " * 20 + WHOLE
        ids = TOKENIZER.encode(text)
        lines = ask(answers, "suggest", text=text, n=2, max_new_tokens=max_new_tokens, seed=4)
        expected = answers.model.generate(
            ids[-n_seen:], max_new_tokens, num_return_sequences=2, seed=4, slide=True, return_details=True
        )
        assert lines[0]["n_unseen"] == len(ids) - n_seen
        assert continuations(lines, 2) == [(each.text, each.ids, "length") for each in expected]

    def test_the_speed(self, model: GPT2) -> None:
        times = iter([10.0, 14.0])
        lines = ask(Answers(model, clock=lambda: next(times)), "suggest", text=WHOLE, n=2, max_new_tokens=6, seed=1)
        n = sum(len(ids) for _, ids, _ in continuations(lines, 2))
        assert lines[-1] == {"tokens": n, "seconds": 4.0, "tokens_per_second": n / 4}


def by_hand(
    model: GPT2, ids: list[int], n_dropped: int, n: int, max_new_tokens: int, seed: int, options: dict[str, float]
) -> list[tuple[str, list[int], str]]:
    """Continues a text whose last tokens are dropped: each token must agree with their bytes."""
    dropped = TOKENIZER.decode_bytes(ids[len(ids) - n_dropped :])
    prompt = ids[: len(ids) - n_dropped] or [TOKENIZER.end_of_text]
    checked = sampling.check_sampling(**options)
    rows = []
    for stream in np.random.SeedSequence(seed).spawn(n):
        rng, made = np.random.default_rng(stream), list[int]()
        while len(made) < max_new_tokens:
            logits = model.logits(prompt + made)[-1]
            if rest := dropped[len(TOKENIZER.decode_bytes(made)) :]:
                logits[disagreeing(rest)] = -math.inf
            made.append(sampling.next_token(logits, rng, prompt + made, **checked))
        text = TOKENIZER.decode_bytes(made)[len(dropped) :].decode(errors="replace")
        rows.append((text, made, "length"))
    return rows


class TestTokens:
    @pytest.mark.parametrize("at_once", [64, 5, 1])
    @pytest.mark.parametrize("n_words", [10, 33, 150])
    def test_probabilities_and_ranks_are_those_of_score(
        self, answers: Answers, monkeypatch: pytest.MonkeyPatch, at_once: int, n_words: int
    ) -> None:
        """Also of texts longer than the context, which has 32 tokens."""
        monkeypatch.setattr(reading, "TOKENS_AT_ONCE", at_once)
        text = " ".join(f"word{n % 7}" for n in range(n_words))
        first, *lines = ask(answers, "tokens", text=text, n_alternatives=1)
        scores = scoring.join(answers.model.score(text))
        lines = [line for line in lines if line]
        assert (first["model"], first["probability"], first["rank"], first["alternatives"]) == ("small", None, None, [])
        np.testing.assert_allclose(
            [line["probability"] for line in lines], np.exp(scores.log_probabilities[0]), rtol=1e-9
        )
        assert [line["rank"] for line in lines] == scores.ranks[0].tolist()
        assert [first["id"], *(line["id"] for line in lines)] == TOKENIZER.encode(text)

    def test_alternatives_are_the_likeliest(self, answers: Answers) -> None:
        text = "The king was very angry"
        _, *lines = ask(answers, "tokens", text=text, n_alternatives=4)
        for line, logits in zip(lines, answers.model.logits(text)[:-1], strict=True):
            probabilities = layers.softmax(logits)
            best = np.argsort(-probabilities)[:4].tolist()
            assert [each["id"] for each in line["alternatives"]] == best
            assert [each["probability"] for each in line["alternatives"]] == pytest.approx(probabilities[best].tolist())
            assert all(
                each["text"] == TOKENIZER.decode([each["id"]]) for each in line["alternatives"] if "bytes" not in each
            )

    def test_places_are_utf_16_code_units(self, answers: Answers) -> None:
        text = "née 🙂 漢字, 👩‍👩‍👧 end"
        units = text.encode("utf-16-le")
        lines = ask(answers, "tokens", text=text, n_alternatives=0)
        ends = [0, *(line["end"] for line in lines)]
        assert [line["begin"] for line in lines] == ends[:-1]
        assert ends[-1] == len(units) // 2
        n_parts = 0
        for line in lines:
            data = TOKENIZER.decode_bytes([line["id"]])
            if "bytes" in line:
                n_parts += 1
                assert bytes(line["bytes"]) == data
            else:
                assert line["text"].encode() == data
                assert units[2 * line["begin"] : 2 * line["end"]].decode("utf-16-le") == line["text"]
        assert n_parts > 2
        emoji = [line for line in lines if line["begin"] <= 4 < line["end"] or line["begin"] == line["end"] == 4]
        assert emoji[-1]["end"] == 6  # the last of its tokens has the whole character

    @pytest.mark.parametrize("text", ["", "a"])
    def test_texts_with_nothing_to_predict(self, answers: Answers, text: str) -> None:
        assert len(ask(answers, "tokens", text=text)) == len(text)


class TestDistribution:
    OPTIONS: ClassVar = {"temperature": 0.8, "top_k": 50, "top_p": 0.95, "repetition_penalty": 1.2}

    @pytest.mark.parametrize(
        "options",
        [OPTIONS, {"repetition_penalty": 0.01}, {"temperature": 0}],
        ids=["several", "others are likeliest", "only one"],
    )
    def test_it_is_that_of_sampling(self, answers: Answers, options: dict[str, float]) -> None:
        (line,) = ask(answers, "distribution", text=WHOLE, options=options, n=3)
        ids = TOKENIZER.encode(WHOLE)
        logits = answers.model.logits(ids)[-1]
        drawn = layers.softmax(sampling.final_logits(logits, ids, **sampling.check_sampling(**options)))
        self.compare(line, layers.softmax(logits), drawn, 3)

    @pytest.mark.parametrize("text", HALVES)
    def test_of_a_half_word(self, answers: Answers, text: str) -> None:
        (line,) = ask(answers, "distribution", text=text, options=self.OPTIONS, n=5)
        ids = TOKENIZER.encode(text)
        before, dropped = ids[: len(ids) - line["n_dropped"]], TOKENIZER.decode_bytes(ids[-line["n_dropped"] :])
        before = before or [TOKENIZER.end_of_text]
        logits = answers.model.logits(before)[-1]
        logits[disagreeing(dropped)] = -math.inf
        drawn = layers.softmax(sampling.final_logits(logits, before, **self.OPTIONS))
        self.compare(line, layers.softmax(logits), drawn, 5)

    def test_a_long_text_is_read_in_parts(self, answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
        """After each part comes a line, so that whoever has gone away is noticed."""
        (whole,) = ask(answers, "distribution", text="one two three " * 20)
        monkeypatch.setattr(reading, "TOKENS_AT_ONCE", 5)
        *parts, last = ask(answers, "distribution", text="one two three " * 20)
        assert parts == [{}] * math.ceil(21 / 5 - 1)
        assert last["tokens"][0] == pytest.approx(whole["tokens"][0])

    @staticmethod
    def compare(line: dict[str, Any], probabilities: Any, drawn: Any, n: int) -> None:
        listed = [token["id"] for token in line["tokens"]]
        best = [id for id in np.argsort(-probabilities)[:n].tolist() if probabilities[id] > 0]
        kept = [id for id in np.argsort(-drawn)[:n].tolist() if drawn[id] > 0]
        assert {*listed} == {*best, *kept}
        assert listed == sorted(listed, key=lambda token: -probabilities[token])
        assert [token["probability"] for token in line["tokens"]] == pytest.approx(probabilities[listed].tolist())
        assert [token["drawn"] for token in line["tokens"]] == pytest.approx(drawn[listed].tolist())
        assert line["n_kept"] == np.count_nonzero(drawn)
        assert line["others"]["probability"] == pytest.approx(1 - probabilities[listed].sum(), abs=1e-12)
        assert line["others"]["drawn"] == pytest.approx(1 - drawn[listed].sum(), abs=1e-12)

    def test_it_is_what_suggestions_are_drawn_from(self, answers: Answers) -> None:
        """At a temperature of 0, and of a text that is too long to be seen whole."""
        text = "one two three " * 20 + "a k"
        options = {"temperature": 0}
        (line,) = ask(answers, "distribution", text=text, options=options, max_new_tokens=12)
        made = ask(answers, "suggest", text=text, n=1, max_new_tokens=12, seed=0, options=options)
        assert [token["id"] for token in line["tokens"] if token["drawn"]] == continuations(made, 1)[0][1][:1]
        assert line["n_kept"] == 1
        assert line["n_unseen"] == made[0]["n_unseen"] > 0


class TestModels:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> str:
        numpy_gpt2.save(with_vocabulary(seed=1), tmp_path / "mine")
        return str(tmp_path / "mine")

    def test_those_on_disk_and_those_that_are_not(self, folder: str, tmp_path: Path) -> None:
        answers = Answers(numpy_gpt2.load(folder), str(tmp_path / "models"))
        lines = {line["name"]: line for line in ask(answers, "models")}
        assert [*lines] == [*numpy_gpt2.hub.names.NAMES, folder]
        assert {name for name, line in lines.items() if line["is_here"]} == {"tiny", folder}
        assert lines[folder]["n_bytes"] == sum(file.stat().st_size for file in Path(folder).iterdir())
        assert lines["1558M"]["n_bytes"] == 4 * 1_557_611_200
        assert (lines["1558M"]["same_as"], lines["tiny"]["same_as"]) == ("gpt2-xl", None)

    def test_a_model_is_changed_and_the_text_stays(self, folder: str, tmp_path: Path) -> None:
        answers = Answers(numpy_gpt2.load(folder), str(tmp_path / "models"))
        text = "The king 🙂 was very angry"
        *progress, last = ask(answers, "load", model="tiny", text=text)
        tiny = numpy_gpt2.load("tiny")
        assert tiny.tokenizer
        assert [*last] == ["about", "n_tokens_before", "n_tokens"]
        assert last["n_tokens_before"] == len(TOKENIZER.encode(text))
        assert last["n_tokens"] == len(tiny.tokenizer.encode(text))
        assert (last["about"]["model"], answers.model.name) == ("tiny", "tiny")
        assert progress[0] == {"progress": None, "what": "loading tiny"}
        assert ask(answers, "load", model=folder, text=text)[-1]["about"]["model"] == folder

    @pytest.mark.parametrize(
        ("name", "sentence"),
        [
            ("gpt2-xl", "gpt2-xl is not on this machine: `numpy-gpt2 download gpt2-xl` fetches it"),
            ("/etc", "there is no model '/etc' to choose from"),
            ("owner/name", "there is no model 'owner/name' to choose from"),
        ],
    )
    def test_a_model_that_is_not_there(self, answers: Answers, name: str, sentence: str, tmp_path: Path) -> None:
        answers = Answers(numpy_gpt2.load("tiny"), str(tmp_path))
        assert error(answers, {"kind": "load", "model": name, "text": ""}) == sentence
        assert answers.model.name == "tiny"

    def test_a_model_that_cannot_be_loaded_leaves_the_old_one(self, model: GPT2, tmp_path: Path) -> None:
        def load(name: str) -> GPT2:
            raise MemoryError

        answers = Answers(model, str(tmp_path), load)
        model_before = answers.model
        *_, last = answers.answer({"kind": "load", "model": "tiny", "text": ""})
        assert last == {"error": "there is not enough memory"}
        assert answers.model is model_before

    def test_whoever_goes_away_while_it_is_loaded_keeps_the_old_one(self, folder: str) -> None:
        answers = Answers(numpy_gpt2.load(folder))
        for n_lines in (1, 2, 3):
            lines = answers.answer({"kind": "load", "model": "tiny", "text": ""})
            assert all("about" not in next(lines) for _ in range(n_lines))
            lines.close()  # type: ignore[attr-defined]
            assert answers.model.name == folder

    def test_one_model_is_loaded_at_a_time(self, model: GPT2, tmp_path: Path) -> None:
        """And whoever goes away while they wait does not load theirs."""
        began, may_end, loads = threading.Event(), threading.Event(), list[str]()

        def load(name: str) -> GPT2:
            loads.append(name)
            began.set()
            assert may_end.wait(60)
            return numpy_gpt2.load(name)

        def ask_for_tiny(n_lines: int) -> list[dict[str, Any]]:
            with contextlib.closing(answers.answer(request)) as lines:  # type: ignore[type-var]
                return [*itertools.islice(lines, n_lines)]

        answers, request = Answers(model, str(tmp_path), load), {"kind": "load", "model": "tiny", "text": ""}
        with ThreadPoolExecutor() as pool:
            first = pool.submit(ask_for_tiny, 4)
            assert began.wait(60)
            others = [pool.submit(ask_for_tiny, 2) for _ in range(2)]  # they go as soon as it is their turn
            may_end.set()
            assert first.result(60)[-1]["about"]["model"] == "tiny"
            for other in others:
                assert other.result(60) == [{"progress": None, "what": "loading tiny"}, {}]
        assert loads == ["tiny"]

    def test_a_file_that_cannot_be_read(self, model: GPT2, tmp_path: Path) -> None:
        def load(name: str) -> GPT2:
            raise PermissionError(13, "Permission denied", "/models/tiny")

        *_, last = Answers(model, str(tmp_path), load).answer({"kind": "load", "model": "tiny", "text": ""})
        assert last == {"error": "/models/tiny: Permission denied"}

    def test_a_model_without_a_vocabulary(self) -> None:
        with pytest.raises(ValueError, match="no vocabulary"):
            Answers(random_model(SHAPES[0]))


class TestTurns:
    SUGGEST: ClassVar[dict[str, Any]] = {"kind": "suggest", "text": WHOLE, "n": 1, "max_new_tokens": 15, "seed": 1}

    def test_an_answer_that_is_closed_ends_the_model(self, answers: Answers, passes: list[tuple[int, ...]]) -> None:
        lines = answers.answer(self.SUGGEST)
        next(line for line in lines if "text" in line)
        next(lines)
        n_before = len(passes)
        lines.close()  # type: ignore[attr-defined]
        assert [*lines] == []
        assert len(passes) == n_before == 2

    def test_the_model_makes_no_step_before_it_is_needed(self, answers: Answers, passes: list[tuple[int, ...]]) -> None:
        for n, line in enumerate(answers.answer({"kind": "tokens", "text": "one two three " * 100})):
            assert len(passes) <= 1 + n // 16 * 2
            assert "error" not in line

    def test_the_model_is_free_between_the_steps_of_a_text(self, answers: Answers) -> None:
        """And what is made meanwhile changes nothing."""
        other = {**self.SUGGEST, "seed": 2}
        alone = [continuations(ask(answers, **each), 1) for each in (self.SUGGEST, other)]
        begun = answers.answer(self.SUGGEST)
        first = [next(begun) for _ in range(5)]
        second: list[dict[str, Any]] = []
        thread = threading.Thread(target=lambda: second.extend(ask(answers, **other)), daemon=True)
        thread.start()
        thread.join(60)
        assert second
        assert [continuations([*first, *begun], 1), continuations(second, 1)] == alone
        assert alone[0] != alone[1]


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        ([], "a request is one JSON object"),
        ({}, "there is no request of the kind null: the kinds are about, models"),
        ({"kind": "answer"}, 'there is no request of the kind "answer"'),
        ({"kind": ["about"]}, 'there is no request of the kind \\["about"\\]'),
        ({"kind": "about", "x": 1}, "about has no field 'x'; a request of this kind has no fields"),
        ({"kind": "tokens"}, "tokens needs the field 'text'"),
        ({"kind": "tokens", "text": 5}, "text must be text, not 5"),
        ({"kind": "tokens", "text": None}, "text must be text, not null"),
        ({"kind": "tokens", "text": "x" * 1_000_001}, "text has 1,000,001 characters, and the page reads at most"),
        ({"kind": "tokens", "text": "\ud83d"}, "half a surrogate pair"),
        ({"kind": "tokens", "text": "", "n_alternatives": -1}, "n_alternatives must be a whole number, 0 to 50"),
        ({"kind": "tokens", "text": "", "txt": ""}, "tokens has no field 'txt'; .* has the fields text, n_alt"),
        ({"kind": "suggest", "text": "", "n": 17}, "n must be a whole number, 1 to 16, not 17"),
        ({"kind": "suggest", "text": "", "n": 2.0}, "n must be a whole number"),
        ({"kind": "suggest", "text": "", "n": True}, "n must be a whole number"),
        ({"kind": "suggest", "text": "", "max_new_tokens": 0}, "max_new_tokens must be .* 1 to 1024, not 0"),
        ({"kind": "suggest", "text": "", "seed": -1}, "seed must be a whole number"),
        ({"kind": "suggest", "text": "", "seed": 2**53}, "seed must be a whole number"),
        ({"kind": "suggest", "text": "", "stop": "end"}, "stop must be a list of at most 16 texts"),
        ({"kind": "suggest", "text": "", "stop": [""]}, "a stop string must be text"),
        ({"kind": "suggest", "text": "", "stop": ["x"] * 17}, "stop must be a list of at most 16 texts"),
        ({"kind": "suggest", "text": "", "options": []}, "options must be an object"),
        ({"kind": "suggest", "text": "", "options": {"temprature": 1}}, "did you mean 'temperature'"),
        ({"kind": "suggest", "text": "", "options": {"top_p": 0}}, "top_p must be above 0"),
        ({"kind": "suggest", "text": "", "options": {"top_p": "1"}}, "top_p must be a number"),
        ({"kind": "suggest", "text": "", "options": {"top_k": True}}, "top_k must be a number, not true or false"),
        ({"kind": "distribution", "text": "", "n": 0}, "n must be a whole number, 1 to 1000, not 0"),
        ({"kind": "load", "model": 1, "text": ""}, "model must be text"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_requests_that_are_refused(answers: Answers, request_: Any, sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        raise AssertionError(error(answers, request_))


def test_a_model_whose_logits_are_not_finite(model: GPT2) -> None:
    spoilt = with_vocabulary(seed=2)
    spoilt.params.ln_f.b[:] = np.nan
    for request in (
        {"kind": "suggest", "text": "a"},
        {"kind": "tokens", "text": "a b"},
        {"kind": "distribution", "text": "a"},
    ):
        *_, last = Answers(spoilt).answer(request)
        assert "not finite numbers" in last["error"]


def test_the_texts_of_these_tests_are_what_they_say() -> None:
    assert take_back(WHOLE, TOKENIZER.encode(WHOLE), TOKENIZER) is None
    assert all(take_back(text, TOKENIZER.encode(text), TOKENIZER) for text in HALVES)
