"""Weights files: cut, swapped, transposed, lost, doubled, not finite; refused with file, key, expected and found."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layertap.checkpoints.load import POOLER, open_model
from layertap.checkpoints.source import locate
from layertap.errors import ConfigError, TokenizerError, WeightsError
from layertap.models.spec import EncoderSpec
from tests.zoo.damage import Arrays, arrays, config

FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"

Header = dict[str, Any]


@pytest.fixture(scope="module")
def spec(sound: Path) -> EncoderSpec:
    return open_model(locate(sound)).spec


@pytest.fixture(scope="module")
def names(spec: EncoderSpec) -> list[str]:
    return list(spec.parameters())


def header(edit: Callable[[Header], object], file: str = FILE) -> Callable[[Path], None]:
    """Damage to the header of a file; the data stay as they are."""

    def damage(folder: Path) -> None:
        content = (folder / file).read_bytes()
        end = 8 + int.from_bytes(content[:8], "little")
        found = json.loads(content[8:end])
        text = json.dumps(edit(found) or found).encode()
        (folder / file).write_bytes(len(text).to_bytes(8, "little") + text + content[end:])

    return damage


def cut(size: int, file: str = FILE) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:size])


def test_a_sound_checkpoint_loads(sound, sound_shards, load_strictly):
    for folder in (sound, sound_shards):
        opened = load_strictly(folder)
        assert opened.files.missing == opened.files.unused_keys == ()


def test_cut_at_every_boundary_of_the_header(cage, sound):
    content = (sound / FILE).read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    sizes = {*range(9), *(8 + found.start() for found in re.finditer(rb'[{}\[\]:,"]', content[8:end])), end}
    offsets = {entry["data_offsets"][0] for key, entry in json.loads(content[8:end]).items() if key != "__metadata__"}
    sizes |= {end + offset for offset in offsets} | {len(content) - 1}
    for size in sorted(sizes):
        cage.refuses(sound, cut(size), error=WeightsError, says=[FILE, "expected", "found"], label=size)


def test_bytes_too_many(cage, sound):
    for more in (b"\0", b"\0" * 4096):
        cage.refuses(
            sound,
            lambda folder, more=more: (folder / FILE).write_bytes((folder / FILE).read_bytes() + more),
            error=WeightsError,
            says=[FILE, "expected", "found"],
        )


def test_another_dtype_in_the_header(cage, sound, names):
    for name in names:
        # the same number of bytes: integers, complex numbers would be half as many values
        for dtype in ("I32", "U32"):
            cage.refuses(
                sound,
                header(lambda h, name=name, dtype=dtype: h[name].update(dtype=dtype)),
                error=WeightsError,
                says=[FILE, f"{name}: expected one of F64, F32, F16, BF16, found {dtype}"],
                label=(name, dtype),
            )
        for dtype, found in (("F16", "expected"), ("BF16", "expected"), ("F64", "expected"), ("F33", "found 'F33'")):
            cage.refuses(
                sound,
                header(lambda h, name=name, dtype=dtype: h[name].update(dtype=dtype)),
                error=WeightsError,
                says=[FILE, f"{name}: expected", found, "found"],
                label=(name, dtype),
            )


def test_another_dtype_with_a_shape_to_match(cage, sound, spec):
    for name, shape in spec.parameters().items():
        wide = [*shape[:-1], 2 * shape[-1]]
        cage.refuses(
            sound,
            header(lambda h, name=name, wide=wide: h[name].update(dtype="F16", shape=wide)),
            error=WeightsError,
            says=[FILE, f"{name}: expected shape {list(shape)}", f"found {wide}"],
            label=name,
        )


def test_values_of_another_dtype(cage, sound, names):
    for name in names:
        for dtype, found in ((np.int64, "I64"), (np.int8, "I8"), (np.bool_, "BOOL"), (np.complex64, "C64")):
            cage.refuses(
                sound,
                arrays(lambda a, name=name, dtype=dtype: a.update({name: a[name].astype(dtype)})),
                error=WeightsError,
                says=[FILE, f"{name}: expected one of F64, F32, F16, BF16, found {found}"],
                label=(name, found),
            )


def test_transposed_matrices(cage, sound, spec):
    oblong = {name: shape for name, shape in spec.parameters().items() if len(shape) == 2 and shape[0] != shape[1]}
    assert len(oblong) >= 2 * spec.num_hidden_layers + 3
    for name, shape in oblong.items():
        cage.refuses(
            sound,
            arrays(lambda a, name=name: a.update({name: np.ascontiguousarray(a[name].T)})),
            error=WeightsError,
            says=[FILE, f"{name}: expected shape {list(shape)}", f"found {list(shape[::-1])}"],
            label=name,
        )


def test_other_shapes(cage, sound, spec):
    for name, shape in spec.parameters().items():
        for found in ((shape[0] + 1, *shape[1:]), (shape[0] - 1, *shape[1:]), (*shape, 1), (1, *shape), (0,), ()):
            cage.refuses(
                sound,
                arrays(lambda a, name=name, found=found: a.update({name: np.ones(found, np.float32)})),
                error=WeightsError,
                says=[FILE, f"{name}: expected shape {list(shape)}", f"found {list(found)}"],
                label=(name, found),
            )


def test_lost_weights(cage, sound, spec):
    for name, shape in spec.parameters().items():
        half = [f"{name}: expected beside"] if name in POOLER else [f"{name}: expected a weight of shape {list(shape)}"]
        says = [f"{name}: expected for"] if name == "embeddings.word_embeddings.weight" else half
        cage.refuses(
            sound, arrays(lambda a, name=name: a.pop(name)), error=WeightsError, says=[*says, "found"], label=name
        )


def test_renamed_weights(cage, sound, names):
    for name in names:
        for other in (f"{name}_", name.upper(), f"model.{name}", name.replace(".", "_"), name[1:]):
            # what may stand in its place is named, but for the word table, without which nothing is known
            named = [other] if name.startswith("encoder.") else []
            cage.refuses(
                sound,
                arrays(lambda a, name=name, other=other: a.update({other: a.pop(name)})),
                error=WeightsError,
                says=[name, *named, "expected", "found"],
                label=(name, other),
            )


def renumbered(numbers: dict[int, int]) -> Callable[[Arrays], None]:
    """Copies of blocks under other numbers; a number that is not named is dropped."""

    def edit(found: Arrays) -> None:
        blocks = {key: found.pop(key) for key in list(found) if key.startswith("encoder.layer.")}
        for new, old in numbers.items():
            for key, array in blocks.items():
                if key.startswith(f"encoder.layer.{old}."):
                    found[key.replace(f"layer.{old}.", f"layer.{new}.", 1)] = array.copy()

    return edit


@pytest.mark.parametrize(
    ("blocks", "found"),
    [
        ({}, "found no encoder.layer"),
        ({0: 0}, "found encoder.layer.0 to encoder.layer.0"),
        ({0: 0, 1: 1, 2: 0}, "found encoder.layer.0 to encoder.layer.2"),
        ({0: 0, 2: 1}, "found encoder.layer.0 to encoder.layer.2"),
        ({0: 0, 999999999: 1}, "found encoder.layer.0 to encoder.layer.999999999"),
    ],
)
def test_layers_too_few_and_too_many(cage, sound, blocks, found):
    cage.refuses(
        sound,
        arrays(renumbered(blocks)),
        error=WeightsError,
        says=["expected num_hidden_layers 2", found],
        label=blocks,
    )


def test_a_lost_first_layer(cage, sound):
    cage.refuses(
        sound,
        arrays(renumbered({1: 1})),
        error=WeightsError,
        says=["encoder.layer.0.attention.self.query.weight: expected a weight of shape [16, 16], found none"],
    )


@pytest.mark.parametrize(
    "key", ["encoder.layer.0.attention.self.distance_embedding.weight", "encoder.layer.01.output.dense.bias"]
)
def test_weights_that_the_encoder_has_no_place_for(cage, sound, key):
    cage.refuses(
        sound,
        arrays(lambda a: a.update({key: np.ones(3, np.float32)})),
        error=WeightsError,
        says=[FILE, f"{key}: expected only weights of", "found one that it does not have, F32 [3]"],
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite(cage, sound, names, bad):
    for name in names:
        for place in (0, -1):
            cage.refuses(
                sound,
                arrays(lambda a, name=name, place=place: a[name].reshape(-1).__setitem__(place, bad)),
                error=WeightsError,
                says=[FILE, f"{name}: expected finite float32 values, found NaN or infinity"],
                label=(name, bad, place),
            )


def test_beyond_float32(cage, sound, names):
    for name in names:
        cage.refuses(
            sound,
            arrays(lambda a, name=name: a.update({name: np.full(a[name].shape, 1e39)})),
            error=WeightsError,
            says=[FILE, f"{name}: expected finite float32 values, found NaN or infinity"],
            label=name,
        )


@pytest.mark.parametrize("more", [1, 64, 30000, -1])
def test_another_vocabulary_size(cage, sound, family, spec, more):
    # the last id of RoBERTa's is an added token, which refuses texts and not the model
    rows = spec.vocab_size + more - (more < 0 and family == "roberta")
    # fewer rows than the tokenizer has ids: the tokenizer goes first
    says = (
        ["tokenizer.json", f"table of {rows}", f"id {rows}"]
        if more < 0
        else [
            FILE,
            f"embeddings.word_embeddings.weight: expected shape [{rows}, 16]",
            f"found [{spec.vocab_size}, 16]",
        ]
    )
    error = TokenizerError if more < 0 else WeightsError
    cage.refuses(sound, config(vocab_size=rows), error=error, says=says)


def test_tables_of_another_size_than_the_config_says(cage, sound, spec):
    for field, key in (("max_position_embeddings", "position"), ("type_vocab_size", "token_type")):
        shape = spec.parameters()[f"embeddings.{key}_embeddings.weight"]
        cage.refuses(
            sound,
            config(**{field: shape[0] + 1}),
            error=WeightsError,
            says=[
                FILE,
                f"embeddings.{key}_embeddings.weight: expected shape [{shape[0] + 1}, 16]",
                f"found {list(shape)}",
            ],
        )


def test_token_ids_beyond_the_table(cage, sound, spec):
    def add(token: str) -> Callable[[Path], None]:
        def damage(folder: Path) -> None:
            path = folder / "tokenizer.json"
            values = json.loads(path.read_text())
            vocab = values["model"]["vocab"]  # an added token alone refuses texts, not the model
            if isinstance(vocab, dict):
                vocab[token] = spec.vocab_size
            else:
                vocab += [[f"unused{i}", 0.0] for i in range(len(vocab), spec.vocab_size)] + [[token, 0.0]]
            path.write_text(json.dumps(values))

        return damage

    for token in ("zebra", "[NEW]"):
        cage.refuses(
            sound,
            add(token),
            error=TokenizerError,
            says=["tokenizer.json", f"table of {spec.vocab_size}", f"{token!r} with id {spec.vocab_size}"],
        )


def index(edit: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        values = json.loads((folder / INDEX).read_text())
        edit(values["weight_map"])
        (folder / INDEX).write_text(json.dumps(values))

    return damage


def test_a_missing_shard(cage, sound_shards):
    shards = sorted(path.name for path in sound_shards.glob("model-*.safetensors"))
    assert len(shards) == 3
    for shard in shards:
        cage.refuses(
            sound_shards,
            lambda folder, shard=shard: (folder / shard).unlink(),
            error=WeightsError,
            says=[INDEX, f"expected the file {shard} beside it, found none"],
        )
    cage.refuses(
        sound_shards,
        index(lambda weight_map: weight_map.update({"encoder.layer.0.output.dense.bias": "other.safetensors"})),
        error=WeightsError,
        says=[INDEX, "expected the file other.safetensors beside it, found none"],
    )


@pytest.mark.parametrize(
    "file",
    [
        "../x.safetensors",
        "/etc/passwd",
        "..",
        ".",
        "",
        "a/../b",
        "a\\b",
        "c:x",
        "*.safetensors",
        "a\nb",
        "x" * 300,
        3,
        None,
    ],
)
def test_an_index_that_leads_outside(cage, sound_shards, file):
    key = "encoder.layer.0.output.dense.bias"
    cage.refuses(
        sound_shards,
        index(lambda weight_map: weight_map.update({key: file})),
        error=WeightsError,
        says=[INDEX, f"{key}: expected the name of a file beside the index, found"],
        label=file,
    )


def test_keys_that_their_shard_does_not_hold(cage, sound_shards):
    for key in json.loads((sound_shards / INDEX).read_text())["weight_map"]:

        def elsewhere(weight_map: dict[str, str], key: str = key) -> None:
            weight_map[key] = next(file for file in weight_map.values() if file != weight_map[key])

        cage.refuses(
            sound_shards,
            index(elsewhere),
            error=WeightsError,
            says=[".safetensors: " + key, f"expected by {INDEX}, found none"],
            label=key,
        )


def test_cut_shards(cage, sound_shards):
    for path in sorted(sound_shards.glob("model-*.safetensors")):
        for size in (0, 7, 100, path.stat().st_size // 2, path.stat().st_size - 1):
            cage.refuses(
                sound_shards,
                cut(size, path.name),
                error=WeightsError,
                says=[path.name, "expected", "found"],
                label=size,
            )


def test_a_cut_index(cage, sound_shards):
    text = (sound_shards / INDEX).read_bytes()
    for found in re.finditer(rb"[{}:,]", text):
        cage.refuses(sound_shards, cut(found.start(), INDEX), error=ConfigError, says=[INDEX, "line"], label=found)


def test_an_index_without_a_weight_map(cage, sound_shards):
    for text in ("{}", '{"weight_map": {}}', '{"weight_map": []}', '{"weight_map": null}'):
        cage.refuses(
            sound_shards,
            lambda folder, text=text: (folder / INDEX).write_text(text),
            error=WeightsError,
            says=[INDEX, "expected a weight_map of keys to file names", "found"],
            label=text,
        )


def test_keys_that_stand_twice_in_a_header(cage, sound, names):
    def double(name: str) -> Callable[[Path], None]:
        def damage(folder: Path) -> None:
            content = (folder / FILE).read_bytes()
            end = 8 + int.from_bytes(content[:8], "little")
            entry = json.dumps(json.loads(content[8:end])[name]).encode()
            text = content[8:end].rstrip()[:-1] + b', "' + name.encode() + b'": ' + entry + b"}"
            (folder / FILE).write_bytes(len(text).to_bytes(8, "little") + text + content[end:])

        return damage

    for name in names:
        cage.refuses(
            sound, double(name), error=WeightsError, says=[FILE, f"'{name}': expected once, found twice"], label=name
        )


def test_one_weight_under_two_keys(cage, sound, family, names):
    for name in names:
        doubles = [f"{family}.{name}"]
        doubles += [name.replace(".weight", ".gamma").replace(".bias", ".beta")] if "LayerNorm" in name else []
        for other in doubles:
            cage.refuses(
                sound,
                arrays(lambda a, name=name, other=other: a.update({other: a[name].copy()})),
                error=WeightsError,
                says=[name, other, f"expected one of them, both are {name}"],
                label=other,
            )


def test_a_key_in_two_shards(cage, sound_shards):
    files = sorted(path.name for path in sound_shards.glob("model-*.safetensors"))

    def stray(folder: Path) -> None:
        for file in files[:2]:
            arrays(lambda a: a.update({"stray": np.ones(2, np.float32)}), file)(folder)

    cage.refuses(sound_shards, stray, error=WeightsError, says=[files[1], "stray: expected once, found in two shards"])


def test_overlaps_and_gaps(cage, sound, names):
    for name in names[1:]:
        for by in (-4, 4):

            def move(found: Header, name: str = name, by: int = by) -> None:
                found[name]["data_offsets"] = [offset + by for offset in found[name]["data_offsets"]]

            cage.refuses(sound, header(move), error=WeightsError, says=[FILE, "expected", "found"], label=(name, by))


def test_absurd_headers(cage, sound, names):
    name = names[0]
    for field, values in {
        "shape": ([-1], [2**70], [1.5], "x", None, [[1]], [1] * 40, [2**62, 2**62], {}),
        "data_offsets": ([0], [-4, 0], [0, 10**12], [8, 4], None, "x", [0, 1, 2], [0.0, 1.0], [True, False]),
        "dtype": (None, 3, "", "f32", "F32 ", [], {}),
    }.items():
        for value in values:
            cage.refuses(
                sound,
                header(lambda h, field=field, value=value: h[name].update({field: value})),
                error=WeightsError,
                says=[FILE, "expected", "found"],
                label=(field, value),
            )


def test_files_of_another_kind(cage, sound):
    contents = (
        b"",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 90868376\n",
        b"<html>",
        b"PK\3\4",
    )
    for content in (*contents, b"\xff" * 64, b"\0" * 64, b"\x80\x02}q\x00."):
        cage.refuses(
            sound,
            lambda folder, content=content: (folder / FILE).write_bytes(content),
            error=WeightsError,
            says=[FILE],
            label=content,
        )
    cage.refuses(
        sound,
        lambda folder: (folder / FILE).rename(folder / "tf_model.h5"),
        error=WeightsError,
        says=[f"expected {FILE}", "found tf_model.h5"],
    )
    cage.refuses(
        sound,
        lambda folder: (folder / FILE).rename(folder / "pytorch_model.bin"),
        error=WeightsError,
        says=["no model.safetensors, only pytorch_model.bin", "--allow-pickle"],
    )
