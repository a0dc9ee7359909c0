// Gradients of attention as in attention_backward.cu, for heads of more than 64 columns, whose
// gradients one warp cannot hold: here warps share keys, and each has some of the columns.
//
// A block has BN keys and walks over the queries in tiles of BM.  For a tile each warp computes a
// part of the scores and of the weights' gradients, which pass through shared memory, rounded; then
// the gradients of 32 keys in one of CG ranges of columns, and those of a part of the queries.  So
// nothing is computed twice, and what a warp reads from shared memory serves two products or more.
#include "attention_gradients.cuh"

template <typename T, typename M, int D, int BM, int BN, int CG, int VEC, int SPECIAL>
__global__ void __launch_bounds__(BN * CG)
attention_wide(const T* __restrict__ q, const T* __restrict__ k, const T* __restrict__ v,
               const T* __restrict__ dy, const float* __restrict__ lse,
               const float* __restrict__ delta, float* dq, T* dk, T* dv,
               const M* __restrict__ mask, float* dmask, const void* __restrict__ lengths,
               const ml_index* cell, ml_index part, int splits, ml_attention a) {
  typedef ml_tile<D> Tile;
  typedef ml_tile<BM> Scores;
  const int WARPS = BN / 32 * CG, THREADS = 32 * WARPS;
  // Scores of a warp: SK tiles of 16 keys by SQ of 8 queries.
  const int SK = CG <= BM / 16 ? 2 : 1, SQ = BM * BN / (128 * SK * WARPS) < 2
      ? 2 : BM * BN / (128 * SK * WARPS);
  // As many of them at a time as there are registers for.
  const int AK = SPECIAL & ML_MASK_GRADIENT ? 1 : SK, AQ = SPECIAL ? 2 : SQ;
  const int UNROLLED = SPECIAL ? 2 : 4;
  const int QW = BM / (8 * SQ);  // warps beside each other in the scores
  const int CT = D / CG / 8;     // tiles of 8 columns of a warp's gradients
  // dq of a warp: QT tiles of 16 queries by DT of 8 columns; RW warps have the same columns.
  const int QT = BM < 32 || D * BM / WARPS % 512 != 0 ? 1 : 2, RW = BM / (16 * QT);
  const int DT = D / (WARPS / RW) / 8;
  static_assert(CT % 2 == 0 && DT % 2 == 0, "tiles of columns go in pairs");
  extern __shared__ __align__(16) unsigned char shared[];
  unsigned char* const keys = shared;
  unsigned char* const values = keys + Tile::bytes(BN);
  unsigned char* const queries = values + Tile::bytes(BN);
  unsigned char* const grads = queries + Tile::bytes(BM);
  unsigned char* const weights = grads + Tile::bytes(BM);  // and then the scores' gradients
  unsigned char* const scores = weights + Scores::bytes(BN);
  float* const lses = reinterpret_cast<float*>(scores + Scores::bytes(BN));
  float* const deltas = lses + BM;

  const int split = blockIdx.x % splits, place0 = blockIdx.x / splits * a.shared;
  const int tiles = (a.queries + BM - 1) / BM;
  const int length = ml_keys(a, lengths, place0);  // the same for all that share keys

  for (int key0 = split * BN; key0 < a.keys; key0 += splits * BN) {
    const int first = a.causal ? min(tiles, key0 / BM) : 0;
    const int count = key0 < length ? (tiles - first) * a.shared : 0;

    float dks[2][CT][4], dvs[2][CT][4];
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
      for (int c = 0; c < CT; ++c)
#pragma unroll
        for (int i = 0; i < 4; ++i) dks[m][c][i] = dvs[m][c][i] = 0.0f;

    auto load_queries = [&](int place, int start) {
      ml_load_tile<BM, D, THREADS, VEC>(queries, q + ml_lead(a, ML_Q, place) + start * a.row[ML_Q],
                                        a.row[ML_Q], a.queries - start, a.depth);
      ml_load_tile<BM, D, THREADS, VEC>(grads, dy + ml_lead(a, ML_DO, place) +
                                        start * a.row[ML_DO], a.row[ML_DO], a.queries - start,
                                        a.width);
      const ml_index line = ml_lead(a, ML_PLACE, place) * a.queries + start;
      for (int i = ml_thread(); i < BM; i += THREADS) {
        const bool there = start + i < a.queries;
        lses[i] = there ? lse[line + i] * ml_log2e : ml_inf(0.0f);
        deltas[i] = there ? delta[line + i] : 0.0f;
      }
    };

    if (count > 0) {
      ml_load_tile<BN, D, THREADS, VEC>(keys, k + ml_lead(a, ML_K, place0) + key0 * a.row[ML_K],
                                        a.row[ML_K], length - key0, a.depth);
      ml_load_tile<BN, D, THREADS, VEC>(values, v + ml_lead(a, ML_V, place0) + key0 * a.row[ML_V],
                                        a.row[ML_V], length - key0, a.width);
      load_queries(place0, first * BM);
      ml_copy_commit();
    }
    int place = place0, start = first * BM;
    for (int turn = 0; turn < count; ++turn) {
      const ml_index line = ml_lead(a, ML_PLACE, place) * a.queries;
      ml_copy_wait<0>();
      __syncthreads();  // this tile is there; nobody reads the scores' gradients before

      if (QW * (BN / (16 * SK)) == WARPS || ml_thread() / 32 < QW * (BN / (16 * SK))) {
        const int lane = ml_thread() & 31, warp = ml_thread() / 32;
        const int key1 = 16 * SK * (warp / QW), query1 = 8 * SQ * (warp % QW);  // the first ones
        const bool edge = key0 + BN > length || (a.causal && key0 + BN > start + 1);
#pragma unroll 1
        for (int part = 0; part < SK / AK * (SQ / AQ); ++part) {
          const int key = key1 + 16 * AK * (part % (SK / AK));
          const int query = query1 + 8 * AQ * (part / (SK / AK));
          const bool blind = key0 + key >= length ||
                             (a.causal && key0 + key > start + query + 8 * AQ - 1);
          float s[AK][AQ][4], dp[AK][AQ][4];
#pragma unroll
          for (int m = 0; m < AK; ++m)
#pragma unroll
            for (int n = 0; n < AQ; ++n)
#pragma unroll
              for (int i = 0; i < 4; ++i) s[m][n][i] = dp[m][n][i] = 0.0f;
          if (!blind) {
            unsigned kept[AK][AQ];
            if constexpr (SPECIAL & ML_DROPOUT) {
              const ml_stream draw = ml_draw(a.seed, a.offset, cell);
#pragma unroll
              for (int m = 0; m < AK; ++m)
#pragma unroll
                for (int n = 0; n < AQ; ++n)
                  kept[m][n] = ml_kept_of(draw, a, line + start + query + 8 * n,
                                          key0 + key + 16 * m);
            }
            const int deep = Tile::at(key + ml_lane_deep(lane), ml_lane_right(lane));
            const int wide = Tile::at(query + ml_lane_wide(lane), ml_lane_low(lane));
            const unsigned k_lane = ml_shared(keys + deep), v_lane = ml_shared(values + deep);
            const unsigned q_lane = ml_shared(queries + wide), g_lane = ml_shared(grads + wide);
            const auto multiply = [&](float (&sums)[AK][AQ][4], unsigned left, unsigned right) {
#pragma unroll UNROLLED
              for (int e = 0; e < D / 16; ++e) {
                unsigned x[AK][4];
#pragma unroll
                for (int m = 0; m < AK; ++m) ml_ldmatrix(x[m], Tile::from(left, 2 * m, 2 * e));
#pragma unroll
                for (int n = 0; n < AQ; n += 2) {
                  unsigned y[4];
                  ml_ldmatrix(y, Tile::from(right, n, 2 * e));
#pragma unroll
                  for (int m = 0; m < AK; ++m) ml_mma_pair<T>(sums[m] + n, x[m], y);
                }
              }
            };
            multiply(s, k_lane, q_lane);
            multiply(dp, v_lane, g_lane);
            const M* const mask_rows =
                SPECIAL & ML_MASKED ? mask + ml_lead(a, ML_MASK, place) : nullptr;
#pragma unroll
            for (int m = 0; m < AK; ++m)
#pragma unroll
              for (int n = 0; n < AQ; ++n)
                ml_gradients<SPECIAL>(s[m][n], dp[m][n], a, mask_rows, dmask, line,
                                      start + query + 8 * n, key0 + key + 16 * m, length, edge,
                                      lses + query + 8 * n, deltas + query + 8 * n,
                                      SPECIAL & ML_DROPOUT ? kept[m][n] : 0);
          }
#pragma unroll
          for (int m = 0; m < AK; ++m)
#pragma unroll
            for (int n = 0; n < AQ; ++n)
#pragma unroll
              for (int half = 0; half < 2; ++half) {
                const int at = Scores::at(key + 16 * m + 8 * half + (lane >> 2), query / 8 + n) +
                               4 * (lane & 3);
                *reinterpret_cast<unsigned*>(weights + at) =
                    ml_pack<T>(s[m][n][2 * half], s[m][n][2 * half + 1]);
                *reinterpret_cast<unsigned*>(scores + at) =
                    ml_pack<T>(dp[m][n][2 * half], dp[m][n][2 * half + 1]);
              }
        }
      }
      __syncthreads();  // the weights and the scores' gradients are there

      const int own32 = 32 * (ml_thread() / 32 / CG);
      if (key0 + own32 < length) {
        const int lane = ml_thread() & 31, chunk0 = ml_thread() / 32 % CG * CT;
        const int deep = ml_lane_deep(lane), right = ml_lane_right(lane);
        const unsigned w_lane = ml_shared(weights + Scores::at(own32 + deep, right));
        const unsigned s_lane = ml_shared(scores + Scores::at(own32 + deep, right));
        // Queries that see none of the keys are passed over.
        const int seen = a.causal ? max(0, key0 + own32 - start) / 16 : 0;
#pragma unroll 1
        for (int step = seen; step < BM / 16; ++step) {
          unsigned x[2][4];
#pragma unroll
          for (int m = 0; m < 2; ++m)
            ml_ldmatrix(x[m], Scores::from(w_lane, 2 * m, 2 * step));
#pragma unroll
          for (int c = 0; c < CT; c += 2) {
            unsigned y[4];
            ml_ldmatrix_trans(y, ml_shared(grads + Tile::at(16 * step + deep, chunk0 + c + right)));
#pragma unroll
            for (int m = 0; m < 2; ++m) ml_mma_pair<T>(dvs[m] + c, x[m], y);
          }
#pragma unroll
          for (int m = 0; m < 2; ++m)
            ml_ldmatrix(x[m], Scores::from(s_lane, 2 * m, 2 * step));
#pragma unroll
          for (int c = 0; c < CT; c += 2) {
            unsigned y[4];
            ml_ldmatrix_trans(y, ml_shared(queries + Tile::at(16 * step + deep,
                                                              chunk0 + c + right)));
#pragma unroll
            for (int m = 0; m < 2; ++m) ml_mma_pair<T>(dks[m] + c, x[m], y);
          }
        }
      }
      __syncthreads();  // nobody reads the queries and their gradients
      const int begin = start;
      start += BM;
      if (start >= a.queries) {
        start = first * BM;
        ++place;
      }
      if (turn + 1 < count) load_queries(place, start);
      ml_copy_commit();

      // dq; keys that no query of the tile sees are passed over.
      int visible = min(BN, length - key0);
      if (a.causal) visible = min(visible, begin + BM - key0);
      const int lane = ml_thread() & 31, warp = ml_thread() / 32;
      const int row = 16 * QT * (warp % RW), chunk = warp / RW * DT;
      const unsigned s_lane = ml_shared(scores + Scores::at(ml_lane_wide(lane),
                                                            row / 8 + ml_lane_low(lane)));
      float sums[QT][DT][4];
#pragma unroll
      for (int m = 0; m < QT; ++m)
#pragma unroll
        for (int c = 0; c < DT; ++c)
#pragma unroll
          for (int i = 0; i < 4; ++i) sums[m][c][i] = 0.0f;
#pragma unroll 1
      for (int step = 0; step < (visible + 15) / 16; ++step) {
        unsigned x[QT][4];
#pragma unroll
        for (int m = 0; m < QT; ++m)
          ml_ldmatrix_trans(x[m], Scores::from(s_lane, 2 * step, 2 * m));
#pragma unroll
        for (int c = 0; c < DT; c += 2) {
          unsigned y[4];
          ml_ldmatrix_trans(y, ml_shared(keys + Tile::at(16 * step + ml_lane_deep(lane),
                                                         chunk + c + ml_lane_right(lane))));
#pragma unroll
          for (int m = 0; m < QT; ++m) ml_mma_pair<T>(sums[m] + c, x[m], y);
        }
      }
#pragma unroll
      for (int m = 0; m < QT; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int query = begin + row + 16 * m + 8 * half + (lane >> 2);
          if (query < a.queries)
            ml_add_row<D>(dq + split * part, line + query, 8 * chunk + 2 * (lane & 3), sums[m],
                          half, key0 < splits * BN);
        }
    }

    // The gradients go over the keys and values, which nobody reads any more.
    ml_copy_wait<0>();
    __syncthreads();
    const int lane = ml_thread() & 31, warp = ml_thread() / 32;
    const int own32 = 32 * (warp / CG), own = key0 + own32, chunk0 = warp % CG * CT;
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
      for (int c = 0; c < CT; ++c)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int at = Tile::at(own32 + 16 * m + 8 * half + (lane >> 2), chunk0 + c) +
                         4 * (lane & 3);
          const float scale = float(a.scale);
          *reinterpret_cast<unsigned*>(keys + at) =
              ml_pack<T>(dks[m][c][2 * half] * scale, dks[m][c][2 * half + 1] * scale);
          *reinterpret_cast<unsigned*>(values + at) =
              ml_pack<T>(dvs[m][c][2 * half], dvs[m][c][2 * half + 1]);
        }
    __syncwarp();
    ml_store_tile<32, D, 8 * CT, 32, VEC>(keys, own32, chunk0, dk + ml_lead(a, ML_DK, place0) +
                                          own * a.row[ML_DK], a.row[ML_DK], a.keys - own, a.depth,
                                          lane);
    ml_store_tile<32, D, 8 * CT, 32, VEC>(values, own32, chunk0, dv + ml_lead(a, ML_DV, place0) +
                                          own * a.row[ML_DV], a.row[ML_DV], a.keys - own, a.width,
                                          lane);
    __syncthreads();  // before the next keys come
  }
}
