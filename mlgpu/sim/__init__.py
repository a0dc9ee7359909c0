"""The simulated GPU: run and check CUDA kernels without one."""
