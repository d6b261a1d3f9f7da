"""`unnormed`: hidden state L as it is before the final norm, against a hook in transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tokenizers import Tokenizer, models, pre_tokenizers, processors  # noqa: E402 - comes with transformers

from layertap import hidden_states, last_hidden_state  # noqa: E402
from layertap.cli.model_card import outputs  # noqa: E402
from layertap.engine.extractor import Extractor  # noqa: E402
from layertap.errors import FeatureError  # noqa: E402
from layertap.features.rules import Rules  # noqa: E402
from layertap.verify.measure import Difference, float32_bound  # noqa: E402
from tests.tiny_models import random_model, save_model  # noqa: E402

LAYERS, H = 3, 32
WORDS = ["<pad>", "<s>", "</s>", *"abcdefgh"]
TEXTS = ["a b c d e f g h a b", "h", "", "c c a", "d e"]
SIZES: dict[str, Any] = {
    "vocab_size": len(WORDS),
    "hidden_size": H,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}
# class of transformers -> its norm after the last block
FINAL_NORMS = {
    "ModernBert": "final_norm",
    "EuroBert": "norm",
    "MegatronBert": "encoder.ln",
    "XLMRobertaXL": "encoder.LayerNorm",
    "RobertaPreLayerNorm": "LayerNorm",
}


def saved(folder: Path, name: str) -> Any:
    """A random model in a folder with a tokenizer of a few words."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(WORDS[:3])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=["<s>", "$A", "</s>"], special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    model = random_model(name, SIZES)
    save_model(folder, model, tokenizer)
    return model


@pytest.fixture(scope="module", params=FINAL_NORMS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """(transformers' states of each text: 0 to L, and L before the final norm; the model's folder)."""
    folder = tmp_path_factory.mktemp("model")
    model = saved(folder, request.param)
    before: list[Any] = []
    norm = model.get_submodule(FINAL_NORMS[request.param])
    norm.register_forward_pre_hook(lambda _module, inputs: before.append(inputs[0]))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    states = []
    with torch.no_grad():
        for text in TEXTS:
            ids = torch.tensor([tokenizer.encode(text).ids])
            found = model(ids, attention_mask=torch.ones_like(ids), output_hidden_states=True).hidden_states
            states.append([state[0].numpy() for state in (*found, before[-1])])
    return states, folder


def assert_close(found: Any, expected: Any) -> None:
    assert Difference.of(np.asarray(found), np.asarray(expected)).error_over_rms <= float32_bound(LAYERS)


RULES = [Rules(), *(Rules.without(name) for name in Rules.names())]


@pytest.mark.parametrize("rules", RULES, ids=["all rules", *Rules.names()])
def test_both_states_in_one_run(pair: tuple[Any, Path], rules: Rules) -> None:
    states, folder = pair
    found = Extractor.from_pretrained(folder, rules=rules).extract(
        TEXTS,
        {
            "normed": last_hidden_state.mean,
            "unnormed": last_hidden_state.unnormed.mean,
            "by_number": hidden_states[LAYERS].unnormed.mean,
            "cls": hidden_states[-1].unnormed.first,
            "tokens": hidden_states[-1].unnormed,
            "normed_layers": hidden_states[-2:].layer_mean.max,
            "layers": hidden_states[-2:].unnormed.layer_mean.max,
            "stacked": hidden_states[:].unnormed.first,
        },
    )
    assert_close(found["normed"], [s[-2].mean(0) for s in states])
    assert_close(found["unnormed"], [s[-1].mean(0) for s in states])
    assert np.array_equal(found["by_number"], found["unnormed"])
    assert_close(found["cls"], [s[-1][0] for s in states])
    for rows, s in zip(found["tokens"], states, strict=True):
        assert_close(rows, s[-1])
    assert_close(found["normed_layers"], [((s[-3] + s[-2]) / 2).max(0) for s in states])
    assert_close(found["layers"], [((s[-3] + s[-1]) / 2).max(0) for s in states])
    assert_close(found["stacked"], [[*(layer[0] for layer in s[:-2]), s[-1][0]] for s in states])
    assert Difference.of(found["normed"], found["unnormed"]).error_over_rms > 0.01


def test_a_norm_that_nothing_asks_for_is_not_run(pair: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from layertap.backends.torch.backend import TorchBackend

    def refused(_: Any) -> None:
        raise AssertionError("the final norm was loaded")

    monkeypatch.setattr(TorchBackend, "_load_final_norm", refused)
    states, folder = pair
    found = Extractor.from_pretrained(folder).extract(TEXTS, "last_hidden_state.unnormed.cls")
    assert_close(found, [s[-1][0] for s in states])


def test_it_is_refused_where_there_is_no_such_norm(pair: tuple[Any, Path], tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match="lower states are as their blocks leave them already: write hidden_states"):
        Extractor.from_pretrained(pair[1]).extract(TEXTS, "hidden_states[1].unnormed.mean")
    saved(tmp_path, "Bert")
    with pytest.raises(FeatureError, match=r"\(bert\) has no norm after its last block.*: write last_hidden_state"):
        Extractor.from_pretrained(tmp_path).extract(TEXTS, "last_hidden_state.unnormed.mean")


def test_inspect_lists_it_where_it_can_be_had(pair: tuple[Any, Path], tmp_path: Path) -> None:
    def sources(folder: Path) -> list[str]:
        return [output["name"] for output in outputs(Extractor.from_pretrained(folder).facts)]

    assert f"hidden_states[{LAYERS}].unnormed" in sources(pair[1])
    saved(tmp_path, "Bert")
    assert not any("unnormed" in name for name in sources(tmp_path))
