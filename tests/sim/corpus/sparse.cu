// Sparse products, particles, graphs: work whose shape depends on the data.

// y = A x, CSR, a thread per row: lanes of a warp run loops of different lengths.
extern "C" __global__ void spmv_scalar(float* y, const int* starts, const int* columns,
                                       const float* values, const float* x, int rows) {
    int row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row < rows) {
        float sum = 0.f;
        for (int k = starts[row]; k < starts[row + 1]; ++k) sum += values[k] * __ldg(x + columns[k]);
        y[row] = sum;
    }
}

// A warp per row, lanes over its entries.
extern "C" __global__ void spmv_vector(double* y, const int* starts, const int* columns,
                                       const double* values, const double* x, int rows) {
    int row = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    double sum = 0.0;
    for (int k = starts[row] + lane; k < starts[row + 1]; k += 32) sum += values[k] * x[columns[k]];
    for (int step = 16; step > 0; step >>= 1) sum += __shfl_down_sync(0xffffffffu, sum, step);
    if (lane == 0) y[row] = sum;
}

// COO with sorted rows: each lane an entry, runs of a row added by a segmented shuffle scan, the
// last lane of each run adds it to the result.
extern "C" __global__ void spmv_coo(float* y, const int* rows, const int* columns,
                                    const float* values, const float* x, int entries) {
    int i = blockIdx.x * blockDim.x + threadIdx.x, lane = threadIdx.x & 31;
    int row = i < entries ? rows[i] : -1;
    float v = i < entries ? values[i] * x[columns[i]] : 0.f;
    for (int step = 1; step < 32; step <<= 1) {
        float left = __shfl_up_sync(0xffffffffu, v, step);
        int left_row = __shfl_up_sync(0xffffffffu, row, step);
        if (lane >= step && left_row == row) v += left;
    }
    int next = __shfl_down_sync(0xffffffffu, row, 1);
    if (row >= 0 && (lane == 31 || next != row)) atomicAdd(y + row, v);
}

// A sparse matrix times a dense one: a block per row, a thread per column of the result.
extern "C" __global__ void spmm(float* y, const int* starts, const int* columns, const float* values,
                                const float* x, int width) {
    __shared__ int column[32];
    __shared__ float value[32];
    int begin = starts[blockIdx.x], end = starts[blockIdx.x + 1];
    float sum = 0.f;
    for (int k = begin; k < end; k += 32) {
        int here = min(32, end - k);
        __syncthreads();
        if (threadIdx.x < here) {
            column[threadIdx.x] = columns[k + threadIdx.x];
            value[threadIdx.x] = values[k + threadIdx.x];
        }
        __syncthreads();
        if (threadIdx.x < width)
            for (int j = 0; j < here; ++j) sum += value[j] * x[column[j] * width + threadIdx.x];
    }
    if (threadIdx.x < width) y[blockIdx.x * width + threadIdx.x] = sum;
}

// Accelerations of n bodies, tiles of positions through shared memory.
extern "C" __global__ void n_body(float4* acceleration, const float4* bodies, int n, float soften) {
    __shared__ float4 tile[32];
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    float4 me = i < n ? bodies[i] : make_float4(0.f, 0.f, 0.f, 0.f);
    float3 a = make_float3(0.f, 0.f, 0.f);
    for (int start = 0; start < n; start += 32) {
        int j = start + threadIdx.x;
        tile[threadIdx.x] = j < n ? bodies[j] : make_float4(0.f, 0.f, 0.f, 0.f);
        __syncthreads();
#pragma unroll 4
        for (int k = 0; k < 32; ++k) {
            float4 b = tile[k];  // every lane the same address: a broadcast
            float dx = b.x - me.x, dy = b.y - me.y, dz = b.z - me.z;
            float square = dx * dx + dy * dy + dz * dz + soften;
            float inverse = rsqrtf(square);
            float s = b.w * inverse * inverse * inverse;
            a.x += dx * s, a.y += dy * s, a.z += dz * s;
        }
        __syncthreads();
    }
    if (i < n) acceleration[i] = make_float4(a.x, a.y, a.z, 0.f);
}

// Breadth-first search: one level; a vertex is claimed by compare-and-swap, the next frontier is a
// queue that an atomic counter fills.
extern "C" __global__ void bfs_level(int* distance, int* next, int* next_size, const int* frontier,
                                     int size, const int* starts, const int* edges, int level) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < size) {
        int from = frontier[i];
        for (int e = starts[from]; e < starts[from + 1]; ++e) {
            int to = edges[e];
            if (atomicCAS(distance + to, -1, level) == -1) next[atomicAdd(next_size, 1)] = to;
        }
    }
}

// Lists linked by exchanging their heads (a hash table with chains).
extern "C" __global__ void hash_insert(int* heads, int* links, const unsigned* keys, int n, int buckets) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        unsigned h = keys[i] * 2654435761u;
        links[i] = atomicExch(heads + (h >> 16) % buckets, i);
    }
}

// Open addressing: linear probing with 64-bit compare-and-swap of key and value together.
extern "C" __global__ void hash_count(unsigned long long* slots, const unsigned* keys, int n,
                                      unsigned capacity) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        unsigned long long key = keys[i];
        unsigned at = (unsigned)key * 0x9E3779B1u % capacity;
        while (true) {
            unsigned long long seen = atomicCAS(slots + at, 0ull, key << 32 | 1);
            if (seen == 0) break;
            if (seen >> 32 == key) {
                atomicAdd(slots + at, 1ull);
                break;
            }
            at = (at + 1) % capacity;
        }
    }
}
