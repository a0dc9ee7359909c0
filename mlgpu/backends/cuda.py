"""What CUDA devices compute with."""

from __future__ import annotations

# Products of matrices: "own", mlgpu's kernels; "cublas", NVIDIA's library wherever it does the same
# (a plain product of two contiguous matrices, not while a graph is captured); "auto", the library
# where it uses instructions that the kernels do not: large products of float16 on sm_90 and later.
gemm = "auto"

# See mlgpu.set_float32_matmul_precision.
precision = "highest"

# How gradients of `embedding` are added up: "deterministic", in an order that the indices fix, so
# that runs repeat to the bit; "atomic", as threads come, which needs no sort and has the sums of
# half types in float32.  mlgpu.use_deterministic_algorithms(True) goes before it.
embedding_backward = "deterministic"
