// Sorting and selecting: networks in shared memory and registers, a radix sort, top-k.

#define FULL 0xffffffffu

// Bitonic sort of a power-of-two tile in shared memory, keys with their values.
extern "C" __global__ void bitonic_pairs(float* keys, int* values, int n) {
    __shared__ float key[128];
    __shared__ int value[128];
    int t = threadIdx.x, base = blockIdx.x * n;
    key[t] = t < n ? keys[base + t] : __int_as_float(0x7f800000);  // the padding sorts last
    value[t] = t < n ? values[base + t] : -1;
    __syncthreads();
    for (int size = 2; size <= 128; size *= 2) {
        for (int step = size / 2; step > 0; step /= 2) {
            int other = t ^ step;
            if (other > t) {
                bool up = (t & size) == 0;
                if ((key[t] > key[other]) == up) {
                    float k = key[t];
                    key[t] = key[other];
                    key[other] = k;
                    int v = value[t];
                    value[t] = value[other];
                    value[other] = v;
                }
            }
            __syncthreads();
        }
    }
    if (t < n) {
        keys[base + t] = key[t];
        values[base + t] = value[t];
    }
}

// Bitonic sort of 32 values, one per lane, by shuffles alone.
extern "C" __global__ void bitonic_warp(int* x) {
    int lane = threadIdx.x % 32, i = blockIdx.x * blockDim.x + threadIdx.x;
    int v = x[i];
#pragma unroll
    for (int size = 2; size <= 32; size *= 2)
#pragma unroll
        for (int step = size / 2; step > 0; step /= 2) {
            int other = __shfl_xor_sync(FULL, v, step);
            bool up = (lane & size) == 0, low = (lane & step) == 0;
            v = up == low ? min(v, other) : max(v, other);
        }
    x[i] = v;
}

// Odd-even transposition: n rounds over neighbours, a barrier after each.
extern "C" __global__ void odd_even(short* x, int n) {
    extern __shared__ short tile[];
    for (int i = threadIdx.x; i < n; i += blockDim.x) tile[i] = x[blockIdx.x * n + i];
    __syncthreads();
    for (int round = 0; round < n; ++round) {
        int i = 2 * threadIdx.x + round % 2;
        if (i + 1 < n && tile[i] > tile[i + 1]) {
            short held = tile[i];
            tile[i] = tile[i + 1];
            tile[i + 1] = held;
        }
        __syncthreads();
    }
    for (int i = threadIdx.x; i < n; i += blockDim.x) x[blockIdx.x * n + i] = tile[i];
}

// Radix sort, four bits a pass.  First: how many keys of each digit every block has.
extern "C" __global__ void radix_count(unsigned* counts, const unsigned* keys, int n, int shift) {
    __shared__ unsigned bins[16];
    if (threadIdx.x < 16) bins[threadIdx.x] = 0;
    __syncthreads();
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) atomicAdd(&bins[keys[i] >> shift & 15], 1u);
    __syncthreads();
    if (threadIdx.x < 16) counts[threadIdx.x * gridDim.x + blockIdx.x] = bins[threadIdx.x];
}

// Second: where each block's keys of each digit begin (one block, a serial loop per thread).
extern "C" __global__ void radix_offsets(unsigned* counts, int blocks) {
    __shared__ unsigned totals[16];
    int digit = threadIdx.x;
    unsigned sum = 0;
    for (int b = 0; b < blocks; ++b) {
        unsigned c = counts[digit * blocks + b];
        counts[digit * blocks + b] = sum;
        sum += c;
    }
    totals[digit] = sum;
    __syncwarp(0xffffu);
    unsigned before = 0;
    for (int d = 0; d < digit; ++d) before += totals[d];
    for (int b = 0; b < blocks; ++b) counts[digit * blocks + b] += before;
}

// Third: a stable scatter; the rank within the warp comes from match_any, across warps from a loop.
extern "C" __global__ void radix_scatter(unsigned* out, const unsigned* keys, const unsigned* counts,
                                         int n, int shift) {
    __shared__ unsigned warp_bins[4][16];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (lane < 16) warp_bins[warp][lane] = 0;
    __syncwarp();
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    unsigned key = i < n ? keys[i] : 0xffffffffu;
    unsigned digit = i < n ? key >> shift & 15 : 16;
    unsigned same = __match_any_sync(FULL, digit);
    unsigned rank = __popc(same & ((1u << lane) - 1));
    if (rank == 0 && i < n) warp_bins[warp][digit] = __popc(same);
    __syncthreads();
    if (i < n) {
        for (int w = 0; w < warp; ++w) rank += warp_bins[w][digit];
        out[counts[digit * gridDim.x + blockIdx.x] + rank] = key;
    }
}

// The k largest of a row by a warp: each round takes the maximum and removes it.
extern "C" __global__ void top_k(float* values, int* indices, const float* x, int n, int k) {
    extern __shared__ float row[];
    int lane = threadIdx.x;
    for (int i = lane; i < n; i += 32) row[i] = x[blockIdx.x * n + i];
    __syncwarp();
    for (int round = 0; round < k; ++round) {
        float best = __int_as_float(0xff800000);
        int at = n;
        for (int i = lane; i < n; i += 32)
            if (row[i] > best) {
                best = row[i];
                at = i;
            }
        for (int step = 16; step > 0; step >>= 1) {
            float other = __shfl_xor_sync(FULL, best, step);
            int other_at = __shfl_xor_sync(FULL, at, step);
            if (other > best || (other == best && other_at < at)) {
                best = other;
                at = other_at;
            }
        }
        if (lane == 0) {
            values[blockIdx.x * k + round] = best;
            indices[blockIdx.x * k + round] = at;
        }
        if (at % 32 == lane) row[at] = __int_as_float(0xff800000);
    }
}

// The k-th smallest by radix select: the digits of the answer from the top, one histogram each.
extern "C" __global__ void kth_smallest(unsigned* out, const unsigned* x, int n, int k) {
    __shared__ int bins[256];
    __shared__ unsigned prefix;
    __shared__ int rest;
    if (threadIdx.x == 0) {
        prefix = 0;
        rest = k;
    }
    for (int shift = 24; shift >= 0; shift -= 8) {
        for (int b = threadIdx.x; b < 256; b += blockDim.x) bins[b] = 0;
        __syncthreads();
        for (int i = threadIdx.x; i < n; i += blockDim.x) {
            unsigned v = x[i];
            if (shift == 24 || v >> (shift + 8) == prefix) atomicAdd(bins + (v >> shift & 255), 1);
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            int left = rest, b = 0;
            while (left >= bins[b]) left -= bins[b++];
            rest = left;
            prefix = prefix << 8 | b;
        }
        __syncthreads();
    }
    if (threadIdx.x == 0) *out = prefix;
}

// Merge path: each thread finds by binary search where its piece of the merged output begins.
extern "C" __global__ void merge_sorted(int* out, const int* a, int na, const int* b, int nb) {
    const int piece = 5;
    int diagonal = (blockIdx.x * blockDim.x + threadIdx.x) * piece;
    if (diagonal >= na + nb) return;
    int low = max(0, diagonal - nb), high = min(diagonal, na);
    while (low < high) {
        int middle = (low + high) / 2;
        if (a[middle] <= b[diagonal - 1 - middle]) low = middle + 1;
        else high = middle;
    }
    int i = low, j = diagonal - low;
    for (int k = 0; k < piece && diagonal + k < na + nb; ++k) {
        bool from_a = j >= nb || (i < na && a[i] <= b[j]);
        out[diagonal + k] = from_a ? a[i++] : b[j++];
    }
}
