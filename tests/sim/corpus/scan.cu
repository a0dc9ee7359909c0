// Prefix sums: within a warp, a block and, by look-back, a whole grid in one pass.

#define FULL 0xffffffffu

// Hillis and Steele with two buffers: one barrier per step.
extern "C" __global__ void hillis_steele(int* out, const int* in, int n) {
    extern __shared__ int buffer[];
    int t = threadIdx.x, from = 0;
    buffer[t] = t < n ? in[blockIdx.x * n + t] : 0;
    __syncthreads();
    for (int step = 1; step < blockDim.x; step *= 2) {
        int to = 1 - from;
        int v = buffer[from * blockDim.x + t];
        if (t >= step) v += buffer[from * blockDim.x + t - step];
        buffer[to * blockDim.x + t] = v;
        from = to;
        __syncthreads();
    }
    if (t < n) out[blockIdx.x * n + t] = buffer[from * blockDim.x + t];
}

// The same in one buffer: everybody reads, barrier, everybody writes, barrier.
extern "C" __global__ void hillis_steele_in_place(float* out, const float* in) {
    __shared__ float buffer[96];
    int t = threadIdx.x;
    buffer[t] = in[t];
    __syncthreads();
    for (int step = 1; step < 96; step *= 2) {
        float left = t >= step ? buffer[t - step] : 0.f;
        __syncthreads();
        buffer[t] += left;
        __syncthreads();
    }
    out[t] = buffer[t];
}

// Blelloch's exclusive scan: up-sweep and down-sweep over a tree, two elements per thread, indices
// padded so that the strides do not hit one bank.
#define AT(i) ((i) + ((i) >> 5))
extern "C" __global__ void blelloch(int* out, const int* in, int n) {
    __shared__ int tree[AT(256)];
    int t = threadIdx.x;
    tree[AT(t)] = t < n ? in[t] : 0;
    tree[AT(t + 128)] = t + 128 < n ? in[t + 128] : 0;
    int offset = 1;
    for (int d = 128; d > 0; d >>= 1) {
        __syncthreads();
        if (t < d) {
            int left = offset * (2 * t + 1) - 1, right = offset * (2 * t + 2) - 1;
            tree[AT(right)] += tree[AT(left)];
        }
        offset *= 2;
    }
    if (t == 0) tree[AT(255)] = 0;
    for (int d = 1; d < 256; d *= 2) {
        offset >>= 1;
        __syncthreads();
        if (t < d) {
            int left = offset * (2 * t + 1) - 1, right = offset * (2 * t + 2) - 1;
            int held = tree[AT(left)];
            tree[AT(left)] = tree[AT(right)];
            tree[AT(right)] += held;
        }
    }
    __syncthreads();
    if (t < n) out[t] = tree[AT(t)];
    if (t + 128 < n) out[t + 128] = tree[AT(t + 128)];
}

template <typename T>
__device__ T warp_inclusive(T v) {
    int lane = threadIdx.x & 31;
    for (int step = 1; step < 32; step <<= 1) {
        T other = __shfl_up_sync(FULL, v, step);
        if (lane >= step) v += other;
    }
    return v;
}

// The inclusive sum of a block's values: warp scans, then a scan of the warps' totals.
template <typename T>
__device__ T block_inclusive(T v, T* slots, T* total) {
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
    v = warp_inclusive(v);
    if (lane == 31) slots[warp] = v;
    __syncthreads();
    if (warp == 0) {
        T sum = lane < warps ? slots[lane] : T(0);
        sum = warp_inclusive(sum);
        if (lane < warps) slots[lane] = sum;
    }
    __syncthreads();
    if (warp > 0) v += slots[warp - 1];
    *total = slots[warps - 1];
    __syncthreads();
    return v;
}

// A block walks along its row and carries the sum from tile to tile (cumsum of a tensor's rows).
extern "C" __global__ void cumsum_rows(double* out, const double* in, int n) {
    __shared__ double slots[32];
    double carry = 0.0;
    for (int start = 0; start < n; start += blockDim.x) {
        int i = start + threadIdx.x;
        double v = i < n ? in[blockIdx.x * n + i] : 0.0, total;
        v = block_inclusive(v, slots, &total);
        if (i < n) out[blockIdx.x * n + i] = carry + v;
        carry += total;
    }
}

// Scan in three launches: tiles, the tiles' totals, and the totals added.
extern "C" __global__ void scan_tiles(int* out, int* totals, const int* in, int n) {
    __shared__ int slots[32];
    int i = blockIdx.x * blockDim.x + threadIdx.x, total;
    int v = block_inclusive(i < n ? in[i] : 0, slots, &total);
    if (i < n) out[i] = v;
    if (threadIdx.x == 0) totals[blockIdx.x] = total;
}

extern "C" __global__ void scan_add(int* out, const int* totals, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n && blockIdx.x > 0) out[i] += totals[blockIdx.x - 1];
}

// Decoupled look-back with status words: 1 = the tile's own sum is there, 2 = its inclusive prefix.
// Values are stored before a fence, flags after it; tiles are numbered by an atomic ticket, so that
// a running tile waits only for tiles that have begun.
struct Lookback {
    volatile int aggregate, prefix;
};

extern "C" __global__ void scan_lookback_fence(int* out, const int* in, int n, Lookback* tiles,
                                               volatile int* status, unsigned* ticket) {
    __shared__ int slots[32];
    __shared__ int tile, before;
    if (threadIdx.x == 0) tile = atomicAdd(ticket, 1u);
    __syncthreads();
    int mine = tile;
    int i = mine * blockDim.x + threadIdx.x, total;
    int v = block_inclusive(i < n ? in[i] : 0, slots, &total);
    if (threadIdx.x == 0) {
        int sum = 0;
        if (mine == 0) {
            tiles[0].prefix = total;
            __threadfence();
            status[0] = 2;
        } else {
            tiles[mine].aggregate = total;
            __threadfence();
            status[mine] = 1;
            for (int look = mine - 1;; --look) {
                int s;
                while ((s = status[look]) == 0) {}
                __threadfence();  // acquires what the tile has published
                if (s == 2) {
                    sum += tiles[look].prefix;
                    break;
                }
                sum += tiles[look].aggregate;
            }
            tiles[mine].prefix = sum + total;
            __threadfence();
            status[mine] = 2;
        }
        before = sum;
    }
    __syncthreads();
    if (i < n) out[i] = before + v;
}

__device__ unsigned long long load_acquire(const unsigned long long* p) {
    unsigned long long v;
    asm volatile("ld.acquire.gpu.global.u64 %0, [%1];" : "=l"(v) : "l"(p) : "memory");
    return v;
}

__device__ void store_release(unsigned long long* p, unsigned long long v) {
    asm volatile("st.release.gpu.global.u64 [%0], %1;" : : "l"(p), "l"(v) : "memory");
}

// Look-back by a whole warp; status and value travel in one 64-bit word by release and acquire.
extern "C" __global__ void scan_lookback_acquire(unsigned* out, const unsigned* in, int n,
                                                 unsigned long long* words, unsigned* ticket) {
    __shared__ unsigned slots[32];
    __shared__ unsigned tile, before;
    if (threadIdx.x == 0) tile = atomicAdd(ticket, 1u);
    __syncthreads();
    int mine = tile, lane = threadIdx.x;
    int i = mine * blockDim.x + threadIdx.x;
    unsigned total, v = block_inclusive(i < n ? in[i] : 0u, slots, &total);
    if (threadIdx.x < 32) {
        const unsigned long long partial = 1ull << 32, whole = 2ull << 32;
        if (lane == 0) store_release(words + mine, (mine == 0 ? whole : partial) | total);
        unsigned sum = 0;
        for (int look = mine - 1; look >= 0; look -= 32) {
            int at = look - lane;
            unsigned long long word = at >= 0 ? load_acquire(words + at) : whole;
            while (__any_sync(FULL, word >> 32 == 0)) {
                if (word >> 32 == 0) word = load_acquire(words + at);
            }
            unsigned found = __ballot_sync(FULL, word >> 32 == 2);
            int nearest = found ? __ffs(found) - 1 : 31;  // the nearest tile with a whole prefix
            unsigned part = lane <= nearest ? (unsigned)word : 0u;
            for (int step = 16; step > 0; step >>= 1) part += __shfl_xor_sync(FULL, part, step);
            sum += part;
            if (found) break;
        }
        if (lane == 0) {
            if (mine > 0) store_release(words + mine, whole | (unsigned)(sum + total));
            before = sum;
        }
    }
    __syncthreads();
    if (i < n) out[i] = before + v;
}

// Segmented sum: heads mark where a new segment begins; flags travel with the values.
extern "C" __global__ void segmented(float* out, const float* in, const unsigned char* heads, int n) {
    __shared__ float sums[4];
    __shared__ int flags[4];
    int t = threadIdx.x, lane = t & 31, warp = t >> 5;
    float v = t < n ? in[t] : 0.f;
    int head = t < n ? heads[t] : 0;
    for (int step = 1; step < 32; step <<= 1) {
        float left = __shfl_up_sync(FULL, v, step);
        int left_head = __shfl_up_sync(FULL, head, step);
        if (lane >= step) {
            if (!head) v += left;
            head |= left_head;
        }
    }
    if (lane == 31) {
        sums[warp] = v;
        flags[warp] = head;
    }
    __syncthreads();
    if (!head)
        for (int w = warp - 1; w >= 0; --w) {
            v += sums[w];
            if (flags[w]) break;
        }
    if (t < n) out[t] = v;
}

// Stream compaction: ballots count within the warp, a block scan places the warps.
extern "C" __global__ void partition_even(int* out, int* count, const int* in, int n) {
    __shared__ int slots[32];
    __shared__ int base;
    int i = blockIdx.x * blockDim.x + threadIdx.x, total;
    bool keep = i < n && in[i] % 2 == 0;
    int place = block_inclusive((int)keep, slots, &total) - 1;
    if (threadIdx.x == 0) base = atomicAdd(count, total);
    __syncthreads();
    if (keep) out[base + place] = in[i];
}
