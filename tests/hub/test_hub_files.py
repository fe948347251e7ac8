"""Whether files are what their names say: a page of a proxy never is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import random_model
from model_files import HPARAMS, openai_variables, write_tensorflow_checkpoint

import numpy_gpt2
from numpy_gpt2.hub.files import (
    HUB_FILES,
    OPENAI_DATA,
    OPENAI_FILES,
    OPENAI_INDEX,
    READERS,
    TABLE_MAGIC,
    check,
    complaints,
    sizes,
)
from numpy_gpt2.hub.names import model_folder
from numpy_gpt2.params import count_params

PAGES = [
    b"<!DOCTYPE html>\n<html><head><title>Log in</title></head><body>Please log in.</body></html>\n",
    b"\xef\xbb\xbf\r\n<html>\r\n",
    b"please log in\n",
    b"",
    b"\x1f\x8b\x08\x00compressed",
    b'{"error": "please log in"}',
]


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """The files of a model of either kind, with a small vocabulary of its own, that of tiny."""
    model = random_model(HPARAMS, "float32")
    model.tokenizer = numpy_gpt2.load("tiny").tokenizer
    folder = tmp_path_factory.mktemp("saved")
    numpy_gpt2.save(model, folder)
    openai = {
        "hparams.json": json.dumps(HPARAMS._asdict()).encode(),
        **{name: (model_folder("tiny") / name).read_bytes() for name in ("encoder.json", "vocab.bpe")},
        "checkpoint": b'model_checkpoint_path: "model.ckpt"\n',
        OPENAI_INDEX: bytes(100) + TABLE_MAGIC,
        OPENAI_DATA: bytes(4 * count_params(HPARAMS)),
    }
    return {"hub": {name: (folder / name).read_bytes() for name in HUB_FILES}, "OpenAI": openai}


@pytest.fixture(params=["hub", "OpenAI"])
def files(request: pytest.FixtureRequest, contents: dict[str, dict[str, bytes]], tmp_path: Path) -> list[Path]:
    """The files of one of the two models, in a folder."""
    for name, content in contents[request.param].items():
        (tmp_path / name).write_bytes(content)
    return [tmp_path / name for name in contents[request.param]]


def wrong(files: list[Path]) -> list[str]:
    return [*complaints(files[0].parent, [file.name for file in files], verify=False)]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_in_place_of_a_file(files: list[Path], page: bytes) -> None:
    for file in files:
        sound = file.read_bytes()
        file.write_bytes(page)
        assert file.name in wrong(files)
        file.write_bytes(sound)
    assert wrong(files) == []


@pytest.mark.parametrize("name", sorted({*READERS} - {*HUB_FILES, *OPENAI_FILES}))
def test_a_page_in_place_of_a_file_that_other_models_have(tmp_path: Path, name: str) -> None:
    for page in PAGES[:-1]:
        (tmp_path / name).write_bytes(page)
        hint = "; the server sent a web page, perhaps to log in" if b"<html>" in page else ""
        with pytest.raises(ValueError, match=f"^{name} [^;]*{hint}$"):
            check(tmp_path / name, name, verify=False)


def test_files_that_are_missing_or_cut_short(files: list[Path]) -> None:
    for file in files:
        sound = file.read_bytes()
        file.unlink()
        assert wrong(files) == [file.name]
        file.write_bytes(sound[: len(sound) // 2])
        assert file.name in wrong(files)
        file.write_bytes(sound)


def test_files_that_do_not_fit_one_another_are_all_named(files: list[Path]) -> None:
    content = json.loads(files[0].read_text())
    files[0].write_text(json.dumps({**content, "n_layer": 3}))
    assert wrong(files) == [files[0].name, files[-1].name]


def test_a_configuration_with_another_vocabulary_is_not_that_of_gpt2(files: list[Path]) -> None:
    with pytest.raises(ValueError, match=f"{files[0].name} is not that of GPT-2"):
        check(files[0], files[0].name, verify=True)
    check(files[0], files[0].name, verify=False)


def test_the_index_of_tensorflows_own_writer_is_accepted(tmp_path: Path) -> None:
    write_tensorflow_checkpoint(tmp_path, openai_variables(random_model(HPARAMS, "float32")))
    for name in ("model.ckpt.index", "checkpoint", OPENAI_DATA):
        check(tmp_path / name, name, verify=True)


def test_the_sizes_that_a_file_may_have(files: list[Path]) -> None:
    assert {sizes(file) for file in files[:-1]} == {range(2**26)}
    assert files[-1].stat().st_size in sizes(files[-1])
