from __future__ import annotations

import argparse

from layertap.cli.page_commands import commands_of, sentence_commands

OPTIONS = dict.fromkeys(
    ("model", "revision", "max_length", "label", "input_format", "delimiter", "quoting", "records", "encoding")
) | {"precision": "float32", "pooling": "cls", "text_column": "a b", "max_record_size": None, "header": True}


def test_commands_repeat_the_options_that_change_results():
    commands = commands_of(argparse.Namespace(**OPTIONS), "x.csv")
    assert commands["extract"] == "layertap extract x.csv -o vectors.parquet -f 'v = {FEATURE}' --text-column 'a b'"
    assert "probe" not in commands
    options = argparse.Namespace(**{**OPTIONS, "label": "mood", "precision": "bfloat16", "header": False})
    assert commands_of(options, "x.csv")["probe"] == (
        "layertap probe x.csv --label mood --pooling cls --text-column 'a b' --precision bfloat16 --no-header"
    )


def test_lines_for_single_texts_open_the_model():
    assert "from_pretrained()" in sentence_commands(argparse.Namespace(model=None))["sentence"]
    assert "from_pretrained('./m')" in sentence_commands(argparse.Namespace(model="./m"))["attention"]
