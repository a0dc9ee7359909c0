// Overruns of shared and local memory.

// Each thread leaves its value for its right neighbour; the last has none.
extern "C" __global__ void shared_one_past(const float* x, float* y) {
    __shared__ float row[128];
    int t = threadIdx.x;
    if (t == 0) row[0] = 0;
#ifdef FIXED
    if (t < 127)
#endif
    row[t + 1] = x[t];  // FAULT(shared_one_past): memcheck: out of bounds
    __syncthreads();
    y[t] = row[t] + x[t];
}

// The launch gives one slot for each warp; the kernel uses one for each thread.
extern "C" __global__ void dynamic_too_small(const float* x, float* y) {
    extern __shared__ float partial[];
    int t = threadIdx.x;
    float sum = x[blockIdx.x * blockDim.x + t];
#ifdef FIXED
    for (int d = 16; d; d /= 2) sum += __shfl_down_sync(0xffffffff, sum, d);
    if (t % 32 == 0) partial[t / 32] = sum;
    int slots = blockDim.x / 32;
#else
    partial[t] = sum;  // FAULT(dynamic_too_small): memcheck: out of bounds
    int slots = blockDim.x;
#endif
    __syncthreads();
    if (t) return;
    for (int s = 1; s < slots; ++s) sum += partial[s];  // FAULT(dynamic_too_small): memcheck: out of bounds
    y[blockIdx.x] = sum;
}

// Bytes are counted in half as many bins as there are bytes.
extern "C" __global__ void histogram_of_bytes(const unsigned char* x, int n, unsigned* counts) {
#ifdef FIXED
    const int count = 256;
#else
    const int count = 128;
#endif
    __shared__ unsigned bins[count];
    for (int b = threadIdx.x; b < count; b += blockDim.x) bins[b] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        atomicAdd(&bins[x[i]], 1u);  // FAULT(histogram_of_bytes): memcheck: out of bounds
    __syncthreads();
    for (int b = threadIdx.x; b < count; b += blockDim.x) counts[b] = bins[b];
}

// A tile with a halo of one on both sides, allocated for one side.
extern "C" __global__ void tile_without_room(const float* x, float* y) {
#ifdef FIXED
    __shared__ float tile[18][18];
#else
    __shared__ float tile[17][18];
#endif
    int tx = threadIdx.x, ty = threadIdx.y;
    tile[ty][tx] = x[ty * 18 + tx];  // FAULT(tile_without_room): memcheck: out of bounds
    __syncthreads();
    if (tx >= 16 || ty >= 16) return;
    y[ty * 16 + tx] = tile[ty][tx + 1] + tile[ty + 2][tx + 1] + tile[ty + 1][tx] + tile[ty + 1][tx + 2];  // FAULT(tile_without_room): memcheck: out of bounds
}

// Nodes of a tree wait on a stack that is deep enough for a balanced tree only.
extern "C" __global__ void stack_overrun(const int2* children, const int* value, int* sums) {
#ifdef FIXED
    int stack[64];
#else
    int stack[8];
#endif
    int top = 0, sum = 0;
    stack[top++] = threadIdx.x;
    while (top) {
        int node = stack[--top];  // FAULT(stack_overrun): memcheck: out of bounds
        sum += value[node];
        int2 child = children[node];
        if (child.x >= 0) stack[top++] = child.x;  // FAULT(stack_overrun): memcheck: out of bounds
        if (child.y >= 0) stack[top++] = child.y;  // FAULT(stack_overrun): memcheck: out of bounds
    }
    sums[threadIdx.x] = sum;
}

// The smallest values so far, kept in order: the insertion shifts one too many.
extern "C" __global__ void top_k_overrun(const float* x, int n, float* best, int k) {
    float kept[4] = {1e30f, 1e30f, 1e30f, 1e30f};
    for (int i = 0; i < n; ++i) {
        float value = x[threadIdx.x * n + i];
        int at = 0;
        while (at < k && kept[at] <= value) ++at;
        if (at == k) continue;
#ifdef FIXED
        for (int j = k - 1; j > at; --j) kept[j] = kept[j - 1];
#else
        for (int j = k; j > at; --j) kept[j] = kept[j - 1];  // FAULT(top_k_overrun): memcheck: out of bounds
#endif
        kept[at] = value;
    }
    for (int j = 0; j < k; ++j) best[threadIdx.x * k + j] = kept[j];
}

// Doubles behind an odd number of floats in dynamic shared memory.
extern "C" __global__ void shared_double_misaligned(const float* x, double* sums, int n) {
    extern __shared__ float scratch[];
#ifdef FIXED
    double* wide = (double*)(scratch + (n + 1) / 2 * 2);
#else
    double* wide = (double*)(scratch + n);
#endif
    if (threadIdx.x < n) scratch[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    wide[threadIdx.x] = (double)scratch[threadIdx.x % n] + 1;  // FAULT(shared_double_misaligned): memcheck: misaligned
    sums[threadIdx.x] = wide[threadIdx.x];  // FAULT(shared_double_misaligned): memcheck: misaligned
}
