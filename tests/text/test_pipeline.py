"""Tokenizers whose steps may run for ever, fill the memory or panic: refused when they are loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from layertap.errors import TokenizerError
from layertap.text import pipeline
from layertap.text.tokenizer import TextTokenizer
from layertap.text.word_table import fitted
from tests.writing import write

TRIAL_SECONDS = 2


@pytest.fixture(autouse=True)
def short_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "TRIAL_SECONDS", TRIAL_SECONDS)
    pipeline._try_out.cache_clear()


def folder_of(tmp_path: Path, *, normalizer: Any = None, pre_tokenizer: Any = None, model: Any = None) -> Path:
    vocabulary = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3}
    backend = Tokenizer(model or models.WordLevel(vocabulary, unk_token="[UNK]"))
    if normalizer is not None:
        backend.normalizer = normalizer
    if pre_tokenizer is not None:
        backend.pre_tokenizer = pre_tokenizer
    backend.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def load(folder: Path) -> TextTokenizer:
    return TextTokenizer.load(folder, model_type="modernbert")


def split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def doubled(times: int) -> normalizers.Normalizer:
    return normalizers.Sequence([normalizers.Replace("a", "aa") for _ in range(times)])


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"normalizer": doubled(40)}, "its replacements may make a text 1.1e[+]12 times longer"),
        ({"normalizer": normalizers.Replace("a", "b" * 10_000)}, "may make a text 1e[+]04 times longer"),
        ({"normalizer": normalizers.Sequence([normalizers.NFC()] * 65)}, "at most 64 steps before the vocabulary"),
        ({"normalizer": normalizers.Sequence([normalizers.Prepend("a" * 3000)])}, "times longer"),
        ({"pre_tokenizer": split("(a+)+$")}, "it ends with '.*retry-limit"),
        ({"pre_tokenizer": split("(a|aa)+$")}, "it ends with '.*retry-limit"),
        ({"normalizer": normalizers.Replace(Regex("(b|bb)+$"), "b")}, "it ends with '.*retry-limit"),
        (
            {"pre_tokenizer": split("a+b")},
            f"it did not come to an end within {TRIAL_SECONDS} seconds of processor time",
        ),
        pytest.param(
            {"pre_tokenizer": split("x+x+y")}, "it did not come to an end|retry-limit", marks=pytest.mark.slow
        ),
        (
            {
                "model": models.WordPiece(
                    {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2}, unk_token="[UNK]", max_input_chars_per_word=10**9
                )
            },
            "max_input_chars_per_word: expected at most 1000",
        ),
    ],
)
def test_steps_without_a_bound_are_refused(tmp_path: Path, parts: dict[str, Any], reason: str) -> None:
    folder = folder_of(tmp_path, **parts)
    with pytest.raises(TokenizerError, match=rf"tokenizer\.json: .*{reason}"):
        load(folder)


@pytest.mark.parametrize(
    "parts",
    [
        lambda: {"pre_tokenizer": split(r"\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+")},
        lambda: {"normalizer": normalizers.Replace(Regex("[0-9]{1,4}"), "0")},
    ],
)
def test_steps_that_are_not_in_the_table_and_harmless_are_used(
    tmp_path: Path, parts: Callable[[], dict[str, Any]]
) -> None:
    assert load(folder_of(tmp_path, **parts())).encode(["a"])[0].input_ids.size


def test_known_steps_start_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.subprocess, "run", lambda *_, **__: pytest.fail("a process was started"))
    for known in (pipeline.GPT_2, pipeline.LLAMA_3, pipeline.QWEN_2):
        steps = pre_tokenizers.Sequence([split(known), pre_tokenizers.ByteLevel(use_regex=False)])
        assert load(folder_of(tmp_path, pre_tokenizer=steps)).encode(["a"])[0].input_ids.size
    normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    load(folder_of(tmp_path, normalizer=normalizer, pre_tokenizer=pre_tokenizers.Metaspace()))


def test_without_an_interpreter_to_start_there_is_no_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.sys, "executable", str(tmp_path / "none"))
    assert load(folder_of(tmp_path, pre_tokenizer=split("[ab]+"))).encode(["a"])


def test_a_panic_while_a_text_is_encoded_is_an_error_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pattern that passed its trial may still give up on a text that the trial did not have."""
    monkeypatch.setattr(pipeline, "_try_out", lambda _: None)
    tokenizer = load(folder_of(tmp_path, pre_tokenizer=split("(a+)+$")))
    with pytest.raises(TokenizerError, match=r"tokenizer\.json: .*retry-limit"):
        tokenizer.encode(["a" * 40 + "!"])
    with pytest.raises(TokenizerError, match=r"tokenizer\.json: .*retry-limit"):
        tokenizer.encode_words([["a" * 40 + "!"]])


def with_template(tmp_path: Path, single: str, pair: str, ids: dict[str, int]) -> Path:
    backend = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    backend.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=[*ids.items()])
    backend.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


@pytest.mark.parametrize(
    ("single", "pair", "ids"),
    [
        ("[CLS] $A", "[CLS] $A $B", {"[CLS]": 7}),
        ("[CLS] $A", "[CLS] $A [SEP] $B", {"[CLS]": 1, "[SEP]": 99}),
        ("$A [SEP]", "$A [SEP] $B", {"[SEP]": 10**6}),
    ],
)
def test_a_template_with_an_id_beyond_the_table_does_not_fit(
    tmp_path: Path, single: str, pair: str, ids: dict[str, int]
) -> None:
    tokenizer = load(with_template(tmp_path, single, pair, ids))
    last = max(ids.values())
    assert tokenizer.max_id == last
    assert fitted(tokenizer, last + 1).without_row == {}
    with pytest.raises(TokenizerError, match=f"'of the template' with id {last}"):
        fitted(tokenizer, last)


@pytest.mark.parametrize("beyond", [2**24 + 1, 2**31, 2**32 - 2])
def test_ids_that_no_table_has(tmp_path: Path, beyond: int) -> None:
    with pytest.raises(TokenizerError, match=f"expected ids up to 16777216, found {beyond}"):
        load(with_template(tmp_path, "[CLS] $A", "[CLS] $A $B", {"[CLS]": beyond}))
    # the library writes a vocabulary by counting up to its last id
    backend = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 12345}, unk_token="[UNK]"))
    write(tmp_path / "tokenizer.json", backend.to_str().replace("12345", str(beyond)))
    with pytest.raises(TokenizerError, match=f"expected ids up to 16777216, found {beyond}"):
        load(tmp_path)
