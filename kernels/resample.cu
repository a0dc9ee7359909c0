// Linear maps over up to three axes: each element of the result is a weighted sum over a box of
// elements of the source.  Interpolation, average pooling, borders, and the gradients of them all.
//
// An axis has tables of `taps` rows: the element that each place of the result takes through a tap,
// -1 where there is none, and what it is multiplied with (null: nothing).
#include "divide.cuh"
#include "line.cuh"

struct resample_map {
  ml_divisor out[3];  // the sizes of the result along the axes, the last D of them used
  ml_divisor inner;   // elements behind the axes
  int in[3];
  int taps[3];
  int before;  // divisors: 0 none, 1 one for all, 2 one for each place
  int after;
};

namespace {

// Rounded towards zero for integers, as C++ has it.
template <typename W>
__device__ __forceinline__ W resample_divide(W x, const W* by, int kind, int place) {
  return kind ? x / by[kind > 1 ? place : 0] : x;
}

template <typename W>
__device__ __forceinline__ W resample_scale(W x, const W* weight, int at) {
  return weight ? x * weight[at] : x;
}

// A sum that begins with its first term: zero added to -0 would change it.
template <typename W>
struct resample_sum {
  W value = W(0);
  bool any = false;
  __device__ __forceinline__ void add(W x) {
    value = any ? W(value + x) : x;
    any = true;
  }
};

// How a thread's M results are made of a line with vectors of V elements.

// Windows S apart of K taps, the first B before the window's place.  `weight`, if there is one, has
// a number for each tap and window, NaN where the window does not have the element.
template <typename W, int S, int K, int B, int M>
struct resample_windows {
  static const int V = M * S, L = B, R = K - S - B > 0 ? K - S - B : 0;
  template <typename Line>
  static __device__ __forceinline__ void add(resample_sum<W> (&sums)[M], const Line& line,
                                             const W* weight, int at, int size) {
#pragma unroll
    for (int t = 0; t < K; ++t) {
      ml_vec<W, M> scale;
      if (weight) scale = ml_load<M>(weight + t * size + at);
#pragma unroll
      for (int v = 0; v < M; ++v) {
        const int place = v * S + t - B;
        if (!line.has(place)) continue;
        if (!weight) sums[v].add(line[place]);
        else if (scale.at[v] == scale.at[v]) sums[v].add(line[place] * scale.at[v]);
      }
    }
  }
};

// The transposed map, without weights: results are elements, what is read are windows.
template <typename W, int S, int K, int B, int M>
struct resample_spread {
  static const int V = M / S, L = (K - 1 - B) / S, R = (B + S - 1) / S;
  template <typename Line>
  static __device__ __forceinline__ void add(resample_sum<W> (&sums)[M], const Line& line,
                                             const W*, int, int) {
#pragma unroll
    for (int e = 0; e < M; ++e) {
#pragma unroll
      for (int w = V + R - 1; w >= -L; --w) {
        const int t = e + B - w * S;
        if (t >= 0 && t < K && line.has(w)) sums[e].add(line[w]);
      }
    }
  }
};

}  // namespace

// The x and y of a launch are `n` elements of y and what they need of x, n below 2^31.
template <typename X, typename Y, typename W, int D>
__global__ void __launch_bounds__(256, 4)
resample_apply(const X* __restrict__ x, Y* y, const int* __restrict__ source0,
               const W* __restrict__ weight0, const int* __restrict__ source1,
               const W* __restrict__ weight1, const int* __restrict__ source2,
               const W* __restrict__ weight2, const W* __restrict__ before,
               const W* __restrict__ after, resample_map map, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  int rest = ml_divide(i, map.inner);
  const int behind = i - rest * map.inner.value;
  int at[3] = {0, 0, 0}, place = 0, size = 1;
#pragma unroll
  for (int d = 2; d >= 3 - D; --d) {
    const int next = ml_divide(rest, map.out[d]);
    at[d] = rest - next * map.out[d].value;
    place += at[d] * size;
    size *= map.out[d].value;
    rest = next;
  }
  resample_sum<W> total;
  for (int t0 = 0; t0 < (D > 2 ? map.taps[0] : 1); ++t0) {
    const int here0 = t0 * map.out[0].value + at[0];
    const int from0 = D > 2 ? source0[here0] : 0;
    if (from0 < 0) continue;
    resample_sum<W> plane;
    for (int t1 = 0; t1 < (D > 1 ? map.taps[1] : 1); ++t1) {
      const int here1 = t1 * map.out[1].value + at[1];
      const int from1 = D > 1 ? source1[here1] : 0;
      if (from1 < 0) continue;
      const int line_place = (from0 * map.in[1] + from1) * map.in[2];
      const ml_index lines = D > 2 ? map.in[0] * map.in[1] : (D > 1 ? map.in[1] : 1);
      const ml_index line = (rest * lines + from0 * map.in[1] + from1) * map.in[2];
      resample_sum<W> row;
      for (int t2 = 0; t2 < map.taps[2]; ++t2) {
        const int here2 = t2 * map.out[2].value + at[2];
        const int from2 = source2[here2];
        if (from2 < 0) continue;
        W value = ml_cast<W>(x[(line + from2) * map.inner.value + behind]);
        value = resample_divide(value, before, map.before, line_place + from2);
        row.add(resample_scale(value, weight2, here2));
      }
      if (row.any) plane.add(D > 1 ? resample_scale(row.value, weight1, here1) : row.value);
    }
    if (plane.any) total.add(D > 2 ? resample_scale(plane.value, weight0, here0) : plane.value);
  }
  y[i] = ml_cast<Y>(resample_divide(total.value, after, map.after, place));
}

// The same where the last axis, with nothing behind it, is made as `How` says: a thread has M
// neighbouring results, `threads` of them a line.
template <typename X, typename Y, typename W, int D, typename How, int M>
__global__ void __launch_bounds__(256, 2)
resample_lines(const X* __restrict__ x, Y* y, const int* __restrict__ source0,
               const W* __restrict__ weight0, const int* __restrict__ source1,
               const W* __restrict__ weight1, const W* __restrict__ weight2,
               const W* __restrict__ before, const W* __restrict__ after, resample_map map,
               ml_divisor threads, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  const int out = ml_divide(i, threads), vector = i - out * threads.value;
  int at[3] = {0, 0, 0};
  const ml_index plane = ml_places<D, 1>(map.out, out, at);
  const ml_index lines = D > 2 ? map.in[0] * map.in[1] : (D > 1 ? map.in[1] : 1);
  resample_sum<W> total[M];
  for (int t0 = 0; t0 < (D > 2 ? map.taps[0] : 1); ++t0) {
    const int here0 = t0 * map.out[0].value + at[0];
    const int from0 = D > 2 && i < n ? source0[here0] : 0;
    resample_sum<W> slice[M];
    for (int t1 = 0; t1 < (D > 1 ? map.taps[1] : 1); ++t1) {
      const int here1 = t1 * map.out[1].value + at[1];
      const int from1 = D > 1 && i < n ? source1[here1] : 0;
      const bool on = i < n && from0 >= 0 && from1 >= 0;
      const int place = from0 * map.in[1] + from1;
      auto line = ml_line_load<How::V, How::L, How::R, W>(
          x + (plane * lines + place) * map.in[2], vector, map.in[2] / How::V, threads.value, on);
      if (map.before == 2) {
        const auto by = ml_line_load<How::V, How::L, How::R, W>(
            before + ml_index(place) * map.in[2], vector, map.in[2] / How::V, threads.value, on);
#pragma unroll
        for (int e = 0; e < How::L + How::V + How::R; ++e) line.at[e] = line.at[e] / by.at[e];
      } else if (map.before) {
#pragma unroll
        for (int e = 0; e < How::L + How::V + How::R; ++e) line.at[e] = line.at[e] / before[0];
      }
      resample_sum<W> row[M];
      if (on) How::add(row, line, weight2, vector * M, map.out[2].value);
#pragma unroll
      for (int v = 0; v < M; ++v)
        if (row[v].any)
          slice[v].add(D > 1 ? resample_scale(row[v].value, weight1, here1) : row[v].value);
    }
#pragma unroll
    for (int v = 0; v < M; ++v)
      if (slice[v].any)
        total[v].add(D > 2 ? resample_scale(slice[v].value, weight0, here0) : slice[v].value);
  }
  if (i >= n) return;
  ml_vec<Y, M> result;
#pragma unroll
  for (int v = 0; v < M; ++v) {
    const int place = ((D > 2 ? at[0] * map.out[1].value : 0) + at[1]) * map.out[2].value;
    result.at[v] = ml_cast<Y>(
        resample_divide(total[v].value, after, map.after, place + vector * M + v));
  }
  ml_store_whole<M>(y + ml_index(i) * M, result);
}

// y = x / by, which is repeated every `size` elements.
template <typename X, typename Y, typename W>
__global__ void resample_divided(const X* __restrict__ x, Y* y, const W* __restrict__ by, int size,
                                 ml_index n) {
  const ml_index i = ml_index(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) y[i] = ml_cast<Y>(ml_cast<W>(x[i]) / by[i % size]);
}
