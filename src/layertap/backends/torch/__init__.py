"""The torch backend: the reference, the GPU, and everything that needs gradients."""
