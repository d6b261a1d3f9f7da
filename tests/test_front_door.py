from __future__ import annotations

import importlib
import pickle
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import layertap
from layertap import errors

ROOT = Path(__file__).parents[1]
HEAVY = ("huggingface_hub", "numpy", "pyarrow", "safetensors", "tokenizers", "torch", "tqdm", "transformers")


def test_the_list_of_names_is_sorted_and_true():
    assert sorted(layertap.__all__) == layertap.__all__
    assert set(layertap.__all__) <= set(dir(layertap))
    for name in layertap.__all__:
        assert getattr(layertap, name) is getattr(layertap, name)


def test_every_error_is_there():
    tree = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert {name for name in tree if issubclass(getattr(errors, name), Exception)} <= set(layertap.__all__)


def test_the_version_is_the_package_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert layertap.__version__ == project["version"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()
    assert f"version: {project['version']}" in citation
    assert f"license: {project['license']}" in citation


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'hidden_stats'"):
        _ = layertap.hidden_stats


def test_names_are_the_objects_of_their_modules():
    from layertap import Rules, hidden_states, parse

    assert hidden_states is importlib.import_module("layertap.features.sources").hidden_states
    assert parse("hidden_states[-1]") == hidden_states[-1]
    assert pickle.loads(pickle.dumps(Rules())) == Rules()


def loaded_by(statement: str) -> list[str]:
    code = f"import sys; {statement}; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_importing_is_light():
    assert loaded_by("import layertap") == []


def test_parsing_is_light():
    assert loaded_by("from layertap import parse; parse('hidden_states[-1].mean')") == []
