from __future__ import annotations

import subprocess
import sys

import pytest

from layertap import OptionError
from layertap.integrations.encoders import check_is_name, encoder_of
from tests.integrations.conftest import FEATURE

LIBRARIES = {"haystack": "haystack", "langchain": "langchain_core", "llama_index": "llama_index", "mteb": "mteb"}


def test_an_open_encoder_is_taken_as_it_is_and_takes_no_options(folder, encoder):
    assert encoder_of(encoder, None, {}) is encoder
    assert str(encoder_of(folder, FEATURE, {"truncate_dim": 4})) == str(encoder)
    for feature, options in ((FEATURE, {}), (None, {"truncate_dim": 4})):
        with pytest.raises(OptionError, match="the encoder is open already"):
            encoder_of(encoder, feature, options)


def test_an_open_model_has_no_name_to_write_to_files(folder, encoder):
    for name in (None, folder, str(folder)):
        check_is_name(name)
    with pytest.raises(OptionError, match="of type SentenceEncoder; name it"):
        check_is_name(encoder)


def test_every_adapter_says_in_one_sentence_which_library_is_missing():
    code = """
import sys
from importlib import import_module
import layertap
for name, library in {LIBRARIES}.items():
    sys.modules[library] = None  # as if it were not installed
    try:
        import_module(f"layertap.integrations.{name}")
    except layertap.BackendError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code.replace("{LIBRARIES}", repr(LIBRARIES))], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "layertap.integrations.haystack needs haystack-ai: pip install 'layertap[haystack]'",
        "layertap.integrations.langchain needs langchain-core: pip install 'layertap[langchain]'",
        "layertap.integrations.llama_index needs llama-index-core: pip install 'layertap[llama-index]'",
        "layertap.integrations.mteb needs mteb: pip install 'layertap[mteb]'",
    ]
