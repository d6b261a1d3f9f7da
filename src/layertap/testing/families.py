"""Describe a model family as a row of the conformance suite, and build random models of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from layertap.models.config import ConfigReader
from layertap.models.registry import architecture_of
from layertap.models.spec import EncoderSpec
from layertap.verify.reference import Outputs, Reference, quiet_transformers

IntRow = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyRow:
    """Facts about a family that the conformance suite and the documentation need.

    Attributes:
        name: name of the family; rows of the same `model_type` have different names.
        model_type: the field of that name in `config.json`.
        config_class, model_class: names of classes in transformers.
        small: keywords of the config class for a model of a few thousand parameters and at least three blocks.
        real_size: keywords for a model of the usual size (a shorter word table changes no arithmetic and saves memory).
        pooler: whether the model class has a pooler.
        token_types: whether there is more than one token type.
        normed: which hidden states are the output of a norm, as `in_words` puts it: "all", "1 to L", "0 and L", "L".
        first_state: description of `hidden_states[0]`.
        limit: maximum number of tokens in a sequence at real size, special tokens included.
        blocks: number of blocks of the usual model where `real_size` has fewer to save memory; None if it has as many.
        head_class: a class of transformers with a head (`BertForMaskedLM`), whose checkpoints hold the encoder under
            a prefix; None if there is no such class.
        exact: whether the reference runs in float64 at real size, because its own rounding in float32 is as large as
            layertap's.
    """

    name: str
    model_type: str
    config_class: str
    model_class: str
    small: Mapping[str, Any]
    real_size: Mapping[str, Any]
    pooler: bool
    token_types: bool
    normed: str
    first_state: str
    limit: int
    blocks: int | None = None
    head_class: str | None = None
    exact: bool = False

    def config(self, values: Mapping[str, Any]) -> Any:
        """Builds a config of transformers from keywords."""
        import transformers

        return getattr(transformers, self.config_class)(**values)

    def spec(self, values: Mapping[str, Any]) -> EncoderSpec:
        """Reads such a config the way layertap does."""
        reader = ConfigReader(self.config(values).to_dict())
        return architecture_of(reader).spec(reader)

    def random_model(self, values: Mapping[str, Any], *, seed: int = 0, with_head: bool = False) -> Any:
        """Builds a model of transformers in eval mode, with every parameter random, norms and biases too."""
        name = self.head_class if with_head else self.model_class
        assert name is not None, f"{self.name} has no head_class"
        return random_module(name, self.config(values), seed=seed)


def random_module(model_class: str, config: Any, *, seed: int = 0) -> Any:
    """Builds a model of transformers in eval mode, with every parameter random, norms and biases too.

    Args:
        model_class: name of the class in transformers.
        config: a config of transformers.
        seed: seed of the parameters.
    """
    import transformers
    from transformers.initialization import no_init_weights

    with quiet_transformers(), no_init_weights():
        module = getattr(transformers, model_class)(config)
    randomise(module, seed)
    return module.eval()


def randomise(module: Any, seed: int) -> None:
    """Sets every parameter to random numbers, reproducible by seed.

    Their scale makes attention far from uniform, and every parameter matter.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in module.modules():
            for name, parameter in part.named_parameters(recurse=False):
                fan_in = int(np.prod(parameter.shape[1:])) if parameter.ndim > 1 else 100
                parameter.normal_(generator=generator).mul_(fan_in**-0.5)
                if name == "weight" and is_norm(part):
                    parameter.add_(1)


def is_norm(module: Any) -> bool:
    """Whether a module of torch or transformers is a LayerNorm or RMSNorm."""
    return type(module).__name__.endswith("Norm")


def without_norm_weights(reference: Reference) -> Reference:
    """Copies a model and sets its norms to weight 1 and bias 0, so that their output has an RMS of 1 in every row."""
    import torch

    plain = reference.copy("float64")
    with torch.no_grad():
        for part in plain.module.modules():
            for name, parameter in part.named_parameters(recurse=False) if is_norm(part) else ():
                parameter.fill_(1 if name == "weight" else 0)
    return plain


def normed_states(outputs: Outputs) -> list[bool]:
    """Tells which hidden states of a model `without_norm_weights` are the output of a norm."""
    rms = [np.sqrt(np.square(state).mean(axis=1)) for state in outputs.states]
    return [bool(np.abs(values - 1).max() < 1e-3) for values in rms]


def in_words(normed: Sequence[bool]) -> str:
    """Words the result of `normed_states` as in the documentation, for example "1 to L"."""
    last = len(normed) - 1
    words = {
        (True,) * (last + 1): "all",
        (False,) + (True,) * last: "1 to L",
        (True, *(False,) * (last - 1), True): "0 and L",
        (*(False,) * last, True): "L",
    }
    return words.get(tuple(normed), "not known: " + ", ".join(str(i) for i, is_one in enumerate(normed) if is_one))


def random_sequences(lengths: Sequence[int], vocab_size: int, *, seed: int = 0) -> list[IntRow]:
    """Draws sequences of ids of any value, the padding id included."""
    random = np.random.default_rng(seed)
    return [random.integers(0, vocab_size, length).astype(np.int32) for length in lengths]


def two_token_types(sequences: Sequence[IntRow]) -> list[IntRow]:
    """Assigns token type 0 to the first half of each sequence and 1 to the second."""
    return [(np.arange(len(ids)) * 2 // len(ids)).astype(np.int32) for ids in sequences]
