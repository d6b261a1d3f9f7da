"""Every module imports alone; what needs torch says so, and nothing else needs it."""

from __future__ import annotations

import json
import os
import pkgutil
import subprocess
import sys
from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter
from importlib.util import find_spec
from typing import Any

import pytest

import layertap

TORCH_ROOMS = (
    "layertap.backends.torch.",
    "layertap.hf.",
    "layertap.learn.finetuning.",
    "layertap.saving.graph.",
    "layertap.torch_datasets.",
)
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(layertap.__path__, "layertap.")
    if not module.name.endswith("__main__")
)
NEED_TORCH = [name for name in MODULES if f"{name}.".startswith(TORCH_ROOMS) and name != "layertap.backends.torch"]
# scikit-learn in turn imports pandas, and that pyarrow, where they are
NEED_SKLEARN = ["layertap.learn.vectors.text_features"]
KERNELS = "layertap.backends.native._native"
NEED_KERNELS = [KERNELS, "layertap.backends.native.backend"]
IS_BUILT = find_spec(KERNELS) is not None
NO_SERVER: Any = {"condition": find_spec("fastapi") is None, "reason": "fastapi is not installed (extra: serve)"}
NEED_FASTAPI = [name for name in MODULES if name.startswith("layertap.server.")]
# each needs the library that it is for, and loads it
ADAPTERS = [
    name for name in MODULES if name.startswith("layertap.integrations.") and name != "layertap.integrations.encoders"
]
LIGHT = [
    name
    for name in MODULES
    if name not in (*NEED_TORCH, *NEED_SKLEARN, *ADAPTERS)
    and (IS_BUILT or name not in NEED_KERNELS)
    and (find_spec("fastapi") is not None or name not in NEED_FASTAPI)
]
REST = tuple({name.split(".")[1] for name in LIGHT} - {"data", "server", "text"})
SERVERS = ("fastapi", "uvicorn", "orjson", "prometheus_client")
HEAVY = ("torch", "transformers", "sentence_transformers", "pyarrow", "tokenizers", "huggingface_hub")

# Each module in a child of an interpreter that has imported nothing of layertap, but numpy and what a room may import:
# a hundred fresh interpreters would take a minute.
EACH_ALONE = """
import importlib, json, os, sys, traceback, warnings
warnings.simplefilter("error")
preload, forbidden, modules = json.loads(sys.argv[1])
for name in preload:
    importlib.import_module(name)
for name in modules:
    child = os.fork()
    if child:
        if os.waitpid(child, 0)[1]:
            print(name)
        continue
    try:
        importlib.import_module(name)
        loaded = [heavy for heavy in forbidden if heavy in sys.modules]
        assert not loaded, f"{name} imports {loaded}"
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
"""

WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # as if it were not installed
"""


def run(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def failures(preload: Sequence[str], forbidden: Sequence[str], modules: Sequence[str]) -> str:
    return run(EACH_ALONE, json.dumps([preload, forbidden, modules]))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize(
    ("rooms", "libraries"),
    [
        pytest.param(("data",), ("pyarrow",), marks=pytest.mark.slow),
        (("text",), ("tokenizers",)),
        (("features", "models", "cli"), ()),
        pytest.param(("server",), SERVERS, marks=[pytest.mark.slow, pytest.mark.skipif(**NO_SERVER)]),
        pytest.param(REST, (), marks=pytest.mark.slow),
    ],
)
def test_every_module_imports_alone_and_lightly(rooms, libraries):
    modules = [name for name in LIGHT if name.split(".")[1] in rooms]
    assert modules
    preload = ["numpy", *(name for name in libraries if find_spec(name))]
    assert failures(preload, [name for name in HEAVY if name not in libraries], modules) == ""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_every_module_of_the_torch_rooms_imports_alone():
    pytest.importorskip("torch")
    assert len(NEED_TORCH) > 10
    assert failures(["torch"], ("transformers", "sentence_transformers"), NEED_TORCH) == ""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_every_module_for_scikit_learn_imports_alone():
    pytest.importorskip("sklearn")
    assert failures(["sklearn.base"], ("torch", "transformers", "tokenizers", "huggingface_hub"), NEED_SKLEARN) == ""


def test_the_whole_language_works_without_torch(tmp_path, make_checkpoint):
    make_checkpoint(tmp_path / "m")
    code = (
        WITHOUT_TORCH
        + """
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
import layertap
from layertap.engine.opening import open_reference
from layertap.engine.options import ModelReference, Semantics
from layertap.features.explain import explain

reference = ModelReference(name=sys.argv[1], revision=None, cache_dir=None, local_files_only=True, allow_pickle=False)
opened = open_reference(reference)
facts = opened.facts(Semantics())
feature = layertap.parse("hidden_states[-2:].layer_mean.mean")
plan = opened.plan([feature, "pooler_output"], Semantics())
assert [schema.shape for schema in plan.schemas] == [(32,), (32,)]
assert "blocks" in explain(plan, facts, lengths=64, num_records=None, precision="float32")
assert len(opened.tokenizer.encode(["the film"])[0]) == 4
opened.files.weights(["pooler.dense.bias"])
for make in (
    lambda: layertap.Extractor.from_pretrained(sys.argv[1], backend="torch"),
    lambda: layertap.Extractor.from_pretrained(sys.argv[1], allow_pickle=True),
):
    try:
        make()
    except layertap.BackendError as error:
        print(error)
assert "numpy" in sys.modules
"""
    )
    assert run(code, str(tmp_path / "m")).splitlines() == [
        "no backend is installed that can run a model: pip install 'layertap[torch]'",
        "reading a pickle file needs torch: pip install 'layertap[torch]'",
    ]


def test_the_torch_rooms_say_what_is_missing():
    code = (
        WITHOUT_TORCH
        + """
import layertap
from layertap import BackendError
try:
    import layertap.hf
except BackendError as error:
    print(error)
try:
    layertap.FeatureDataset
except BackendError as error:
    print(error)
"""
    )
    assert run(code).count("pip install 'layertap[torch]'") == 2


def test_a_model_that_is_not_there_costs_no_import_of_torch(tmp_path):
    code = """
import sys
import layertap
try:
    layertap.Extractor.from_pretrained(sys.argv[1])
except layertap.ModelNotFoundError:
    print("torch" in sys.modules)
"""
    assert run(code, str(tmp_path / "nothing")).split() == ["False"]


@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
def test_running_a_model_imports_neither_transformers_nor_sentence_transformers(tmp_path, make_checkpoint):
    make_checkpoint(tmp_path / "m")
    code = """
import sys
import torch
torch.set_num_threads(1)
import layertap
layertap.Extractor.from_pretrained(sys.argv[1]).extract(["the film"])
print([name for name in ("transformers", "sentence_transformers", "pyarrow", "torch._dynamo") if name in sys.modules])
"""
    assert run(code, str(tmp_path / "m")).strip() == "[]"


def test_no_module_imports_one_that_leads_back_to_it():
    """The contracts look at siblings; this looks at every module, the front door and imports for types included."""
    grimp = pytest.importorskip("grimp", reason="grimp comes with import-linter")
    graph = grimp.build_graph("layertap", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(imports) > 200
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as circle:
        pytest.fail(f"these modules import each other: {' <- '.join(circle.args[1])}")
