"""Saving of features as models that other programs run: a model folder, or an ONNX graph."""
