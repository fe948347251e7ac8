"""What every subcommand that loads a model does with `--model`, `--models-dir` and `--threads`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import random_model
from released_models import HPARAMS, REPOSITORIES, hub_files
from server import Hub, serving

from numpy_gpt2.hub.names import model_folder

# Runs the command, then prints how many threads each matrix library has.
CODE = """
import json, sys
from numpy_gpt2.cli.main import main
status = main()
from threadpoolctl import threadpool_info
threads = [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]
print(json.dumps([status, threads]), file=sys.stderr)
"""


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("command", ["generate", "score", "explore lens"])
def test_threads(command: str, n: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "story.txt").write_text("The king was")
    args = [*command.split(), "story.txt", "--model", "tiny", "--threads", str(n)]
    result = subprocess.run([sys.executable, "-c", CODE, *args], capture_output=True, text=True, check=True)
    status, threads = json.loads(result.stderr)
    if not threads:
        pytest.skip("NumPy multiplies matrices with a library whose threads cannot be set at run time")
    assert (status, {*threads}) == (0, {n})


@pytest.fixture
def models_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NUMPY_GPT2_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
    for variable in ("NUMPY_GPT2_BASE_URL", "HF_HUB_CACHE", "HF_TOKEN", "HF_TOKEN_PATH"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path / "models"


def run(*args: str, before: str = "") -> subprocess.CompletedProcess[str]:
    code = before + "import sys; from numpy_gpt2.cli.main import main; sys.exit(main())"
    return subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=False)


def test_by_default_the_model_is_tiny_and_the_notice_names_the_real_one(models_dir: Path) -> None:
    result = run("The king", "--max-new-tokens", "1")
    assert result.returncode == 0
    assert "using tiny, a small model" in result.stderr
    assert "`numpy-gpt2 download gpt2` fetches the real GPT-2" in result.stderr


@pytest.mark.parametrize("name", ["gpt2", "124M"])
def test_the_default_is_the_real_model_through_whichever_door_it_came(models_dir: Path, name: str) -> None:
    shutil.copytree(model_folder("tiny"), models_dir / name)
    result = run("The king", "--max-new-tokens", "1")
    assert (result.returncode, result.stderr) == (0, "")


def test_verbose_says_where_a_model_is_loaded_from_if_not_from_its_own_folder(models_dir: Path) -> None:
    shutil.copytree(model_folder("tiny"), models_dir / "124M")
    result = run("The king", "--max-new-tokens", "1", "--model", "gpt2", "--verbose")
    start = f"numpy_gpt2: gpt2 is in {models_dir}/124M: 4 layers, 4,273,664 parameters, float32, on numpy, threads: "
    assert result.stderr.startswith(start)


@pytest.mark.parametrize("command", ["generate", "score --text", "explore next"])
def test_verbose_says_what_is_loaded_and_how_it_is_computed(models_dir: Path, command: str) -> None:
    args = (*command.split(), "The king", "--model", "tiny", "--threads", "1", "--verbose")
    assert run(*args).stderr.splitlines()[0] == (
        f"numpy_gpt2: tiny is in {model_folder('tiny')}: 4 layers, 4,273,664 parameters, float32, on numpy, threads: 1"
    )


def test_a_fresh_machine_without_tensorflow(models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "served").mkdir()
    hub = Hub({REPOSITORIES[0]: hub_files(random_model(HPARAMS, "float32"), tmp_path / "served")})
    monkeypatch.setenv("NO_PROXY", "*")
    args = ("A prompt", "--model", "gpt2", "--max-new-tokens", "3", "--greedy")
    no_tensorflow = "import sys; sys.modules['tensorflow'] = None; "
    with serving(hub.elsewhere_store) as hub.elsewhere, serving(hub) as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        first = run(*args, before=no_tensorflow)
    assert first.returncode == 0, first.stderr
    assert first.stdout.strip()
    assert f"numpy_gpt2: fetching 2.31MB of gpt2 from {url}/openai-community/gpt2" in first.stderr.splitlines()[0]
    assert {file.name for file in (models_dir / "gpt2").glob("[!.]*")} == {*hub.repositories[REPOSITORIES[0]]}
    again = run(*args, before=no_tensorflow)  # without the server
    assert (again.returncode, again.stdout, again.stderr) == (0, first.stdout, "")
