"""`Encoder` as a module: parameters, gradients, train mode, rows and stops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from layertap.backends.torch.attention import Layout  # noqa: E402 - needs torch
from layertap.backends.torch.encoder import Encoder, PackedTensors  # noqa: E402

LENGTHS = [7, 1, 12, 7]
FAMILIES = ["bert", "roberta", "xlm-roberta", "camembert"]


def tensors(model, sequences, **more) -> PackedTensors:
    batch = model.pack(sequences)
    return PackedTensors(
        **{
            "input_ids": torch.as_tensor(batch.input_ids, dtype=torch.long),
            "position_ids": torch.as_tensor(batch.position_ids, dtype=torch.long),
            "token_type_ids": None,
            "layout": Layout.of(batch.lengths.tolist()),
        }
        | more
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pooler", [True, False])
def test_parameters_are_those_of_transformers(make_model, family, pooler):
    model = make_model(family)
    encoder = Encoder(model.spec, pooler=pooler)
    expected = {name: tuple(p.shape) for name, p in model.reference.named_parameters()}
    if not pooler:
        expected = {name: shape for name, shape in expected.items() if not name.startswith("pooler.")}
    assert {name: tuple(p.shape) for name, p in encoder.named_parameters()} == expected
    assert {name: tuple(value.shape) for name, value in encoder.state_dict().items()} == expected
    assert (encoder.pooler is not None) == pooler


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_transformers(make_model, family, error_over_rms):
    model = make_model(family, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    sequences = model.random_sequences(LENGTHS)
    sequences[2][3] = model.spec.pad_token_id  # its row of the table gets no gradient
    encoder = model.encoder().train()
    reference = model.reference.train()
    generator = torch.Generator().manual_seed(0)
    outer = torch.randn(model.spec.num_states, sum(LENGTHS), model.spec.hidden_size, generator=generator)

    # every state and the pooler, so that every parameter has a gradient
    states = [state for _, state in encoder.states(tensors(model, sequences))]
    firsts = states[-1][torch.as_tensor(np.cumsum([0, *LENGTHS[:-1]]))]
    loss = (torch.stack(states) * outer).sum() + encoder.pool(firsts).sum()
    loss.backward()

    begin = 0
    expected_loss = torch.zeros(())
    for ids in sequences:
        row = torch.as_tensor(ids, dtype=torch.long)[None]
        found = reference(input_ids=row, attention_mask=torch.ones_like(row), output_hidden_states=True)
        part = outer[:, begin : begin + len(ids)]
        expected_loss = expected_loss + (torch.cat(found.hidden_states) * part).sum() + found.pooler_output.sum()
        begin += len(ids)
    expected_loss.backward()

    assert abs(loss.item() - expected_loss.item()) <= 1e-4 * abs(expected_loss.item()) + 1e-3
    expected = {name: parameter.grad for name, parameter in reference.named_parameters()}
    for name, parameter in encoder.named_parameters():
        if name.endswith("key.bias"):
            # a bias on all keys alike changes no softmax: its gradient is rounding
            assert parameter.grad.abs().max() < 1e-3
            continue
        assert error_over_rms(parameter.grad.numpy(), expected[name].numpy()) < 1e-3, name
    assert not encoder.embeddings.word_embeddings.weight.grad[model.spec.pad_token_id].any()


def test_gradients_reach_inputs_embeds(make_model):
    model = make_model()
    sequences = model.random_sequences(LENGTHS)
    encoder = model.encoder()
    words = encoder.embeddings.word_embeddings(tensors(model, sequences).input_ids).detach().requires_grad_()
    given_words = tensors(model, sequences, input_ids=None, inputs_embeds=words)
    *_, (_, last) = encoder.states(given_words)
    *_, (_, expected) = encoder.states(tensors(model, sequences))
    torch.testing.assert_close(last, expected)
    last.sum().backward()
    assert words.grad.abs().sum(dim=1).min() > 0


@pytest.mark.parametrize("where", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
def test_dropout_is_active_in_train_mode_only(make_model, where):
    other = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0} | {where: 0.5}
    model = make_model(**other)
    sequences = model.random_sequences(LENGTHS)
    encoder = model.encoder()

    def states():
        with torch.no_grad():
            return [state for _, state in encoder.states(tensors(model, sequences))]

    torch.manual_seed(0)
    for one, again in zip(states(), states(), strict=True):
        assert torch.equal(one, again)
    still = states()
    encoder.train()
    first, second = states(), states()
    from_block = 0 if where == "hidden_dropout_prob" else 1
    for layer in range(model.spec.num_states):
        same = torch.equal(first[layer], second[layer])
        assert same == (layer < from_block), layer
        assert torch.equal(first[layer], still[layer]) == (layer < from_block)
    torch.manual_seed(3)
    seeded = states()
    torch.manual_seed(3)
    assert all(torch.equal(one, again) for one, again in zip(seeded, states(), strict=True))


def test_dropout_keeps_the_mean(make_model):
    # scaled by 1 / (1 - p), as in transformers: the embedding output averages to the one without
    model = make_model(hidden_dropout_prob=0.5)
    encoder = model.encoder().train()
    packed = tensors(model, model.random_sequences([9]))
    torch.manual_seed(0)
    with torch.no_grad():
        mean = torch.stack([encoder.embeddings(packed) for _ in range(2000)]).mean(0)
        exact = encoder.eval().embeddings(packed)
    torch.testing.assert_close(mean, exact, rtol=0, atol=0.25)


@pytest.mark.parametrize("family", ["bert", "roberta"])
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    stop=st.integers(0, 3),
    seed=st.integers(0, 99),
    data=st.data(),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_stop_and_rows_give_the_same_numbers(family, lengths, stop, seed, data, make_model):
    model = make_model(family)
    rows = np.array(sorted(data.draw(st.sets(st.integers(0, sum(lengths) - 1), min_size=1))), dtype=np.int32)
    encoder = model.encoder()
    packed = tensors(model, model.random_sequences(lengths, seed))
    with torch.inference_mode():
        everything = [state for _, state in encoder.states(packed)]
        found = list(encoder.states(packed, stop=stop, top_rows=rows))
    assert [layer for layer, _ in found] == list(range(stop + 1))
    for layer, state in found[:-1]:
        assert torch.equal(state, everything[layer])
    torch.testing.assert_close(found[-1][1], everything[stop][rows.tolist()], rtol=1e-4, atol=1e-5)


def test_blocks_above_the_stop_do_not_run(make_model):
    model = make_model()
    encoder = model.encoder()
    ran = []
    for i, block in enumerate(encoder.encoder.layer):
        block.register_forward_hook(lambda *_, i=i: ran.append(i))
    states = encoder.states(tensors(model, model.random_sequences(LENGTHS)), stop=2)
    next(states)
    assert ran == [], "states are computed as they are taken"
    assert [layer for layer, _ in states] == [1, 2]
    assert ran == [0, 1]


def test_training_a_few_steps_lowers_the_loss(make_model):
    model = make_model()
    encoder = model.encoder().train()
    packed = tensors(model, model.random_sequences(LENGTHS))
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-3)
    torch.manual_seed(0)
    losses = []
    for _ in range(10):
        *_, (_, last) = encoder.states(packed)
        loss = last.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
