// Blocks of one launch that work together: barriers of the grid, flags with acquire and release,
// queues, locks and rings.  Where blocks wait for others, all of them must be resident.

__device__ unsigned load_acquire(const unsigned* p) {
    unsigned v;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
    return v;
}

__device__ void store_release(unsigned* p, unsigned v) {
    asm volatile("st.release.gpu.global.u32 [%0], %1;" :: "l"(p), "r"(v) : "memory");
}

// A barrier of all blocks: a count that only grows, so that it needs no reset between phases.
__device__ void grid_barrier(unsigned* count, unsigned phase) {
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        atomicAdd(count, 1);
        while (load_acquire(count) < (phase + 1) * gridDim.x) {
        }
    }
    __syncthreads();
}

// Heat on a ring of points, several steps a launch, each reading what other blocks have written.
extern "C" __global__ void diffuse(float* a, float* b, unsigned* count, int n, int steps) {
    for (int s = 0; s < steps; s++) {
        const float* from = s % 2 ? b : a;
        float* to = s % 2 ? a : b;
        for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
            to[i] = 0.5f * from[i] + 0.25f * (from[(i + n - 1) % n] + from[(i + 1) % n]);
        grid_barrier(count, s);
    }
}

// Breadth-first search: in each level, blocks take the frontier's nodes and append those they reach
// first to the next one.
extern "C" __global__ void search(const int* offsets, const int* edges, int* level, int* queues,
                                  unsigned* sizes, unsigned* count, int n) {
    unsigned phase = 0;
    for (int depth = 0;; depth++) {
        const int* now = queues + depth % 2 * n;
        int* next = queues + (depth + 1) % 2 * n;
        unsigned size = load_acquire(&sizes[depth]);
        if (size == 0) break;  // the same for all: it was final before the last barrier
        for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < size;
             i += gridDim.x * blockDim.x) {
            int node = now[i];
            for (int e = offsets[node]; e < offsets[node + 1]; e++)
                if (atomicCAS(&level[edges[e]], -1, depth + 1) == -1)
                    next[atomicAdd(&sizes[depth + 1], 1)] = edges[e];
        }
        grid_barrier(count, phase++);
    }
}

// Even blocks make vectors, odd blocks use them, each as soon as its neighbour's flag is up.
extern "C" __global__ void pairs(const float* x, float* between, float* y, unsigned* flags) {
    int t = threadIdx.x, pair = blockIdx.x / 2, i = pair * blockDim.x + t;
    if (blockIdx.x % 2 == 0) {
        between[i] = x[i] * x[i];
        __syncthreads();
        if (t == 0) store_release(&flags[pair], 1);
    } else {
        if (t == 0)
            while (load_acquire(&flags[pair]) == 0) {
            }
        __syncthreads();
        y[i] = between[pair * blockDim.x + (t + 1) % blockDim.x] + 1.0f;
    }
}

// The same with the older means: a volatile flag between two fences.
extern "C" __global__ void pairs_volatile(const float* x, float* between, float* y,
                                          volatile unsigned* flags) {
    int t = threadIdx.x, pair = blockIdx.x / 2, i = pair * blockDim.x + t;
    if (blockIdx.x % 2 == 0) {
        between[i] = x[i] * x[i];
        __syncthreads();
        if (t == 0) {
            __threadfence();
            flags[pair] = 1;
        }
    } else {
        if (t == 0) {
            while (flags[pair] == 0) {
            }
            __threadfence();
        }
        __syncthreads();
        y[i] = between[pair * blockDim.x + (t + 1) % blockDim.x] + 1.0f;
    }
}

// The same with relaxed accesses between fences, thread by thread: no barrier is needed.
extern "C" __global__ void pairs_relaxed(const float* x, float* between, float* y,
                                         unsigned* flags) {
    int t = threadIdx.x, pair = blockIdx.x / 2, i = pair * blockDim.x + t;
    if (blockIdx.x % 2 == 0) {
        between[i] = x[i] * x[i];
        asm volatile("fence.acq_rel.gpu;" ::: "memory");
        asm volatile("st.relaxed.gpu.global.u32 [%0], 1;" :: "l"(&flags[i]) : "memory");
    } else {
        int other = pair * blockDim.x + (t + 1) % blockDim.x;
        unsigned up = 0;
        while (!up)
            asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];"
                         : "=r"(up) : "l"(&flags[other]) : "memory");
        asm volatile("fence.acq_rel.gpu;" ::: "memory");
        y[i] = between[other] + 1.0f;
    }
}

// Two layers in one launch: y = relu(x W1) W2.  The first blocks make rows of the hidden layer and
// count them by red.release; the others start on a group of rows when all of its tiles are there.
extern "C" __global__ void two_layers(const float* x, const float* w1, const float* w2,
                                      float* hidden, float* y, unsigned* ready, int rows, int in,
                                      int mid, int out) {
    int tiles = mid / 32, groups = rows / 4, t = threadIdx.x;  // 128 threads: 4 rows of 32 columns
    int row = t / 32, col = t % 32;
    if (blockIdx.x < groups * tiles) {
        row += blockIdx.x / tiles * 4, col += blockIdx.x % tiles * 32;
        float sum = 0.0f;
        for (int i = 0; i < in; i++) sum += x[row * in + i] * w1[i * mid + col];
        hidden[row * mid + col] = fmaxf(sum, 0.0f);
        __syncthreads();
        if (t == 0)
            asm volatile("red.release.gpu.global.add.u32 [%0], 1;"
                         :: "l"(&ready[blockIdx.x / tiles]) : "memory");
    } else {
        int group = blockIdx.x - groups * tiles;
        if (t == 0)
            while (load_acquire(&ready[group]) < tiles) {
            }
        __syncthreads();
        row += group * 4;
        if (col < out) {
            float sum = 0.0f;
            for (int i = 0; i < mid; i++) sum += hidden[row * mid + i] * w2[i * out + col];
            y[row * out + col] = sum;
        }
    }
}

// The sum of an array by the last block to finish.  Every thread fences what it has written itself,
// as in the oldest codes, before the block's barrier.
extern "C" __global__ void sum_last_block(const float* x, float* partials, float* total,
                                          unsigned* done, int n) {
    __shared__ float values[64];
    __shared__ bool last;
    int t = threadIdx.x;
    float sum = 0.0f;
    for (int i = blockIdx.x * 64 + t; i < n; i += gridDim.x * 64) sum += x[i];
    partials[blockIdx.x * 64 + t] = sum;
    __threadfence();
    __syncthreads();
    if (t == 0) last = atomicInc(done, gridDim.x - 1) == gridDim.x - 1;
    __syncthreads();
    if (last) {
        __threadfence();
        sum = 0.0f;
        for (int b = 0; b < gridDim.x; b++) sum += *(volatile float*)&partials[b * 64 + t];
        values[t] = sum;
        __syncthreads();
        for (int half = 32; half; half /= 2) {
            if (t < half) values[t] += values[t + half];
            __syncthreads();
        }
        if (t == 0) *total = values[0];
    }
}

// Persistent blocks: tiles of very different cost are taken from a counter, and the number drawn by
// one thread reaches the others through shared memory.
extern "C" __global__ void triangular(const float* x, float* y, unsigned* counter, int tiles) {
    __shared__ unsigned shared_tile;
    int t = threadIdx.x;
    while (true) {
        if (t == 0) shared_tile = atomicAdd(counter, 1);
        __syncthreads();
        unsigned tile = shared_tile;
        __syncthreads();  // all have read it before the next one is drawn
        if (tile >= tiles) break;
        float sum = 0.0f;
        for (unsigned j = 0; j <= tile; j++) sum += x[j * 32 + t];
        y[tile * 32 + t] = sum;
    }
}

// Blocks numbered in the order in which they start, so that waiting for the block before cannot
// hang, however they are scheduled.
extern "C" __global__ void chained_scan(const int* x, int* y, int* carry, unsigned* flags,
                                        unsigned* ticket, int n) {
    __shared__ unsigned number;
    __shared__ int warps[4], before;
    int t = threadIdx.x, lane = t % 32, warp = t / 32;
    if (t == 0) number = atomicAdd(ticket, 1);
    __syncthreads();
    int block = number, i = block * 128 + t, sum = i < n ? x[i] : 0;
    for (int step = 1; step < 32; step *= 2) {
        int other = __shfl_up_sync(~0u, sum, step);
        if (lane >= step) sum += other;
    }
    if (lane == 31) warps[warp] = sum;
    __syncthreads();
    for (int w = 0; w < warp; w++) sum += warps[w];
    if (t == 127) {
        int carried = 0;
        if (block > 0) {
            while (load_acquire(&flags[block - 1]) == 0) {
            }
            carried = carry[block - 1];
        }
        carry[block] = carried + sum;
        store_release(&flags[block], 1);
        before = carried;
    }
    __syncthreads();
    if (i < n) y[i] = before + sum;
}

// A lock in global memory, taken by one thread of each block for what no atomic can do: keeping the
// k largest values.
extern "C" __global__ void largest(const float* x, float* top, unsigned* lock, int n, int k) {
    __shared__ float best[64];
    int t = threadIdx.x, i = blockIdx.x * 64 + t;
    best[t] = i < n ? x[i] : -1e30f;
    __syncthreads();
    for (int half = 32; half; half /= 2) {
        if (t < half) best[t] = fmaxf(best[t], best[t + half]);
        __syncthreads();
    }
    if (t == 0) {
        while (atomicCAS(lock, 0, 1) != 0) __nanosleep(20);
        __threadfence();
        float value = best[0];
        for (int j = 0; j < k; j++) {  // insert into the list, which descends
            float old = top[j];
            if (value > old) top[j] = value, value = old;
        }
        __threadfence();
        atomicExch(lock, 0);
    }
}

// All-reduce around a ring of blocks: in each step a block adds the chunk that its left neighbour
// has sent and sends it on; a mailbox is used again when its flag says that it was read.
extern "C" __global__ void ring_reduce(float* x, float* mail, unsigned* sent, unsigned* read) {
    int t = threadIdx.x, size = blockDim.x, blocks = gridDim.x, me = blockIdx.x;
    int right = (me + 1) % blocks;
    float* mine = x + me * blocks * size;  // [chunk][size]
    for (int step = 0; step < 2 * (blocks - 1); step++) {
        bool adding = step < blocks - 1;  // then the finished chunks go round once more
        int out = (me - step + 2 * blocks) % blocks, in = (out - 1 + blocks) % blocks;
        if (t == 0)
            while (load_acquire(&read[right]) != step) {
            }
        __syncthreads();
        mail[right * size + t] = mine[out * size + t];
        __syncthreads();
        if (t == 0) {
            store_release(&sent[right], step + 1);
            while (load_acquire(&sent[me]) != step + 1) {
            }
        }
        __syncthreads();
        float value = mail[me * size + t];
        mine[in * size + t] = adding ? mine[in * size + t] + value : value;
        __syncthreads();
        if (t == 0) store_release(&read[me], step + 1);
    }
}
