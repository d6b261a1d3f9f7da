"""Models that layertap recognises and refuses by name, and code that a model brings with it, which is never run."""

from __future__ import annotations

import re

from layertap.errors import UnsupportedModelError
from layertap.models.config import ConfigReader, short
from layertap.models.fields import DECODER

PAIR = "an encoder and a decoder in one; layertap runs encoders on their own"
PAGE = "it reads where words stand on a page beside them"

# The family's part of a class name, in `architectures` or `auto_map` -> why no backend runs it. Some of these call
# themselves by the model_type of another family: JinaBERT v2 by "bert", Jina v3 by "xlm-roberta".
REFUSED_CLASSES: dict[str, str] = {
    "BertGeneration": "BertGeneration has no token types, and is half of a pair with a decoder",
    "BigBird": "BigBird attends to random blocks in long texts and to everything in short ones",
    "Bros": f"BROS: {PAGE}",
    "CLIPText": "CLIP's text half attends to the left only",
    "Canine": "CANINE hashes characters and shortens sequences of them between its blocks",
    "ConvBert": "ConvBERT has convolutions made from the text beside attention",
    "DNABert": "DNABERT-2 has ALiBi instead of position embeddings",
    "DPR": "DPR holds a BERT for questions, for contexts or for readers; save that BERT on its own",
    "Data2VecText": "Data2VecText has RoBERTa's forward pass under a name that is not served yet",
    "Deberta": "DeBERTa v1 has relative positions in attention, with projections fused head by head",
    "Ernie": "ERNIE has a table of task types among its embeddings",
    "ErnieM": "ERNIE-M has no token types, and names of weights of its own",
    "Esm": "ESM scales embeddings by the share of mask tokens, and reads proteins",
    "Esmc": "ESM C reads proteins",
    "FNet": "FNet mixes tokens by a Fourier transform, so that a vector depends on the padding beside it",
    "Flaubert": "FlauBERT is built like XLM, which is not served",
    "Funnel": "Funnel Transformer pools tokens between its blocks, so that hidden states differ in length",
    "IBert": "I-BERT computes in whole numbers where it is quantised",
    "JinaBert": "JinaBERT v2 has ALiBi instead of position embeddings and gated feed-forwards",
    "JinaEmbeddingsV3": "Jina v3 has rotary positions and adapters chosen by a task",
    "LayoutLM": f"LayoutLM: {PAGE}",
    "LayoutLMv2": f"LayoutLMv2: {PAGE}, and its picture",
    "LayoutLMv3": f"LayoutLMv3: {PAGE}, and its picture",
    "Lilt": f"LiLT: {PAGE}",
    "Longformer": "Longformer attends within a window, and to chosen tokens from everywhere",
    "Luke": "LUKE reads entities beside words",
    "Lxmert": "LXMERT reads pictures beside words",
    "MarkupLM": "MarkupLM reads where words stand in a web page",
    "MobileBert": "MobileBERT has bottlenecks and stacks of feed-forwards in each block",
    "ModernBertDecoder": DECODER,
    "ModernVBert": "ModernVBERT reads pictures beside words",
    "Mra": "MRA approximates attention at several resolutions",
    "NeZha": "NEZHA has functional relative positions",
    "NeoMME": "NeoMME reads pictures beside words",
    "Nezha": "NEZHA has functional relative positions",
    "NomicVision": "it reads pictures",
    "Nystromformer": "Nystromformer approximates attention through landmarks",
    "Perceiver": "Perceiver attends from a fixed number of latent rows, not from tokens",
    "QDQBert": "QDQBERT is quantised",
    "Reformer": "Reformer attends within hash buckets, in reversible blocks",
    "RemBert": "RemBERT has tables of another width, projected to the hidden size before the first block",
    "RoCBert": "RoCBERT reads the shape and the sound of characters beside them",
    "RoFormer": "RoFormer rotates neighbouring numbers of a head against each other",
    "Splinter": "Splinter is BERT for choosing spans, under names that are not served",
    "SqueezeBert": "SqueezeBERT has grouped convolutions in place of dense layers",
    "Tapas": "TAPAS reads where words stand in a table",
    "UltraVBert": "UltraVBERT reads pictures beside words",
    "Ultrabert": "UltraBERT has EuroBERT's blocks with attention within a window, under a name that is not served",
    "VisualBert": "VisualBERT reads pictures beside words",
    "XLM": "XLM adds a table of languages to its embeddings, and has names of weights of its own",
    "XLMProphetNet": PAIR,
    "XLMRobertaFlash": "XLM-R with rotary positions and adapters chosen by a task (Jina v3)",
    "XLMRobertaLoRA": "XLM-R with rotary positions and adapters chosen by a task (Jina v3)",
    "XLNet": "XLNet attends by relative sinusoids and segments, and its CLS token comes last",
    "Xmod": "X-MOD has adapters chosen by a language in each block",
    "Yoso": "YOSO samples attention by hashing",
    **dict.fromkeys(
        ("Bart", "BigBirdPegasus", "Blenderbot", "LED", "LongT5", "M2M100", "MBart", "MT5", "Marian"), PAIR
    ),
    **dict.fromkeys(("Mvp", "PLBart", "Pegasus", "ProphetNet", "SwitchTransformers", "T5", "T5Gemma", "UMT5"), PAIR),
    **dict.fromkeys(("BioGpt", "Bloom", "CTRL", "CodeGen", "Falcon", "GPT2", "GPTBigCode", "GPTJ", "GPTNeo"), DECODER),
    **dict.fromkeys(("GPTNeoX", "Gemma", "Gemma2", "Gemma3", "Gemma3Text", "Llama", "Mamba", "Mistral"), DECODER),
    **dict.fromkeys(("Mixtral", "Mpt", "OPT", "Olmo", "Olmo2", "OpenAIGPT", "Phi", "Phi3", "Qwen2", "Qwen3"), DECODER),
    **dict.fromkeys(("SmolLM3", "StableLm", "Starcoder2", "XGLM"), DECODER),
}
REFUSED_MODEL_TYPES: dict[str, str] = {
    "bart": "Bart",
    "bert-generation": "BertGeneration",
    "big_bird": "BigBird",
    "bigbird_pegasus": "BigBirdPegasus",
    "biogpt": "BioGpt",
    "blenderbot": "Blenderbot",
    "bloom": "Bloom",
    "bros": "Bros",
    "canine": "Canine",
    "clip_text_model": "CLIPText",
    "codegen": "CodeGen",
    "convbert": "ConvBert",
    "ctrl": "CTRL",
    "data2vec-text": "Data2VecText",
    "deberta": "Deberta",
    "dpr": "DPR",
    "ernie": "Ernie",
    "ernie_m": "ErnieM",
    "esm": "Esm",
    "esmc": "Esmc",
    "falcon": "Falcon",
    "flaubert": "Flaubert",
    "fnet": "FNet",
    "funnel": "Funnel",
    "gemma": "Gemma",
    "gemma2": "Gemma2",
    "gemma3": "Gemma3",
    "gemma3_text": "Gemma3Text",
    "gpt2": "GPT2",
    "gpt_bigcode": "GPTBigCode",
    "gpt_neo": "GPTNeo",
    "gpt_neox": "GPTNeoX",
    "gptj": "GPTJ",
    "ibert": "IBert",
    "jina_embeddings_v3": "JinaEmbeddingsV3",
    "layoutlm": "LayoutLM",
    "layoutlmv2": "LayoutLMv2",
    "layoutlmv3": "LayoutLMv3",
    "led": "LED",
    "lilt": "Lilt",
    "llama": "Llama",
    "longformer": "Longformer",
    "longt5": "LongT5",
    "luke": "Luke",
    "lxmert": "Lxmert",
    "m2m_100": "M2M100",
    "mamba": "Mamba",
    "marian": "Marian",
    "markuplm": "MarkupLM",
    "mbart": "MBart",
    "mistral": "Mistral",
    "mixtral": "Mixtral",
    "mobilebert": "MobileBert",
    "modernbert-decoder": "ModernBertDecoder",
    "modernvbert": "ModernVBert",
    "mpt": "Mpt",
    "mra": "Mra",
    "mt5": "MT5",
    "mvp": "Mvp",
    "neomme": "NeoMME",
    "nezha": "Nezha",
    "nomicbert_vision": "NomicVision",
    "nystromformer": "Nystromformer",
    "olmo": "Olmo",
    "olmo2": "Olmo2",
    "openai-gpt": "OpenAIGPT",
    "opt": "OPT",
    "pegasus": "Pegasus",
    "perceiver": "Perceiver",
    "phi": "Phi",
    "phi3": "Phi3",
    "plbart": "PLBart",
    "prophetnet": "ProphetNet",
    "qdqbert": "QDQBert",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "reformer": "Reformer",
    "rembert": "RemBert",
    "roc_bert": "RoCBert",
    "roformer": "RoFormer",
    "smollm3": "SmolLM3",
    "splinter": "Splinter",
    "squeezebert": "SqueezeBert",
    "stablelm": "StableLm",
    "starcoder2": "Starcoder2",
    "switch_transformers": "SwitchTransformers",
    "t5": "T5",
    "t5gemma": "T5Gemma",
    "tapas": "Tapas",
    "ultrabert": "Ultrabert",
    "ultravbert": "UltraVBert",
    "umt5": "UMT5",
    "visual_bert": "VisualBert",
    "xglm": "XGLM",
    "xlm": "XLM",
    "xlm-prophetnet": "XLMProphetNet",
    "xlnet": "XLNet",
    "xmod": "Xmod",
    "yoso": "Yoso",
}

# What follows the family's part of a class name: XLM is in `XLMWithLMHeadModel`, and not in `XLMRobertaModel`.
CLASS_END = re.compile(
    r"(?:For[A-Z]\w*|(?:WithLMHead|LMHead|DoubleHeads|Base|Encoder|Text|PreTrained)?Model(?:WithProjection)?"
    r"|(?:Question|Context)?Encoder|Decoder|Reader|Config)?"
)

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
            sign = next((sign for sign in REFUSED_CLASSES if is_class_of(sign, name)), None)
            if sign is not None:
                raise UnsupportedModelError(
                    f"{config.file}: {field}: found {short(name)}: {REFUSED_CLASSES[sign]}; not supported"
                )


def is_class_of(family: str, name: str) -> bool:
    """Return whether a class, with or without its module in front, is one of a family's: its model, or one with a
    head.
    """
    bare = name.rpartition(".")[2]
    return bare.startswith(family) and CLASS_END.fullmatch(bare, len(family)) is not None


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
    """Return the texts in a value of the shapes that `architectures` and `auto_map` have, however nested."""
    if isinstance(value, str):
        return [value]
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for child in children for text in _strings(child)]
