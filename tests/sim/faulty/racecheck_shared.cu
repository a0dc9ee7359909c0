// Races of a block's threads in shared memory.
//
// A race is reported at the later access, and which one is later is up to the machine: both lines
// are marked, each with the kind that it is reported as.

// A tile is read before all of it is there.
extern "C" __global__ void no_barrier_after_load(const float* x, float* y) {
    __shared__ float tile[128];
    int t = threadIdx.x, first = blockIdx.x * 128;
    tile[t] = x[first + t];  // FAULT(no_barrier_after_load): racecheck: write after read
#ifdef FIXED
    __syncthreads();
#endif
    y[first + t] = tile[127 - t];  // FAULT(no_barrier_after_load): racecheck: read after write
}

// A matrix product loads its next tile while slow warps still read the last.
extern "C" __global__ void no_barrier_before_reuse(const float* a, const float* b, float* c, int n) {
    __shared__ float as[16][16], bs[16][16];
    int tx = threadIdx.x, ty = threadIdx.y, row = blockIdx.y * 16 + ty, col = blockIdx.x * 16 + tx;
    float sum = 0;
    for (int k = 0; k < n; k += 16) {
        as[ty][tx] = a[row * n + k + tx];  // FAULT(no_barrier_before_reuse): racecheck: write after read
        bs[ty][tx] = b[(k + ty) * n + col];  // FAULT(no_barrier_before_reuse): racecheck: write after read
        __syncthreads();
        for (int i = 0; i < 16; ++i)
            sum += as[ty][i] * bs[i][tx];  // FAULT(no_barrier_before_reuse): racecheck: read after write
#ifdef FIXED
        __syncthreads();
#endif
    }
    c[row * n + col] = sum;
}

// A tree of sums whose steps are not kept apart.
extern "C" __global__ void reduction_without_barriers(const float* x, float* sums) {
    __shared__ float s[256];
    int t = threadIdx.x;
    s[t] = x[blockIdx.x * 256 + t];
    __syncthreads();
    for (int half = 128; half; half /= 2) {
        if (t < half)
            s[t] += s[t + half];  // FAULT(reduction_without_barriers): racecheck: read after write, write after read
#ifdef FIXED
        __syncthreads();
#endif
    }
    if (t == 0) sums[blockIdx.x] = s[0];
}

// An inclusive scan in place: a neighbour's value may be that of this step already.
extern "C" __global__ void scan_in_place(const int* x, int* y) {
    __shared__ int s[128];
    int t = threadIdx.x;
    s[t] = x[t];
    __syncthreads();
    for (int d = 1; d < 128; d *= 2) {
#ifdef FIXED
        int left = t >= d ? s[t - d] : 0;
        __syncthreads();
        s[t] += left;
#else
        if (t >= d)
            s[t] += s[t - d];  // FAULT(scan_in_place): racecheck: read after write, write after read
#endif
        __syncthreads();
    }
    y[t] = s[t];
}

// Bins that are counted up without atomics.
extern "C" __global__ void shared_histogram(const unsigned char* x, int n, unsigned* counts) {
    __shared__ unsigned bins[64];
    int t = threadIdx.x;
    if (t < 64) bins[t] = 0;
    __syncthreads();
    for (int i = t; i < n; i += blockDim.x)
#ifdef FIXED
        atomicAdd(&bins[x[i] % 64], 1u);
#else
        bins[x[i] % 64] += 1;  // FAULT(shared_histogram): racecheck: read after write, write after read, write after write
#endif
    __syncthreads();
    if (t < 64) counts[t] = bins[t];
}

// Survivors of a filter get their places from a counter that is no atomic.
extern "C" __global__ void compaction_counter(const int* x, int* y, int* kept) {
    __shared__ int count;
    int t = threadIdx.x;
    if (t == 0) count = 0;
    __syncthreads();
    if (x[t] > 0)
#ifdef FIXED
        y[atomicAdd(&count, 1)] = x[t];
#else
        y[count++] = x[t];  // FAULT(compaction_counter): racecheck: read after write, write after read, write after write
#endif
    __syncthreads();
    if (t == 0) *kept = count;
}

// The maximum of one row is overwritten while others of the block still need it.
extern "C" __global__ void broadcast_overwritten(const float* x, float* y, int rows) {
    __shared__ float most;
    int t = threadIdx.x;
    for (int row = 0; row < rows; ++row) {
        if (t == 0) {
            float m = x[row * 64];
            for (int i = 1; i < 64; ++i) m = fmaxf(m, x[row * 64 + i]);
            most = m;  // FAULT(broadcast_overwritten): racecheck: write after read
        }
        __syncthreads();
        y[row * 64 + t] = x[row * 64 + t] - most;  // FAULT(broadcast_overwritten): racecheck: read after write
#ifdef FIXED
        __syncthreads();
#endif
    }
}

// Two buffers take turns, but the next tile goes into the one that is being read.
extern "C" __global__ void double_buffer_index(const float* x, float* y, int steps) {
    __shared__ float buffer[2][128];
    int t = threadIdx.x;
    float sum = 0;
    buffer[0][t] = x[t];
    for (int s = 0; s < steps; ++s) {
        __syncthreads();
#ifdef FIXED
        int next = (s + 1) % 2;
#else
        int next = s % 2;
#endif
        if (s + 1 < steps)
            buffer[next][t] = x[(s + 1) * 128 + t];  // FAULT(double_buffer_index): racecheck: write after read
        sum += buffer[s % 2][127 - t];  // FAULT(double_buffer_index): racecheck: read after write; initcheck: uninitialized read
    }
    y[t] = sum;
}

// Every warp leaves its sum, and one thread adds them up at once.
extern "C" __global__ void warp_sums_too_early(const float* x, float* sums) {
    __shared__ float partial[8];
    int t = threadIdx.x;
    float sum = x[blockIdx.x * 256 + t];
    for (int d = 16; d; d /= 2) sum += __shfl_down_sync(0xffffffff, sum, d);
    if (t % 32 == 0) partial[t / 32] = sum;  // FAULT(warp_sums_too_early): racecheck: write after read
#ifdef FIXED
    __syncthreads();
#endif
    if (t == 0) {
        float total = 0;
        for (int w = 0; w < 8; ++w) total += partial[w];  // FAULT(warp_sums_too_early): racecheck: read after write; initcheck: uninitialized read
        sums[blockIdx.x] = total;
    }
}

// A block-wide sum is right alone; called twice, its scratch memory is used again too soon.
__device__ float block_sum(float value) {
    __shared__ float partial[4];
    for (int d = 16; d; d /= 2) value += __shfl_down_sync(0xffffffff, value, d);
#ifdef FIXED
    __syncthreads();
#endif
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;  // FAULT(scratch_used_twice): racecheck: write after read
    __syncthreads();
    return partial[0] + partial[1] + partial[2] + partial[3];  // FAULT(scratch_used_twice): racecheck: read after write
}

extern "C" __global__ void scratch_used_twice(const float* x, float* y) {
    int at = blockIdx.x * 128 + threadIdx.x;
    float mean = block_sum(x[at]) / 128;
    float variance = block_sum((x[at] - mean) * (x[at] - mean)) / 128;
    y[at] = (x[at] - mean) * rsqrtf(variance + 1e-5f);
}

// Two arrays share the dynamic memory, the second a row too near to the first.
extern "C" __global__ void overlapping_arrays(const float* x, const float* w, float* y) {
    extern __shared__ float memory[];
    float* a = memory;
#ifdef FIXED
    float* b = memory + 128;
#else
    float* b = memory + 96;
#endif
    int t = threadIdx.x;
    a[t] = x[t];  // FAULT(overlapping_arrays): racecheck: write after write
    b[t] = w[t];  // FAULT(overlapping_arrays): racecheck: write after write
    __syncthreads();
    float sum = 0;
    for (int i = 0; i < 128; ++i) sum += a[i] * b[(i + t) % 128];
    y[t] = sum;
}

// Steps of a diffusion in place: neighbours are read while they are being replaced.
extern "C" __global__ void stencil_in_place(const float* x, float* y, int steps) {
    __shared__ float u[130];
    int t = threadIdx.x;
    u[t + 1] = x[t];
    if (t < 2) u[129 * t] = 0;
    __syncthreads();
    for (int s = 0; s < steps; ++s) {
        float mean = 0.25f * u[t] + 0.5f * u[t + 1] + 0.25f * u[t + 2];  // FAULT(stencil_in_place): racecheck: read after write
#ifdef FIXED
        __syncthreads();
#endif
        u[t + 1] = mean;  // FAULT(stencil_in_place): racecheck: write after read
        __syncthreads();
    }
    y[t] = u[t + 1];
}

// Work is drawn by one thread for its block; the others may still look at the last ticket.
extern "C" __global__ void ticket_of_the_block(int* next, float* x, int rows) {
    __shared__ int row;
    while (true) {
#ifdef FIXED
        __syncthreads();
#endif
        if (threadIdx.x == 0) row = atomicAdd(next, 1);  // FAULT(ticket_of_the_block): racecheck: write after read
        __syncthreads();
        if (row >= rows) return;  // FAULT(ticket_of_the_block): racecheck: read after write
        x[row * 64 + threadIdx.x] += row;
    }
}
