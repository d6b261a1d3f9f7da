"""Git-LFS pointers in place of files: each is called what it is."""

from __future__ import annotations

import shutil

import pytest

from layertap.engine.opening import open_reference
from layertap.engine.options import ModelReference
from layertap.errors import ConfigError, LayertapError, TokenizerError, WeightsError
from layertap.git_lfs import pointer_in_place

POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db\n"
    b"size 90868376\n"
)


def opened(folder, *, allow_pickle=False):
    return open_reference(
        ModelReference(
            name=str(folder), revision=None, cache_dir=None, local_files_only=True, allow_pickle=allow_pickle
        )
    )


def refused(folder, error: type[LayertapError], file: str, **options) -> None:
    with pytest.raises(error) as caught:
        opened(folder, **options)
    assert str(caught.value) == (
        f"{folder / file}: expected the file itself, found a git-LFS pointer to one of 90,868,376 bytes: run "
        "`git lfs pull` in the clone (git-lfs has to be installed), or download the file from the hub"
    )


@pytest.mark.parametrize(
    ("file", "error"),
    [
        ("config.json", ConfigError),
        ("model.safetensors", WeightsError),
        ("tokenizer.json", TokenizerError),
        ("tokenizer_config.json", TokenizerError),
    ],
)
def test_a_pointer_in_place_of_a_file(tmp_path, make_checkpoint, file, error):
    folder = make_checkpoint(tmp_path / "m")
    (folder / file).write_bytes(POINTER)
    refused(folder, error, file)


def test_in_place_of_shards_and_their_index(tmp_path, make_checkpoint):
    folder = make_checkpoint(tmp_path / "m", shards=2)
    (folder / "model-00002-of-00002.safetensors").write_bytes(POINTER)
    refused(folder, WeightsError, "model-00002-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_bytes(POINTER)
    refused(folder, ConfigError, "model.safetensors.index.json")


def test_in_place_of_a_pickle_file(tmp_path, make_checkpoint):
    pytest.importorskip("torch")
    folder = make_checkpoint(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(POINTER)
    refused(folder, WeightsError, "pytorch_model.bin", allow_pickle=True)


@pytest.mark.parametrize("files", [("vocab.txt",), ("vocab.json", "merges.txt")])
def test_in_place_of_vocabularies(tmp_path, make_checkpoint, files):
    folder = make_checkpoint(tmp_path / "m", "bert" if len(files) == 1 else "roberta")
    (folder / "tokenizer.json").unlink()
    for file in files:
        for other in files:
            (folder / other).write_text('{"<s>": 0, "</s>": 1, "<unk>": 2}' if other.endswith("json") else "")
        (folder / file).write_bytes(POINTER)
        refused(folder, TokenizerError, file)


def test_what_is_none(tmp_path, make_checkpoint):
    for start in (b"", b"version 2", b"\x08\0\0\0\0\0\0\0{}", b" " + POINTER):
        assert pointer_in_place(tmp_path, start) is None
    shown = pointer_in_place(tmp_path, b"version https://git-lfs.github.com/spec/v1\nsize " + b"9" * 40)
    assert shown is not None
    assert "a git-LFS pointer to one: run" in shown
    opened(shutil.copytree(make_checkpoint(tmp_path / "m"), tmp_path / "copy"))
