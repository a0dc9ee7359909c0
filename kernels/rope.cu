// Rotary embeddings (Su et al., 2021): pairs of numbers of a row turned by angles of which cos and
// sin are given.  A pair is number i of each half of the turned columns, or, INTERLEAVED, numbers
// 2i and 2i + 1; columns after those are copied.  Turning back is the same with -sin.
//
// A thread has up to 16 bytes of each half (of the row, where interleaved) and of cos and sin,
// which it reads once, and turns these in up to `each` of the `loop` rows that have the same
// angles: heads, mostly.
#include "common.cuh"

enum ml_rope_operand { ML_X, ML_Y, ML_COS, ML_SIN, ML_ROPE_OPERANDS };

struct ml_rope {
  ml_index stride[ML_ROPE_OPERANDS][4];  // elements between neighbours in a dimension of rows
  ml_index x_loop, y_loop;               // and between rows with the same angles
  int size[4];
  int loop, each;
  int pairs, columns;  // pairs that are turned; columns of a row
};

template <typename T, typename C, int VEC, bool INTERLEAVED>
__global__ void __launch_bounds__(256, 4)
rotate(const T* __restrict__ x, T* y, const C* __restrict__ cosine, const C* __restrict__ sine,
       ml_index threads, bool back, ml_rope r) {
  typedef ml_wide<T> W;
  const int E = INTERLEAVED && VEC > 1 ? VEC / 2 : VEC;  // pairs of a thread
  const int UNDER_WAY = VEC * sizeof(T) < 16 ? 4 : 2;    // rows whose loads do not wait
  const ml_index thread = ml_index(blockIdx.x) * 256 + threadIdx.x;
  if (thread >= threads) return;
  // Parts of a row: of its pairs, then of the columns that are copied.
  const int turned = r.pairs / E, parts = turned + (r.columns - 2 * r.pairs) / VEC;
  ml_index rest = thread / parts;
  const int part = int(thread - rest * parts);
  const int rounds = (r.loop + r.each - 1) / r.each;
  const ml_index outer = rest / rounds;
  const int first = int(rest - outer * rounds) * r.each;
  const int last = min(r.loop, first + r.each);
  ml_index offset[ML_ROPE_OPERANDS] = {}, at = outer;
#pragma unroll
  for (int d = 3; d >= 0; --d) {
    const ml_index next = at / r.size[d], place = at - next * r.size[d];
#pragma unroll
    for (int k = 0; k < ML_ROPE_OPERANDS; ++k) offset[k] += place * r.stride[k][d];
    at = next;
  }
  const T* from = x + offset[ML_X] + first * r.x_loop;
  T* to = y + offset[ML_Y] + first * r.y_loop;

  if (part >= turned) {
    const int column = 2 * r.pairs + (part - turned) * VEC;
    for (int i = first; i < last; ++i, from += r.x_loop, to += r.y_loop)
      ml_store_whole(to + column, ml_load<VEC>(from + column));
    return;
  }
  W c[E], s[E];
  const auto cosines = ml_load<E>(cosine + offset[ML_COS] + part * E);
  const auto sines = ml_load<E>(sine + offset[ML_SIN] + part * E);
#pragma unroll
  for (int e = 0; e < E; ++e) {
    c[e] = ml_cast<W>(cosines.at[e]);
    s[e] = ml_cast<W>(sines.at[e]);
    if (back) s[e] = -s[e];
  }
#pragma unroll UNDER_WAY
  for (int i = first; i < last; ++i, from += r.x_loop, to += r.y_loop) {
    if constexpr (INTERLEAVED) {
      T pairs[2 * E];
#pragma unroll
      for (int e = 0; e < 2 * E; e += VEC) {
        const auto a = ml_load<VEC>(from + part * 2 * E + e);
#pragma unroll
        for (int j = 0; j < VEC; ++j) pairs[e + j] = a.at[j];
      }
#pragma unroll
      for (int e = 0; e < E; ++e) {
        const W u = ml_cast<W>(pairs[2 * e]), v = ml_cast<W>(pairs[2 * e + 1]);
        pairs[2 * e] = ml_cast<T>(u * c[e] - v * s[e]);
        pairs[2 * e + 1] = ml_cast<T>(v * c[e] + u * s[e]);
      }
#pragma unroll
      for (int e = 0; e < 2 * E; e += VEC) {
        ml_vec<T, VEC> b;
#pragma unroll
        for (int j = 0; j < VEC; ++j) b.at[j] = pairs[e + j];
        ml_store_whole(to + part * 2 * E + e, b);
      }
    } else {
      const auto a = ml_load<VEC>(from + part * VEC), b = ml_load<VEC>(from + r.pairs + part * VEC);
      ml_vec<T, VEC> low, high;
#pragma unroll
      for (int e = 0; e < E; ++e) {
        const W u = ml_cast<W>(a.at[e]), v = ml_cast<W>(b.at[e]);
        low.at[e] = ml_cast<T>(u * c[e] - v * s[e]);
        high.at[e] = ml_cast<T>(v * c[e] + u * s[e]);
      }
      ml_store_whole(to + part * VEC, low);
      ml_store_whole(to + r.pairs + part * VEC, high);
    }
  }
}
