"""Weights that are written as they lie."""

from __future__ import annotations

import numpy as np

from layertap.checkpoints.tensors import read_safetensors
from layertap.checkpoints.writing import as_json, write_tensors
from layertap.files import staged_folder
from layertap.tensors import TensorView


def test_parts_are_laid_one_above_the_other(tmp_path):
    import safetensors.numpy

    arrays = {
        "upper": np.arange(6, dtype=np.float32).reshape(2, 3),
        "lower": np.arange(9, dtype=np.float32).reshape(3, 3) - 5,
        "half": np.array([1, 2, 3], dtype=np.float16),
        "none": np.zeros((0, 4), dtype=np.float32),
    }
    kinds = {"float32": "F32", "float16": "F16"}
    views = {
        name: TensorView(kinds[array.dtype.name], array.shape, memoryview(array.tobytes()))
        for name, array in arrays.items()
    }
    layout = {"b": ("half",), "a": ("upper", "lower"), "c": ("none",)}
    with staged_folder(tmp_path / "m", first="x", overwrite=False) as folder:
        write_tensors(folder, "1_Dense/x", layout, views.__getitem__)
        folder.write("x", as_json({"a": "\u00e9"}))
    file = tmp_path / "m/1_Dense/x"
    found = safetensors.numpy.load_file(file)
    np.testing.assert_array_equal(found["a"], np.concatenate([arrays["upper"], arrays["lower"]]))
    np.testing.assert_array_equal(found["b"], arrays["half"])
    assert found["c"].shape == (0, 4)
    assert read_safetensors(file)["a"].shape == (5, 3)
    assert (tmp_path / "m/x").read_text() == '{\n  "a": "\u00e9"\n}\n'
