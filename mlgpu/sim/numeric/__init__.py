"""The arithmetic of NVIDIA GPUs on NumPy arrays: pure functions, no machine."""
