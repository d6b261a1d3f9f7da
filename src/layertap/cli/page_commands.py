"""Commands and Python lines below the views of a page."""

from __future__ import annotations

import argparse
import shlex

from layertap.engine.options import OPTIONS

INPUT_OPTIONS = ("input_format", "text_column", "delimiter", "quoting", "records", "encoding", "max_record_size")
MODEL_OPTIONS = ("model", "revision", "precision", "max_length")


def commands_of(options: argparse.Namespace, source: str, unit: str = "text") -> dict[str, str]:
    """Return the commands and Python lines below the views; the page fills in layer, text and head.

    Args:
        options: parsed arguments.
        source: the input.
        unit: what a point is: `text`, `words` or `spans`.
    """
    reading = INPUT_OPTIONS if unit == "text" else (*INPUT_OPTIONS, "words_column", "spans_column")
    extract = _command(options, source, "extract", ["-o", "vectors.parquet", "-f", "v = {FEATURE}"], reading)
    neighbours = neighbour_lines(unit, f"# {extract}\n")
    typed = f'{_extractor(options)}\nv @ extractor.extract({{SENTENCE}}, "{{FEATURE}}.normalize")'
    commands = {
        "extract": extract,
        "neighbours": neighbours,
        "typed": "\n".join([*neighbours.splitlines()[:-1], typed]),
        **sentence_commands(options),
    }
    if options.label is not None and unit != "spans":
        label = ["--label", options.label, "--pooling", options.pooling]
        commands["probe"] = _command(options, source, "probe", label, reading)
    return commands


def neighbour_lines(unit: str, first: str = "") -> str:
    """Return the Python lines that compute the cosines of a point to all others.

    Args:
        unit: what a point is, `text` or one of the units of the feature language.
        first: lines before those that read the vectors.
    """
    place = "{ROW}" if unit == "text" else "r.offsets[{ROW}] + {UNIT}"
    return (
        f"import layertap, numpy as np\n{first}{{VECTORS}}\n"
        f"v /= np.linalg.norm(v, axis=1, keepdims=True)\nv @ v[{place}]"
    )


def sentence_commands(options: argparse.Namespace) -> dict[str, str]:
    """Return the Python lines below the views of single texts."""
    opened = f"import layertap\n{_extractor(options)}"
    return {
        "sentence": f'{opened}\nh = extractor.extract({{SENTENCE}}, "hidden_states[:]")  # tokens, layers, dimensions',
        "attention": f'{opened}\nextractor.extract({{SENTENCE}}, "attentions[{{BLOCK}}]")[{{HEAD}}]',
    }


def _extractor(options: argparse.Namespace) -> str:
    return f"extractor = layertap.Extractor.from_pretrained({'' if options.model is None else repr(options.model)})"


def _command(options: argparse.Namespace, source: str, name: str, arguments: list[str], shared: tuple[str, ...]) -> str:
    words = ["layertap", name, source, *arguments]
    for option in (*shared, *MODEL_OPTIONS):
        value = getattr(options, option)
        if value is not None and not (option in OPTIONS and value == OPTIONS[option].default):
            words += [f"--{option.replace('_', '-')}", str(value)]
    return shlex.join(words + ([] if options.header else ["--no-header"]))
