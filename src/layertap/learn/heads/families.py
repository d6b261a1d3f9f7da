"""The classification heads of the families that have one here, as data: transformers' classes and names.

`...ForSequenceClassification` gives a text a label, `...ForTokenClassification` a token. A head is a few dense layers
on vectors of the last hidden state; which ones, the family and the config decide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from layertap.checkpoints.load import ModelFiles
from layertap.errors import UnsupportedModelError
from layertap.learn.labels import Task
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
"""What a head stands on -> the same as a feature."""

CLASS_ENDS: dict[Task, str] = {"text": "ForSequenceClassification", "words": "ForTokenClassification"}

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
    """A dense layer, and what stands around it.

    Attributes:
        name: what its weights are stored under.
        dropout: rate, before it.
        bias: it has one.
        activation: after it.
        norm: what the layer norm after that is stored under, or None: there is none.
        norm_bias: the norm has one.
        norm_eps: of the norm.
        spread: standard deviation of new weights; biases begin at 0.
        cut: where their distribution is cut off, in standard deviations; None: nowhere.
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
    """What transformers' class of a family puts on its encoder.

    Attributes:
        transformers_class: its name.
        task: what it gives a label.
        pooling: what the first layer stands on: the pooler's output, the first token, the mean over tokens, or the
            first token of each word.
        layers: the last of them gives logits.
    """

    transformers_class: str
    task: Task
    pooling: Pooling
    layers: tuple[HeadLayer, ...]

    @property
    def feature(self) -> str:
        """What the head stands on."""
        return FEATURES[self.pooling]

    @property
    def last(self) -> str:
        """Stored name of the weight that gives logits."""
        return f"{self.layers[-1].name}.weight"

    def shapes(self, hidden_size: int, num_classes: int) -> dict[str, tuple[int, ...]]:
        """Stored name of each weight -> its shape."""
        found: dict[str, tuple[int, ...]] = {}
        for layer in self.layers:
            size = num_classes if layer is self.layers[-1] else hidden_size
            found[f"{layer.name}.weight"] = (size, hidden_size)
            if layer.bias:
                found[f"{layer.name}.bias"] = (size,)
            if layer.norm is not None:
                found[f"{layer.norm}.weight"] = (size,)
                if layer.norm_bias:
                    found[f"{layer.norm}.bias"] = (size,)
        return found


Made: TypeAlias = tuple[Pooling, tuple[HeadLayer, ...]]
Maker: TypeAlias = Callable[[ConfigReader, EncoderSpec], Made]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The heads of a family.

    Attributes:
        prefix: what the names of its classes begin with in transformers.
        text, words: config and spec -> what the head is.
    """

    prefix: str
    text: Maker
    words: Maker


def _rate(config: ConfigReader, field: str, default: float) -> float:
    return default if config.values.get(field) is None else config.fraction(field, default)


def _stated(config: ConfigReader, spec: EncoderSpec) -> float:
    """The rate of most heads: that of the encoder where the config does not say another."""
    return _rate(config, "classifier_dropout", spec.hidden_dropout_prob)


def _plain(pooling: Pooling, rate: Callable[[ConfigReader, EncoderSpec], float]) -> Maker:
    """Dropout and a linear layer."""

    def make(config: ConfigReader, spec: EncoderSpec) -> Made:
        return pooling, (HeadLayer(name="classifier", dropout=rate(config, spec)),)

    return make


def _of_encoder(_: ConfigReader, spec: EncoderSpec) -> float:
    return spec.hidden_dropout_prob


def _of_albert(config: ConfigReader, spec: EncoderSpec) -> float:
    if "classifier_dropout_prob" not in config.values:
        return 0.1
    return _rate(config, "classifier_dropout_prob", spec.hidden_dropout_prob)


def _two_layers(activation: DenseActivation, rate: Callable[[ConfigReader, EncoderSpec], float] = _stated) -> Maker:
    """Dropout and a dense layer, twice, on the first token; RoBERTa's has a tanh between."""

    def make(config: ConfigReader, spec: EncoderSpec) -> Made:
        dropout = rate(config, spec)
        dense = HeadLayer(name="classifier.dense", dropout=dropout, activation=activation)
        return "first", (dense, HeadLayer(name="classifier.out_proj", dropout=dropout))

    return make


def _distilbert(config: ConfigReader, _: EncoderSpec) -> Made:
    dense = HeadLayer(name="pre_classifier", activation="relu")
    return "first", (dense, HeadLayer(name="classifier", dropout=_rate(config, "seq_classif_dropout", 0.2)))


def _deberta_v2(config: ConfigReader, spec: EncoderSpec) -> Made:
    config.refuse_unless("pooler_hidden_size", (spec.hidden_size, None), "its head has the encoder's width here")
    activation = config.one_of("pooler_hidden_act", "gelu", ACTIVATIONS)
    dense = HeadLayer(name="pooler.dense", dropout=_rate(config, "pooler_dropout", 0.0), activation=activation)
    return "first", (
        dense,
        HeadLayer(name="classifier", dropout=_rate(config, "cls_dropout", spec.hidden_dropout_prob)),
    )


def _modernbert(pooling: Pooling | None) -> Maker:
    def make(config: ConfigReader, spec: EncoderSpec) -> Made:
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

    return make


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
"""Name of the architecture -> its heads."""


def config_of(files: ModelFiles) -> ConfigReader:
    """The config, for what it says of heads."""
    return ConfigReader(files.config, file=str(files.checkpoint.folder / "config.json"))


def head_of(files: ModelFiles, task: Task) -> FamilyHead:
    """The head of a model's family for a task.

    Raises:
        UnsupportedModelError: a family without one here, or a config that asks for another.
        ConfigError: a config that says something impossible.
    """
    name = files.architecture.name
    if name not in FAMILIES:
        raise UnsupportedModelError(
            f"{files.checkpoint.name}: classification heads are there for {', '.join(FAMILIES)}, and this model is of "
            f"the family {name}; a classifier on its frozen features works (layertap fit)"
        )
    family, config = FAMILIES[name], config_of(files)
    pooling, layers = (family.text if task == "text" else family.words)(config, files.spec)
    if all(layer.cut is None for layer in layers):
        spread = _rate(config, "initializer_range", 0.02)
        layers = tuple(replace(layer, spread=spread) for layer in layers)
    return FamilyHead(
        transformers_class=f"{family.prefix}{CLASS_ENDS[task]}", task=task, pooling=pooling, layers=layers
    )


def stated_task(files: ModelFiles) -> Task | None:
    """What the class that `config.json` names gives a label, or None: it is no class with a classification head."""
    classes = files.config.get("architectures")
    name = classes[0] if isinstance(classes, list) and classes else None
    ends = (task for task, end in CLASS_ENDS.items() if isinstance(name, str) and name.endswith(end))
    return next(ends, None)
