"""The command line as its users meet it: as a process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from server import Store, serving

import numpy_gpt2
from numpy_gpt2.download import model_folder
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.params import HParams

TINY = model_folder("tiny")
NOTICE = "numpy_gpt2: this is tiny, a small model that knows only fairy tales"


@pytest.fixture(autouse=True)
def models_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No model is on disk but the embedded one."""
    monkeypatch.setenv("NUMPY_GPT2_MODELS", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "models"


def run(*args: str | bytes | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "numpy_gpt2", *args],
        **{"capture_output": True, "text": True, "encoding": "utf-8", "check": False, **options},
    )


def assert_one_sentence(result: subprocess.CompletedProcess[str], *parts: str) -> None:
    """One line on standard error, and a non-zero exit."""
    assert result.returncode in (1, 2)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    for part in parts:
        assert part in line


class TestText:
    def test_the_continuation_and_nothing_else_is_on_standard_output(self, tiny: GPT2) -> None:
        result = run("Once upon a time", "--seed", "1")
        assert (result.returncode, result.stdout) == (0, tiny.generate("Once upon a time", seed=1) + "\n")
        assert result.stderr.startswith(NOTICE)
        assert "python -m numpy_gpt2.download 124M" in result.stderr

    def test_a_model_that_was_asked_for_is_not_announced(self, tiny: GPT2) -> None:
        result = run("The king", "--model", "tiny", "--greedy", "--max-new-tokens", "10")
        assert result.stdout == tiny.generate("The king", max_new_tokens=10, temperature=0) + "\n"
        assert result.stderr == ""

    def test_temperature_0_is_greedy(self) -> None:
        assert run("The king", "--greedy").stdout == run("The king", "--temperature", "0").stdout

    def test_all_options(self, tiny: GPT2) -> None:
        options = "--max-new-tokens 20 --temperature 0.8 --top-k 7 --top-p 0.9 --seed 5".split()
        expected = tiny.generate("The king", max_new_tokens=20, temperature=0.8, top_k=7, top_p=0.9, seed=5)
        assert run("The king", *options).stdout == expected + "\n"

    def test_an_empty_prompt(self, tiny: GPT2) -> None:
        assert run("", "--greedy").stdout == tiny.generate("", temperature=0) + "\n"

    def test_other_scripts(self) -> None:
        result = run("昔々 🙂 née", "--greedy", "--max-new-tokens", "5")
        assert (result.returncode, result.stderr.count("\n")) == (0, 1)

    @pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
    def test_a_terminal_that_cannot_show_every_character(self, tiny: GPT2, encoding: str) -> None:
        texts = ((seed, tiny.generate("", 20, temperature=5, top_k=0, seed=seed)) for seed in range(1000))
        seed, text = next((seed, text) for seed, text in texts if any(c > "ÿ" and c != "�" for c in text))
        options = ["--temperature", "5", "--top-k", "0", "--max-new-tokens", "20", "--seed", str(seed)]
        result = run("", *options, encoding=encoding, env={**os.environ, "PYTHONIOENCODING": encoding})
        assert result.returncode == 0
        assert result.stdout == text.encode(encoding, errors="replace").decode(encoding) + "\n"

    def test_124m_is_the_default_where_it_is_on_disk(self, models_dir: Path) -> None:
        shutil.copytree(TINY, models_dir / "124M")
        result = run("The king", "--max-new-tokens", "5")
        assert (result.returncode, result.stderr) == (0, "")

    def test_a_models_dir_that_is_not_there(self, tmp_path: Path) -> None:
        result = run("The king", "--models-dir", tmp_path / "typo")
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr == f"numpy_gpt2: there is no folder {tmp_path}/typo, which --models-dir names\n"

    def test_models_dir(self, tmp_path: Path) -> None:
        shutil.copytree(TINY, tmp_path / "elsewhere" / "355M")
        assert run("The king", "--model", "gpt2-medium", "--models-dir", tmp_path / "elsewhere").returncode == 0

    def test_the_console_script(self) -> None:
        script = shutil.which("numpy-gpt2", path=str(Path(sys.executable).parent))
        if not script:
            pytest.skip("the package is not installed, only its source is there")
        result = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
        assert result.stdout == f"numpy_gpt2 {numpy_gpt2.__version__}\n"

    def test_help_names_every_option(self) -> None:
        text = run("--help").stdout
        for option in "--model --max-new-tokens --temperature --greedy --top-k --top-p --seed --verbose".split():
            assert option in text


class TestVerbose:
    @pytest.mark.parametrize(
        ("args", "reason"),
        [
            (["The king", "--max-new-tokens", "3"], "--max-new-tokens is reached"),
            (["word " * 120, "--max-new-tokens", "1000"], "the model's context is full"),
        ],
    )
    def test_why_the_text_ended(self, args: list[str], reason: str) -> None:
        assert reason in run(*args, "--model", "tiny", "--verbose", "--top-k", "1").stderr

    def test_the_model_ended_the_text(self, tiny: GPT2) -> None:
        prompt = "and they lived happily ever after.\n\n"
        streams = ((seed, tiny.stream(prompt, seed=seed)) for seed in range(100))
        seed = next(seed for seed, stream in streams if [*stream] and stream.finish_reason == "end_of_text")
        result = run(prompt, "--model", "tiny", "--verbose", "--seed", str(seed))
        assert "the model ended the text" in result.stderr
        assert "<|endoftext|>" not in result.stdout

    def test_a_full_context_is_always_told(self) -> None:
        assert (
            "context is full" in run("The king", "--model", "tiny", "--max-new-tokens", "1000", "--top-k", "1").stderr
        )

    def test_otherwise_nothing_is_said(self) -> None:
        assert run("The king", "--model", "tiny").stderr == ""


class TestBadInput:
    @pytest.mark.parametrize(
        ("args", "parts"),
        [
            ([], ["prompt"]),
            (["a", "--model", "125M"], ["there is no model '125M'", "tiny, 124M"]),
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
            ([b"caf\xe9"], ["the text is not UTF-8"]),
            (["a", "--temperature", "1e300"], ["temperature must be 0", "not 1e+300"]),
            (["a", "--model", "~nobody-of-this-name/x"], ["there is no folder ~nobody-of-this-name/x"]),
            (["-a"], ["prompt"]),
        ],
        ids=lambda value: " ".join(map(repr, value))[:60],
    )
    def test_gets_a_sentence(self, args: list[str | bytes], parts: list[str]) -> None:
        assert_one_sentence(run(*args), *parts)

    def test_absurdly_large_values_are_no_accident(self) -> None:
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
    def test_a_spoilt_folder_gets_a_sentence(
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
        code = "import sys; sys.modules['tensorflow'] = None; from numpy_gpt2.__main__ import main; sys.exit(main())"
        args = [sys.executable, "-c", code, "a", "--model", str(folder)]
        result = subprocess.run(args, capture_output=True, text=True, check=False)
        assert_one_sentence(result, 'pip install "numpy_gpt2[weights]"')


class TestDownload:
    """A model that is named, and is not on disk."""

    @pytest.fixture
    def store(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
        """A server that has tiny, under the name of another model."""
        files = {"config.json": "config.json", "vocab.json": "encoder.json", "merges.txt": "vocab.bpe"}
        store = Store(files={f"/distilgpt2/{name}": (TINY / file).read_bytes() for name, file in files.items()})
        store.files["/distilgpt2/model.safetensors"] = (TINY / "model.safetensors").read_bytes()
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        with serving(store) as url:
            monkeypatch.setenv("NUMPY_GPT2_BASE_URL", url)
            yield store

    def test_it_is_fetched_after_a_line_that_says_how_large_it_is(self, store: Store, models_dir: Path) -> None:
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

    def test_what_cannot_be_fetched_is_said_in_a_sentence(self, store: Store) -> None:
        store.files.clear()
        assert_one_sentence(run("a", "--model", "distilgpt2"), "/distilgpt2/config.json", "404")

    def test_another_vocabulary_is_not_taken_for_the_models(self, store: Store) -> None:
        result = run("a", "--model", "distilgpt2")
        assert (result.returncode, result.stdout) == (1, "")
        assert "fetching 11.8MB of distilgpt2 from" in result.stderr.splitlines()[0]
        assert "vocab.json is not what it should be" in result.stderr.splitlines()[-1]


@pytest.mark.skipif(os.name == "nt", reason="signals and pipes are POSIX's")
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
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # it is ignored in a background job
        ) as process:
            assert process.stdout
            assert process.stdout.read(1)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate()
        assert process.returncode == 130
        assert errors == b""

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
    def test_a_full_disk_gets_a_sentence(self) -> None:
        with Path("/dev/full").open("w") as full:
            result = run("a", "--model", "tiny", capture_output=False, stdout=full, stderr=subprocess.PIPE)
        assert result.returncode == 1
        assert result.stderr == "numpy_gpt2: No space left on device\n"

    @pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
    def test_a_closed_output_is_one_that_nobody_wants(self, tiny: GPT2, closed: str) -> None:
        command = f'"{sys.executable}" -m numpy_gpt2 "The king" --greedy --max-new-tokens 10 {closed}'
        result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
        text = tiny.generate("The king", max_new_tokens=10, temperature=0) + "\n"
        assert (result.returncode, result.stdout) == (0, "" if closed.startswith(">") else text)
        assert "Traceback" not in result.stderr

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
    def test_a_message_that_cannot_be_written_does_not_stop_the_text(self, tiny: GPT2) -> None:
        with Path("/dev/full").open("w") as full:
            result = run("The king", "--greedy", capture_output=False, stdout=subprocess.PIPE, stderr=full)
        assert result.stdout == tiny.generate("The king", temperature=0) + "\n"


def test_the_job_imports_nothing_that_it_does_not_need() -> None:
    code = "import sys; from numpy_gpt2.__main__ import main; main(); print(*sys.modules, file=sys.stderr)"
    args = [sys.executable, "-c", code, "The king", "--model", "tiny", "--max-new-tokens", "2"]
    result = subprocess.run(args, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in result.stderr.split()}
    assert "numpy" in loaded
    slow = {"tensorflow", "torch", "transformers", "safetensors", "requests", "tqdm", "platformdirs"}
    assert not loaded & slow


@pytest.mark.parametrize("module", ["numpy_gpt2", "numpy_gpt2.download"])
def test_a_module_run_as_a_command_was_not_imported_before(module: str) -> None:
    """Python warns of this on standard error, and the module would exist twice."""
    result = subprocess.run([sys.executable, "-W", "error", "-m", module, "--help"], capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (0, b"")
