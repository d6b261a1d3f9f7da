"""The cache of `TextFeatures`: one extraction, several processes, damage."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed (extra: learn)")

from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from layertap.errors import OutputError
from layertap.files.staging import Staging
from layertap.learn import TextFeatures
from layertap.learn.vectors import sweep
from layertap.learn.vectors.cache import CacheKey, text_hash

TEXTS = [f"the film number {i} was {'good' if i % 2 else 'bad'}" for i in range(30)]
LABELS = np.array([i % 2 for i in range(30)])
LAYERS = [f"hidden_states[{i}].mean" for i in range(4)]


def shards(cache: Path) -> list[Path]:
    return sorted(cache.glob("*/*.safetensors"))


def search_of(model: str, cache: Path, **options) -> GridSearchCV:
    pipeline = make_pipeline(TextFeatures(model=model, cache=cache, sweep=LAYERS), LogisticRegression())
    return GridSearchCV(pipeline, {"textfeatures__feature": LAYERS}, cv=3, **options)


def test_a_search_over_layers_costs_one_extraction(model, tmp_path, runs):
    search_of(model, tmp_path).fit(TEXTS, LABELS)
    assert runs.sequences == len(TEXTS)
    assert set(runs.stops) == {3}
    search_of(model, tmp_path).fit(TEXTS, LABELS)
    assert runs.sequences == len(TEXTS)


def test_without_a_sweep_each_feature_costs_its_own(model, tmp_path, runs):
    for layer in LAYERS:
        TextFeatures(layer, model=model, cache=tmp_path).transform(TEXTS)
    assert runs.sequences == len(LAYERS) * len(TEXTS)
    assert set(runs.stops) == {0, 1, 2, 3}


def test_a_search_in_two_processes_extracts_each_text_once(model, tmp_path):
    search = search_of(model, tmp_path, n_jobs=2, pre_dispatch="all").fit(TEXTS, LABELS)
    serial = search_of(model, tmp_path).fit(TEXTS, LABELS)
    np.testing.assert_array_equal(search.cv_results_["mean_test_score"], serial.cv_results_["mean_test_score"])
    stored = {
        folder.name: sum(len(rows_of(path)) for path in folder.glob("*.safetensors")) for folder in folders(tmp_path)
    }
    assert len(stored) == len(LAYERS)
    assert set(stored.values()) == {len(TEXTS)}


def folders(cache: Path) -> list[Path]:
    return [path for path in cache.iterdir() if path.is_dir()]


def rows_of(path: Path) -> np.ndarray:
    from safetensors.numpy import load_file

    return load_file(path)["texts"]


def test_threads_take_turns(model, tmp_path, runs):
    features = TextFeatures(model=model, cache=tmp_path, sweep=LAYERS)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda layer: clone(features).set_params(feature=layer).transform(TEXTS), LAYERS))
    assert runs.sequences == len(TEXTS)
    for layer, vectors_ in zip(LAYERS, found, strict=True):
        np.testing.assert_allclose(vectors_, TextFeatures(layer, model=model).transform(TEXTS), rtol=1e-5, atol=1e-5)


def test_texts_are_kept_one_by_one(model, tmp_path, runs):
    features = TextFeatures(LAYERS[1], model=model, cache=tmp_path)
    first = features.transform([*TEXTS[:20], *TEXTS[:20]])
    assert runs.sequences == 20
    later = features.transform(TEXTS[::-1])
    assert runs.sequences == 30
    np.testing.assert_array_equal(later[::-1][:20], first[:20])
    np.testing.assert_array_equal(first[:20], first[20:])
    assert features.transform([]).shape == (0, 32)


def test_a_longer_sweep_extracts_what_is_new(model, tmp_path, runs):
    TextFeatures(model=model, cache=tmp_path, feature=LAYERS[1]).transform(TEXTS)
    TextFeatures(model=model, cache=tmp_path, feature=LAYERS[0], sweep=LAYERS[:2]).transform(TEXTS)
    assert runs.stops[-1] == 0
    assert all(len(list(folder.glob("*.safetensors"))) == 1 for folder in folders(tmp_path))


def test_the_model_and_every_option_that_changes_results_have_their_own_vectors(model, tmp_path, make_checkpoint, runs):
    other = make_checkpoint(tmp_path / "other", seed=1)
    cache = tmp_path / "cache"
    variants = [
        {},
        {"model": str(other)},
        {"max_length": 4},
        {"max_length": 4, "truncate_side": "left"},
        {"precision": "bfloat16"},
        {"long": "window"},
        {"feature": LAYERS[2]},
    ]
    found = []
    for number, variant in enumerate(variants):
        options = {"feature": LAYERS[1], "model": model, "cache": cache} | variant
        found.append(TextFeatures(**options).transform(TEXTS))
        assert len(folders(cache)) == number + 1
        np.testing.assert_array_equal(TextFeatures(**options).transform(TEXTS), found[-1])
        assert len(folders(cache)) == number + 1
    assert not np.allclose(found[0], found[1])
    sequences = runs.sequences
    moved = shutil.copytree(model, tmp_path / "moved")
    TextFeatures(LAYERS[1], model=moved, cache=cache, batch_tokens=64).transform(TEXTS)
    assert runs.sequences == sequences  # the same weights, wherever they are


def test_a_feature_says_what_it_is(model, tmp_path):
    TextFeatures(LAYERS[1], model=model, cache=tmp_path).transform(TEXTS)
    (folder,) = folders(tmp_path)
    identity = json.loads((folder / "identity.json").read_text())
    assert identity["feature"] == LAYERS[1]
    assert "model.safetensors" in identity["sha256"]
    assert str(Path(model).parent) not in json.dumps(identity)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, emptied, one_bit])
def test_damaged_files_are_said_and_computed_anew(model, tmp_path, runs, damage):
    features = TextFeatures(LAYERS[1], model=model, cache=tmp_path)
    before = features.transform(TEXTS[:20])
    features.transform(TEXTS)
    larger = max(shards(tmp_path), key=lambda path: path.stat().st_size)
    damage(larger)
    with pytest.warns(UserWarning, match=rf"{larger.name} is damaged \(.+\); its vectors are extracted again"):
        after = features.transform(TEXTS[:20])
    assert runs.sequences == 50
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(features.transform(TEXTS[:20]), after)
    assert runs.sequences == 50


def test_vectors_of_another_width_are_damage(tmp_path):
    key = CacheKey(cache=tmp_path, identity={"feature": "f"}, width=3)
    key.write([text_hash("a")], np.ones((1, 3), dtype=np.float32))
    with pytest.warns(UserWarning, match=r"\[1, 3\], not \[\*, 4\]"):
        _, found = CacheKey(cache=tmp_path, identity={"feature": "f"}, width=4).read([text_hash("a")], repair=True)
    assert not found.any()


def test_large_extractions_are_put_away_in_parts(model, tmp_path, runs, monkeypatch):
    monkeypatch.setattr(sweep, "SHARD_BYTES", 1)
    features = TextFeatures(LAYERS[1], model=model, cache=tmp_path, sweep=LAYERS)
    many = [f"{text} {i}" for i in range(40) for text in TEXTS]
    found = features.transform(many)
    assert runs.sequences == len(many)
    np.testing.assert_allclose(found, TextFeatures(LAYERS[1], model=model).transform(many), rtol=1e-5, atol=1e-5)


def test_an_extraction_that_fails_leaves_no_half_file(model, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("no more")

    monkeypatch.setattr("layertap.files.system.sync", fail)
    features = TextFeatures(LAYERS[1], model=model, cache=tmp_path)
    with pytest.raises(RuntimeError, match="no more"):
        features.transform(TEXTS)
    assert shards(tmp_path) == []
    assert not list(tmp_path.glob("*/.*.part"))
    monkeypatch.undo()
    assert features.transform(TEXTS).shape == (30, 32)


def test_files_of_killed_processes_are_swept_away(model, tmp_path):
    features = TextFeatures(LAYERS[1], model=model, cache=tmp_path)
    features.transform(TEXTS[:2])
    (folder,) = folders(tmp_path)
    left = Staging(folder, "x.safetensors")
    left.create("new-0").write(b"half")
    left.leave()  # as a kill does
    with pytest.warns(UserWarning, match="4 bytes that a killed run left there"):
        features.transform(TEXTS)
    assert not list(folder.glob(".*.part"))


def test_a_process_killed_while_it_extracts_frees_the_lock(model, tmp_path):
    code = (
        "import os, sys\nfrom layertap.learn.vectors.cache import cache_lock\nfrom pathlib import Path\n"
        "with cache_lock(Path(sys.argv[1])):\n    os._exit(9)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3] / "src")}
    assert subprocess.run([sys.executable, "-c", code, tmp_path], env=environment).returncode == 9
    assert TextFeatures(LAYERS[1], model=model, cache=tmp_path).transform(TEXTS).shape == (30, 32)


def test_a_cache_that_cannot_be_written_is_refused(model, tmp_path):
    (tmp_path / "file").write_text("no folder")
    for folder in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(OutputError, match=r"the cache cannot be written.*name another folder"):
            TextFeatures(LAYERS[1], model=model, cache=folder).transform(TEXTS)
