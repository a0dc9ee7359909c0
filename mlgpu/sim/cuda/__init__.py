"""The CUDA runtime and driver of simulated devices, for CuPy to call."""
