"""Every submodule of every family, hooked and called, against the same submodule of transformers."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from torch.nn.utils import parametrizations, prune  # noqa: E402

import layertap.hf as hf  # noqa: E402
from layertap.errors import LayertapError, OptionError  # noqa: E402
from tests.selection import slow_except  # noqa: E402
from tests.tiny_models import random_model  # noqa: E402

SIZES = {
    "vocab_size": 90,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}
OF_IDS = SIZES | {"pad_token_id": 1}
DISTIL = {"vocab_size": 90, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 40}
CASES = {
    "bert": ("Bert", SIZES),
    "roberta": ("Roberta", OF_IDS),
    "xlm-roberta": ("XLMRoberta", OF_IDS),
    "camembert": ("Camembert", OF_IDS),
    "distilbert": ("DistilBert", DISTIL),
    "electra": ("Electra", SIZES | {"embedding_size": 12}),
    "electra base": ("Electra", SIZES | {"embedding_size": 32}),
    "albert": ("Albert", SIZES | {"embedding_size": 12, "num_hidden_layers": 3, "num_hidden_groups": 2}),
}


@pytest.fixture(scope="module")
def built():
    """`built("bert")`: (transformers' model, ours) with the same weights, made once; tests take copies."""
    kept = {}

    def make(case):
        if case not in kept:
            name, values = CASES[case]
            theirs = random_model(name, values)
            ours = getattr(hf, f"{name}Model")(getattr(hf, f"{name}Config")(**values))
            ours.load_state_dict(theirs.state_dict())
            kept[case] = theirs, ours.eval()
        return kept[case]

    return make


@pytest.fixture(params=slow_except(list(CASES), "bert", "distilbert", "albert"))
def pair(request, built):
    return tuple(copy.deepcopy(model) for model in built(request.param))


@pytest.fixture
def bert(built):
    return tuple(copy.deepcopy(model) for model in built("bert"))


def batch():
    """Ids and a mask: whole, padded on the right, with holes."""
    torch.manual_seed(0)
    ids = torch.randint(5, 90, (3, 11))
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    mask[2, [2, 3, 8]] = 0
    return ids, mask


def flat(values):
    """The tensors of a hook's arguments or output, in order."""
    if isinstance(values, torch.Tensor):
        return [values]
    if isinstance(values, dict):
        return flat(list(values.values()))
    return [one for value in values or () for one in flat(value)] if isinstance(values, (list, tuple)) else []


def close(ours, theirs, bound=2e-5):
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    if not ours.is_floating_point():
        assert torch.equal(ours, theirs)
        return
    assert (ours - theirs).abs().max() <= bound * max(theirs.pow(2).mean().sqrt(), 1e-3)


def watched(model, register, run, outputs):
    """What a hook of one kind sees of every submodule: name -> the tensors of each call, in order."""
    seen = {}
    handles = []
    for name, module in model.named_modules():
        if name:
            handles.append(
                getattr(module, register)(
                    lambda _module, *values, name=name: seen.setdefault(name, []).append(
                        [one.detach().clone() for one in flat(list(values[outputs:]))]
                    )
                )
            )
    run(model)
    for handle in handles:
        handle.remove()
    return seen


def test_submodules_parameters_and_buffers_are_those_of_transformers(pair):
    theirs, ours = pair
    assert [name for name, _ in ours.named_modules()] == [name for name, _ in theirs.named_modules()]
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    expected = dict(theirs.named_buffers())
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert {name: value.tolist() for name, value in ours.named_buffers()} == {
        name: value.tolist() for name, value in expected.items()
    }


@pytest.mark.parametrize(("register", "outputs"), [("register_forward_hook", 1), ("register_forward_pre_hook", 0)])
def test_hooks_on_every_submodule_see_what_they_see_in_transformers(pair, register, outputs):
    theirs, ours = pair
    ids, mask = batch()

    def run(model):
        with torch.no_grad():
            model(ids, attention_mask=mask)

    expected, found = (watched(model, register, run, outputs) for model in (theirs, ours))
    assert found.keys() == expected.keys()
    for name, calls in expected.items():
        assert len(found[name]) == len(calls), name
        for own, call in zip(found[name], calls, strict=True):
            for one, other in zip(own, call, strict=False):
                close(one, other)
            if outputs:
                assert len(own) == len(call), name


@pytest.mark.filterwarnings("ignore:For backward hooks", "ignore:Full backward hook is firing")
def test_backward_hooks_see_the_gradients_of_transformers(pair):
    theirs, ours = pair
    ids, mask = batch()

    def run(model):
        model(ids, attention_mask=mask).last_hidden_state[mask.bool()].pow(2).sum().backward()

    for register in ("register_full_backward_hook", "register_full_backward_pre_hook"):
        expected, found = (watched(model, register, run, 0) for model in (theirs, ours))
        assert found.keys() == expected.keys()
        for name, calls in expected.items():
            for own, call in zip(found[name], calls, strict=True):
                for one, other in zip(own, call, strict=True):
                    close(one, other, 2e-4)


def test_a_hook_changes_no_output(pair):
    """Packed and padded runs give the same outputs, zeros where the mask is zero included."""
    _, ours = pair
    ids, mask = batch()
    with torch.no_grad():
        packed = ours(ids, attention_mask=mask, output_hidden_states=True)
        next(module for name, module in ours.named_modules() if name.endswith("LayerNorm") or "norm" in name
             ).register_forward_hook(lambda *_: None)  # fmt: skip
        padded = ours(ids, attention_mask=mask, output_hidden_states=True)
    assert list(packed) == list(padded)
    for one, other in zip(flat(padded), flat(packed), strict=True):
        close(one, other)
    for state in padded.hidden_states:
        assert not state[mask == 0].any()


def test_every_submodule_can_be_called(pair):
    """With the inputs that transformers gives it, outside of the model."""
    theirs, ours = pair
    ids, mask = batch()
    calls = {}

    def keep(name):
        def hook(_module, args, keywords, output):
            calls.setdefault(name, (args, keywords, output))

        return hook

    for name, module in theirs.named_modules():
        if name:
            module.register_forward_hook(keep(name), with_kwargs=True)
    with torch.no_grad():
        theirs(ids, attention_mask=mask)
        for name, (args, keywords, expected) in calls.items():
            found = ours.get_submodule(name)(*args, **keywords)
            for one, other in zip(flat(found), flat(expected), strict=True):
                close(one, other)


def test_attention_probabilities(pair):
    theirs, ours = pair
    ids, mask = batch()
    theirs.set_attn_implementation("eager")
    with torch.no_grad():
        expected = theirs(ids, attention_mask=mask, output_attentions=True, output_hidden_states=True)
        found = ours(ids, attention_mask=mask, output_attentions=True, output_hidden_states=True)
        ours.config.output_attentions = True
        again = ours(ids, attention_mask=mask)
        ours.set_attn_implementation("eager")
        seen = []
        first = next(module for name, module in ours.named_modules() if name.endswith(("attention.self", "attention")))
        first.register_forward_hook(lambda _module, _args, output: seen.append(output[1]))
        ours(ids, attention_mask=mask, output_attentions=False)
    assert list(found) == list(expected)
    assert len(found.attentions) == len(expected.attentions) == len(found.hidden_states) - 1
    for own, again_own, other in zip(found.attentions, again.attentions, expected.attentions, strict=True):
        close(own, other)
        assert torch.equal(own, again_own)
    close(seen[0], expected.attentions[0])
    where = mask.bool()
    close(found.last_hidden_state[where], expected.last_hidden_state[where])


def test_replaced_submodules_are_used(pair):
    theirs, ours = pair
    ids, mask = batch()

    class Doubled(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, *args, **keywords):
            values = self.inner(*args, **keywords)
            assert args[0].shape[:2] == (3, 11), "a part sees the padded batch"
            return values * 2

    for model in (theirs, ours):
        model.set_input_embeddings(Doubled(model.get_input_embeddings()))
        name = next(name for name, module in model.named_modules() if name.endswith(("output.dense", "lin2", "ffn")))
        owner, _, last = name.rpartition(".")
        setattr(model.get_submodule(owner), last, Doubled(model.get_submodule(name)))
    with torch.no_grad():
        where = mask.bool()
        close(ours(ids, attention_mask=mask)[0][where], theirs(ids, attention_mask=mask)[0][where])


def scaled(model):
    layer = model.encoder.layer[0].intermediate
    inner = layer.forward
    layer.forward = lambda hidden: inner(hidden) * 2


CHANGES = {
    "forward replaced": scaled,
    "pooler replaced": lambda model: setattr(model, "pooler", torch.nn.Identity()),
    "reordered": lambda model: setattr(model.encoder, "layer", torch.nn.ModuleList(reversed(model.encoder.layer))),
    "repeated": lambda model: model.encoder.layer.append(model.encoder.layer[0]),
    "pruned": lambda model: prune.ln_structured(model.encoder.layer[0].output.dense, "weight", amount=0.3, n=2, dim=0),
    "parametrised": lambda model: parametrizations.weight_norm(model.encoder.layer[0].output.dense),
    "larger table": lambda model: model.set_input_embeddings(torch.nn.Embedding(99, 32, _weight=torch.ones(99, 32))),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_models_that_are_changed(bert, change):
    ids, mask = batch()
    outputs = []
    for model in bert:
        change(model)
        with torch.no_grad():
            outputs.append(model(ids, attention_mask=mask, output_hidden_states=True))
    theirs, ours = outputs
    assert len(ours.hidden_states) == len(theirs.hidden_states)
    close(ours.last_hidden_state[mask.bool()], theirs.last_hidden_state[mask.bool()])
    where = mask.bool() if theirs.pooler_output.ndim == 3 else slice(None)
    close(ours.pooler_output[where], theirs.pooler_output[where])


def test_hooks_on_every_module_there_is(bert):
    """Those that torch registers for all modules at once."""
    from torch.nn.modules.module import register_module_forward_hook

    seen = []
    ids, mask = batch()
    for model in bert:
        shapes = []
        handle = register_module_forward_hook(
            lambda _module, _args, output, shapes=shapes: shapes.append([value.shape for value in flat(output)])
        )
        model(ids, attention_mask=mask)
        handle.remove()
        seen.append(shapes)
    assert seen[0] == seen[1]


def test_left_padding(bert):
    """The pooler reads the first attended token, packed or padded, where transformers reads a padding token."""
    _, ours = bert
    ids, mask = batch()
    mask = mask.flip(1)
    with torch.no_grad():
        packed = ours(ids, attention_mask=mask)
        seen = []
        ours.pooler.register_forward_hook(lambda _module, args, output: seen.append((args[0].shape, output)))
        padded = ours(ids, attention_mask=mask)
    close(padded.pooler_output, packed.pooler_output)
    assert seen[0][0] == (3, 11, 32)
    first = mask.argmax(1)
    expected = ours.pooler(packed.last_hidden_state[torch.arange(3), first][:, None])
    close(packed.pooler_output, expected)


def test_the_encoder_and_layers_take_masks_of_transformers(bert):
    theirs, ours = bert
    ids, mask = batch()
    hidden = ours.embeddings(input_ids=ids)
    extended = ours.get_extended_attention_mask(mask, mask.shape)
    assert (
        torch.equal(extended, theirs.get_extended_attention_mask(mask, mask.shape))
        if hasattr(theirs, "get_extended_attention_mask")
        else extended.shape == (3, 1, 1, 11)
    )
    expected = ours(ids, attention_mask=mask).last_hidden_state
    for given in (extended, (mask != 0)[:, None, None, :]):
        close(ours.encoder(hidden, given).last_hidden_state[mask.bool()], expected[mask.bool()])
        through = ours.encoder.layer[1](ours.encoder.layer[0](hidden, given), attention_mask=given)
        close(through[mask.bool()], expected[mask.bool()])
    with pytest.raises(OptionError, match=r"get_extended_attention_mask\(mask, mask.shape\) makes one"):
        ours.encoder(hidden, attention_mask=mask)
    with pytest.raises(OptionError, match="past_key_values"):
        ours.encoder.layer[0](hidden, past_key_values=object())
    with pytest.raises(LayertapError, match="ids from"):
        ours.embeddings(input_ids=torch.tensor([[99]]))
    with pytest.raises(OptionError, match="at most 40 tokens"):
        ours.embeddings(input_ids=torch.zeros(1, 41, dtype=torch.int64))


def test_gradient_checkpointing_changes_no_gradient(pair):
    _, ours = pair
    ours.train()
    for module in ours.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    ids, mask = batch()
    gradients = []
    for turn in ("gradient_checkpointing_disable", "gradient_checkpointing_enable"):
        getattr(ours, turn)()
        ours.zero_grad()
        ours(ids, attention_mask=mask)[0].pow(2).sum().backward()
        gradients.append([parameter.grad.clone() for parameter in ours.parameters() if parameter.grad is not None])
    assert ours.is_gradient_checkpointing
    for one, other in zip(*gradients, strict=True):
        close(one, other, 1e-4)


def test_activation_checkpointing_takes_the_arguments_of_trainer(pair):
    _, ours = pair
    as_trainer = {"activation_checkpointing_kwargs": {"use_reentrant": False}, "every_n_layers": 1, "offload": False}
    ours.activation_checkpointing_enable(**as_trainer)
    assert ours.is_activation_checkpointing
    ours.activation_checkpointing_disable()
    for name, value in {"every_n_layers": 2, "offload": True}.items():
        for enable in (ours.activation_checkpointing_enable, ours.gradient_checkpointing_enable):
            with pytest.raises(OptionError, match=f"{name}={value} is not supported"):
                enable(**{name: value})
    for keywords in ({"use_reentrant": True}, {"preserve_rng_state": False}):
        with pytest.raises(OptionError, match=f"{next(iter(keywords))}=.* is not supported"):
            ours.activation_checkpointing_enable(keywords)
    assert not ours.is_activation_checkpointing


@pytest.mark.filterwarnings("ignore:`torch.jit")  # deprecated, and tried anyway
def test_traces(bert):
    """A traced batch would be frozen; a compiled, exported or transformed call runs padded."""
    _, ours = bert
    ids, mask = batch()
    for trace in (lambda: torch.jit.trace(ours, (ids, mask)), lambda: torch.jit.script(ours)):
        with pytest.raises(OptionError, match=r"not supported.*use torch.export.export or torch.compile"):
            trace()
    assert torch.jit.trace(ours.pooler, torch.ones(1, 2, 32))(torch.ones(3, 5, 32)).shape == (3, 32)
    other = mask.flip(0)
    expected = ours(ids, attention_mask=mask), ours(ids, attention_mask=other)
    exported = torch.export.export(ours, (ids,), {"attention_mask": mask}, strict=False).module()
    compiled = torch.compile(ours, backend="eager", fullgraph=True)
    for run in (exported, compiled):
        for given, outputs in zip((mask, other), expected, strict=True):
            found = run(ids, attention_mask=given)
            assert type(found) is type(outputs)
            close(found.last_hidden_state, outputs.last_hidden_state)
            close(found.pooler_output, outputs.pooler_output)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_gradients_of_each_text_by_vmap(bert):
    _, ours = bert
    ids, mask = batch()
    parameters = dict(ours.named_parameters())

    def loss(values, own_ids, own_mask):
        outputs = torch.func.functional_call(ours, values, (own_ids[None], own_mask[None]))
        return outputs.last_hidden_state.pow(2).sum()

    found = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(parameters, ids, mask)
    for i in range(3):
        ours.zero_grad()
        ours(ids[i : i + 1], attention_mask=mask[i : i + 1])[0].pow(2).sum().backward()
        close(found["encoder.layer.0.output.dense.weight"][i], ours.encoder.layer[0].output.dense.weight.grad, 1e-4)
