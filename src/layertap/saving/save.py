"""The function `layertap.save`: a feature as a model that other programs run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Unpack

from layertap.checkpoints.source import local_folders, stored_files
from layertap.engine.extractor import Extractor
from layertap.engine.opening import OpenedModel, open_reference
from layertap.engine.options import ModelReference, Runtime, SavingOptions, Semantics, shown_in_help, split_options
from layertap.errors import FeatureError, OptionError
from layertap.features.expr import Expr
from layertap.features.naming import parsed
from layertap.files import check_new_folder, check_place, refuse_overlap, resolved
from layertap.saving.card import SavedModel
from layertap.saving.folder import save_folder
from layertap.saving.recipe import check_graph, recipe_of

Target = Literal["folder", "onnx"]
ONNX = ".onnx"


@shown_in_help(SavingOptions)
def save(
    feature: str | Expr,
    output: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | None = None,
    to: Target | None = None,
    **options: Unpack[SavingOptions],
) -> SavedModel:
    """Save a feature as a model that other programs run, with the layers that the feature needs and no others.

    A folder is one of sentence-transformers and of transformers: the feature is its sentence embedding. Before it
    stands, it is loaded back and compared with the feature. `README.md` and `layertap.json` in it say what it is.

    An ONNX graph leads from token ids to the feature, exported from the model's class in transformers and compared
    with the feature in onnxruntime; it needs the extra `onnx`. Its inputs are int64 [B, S] under the names that
    tokenizers of transformers give them, `input_ids`, `attention_mask` and, in families with several token types,
    `token_type_ids`; padding may be on either side. The output has the name of the feature: float32 [B, H],
    [B, L, H] with several layers, [B, S, H] for tokens, where rows of padding are zeros.

    Args:
        feature: the feature, as text or as an expression; in a folder, one vector for each text.
        output: path of a folder or of an ONNX file that does not exist yet.
        model: the model that has the feature: a folder, a Hugging Face hub id, or None for all-MiniLM-L6-v2.
        to: "folder" or "onnx"; None: "onnx" where the output ends with `.onnx`.
        options: where the model is, the limit in tokens (`max_length`) that the saved model has, and what runs the
            check; as in `Extractor.from_pretrained`.

    Returns:
        What was saved, with the figures of the check.

    Raises:
        FeatureError: a feature that the model does not have, or with a step that the target cannot say.
        UsageError: the output exists.
        OutputError: the output cannot be written, or differs from the feature by more than rounding; nothing is left
            of it.
        ModelNotFoundError, CheckpointError: the model cannot be used.
        BackendError: a library for graphs is missing, or torch cannot export the model.
    """
    return save_reference(
        feature, output, *split_options(model, options, SavingOptions), to=to, extractor_of=Extractor.of
    )


def save_reference(
    feature: str | Expr,
    output: str | os.PathLike[str],
    reference: ModelReference,
    semantics: Semantics,
    runtime: Runtime,
    *,
    to: Target | None,
    extractor_of: Callable[[OpenedModel, Semantics, Runtime], Extractor],
) -> SavedModel:
    """Save a feature as `save` does, with options that are grouped already, and an extractor that is made of them."""
    parsed(feature)  # what does not parse is refused before the model is looked for
    target = _target(output, to)
    place = _checked_place(output, target, reference.name)
    extractor = extractor_of(open_reference(reference), semantics, runtime)
    if target == "onnx":
        from layertap.saving.graph import save_graph

        return save_graph(extractor, feature, place)
    return save_folder(extractor, feature, place)


def _target(output: str | os.PathLike[str], to: Target | None) -> Target:
    if not isinstance(output, str | os.PathLike) or not os.fspath(output):
        raise OptionError(f"output {output!r}: expected a path")
    if to is None:
        return "onnx" if os.fspath(output).lower().endswith(ONNX) else "folder"
    if to not in ("folder", "onnx"):
        raise OptionError(f"to {to!r}: expected folder or onnx")
    return to


def _checked_place(output: str | os.PathLike[str], target: Target, model: str | None) -> Path:
    """Refuse a place at which nothing can be written, or in which the model stands."""
    place = Path(output)
    if os.fspath(output) == "-":
        raise OptionError(f"a {'folder' if target == 'folder' else 'graph'} is not written to standard output; name it")
    if target == "onnx":
        check_place(place, overwrite=False)
    else:
        check_new_folder(place)
        for folder, whose in zip(local_folders(model), ("the model", "the base model"), strict=False):
            if resolved(place).is_relative_to(resolved(folder)):
                raise OptionError(f"{place} would be inside {whose}'s own folder, {folder}; name a folder beside it")
    refuse_overlap(stored_files(model), {"the output": place})
    return place


def target_of(opened: OpenedModel, feature: str, semantics: Semantics) -> Target | None:
    """Return the target to save a feature of a model to: a folder, a graph where a folder cannot say it, or None."""
    plan = opened.plan(feature, semantics)
    try:
        recipe_of(plan, opened)
    except FeatureError:
        try:
            check_graph(plan.features[feature], plan.resolved[feature])
        except FeatureError:
            return None
        return "onnx"
    return "folder"
