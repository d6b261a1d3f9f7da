"""Cuts an encoder to its first blocks: the config that says so, and the weights that are left."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from layertap.checkpoints.keys import BLOCK, stored_layout
from layertap.checkpoints.load import ModelFiles
from layertap.checkpoints.tensors import SAFETENSORS
from layertap.checkpoints.writing import as_json, write_tensors
from layertap.errors import UnsupportedModelError
from layertap.files import StagedFolder
from layertap.models.config import ConfigReader
from layertap.models.key_rules import NORM_RULES
from layertap.models.spec import EncoderSpec

LAYER_FIELDS = ("num_hidden_layers", "n_layers", "n_layer")
"""Names under which configs state the number of layers."""

LISTS = ("layer_types",)
"""Fields with a value for each layer."""

GROUPS = "num_hidden_groups"

LEFT_OUT = (
    "_name_or_path",
    "transformers_version",
    "id2label",
    "label2id",
    "num_labels",
    "finetuning_task",
    "problem_type",
    "output_hidden_states",
    "output_attentions",
    "return_dict",
)
"""Fields of the original config that are of a head, of one call, or of the folder that it came from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CutEncoder:
    """The first blocks of an encoder, without its pooler.

    Attributes:
        files: the whole checkpoint.
        config: content of `config.json`.
        spec: the encoder that the config describes.
        blocks: for each of its blocks of weights the one of the whole encoder that it is.
    """

    files: ModelFiles
    config: dict[str, Any]
    spec: EncoderSpec
    blocks: tuple[int, ...]

    @property
    def layout(self) -> dict[str, tuple[str, ...]]:
        """Key in the file -> names of the whole encoder's weights that are stored under it, in the order of rows."""
        # The file's own spelling, which transformers reads with this config, without the prefix of a head's model.
        rules = [rule for rule in self.files.key_rules if rule not in NORM_RULES and rule.canonical != "*"]
        names = [name for name in self.spec.parameters() if not name.startswith("pooler.")]
        layout = stored_layout(names, rules, self.files.split_rules)
        return {key: tuple(self._source(name) for name in held) for key, held in layout.items()}

    @property
    def num_parameters(self) -> int:
        """Values of the weights that are left."""
        tensors = self.files.tensors
        return sum(tensors[name].view.size for held in self.layout.values() for name in held)

    def write(self, folder: StagedFolder) -> None:
        """Write `config.json` and `model.safetensors`, with the dtypes of the checkpoint.

        Raises:
            WeightsError: a weight that is missing, or not as it should be.
            OSError: a file cannot be written.
        """
        folder.write("config.json", as_json(self.config))
        write_tensors(folder, SAFETENSORS, self.layout, lambda name: self.files.weights([name])[name])

    def _source(self, name: str) -> str:
        """Return the name that a weight has in the whole encoder."""
        match = BLOCK.match(name)
        return name if match is None else f"encoder.layer.{self.blocks[int(match[1])]}.{name[match.end() :]}"


def cut(files: ModelFiles, num_layers: int, *, all_states: bool = False) -> CutEncoder:
    """Cut an encoder to its first layers.

    Layers that share weights go on to share them where the family's config can say which of them do; else each has a
    copy of its own.

    Args:
        files: the checkpoint.
        num_layers: layers to keep, from 1 to all.
        all_states: the model returns every hidden state, which modules after it read.

    Raises:
        UnsupportedModelError: the config states something for each layer that is not known here.
    """
    spec, architecture = files.spec, files.architecture
    config = {name: value for name, value in files.config.items() if name not in LEFT_OUT}
    config["model_type"] = files.config.get("model_type") or architecture.name
    if config["model_type"] == architecture.name:
        config["architectures"] = [architecture.transformers_class]
    _keep_remote_code(config)
    # transformers computes in this dtype, whatever the weights are stored in; the feature is of float32.
    config.pop("torch_dtype", None)
    config["dtype"] = "float32"
    stated = [field for field in LAYER_FIELDS if field in config]
    for field in stated or [LAYER_FIELDS[1 if architecture.name == "distilbert" else 0]]:
        config[field] = num_layers
    for field in LISTS:
        if isinstance(config.get(field), list):
            config[field] = config[field][:num_layers]
    if all_states:
        config["output_hidden_states"] = True
    wanted = replace(
        spec,
        num_hidden_layers=num_layers,
        blocks=spec.blocks[:num_layers],
        rotary_thetas=spec.rotary_thetas[:num_layers],
        windows=spec.windows[:num_layers],
    )
    for groups in [None] if not spec.blocks else [wanted.num_blocks, *range(1, num_layers + 1)]:
        own = config if groups is None else {**config, GROUPS: groups}
        described = architecture.spec(ConfigReader(own))
        if described == wanted:
            return CutEncoder(files=files, config=own, spec=wanted, blocks=tuple(range(wanted.num_blocks)))
    if spec.blocks:
        # The last number of groups was one for each layer.
        return CutEncoder(files=files, config=own, spec=described, blocks=wanted.blocks)
    raise UnsupportedModelError(
        f"{files.checkpoint.folder}: config.json states something for each layer beside {', '.join(LISTS)}, so that a "
        f"model of {num_layers} layers is another one"
    )


def _keep_remote_code(config: dict[str, Any]) -> None:
    """Leave out references to code in the checkpoint's own folder, which is not copied; layertap never runs any."""
    code = config.get("auto_map")
    if isinstance(code, dict):
        elsewhere = {name: where for name, where in code.items() if isinstance(where, str) and "--" in where}
        config.pop("auto_map")
        if elsewhere:
            config["auto_map"] = elsewhere
