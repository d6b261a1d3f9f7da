"""Saves a feature as a model folder, which stands once it has been loaded back and compared with the feature."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from layertap.checkpoints.json_file import read_object
from layertap.checkpoints.sentence import MODEL_CONFIG
from layertap.checkpoints.writing import as_json, write_tokenizer
from layertap.engine.extractor import Extractor
from layertap.engine.opening import open_reference
from layertap.engine.options import ModelReference, Semantics
from layertap.features.expr import Expr
from layertap.features.plan import Plan
from layertap.features.rewrite import sources
from layertap.features.sources import SentenceEmbedding, sentence_embedding
from layertap.files import StagedFolder, staged_folder
from layertap.saving.card import SavedModel, model_card
from layertap.saving.check import Certificate, sample_texts
from layertap.saving.cut import CutEncoder, cut
from layertap.saving.modules import write_modules
from layertap.saving.recipe import Recipe, recipe_of

BOUND = 2e-6
"""Largest error of a folder; most have none. Weights of layers and poolers are rounded once more than in a plan."""

PROVENANCE = "layertap.json"


def save_folder(extractor: Extractor, feature: str | Expr, output: Path) -> SavedModel:
    """Save a feature as a folder of sentence-transformers and transformers.

    Raises:
        FeatureError: the feature has a step that such a folder cannot say.
        OutputError: the folder cannot be written, or what was written is not the feature.
    """
    plan = extractor.plan(feature)
    recipe = recipe_of(plan, extractor.opened)
    encoder = cut(extractor.files, recipe.top, all_states=recipe.sentence.layer_weights is not None)
    with staged_folder(output, first="config.json", overwrite=False) as folder:
        _write(folder, encoder, recipe, similarity=_similarity(extractor, plan))
        saved = _checked(folder, extractor, plan, encoder, recipe)
        provenance = extractor.provenance(feature)
        content: dict[str, Any] = {
            "feature": saved.feature,
            "num_hidden_layers": list(saved.blocks),
            "source": provenance.as_dict(),
            "check": dict(saved.certificate.values()),
        }
        folder.write(PROVENANCE, as_json(content))
        folder.write("README.md", model_card(saved, provenance).encode())
        return saved


def _write(folder: StagedFolder, encoder: CutEncoder, recipe: Recipe, *, similarity: str | None) -> None:
    encoder.write(folder)
    write_tokenizer(encoder.files, folder, max_length=None)
    write_modules(
        folder,
        recipe.sentence,
        hidden_size=encoder.spec.hidden_size,
        num_layers=encoder.spec.num_hidden_layers,
        pooler=encoder.spec.pooler,
        similarity=similarity,
    )


def _checked(folder: StagedFolder, extractor: Extractor, plan: Plan, encoder: CutEncoder, recipe: Recipe) -> SavedModel:
    """Load the folder back and compare it with the feature."""
    (feature,) = plan.features.values()
    texts = sample_texts(extractor, plan.inputs[0].max_length)
    opened = open_reference(ModelReference(name=str(folder.path), local_files_only=True))
    loaded = Extractor.of(opened, Semantics(), extractor.runtime)
    saved, expected = (
        np.asarray(one.extract(texts, own)) for one, own in ((loaded, sentence_embedding), (extractor, feature))
    )
    certificate = Certificate.of(saved, expected, bound=BOUND)
    certificate.require("the folder")
    return SavedModel(
        feature=str(feature),
        blocks=(encoder.spec.num_hidden_layers, extractor.files.spec.num_hidden_layers),
        parameters=(encoder.num_parameters, extractor.files.num_parameters),
        size=saved.shape[1],
        modules=tuple(_kinds(recipe)),
        max_length=plan.inputs[0].max_length,
        default_prompt=plan.inputs[0].prompt,
        lowercase=recipe.sentence.lowercase,
        adapted=extractor.files.adapted,
        certificate=certificate,
    )


def _kinds(recipe: Recipe) -> list[str]:
    steps = [step if step == "normalize" else str(step) for step in recipe.sentence.steps]
    weighted = ["weighted mean over layers"] if recipe.sentence.layer_weights is not None else []
    return ["encoder", *weighted, f"pooling ({', '.join(recipe.sentence.poolings)})", *(str(step) for step in steps)]


def _similarity(extractor: Extractor, plan: Plan) -> str | None:
    """Return how the source's folder compares embeddings, where the feature is its own sentence embedding."""
    (feature,) = plan.features.values()
    file = extractor.files.checkpoint.file(MODEL_CONFIG)
    if file is None or not isinstance(sources(feature)[0], SentenceEmbedding):
        return None
    value = read_object(file).get("similarity_fn_name")
    return value if isinstance(value, str) else None
