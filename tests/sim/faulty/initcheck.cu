// Memory that is read before anything was written to it.

// Gradients are added to a buffer that was allocated, but never zeroed.
extern "C" __global__ void gradient_not_zeroed(const float* dy, float* grad, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
#ifdef FIXED
    grad[i] = dy[i];
#else
    grad[i] += dy[i];  // FAULT(gradient_not_zeroed): initcheck: uninitialized read
#endif
}

// y = alpha A x + beta y: a beta of zero must not read y, which may hold anything, NaN too.
extern "C" __global__ void beta_of_zero(const float* a, const float* x, float* y, int cols, float alpha, float beta) {
    float sum = 0;
    for (int c = 0; c < cols; ++c) sum += a[threadIdx.x * cols + c] * x[c];
#ifdef FIXED
    y[threadIdx.x] = beta == 0 ? alpha * sum : alpha * sum + beta * y[threadIdx.x];
#else
    y[threadIdx.x] = alpha * sum + beta * y[threadIdx.x];  // FAULT(beta_of_zero): initcheck: uninitialized read
#endif
}

// A tile at the border is filled by the threads that have data, and read as a whole.
extern "C" __global__ void tile_partly_filled(const float* x, float* sums, int rows, int cols) {
    __shared__ float tile[16][16];
    int tx = threadIdx.x, ty = threadIdx.y, row = blockIdx.y * 16 + ty, col = blockIdx.x * 16 + tx;
#ifdef FIXED
    tile[ty][tx] = row < rows && col < cols ? x[row * cols + col] : 0;
#else
    if (row < rows && col < cols) tile[ty][tx] = x[row * cols + col];
#endif
    __syncthreads();
    if (tx) return;
    float sum = 0;
    for (int i = 0; i < 16; ++i) sum += tile[ty][i];  // FAULT(tile_partly_filled): initcheck: uninitialized read
    if (row < rows) atomicAdd(&sums[row], sum);
}

// Each thread loads its own value into a tile whose halo nobody loads.
extern "C" __global__ void halo_not_loaded(const float* x, float* y, int n) {
    __shared__ float tile[130];
    int t = threadIdx.x, i = blockIdx.x * 128 + t;
    tile[t + 1] = i < n ? x[i] : 0;
#ifdef FIXED
    if (t == 0) tile[0] = i > 0 ? x[i - 1] : 0;
    if (t == 127) tile[129] = i + 1 < n ? x[i + 1] : 0;
#endif
    __syncthreads();
    if (i < n) y[i] = tile[t] + tile[t + 1] + tile[t + 2];  // FAULT(halo_not_loaded): initcheck: uninitialized read
}

// A counter is counted up from whatever it was.
extern "C" __global__ void counter_not_zeroed(const int* x, int* count, int* copy) {
#ifdef FIXED
    if (threadIdx.x == 0) *count = 0;
    __syncthreads();
#endif
    if (x[threadIdx.x] > 0) atomicAdd(count, 1);  // FAULT(counter_not_zeroed): initcheck: uninitialized read
    __syncthreads();
    if (threadIdx.x == 0) *copy = atomicAdd(count, 0);  // FAULT(counter_not_zeroed): initcheck: uninitialized read
}

// Rows are padded to a multiple of 32; the copy leaves the padding as it was, the sum reads it.
extern "C" __global__ void pad_rows(const float* x, float* padded, int cols) {
    int c = threadIdx.x;
#ifdef FIXED
    padded[blockIdx.x * blockDim.x + c] = c < cols ? x[blockIdx.x * cols + c] : 0;
#else
    if (c < cols) padded[blockIdx.x * blockDim.x + c] = x[blockIdx.x * cols + c];
#endif
}

extern "C" __global__ void padding_not_filled(const float* padded, float* sums, int pitch) {
    float sum = 0;
    for (int c = threadIdx.x; c < pitch; c += 32) sum += padded[blockIdx.x * pitch + c];  // FAULT(padding_not_filled): initcheck: uninitialized read
    for (int d = 16; d; d /= 2) sum += __shfl_down_sync(0xffffffff, sum, d);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// Partial sums in a workspace: blocks without work leave their places as they were.
extern "C" __global__ void leave_partial_sums(const float* x, float* workspace, int n) {
    int first = blockIdx.x * 64;
#ifndef FIXED
    if (first >= n) return;
#endif
    float sum = 0;
    for (int i = first; i < min(first + 64, n); ++i) sum += x[i];
    workspace[blockIdx.x] = sum;
}

extern "C" __global__ void tail_of_the_workspace(const float* workspace, int blocks, float* y) {
    float sum = 0;
    for (int b = 0; b < blocks; ++b) sum += workspace[b];  // FAULT(tail_of_the_workspace): initcheck: uninitialized read
    *y = sum;
}

// As many bins are zeroed as there are threads, which are fewer than the bins.
extern "C" __global__ void bins_not_zeroed(const unsigned char* x, int n, unsigned* counts) {
    __shared__ unsigned bins[256];
#ifdef FIXED
    for (int b = threadIdx.x; b < 256; b += blockDim.x) bins[b] = 0;
#else
    bins[threadIdx.x] = 0;
#endif
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        atomicAdd(&bins[x[i]], 1u);  // FAULT(bins_not_zeroed): initcheck: uninitialized read
    __syncthreads();
    for (int b = threadIdx.x; b < 256; b += blockDim.x)
        counts[b] = bins[b];  // FAULT(bins_not_zeroed): initcheck: uninitialized read
}

// A tree over 256 places in a block of 192 threads.
extern "C" __global__ void tree_of_too_few(const float* x, float* y) {
    __shared__ float s[256];
    int t = threadIdx.x;
    s[t] = x[t];
#ifdef FIXED
    if (t < 256 - blockDim.x) s[blockDim.x + t] = 0;
#endif
    __syncthreads();
    for (int half = 128; half; half /= 2) {
        if (t < half) s[t] += s[t + half];  // FAULT(tree_of_too_few): initcheck: uninitialized read
        __syncthreads();
    }
    if (t == 0) *y = s[0];
}

// Points of three coordinates, stored in places of four and read as float4.
extern "C" __global__ void store_points(const float* x, float4* points) {
    int i = threadIdx.x;
    points[i].x = x[3 * i];
    points[i].y = x[3 * i + 1];
    points[i].z = x[3 * i + 2];
#ifdef FIXED
    points[i].w = 0;
#endif
}

extern "C" __global__ void fourth_coordinate(const float4* points, float* lengths) {
    float4 p = points[threadIdx.x];  // FAULT(fourth_coordinate): initcheck: uninitialized read
    lengths[threadIdx.x] = sqrtf(p.x * p.x + p.y * p.y + p.z * p.z + p.w * p.w);
}

// A mask of bytes in which only the hits were written.
extern "C" __global__ void mark_hits(const float* x, unsigned char* hit, float limit) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
#ifdef FIXED
    hit[i] = x[i] > limit;
#else
    if (x[i] > limit) hit[i] = 1;
#endif
}

extern "C" __global__ void misses_not_marked(const unsigned char* hit, float* x) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (hit[i]) x[i] = 0;  // FAULT(misses_not_marked): initcheck: uninitialized read
}

// The dot product of a row whose length is no multiple of the unrolled step.
extern "C" __global__ void dynamic_tail(const float* x, const float* w, float* y, int n) {
    extern __shared__ float row[];
    int t = threadIdx.x;
    for (int i = t; i < n; i += blockDim.x) row[i] = x[i];
#ifdef FIXED
    for (int i = n + t; i < (n + 3) / 4 * 4; i += blockDim.x) row[i] = 0;
#endif
    __syncthreads();
    float sum = 0;
    for (int i = 0; i < n; i += 4)
        for (int j = i; j < i + 4; ++j)
            sum += row[j] * w[t];  // FAULT(dynamic_tail): initcheck: uninitialized read
    y[t] = sum;
}

// Warps hand a sum on by flags, which the other warps may see before they are cleared.
extern "C" __global__ void flags_not_cleared(const float* x, float* y) {
    __shared__ volatile int ready[4];
    __shared__ float carry[4];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (threadIdx.x < 4) ready[threadIdx.x] = 0;
#ifdef FIXED
    __syncthreads();
#endif
    if (lane == 0) {
        float sum = 0;
        if (warp > 0) {
            while (!ready[warp - 1]) {  // FAULT(flags_not_cleared): initcheck: uninitialized read
            }
            __threadfence_block();
            sum = carry[warp - 1];
        }
        carry[warp] = sum + x[warp];
        __threadfence_block();
        ready[warp] = 1;
        y[warp] = carry[warp];
    }
}

// The last block adds up what the others have stored; nothing makes it visible before the ticket is.
extern "C" __global__ void stored_behind_the_ticket(const float* x, volatile float* partial, unsigned* ticket, float* sum) {
    if (threadIdx.x) return;
    partial[blockIdx.x] = 2 * x[blockIdx.x];
#ifdef FIXED
    __threadfence();
#endif
    if (atomicAdd(ticket, 1u) != gridDim.x - 1) return;
    float total = 0;
    for (int b = 0; b < gridDim.x; ++b)
        total += partial[b];  // FAULT(stored_behind_the_ticket): initcheck: uninitialized read
    *sum = total;
}
