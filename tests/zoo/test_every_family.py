"""Every row of the conformance suite through the zoo: checkpoints as transformers saves them, broken key by key.

What the other files of this room do to two families in every detail is done here to all of them, as far as it needs
to know nothing of a family: keys, shapes and configs are those of its checkpoint.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.numpy import load_file

from layertap.checkpoints.load import POOLER, ModelFiles, open_model
from layertap.checkpoints.source import locate
from layertap.errors import CheckpointError, ConfigError, WeightsError
from tests.conformance.test_families import ROWS
from tests.selection import stress_except
from tests.tiny_models import save_model, wordpiece_tokenizer
from tests.zoo.damage import Arrays, arrays, config
from tests.zoo.test_fuzz import mutated, ours, spec_of

FILE, CONFIG = "model.safetensors", "config.json"
CONFIGS = 20_000
FOLDERS = 1_000
IMPOSSIBLE: list[Any] = [-1, 10**400, "16", [16], {}, float("nan")]


USUAL = ("RoBERTa", "ModernBERT")
SLOW = ("DistilBERT", "ALBERT, groups", "GTE", "DeBERTa-v2")


@pytest.fixture(scope="module", params=stress_except(ROWS, usual=USUAL, slow=SLOW))
def row(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="module")
def sound(row: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the row with a tokenizer that is taken as it stands; nobody changes it."""
    tokenizer = wordpiece_tokenizer()
    module = row.random_model(dict(row.small) | {"vocab_size": tokenizer.get_vocab_size()})
    return save_model(tmp_path_factory.mktemp("zoo") / "sound", module, tokenizer)


@pytest.fixture(scope="module")
def files(sound: Path) -> ModelFiles:
    return open_model(locate(sound))


@pytest.fixture(scope="module")
def keys(sound: Path) -> list[str]:
    """Of every table and norm, and of one block, the second; the others are like it."""
    found = [(key, re.search(r"\.([0-9]+)\.", key)) for key in load_file(sound / FILE)]
    blocks = {number[1] for _, number in found if number}
    return [key for key, number in found if number is None or number[1] == "1" or "1" not in blocks]


def test_a_sound_checkpoint_loads(sound, load_strictly):
    opened = load_strictly(sound)
    assert opened.files.missing == opened.files.unused_keys == opened.files.faults == ()


def test_lost_and_renamed_weights(cage, sound, keys):
    for key in keys:
        cage.refuses(sound, arrays(lambda a, key=key: a.pop(key)), error=WeightsError, says=["expected"], label=key)
        # (a pooler of which nothing is left is an absent one, and what has another name is reported)
        for name in (f"{key}x", f"x.{key}"):
            cage.refuses(
                sound,
                arrays(lambda a, key=key, name=name: a.update({name: a.pop(key)})),
                error=WeightsError,
                says=["expected"],
                label=name,
            )


def test_other_shapes(cage, sound, keys):
    found = load_file(sound / FILE)
    for key in keys:
        array = found[key]
        shapes = {"more": np.concatenate([array, array[:1]]), "fewer": array[:-1], "flat": array.reshape(-1, 1)}
        if array.ndim == 2 and array.shape[0] != array.shape[1]:
            shapes["transposed"] = array.T.copy()
        for what, other in shapes.items():
            cage.refuses(
                sound,
                arrays(lambda a, key=key, other=other: a.update({key: other})),
                error=WeightsError,
                says=["expected", "found"],
                label=(key, what),
            )


def test_other_dtypes_and_values(cage, sound, keys):
    for key in keys:
        for what, other, says in (
            ("whole numbers", lambda a: a.astype(np.int64), "found I64"),
            ("not a number", lambda a: np.where(np.arange(a.size).reshape(a.shape) == a.size - 1, np.nan, a), "NaN"),
            ("infinity", lambda a: np.where(np.arange(a.size).reshape(a.shape) == 0, -np.inf, a), "NaN or infinity"),
        ):

            def damage(a: Arrays, key: str = key, other: Callable[[np.ndarray], np.ndarray] = other) -> None:
                a[key] = other(a[key]) if a[key].dtype == np.float32 else a[key]
                a[key] = a[key].astype(np.float32) if a[key].dtype == np.float64 else a[key]

            cage.refuses(sound, arrays(damage), error=WeightsError, says=[FILE, key, says], label=(key, what))


def test_weights_that_the_encoder_has_no_place_for(cage, sound, keys):
    parents = {key.rpartition(".")[0] for key in keys} | {key.rpartition(".")[0].rpartition(".")[0] for key in keys}
    for parent in sorted(parents - {""}):
        for name in (f"{parent}.lora_A.weight", f"{parent}.extra.bias", f"{parent}.scale"):
            if name not in keys:
                cage.refuses(
                    sound,
                    arrays(lambda a, name=name: a.update({name: np.ones(3, np.float32)})),
                    error=WeightsError,
                    says=[name, "expected"],
                    label=name,
                )


def test_weights_under_two_keys(cage, sound, files, keys):
    prefix = files.architecture.key_rules[0].stored.removesuffix("*")
    for key in keys:
        cage.refuses(
            sound,
            arrays(lambda a, key=key: a.update({prefix + key: a[key].copy()})),
            error=WeightsError,
            says=[key, prefix + key, "expected one of them"],
            label=key,
        )


def test_layers_too_few_and_too_many(cage, sound, files):
    if files.spec.blocks:
        pytest.skip("layers that share their weights leave no trace of their number")
    values = files.config
    (field,) = [name for name in ("num_hidden_layers", "n_layers", "n_layer") if name in values]
    for layers in (1, values[field] - 1, values[field] + 1, 500):
        cage.refuses(sound, config(**{field: layers}), says=["expected", "found"], label=layers)


def test_impossible_values_of_every_field_that_is_read(cage, sound, files):
    """A value that the family's config cannot have is refused, or nothing of the encoder depends on it."""
    for field, value in files.config.items():
        for other in IMPOSSIBLE if value is not None else []:
            if field in ("architectures", "auto_map") or type(other) is type(value):
                continue
            try:
                same = spec_of(files.config | {field: other}) == files.spec
            except ConfigError:
                same = False
            if not same:
                cage.refuses(sound, config(**{field: other}), says=[field], label=(field, other))


def test_cut_files(cage, sound):
    size = (sound / FILE).stat().st_size
    source = random.Random(0)
    for length in (0, 7, 8, 100, *(source.randrange(size) for _ in range(10)), size - 1):
        cage.refuses(
            sound,
            lambda folder, length=length: (folder / FILE).write_bytes((folder / FILE).read_bytes()[:length]),
            error=WeightsError,
            says=[FILE, "expected"],
            label=length,
        )


def test_half_a_pooler(cage, sound, files):
    if files.pooler == "absent":
        pytest.skip("this architecture has none")
    for name in POOLER:
        key = files.tensors[name].key
        cage.refuses(sound, arrays(lambda a, key=key: a.pop(key)), error=WeightsError, says=["expected beside"])


def test_fuzzed_configs(row, files, count, cases):
    source = random.Random(f"configs {row.name}")
    number = cases(CONFIGS // len(ROWS))
    refused = 0
    for _ in range(number):
        case = mutated(files.config, source, tuple(files.config))
        if isinstance(case, dict):
            refused += ours(lambda case=case: spec_of(case), case)
    count.fuzzed += number
    assert 0.02 * number < refused < 0.999 * number


def test_fuzzed_folders(row, sound, files, count, cases, load_strictly, tmp_path):
    """Configs that are accepted with these weights, or refused; nothing else comes out."""
    import shutil

    folder = Path(shutil.copytree(sound, tmp_path / "m"))
    source = random.Random(f"folders {row.name}")
    number = cases(FOLDERS // len(ROWS))
    for _ in range(number):
        case = mutated(files.config, source, tuple(files.config))
        (folder / CONFIG).write_text(json.dumps(case))
        ours(lambda: load_strictly(folder), case, CheckpointError)
    count.fuzzed += number
