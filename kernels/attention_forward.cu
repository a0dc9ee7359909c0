// softmax(scale q k^T + mask) v of halves on tensor cores, without the scores ever in memory (Dao
// 2023, FlashAttention-2).
//
// A block has BM queries of one place, each warp MT tiles of 16 of them, and walks over the keys
// from last to first in tiles of BN: of one there is never more than a warp's scores, in
// registers.  The sums of exponentials and of weighted values are those for the greatest score so
// far, and scaled when a greater one comes.  Keys and values are fetched while the other of the two
// is multiplied.
#include "attention.cuh"

template <typename T, typename M, int D, int BM, int BN, int WARPS, int VEC, int SPECIAL>
__global__ void __launch_bounds__(WARPS * 32, WARPS > 4 ? 1 : 2)
attention_forward(const T* __restrict__ q, const T* __restrict__ k, const T* __restrict__ v, T* o,
                  float* lse, float* parts, const M* __restrict__ mask,
                  const void* __restrict__ lengths, const ml_index* cell, int splits, int span,
                  ml_index rows, ml_fault* fault, int site, ml_attention a) {
  typedef ml_tile<D> Tile;
  const int MT = BM / WARPS / 16, NT = BN / 8, DT = D / 8;
  const bool general = SPECIAL & (ML_MASKED | ML_SCALED);
  extern __shared__ __align__(16) unsigned char shared[];
  unsigned char* const keys = shared + Tile::bytes(BM);
  unsigned char* const values = keys + Tile::bytes(BN);

  const int tiles = (a.queries + BM - 1) / BM;
  const int split = blockIdx.x % splits, block = blockIdx.x / splits, place = block / tiles;
  const int first = (tiles - 1 - block % tiles) * BM;  // most keys first
  const int begin = split * span;  // the block's keys, which may be none
  const int length = ml_keys(a, lengths, place, fault, site);
  const int end = min(begin + span, a.causal ? min(length, first + BM) : length);

  const T* const q_rows = q + ml_lead(a, ML_Q, place) + first * a.row[ML_Q];
  const T* const k_rows = k + ml_lead(a, ML_K, place);
  const T* const v_rows = v + ml_lead(a, ML_V, place);
  const M* const mask_rows = SPECIAL & ML_MASKED ? mask + ml_lead(a, ML_MASK, place) : nullptr;

  float top[MT][2], sum[MT][2], out[MT][DT][4];
#pragma unroll
  for (int m = 0; m < MT; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      top[m][half] = -ml_inf(0.0f);
      sum[m][half] = 0.0f;
    }
#pragma unroll
    for (int d = 0; d < DT; ++d)
#pragma unroll
      for (int i = 0; i < 4; ++i) out[m][d][i] = 0.0f;
  }
  // exp(scale s - ...) = 2^(c s - ...); in a general launch the scores have been multiplied
  // already.
  const float factor = float(a.scale) * ml_log2e, c = general ? 1.0f : factor;

  const int last = begin < end ? begin + (end - begin - 1) / BN * BN : begin - BN;
  if (begin < end) {
    ml_load_tile<BM, D, WARPS * 32, VEC>(shared, q_rows, a.row[ML_Q], a.queries - first, a.depth);
    ml_load_tile<BN, D, WARPS * 32, VEC>(keys, k_rows + last * a.row[ML_K], a.row[ML_K],
                                         end - last, a.depth);
  }
  ml_copy_commit();
  for (int start = last; start >= begin; start -= BN) {
    const int own = (ml_thread() >> 5) * 16 * MT;  // the warp's first query in the block
    // Whether some scores do not count: for the block, and whether none does, for this warp.
    const bool edge = start + BN > end || (a.causal && start + BN > first + 1);
    const bool blind = a.causal && start > first + own + 16 * MT - 1;
    ml_copy_wait<0>();
    __syncthreads();  // the keys are there, and nobody reads the values of the tile before
    ml_load_tile<BN, D, WARPS * 32, VEC>(values, v_rows + start * a.row[ML_V], a.row[ML_V],
                                         end - start, a.width);
    ml_copy_commit();

    // Which weights are kept, drawn while there are no scores in registers.  Four lanes have a
    // row's 8 NT weights: each draws every fourth block of eight.
    unsigned kept[MT][2];
    if constexpr (SPECIAL & ML_DROPOUT) {
      const ml_stream draw = ml_draw(a.seed, a.offset, cell);
      const int lane = ml_thread() & 31;
      const int row0 = first + (ml_thread() >> 5) * 16 * MT + (lane >> 2);
      const ml_index before = ml_lead(a, ML_PLACE, place) * a.queries;  // rows of scores
#pragma unroll
      for (int m = 0; m < MT; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const ml_index index = (before + row0 + 16 * m + 8 * half) * a.keys + start;
          unsigned bits = 0;
#pragma unroll 1  // all at once take too many registers
          for (int part = 0; part <= NT / 4; ++part)
            bits |= ml_kept_bits(draw, (index >> 3) + 4 * part + (lane & 3), a.dropped)
                    << (8 * part);
          kept[m][half] = bits;
        }
    }

    float s[MT][NT][4];
#pragma unroll
    for (int m = 0; m < MT; ++m)
#pragma unroll
      for (int n = 0; n < NT; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) s[m][n][i] = 0.0f;
    if (!blind) {
      const int lane = ml_thread() & 31;  // where it points ldmatrix at
      const unsigned q_lane = ml_shared(shared + Tile::at(own + ml_lane_deep(lane),
                                                          ml_lane_right(lane)));
      const unsigned k_lane = ml_shared(keys + Tile::at(ml_lane_wide(lane), ml_lane_low(lane)));
#pragma unroll
      for (int e = 0; e < D / 16; ++e) {
        unsigned x[MT][4];
#pragma unroll
        for (int m = 0; m < MT; ++m)
          ml_ldmatrix(x[m], Tile::from(q_lane, 2 * m, 2 * e));
#pragma unroll
        for (int n = 0; n < NT; n += 2) {
          unsigned y[4];
          ml_ldmatrix(y, Tile::from(k_lane, n, 2 * e));
#pragma unroll
          for (int m = 0; m < MT; ++m) ml_mma_pair<T>(s[m] + n, x[m], y);
        }
      }
    }
    ml_copy_wait<0>();
    __syncthreads();  // the values are there, and nobody reads the keys
    if (start > begin)
      ml_load_tile<BN, D, WARPS * 32, VEC>(keys, k_rows + (start - BN) * a.row[ML_K], a.row[ML_K],
                                           BN, a.depth);
    ml_copy_commit();
    if (blind) continue;

    if (general || edge) {
      const int lane = ml_thread() & 31, column0 = 2 * (lane & 3);
      const int row0 = first + (ml_thread() >> 5) * 16 * MT + (lane >> 2);
#pragma unroll
      for (int m = 0; m < MT; ++m)
#pragma unroll
        for (int n = 0; n < NT; ++n)
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const int row = row0 + 16 * m + 8 * (i >> 1), key = start + 8 * n + column0 + (i & 1);
            if constexpr (general) s[m][n][i] *= factor;
            if (edge && (key >= end || (a.causal && key > row))) {
              s[m][n][i] = -ml_inf(0.0f);
            } else if constexpr (SPECIAL & ML_MASKED) {
              if (row < a.queries)
                s[m][n][i] = ml_masked(s[m][n][i],
                                       mask_rows[row * a.row[ML_MASK] + key * a.mask_column],
                                       ml_log2e);
            }
          }
    }

#pragma unroll
    for (int m = 0; m < MT; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float best = top[m][half];
#pragma unroll
        for (int n = 0; n < NT; ++n)
          best = fmaxf(best, fmaxf(s[m][n][2 * half], s[m][n][2 * half + 1]));
        best = fmaxf(best, __shfl_xor_sync(ml_all_lanes, best, 1));
        best = fmaxf(best, __shfl_xor_sync(ml_all_lanes, best, 2));
        const float base = best == -ml_inf(0.0f) ? 0.0f : best * c;
        const float shrink = ml_exp2(fmaf(top[m][half], c, -base));
        top[m][half] = best;
        float total = 0.0f;
#pragma unroll
        for (int n = 0; n < NT; ++n)
#pragma unroll
          for (int i = 2 * half; i < 2 * half + 2; ++i) {
            s[m][n][i] = ml_exp2(fmaf(s[m][n][i], c, -base));
            total += s[m][n][i];
          }
        sum[m][half] = sum[m][half] * shrink + total;
        if (__any_sync(ml_all_lanes, shrink != 1.0f)) {  // seldom after the first tiles
#pragma unroll
          for (int d = 0; d < DT; ++d) {
            out[m][d][2 * half] *= shrink;
            out[m][d][2 * half + 1] *= shrink;
          }
        }
      }

    if constexpr (SPECIAL & ML_DROPOUT) {
      const int lane = ml_thread() & 31, column0 = 2 * (lane & 3);
      const int row0 = first + (ml_thread() >> 5) * 16 * MT + (lane >> 2);
      const ml_index before = ml_lead(a, ML_PLACE, place) * a.queries;
#pragma unroll
      for (int m = 0; m < MT; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int shift = int((before + row0 + 16 * m + 8 * half) * a.keys + start) & 7;
#pragma unroll
          for (int n = 0; n < NT; ++n)
#pragma unroll
            for (int i = 0; i < 2; ++i) {
              const int at = shift + 8 * n + column0 + i;
              const unsigned bits = __shfl_sync(ml_all_lanes, kept[m][half], at >> 3 & 3, 4);
              if (!(bits >> ((at >> 5) * 8 + (at & 7)) & 1)) s[m][n][2 * half + i] *= 0.0f;
            }
        }
    }

    const int lane = ml_thread() & 31;
    const unsigned v_lane = ml_shared(values + Tile::at(ml_lane_deep(lane), ml_lane_right(lane)));
#pragma unroll
    for (int n = 0; n < NT; n += 2) {
      unsigned p[MT][4];
#pragma unroll
      for (int m = 0; m < MT; ++m) ml_pack_pair<T>(p[m], s[m] + n);
#pragma unroll
      for (int d = 0; d < DT; d += 2) {
        unsigned y[4];
        ml_ldmatrix_trans(y, Tile::from(v_lane, n, d));
#pragma unroll
        for (int m = 0; m < MT; ++m) ml_mma_pair<T>(out[m] + d, p[m], y);
      }
    }
  }

  const int lane = ml_thread() & 31, own = (ml_thread() >> 5) * 16 * MT;
  const int row0 = first + own + (lane >> 2), column0 = 2 * (lane & 3);
  const ml_index before = ml_lead(a, ML_PLACE, place) * a.queries;
#pragma unroll
  for (int m = 0; m < MT; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float total = ml_warp_sum<4>(sum[m][half]);
      const int row = row0 + 16 * m + 8 * half;
      const float share = total == 0.0f ? 0.0f : (SPECIAL & ML_DROPOUT ? a.kept : 1.0f) / total;
      const float log = total == 0.0f ? ml_inf(0.0f)
                                      : (top[m][half] * c + log2f(total)) * ml_ln2;
      if (lse != nullptr && row < a.queries && (lane & 3) == 0)
        lse[split * rows + before + row] = log;
      if (parts != nullptr) {
        float* const to = parts + (split * rows + before + row) * D + column0;
        if (row < a.queries)
#pragma unroll
          for (int d = 0; d < DT; ++d)
            *reinterpret_cast<float2*>(to + 8 * d) =
                make_float2(out[m][d][2 * half] * share, out[m][d][2 * half + 1] * share);
        continue;
      }
#pragma unroll
      for (int d = 0; d < DT; ++d) {
        const int line = own + 16 * m + 8 * half + (lane >> 2);
        *reinterpret_cast<unsigned*>(shared + Tile::at(line, d) + 4 * (lane & 3)) =
            ml_pack<T>(out[m][d][2 * half] * share, out[m][d][2 * half + 1] * share);
      }
    }
  if (parts != nullptr) return;
  __syncwarp();  // only this warp read these rows as queries
  ml_store_tile<16 * MT, D, D, 32, VEC>(shared, own, 0, o + ml_lead(a, ML_O, place) +
                                     (first + own) * a.row[ML_O], a.row[ML_O],
                                     a.queries - first - own, a.width, lane);
}

// The parts of the splits as one result: each weighs as much as its sum of exponentials.  A part in
// which a query saw no key has lse = inf and weighs nothing.  A warp for each query.
template <typename T, int VEC>
__global__ void __launch_bounds__(128)
attention_join(const ml_wide<T>* __restrict__ parts, const ml_wide<T>* __restrict__ lses, T* o,
               ml_wide<T>* lse, ml_index rows, int splits, int pitch, ml_attention a) {
  typedef ml_wide<T> W;
  const ml_index row = ml_index(blockIdx.x) * 4 + (threadIdx.x >> 5);
  if (row >= rows) return;
  W top = -ml_inf(W(0));
  for (int s = 0; s < splits; ++s) {
    const W x = lses[s * rows + row];
    if (x != ml_inf(x)) top = ml_max(top, x);
  }
  const int step = VEC < int(16 / sizeof(W)) ? VEC : int(16 / sizeof(W));
  T* const to = o + ml_lead(a, ML_O, int(row / a.queries)) + row % a.queries * a.row[ML_O];
  W total = W(0);
  for (int column = (threadIdx.x & 31) * VEC; column < a.width; column += 32 * VEC) {
    W sum[VEC] = {};
    total = W(0);
    for (int s = 0; s < splits; ++s) {
      const W x = lses[s * rows + row], weight = x == ml_inf(x) ? W(0) : exp(x - top);
      total += weight;
#pragma unroll
      for (int i = 0; i < VEC; i += step) {
        const auto part = ml_load<step>(parts + (s * rows + row) * pitch + column + i);
#pragma unroll
        for (int j = 0; j < step; ++j) sum[i + j] += part.at[j] * weight;
      }
    }
    ml_vec<T, VEC> y;
#pragma unroll
    for (int i = 0; i < VEC; ++i) y.at[i] = ml_cast<T>(total == W(0) ? W(0) : sum[i] / total);
    ml_store_whole(to + column, y);
  }
  if (lse != nullptr && (threadIdx.x & 31) == 0)
    lse[row] = total == W(0) ? ml_inf(top) : top + log(total);
}
