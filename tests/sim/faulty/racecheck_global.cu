// Races in global memory: within a block, between blocks, between phases.

// Every block adds up a slice of each column and stores its part as the whole.
extern "C" __global__ void two_blocks_one_output(const float* x, float* sums, int rows, int cols) {
    float sum = 0;
    int col = threadIdx.x, share = rows / gridDim.x;
    for (int row = blockIdx.x * share; row < (blockIdx.x + 1) * share; ++row) sum += x[row * cols + col];
#ifdef FIXED
    atomicAdd(&sums[col], sum);
#else
    sums[col] = sum;  // FAULT(two_blocks_one_output): racecheck: write after write
#endif
}

// A total over all blocks, read, changed and written back.
extern "C" __global__ void total_without_atomics(const int* x, int* total) {
    int sum = __syncthreads_count(x[blockIdx.x * blockDim.x + threadIdx.x] > 0);
    if (threadIdx.x == 0)
#ifdef FIXED
        atomicAdd(total, sum);
#else
        *total += sum;  // FAULT(total_without_atomics): racecheck: read after write, write after read, write after write
#endif
}

// Bins in global memory, counted up without atomics.
extern "C" __global__ void global_histogram(const unsigned char* x, int n, unsigned* bins) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
#ifdef FIXED
        atomicAdd(&bins[x[i]], 1u);
#else
        bins[x[i]]++;  // FAULT(global_histogram): racecheck: read after write, write after read, write after write
#endif
}

// Gradients of an embedding: a token that occurs twice gets one of its two updates.
extern "C" __global__ void embedding_gradient(const int* ids, const float* dy, float* table, int dim) {
    int at = ids[blockIdx.x] * dim + threadIdx.x;
#ifdef FIXED
    atomicAdd(&table[at], dy[blockIdx.x * dim + threadIdx.x]);
#else
    table[at] += dy[blockIdx.x * dim + threadIdx.x];  // FAULT(embedding_gradient): racecheck: read after write, write after read, write after write
#endif
}

// A stencil that writes where its neighbours still read.
extern "C" __global__ void smooth_in_place(const float* x, float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i == 0 || i >= n - 1) return;
#ifdef FIXED
    y[i] = (x[i - 1] + x[i] + x[i + 1]) / 3;
#else
    float mean = (y[i - 1] + y[i] + y[i + 1]) / 3;  // FAULT(smooth_in_place): racecheck: read after write
    y[i] = mean;  // FAULT(smooth_in_place): racecheck: write after read
#endif
}

// A square matrix is transposed in place, each element moved on its own.
extern "C" __global__ void transpose_in_place(float* a, int n) {
    int col = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y;
#ifdef FIXED
    if (col <= row) return;
    float upper = a[row * n + col];
    a[row * n + col] = a[col * n + row];
    a[col * n + row] = upper;
#else
    float value = a[col * n + row];  // FAULT(transpose_in_place): racecheck: read after write
    a[row * n + col] = value;  // FAULT(transpose_in_place): racecheck: write after read
#endif
}

// Two phases in one kernel: the second reads what other blocks wrote in the first.
extern "C" __global__ void no_grid_barrier(const float* x, float* squares, float* y, unsigned* arrived) {
    int n = gridDim.x * blockDim.x, i = blockIdx.x * blockDim.x + threadIdx.x;
    squares[i] = x[i] * x[i];  // FAULT(no_grid_barrier): racecheck: write after read
    __syncthreads();
#ifdef FIXED
    if (threadIdx.x == 0) {
        __threadfence();
        atomicAdd(arrived, 1u);
        while (atomicAdd(arrived, 0u) < gridDim.x) {}
        __threadfence();
    }
    __syncthreads();
#endif
    y[i] = squares[(i + blockDim.x) % n] - squares[i];  // FAULT(no_grid_barrier): racecheck: read after write; initcheck: uninitialized read
}

// The best value so far is looked at before the atomic, to save it: a plain read beside atomics.
extern "C" __global__ void plain_read_beside_atomic(const int* x, int* best) {
    int value = x[blockIdx.x * blockDim.x + threadIdx.x];
#ifdef FIXED
    int seen = *(volatile int*)best;
#else
    int seen = *best;  // FAULT(plain_read_beside_atomic): racecheck: read after write
#endif
    if (value > seen)
        atomicMax(best, value);  // FAULT(plain_read_beside_atomic): racecheck: write after read
}

// The counter is set to zero by one block while others may count already.
extern "C" __global__ void counter_reset(const int* x, int* count) {
#ifndef FIXED
    if (blockIdx.x == 0 && threadIdx.x == 0)
        *count = 0;  // FAULT(counter_reset): racecheck: write after read, write after write
    __syncthreads();
#endif
    if (x[blockIdx.x * blockDim.x + threadIdx.x] > 0)
        atomicAdd(count, 1);  // FAULT(counter_reset): racecheck: read after write, write after write
}
