// What the backward kernels of attention on tensor cores share: from scores to the weights and
// their gradients, and sums in global memory that one block after another adds to.
//
// Scores are transposed: of a tile of 16 keys by 8 queries a lane has keys lane / 4 and 8 more, and
// queries 2 (lane % 4), +1.
#pragma once
#include "attention.cuh"

// Which weights of a tile are kept: four lanes for each of the eight queries, from row `line` of
// the scores on, draw blocks of eight weights that hold the 16 keys from `own` on.
__device__ __forceinline__ unsigned ml_kept_of(const ml_stream& draw, const ml_attention& a,
                                               ml_index line, int own) {
  const int lane = threadIdx.x & 31;
  const ml_index index = (line + (lane >> 2)) * a.keys + own;
  return ml_kept_bits(draw, (index >> 3) + (lane & 3), a.dropped);
}

// Makes scores s the weights that the values were multiplied by, and dp the scores' gradients.  Of
// queries from `start` on, whose logsumexps (times log2 e) and row sums are `lses` and `deltas`,
// and keys from `own` on; there are `length` keys.
template <int SPECIAL, typename M>
__device__ __forceinline__ void ml_gradients(float (&s)[4], float (&dp)[4], const ml_attention& a,
                                             const M* mask_rows, float* dmask, ml_index line,
                                             int start, int own, int length, bool edge,
                                             const float* lses, const float* deltas,
                                             unsigned kept) {
  const int lane = threadIdx.x & 31, column = 2 * (lane & 3);
  const float2 lse2 = *reinterpret_cast<const float2*>(lses + column);
  const float2 shift = *reinterpret_cast<const float2*>(deltas + column);
  const float factor = float(a.scale) * ml_log2e;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int query = start + column + (i & 1), key = own + (lane >> 2) + 8 * (i >> 1);
    const float less = i & 1 ? lse2.y : lse2.x;
    float weight;
    if constexpr (SPECIAL & ML_MASKED) {
      float score = s[i] * factor;
      if (key < length && query < a.queries)
        score = ml_masked(score, mask_rows[query * a.row[ML_MASK] + key * a.mask_column], ml_log2e);
      weight = ml_exp2(score - less);
    } else {
      weight = ml_exp2(fmaf(s[i], factor, -less));
    }
    if (edge && (key >= length || (a.causal && key > query))) weight = 0.0f;
    float chosen = 1.0f;
    if constexpr (SPECIAL & ML_DROPOUT) {
      const int at = int(((line + query) * a.keys + own) & 7) + (lane >> 2) + 8 * (i >> 1);
      const unsigned bits = __shfl_sync(ml_all_lanes, kept, (column + (i & 1)) * 4 + (at >> 3));
      chosen = bits >> (at & 7) & 1 ? a.kept : 0.0f;
    }
    s[i] = weight * chosen;
    dp[i] = weight * (dp[i] * chosen - (i & 1 ? shift.y : shift.x));
    if constexpr (SPECIAL & ML_MASK_GRADIENT) {
      if (key < length && query < a.queries) dmask[(line + query) * a.keys + key] = dp[i];
    }
  }
}

// Adds one of the lane's two rows of tiles side by side, `half`, to row `row` of sums from `column`
// on, or is the first to write there.
template <int D, int N>
__device__ __forceinline__ void ml_add_row(float* sums, ml_index row, int column,
                                           const float (&x)[N][4], int half, bool first) {
  float* const to = sums + row * D + column;
#pragma unroll
  for (int c = 0; c < N; ++c) {
    float2 sum = make_float2(x[c][2 * half], x[c][2 * half + 1]);
    if (!first) {
      const float2 before = *reinterpret_cast<const float2*>(to + 8 * c);
      sum.x += before.x;
      sum.y += before.y;
    }
    *reinterpret_cast<float2*>(to + 8 * c) = sum;
  }
}
