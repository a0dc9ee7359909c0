// Barriers of a block beyond plain __syncthreads: named, counted, voting, arriving without waiting,
// unaligned, and flags between warps.

// -- reductions by barriers ---------------------------------------------------------------------

// Every thread learns how many, whether all and whether any of the block's values are positive.
extern "C" __global__ void votes(const int* x, int* counts, int* alls, int* anys, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    int positive = i < n && x[i] > 0;
    int count = __syncthreads_count(positive);
    int all = __syncthreads_and(i >= n || x[i] > 0);
    int any = __syncthreads_or(positive);
    if (i < n) counts[i] = count, alls[i] = all != 0, anys[i] = any != 0;
}

// The same within halves of a block, each with a barrier of its own, whose threads alone count.
extern "C" __global__ void votes_of_halves(const int* x, int* counts) {
    int t = threadIdx.x, half = t / 64, i = blockIdx.x * 128 + t;
    unsigned count, any;
    asm volatile("{\n\t.reg .pred p;\n\tsetp.gt.s32 p, %1, 0;\n\t"
                 "barrier.cta.red.popc.u32 %0, %2, 64, p;\n\t}"
                 : "=r"(count) : "r"(x[i]), "r"(half + 1) : "memory");
    asm volatile("{\n\t.reg .pred p, q;\n\tsetp.gt.s32 p, %1, 50;\n\t"
                 "bar.red.or.pred q, %2, 64, p;\n\tselp.u32 %0, 1, 0, q;\n\t}"
                 : "=r"(any) : "r"(x[i]), "r"(half + 1) : "memory");
    counts[i] = any ? count : -static_cast<int>(count);
}

// Repeat until a whole block has converged: Collatz steps, counted by __syncthreads_or.
extern "C" __global__ void until_all_done(const unsigned* x, unsigned* steps, int* rounds, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    unsigned v = i < n ? x[i] : 1, mine = 0;
    int round = 0;
    while (__syncthreads_or(v != 1)) {
        for (int k = 0; k < 8 && v != 1; k++, mine++) v = v % 2 ? 3 * v + 1 : v / 2;
        round++;
    }
    if (i < n) steps[i] = mine;
    if (threadIdx.x == 0) rounds[blockIdx.x] = round;
}

// -- named barriers -----------------------------------------------------------------------------

__device__ void sync(int id, int threads) {
    asm volatile("bar.sync %0, %1;" :: "r"(id), "r"(threads) : "memory");
}

__device__ void arrive(int id, int threads) {
    asm volatile("bar.arrive %0, %1;" :: "r"(id), "r"(threads) : "memory");
}

// Two warp groups sort their own 64 values by odd-even transposition, in different numbers of
// rounds, each with its own barrier; then all meet at barrier 0.
extern "C" __global__ void sort_groups(const int* x, int* y) {
    __shared__ int values[2][64];
    int t = threadIdx.x, group = t / 64, i = t % 64, rounds = group ? 64 : 66;
    values[group][i] = x[blockIdx.x * 128 + t];
    sync(group + 1, 64);
    for (int r = 0; r < rounds; r++) {
        int left = 2 * i + r % 2;
        if (left + 1 < 64) {
            int a = values[group][left], b = values[group][left + 1];
            values[group][left] = min(a, b), values[group][left + 1] = max(a, b);
        }
        sync(group + 1, 64);
    }
    __syncthreads();
    // Merge by rank: a thread looks up how many of the other group's values precede its own.
    int mine = values[group][i], rank = i;
    for (int j = 0; j < 64; j++) rank += values[group ^ 1][j] < mine + group;
    y[blockIdx.x * 128 + rank] = mine;
}

// A producer warp and a consumer warp pass two buffers to and fro: who has filled or emptied a
// buffer arrives without waiting, who needs it waits.  Barriers 1 and 2: full; 3 and 4: empty.
extern "C" __global__ void hand_over(const float* x, float* y, int chunks) {
    __shared__ float buffers[2][32];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    x += blockIdx.x * chunks * 32, y += blockIdx.x * chunks * 32;
    if (warp == 0) {
        for (int i = 0; i < chunks; i++) {
            if (i >= 2) sync(3 + i % 2, 64);
            buffers[i % 2][lane] = x[i * 32 + lane] * 2.0f;
            arrive(1 + i % 2, 64);
        }
    } else {
        for (int i = 0; i < chunks; i++) {
            sync(1 + i % 2, 64);
            y[i * 32 + lane] = buffers[i % 2][31 - lane];
            if (i + 2 < chunks) arrive(3 + i % 2, 64);
        }
    }
}

// Three of four warps take part in a barrier of 96 threads; the fourth goes on alone.
extern "C" __global__ void subset(const float* x, float* y) {
    __shared__ float parts[3];
    int t = threadIdx.x, warp = t / 32, lane = t % 32;
    if (warp < 3) {
        float v = x[blockIdx.x * 96 + t], sum = v;
        for (int step = 16; step; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
        if (lane == 0) parts[warp] = sum;
        asm volatile("barrier.cta.sync.aligned 5, 96;" ::: "memory");
        y[blockIdx.x * 128 + t] = v / (parts[0] + parts[1] + parts[2]);
    } else {
        y[blockIdx.x * 128 + t] = 1.0f / (lane + 1);
    }
}

// -- unaligned barriers in divergent code ---------------------------------------------------------

// Odd and even threads reach the barrier in different branches: only barrier without .aligned may.
extern "C" __global__ void divergent(const int* x, int* y) {
    __shared__ int values[64];
    int t = threadIdx.x, base = blockIdx.x * 64;
    if (t % 2) {
        values[t] = x[base + t] + 100;
        asm volatile("barrier.cta.sync 0;" ::: "memory");
        y[base + t] = values[t - 1];
    } else {
        values[t] = x[base + t] * 2;
        asm volatile("barrier.cta.sync 0;" ::: "memory");
        y[base + t] = values[t + 1];
    }
}

// A producer warp whose lanes arrive from two branches; the consumer warp waits in one.
extern "C" __global__ void divergent_arrival(const int* x, int* y) {
    __shared__ int values[32];
    int t = threadIdx.x, lane = t % 32, base = blockIdx.x * 32;
    if (t < 32) {
        if (x[base + lane] < 0) {
            values[lane] = -x[base + lane];
            asm volatile("barrier.cta.arrive 3, 64;" ::: "memory");
        } else {
            values[lane] = 7;
            asm volatile("barrier.cta.arrive 3, 64;" ::: "memory");
        }
    } else {
        asm volatile("barrier.cta.sync 3, 64;" ::: "memory");
        y[base + lane] = values[31 - lane];
    }
}

// -- flags and queues between the warps of a block -----------------------------------------------

// A chain: each warp adds to what the warp before has left, announced by a volatile flag.
extern "C" __global__ void chain(const int* x, int* y, int n) {
    __shared__ int carry[5];
    __shared__ volatile int ready[5];
    int t = threadIdx.x, warp = t / 32, lane = t % 32, i = blockIdx.x * 128 + t;
    if (t < 5) ready[t] = t == 0;
    if (t == 0) carry[0] = 0;
    __syncthreads();
    int sum = i < n ? x[i] : 0;
    for (int step = 1; step < 32; step *= 2) {
        int other = __shfl_up_sync(~0u, sum, step);
        if (lane >= step) sum += other;
    }
    int before = 0;
    if (lane == 0) {
        while (!ready[warp]) {
        }
        __threadfence_block();
        before = carry[warp];
    }
    before = __shfl_sync(~0u, before, 0);
    if (lane == 31) {
        carry[warp + 1] = before + sum;
        __threadfence_block();
        ready[warp + 1] = 1;
    }
    if (i < n) y[i] = before + sum;
}

// A ring of four slots between one producer warp and three consumer warps, guarded by counters with
// acquire and release semantics in the scope of the block.
extern "C" __global__ void ring(const float* x, float* y, int items) {
    __shared__ float slots[4][32];
    __shared__ unsigned written, taken, freed[4];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (threadIdx.x == 0) written = taken = 0;
    if (threadIdx.x < 4) freed[threadIdx.x] = 0;
    __syncthreads();
    auto at = [](unsigned& word) { return static_cast<unsigned>(__cvta_generic_to_shared(&word)); };
    auto acquire = [&](unsigned& word) {
        unsigned v;
        asm volatile("ld.acquire.cta.shared.u32 %0, [%1];" : "=r"(v) : "r"(at(word)) : "memory");
        return v;
    };
    auto release = [&](unsigned& word, unsigned v) {
        asm volatile("st.release.cta.shared.u32 [%0], %1;" :: "r"(at(word)), "r"(v) : "memory");
    };
    if (warp == 0) {
        for (unsigned i = 0; i < items; i++) {
            // Slot i % 4 must have been freed as often as it was filled.
            if (lane == 0)
                while (acquire(freed[i % 4]) != i / 4) {
                }
            __syncwarp();
            slots[i % 4][lane] = x[i * 32 + lane];
            __syncwarp();
            if (lane == 0) release(written, i + 1);
        }
    } else {
        while (true) {
            unsigned i = 0;
            if (lane == 0) i = atomicAdd(&taken, 1);
            i = __shfl_sync(~0u, i, 0);
            if (i >= items) break;
            if (lane == 0)
                while (acquire(written) <= i) {
                }
            __syncwarp();
            float v = slots[i % 4][lane];
            __syncwarp();
            if (lane == 0) release(freed[i % 4], i / 4 + 1);
            y[i * 32 + lane] = v * v;
        }
    }
}

// A lock around a linked list in shared memory: acquire on entry, release on leaving.
extern "C" __global__ void locked_lists(const int* keys, int* heads_out, int* next_out, int n) {
    __shared__ int heads[8], next[128], lock[8];
    int t = threadIdx.x;
    if (t < 8) heads[t] = -1, lock[t] = 0;
    next[t] = -2;
    __syncthreads();
    if (t < n) {
        int list = keys[t] % 8;
        unsigned where = static_cast<unsigned>(__cvta_generic_to_shared(&lock[list]));
        bool done = false;
        while (!done) {  // the critical section is inside, so that no lane waits for it to end
            int old;
            asm volatile("atom.acquire.cta.shared.cas.b32 %0, [%1], 0, 1;"
                         : "=r"(old) : "r"(where) : "memory");
            if (old == 0) {
                next[t] = heads[list];
                heads[list] = t;
                asm volatile("atom.release.cta.shared.exch.b32 %0, [%1], 0;"
                             : "=r"(old) : "r"(where) : "memory");
                done = true;
            }
        }
    }
    __syncthreads();
    if (t < 8) heads_out[t] = heads[t];
    next_out[t] = next[t];
}

// The last warp to come, found by an acq_rel increment, sums what all warps have left.
extern "C" __global__ void last_warp(const float* x, float* sums) {
    __shared__ float parts[8];
    __shared__ unsigned count;
    int t = threadIdx.x, warp = t / 32, lane = t % 32;
    if (t == 0) count = 0;
    __syncthreads();
    float sum = x[blockIdx.x * blockDim.x + t];
    for (int step = 16; step; step /= 2) sum += __shfl_down_sync(~0u, sum, step);
    unsigned before = 0;
    if (lane == 0) {
        parts[warp] = sum;
        asm volatile("atom.acq_rel.cta.shared.add.u32 %0, [%1], 1;"
                     : "=r"(before)
                     : "r"(static_cast<unsigned>(__cvta_generic_to_shared(&count))) : "memory");
        if (before == blockDim.x / 32 - 1) {
            float total = 0.0f;
            for (int w = 0; w < blockDim.x / 32; w++) total += parts[w];
            sums[blockIdx.x] = total;
        }
    }
}
