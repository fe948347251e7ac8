"""Models on Hugging Face's hub, fetched from a double of it: released ones and any other, gated, split, pinned."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import random_model
from released_models import HPARAMS, HUB_NAMES, REPOSITORIES, hub_files
from server import COMMIT, Fault, Hub, Store, serving

import numpy_gpt2
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.hub.download import download
from numpy_gpt2.hub.fetch import Fetcher
from numpy_gpt2.hub.listing import repositories
from numpy_gpt2.hub.names import is_on_disk, model_folder
from numpy_gpt2.params import HParams

OWN = HParams(n_vocab=4096, n_ctx=7, n_embd=12, n_head=3, n_layer=2)  # with the vocabulary of tiny
IDS = [5, 6, 7]


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return hub_files(random_model(HPARAMS, "float32"), tmp_path_factory.mktemp("released"))


@pytest.fixture(scope="module")
def own() -> GPT2:
    model = random_model(OWN, "float32")
    model.tokenizer = numpy_gpt2.load("tiny").tokenizer
    return model


@pytest.fixture(scope="module")
def own_files(own: GPT2, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What `save` writes, with the second layout of the vocabulary, `vocab.json` and `merges.txt`."""
    folder = tmp_path_factory.mktemp("own")
    numpy_gpt2.save(own, folder)
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name != ".lock"}


@pytest.fixture
def hub(released: dict[str, bytes], own_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The hub, which is asked instead of the real one. Large files are on another server."""
    repositories = {**dict.fromkeys(REPOSITORIES, released)}
    repositories |= {f"owner/{name}": dict(own_files) for name in ("model", "gated", "private")}
    hub = Hub(repositories, gated=["owner/gated"], private=["owner/private"], token="hf_secret")
    with serving(hub.elsewhere_store) as elsewhere, serving(hub) as url:
        hub.elsewhere = elsewhere
        monkeypatch.setenv("HF_ENDPOINT", f"{url}/")
        yield hub


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("NUMPY_GPT2_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
    for variable in ("NUMPY_GPT2_BASE_URL", "HF_HUB_CACHE", "HF_TOKEN", "HF_TOKEN_PATH"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)


def paths(store: Store, method: str = "GET") -> list[str]:
    return [request.path for request in store.requests if request.method == method]


class TestReleased:
    @pytest.mark.parametrize(("name", "repository"), [*zip(HUB_NAMES, REPOSITORIES, strict=True)])
    def test_a_released_model_arrives_without_tensorflow(
        self, hub: Hub, released: dict[str, bytes], name: str, repository: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(__import__("sys").modules, "tensorflow", None)
        assert numpy_gpt2.load(name).generate("Hello", 2, seed=0)
        folder = model_folder(name)
        assert {file.name: file.read_bytes() for file in folder.glob("[!.]*")} == released
        expected = [f"/{repository}/resolve/main/{file}" for file in released]
        assert paths(hub) == expected
        assert paths(hub.elsewhere_store) == [f"/elsewhere/{repository}/resolve/main/model.safetensors"]

    def test_the_name_of_its_repository_is_the_same_model(self, hub: Hub) -> None:
        download("gpt2")
        hub.requests.clear()
        assert download("openai-community/gpt2") == model_folder("gpt2")
        assert hub.requests == []

    def test_a_damaged_large_file_is_noticed_by_the_hash_in_the_redirect(self, hub: Hub) -> None:
        path = f"/{REPOSITORIES[0]}/resolve/main/model.safetensors"
        hub.elsewhere_store.faults[path] = [Fault(flip=100_000)]
        download("gpt2", fetcher=Fetcher(sleep=lambda pause: None))
        assert paths(hub.elsewhere_store) == [f"/elsewhere{path}"] * 2
        assert is_on_disk("gpt2")

    def test_a_damaged_model_names_the_remedy(self, hub: Hub) -> None:
        folder = download("gpt2")
        content = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(content[:-1])
        with pytest.raises(ValueError, match="cut short.*; `numpy-gpt2 download gpt2` repairs it$"):
            numpy_gpt2.load("gpt2")
        download("gpt2")
        numpy_gpt2.load("gpt2")
        (folder / "hparams.json").write_text("nonsense")
        with pytest.raises(ValueError, match=f"because of {folder}/hparams.json, no part of it: remove it"):
            numpy_gpt2.load("gpt2")

    def test_the_remedy_is_for_the_folder_that_was_loaded(self, hub: Hub, tmp_path: Path) -> None:
        folder = download("owner/model", tmp_path / "here")
        (folder / "vocab.json").write_text("{")
        with pytest.raises(
            ValueError, match=f"`numpy-gpt2 download owner/model --models-dir {tmp_path}/here` repairs it$"
        ):
            numpy_gpt2.load("owner/model", tmp_path / "here")
        folder.rename(tmp_path / "own")
        with pytest.raises(ValueError, match="is not JSON") as caught:
            numpy_gpt2.load(tmp_path / "own")
        assert "repairs" not in str(caught.value)

    def test_a_large_file_with_the_right_hash_is_not_fetched_again(self, hub: Hub) -> None:
        folder = download("gpt2")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "n_layer": 3}))
        hub.requests.clear()
        hub.elsewhere_store.requests.clear()
        download("gpt2")
        assert paths(hub) == [f"/{REPOSITORIES[0]}/resolve/main/config.json"]
        assert paths(hub.elsewhere_store) == []
        numpy_gpt2.load("gpt2")


class TestAnyRepository:
    @pytest.mark.parametrize("name", ["owner/model", "owner/model@main", f"owner/model@{COMMIT}"])
    def test_it_is_loaded(self, hub: Hub, own: GPT2, name: str, tmp_path: Path) -> None:
        np.testing.assert_array_equal(numpy_gpt2.load(name).logits(IDS), own.logits(IDS))
        assert model_folder(name) == tmp_path / "models" / name.removesuffix("@main")
        hub.requests.clear()
        numpy_gpt2.load(name)
        download(name)
        assert hub.requests == []

    def test_the_server_is_asked_once_about_each_file(self, hub: Hub) -> None:
        numpy_gpt2.load("gpt2")
        assert len(paths(hub, "HEAD")) == 4
        hub.requests.clear()
        numpy_gpt2.load("owner/model")
        asked = [*paths(hub, "HEAD")]
        asked.remove("/owner/model/resolve/main/config.json")  # read before the folder is made, then fetched
        assert len(asked) == len({*asked})

    def test_beside_a_folder_of_the_same_name(self, hub: Hub, tmp_path: Path) -> None:
        (tmp_path / "owner" / "model").mkdir(parents=True)
        assert download("owner/model") == tmp_path / "models" / "owner" / "model"
        assert download("owner/model", ".") == Path("owner/model")
        numpy_gpt2.load("owner/model", ".")

    def test_it_is_what_transformers_loads(self, hub: Hub, own: GPT2) -> None:
        torch = pytest.importorskip("torch")
        transformers = pytest.importorskip("transformers")
        folder = download("owner/model")
        peer = transformers.GPT2LMHeadModel.from_pretrained(folder)
        with torch.no_grad():
            expected = peer(torch.tensor([IDS])).logits[0].numpy()
        np.testing.assert_allclose(numpy_gpt2.load("owner/model").logits(IDS), expected, atol=1e-4)

    def test_a_tokenizer_json_is_preferred(self, hub: Hub, own: GPT2, tmp_path: Path) -> None:
        transformers = pytest.importorskip("transformers")
        numpy_gpt2.save(own, tmp_path / "saved")
        transformers.AutoTokenizer.from_pretrained(tmp_path / "saved").save_pretrained(tmp_path / "fast")
        content = (tmp_path / "fast" / "tokenizer.json").read_bytes()
        hub.put("owner/model", "tokenizer.json", content)
        model = numpy_gpt2.load("owner/model")
        assert {"/owner/model/resolve/main/vocab.json"}.isdisjoint(paths(hub))
        assert (model_folder("owner/model") / "tokenizer.json").read_bytes() == content
        text = "Once upon a time"
        assert model.tokenizer.encode(text) == own.tokenizer.encode(text)  # type: ignore[union-attr]

    def test_a_model_in_several_files(self, hub: Hub, own: GPT2, tmp_path: Path) -> None:
        transformers = pytest.importorskip("transformers")
        numpy_gpt2.save(own, tmp_path / "saved")
        peer = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "saved")
        peer.save_pretrained(tmp_path / "split", max_shard_size="10KB")
        hub.remove("owner/model", "model.safetensors")
        shards = sorted(tmp_path.glob("split/model*"))
        assert len(shards) > 2
        for file in shards:
            hub.put("owner/model", file.name, file.read_bytes())
        np.testing.assert_array_equal(numpy_gpt2.load("owner/model").logits(IDS), own.logits(IDS))
        (model_folder("owner/model") / shards[1].name).unlink()
        assert not is_on_disk("owner/model")
        hub.elsewhere_store.requests.clear()
        numpy_gpt2.load("owner/model")
        assert paths(hub.elsewhere_store) == [f"/elsewhere/owner/model/resolve/main/{shards[1].name}"]

    @pytest.mark.parametrize(
        ("config", "complaint"),
        [
            ({"model_type": "llama"}, "model_type is 'llama', but only GPT-2's 'gpt2' can be computed here"),
            ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
            ({"activation_function": "relu"}, "activation_function is 'relu'"),
        ],
    )
    def test_another_kind_of_model_is_refused_before_anything_else_is_fetched(
        self, hub: Hub, config: dict[str, object], complaint: str
    ) -> None:
        content = json.loads(hub.repositories["owner/model"]["config.json"])
        hub.put("owner/model", "config.json", json.dumps({**content, **config}).encode())
        with pytest.raises(ValueError, match=f"/owner/model/.*/config.json is not what it should be: .*{complaint}"):
            numpy_gpt2.load("owner/model")
        assert paths(hub) == ["/owner/model/resolve/main/config.json"]
        assert not model_folder("owner/model").exists()

    def test_a_pickle_is_refused_before_anything_large_is_fetched(self, hub: Hub) -> None:
        hub.remove("owner/model", "model.safetensors")
        hub.put("owner/model", "pytorch_model.bin", b"pickle")
        with pytest.raises(
            ValueError, match=r"/owner/model/resolve/main has no model.safetensors; transformers .* can"
        ):
            numpy_gpt2.load("owner/model")
        assert paths(hub) == ["/owner/model/resolve/main/config.json"]
        assert not model_folder("owner/model").exists()

    def test_a_model_without_a_vocabulary_is_refused(self, hub: Hub) -> None:
        hub.remove("owner/model", "merges.txt")
        with pytest.raises(ValueError, match=r"owner/model/resolve/main has no vocabulary: neither tokenizer.json nor"):
            numpy_gpt2.load("owner/model")

    def test_a_vocabulary_that_does_not_fit_is_refused_before_the_weights(self, hub: Hub) -> None:
        merges = hub.repositories["owner/model"]["merges.txt"].splitlines(keepends=True)
        hub.put("owner/model", "merges.txt", b"".join(merges[:-5]))
        with pytest.raises(ValueError, match="merges.txt in .* do not make a tokenizer"):
            numpy_gpt2.load("owner/model")
        assert repositories() == []
        assert "/owner/model/resolve/main/model.safetensors" not in paths(hub)

    def test_a_large_file_that_is_much_too_large_is_not_fetched(
        self, hub: Hub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("numpy_gpt2.hub.files.MOST", 500_000)
        hub.put("owner/model", "model.safetensors", bytes(2_000_000))
        with pytest.raises(ValueError, match="model.safetensors has 2,000,000 bytes, but must have at most"):
            numpy_gpt2.load("owner/model")
        assert hub.elsewhere_store.of("/elsewhere/owner/model/resolve/main/model.safetensors") == []


class TestRefusals:
    @pytest.mark.parametrize(
        ("name", "complaint"),
        [
            (
                "owner/nothing",
                "owner/nothing is not a folder here, .*401 .*: there is no such repository, or it is pri",
            ),
            ("owner/private", "there is no such repository, or it is private: then HF_TOKEN must be"),
            ("owner/gated", "401 .*: its authors give access on request: .* set HF_TOKEN"),
            ("owner/model@v2", "404 .*: the repository has no such revision"),
        ],
    )
    def test_each_has_its_sentence(self, hub: Hub, name: str, complaint: str, tmp_path: Path) -> None:
        with pytest.raises(OSError, match=complaint):
            numpy_gpt2.load(name)
        assert not (tmp_path / "models").exists()

    def test_a_token_that_the_hub_does_not_know(self, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_old")
        with pytest.raises(OSError, match="401 .*: it does not accept the token.*hf auth login`: renew"):
            numpy_gpt2.load("owner/model")

    @pytest.mark.parametrize("name", ["owner/gated", "owner/private"])
    @pytest.mark.parametrize("place", ["HF_TOKEN", "file"])
    def test_with_the_token_they_arrive(
        self, hub: Hub, own: GPT2, name: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if place == "file":  # where `hf auth login` puts it
            (tmp_path / "huggingface").mkdir()
            (tmp_path / "huggingface" / "token").write_text("hf_secret\n")
        else:
            monkeypatch.setenv("HF_TOKEN", "hf_secret")
        np.testing.assert_array_equal(numpy_gpt2.load(name).logits(IDS), own.logits(IDS))

    def test_the_token_goes_to_the_hub_alone(self, hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login somebody password else\n")
        monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
        download("owner/gated")
        assert {request.authorization for request in hub.requests} == {"Bearer hf_secret"}
        assert hub.elsewhere_store.requests
        assert "Bearer hf_secret" not in {request.authorization for request in hub.elsewhere_store.requests}

    def test_the_token_does_not_go_to_a_mirror(self, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        mirror = Store(files={f"/owner/model/{n}": c for n, c in hub.repositories["owner/model"].items()})
        with serving(mirror) as url:
            download("owner/model", base_url=url)
        assert {request.authorization for request in mirror.requests} == {None}
        assert hub.requests == []

    def test_a_token_that_cannot_be_one_is_not_shown(self, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf secret")
        with pytest.raises(ValueError, match="HF_TOKEN or .* has characters that no token has") as caught:
            numpy_gpt2.load("owner/model")
        assert "hf secret" not in str(caught.value)


def test_the_progress_is_said(
    hub: Hub, own_files: dict[str, bytes], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with caplog.at_level(logging.INFO):
        download("owner/model")
    amount = f"{sum(map(len, own_files.values())) / 1000:.0f}kB"
    assert [message.split(" from ")[0] for message in caplog.messages] == [f"fetching {amount} of owner/model"]
