"""Classification heads of the supported families, as data: the classes and weight names of transformers.

`...ForSequenceClassification` classifies texts, `...ForTokenClassification` classifies tokens. A head is a few dense
layers on vectors of the last hidden state; the family and the config decide on the layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from layertap.checkpoints.load import ModelFiles
from layertap.errors import UnsupportedModelError
from layertap.learn.labels import TaskKind
from layertap.models.config import ConfigReader
from layertap.models.sentence import DenseActivation
from layertap.models.spec import EncoderSpec

Pooling: TypeAlias = Literal["pooler", "first", "mean", "words"]

FEATURES: dict[Pooling, str] = {
    "pooler": "pooler_output",
    "first": "last_hidden_state.first",
    "mean": "last_hidden_state.mean",
    "words": "last_hidden_state.words(first)",
}
"""Feature that gives the input vectors of a head, by the pooling."""

CLASS_ENDS: dict[TaskKind, str] = {"text": "ForSequenceClassification", "words": "ForTokenClassification"}

ACTIVATIONS: dict[str, DenseActivation] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "tanh": "tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadLayer:
    """Dense layer of a head, with its dropout, activation and norm.

    Attributes:
        name: stored name of the layer, without `.weight`.
        dropout: dropout rate on the input of the layer.
        bias: whether the layer has a bias.
        activation: activation after the layer.
        norm: stored name of the layer norm after the activation, or None if there is no norm.
        norm_bias: whether the norm has a bias.
        norm_eps: epsilon of the norm.
        spread: standard deviation of newly drawn weights; biases start at 0.
        cut: bound at which the normal distribution of new weights is truncated, in standard deviations; None does not
            truncate it.
    """

    name: str
    dropout: float = 0.0
    bias: bool = True
    activation: DenseActivation = "identity"
    norm: str | None = None
    norm_bias: bool = True
    norm_eps: float = 1e-5
    spread: float = 0.02
    cut: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyHead:
    """Classification head that a class of transformers puts on its encoder.

    Attributes:
        transformers_class: name of the class.
        task: "text" if each text gets a label, "words" if each word gets a tag.
        pooling: input of the first layer: the output of the pooler, the first token, the mean over tokens, or the
            first token of each word.
        layers: layers of the head; the last one gives the logits.
    """

    transformers_class: str
    task: TaskKind
    pooling: Pooling
    layers: tuple[HeadLayer, ...]

    @property
    def feature(self) -> str:
        """Canonical text of the input feature."""
        return FEATURES[self.pooling]

    @property
    def last(self) -> str:
        """Stored name of the weight of the last layer."""
        return f"{self.layers[-1].name}.weight"

    def shapes(self, hidden_size: int, num_classes: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of each weight by its stored name."""
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in self.layers:
            size = num_classes if layer is self.layers[-1] else hidden_size
            shapes[f"{layer.name}.weight"] = (size, hidden_size)
            if layer.bias:
                shapes[f"{layer.name}.bias"] = (size,)
            if layer.norm is not None:
                shapes[f"{layer.norm}.weight"] = (size,)
                if layer.norm_bias:
                    shapes[f"{layer.norm}.bias"] = (size,)
        return shapes


HeadDesign: TypeAlias = tuple[Pooling, tuple[HeadLayer, ...]]
"""Pooling and layers of a head."""

Designer: TypeAlias = Callable[[ConfigReader, EncoderSpec], HeadDesign]
"""Function that reads the design of a head from a config."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Heads of a family for texts and for words.

    Attributes:
        prefix: prefix of the names of the family's classes in transformers.
        text: designer of the head that classifies texts.
        words: designer of the head that tags words.
    """

    prefix: str
    text: Designer
    words: Designer


def _rate(config: ConfigReader, field: str, default: float) -> float:
    return default if config.values.get(field) is None else config.fraction(field, default)


def _stated(config: ConfigReader, spec: EncoderSpec) -> float:
    """Return the dropout rate of most heads: `classifier_dropout`, or that of the encoder if the config has none."""
    return _rate(config, "classifier_dropout", spec.hidden_dropout_prob)


def _plain(pooling: Pooling, rate: Callable[[ConfigReader, EncoderSpec], float]) -> Designer:
    """Design a head of dropout and one linear layer."""

    def design(config: ConfigReader, spec: EncoderSpec) -> HeadDesign:
        return pooling, (HeadLayer(name="classifier", dropout=rate(config, spec)),)

    return design


def _of_encoder(_: ConfigReader, spec: EncoderSpec) -> float:
    return spec.hidden_dropout_prob


def _of_albert(config: ConfigReader, spec: EncoderSpec) -> float:
    if "classifier_dropout_prob" not in config.values:
        return 0.1
    return _rate(config, "classifier_dropout_prob", spec.hidden_dropout_prob)


def _two_layers(activation: DenseActivation, rate: Callable[[ConfigReader, EncoderSpec], float] = _stated) -> Designer:
    """Design a head of two dense layers, each after dropout, on the first token, as RoBERTa has it."""

    def design(config: ConfigReader, spec: EncoderSpec) -> HeadDesign:
        dropout = rate(config, spec)
        dense = HeadLayer(name="classifier.dense", dropout=dropout, activation=activation)
        return "first", (dense, HeadLayer(name="classifier.out_proj", dropout=dropout))

    return design


def _distilbert(config: ConfigReader, _: EncoderSpec) -> HeadDesign:
    dense = HeadLayer(name="pre_classifier", activation="relu")
    return "first", (dense, HeadLayer(name="classifier", dropout=_rate(config, "seq_classif_dropout", 0.2)))


def _deberta_v2(config: ConfigReader, spec: EncoderSpec) -> HeadDesign:
    config.refuse_unless(
        "pooler_hidden_size", (spec.hidden_size, None), "only heads as wide as the encoder are supported"
    )
    activation = config.one_of("pooler_hidden_act", "gelu", ACTIVATIONS)
    dense = HeadLayer(name="pooler.dense", dropout=_rate(config, "pooler_dropout", 0.0), activation=activation)
    return "first", (
        dense,
        HeadLayer(name="classifier", dropout=_rate(config, "cls_dropout", spec.hidden_dropout_prob)),
    )


def _modernbert(pooling: Pooling | None) -> Designer:
    def design(config: ConfigReader, spec: EncoderSpec) -> HeadDesign:
        spread = _rate(config, "initializer_range", 0.02)
        stated = config.values.get("initializer_cutoff_factor", 2.0)
        cut = 3.0 if stated is None else config.number("initializer_cutoff_factor", 2.0, low=0.1, high=1000.0)
        dense = HeadLayer(
            name="head.dense",
            bias=config.flag("classifier_bias", False),
            activation=config.one_of("classifier_activation", "gelu", ACTIVATIONS),
            norm="head.norm",
            norm_bias=spec.norm_bias,
            norm_eps=spec.layer_norm_eps,
            spread=spread / (2 * spec.num_hidden_layers) ** 0.5,
            cut=cut,
        )
        last = HeadLayer(
            name="classifier",
            dropout=_rate(config, "classifier_dropout", 0.0),
            spread=spec.hidden_size**-0.5,
            cut=cut,
        )
        poolings: dict[str, Pooling] = {"cls": "first", "mean": "mean"}
        return pooling or config.one_of("classifier_pooling", "cls", poolings), (dense, last)

    return design


def _bert_line(prefix: str) -> Family:
    return Family(prefix=prefix, text=_plain("pooler", _stated), words=_plain("words", _stated))


def _roberta_line(prefix: str) -> Family:
    return Family(prefix=prefix, text=_two_layers("tanh"), words=_plain("words", _stated))


FAMILIES: dict[str, Family] = {
    "albert": Family(prefix="Albert", text=_plain("pooler", _of_albert), words=_plain("words", _of_albert)),
    "bert": _bert_line("Bert"),
    "camembert": _roberta_line("Camembert"),
    "deberta-v2": Family(prefix="DebertaV2", text=_deberta_v2, words=_plain("words", _of_encoder)),
    "distilbert": Family(prefix="DistilBert", text=_distilbert, words=_plain("words", _of_encoder)),
    "electra": Family(prefix="Electra", text=_two_layers("gelu"), words=_plain("words", _stated)),
    "megatron-bert": Family(
        prefix="MegatronBert", text=_plain("pooler", _of_encoder), words=_plain("words", _of_encoder)
    ),
    "modernbert": Family(prefix="ModernBert", text=_modernbert(None), words=_modernbert("words")),
    "mpnet": Family(prefix="MPNet", text=_two_layers("tanh", _of_encoder), words=_plain("words", _of_encoder)),
    "roberta": _roberta_line("Roberta"),
    "roberta-prelayernorm": _roberta_line("RobertaPreLayerNorm"),
    "xlm-roberta": _roberta_line("XLMRoberta"),
    "xlm-roberta-xl": _roberta_line("XLMRobertaXL"),
}
"""Heads of each family, by the name of the architecture."""


def config_of(files: ModelFiles) -> ConfigReader:
    """Return a reader of the config, whose errors name the file."""
    return ConfigReader(files.config, file=str(files.checkpoint.folder / "config.json"))


def head_of(files: ModelFiles, task: TaskKind) -> FamilyHead:
    """Return the head of the family of a model for a task.

    Raises:
        UnsupportedModelError: a family whose heads are not implemented, or a config that asks for another head.
        ConfigError: a value of the config that is not possible.
    """
    name = files.architecture.name
    if name not in FAMILIES:
        raise UnsupportedModelError(
            f"{files.checkpoint.name}: classification heads are implemented for {', '.join(FAMILIES)}, and this model "
            f"is of the family {name}; fit a classifier on its frozen features instead (layertap fit)"
        )
    family, config = FAMILIES[name], config_of(files)
    pooling, layers = (family.text if task == "text" else family.words)(config, files.spec)
    if all(layer.cut is None for layer in layers):
        spread = _rate(config, "initializer_range", 0.02)
        layers = tuple(replace(layer, spread=spread) for layer in layers)
    return FamilyHead(
        transformers_class=f"{family.prefix}{CLASS_ENDS[task]}", task=task, pooling=pooling, layers=layers
    )


def stated_task(files: ModelFiles) -> TaskKind | None:
    """Return the task of the class that `config.json` names, or None if that class has no classification head."""
    classes = files.config.get("architectures")
    name = classes[0] if isinstance(classes, list) and classes else None
    ends = (task for task, end in CLASS_ENDS.items() if isinstance(name, str) and name.endswith(end))
    return next(ends, None)
