// Threads that work together: locks, barriers, masks of lanes, votes, shuffles, atomics.

#include <cuda_fp16.h>

#define FULL 0xffffffffu

// A spin lock around a read and a write of plain memory, one thread of each block at a time.
extern "C" __global__ void spin_lock(int* lock, int* shared_value, int* log) {
    if (threadIdx.x == 0) {
        while (atomicCAS(lock, 0, 1) != 0) {}
        __threadfence();
        int v = *shared_value;
        log[v] = blockIdx.x;
        *shared_value = v + 1;
        __threadfence();
        atomicExch(lock, 0);
    }
}

// Every lane takes the lock: the critical section stands inside the loop, so that the holder does
// not wait for the lanes that spin.
extern "C" __global__ void lock_by_lane(int* lock, int* count, int rounds) {
    for (int r = 0; r < rounds; ++r) {
        bool done = false;
        while (!done) {
            if (atomicCAS(lock, 0, 1) == 0) {
                __threadfence();
                *count = *count + 1;
                __threadfence();
                atomicExch(lock, 0);
                done = true;
            }
        }
    }
}

// A ticket lock, waiting with backoff; acquire and release spelled in PTX.
extern "C" __global__ void ticket_lock(unsigned* next, unsigned* serving, double* sum,
                                       const double* x) {
    if (threadIdx.x == 0) {
        unsigned mine = atomicAdd(next, 1u), now;
        while (true) {
            asm volatile("ld.acquire.gpu.u32 %0, [%1];" : "=r"(now) : "l"(serving) : "memory");
            if (now == mine) break;
            __nanosleep(32);
        }
        *sum = *sum * 0.5 + x[mine];
        asm volatile("st.release.gpu.u32 [%0], %1;" : : "l"(serving), "r"(mine + 1) : "memory");
    }
}

// Producer and consumer blocks over a flag in global memory.
extern "C" __global__ void message(int* data, volatile int* flag, int* out, int n) {
    if (blockIdx.x == 0) {
        for (int i = threadIdx.x; i < n; i += blockDim.x) data[i] = 3 * i + 1;
        __threadfence();
        __syncthreads();
        if (threadIdx.x == 0) *flag = 1;
    } else {
        if (threadIdx.x == 0) {
            while (*flag == 0) {}
            __threadfence();
        }
        __syncthreads();
        for (int i = threadIdx.x; i < n; i += blockDim.x) out[(blockIdx.x - 1) * n + i] = data[i] + blockIdx.x;
    }
}

// A barrier of the whole grid made of an atomic counter (all blocks must be resident: a cooperative
// launch); the generation is the count of arrivals.
__device__ void grid_barrier(unsigned* arrived, unsigned goal) {
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        atomicAdd(arrived, 1u);
        while (*(volatile unsigned*)arrived < goal) {}
        __threadfence();
    }
    __syncthreads();
}

extern "C" __global__ void jacobi(float* a, float* b, int n, int sweeps, unsigned* arrived) {
    for (int s = 0; s < sweeps; ++s) {
        float *from = s % 2 ? b : a, *to = s % 2 ? a : b;
        for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
            float left = i > 0 ? from[i - 1] : 0.f, right = i + 1 < n ? from[i + 1] : 0.f;
            to[i] = 0.5f * (left + right);
        }
        grid_barrier(arrived, (s + 1) * gridDim.x);
    }
}

// Lanes that leave early: the masks of later operations name only those that stay.
extern "C" __global__ void early_exit(int* out, const int* x, int n) {
    __shared__ int held[4][32];
    int i = blockIdx.x * blockDim.x + threadIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    unsigned stay = __ballot_sync(FULL, i < n && x[i < n ? i : 0] != 0);
    if (!(stay >> lane & 1)) return;
    held[warp][lane] = x[i];
    __syncwarp(stay);
    unsigned later = stay & ~((2u << lane) - 1);  // the next lane that stays, or the first again
    int next = later ? __ffs(later) - 1 : __ffs(stay) - 1;
    int sum = held[warp][next] + 10 * __shfl_sync(stay, x[i], next);
    out[i] = sum + 1000 * __popc(__ballot_sync(stay, x[i] > 2));
}

// A tail: the mask is made once and every shuffle in the loop names just the lanes with an element.
extern "C" __global__ void tail_sum(int* out, const int* x, int n) {
    int lane = threadIdx.x;
    if (lane < n) {
        unsigned mask = __ballot_sync(n >= 32 ? FULL : (1u << n) - 1, lane < n);
        int v = x[lane];
        for (int step = 16; step > 0; step >>= 1) {
            int other = __shfl_down_sync(mask, v, step);
            if (lane + step < n) v += other;
        }
        if (lane == 0) *out = v;
    }
}

// Shuffles of all kinds within parts of a warp; sources outside the part give the own value.
extern "C" __global__ void shuffles(int* out, const int* x) {
    int t = threadIdx.x, v = x[t];
    out += t * 10;
    out[0] = __shfl_sync(FULL, v, t + 3, 8);
    out[1] = __shfl_up_sync(FULL, v, 3, 8);
    out[2] = __shfl_down_sync(FULL, v, 3, 8);
    out[3] = __shfl_xor_sync(FULL, v, 5, 8);
    out[4] = __shfl_sync(FULL, v, t * 7, 16);
    out[5] = __shfl_up_sync(FULL, v, 9, 16);
    out[6] = __shfl_down_sync(FULL, v, 9, 16);
    out[7] = __shfl_xor_sync(FULL, v, 17, 32);
    out[8] = (int)__shfl_up_sync(FULL, v * 1048576ll, 1, 2)
           + (int)__shfl_xor_sync(FULL, 1.5 * v, 2, 4);
    out[9] = __shfl_xor_sync(t % 2 ? 0xaaaaaaaau : 0x55555555u, v, 2);
}

// Votes and matches of a warp.
extern "C" __global__ void votes(unsigned* out, const int* x) {
    int i = blockIdx.x * blockDim.x + threadIdx.x, v = x[i], same;
    out += i * 7;
    out[0] = __any_sync(FULL, v == 3);
    out[1] = __all_sync(FULL, v < 9);
    out[2] = __ballot_sync(FULL, v & 1);
    out[3] = __match_any_sync(FULL, v);
    out[4] = __match_all_sync(FULL, v / 100, &same);
    out[5] = same;
    out[6] = v & 1 ? __ballot_sync(out[2], v > 4) : __match_any_sync(~out[2], (long long)v << 33);
}

// Atomics built from compare-and-swap: maximum of floats, product, half precision in 16 bits.
__device__ float atomic_max_float(float* at, float v) {
    int* bits = reinterpret_cast<int*>(at);
    int seen = *reinterpret_cast<volatile int*>(bits);
    while (v > __int_as_float(seen)) {
        int before = atomicCAS(bits, seen, __float_as_int(v));
        if (before == seen) break;
        seen = before;
    }
    return __int_as_float(seen);
}

__device__ double atomic_multiply(double* at, double v) {
    unsigned long long* bits = reinterpret_cast<unsigned long long*>(at);
    unsigned long long seen = atomicAdd(bits, 0ull), before;
    do {
        before = seen;
        seen = atomicCAS(bits, before, __double_as_longlong(__longlong_as_double(before) * v));
    } while (seen != before);
    return __longlong_as_double(before);
}

__device__ void atomic_or_short(unsigned short* at, unsigned short v) {
    unsigned short seen = *reinterpret_cast<volatile unsigned short*>(at), before;
    do {
        before = seen;
        seen = atomicCAS(at, before, (unsigned short)(before | v));
    } while (seen != before);
}

// A half added by swapping the 32-bit word that holds it: its neighbour is kept as it was seen.
__device__ void atomic_add_half(__half* at, float v) {
    unsigned long long address = reinterpret_cast<unsigned long long>(at);
    unsigned* word = reinterpret_cast<unsigned*>(address & ~3ull);
    bool upper = address & 2;
    unsigned seen = atomicOr(word, 0u), before;
    do {
        before = seen;
        __half old = __ushort_as_half((unsigned short)(upper ? before >> 16 : before & 0xffffu));
        unsigned bits = __half_as_ushort(__float2half(__half2float(old) + v));
        unsigned made = upper ? (before & 0xffffu) | bits << 16 : (before & 0xffff0000u) | bits;
        seen = atomicCAS(word, before, made);
    } while (seen != before);
}

extern "C" __global__ void add_halves(__half* sums, const float* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) atomic_add_half(sums + i % 3, x[i]);
}

// The sign decides whether the order of bits is that of signed integers or the reverse.
__device__ void atomic_max_by_sign(float* at, float v) {
    if (v >= 0.f) atomicMax(reinterpret_cast<int*>(at), __float_as_int(v));
    else atomicMin(reinterpret_cast<unsigned*>(at), __float_as_uint(v));
}

extern "C" __global__ void swap_loops(float* most, double* product, unsigned short* mask,
                                      float* most_by_sign, const float* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        atomic_max_float(most, x[i]);
        atomic_multiply(product, x[i] > 0.f ? 2.0 : 0.5);
        atomic_or_short(mask, (unsigned short)(1 << (i * 5 & 15)));
        atomic_max_by_sign(most_by_sign + i % 2, x[i] - (i % 2) * 100.f);
    }
}

// Every kind of atomic on global memory, and on shared memory.
template <typename T>
__device__ void all_kinds(T* cell, T v, int t) {
    atomicAdd(cell, v);
    atomicSub(cell + 1, v);
    atomicMin(cell + 2, v);
    atomicMax(cell + 3, v);
    atomicAnd(cell + 4, v | (T)0xff00);
    atomicOr(cell + 5, v);
    atomicXor(cell + 6, v);
    atomicExch(cell + 7, (T)5);
    atomicCAS(cell + 8, (T)t, (T)(t + 1));
}

extern "C" __global__ void atomic_kinds(int* global_cells, int* shared_cells, unsigned* wrapped,
                                        const int* x) {
    __shared__ int cells[9];
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (threadIdx.x < 9) cells[threadIdx.x] = threadIdx.x == 4 ? -1 : 0;
    __syncthreads();
    all_kinds(global_cells, x[i], i);
    all_kinds(cells, x[i], threadIdx.x);
    atomicInc(wrapped, 10u);
    atomicDec(wrapped + 1, 10u);
    atomicAdd_block(wrapped + 2 + blockIdx.x, 1u);
    atomicAdd_system(wrapped + 6, 2u);
    __syncthreads();
    if (threadIdx.x < 9) shared_cells[blockIdx.x * 9 + threadIdx.x] = cells[threadIdx.x];
}

extern "C" __global__ void atomic_kinds_64(unsigned long long* cells, long long* signed_cells,
                                           const long long* x) {
    long long v = x[blockIdx.x * blockDim.x + threadIdx.x];
    atomicAdd(cells, (unsigned long long)v);
    atomicMin(cells + 1, (unsigned long long)v);
    atomicAnd(cells + 2, (unsigned long long)v);
    atomicOr(cells + 3, (unsigned long long)v);
    atomicXor(cells + 4, (unsigned long long)v);
    atomicMax(signed_cells, v);
    atomicMin(signed_cells + 1, v);
}

// Named barriers: two halves of a block hand tiles over and back, each waiting only where it must.
extern "C" __global__ void named_barriers(int* out, const int* x, int tiles) {
    __shared__ int tile[2][32];
    int lane = threadIdx.x % 32;
    if (threadIdx.x < 32) {  // producer: fills tile k when it is free
        for (int k = 0; k < tiles; ++k) {
            if (k >= 2) asm volatile("bar.sync %0, 64;" : : "r"(3 + k % 2) : "memory");
            tile[k % 2][lane] = x[k * 32 + lane] * 2;
            asm volatile("bar.arrive %0, 64;" : : "r"(1 + k % 2) : "memory");
        }
    } else {  // consumer: reads tile k when it is full, reversed
        for (int k = 0; k < tiles; ++k) {
            asm volatile("bar.sync %0, 64;" : : "r"(1 + k % 2) : "memory");
            out[k * 32 + lane] = tile[k % 2][31 - lane];
            if (k + 2 < tiles) asm volatile("bar.arrive %0, 64;" : : "r"(3 + k % 2) : "memory");
        }
    }
}

// Warps that take pieces of work from a counter until none is left (a persistent kernel).
extern "C" __global__ void work_queue(int* out, int* counter, int pieces) {
    int lane = threadIdx.x % 32;
    while (true) {
        int piece;
        if (lane == 0) piece = atomicAdd(counter, 1);
        piece = __shfl_sync(FULL, piece, 0);
        if (piece >= pieces) break;
        int sum = 0;
        for (int k = lane; k <= piece; k += 32) sum += k;
        sum += __shfl_xor_sync(FULL, sum, 16);
        sum += __shfl_xor_sync(FULL, sum, 8);
        sum += __shfl_xor_sync(FULL, sum, 4);
        sum += __shfl_xor_sync(FULL, sum, 2);
        sum += __shfl_xor_sync(FULL, sum, 1);
        if (lane == 0) out[piece] = sum;
    }
}

// Lanes pass values through shared memory without the block's barrier: __syncwarp on both sides.
extern "C" __global__ void warp_exchange(float* out, const float* x) {
    __shared__ float box[3][32];
    int lane = threadIdx.x % 32;
    float* mine = box[threadIdx.x / 32];
    float v = x[blockIdx.x * blockDim.x + threadIdx.x];
    for (int step = 1; step < 32; step *= 2) {
        mine[lane] = v;
        __syncwarp();
        v = 0.5f * (v + mine[(lane + step) % 32]);
        __syncwarp();
    }
    out[blockIdx.x * blockDim.x + threadIdx.x] = v;
}

// A barrier in a loop whose length is the same for all, and in a branch that all take alike.
extern "C" __global__ void uniform_branches(int* out, int rounds, int mode) {
    __shared__ int cell[64];
    int t = threadIdx.x;
    cell[t] = t;
    for (int r = 0; r < rounds; ++r) {
        if (mode + r & 1) {
            __syncthreads();
            int v = cell[(t + 1) % 64];
            __syncthreads();
            cell[t] = v;
        } else if (blockIdx.x % 2) {
            cell[t] += 1;
        }
    }
    __syncthreads();
    out[blockIdx.x * 64 + t] = cell[63 - t];
}
