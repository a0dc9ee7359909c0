// Random numbers by counter, and what is made of them: uniform, normal, dropout, choices.
#include <cuda_fp16.h>

// Philox 4x32 with ten rounds.
__device__ __forceinline__ uint4 philox(uint4 c, uint2 key) {
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        unsigned high0 = __umulhi(0xD2511F53u, c.x), low0 = 0xD2511F53u * c.x;
        unsigned high1 = __umulhi(0xCD9E8D57u, c.z), low1 = 0xCD9E8D57u * c.z;
        c = make_uint4(high1 ^ c.y ^ key.x, low1, high0 ^ c.w ^ key.y, low0);
        key.x += 0x9E3779B9u;
        key.y += 0xBB67AE85u;
    }
    return c;
}

extern "C" __global__ void philox_blocks(uint4* out, const uint4* counters, const uint2* keys, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = philox(counters[i], keys[i]);
}

__device__ __forceinline__ uint4 draw(unsigned long long seed, unsigned long long offset, int i) {
    return philox(make_uint4((unsigned)offset, (unsigned)(offset >> 32), i, 0),
                  make_uint2((unsigned)seed, (unsigned)(seed >> 32)));
}

__device__ __forceinline__ float unit(unsigned bits) { return (bits >> 8) * 0x1p-24f; }

// Four uniform numbers in [0, 1) per counter.
extern "C" __global__ void uniform(float4* out, int quads, unsigned long long seed,
                                   unsigned long long offset) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < quads) {
        uint4 r = draw(seed, offset, i);
        out[i] = make_float4(unit(r.x), unit(r.y), unit(r.z), unit(r.w));
    }
}

// Box and Muller: two normal numbers of two uniform ones.
extern "C" __global__ void normal(float* out, int n, unsigned long long seed) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < (n + 1) / 2; i += gridDim.x * blockDim.x) {
        uint4 r = draw(seed, 0, i);
        float radius = sqrtf(-2.f * logf(1.f - unit(r.x)));
        float s, c;
        sincospif(2.f * unit(r.y), &s, &c);
        out[2 * i] = radius * c;
        if (2 * i + 1 < n) out[2 * i + 1] = radius * s;
    }
}

// Dropout: the mask goes out as one bit per element, 32 lanes of a warp to a word by ballot.
extern "C" __global__ void dropout(float* y, unsigned* mask, const float* x, int n, float keep,
                                   unsigned long long seed) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    bool kept = false;
    if (i < n) {
        kept = unit(draw(seed, 1, i).x) < keep;
        y[i] = kept ? x[i] / keep : 0.f;
    }
    unsigned word = __ballot_sync(0xffffffffu, kept);
    if (threadIdx.x % 32 == 0 && i < n) mask[i / 32] = word;
}

// Its backward pass reads the bits; half2 gradients, two bits each.
extern "C" __global__ void dropout_backward(__half2* dx, const __half2* dy, const unsigned* mask,
                                            int pairs, float keep) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < pairs) {
        unsigned bits = mask[i / 16] >> (i % 16 * 2);
        float scale = 1.f / keep;
        float2 g = __half22float2(dy[i]);
        dx[i] = __floats2half2_rn(bits & 1 ? g.x * scale : 0.f, bits & 2 ? g.y * scale : 0.f);
    }
}

// A generator with a state per thread, kept in memory from launch to launch (xorshift128).
extern "C" __global__ void xorshift(unsigned* out, uint4* states, int steps) {
    int t = blockIdx.x * blockDim.x + threadIdx.x, threads = gridDim.x * blockDim.x;
    uint4 s = states[t];
    for (int k = 0; k < steps; ++k) {
        unsigned v = s.x ^ s.x << 11;
        s.x = s.y, s.y = s.z, s.z = s.w;
        s.w = s.w ^ s.w >> 19 ^ v ^ v >> 8;
        out[k * threads + t] = s.w;
    }
    states[t] = s;
}

// A token by its probability: the first whose cumulative sum passes the drawn number.
extern "C" __global__ void sample_rows(int* out, const float* p, int n, unsigned long long seed) {
    int lane = threadIdx.x;
    float target = unit(draw(seed, 2, blockIdx.x).x), before = 0.f;
    int found = n - 1;
    for (int start = 0; start < n; start += 32) {
        int i = start + lane;
        float v = i < n ? p[blockIdx.x * n + i] : 0.f;
        for (int step = 1; step < 32; step <<= 1) {
            float left = __shfl_up_sync(0xffffffffu, v, step);
            if (lane >= step) v += left;
        }
        unsigned passed = __ballot_sync(0xffffffffu, before + v > target && i < n);
        if (passed) {
            found = start + __ffs(passed) - 1;
            break;
        }
        before += __shfl_sync(0xffffffffu, v, 31);
    }
    if (lane == 0) out[blockIdx.x] = found;
}
