// Products of matrices on tensor cores: halves, and floats with the precision of tf32.
//
// A block makes BM x BN of the result, its warps WM x WN each, from tiles of BK places of k that are
// copied STAGES - 1 ahead.  One barrier a tile: the stage that is filled next was last read before it.
// Fragments of halves are loaded one step ahead of the products that use them; for floats, registers do
// not suffice for that.
#include "gemm.cuh"
#include "gemm_tile.cuh"

template <typename T> struct ml_one;
template <> struct ml_one<__half> { static const unsigned value = 0x3c003c00u; };
template <> struct ml_one<__nv_bfloat16> { static const unsigned value = 0x3f803f80u; };
template <> struct ml_one<float> { static const unsigned value = 0x3f800000u; };

// 16 rows of a warp's sums, staged in its own part of shared memory so that rows leave in vectors of E
// elements.
template <typename T, int WN, int E, typename Sink>
__device__ __forceinline__ void ml_rows_out(float* stage, int row, int column, int m, int n,
                                            int lane, const Sink& sink) {
  const int LD = WN + 8;
  if (sink.wide) {
    const int LANES = WN / E, across = lane % LANES, first = column + across * E;
#pragma unroll
    for (int r = lane / LANES; r < 16; r += 32 / LANES) {
      const float* p = stage + r * LD + across * E;
      float v[E];
      if constexpr (E == 8) {
        // Quarter-warps meet no bank twice: half of the lanes begin with their second vector.
        const bool late = lane & 4;
        const float4 one = *reinterpret_cast<const float4*>(p + (late ? 4 : 0));
        const float4 two = *reinterpret_cast<const float4*>(p + (late ? 0 : 4));
        const float4 low = late ? two : one, high = late ? one : two;
        v[0] = low.x, v[1] = low.y, v[2] = low.z, v[3] = low.w;
        v[4] = high.x, v[5] = high.y, v[6] = high.z, v[7] = high.w;
      } else {
        const float4 all = *reinterpret_cast<const float4*>(p);
        v[0] = all.x, v[1] = all.y, v[2] = all.z, v[3] = all.w;
      }
      if (row + r < m && first < n) sink.template take<E>(v, row + r, first);
    }
  } else {
    for (int r = 0; r < 16 && row + r < m; ++r)
      for (int c = lane; c < WN && column + c < n; c += 32) {
        float v[1] = {stage[r * LD + c]};
        sink.template take<1>(v, row + r, column + c);
      }
  }
}

// To the result, through the epilogue.
template <typename T>
struct ml_to_result {
  const ml_epilogue<T, float>& epilogue;
  bool wide;
  template <int E>
  __device__ __forceinline__ void take(float (&v)[E], int row, int column) const {
    float add[E];
    if (epilogue.summand) epilogue.addend(add, row, column);
    epilogue.store(v, add, row, column);
  }
};

// To one split's sums, which gemm_finish adds.
struct ml_to_partial {
  float* sums;
  int n;
  bool wide;
  template <int E>
  __device__ __forceinline__ void take(float (&v)[E], int row, int column) const {
    ml_vec<float, E> packed;
#pragma unroll
    for (int e = 0; e < E; ++e) packed.at[e] = v[e];
    ml_store<E>(sums + ml_index(row) * n + column, packed);
  }
};

// `row_sums`, with SUMS: the sums of a's rows, which are a bias's gradient where a is dy transposed; in
// floats where k is split.
template <typename T, int BM, int BN, int BK, int WM, int WN, int STAGES, bool A_DEEP, bool B_DEEP,
          int A_WIDTH, int B_WIDTH, bool SUMS>
__global__ void __launch_bounds__(32 * BM * BN / WM / WN,
                                  BM * BN / WM / WN > 4 ? 1 : WM * WN < 4096 ? 3 : 2)
gemm(const T* __restrict__ a, const T* __restrict__ b, T* out, const T* summand,
     const T* residual, T* pre, T* row_sums, float* partial, float* partial_row_sums, ml_gemm g) {
  const int THREADS = BM / WM * (BN / WN) * 32, MT = WM / 16, NT = WN / 8;
  const int STEPS = BK * sizeof(T) / 32;
  const bool AHEAD = sizeof(T) == 2;
  using TileA = ml_tile<T, BM, BK, A_DEEP>;
  using TileB = ml_tile<T, BN, BK, B_DEEP>;
  static_assert(STEPS % 2 == 0 || !AHEAD, "the last step's fragments must not be the first's");
  static_assert(STAGES * (TileA::BYTES + TileB::BYTES) >= THREADS / 32 * 16 * (WN + 8) * 4,
                "the sums are staged where the tiles were");
  extern __shared__ __align__(128) unsigned char pool[];

  const int tiles_m = (g.m + BM - 1) / BM, tiles_n = (g.n + BN - 1) / BN;
  const int tiles = tiles_m * tiles_n;
  const int place = blockIdx.x % tiles;
  const int rest = blockIdx.x / tiles, split = rest % g.splits, batch = rest / g.splits;
  int tile_m, tile_n;
  ml_tile_of(place, tiles_m, tiles_n, tile_m, tile_n);
  const int m0 = tile_m * BM, n0 = tile_n * BN;
  const int k0 = split * g.split_k, k1 = g.k - k0 < g.split_k ? g.k : k0 + g.split_k;
  const int turns = (k1 - k0 + BK - 1) / BK;
  const ml_gemm_batch at = ml_batch_offsets(g, batch);

  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int warp_m = warp / (BN / WN) * WM, warp_n = warp % (BN / WN) * WN;
  const unsigned tiles_a = ml_shared(pool), tiles_b = tiles_a + STAGES * TileA::BYTES;
  ml_tile_copy<T, BM, BK, THREADS, A_DEEP, A_WIDTH> copy_a(a + at.a, g.lda, m0, g.m, k0,
                                                           threadIdx.x);
  ml_tile_copy<T, BN, BK, THREADS, B_DEEP, B_WIDTH> copy_b(b + at.b, g.ldb, n0, g.n, k0,
                                                           threadIdx.x);
  const ml_fragments<T, BM, BK, A_DEEP, true, MT> read_a(warp_m, lane);
  const ml_fragments<T, BN, BK, B_DEEP, false, NT / 2> read_b(warp_n, lane);

  float sums[MT][NT][4], ones[SUMS ? MT : 1][4];
#pragma unroll
  for (int i = 0; i < MT; ++i)
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      if (SUMS) ones[SUMS ? i : 0][e] = 0;
#pragma unroll
      for (int j = 0; j < NT; ++j) sums[i][j][e] = 0;
    }
  const bool summing = SUMS && tile_n == 0 && warp_n == 0;

#pragma unroll
  for (int stage = 0; stage < STAGES - 1; ++stage) {
    if (stage < turns) {
      copy_a.fetch(tiles_a + stage * TileA::BYTES, k1 - k0 - stage * BK, g.lda, a);
      copy_b.fetch(tiles_b + stage * TileB::BYTES, k1 - k0 - stage * BK, g.ldb, b);
      copy_a.put(tiles_a + stage * TileA::BYTES);
      copy_b.put(tiles_b + stage * TileB::BYTES);
    }
    ml_copy_commit();
  }
  ml_copy_wait<STAGES - 2>();
  __syncthreads();

  unsigned fa[AHEAD + 1][MT][4], fb[AHEAD + 1][NT / 2][4];
  if (AHEAD && turns > 0) {
    read_a.load(fa[0], tiles_a, 0);
    read_b.load(fb[0], tiles_b, 0);
  }
  int now = 0, next = STAGES - 1;  // the stage that is read, and the one that is filled
  for (int turn = 0; turn < turns; ++turn) {
    const bool more = turn + STAGES - 1 < turns;
#pragma unroll
    for (int step = 0; step < STEPS; ++step) {
      if (step == 0) {
        if (more) {
          const int depth = k1 - k0 - (turn + STAGES - 1) * BK;
          copy_a.fetch(tiles_a + next * TileA::BYTES, depth, g.lda, a);
          copy_b.fetch(tiles_b + next * TileB::BYTES, depth, g.ldb, b);
        }
        ml_copy_commit();
      }
      if (!AHEAD) {
        read_a.load(fa[0], tiles_a + now * TileA::BYTES, step);
        read_b.load(fb[0], tiles_b + now * TileB::BYTES, step);
      }
      if (step == STEPS - 1) {
        if (more) {
          copy_a.put(tiles_a + next * TileA::BYTES);
          copy_b.put(tiles_b + next * TileB::BYTES);
        }
        next = now;
        now = now + 1 == STAGES ? 0 : now + 1;
        ml_copy_wait<STAGES - 2>();
        __syncthreads();
      }
      if (AHEAD && (step < STEPS - 1 || turn + 1 < turns)) {
        read_a.load(fa[(step + 1) & AHEAD], tiles_a + now * TileA::BYTES, (step + 1) % STEPS);
        read_b.load(fb[(step + 1) & AHEAD], tiles_b + now * TileB::BYTES, (step + 1) % STEPS);
      }
      const auto& at_a = fa[step & AHEAD];
      const auto& at_b = fb[step & AHEAD];
      if constexpr (sizeof(T) == 4) {
        ml_round_tf32(fa[0]);
        ml_round_tf32(fb[0]);
      }
#pragma unroll
      for (int i = 0; i < MT; ++i) {
#pragma unroll
        for (int j = 0; j < NT; ++j) {
          const int c = i & 1 ? NT - 1 - j : j;  // back and forth, so that one operand is at hand
          ml_tile_mma<T>(sums[i][c], at_a[i], at_b[c / 2][c % 2 * 2], at_b[c / 2][c % 2 * 2 + 1]);
        }
      }
      if constexpr (SUMS) {
        if (summing) {
#pragma unroll
          for (int i = 0; i < MT; ++i)
            ml_tile_mma<T>(ones[i], at_a[i], ml_one<T>::value, ml_one<T>::value);
        }
      }
    }
  }
  ml_copy_wait<0>();
  __syncthreads();  // the tiles give their place to the sums

  if constexpr (SUMS) {
    if (summing && (lane & 3) == 0) {
#pragma unroll
      for (int i = 0; i < MT; ++i)
#pragma unroll
        for (int low = 0; low < 2; ++low) {
          const int row = m0 + warp_m + 16 * i + 8 * low + (lane >> 2);
          if (row >= g.m) continue;
          if (g.splits > 1) partial_row_sums[ml_index(split) * g.m + row] = ones[i][2 * low];
          else row_sums[row] = ml_cast<T>(ones[i][2 * low]);
        }
    }
  }
  float* stage = reinterpret_cast<float*>(pool) + warp * 16 * (WN + 8);
  const ml_epilogue<T, float> epilogue(g, out, summand, residual, pre, batch, at.summand);
  const ml_index matrix = ml_index(g.m) * g.n;
  const ml_index batches = gridDim.x / (tiles * g.splits);
#pragma unroll
  for (int i = 0; i < MT; ++i) {
#pragma unroll
    for (int j = 0; j < NT; ++j)
#pragma unroll
      for (int low = 0; low < 2; ++low)
        *reinterpret_cast<float2*>(stage + (8 * low + (lane >> 2)) * (WN + 8) + 8 * j +
                                   2 * (lane & 3)) =
            make_float2(sums[i][j][2 * low], sums[i][j][2 * low + 1]);
    __syncwarp();
    const int row = m0 + warp_m + 16 * i, column = n0 + warp_n;
    if (g.splits > 1) {
      float* mine = partial + (split * batches + batch) * matrix;
      ml_rows_out<T, WN, 4>(stage, row, column, g.m, g.n, lane,
                            ml_to_partial{mine, g.n, g.n % 4 == 0});
    } else {
      ml_rows_out<T, WN, 16 / sizeof(T)>(stage, row, column, g.m, g.n, lane,
                                         ml_to_result<T>{epilogue, bool(g.wide)});
    }
    __syncwarp();
  }
}
