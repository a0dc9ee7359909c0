// Addresses that are misaligned, null, stale or read-only.
#include <cuda_fp16.h>

// Rows of odd length cannot be read as float4.
extern "C" __global__ void misaligned_float4(const float* x, float* sums, int cols) {
    const float* row = x + blockIdx.x * cols;
    float sum = 0;
#ifdef FIXED
    for (int c = threadIdx.x; c < cols; c += blockDim.x) sum += row[c];
#else
    for (int c = 4 * threadIdx.x; c + 3 < cols; c += 4 * blockDim.x) {
        float4 v = *(const float4*)(row + c);  // FAULT(misaligned_float4): memcheck: misaligned
        sum += v.x + v.y + v.z + v.w;
    }
    for (int c = cols / 4 * 4 + threadIdx.x; c < cols; c += blockDim.x) sum += row[c];
#endif
    atomicAdd(&sums[blockIdx.x], sum);
}

// Pairs of halves behind a first element that stands alone.
extern "C" __global__ void misaligned_half2(const half* x, half* y, int n) {
    int i = 2 * (blockIdx.x * blockDim.x + threadIdx.x) + 1;
    if (i + 1 >= n) return;
#ifdef FIXED
    half2 pair = __halves2half2(x[i], x[i + 1]);
#else
    half2 pair = *(const half2*)(x + i);  // FAULT(misaligned_half2): memcheck: misaligned
#endif
    y[i - 1] = __hadd(__low2half(pair), __high2half(pair));
    y[i] = __hsub(__low2half(pair), __high2half(pair));
}

// A 64-bit counter behind a 32-bit one in packed records of twelve bytes.
extern "C" __global__ void misaligned_atomic(char* records, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
#ifdef FIXED
    char* record = records + 16 * (i % 4);
    atomicAdd((unsigned long long*)(record + 8), 1ull);
#else
    char* record = records + 12 * (i % 4);
    atomicAdd((unsigned long long*)(record + 4), 1ull);  // FAULT(misaligned_atomic): memcheck: misaligned
#endif
}

// The bias is optional, and not given.
extern "C" __global__ void missing_bias(const float* x, const float* bias, float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
#ifdef FIXED
    y[i] = x[i] + (bias ? bias[i] : 0);
#else
    y[i] = x[i] + bias[i];  // FAULT(missing_bias): memcheck: null pointer
#endif
}

// A buffer was replaced by a larger one; the kernel still reads the old.
extern "C" __global__ void buffer_was_freed(const float* old, const float* grown, float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
#ifdef FIXED
    y[i] = grown[i] + 1;
#else
    y[i] = old[i] + 1;  // FAULT(buffer_was_freed): memcheck: use after free
#endif
}

// Greatest values of many tensors behind one table: an empty tensor has no first element.
extern "C" __global__ void empty_tensor_in_table(const float* const* table, const int* sizes, float* greatest) {
    const float* x = table[blockIdx.x];
    int n = sizes[blockIdx.x];
    if (threadIdx.x) return;
#ifdef FIXED
    float most = n ? x[0] : -1;
#else
    float most = x[0];  // FAULT(empty_tensor_in_table): memcheck: null pointer
#endif
    for (int i = 1; i < n; ++i) most = fmaxf(most, x[i]);
    greatest[blockIdx.x] = most;
}

// The table of a batched product is made on the device, its stride counted twice in bytes.
extern "C" __global__ void make_table(float** table, float* base, int stride) {
#ifdef FIXED
    table[threadIdx.x] = base + threadIdx.x * stride;
#else
    table[threadIdx.x] = base + threadIdx.x * stride * sizeof(float);
#endif
}

extern "C" __global__ void stride_of_table(float* const* table, float factor) {
    table[blockIdx.x][threadIdx.x] *= factor;  // FAULT(stride_of_table): memcheck: out of bounds
}

// Optimizer state behind a struct of pointers: the second moment's pointer is where the step is.
struct State {
    float* weight;
#ifdef FIXED
    float* moment;
    unsigned long long step;
#else
    unsigned long long step;
    float* moment;
#endif
};

extern "C" __global__ void layout_of_struct(State s, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) s.weight[i] -= s.moment[i] / (1 + s.step % 2);  // FAULT(layout_of_struct): memcheck: null pointer, out of bounds
}

// All parameters are scaled through one table; some of them lie in constant memory.
__device__ float weights[8];
#ifdef FIXED
__device__ float taps[8];
#else
__constant__ float taps[8];
#endif
__device__ float* parameters[2] = {weights, taps};

extern "C" __global__ void write_to_constant(float factor) {
    parameters[blockIdx.x][threadIdx.x] *= factor;  // FAULT(write_to_constant): memcheck: read-only write
}

// A table in constant memory is shorter than the index may be.
__constant__ float scales[16];
extern "C" __global__ void past_the_constants(const int* group, float* y, int n) {
    int i = threadIdx.x;
    if (i >= n) return;
#ifdef FIXED
    y[i] = group[i] < 16 ? scales[group[i]] : 1;
#else
    y[i] = scales[group[i]];  // FAULT(past_the_constants): memcheck: out of bounds
#endif
}

// A variable of the module is overrun.
__device__ int recent[64];
extern "C" __global__ void past_a_module_variable(int first) {
#ifdef FIXED
    recent[(first + threadIdx.x) % 64] = threadIdx.x;
#else
    recent[first + threadIdx.x] = threadIdx.x;  // FAULT(past_a_module_variable): memcheck: out of bounds
#endif
}
