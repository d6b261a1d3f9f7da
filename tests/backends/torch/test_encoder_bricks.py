"""Encoders of any spec: every brick on and off, against a naive encoder in float64 that runs one sequence at a time."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from layertap.backends.torch import attention, maps  # noqa: E402 - needs torch
from layertap.backends.torch.attention import attend  # noqa: E402
from layertap.backends.torch.backend import TorchBackend  # noqa: E402
from layertap.backends.torch.encoder import Encoder, PackedTensors, RMSNorm  # noqa: E402
from layertap.backends.torch.layout import Layout  # noqa: E402
from layertap.backends.torch.positions import Rotary  # noqa: E402
from layertap.engine.segments import segments_of  # noqa: E402
from layertap.features.program import Capture, Program  # noqa: E402
from layertap.models.positions import Disentangled, PlainPositions, PositionTable, RelativeBias  # noqa: E402
from layertap.models.spec import Convolution, EncoderSpec  # noqa: E402
from layertap.packing import pack  # noqa: E402
from layertap.tensors import TensorView  # noqa: E402
from tests.backends.cuda_on_cpu import pretend_cuda  # noqa: E402

LIMIT = 24
VOCABULARY = 20
TOLERANCE = {"rtol": 1e-4, "atol": 2e-5}

PLAIN = EncoderSpec(
    architecture="any",
    vocab_size=VOCABULARY,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=24,
    hidden_act="gelu",
    layer_norm_eps=1e-5,
    positions=PositionTable(rows=LIMIT),
    type_vocab_size=0,
    pad_token_id=None,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
LAYERS = 3
EVERYTHING_ELSE = replace(
    PLAIN,
    num_hidden_layers=LAYERS,
    positions=PlainPositions(max_length=LIMIT),
    type_vocab_size=2,
    embedding_size=8,
    embedding_projection=True,
    norm="rms",
    norm_position="pre",
    first_attention_norm=False,
    gated=True,
    hidden_act="silu",
    qkv_bias=False,
    output_bias=False,
    num_key_value_heads=2,
    rotary_thetas=(100.0, 10.0, 100.0),
    rotary_scale=1.5,
    windows=(None, 2, 3),
    relative=RelativeBias(buckets=8, max_distance=16),
    blocks=(0, 1, 1),
)


DISENTANGLED = replace(
    PLAIN,
    num_hidden_layers=LAYERS,
    positions=PlainPositions(max_length=LIMIT),
    embedding_size=8,
    embedding_projection=True,
    projection_first=True,
    relative=Disentangled(max_distance=16, buckets=8, norm=True),
    convolution=Convolution(kernel_size=3, activation="tanh"),
    blocks=(0, 1, 1),
)
BRICKS = {"everything else": EVERYTHING_ELSE, "disentangled": DISENTANGLED}


@st.composite
def disentangled(draw) -> Disentangled:
    """Any, with at least one term."""
    flag = st.booleans()
    terms = draw(st.sampled_from([(True, True), (True, False), (False, True)]))
    reach, buckets = draw(st.sampled_from([(16, 8), (24, 6), (7, None), (40, None), (9, 2)]))
    return Disentangled(
        max_distance=reach,
        buckets=buckets,
        content_to_position=terms[0],
        position_to_content=terms[1],
        shared_projections=draw(flag),
        norm=draw(flag),
    )


@st.composite
def specs(draw) -> EncoderSpec:
    """Any combination of bricks, those included that no family has."""
    flag = st.booleans()
    layers = draw(st.integers(1, 3))
    rows = draw(st.sampled_from([None, 0, 1]))
    per_layer = {"min_size": layers, "max_size": layers}
    relative = draw(st.sampled_from([None, RelativeBias(buckets=8, max_distance=16)]) | disentangled())
    # queries and keys of distances are of every head, and no angles are known for them
    alone = isinstance(relative, Disentangled)
    return replace(
        PLAIN,
        num_hidden_layers=layers,
        hidden_act=draw(st.sampled_from(["gelu", "gelu_tanh", "relu", "silu"])),
        positions=PlainPositions(max_length=LIMIT) if rows is None else PositionTable(rows=LIMIT + rows),
        type_vocab_size=draw(st.sampled_from([0, 1, 2])),
        pooler=draw(flag),
        embedding_norm=draw(flag),
        **draw(
            st.sampled_from([{}, {"embedding_projection": True}, {"embedding_projection": True, "embedding_size": 8}])
        ),
        projection_first=draw(flag),
        blocks=tuple(sorted(draw(st.just([]) | st.lists(st.integers(0, layers - 1), **per_layer)))),
        norm=draw(st.sampled_from(["layer", "rms"])),
        norm_bias=draw(flag),
        norm_position=draw(st.sampled_from(["post", "pre"])),
        first_attention_norm=draw(flag),
        qkv_bias=draw(flag),
        attention_output_bias=draw(flag),
        intermediate_bias=draw(flag),
        output_bias=draw(flag),
        gated=draw(flag),
        num_key_value_heads=None if alone else draw(st.sampled_from([None, 1, 2])),
        rotary_thetas=() if alone else tuple(draw(st.just([]) | st.lists(st.sampled_from([10.0, 1e4]), **per_layer))),
        rotary_scale=draw(st.sampled_from([1.0, 3.5])),
        windows=tuple(draw(st.just([]) | st.lists(st.none() | st.integers(0, 9), **per_layer))),
        relative=relative,
        convolution=draw(
            st.none()
            | st.builds(
                Convolution, kernel_size=st.sampled_from([1, 3, 5]), activation=st.sampled_from(["tanh", "gelu"])
            )
        ),
    )


def random_weights(spec: EncoderSpec, seed: int) -> dict[str, np.ndarray]:
    """Of sizes at which attention is far from uniform and every one of them matters."""
    random = np.random.default_rng(seed)

    def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
        scale = 0.1 if len(shape) == 1 else 1 if "rel" in name else np.prod(shape[1:]) ** -0.5
        is_norm = name.endswith(("LayerNorm.weight", "final_norm.weight"))
        return (random.normal(size=shape) * scale + is_norm).astype(np.float32)

    return {name: draw(name, shape) for name, shape in spec.parameters().items()}


# The naive encoder: every line from the papers, one sequence, float64.


def naive_states(
    spec: EncoderSpec, weights: dict[str, np.ndarray], ids: np.ndarray, types: np.ndarray, maps: list | None = None
) -> list:
    """h0 .. hL, and last the L-th before the final norm. Attention [A, t, t] of each layer is put into `maps`."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}

    def dense(name, x):
        return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0)

    def norm(name, x):
        if spec.norm == "rms":
            return w[f"{name}.weight"] * x / np.sqrt((x**2).mean(-1, keepdims=True) + spec.layer_norm_eps)
        scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + spec.layer_norm_eps)
        return scaled * w[f"{name}.weight"] + w.get(f"{name}.bias", 0)

    h = w["embeddings.word_embeddings.weight"][ids]
    if spec.type_vocab_size:
        h = h + w["embeddings.token_type_embeddings.weight"][types]
    if isinstance(spec.positions, PositionTable):
        h = h + w["embeddings.position_embeddings.weight"][: len(ids)]
    if spec.embedding_projection and spec.projection_first:
        h = h @ w["embeddings.projection.weight"].T
    if spec.embedding_norm:
        h = norm("embeddings.LayerNorm", h)
    if spec.embedding_projection and not spec.projection_first:
        h = dense("embeddings.projection", h)
    states = [h]
    for layer in range(spec.num_hidden_layers):
        block = spec.blocks[layer] if spec.blocks else layer
        at = f"encoder.layer.{block}"
        pre, post = spec.norm_position == "pre", spec.norm_position == "post"
        x = norm(f"{at}.attention.LayerNorm", h) if pre and (block > 0 or spec.first_attention_norm) else h
        query, key, value = (dense(f"{at}.attention.self.{name}", x) for name in ("query", "key", "value"))
        table = w.get("encoder.relative_attention_bias.weight")
        if isinstance(spec.relative, Disentangled):
            table = w["encoder.rel_embeddings.weight"]
            table = norm("encoder.LayerNorm", table) if spec.relative.norm else table
            names = ("key", "query") if spec.relative.shared_projections else ("pos_key_proj", "pos_query_proj")
            terms = (spec.relative.content_to_position, spec.relative.position_to_content)
            table = [
                dense(f"{at}.attention.self.{name}", table) if term else None
                for name, term in zip(names, terms, strict=True)
            ]
        context, shares = naive_attention(spec, layer, query, key, value, table)
        if maps is not None:
            maps.append(shares)
        a = h + dense(f"{at}.attention.output.dense", context)
        a = norm(f"{at}.attention.output.LayerNorm", a) if post else a
        x = norm(f"{at}.LayerNorm", a) if pre else a
        up = dense(f"{at}.intermediate.dense", x)
        wide = activate(spec, dense(f"{at}.intermediate.gate", x)) * up if spec.gated else activate(spec, up)
        h = a + dense(f"{at}.output.dense", wide)
        h = norm(f"{at}.output.LayerNorm", h) if post else h
        if layer == 0 and spec.convolution is not None:
            h = norm("encoder.conv.LayerNorm", h + naive_convolution(spec, w, states[0]))
        states.append(h)
    states.append(states[-1])
    if spec.norm_position == "pre":
        states[-2] = norm("encoder.final_norm", h)
    return states


def naive_convolution(spec, w, h0):
    """Each row is made of those around it; beyond the ends are zeros."""
    weight, kernel = w["encoder.conv.conv.weight"], spec.convolution.kernel_size
    out = np.tile(w["encoder.conv.conv.bias"], (len(h0), 1))
    for row in range(len(h0)):
        for tap in range(kernel):
            other = row + tap - kernel // 2
            if 0 <= other < len(h0):
                out[row] += weight[:, :, tap] @ h0[other]
    if spec.convolution.activation == "tanh":
        return np.tanh(out)
    return activate(spec, out, spec.convolution.activation)


def activate(spec, x, name=None):
    name = name or spec.hidden_act
    if name == "relu":
        return np.maximum(x, 0)
    if name == "silu":
        return x / (1 + np.exp(-x))
    if name == "gelu":
        return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def naive_attention(spec, layer, query, key, value, table):
    n, heads = len(query), spec.num_attention_heads
    size = spec.hidden_size // heads
    shared = heads // (spec.num_key_value_heads or heads)
    context, maps = np.zeros((n, spec.hidden_size)), np.zeros((heads, n, n))
    for head in range(heads):
        own, theirs = (slice(i * size, (i + 1) * size) for i in (head, head // shared))
        q, k = query[:, own], key[:, theirs]
        if spec.rotary_thetas:
            q, k = (naive_rotation(x, spec.rotary_thetas[layer], spec.rotary_scale) for x in (q, k))
        distant = isinstance(spec.relative, Disentangled)
        scores = np.zeros((n, n)) if distant else q @ k.T / math.sqrt(size)
        for i in range(n):
            for j in range(n):
                if distant:
                    # He et al. 2021: the mean of the terms there are, up to a factor
                    row = naive_distance(spec.relative, i - j)
                    terms = [q[i] @ k[j]]
                    terms += [] if table[0] is None else [q[i] @ table[0][row, own]]
                    terms += [] if table[1] is None else [k[j] @ table[1][row, own]]
                    scores[i, j] = sum(terms) / math.sqrt(size * len(terms))
                elif table is not None:
                    scores[i, j] += table[naive_bucket(spec.relative, j - i), head]
                if spec.windows and spec.windows[layer] is not None and abs(i - j) > spec.windows[layer]:
                    scores[i, j] = -np.inf
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        maps[head] = shares / shares.sum(axis=1, keepdims=True)
        context[:, own] = maps[head] @ value[:, theirs]
    return context, maps


def naive_rotation(x, theta, scale):
    """Each pair (x[i], x[i + D/2]) as a complex number, times e^(i position / scale theta^(-2i/D))."""
    half = x.shape[1] // 2
    turned = np.empty_like(x)
    for position in range(len(x)):
        for i in range(half):
            z = complex(x[position, i], x[position, i + half])
            z *= np.exp(1j * position / scale * theta ** (-2 * i / (2 * half)))
            turned[position, i], turned[position, i + half] = z.real, z.imag
    return turned


def naive_bucket(spec: RelativeBias, distance: int) -> int:
    """Raffel et al. 2020: exact up to a quarter of the buckets, then logarithmic up to the greatest distance."""
    half = spec.buckets // 2
    exact = half // 2
    first = half if distance > 0 else 0
    far = abs(distance)
    if far < exact:
        return first + far
    share = math.log(far / exact) / math.log(spec.max_distance / exact)
    return first + min(exact + int(share * (half - exact)), half - 1)


def naive_distance(spec: Disentangled, distance: int) -> int:
    """The row of a distance: exact up to half the buckets of a side, then logarithmic; the ends take what is beyond."""
    side = spec.buckets or spec.max_distance
    if spec.buckets is not None and abs(distance) > spec.buckets // 2:
        half = spec.buckets // 2
        share = math.log(abs(distance) / half) / math.log((spec.max_distance - 1) / half)
        far = half + math.ceil(share * (half - 1))
        distance = far if distance > 0 else -far
    return min(max(distance + side, 0), 2 * side - 1)


# Ours.


def backend_of(spec, weights, *, fused):
    views = {name: TensorView("F32", array.shape, memoryview(array).cast("B")) for name, array in weights.items()}
    return TorchBackend(spec, lambda names: {name: views[name] for name in names}, fused=fused)


def backend_states(backend, batch):
    spec = backend.spec
    captures = tuple(Capture(layers=(i,)) for i in range(spec.num_states))
    found = backend.run(Program(captures=captures, stop=spec.num_hidden_layers), batch, {})
    return [found[capture] for capture in captures]


def encoder_of(spec, weights):
    encoder = Encoder(spec, pooler=spec.pooler)
    encoder.load_state_dict({name: torch.as_tensor(array) for name, array in weights.items()}, strict=True)
    return encoder.eval()


def tensors_of(batch):
    types = batch.token_type_ids
    return PackedTensors(
        input_ids=torch.as_tensor(batch.input_ids, dtype=torch.long),
        position_ids=torch.as_tensor(batch.position_ids, dtype=torch.long),
        token_type_ids=None if types is None else torch.as_tensor(types, dtype=torch.long),
        layout=Layout.of(batch.lengths.tolist()),
    )


def batch_of(spec, lengths, seed):
    """(packed batch, ids, token types); the types are not handed over where there are not two."""
    random = np.random.default_rng(seed)
    ids = [random.integers(0, VOCABULARY, n).astype(np.int32) for n in lengths]
    types = [
        random.integers(0, spec.type_vocab_size, n) if spec.type_vocab_size > 1 else ids_[:] * 0
        for n, ids_ in zip(lengths, ids, strict=True)
    ]
    batch = pack(
        ids,
        position_ids=spec.positions.position_ids,
        token_type_ids=types if spec.type_vocab_size > 1 else None,
    )
    return batch, ids, types


LENGTHS = st.lists(st.integers(1, LIMIT) | st.integers(1, 3), min_size=1, max_size=5)


@given(spec=specs(), lengths=LENGTHS, seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_states_of_any_spec_against_the_naive_encoder(spec, lengths, seed):
    weights = random_weights(spec, seed)
    batch, ids, types = batch_of(spec, lengths, seed)
    *expected, unnormed = (
        np.concatenate(layer)
        for layer in zip(*(naive_states(spec, weights, *pair) for pair in zip(ids, types, strict=True)), strict=True)
    )
    encoder = encoder_of(spec, weights)
    with torch.inference_mode():
        reference = [state.numpy() for _, state in encoder.states(tensors_of(batch))]
        *_, (_, last) = encoder.states(tensors_of(batch), unnormed=True)
    np.testing.assert_allclose(last.numpy(), unnormed, **TOLERANCE)
    for found in (
        reference,
        backend_states(backend_of(spec, weights, fused=True), batch),
        backend_states(backend_of(spec, weights, fused=False), batch),
    ):
        for layer, (state, wanted) in enumerate(zip(found, expected, strict=True)):
            np.testing.assert_allclose(state, wanted, **TOLERANCE, err_msg=f"state {layer}")


@given(spec=specs(), lengths=LENGTHS, seed=st.integers(0, 99), data=st.data())
@settings(max_examples=60, deadline=None)
def test_top_rows_of_any_spec(spec, lengths, seed, data):
    weights = random_weights(spec, seed)
    batch, *_ = batch_of(spec, lengths, seed)
    stop = data.draw(st.integers(0, spec.num_hidden_layers))
    rows = np.array(sorted(data.draw(st.sets(st.integers(0, sum(lengths) - 1), min_size=1))), dtype=np.int32)
    encoder = encoder_of(spec, weights)
    with torch.inference_mode():
        everything = [state for _, state in encoder.states(tensors_of(batch), stop=stop)]
        few = [state for _, state in encoder.states(tensors_of(batch), stop=stop, top_rows=rows)]
    for one, other in zip(few[:-1], everything[:-1], strict=True):
        assert torch.equal(one, other)
    torch.testing.assert_close(few[-1], everything[-1][rows.tolist()], **TOLERANCE)

    reduce = data.draw(st.sampled_from(["first", "last"]))
    capture = Capture(layers=(stop,), segments="tokens", reduce=reduce)
    segments = {"tokens": segments_of(batch, "tokens")}
    ends = np.cumsum(lengths)
    edges = ends - 1 if reduce == "last" else ends - lengths
    for fused in (True, False):
        program = Program(captures=(capture,), stop=stop, top_rows_only=True)
        found = backend_of(spec, weights, fused=fused).run(program, batch, segments)[capture]
        np.testing.assert_allclose(found, everything[-1][edges.tolist()].numpy(), **TOLERANCE)


@given(spec=specs(), lengths=LENGTHS, seed=st.integers(0, 99), data=st.data())
@settings(max_examples=60, deadline=None)
def test_attention_maps_of_any_spec_against_the_naive_encoder(spec, lengths, seed, data):
    weights = random_weights(spec, seed)
    batch, ids, types = batch_of(spec, lengths, seed)
    by_text = []
    for pair in zip(ids, types, strict=True):
        by_text.append([])
        naive_states(spec, weights, *pair, maps=by_text[-1])
    heads = st.none() | st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True).map(tuple)
    wanted = st.builds(
        lambda layer, attention, heads: Capture(layers=(layer,), attention=attention, heads=heads),
        st.integers(1, spec.num_hidden_layers),
        st.sampled_from(["heads", "mean"]),
        heads,
    )
    captures = tuple(data.draw(st.lists(wanted, min_size=1, max_size=4, unique=True)))
    stop = data.draw(st.integers(max(capture.layers[0] for capture in captures), spec.num_hidden_layers))
    state = Capture(layers=(stop,))
    program = Program(captures=(*captures, state), stop=stop)
    piece = data.draw(st.sampled_from([maps.PIECE_BYTES, 1, 700]))
    for fused in (True, False):
        backend = backend_of(spec, weights, fused=fused)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(maps, "PIECE_BYTES", piece)
            found = backend.run(program, batch, {})
        for capture in captures:
            assert found[capture].dtype == np.float32
            layer = capture.layers[0] - 1
            expected = [text[layer][list(capture.heads) if capture.heads else slice(None)] for text in by_text]
            if capture.attention == "mean":
                expected = [own.mean(axis=0) for own in expected]
            np.testing.assert_allclose(
                found[capture], np.concatenate([own.ravel() for own in expected]), rtol=0, atol=2e-5
            )
        # exactly: taking maps changes nothing else
        without = backend.run(Program(captures=(state,), stop=stop), batch, {})
        assert np.array_equal(found[state], without[state])


@pytest.mark.parametrize("fused", [True, False])
def test_only_layers_asked_for_are_watched(fused, monkeypatch):
    watched = []
    right = maps.Maps.__call__

    def spy(self, query, key, reach):
        watched.append(next(iter(self._heads)).layers[0])
        right(self, query, key, reach)

    monkeypatch.setattr(maps.Maps, "__call__", spy)
    backend = backend_of(EVERYTHING_ELSE, random_weights(EVERYTHING_ELSE, 0), fused=fused)
    batch, *_ = batch_of(EVERYTHING_ELSE, [4, 9], 0)
    first = Capture(layers=(1,), segments="tokens", reduce="first")
    wanted = Capture(layers=(2,), attention="heads", heads=(1,))
    backend.run(Program(captures=(first, wanted), stop=3), batch, {"tokens": segments_of(batch, "tokens")})
    assert watched == [2]
    # rows are not pruned where maps are wanted of the top block
    watched.clear()
    program = Program(captures=(first, wanted), stop=2, top_rows_only=True)
    backend.run(program, batch, {"tokens": segments_of(batch, "tokens")})
    assert watched == [2]


def test_maps_in_half_precision_are_those_of_its_queries_and_keys():
    """bfloat16 products would be off by 2^-9 of scores that are several units large."""
    backend = backend_of(PLAIN, random_weights(PLAIN, 1), fused=True)
    half = TorchBackend(PLAIN, backend._weights, precision="bfloat16")
    batch, *_ = batch_of(PLAIN, [LIMIT, 1, 7], 1)
    capture = Capture(layers=(1,), attention="heads")
    program = Program(captures=(capture,), stop=1)
    exact, found = backend.run(program, batch, {})[capture], half.run(program, batch, {})[capture]
    assert found.dtype == np.float32
    assert 0 < np.abs(found - exact).max() < 0.05
    # each row is a distribution to float32's precision, not to bfloat16's
    first = found[: 4 * LIMIT * LIMIT].reshape(4, LIMIT, LIMIT)
    np.testing.assert_allclose(first.sum(axis=-1), 1, atol=1e-6)


@pytest.mark.parametrize("spec", [PLAIN, *BRICKS.values()], ids=["plain", *BRICKS])
def test_every_parameter_has_a_gradient_and_a_use(spec):
    weights = random_weights(spec, 0)
    batch, *_ = batch_of(spec, [LIMIT, 3, 3], 0)
    encoder = encoder_of(spec, weights)
    assert {name: tuple(p.shape) for name, p in encoder.named_parameters()} == spec.parameters()
    states = [state for _, state in encoder.states(tensors_of(batch))]
    loss = sum((state**3).sum() for state in states) + encoder.pool(states[-1][:1]).sum()
    loss.backward()
    for name, parameter in encoder.named_parameters():
        if not name.endswith(("key.bias", "pos_key_proj.bias")):  # a bias on all keys alike changes no softmax
            assert parameter.grad.abs().max() > 1e-4, name


@pytest.mark.parametrize("bricks", BRICKS)
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
def test_bfloat16(fused, bricks, smallest_cosine):
    spec = replace(BRICKS[bricks], hidden_size=64, intermediate_size=96)
    weights = random_weights(spec, 0)
    batch, *_ = batch_of(spec, [LIMIT, 3, 3, 1], 0)
    exact = backend_states(backend_of(spec, weights, fused=fused), batch)
    views = {name: TensorView("F32", a.shape, memoryview(a).cast("B")) for name, a in weights.items()}
    half = TorchBackend(spec, lambda names: {name: views[name] for name in names}, precision="bfloat16", fused=fused)
    assert min(smallest_cosine(*pair) for pair in zip(backend_states(half, batch), exact, strict=True)) > 0.999


def test_layers_that_share_a_block_load_it_once():
    spec = replace(PLAIN, num_hidden_layers=4, blocks=(0, 0, 1, 1))
    weights = random_weights(spec, 0)
    views = {name: TensorView("F32", a.shape, memoryview(a).cast("B")) for name, a in weights.items()}
    asked = []

    def weights_of(names):
        asked.extend(names)
        return {name: views[name] for name in names}

    backend = TorchBackend(spec, weights_of)
    batch, *_ = batch_of(spec, [3], 0)
    capture = Capture(layers=(2,))
    backend.run(Program(captures=(capture,), stop=2), batch, {})
    assert not any(name.startswith("encoder.layer.1.") for name in asked)
    backend_states(backend, batch)
    assert len(asked) == len(set(asked))
    assert set(asked) | {"pooler.dense.weight", "pooler.dense.bias"} == set(spec.parameters())


# The bricks alone.


@given(positions=st.lists(st.integers(0, 9000), min_size=1, max_size=9), theta=st.sampled_from([10.0, 1e4, 160000.0]))
@settings(max_examples=30, deadline=None)
def test_rotation_keeps_lengths_and_products_depend_on_distance_only(positions, theta):
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 1, 16, generator=generator)
    turned = [
        Rotary.of(torch.tensor([p + shift for p in positions]), theta, 8).rotate(x.expand(len(positions), 16))
        for x, shift in ((query, 5), (key, 0), (query, 12), (key, 7))
    ]
    torch.testing.assert_close(turned[0].norm(dim=1), query.norm().expand(len(positions)))
    products = [(turned[0] * turned[1]).sum(1), (turned[2] * turned[3]).sum(1)]
    torch.testing.assert_close(*products, rtol=0, atol=0.02)  # angles of thousands of radians, in float32


def test_rotation_in_bfloat16_is_computed_in_float32():
    x = torch.randn(40, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    rotary = Rotary.of(torch.arange(8000, 8040), 1e4, 32)
    assert torch.equal(rotary.rotate(x), rotary.rotate(x.float()).bfloat16())


@given(spec=st.sampled_from([RelativeBias(buckets=32, max_distance=128), RelativeBias(buckets=8, max_distance=16)]))
@settings(max_examples=2)
def test_buckets_of_every_distance(spec):
    distances = np.arange(-600, 601)
    found = spec.buckets_of(distances)
    # the logarithm of exact powers falls on the edge of a bucket, where float32 decides
    edges = np.isin(np.abs(distances), [2**i for i in range(10)])
    expected = np.array([naive_bucket(spec, int(d)) for d in distances])
    assert (found == expected)[~edges].all()
    assert (np.abs(found - expected) <= 1).all()
    assert set(found) == set(range(spec.buckets)) - {spec.buckets // 2}  # key before, at and after: 0 is on one side


def test_buckets_are_those_of_transformers():
    modeling = pytest.importorskip("transformers.models.mpnet.modeling_mpnet")
    distances = torch.arange(-600, 601)
    expected = modeling.MPNetEncoder.relative_position_bucket(distances, num_buckets=32, max_distance=128)
    found = RelativeBias(buckets=32, max_distance=128).buckets_of(distances.numpy())
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("buckets", "reach"),
    [(256, 512), (256, 1024), (8, 16), (6, 40), (2, 9), (33, 200), (1024, 1500), (320, 6000), (255, 300)],
)
def test_rows_of_distances_are_those_of_transformers(buckets, reach):
    modeling = pytest.importorskip("transformers.models.deberta_v2.modeling_deberta_v2")
    distances = torch.arange(-8191, 8192)
    expected = modeling.make_log_bucket_position(distances, buckets, reach).long()
    expected = torch.clamp(expected + buckets, 0, 2 * buckets - 1)
    found = Disentangled(max_distance=reach, buckets=buckets).vectors_of(distances.numpy())
    assert found.tolist() == expected.tolist()
    assert (np.diff(found) >= 0).all()
    assert {0, 2 * buckets - 1} < set(found.tolist()) or buckets == 2


@given(spec=disentangled())
@settings(max_examples=40)
def test_rows_of_distances_against_the_formula(spec):
    distances = np.arange(-60, 61)
    assert spec.vectors_of(distances).tolist() == [naive_distance(spec, int(d)) for d in distances]


@pytest.mark.parametrize("bytes_together", [1, 3000, 20_000])
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
def test_biases_of_their_own_in_any_number_of_parts(bytes_together, fused, monkeypatch):
    weights = random_weights(DISENTANGLED, 0)
    lengths = [LIMIT, LIMIT, 7, 7, 7, 7, 7, 1, 1, LIMIT]
    batch, *_ = batch_of(DISENTANGLED, lengths, 0)
    capture = Capture(layers=(LAYERS,), segments="tokens", reduce="last")
    program = Program(captures=(capture,), stop=LAYERS, top_rows_only=True)
    segments = {"tokens": segments_of(batch, "tokens")}
    whole = backend_states(backend_of(DISENTANGLED, weights, fused=fused), batch)
    last = backend_of(DISENTANGLED, weights, fused=fused).run(program, batch, segments)[capture]
    monkeypatch.setattr(attention, "BIAS_BYTES", bytes_together)
    parts = list(attention._few_at_once(Layout.of(lengths).runs, 16))
    assert all(16 * run.length * run.queries * run.count <= bytes_together or run.queries == 1 for run in parts)
    assert sum(run.queries * run.count for run in parts) == sum(lengths)
    for state, wanted in zip(backend_states(backend_of(DISENTANGLED, weights, fused=fused), batch), whole, strict=True):
        np.testing.assert_allclose(state, wanted, **TOLERANCE)
    found = backend_of(DISENTANGLED, weights, fused=fused).run(program, batch, segments)[capture]
    np.testing.assert_allclose(found, last, **TOLERANCE)


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
def test_maps_of_disentangled_attention_in_bfloat16(fused):
    """A map is made of products in float32, distances' too; what the block itself does stays in bfloat16."""
    weights = random_weights(DISENTANGLED, 1)
    exact = backend_of(DISENTANGLED, weights, fused=fused)
    half = TorchBackend(DISENTANGLED, exact._weights, precision="bfloat16", fused=fused)
    batch, *_ = batch_of(DISENTANGLED, [LIMIT, 7], 1)
    capture, state = Capture(layers=(1,), attention="heads"), Capture(layers=(1,))
    found = half.run(Program(captures=(capture, state), stop=1), batch, {})
    expected = exact.run(Program(captures=(capture,), stop=1), batch, {})[capture]
    assert 0 < np.abs(found[capture] - expected).max() < 0.05
    alone = half.run(Program(captures=(state,), stop=1), batch, {})
    assert np.array_equal(found[state], alone[state])


@given(seed=st.integers(0, 99), size=st.sampled_from([1, 7, 64]), scale=st.sampled_from([1e-4, 1.0, 1e4]))
@settings(max_examples=30, deadline=None)
def test_rms_norm_against_the_formula(seed, size, scale):
    random = np.random.default_rng(seed)
    x, weight = random.normal(size=(5, size)) * scale, random.normal(size=size)
    norm = RMSNorm(size, 1e-6)
    norm.weight.data = torch.as_tensor(weight, dtype=torch.float32)
    expected = weight * x / np.sqrt((x**2).mean(1, keepdims=True) + 1e-6)
    found = norm(torch.as_tensor(x, dtype=torch.float32)).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("together", [1, 5, 256])
@pytest.mark.parametrize("window", [0, 1, 3, 30])
def test_windows_in_any_number_of_parts(together, window, monkeypatch):
    monkeypatch.setattr(attention, "QUERIES_TOGETHER", together)
    generator = torch.Generator().manual_seed(0)
    lengths = [13, 13, 4, 1]
    query, key, value = torch.randn(3, sum(lengths), 16, generator=generator)
    found = attend(query, key, value, Layout.of(lengths), num_heads=2, window=window)
    begin = 0
    for length in lengths:
        own = slice(begin, begin + length)
        begin += length
        index = torch.arange(length)
        far = (index - index[:, None]).abs() > window
        for head in (slice(0, 8), slice(8, 16)):
            scores = query[own, head].double() @ key[own, head].double().T / 8**0.5
            expected = scores.masked_fill(far, -math.inf).softmax(1) @ value[own, head].double()
            torch.testing.assert_close(found[own, head].double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("relative", [True, False, DISENTANGLED], ids=["bias", "no bias", "disentangled"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_every_brick_on_a_cuda_device(precision, relative, smallest_cosine):
    spec = relative if isinstance(relative, EncoderSpec) else EVERYTHING_ELSE
    spec = replace(spec, hidden_size=64, intermediate_size=96)
    spec = spec if relative else replace(spec, relative=None)
    weights = random_weights(spec, 0)
    batch, *_ = batch_of(spec, [LIMIT, 3, 3, 1, 17], 0)
    exact = backend_states(backend_of(spec, weights, fused=False), batch)
    views = {name: TensorView("F32", a.shape, memoryview(a).cast("B")) for name, a in weights.items()}
    backend = TorchBackend(
        spec, lambda names: {name: views[name] for name in names}, device="cuda", precision=precision
    )
    found = backend_states(backend, batch)
    for state, wanted in zip(found, exact, strict=True):
        if precision == "float32":
            np.testing.assert_allclose(state, wanted, **TOLERANCE)
        assert smallest_cosine(state, wanted) > 0.999
    # the last rows only, as the top layer has a window
    capture = Capture(layers=(LAYERS,), segments="tokens", reduce="last")
    program = Program(captures=(capture,), stop=LAYERS, top_rows_only=True)
    last = backend.run(program, batch, {"tokens": segments_of(batch, "tokens")})[capture]
    assert smallest_cosine(last, exact[-1][np.cumsum(batch.lengths) - 1]) > 0.999


@pytest.mark.parametrize("as_on_cuda", [False, True])
def test_rows_whose_squares_overflow_become_nan(monkeypatch, as_on_cuda):
    """Their scale is zero, and zeros would pass for a result; the engine refuses NaN."""
    if as_on_cuda:
        pretend_cuda(monkeypatch)
    norm = RMSNorm(4, 1e-6)
    rows = torch.tensor([[1.0, -2.0, 3.0, 4.0], [1e30, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    normed = norm(rows)
    torch.testing.assert_close(normed[0], rows[0] / rows[0].square().mean().sqrt())
    assert normed[1].isnan().all()
    assert (normed[2] == 0).all()
