// Products of matrices without tensor cores: float32 in full precision, float64, integers (which wrap
// around), complex numbers, and halves where a GPU has no tensor instruction for them.
//
// T is stored, S computed in.  A thread makes TM x TN of a block's BM x BN, in pieces of 16 bytes of S;
// the lanes of a warp lie 4 x 8, so that reads of shared memory are broadcasts of 4 and of 8 vectors.
#include "gemm.cuh"

// Copies one operand's tiles of BK places of k to shared memory as [k][row], in two stages: VEC elements
// of it are read at a time and kept in registers while the last tile is used.
template <typename T, typename S, int ROWS, int BK, int THREADS, bool DEEP, int VEC>
struct ml_plain_tile {
  static constexpr int Q = 16 / sizeof(S);
  static constexpr int COUNT = ROWS * BK / VEC / THREADS;
  static constexpr int ACROSS = (DEEP ? BK : ROWS) / VEC;  // vectors of a line in memory
  static constexpr int GROUPS = BK / Q;
  // Vectors along k are stored element by element: where each goes to a row of its own, another place in
  // each group of rows keeps the lanes on different banks; a lone element needs longer rows for that.
  static constexpr bool TWISTED = DEEP && VEC > 1;
  static constexpr int LD = ROWS + (DEEP && VEC == 1 ? Q : 0);
  static_assert(COUNT > 0 && (VEC == 1 || VEC == Q), "every thread copies something");

  const T* matrix;
  ml_index ld;
  int row, rows;
  ml_vec<T, VEC> held[COUNT];

  static __device__ __forceinline__ int place(int k, int m) {
    return k * LD + (TWISTED ? m ^ (k / Q * int(128 / sizeof(S) / GROUPS)) : m);
  }

  __device__ __forceinline__ void fetch(int k, int k1) {
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
      const int at = threadIdx.x + i * THREADS, line = at / ACROSS, first = at % ACROSS * VEC;
      const int m = row + (DEEP ? line : first), depth = k + (DEEP ? first : line);
      if (m < rows && depth < k1) {
        held[i] = ml_load<VEC>(matrix + (DEEP ? m * ld + depth : depth * ld + m));
      } else {
#pragma unroll
        for (int e = 0; e < VEC; ++e) held[i].at[e] = ml_cast<T>(S(0));
      }
    }
  }

  __device__ __forceinline__ void put(S* tile) const {
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
      const int at = threadIdx.x + i * THREADS, line = at / ACROSS, first = at % ACROSS * VEC;
      if constexpr (DEEP) {
#pragma unroll
        for (int e = 0; e < VEC; ++e) tile[place(first + e, line)] = ml_cast<S>(held[i].at[e]);
      } else {
        ml_vec<S, VEC> v;
#pragma unroll
        for (int e = 0; e < VEC; ++e) v.at[e] = ml_cast<S>(held[i].at[e]);
        ml_store<VEC>(tile + place(line, first), v);
      }
    }
  }
};

// Whether a sum takes so many registers that loops and blocks must be modest.
template <typename S> struct ml_heavy { static const bool value = false; };
template <typename P> struct ml_heavy<ml_complex<P>> { static const bool value = true; };

template <typename T, typename S, int BM, int BN, int BK, int TM, int TN, bool A_DEEP, bool B_DEEP,
          int A_VEC, int B_VEC, bool SUMS>
__global__ void __launch_bounds__(BM * BN / TM / TN, ml_heavy<S>::value ? 1 : 2)
gemm_simt(const T* __restrict__ a, const T* __restrict__ b, T* out, const T* summand,
          const T* residual, T* pre, T* row_sums, S* partial, S* partial_row_sums, ml_gemm g) {
  const int THREADS = BM / TM * (BN / TN), Q = 16 / sizeof(S);
  const int UNROLL = SUMS || ml_heavy<S>::value || TM * TN > 32 ? 1 : 2;  // more, and registers run out
  using TileA = ml_plain_tile<T, S, BM, BK, THREADS, A_DEEP, A_VEC>;
  using TileB = ml_plain_tile<T, S, BN, BK, THREADS, B_DEEP, B_VEC>;
  __shared__ __align__(16) unsigned char pool[2 * BK * (TileA::LD + TileB::LD) * sizeof(S)];
  S* const tiles_a = reinterpret_cast<S*>(pool);
  S* const tiles_b = tiles_a + 2 * BK * TileA::LD;

  const int tiles_m = (g.m + BM - 1) / BM, tiles_n = (g.n + BN - 1) / BN;
  const int tiles = tiles_m * tiles_n;
  const int rest = blockIdx.x / tiles, split = rest % g.splits, batch = rest / g.splits;
  int tile_m, tile_n;
  ml_tile_of(blockIdx.x % tiles, tiles_m, tiles_n, tile_m, tile_n);
  const int m0 = tile_m * BM, n0 = tile_n * BN;
  const int k0 = split * g.split_k, k1 = g.k - k0 < g.split_k ? g.k : k0 + g.split_k;
  const ml_gemm_batch at = ml_batch_offsets(g, batch);
  TileA copy_a = {a + at.a, g.lda, m0, g.m};
  TileB copy_b = {b + at.b, g.ldb, n0, g.n};

  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, across = BN / (8 * TN);
  const int row = warp / across * 4 * TM + lane / 8 * Q;
  const int column = warp % across * 8 * TN + lane % 8 * Q;
  S sums[TM][TN];
#pragma unroll
  for (int i = 0; i < TM; ++i)
#pragma unroll
    for (int j = 0; j < TN; ++j) sums[i][j] = S(0);
  const bool summing = SUMS && tile_n == 0 && threadIdx.x < BM;
  S total = S(0);

  copy_a.fetch(k0, k1);
  copy_b.fetch(k0, k1);
  copy_a.put(tiles_a);
  copy_b.put(tiles_b);
  __syncthreads();
  int now = 0;
  for (int k = k0; k < k1; k += BK) {
    const bool more = k + BK < k1;
    if (more) {
      copy_a.fetch(k + BK, k1);
      copy_b.fetch(k + BK, k1);
    }
    const S* tile_a = tiles_a + now * BK * TileA::LD;
    const S* tile_b = tiles_b + now * BK * TileB::LD;
#pragma unroll UNROLL
    for (int d = 0; d < BK; ++d) {
      ml_vec<S, Q> left[TM / Q], right[TN / Q];
#pragma unroll
      for (int i = 0; i < TM / Q; ++i)
        left[i] = ml_load<Q>(tile_a + TileA::place(d, row + i * 4 * Q));
#pragma unroll
      for (int j = 0; j < TN / Q; ++j)
        right[j] = ml_load<Q>(tile_b + TileB::place(d, column + j * 8 * Q));
#pragma unroll
      for (int i = 0; i < TM; ++i)
#pragma unroll
        for (int j = 0; j < TN; ++j)
          sums[i][j] = sums[i][j] + left[i / Q].at[i % Q] * right[j / Q].at[j % Q];
    }
    if (summing) {
#pragma unroll
      for (int d = 0; d < BK; ++d) total = total + tile_a[TileA::place(d, threadIdx.x)];
    }
    now ^= 1;
    if (more) {
      copy_a.put(tiles_a + now * BK * TileA::LD);
      copy_b.put(tiles_b + now * BK * TileB::LD);
    }
    __syncthreads();
  }

  if (summing && m0 + threadIdx.x < g.m) {
    if (g.splits > 1) partial_row_sums[ml_index(split) * g.m + m0 + threadIdx.x] = total;
    else row_sums[m0 + threadIdx.x] = ml_cast<T>(total);
  }
  const ml_epilogue<T, S> epilogue(g, out, summand, residual, pre, batch, at.summand);
  const ml_index batches = gridDim.x / (tiles * g.splits);
  S* const mine = partial + (split * batches + batch) * g.m * g.n;
#pragma unroll
  for (int i = 0; i < TM; ++i) {
    const int r = m0 + row + i / Q * 4 * Q + i % Q;
    if (r >= g.m) continue;
#pragma unroll
    for (int j = 0; j < TN / Q; ++j) {
      const int c = n0 + column + j * 8 * Q;
      if (g.wide) {
        if (c >= g.n) continue;
        S v[Q], add[Q];
#pragma unroll
        for (int e = 0; e < Q; ++e) v[e] = sums[i][j * Q + e];
        if (g.splits > 1) {
          ml_vec<S, Q> packed;
#pragma unroll
          for (int e = 0; e < Q; ++e) packed.at[e] = v[e];
          ml_store<Q>(mine + ml_index(r) * g.n + c, packed);
        } else {
          if (summand) epilogue.addend(add, r, c);
          epilogue.store(v, add, r, c);
        }
      } else {
#pragma unroll
        for (int e = 0; e < Q; ++e) {
          if (c + e >= g.n) continue;
          S v[1] = {sums[i][j * Q + e]}, add[1];
          if (g.splits > 1) {
            mine[ml_index(r) * g.n + c + e] = v[0];
          } else {
            if (summand) epilogue.addend(add, r, c + e);
            epilogue.store(v, add, r, c + e);
          }
        }
      }
    }
  }
}

// The second stage of a product whose k is split: adds the pieces in order, E columns a thread, and does
// the rest.  Blocks beyond those of the result add the sums of a's rows.
template <typename T, typename S, int E>
__global__ void __launch_bounds__(256)
gemm_finish(T* out, const T* summand, const T* residual, T* pre, T* row_sums, const S* partial,
            const S* partial_row_sums, ml_gemm g, ml_index batches) {
  const ml_index matrix = ml_index(g.m) * g.n, vectors = batches * matrix / E;
  const ml_index blocks = (vectors + 255) / 256;
  if (blockIdx.x >= blocks) {
    const int row = (blockIdx.x - blocks) * 256 + threadIdx.x;
    if (row >= g.m) return;
    S total = S(0);
    for (int s = 0; s < g.splits; ++s)
      total = total + partial_row_sums[ml_index(s) * g.m + row];
    row_sums[row] = ml_cast<T>(total);
    return;
  }
  const ml_index at = (ml_index(blockIdx.x) * 256 + threadIdx.x) * E;
  if (at >= batches * matrix) return;
  S v[E], add[E];
#pragma unroll
  for (int e = 0; e < E; ++e) v[e] = S(0);
  for (int s = 0; s < g.splits; ++s) {
    const auto piece = ml_load<E>(partial + s * batches * matrix + at);
#pragma unroll
    for (int e = 0; e < E; ++e) v[e] = v[e] + piece.at[e];
  }
  const ml_index batch = at / matrix, place = at - batch * matrix;
  const int row = place / g.n, column = place - ml_index(row) * g.n;
  const ml_epilogue<T, S> epilogue(g, out, summand, residual, pre, batch,
                                   ml_batch_offsets(g, batch).summand);
  if (summand) epilogue.addend(add, row, column);
  epilogue.store(v, add, row, column);
}

// dy * activation'(pre): what reaches the product behind the activation.
template <typename T, typename S, int E>
__global__ void __launch_bounds__(256)
activation_backward(const T* __restrict__ dy, const T* __restrict__ pre, T* dx, ml_index n,
                    int activation) {
  const ml_index at = (ml_index(blockIdx.x) * 256 + threadIdx.x) * E;
  if (at >= n) return;
  if (n - at >= E) {
    const auto d = ml_load<E>(dy + at), x = ml_load<E>(pre + at);
    ml_vec<T, E> result;
#pragma unroll
    for (int e = 0; e < E; ++e)
      result.at[e] = ml_cast<T>(ml_cast<S>(d.at[e]) *
                                ml_activation_slope(ml_cast<S>(x.at[e]), activation));
    ml_store<E>(dx + at, result);
  } else {
    for (ml_index i = at; i < n; ++i)
      dx[i] = ml_cast<T>(ml_cast<S>(dy[i]) * ml_activation_slope(ml_cast<S>(pre[i]), activation));
  }
}
