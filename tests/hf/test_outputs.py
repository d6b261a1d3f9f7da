"""Outputs by name, index, slice and as a tuple; and the slot of a pooler that is not there."""

from __future__ import annotations

import copy
import pickle

import pytest

torch = pytest.importorskip("torch")

from layertap.errors import UntrainedPoolerError  # noqa: E402
from layertap.hf import AutoModel  # noqa: E402
from layertap.hf.outputs import AbsentPooler, BaseModelOutputWithPoolingAndCrossAttentions  # noqa: E402

IDS = torch.tensor([[7, 8, 9]])


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(params=["trained", "absent"])
def model(request, checkpoint):
    return AutoModel.from_pretrained(checkpoint("roberta", pooler=request.param))


@pytest.fixture
def outputs(checkpoint):
    return AutoModel.from_pretrained(checkpoint("roberta"))(IDS, output_hidden_states=True)


@pytest.fixture
def without_pooler(checkpoint):
    return AutoModel.from_pretrained(checkpoint("roberta", pooler="absent"))(IDS, output_hidden_states=True)


def test_by_name_index_slice_and_key(outputs):
    assert list(outputs) == list(outputs.keys()) == ["last_hidden_state", "pooler_output", "hidden_states"]
    assert outputs[0] is outputs.last_hidden_state is outputs["last_hidden_state"] is outputs[-3]
    assert outputs[1] is outputs.pooler_output is outputs.get("pooler_output")
    assert outputs[2] is outputs.hidden_states is outputs[-1]
    first, second = outputs[:2]
    assert first is outputs[0]
    assert second is outputs[1]
    assert outputs[2:] == (outputs.hidden_states,)
    assert len(outputs) == len(outputs.to_tuple()) == len(outputs.values()) == 3
    assert [value is outputs[name] for name, value in outputs.items()] == [True] * 3
    assert dict(**outputs)["pooler_output"] is dict(outputs)["pooler_output"] is outputs[1]
    assert isinstance(outputs, dict)
    assert "hidden_states" in outputs
    assert "attentions" not in outputs


def test_what_is_not_there(outputs):
    assert outputs.attentions is None
    assert outputs.past_key_values is None
    assert outputs.get("attentions", "none") == "none"
    with pytest.raises(KeyError):
        outputs["attentions"]
    with pytest.raises(IndexError):
        outputs[3]
    with pytest.raises(AttributeError, match="pooled_output"):
        _ = outputs.pooled_output


def test_entries_can_be_set(outputs):
    outputs.hidden_states = "other"
    assert outputs[2] == outputs["hidden_states"] == "other"


def test_as_a_tuple(model):
    as_tuple = model(IDS, output_hidden_states=True, return_dict=False)
    assert isinstance(as_tuple, tuple)
    assert as_tuple[0].shape == (1, 3, 32)
    assert len(as_tuple) == 3
    assert len(as_tuple[2]) == 4
    model.config.return_dict = False
    assert isinstance(model(IDS), tuple)
    assert not isinstance(model(IDS, return_dict=True), tuple)


def test_unpacking_a_tuple(checkpoint):
    model = AutoModel.from_pretrained(checkpoint("roberta"))
    sequence, pooled = model(IDS, return_dict=False)
    assert sequence.shape == (1, 3, 32)
    assert pooled.shape == (1, 32)


TOUCHES = {
    "name": lambda outputs: outputs.pooler_output,
    "key": lambda outputs: outputs["pooler_output"],
    "get": lambda outputs: outputs.get("pooler_output"),
    "getattr": lambda outputs: getattr(outputs, "pooler_output", None),
    "index": lambda outputs: outputs[1],
    "negative index": lambda outputs: outputs[-2],
    "slice": lambda outputs: outputs[:2],
    "tuple index": lambda outputs: outputs.to_tuple()[1],
    "tuple slice": lambda outputs: outputs.to_tuple()[1:],
    "iteration over values": lambda outputs: list(outputs.values()),
    "iteration over items": lambda outputs: dict(outputs.items()),
    "as a dictionary": lambda outputs: dict(outputs),
    "keywords": lambda outputs: dict(**outputs),
    "tuple iteration": lambda outputs: list(outputs.to_tuple()),
    "tuple copy": lambda outputs: tuple(outputs.to_tuple()),
    "arguments": lambda outputs: (lambda *parts: parts)(*outputs.to_tuple()),
    "a copy's": lambda outputs: copy.deepcopy(outputs).pooler_output,
    "a pickled one's": lambda outputs: pickle.loads(pickle.dumps(outputs)).pooler_output,
}


@pytest.mark.parametrize("touch", TOUCHES.values(), ids=TOUCHES)
def test_touching_an_absent_pooler(without_pooler, touch):
    with pytest.raises(UntrainedPoolerError, match=r"stores no pooler.*untrained_pooler='init'"):
        touch(without_pooler)


def test_unpacking_an_absent_pooler(checkpoint):
    model = AutoModel.from_pretrained(checkpoint("roberta", pooler="absent"))
    with pytest.raises(UntrainedPoolerError):
        _sequence, _pooled = model(IDS, return_dict=False)


def test_everything_else_works(without_pooler):
    assert without_pooler[0].shape == (1, 3, 32)
    assert without_pooler[0] is without_pooler.last_hidden_state is without_pooler[:1][0]
    assert without_pooler[2] is without_pooler.hidden_states is without_pooler[2:][0]
    assert without_pooler.to_tuple()[2] is without_pooler[2]
    assert next(iter(without_pooler.to_tuple())) is without_pooler[0]
    assert list(without_pooler) == ["last_hidden_state", "pooler_output", "hidden_states"]
    assert len(without_pooler) == 3
    assert "pooler_output=<absent" in repr(without_pooler)


def test_without_the_layer_there_is_no_slot(checkpoint):
    for pooler in ("trained", "untrained", "absent"):
        model = AutoModel.from_pretrained(checkpoint("bert", pooler=pooler), add_pooling_layer=False)
        outputs = model(IDS, output_hidden_states=True)
        assert outputs.pooler_output is None
        assert outputs[1] is outputs.hidden_states
        assert list(outputs) == ["last_hidden_state", "hidden_states"]
        assert model.pooler is None
        assert not [key for key in model.state_dict() if key.startswith("pooler")]


def test_copies_keep_the_values(outputs):
    for twin in (copy.deepcopy(outputs), pickle.loads(pickle.dumps(outputs))):
        assert type(twin) is BaseModelOutputWithPoolingAndCrossAttentions
        assert torch.equal(twin[0], outputs[0])
        assert torch.equal(twin.hidden_states[1], outputs.hidden_states[1])


def test_none_takes_no_slot():
    outputs = BaseModelOutputWithPoolingAndCrossAttentions(
        [("last_hidden_state", 1), ("pooler_output", None), ("hidden_states", 2)]
    )
    assert outputs.to_tuple() == (1, 2)


def test_the_reason_is_the_message():
    outputs = BaseModelOutputWithPoolingAndCrossAttentions([("pooler_output", AbsentPooler("because"))])
    with pytest.raises(UntrainedPoolerError, match=r"^because$"):
        outputs[0]
