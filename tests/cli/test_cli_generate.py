"""`numpy-gpt2 generate`, run as a process with a bare prompt. `test_main.py` shows that the two are the same."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from server import Store, serving

import numpy_gpt2
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.hub.names import model_folder
from numpy_gpt2.params import HParams
from numpy_gpt2.text.special_ids import SpecialIds

TINY = model_folder("tiny")
NOTICE = "numpy_gpt2: using tiny, a small model trained on fairy tales"


@pytest.fixture(autouse=True)
def models_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of models: only the embedded model is available."""
    monkeypatch.setenv("NUMPY_GPT2_MODELS", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "models"


def run(*args: str | bytes | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "numpy_gpt2", *args],
        **{"text": True, "encoding": "utf-8", "check": False, **standard_streams(options), **options},
    )


BYTES: dict[str, Any] = {"text": False, "encoding": None}


def standard_streams(options: dict[str, Any]) -> dict[str, Any]:
    """The streams that the options leave open: standard input is empty, the output is captured."""
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return {name: stream for name, stream in streams.items() if options.get("input") is None or name != "stdin"}


def assert_one_sentence(result: subprocess.CompletedProcess[str], *parts: str) -> None:
    """The command fails with a single line on standard error that contains these parts."""
    assert result.returncode in (1, 2)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    for part in parts:
        assert part in line


class TestText:
    def test_standard_output_has_the_continuation_and_nothing_else(self, tiny: GPT2) -> None:
        result = run("Once upon a time", "--seed", "1")
        assert (result.returncode, result.stdout) == (0, tiny.generate("Once upon a time", seed=1) + "\n")
        assert result.stderr.startswith(NOTICE)
        assert "`numpy-gpt2 download gpt2`" in result.stderr

    def test_a_model_that_was_asked_for_is_not_announced(self, tiny: GPT2) -> None:
        result = run("The king", "--model", "tiny", "--greedy", "--max-new-tokens", "10")
        assert result.stdout == tiny.generate("The king", max_new_tokens=10, temperature=0) + "\n"
        assert result.stderr == ""

    def test_temperature_0_is_greedy(self) -> None:
        assert run("The king", "--greedy").stdout == run("The king", "--temperature", "0").stdout

    def test_all_options(self, tiny: GPT2) -> None:
        options = "--temperature 0.8 --top-k 7 --top-p 0.9 --min-p 0.2 --repetition-penalty 1.1 --seed 5"
        expected = tiny.generate(
            "The king",
            max_new_tokens=20,
            temperature=0.8,
            top_k=7,
            top_p=0.9,
            min_p=0.2,
            repetition_penalty=1.1,
            seed=5,
            stop=",",
            return_full_text=True,
        )
        for length in ("--max-new-tokens", "20"), ("--max-length", "22"):
            assert run("The king", *options.split(), *length, "--stop", ",", "--full-text").stdout == expected + "\n"

    def test_options_may_be_spelled_with_underscores(self) -> None:
        result = run("The king", "--top_k", "1", "--max_new_tokens=5", "--model", "tiny")
        assert (result.returncode, result.stdout) == (0, run("The king", "--top-k", "1", "--max-new-tokens=5").stdout)
        assert_one_sentence(
            run("--max-new-tokens", "1", "--", "--not_an_option", "another"), "'another' is a second one"
        )

    def test_a_stop_string_may_be_the_end_of_a_line(self, tiny: GPT2) -> None:
        prompts = "'Yes,' said the fox.", "The fox said:\n\n'Yes.'", "'Yes.'\n\n'No.'"
        texts = ((prompt, tiny.generate(prompt, temperature=0)) for prompt in prompts)
        prompt, text = next((prompt, text) for prompt, text in texts if "\n" in text)
        result = run(prompt, "--greedy", "--stop", r"\n", "--verbose", "--model", "tiny")
        assert result.stdout == text.split("\n")[0] + "\n"
        assert "a stop string came" in result.stderr

    def test_an_empty_prompt(self, tiny: GPT2) -> None:
        assert run("", "--greedy").stdout == tiny.generate("", temperature=0) + "\n"

    def test_other_scripts(self) -> None:
        result = run("昔々 🙂 née", "--greedy", "--max-new-tokens", "5")
        assert (result.returncode, result.stderr.count("\n")) == (0, 1)

    @pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
    def test_a_terminal_that_cannot_show_every_character(self, tiny: GPT2, encoding: str) -> None:
        text = tiny.generate("昔々 🙂 née", 5, temperature=0, return_full_text=True)
        options = ["--full-text", "--greedy", "--max-new-tokens", "5"]
        result = run("昔々 🙂 née", *options, encoding=encoding, env={**os.environ, "PYTHONIOENCODING": encoding})
        assert result.returncode == 0
        assert result.stdout == text.encode(encoding, errors="replace").decode(encoding) + "\n"

    def test_124m_is_the_default_if_it_is_on_disk(self, models_dir: Path) -> None:
        shutil.copytree(TINY, models_dir / "124M")
        result = run("The king", "--max-new-tokens", "5")
        assert (result.returncode, result.stderr) == (0, "")

    def test_a_models_dir_that_does_not_exist(self, tmp_path: Path) -> None:
        result = run("The king", "--models-dir", tmp_path / "typo")
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr == f"numpy_gpt2: there is no folder {tmp_path}/typo, which --models-dir names\n"

    def test_models_dir(self, tmp_path: Path) -> None:
        shutil.copytree(TINY, tmp_path / "elsewhere" / "355M")
        assert run("The king", "--model", "gpt2-medium", "--models-dir", tmp_path / "elsewhere").returncode == 0


class TestVerbose:
    @pytest.mark.parametrize(
        ("args", "reason"),
        [
            (["The king", "--max-new-tokens", "3"], "as many tokens as were asked for"),
            (["The king", "--max-length", "6"], "as many tokens as were asked for"),
            (["The king", "--stop", "e"], "a stop string came"),
            (["word " * 240, "--max-new-tokens", "1000"], "the model's context is full; --slide goes on"),
            (
                ["The king", "--max-new-tokens", "3", "-n", "2"],
                "continuation 2: the text has as many tokens",
            ),
        ],
    )
    def test_why_the_text_ended(self, args: list[str], reason: str) -> None:
        assert reason in run(*args, "--model", "tiny", "--verbose", "--top-k", "1").stderr

    def test_the_model_ended_the_text(self, tiny: GPT2) -> None:
        prompt = "and they lived happily ever after."
        streams = ((seed, tiny.stream(prompt, seed=seed)) for seed in range(100))
        seed = next(seed for seed, stream in streams if [*stream] and stream.finish_reason == "end_of_text")
        result = run(prompt, "--model", "tiny", "--verbose", "--seed", str(seed))
        assert "the model ended the text" in result.stderr
        assert "the model ended the text" in run(prompt, "--verbose", "--seed", str(seed), "--json").stderr
        assert "<|endoftext|>" not in result.stdout

    def test_a_full_context_is_always_reported(self) -> None:
        result = run("word " * 240, "--model", "tiny", "--max-new-tokens", "1000", "--top-k", "1")
        assert "context is full" in result.stderr

    def test_without_verbose_nothing_else_is_reported(self) -> None:
        assert run("The king", "--model", "tiny").stderr == ""


class TestDrafts:
    PROMPT = "The fox said: come here, come here, come here, come"

    @pytest.mark.parametrize("options", [["--greedy"], ["--seed", "2", "--top-k", "5"]], ids=str)
    def test_lookup_gives_the_same_text(self, options: list[str]) -> None:
        args = [self.PROMPT, "--model", "tiny", "--max-new-tokens", "30", "--verbose", *options]
        plain, drafted = run(*args), run(*args, "--lookup")
        assert (drafted.returncode, drafted.stdout) == (0, plain.stdout)
        assert re.search(r"\nnumpy_gpt2: drafted tokens: \d+, accepted: \d+\n", drafted.stderr)
        assert "drafted" not in plain.stderr

    def test_an_assistant_gives_the_same_greedy_text(self, models_dir: Path) -> None:
        shutil.copytree(TINY, models_dir / "small")
        args = [self.PROMPT, "--model", "tiny", "--greedy", "--verbose", "--max-new-tokens", "20"]
        plain, drafted = run(*args), run(*args, "--assistant", models_dir / "small")
        assert (drafted.returncode, drafted.stdout) == (0, plain.stdout)
        assert "is not small enough beside the model: nothing will be drafted" in drafted.stderr
        assert "drafted tokens: 0, accepted: 0" in drafted.stderr

    def test_several_continuations(self) -> None:
        args = [self.PROMPT, "--model", "tiny", "--seed", "4", "-n", "3", "--max-new-tokens", "9", "--json"]
        assert [json.loads(line)["ids"] for line in run(*args, "--lookup").stdout.splitlines()] == [
            json.loads(line)["ids"] for line in run(*args).stdout.splitlines()
        ]

    def test_drafts_come_from_one_place(self) -> None:
        result = run("The fox", "--lookup", "--assistant", "tiny")
        assert_one_sentence(result, "not allowed with argument --lookup")

    def test_an_assistant_with_another_vocabulary(self, tmp_path: Path) -> None:
        other = numpy_gpt2.init(HParams(n_vocab=9, n_ctx=4, n_embd=4, n_head=1, n_layer=1))
        numpy_gpt2.save(other, tmp_path / "other")
        result = run("The fox", "--model", "tiny", "--assistant", tmp_path / "other")
        assert_one_sentence(result, "must have the same vocabulary as the model, but it knows 9 token ids")

    @pytest.mark.parametrize("args", [["The fox"], ["The fox", "--json"], ["-u"], ["The fox", "-n", "2"]], ids=" ".join)
    def test_a_model_without_a_vocabulary(self, tmp_path: Path, args: list[str]) -> None:
        numpy_gpt2.save(numpy_gpt2.init(HParams(9, 4, 4, 1, 1)), tmp_path / "ids")
        assert_one_sentence(
            run(*args, "--model", tmp_path / "ids"), "has no vocabulary", "tokenizer.json, or vocab.json"
        )

    def test_an_assistant_that_does_not_exist(self) -> None:
        assert_one_sentence(run("The fox", "--model", "tiny", "--assistant", "distlgpt2"), "--assistant: ", "distlgpt2")


class TestPrompts:
    """Where prompts come from."""

    @pytest.mark.parametrize("args", [[], ["-"]], ids=str)
    def test_standard_input(self, tiny: GPT2, args: list[str]) -> None:
        result = run(*args, "--model", "tiny", "--greedy", "--max-new-tokens", "8", input="The king\n")
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout == tiny.generate("The king", 8, temperature=0) + "\n"

    def test_only_the_last_line_end_is_removed(self, tiny: GPT2) -> None:
        result = run("--greedy", "--max-new-tokens", "8", input="The king\nwas\n\n")
        assert result.stdout == tiny.generate("The king\nwas\n", 8, temperature=0) + "\n"

    def test_standard_input_that_is_not_text(self) -> None:
        result = run("--model", "tiny", input=b"caf\xe9", **BYTES)
        assert result.returncode == 1
        assert "the text is not UTF-8: it holds the byte 0xE9" in str(result.stderr)

    def test_a_closed_standard_input(self) -> None:
        command = f'"{sys.executable}" -m numpy_gpt2 <&-'
        result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
        assert_one_sentence(result, "there is no prompt")

    def test_unconditional(self, tiny: GPT2) -> None:
        result = run("--unconditional", "--seed", "4", "--max-new-tokens", "9")
        assert result.stdout == tiny.generate("", 9, seed=4) + "\n"

    @pytest.mark.parametrize("size", [1, 2, 3, 16])
    def test_a_file_with_a_prompt_in_each_line(self, tiny: GPT2, tmp_path: Path, size: int) -> None:
        prompts = ["The king", "A fox said", "Once upon a time there was"]
        (tmp_path / "prompts.txt").write_bytes("\r\n".join([prompts[0], "", *prompts[1:], " ", ""]).encode())
        options = ["--seed", "3", "--max-new-tokens", "7", "--batch-size", str(size)]
        for args in (["--file", "prompts.txt"], ["--file", "-"]):
            text = (tmp_path / "prompts.txt").read_text() if "-" in args else None
            result = run(*args, *options, "--model", "tiny", input=text)
            expected = tiny.generate(prompts, 7, seed=3)
            assert result.stdout == "".join(
                f"======== {args[1]}, line {line} ========\n{text}\n"
                for line, text in zip((1, 3, 4), expected, strict=True)
            )
            assert result.stderr == ""

    def test_a_file_of_prompts_may_come_from_standard_input(self, tmp_path: Path) -> None:
        content = "\ufeffThe king\r\nA fox said\r\n".encode()
        (tmp_path / "prompts.txt").write_bytes(content)
        options = ["--json", "--seed", "3", "--max-new-tokens", "7"]
        results = [run("--file", "prompts.txt", *options), run("--file", "-", *options, input=content, **BYTES)]
        assert [json.loads(line)["prompt"] for line in results[0].stdout.splitlines()] == ["The king", "A fox said"]
        assert results[1].stdout == results[0].stdout.encode()  # type: ignore[comparison-overlap]
        whole = run("--json", input=content, **BYTES)
        assert json.loads(whole.stdout)["prompt"] == "The king\nA fox said"

    def test_a_file_with_one_prompt_is_treated_like_one_with_several(self, tiny: GPT2, tmp_path: Path) -> None:
        (tmp_path / "prompts.txt").write_text("\nThe king\n")
        text = tiny.generate("The king", 5, temperature=0)
        result = run("-f", "prompts.txt", "--greedy", "--max-new-tokens", "5")
        assert result.stdout == f"======== prompts.txt, line 2 ========\n{text}\n"
        assert_one_sentence(
            run("-f", "prompts.txt", "--max-length", "1"), "prompts.txt, line 2: the prompt has 2 tokens"
        )

    @pytest.mark.parametrize("content", ["", "\n \n\n"])
    def test_a_file_without_prompts(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "prompts.txt").write_text(content)
        assert_one_sentence(run("--file", "prompts.txt"), "there is no prompt in prompts.txt")

    def test_all_prompts_of_a_file_are_checked_before_the_first_is_continued(self, tmp_path: Path) -> None:
        (tmp_path / "prompts.txt").write_text("The king\n\n" + "word " * 300)
        result = run("--file", "prompts.txt", "--model", "tiny", "--batch-size", "1")
        assert_one_sentence(result, "prompts.txt, line 3: ", "tokens are too many for this model", "--slide")

    def test_a_file_that_is_not_text(self, tmp_path: Path) -> None:
        (tmp_path / "prompts.txt").write_bytes(b"caf\xe9")
        assert_one_sentence(run("--file", "prompts.txt"), "prompts.txt is not text in UTF-8")


class TestSeveral:
    @pytest.mark.parametrize("size", [1, 2, 3, 16])
    def test_five_continuations_are_repeatable_by_seed(self, tiny: GPT2, size: int) -> None:
        prompt = "Hello, I'm a language model,"
        result = run(prompt, "-n", "5", "--seed", "42", "--max-new-tokens", "9", "--batch-size", str(size))
        expected = tiny.generate(prompt, 9, num_return_sequences=5, seed=42)
        assert result.stdout == "".join(
            f"======== continuation {i} ========\n{text}\n" for i, text in enumerate(expected, start=1)
        )
        assert len({*expected}) == 5

    def test_several_continuations_of_several_prompts(self, tiny: GPT2) -> None:
        options = ["--file", "-", "-n", "2", "--seed", "5", "--max-new-tokens", "3"]
        result = run(*options, input="The king\nA fox said\n")
        expected = tiny.generate(["The king", "A fox said"], 3, num_return_sequences=2, seed=5)
        assert result.stdout == "".join(
            f"======== -, line {i + 1}, continuation {j + 1} ========\n{expected[i][j]}\n"
            for i in range(2)
            for j in range(2)
        )

    def test_a_full_context_is_reported_for_each(self) -> None:
        result = run("word " * 240, "-n", "2", "--model", "tiny", "--max-new-tokens", "250", "--greedy")
        assert [line.split(": ")[1] for line in result.stderr.splitlines()] == ["continuation 1", "continuation 2"]


class TestJSON:
    def test_a_line_for_each_continuation(self, tiny: GPT2) -> None:
        prompts = ["The king", "A née 昔々 🙂"]
        result = run("--file", "-", "-n", "2", "--json", "--seed", "5", "--stop", ",", input="\n".join(prompts))
        lines = [json.loads(line) for line in result.stdout.splitlines()]
        made = tiny.generate(prompts, num_return_sequences=2, seed=5, stop=",", return_details=True)
        assert len(lines) == 4
        for line, prompt, generation in zip(lines, "0011", [*made[0], *made[1]], strict=True):
            assert list(line) == ["prompt", "text", "ids", "log_probabilities", "finish_reason"]
            assert line.pop("prompt") == prompts[int(prompt)]
            assert line.pop("log_probabilities") == pytest.approx(generation.log_probabilities, abs=1e-4)
            assert line == {"text": generation.text, "ids": generation.ids, "finish_reason": generation.finish_reason}

    def test_one_continuation_is_an_object_as_well(self) -> None:
        result = run("word " * 240, "--json", "--model", "tiny", "--max-new-tokens", "400", "--greedy")
        assert result.stderr == ""
        assert json.loads(result.stdout)["finish_reason"] == "context"
        assert result.stdout.count("\n") == 1

    @pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
    def test_the_output_is_ascii(self, encoding: str) -> None:
        env = {**os.environ, "PYTHONIOENCODING": encoding}
        result = run("née 昔々 🙂", "--json", "--full-text", "--greedy", encoding=encoding, env=env)
        assert result.stdout.isascii()
        assert not json.loads(result.stdout)["text"].isascii()


class TestInteractive:
    def test_each_line_is_continued(self, tiny: GPT2) -> None:
        result = run("-i", "--model", "tiny", "--seed", "3", "--max-new-tokens", "6", input="The king\n\nA fox said")
        expected = tiny.generate(["The king", "A fox said"], 6, seed=3)
        assert (result.returncode, result.stdout) == (0, "".join(f"{text}\n" for text in expected))
        assert result.stderr == ""

    def test_several_continuations_of_each_line_are_numbered(self) -> None:
        result = run("-i", "-n", "2", "--model", "tiny", "--max-new-tokens", "2", input="The king\nA fox said\n")
        titles = re.findall("======== (.*) ========", result.stdout)
        assert titles == [f"prompt {i}, continuation {j}" for i in (1, 2) for j in (1, 2)]

    def test_a_bad_prompt_does_not_end_the_conversation(self, tiny: GPT2) -> None:
        lines = "word " * 300 + "\nThe king\n"
        result = run("-i", "--model", "tiny", "--greedy", "--max-new-tokens", "6", input=lines)
        assert result.stdout == tiny.generate("The king", 6, temperature=0) + "\n"
        assert "tokens are too many" in result.stderr
        assert result.returncode == 0

    def test_a_closed_standard_input(self) -> None:
        command = f'"{sys.executable}" -m numpy_gpt2 -i --model tiny <&-'
        result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals")
class TestTerminal:
    """A conversation at a terminal, and what only a terminal shows."""

    @pytest.fixture
    def endless(self, tiny: GPT2, tmp_path: Path) -> list[str]:
        """Options that choose a model like tiny, but one that never ends a text, and let it write on and on."""
        model = GPT2(tiny.hparams, tiny.params, tiny.tokenizer, "endless", special_ids=SpecialIds())
        numpy_gpt2.save(model, tmp_path / "endless")
        return ["--model", str(tmp_path / "endless"), "--greedy", "--max-new-tokens", "1000000", "--slide"]

    @pytest.fixture
    def start(self) -> Iterator[Callable[..., Terminal]]:
        with contextlib.ExitStack() as stack:
            yield lambda *args, **streams: stack.enter_context(Terminal(args, **streams))

    def test_a_conversation(self, tiny: GPT2, start: Callable[..., Terminal]) -> None:
        terminal = start("-i", "--model", "tiny", "--greedy", "--max-new-tokens", "5")
        terminal.read_until("Ctrl-D the conversation")
        for prompt in ("The king", "A fox said"):
            terminal.read_until("prompt> ")
            terminal.write(prompt + "\n")
            terminal.read_until(tiny.generate(prompt, 5, temperature=0).split("\n")[0])
        terminal.read_until("prompt> ")
        terminal.write("\x04")
        assert terminal.wait() == 0

    def test_ctrl_c_ends_a_text_or_a_line_but_not_the_conversation(
        self, tiny: GPT2, endless: list[str], start: Callable[..., Terminal]
    ) -> None:
        terminal = start("-i", *endless)
        terminal.read_until("prompt> ")
        terminal.write("The king\n")
        terminal.read_until(tiny.generate("The king", 3, temperature=0).split("\n")[0])
        terminal.write("\x03")
        terminal.read_until("prompt> ")
        terminal.write("half a li")
        terminal.read_until("half a li")
        terminal.write("\x03\n")  # the line end, since readline may be waiting for a key when Ctrl-C arrives
        terminal.read_until("prompt> ")
        terminal.write("\x04")
        assert terminal.wait() == 0
        assert "Traceback" not in terminal.output

    def test_progress_is_shown_while_several_texts_are_generated(
        self, endless: list[str], start: Callable[..., Terminal]
    ) -> None:
        terminal = start("The king", "-n", "2", *endless)
        terminal.read_until("token/s")
        terminal.write("\x03")
        assert terminal.wait() == 130

    def test_progress_is_shown_while_a_text_is_written_to_a_file(
        self, endless: list[str], start: Callable[..., Terminal], tmp_path: Path, tiny: GPT2
    ) -> None:
        with (tmp_path / "out.txt").open("w") as out:
            terminal = start("The king", *endless, stdout=out)
            terminal.read_until("token/s")
        terminal.write("\x03")
        assert terminal.wait() == 130
        text = (tmp_path / "out.txt").read_text()
        assert text.startswith(tiny.generate("The king", 5, temperature=0))
        assert "token/s" not in text

    def test_without_a_prompt_a_terminal_is_not_read(self, start: Callable[..., Terminal]) -> None:
        terminal = start("--model", "tiny")
        terminal.read_until("there is no prompt")
        assert terminal.wait() == 1


class Terminal:
    """The command, running in a pseudo-terminal."""

    def __init__(self, args: tuple[str, ...], **streams: Any) -> None:
        import fcntl
        import pty
        import termios

        ours, its = pty.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("4H", 24, 120, 0, 0))
        self.file = ours
        self.output = ""
        self.n_seen = 0
        command = [sys.executable, "-m", "numpy_gpt2", *args]
        env = {**os.environ, "TERM": "dumb"}
        self.process = subprocess.Popen(
            command,
            **{"stdin": its, "stdout": its, "stderr": its, **streams},
            env=env,
            preexec_fn=lambda: become_foreground(its),
        )
        os.close(its)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.file)

    def read(self) -> str:
        """The next piece of output, or "" if the command has ended."""
        assert select.select([self.file], [], [], 60)[0], f"no more output after {self.output!r}"
        try:
            return os.read(self.file, 1000).decode(errors="replace")
        except OSError:  # Linux reports an error once the other end is closed
            return ""

    def read_until(self, text: str) -> None:
        """Waits until the command shows this text, after the text of the last call."""
        while text not in self.output[self.n_seen :]:
            shown = self.read()
            assert shown, f"{text!r} is missing in {self.output[self.n_seen :]!r}"
            self.output += shown
        self.n_seen = self.output.index(text, self.n_seen) + len(text)

    def write(self, text: str) -> None:
        os.write(self.file, text.encode())

    def wait(self) -> int:
        """The exit status, once it has ended."""
        while shown := self.read():
            self.output += shown
        return self.process.wait()


def become_foreground(terminal: int) -> None:
    """Makes the calling process receive the Ctrl-C of a terminal, even if its parent ignores that signal."""
    import fcntl
    import termios

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.setsid()
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)


class TestBadInput:
    @pytest.mark.parametrize(
        ("args", "parts"),
        [
            ([], ["there is no prompt", "--interactive"]),
            (["-"], ["there is no prompt"]),
            (["a", "--file", "b"], ["--file", "not allowed with argument prompt"]),
            (["a", "-u"], ["--unconditional", "not allowed with argument prompt"]),
            (["-i", "-u"], ["--unconditional", "not allowed with argument -i/--interactive"]),
            (["--file", "nowhere.txt"], ["there is no file nowhere.txt"]),
            (["--file", "."], [".: Is a directory"]),
            (["a", "-n", "0"], ["--num-return-sequences must be a whole number, 1 or more, not 0"]),
            (["a", "-n", "many"], ["--num-return-sequences", "'many'"]),
            (["a", "--batch-size", "0"], ["--batch-size must be a whole number, 1 or more, not 0"]),
            (["a", "--max-length", "-1"], ["max_length must be", "not -1"]),
            (["a", "--max-length", "5", "--max-new-tokens", "5"], ["--max-new-tokens", "not allowed"]),
            (["a b c d e", "--max-length", "2", "--model", "tiny"], ["5 tokens, more than max_length, 2"]),
            (["a", "--repetition-penalty", "0"], ["repetition_penalty must be"]),
            (["a", "--stop", ""], ["a stop string must be text, and at least one character"]),
            (["a", "--threads", "0"], ["--threads must be a whole number, 1 or more, not 0"]),
            (["a", "--threads", "all"], ["--threads", "'all'"]),
            (["a", "--model", "125M"], ["there is no model '125M'", "tiny, gpt2"]),
            (["a", "--model", ""], ["there is no model ''"]),
            (["a", "--model", "./nowhere"], ["there is no folder nowhere"]),
            (["a", "--model", "/dev/null/"], ["there is no folder /dev/null"]),
            (["a", "--temperature", "-1"], ["temperature must be 0", "not -1.0"]),
            (["a", "--temperature", "nan"], ["temperature must be 0", "not nan"]),
            (["a", "--temperature", "inf"], ["temperature must be 0", "not inf"]),
            (["a", "--temperature", "warm"], ["--temperature", "'warm'"]),
            (["a", "--temperature", "1", "--greedy"], ["--greedy", "--temperature", "not allowed"]),
            (["a", "--top-k", "-3"], ["top_k must be", "not -3"]),
            (["a", "--top-k", "1.5"], ["--top-k", "'1.5'"]),
            (["a", "--top-p", "0"], ["top_p must be above 0", "not 0.0"]),
            (["a", "--top-p", "1e400"], ["top_p must be above 0", "not inf"]),
            (["a", "--seed", "-1"], ["seed must be a whole number, 0 or more", "not -1"]),
            (["a", "--seed", "x"], ["--seed", "'x'"]),
            (["a", "--max-new-tokens", "-5"], ["max_new_tokens must be", "not -5"]),
            (["a", "--max-new-tokens", "many"], ["--max-new-tokens", "'many'"]),
            (["a", "--no-such-option"], ["--no-such-option"]),
            (["word " * 1000, "--model", "tiny"], ["tokens are too many", "holds 256"]),
            ([b"caf\xe9"], ["the text is not UTF-8: it holds the byte 0xE9"]),
            (["a", "prompt", "without", "quotes"], ["must be in quotes; 'prompt' is a second one"]),
            (["a", "--temperature", "1e300"], ["temperature must be 0", "not 1e+300"]),
            (["a", "--model", "~nobody-of-this-name/x"], ["there is no folder ~nobody-of-this-name/x"]),
            (["-a"], ["-a"]),
        ],
        ids=lambda value: " ".join(map(repr, value))[:60],
    )
    def test_is_reported_in_one_line(self, args: list[str | bytes], parts: list[str]) -> None:
        assert_one_sentence(run(*args), *parts)

    def test_a_very_large_number_of_continuations_begins_at_once(self) -> None:
        """Batch by batch: a row for each of them would not fit into memory."""
        args = ["The king", "-n", "100000000000", "--batch-size", "2", "--max-new-tokens", "1", "--model", "tiny"]
        with subprocess.Popen(
            [sys.executable, "-m", "numpy_gpt2", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout
            assert process.stdout.readline() == "======== continuation 1 ========\n"
            process.kill()

    def test_very_large_values_are_accepted(self) -> None:
        args = ["The king", "--model", "tiny", "--seed", "9" * 40, "--top-k", "9" * 30, "--temperature", "1e4"]
        result = run(*args)
        assert (result.returncode, result.stderr) == (0, "")
        assert run("The king", "--model", "tiny", "--max-new-tokens", "9" * 30, "--greedy").returncode == 0

    @pytest.mark.parametrize(
        ("file", "content", "parts"),
        [
            ("hparams.json", "{", ["hparams.json is not JSON"]),
            ("hparams.json", json.dumps({"n_vocab": -1}), ["hparams.json does not say n_ctx"]),
            ("config.json", "{", ["config.json is not JSON"]),
            ("encoder.json", "{}", ["encoder.json"]),
            ("encoder.json", None, ["encoder.json is missing"]),
            ("vocab.bpe", None, ["vocab.bpe is missing"]),
            ("vocab.bpe", "#version: 0.2\n", ["vocab.bpe"]),
            ("model.safetensors", None, ["holds no parameters"]),
            ("model.safetensors", "", ["model.safetensors is empty"]),
            ("model.safetensors", "cut short", ["model.safetensors is not a safetensors file"]),
        ],
    )
    def test_a_damaged_folder_is_reported_in_one_line(
        self, tmp_path: Path, file: str, content: str | None, parts: list[str]
    ) -> None:
        folder = shutil.copytree(TINY, tmp_path / "model")
        if content is None:
            (folder / file).unlink()
        else:
            (folder / file).write_text(content)
        assert_one_sentence(run("a", "--model", folder), *parts)

    def test_a_tensorflow_checkpoint_without_tensorflow(self, tmp_path: Path) -> None:
        folder = shutil.copytree(TINY, tmp_path / "model")
        (folder / "model.safetensors").rename(folder / "model.ckpt.index")
        code = "import sys; sys.modules['tensorflow'] = None; from numpy_gpt2.cli.main import main; sys.exit(main())"
        args = [sys.executable, "-c", code, "a", "--model", str(folder)]
        result = subprocess.run(args, capture_output=True, text=True, check=False)
        assert_one_sentence(result, 'pip install "numpy_gpt2[weights]"')


class TestDownload:
    """A named model that is not on disk."""

    @pytest.fixture
    def store(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
        """A server that offers tiny under the name of another model."""
        files = {"config.json": "config.json", "vocab.json": "encoder.json", "merges.txt": "vocab.bpe"}
        store = Store(files={f"/distilgpt2/{name}": (TINY / file).read_bytes() for name, file in files.items()})
        store.files["/distilgpt2/model.safetensors"] = (TINY / "model.safetensors").read_bytes()
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        with serving(store) as url:
            monkeypatch.setenv("NUMPY_GPT2_BASE_URL", url)
            yield store

    def test_the_model_is_downloaded_after_a_line_that_says_its_size(self, store: Store, models_dir: Path) -> None:
        for ours, theirs in (("encoder.json", "vocab.json"), ("vocab.bpe", "merges.txt")):
            store.files[f"/distilgpt2/{theirs}"] = (TINY.parent / "gpt2" / ours).read_bytes()
        numpy_gpt2.save(numpy_gpt2.init(HParams(50257, 8, 4, 2, 1)), models_dir / "model")
        for file in ("config.json", "model.safetensors"):
            store.files[f"/distilgpt2/{file}"] = (models_dir / "model" / file).read_bytes()
        result = run("a", "--model", "distilgpt2", "--greedy", "--max-new-tokens", "3")
        assert result.returncode == 0, result.stderr
        assert "fetching 2.31MB of distilgpt2 from" in result.stderr.splitlines()[0]
        again = run("a", "--model", "distilgpt2", "--greedy", "--max-new-tokens", "3")
        assert (again.returncode, again.stdout, again.stderr) == (0, result.stdout, "")

    def test_a_failed_download_is_reported_in_one_line(self, store: Store) -> None:
        store.files.clear()
        assert_one_sentence(run("a", "--model", "distilgpt2"), "/distilgpt2/config.json", "404")

    def test_another_vocabulary_is_refused(self, store: Store) -> None:
        result = run("a", "--model", "distilgpt2")
        assert (result.returncode, result.stdout) == (1, "")
        assert "fetching 8.66MB of distilgpt2 from" in result.stderr.splitlines()[0]
        assert "config.json is not that of GPT-2" in result.stderr.splitlines()[-1]


@pytest.mark.skipif(os.name == "nt", reason="needs the signals and pipes of POSIX")
class TestEndedFromOutside:
    ARGS = (sys.executable, "-m", "numpy_gpt2", "The king", "--model", "tiny", "--greedy", "--max-new-tokens", "250")

    def test_a_closed_pipe_ends_quietly(self) -> None:
        with subprocess.Popen(self.ARGS, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout
            assert process.stderr
            assert process.stdout.read(10)
            process.stdout.close()
            assert process.stderr.read() == b""
        assert process.returncode == 141

    def test_ctrl_c_ends_quietly(self) -> None:
        with subprocess.Popen(
            self.ARGS,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job ignores it
        ) as process:
            assert process.stdout
            assert process.stdout.read(1)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate()
        assert process.returncode == 130
        assert errors == b""

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
    def test_a_full_disk_is_reported_in_one_line(self) -> None:
        with Path("/dev/full").open("w") as full:
            result = run("a", "--model", "tiny", stdout=full, stderr=subprocess.PIPE)
        assert result.returncode == 1
        assert result.stderr == "numpy_gpt2: No space left on device\n"

    @pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
    def test_a_closed_output_discards_everything(self, tiny: GPT2, closed: str) -> None:
        command = f'"{sys.executable}" -m numpy_gpt2 "The king" --greedy --max-new-tokens 10 {closed}'
        result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
        text = tiny.generate("The king", max_new_tokens=10, temperature=0) + "\n"
        assert (result.returncode, result.stdout) == (0, "" if closed.startswith(">") else text)
        assert "Traceback" not in result.stderr

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
    def test_a_message_that_cannot_be_written_does_not_stop_the_text(self, tiny: GPT2) -> None:
        with Path("/dev/full").open("w") as full:
            result = run("The king", "--greedy", stdout=subprocess.PIPE, stderr=full)
        assert result.stdout == tiny.generate("The king", temperature=0) + "\n"
