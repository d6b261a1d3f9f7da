"""Our models against transformers': states, poolers, masks, positions, gradients, training."""

from __future__ import annotations

import copy
import pickle

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

import layertap.hf as hf  # noqa: E402
from layertap.errors import OptionError, TokenizerError  # noqa: E402

PAIRS = [
    ("Bert", "bert"),
    ("Roberta", "roberta"),
    ("XLMRoberta", "xlm-roberta"),
    ("Camembert", "camembert"),
]
SIZES = {
    "vocab_size": 90,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}


def assert_close(ours, theirs, where=None, bound=2e-5):
    """Largest |error| over the RMS of the attended cells."""
    assert ours.shape == theirs.shape
    if where is not None:
        ours, theirs = ours[where], theirs[where]
    if theirs.numel():
        error = (ours - theirs).abs().max() / theirs.pow(2).mean().sqrt()
        assert error <= bound


def batch(pad_id: int, rows: int = 4, columns: int = 12, seed: int = 0):
    """Ids and a mask: whole, padded on the right, padded on the left, with holes."""
    torch.manual_seed(seed)
    ids = torch.randint(5, 90, (rows, columns))
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    mask[2, :4] = 0
    mask[3, [2, 3, 8]] = 0
    return ids.masked_fill(mask == 0, pad_id), mask


@pytest.mark.parametrize("masked", [True, False])
def test_every_state_and_the_pooler(family, models, masked):
    theirs, ours = models(family)
    ids, mask = batch(theirs.config.pad_token_id)
    given_mask = mask if masked else None
    where = mask.bool() if masked else torch.ones_like(mask, dtype=torch.bool)
    with torch.no_grad():
        expected = theirs(ids, attention_mask=given_mask, output_hidden_states=True)
        found = ours(ids, attention_mask=given_mask, output_hidden_states=True)
    assert list(found.keys()) == list(expected.keys())
    assert len(found.hidden_states) == len(expected.hidden_states) == 4
    for a, b in zip(found.hidden_states, expected.hidden_states, strict=True):
        assert_close(a, b, where)
        assert not a[~where].any()
    assert found.hidden_states[-1] is found.last_hidden_state
    # transformers pools column 0, which in row 2 is padding
    rows = where[:, 0]
    assert_close(found.pooler_output[rows], expected.pooler_output[rows])


def test_with_left_padding_the_first_attended_token_is_pooled(family, models):
    _, ours = models(family)
    ids, mask = batch(ours.config.pad_token_id)
    with torch.no_grad():
        outputs = ours(ids, attention_mask=mask)
        first = outputs.last_hidden_state[2, 4]
        assert_close(outputs.pooler_output[2], torch.tanh(ours.pooler.dense(first)))


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_mask(models, data):
    model_type = data.draw(st.sampled_from([name for _, name in PAIRS]))
    theirs, ours = models(model_type)
    rows, columns = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 9))
    bits = data.draw(st.lists(st.booleans(), min_size=rows * columns, max_size=rows * columns))
    mask = torch.tensor(bits).view(rows, columns)
    torch.manual_seed(data.draw(st.integers(0, 99)))
    ids = torch.randint(0, 90, (rows, columns))  # pad ids among the attended ones, too
    with torch.no_grad():
        expected = theirs(ids, attention_mask=mask.long(), output_hidden_states=True)
        found = ours(ids, attention_mask=mask, output_hidden_states=True)
    for a, b in zip(found.hidden_states, expected.hidden_states, strict=True):
        assert_close(a, b, mask)
        assert not a[~mask].any()
    assert not found.pooler_output[~mask.any(1)].any()


@pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.float32])
def test_masks_of_any_dtype(models, dtype):
    _, ours = models("bert")
    ids, mask = batch(0)
    expected = ours(ids, attention_mask=mask)[0]
    assert torch.equal(ours(ids.int(), attention_mask=mask.to(dtype))[0], expected)


def test_a_batch_without_rows(models):
    _, ours = models("bert")
    found = ours(torch.zeros(0, 4, dtype=torch.long), output_hidden_states=True)
    assert {tuple(state.shape) for state in found.hidden_states} == {(0, 4, 32)}
    assert found.pooler_output.shape == (0, 32)


def test_token_types_and_positions(family, models):
    theirs, ours = models(family, type_vocab_size=2)
    ids, mask = batch(theirs.config.pad_token_id)
    types = (torch.arange(12) > 5).long().expand(4, -1)
    positions = torch.arange(12).flip(0) + 3
    for inputs in (
        {"token_type_ids": types},
        {"position_ids": positions[None]},
        {"position_ids": positions.expand(4, -1), "token_type_ids": types},
    ):
        expected = theirs(ids, attention_mask=mask, **inputs)[0]
        assert_close(ours(ids, attention_mask=mask, **inputs)[0], expected, mask.bool())
    assert torch.equal(ours(ids, position_ids=positions)[0], ours(ids, position_ids=positions[None])[0])


def test_inputs_embeds(family, models):
    theirs, ours = models(family)
    ids, mask = batch(theirs.config.pad_token_id)
    embeds = ours.get_input_embeddings()(ids)
    expected = theirs(inputs_embeds=embeds, attention_mask=mask)[0]
    assert_close(ours(inputs_embeds=embeds, attention_mask=mask)[0], expected, mask.bool())


def test_gradients_reach_the_inputs(models):
    theirs, ours = models("bert")
    ids, mask = batch(0)
    gradients = []
    for model in (theirs, ours):
        embeds = ours.get_input_embeddings()(ids).detach().requires_grad_()
        outputs = model(inputs_embeds=embeds, attention_mask=mask)
        (outputs.last_hidden_state[mask.bool()].pow(2).sum() + outputs.pooler_output[[0, 1, 3]].sum()).backward()
        gradients.append(embeds.grad)
        model.zero_grad()
    assert_close(gradients[1], gradients[0], mask.bool(), bound=1e-4)
    assert not gradients[1][mask == 0].any()


def test_rows_without_any_token(models):
    _, ours = models("bert")
    ids, mask = batch(0)
    alone = ours(ids[:1], attention_mask=mask[:1])
    mask[1:] = 0
    found = ours(ids, attention_mask=mask, output_hidden_states=True)
    assert_close(found[0][:1], alone[0])
    assert_close(found[1][:1], alone[1])
    assert not found[0][1:].any()
    assert not found[1][1:].any()
    nothing = ours(ids, attention_mask=torch.zeros_like(mask), output_hidden_states=True)
    assert [state.shape for state in nothing.hidden_states] == [(4, 12, 32)] * 4
    assert nothing.pooler_output.shape == (4, 32)
    assert not nothing.last_hidden_state.any()
    nothing.pooler_output.sum().backward()


@pytest.mark.parametrize(("name", "model_type"), PAIRS)
def test_state_dicts_and_random_weights(name, model_type):
    config = getattr(hf, f"{name}Config")(**SIZES)
    ours = getattr(hf, f"{name}Model")(config)
    theirs = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**SIZES))
    expected, found = theirs.state_dict(), ours.state_dict()
    assert {key: value.shape for key, value in found.items()} == {key: value.shape for key, value in expected.items()}
    for key, value in found.items():
        # as transformers draws them: normal with 0.02, ones and zeros
        assert abs(value.mean() - expected[key].mean()) < 0.01, key
        assert abs(value.std() - expected[key].std()) < 0.01, key
        zero_rows = (expected[key] == 0).all(-1)
        assert torch.equal((value == 0).all(-1), zero_rows), key
    assert ours.training
    ours.load_state_dict(expected)
    ids = torch.randint(5, 90, (2, 7))
    assert_close(ours.eval()(ids)[0], theirs.eval()(ids)[0])
    theirs.load_state_dict(found)


def test_random_weights_are_transformers_own_for_bert():
    torch.manual_seed(3)
    theirs = transformers.BertModel(transformers.BertConfig(**SIZES))
    torch.manual_seed(3)
    ours = hf.BertModel(hf.BertConfig(**SIZES))
    assert all(torch.equal(value, ours.state_dict()[key]) for key, value in theirs.state_dict().items())


@pytest.mark.parametrize(
    ("name", "model_type"),
    [pytest.param(*pair, marks=() if pair in PAIRS[:2] else pytest.mark.slow) for pair in PAIRS],
)
def test_ten_training_steps(name, model_type):
    quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    theirs = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**SIZES, **quiet))
    ours = getattr(hf, f"{name}Model")(getattr(hf, f"{name}Config")(**SIZES, **quiet))
    ours.load_state_dict(theirs.state_dict())
    torch.manual_seed(1)
    heads = [torch.nn.Linear(64, 3)]
    heads.append(copy.deepcopy(heads[0]))
    losses: list[list[float]] = []
    for model, head in zip((theirs, ours), heads, strict=True):
        model.train()
        optimizer = torch.optim.AdamW([*model.parameters(), *head.parameters()], lr=1e-3)
        losses.append([])
        for step in range(10):
            ids, mask = batch(theirs.config.pad_token_id, seed=step)
            mask[2] = 1
            outputs = model(ids, attention_mask=mask)
            mean = (outputs.last_hidden_state * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            logits = head(torch.cat([mean, outputs.pooler_output], 1))
            loss = torch.nn.functional.cross_entropy(logits, torch.arange(4) % 3)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.item())
    assert losses[0][-1] < losses[0][0]
    assert max(abs(a - b) for a, b in zip(*losses, strict=True)) <= 1e-4


def test_dropout_follows_train_and_eval(models):
    _, ours = models("bert")
    ours = copy.deepcopy(ours)
    ids, mask = batch(0)
    assert torch.equal(ours(ids, attention_mask=mask)[0], ours(ids, attention_mask=mask)[0])
    ours.train()
    a, b = ours(ids, attention_mask=mask)[0], ours(ids, attention_mask=mask)[0]
    assert not torch.equal(a, b)
    assert not a[mask == 0].any()
    ours.eval()
    assert torch.equal(ours(ids)[0], ours(ids)[0])


def test_attention_dropout_alone(models):
    _, ours = models("bert")
    ours = copy.deepcopy(ours).train()
    for module in ours.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    ids, _ = batch(0)
    assert torch.equal(ours(ids)[0], ours(ids)[0])
    ours.encoder.layer[0].attention.self.dropout.p = 0.5
    assert not torch.equal(ours(ids)[0], ours(ids)[0])


def test_output_hidden_states_from_the_config_the_call_and_by_index(models):
    theirs, ours = models("bert")
    ours = copy.deepcopy(ours)
    ids, _ = batch(0)
    assert ours(ids).hidden_states is None
    everything = ours(ids, output_hidden_states=True).hidden_states
    expected = theirs(ids, output_hidden_states=[1, -1]).hidden_states
    found = ours(ids, output_hidden_states=[1, -1]).hidden_states
    assert [state is None for state in found] == [state is None for state in expected] == [True, False, True, False]
    assert torch.equal(found[1], everything[1])
    assert ours(ids, output_hidden_states=0).hidden_states[1:] == (None, None, None)
    ours.config.output_hidden_states = True
    assert len(ours(ids).hidden_states) == 4
    assert ours(ids, output_hidden_states=False).hidden_states is None
    with pytest.raises(OptionError, match=r"states 0\.\.3 \(or -4\.\.-1\), found 4"):
        ours(ids, output_hidden_states=[4])


def test_states_that_nobody_asks_for_are_not_padded(models, monkeypatch):
    from layertap.hf import modeling

    _, ours = models("bert")
    ids, mask = batch(0)
    unpacked = []
    plain = modeling.Cells.unpack
    monkeypatch.setattr(modeling.Cells, "unpack", lambda cells, rows: unpacked.append(1) or plain(cells, rows))
    ours(ids, attention_mask=mask)
    assert len(unpacked) == 1
    ours(ids, attention_mask=mask, output_hidden_states=True)
    assert len(unpacked) == 1 + 4


def test_fewer_blocks(models):
    """The usual way to cut a model down."""
    theirs, ours = (copy.deepcopy(model) for model in models("roberta"))
    for model in (theirs, ours):
        model.encoder.layer = model.encoder.layer[:2]
    ids, mask = batch(1)
    expected = theirs(ids, attention_mask=mask, output_hidden_states=True)
    found = ours(ids, attention_mask=mask, output_hidden_states=True)
    assert len(found.hidden_states) == len(expected.hidden_states) == 3
    assert_close(found[0], expected[0], mask.bool())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes(models, dtype):
    theirs, ours = (copy.deepcopy(model).to(dtype) for model in models("bert"))
    ids, mask = batch(0)
    with torch.no_grad():
        exact = models("bert")[0].double()(ids, attention_mask=mask)[0]
        models("bert")[0].float()
        expected = theirs(ids, attention_mask=mask)[0]
        found = ours(ids, attention_mask=mask)[0]
    assert found.dtype == ours.dtype == dtype
    where = mask.bool()
    theirs_off = (expected.double() - exact)[where].abs().max()
    ours_off = (found.double() - exact)[where].abs().max()
    assert ours_off <= 2 * theirs_off + 1e-12


def test_copies_work_alike(models):
    _, ours = models("roberta")
    ids, mask = batch(1)
    expected = ours(ids, attention_mask=mask)[1]
    for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(twin(ids, attention_mask=mask)[1], expected)
        assert twin.config == ours.config
        twin.encoder.layer[0].output.dense.weight.data.zero_()
        assert not torch.equal(twin(ids, attention_mask=mask)[1], expected)
    assert torch.equal(ours(ids, attention_mask=mask)[1], expected)


def test_parts_and_numbers(models):
    theirs, ours = (copy.deepcopy(model) for model in models("bert"))
    assert ours.num_parameters() == theirs.num_parameters()
    assert ours.num_parameters(exclude_embeddings=True) == theirs.num_parameters(exclude_embeddings=True)
    for parameter in ours.pooler.parameters():
        parameter.requires_grad = False
    assert ours.num_parameters(only_trainable=True) == ours.num_parameters() - 32 * 33
    assert ours.device == torch.device("cpu")
    assert ours.dtype == torch.float32
    assert ours.encoder.layer[1].attention.self.query.weight.shape == (32, 32)
    assert ours.get_input_embeddings() is ours.embeddings.word_embeddings
    assert ours.resize_token_embeddings(ours.config.vocab_size) is ours.get_input_embeddings()
    larger = torch.nn.Embedding(300, 32)
    ours.set_input_embeddings(larger)
    assert ours(torch.full((1, 2), 299)).last_hidden_state.shape == (1, 2, 32)
    names = [name for name, _ in ours.named_modules()]
    assert "encoder.layer.2.attention.output.LayerNorm" in names


def test_hooks_on_blocks_are_called(models):
    _, ours = models("bert")
    seen = []
    handle = ours.encoder.layer[1].register_forward_hook(lambda _module, _args, output: seen.append(output.shape))
    ours(torch.randint(5, 90, (2, 7)))
    handle.remove()
    assert seen == [(2, 7, 32)]


@pytest.mark.parametrize(
    ("inputs", "error", "says"),
    [
        ({}, OptionError, "exactly one of input_ids or inputs_embeds"),
        ({"input_ids": torch.ones(2, dtype=torch.long)}, OptionError, r"\[batch, sequence\], found int64 \[2\]"),
        ({"input_ids": [[1, 2]]}, OptionError, "a list: tokenize with return_tensors='pt'"),
        ({"input_ids": torch.ones(1, 2)}, OptionError, "found float32"),
        ({"inputs_embeds": torch.ones(1, 2, 31)}, OptionError, r"\[batch, sequence, 32\]"),
        ({"mask": torch.ones(1, 3, 3)}, OptionError, "masks between pairs of tokens cannot be packed"),
        ({"mask": torch.ones(1, 1, 3, 3)}, OptionError, "4 dimensions"),
        ({"mask": torch.ones(1, 4)}, OptionError, r"expected shape \[1, 3\], found \[1, 4\]"),
        ({"position_ids": torch.zeros(2, 3)}, OptionError, "position_ids: expected shape"),
        ({"token_type_ids": torch.full((1, 3), 2)}, TokenizerError, "table has 2 rows"),
        ({"input_ids": torch.tensor([[1, 999]])}, TokenizerError, "ids from 1 to 999"),
        ({"input_ids": torch.tensor([[1, -1]])}, TokenizerError, "ids from -1"),
        ({"input_ids": torch.ones(1, 65, dtype=torch.long)}, OptionError, "at most 64 tokens"),
        ({"head_mask": torch.ones(3, 4)}, OptionError, "head_mask=a Tensor is not supported"),
        ({"encoder_hidden_states": torch.ones(1, 3, 32)}, OptionError, "cross-attention"),
        ({"labels": torch.ones(1)}, OptionError, "labels"),
        ({"attention_masks": torch.ones(1, 3)}, OptionError, "did you mean 'attention_mask'"),
        ({"offset_mapping": [[0, 1]]}, OptionError, "'offset_mapping' is neither"),
    ],
)
def test_inputs_that_are_refused(models, inputs, error, says):
    _, ours = models("bert")
    inputs = dict(inputs)
    if "mask" in inputs:
        inputs["attention_mask"] = inputs.pop("mask")
    if inputs and not {"input_ids", "inputs_embeds"} & set(inputs):
        inputs["input_ids"] = torch.tensor([[7, 8, 9]])
    with pytest.raises(error, match=says):
        ours(**inputs)


def test_inputs_that_ask_for_nothing(models):
    _, ours = models("bert")
    ids = torch.tensor([[7, 8, 9]])
    harmless = {"head_mask": None, "use_cache": True, "output_attentions": False, "past_key_values": None}
    assert torch.equal(ours(ids, **harmless)[0], ours(ids)[0])


@pytest.mark.parametrize("name", ["prune_heads", "push_to_hub", "add_adapter", "get_decoder"])
def test_methods_that_are_refused(models, name):
    with pytest.raises(OptionError, match=name):
        getattr(models("bert")[1], name)({})


@pytest.mark.parametrize("arguments", [(97,), (85,), (97, 8), (None, 64)])
def test_another_number_of_tokens(models, arguments):
    theirs, ours = (copy.deepcopy(model) for model in models("bert"))
    rows = ours.config.vocab_size
    with torch.no_grad():
        theirs.resize_token_embeddings(*arguments)
        table = ours.resize_token_embeddings(*arguments)
    expected = theirs.get_input_embeddings().weight
    assert table is ours.get_input_embeddings()
    assert table.weight.shape == expected.shape
    assert ours.config.vocab_size == theirs.config.vocab_size == table.num_embeddings
    assert torch.equal(table.weight[:rows], expected[:rows])
    # new rows are near the mean of the others: what is drawn is random
    assert (table.weight[rows:] - expected[rows:]).abs().max() < 1e-3 if len(expected) > rows else True
    assert table.weight.requires_grad
    ours(torch.tensor([[len(expected) - 1]]))


def test_rows_that_cannot_be_made(models):
    ours = copy.deepcopy(models("bert")[1])
    with pytest.raises(OptionError, match="expected positive numbers, found 0"):
        ours.resize_token_embeddings(0)
    ours.set_input_embeddings(torch.nn.Sequential(ours.get_input_embeddings()))
    with pytest.raises(OptionError, match="the word embeddings are a Sequential"):
        ours.resize_token_embeddings(7)


@pytest.mark.parametrize("wrong", ["bert-base-uncased", hf.RobertaConfig(), transformers.BertConfig()])
def test_a_model_needs_its_own_config(wrong):
    with pytest.raises(OptionError, match=r"expected a layertap\.hf\.BertConfig"):
        hf.BertModel(wrong)
