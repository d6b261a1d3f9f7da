"""Collect the facts that `layertap inspect` shows about a model, as JSON values and as lines of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from textwrap import wrap
from typing import Any

from layertap.backends.facts import BackendFacts
from layertap.engine.opening import OpenedModel
from layertap.engine.options import Semantics
from layertap.features.plan import make_plan
from layertap.features.rewrite import expand_sentence_embedding
from layertap.features.rules import Rules
from layertap.features.schema import ModelFacts
from layertap.features.sources import sentence_embedding
from layertap.text.tokenizer import TextTokenizer
from layertap.words import aligned, counted, in_bytes

WIDTH = 100
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
ORIGINS = {"folder": "a local folder", "hub": "the Hugging Face hub", "package": "an installed package"}
POOLERS = {
    "trained": "trained: dense and tanh on the first token's last state",
    "untrained": "stored, never trained (its bias is exactly zero): refused unless --untrained-pooler use",
    "absent": "absent: refused",
}
KEYS_SHOWN = 6


def facts_of_model(
    opened: OpenedModel, backends: Sequence[BackendFacts], absent: Mapping[str, str], chosen: str
) -> dict[str, Any]:
    """Collects facts about a model as JSON values; sizes have the names of Hugging Face configs.

    Args:
        opened: the opened model.
        backends: backends that this machine can use.
        absent: for each other backend, the reason why it cannot be used.
        chosen: description of the backend that "auto" selects for this model.
    """
    files, spec = opened.files, opened.files.spec
    facts = opened.facts(Semantics())
    return {
        "model": files.checkpoint.name,
        "origin": files.checkpoint.origin,
        "folder": str(files.checkpoint.folder),
        "commit": files.checkpoint.commit,
        "architecture": files.architecture.name,
        "transformers_class": files.architecture.transformers_class,
        "num_hidden_layers": spec.num_hidden_layers,
        "sets_of_weights": spec.num_blocks,
        "hidden_size": spec.hidden_size,
        "embedding_size": spec.table_size,
        "num_attention_heads": spec.num_attention_heads,
        "intermediate_size": spec.intermediate_size,
        "hidden_act": spec.hidden_act,
        "layer_norm_eps": spec.layer_norm_eps,
        "vocab_size": spec.vocab_size,
        "max_length": facts.max_length,
        "limits": dict(opened.limits),
        "parameters": files.num_parameters,
        "bytes": files.num_bytes,
        "stored": {DTYPES.get(dtype, dtype): count for dtype, count in files.stored_dtypes.items()},
        "weight_files": [path.name for path in files.weight_files],
        "outputs": outputs(facts),
        "pooler": files.pooler,
        "tokenizer": tokenizer_facts(opened.tokenizer),
        "missing": list(files.missing),
        "faults": list(files.faults),
        "unused_keys": list(files.unused_keys),
        "ignored_keys": list(files.ignored_keys),
        "backends": [asdict(backend) for backend in backends],
        "absent_backends": dict(absent),
        "auto_backend": chosen,
    }


def outputs(facts: ModelFacts) -> list[dict[str, Any]]:
    """Describes each source of the feature language: its shape per text (T tokens), availability and meaning."""
    size, last, heads = facts.spec.hidden_size, facts.spec.num_hidden_layers, facts.spec.num_attention_heads
    normed = ", after the final norm" if facts.spec.final_norm else ""
    before = [_output(f"hidden_states[{last}].unnormed", ["T", size], "before the final norm")]
    pooler = POOLERS[facts.pooler] if facts.spec.pooler else "absent: this architecture has none"
    return [
        _output("last_hidden_state", ["T", size], f"hidden_states[{last}]{normed}"),
        *(before if facts.spec.final_norm else ()),
        _output("hidden_states[i]", ["T", size], f"i from 0 (embedding output) to {last}, or -1 to -{last + 1}"),
        _output("hidden_states[:]", ["T", last + 1, size], "all of them, tokens first"),
        _output("attentions[i]", [heads, "T", "T"], f"i from 0 (first block) to {last - 1}, or -1 to -{last}"),
        _output("pooler_output", [size], pooler, usable=facts.usable_pooler),
        _sentence_output(facts),
    ]


def _sentence_output(facts: ModelFacts) -> dict[str, Any]:
    name, declared = "sentence_embedding", facts.sentence_embedding
    if declared is None:
        return _output(name, None, "absent: not a sentence-transformers folder", usable=False)
    if declared.refusal is not None:
        return _output(name, None, f"refused: {declared.refusal}", usable=False)
    plan = make_plan({name: sentence_embedding}, facts, rules=Rules())
    recipe = expand_sentence_embedding(sentence_embedding, facts)
    return _output(name, list(plan.schemas[0].shape), f"{recipe}, of {plan.inputs[0]}")


def _output(name: str, shape: Sequence[int | str] | None, note: str, *, usable: bool = True) -> dict[str, Any]:
    return {"name": name, "shape": None if shape is None else list(shape), "usable": usable, "note": note}


def tokenizer_facts(tokenizer: TextTokenizer) -> dict[str, Any]:
    """Describes how the tokenizer turns texts into ids."""

    def template(ids: Sequence[int]) -> list[str]:
        return [tokenizer.backend.id_to_token(i) or str(i) for i in ids]

    return {
        "algorithm": type(tokenizer.backend.model).__name__,
        "tokens": len(tokenizer.backend.get_vocab()),
        "template": " ".join([*template(tokenizer.prefix), "TEXT", *template(tokenizer.suffix)]),
        "cls_index": tokenizer.cls_index,
        "special_tokens": dict(tokenizer.special_tokens),
        "files": [path.name for path in tokenizer.files],
        "notes": list(tokenizer.notes),
    }


def in_lines(facts: dict[str, Any], width: int = WIDTH) -> list[str]:
    """Formats the facts for a terminal, at most 100 columns wide unless names are long."""
    shown = [(output["name"], _shape(output["shape"]), output["note"]) for output in facts["outputs"]]
    return [
        facts["model"],
        *_table(_model_rows(facts), width),
        "",
        "outputs of a text with T tokens",
        *_table(shown, width),
        "",
        "tokenizer",
        *_table(_tokenizer_rows(facts["tokenizer"]), width),
        "",
        "found in the files and not used",
        *_table(_key_rows(facts), width),
        "",
        "on this machine",
        *_table(_backend_rows(facts), width),
    ]


def _model_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    layers, heads = facts["num_hidden_layers"], facts["num_attention_heads"]
    limits = ", ".join(f"{what} {limit:,}" for what, limit in facts["limits"].items())
    stored = ", ".join(
        dtype if len(facts["stored"]) == 1 else f"{dtype} ({count:,})" for dtype, count in facts["stored"].items()
    )
    sets = facts["sets_of_weights"]
    shared = f" that share {counted(sets, 'set')} of weights" if sets < layers else ""
    tables = f", tables {facts['embedding_size']:,}" if facts["embedding_size"] != facts["hidden_size"] else ""
    sizes = (
        f"hidden {facts['hidden_size']:,}{tables}, {heads} heads of {facts['hidden_size'] // heads}, feed-forward "
        f"{facts['intermediate_size']:,} ({facts['hidden_act']}), vocabulary {facts['vocab_size']:,}"
    )
    rows = [
        ("from", f"{ORIGINS[facts['origin']]}: {facts['folder']}"),
        ("architecture", f"{facts['architecture']} ({facts['transformers_class']} in transformers)"),
        ("layers", f"{layers} blocks{shared}, so {layers + 1} hidden states"),
        ("sizes", sizes),
        ("limit", f"{facts['max_length']:,} tokens, special ones included ({limits})"),
        ("parameters", f"{facts['parameters']:,}, stored as {stored}, {in_bytes(facts['bytes'])}"),
        ("weights", ", ".join(facts["weight_files"])),
    ]
    if facts["commit"] is not None:
        rows.insert(1, ("commit", facts["commit"]))
    if facts["missing"]:
        rows.append(("missing", f"{_some(facts['missing'])}: features that need them are refused"))
    return rows


def _tokenizer_rows(tokenizer: dict[str, Any]) -> list[tuple[str, str]]:
    cls = "no CLS token" if tokenizer["cls_index"] is None else f"CLS is token {tokenizer['cls_index']}"
    specials = ", ".join(f"{name.removesuffix('_token')} {text}" for name, text in tokenizer["special_tokens"].items())
    rows = [
        ("kind", f"{tokenizer['algorithm']}, {tokenizer['tokens']:,} tokens, from {', '.join(tokenizer['files'])}"),
        ("template", f"{tokenizer['template']} ({cls})"),
        ("specials", specials or "none named"),
    ]
    return rows + [("note", note) for note in tokenizer["notes"]]


def _key_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    if facts["unused_keys"]:
        rows.append(("unknown here", _some(facts["unused_keys"])))
    if facts["ignored_keys"]:
        rows.append(("never needed", _some(facts["ignored_keys"])))
    return rows or [("nothing", "")]


def _backend_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for backend in facts["backends"]:
        devices = ", ".join(f"{name} ({what})" for name, what in backend["devices"].items())
        rows += [
            (backend["name"], f"{backend['version']}, {counted(backend['threads'], 'thread')}; devices {devices}"),
            ("", f"{', '.join(backend['precisions'])} on the processor"),
            ("", _instruction_sets(backend["instruction_sets"])),
        ]
    rows += [("not here", why) for why in facts["absent_backends"].values()]
    return [*rows, ("this model", facts["auto_backend"])]


def _instruction_sets(names: Sequence[str]) -> str:
    first, *others = names
    return f"instruction set {first}" + (f", on request {', '.join(others)}" if others else "")


def _shape(shape: Sequence[int | str] | None) -> str:
    return "-" if shape is None else f"[{', '.join(map(str, shape))}]"


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - KEYS_SHOWN} more (--json lists all)" if len(keys) > KEYS_SHOWN else ""
    return ", ".join(keys[:KEYS_SHOWN]) + more


def _table(rows: Sequence[tuple[str, ...]], width: int) -> list[str]:
    """Aligns rows in columns and wraps their last cell."""
    heads = aligned([(*row[:-1], "|") for row in rows])
    room = max(20, width - len(heads[0]) + 1)
    lines = []
    for head, row in zip(heads, rows, strict=True):
        first, *rest = wrap(row[-1], room, break_long_words=False, break_on_hyphens=False) or [""]
        lines.append((head[:-1] + first).rstrip())
        lines += [" " * (len(head) - 1) + line for line in rest]
    return lines
