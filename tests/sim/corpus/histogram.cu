// Histograms and counters: which atomics, where, and how many of them.

#define FULL 0xffffffffu

// Straight to global memory.
extern "C" __global__ void histogram_global(int* bins, const unsigned char* x, int n) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        atomicAdd(bins + x[i], 1);
}

// Private bins of the block in shared memory, merged at the end; four bytes per load.
extern "C" __global__ void histogram_shared(int* bins, const uchar4* x, int quads) {
    __shared__ int mine[256];
    for (int b = threadIdx.x; b < 256; b += blockDim.x) mine[b] = 0;
    __syncthreads();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < quads; i += gridDim.x * blockDim.x) {
        uchar4 v = x[i];
        atomicAdd(mine + v.x, 1);
        atomicAdd(mine + v.y, 1);
        atomicAdd(mine + v.z, 1);
        atomicAdd(mine + v.w, 1);
    }
    __syncthreads();
    for (int b = threadIdx.x; b < 256; b += blockDim.x)
        if (mine[b]) atomicAdd(bins + b, mine[b]);
}

// A copy of the bins for every warp, so that warps do not fight for one bank.
extern "C" __global__ void histogram_per_warp(unsigned* bins, const int* x, int n, int count) {
    extern __shared__ unsigned copies[];
    int warps = blockDim.x / 32, warp = threadIdx.x / 32;
    for (int b = threadIdx.x; b < warps * count; b += blockDim.x) copies[b] = 0;
    __syncthreads();
    unsigned* mine = copies + warp * count;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        atomicAdd(&mine[x[i]], 1u);
    __syncthreads();
    for (int b = threadIdx.x; b < count; b += blockDim.x) {
        unsigned sum = 0;
        for (int w = 0; w < warps; ++w) sum += copies[w * count + b];
        atomicAdd(&bins[b], sum);
    }
}

// Lanes with the same bin elect one to add for all.
extern "C" __global__ void histogram_match(int* bins, const int* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    unsigned live = __ballot_sync(FULL, i < n);
    if (i < n) {
        unsigned same = __match_any_sync(live, x[i]);
        if (threadIdx.x % 32 == __ffs(same) - 1) atomicAdd(bins + x[i], __popc(same));
    }
}

// Bins by ballots: one vote per bit of the bin's number tells each lane who shares its bin.
extern "C" __global__ void histogram_ballot(int* bins, const int* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x, lane = threadIdx.x & 31;
    unsigned same = __ballot_sync(FULL, i < n);
    int v = i < n ? x[i] : 0;
#pragma unroll
    for (int bit = 0; bit < 4; ++bit) {
        unsigned set = __ballot_sync(FULL, v >> bit & 1);
        same &= v >> bit & 1 ? set : ~set;
    }
    if (i < n && lane == 31 - __clz(same)) atomicAdd(bins + v, __popc(same));
}

// The warp-aggregated counter: lanes that are here together take one atomic and share its answer.
extern "C" __global__ void filter_positive(float* out, int* count, const float* x, int n) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        if (x[i] > 0.f) {
            unsigned here = __activemask();
            int lane = threadIdx.x % 32, leader = __ffs(here) - 1;
            int base = 0;
            if (lane == leader) base = atomicAdd(count, __popc(here));
            base = __shfl_sync(here, base, leader);
            out[base + __popc(here & ((1u << lane) - 1))] = x[i];
        }
    }
}

// Byte counters packed four to a word, private to each thread: no atomics, one merge.
extern "C" __global__ void histogram_packed(int* bins, const unsigned char* x, int n) {
    __shared__ unsigned packed[4][64];  // 16 bins of a byte per thread
    for (int w = 0; w < 4; ++w) packed[w][threadIdx.x] = 0;
    unsigned char* bytes = reinterpret_cast<unsigned char*>(packed);
    for (int i = threadIdx.x; i < n; i += 64) {
        int bin = x[i] & 15;
        ++bytes[(bin / 4 * 64 + threadIdx.x) * 4 + bin % 4];
    }
    __syncthreads();
    if (threadIdx.x < 16) {
        int bin = threadIdx.x, sum = 0;
        for (int t = 0; t < 64; ++t) sum += bytes[(bin / 4 * 64 + t) * 4 + bin % 4];
        bins[bin] = sum;
    }
}
