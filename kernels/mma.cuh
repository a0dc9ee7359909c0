// Tensor-core products of a warp, the loads that feed them, and asynchronous copies.  What a target
// lacks is done by plain instructions, so that one source serves all: sm_75 has no cp.async, no
// m16n8k16 and neither bf16 nor tf32.
//
// Fragments of m16n8k16, for lane l of the warp; T is __half or __nv_bfloat16, two in a register:
//   A (16x16)  a[0]: row l/4, columns 2(l%4), +1    a[1]: 8 rows lower
//              a[2], a[3]: the same 8 columns to the right
//   B (16x8)   b[0]: rows 2(l%4), +1 of column l/4  b[1]: 8 rows lower
//   C (16x8)   c[0], c[1]: row l/4, columns 2(l%4), +1    c[2], c[3]: 8 rows lower
// Two neighbouring C tiles (16x16), packed by ml_pack, are the A fragment of the next product.
// m16n8k8 of tf32 has one float in a register: A a[0]: row l/4, column l%4; a[1]: 8 rows lower; a[2],
// a[3]: 4 columns to the right.  B b[0]: row l%4, column l/4; b[1]: 4 rows lower.  C as above.
//
// ldmatrix.x4 fills the four registers of A, or b[0], b[1] of two neighbouring B tiles (8 columns
// each).  Which 16-byte row of which 8x8 block a lane points at:
//   A stored [m][k]:            row m0 + ml_lane_deep(l), chunk k0/8 + ml_lane_right(l)
//   A stored [k][m], _trans:    row k0 + ml_lane_wide(l), chunk m0/8 + ml_lane_low(l)
//   B stored [n][k]:            row n0 + ml_lane_wide(l), chunk k0/8 + ml_lane_low(l)
//   B stored [k][n], _trans:    row k0 + ml_lane_deep(l), chunk n0/8 + ml_lane_right(l)
#pragma once
#include "common.cuh"

#if __CUDA_ARCH__ >= 800
#define ML_AMPERE 1
#else
#define ML_AMPERE 0
#endif

__device__ __forceinline__ int ml_lane_deep(int lane) { return lane & 15; }
__device__ __forceinline__ int ml_lane_right(int lane) { return lane >> 4; }
__device__ __forceinline__ int ml_lane_wide(int lane) { return ((lane >> 4) << 3) + (lane & 7); }
__device__ __forceinline__ int ml_lane_low(int lane) { return (lane >> 3) & 1; }

// --- shared memory -------------------------------------------------------------------------------

__device__ __forceinline__ unsigned ml_shared(const void* p) {
  return unsigned(__cvta_generic_to_shared(p));
}

// Where 16-byte chunk `chunk` of row `row` is kept in a tile whose rows have CHUNKS of them (2, 4 or a
// multiple of 8), so that ldmatrix, and copies along rows, meet no bank twice.
template <int CHUNKS>
__device__ __forceinline__ int ml_swizzle(int row, int chunk) {
  static_assert(CHUNKS == 2 || CHUNKS == 4 || CHUNKS % 8 == 0, "no rule for rows of this length");
  if constexpr (CHUNKS == 2) return chunk ^ ((row >> 2) & 1);
  else if constexpr (CHUNKS == 4) return chunk ^ ((row >> 1) & 3);
  else return (chunk & ~7) + ((chunk ^ row) & 7);
}

// The same as an offset in bytes from the start of the tile.
template <int CHUNKS>
__device__ __forceinline__ int ml_swizzled(int row, int chunk) {
  return (row * CHUNKS + ml_swizzle<CHUNKS>(row, chunk)) * 16;
}

__device__ __forceinline__ void ml_ldmatrix(unsigned (&r)[4], unsigned shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared) : "memory");
}
__device__ __forceinline__ void ml_ldmatrix(unsigned (&r)[2], unsigned shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1]) : "r"(shared) : "memory");
}
__device__ __forceinline__ void ml_ldmatrix_trans(unsigned (&r)[4], unsigned shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared) : "memory");
}
__device__ __forceinline__ void ml_ldmatrix_trans(unsigned (&r)[2], unsigned shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1]) : "r"(shared) : "memory");
}

// --- asynchronous copies -------------------------------------------------------------------------

// BYTES (4, 8 or 16) from global to shared memory, or as many zeros where not `valid`: then nothing is
// read, but the address must still be one of the array's.  16 bytes pass by the L1 cache unless CACHED.
template <int BYTES, bool CACHED = false>
__device__ __forceinline__ void ml_copy_async(unsigned shared, const void* global, bool valid) {
  static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "cp.async copies 4, 8 or 16 bytes");
#if ML_AMPERE
  const int size = valid ? BYTES : 0;
  if constexpr (BYTES == 16 && !CACHED)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :: "r"(shared), "l"(__cvta_generic_to_global(global)), "r"(size) : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;"
                 :: "r"(shared), "l"(__cvta_generic_to_global(global)), "n"(BYTES), "r"(size)
                 : "memory");
#else
  unsigned words[BYTES / 4];
#pragma unroll
  for (int i = 0; i < BYTES / 4; ++i) words[i] = 0;
  if (valid) {
    const auto v = ml_load<BYTES / 4>(static_cast<const unsigned*>(global));
#pragma unroll
    for (int i = 0; i < BYTES / 4; ++i) words[i] = v.at[i];
  }
  if constexpr (BYTES == 16)
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};"
                 :: "r"(shared), "r"(words[0]), "r"(words[1]), "r"(words[2]), "r"(words[3])
                 : "memory");
  else if constexpr (BYTES == 8)
    asm volatile("st.shared.v2.u32 [%0], {%1, %2};"
                 :: "r"(shared), "r"(words[0]), "r"(words[1]) : "memory");
  else
    asm volatile("st.shared.u32 [%0], %1;" :: "r"(shared), "r"(words[0]) : "memory");
#endif
}

__device__ __forceinline__ void ml_copy_commit() {
#if ML_AMPERE
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Until at most PENDING of this thread's groups are under way; a barrier must follow.
template <int PENDING>
__device__ __forceinline__ void ml_copy_wait() {
#if ML_AMPERE
  asm volatile("cp.async.wait_group %0;" :: "n"(PENDING) : "memory");
#endif
}

// --- products ------------------------------------------------------------------------------------

template <typename T> __device__ __forceinline__ unsigned ml_pack(float low, float high);
template <> __device__ __forceinline__ unsigned ml_pack<__half>(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  return *reinterpret_cast<const unsigned*>(&pair);
}
template <> __device__ __forceinline__ unsigned ml_pack<__nv_bfloat16>(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const unsigned*>(&pair);
}
template <typename T> __device__ __forceinline__ float2 ml_unpack(unsigned pair);
template <> __device__ __forceinline__ float2 ml_unpack<__half>(unsigned pair) {
  return __half22float2(*reinterpret_cast<const __half2*>(&pair));
}
template <> __device__ __forceinline__ float2 ml_unpack<__nv_bfloat16>(unsigned pair) {
  return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
}

// c += a * b in float32, from halves of type T.  All lanes of the warp take part.
template <typename T>
__device__ __forceinline__ void ml_mma(float (&c)[4], const unsigned (&a)[4],
                                       const unsigned (&b)[2]);

template <>
__device__ __forceinline__ void ml_mma<__half>(float (&c)[4], const unsigned (&a)[4],
                                               const unsigned (&b)[2]) {
#if ML_AMPERE
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
               "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
#pragma unroll
  for (int half = 0; half < 2; ++half)
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
                 "{%4, %5}, {%6}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[2 * half]), "r"(a[2 * half + 1]), "r"(b[half]));
#endif
}

template <>
__device__ __forceinline__ void ml_mma<__nv_bfloat16>(float (&c)[4], const unsigned (&a)[4],
                                                      const unsigned (&b)[2]) {
#if ML_AMPERE
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
               "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  // Every lane fetches the two rows of A and the two columns of B that its four sums need.
  const int lane = threadIdx.x & 31, row = lane & ~3, column = 8 * (lane & 3);
#pragma unroll
  for (int k = 0; k < 8; ++k) {  // pairs of k: lane k % 4 of a row or column, register by k / 4
    const int place = k & 3, right = 2 * (k >> 2);
    const float2 upper = ml_unpack<__nv_bfloat16>(__shfl_sync(~0u, a[right], row + place));
    const float2 lower = ml_unpack<__nv_bfloat16>(__shfl_sync(~0u, a[right + 1], row + place));
    const float2 left = ml_unpack<__nv_bfloat16>(__shfl_sync(~0u, b[k >> 2], column + place));
    const float2 next = ml_unpack<__nv_bfloat16>(__shfl_sync(~0u, b[k >> 2], column + 4 + place));
    c[0] += upper.x * left.x + upper.y * left.y;
    c[1] += upper.x * next.x + upper.y * next.y;
    c[2] += lower.x * left.x + lower.y * left.y;
    c[3] += lower.x * next.x + lower.y * next.y;
  }
#endif
}

// The float nearest to x among those with 10 bits of fraction, as ml_mma_tf32 wants them.
__device__ __forceinline__ unsigned ml_tf32(float x) {
#if ML_AMPERE
  unsigned rounded;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(x));
  return rounded;
#else
  return __float_as_uint(x);
#endif
}

// c += a * b from floats with the precision of tf32; m16n8k8.  Below sm_80: in float32.
__device__ __forceinline__ void ml_mma_tf32(float (&c)[4], const unsigned (&a)[4],
                                            const unsigned (&b)[2]) {
#if ML_AMPERE
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, "
               "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  const int lane = threadIdx.x & 31, row = lane & ~3, column = 8 * (lane & 3);
#pragma unroll
  for (int k = 0; k < 8; ++k) {
    const int place = k & 3, right = 2 * (k >> 2);
    const float upper = __uint_as_float(__shfl_sync(~0u, a[right], row + place));
    const float lower = __uint_as_float(__shfl_sync(~0u, a[right + 1], row + place));
    const float left = __uint_as_float(__shfl_sync(~0u, b[k >> 2], column + place));
    const float next = __uint_as_float(__shfl_sync(~0u, b[k >> 2], column + 4 + place));
    c[0] += upper * left;
    c[1] += upper * next;
    c[2] += lower * left;
    c[3] += lower * next;
  }
#endif
}

