"""The table of options: signatures, docstrings and groups of keywords equal it, and unknown names are refused."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from layertap.backends.facts import ROWS, BackendName, Precision
from layertap.engine.extractor import Extractor
from layertap.engine.options import (
    OPTIONS,
    ClassifierOptions,
    ExtractorOptions,
    HeadOptions,
    Runtime,
    Semantics,
    names_of,
    split_options,
)
from layertap.errors import OptionError
from layertap.features.rules import Rules


def test_the_signature_of_extractor_is_the_table():
    parameters = dict(inspect.signature(Extractor.from_pretrained).parameters)
    del parameters["model"]
    assert list(parameters) == list(OPTIONS)
    for name, parameter in parameters.items():
        default = None if name == "rules" else OPTIONS[name].default
        assert (parameter.kind, parameter.default) == (inspect.Parameter.KEYWORD_ONLY, default), name


def test_the_types_of_the_signature_are_those_of_the_keywords():
    signature = get_type_hints(Extractor.from_pretrained.__func__)
    keywords = get_type_hints(ExtractorOptions)
    assert {name: hint for name, hint in signature.items() if name not in ("model", "return")} == keywords


def test_the_docstring_of_extractor_explains_every_option():
    documented = re.findall(r"^ {4}(\w+): ", inspect.getdoc(Extractor.from_pretrained) or "", flags=re.MULTILINE)
    assert set(OPTIONS) <= set(documented)


def test_every_option_says_what_it_means_and_what_its_default_is():
    for option in OPTIONS.values():
        assert len(option.description.split()) >= 2 or option.name == "device", option.name
        assert option.default_description or option.default is not None or option.name == "revision", option.name
        assert not option.choices or option.default in option.choices


def test_the_groups_of_keywords():
    assert names_of(ExtractorOptions) == tuple(OPTIONS)
    missing = set(OPTIONS) - set(names_of(ClassifierOptions))
    assert missing == {"untrained_pooler", "non_finite"}
    semantics = {name for name, option in OPTIONS.items() if option.group == "semantics"}
    assert set(names_of(HeadOptions)) == set(OPTIONS) - semantics - {"revision"}


def test_choices_are_those_of_the_table_of_backends():
    assert OPTIONS["precision"].choices == get_args(Precision)
    assert {precision for row in ROWS for precision in row.precisions} == set(get_args(Precision))
    assert OPTIONS["backend"].choices == get_args(BackendName)
    assert {row.backend for row in ROWS} | {"auto"} == set(get_args(BackendName))


def test_keywords_go_to_their_groups():
    reference, semantics, runtime = split_options(
        Path("folder"), {"cache_dir": Path("cache"), "long": "window", "window": 9, "threads": 2, "rules": None}
    )
    assert (reference.name, reference.cache_dir, reference.revision) == ("folder", "cache", None)
    assert semantics == Semantics(long="window", window=9)
    assert runtime == Runtime(threads=2, rules=Rules())
    assert split_options(None, {})[0].name is None


@pytest.mark.parametrize(
    ("keywords", "allowed", "message"),
    [
        ({"trunc_side": "left"}, ExtractorOptions, "no option 'trunc_side' here; did you mean 'truncate_side'?"),
        ({"device_map": "auto"}, ExtractorOptions, "no option 'device_map' here; did you mean 'device'?"),
        ({"temperature": 1}, HeadOptions, "no option 'temperature' here; options are cache_dir, local_files_only"),
        ({"untrained_pooler": "use"}, ClassifierOptions, "no option 'untrained_pooler' here"),
        ({"max_length": 8}, HeadOptions, "no option 'max_length' here"),
        ({"precision": "fp16"}, ExtractorOptions, "precision 'fp16': expected one of float32"),
    ],
)
def test_what_cannot_be_split_is_refused(keywords, allowed, message):
    with pytest.raises(OptionError, match=re.escape(message)):
        split_options("folder", keywords, allowed)


def test_the_table_loads_no_array_library():
    """The command line reads it for --help."""
    code = "import sys, layertap.engine.options; print(*{'numpy', 'torch', 'tokenizers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("of", ["Classifier.from_pretrained", "Head.extractor"])
def test_help_lists_the_options_of_what_takes_some_of_them(of):
    pytest.importorskip("sklearn", reason="layertap.learn needs scikit-learn")
    import layertap.learn as learn

    kind, method = of.split(".")
    keywords = {"Classifier": ClassifierOptions, "Head": HeadOptions}[kind]
    parameters = inspect.signature(getattr(getattr(learn, kind), method)).parameters
    listed = [name for name, one in parameters.items() if one.kind is inspect.Parameter.KEYWORD_ONLY]
    assert [name for name in listed if name in OPTIONS] == list(names_of(keywords))
    assert "options" not in parameters


def test_a_classifier_refuses_an_unknown_option_before_anything_is_opened():
    pytest.importorskip("sklearn", reason="layertap.learn needs scikit-learn")
    from layertap.learn import Classifier

    with pytest.raises(OptionError, match=r"no option 'trunc_side' here; did you mean 'truncate_side'\?"):
        Classifier.from_pretrained("there/is/no/such/folder", trunc_side="left")


def test_threads_have_a_limit():
    assert Runtime(threads=1024).threads == 1024
    with pytest.raises(OptionError, match="threads 20000: expected a whole number of at most 1,024"):
        Runtime(threads=20_000)
