"""Backend on torch: the reference forward pass, CUDA devices, and everything that needs gradients."""
