"""A model on the GPU: with a strict stand-in for CuPy's arrays and, marked `gpu`, with CuPy itself."""

from __future__ import annotations

import ctypes
import inspect
import math
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SHAPES, in_pytorch, on_device, random_ids, random_model
from device_array import SUPPORTED, DeviceArray
from server import Store, serving

import numpy_gpt2
from numpy_gpt2 import layers
from numpy_gpt2.decoding import speculation
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.inside import tables
from numpy_gpt2.inside.patches import mean, put, scale, zero
from numpy_gpt2.machine import backend
from numpy_gpt2.params import HParams, Linear

ROOT = Path(__file__).parents[2]
HPARAMS = SHAPES[1]


@pytest.fixture
def device(tiny: GPT2) -> GPT2:
    """`tiny` on the stand-in."""
    return on_device(tiny)


PATCH: Any = {
    "h1/attn/a": zero(head=[1, 2]),
    "h2": scale(0.5, position=1),
    "h3/mlp": mean,
    "h3": put(np.ones((3, 256), "float32"), position=[0, 2]),
    "logits": lambda logits: logits + 1,
}

OPTIONS: list[dict[str, Any]] = [
    {"temperature": 0},
    {"temperature": 0, "repetition_penalty": 1.3},
    {"seed": 1},
    {"seed": 2, "temperature": 0.7, "top_k": 5},
    {"seed": 3, "top_k": 0, "top_p": 0.8, "repetition_penalty": 1.2, "min_p": 0.03},
    {"seed": 4, "num_return_sequences": 3},
    {"seed": 5, "stop": ["e"]},
    {"seed": 6, "top_k": np.int64(7), "max_new_tokens": np.int64(7)},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("prompt", ["The king was", ["The king", "Once upon a time there was a", "A"], ""])
def test_texts_are_the_same(tiny: GPT2, device: GPT2, prompt: Any, options: dict[str, Any]) -> None:
    """Also for several prompts of different lengths, and with the log-probabilities of the tokens."""
    options = {"max_new_tokens": 7, **options}
    results = device.generate(prompt, return_details=True, **options)
    assert results == tiny.generate(prompt, return_details=True, **options)


def test_a_sliding_text_and_a_stream(tiny: GPT2, device: GPT2) -> None:
    ids = [1] * 250
    assert device.generate(ids, 12, slide=True, seed=0) == tiny.generate(ids, 12, slide=True, seed=0)
    assert [*device.stream("The king", 5, seed=0)] == [*tiny.stream("The king", 5, seed=0)]


@pytest.mark.parametrize("options", [{"temperature": 0}, {"seed": 0, "repetition_penalty": 1.2}], ids=str)
def test_drafts(tiny: GPT2, device: GPT2, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """From the text so far, and from an assistant, wherever that is."""
    monkeypatch.setattr(speculation, "best_length", lambda chances, cost=0.0: min(3, len(chances)))
    prompt = "the fox is here, the fox is here, the fox"
    for drafts in ({"prompt_lookup_num_tokens": 5}, {"assistant_model": device}, {"assistant_model": tiny}):
        given: dict[str, Any] = {"max_new_tokens": 9, "return_details": True, **options, **drafts}
        assert device.generate(prompt, **given) == tiny.generate(prompt, **given)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_only_single_numbers_are_copied_to_the_host(device: GPT2, options: dict[str, Any]) -> None:
    options = {"max_new_tokens": 6, **options}
    device.generate(["The king was", "A"], return_details=True, **options)
    n_rows = 2 * options.get("num_return_sequences", 1)
    assert set(DeviceArray.crossed) == {1}
    # For each token: its id, its log-probability, and twice whether the logits are finite.
    assert len(DeviceArray.crossed) <= 4 * options["max_new_tokens"] * n_rows


def test_logits_past_and_hidden_states_are_numpy_arrays(tiny: GPT2, device: GPT2) -> None:
    ids = np.array([[1, 2, 3, 4], [5, 6, 7, 8]])
    types = np.array([[1, 1, 2, 2], [3, 3, 3, 3]])
    past = device.new_past(2)
    for each in (device.logits(ids), device.logits(ids, past), device.logits(ids.tolist(), token_type_ids=None)):
        assert isinstance(each, np.ndarray)
        np.testing.assert_allclose(each, tiny.logits(ids), rtol=1e-4, atol=1e-4)
    assert isinstance(past.k, DeviceArray)
    np.testing.assert_array_equal(past.lengths, [4, 4])
    for x, expected in zip(device.hidden_states(ids, types), tiny.hidden_states(ids, types), strict=True):
        assert isinstance(x, np.ndarray)
        assert (x == expected).all()


def test_scores(tiny: GPT2, device: GPT2, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("numpy_gpt2.decoding.prefill.count_workers", lambda params, at_most: 1)  # as on the device
    ids = random_ids(tiny.hparams, 2, 300)
    for ours, expected in zip(device.score(ids, 100), tiny.score(ids, 100), strict=True):
        assert (ours.log_probabilities == expected.log_probabilities).all()
        assert (ours.ranks == expected.ranks).all()
    labels = np.where(ids % 3, ids, -100)
    assert device.loss(ids, labels) == tiny.loss(ids, labels)
    assert device.perplexity("The king was very angry.") == tiny.perplexity("The king was very angry.")


def test_double_heads() -> None:
    gpt2 = random_model(HPARAMS)
    head = on_device(gpt2).multiple_choice_head
    assert head is None
    gpt2.multiple_choice_head = Linear(w=np.linspace(-1, 1, 10)[:, None], b=np.array([0.5]))
    ids = random_ids(HPARAMS, 6, 5).reshape(3, 2, 5)
    arguments: dict[str, Any] = {"mc_token_ids": [[1, 2], [3, 4], [0, 1]], "labels": ids, "mc_labels": [0, 1, 1]}
    moved = on_device(gpt2)
    assert moved.multiple_choice_head
    assert isinstance(moved.multiple_choice_head.w, DeviceArray)
    actual, expected = (model.double_heads(ids, **arguments) for model in (moved, gpt2))
    assert (actual.loss, actual.mc_loss) == (expected.loss, expected.mc_loss)
    assert (actual.logits == expected.logits).all()
    assert (actual.mc_logits == expected.mc_logits).all()


@pytest.mark.parametrize("with_past", [False, True])
def test_the_recorder(tiny: GPT2, device: GPT2, with_past: bool) -> None:
    """It records the same arrays under the same names, in main memory."""
    recorded = []
    for model in (tiny, device):
        with numpy_gpt2.trace() as t:
            model.logits([[1, 2, 3], [4, 5, 6]], model.new_past(2) if with_past else None)
        recorded.append(t)
    expected, actual = recorded
    assert [*actual] == [*expected]
    for name in actual:
        assert isinstance(actual[name], np.ndarray)
        assert (actual[name] == expected[name]).all()


def test_tables(tiny: GPT2, device: GPT2) -> None:
    text = "The king was very angry"
    assert tables.next_tokens(device, text) == tables.next_tokens(tiny, text)
    assert (tables.attention_weights(device, text) == tables.attention_weights(tiny, text)).all()
    assert (tables.unmasked_weights(device, text, 2) == tables.unmasked_weights(tiny, text, 2)).all()
    assert (tables.logit_lens(device, text).ids == tables.logit_lens(tiny, text).ids).all()
    assert tables.parameter_statistics(device.params) == tables.parameter_statistics(tiny.params)
    assert (tables.position_similarity(device.params) == tables.position_similarity(tiny.params)).all()
    assert (tables.parameter(device.params, "wte[:3,:4]") == tiny.params.wte[:3, :4]).all()
    assert (tables.stream_sizes(device, text).mlp == tables.stream_sizes(tiny, text).mlp).all()


def test_a_model_on_the_device_is_saved(tiny: GPT2, device: GPT2, tmp_path: Path) -> None:
    assert device.backend == "cupy"
    assert tiny.backend == "numpy"
    assert tiny.to("numpy") is tiny
    numpy_gpt2.save(device, tmp_path / "saved")
    again = numpy_gpt2.load(tmp_path / "saved")
    assert (again.params.h[3].mlp.c_fc.w == tiny.params.h[3].mlp.c_fc.w).all()
    assert device.to("numpy").generate("The king", 5, temperature=0) == tiny.generate("The king", 5, temperature=0)


def test_float32_stays_float32_on_the_device(device: GPT2) -> None:
    past = device.new_past()
    with numpy_gpt2.trace() as t:
        device.logits([1, 2, 3], past)
    assert {str(array.dtype) for array in t.values()} == {"float32", "bool", "int64"}
    assert past.k.dtype == np.float32


def test_the_stand_in_is_strict() -> None:
    """It notices a line that copies data to the host, or mixes both kinds of arrays."""
    x = DeviceArray(np.ones((2, 3)))
    host = np.ones(3)
    for misuse in (
        lambda: np.asarray(x),
        lambda: np.array([x, x]),
        lambda: x + host,
        lambda: host + x,
        lambda: x @ host,
        lambda: np.where(host > 0, x, 0),
        lambda: np.concatenate([x, np.ones((2, 3))]),
        lambda: x[np.array([0, 1])],
        lambda: x.__setitem__(0, host),
        lambda: np.linalg.norm(x),
        lambda: float(x),
        lambda: math.exp(x),
        lambda: bool(x > 0),
    ):
        with pytest.raises((TypeError, ValueError)):
            misuse()
    assert isinstance(np.exp(x) + 1, DeviceArray)
    assert isinstance(np.asarray(host, like=x), DeviceArray)
    with pytest.raises(TypeError):
        layers.attention(x, x, x, np.ones((2, 2), bool))  # type: ignore[arg-type]


def test_cupy_has_what_is_called(device: GPT2) -> None:
    """CuPy has every function that the stand-in supports, with the parameters that the model passes."""
    cupy = pytest.importorskip("cupy")
    device.generate(["The king", "A"], 4, seed=0, top_p=0.9, repetition_penalty=1.1)
    device.loss("The king was angry")
    with numpy_gpt2.patch(PATCH):
        device.logits([1, 2, 3])
    assert len({name for name, _, _ in DeviceArray.called}) > 20
    assert [name for name in SUPPORTED if not hasattr(cupy, name)] == []
    for name, args, options in DeviceArray.called:
        function = getattr(cupy, name)
        if inspect.isfunction(function):
            inspect.signature(function).bind(*args, **options)


# Messages without CuPy, or without a GPU.


def install_driver(monkeypatch: pytest.MonkeyPatch, cuda: int | None, status: int = 0) -> None:
    """Gives this process a GPU driver for a version of CUDA, such as 12; none if it is None."""

    def get_version(version: Any) -> int:
        version._obj.value = 1000 * cuda + 40 if cuda else 0
        return status

    def load(name: str) -> Any:
        if cuda is None:
            raise OSError(f"{name}: cannot open shared object file")
        return types.SimpleNamespace(cuDriverGetVersion=get_version)

    monkeypatch.setattr(ctypes, "CDLL", load)


def test_cupy_is_checked_before_a_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    install_driver(monkeypatch, 12)
    store = Store()
    with serving(store) as url:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("NUMPY_GPT2_BASE_URL", url)
        with pytest.raises(ImportError, match="needs CuPy"):
            numpy_gpt2.load("distilgpt2", tmp_path, backend="cupy")
    assert store.requests == []


@pytest.mark.parametrize(
    ("cuda", "advice"),
    [
        (
            None,
            'there is no driver of an NVIDIA GPU on this machine; on one that has it, pip install "numpy_gpt2[cupy13]"',
        ),
        (11, "the driver of the GPU is for CUDA 11, and CuPy needs 12 or newer: update the driver"),
        (12, 'pip install "numpy_gpt2[cupy12]", since the driver of the GPU is for CUDA 12'),
        (13, 'pip install "numpy_gpt2[cupy13]"'),
        (14, 'pip install "numpy_gpt2[cupy13]"'),
    ],
)
def test_without_cupy(monkeypatch: pytest.MonkeyPatch, cuda: int | None, advice: str) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    install_driver(monkeypatch, cuda)
    with pytest.raises(ImportError) as error:
        numpy_gpt2.load("tiny", backend="cupy")
    assert str(error.value).startswith("the backend cupy needs CuPy")
    assert advice in str(error.value)


@pytest.mark.parametrize(
    ("driver_cuda", "cupy_cuda", "advice"),
    [
        (None, 12, "there is no driver of an NVIDIA GPU on this machine"),
        (12, 12, 'is the GPU visible and free? If a library of CUDA is missing, pip install "numpy_gpt2[cupy12]"'),
        (12, 13, 'it is made for CUDA 13: pip uninstall cupy-cuda13x, and pip install "numpy_gpt2[cupy12]"'),
    ],
)
def test_with_a_cupy_that_does_not_work(
    monkeypatch: pytest.MonkeyPatch, driver_cuda: int | None, cupy_cuda: int, advice: str
) -> None:
    def arange(n: int) -> Any:
        raise RuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected\nand more")

    runtime = types.SimpleNamespace(runtimeGetVersion=lambda: 1000 * cupy_cuda + 90)
    broken = types.SimpleNamespace(arange=arange, cuda=types.SimpleNamespace(runtime=runtime))
    monkeypatch.setitem(sys.modules, "cupy", broken)
    install_driver(monkeypatch, driver_cuda)
    with pytest.raises(ImportError) as error:
        numpy_gpt2.init(HPARAMS, backend="cupy")
    problem = "CuPy is installed, but cannot use a GPU (cudaErrorNoDevice: no CUDA-capable device is detected): "
    assert str(error.value).startswith(problem + advice)


def test_an_unknown_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="there is no backend 'torch': it is one of numpy, cupy"):
        numpy_gpt2.load("tiny", backend="torch")
    with pytest.raises(ValueError, match="there is no backend '': it is one of numpy, cupy"):
        numpy_gpt2.load("tiny").to("")
    monkeypatch.setenv("NUMPY_GPT2_BACKEND", "tpu")
    with pytest.raises(ValueError, match="there is no backend 'tpu', which NUMPY_GPT2_BACKEND names"):
        numpy_gpt2.load("tiny")
    assert numpy_gpt2.load("tiny", backend="numpy").backend == "numpy"


def test_the_version_of_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    install_driver(monkeypatch, 12)
    assert backend.cuda_version() == 12
    install_driver(monkeypatch, 12, status=100)  # the driver finds no device
    assert backend.cuda_version() is None
    install_driver(monkeypatch, None)
    assert backend.cuda_version() is None


@pytest.mark.parametrize("command", [["The king"], ["explore", "params"]])
@pytest.mark.parametrize("chosen_by", ["option", "environment"])
def test_the_command_ends_with_a_sentence(command: list[str], chosen_by: str, tmp_path: Path) -> None:
    # The same chain of errors as CuPy's own.
    (tmp_path / "cupy.py").write_text(
        "try:\n"
        "    raise ImportError('libcublas.so.12: cannot open shared object file')\n"
        "except ImportError as error:\n"
        "    raise ImportError('=' * 64 + '\\nFailed to import CuPy.\\nOriginal error: ...') from error\n"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "NUMPY_GPT2_MODELS": str(tmp_path)}
    options = ["--backend", "cupy"]
    if chosen_by == "environment":
        env["NUMPY_GPT2_BACKEND"], options = "cupy", []
    result = subprocess.run(
        [sys.executable, "-m", "numpy_gpt2", *command, *options], env=env, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(
        "numpy_gpt2: the backend cupy needs CuPy (the installed one cannot be imported: libcublas.so.12: cannot open"
    )
    assert len(result.stderr.splitlines()) == 1


@pytest.fixture
def fake_cupy(tmp_path: Path) -> dict[str, str]:
    """The environment of a process that imports the stand-in as CuPy."""
    (tmp_path / "cupy.py").write_text("from device_array import *\n")
    path = [str(tmp_path), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "NUMPY_GPT2_MODELS": str(tmp_path)}


@pytest.mark.parametrize(
    "command",
    [
        ["The king was", "--seed", "3", "-n", "2"],
        ["score", "-"],
        ["explore", "attention", "The king was very angry"],
        ["The king was", "--json", "--seed", "1"],
        ["--interactive", "--seed", "1", "--max-new-tokens", "5"],
        ["explore", "positions", "-o", "positions.png"],
        ["explore", "attention", "The king was", "--layer", "1", "-o", "attention.png"],
        ["explore", "weights", "wpe", "-o", "weights.png"],
        ["explore", "params"],
    ],
    ids=" ".join,
)
def test_commands_print_the_same(command: list[str], fake_cupy: dict[str, str], tmp_path: Path) -> None:
    if "-o" in command:
        pytest.importorskip("matplotlib")

    def run(backend: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "numpy_gpt2", *command, "--backend", backend, "--model", "tiny"],
            env=fake_cupy,
            cwd=tmp_path,
            input="The king was very angry.",
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    assert run("cupy") == run("numpy") != ""


def test_the_benchmark_runs_on_the_stand_in(fake_cupy: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("benchmarks", reason="the benchmark is only in the source tree")
    numpy_gpt2.save(numpy_gpt2.init(HParams(50257, 1024, 12, 3, 2)), tmp_path / "models" / "124M")
    shape = "b.SIZES['124M'] = b.HParams(50257, 1024, 12, 3, 2)"
    code = f"import benchmarks.__main__ as b; {shape}; raise SystemExit(b.main())"
    options = ["--backend", "cupy", "--peers", "--rounds", "1", "--models", "models"]
    result = subprocess.run(
        [sys.executable, "-c", code, *options],
        env={**fake_cupy, "PYTHONPATH": fake_cupy["PYTHONPATH"] + os.pathsep + str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "GPU a stand-in" in result.stdout
    rows = [line.split(" | ")[0] for line in result.stdout.splitlines() if line.startswith(("| a", "| l"))]
    tasks = [*(f"a prompt of {n} tokens" for n in (16, 128, 512, 1000)), *(f"a batch of {n}" for n in (1, 5, 16))]
    assert rows == [f"| {name}" for name in (*tasks, "loading")]
    assert "peak memory" not in result.stdout


# With a GPU.


@pytest.fixture(scope="module")
def on_gpu() -> Any:
    try:
        return numpy_gpt2.load("tiny", backend="cupy")
    except ImportError as error:
        pytest.skip(str(error))


@pytest.mark.gpu
def test_logits_on_the_gpu(tiny: GPT2, on_gpu: GPT2) -> None:
    torch = pytest.importorskip("torch")
    ids = random_ids(tiny.hparams, 2, 200)
    logits = on_gpu.logits(ids)
    assert isinstance(logits, np.ndarray)
    np.testing.assert_allclose(logits, tiny.logits(ids), rtol=1e-3, atol=2e-3)
    with torch.no_grad():
        np.testing.assert_allclose(logits, in_pytorch(tiny)(torch.tensor(ids)).logits, rtol=1e-3, atol=2e-3)
    exact = numpy_gpt2.load("tiny", dtype="float64", backend="cupy").logits(ids)
    np.testing.assert_allclose(exact, numpy_gpt2.load("tiny", dtype="float64").logits(ids), rtol=1e-9, atol=1e-9)


@pytest.mark.gpu
@pytest.mark.parametrize("prompt", ["The king was", ["The king", "Once upon a time there was a", "A"]])
def test_greedy_texts_on_the_gpu(tiny: GPT2, on_gpu: GPT2, prompt: Any) -> None:
    assert on_gpu.generate(prompt, 60, temperature=0) == tiny.generate(prompt, 60, temperature=0)


@pytest.mark.gpu
def test_everything_runs_on_the_gpu(tiny: GPT2, on_gpu: GPT2) -> None:
    text = "The king was very angry, and said that he would"
    for options in OPTIONS:
        assert on_gpu.generate(text, 10, **options)
    assert on_gpu.loss(text) == pytest.approx(tiny.loss(text), rel=1e-3)
    assert [x.shape for x in on_gpu.hidden_states(text)] == [x.shape for x in tiny.hidden_states(text)]
    np.testing.assert_allclose(tables.attention_weights(on_gpu, text), tables.attention_weights(tiny, text), atol=1e-3)
    with numpy_gpt2.patch(PATCH):
        np.testing.assert_allclose(on_gpu.logits([1, 2, 3]), tiny.logits([1, 2, 3]), rtol=1e-3, atol=2e-3)
    with pytest.raises(ValueError, match="outside the vocabulary"):
        on_gpu.logits([4096])


@pytest.mark.gpu
def test_memory_on_the_gpu_stays_flat(on_gpu: GPT2) -> None:
    import cupy

    pool = cupy.get_default_memory_pool()
    used = []
    for _ in range(10):
        on_gpu.generate("The king was", 50, num_return_sequences=4)
        used.append(pool.used_bytes())
    assert max(used[2:]) == used[2]
