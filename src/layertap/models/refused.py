"""Models that layertap recognises and refuses by name, and code that a model brings with it, which is never run."""

from __future__ import annotations

from layertap.errors import UnsupportedModelError
from layertap.models.config import ConfigReader, short

# First words of a class, in `architectures` or `auto_map` -> why no backend runs it. Some of these call
# themselves by the model_type of another family, JinaBERT v2 by "bert".
REFUSED_CLASSES: dict[str, str] = {
    "JinaBert": "JinaBERT v2 has ALiBi instead of position embeddings and gated feed-forwards",
    "XLNet": "XLNet attends by relative sinusoids and segments, and its CLS token comes last",
    "Longformer": "Longformer attends within a window, and to chosen tokens from everywhere",
    "BigBird": "BigBird attends to random blocks in long texts and to everything in short ones",
    "FNet": "FNet mixes tokens by a Fourier transform, so that a vector depends on the padding beside it",
    "NeZha": "NEZHA has functional relative positions",
    "Nezha": "NEZHA has functional relative positions",
    "ModernBertDecoder": "a decoder attends to the left only; layertap runs encoders",
}
REFUSED_MODEL_TYPES: dict[str, str] = {
    "xlnet": "XLNet",
    "longformer": "Longformer",
    "big_bird": "BigBird",
    "bigbird_pegasus": "BigBird",
    "fnet": "FNet",
    "nezha": "Nezha",
    "modernbert-decoder": "ModernBertDecoder",
}

# Class of a model's own code -> model_type of the native family that computes the same.
NATIVE_TWINS: dict[str, str] = {
    # of the official repositories, written before transformers had the family
    "EuroBertModel": "eurobert",
    "EuroBertForMaskedLM": "eurobert",
    "EuroBertForSequenceClassification": "eurobert",
    "EuroBertForTokenClassification": "eurobert",
} | {
    f"{family}{head}": model_type
    for family, model_type in (("NomicBert", "nomic_bert"), ("New", "gte"), ("Gte", "gte"))
    for head in (
        "Model",
        "ForPreTraining",
        "ForMaskedLM",
        "ForMultipleChoice",
        "ForQuestionAnswering",
        "ForSequenceClassification",
        "ForTokenClassification",
    )
}

# Code for these says nothing about the forward pass.
HARMLESS_CODE = ("AutoConfig",)


def refuse_by_name(config: ConfigReader) -> None:
    """Refuses a model that is known not to run here, whatever it calls itself.

    Raises:
        UnsupportedModelError: naming file, field, found and the reason.
    """
    model_type = config.values.get("model_type")
    if isinstance(model_type, str) and model_type in REFUSED_MODEL_TYPES:
        reason = REFUSED_CLASSES[REFUSED_MODEL_TYPES[model_type]]
        raise UnsupportedModelError(f"{config.file}: model_type: found {short(model_type)}: {reason}; not supported")
    for field in ("architectures", "auto_map"):
        for name in _strings(config.values.get(field)):
            sign = next((sign for sign in REFUSED_CLASSES if name.rpartition(".")[2].startswith(sign)), None)
            if sign is not None:
                raise UnsupportedModelError(
                    f"{config.file}: {field}: found {short(name)}: {REFUSED_CLASSES[sign]}; not supported"
                )


def refuse_foreign_code(config: ConfigReader, model_type: str) -> None:
    """Refuses a model that brings code for its forward pass or tokenizer, unless a native family is that code's twin.

    Args:
        config: the model's.
        model_type: its native family.

    Raises:
        UnsupportedModelError: naming file, field, found, and what the native family would be.
    """
    auto_map = config.values.get("auto_map")
    if auto_map is None:
        return
    if not isinstance(auto_map, dict):
        raise config.fail("auto_map", "an object of class names")
    for auto_class, value in auto_map.items():
        if auto_class in HARMLESS_CODE or value is None:
            continue
        names = _strings(value)
        if not names or any(NATIVE_TWINS.get(name.rpartition(".")[2]) != model_type for name in names):
            raise UnsupportedModelError(
                f"{config.file}: auto_map: expected no code of the model's own, which layertap never runs, found "
                f"{short(auto_class)}: {short(value)}; the native family {model_type} serves this model_type: if the "
                "code changes nothing in its forward pass, remove auto_map from config.json"
            )


def _strings(value: object) -> list[str]:
    """The texts in a value of the shapes that `architectures` and `auto_map` have, however nested."""
    if isinstance(value, str):
        return [value]
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for child in children for text in _strings(child)]
