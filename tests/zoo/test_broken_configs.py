"""Configs that say something impossible, or what no backend runs; each refused with file, field, expected and found."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from layertap.errors import CheckpointError, ConfigError, TokenizerError, UnsupportedModelError, WeightsError
from layertap.models.registry import ARCHITECTURES
from tests.zoo.damage import config

CONFIG = "config.json"


def written(text: str | bytes, file: str = CONFIG) -> Callable[[Path], None]:
    content = text.encode() if isinstance(text, str) else text
    return lambda folder: (folder / file).write_bytes(content)


SIZE_FIELDS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
    "type_vocab_size",
)


@pytest.mark.parametrize("field", SIZE_FIELDS)
def test_absurd_sizes(cage, sound, field):
    values = (0, -1, -(10**12), 10**12, 10**400, 2**31, 1.5, 16.0, True, "16", [16], {}, float("nan"), float("inf"))
    for value in values:
        cage.refuses(
            sound,
            config(**{field: value}),
            error=ConfigError,
            says=[CONFIG, f"{field}: expected a whole number from 1 to 2147483647, found "],
            label=value,
        )


@pytest.mark.parametrize("field", [field for field in SIZE_FIELDS if field != "num_attention_heads"])
def test_sizes_that_are_not_those_of_the_weights(cage, sound, field):
    # (another number of heads that divides hidden_size leaves no trace in the weights)
    for value in (3, 7, 20, 2**31 - 1):
        cage.refuses(sound, config(**{field: value}), says=["expected", "found"], label=value)


def test_heads_that_do_not_divide(cage, sound):
    for heads in (3, 5, 17, 32, 2**31 - 1):
        cage.refuses(
            sound,
            config(num_attention_heads=heads),
            error=ConfigError,
            says=[CONFIG, f"num_attention_heads: expected a divisor of hidden_size (16), found {heads}"],
        )
    for size in (15, 17, 18):
        cage.refuses(
            sound,
            config(hidden_size=size),
            error=ConfigError,
            says=[CONFIG, f"num_attention_heads: expected a divisor of hidden_size ({size}), found 4"],
        )


@pytest.mark.parametrize("field", ["layer_norm_eps", "hidden_dropout_prob", "attention_probs_dropout_prob"])
def test_absurd_numbers(cage, sound, field):
    for value in (-1e-5, 2, 10**12, 10**400, float("nan"), float("inf"), "1e-5", None, True, [0.1]):
        cage.refuses(
            sound,
            config(**{field: value}),
            error=ConfigError,
            says=[CONFIG, f"{field}: expected a number from 0.0 to 1.0, found "],
            label=value,
        )


def test_absurd_padding_ids(cage, sound):
    for value in (-1, 10**12, 1.0, "0", True, 10**6, [0]):
        cage.refuses(
            sound, config(pad_token_id=value), error=ConfigError, says=[CONFIG, "pad_token_id: expected", "found"]
        )


def test_unknown_activations(cage, sound):
    for value in ("quick_gelu", "gelu_10", "GELU", "", "tanh", None, 3, ["gelu"], {"gelu": 1}, "gelu\ud800"):
        cage.refuses(
            sound,
            config(hidden_act=value),
            error=ConfigError,
            says=[CONFIG, "hidden_act: expected one of gelu, ", "found "],
            label=value,
        )


def test_unknown_model_types(cage, sound):
    for value in ("gpt2", "llama", "t5"):
        cage.refuses(
            sound,
            config(model_type=value),
            error=UnsupportedModelError,
            says=[CONFIG, f"model_type: found {value!r}: ", "layertap runs encoders"],
            label=value,
        )
    for value in ("gpt9", "Bert", "bert ", "", 3, ["bert"], {"bert": 1}, "bert\ud800"):
        cage.refuses(
            sound,
            config(model_type=value),
            error=UnsupportedModelError,
            says=[CONFIG, f"model_type: expected one of {', '.join(ARCHITECTURES)}, found {value!r}"],
            label=value,
        )
    for value in ([], ["GPT9Model"], "BertModel", None, [3]):
        cage.refuses(
            sound,
            config(model_type=None, architectures=value),
            error=ConfigError,
            says=[CONFIG, "model_type: expected one of", "found None"],
            label=value,
        )


def test_another_familys_model_type(cage, sound, family):
    # their forward passes differ in positions, and so in the sizes of this checkpoint's tables or ids
    other = {"bert": "roberta", "roberta": "bert"}[family]

    def other_prefix(folder: Path) -> None:
        from safetensors.numpy import load_file, save_file

        path = folder / "model.safetensors"
        save_file({f"{family}.{key}": array for key, array in load_file(path).items()}, path)
        config(model_type=other)(folder)

    cage.refuses(sound, other_prefix, error=WeightsError, says=[f"prefix '{family}.'", "expected", "found"])


@pytest.mark.parametrize(
    "value", ["relative_key", "relative_key_query", "rotary", "alibi", "none", "", 3, ["absolute"]]
)
def test_other_positions(cage, sound, value):
    cage.refuses(
        sound,
        config(position_embedding_type=value),
        error=UnsupportedModelError,
        says=[CONFIG, f"position_embedding_type is {value!r}", "only absolute positions are computed"],
    )


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("is_decoder", True, "attends to the left only"),
        ("add_cross_attention", True, "cross-attention needs a second input"),
        ("quantization_config", {"load_in_4bit": True}, "quantised checkpoints are not read"),
        ("pruned_heads", {"0": [1]}, "pruned attention heads"),
        ("embedding_size", 8, "a factorised embedding table"),
        ("alibi_starting_size", 512, "ALiBi"),
    ],
)
def test_what_changes_the_forward_pass(cage, sound, field, value, says):
    cage.refuses(
        sound, config(**{field: value}), error=UnsupportedModelError, says=[CONFIG, f"{field} is {value!r}", says]
    )


@pytest.mark.parametrize(
    ("model_type", "class_name", "says"),
    [
        ("xlnet", "XLNetLMHeadModel", "XLNet attends by relative sinusoids and segments"),
        ("longformer", "LongformerModel", "Longformer attends within a window"),
        ("big_bird", "BigBirdForMaskedLM", "BigBird attends to random blocks"),
        ("fnet", "FNetModel", "FNet mixes tokens by a Fourier transform"),
        ("bert", "JinaBertForMaskedLM", "JinaBERT v2 has ALiBi instead of position embeddings"),
        ("nezha", "NezhaModel", "NEZHA has functional relative positions"),
    ],
)
def test_other_families_are_refused_by_name(cage, sound, model_type, class_name, says):
    forms: list[dict[str, object]] = [
        {"model_type": model_type, "architectures": [class_name]},
        {"model_type": "bert", "architectures": [class_name]},
        {"model_type": None, "architectures": [class_name]},
        {"auto_map": {"AutoModel": f"jinaai/repo--modeling.{class_name}"}},
    ]
    for form in forms:
        cage.refuses(
            sound,
            config(**form),
            error=UnsupportedModelError,
            says=[CONFIG, "found", says, "not supported"],
            label=form,
        )


def test_code_of_the_models_own_is_never_run(cage, sound, family, tmp_path):
    witness = tmp_path / "it_ran"

    def bring_code(folder: Path) -> None:
        for module in ("modeling", "configuration", "tokenization", "custom_st"):
            (folder / f"{module}.py").write_text(f"open({str(witness)!r}, 'w')\n")

    for auto_class, value in {
        "AutoModel": "modeling.OwnModel",
        "AutoModelForMaskedLM": "org/repo--modeling.OwnForMaskedLM",
        "AutoTokenizer": ["tokenization.OwnTokenizer", None],
    }.items():

        def damage(folder: Path, auto_class: str = auto_class, value: object = value) -> None:
            bring_code(folder)
            config(auto_map={"AutoConfig": "configuration.OwnConfig", auto_class: value})(folder)

        cage.refuses(
            sound,
            damage,
            error=UnsupportedModelError,
            says=[
                CONFIG,
                "auto_map: expected no code",
                "never runs",
                repr(auto_class),
                f"the native family {family} serves",
            ],
        )

    def unknown(folder: Path) -> None:
        bring_code(folder)
        config(model_type="own", auto_map={"AutoModel": "modeling.OwnModel"})(folder)

    cage.refuses(sound, unknown, error=UnsupportedModelError, says=["no native family serves it", "never run"])
    assert not witness.exists()


def test_a_cut_config(cage, sound):
    text = (sound / CONFIG).read_bytes()
    for found in re.finditer(rb'[{}:,"]', text):
        size = found.start()
        cage.refuses(sound, written(text[:size]), error=ConfigError, says=[CONFIG, "line", "not JSON"], label=size)


def test_cut_tokenizer_files(cage, sound):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = (sound / name).read_bytes()
        sizes = [found.start() for found in re.finditer(rb'[{}:,"]', text)]
        for size in sizes[:: max(1, len(sizes) // 60)]:
            cage.refuses(sound, written(text[:size], name), error=TokenizerError, says=[name], label=(name, size))


def test_configs_that_are_no_object(cage, sound):
    contents = (
        "",
        "[]",
        "null",
        "3",
        '"x"',
        "true",
        "\x00",
        "{'a': 1}",
        "{}{}",
        "// no\n{}",
        '{"a": 1,}',
        "NaN",
        "\ufeff",
    )
    for content in (*contents, b"\xff\xfe{\0}\0", b'{"a": "\xff"}', "[" * 100_000, '{"a": ' * 100 + "1" + "}" * 100):
        cage.refuses(sound, written(content), error=ConfigError, says=[CONFIG], label=content[:20])
    cage.refuses(
        sound, written('{"vocab_size": ' + "9" * 5000 + "}"), error=ConfigError, says=[CONFIG, "too many digits"]
    )


def test_fields_that_stand_twice(cage, sound):
    for field, value in (("hidden_size", "32"), ("hidden_act", '"relu"'), ("model_type", '"roberta-x"'), ("x", "[1]")):

        def double(folder: Path, field: str = field, value: str = value) -> None:
            text = (folder / CONFIG).read_text().rstrip()
            (folder / CONFIG).write_text(f'{text[:-1]}, "x": [true], "{field}": {value}}}')

        cage.refuses(
            sound, double, error=ConfigError, says=[CONFIG, f"'{field}': expected once, found twice"], label=field
        )


def test_missing_files(cage, sound):
    for name, error, says in (
        (CONFIG, ConfigError, "no config.json"),
        ("model.safetensors", WeightsError, "expected model.safetensors"),
        ("tokenizer.json", TokenizerError, "no tokenizer.json"),
    ):
        cage.refuses(sound, lambda folder, name=name: (folder / name).unlink(), error=error, says=[says], label=name)


def test_folders_and_links_in_the_place_of_files(cage, sound):
    for name in (CONFIG, "model.safetensors", "tokenizer.json"):

        def folder_instead(folder: Path, name: str = name) -> None:
            (folder / name).unlink()
            (folder / name).mkdir()

        def dangling(folder: Path, name: str = name) -> None:
            (folder / name).unlink()
            (folder / name).symlink_to(folder / "gone")

        for damage in (folder_instead, dangling):
            cage.refuses(sound, damage, error=CheckpointError, says=[name], label=name)


def test_tokenizer_class_of_the_config(cage, sound):
    def damage(value: object) -> Callable[[Path], None]:
        def inner(folder: Path) -> None:
            (folder / "tokenizer_config.json").unlink()
            config(tokenizer_class=value)(folder)

        return inner

    for value in (3, ["BertTokenizer"], True, {}):
        cage.refuses(
            sound,
            damage(value),
            error=ConfigError,
            says=[CONFIG, f"tokenizer_class: expected a name or null, found {value!r}"],
        )
