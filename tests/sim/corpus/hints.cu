// Cache hints, prefetches, wide and hinted atomics, and the ways to have shared memory.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

// Loads and stores with every cache operator that CUDA C++ has.
extern "C" __global__ void cached_copies(const float* x, float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float sum = __ldg(&x[i]) + __ldca(&x[i + n]) + __ldcg(&x[i + 2 * n]) + __ldcs(&x[i + 3 * n])
              + __ldlu(&x[i + 4 * n]) + __ldcv(&x[i + 5 * n]);
    __stwb(&y[i], sum);
    __stcg(&y[i + n], sum * 2);
    __stcs(&y[i + 2 * n], sum * 3);
    __stwt(&y[i + 3 * n], sum * 4);
}

// Vectors of every width through the read-only path.
extern "C" __global__ void read_only(const double2* __restrict__ a, const uint4* __restrict__ b,
                                     const short2* __restrict__ c, const uchar4* __restrict__ d,
                                     double* __restrict__ y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    double2 p = __ldg(&a[i]);
    uint4 q = __ldg(&b[i]);
    short2 r = __ldg(&c[i]);
    uchar4 s = __ldg(&d[i]);
    y[i] = p.x + p.y + q.x + q.y + q.z + q.w + r.x + r.y + s.x + s.y + s.z + s.w;
}

// A prefetch a step ahead; those past the end fall away with the predicate.
extern "C" __global__ void prefetched_sum(const float* x, float* y, int n, int pitch) {
    int t = blockIdx.x * blockDim.x + threadIdx.x;
    float sum = 0.0f;
    for (int i = t; i < n; i += pitch) {
        if (i + pitch < n) {
            asm volatile("prefetch.global.L2 [%0];" :: "l"(&x[i + pitch]));
            asm volatile("prefetch.global.L1 [%0];" :: "l"(&x[i + pitch]));
        }
        sum += x[i];
    }
    y[t] = sum;
}

#if __CUDA_ARCH__ >= 800
// Eviction policies: what is read again is to stay in L2, what streams by is not.
extern "C" __global__ void policies(const float4* x, const float4* weights, float4* y, int n,
                                    int period) {
    unsigned long long keep, stream;
    asm("createpolicy.fractional.L2::evict_last.b64 %0, 0.5;" : "=l"(keep));
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(stream));
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        float4 a, b;
        asm volatile("ld.global.nc.L1::no_allocate.L2::cache_hint.v4.f32 "
                     "{%0, %1, %2, %3}, [%4], %5;"
                     : "=f"(a.x), "=f"(a.y), "=f"(a.z), "=f"(a.w) : "l"(&x[i]), "l"(stream));
        asm volatile("ld.global.L2::cache_hint.L2::128B.v4.f32 {%0, %1, %2, %3}, [%4], %5;"
                     : "=f"(b.x), "=f"(b.y), "=f"(b.z), "=f"(b.w)
                     : "l"(&weights[i % period]), "l"(keep));
        asm volatile("st.global.L1::no_allocate.L2::cache_hint.v4.f32 [%0], {%1, %2, %3, %4}, %5;"
                     :: "l"(&y[i]), "f"(a.x * b.x), "f"(a.y * b.y), "f"(a.z * b.z), "f"(a.w * b.w),
                        "l"(stream) : "memory");
    }
}

// redux.sync: every sum, extremum and bit operation of a warp in one instruction.
extern "C" __global__ void redux(const int* x, int* y) {
    int v = x[blockIdx.x * 32 + threadIdx.x], lane = threadIdx.x;
    int results[7] = {__reduce_add_sync(~0u, v), __reduce_min_sync(~0u, v),
                      __reduce_max_sync(~0u, v),
                      static_cast<int>(__reduce_min_sync(~0u, static_cast<unsigned>(v))),
                      static_cast<int>(__reduce_and_sync(~0u, static_cast<unsigned>(v))),
                      static_cast<int>(__reduce_or_sync(~0u, static_cast<unsigned>(v))),
                      static_cast<int>(__reduce_xor_sync(~0u, static_cast<unsigned>(v)))};
    for (int i = 0; i < 7; i++)
        if (lane == i) y[blockIdx.x * 8 + i] = results[i];
    if (lane < 12) {  // twelve lanes by themselves
        int part = __reduce_add_sync(0xfffu, v);
        if (lane == 11) y[blockIdx.x * 8 + 7] = part;
    }
}
#endif

// Two values an atomic; odd places also tell what was there before.
extern "C" __global__ void packed_half(const __half2* x, const int* index, __half2* sums,
                                       unsigned* before, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        unsigned old = 0, v = *reinterpret_cast<const unsigned*>(&x[i]);
        if (index[i] % 2)
            asm volatile("atom.global.add.noftz.f16x2 %0, [%1], %2;"
                         : "=r"(old) : "l"(&sums[index[i]]), "r"(v) : "memory");
        else
            asm volatile("red.global.add.noftz.f16x2 [%0], %1;"
                         :: "l"(&sums[index[i]]), "r"(v) : "memory");
        before[i] = old;
    }
}

#if __CUDA_ARCH__ >= 900
extern "C" __global__ void packed_bfloat16(const __nv_bfloat162* x, const int* index,
                                           __nv_bfloat162* sums, unsigned* before, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        unsigned old = 0, v = *reinterpret_cast<const unsigned*>(&x[i]);
        if (index[i] % 2)
            asm volatile("atom.global.add.noftz.bf16x2 %0, [%1], %2;"
                         : "=r"(old) : "l"(&sums[index[i]]), "r"(v) : "memory");
        else
            atomicAdd(&sums[index[i]], x[i]);
        before[i] = old;
    }
}

// Embedding gradients, four floats a reduction; the width is a multiple of four.
extern "C" __global__ void vector_reductions(const float* d_out, const int* tokens, float* d_table,
                                             int count, int width) {
    int row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= count) return;
    const float* from = d_out + row * width;
    float* to = d_table + tokens[row] * width;
    for (int i = threadIdx.x * 4; i < width; i += blockDim.x * 4)
        asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};"
                     :: "l"(to + i), "f"(from[i]), "f"(from[i + 1]), "f"(from[i + 2]),
                        "f"(from[i + 3]) : "memory");
}

extern "C" __global__ void vector_atomics(const float2* x, const int* index, float2* sums,
                                          float2* before, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        asm volatile("red.global.v2.f32.add [%0], {%1, %2};"
                     :: "l"(&sums[index[i]]), "f"(x[i].x), "f"(x[i].y) : "memory");
        float a, b;
        asm volatile("atom.global.v2.f32.add {%0, %1}, [%2], {%3, %4};"
                     : "=f"(a), "=f"(b)
                     : "l"(&sums[index[i] + 8]), "f"(1.0f), "f"(-1.0f) : "memory");
        before[i] = make_float2(a, b);
    }
}

// One leader a warp; and what makes a launch depend on the one before it.
extern "C" __global__ void elected(const int* x, int* y, int n) {
    asm volatile("griddepcontrol.wait;" ::: "memory");
    int i = blockIdx.x * blockDim.x + threadIdx.x, v = i < n ? x[i] : 0;
    v = __reduce_add_sync(~0u, v);
    unsigned leader, mine;
    asm volatile("{\n\t.reg .pred p;\n\telect.sync %0|p, 0xffffffff;\n\tselp.u32 %1, 1, 0, p;\n\t}"
                 : "=r"(leader), "=r"(mine));
    if (mine) atomicAdd(y, v * (leader == threadIdx.x % 32));
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}
#endif

// More shared memory than a kernel has without asking: 60 KB, a histogram of large numbers.
constexpr int BINS = 15000;

extern "C" __global__ void large_shared(const unsigned short* x, unsigned* most, int n) {
    extern __shared__ unsigned bins[];
    __shared__ unsigned best;
    for (int i = threadIdx.x; i < BINS; i += blockDim.x) bins[i] = 0;
    if (threadIdx.x == 0) best = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += blockDim.x) atomicAdd(&bins[x[i] / 4], 1);
    __syncthreads();
    for (int i = threadIdx.x; i < BINS; i += blockDim.x)
        if (bins[i]) atomicMax(&best, bins[i] << 14 | (BINS - i));
    __syncthreads();
    if (threadIdx.x == 0) *most = best;
}

// Static and dynamic shared memory together, the dynamic part cut into arrays of several types.
extern "C" __global__ void carved(const double* d, const float* f, const char* c, double* y,
                                  int n) {
    extern __shared__ __align__(16) unsigned char memory[];
    __shared__ double totals[64];
    double* ds = reinterpret_cast<double*>(memory);
    float* fs = reinterpret_cast<float*>(ds + n);
    char* cs = reinterpret_cast<char*>(fs + n);
    int t = threadIdx.x;
    for (int i = t; i < n; i += 64) ds[i] = d[i], fs[i] = f[i], cs[i] = c[i];
    __syncthreads();
    double sum = 0.0;
    for (int i = t; i < n; i += 64) sum += ds[n - 1 - i] * fs[i] + cs[(i + 1) % n];
    totals[t] = sum;
    __syncthreads();
    for (int half = 32; half; half /= 2) {
        if (t < half) totals[t] += totals[t + half];
        __syncthreads();
    }
    if (t == 0) y[blockIdx.x] = totals[0];
}

// As many threads as a block may have, or fewer, with a last warp that is cut short.
extern "C" __global__ void __launch_bounds__(1024, 1) full_block(const int* x, int* y) {
    __shared__ int warps[32];
    int t = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    int size = blockDim.x * blockDim.y * blockDim.z, lane = t % 32;
    int lanes = min(32, size - t / 32 * 32);
    unsigned mask = lanes == 32 ? ~0u : (1u << lanes) - 1;
    int sum = x[t];
    for (int step = 16; step; step /= 2) {
        int other = __shfl_down_sync(mask, sum, step);
        if (lane + step < lanes) sum += other;
    }
    if (lane == 0) warps[t / 32] = sum;
    __syncthreads();
    if (t == 0) {
        int total = 0;
        for (int w = 0; w < (size + 31) / 32; w++) total += warps[w];
        *y = total;
    }
}
