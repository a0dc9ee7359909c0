"""Ordinary CuPy on simulated devices: kernels of the program's own, in all the ways CuPy has."""

from __future__ import annotations

import gc
import pickle
from pathlib import Path
from typing import Any

import cupy as cp
import ml_dtypes
import numpy as np
import pytest
from cupyx import jit

SCALE = r"""
extern "C" __global__ void scale(const float* x, float* y, float factor, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = x[i] * factor;
}
"""


def scaled(kernel: Any, n: int = 1000) -> None:
    """Run SCALE's kernel and check what it did."""
    x = cp.arange(n, dtype=cp.float32)
    y = cp.zeros(n, cp.float32)
    kernel((-(-n // 128),), (128,), (x, y, cp.float32(2.5), cp.int32(n)))
    np.testing.assert_array_equal(y.get(), np.arange(n, dtype="f4") * np.float32(2.5))


# -- elementwise and reduction kernels ------------------------------------------------------------

def test_elementwise() -> None:
    kernel = cp.ElementwiseKernel("float32 x, float32 y", "float32 z", "z = (x - y) * (x - y)",
                                  "squared_difference")
    x, y = cp.arange(10, dtype="f4").reshape(2, 5), cp.arange(5, dtype="f4")
    np.testing.assert_array_equal(kernel(x, y).get(), (x.get() - y.get()) ** 2)
    out = cp.empty((2, 5), "f4")
    assert kernel(x, 3, out) is out
    np.testing.assert_array_equal(out.get(), (x.get() - 3) ** 2)


def test_elementwise_of_any_type() -> None:
    kernel = cp.ElementwiseKernel("T x, T y", "T z", "z = x > y ? x : y", "larger")
    for dtype in ("i8", "f2", "f8"):
        x = cp.array([1, 5, 3], dtype)
        got = kernel(x, cp.array([4, 2, 3], dtype))
        assert got.dtype == dtype
        assert got.tolist() == [4, 5, 3]


def test_elementwise_raw() -> None:
    """Raw arguments are indexed by the program, `size` says how far; `i` is the place."""
    kernel = cp.ElementwiseKernel("T x, raw T y", "T z", "z = x + y[_ind.size() - i - 1]", "mirror")
    x, y = cp.arange(7.0), cp.arange(7.0) * 10
    np.testing.assert_array_equal(kernel(x, y).get(), np.arange(7) + 10.0 * np.arange(7)[::-1])
    gather = cp.ElementwiseKernel("raw T x, raw int64 at", "raw T z", "z[i] = x[at[i]]", "gather")
    z = cp.zeros(3)
    gather(x, cp.array([6, 0, 2]), z, size=3)
    assert z.tolist() == [6.0, 0.0, 2.0]


def test_elementwise_loops_and_preambles() -> None:
    kernel = cp.ElementwiseKernel(
        "int32 n", "int32 steps", "steps = collatz(n)", "collatz_steps",
        preamble="""
        __device__ int collatz(int n) {
            int steps = 0;
            for (; n != 1; ++steps) n = n % 2 ? 3 * n + 1 : n / 2;
            return steps;
        }""")
    assert kernel(cp.arange(1, 10, dtype="i4")).tolist() == [0, 1, 7, 2, 5, 8, 16, 3, 19]


@pytest.mark.parametrize("axis", [None, 0, 1, (0, 2)])
def test_reduction(axis: Any) -> None:
    norm = cp.ReductionKernel("T x", "T y", "x * x", "a + b", "y = sqrt(a)", "0", "norm_of")
    x = np.random.default_rng(1).standard_normal((5, 70, 3))
    np.testing.assert_allclose(norm(cp.asarray(x), axis=axis).get(),
                               np.sqrt((x * x).sum(axis=axis)), rtol=1e-12)


def test_reduction_of_two_arrays() -> None:
    dot = cp.ReductionKernel("T x, T y", "T z", "x * y", "a + b", "z = a", "0", "dot_of")
    x, y = np.arange(300, dtype="f4"), np.ones(300, "f4")
    assert dot(cp.asarray(x), cp.asarray(y)).item() == x.sum()
    rows = dot(cp.asarray(x.reshape(3, 100)), 2, axis=1, keepdims=True)
    np.testing.assert_array_equal(rows.get(), 2 * x.reshape(3, 100).sum(1, keepdims=True))


def test_fuse() -> None:
    @cp.fuse()
    def step(x: Any, y: Any) -> Any:
        return cp.sqrt(x * x + y * y) - cp.maximum(x, y)

    x, y = np.random.default_rng(2).random((2, 40))
    np.testing.assert_allclose(step(cp.asarray(x), cp.asarray(y)).get(),
                               np.sqrt(x * x + y * y) - np.maximum(x, y), atol=1e-14)


def test_fused_reduction() -> None:
    @cp.fuse(kernel_name="deviation")
    def deviation(x: Any) -> Any:
        return cp.sum((x - 1.0) * (x - 1.0))

    x = np.random.default_rng(3).random(300)
    np.testing.assert_allclose(deviation(cp.asarray(x)).item(), ((x - 1) ** 2).sum(), rtol=1e-12)


def test_vectorize() -> None:
    def smooth(x: float) -> float:
        return x * x * (3 - 2 * x) if x < 1 else 1.0

    x = np.linspace(0, 2, 9)
    np.testing.assert_allclose(cp.vectorize(smooth)(cp.asarray(x)).get(), np.vectorize(smooth)(x))


# -- raw kernels ----------------------------------------------------------------------------------

def test_raw_kernel() -> None:
    scaled(cp.RawKernel(SCALE, "scale"))


def test_scalars_of_all_types() -> None:
    kernel = cp.RawKernel(r"""
    extern "C" __global__ void all(bool b, signed char c, unsigned short s, int i, unsigned u,
                                   long long l, float f, double d, double* out) {
        out[0] = b; out[1] = c; out[2] = s; out[3] = i; out[4] = u; out[5] = l; out[6] = f;
        out[7] = d;
    }""", "all")
    out = cp.zeros(8)
    kernel((1,), (1,), (True, np.int8(-3), np.uint16(65535), np.int32(-7), np.uint32(2**32 - 1),
                        -2**40, np.float32(0.1), 0.1, out))
    assert out.tolist() == [1, -3, 65535, -7, 2**32 - 1, -2**40, float(np.float32(0.1)), 0.1]


def test_half_and_complex_scalars() -> None:
    kernel = cp.RawKernel(r"""
    #include <cuda_fp16.h>
    #include <cupy/complex.cuh>
    extern "C" __global__ void mixed(__half h, complex<float> z, float* out) {
        out[0] = __half2float(h); out[1] = z.real(); out[2] = z.imag();
    }""", "mixed")
    out = cp.zeros(3, "f4")
    kernel((1,), (1,), (np.float16(1.5), np.complex64(2 - 3j), out))
    assert out.tolist() == [1.5, 2, -3]


def test_a_struct_by_value() -> None:
    kind = np.dtype([("at", "f8"), ("count", "i4"), ("weights", "f4", 3)], align=True)
    kernel = cp.RawKernel(r"""
    struct Box { double at; int count; float weights[3]; };
    extern "C" __global__ void unpack(Box box, double* out) {
        out[0] = box.at; out[1] = box.count;
        for (int i = 0; i < 3; ++i) out[2 + i] = box.weights[i];
    }""", "unpack")
    out = cp.zeros(5)
    kernel((1,), (1,), (np.array((2.5, 7, [1, 2, 3]), kind), out))
    assert out.tolist() == [2.5, 7, 1, 2, 3]


def test_arrays_in_a_struct() -> None:
    """Pointers in a struct, as CuPy's own CArray has them."""
    kernel = cp.RawKernel(r"""
    struct Pair { const float* from; float* to; };
    extern "C" __global__ void move(Pair p) { p.to[threadIdx.x] = p.from[threadIdx.x] + 1; }
    """, "move")
    x, y = cp.arange(4, dtype="f4"), cp.zeros(4, "f4")
    pair = np.array((x.data.ptr, y.data.ptr), np.dtype([("from", "u8"), ("to", "u8")]))
    kernel((1,), (4,), (pair,))
    assert y.tolist() == [1, 2, 3, 4]


REVERSE = r"""
extern "C" __global__ void reverse(int* x) {
    extern __shared__ int held[];
    int last = blockDim.x * PER - 1;
    for (int i = threadIdx.x; i <= last; i += blockDim.x) held[i] = x[i];
    __syncthreads();
    for (int i = threadIdx.x; i <= last; i += blockDim.x) x[i] = held[last - i];
}
"""


def test_dynamic_shared_memory() -> None:
    kernel = cp.RawKernel(REVERSE, "reverse", options=("-DPER=16",))
    x = cp.arange(4096, dtype=cp.int32)
    kernel((1,), (256,), (x,), shared_mem=4 * 4096)
    np.testing.assert_array_equal(x.get(), np.arange(4096)[::-1])


def test_more_than_48_kib_of_shared_memory() -> None:
    kernel = cp.RawKernel(REVERSE, "reverse", options=("-DPER=64",))
    n = 64 * 256
    x = cp.arange(n, dtype=cp.int32)
    with pytest.raises(cp.cuda.driver.CUDADriverError, match="CUDA_ERROR_INVALID_VALUE"):
        kernel((1,), (256,), (x,), shared_mem=4 * n)
    kernel.max_dynamic_shared_size_bytes = 4 * n
    assert kernel.max_dynamic_shared_size_bytes == 4 * n
    kernel((1,), (256,), (x,), shared_mem=4 * n)
    np.testing.assert_array_equal(x.get(), np.arange(n)[::-1])
    with pytest.raises(cp.cuda.driver.CUDADriverError, match="CUDA_ERROR_INVALID_VALUE"):
        kernel.max_dynamic_shared_size_bytes = 1 << 20


def test_attributes() -> None:
    kernel = cp.RawKernel(r"""
    extern "C" __global__ void held(float* x) {
        __shared__ float s[100];
        s[threadIdx.x] = x[threadIdx.x];
        __syncthreads();
        x[threadIdx.x] = s[blockDim.x - 1 - threadIdx.x];
    }""", "held")
    attributes = kernel.attributes
    assert attributes["shared_size_bytes"] == kernel.shared_size_bytes == 400
    assert attributes["max_threads_per_block"] == 1024
    assert kernel.num_regs > 0
    assert kernel.local_size_bytes == 0
    assert kernel.max_dynamic_shared_size_bytes == 48 * 1024 - 400


def test_constant_memory_and_variables() -> None:
    module = cp.RawModule(code=r"""
    extern "C" {
    __constant__ float factors[4];
    __device__ int calls;
    __global__ void apply(float* x) {
        x[threadIdx.x] *= factors[threadIdx.x % 4];
        if (threadIdx.x == 0) ++calls;
    }
    }""")
    view = cp.ndarray(4, cp.float32, module.get_global("factors"))
    view[...] = cp.array([1, 10, 100, 1000], "f4")
    x = cp.ones(8, "f4")
    for _ in range(2):
        module.get_function("apply")((1,), (8,), (x,))
    assert x.tolist() == [1, 100, 10**4, 10**6] * 2
    assert int(cp.ndarray(1, cp.int32, module.get_global("calls"))[0]) == 2


def test_templates() -> None:
    module = cp.RawModule(code=r"""
    template <typename T, int N> __global__ void fill(T* x, T value) {
        for (int i = 0; i < N; ++i) x[threadIdx.x * N + i] = value + T(i);
    }""", options=("-std=c++17",), name_expressions=("fill<float, 2>", "fill<long long, 3>"))
    for name, dtype, per in (("fill<float, 2>", "f4", 2), ("fill<long long, 3>", "i8", 3)):
        x = cp.zeros(4 * per, dtype)
        module.get_function(name)((1,), (4,), (x, x.dtype.type(5)))
        assert x.tolist() == [5 + i for i in range(per)] * 4


def test_half_types_in_templates() -> None:
    module = cp.RawModule(code=r"""
    #include <cuda_fp16.h>
    #include <cuda_bf16.h>
    template <typename T> __global__ void twice(T* x) {
        x[threadIdx.x] = x[threadIdx.x] + x[threadIdx.x];
    }
    """, options=("-std=c++17",), name_expressions=("twice<__half>", "twice<__nv_bfloat16>"))
    for name, dtype in (("twice<__half>", np.dtype("f2")),
                        ("twice<__nv_bfloat16>", np.dtype(ml_dtypes.bfloat16))):
        x = cp.arange(8, dtype="f4").astype(dtype)
        module.get_function(name)((1,), (8,), (x,))
        np.testing.assert_array_equal(x.get().astype("f4"), 2.0 * np.arange(8))


def test_ptx_file(tmp_path: Path) -> None:
    """A module from a file of PTX, as nvcc or CuPy's own compiler make it."""
    from cupy.cuda import compiler

    ptx, _ = compiler.compile_using_nvrtc(SCALE, (f"-arch=compute_{arch()}",))
    path = tmp_path / "scale.ptx"
    path.write_bytes(ptx if isinstance(ptx, bytes) else ptx.encode())
    scaled(cp.RawModule(path=str(path)).get_function("scale"))
    with pytest.raises(cp.cuda.driver.CUDADriverError, match="FILE_NOT_FOUND"):
        cp.RawModule(path=str(tmp_path / "none.ptx")).get_function("scale")


def arch() -> str:
    return str(cp.cuda.Device().compute_capability)


def test_cooperative_grid() -> None:
    kernel = cp.RawKernel(r"""
    #include <cooperative_groups.h>
    extern "C" __global__ void average(float* x, float* sums, int steps) {
        cooperative_groups::grid_group grid = cooperative_groups::this_grid();
        int i = blockIdx.x * blockDim.x + threadIdx.x, n = gridDim.x * blockDim.x;
        for (int step = 0; step < steps; ++step) {
            float mean = (x[i] + x[(i + 1) % n]) / 2;
            grid.sync();
            x[i] = mean;
            grid.sync();
        }
    }""", "average", enable_cooperative_groups=True)
    x = np.random.default_rng(4).random(256).astype("f4")
    y = cp.asarray(x)
    kernel((4,), (64,), (y, 0, cp.int32(3)))
    for _ in range(3):
        x = (x + np.roll(x, -1)) / np.float32(2)
    np.testing.assert_array_equal(y.get(), x)


def test_three_dimensions() -> None:
    kernel = cp.RawKernel(r"""
    extern "C" __global__ void where(int* x) {
        int at = ((blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x);
        int in = ((threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x);
        x[at * blockDim.x * blockDim.y * blockDim.z + in] = at * 1000 + in;
    }""", "where")
    x = cp.zeros(24 * 30, "i4")
    kernel((2, 3, 4), (5, 3, 2), (x,))
    np.testing.assert_array_equal(x.get(), (np.arange(24)[:, None] * 1000 + np.arange(30)).ravel())


def test_pickled_kernels() -> None:
    kernel = cp.RawKernel(SCALE, "scale")
    scaled(pickle.loads(pickle.dumps(kernel)))
    module = pickle.loads(pickle.dumps(cp.RawModule(code=SCALE)))
    scaled(module.get_function("scale"))


def test_compile_errors() -> None:
    with pytest.raises(cp.cuda.compiler.CompileException, match="undefined"):
        cp.RawKernel('extern "C" __global__ void k() { missing(); }', "k").compile()
    module = cp.RawModule(code=SCALE)
    with pytest.raises(cp.cuda.driver.CUDADriverError, match="CUDA_ERROR_NOT_FOUND"):
        module.get_function("other")
    with pytest.raises(cp.cuda.driver.CUDADriverError, match="CUDA_ERROR_NOT_FOUND"):
        module.get_global("other")


@pytest.mark.parametrize(("grid", "block"), [((1,), (2048,)), ((1,), (1, 1, 65)),
                                             ((1, 1 << 17), (1,))])
def test_launch_errors(grid: tuple[int, ...], block: tuple[int, ...]) -> None:
    kernel = cp.RawKernel(SCALE, "scale")
    x = cp.zeros(4, "f4")
    with pytest.raises(cp.cuda.driver.CUDADriverError, match="CUDA_ERROR_INVALID_VALUE"):
        kernel(grid, block, (x, x, cp.float32(1), cp.int32(4)))
    scaled(kernel)  # nothing sticks


def test_wrong_arguments() -> None:
    kernel = cp.RawKernel(SCALE, "scale")
    with pytest.raises(TypeError):
        kernel((1,), (1,), ("text",))


def test_printf(capfd: pytest.CaptureFixture[str]) -> None:
    kernel = cp.RawKernel(r"""
    extern "C" __global__ void say(int n) { printf("%d of %d\n", threadIdx.x, n); }
    """, "say")
    kernel((1,), (3,), (cp.int32(7),))
    cp.cuda.Device().synchronize()
    assert capfd.readouterr().out == "0 of 7\n1 of 7\n2 of 7\n"


def test_unloaded_module() -> None:
    """A kernel outlives the module that it came from."""
    kernel = cp.RawModule(code=SCALE).get_function("scale")
    gc.collect()
    scaled(kernel)


# -- kernels in Python ----------------------------------------------------------------------------

EXPERIMENTAL = pytest.mark.filterwarnings("ignore:cupyx.jit.rawkernel is experimental")


def _turned(x: Any, y: Any, n: Any) -> None:
    i = jit.blockIdx.x * jit.blockDim.x + jit.threadIdx.x
    held = jit.shared_memory(cp.float32, 64)
    held[jit.threadIdx.x] = x[i]
    jit.syncthreads()
    if i < n:
        y[i] = held[63 - jit.threadIdx.x] + cp.float32(1)


@EXPERIMENTAL
def test_jit() -> None:
    turned = jit.rawkernel()(_turned)
    x = cp.arange(128, dtype="f4")
    y = cp.zeros(128, "f4")
    turned[2, 64](x, y, 128)
    np.testing.assert_array_equal(
        y.get(), np.arange(128, dtype="f4").reshape(2, 64)[:, ::-1].ravel() + 1)


def _counted(x: Any, counts: Any) -> None:
    jit.atomic_add(counts, x[jit.grid(1)], 1)


@EXPERIMENTAL
def test_jit_atomics() -> None:
    values = np.random.default_rng(6).integers(0, 5, 256)
    counts = cp.zeros(5, "i4")
    jit.rawkernel()(_counted)((4,), (64,), (cp.asarray(values), counts))
    np.testing.assert_array_equal(counts.get(), np.bincount(values, minlength=5))


def test_what_unloading_gives_back() -> None:
    """Variables of modules that nothing needs any more are freed, after the work that uses them."""
    free, _ = cp.cuda.Device().mem_info
    x = cp.zeros(4, "i8")
    for number in range(3):
        module = cp.RawModule(code=f"""
        extern "C" {{
        __device__ long long table[1024];
        __global__ void fill{number}(long long* x) {{ x[threadIdx.x] = table[0] + {number}; }}
        }}""")
        module.get_function(f"fill{number}")((1,), (4,), (x,))
        del module
        cp.clear_memo()
        gc.collect()
    cp.cuda.Device().synchronize()
    assert x.tolist() == [2] * 4
    assert cp.cuda.Device().mem_info[0] > free - 3 * 8192
