"""NomicBERT and GTE as the hub has them: their own configs and keys, against transformers and plain numpy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", minversion="5")

from safetensors.numpy import load_file, save_file  # noqa: E402 - after what may be missing

from layertap.checkpoints.load import open_model  # noqa: E402
from layertap.checkpoints.source import locate  # noqa: E402
from layertap.errors import WeightsError  # noqa: E402
from layertap.testing.candidate import Candidate  # noqa: E402
from layertap.testing.families import random_sequences, two_token_types  # noqa: E402
from layertap.testing.suite import state_errors  # noqa: E402
from layertap.verify.measure import FLOAT32_ERROR  # noqa: E402
from layertap.verify.reference import Outputs, Reference  # noqa: E402
from tests.tiny_models import random_model, save_model  # noqa: E402

V, H, A, F, L = 60, 32, 4, 256, 3
SIZES: dict[str, Any] = {
    "vocab_size": V,
    "hidden_size": H,
    "num_hidden_layers": L,
    "num_attention_heads": A,
    "intermediate_size": F,
}
OWN_NOMIC: dict[str, Any] = {
    "model_type": "nomic_bert",
    "vocab_size": V,
    "n_embd": H,
    "n_layer": L,
    "n_head": A,
    "n_inner": F,
    "n_positions": 64,
    "layer_norm_epsilon": 1e-5,
    "activation_function": "swiglu",
    "rotary_emb_base": 700,
    "rotary_emb_fraction": 1.0,
    "qkv_proj_bias": False,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
}


def saved(folder: Path, name: str, model: str, **values: Any) -> Reference:
    """A random model of transformers, saved."""
    module = random_model(name, SIZES | values, end=model)
    save_model(folder, module)
    return Reference(module)


def edit(folder: Path, config: dict[str, Any] | None, rename: Any = lambda key: key) -> None:
    """Puts another config in, and gives the keys other names."""
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    weights = {rename(key): array.copy() for key, array in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors")


def assert_same(folder: Path, reference: Reference, *, types: bool = False, longest: int = 64) -> Candidate:
    candidate = Candidate.open(folder)
    sequences = random_sequences([5, 1, longest, 17], V)
    token_types = two_token_types(sequences) if types else None
    found = candidate.outputs(sequences, token_types)
    assert max(state_errors(found, reference.outputs(sequences, token_types))) <= FLOAT32_ERROR
    return candidate


ROPE = {"rope_type": "default", "rope_theta": 700.0}


@pytest.mark.parametrize(("function", "activation"), [("swiglu", "silu"), ("geglu", "gelu")])
def test_nomic_in_its_own_spelling(tmp_path, function, activation):
    reference = saved(tmp_path, "NomicBert", "Model", hidden_act=activation, rope_parameters=ROPE, layer_norm_eps=1e-5)
    edit(tmp_path, OWN_NOMIC | {"activation_function": function})
    files = assert_same(tmp_path, reference, types=True).files
    assert (files.unused_keys, files.ignored_keys, files.missing) == ((), (), ())
    assert "encoder.layers.0.attn.Wqkv.weight" in {stored.key for stored in files.tensors.values()}


def test_nomic_under_the_prefix_of_pretraining_and_with_its_heads(tmp_path):
    """nomic-bert-2048 was saved by `NomicBertForPreTraining`."""
    module = saved(tmp_path, "NomicBert", "ForMaskedLM", rope_parameters=ROPE, layer_norm_eps=1e-5).module
    edit(tmp_path, OWN_NOMIC, lambda key: key.replace("nomic_bert.", "bert."))
    candidate = assert_same(tmp_path, Reference(module.nomic_bert))
    assert all(key.startswith("cls.") for key in candidate.files.ignored_keys)
    assert candidate.files.ignored_keys
    assert candidate.files.unused_keys == ()


NEW_NAMES = {
    "NomicBert": {
        "encoder.layers.": "layers.",
        "emb_ln.": "embeddings.LayerNorm.",
        "attn.out_proj.": "self_attn.o_proj.",
        "norm1.": "post_attention_layernorm.",
        "norm2.": "post_mlp_layernorm.",
    },
    "Gte": {
        "encoder.layer.": "layers.",
        "attention.o_proj.": "self_attn.o_proj.",
        "attn_ln.": "post_attention_layernorm.",
        "mlp_ln.": "post_mlp_layernorm.",
    },
}


@pytest.mark.parametrize("name", ["NomicBert", "Gte"])
def test_under_the_names_of_the_class_in_transformers(tmp_path, name):
    reference = saved(tmp_path, name, "Model", rope_parameters=ROPE, max_position_embeddings=64)
    state = {key: value.numpy().copy() for key, value in reference.module.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    assert any(key.startswith("layers.0.self_attn.q_proj") for key in state)
    files = assert_same(tmp_path, reference).files
    assert (files.unused_keys, files.ignored_keys, files.missing) == ((), (), ())


def test_nomic_takes_plain_angles_as_far_as_its_positions_go(tmp_path):
    """Without a scaling factor nothing happens at the trained length."""
    values = {"rope_parameters": ROPE, "layer_norm_eps": 1e-5, "max_position_embeddings": 200}
    reference = saved(tmp_path, "NomicBert", "Model", **values)
    edit(tmp_path, OWN_NOMIC | {"n_positions": 200, "max_trained_positions": 50, "max_position_embeddings": 50})
    assert_same(tmp_path, reference, longest=200)


@pytest.mark.parametrize("name", ["NomicBert", "Gte"])
@pytest.mark.parametrize("kind", ["linear", "dynamic"])
def test_scaling_in_the_words_of_transformers(tmp_path, name, kind):
    rope = {"rope_type": kind, "rope_theta": 700.0, "factor": 3.0}
    reference = saved(tmp_path, name, "Model", rope_parameters=rope, max_position_embeddings=64)
    spec = assert_same(tmp_path, reference, longest=64).files.spec
    assert spec.positions.max_length == 64
    assert spec.rotary_scale == (3.0 if kind == "linear" else 1.0)


def test_dynamic_scaling_begins_beyond_the_limit(tmp_path):
    """What the limit is for: one token more, and transformers turns all of them by other angles."""
    rope = {"rope_type": "dynamic", "rope_theta": 700.0, "factor": 3.0}
    reference = saved(tmp_path, "NomicBert", "Model", rope_parameters=rope, max_position_embeddings=20)
    plain = saved(tmp_path / "plain", "NomicBert", "Model", rope_parameters=ROPE, max_position_embeddings=20)
    for length, same in ((20, True), (21, False)):
        sequences = random_sequences([length], V)
        errors = state_errors(plain.outputs(sequences), reference.outputs(sequences))
        assert (max(errors) < 1e-6) == same


@pytest.mark.parametrize("factor", [2.0, 8.0])
@pytest.mark.parametrize("types", [0, 1, 2])
@pytest.mark.parametrize("prefix", ["", "new."])
def test_gte_in_its_own_spelling(tmp_path, factor, types, prefix):
    """`ntk` is what transformers calls linear with another factor, and a larger base."""
    base, head_size = 500.0, H // A
    rope = {"rope_type": "linear", "rope_theta": base * factor, "factor": factor ** (2 / head_size)}
    reference = saved(tmp_path, "Gte", "Model", rope_parameters=rope, type_vocab_size=types, layer_norm_eps=1e-5)
    own = SIZES | {
        "model_type": "new",
        "architectures": ["NewModel"],
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": 64,
        "rope_theta": base,
        "rope_scaling": {"type": "ntk", "factor": factor},
        "type_vocab_size": types,
        "pack_qkv": True,
    }
    edit(tmp_path, own, lambda key: prefix + key)
    files = assert_same(tmp_path, reference, types=types == 2).files
    assert (files.unused_keys, files.ignored_keys, files.missing) == ((), (), ())
    assert f"{prefix}encoder.layer.0.mlp.up_gate_proj.weight" in {stored.key for stored in files.tensors.values()}


def test_gte_without_packed_projections(tmp_path):
    reference = saved(tmp_path, "Gte", "Model", rope_parameters=ROPE, max_position_embeddings=64)
    weights = load_file(tmp_path / "model.safetensors")
    for key in [key for key in weights if "qkv_proj" in key]:
        parts = np.split(weights.pop(key), 3)
        weights |= {key.replace("qkv_proj", f"{one}_proj"): part.copy() for one, part in zip("qkv", parts, strict=True)}
    save_file(weights, tmp_path / "model.safetensors")
    assert_same(tmp_path, reference)


def test_a_classifiers_pooler_is_known_and_left(tmp_path):
    saved(tmp_path, "Gte", "ForSequenceClassification", rope_parameters=ROPE)
    files = open_model(locate(tmp_path))
    assert files.ignored_keys == (
        "classifier.bias",
        "classifier.weight",
        "gte.pooler.dense.bias",
        "gte.pooler.dense.weight",
    )
    assert files.pooler == "absent"


@pytest.mark.parametrize(
    ("name", "fused"), [("NomicBert", "encoder.layers.1.attn.Wqkv"), ("Gte", "encoder.layer.1.mlp.up_gate_proj")]
)
def test_broken_fused_tensors(tmp_path, name, fused):
    saved(tmp_path, name, "Model", rope_parameters=ROPE)
    weights = load_file(tmp_path / "model.safetensors")
    whole = weights[f"{fused}.weight"]
    save_file(weights | {f"{fused}.weight": whole[1:].copy()}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=rf"{fused}.weight: expected shape \[{len(whole)}, 32\].*holds .*found"):
        open_model(locate(tmp_path))
    weights.pop(f"{fused}.weight")
    save_file(weights, tmp_path / "model.safetensors")
    files = open_model(locate(tmp_path))
    with pytest.raises(WeightsError, match="expected a weight of shape"):
        files.weights(files.spec.parameters())


def test_experts_among_the_weights_are_refused(tmp_path):
    saved(tmp_path, "NomicBert", "Model", rope_parameters=ROPE)
    weights = load_file(tmp_path / "model.safetensors")
    weights["encoder.layers.1.mlp.router.layer.weight"] = np.zeros((8, H), np.float32)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"router.layer.weight: expected only weights of nomic_bert under encoder"):
        open_model(locate(tmp_path))


# Feed-forwards without a gate, and biases (nomic-xlm-2048), for which transformers has no class: the forward pass from
# the paper and the shapes of the file, in float64.


def random_own_weights(seed: int = 0) -> dict[str, np.ndarray]:
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (V, H),
        "embeddings.token_type_embeddings.weight": (1, H),
        "emb_ln.weight": (H,),
        "emb_ln.bias": (H,),
    }
    for i in range(L):
        at = f"encoder.layers.{i}"
        for name, rows, columns in (
            ("attn.Wqkv", 3 * H, H),
            ("attn.out_proj", H, H),
            ("mlp.fc1", 96, H),
            ("mlp.fc2", H, 96),
        ):
            shapes |= {f"{at}.{name}.weight": (rows, columns), f"{at}.{name}.bias": (rows,)}
        for name in ("norm1", "norm2"):
            shapes |= {f"{at}.{name}.weight": (H,), f"{at}.{name}.bias": (H,)}
    random = np.random.default_rng(seed)
    norms = ("emb_ln.weight", "norm1.weight", "norm2.weight")
    return {
        name: (random.normal(size=shape) * shape[-1] ** -0.5 + name.endswith(norms)).astype(np.float32)
        for name, shape in shapes.items()
    }


def naive_states(weights: dict[str, np.ndarray], ids: np.ndarray, theta: float) -> list[np.ndarray]:
    w = {name: array.astype(np.float64) for name, array in weights.items()}

    def dense(name, x):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(name, x):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    size = H // A
    angles = np.arange(len(ids))[:, None] * theta ** (-np.arange(0, size, 2) / size)

    def turned(x):
        z = (x[:, : size // 2] + 1j * x[:, size // 2 :]) * np.exp(1j * angles)
        return np.concatenate([z.real, z.imag], axis=1)

    h = norm("emb_ln", w["embeddings.word_embeddings.weight"][ids] + w["embeddings.token_type_embeddings.weight"][0])
    states = [h]
    for i in range(L):
        at = f"encoder.layers.{i}"
        query, key, value = np.split(dense(f"{at}.attn.Wqkv", h), 3, axis=1)
        heads = []
        for own in (slice(a * size, (a + 1) * size) for a in range(A)):
            scores = turned(query[:, own]) @ turned(key[:, own]).T / size**0.5
            shares = np.exp(scores - scores.max(1, keepdims=True))
            heads.append(shares / shares.sum(1, keepdims=True) @ value[:, own])
        h = norm(f"{at}.norm1", h + dense(f"{at}.attn.out_proj", np.concatenate(heads, axis=1)))
        wide = torch.nn.functional.gelu(torch.as_tensor(dense(f"{at}.mlp.fc1", h))).numpy()
        h = norm(f"{at}.norm2", h + dense(f"{at}.mlp.fc2", wide))
        states.append(h)
    return states


def test_nomic_without_gates_and_with_biases_against_plain_numpy(tmp_path):
    weights = random_own_weights()
    save_file(weights, tmp_path / "model.safetensors")
    config = {key: value for key, value in OWN_NOMIC.items() if not key.endswith("_bias")}
    config |= {"activation_function": "gelu", "n_inner": 96, "type_vocab_size": 1, "rotary_emb_base": 10_000}
    (tmp_path / "config.json").write_text(json.dumps(config))
    candidate = Candidate.open(tmp_path)
    assert (candidate.files.unused_keys, candidate.files.missing) == ((), ())
    sequences = random_sequences([5, 1, 64, 17], V)
    each = [naive_states(weights, ids, 10_000.0) for ids in sequences]
    expected = Outputs(states=[np.concatenate(layer) for layer in zip(*each, strict=True)], pooled=None)
    assert max(state_errors(candidate.outputs(sequences), expected)) <= FLOAT32_ERROR
