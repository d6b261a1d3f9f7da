"""Backend on torch: the reference forward pass, CUDA devices, and everything that needs gradients."""

from layertap.backends.current_folder import check_current_folder

check_current_folder()
