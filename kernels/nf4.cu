// Products with weights in NF4 (Dettmers et al. 2023): 16 values, two codes to a byte, times a scale
// for each block of 1 << shift weights.  Scales are floats (S is float), or 8-bit ones (unsigned char)
// times `more`, a float for each 256 of them, plus their mean.
//
// A weight (n, k) lies row by row.  Vectors are 8 codes, a word, which never cross a block or a row.
#include "gemm_tile.cuh"
#include "rows.cuh"

namespace {

template <typename S>
struct nf4_scales {
  const S* scales;
  const float* more;
  float mean;

  __device__ __forceinline__ nf4_scales(const S* scales, const float* more, const float* mean)
      : scales(scales), more(more), mean(mean ? *mean : 0.0f) {}

  __device__ __forceinline__ float of(ml_index block) const {
    if constexpr (sizeof(S) == 4) {
      return scales[block];
    } else {
      // A float of 4 bits of exponent and 3 of mantissa is a half whose exponent is 8 too small.
      const unsigned code = scales[block];
      const float near = __half2float(__ushort_as_half((code & 0x80) << 8 | (code & 0x7f) << 7));
      return mean + more[block >> 8] * (near * 256.0f);
    }
  }
};

// The 16 values from the table of both values of each byte.
__device__ __forceinline__ void nf4_values(float* table, const float* values) {
  if (threadIdx.x < 16) table[threadIdx.x] = values[2 * threadIdx.x];
  __syncthreads();
}

}  // namespace

// Elements first to first + count of the weight, as T; M is what the weight is rounded to before.
// E is 8 where all of them, and the blocks, are vectors, else 1.
template <typename T, typename M, typename S, int E>
__global__ void __launch_bounds__(256)
nf4_whole(T* out, const unsigned char* __restrict__ codes, const S* scales, const float* more,
          const float* mean, const float* values, ml_index first, ml_index count, int block) {
  __shared__ float table[16];
  nf4_values(table, values);
  const nf4_scales<S> from(scales, more, mean);
  const ml_index i = (ml_index(blockIdx.x) * 256 + threadIdx.x) * E;
  if (i >= count) return;
  const ml_index at = first + i;
  const float scale = from.of(at / block);
  unsigned word;
  if constexpr (E == 8) word = *reinterpret_cast<const unsigned*>(codes + at / 2);
  else word = codes[at / 2] >> at % 2 * 4;
  ml_vec<T, E> made;
#pragma unroll
  for (int e = 0; e < E; ++e)
    made.at[e] = ml_cast<T>(ml_cast<ml_wide<M>>(ml_cast<M>(table[word >> 4 * e & 15] * scale)));
#pragma unroll
  for (int e = 0; e < E; ++e) out[i + e] = made.at[e];
}

// y = x @ weight.T for at most ROWS rows of x (m, k).  A warp makes one column of y.
template <typename T, typename S, int ROWS>
__global__ void __launch_bounds__(256)
nf4_gemv(T* y, const T* __restrict__ x, const unsigned char* __restrict__ codes, const S* scales,
         const float* more, const float* mean, const float* values, int m, int n, int k, int shift) {
  typedef ml_wide<T> W;
  const int UNROLL = 4;
  __shared__ float table[16];
  nf4_values(table, values);
  const nf4_scales<S> from(scales, more, mean);
  const int column = blockIdx.x * 8 + ml_warp(), words = k / 8;
  if (column >= n) return;
  const ml_index start = ml_index(column) * words;
  const unsigned* line = reinterpret_cast<const unsigned*>(codes) + start;
  W sums[ROWS];
#pragma unroll
  for (int r = 0; r < ROWS; ++r) sums[r] = W(0);
  for (int i = ml_lane(); i < words; i += 32 * UNROLL) {
    unsigned word[UNROLL];
    float scale[UNROLL];
#pragma unroll
    for (int u = 0; u < UNROLL; ++u) {
      if (i + 32 * u >= words) continue;
      word[u] = line[i + 32 * u];
      scale[u] = from.of((start + i + 32 * u) * 8 >> shift);
    }
#pragma unroll
    for (int u = 0; u < UNROLL; ++u) {
      if (i + 32 * u >= words) continue;
      W w[8];
#pragma unroll
      for (int e = 0; e < 8; ++e) w[e] = W(table[word[u] >> 4 * e & 15] * scale[u]);
#pragma unroll
      for (int r = 0; r < ROWS; ++r) {
        if (r >= m) continue;
        W given[8];
        take<8>(given, x + ml_index(r) * k + (i + 32 * u) * 8);
#pragma unroll
        for (int e = 0; e < 8; ++e) sums[r] += given[e] * w[e];
      }
    }
  }
#pragma unroll
  for (int r = 0; r < ROWS; ++r) {
    const W sum = ml_warp_sum(sums[r]);
    if (r < m && ml_lane() == r) y[ml_index(r) * n + column] = ml_cast<T>(sum);
  }
}

// x (m, deep) times the weight, of rows of `line` elements: its transpose (DEEP: the sums are along its
// rows, and n counts these), or itself (the sums are over its rows, and n is `line`).  Halves, on tensor
// cores: a block makes 64 x 64, its four warps 32 x 32 each; codes become halves on their way from
// registers to the tile of shared memory that is read next.
template <typename T, typename S, bool DEEP>
__global__ void __launch_bounds__(128)
nf4_gemm(T* y, const T* __restrict__ x, const unsigned char* __restrict__ codes, const S* scales,
         const float* more, const float* mean, const float* values, int m, int n, int deep, int line,
         int shift) {
  const int SIDE = 64, COUNT = 4, STEPS = SIDE / 16;  // words of a thread in a tile
  using Tile = ml_tile<T, SIDE, SIDE, true>;
  using Right = ml_tile<T, SIDE, SIDE, DEEP>;
  __shared__ float table[16];
  __shared__ __align__(128) unsigned char pool[2 * (Tile::BYTES + Right::BYTES)];
  nf4_values(table, values);
  const nf4_scales<S> from(scales, more, mean);
  const int lane = ml_lane(), warp = ml_warp();
  const int tiles = (n + SIDE - 1) / SIDE;
  const int m0 = blockIdx.x / tiles * SIDE, n0 = blockIdx.x % tiles * SIDE;
  const int warp_m = warp / 2 * 32, warp_n = warp % 2 * 32;
  const unsigned left = ml_shared(pool), right = left + 2 * Tile::BYTES;
  ml_tile_copy<T, SIDE, SIDE, 128, true, 16> copy(x, deep, m0, m, 0, threadIdx.x);
  const ml_fragments<T, SIDE, SIDE, true, true, 2> read_a(warp_m, lane);
  const ml_fragments<T, SIDE, SIDE, DEEP, false, 2> read_b(warp_n, lane);
  const int first = threadIdx.x / 8, chunk = threadIdx.x % 8;  // its first line of a tile, and word

  unsigned word[COUNT];
  float scale[COUNT];
  const auto fetch = [&](int k0) {  // the next tile's words and their scales
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
      const int row = (DEEP ? n0 : k0) + first + 16 * i, column = (DEEP ? k0 : n0) + 8 * chunk;
      word[i] = 0;
      scale[i] = 0.0f;
      if (row >= (DEEP ? n : deep) || column >= line) continue;
      const ml_index at = ml_index(row) * line + column;
      word[i] = *reinterpret_cast<const unsigned*>(codes + at / 2);
      scale[i] = from.of(at >> shift);
    }
  };
  const auto put = [&](unsigned tile) {
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
      unsigned r[4];
#pragma unroll
      for (int j = 0; j < 4; ++j)
        r[j] = ml_pack<T>(table[word[i] >> 8 * j & 15] * scale[i],
                          table[word[i] >> (8 * j + 4) & 15] * scale[i]);
      asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};"
                   :: "r"(tile + Right::place(first + 16 * i, chunk)), "r"(r[0]), "r"(r[1]),
                      "r"(r[2]), "r"(r[3]) : "memory");
    }
  };

  float sums[2][4][4];
#pragma unroll
  for (int i = 0; i < 2; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) sums[i][j][e] = 0.0f;
  copy.fetch(left, deep, deep, x);
  copy.put(left);
  ml_copy_commit();
  fetch(0);
  put(right);
  for (int k0 = 0; k0 < deep; k0 += SIDE) {
    const int now = k0 / SIDE % 2, next = now ^ 1;
    const bool more_tiles = k0 + SIDE < deep;
    ml_copy_wait<0>();
    __syncthreads();
    if (more_tiles) {
      copy.fetch(left + next * Tile::BYTES, deep - k0 - SIDE, deep, x);
      fetch(k0 + SIDE);
    }
    ml_copy_commit();
#pragma unroll
    for (int step = 0; step < STEPS; ++step) {
      unsigned fa[2][4], fb[2][4];
      read_a.load(fa, left + now * Tile::BYTES, step);
      read_b.load(fb, right + now * Right::BYTES, step);
#pragma unroll
      for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j)
          ml_tile_mma<T>(sums[i][j], fa[i], fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1]);
    }
    if (more_tiles) {
      copy.put(left + next * Tile::BYTES);
      put(right + next * Right::BYTES);
    }
  }
  __syncthreads();  // the tiles give their place to the sums

  const int LD = 40;  // floats of a staged line of 32
  float* stage = reinterpret_cast<float*>(pool) + warp * 16 * LD;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int low = 0; low < 2; ++low)
        *reinterpret_cast<float2*>(stage + (8 * low + (lane >> 2)) * LD + 8 * j + 2 * (lane & 3)) =
            make_float2(sums[i][j][2 * low], sums[i][j][2 * low + 1]);
    __syncwarp();
#pragma unroll
    for (int r = lane / 4; r < 16; r += 8) {
      const int row = m0 + warp_m + 16 * i + r, column = n0 + warp_n + lane % 4 * 8;
      const float* p = stage + r * LD + lane % 4 * 8;
      // Quarter-warps meet no bank twice: half of the lanes begin with their second vector.
      const bool late = lane & 4;
      const float4 one = *reinterpret_cast<const float4*>(p + (late ? 4 : 0));
      const float4 two = *reinterpret_cast<const float4*>(p + (late ? 0 : 4));
      const float4 low = late ? two : one, high = late ? one : two;
      const float v[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
      if (row >= m) continue;
      T* to = y + ml_index(row) * n + column;
      if (n % 8 == 0 && column < n) {
        ml_vec<T, 8> out;
#pragma unroll
        for (int e = 0; e < 8; ++e) out.at[e] = ml_cast<T>(v[e]);
        ml_store<8>(to, out);
      } else {
#pragma unroll
        for (int e = 0; e < 8; ++e)
          if (column + e < n) to[e] = ml_cast<T>(v[e]);
      }
    }
    __syncwarp();
  }
}
