"""`numpy-gpt2 train`, run as a process; what it refuses, in this process."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import numpy_gpt2
from numpy_gpt2.cli import runs, train
from numpy_gpt2.cli.parser import ArgumentParser
from numpy_gpt2.cli.process import sentence
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.machine.files import SAVED, locked
from numpy_gpt2.params import HParams, count_params, named_arrays
from numpy_gpt2.training import agreement, checkpoints, forward
from numpy_gpt2.training.loop import FROM_SCRATCH, DivergedError, Options, Training

TEXT = "".join(f"Once upon a time there was a king who had {n} daughters.\n" for n in range(60))
NEW = ["--vocabulary", "tiny", "--n-layer", "1", "--n-embd", "16", "--n-head", "2", "--n-ctx", "16"]
TINY = ["--from", "tiny", "--window", "16", "--batch-size", "2"]
MODEL_FILES = {"config.json", "merges.txt", "model.safetensors", "tokenizer_config.json", "vocab.json"}
FILES = {*MODEL_FILES, "training.safetensors", "training.jsonl", ".lock", ".training.lock"}

posix = pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMPY_GPT2_MODELS", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT)


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "numpy_gpt2", "train", *args]


def run(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*args), capture_output=True, text=True, encoding="utf-8", check=False, **options)


def trained(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    result = run(*args, **options)
    assert result.returncode == 0, result.stderr
    return result


def log_lines(file: str = "model/training.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(file).read_text().splitlines()]


def without_seconds(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def saved(folder: str = "model") -> dict[str, bytes]:
    return {name: (Path(folder) / name).read_bytes() for name in (*MODEL_FILES, "training.safetensors")}


def in_this_process(*args: str) -> None:
    parser = ArgumentParser(prog="numpy-gpt2 train")
    train.add_options(parser)
    train.run(parser.parse_args(args))


def refusal(*args: str) -> str:
    """What the command says to these arguments, before it makes a step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "steps", None)
        with pytest.raises((ValueError, OSError, ImportError)) as error:
            in_this_process(*args)
    return sentence(error.value)


def ids_of(tiny: GPT2, text: str) -> list[int]:
    assert tiny.tokenizer
    return tiny.tokenizer.encode(text, allow_special=True)


class TestARun:
    def test_of_a_new_model(self, tiny: GPT2) -> None:
        result = trained("text.txt", *NEW, "-o", "model", "--steps", "3", "--batch-size", "2", "--prompt", "The king")
        n_tokens = len(ids_of(tiny, TEXT))
        n_held_out = n_tokens // 20
        about, where = result.stderr.splitlines()
        n_params = count_params(HParams(4096, 16, 16, 2, 1))
        assert about.startswith(
            f"numpy_gpt2: new: {n_params:,} parameters, {n_params:,} of them trained; {n_tokens - n_held_out:,} tokens "
            f"of text, and {n_held_out} held out; 3 steps, 0.11 passes over the text; about "
        )
        assert about.endswith("MB of memory")
        assert where == 'numpy_gpt2: the model is in model: numpy-gpt2 "Once upon a time" --model model'

        lines = log_lines()
        assert [line["step"] for line in lines] == [0, 1, 2, 3]
        names = ["step", "loss", "norm", "learning_rate", "n_tokens"]
        assert [[*line] for line in lines] == [
            ["step", "bits_per_byte"],
            [*names, "seconds"],
            [*names, "seconds"],
            [*names, "bits_per_byte", "sample", "seconds"],
        ]
        assert all(line["n_tokens"] == 2 * 16 for line in lines[1:])
        assert lines[1]["loss"] == pytest.approx(np.log(4096), rel=0.02)
        last = lines[-1]
        assert last["sample"].startswith("The king")

        before, step, sample = result.stdout.splitlines()
        assert before == f"before the first step: {lines[0]['bits_per_byte']:.4f} bits per byte of the held-out text"
        mean = np.mean([line["loss"] for line in lines[1:]])
        expected = f"step 3: mean loss {mean:.4f}, {last['bits_per_byte']:.4f} bits per byte of the held-out text, "
        assert step.startswith(expected)
        assert re.fullmatch(r"\d+ tokens/s", step.removeprefix(expected))
        assert sample == "    sample: " + " ".join(last["sample"].split())

        assert {file.name for file in Path("model").iterdir()} == FILES
        model = numpy_gpt2.load("./model")
        assert model.hparams == HParams(4096, 16, 16, 2, 1)
        held_out = ids_of(tiny, TEXT)[n_tokens - n_held_out :]
        assert model.tokenizer
        n_bytes = len(model.tokenizer.decode_bytes(held_out[1:]))
        bits = model.loss(held_out) * (n_held_out - 1) / np.log(2) / n_bytes
        assert last["bits_per_byte"] == pytest.approx(bits, rel=1e-5)
        assert checkpoints.read_about(Path("model"))["options"] == Options(
            **{**vars(FROM_SCRATCH), "steps": 3, "batch_size": 2}
        )

        generate = [sys.executable, "-m", "numpy_gpt2", "generate", "The king", "--model", "./model"]
        written = subprocess.run(
            [*generate, "--max-new-tokens", "3", "--seed", "1"], capture_output=True, text=True, check=True
        )
        assert written.stdout == f"{model.generate('The king', 3, seed=1)}\n"

    def test_of_a_model_that_is_fine_tuned(self, tiny: GPT2) -> None:
        pytest.importorskip("matplotlib")
        result = trained("text.txt", *TINY, "-o", "model", "--steps", "2", "--quiet", "--loss-picture", "loss.png")
        assert result.stderr == ""
        assert Path("loss.png").read_bytes().startswith(b"\x89PNG")
        lines = log_lines()
        assert lines[-1]["bits_per_byte"] < lines[0]["bits_per_byte"]
        model = numpy_gpt2.load("./model")
        assert model.hparams == tiny.hparams
        assert (model.params.wte != tiny.params.wte).any()
        options = checkpoints.read_about(Path("model"))["options"]
        assert options == Options(steps=2, window=16, batch_size=2)  # no dropout, and the smaller learning rate
        assert checkpoints.read_about(Path("model"))["source"] == "tiny"

    def test_of_parts_of_a_model(self, tiny: GPT2) -> None:
        trained("text.txt", *TINY, "-o", "model", "--steps", "2", "--train-last", "1", "--lora-rank", "2")
        loaded = dict(named_arrays(numpy_gpt2.load("./model").params))
        changed = {name for name, array in named_arrays(tiny.params) if (array != loaded[name]).any()}
        last = tiny.hparams.n_layer - 1
        assert changed == {f"h{last}/{part}/w" for part in ("attn/c_attn", "attn/c_proj", "mlp/c_fc", "mlp/c_proj")}

    def test_the_same_seed_gives_the_same_model(self) -> None:
        args = ["text.txt", *NEW, "--steps", "2", "--threads", "1"]
        for folder, seed in (("model", "3"), ("again", "3"), ("other", "4")):
            trained(*args, "-o", folder, "--seed", seed)
        assert saved("again") == saved()
        assert saved("other")["model.safetensors"] != saved()["model.safetensors"]
        # the model is another one already before the first step
        first, other = (log_lines(f"{folder}/training.jsonl")[0]["bits_per_byte"] for folder in ("model", "other"))
        assert first != other
        assert without_seconds(log_lines("again/training.jsonl")) == without_seconds(log_lines())

    def test_the_log_may_be_elsewhere(self) -> None:
        trained("text.txt", *NEW, "-o", "model", "--steps", "2", "--log", "log.jsonl", "--evaluate-every", "1")
        assert [line["step"] for line in log_lines("log.jsonl") if "sample" in line] == [1, 2]
        assert not Path("model/training.jsonl").exists()

    def test_the_loss_that_is_shown_is_the_mean_since_the_last_one(self, capsys: pytest.CaptureFixture[str]) -> None:
        args = ["--steps", "7", "--batch-size", "1", "--evaluate-every", "3", "--learning-rate", "0.05"]
        in_this_process("text.txt", *NEW, "-o", "model", *args)
        losses = [line["loss"] for line in log_lines()[1:]]
        means = [np.mean(losses[:3]), np.mean(losses[3:6]), losses[6]]
        shown = re.findall(r"^step (\d): mean loss ([0-9.]+),", capsys.readouterr().out, re.MULTILINE)
        assert shown == [(step, f"{mean:.4f}") for step, mean in zip("367", means, strict=True)]

    @pytest.mark.parametrize("sparing", [[], ["--sparing"]], ids=["plain", "sparing"])
    def test_sparing_computes_each_block_a_second_time(
        self, sparing: list[str], block_calls: list[int], capsys: pytest.CaptureFixture[str]
    ) -> None:
        in_this_process("text.txt", *NEW, "-o", "model", "--steps", "1", "--batch-size", "2", *sparing)
        assert "step 1: " in capsys.readouterr().out
        assert len(block_calls) == 2 * 2 * (1 + len(sparing))  # the step, and whether the next can be made


@pytest.fixture
def block_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Has an element for each call of the forward pass of a block for training."""
    agreement.check()  # so that what is compared once does not count
    original, calls = forward.block, []

    def counted(*args: Any) -> Any:
        calls.append(1)
        return original(*args)

    monkeypatch.setattr(forward, "block", counted)
    return calls


class TestTexts:
    """What is learned from, read in this process."""

    def text(self, tiny: GPT2, *args: str) -> runs.Text:
        parser = ArgumentParser()
        train.add_options(parser)
        parsed = parser.parse_args([*args, "-o", "model"])
        return runs.read_text(parsed, tiny, documents=bool(parsed.documents))[0]

    def test_files_are_joined_by_the_end_of_a_text(self, tiny: GPT2) -> None:
        Path("a").write_text("The king<|endoftext|>née")
        Path("b").write_bytes("\ufeffThe\r\nmiller".encode())
        Path("c").write_text("\n")
        ids, _ = self.text(tiny, "a", "b", "c", "a", "--held-out", "a")
        expected = ["The king<|endoftext|>née", "The\nmiller", "\n", "The king<|endoftext|>née"]
        assert ids.tolist() == ids_of(tiny, "<|endoftext|>".join(expected))

    def test_the_end_of_the_text_is_held_out(self, tiny: GPT2) -> None:
        all_ids = ids_of(tiny, TEXT)
        ids, held_out = self.text(tiny, "text.txt")
        assert held_out is not None
        assert [*ids, *held_out] == all_ids
        assert len(held_out) == len(all_ids) // 20 > 1

    def test_of_a_very_short_text_nothing_is_held_out_and_all_is_learned(self, tiny: GPT2) -> None:
        Path("text.txt").write_text(TEXT[:100])
        assert 20 <= len(ids_of(tiny, TEXT[:100])) < 40
        ids, held_out = self.text(tiny, "text.txt")
        assert held_out is None
        assert ids.tolist() == ids_of(tiny, TEXT[:100])

    def test_no_more_than_is_quick_to_evaluate_is_held_out(self, tiny: GPT2, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(runs, "MOST_HELD_OUT", 7)
        ids, held_out = self.text(tiny, "text.txt")
        assert held_out is not None
        assert held_out.tolist() == ids_of(tiny, TEXT)[-7:]
        assert len(ids) == len(ids_of(tiny, TEXT)) - 7

    def test_a_file_may_be_held_out_and_then_all_of_the_text_is_learned(self, tiny: GPT2) -> None:
        Path("other.txt").write_text("The miller<|endoftext|>")
        ids, held_out = self.text(tiny, "text.txt", "--held-out", "other.txt")
        assert ids.tolist() == ids_of(tiny, TEXT)
        assert held_out is not None
        assert held_out.tolist() == ids_of(tiny, "The miller<|endoftext|>")

    @pytest.mark.parametrize("n", [20, 40, 60])
    def test_whole_documents_are_held_out(self, tiny: GPT2, n: int) -> None:
        """At least as many tokens as otherwise, and no end of a document that is learned."""
        Path("text.txt").write_text("".join(f"The king had {i} sons.\nThe end.<|endoftext|>" for i in range(n)))
        ids, held_out = self.text(tiny, "text.txt", "--documents")
        all_ids = ids_of(tiny, Path("text.txt").read_text())
        assert held_out is not None
        assert [*ids, *held_out] == all_ids
        end = ids_of(tiny, "<|endoftext|>")[0]
        assert ids[-1] == end
        start = ids_of(tiny, "The king")
        assert held_out[: len(start)].tolist() == start
        first = len(all_ids) // 20
        assert first <= len(held_out) < first + len(ids_of(tiny, f"The king had {n} sons.\nThe end.<|endoftext|>"))

    def test_of_a_single_document_the_end_is_held_out(self, tiny: GPT2) -> None:
        ids, held_out = self.text(tiny, "text.txt", "--documents")
        assert held_out is not None
        assert held_out.tolist() == ids_of(tiny, TEXT)[len(ids) :]
        assert len(held_out) == len(ids_of(tiny, TEXT)) // 20

    def test_the_memory_of_the_text_is_told(self, tiny: GPT2, memory: list[int]) -> None:
        parser = ArgumentParser()
        train.add_options(parser)
        args = parser.parse_args(["text.txt", "-o", "model"])
        _, of_text = runs.read_text(args, tiny, documents=False)
        assert of_text == OF_TEXT
        _, of_text = runs.read_text(args, tiny, documents=False)
        memory[0] -= 2 * OF_TEXT  # as if memory were freed meanwhile
        assert runs.read_text(args, tiny, documents=False)[1] == OF_TEXT

    def test_on_standard_input_and_held_out_in_a_file(self) -> None:
        Path("other.txt").write_text("The king\n" * 5)
        args = ["--steps", "2", "--held-out", "other.txt"]
        trained("text.txt", *NEW, *args, "-o", "model")
        trained("-", *NEW, *args, "-o", "piped", input=TEXT)
        assert saved("piped") == saved()
        assert without_seconds(log_lines("piped/training.jsonl")) == without_seconds(log_lines())

    def test_documents(self) -> None:
        Path("documents.txt").write_text("The king.<|endoftext|>The miller.<|endoftext|>" * 20)
        trained("documents.txt", *NEW, "--documents", "--steps", "2", "--batch-size", "2", "-o", "model")
        lengths = {len(ids_of(numpy_gpt2.load("tiny"), text)) + 1 for text in ("The king.", "The miller.")}
        (n,) = {line["n_tokens"] for line in log_lines()[1:]} & {a + b for a in lengths for b in lengths}
        assert n < 2 * 16


@contextlib.contextmanager
def running(*args: str) -> Iterator[subprocess.Popen[str]]:
    """The command as a process, whose standard output says each step."""
    with subprocess.Popen(
        command(*args, "--evaluate-every", "1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a background job ignores it
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[str], step: int) -> None:
    """Reads until the command has made this many steps."""
    assert process.stdout
    for line in process.stdout:
        if line.startswith(f"step {step}: "):
            return
    raise AssertionError(process.stderr and process.stderr.read())


def assert_same_run(folder: str, other: str, lacking: int | None = None) -> None:
    """The same parameters, means and losses; the log may lack the line of a step after which the process was killed."""
    losses, expected = (
        {line["step"]: line.get("loss") for line in log_lines(f"{each}/training.jsonl")} for each in (folder, other)
    )
    assert len(log_lines(f"{folder}/training.jsonl")) == len(losses)
    assert {step: loss for step, loss in expected.items() if step in losses or step != lacking} == losses
    assert saved(folder) == saved(other)


KINDS = [
    [*NEW, "--steps", "40"],  # with dropout
    [*NEW, "--steps", "40", "--documents", "--lora-rank", "2", "--train-last", "1"],
]


@posix
class TestGoingOn:
    def whole(self, args: list[str]) -> None:
        Path("text.txt").write_text(TEXT.replace("daughters.\n", "daughters.<|endoftext|>"))
        trained("text.txt", *args, "-o", "whole")

    @pytest.mark.parametrize(
        ("args", "number"),
        [(KINDS[0], signal.SIGINT), (KINDS[1], signal.SIGINT), (KINDS[0], signal.SIGTERM)],
        ids=["all", "low-rank updates and documents", "SIGTERM"],
    )
    def test_after_ctrl_c(self, args: list[str], number: signal.Signals) -> None:
        self.whole(args)
        with running("text.txt", *args, "-o", "model") as process:
            wait_for(process, 3)
            process.send_signal(number)
            _, messages = process.communicate()
        assert process.returncode == 130
        *_, notice, last = messages.splitlines()
        assert notice == "numpy_gpt2: finishing this step, and saving; Ctrl-C again ends at once"
        found = re.fullmatch(r"numpy_gpt2: stopped after step (\d+) of 40, and saved; to go on: numpy-gpt2 (.*)", last)
        assert found
        assert 3 <= int(found[1]) < 40
        assert log_lines()[-1]["step"] == int(found[1]) == checkpoints.read_about(Path("model"))["step"]
        go_on = ["train", "text.txt", "--output", "model", "--resume", "--evaluate-every", "1"]
        assert shlex.split(found[2]) == go_on
        assert numpy_gpt2.load("./model").hparams.n_layer == 1
        trained(*shlex.split(found[2])[1:])
        assert_same_run("model", "whole")

    def test_the_sentence_names_what_is_needed_to_go_on(self) -> None:
        Path("other.txt").write_text("The king\n" * 5)
        needed = ["--held-out", "other.txt", "--log", "a log", "--prompt", "The king's"]
        needed += ["--evaluate-every", "1", "--save-every", "7", "--threads", "1"]
        with running("text.txt", *NEW, *needed, "--steps", "100000", "-o", "model") as process:
            wait_for(process, 1)
            process.send_signal(signal.SIGINT)
            _, messages = process.communicate()
        _, again = messages.splitlines()[-1].split("to go on: numpy-gpt2 train ")
        assert shlex.split(again) == ["text.txt", "--output", "model", "--resume", *needed]
        trained(*shlex.split(again), "--steps", str(checkpoints.read_about(Path("model"))["step"] + 1))
        assert [line["step"] for line in log_lines("a log")] == [*range(len(log_lines("a log")))]

    def test_after_a_closed_pipe(self) -> None:
        """As with `| head -1`."""
        self.whole(KINDS[0])
        with running("text.txt", *KINDS[0], "-o", "model") as process:
            assert process.stdout
            assert process.stdout.readline().startswith("before the first step: ")
            process.stdout.close()
            process.wait()
            assert process.stderr
            messages = process.stderr.read()
        assert process.returncode == 141
        assert "Traceback" not in messages
        step = checkpoints.read_about(Path("model"))["step"]
        assert 1 <= step < 40
        assert log_lines()[-1]["step"] == step
        trained("text.txt", "-o", "model", "--resume")
        assert_same_run("model", "whole")

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
    def test_after_a_full_disk_takes_no_more_of_standard_output(self) -> None:
        trained("text.txt", *NEW, "-o", "model", "--steps", "2")
        shutil.copytree("model", "whole")
        go_on = ["text.txt", "--resume", "--steps", "6"]
        trained(*go_on, "-o", "whole")
        with Path("/dev/full").open("w") as full:
            args = command(*go_on, "-o", "model", "--evaluate-every", "3")
            result = subprocess.run(args, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert result.returncode == 1
        assert result.stderr.splitlines()[-1] == "numpy_gpt2: No space left on device"
        assert "Traceback" not in result.stderr
        assert log_lines()[-1]["step"] == checkpoints.read_about(Path("model"))["step"] == 3
        trained(*go_on, "-o", "model")
        assert_same_run("model", "whole")

    @pytest.mark.parametrize("sparing", [False, True], ids=["plain", "sparing"])
    def test_sparing_is_that_of_the_run(
        self, sparing: bool, block_calls: list[int], capsys: pytest.CaptureFixture[str]
    ) -> None:
        args = ["--steps", "1", "--batch-size", "2", *(["--sparing"] if sparing else [])]
        in_this_process("text.txt", *NEW, "-o", "model", *args)
        block_calls.clear()
        in_this_process("text.txt", "-o", "model", "--resume", "--steps", "2")
        assert "step 2: " in capsys.readouterr().out
        assert len(block_calls) == 2 * 2 * (1 + sparing)
        assert checkpoints.read_about(Path("model"))["options"].sparing == sparing

    @pytest.mark.parametrize("how", ["asked for", "needed"])
    def test_sparing_from_now_on(
        self,
        how: str,
        block_calls: list[int],
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        in_this_process("text.txt", *NEW, "-o", "model", "--steps", "1", "--batch-size", "2")
        block_calls.clear()
        if how == "needed":
            original = runs.fitting_memory

            def little_memory(*args: Any) -> tuple[Options, int]:
                options, needed = original(*args)
                return dataclasses.replace(options, sparing=True), needed

            monkeypatch.setattr(runs, "fitting_memory", little_memory)
        in_this_process(
            *("text.txt", "-o", "model", "--resume", "--steps", "2", *(["--sparing"] if how == "asked for" else []))
        )
        assert "step 2: " in capsys.readouterr().out
        assert len(block_calls) == 2 * 2 * 2

    def test_seconds_go_on(self, capsys: pytest.CaptureFixture[str]) -> None:
        in_this_process("text.txt", *NEW, "-o", "model", "--steps", "2", "--batch-size", "1")
        lines = log_lines()
        lines[-1]["seconds"] = 1000.0
        Path("model/training.jsonl").write_text("".join(map(train.json_line, lines)))
        in_this_process("text.txt", "-o", "model", "--resume", "--steps", "4")
        assert "step 4: " in capsys.readouterr().out
        *before, third, fourth = log_lines()
        assert before == lines
        assert 1000 < third["seconds"] < fourth["seconds"] < 1000 + 600

    def test_after_a_kill(self) -> None:
        """In the middle of a run; the log may be ahead of what was saved, or behind by a line."""
        self.whole(KINDS[0])
        for every, step in ((2, 3), (2, 5), (3, 7)):
            with running("text.txt", *KINDS[0], "--save-every", str(every), "-o", f"every{step}") as process:
                wait_for(process, step)
                process.kill()
                process.communicate()
            made = checkpoints.read_about(Path(f"every{step}"))["step"]
            assert made >= (step - 1) // every * every
            log = Path(f"every{step}/training.jsonl")
            log.write_text(log.read_text() + '{"step": 2, "lo')  # a line that the kill cut off
            trained("text.txt", "-o", f"every{step}", "--resume")
            assert_same_run(f"every{step}", "whole", lacking=made)

    def test_a_kill_before_anything_was_saved(self) -> None:
        args = ["text.txt", *NEW, "--steps", "40", "-o", "model"]
        with running(*args) as process:
            wait_for(process, 2)
            process.kill()
            process.communicate()
        assert refusal(*args, "--resume") == "there is no run to go on with in model: training.safetensors is missing"
        trained(*args)  # begins again
        assert [line["step"] for line in log_lines()] == [*range(41)]

    def test_a_second_process_is_refused(self) -> None:
        args = ["text.txt", *NEW, "--steps", "100000", "-o", "model"]
        with running(*args, "--save-every", "1") as process:
            wait_for(process, 2)  # the first step has been saved
            for more in ([], ["--resume"]):
                result = run(*args, *more)
                assert result.returncode == 1
            assert result.stderr == (
                "numpy_gpt2: another process is training the model in model: name another folder\n"
            )
            assert process.poll() is None
            process.kill()
            process.communicate()
        assert checkpoints.read_about(Path("model"))["step"] >= 1

    def test_more_steps(self) -> None:
        trained("text.txt", *NEW, "-o", "model", "--steps", "2")
        assert refusal("text.txt", "-o", "model", "--resume") == (
            "the run in model has made 2 steps: --steps N goes on, up to N in all"
        )
        assert refusal("text.txt", "-o", "model", "--resume", "--steps", "1").startswith("the run in model has made 2")
        result = trained("text.txt", *NEW, "-o", "model", "--resume", "--steps", "4", "--threads", "1")
        assert "before the first step" not in result.stdout
        assert [line["step"] for line in log_lines()] == [0, 1, 2, 3, 4]
        assert checkpoints.read_about(Path("model"))["options"].steps == 4

    def test_another_number_of_threads_is_told(self) -> None:
        trained("text.txt", *NEW, "-o", "model", "--steps", "2", "--threads", "1")
        result = trained("text.txt", "-o", "model", "--resume", "--steps", "3", "--threads", "2")
        if os.cpu_count() != 1:
            expected = "the run was on 1 threads, and goes on with 2: the numbers may differ by rounding"
            assert result.stderr.splitlines()[0] == f"numpy_gpt2: {expected}"


class TestRefusals:
    @pytest.fixture
    def model(self) -> None:
        """A run of two steps in the folder `model`."""
        with contextlib.redirect_stdout(io.StringIO()):
            in_this_process("text.txt", *NEW, "-o", "model", "--steps", "2", "--batch-size", "2")

    @pytest.mark.parametrize(
        ("args", "expected"),
        [
            (["nowhere.txt", *NEW], "there is no file nowhere.txt"),
            (["text.txt", "nowhere.txt", *NEW], "there is no file nowhere.txt"),
            ([".", *NEW], ".: Is a directory"),
            (["latin.txt", *NEW], "latin.txt is not text in UTF-8 ("),
            (["empty.txt", *NEW], "empty.txt is empty"),
            (["short.txt", *NEW], "the text has 3 tokens, and a window takes 17, with the token that follows"),
            (["text.txt", *NEW, "--held-out", "nowhere.txt"], "there is no file nowhere.txt"),
            (["text.txt", *NEW, "--held-out", "latin.txt"], "latin.txt is not text in UTF-8 ("),
            (["text.txt", *TINY, "--n-layer", "2"], "--n-layer is for a new model, and --from tiny has its own"),
            (["text.txt", *TINY, "--n-ctx", "2"], "--n-ctx is for a new model, and --from tiny has its own"),
            (["text.txt", *TINY, "--vocabulary", "tiny"], "--vocabulary is for a new model, and --from tiny has its"),
            (["text.txt", "--from", "nonsense"], "there is no model 'nonsense'"),
            (["text.txt", "--from", "./nowhere"], "there is no folder"),
            (["text.txt", "--vocabulary", "./nowhere"], "there is no vocabulary in nowhere"),
            (["text.txt", "--vocabulary", "nonsense"], "there is no model 'nonsense'"),
            (["text.txt", *NEW, "--n-head", "3"], "n_embd must be a multiple of n_head, but 16 is not a multiple of 3"),
            (["text.txt", *NEW, "--n-layer", "0"], "n_layer must be a positive whole number, not 0"),
            (["text.txt", *NEW, "--window", "17"], "--window must be a whole number, 0 to 16, not 17"),
            (["text.txt", *NEW, "--steps", "0"], "--steps must be a whole number, 1 or more, not 0"),
            (["text.txt", *NEW, "--train-last", "2"], "--train-last must be a whole number, 0 to 1, not 2"),
            (["text.txt", *NEW, "--dropout", "1"], "--dropout must be a number of at least 0 and less than 1"),
            (["text.txt", *NEW, "--learning-rate", "nan"], "--learning-rate must be a number above 0, not nan"),
            (["text.txt", *NEW, "--seed", "-1"], "--seed must be a whole number, 0 or more, not -1"),
            (["text.txt", *NEW, "--train-last", "0"], "--train-last must be a whole number, 1 or more, not 0"),
            (["text.txt", *NEW, "--lora-rank", "0"], "--lora-rank must be a whole number, 1 or more, not 0"),
            (["text.txt", *NEW, "--window", "0"], "--window must be a whole number, 1 or more, not 0"),
            (["-", "-", *NEW], "standard input can be read only once: give - once"),
            (["-", *NEW, "--held-out", "-"], "standard input can be read only once: give - once"),
            (["text.txt", *NEW, "--held-out", "x.txt"], "--held-out x.txt is too short: its first token is not scored"),
            (["text.txt", *NEW, "--evaluate-every", "0"], "--evaluate-every must be a whole number, 1 or more, not 0"),
            (["text.txt", *NEW, "--save-every", "0"], "--save-every must be a whole number, 1 or more, not 0"),
            (["text.txt", *NEW, "--threads", "0"], "--threads must be a whole number, 1 or more, not 0"),
            (["text.txt", *NEW, "--log", "no/where.jsonl"], "--log no/where.jsonl is not the name of a file in a"),
            (["text.txt", *NEW, "--loss-picture", "a.jpg"], "a picture cannot be written to a.jpg: the name must end"),
            (["text.txt", *NEW, "--loss-picture", "no/a.png"], "there is no folder no for the picture"),
            (["text.txt", "--resume"], "there is no run to go on with in model: training.safetensors is missing"),
            (["ends.txt", *NEW, "--documents"], "there is no document in the text: it has nothing but <|endoftext|>"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_of_a_new_run(self, args: list[str], expected: str) -> None:
        Path("latin.txt").write_bytes(b"caf\xe9")
        Path("empty.txt").write_text("")
        Path("short.txt").write_text("The king was")
        Path("ends.txt").write_text("<|endoftext|>" * 10)
        Path("x.txt").write_text("x")
        assert refusal(*args, "-o", "model").startswith(expected)
        assert not Path("model").exists()

    def test_of_a_new_run_in_a_folder_that_is_there(self) -> None:
        """The folder stays, and what is in it."""
        Path("model").mkdir()
        Path("model/notes.txt").write_text("mine")
        assert refusal("text.txt", *NEW, "--seed", "-1", "-o", "model").startswith("--seed must be")
        assert Path("model/notes.txt").read_text() == "mine"

    @pytest.mark.parametrize("file", ["vocab.json", "merges.txt", "tokenizer_config.json"])
    def test_of_a_folder_with_a_vocabulary_of_somebody(self, file: str) -> None:
        """It would be replaced."""
        Path("model").mkdir()
        (Path("model") / file).write_text("mine")
        found = refusal("text.txt", *NEW, "-o", "model")
        assert found.startswith(f"model holds another model or its vocabulary ({file})")
        assert [(each.name, each.read_text()) for each in Path("model").iterdir()] == [(file, "mine")]

    @pytest.mark.parametrize(
        "args",
        [
            ["--batch-size", "4"],
            ["--window", "8"],
            ["--learning-rate", "0.5"],
            ["--weight-decay", "0.5"],
            ["--clip", "0.5"],
            ["--dropout", "0.5"],
            ["--warmup", "7"],
            ["--train-last", "1"],
            ["--lora-rank", "3"],
            ["--seed", "7"],
            ["--n-layer", "3"],
            ["--n-embd", "32"],
            ["--n-head", "4"],
            ["--n-ctx", "8"],
            ["--from", "tiny"],
            ["--documents"],
        ],
        ids=" ".join,
    )
    @pytest.mark.usefixtures("model")
    def test_of_an_option_that_is_not_that_of_the_run(self, args: list[str]) -> None:
        before = saved()
        found = refusal("text.txt", "-o", "model", "--resume", "--steps", "4", *args)
        option = " ".join(args)
        assert re.match(
            rf"{option}( True)? is not what the run in model began with, [^ ]+: leave it out, or begin", found
        )
        assert saved() == before
        assert [line["step"] for line in log_lines()] == [0, 1, 2]

    @pytest.mark.usefixtures("model")
    def test_of_a_run_that_goes_on(self) -> None:
        before = saved()
        Path("other.txt").write_text(TEXT + "x")
        go_on = ["-o", "model", "--resume", "--steps", "4"]
        another_text = "the run in model was trained on another text: to go on, it needs the same text, without"
        assert refusal("other.txt", *go_on).startswith(another_text)
        assert refusal("text.txt", "text.txt", *go_on).startswith(another_text)
        assert refusal("text.txt", *go_on, "--held-out", "other.txt").startswith(another_text)
        found = refusal("text.txt", *go_on, "--vocabulary", "gpt2")
        assert found == "--vocabulary gpt2 is not the vocabulary of the run in model: leave it out"
        found = refusal("text.txt", *go_on[:-1], "0")
        assert found == "--steps must be a whole number, 1 or more, not 0"
        file = Path("model/training.safetensors")
        file.write_bytes(file.read_bytes()[:-1])
        assert refusal("text.txt", *go_on).startswith("model/training.safetensors is damaged, so the run cannot go")
        file.unlink()
        assert refusal("text.txt", *go_on).startswith("there is no run to go on with in model")
        del before["training.safetensors"]
        assert {name: (Path("model") / name).read_bytes() for name in before} == before

    @pytest.mark.usefixtures("model")
    def test_of_a_folder_that_is_in_use(self, tiny: GPT2) -> None:
        found = refusal("text.txt", *NEW, "-o", "model")
        assert found == "model holds a run: --resume goes on with it; a new one needs a folder of its own"
        numpy_gpt2.save(numpy_gpt2.load("./model"), "model")
        found = refusal("text.txt", *NEW, "-o", "model")
        assert found == "model holds a model already: name another folder"
        Path("model/config.json").write_text("{}")
        assert refusal("text.txt", *NEW, "-o", "model").startswith("model holds another model or its vocabulary (conf")
        for name in ("tiny", "gpt2", "124M"):
            found = refusal("text.txt", *NEW, "-o", name)
            assert found == f"'{name}' is the name of a model: write the folder as './{name}'"
            assert not Path(name).exists()
        shutil.rmtree("model")
        trained("text.txt", *NEW, "-o", "model", "--steps", "1")
        with locked(Path("model"), name=".training.lock"):
            found = refusal("text.txt", "-o", "model", "--resume", "--steps", "2")
        assert found == "another process is training the model in model: name another folder"

    def test_of_a_save_that_is_to_be_completed(self) -> None:
        (Path("model") / SAVED).mkdir(parents=True)
        (Path("model") / SAVED / "training.safetensors").touch()
        assert refusal("text.txt", *NEW, "-o", "model").startswith("model holds a run: --resume goes on with it")

    def test_of_a_picture_without_matplotlib_before_anything_is_computed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [name for name in sys.modules if name.startswith(("matplotlib", "numpy_gpt2.training.figures"))]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        found = refusal("text.txt", *NEW, "-o", "model", "--loss-picture", "loss.png")
        assert found.startswith("a picture needs matplotlib (")
        assert found.endswith('): pip install "numpy_gpt2[plot]"')
        assert not Path("model").exists()

    def test_of_too_little_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(runs, "available_memory", lambda: 10**5)
        for args in (NEW, TINY):
            found = refusal("text.txt", *args, "-o", "model")
            assert re.match(r"training takes about .* of memory, and 100kB are free: a smaller --window", found)

    def test_a_model_that_is_too_large_is_refused_before_it_is_made(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(runs, "init_params", None)
        found = refusal("text.txt", "--vocabulary", "tiny", "--n-embd", "400000", "--n-layer", "200", "-o", "model")
        assert found.startswith("training takes about ")

    def test_a_model_without_a_vocabulary_cannot_read_a_text(self) -> None:
        numpy_gpt2.save(numpy_gpt2.init(HParams(50, 16, 8, 2, 1)), "plain")
        assert "vocabulary" in refusal("text.txt", "--from", "./plain", "-o", "model")

    @pytest.mark.parametrize(
        ("args", "status", "expected"),
        [
            (["text.txt", "-o", "model"], 2, "say what to train: --from tiny fine-tunes a model, and --n-layer,"),
            (["text.txt", *NEW], 2, "the following arguments are required: --output/-o"),
            ([*NEW, "-o", "model"], 2, "the following arguments are required: FILE"),
            (["text.txt", *NEW, "-o", "model", "--steps", "x"], 2, "argument --steps: invalid int value: 'x'"),
            (["empty.txt", *NEW, "-o", "model"], 1, "empty.txt is empty"),
            (["text.txt", *NEW, "-o", "model", "--learning-rate", "1e30", "--steps", "3"], 1, "step 2 cannot be made"),
        ],
        ids=lambda value: str(value),
    )
    def test_a_process_says_it_in_one_line(self, args: list[str], status: int, expected: str) -> None:
        Path("empty.txt").write_text("")
        result = run(*args, "--save-every", "1")
        assert result.returncode == status
        line = result.stderr.splitlines()[-1]
        assert line.startswith(f"numpy_gpt2: {expected}")
        assert "Traceback" not in result.stderr
        assert not Path("model/model.safetensors").exists()

    def test_a_prompt_that_is_too_long_for_the_context(self) -> None:
        assert "--prompt is too long" in refusal("text.txt", *NEW, "-o", "model", "--prompt", "The king " * 20)

    def test_an_empty_name_of_a_folder(self) -> None:
        found = refusal("text.txt", *NEW, "-o", "")
        assert found == "name a folder to save to; '.' is the one in which you are"

    def test_a_file_in_place_of_the_folder(self) -> None:
        found = refusal("text.txt", *NEW, "-o", "text.txt")
        assert found == "text.txt is a file, not a folder: name a folder to save to"
        assert Path("text.txt").read_text() == TEXT


class TestDivergence:
    """The message says which of the steps can be gone on with."""

    def diverging(self, at: int, *args: str) -> str:
        """What the command says to these arguments if the loss of a step is infinite."""
        original = Training.gradients

        def gradients(training: Training) -> Any:
            loss, *others = original(training)
            return (np.inf if training.step + 1 == at else loss, *others)

        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
            patch.setattr(Training, "gradients", gradients)
            with pytest.raises(DivergedError) as error:
                in_this_process("text.txt", "-o", "model", *args)
        return str(error.value)

    def test_it_names_the_step_that_was_saved_last(self) -> None:
        found = self.diverging(6, *NEW, "--batch-size", "1", "--steps", "9", "--save-every", "2")
        assert re.match(r"step 6 cannot be made: its loss is inf, .*; model holds step 4, which was saved last$", found)
        assert checkpoints.read_about(Path("model"))["step"] == 4
        assert log_lines()[-1]["step"] == 5

    def test_before_anything_was_saved(self) -> None:
        found = self.diverging(3, *NEW, "--batch-size", "1", "--steps", "9", "--save-every", "5")
        assert re.match(r"step 3 cannot be made: its loss is inf, .*; nothing was saved$", found)
        assert not checkpoints.holds_run(Path("model"))

    def test_of_a_run_that_goes_on(self, capsys: pytest.CaptureFixture[str]) -> None:
        in_this_process("text.txt", "-o", "model", *NEW, "--batch-size", "1", "--steps", "2")
        assert "step 2: " in capsys.readouterr().out
        before = saved()
        found = self.diverging(4, "--resume", "--steps", "9")
        assert re.match(r"step 4 cannot be made: its loss is inf, .*; model holds step 2, which was saved last$", found)
        assert saved() == before


OF_TEXT = 5 * 10**8  # bytes


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How much memory the process seems to take: reading a text adds to it."""
    used, original = [10**9], runs.read_ids

    def read_ids(*args: Any) -> Any:
        ids = original(*args)
        used[0] += OF_TEXT
        return ids

    monkeypatch.setattr(runs, "used_memory", lambda: used[0])
    monkeypatch.setattr(runs, "read_ids", read_ids)
    return used


@pytest.mark.parametrize("args", [NEW, TINY], ids=["new", "fine-tuned"])
def test_the_memory_of_the_text_counts(args: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a new run, and of one that goes on."""
    found: dict[int, list[int]] = {}
    original_text, original_fitting = runs.read_text, runs.fitting_memory
    monkeypatch.setattr(runs, "used_memory", lambda: 10**9)
    for of_text in (0, OF_TEXT):
        before: list[int] = []

        def read_text(*args: Any, of_text: int = of_text) -> tuple[runs.Text, int]:
            return original_text(*args)[0], of_text

        def fitting(hparams: HParams, options: Options, n: int, text: Any = None, before: list[int] = before) -> Any:
            before.append(n)
            return original_fitting(hparams, options, n, text)

        monkeypatch.setattr(runs, "read_text", read_text)
        monkeypatch.setattr(runs, "fitting_memory", fitting)
        with contextlib.redirect_stdout(io.StringIO()):
            in_this_process("text.txt", *args, "-o", f"model{of_text}", "--steps", "1", "--batch-size", "1")
            new = before[-1]
            in_this_process("text.txt", "-o", f"model{of_text}", "--resume", "--steps", "2")
        found[of_text] = [new, before[-1]]
    assert [with_text - without for without, with_text in zip(*found.values(), strict=True)] == [OF_TEXT, OF_TEXT]


LINES = [{"step": n, "loss": n / 2} for n in range(6)]


class TestALogThatIsReadAgain:
    @pytest.mark.parametrize(
        "end", ["", '{"step": 6, "lo', '{"step": 6', "{", "null", '{"loss": 1}', '{"step": "x"}\n']
    )
    def test_all_lines_but_one_at_the_end_that_was_cut_off(self, tmp_path: Path, end: str) -> None:
        (tmp_path / "log").write_text("".join(map(train.json_line, LINES)) + end)
        assert train.read_log(tmp_path / "log") == LINES

    def test_an_empty_one(self, tmp_path: Path) -> None:
        (tmp_path / "log").touch()
        assert train.read_log(tmp_path / "log") == []

    @pytest.mark.parametrize(
        "text",
        [
            *(b"\xff", b"Once upon a time\n", b"{", b"[1]\n", b"3\n", b"null\n", b'{"loss": 1}\n', b'{"step": "x"}\n'),
            b'{"step": 0}\nOnce\n{"step": 1}\n',
            b'{"step": 0}\n[1]\n{"step": 1}\n',
            b"\0\0\0\0",
        ],
    )
    def test_a_file_that_is_no_log(self, tmp_path: Path, text: bytes) -> None:
        (tmp_path / "log").write_bytes(text)
        assert train.read_log(tmp_path / "log") is None


class TestALogThatMustNotBeWritten:
    def refused(self, *args: str) -> str:
        """What the command says; nothing is changed."""
        before = {file: file.read_bytes() for file in Path().rglob("*") if file.is_file()}
        found = refusal(*args)
        after = {file: file.read_bytes() for file in Path().rglob("*") if file.is_file()}
        assert {file: text for file, text in after.items() if file.name not in (".training.lock", ".lock")} == {
            file: text for file, text in before.items() if file.name not in (".training.lock", ".lock")
        }
        return found

    @pytest.mark.parametrize("name", ["text.txt", "./text.txt", "link", "other.txt", "loss.png"])
    def test_over_another_file_of_the_run(self, name: str) -> None:
        Path("other.txt").write_text(TEXT)
        Path("link").symlink_to("text.txt")
        args = ["text.txt", *NEW, "--held-out", "other.txt", "-o", "model", "--log", name]
        if name == "loss.png":
            pytest.importorskip("matplotlib")
            args += ["--loss-picture", name]
        assert self.refused(*args) == f"--log {Path(name)} is also the name of another file of this run"
        assert not Path("model").exists()
        assert not Path("loss.png").exists()

    @pytest.mark.parametrize("text", [b"mine", b"\xff\0", b'{"name": "mine"}', b"{}\n{}\n"])
    def test_over_a_file_of_somebody(self, text: bytes) -> None:
        Path("mine").write_bytes(text)
        found = self.refused("text.txt", *NEW, "-o", "model", "--log", "mine")
        assert found == "mine exists, and is no log of a run: name another file with --log"
        assert not Path("model").exists()

    @posix
    def test_over_a_device_or_a_folder(self) -> None:
        """A socket stands for a device: were the test to fail as root, it would replace a real one."""
        with socket.socket(socket.AF_UNIX) as device:
            device.bind("device")
            for name in ("device", "."):
                found = self.refused("text.txt", *NEW, "-o", "model", "--log", name)
                assert found == f"{name} exists, and is no log of a run: name another file with --log"
            assert Path("device").is_socket()

    def test_over_the_log_of_another_run(self) -> None:
        Path("log").write_text("".join(map(train.json_line, LINES)))
        found = self.refused("text.txt", *NEW, "-o", "model", "--log", "log")
        assert found == "log is the log of another run: name another file with --log"

    def test_over_a_file_of_somebody_in_the_folder(self) -> None:
        Path("model").mkdir()
        Path("model/training.jsonl").write_text("mine")
        found = self.refused("text.txt", *NEW, "-o", "model")
        assert found == "model/training.jsonl exists, and is no log of a run: name another file with --log"

    def test_of_a_run_that_goes_on(self, capsys: pytest.CaptureFixture[str]) -> None:
        in_this_process("text.txt", *NEW, "-o", "model", "--steps", "1", "--batch-size", "1")
        assert "step 1: " in capsys.readouterr().out
        go_on = ["text.txt", "-o", "model", "--resume", "--steps", "2"]
        Path("mine").write_text("mine")
        assert self.refused(*go_on, "--log", "mine").startswith("mine exists, and is no log of a run: ")
        assert self.refused(*go_on, "--log", "text.txt").startswith("--log text.txt is also the name of another file")
        config = "model/config.json"
        assert self.refused(*go_on, "--log", config).startswith(f"--log {config} would be among the files of the model")
        Path("model/training.jsonl").write_text("mine")
        assert self.refused(*go_on).startswith("model/training.jsonl exists, and is no log of a run: ")

    def test_an_empty_file_may_become_the_log(self, capsys: pytest.CaptureFixture[str]) -> None:
        """As `mktemp` makes one."""
        Path("log").touch()
        in_this_process("text.txt", *NEW, "-o", "model", "--steps", "1", "--batch-size", "1", "--log", "log")
        assert "step 1: " in capsys.readouterr().out
        assert [line["step"] for line in log_lines("log")] == [0, 1]


def test_help_says_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        in_this_process("--help")
    words = " ".join(capsys.readouterr().out.split())
    for part in (
        "how many steps (default: 1000)",
        "texts in a step (default: 8)",
        "(default: 0.0003; for a new model, 0.001)",
        "(default: 0.0; for a new model, 0.1)",
        "blocks (default: 4)",
        "evaluate after N steps (default: 200)",
    ):
        assert part in words


def test_only_options_that_are_given_differ_from_the_defaults() -> None:
    args = SimpleNamespace(**dict.fromkeys(vars(Options())))
    assert runs.given_options(args) == {}  # type: ignore[arg-type]
    args.dropout, args.documents, args.seed = 0.0, False, 0
    assert runs.given_options(args) == {"dropout": 0.0, "documents": False, "seed": 0}  # type: ignore[arg-type]
