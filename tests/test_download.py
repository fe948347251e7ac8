"""Whole models from a server on this machine that behaves like OpenAI's store and Hugging Face's hub, or worse."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import random_model
from server import Fault, Store, serving

import numpy_gpt2
from numpy_gpt2 import download as downloading
from numpy_gpt2.checkpoints import hugging_face_name
from numpy_gpt2.configs import write_configs
from numpy_gpt2.download import (
    GPT2_VOCABULARY,
    HUB,
    HUB_FILES,
    NAMES,
    OPENAI,
    OPENAI_DATA,
    OPENAI_FILES,
    PARAMETERS,
    address,
    describe_models,
    download,
    is_on_disk,
    model_folder,
)
from numpy_gpt2.fetch import Fetcher
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.params import HParams, named_arrays, number_of_params
from numpy_gpt2.safetensors_format import write_file

ROOT = Path(__file__).parent.parent
# GPT-2's vocabulary, and everything else as small as can be
HPARAMS = HParams(n_vocab=50257, n_ctx=8, n_embd=4, n_head=2, n_layer=2)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("NUMPY_GPT2_MODELS", str(tmp_path / "models"))
    monkeypatch.delenv("NUMPY_GPT2_BASE_URL", raising=False)


@pytest.fixture
def no_tensorflow_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """To fetch a checkpoint, that is; reading it is not what is tested."""
    monkeypatch.setattr(downloading, "check_tensorflow", lambda checkpoint: None)


@pytest.fixture(scope="module")
def model() -> GPT2:
    return random_model(HPARAMS, "float32")


@pytest.fixture(scope="module")
def files(model: GPT2, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What is served: a checkpoint that only its size makes one, and a model in Hugging Face's layout."""
    folder = tmp_path_factory.mktemp("hub")
    arrays = {hugging_face_name(name): array for name, array in named_arrays(model.params)}
    shapes = {name: array.shape for name, array in arrays.items()}
    write_file(folder / "model.safetensors", shapes, "float32", arrays.__getitem__, {})
    write_configs(folder, HPARAMS, numpy_gpt2.Tokenizer.gpt2(), "float32")
    vocabulary = {name: (GPT2_VOCABULARY / name).read_bytes() for name in ("encoder.json", "vocab.bpe")}
    openai = {
        "checkpoint": b'model_checkpoint_path: "model.ckpt"\n',
        "hparams.json": json.dumps(HPARAMS._asdict()).encode(),
        OPENAI_DATA: random.Random(0).randbytes(4 * number_of_params(HPARAMS)),
        "model.ckpt.index": b"index",
        "model.ckpt.meta": random.Random(1).randbytes(100_000),
        **vocabulary,
    }
    return {f"/124M/{name}": content for name, content in openai.items()} | {
        f"/distilgpt2/{name}": (folder / name).read_bytes() for name in HUB_FILES
    }


@pytest.fixture
def store(files: dict[str, bytes]) -> Store:
    return Store(files=dict(files))


@pytest.fixture
def url(store: Store) -> Iterator[str]:
    with serving(store) as address:
        yield address


@pytest.fixture
def fetcher() -> Fetcher:
    return Fetcher(timeout=0.2, sleep=lambda pause: None)


def assert_arrived(store: Store, name: str, folder: Path) -> None:
    """Byte for byte what the server has, and nothing else."""
    assert {file.name: file.read_bytes() for file in folder.iterdir() if file.name != ".lock"} == {
        path.rpartition("/")[2]: content for path, content in store.files.items() if path.startswith(f"/{name}/")
    }


def size_of(store: Store, name: str) -> int:
    """The length of all files of a model together."""
    return sum(len(content) for path, content in store.files.items() if path.startswith(f"/{name}/"))


@pytest.mark.usefixtures("no_tensorflow_needed")
class TestDownload:
    @pytest.mark.parametrize("name", ["124M", "distilgpt2"])
    def test_a_model_arrives_whole(self, store: Store, url: str, fetcher: Fetcher, tmp_path: Path, name: str) -> None:
        assert not is_on_disk(name)
        assert download(name, base_url=url, fetcher=fetcher) == tmp_path / "models" / name
        assert_arrived(store, name, tmp_path / "models" / name)
        assert is_on_disk(name)

    def test_finished_files_are_not_fetched_again(
        self, store: Store, url: str, fetcher: Fetcher, tmp_path: Path
    ) -> None:
        folder = download("124M", base_url=url, fetcher=fetcher)
        store.requests.clear()
        (folder / ".lock").unlink()
        download("124M", base_url=url, fetcher=fetcher)
        assert store.requests == []
        assert not (folder / ".lock").exists()  # it may be a folder for all that not everyone may write to
        (folder / "vocab.bpe").unlink()
        assert not is_on_disk("124M")
        download("124M", base_url=url, fetcher=fetcher)
        assert {request.path for request in store.requests} == {"/124M/vocab.bpe"}

    @pytest.mark.parametrize("file", ["hparams.json", "encoder.json", "vocab.bpe", OPENAI_DATA])
    def test_a_file_that_another_program_left_half_done_is_fetched_again(
        self, store: Store, url: str, fetcher: Fetcher, file: str
    ) -> None:
        folder = download("124M", base_url=url, fetcher=fetcher)
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content[: len(content) // 2])
        store.requests.clear()
        download("124M", base_url=url, fetcher=fetcher)
        assert {request.path for request in store.requests} == {f"/124M/{file}"}
        assert_arrived(store, "124M", folder)

    def test_a_description_that_is_missing_does_not_spoil_the_parameters(
        self, store: Store, url: str, fetcher: Fetcher
    ) -> None:
        folder = download("distilgpt2", base_url=url, fetcher=fetcher)
        (folder / "config.json").unlink()
        store.requests.clear()
        download("distilgpt2", base_url=url, fetcher=fetcher)
        assert {request.path for request in store.requests} == {"/distilgpt2/config.json"}

    def test_a_converted_model_needs_no_checkpoint_any_more(self, store: Store, url: str, fetcher: Fetcher) -> None:
        folder = download("124M", base_url=url, fetcher=fetcher)
        (folder / "model.safetensors").touch()
        for file in folder.glob("model.ckpt.*"):
            file.unlink()
        store.requests.clear()
        download("124M", base_url=url, fetcher=fetcher)
        assert store.requests == []

    def test_an_alias_is_the_same_model(self, url: str, fetcher: Fetcher, tmp_path: Path) -> None:
        assert download("gpt2", tmp_path / "here", url, fetcher=fetcher) == tmp_path / "here" / "124M"

    def test_a_mirror_may_be_named_by_the_environment(
        self, url: str, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("NUMPY_GPT2_BASE_URL", f"{url}/")
        download("distilgpt2", fetcher=fetcher)
        assert is_on_disk("distilgpt2")

    def test_a_file_that_the_server_does_not_have(self, store: Store, url: str, fetcher: Fetcher) -> None:
        del store.files["/124M/model.ckpt.index"]
        with pytest.raises(FileNotFoundError, match=rf"{url}/124M/model\.ckpt\.index: the server answers 404"):
            download("124M", base_url=url, fetcher=fetcher)
        assert {request.method for request in store.requests} == {"HEAD"}  # before anything was fetched

    @pytest.mark.parametrize(
        ("name", "file", "source"),
        [
            ("124M", "encoder.json", "encoder.json"),
            ("124M", "vocab.bpe", "vocab.bpe"),
            ("distilgpt2", "vocab.json", "encoder.json"),
            ("distilgpt2", "merges.txt", "vocab.bpe"),
        ],
    )
    def test_another_vocabulary_is_refused_unless_it_is_wanted(
        self, store: Store, url: str, fetcher: Fetcher, tmp_path: Path, name: str, file: str, source: str
    ) -> None:
        path = f"/{name}/{file}"
        store.files[path] = (model_folder("tiny") / source).read_bytes()
        with pytest.raises(ValueError, match=rf"{url}{path} is not what it should be: .*--no-verify accepts"):
            download(name, base_url=url, fetcher=fetcher)
        assert not (tmp_path / "models" / name / file).exists()
        download(name, base_url=url, verify=False, fetcher=fetcher)
        assert_arrived(store, name, tmp_path / "models" / name)

    def test_openais_vocabulary_must_be_the_same_to_the_byte(self, store: Store, url: str, fetcher: Fetcher) -> None:
        store.files["/124M/vocab.bpe"] += b"\n"
        with pytest.raises(ValueError, match="vocab.bpe is not what it should be: vocab.bpe is not that of GPT-2"):
            download("124M", base_url=url, fetcher=fetcher)

    def test_the_data_must_have_the_length_that_hparams_json_gives(
        self, store: Store, url: str, fetcher: Fetcher
    ) -> None:
        store.files[f"/124M/{OPENAI_DATA}"] += b"more"
        size = 4 * number_of_params(HPARAMS)
        with pytest.raises(ValueError, match=rf"{OPENAI_DATA} has {size + 4:,} bytes, but must have {size:,}"):
            download("124M", base_url=url, fetcher=fetcher)
        assert store.of(f"/124M/{OPENAI_DATA}") == []

    @pytest.mark.parametrize(
        ("path", "content", "complaint"),
        [
            ("/124M/hparams.json", b"<html>Log in</html>", "hparams.json is not JSON"),
            ("/124M/hparams.json", b'{"n_vocab": 5}', "hparams.json does not say n_ctx"),
            ("/distilgpt2/config.json", b"<html>", "config.json is not JSON"),
            ("/distilgpt2/config.json", b'{"model_type": "llama"}', "model_type is 'llama'"),
            ("/distilgpt2/vocab.json", b"<html>", "vocab.json is not JSON"),
            ("/distilgpt2/model.safetensors", b"<html>", "model.safetensors is not a safetensors file"),
        ],
    )
    def test_a_login_page_in_place_of_a_file(
        self, store: Store, url: str, fetcher: Fetcher, path: str, content: bytes, complaint: str
    ) -> None:
        store.files[path] = content
        name, file = path.strip("/").split("/")
        with pytest.raises(ValueError, match=f"{url}{path} is not what it should be: .*{complaint}.*a login page"):
            download(name, base_url=url, fetcher=fetcher)
        assert not [*model_folder(name).glob(f"*{file}*")]

    def test_a_model_of_another_shape_is_refused(self, store: Store, url: str, fetcher: Fetcher) -> None:
        config = json.loads(store.files["/distilgpt2/config.json"])
        store.files["/distilgpt2/config.json"] = json.dumps({**config, "n_layer": 3}).encode()
        with pytest.raises(ValueError, match="holds 2 blocks, but the hyper-parameters say 3"):
            download("distilgpt2", base_url=url, fetcher=fetcher)
        assert not is_on_disk("distilgpt2")

    def test_a_disk_without_room_is_noticed_before_the_first_byte(
        self, store: Store, url: str, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        total = size_of(store, "124M")
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10**12, 10**12, total - 1))
        with pytest.raises(OSError, match=r"124M has room for 2\.40MB, but 2\.40MB of 124M are to come: make room"):
            download("124M", base_url=url, fetcher=fetcher)
        assert {request.method for request in store.requests} == {"HEAD"}
        monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10**12, 10**12, total))
        download("124M", base_url=url, fetcher=fetcher)

    def test_what_has_arrived_needs_no_room(
        self, store: Store, url: str, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.faults[f"/124M/{OPENAI_DATA}"] = [Fault(cut=500_000)] * 9
        store.ranges = False
        with pytest.raises(OSError, match="it goes on where this stopped"):
            download("124M", base_url=url, fetcher=fetcher)
        store.ranges, store.faults = True, {}
        arrived = sum(part.stat().st_size for part in model_folder("124M").glob(".*.part"))
        assert arrived > 400_000
        room = len(store.files[f"/124M/{OPENAI_DATA}"]) - arrived
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10**12, 10**12, room))
        download("124M", base_url=url, fetcher=fetcher)
        assert_arrived(store, "124M", model_folder("124M"))

    def test_the_size_is_said_first(
        self, url: str, fetcher: Fetcher, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        download("124M", base_url=url, fetcher=fetcher)
        assert caplog.messages == [f"fetching 2.40MB of 124M from {url}/124M to {tmp_path}/models/124M"]

    def test_what_has_arrived_counts_for_nothing_where_no_length_is_told(
        self, store: Store, url: str, fetcher: Fetcher, caplog: pytest.LogCaptureFixture
    ) -> None:
        store.ranges, store.head_length = False, ""
        store.faults[f"/124M/{OPENAI_DATA}"] = [Fault(cut=500_000)] * 9
        with pytest.raises(OSError, match="it goes on where this stopped"):
            download("124M", base_url=url, fetcher=fetcher)
        caplog.clear()
        store.ranges, store.faults = True, {}
        download("124M", base_url=url, fetcher=fetcher)
        assert caplog.messages[0].startswith("fetching what is missing of 124M")
        assert_arrived(store, "124M", model_folder("124M"))

    def test_two_at_once_do_not_meet(self, store: Store, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """The second waits, says so, and then finds nothing left to do."""
        fetcher = Fetcher(timeout=60)  # the server waits for the second, however long that takes to start
        waiting = threading.Event()
        monkeypatch.setattr("numpy_gpt2.files.log.warning", lambda *args: waiting.set())
        second = threading.Thread(target=lambda: download("124M", base_url=url, fetcher=fetcher))

        def start_the_second(path: str, n: int) -> None:
            if path.endswith(OPENAI_DATA) and not waiting.is_set():
                second.start()
                waiting.wait()

        store.sent = start_the_second
        download("124M", base_url=url, fetcher=fetcher)
        second.join()
        assert_arrived(store, "124M", model_folder("124M"))
        assert len(store.of(f"/124M/{OPENAI_DATA}")) == 1

    @pytest.mark.parametrize("name", ["tiny", "nothing", ""])
    def test_other_names_are_refused(self, name: str) -> None:
        with pytest.raises(ValueError, match=f"{name} cannot be downloaded, only 124M, 355M, 774M, 1558M, distilgpt2"):
            download(name)


def test_where_the_models_were_released() -> None:
    assert {address("355M", file, None) for file in OPENAI_FILES} == {f"{OPENAI}/355M/{file}" for file in OPENAI_FILES}
    assert address("distilgpt2", "config.json", None) == f"{HUB}/config.json"
    for url in (address("124M", "checkpoint", None), address("distilgpt2", "config.json", None)):
        assert url.startswith("https://")


@pytest.mark.parametrize(
    ("name", "shape"),
    {
        "124M": (768, 12, 12),
        "355M": (1024, 16, 24),
        "774M": (1280, 20, 36),
        "1558M": (1600, 25, 48),
        "distilgpt2": (768, 12, 6),
    }.items(),
)
def test_the_sizes_in_the_table_are_those_of_the_shapes(name: str, shape: tuple[int, int, int]) -> None:
    assert PARAMETERS[name] == number_of_params(HParams(50257, 1024, *shape))


def test_what_is_downloaded_can_be_used(store: Store, url: str, model: GPT2, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMPY_GPT2_BASE_URL", url)
    loaded = numpy_gpt2.load("distilgpt2")
    ids = numpy_gpt2.Tokenizer.gpt2().encode("Hello there, world")
    np.testing.assert_array_equal(loaded.logits(ids), model.logits(ids))
    assert loaded.generate("Hello", 3, seed=0)


def serve_as_tensorflow_checkpoint(store: Store, model: GPT2, folder: Path) -> None:
    from test_checkpoints import openai_variables, write_tensorflow_checkpoint

    pytest.importorskip("tensorflow")
    folder.mkdir()
    write_tensorflow_checkpoint(folder, openai_variables(model))
    for file in folder.iterdir():
        store.files[f"/124M/{file.name}"] = file.read_bytes()


def test_also_a_tensorflow_checkpoint(
    store: Store, url: str, model: GPT2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_as_tensorflow_checkpoint(store, model, tmp_path / "served")
    monkeypatch.setenv("NUMPY_GPT2_BASE_URL", url)
    loaded = numpy_gpt2.load("gpt2")
    ids = numpy_gpt2.Tokenizer.gpt2().encode("Hello there, world")
    np.testing.assert_array_equal(loaded.logits(ids), model.logits(ids))


def test_a_flipped_byte_that_no_header_gives_away_is_found_by_tensorflow(
    store: Store, url: str, model: GPT2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_as_tensorflow_checkpoint(store, model, tmp_path / "served")
    store.md5 = False
    store.faults[f"/124M/{OPENAI_DATA}"] = [Fault(flip=100_000)]
    monkeypatch.setenv("NUMPY_GPT2_BASE_URL", url)
    with pytest.raises(
        ValueError,
        match="damaged or cut short .*: if it was downloaded, delete the checkpoint's files, and download them",
    ):
        numpy_gpt2.load("124M")
    assert not (model_folder("124M") / "model.safetensors").exists()
    for file in model_folder("124M").glob("model.ckpt.*"):
        file.unlink()
    ids = numpy_gpt2.Tokenizer.gpt2().encode("Hello there, world")
    np.testing.assert_array_equal(numpy_gpt2.load("124M").logits(ids), model.logits(ids))


STOPPED = "stopped; what has arrived of 124M is kept, and the next download goes on from there"

# The command in a process of its own, which believes that there is a TensorFlow.
COMMAND = """
import sys, types
sys.modules["tensorflow"] = types.ModuleType("tensorflow")
sys.modules["tensorflow"].__spec__ = types.SimpleNamespace()
from numpy_gpt2.download import main
sys.exit(main())
"""

CTRL_C = f"""
import signal
from numpy_gpt2 import fetch

def write(out, chunk, file, write=fetch.write):
    write(out, chunk, file)
    if file.name == "{OPENAI_DATA}" and out.tell() > 100_000:
        signal.raise_signal(signal.SIGINT)

fetch.write = write
"""


def start(*args: str, before: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", before + COMMAND, *args]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(*args: str, before: str = "") -> subprocess.CompletedProcess[str]:
    with start(*args, before=before) as process:
        out, err = process.communicate()
    return subprocess.CompletedProcess(args, process.returncode, out, err)


class TestInterruption:
    """A download that ends at some byte, and is then run again, gives what the server has."""

    def kill_at(self, store: Store, total: int, *args: str) -> subprocess.CompletedProcess[str]:
        """Runs the command, and kills it when the server has sent so many bytes in all."""
        started = threading.Event()
        processes: list[subprocess.Popen[str]] = []
        sent: dict[str, int] = {}

        def count(path: str, n: int) -> None:
            before, sent[path] = sum(sent.values()), n
            if before < total <= sum(sent.values()):
                started.wait()
                processes[0].kill()
                processes[0].wait()

        store.sent = count
        with start(*args) as process:
            processes.append(process)
            started.set()
            out, err = process.communicate()
        store.sent = lambda path, n: None
        return subprocess.CompletedProcess(args, process.returncode, out, err)

    @pytest.mark.skipif(sys.platform == "win32", reason="a process is killed by a signal")
    @pytest.mark.parametrize("name", ["124M", "distilgpt2"])
    @pytest.mark.parametrize("n_kills", [5, pytest.param(50, marks=pytest.mark.slow(reason="a hundred processes"))])
    def test_killed_at_any_byte(self, store: Store, url: str, tmp_path: Path, name: str, n_kills: int) -> None:
        dice = random.Random(n_kills)
        total = size_of(store, name)
        store.redirect = name == "distilgpt2"
        folder = tmp_path / "models" / name
        for i in range(n_kills):
            # mostly a little further each time, as on a bad line; sometimes from the beginning
            if dice.random() < 0.2:
                for file in folder.glob("*"):
                    file.unlink()
            room = total - sum(file.stat().st_size for file in folder.glob("*"))
            total_sent = dice.randrange(1, max(2, room if i % 2 else room // 4))
            result = self.kill_at(store, total_sent, name, "--base-url", url)
            assert result.returncode == -9, result.stderr
            for file in folder.glob("[!.]*"):
                assert file.read_bytes() == store.files[f"/{name}/{file.name}"]
        assert run(name, "--base-url", url).returncode == 0
        assert_arrived(store, name, folder)

    def test_ctrl_c_prints_one_line_and_keeps_what_has_arrived(self, store: Store, url: str) -> None:
        result = run("124M", "--base-url", url, before=CTRL_C)
        lines = [line for line in result.stderr.splitlines() if line and "%|" not in line]
        assert (result.returncode, result.stdout) == (130, "")
        assert lines[1:] == [f"numpy_gpt2: {STOPPED}"]
        assert "Traceback" not in result.stderr
        store.requests.clear()
        assert run("124M", "--base-url", url).returncode == 0
        assert [request.status for request in store.requests if request.method == "GET"] == [206]
        assert_arrived(store, "124M", model_folder("124M"))


class TestCommand:
    @pytest.mark.parametrize("command", [["-m", "numpy_gpt2.download"], [str(ROOT / "download.py")]], ids=str)
    def test_both_ways_to_call_it(self, command: list[str], url: str, tmp_path: Path) -> None:
        args = [sys.executable, *command, "distilgpt2", "--base-url", url, "--models-dir", str(tmp_path / "here")]
        result = subprocess.run(args, capture_output=True, text=True, check=False)
        assert (result.returncode, result.stdout) == (0, f"distilgpt2 is in {tmp_path}/here/distilgpt2\n")
        assert "fetching 2.16MB of distilgpt2 from" in result.stderr
        assert "model.safetensors: 100%" in result.stderr
        again = subprocess.run(args, capture_output=True, text=True, check=False)
        assert (again.returncode, again.stdout, again.stderr) == (0, result.stdout, "")

    def test_several_models(self, store: Store, url: str, tmp_path: Path) -> None:
        result = run("gpt2", "distilgpt2", "124M", "tiny", "--base-url", url)
        assert result.returncode == 0, result.stderr
        assert result.stdout.splitlines() == [
            f"124M is in {tmp_path}/models/124M",
            f"distilgpt2 is in {tmp_path}/models/distilgpt2",
            f"tiny is in {model_folder('tiny')}",
        ]

    def test_all_models(self, store: Store, url: str, tmp_path: Path) -> None:
        for path, content in [*store.files.items()]:
            for name in ("355M", "774M", "1558M"):
                store.files[path.replace("124M", name)] = content
        result = run("all", "--base-url", url)
        assert result.returncode == 0, result.stderr
        for name in PARAMETERS:
            assert_arrived(store, name, tmp_path / "models" / name)

    def test_no_verify(self, store: Store, url: str) -> None:
        store.files["/124M/vocab.bpe"] += b"\n"
        result = run("124M", "--base-url", url)
        assert (result.returncode, result.stdout) == (1, "")
        assert "--no-verify accepts others" in result.stderr.splitlines()[-1]
        assert run("124M", "--base-url", url, "--no-verify").returncode == 0

    @pytest.mark.parametrize(
        ("args", "complaint"),
        [
            ([], "name a model (tiny, 124M,"),
            (["999M"], "there is no model '999M': the names are tiny, 124M,"),
            (["all", "--frobnicate"], "unrecognized arguments: --frobnicate"),
        ],
    )
    def test_a_command_line_that_makes_no_sense(self, args: list[str], complaint: str) -> None:
        result = run(*args)
        assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
        assert complaint in result.stderr

    def test_without_a_network_the_sentence_names_the_address(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("numpy_gpt2.fetch.PAUSES", ())
        monkeypatch.setattr("sys.argv", ["download.py", "distilgpt2", "--base-url", "http://127.0.0.1:1"])
        assert downloading.main() == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.splitlines()[-1].startswith("numpy_gpt2: http://127.0.0.1:1/distilgpt2/config.json: no connection")

    def test_without_tensorflow_nothing_is_fetched(self, store: Store, url: str, tmp_path: Path) -> None:
        code = "import sys; sys.modules['tensorflow'] = None; from numpy_gpt2.download import main; sys.exit(main())"
        args = [sys.executable, "-c", code, "124M", "--base-url", url]
        result = subprocess.run(args, capture_output=True, text=True, check=False)
        assert (result.returncode, result.stderr.count("\n")) == (1, 1)
        assert 'needs TensorFlow: pip install "numpy_gpt2[weights]"' in result.stderr
        assert store.requests == []
        assert not (tmp_path / "models").exists()

    def test_a_tensorflow_that_does_not_work_counts_as_none(
        self, store: Store, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "tensorflow.py").write_text("raise RuntimeError('no such instruction')")
        code = (
            f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from numpy_gpt2.download import main; sys.exit(main())"
        )
        args = [sys.executable, "-c", code, "124M", "--base-url", url]
        result = subprocess.run(args, capture_output=True, text=True, check=False)
        assert (result.returncode, result.stderr.count("\n")) == (1, 1)
        assert "TensorFlow is installed, but cannot be imported: no such instruction" in result.stderr
        assert store.requests == []

    def test_list(self, store: Store, url: str, tmp_path: Path, fetcher: Fetcher) -> None:
        download("distilgpt2", base_url=url, fetcher=fetcher)
        folder = tmp_path / "models" / "124M"
        folder.mkdir()
        (folder / "encoder.json").write_bytes(store.files["/124M/encoder.json"])
        (tmp_path / "models" / "355M").mkdir()
        (tmp_path / "models" / "355M" / ".lock").touch()
        result = run("--list")
        assert (result.returncode, result.stderr) == (0, "")
        lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
        assert [*lines] == ["tiny", "124M", "355M", "774M", "1558M", "distilgpt2"]
        assert lines["tiny"] == f"11.8MB  {model_folder('tiny')}"
        assert lines["124M"].startswith(f"1.04MB  {folder} (not complete")
        assert lines["355M"] == "-  1.42GB of weights to download"
        assert lines["1558M"] == "-  6.23GB of weights to download"
        assert lines["distilgpt2"] == f"2.16MB  {tmp_path}/models/distilgpt2"
        assert describe_models(NAMES, os.fspath(tmp_path / "nowhere")).count("to download") == 5

    def test_list_fetches_nothing(self, store: Store, url: str) -> None:
        result = run("--list", "355M", "gpt2", "--base-url", url)
        assert result.returncode == 0
        assert [line.split()[0] for line in result.stdout.splitlines()] == ["355M", "124M"]
        assert store.requests == []
