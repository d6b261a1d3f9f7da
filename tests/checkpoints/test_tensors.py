from __future__ import annotations

import json
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from layertap.checkpoints.tensors import no_weights, read_index, read_safetensors
from layertap.errors import CheckpointError, ConfigError, WeightsError
from layertap.safetensors_header import DTYPE_SIZES, MAX_HEADER
from layertap.tensors import FLOAT_BITS, TensorView
from tests.writing import write

WEIGHTS = "model.safetensors"
VALID = save({"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(4, np.float16)})


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def encode(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def view_of(array: np.ndarray, dtype: str) -> TensorView:
    return TensorView(dtype, array.shape, memoryview(array.tobytes()))


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "int64", "bool"])
def test_reads_what_the_formats_own_library_writes(tmp_path, dtype):
    arrays = {
        "x": np.arange(12).reshape(3, 4).astype(dtype),
        "empty": np.zeros((0, 3), dtype),
        "one": np.ones((), dtype),
    }
    found = read_safetensors(write(tmp_path / WEIGHTS, save(arrays, metadata={"format": "pt"})))
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        assert found[name].shape == array.shape
        assert bytes(found[name].buffer) == array.tobytes()
        if dtype.startswith("float"):
            np.testing.assert_array_equal(found[name].to_float32(), array)
            assert found[name].is_finite()


def test_a_weight_is_read_once_and_copied_nowhere_else(tmp_path):
    path = write(tmp_path / WEIGHTS, save({"x": np.ones((1000, 1000), np.float32)}))
    tracemalloc.start()
    unread = read_safetensors(path)["x"]
    assert tracemalloc.get_traced_memory()[1] < 500_000
    view = unread.loaded()
    array = view.to_float32()
    assert view.is_finite()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_500_000  # of 4,000,000
    assert np.shares_memory(array, np.frombuffer(view.buffer, np.uint8))


def test_writing_to_a_weight_does_not_reach_the_file(tmp_path):
    path = write(tmp_path / WEIGHTS, VALID)
    read_safetensors(path)["a"].loaded().buffer[:4] = b"\1\2\3\4"
    assert path.read_bytes() == VALID


def test_an_unaligned_file_is_read(tmp_path):
    header = encode({"x": entry()} | {"__metadata__": {"k": "v"}}, struct.pack("<2f", 1.5, -2))
    assert (len(header) - 8) % 4, "the point of this test"
    np.testing.assert_array_equal(read_safetensors(write(tmp_path / WEIGHTS, header))["x"].to_float32(), [1.5, -2])


@given(st.lists(st.floats(width=32), min_size=1, max_size=8))
def test_bfloat16_is_the_upper_half_of_a_float32(values):
    bits = np.array(values, np.float32).view(np.uint32) >> 16
    view = view_of(bits.astype(np.uint16), "BF16")
    expected = (bits << 16).view(np.float32)
    np.testing.assert_array_equal(view.to_float32(), expected)
    assert view.is_finite() == bool(np.isfinite(expected).all())


@pytest.mark.parametrize(("dtype", "numpy_dtype"), [("F16", np.float16), ("F32", np.float32), ("F64", np.float64)])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, None])
@pytest.mark.parametrize("place", [0, 300_000, -1])
def test_is_finite(dtype, numpy_dtype, bad, place):
    array = np.linspace(-60000, 60000, 600_000).astype(numpy_dtype)
    if bad is not None:
        array[place] = bad
    assert view_of(array, dtype).is_finite() == (bad is None)


def test_a_float64_beyond_float32_is_not_finite():
    view = view_of(np.array([1e300, 1.0]), "F64")
    assert not view.is_finite()
    assert np.isinf(view.to_float32()[0])
    assert view_of(np.array([3e38, 1e-300]), "F64").is_finite()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "expected 8 bytes with the header's length, found 0"),
        (b"\0" * 7, "expected 8 bytes .*, found 7"),
        ((MAX_HEADER + 1).to_bytes(8, "little") + b"{}", "a header of at most 16777216 bytes, found 16777217"),
        ((100).to_bytes(8, "little") + b"{}", "cut short: expected a header of 100 bytes, found 2;"),
        (VALID[:-1], "expected 32 bytes of data, found 31: the file is cut short"),
        (VALID + b"\0", "expected 32 bytes of data, found 33: the file is damaged"),
        (encode(b"{"), "not JSON"),
        (encode(b"\xff"), "not JSON"),
        (encode(b"[" * 100_000), "not JSON: nested"),
        (encode(b'{"a": ' + b"9" * 5000 + b"}"), "not JSON"),
        (encode([]), "not a JSON object"),
        (encode(b'{"a": {}, "a": {}}'), "'a': expected once, found twice"),
        (encode({"a\ud800": entry()}), r"expected printable names in the header, found 'a.ud800'"),
        (encode({"a": 3}), "a: expected dtype, shape and data_offsets"),
        (encode({"a": entry() | {"more": 1}}, b"\0" * 8), "a: expected dtype, shape"),
        (encode({"a": entry(dtype="F31")}, b"\0" * 8), "a: expected a dtype of BOOL.*found 'F31'"),
        (encode({"a": entry(dtype=[])}, b"\0" * 8), "a: expected a dtype"),
        (encode({"a": entry(shape=[-2])}, b"\0" * 8), "a: expected a list of at most 32 sizes as shape, found"),
        (encode({"a": entry(shape=[True, 2])}, b"\0" * 8), "sizes as shape"),
        (encode({"a": entry(shape=[2.0])}, b"\0" * 8), "sizes as shape"),
        (encode({"a": entry(shape=[1] * 33)}, b"\0" * 8), "sizes as shape"),
        (encode({"a": entry(shape=[[[]]])}, b"\0" * 8), "found something nested"),
        (encode({"a": entry(shape=[2**62, 2**62])}, b"\0" * 8), "a: expected .* bytes for F32"),
        (encode({"a": entry(offsets=[8, 0])}, b"\0" * 8), "a: expected two ascending"),
        (encode({"a": entry(offsets=[0, 8, 8])}, b"\0" * 8), "a: expected two ascending"),
        (encode({"a": entry(offsets=[0, 4])}, b"\0" * 8), r"a: expected 8 bytes for F32 \[2\], found 4"),
        (encode({"a": entry(offsets=[4, 12])}, b"\0" * 12), "a: expected its data at offset 0, found 4"),
        (encode({"a": entry(), "b": entry(offsets=[4, 12])}, b"\0" * 12), "b: expected its data at offset 8, found 4"),
        (encode({"a": entry(), "b": entry()}, b"\0" * 8), "expected its data at offset 8, found 0"),
    ],
)
def test_damaged_files_are_refused_by_name(tmp_path, content, says):
    path = write(tmp_path / WEIGHTS, content)
    with pytest.raises(WeightsError, match=says) as caught:
        read_safetensors(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_file_that_cannot_be_opened(tmp_path):
    with pytest.raises(WeightsError, match="cannot be read"):
        read_safetensors(tmp_path)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_mutated_files_give_tensors_or_our_error(tmp_path_factory, data):
    content = bytearray(VALID)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    check_only_our_errors(tmp_path_factory.mktemp("m"), bytes(content))


@settings(max_examples=100, deadline=None)
@given(
    header=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(list(DTYPE_SIZES)),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "__metadata__", "a"]), inner)
        ),
        max_leaves=8,
    ),
    data=st.binary(max_size=16),
)
def test_random_headers_give_tensors_or_our_error(tmp_path_factory, header, data):
    check_only_our_errors(tmp_path_factory.mktemp("h"), encode(header, data))


def check_only_our_errors(folder: Path, content: bytes) -> None:
    try:
        found = read_safetensors(write(folder / WEIGHTS, content))
    except WeightsError:
        return
    for view in found.values():
        assert view.buffer.nbytes == view.size * DTYPE_SIZES[view.dtype]
        if view.dtype in FLOAT_BITS:
            view.is_finite()
            assert view.to_float32().shape == view.shape


@pytest.mark.parametrize(
    ("index", "says"),
    [
        ({}, "expected a weight_map"),
        ({"weight_map": {}}, "expected a weight_map"),
        ({"weight_map": ["a"]}, "expected a weight_map"),
        ({"weight_map": {"a": 3}}, "a: expected the name of a file beside the index, found 3"),
        ({"weight_map": {"a": "../model.safetensors"}}, "a: expected the name of a file"),
        ({"weight_map": {"a": "/etc/passwd"}}, "a: expected the name of a file"),
        ({"weight_map": {"a": ".."}}, "a: expected the name of a file"),
        ({"weight_map": {"a": "c:x"}}, "a: expected the name of a file"),
        ({"weight_map": {"a": "*.safetensors"}}, "a: expected the name of a file"),
    ],
)
def test_an_index_names_files_beside_it(tmp_path, index, says):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    with pytest.raises(WeightsError, match=says):
        read_index(path)
    path.write_text("[")
    with pytest.raises(ConfigError):
        read_index(path)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (["pytorch_model.bin"], "--allow-pickle"),
        (["pytorch_model.bin.index.json"], "--allow-pickle"),
        (["adapter_config.json", "adapter_model.safetensors"], "adapter without its base model"),
        (["tf_model.h5", "README.md"], "found tf_model.h5, which are not read"),
        ([], "expected model.safetensors"),
    ],
)
def test_folders_without_weights(files, says):
    assert says in no_weights(files)


def test_our_errors_are_value_errors():
    assert issubclass(WeightsError, CheckpointError)
    assert issubclass(WeightsError, ValueError)
