"""CUDA sources whose PTX has every kind of declaration and statement that NVRTC writes."""

from __future__ import annotations

LANGUAGE = r"""
struct S { int a; float b[3]; double c; };
__constant__ float coef[2][3] = {{1.f, 2.f, 3.f}, {4.f, 5.f, 6.f}};
__device__ int counter = 7;
__device__ unsigned long long big = 0x123456789abcdef0ull;
__device__ float table[16] = {0.5f, -0.f, 1e30f};
__device__ float* middle = table + 3;
__device__ char text[] = "hello";
__device__ const char* names[3] = {"a", "bc", text + 1};
__device__ S record = {1, {2, 3, 4}, 5.0};
typedef float (*Function)(float);
__device__ __noinline__ float square(float x) { return x * x + 1; }
__device__ __noinline__ float cube(float x) { return x * x * x; }
__device__ Function functions[2] = {square, cube};
extern __shared__ __align__(16) unsigned char dynamic[];

extern "C" __global__ void add(float* __restrict__ a, const float* __restrict__ b, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) a[i] += b[i] * coef[i & 1][i % 3];
}
extern "C" __global__ __launch_bounds__(256, 2) void tile(float* a, S s, char c, short h) {
    __shared__ float buf[32][33];
    int t = threadIdx.x;
    buf[t >> 5][t & 31] = a[t];
    __syncthreads();
    ((float*)dynamic)[t] = buf[t & 31][t >> 5] + s.b[t % 3] + record.b[t % 3] + c + h;
    __syncthreads();
    a[t] = ((float*)dynamic)[255 - t] + s.c + middle[t & 3];
    atomicAdd(&counter, (int)big);
}
extern "C" __global__ void indirect(float* a, int n) {
    int t = threadIdx.x;
    a[t] = functions[n & 1](a[t]) + functions[1](t);
    printf("t %d %s %f\n", t, names[t % 3], a[t]);
}
__device__ __noinline__ int factorial(int n) { return n <= 1 ? 1 : n * factorial(n - 1); }
__device__ __noinline__ S changed(S s, int k) { s.a += k; s.b[1] = k; return s; }
extern "C" __global__ void calls(S* s, int n) {
    s[threadIdx.x] = changed(changed(s[threadIdx.x], n), factorial(n));
    if (n == 3) __trap();
}
extern "C" __global__ void local(float* a, int n) {
    float l[20];
    for (int i = 0; i < 20; i++) l[i] = a[i * n];
    #pragma unroll 1
    for (int i = 0; i < n; i++) l[(i * 7) % 20] += l[i % 20];
    a[threadIdx.x] = l[n] + sin((double)l[1]) + powf(l[2], 1.5f);
}
extern "C" __global__ void choose(int* a, int n) {
    int t = threadIdx.x, r = 0;
    switch (a[t]) {
        case 0: r = n; break;
        case 1: r = a[1] * 3; break;
        case 2: r = a[2] / n; break;
        case 3: r = __popc(n); break;
        case 4: r = a[3] ^ n; break;
        default: r = -1;
    }
    a[t] = r;
}
"""

INLINED = """
__device__ __forceinline__ float inner(float x) {
    return x * x + __shfl_down_sync(~0u, x, 1);
}
__device__ __forceinline__ float outer(float x) {
    float y = inner(x);
    return y + inner(y);
}
extern "C" __global__ void chain(float* a) {
    float z = outer(a[threadIdx.x]);
    a[threadIdx.x] = outer(z);
}
"""

HALF = """
#include <cuda_fp16.h>
#include <cuda_bf16.h>
#include <cuda_fp8.h>
extern "C" __global__ void halves(__half* a, __half2* b, __nv_bfloat16* c, __nv_bfloat162* d) {
    int t = threadIdx.x;
    a[t] = __hfma(a[t], a[t + 1], __float2half(0.3f)) + hexp(a[t]) + __hmax(a[t], a[t + 2]);
    b[t] = __hfma2(b[t], b[t + 1], __float2half2_rn(1.5f));
    c[t] = __hadd(c[t], hlog(c[t]));
    d[t] = __hmul2(d[t], h2exp(d[t + 1]));
    atomicAdd(b + t, b[t + 1]);
}
extern "C" __global__ void bytes(__nv_fp8_e4m3* a, __nv_fp8x2_e5m2* b, float2* g) {
    int t = threadIdx.x;
    a[t] = __nv_fp8_e4m3(float(a[t + 1]) * g[t].x);
    b[t] = __nv_fp8x2_e5m2(g[t]);
}
"""

ASSEMBLY = r"""
extern "C" __global__ void assembly(float* a, unsigned* u, unsigned long long* l, int n) {
    int t = threadIdx.x;
    float x = a[t];
    unsigned r, s = t;
    unsigned long long q;
    for (int i = 0; i < n; i++) {
        asm volatile("{ .reg .pred p; .reg .b32 t1, t2;\n\t setp.gt.f32 p, %1, 0f00000000;\n\t"
                     " selp.f32 %0, %1, 0f3F800000, p; mov.b32 t1, 3; mov.b32 t2, t1;}"
                     : "=f"(x) : "f"(x));
        asm volatile("{\n .reg .pred P1;\n WAIT:\n setp.ne.u32 P1, %0, %0;\n @P1 bra DONE;\n"
                     " @P1 bra.uni WAIT;\n DONE:\n }" :: "r"(t));
    }
    asm("mov.u32 %0, %%laneid;" : "=r"(r));
    asm volatile("mov.u64 %0, %%clock64;" : "=l"(q));
    asm("mov.b64 {%0,%1}, %2;" : "=r"(r), "=r"(s) : "l"(q));
    asm("add.u32 %0, %1, (1<<4)|3;" : "=r"(r) : "r"(s));
    asm("add.s32 %0, %1, -0x1;" : "=r"(r) : "r"(r));
    asm("add.u32 %0, %1, 0b101U;" : "=r"(r) : "r"(r));
    asm("add.f32 %0, %1, 1.5;" : "=f"(x) : "f"(x));
    asm("mad.lo.u32 %0, %1, WARP_SZ, 017;" : "=r"(r) : "r"(r));
    asm volatile("{.reg .b16 lo, hi; mov.b32 {lo, hi}, %0; mov.b32 {lo, _}, %0;}" :: "r"(r));
    asm volatile("{.reg .pred p; shfl.sync.down.b32 %0|p, %1, 1, 31, -1; @p add.u32 %0, %0, 1;}"
                 : "=r"(r) : "r"(s));
    asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0,%1}, [%2+8];"
                 : "=r"(r), "=r"(s) : "l"(u));
    asm volatile("st.global.v2.u32 [%0+-8], {%1, %2};" :: "l"(u), "r"(r), "r"(s) : "memory");
    asm volatile("// a comment\n\t/* another; {one} */ mov.u32 %0, %1; // last" : "=r"(r) : "r"(r));
    a[t] = x; u[t] = r + s; l[t] = q;
}
"""

ARCHS = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_90a", "sm_100", "sm_120")
