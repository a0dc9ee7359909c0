// Gradients of attention of halves on tensor cores, with the weights computed again from the
// logsumexp of each query (Dao 2023, FlashAttention-2).
//
// A block has 16 keys for each warp and walks over the queries in tiles of BM.  Scores are computed
// transposed, keys by queries: so the weights and their gradients, rounded, are already operands of
// the products that give dv and dk, which stay in registers.  Only the scores' gradients pass
// through shared memory, for dq.  Blocks over different keys add to the same dq: each of `splits`
// blocks takes every so-manieth tile of keys and has a dq of its own, and attention_sum adds those
// up in order.  So nothing depends on timing.  Heads of more than 64 columns: attention_wide.cu.
#include "attention_gradients.cuh"

// delta = sum(dy * o) of each query; dp - delta is the gradient inside the softmax.
template <typename T, int VEC>
__global__ void __launch_bounds__(256)
attention_delta(const T* __restrict__ dy, const T* __restrict__ o, ml_wide<T>* delta, ml_index rows,
                ml_attention a) {
  const ml_index row = (ml_index(blockIdx.x) * 256 + threadIdx.x) >> 3;  // eight lanes for each
  ml_wide<T> sum = 0;
  if (row < rows) {
    const ml_index query = row % a.queries;
    const int place = int(row / a.queries);
    const T* const dy_row = dy + ml_lead(a, ML_DO, place) + query * a.row[ML_DO];
    const T* const o_row = o + ml_lead(a, ML_O, place) + query * a.row[ML_O];
    for (int i = (threadIdx.x & 7) * VEC; i < a.width; i += 8 * VEC) {
      const auto x = ml_load<VEC>(dy_row + i), y = ml_load<VEC>(o_row + i);
#pragma unroll
      for (int e = 0; e < VEC; ++e)
        sum += ml_cast<ml_wide<T>>(x.at[e]) * ml_cast<ml_wide<T>>(y.at[e]);
    }
  }
  sum = ml_warp_sum<8>(sum);
  if (row < rows && (threadIdx.x & 7) == 0) delta[row] = sum;
}

// dq = scale * the sum of the parts, in order.  `pitch`: columns of a row of a part; `part`:
// elements of a part; keys and queries in tiles of BN and BM: whole tiles that no query sees left
// no trace.  With VEC of at most 4, neighbouring lanes read side by side.
template <typename T, int VEC>
__global__ void __launch_bounds__(256)
attention_sum(const float* __restrict__ parts, T* dq, const void* __restrict__ lengths,
              ml_index vectors, ml_index part, int splits, int pitch, int BM, int BN,
              ml_attention a) {
  const ml_index i = ml_index(blockIdx.x) * 256 + threadIdx.x;
  if (i >= vectors) return;
  const int per_row = a.depth / VEC;
  const ml_index row = i / per_row, query = row % a.queries;
  const int place = int(row / a.queries);
  const int column = int(i - row * per_row) * VEC;
  const int length = ml_keys(a, lengths, place);
  const int seen = a.causal ? min(int(query / BM + 1) * BM, length) : length;
  float sum[VEC];
#pragma unroll
  for (int e = 0; e < VEC; ++e) sum[e] = 0.0f;
  for (int s = 0; s < splits && s * BN < seen; ++s) {
    const auto x = ml_load<VEC>(parts + s * part + row * pitch + column);
#pragma unroll
    for (int e = 0; e < VEC; ++e) sum[e] += x.at[e];
  }
  ml_vec<T, VEC> y;
#pragma unroll
  for (int e = 0; e < VEC; ++e) y.at[e] = ml_cast<T>(sum[e] * float(a.scale));
  ml_store_whole(dq + ml_lead(a, ML_DQ, place) + query * a.row[ML_DQ] + column, y);
}

template <typename T, typename M, int D, int BM, int WARPS, int VEC, int SPECIAL>
__global__ void __launch_bounds__(WARPS * 32, WARPS > 4 ? 1 : 2)
attention_backward(const T* __restrict__ q, const T* __restrict__ k, const T* __restrict__ v,
                   const T* __restrict__ dy, const float* __restrict__ lse,
                   const float* __restrict__ delta, float* dq, T* dk, T* dv,
                   const M* __restrict__ mask, float* dmask, const void* __restrict__ lengths,
                   const ml_index* cell, ml_index part, int splits, ml_attention a) {
  typedef ml_tile<D> Tile;
  typedef ml_tile<BM> Scores;
  const int BN = WARPS * 16, THREADS = WARPS * 32, NT = BM / 8, CT = D / 8;
  const int groups = WARPS * 16 / BM;  // warps that share a tile of 16 queries of dq
  static_assert(groups >= 1, "a warp has at most 16 queries of dq");
  extern __shared__ __align__(16) unsigned char shared[];
  unsigned char* const keys = shared;
  unsigned char* const values = keys + Tile::bytes(BN);
  unsigned char* const queries = values + Tile::bytes(BN);  // two tiles, in turn
  unsigned char* const grads = queries + 2 * Tile::bytes(BM);
  unsigned char* const scores = grads + Tile::bytes(BM);
  float* const lses = reinterpret_cast<float*>(scores + Scores::bytes(BN));
  float* const deltas = lses + BM;

  const int split = blockIdx.x % splits, place0 = blockIdx.x / splits * a.shared;
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  const int tiles = (a.queries + BM - 1) / BM;
  const T* const k_rows = k + ml_lead(a, ML_K, place0);
  const T* const v_rows = v + ml_lead(a, ML_V, place0);
  const int length = ml_keys(a, lengths, place0);  // the same for all that share keys

  // Where the lane points ldmatrix at.
  const int deep = ml_lane_deep(lane), right = ml_lane_right(lane);
  const int wide = ml_lane_wide(lane), low = ml_lane_low(lane);
  const unsigned q_lane = ml_shared(queries + Tile::at(wide, low));
  const unsigned q_lane_across = ml_shared(queries + Tile::at(deep, right));
  const unsigned g_lane = ml_shared(grads + Tile::at(wide, low));
  const unsigned g_lane_across = ml_shared(grads + Tile::at(deep, right));

  for (int key0 = split * BN; key0 < a.keys; key0 += splits * BN) {
    const int own = key0 + 16 * warp;  // the warp's first key
    const int first = a.causal ? min(tiles, key0 / BM) : 0;
    const int count = key0 < length ? (tiles - first) * a.shared : 0;

    float dks[CT][4], dvs[CT][4];
#pragma unroll
    for (int c = 0; c < CT; ++c)
#pragma unroll
      for (int i = 0; i < 4; ++i) dks[c][i] = dvs[c][i] = 0.0f;

    // The tile of queries that is multiplied, and where the next one lies.
    int tile = first, next = first, place = place0;
    const T* q_rows = q + ml_lead(a, ML_Q, place);
    const T* dy_rows = dy + ml_lead(a, ML_DO, place);
    ml_index line = ml_lead(a, ML_PLACE, place) * a.queries, next_line = line;
    const M* mask_rows = SPECIAL & ML_MASKED ? mask + ml_lead(a, ML_MASK, place) : nullptr;

    auto load_rows = [&](int start) {  // of the next tile: gradients and statistics
      ml_load_tile<BM, D, THREADS, VEC>(grads, dy_rows + start * a.row[ML_DO], a.row[ML_DO],
                                        a.queries - start, a.width);
      for (int i = threadIdx.x; i < BM; i += THREADS) {
        const bool there = start + i < a.queries;
        lses[i] = there ? lse[next_line + start + i] * ml_log2e : ml_inf(0.0f);
        deltas[i] = there ? delta[next_line + start + i] : 0.0f;
      }
    };

    if (count > 0) {
      ml_load_tile<BN, D, THREADS, VEC>(keys, k_rows + key0 * a.row[ML_K], a.row[ML_K],
                                        length - key0, a.depth);
      ml_load_tile<BN, D, THREADS, VEC>(values, v_rows + key0 * a.row[ML_V], a.row[ML_V],
                                        length - key0, a.width);
      ml_load_tile<BM, D, THREADS, VEC>(queries, q_rows + next * BM * a.row[ML_Q], a.row[ML_Q],
                                        a.queries - next * BM, a.depth);
      load_rows(next * BM);
      ml_copy_commit();
    }
    unsigned kf[D / 16][4], vf[D / 16][4];  // the warp's keys and values
    for (int turn = 0; turn < count; ++turn) {
      const int odd = turn & 1, start = tile * BM;
      if (++next == tiles) {
        next = first;
        if (turn + 1 < count) {
          ++place;
          q_rows = q + ml_lead(a, ML_Q, place);
          dy_rows = dy + ml_lead(a, ML_DO, place);
          next_line = ml_lead(a, ML_PLACE, place) * a.queries;
        }
      }
      ml_copy_wait<0>();
      __syncthreads();  // this tile is there; nobody reads the one before or the scores' gradients
      if (turn + 1 < count)
        ml_load_tile<BM, D, THREADS, VEC>(queries + (1 - odd) * Tile::bytes(BM),
                                          q_rows + next * BM * a.row[ML_Q], a.row[ML_Q],
                                          a.queries - next * BM, a.depth);
      ml_copy_commit();

      if (turn == 0) {
        const unsigned k_lane = ml_shared(keys + Tile::at(16 * warp + deep, right));
        const unsigned v_lane = ml_shared(values + Tile::at(16 * warp + deep, right));
#pragma unroll
        for (int e = 0; e < D / 16; ++e) {
          ml_ldmatrix(kf[e], Tile::from(k_lane, 0, 2 * e));
          ml_ldmatrix(vf[e], Tile::from(v_lane, 0, 2 * e));
        }
      }

      const bool edge = key0 + BN > length || (a.causal && key0 + BN > start + 1);
      const bool blind = own >= length || (a.causal && own > start + BM - 1);
      if (!blind) {
#pragma unroll 1
        for (int n = 0; n < NT; n += 2) {
          float s[2][4] = {}, dp[2][4] = {};
#pragma unroll
          for (int e = 0; e < D / 16; ++e) {
            unsigned x[4];
            ml_ldmatrix(x, Tile::from(q_lane + odd * Tile::bytes(BM), n, 2 * e));
            ml_mma_pair<T>(s, kf[e], x);
          }
#pragma unroll
          for (int e = 0; e < D / 16; ++e) {
            unsigned x[4];
            ml_ldmatrix(x, Tile::from(g_lane, n, 2 * e));
            ml_mma_pair<T>(dp, vf[e], x);
          }
#pragma unroll
          for (int t = 0; t < 2; ++t) {
            const int block = 8 * (n + t);  // the tile's queries from here on
            unsigned kept = 0;
            if constexpr (SPECIAL & ML_DROPOUT)
              kept = ml_kept_of(ml_draw(a.seed, a.offset, cell), a, line + start + block, own);
            ml_gradients<SPECIAL>(s[t], dp[t], a, mask_rows, dmask, line, start + block, own,
                                  length, edge, lses + block, deltas + block, kept);
          }
          unsigned x[4];
          ml_pack_pair<T>(x, s);
#pragma unroll
          for (int c = 0; c < CT; c += 2) {
            unsigned y[4];
            ml_ldmatrix_trans(y, Tile::from(g_lane_across, n, c));
            ml_mma_pair<T>(dvs + c, x, y);
          }
          ml_pack_pair<T>(x, dp);
#pragma unroll
          for (int c = 0; c < CT; c += 2) {
            unsigned y[4];
            ml_ldmatrix_trans(y, Tile::from(q_lane_across + odd * Tile::bytes(BM), n, c));
            ml_mma_pair<T>(dks + c, x, y);
          }
#pragma unroll
          for (int i = 0; i < 4; ++i)
            *reinterpret_cast<unsigned*>(
                scores + Scores::at(16 * warp + 8 * (i & 1) + (lane >> 2), n + (i >> 1)) +
                4 * (lane & 3)) = x[i];
        }
      }
      __syncthreads();  // the scores' gradients are there; nobody reads dy's tile
      if (turn + 1 < count) load_rows(next * BM);
      ml_copy_commit();

      // Keys that no query of the tile sees have left nothing in `scores`.
      int visible = min(BN, length - key0);
      if (a.causal) visible = min(visible, start + BM - key0);
      const int rows16 = 16 * (warp % (BM / 16)), steps = (visible + 15) / 16;
      const int WIDE = D / groups, chunk = warp / (BM / 16) * WIDE / 8;
      const unsigned s_lane = ml_shared(scores + Scores::at(wide, rows16 / 8 + low));
      float sums[WIDE / 8][4];
#pragma unroll
      for (int c = 0; c < WIDE / 8; ++c)
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[c][i] = 0.0f;
      unsigned kt_lane[WIDE / 16];
#pragma unroll
      for (int c = 0; c < WIDE / 16; ++c)
        kt_lane[c] = ml_shared(keys + Tile::at(deep, chunk + 2 * c + right));
#pragma unroll 4
      for (int step = 0; step < steps; ++step) {
        unsigned x[4], y[4];
        ml_ldmatrix_trans(x, Scores::from(s_lane, 2 * step, 0));
#pragma unroll
        for (int c = 0; c < WIDE / 8; c += 2) {
          ml_ldmatrix_trans(y, Tile::from(kt_lane[c / 2], 2 * step, 0));
          ml_mma_pair<T>(sums + c, x, y);
        }
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int query = start + rows16 + 8 * half + (lane >> 2);
        if (query < a.queries)
          ml_add_row<D>(dq + split * part, line + query, 8 * chunk + 2 * (lane & 3), sums, half,
                        key0 < splits * BN);
      }
      if (next == first && SPECIAL & ML_MASKED) mask_rows = mask + ml_lead(a, ML_MASK, place);
      tile = next;
      line = next_line;
    }

    // The gradients go over the keys and values, which nobody reads any more.
    ml_copy_wait<0>();
    __syncthreads();
#pragma unroll
    for (int c = 0; c < CT; ++c)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int at = Tile::at(16 * warp + 8 * half + (lane >> 2), c) + 4 * (lane & 3);
        const float scale = float(a.scale);
        *reinterpret_cast<unsigned*>(keys + at) =
            ml_pack<T>(dks[c][2 * half] * scale, dks[c][2 * half + 1] * scale);
        *reinterpret_cast<unsigned*>(values + at) =
            ml_pack<T>(dvs[c][2 * half], dvs[c][2 * half + 1]);
      }
    __syncwarp();
    ml_store_tile<16, D, D, 32, VEC>(keys, 16 * warp, 0, dk + ml_lead(a, ML_DK, place0) +
                                     own * a.row[ML_DK], a.row[ML_DK], a.keys - own, a.depth,
                                     lane);
    ml_store_tile<16, D, D, 32, VEC>(values, 16 * warp, 0, dv + ml_lead(a, ML_DV, place0) +
                                     own * a.row[ML_DV], a.row[ML_DV], a.keys - own, a.width,
                                     lane);
    __syncthreads();  // before the next keys come
  }
}
