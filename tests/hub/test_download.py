"""Whole models from a server on this machine that behaves like OpenAI's store and Hugging Face's hub, or worse."""

from __future__ import annotations

import json
import sys
import threading
import types
from collections import namedtuple
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
from conftest import random_model
from log_messages import on_message
from model_files import openai_variables, write_tensorflow_checkpoint
from released_models import HPARAMS, assert_arrived, served_files, size_of
from server import Fault, Store, serving

import numpy_gpt2
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.hub.download import download
from numpy_gpt2.hub.fetch import Fetcher
from numpy_gpt2.hub.files import OPENAI_DATA, OPENAI_FILES, TABLE_MAGIC
from numpy_gpt2.hub.names import is_on_disk, model_folder
from numpy_gpt2.params import count_params
from numpy_gpt2.tokenizer import Tokenizer
from numpy_gpt2.weights.config import write_configs


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("NUMPY_GPT2_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
    for variable in ("NUMPY_GPT2_BASE_URL", "HF_HUB_CACHE", "HF_TOKEN", "HF_TOKEN_PATH", "HF_ENDPOINT"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def fake_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A TensorFlow that can be imported, which is all that a download requires of it."""
    module = types.ModuleType("tensorflow")
    module.__spec__ = ModuleSpec("tensorflow", loader=None)
    monkeypatch.setitem(sys.modules, "tensorflow", module)


@pytest.fixture(scope="module")
def model() -> GPT2:
    return random_model(HPARAMS, "float32")


@pytest.fixture(scope="module")
def files(model: GPT2, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return served_files(model, tmp_path_factory.mktemp("served"))


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


def set_free_space(monkeypatch: pytest.MonkeyPatch, n_bytes: int) -> None:
    """From now on, the disk has this many bytes left."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10**12, 10**12, n_bytes))


@pytest.mark.usefixtures("fake_tensorflow")
class TestDownload:
    @pytest.mark.parametrize("name", ["124M", "distilgpt2"])
    def test_a_model_arrives(self, store: Store, url: str, fetcher: Fetcher, tmp_path: Path, name: str) -> None:
        assert not is_on_disk(name)
        assert download(name, base_url=url, fetcher=fetcher) == tmp_path / "models" / name
        assert_arrived(store, name, tmp_path / "models" / name)
        assert is_on_disk(name)

    def test_complete_files_are_not_fetched_again(
        self, store: Store, url: str, fetcher: Fetcher, tmp_path: Path
    ) -> None:
        folder = download("124M", base_url=url, fetcher=fetcher)
        store.requests.clear()
        (folder / ".lock").unlink()
        download("124M", base_url=url, fetcher=fetcher)
        assert store.requests == []
        assert not (folder / ".lock").exists()  # the user may have no right to write to the folder
        (folder / "vocab.bpe").unlink()
        assert not is_on_disk("124M")
        download("124M", base_url=url, fetcher=fetcher)
        assert {request.path for request in store.requests} == {"/124M/vocab.bpe"}

    @pytest.mark.parametrize("file", ["hparams.json", "encoder.json", "vocab.bpe", OPENAI_DATA])
    def test_an_incomplete_file_of_another_program_is_fetched_again(
        self, store: Store, url: str, fetcher: Fetcher, file: str
    ) -> None:
        folder = download("124M", base_url=url, fetcher=fetcher)
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content[: len(content) // 2])
        store.requests.clear()
        download("124M", base_url=url, fetcher=fetcher)
        assert {request.path for request in store.requests if request.method == "GET"} == {f"/124M/{file}"}
        assert_arrived(store, "124M", folder)

    def test_a_missing_configuration_does_not_make_the_parameters_incomplete(
        self, store: Store, url: str, fetcher: Fetcher
    ) -> None:
        folder = download("distilgpt2", base_url=url, fetcher=fetcher)
        (folder / "config.json").unlink()
        store.requests.clear()
        download("distilgpt2", base_url=url, fetcher=fetcher)
        assert {request.path for request in store.requests} == {"/distilgpt2/config.json"}

    def test_a_converted_model_no_longer_needs_the_checkpoint(self, store: Store, url: str, fetcher: Fetcher) -> None:
        folder = download("124M", base_url=url, fetcher=fetcher)
        (folder / "model.safetensors").write_bytes(store.files["/distilgpt2/model.safetensors"])
        for file in folder.glob("model.ckpt.*"):
            file.unlink()
        store.requests.clear()
        download("124M", base_url=url, fetcher=fetcher)
        assert store.requests == []

    @pytest.mark.parametrize("name", ["124M", "distilgpt2"])
    def test_whatever_would_not_load_is_fetched_again(
        self, store: Store, url: str, fetcher: Fetcher, name: str
    ) -> None:
        """Each file in turn is a login page, which an earlier download or another program has left."""
        folder = download(name, base_url=url, fetcher=fetcher)
        for file in sorted(folder.glob("[!.]*")):
            file.write_bytes(b"<!DOCTYPE html>\n<html>Log in</html>\n")
            store.requests.clear()
            assert download(name, base_url=url, fetcher=fetcher) == folder
            assert_arrived(store, name, folder)
            assert store.of(f"/{name}/{file.name}")

    def test_a_damaged_conversion_is_removed_and_its_checkpoint_kept(
        self, store: Store, url: str, fetcher: Fetcher, caplog: pytest.LogCaptureFixture
    ) -> None:
        folder = download("124M", base_url=url, fetcher=fetcher)
        for content in (b"damaged", store.files["/distilgpt2/model.safetensors"][:-100]):
            (folder / "model.safetensors").write_bytes(content)
            download("124M", base_url=url, fetcher=fetcher)
            assert "model.safetensors does not load, and is removed: the next use makes it again" in caplog.text
            assert_arrived(store, "124M", folder)
            caplog.clear()

    def test_a_vocabulary_that_a_conversion_wrote_is_removed_if_it_does_not_load(
        self, store: Store, url: str, fetcher: Fetcher, caplog: pytest.LogCaptureFixture
    ) -> None:
        folder = download("124M", base_url=url, fetcher=fetcher)
        (folder / "model.safetensors").write_bytes(store.files["/distilgpt2/model.safetensors"])
        write_configs(folder, HPARAMS, Tokenizer.gpt2(), "float32")
        numpy_gpt2.load(folder)
        (folder / "vocab.json").write_bytes((folder / "vocab.json").read_bytes()[:-1])
        store.requests.clear()
        download("124M", base_url=url, fetcher=fetcher)
        assert store.requests == []
        assert "vocab.json does not load, and is removed" in caplog.text
        numpy_gpt2.load(folder)

    @pytest.mark.parametrize(
        ("name", "stray", "content"),
        [
            ("distilgpt2", "hparams.json", '{"n_vocab": 9, "n_ctx": 8, "n_embd": 4, "n_head": 2, "n_layer": 2}'),
            ("distilgpt2", "hparams.json", "nonsense"),
            ("distilgpt2", "tokenizer.json", '{"version": "1.0"'),
            ("124M", "tokenizer.json", '{"version": "1.0"'),
            ("distilgpt2", "generation_config.json", "[1]"),
            ("distilgpt2", "generation_config.json", '{"eos_token_id": "x"}'),
            ("distilgpt2", "added_tokens.json", '{"<|new|>": 7}'),
            ("124M", "config.json", '{"n_vocab": 9, "n_ctx": 8, "n_embd": 4, "n_head": 2, "n_layer": 2}'),
            ("124M", "tokenizer_config.json", "nonsense"),
        ],
    )
    def test_a_file_of_another_model_is_named_and_nothing_is_fetched_or_removed(
        self, store: Store, url: str, fetcher: Fetcher, name: str, stray: str, content: str
    ) -> None:
        folder = download(name, base_url=url, fetcher=fetcher)
        if name == "124M":  # converted, so that a file beside it could make the conversion look damaged
            (folder / "model.safetensors").write_bytes(store.files["/distilgpt2/model.safetensors"])
        (folder / "special_tokens_map.json").write_text("{}")  # harmless, and so not named
        (folder / stray).write_text(content)
        before = {file.name: file.read_bytes() for file in folder.iterdir()}
        store.requests.clear()
        with pytest.raises(ValueError, match=f"does not load because of {folder}/{stray}, no part of it: remove it "):
            download(name, base_url=url, fetcher=fetcher)
        assert store.requests == []
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
        (folder / stray).unlink()
        download(name, base_url=url, fetcher=fetcher)
        assert store.requests == []
        assert numpy_gpt2.load(folder).hparams == HPARAMS

    def test_a_file_that_the_server_has_is_not_removed_if_the_files_do_not_fit(
        self, store: Store, url: str, fetcher: Fetcher
    ) -> None:
        folder = download("distilgpt2", base_url=url, fetcher=fetcher)
        config = json.loads(store.files["/distilgpt2/config.json"])
        (folder / "config.json").unlink()
        store.files["/distilgpt2/config.json"] = json.dumps({**config, "n_layer": 3}).encode()
        with pytest.raises(ValueError, match="has no model that loads here: .* holds 2 blocks"):
            download("distilgpt2", base_url=url, fetcher=fetcher)
        assert (folder / "model.safetensors").read_bytes() == store.files["/distilgpt2/model.safetensors"]

    def test_what_another_model_left_in_the_folder_is_named(
        self, store: Store, url: str, fetcher: Fetcher, tmp_path: Path, tiny: GPT2
    ) -> None:
        """Its tokenizer_config.json gives another id to `<|endoftext|>`, and no released file replaces it."""
        folder = tmp_path / "models" / "distilgpt2"
        numpy_gpt2.save(tiny, folder)
        with pytest.raises(ValueError, match=f"because of {folder}/tokenizer_config.json, no part of it: remove it"):
            download("distilgpt2", base_url=url, fetcher=fetcher)
        (folder / "tokenizer_config.json").unlink()
        assert download("distilgpt2", base_url=url, fetcher=fetcher) == folder
        assert numpy_gpt2.load(folder).hparams == HPARAMS
        (folder / "tokenizer_config.json").write_text('{"bos_token": "<|endoftext|>"}')
        download("distilgpt2", base_url=url, fetcher=fetcher)
        assert (folder / "tokenizer_config.json").exists()  # it agrees with the vocabulary

    def test_each_door_has_its_own_folder(self, store: Store, url: str, fetcher: Fetcher, tmp_path: Path) -> None:
        for name in ("gpt2", "124M"):
            assert download(name, tmp_path / "here", url, fetcher=fetcher) == tmp_path / "here" / name
            assert_arrived(store, name, tmp_path / "here" / name)

    def test_the_environment_may_name_a_mirror(
        self, url: str, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("NUMPY_GPT2_BASE_URL", f"{url}/")
        download("distilgpt2", fetcher=fetcher)
        assert is_on_disk("distilgpt2")

    def test_a_file_that_the_server_does_not_have(self, store: Store, url: str, fetcher: Fetcher) -> None:
        del store.files["/124M/model.ckpt.index"]
        with pytest.raises(FileNotFoundError, match=rf"{url}/124M/model\.ckpt\.index: the server answers 404"):
            download("124M", base_url=url, fetcher=fetcher)
        assert {request.method for request in store.requests} == {"HEAD"}  # nothing has been fetched before

    @pytest.mark.parametrize(
        ("name", "pair"),
        [("124M", ("encoder.json", "vocab.bpe")), ("distilgpt2", ("vocab.json", "merges.txt"))],
    )
    @pytest.mark.parametrize("which", [0, 1])
    def test_another_vocabulary_is_refused_unless_verify_is_off(
        self, store: Store, url: str, fetcher: Fetcher, name: str, pair: tuple[str, str], which: int
    ) -> None:
        file, other = pair[which], pair[1 - which]
        both = {pair[0]: "encoder.json", pair[1]: "vocab.bpe"}
        store.files[f"/{name}/{file}"] = (model_folder("tiny") / both[file]).read_bytes()
        with pytest.raises(ValueError, match=rf"{url}/{name}/{file} is not what it should be: .*--no-verify accepts"):
            download(name, base_url=url, fetcher=fetcher)
        assert not (model_folder(name) / file).exists()
        store.files[f"/{name}/{other}"] = (model_folder("tiny") / both[other]).read_bytes()
        download(name, base_url=url, verify=False, fetcher=fetcher)
        assert_arrived(store, name, model_folder(name))

    def test_openais_vocabulary_must_be_equal_byte_for_byte(self, store: Store, url: str, fetcher: Fetcher) -> None:
        store.files["/124M/vocab.bpe"] += b"\n"
        with pytest.raises(ValueError, match="vocab.bpe is not what it should be: vocab.bpe is not that of GPT-2"):
            download("124M", base_url=url, fetcher=fetcher)

    @pytest.mark.parametrize("name", ["124M", "distilgpt2"])
    def test_without_verify_merges_that_are_cut_short_are_noticed(
        self, store: Store, url: str, fetcher: Fetcher, name: str
    ) -> None:
        file = "vocab.bpe" if name == "124M" else "merges.txt"
        lines = store.files[f"/{name}/{file}"].splitlines(keepends=True)
        store.files[f"/{name}/{file}"] = b"".join(lines[:-100])
        with pytest.raises(ValueError, match=f"{file} in .* do not make a tokenizer: .* is made by no merge"):
            download(name, base_url=url, verify=False, fetcher=fetcher)
        assert not (model_folder(name) / file).exists()
        assert store.of(f"/{name}/{OPENAI_DATA}") == store.of(f"/{name}/model.safetensors") == []

    def test_the_data_must_have_the_size_that_follows_from_hparams_json(
        self, store: Store, url: str, fetcher: Fetcher
    ) -> None:
        store.files[f"/124M/{OPENAI_DATA}"] += b"more"
        size = 4 * count_params(HPARAMS)
        with pytest.raises(ValueError, match=rf"{OPENAI_DATA} has {size + 4:,} bytes, but must have {size:,}"):
            download("124M", base_url=url, fetcher=fetcher)
        assert store.of(f"/124M/{OPENAI_DATA}") == []

    @pytest.mark.parametrize(
        ("path", "content", "complaint"),
        [
            ("/124M/hparams.json", b"<html>Log in</html>", "hparams.json is not JSON"),
            ("/124M/hparams.json", b'{"n_vocab": 5}', "hparams.json does not say n_ctx"),
            ("/124M/checkpoint", b"<html>", "checkpoint is not that of a checkpoint"),
            ("/124M/checkpoint", b'model_checkpoint_path: "other"', "checkpoint is not that of a checkpoint"),
            ("/124M/model.ckpt.index", b"<html>", "model.ckpt.index is not that of a checkpoint"),
            ("/124M/model.ckpt.index", TABLE_MAGIC + b"\n", "model.ckpt.index is not that of a checkpoint"),
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
        hint = "; the server sent a web page, perhaps to log in" if content.startswith(b"<") else "[^;]*"
        name, file = path.strip("/").split("/")
        with pytest.raises(ValueError, match=f"{url}{path} is not what it should be: .*{complaint}.*{hint}$"):
            download(name, base_url=url, fetcher=fetcher)
        assert not [*model_folder(name).glob(f"*{file}*")]

    def test_a_model_of_another_shape_is_refused(self, store: Store, url: str, fetcher: Fetcher) -> None:
        config = json.loads(store.files["/distilgpt2/config.json"])
        store.files["/distilgpt2/config.json"] = json.dumps({**config, "n_layer": 3}).encode()
        with pytest.raises(ValueError, match="holds 2 blocks, but the hyperparameters say 3"):
            download("distilgpt2", base_url=url, fetcher=fetcher)
        assert not is_on_disk("distilgpt2")

    def test_a_full_disk_is_noticed_before_the_first_byte(
        self, store: Store, url: str, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        total = size_of(store, "124M")
        set_free_space(monkeypatch, total - 1)
        with pytest.raises(
            OSError, match=r"124M has room for 2\.31MB, but 2\.31MB of 124M are still to be downloaded: make room"
        ):
            download("124M", base_url=url, fetcher=fetcher)
        assert {request.method for request in store.requests} == {"HEAD"}
        set_free_space(monkeypatch, total)
        download("124M", base_url=url, fetcher=fetcher)

    def test_a_partial_file_needs_no_room_again(
        self, store: Store, url: str, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.faults[f"/124M/{OPENAI_DATA}"] = [Fault(cut=500_000)] * 9
        store.ranges = False
        with pytest.raises(OSError, match="the download will be resumed"):
            download("124M", base_url=url, fetcher=fetcher)
        store.ranges, store.faults = True, {}
        received = sum(part.stat().st_size for part in model_folder("124M").glob(".*.part"))
        assert received > 400_000
        room = len(store.files[f"/124M/{OPENAI_DATA}"]) - received
        set_free_space(monkeypatch, room)
        download("124M", base_url=url, fetcher=fetcher)
        assert_arrived(store, "124M", model_folder("124M"))

    def test_the_size_is_announced(
        self, url: str, fetcher: Fetcher, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        download("124M", base_url=url, fetcher=fetcher)
        assert caplog.messages == [f"fetching 2.31MB of 124M from {url}/124M to {tmp_path}/models/124M"]

    def test_without_a_size_no_amount_is_announced(
        self, store: Store, url: str, fetcher: Fetcher, caplog: pytest.LogCaptureFixture
    ) -> None:
        store.ranges, store.head_length = False, ""
        store.faults[f"/124M/{OPENAI_DATA}"] = [Fault(cut=500_000)] * 9
        with pytest.raises(OSError, match="the download will be resumed"):
            download("124M", base_url=url, fetcher=fetcher)
        caplog.clear()
        store.ranges, store.faults = True, {}
        download("124M", base_url=url, fetcher=fetcher)
        assert caplog.messages[0].startswith("fetching the missing files of 124M")
        assert_arrived(store, "124M", model_folder("124M"))

    def test_a_second_download_waits_and_finds_nothing_to_do(self, store: Store, url: str) -> None:
        fetcher = Fetcher(timeout=60)  # the server pauses until the second download waits, however long that takes
        second_waits = threading.Event()  # or has ended

        def download_again() -> None:
            try:
                download("124M", base_url=url, fetcher=fetcher)
            finally:
                second_waits.set()

        second = threading.Thread(target=download_again)

        def start_the_second(path: str, n: int) -> None:
            if path.endswith(OPENAI_DATA) and not second_waits.is_set():
                second.start()
                second_waits.wait()

        store.sent = start_the_second
        with on_message("numpy_gpt2.machine.files", lambda message: second_waits.set()):
            download("124M", base_url=url, fetcher=fetcher)
            second.join()
        assert_arrived(store, "124M", model_folder("124M"))
        assert len(store.of(f"/124M/{OPENAI_DATA}")) == 1

    @pytest.mark.parametrize("name", ["tiny", "nothing", ""])
    def test_other_names_are_refused(self, name: str) -> None:
        with pytest.raises(
            ValueError, match=f"{name} cannot be downloaded, only gpt2, gpt2-medium, .*, 1558M, and owner/"
        ):
            download(name)


def test_a_downloaded_model_can_be_used(store: Store, url: str, model: GPT2, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMPY_GPT2_BASE_URL", url)
    loaded = numpy_gpt2.load("distilgpt2")
    ids = numpy_gpt2.Tokenizer.gpt2().encode("Hello there, world")
    np.testing.assert_array_equal(loaded.logits(ids), model.logits(ids))
    assert loaded.generate("Hello", 3, seed=0)


def serve_as_tensorflow_checkpoint(store: Store, model: GPT2, folder: Path) -> None:
    pytest.importorskip("tensorflow")
    folder.mkdir()
    write_tensorflow_checkpoint(folder, openai_variables(model))
    for file in (folder / name for name in OPENAI_FILES if (folder / name).exists()):
        store.files[f"/124M/{file.name}"] = file.read_bytes()


def test_a_downloaded_tensorflow_checkpoint_can_be_used(
    store: Store, url: str, model: GPT2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_as_tensorflow_checkpoint(store, model, tmp_path / "served")
    monkeypatch.setenv("NUMPY_GPT2_BASE_URL", url)
    loaded = numpy_gpt2.load("124M")
    ids = numpy_gpt2.Tokenizer.gpt2().encode("Hello there, world")
    np.testing.assert_array_equal(loaded.logits(ids), model.logits(ids))


def test_a_wrong_byte_that_no_header_reveals_is_found_by_tensorflow(
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
