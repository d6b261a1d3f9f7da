"""The tables of keywords: what asks for nothing passes, everything else is refused by name."""

from __future__ import annotations

import inspect

import pytest

torch = pytest.importorskip("torch")

from layertap.errors import OptionError  # noqa: E402
from layertap.hf import AutoModel, AutoTokenizer, BertConfig, BertModel, BertTokenizer  # noqa: E402
from layertap.hf import keywords as tables  # noqa: E402
from layertap.hf.modeling import CALL_KEYWORDS, LOADING_KEYWORDS  # noqa: E402

ATTRIBUTES = {name: value for name, value in vars(tables).items() if name.endswith(("_METHODS", "_ATTRIBUTES"))}
TABLES = {name: value for name, value in vars(tables).items() if name.isupper() and name[0] != "_"}
for other in ("TABLE", *ATTRIBUTES):
    TABLES.pop(other, None)


class Refusing:
    """Stands for any object: of no use to a comparison with ==."""

    def __eq__(self, other):
        raise AssertionError("compared")

    __hash__ = None


@pytest.mark.parametrize("name", TABLES)
def test_every_row(name):
    for keyword, (harmless, why) in TABLES[name].items():
        assert harmless, keyword
        assert None in harmless, keyword
        assert why[0].islower() or why.split()[0].isupper() or why.startswith(("TensorFlow", "Flax", "GGUF")), why
        for value in harmless:
            tables.refuse_all({keyword: value}, TABLES[name], ())
        with pytest.raises(OptionError, match=f"^{keyword}="):
            tables.refuse_all({keyword: Refusing()}, TABLES[name], ())


def test_one_is_not_true():
    with pytest.raises(OptionError, match="trust_remote_code=0"):
        tables.refuse_all({"trust_remote_code": 0}, tables.MODEL_LOADING, ())


@pytest.mark.parametrize(
    ("method", "table"),
    [
        (BertModel.from_pretrained, tables.MODEL_LOADING),
        (BertModel.forward, tables.MODEL_CALL),
        (BertModel.save_pretrained, tables.MODEL_SAVING),
        (BertTokenizer.from_pretrained, tables.TOKENIZER_LOADING),
        (BertTokenizer.__call__, tables.TOKENIZER_CALL),
        (BertTokenizer.save_pretrained, tables.TOKENIZER_SAVING),
        (BertConfig.from_pretrained, tables.CONFIG_LOADING),
        (AutoModel.from_pretrained, tables.MODEL_LOADING),
        (AutoTokenizer.from_pretrained, tables.TOKENIZER_LOADING),
    ],
)
def test_what_is_honoured_is_not_in_the_table(method, table):
    assert not set(inspect.signature(method).parameters) & set(table)


def test_the_lists_of_keywords_are_the_signatures():
    honoured = inspect.signature(BertModel.from_pretrained).parameters
    assert set(LOADING_KEYWORDS) == set(honoured) - {"pretrained_model_name_or_path", "keywords"}
    assert set(CALL_KEYWORDS) == set(inspect.signature(BertModel.forward).parameters) - {"self", "keywords"}


def test_a_secret_is_not_in_the_message():
    with pytest.raises(OptionError) as caught:
        tables.refuse_all({"token": "hf_secret"}, tables.MODEL_LOADING, ())
    assert "hf_secret" not in str(caught.value)


def test_the_nearest_spelling():
    with pytest.raises(OptionError, match="did you mean 'head_mask'"):
        tables.refuse_all({"heads_mask": 1}, tables.MODEL_CALL, ())
    with pytest.raises(OptionError, match=r"config field$"):
        tables.refuse_all({"zzz": 1}, tables.MODEL_CALL, ())
