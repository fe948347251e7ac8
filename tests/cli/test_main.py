"""The command as a whole: the choice of a subcommand, help, hints, imports, and completion."""

from __future__ import annotations

import argparse
import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import numpy_gpt2
from numpy_gpt2.cli.explore import VIEWS
from numpy_gpt2.cli.main import COMMAND, SHELLS, SUBCOMMANDS, all_actions, whole_parser
from numpy_gpt2.gpt2 import GPT2

PACKAGE = Path(numpy_gpt2.__file__).parent
COMMANDS = [[], *([name] for name in SUBCOMMANDS), *(["explore", view] for view in VIEWS)]
SHORT = ["--model", "tiny", "--greedy", "--max-new-tokens", "4"]


@pytest.fixture(autouse=True)
def no_models_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMPY_GPT2_MODELS", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)


def run(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return run_python("-m", "numpy_gpt2", *args, **options)


def run_python(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    options = {"check": False, **({} if "input" in options else {"stdin": subprocess.DEVNULL}), **options}
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, encoding="utf-8", **options)


def error_line(result: subprocess.CompletedProcess[str]) -> str:
    """The only line that the command prints when its arguments are wrong."""
    assert (result.returncode, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    return line


class TestSubcommand:
    """How the command decides between a prompt and a subcommand."""

    @pytest.mark.parametrize(
        "args",
        [
            ["The king", "--greedy"],
            ["--seed", "3", "--full-text", "The king"],
            ["--json", "-n", "2", "--seed", "3", "--", "-king"],
            ["-", "--greedy"],
            ["--greedy", "--model", "tiny"],
            ["--file", "-", "--seed", "1"],
            ["The king", "--temperature", "-1"],
            ["The king", "another"],
        ],
        ids=" ".join,
    )
    def test_a_bare_prompt_is_that_of_generate(self, args: list[str]) -> None:
        bare, generate = (run(*name, *args, input="The queen\nA fox\n") for name in ([], ["generate"]))
        assert (bare.returncode, bare.stdout, bare.stderr) == (generate.returncode, generate.stdout, generate.stderr)
        assert bare.stdout or bare.stderr

    @pytest.mark.parametrize("prompt", [*SUBCOMMANDS, "help"])
    def test_after_a_double_dash_the_name_of_a_subcommand_is_a_prompt(self, tiny: GPT2, prompt: str) -> None:
        result = run(*SHORT, "--", prompt)
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout == tiny.generate(prompt, 4, temperature=0) + "\n"
        assert run("--", prompt, input="").returncode == 0

    def test_a_subcommand_runs(self) -> None:
        result = run("score", "-", "--model", "tiny", input="The king was very angry.")
        assert result.stdout.startswith("probability")

    @pytest.mark.parametrize("name", SUBCOMMANDS)
    def test_options_before_a_subcommand_do_not_make_a_prompt_of_it(self, name: str) -> None:
        for args in (["--greedy", name], ["--model", "tiny", name, "story.txt"]):
            assert f"the name of a subcommand comes first: numpy-gpt2 {name} ..." in error_line(run(*args))

    def test_explore_needs_a_view(self) -> None:
        assert "the following arguments are required: VIEW" in error_line(run("explore"))

    @pytest.mark.skipif(sys.platform == "win32", reason="the shell is POSIX's")
    @pytest.mark.parametrize(
        ("command", "sentence"),
        [
            ("", "there is no prompt"),
            ("-", "there is no prompt"),
            ("--file -", "there is no prompt in -"),
            ("score", "standard input is too short"),
            ("score -", "standard input is too short"),
            ("explore tokens", "there is no text to look at"),
            ("explore next -", "there is no text to look at"),
        ],
    )
    def test_a_closed_standard_input_is_an_empty_one(self, command: str, sentence: str) -> None:
        script = f'"{sys.executable}" -m numpy_gpt2 {command}'
        for stdin in ("<&-", "</dev/null"):
            result = subprocess.run(["sh", "-c", f"{script} {stdin}"], capture_output=True, text=True, check=False)
            assert (result.returncode, result.stdout) == (1, "")
            (line,) = result.stderr.splitlines()
            assert sentence in line


class TestHints:
    @pytest.mark.parametrize(
        ("word", "meant"),
        [
            ("scroe", "numpy-gpt2 score"),
            ("Score", "numpy-gpt2 score"),
            ("downlaod", "numpy-gpt2 download"),
            ("attention", "numpy-gpt2 explore attention"),
            ("lens", "numpy-gpt2 explore lens"),
            ("help", "numpy-gpt2 --help"),
            ("version", "numpy-gpt2 --version"),
        ],
    )
    def test_a_word_like_a_name_is_continued_with_a_hint(self, tiny: GPT2, word: str, meant: str) -> None:
        for args in ([word, *SHORT], [*SHORT, word]):
            result = run(*args)
            assert (result.returncode, result.stdout) == (0, tiny.generate(word, 4, temperature=0) + "\n")
            assert result.stderr == f"numpy_gpt2: {word!r} is taken for a prompt; did you mean `{meant}`?\n"

    @pytest.mark.parametrize(
        "args",
        [
            ["--", "scroe"],
            [*SHORT, "--", "scroe"],
            ["score it", *SHORT],
            ["The", *SHORT],
            ["generate", "scroe", *SHORT],
            ["", *SHORT],
        ],
        ids=" ".join,
    )
    def test_other_prompts_get_no_hint(self, args: list[str]) -> None:
        result = run(*args)
        assert result.returncode == 0
        assert "did you mean" not in result.stderr
        assert "taken for" not in result.stderr

    def test_a_misspelled_subcommand_with_arguments(self) -> None:
        line = error_line(run("scroe", "story.txt"))
        assert "'story.txt' is a second one; did you mean `numpy-gpt2 score`?" in line

    @pytest.mark.parametrize(
        ("args", "owner"),
        [
            (["story.txt", "--stride", "3"], "`numpy-gpt2 score` has --stride"),
            (["--list"], "`numpy-gpt2 download` has --list"),
            (["text", "--layer=3"], "`numpy-gpt2 explore attention` has --layer"),
            (["score", "story.txt", "--top_k", "3"], "`numpy-gpt2 generate` has --top-k"),
            (["download", "tiny", "-o", "picture.png"], "has --output"),
            (["generate", "--version"], "`numpy-gpt2` has --version"),
        ],
        ids=str,
    )
    def test_an_option_of_another_subcommand(self, args: list[str], owner: str) -> None:
        line = error_line(run(*args))
        assert "unrecognized arguments: -" in line
        assert owner in line

    def test_an_option_after_a_double_dash(self) -> None:
        line = error_line(run("--", "The king", "--seed", "1"))
        assert "what follows -- is the prompt: --seed must come before it" in line

    def test_an_option_that_no_subcommand_has(self) -> None:
        line = error_line(run("The king", "--no-such-option"))
        assert "unrecognized arguments: --no-such-option (`numpy-gpt2 generate --help` lists the options)" in line

    def test_an_option_that_is_nearly_another(self) -> None:
        for args in (["The king", "--temprature", "2"], ["explore", "next", "The king", "--temprature", "2"]):
            assert "unrecognized arguments: --temprature; did you mean --temperature?" in error_line(run(*args))

    @pytest.mark.parametrize(
        ("args", "meant"),
        [
            (["The king", "--temp", "2"], "--temperature"),
            (["The king", "--top", "5"], "--top-k or --top-p"),
            (["The king", "--max", "5"], "--max-new-tokens or --max-length"),
            (["The king", "-s", "3"], "--stop or --slide or --seed"),
            (["score", "-m", "tiny"], "--model or --models-dir"),
        ],
        ids=" ".join,
    )
    def test_the_beginning_of_an_option(self, args: list[str], meant: str) -> None:
        assert f"did you mean {meant}? (" in error_line(run(*args))

    @pytest.mark.parametrize(
        "args", [["--model", "tiny"], ["--layer=3"], ["-o", "picture.png"], ["--top_k", "3"]], ids=str
    )
    def test_options_before_a_view(self, args: list[str]) -> None:
        line = error_line(run("explore", *args, "attention", "The king"))
        option = args[0].split("=")[0].replace("_", "-")
        assert f"what to look at comes before the options: numpy-gpt2 explore VIEW ... {option} (" in line

    @pytest.mark.parametrize("command", [["explore", "attention"], ["score"]], ids=" ".join)
    def test_a_text_without_quotes(self, command: list[str]) -> None:
        line = error_line(run(*command, "The", "king", "was"))
        assert "a text of several words must be in quotes; 'king' is a second one" in line
        assert "'-' is a second one" in error_line(run(*command, "The", "-"))
        assert "unrecognized arguments: The" in error_line(run("explore", "params", "The"))

    def test_a_file_is_not_its_name(self, tiny: GPT2, tmp_path: Path) -> None:
        (tmp_path / "story.txt").touch()
        result = run("story.txt", *SHORT)
        assert result.stdout == tiny.generate("story.txt", 4, temperature=0) + "\n"
        assert "'story.txt' is taken for a prompt; did you mean `numpy-gpt2 < story.txt`?" in result.stderr

    def test_names_of_options_are_not_abbreviated(self) -> None:
        """So that `download --model` is not taken for --models-dir."""
        assert "unrecognized arguments: --model;" in error_line(run("download", "--list", "--model", "folder"))


class TestHelp:
    def test_the_command_lists_its_subcommands(self) -> None:
        result = run("--help")
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout == run("-h").stdout
        for name in SUBCOMMANDS:
            assert f"\n    {name} " in result.stdout

    @pytest.mark.parametrize("command", COMMANDS[1:], ids=" ".join)
    def test_every_subcommand_and_view_has_help_with_examples(self, command: list[str]) -> None:
        result = run(*command, "--help")
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout.startswith(f"usage: numpy-gpt2 {' '.join(command)} ")
        examples = result.stdout.partition("\nexamples:\n")[2].splitlines()
        assert len(examples) >= 1
        assert all(line.startswith("  ") and "numpy-gpt2" in line for line in examples)
        assert any(f"numpy-gpt2 {command[0]}" in line for line in examples) or command == ["generate"]

    @pytest.mark.parametrize("view", VIEWS)
    def test_a_view_has_an_example_and_a_complaint_of_its_own(self, view: str) -> None:
        examples = run("explore", view, "--help").stdout.partition("\nexamples:\n")[2].splitlines()
        assert examples
        assert all(line.startswith(f"  numpy-gpt2 explore {view}") for line in examples)
        line = error_line(run("explore", view, *["h0"] * (view == "weights"), "--no-such-option"))
        assert f"(`numpy-gpt2 explore {view} --help` lists the options)" in line

    def test_explore_lists_its_views(self) -> None:
        text = run("explore", "--help").stdout
        for view in VIEWS:
            assert re.search(rf"^    {view}\b", text, re.MULTILINE)

    def test_generate_names_every_option(self) -> None:
        text = run("generate", "--help").stdout
        options = (
            "--file --interactive --unconditional --num-return-sequences --max-new-tokens --max-length --stop --slide "
            "--temperature --greedy --top-k --top-p --min-p --repetition-penalty --seed --full-text --json "
            "--batch-size --verbose --model --models-dir --backend --threads"
        )
        for option in options.split():
            assert option in text
        assert "--version" in run("--help").stdout

    @pytest.mark.parametrize("option", ["--model", "--models-dir", "--backend", "--threads"])
    def test_shared_options_are_the_same_everywhere(self, option: str) -> None:
        found: dict[str, argparse.Action] = {
            command: action
            for command, action in all_actions(COMMAND, whole_parser())
            if option in action.option_strings
        }
        expected = {"numpy-gpt2 generate", "numpy-gpt2 score", *(f"numpy-gpt2 explore {view}" for view in VIEWS)}
        assert expected | ({"numpy-gpt2 download"} if option == "--models-dir" else set()) <= {*found}
        looks = {
            (*action.option_strings, action.dest, action.metavar, action.type, action.default, action.help)
            for action in found.values()
        }
        assert len(looks) == 1

    def test_version(self) -> None:
        for args in (["--version"], ["The king", "--version"], ["--seed", "1", "--version"]):
            assert run(*args).stdout == f"numpy_gpt2 {numpy_gpt2.__version__}\n"

    def test_the_console_script(self) -> None:
        script = shutil.which("numpy-gpt2", path=str(Path(sys.executable).parent))
        if not script:
            pytest.skip("the package is not installed, only its source is there")
        for args in (["--version"], ["The king", *SHORT]):
            result = subprocess.run([script, *args], capture_output=True, text=True, check=True)
            assert result.stdout == run(*args).stdout


class TestImports:
    def test_a_generation_imports_only_what_it_needs(self) -> None:
        code = "import sys; from numpy_gpt2.cli.main import main; main(); print(*sys.modules, file=sys.stderr)"
        result = run_python("-c", code, "The king", "--model", "tiny", "--max-new-tokens", "2", check=True)
        loaded = {name.partition(".")[0] for name in result.stderr.split()}
        assert "numpy" in loaded
        slow = {"tensorflow", "torch", "transformers", "safetensors", "requests", "tqdm", "platformdirs"}
        assert not loaded & (slow | {"filelock", "matplotlib", "shtab"})

    @pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
    def test_help_warns_of_nothing(self, command: list[str]) -> None:
        """Python warns on standard error if the module that it runs as the command has been imported already."""
        result = run_python("-W", "error", "-m", "numpy_gpt2", *command, "--help")
        assert (result.returncode, result.stderr) == (0, "")

    def test_the_library_does_not_import_the_command_line(self) -> None:
        code = """
import sys
import numpy_gpt2
from numpy_gpt2.inside import tables
model = numpy_gpt2.load("tiny")
model.generate("The king", 2)
with numpy_gpt2.trace("h0"):
    model.logits("The king")
tables.next_tokens(model, "The king")
print(*(name for name in sys.modules if name.startswith("numpy_gpt2.")))
"""
        loaded = run_python("-c", code, check=True).stdout.split()
        assert "numpy_gpt2.inside.tables" in loaded
        assert not [name for name in loaded if name.startswith("numpy_gpt2.cli")]

    def test_only_the_command_line_imports_argparse(self) -> None:
        files = sorted(PACKAGE.rglob("*.py"))
        outside = [file for file in files if not file.is_relative_to(PACKAGE / "cli")]
        assert len(files) > len(outside) > 30
        assert any("argparse" in imported_by(file) for file in files)
        for file in outside:
            names = imported_by(file)
            assert "argparse" not in names, file
            assert "cli" not in names or file == PACKAGE / "__main__.py", file


def imported_by(file: Path) -> set[str]:
    """The parts of the names of all modules that a source file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(part for alias in node.names for part in alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            names.update((node.module or "").split("."), *(alias.name.split(".") for alias in node.names))
    return names


class TestCompletion:
    @pytest.mark.parametrize("shell", SHELLS)
    def test_a_script_for_each_shell(self, shell: str) -> None:
        pytest.importorskip("shtab")
        result = run("--print-completion", shell)
        assert (result.returncode, result.stderr) == (0, "")
        assert run("--greedy", f"--print_completion={shell}").stdout == result.stdout
        for name in (*SUBCOMMANDS, *VIEWS):
            assert name in result.stdout
        assert "top-k" in result.stdout
        assert shell == "fish" or "--top-k" in result.stdout
        if shutil.which(shell):
            subprocess.run([shell, "-n"], input=result.stdout, text=True, check=True)

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            (["sc"], ["score"]),
            (["--top"], ["--top-k", "--top-p"]),
            (["generate", "--inter"], ["--interactive"]),
            (["explore", "att"], ["attention", "attribute"]),
            (["explore", "attention", "--lay"], ["--layer"]),
            (["score", "sto"], ["story.txt"]),
            (["--models-dir", "fol"], ["folder"]),
        ],
        ids=str,
    )
    def test_bash_completes(self, words: list[str], expected: list[str], tmp_path: Path) -> None:
        pytest.importorskip("shtab")
        bash = shutil.which("bash")
        if not bash:
            pytest.skip("bash is not installed")
        (tmp_path / "story.txt").touch()
        (tmp_path / "folder").mkdir()
        (tmp_path / "completion.bash").write_text(run("--print-completion", "bash", check=True).stdout)
        script = """
source completion.bash
[[ $(complete -p numpy-gpt2) =~ -F\\ ([^ ]+) ]] || exit 1
COMP_WORDS=(numpy-gpt2 "$@")
COMP_CWORD=$#
${BASH_REMATCH[1]} numpy-gpt2
printf '%s\\n' "${COMPREPLY[@]}"
"""
        result = subprocess.run([bash, "-c", script, "bash", *words], capture_output=True, text=True, check=True)
        assert result.stdout.split() == expected

    def test_wrong_arguments_beside_it(self) -> None:
        assert "unrecognized arguments: --bogus" in error_line(run("--print-completion", "bash", "--bogus"))

    def test_without_shtab(self) -> None:
        code = "import sys; sys.modules['shtab'] = None; from numpy_gpt2.cli.main import main; sys.exit(main())"
        result = run_python("-c", code, "--print-completion", "bash")
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr == 'numpy_gpt2: tab completion needs shtab: pip install "numpy_gpt2[completion]"\n'

    def test_an_unknown_shell(self) -> None:
        line = error_line(run("--print-completion", "tcsh"))
        assert "--print-completion" in line
        assert "'tcsh'" in line
