// Rows by index: gather, scatter-add with atomics of every width, bags, segments.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

// A warp per token copies a row as float4; an index out of range or the padding gives zeros.
extern "C" __global__ void gather_rows(float4* out, const float4* table, const long long* indices,
                                       int tokens, int vocabulary, int quads) {
    int token = blockIdx.x * blockDim.y + threadIdx.y;
    if (token >= tokens) return;
    long long index = indices[token];
    bool valid = index >= 0 && index < vocabulary;
    for (int i = threadIdx.x; i < quads; i += 32)
        out[token * quads + i] = valid ? __ldg(table + index * quads + i)
                                       : make_float4(0.f, 0.f, 0.f, 0.f);
}

// The gradient of the table: rows meet by float atomics whose results nobody needs.
extern "C" __global__ void scatter_add(float* grad, const float* dy, const int* indices, int tokens,
                                       int width) {
    int total = tokens * width;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < total; i += gridDim.x * blockDim.x)
        atomicAdd(grad + indices[i / width] * width + i % width, dy[i]);
}

// The same in halves, two at a time.
extern "C" __global__ void scatter_add_half2(__half2* grad, const __half2* dy, const int* indices,
                                             int tokens, int pairs) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < tokens * pairs) atomicAdd(grad + indices[i / pairs] * pairs + i % pairs, dy[i]);
}

extern "C" __global__ void scatter_add_half(__half* grad, const __half* dy, const int* indices, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) atomicAdd(grad + indices[i], dy[i]);
}

// In bfloat16, one and two at a time (an instruction since sm_90, compare-and-swap before).
extern "C" __global__ void scatter_add_bfloat(__nv_bfloat16* grad, const __nv_bfloat16* dy,
                                              const int* indices, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) atomicAdd(grad + indices[i], dy[i]);
}

extern "C" __global__ void scatter_add_bfloat2(__nv_bfloat162* grad, const __nv_bfloat162* dy,
                                               const int* indices, int tokens, int pairs) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < tokens * pairs) atomicAdd(grad + indices[i / pairs] * pairs + i % pairs, dy[i]);
}

// In double precision, and the old value is used: each adder learns what was there before it.
extern "C" __global__ void accumulate_double(double* sums, double* before, const double* x,
                                             const int* indices, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) before[i] = atomicAdd(sums + indices[i], x[i]);
}

// Four floats in one atomic.
extern "C" __global__ void scatter_add_float4(float4* grad, const float4* dy, const int* indices,
                                              int tokens, int quads) {
#if __CUDA_ARCH__ >= 900
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < tokens * quads) atomicAdd(grad + indices[i / quads] * quads + i % quads, dy[i]);
#endif
}

// Bags: the mean of the rows between two offsets; a block per bag, a thread per column.
extern "C" __global__ void bag_mean(float* out, const float* table, const int* indices,
                                    const int* offsets, int width) {
    int first = offsets[blockIdx.x], end = offsets[blockIdx.x + 1];
    for (int c = threadIdx.x; c < width; c += blockDim.x) {
        float sum = 0.f;
        for (int k = first; k < end; ++k) sum += table[indices[k] * width + c];
        out[blockIdx.x * width + c] = end > first ? sum / (end - first) : 0.f;
    }
}

// Without atomics: tokens sorted by index, a warp per run of equal indices adds its rows in order.
extern "C" __global__ void scatter_add_sorted(float* grad, const float* dy, const int* sorted,
                                              const int* order, int tokens, int width) {
    int warp = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
    if (warp >= tokens) return;
    int index = sorted[warp];
    if (warp > 0 && sorted[warp - 1] == index) return;  // not the head of its run
    for (int c = lane; c < width; c += 32) {
        float sum = grad[index * width + c];
        for (int k = warp; k < tokens && sorted[k] == index; ++k) sum += dy[order[k] * width + c];
        grad[index * width + c] = sum;
    }
}

// out[i][j] = x[index[i][j]][j]: an index per element, negative ones counted from the end.
extern "C" __global__ void gather_axis0(short* out, const short* x, const signed char* index,
                                        int rows, int columns, int length) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < rows * columns) {
        int at = index[i];
        if (at < 0) at += length;
        out[i] = x[at * columns + i % columns];
    }
}
