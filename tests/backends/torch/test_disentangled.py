"""DeBERTa v2 and v3 where packing, length and padding matter, against transformers' model and its own facts."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", minversion="5")

from layertap.backends.torch.attention import Layout  # noqa: E402 - needs torch
from layertap.backends.torch.disentangled import Convolution  # noqa: E402
from layertap.backends.torch.encoder import Encoder, PackedTensors  # noqa: E402
from layertap.checkpoints.keys import to_canonical  # noqa: E402
from layertap.models.config import ConfigReader  # noqa: E402
from layertap.models.registry import architecture  # noqa: E402
from tests.backends.cuda_on_cpu import pretend_cuda  # noqa: E402
from tests.tiny_models import random_model  # noqa: E402

FIELDS = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 512,
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
}


def pair(**fields: object):
    """(transformers' model, ours with its weights)."""
    theirs = random_model("DebertaV2", FIELDS | fields)
    row = architecture("deberta-v2")
    ours = Encoder(row.spec(ConfigReader(theirs.config.to_dict())), pooler=False)
    ours.load_state_dict({to_canonical(key, row.key_rules): value for key, value in theirs.state_dict().items()})
    return theirs, ours.eval()


def packed(sequences) -> PackedTensors:
    return PackedTensors(
        input_ids=torch.cat(sequences),
        position_ids=torch.cat([torch.arange(len(ids)) for ids in sequences]),
        token_type_ids=None,
        layout=Layout.of([len(ids) for ids in sequences]),
    )


def random_ids(lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(1, 50, (length,), generator=generator) for length in lengths]


def states_of(ours, sequences, **options):
    with torch.inference_mode():
        return [state for _, state in ours.states(packed(sequences), **options)]


@pytest.mark.parametrize(
    "fields",
    [{}, {"position_buckets": -1, "max_relative_positions": 100}, {"share_att_key": False}],
    ids=["buckets", "plain distances", "own projections"],
)
def test_longer_than_the_table_of_distances(fields):
    """Distances beyond the table take its outermost vectors, so there is no length that is too long."""
    theirs, ours = pair(**fields)
    (ids,) = random_ids([900])
    with torch.inference_mode():
        expected = theirs(ids[None], output_hidden_states=True).hidden_states
    for state, wanted in zip(states_of(ours, [ids]), expected, strict=True):
        torch.testing.assert_close(state, wanted[0], rtol=0, atol=3e-5)
    few = np.array([0, 450, 899], dtype=np.int32)
    top = states_of(ours, [ids], top_rows=few)[-1]
    torch.testing.assert_close(top, expected[-1][0, few.tolist()], rtol=0, atol=3e-5)


@pytest.mark.parametrize("fields", [{}, {"conv_kernel_size": 3, "conv_act": "tanh"}, {"conv_kernel_size": 5}])
def test_packed_is_as_padded(fields):
    theirs, ours = pair(**fields)
    sequences = random_ids([7, 3, 12, 1, 3])
    padded = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True)
    with torch.inference_mode():
        expected = theirs(padded, attention_mask=(padded != 0).long(), output_hidden_states=True).hidden_states
    for state, wanted in zip(states_of(ours, sequences), expected, strict=True):
        torch.testing.assert_close(state, wanted[padded != 0], rtol=0, atol=2e-5)


def test_the_convolution_sees_the_embeddings_and_its_output_is_state_1():
    _, ours = pair(conv_kernel_size=3, conv_act="gelu")
    sequences = random_ids([5, 2])
    seen = {}
    conv = ours.encoder.conv
    assert isinstance(conv, Convolution)
    conv.register_forward_hook(lambda _, inputs, output: seen.update(inputs=inputs, output=output))
    states = states_of(ours, sequences)
    assert torch.equal(seen["inputs"][0], states[0])
    assert torch.equal(seen["output"], states[1])


def test_neighbours_in_the_batch_are_not_neighbours_in_a_text():
    _, ours = pair(conv_kernel_size=3)
    one, other, third = random_ids([4, 6, 4])
    together, alone = states_of(ours, [one, other, third]), states_of(ours, [other])
    for state, wanted in zip(together, alone, strict=True):
        torch.testing.assert_close(state[4:10], wanted, rtol=0, atol=1e-6)


def test_distances_have_a_dropout_of_their_own():
    """In training vectors of distances are dropped, too, once a layer: without any other dropout results vary."""
    _, ours = pair(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    sequences = random_ids([9, 4])
    still = states_of(ours.train(), sequences)
    for layer in ours.encoder.layer:
        layer.attention.self.pos_dropout.p = 0.5
    assert not torch.equal(states_of(ours, sequences)[1], still[1])
    assert torch.equal(states_of(ours.eval(), sequences)[1], still[1])


def test_gradients_reach_the_vectors_of_distances_that_were_met():
    _, ours = pair()
    *_, (_, last) = ours.states(packed(random_ids([5, 3])))
    last.square().sum().backward()
    met = ours.encoder.rel_embeddings.weight.grad.abs().sum(1).nonzero().squeeze(1).tolist()
    assert met == list(range(256 - 4, 256 + 5))


def test_in_float16_the_vectors_are_scaled_before_they_are_multiplied(monkeypatch):
    """A sum over a head beyond 65,504 is infinite, also where the scaled score is not."""
    from layertap.backends.torch.disentangled import Distances
    from layertap.backends.torch.layout import Run

    pretend_cuda(monkeypatch)
    size, length = 64, 3
    vectors = torch.full((5, size), 45.0, dtype=torch.float16)
    rows = torch.arange(5)
    distances = Distances(vectors=vectors, scale=size**-0.5, rows=rows.numpy(), rows_on_device=rows)
    bias = distances.bias(vectors, None, Layout.of([length]))
    query = torch.full((1, 1, length, size), 40.0, dtype=torch.float16)
    added = bias(Run(0, 0, 1, length, length), query, query)
    assert (query[0, 0, 0] * vectors[0]).sum().isinf()  # 64 * 1,800
    torch.testing.assert_close(added.float(), torch.full((1, 1, length, length), 14_400.0), rtol=1e-3, atol=0)
