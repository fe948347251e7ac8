"""The same model on another kind of array: on a strict stand-in for CuPy's, and with `gpu`, on CuPy's own."""

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

import device_array
import numpy as np
import pytest
from conftest import SHAPES, in_pytorch, random_ids, random_model
from device_array import SUPPORTED, DeviceArray

import numpy_gpt2
from numpy_gpt2 import backend, inspection, layers
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.params import HParams, Linear

HPARAMS = SHAPES[1]


def on_device(model: GPT2) -> GPT2:
    """The same model, moved to the stand-in as to a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cupy", device_array)
        moved = model.to("cupy")
    DeviceArray.crossed.clear()
    DeviceArray.called.clear()
    return moved


@pytest.fixture
def device(tiny: GPT2) -> GPT2:
    """`tiny` on the stand-in."""
    return on_device(tiny)


OPTIONS: list[dict[str, Any]] = [
    {"temperature": 0},
    {"temperature": 0, "repetition_penalty": 1.3},
    {"seed": 1},
    {"seed": 2, "temperature": 0.7, "top_k": 5},
    {"seed": 3, "top_k": 0, "top_p": 0.8, "repetition_penalty": 1.2},
    {"seed": 4, "num_return_sequences": 3},
    {"seed": 5, "stop": ["e"]},
    {"seed": 6, "top_k": np.int64(7), "max_new_tokens": np.int64(7)},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("prompt", ["The king was", ["The king", "Once upon a time there was a", "A"], ""])
def test_texts_are_the_same(tiny: GPT2, device: GPT2, prompt: Any, options: dict[str, Any]) -> None:
    """Several texts of different lengths, too, and with the log-probabilities of the tokens."""
    options = {"max_new_tokens": 7, **options}
    said = device.generate(prompt, return_details=True, **options)
    assert said == tiny.generate(prompt, return_details=True, **options)


def test_a_text_that_slides_and_one_that_streams(tiny: GPT2, device: GPT2) -> None:
    ids = [1] * 250
    assert device.generate(ids, 12, slide=True, seed=0) == tiny.generate(ids, 12, slide=True, seed=0)
    assert [*device.stream("The king", 5, seed=0)] == [*tiny.stream("The king", 5, seed=0)]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_only_single_numbers_cross_for_a_token(device: GPT2, options: dict[str, Any]) -> None:
    options = {"max_new_tokens": 6, **options}
    device.generate(["The king was", "A"], return_details=True, **options)
    n_rows = 2 * options.get("num_return_sequences", 1)
    assert set(DeviceArray.crossed) == {1}
    # The largest logit (is it finite?), the token, and its log-probability.
    assert len(DeviceArray.crossed) <= 3 * options["max_new_tokens"] * n_rows


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


def test_scores(tiny: GPT2, device: GPT2) -> None:
    ids = random_ids(tiny.hparams, 2, 300)
    for ours, expected in zip(device.score(ids, 100), tiny.score(ids, 100), strict=True):
        assert (ours.log_probabilities == expected.log_probabilities).all()
        assert (ours.ranks == expected.ranks).all()
    labels = np.where(ids % 3, ids, -100)
    assert device.loss(ids, labels) == tiny.loss(ids, labels)
    assert device.perplexity("The king was very angry.") == tiny.perplexity("The king was very angry.")


def test_double_heads() -> None:
    gpt2 = random_model(HPARAMS)
    head_of = on_device(gpt2).multiple_choice_head
    assert head_of is None
    gpt2.multiple_choice_head = Linear(w=np.linspace(-1, 1, 10)[:, None], b=np.array([0.5]))
    ids = random_ids(HPARAMS, 6, 5).reshape(3, 2, 5)
    arguments: dict[str, Any] = {"mc_token_ids": [[1, 2], [3, 4], [0, 1]], "labels": ids, "mc_labels": [0, 1, 1]}
    moved = on_device(gpt2)
    assert moved.multiple_choice_head
    assert isinstance(moved.multiple_choice_head.w, DeviceArray)
    said, expected = (model.double_heads(ids, **arguments) for model in (moved, gpt2))
    assert (said.loss, said.mc_loss) == (expected.loss, expected.mc_loss)
    assert (said.logits == expected.logits).all()
    assert (said.mc_logits == expected.mc_logits).all()


@pytest.mark.parametrize("with_past", [False, True])
def test_the_recorder(tiny: GPT2, device: GPT2, with_past: bool) -> None:
    """The same arrays by the same names, as NumPy's."""
    recorded = []
    for model in (tiny, device):
        with numpy_gpt2.trace() as t:
            model.logits([[1, 2, 3], [4, 5, 6]], model.new_past(2) if with_past else None)
        recorded.append(t)
    expected, said = recorded
    assert [*said] == [*expected]
    for name in said:
        assert isinstance(said[name], np.ndarray)
        assert (said[name] == expected[name]).all()


def test_what_there_is_to_see(tiny: GPT2, device: GPT2) -> None:
    text = "The king was very angry"
    assert inspection.next_tokens(device, text) == inspection.next_tokens(tiny, text)
    assert (inspection.attention_weights(device, text) == inspection.attention_weights(tiny, text)).all()
    assert (inspection.unmasked_weights(device, text, 2) == inspection.unmasked_weights(tiny, text, 2)).all()
    assert (inspection.logit_lens(device, text).ids == inspection.logit_lens(tiny, text).ids).all()
    assert inspection.parameter_statistics(device.params) == inspection.parameter_statistics(tiny.params)
    assert (inspection.position_similarity(device.params) == inspection.position_similarity(tiny.params)).all()
    assert (inspection.parameter(device.params, "wte[:3,:4]") == tiny.params.wte[:3, :4]).all()
    assert (inspection.stream_sizes(device, text).mlp == inspection.stream_sizes(tiny, text).mlp).all()


def test_a_model_is_saved_from_the_device(tiny: GPT2, device: GPT2, tmp_path: Path) -> None:
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
    """It would notice a line that brings data to the host, or mixes both kinds."""
    x = DeviceArray(np.ones((2, 3)))
    host = np.ones(3)
    for spoil in (
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
            spoil()
    assert isinstance(np.exp(x) + 1, DeviceArray)
    assert isinstance(np.asarray(host, like=x), DeviceArray)
    with pytest.raises(TypeError):
        layers.attention(x, x, x, np.ones((2, 2), bool))  # type: ignore[arg-type]


def test_cupy_has_what_is_called(device: GPT2) -> None:
    """All functions that the stand-in lets through, and that the model calls, with such arguments."""
    cupy = pytest.importorskip("cupy")
    device.generate(["The king", "A"], 4, seed=0, top_p=0.9, repetition_penalty=1.1)
    device.loss("The king was angry")
    assert len({name for name, _, _ in DeviceArray.called}) > 20
    assert [name for name in SUPPORTED if not hasattr(cupy, name)] == []
    for name, args, options in DeviceArray.called:
        function = getattr(cupy, name)
        if inspect.isfunction(function):
            inspect.signature(function).bind(*args, **options)


# What is said where there is no CuPy, or no GPU.


def hide_cupy(monkeypatch: pytest.MonkeyPatch, cuda: int | None) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(backend, "cuda_version", lambda: cuda)


def test_cupy_is_looked_for_before_anything_is_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hide_cupy(monkeypatch, 12)
    monkeypatch.setattr("numpy_gpt2.gpt2.download", lambda *_: pytest.fail("there was a download"))
    with pytest.raises(ImportError, match="needs CuPy"):
        numpy_gpt2.load("124M", tmp_path, backend="cupy")


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
    hide_cupy(monkeypatch, cuda)
    with pytest.raises(ImportError) as error:
        numpy_gpt2.load("tiny", backend="cupy")
    assert str(error.value).startswith("the backend cupy needs CuPy")
    assert advice in str(error.value)


@pytest.mark.parametrize(
    ("cuda", "cupys", "advice"),
    [
        (None, 12, "there is no driver of an NVIDIA GPU on this machine"),
        (12, 12, 'is the GPU visible and free? If a library of CUDA is missing, pip install "numpy_gpt2[cupy12]"'),
        (12, 13, 'it is made for CUDA 13: pip uninstall cupy-cuda13x, and pip install "numpy_gpt2[cupy12]"'),
    ],
)
def test_with_a_cupy_that_does_not_work(
    monkeypatch: pytest.MonkeyPatch, cuda: int | None, cupys: int, advice: str
) -> None:
    def arange(n: int) -> Any:
        raise RuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected\nand more")

    runtime = types.SimpleNamespace(runtimeGetVersion=lambda: 1000 * cupys + 90)
    broken = types.SimpleNamespace(arange=arange, cuda=types.SimpleNamespace(runtime=runtime))
    monkeypatch.setitem(sys.modules, "cupy", broken)
    monkeypatch.setattr(backend, "cuda_version", lambda: cuda)
    with pytest.raises(ImportError) as error:
        numpy_gpt2.init(HPARAMS, backend="cupy")
    why = "CuPy is here, but cannot use a GPU (cudaErrorNoDevice: no CUDA-capable device is detected): "
    assert str(error.value).startswith(why + advice)


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
    class Driver:
        @staticmethod
        def cuDriverGetVersion(version: Any) -> int:  # noqa: N802
            version._obj.value = 12040
            return 0

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver)
    assert backend.cuda_version() == 12
    monkeypatch.setattr(Driver, "cuDriverGetVersion", lambda version: 100)
    assert backend.cuda_version() is None

    def missing(name: str) -> None:
        raise OSError

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert backend.cuda_version() is None


@pytest.mark.parametrize("command", [["numpy_gpt2", "The king"], ["numpy_gpt2.explore", "params"]])
@pytest.mark.parametrize("by", ["option", "environment"])
def test_the_command_ends_with_a_sentence(command: list[str], by: str, tmp_path: Path) -> None:
    # As CuPy itself says it.
    (tmp_path / "cupy.py").write_text(
        "try:\n"
        "    raise ImportError('libcublas.so.12: cannot open shared object file')\n"
        "except ImportError as error:\n"
        "    raise ImportError('=' * 64 + '\\nFailed to import CuPy.\\nOriginal error: ...') from error\n"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "NUMPY_GPT2_MODELS": str(tmp_path)}
    options = ["--backend", "cupy"]
    if by == "environment":
        env["NUMPY_GPT2_BACKEND"], options = "cupy", []
    result = subprocess.run(
        [sys.executable, "-m", *command, *options], env=env, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(
        "numpy_gpt2: the backend cupy needs CuPy (the one here cannot be imported: libcublas.so.12: cannot open shared"
    )
    assert len(result.stderr.splitlines()) == 1


@pytest.fixture
def fake_cupy(tmp_path: Path) -> dict[str, str]:
    """The environment of a process in which the stand-in is CuPy."""
    (tmp_path / "cupy.py").write_text("from device_array import *\n")
    path = [str(tmp_path), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "NUMPY_GPT2_MODELS": str(tmp_path)}


@pytest.mark.parametrize(
    "command",
    [
        ["numpy_gpt2", "The king was", "--seed", "3", "-n", "2"],
        ["numpy_gpt2.score", "-"],
        ["numpy_gpt2.explore", "attention", "The king was very angry"],
        ["numpy_gpt2", "The king was", "--json", "--seed", "1"],
        ["numpy_gpt2", "--interactive", "--seed", "1", "--max-new-tokens", "5"],
        ["numpy_gpt2.explore", "positions", "-o", "positions.png"],
        ["numpy_gpt2.explore", "attention", "The king was", "--layer", "1", "-o", "attention.png"],
        ["numpy_gpt2.explore", "weights", "wpe", "-o", "weights.png"],
        ["numpy_gpt2.explore", "params"],
    ],
    ids=" ".join,
)
def test_commands_give_the_same(command: list[str], fake_cupy: dict[str, str], tmp_path: Path) -> None:
    if "-o" in command:
        pytest.importorskip("matplotlib")

    def run(backend: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", *command, "--backend", backend, "--model", "tiny"],
            env=fake_cupy,
            cwd=tmp_path,
            input="The king was very angry.",
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    assert run("cupy") == run("numpy") != ""


def test_the_benchmark_on_the_stand_in(fake_cupy: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("benchmarks", reason="the benchmark is in the source tree only")
    numpy_gpt2.save(numpy_gpt2.init(HParams(50257, 1024, 12, 3, 2)), tmp_path / "models" / "124M")
    shape = "b.SIZES['124M'] = b.HParams(50257, 1024, 12, 3, 2)"
    code = f"import benchmarks.__main__ as b; {shape}; raise SystemExit(b.main())"
    options = ["--backend", "cupy", "--peers", "--rounds", "1", "--models", "models"]
    result = subprocess.run(
        [sys.executable, "-c", code, *options],
        env={**fake_cupy, "PYTHONPATH": fake_cupy["PYTHONPATH"] + os.pathsep + str(Path(__file__).parent.parent)},
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


# On a GPU.


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
    np.testing.assert_allclose(
        inspection.attention_weights(on_gpu, text), inspection.attention_weights(tiny, text), atol=1e-3
    )
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
