// The maximum of windows, and the linear maps that are its derivatives.
//
// A window is a box; an axis has a table of `taps` rows with the element that each window sees
// through a tap, -1 where there is none.  A window's choice is the number of its tap, row-major over
// the axes.  The gradient gathers: an element asks all windows that see it, found in the tables of
// the transposed axes: `many` rows with the window and the tap, -1 where there is no further window.
#include "divide.cuh"
#include "line.cuh"

struct pool_map {
  ml_divisor out[3];  // windows (pool_unchoose: elements) along the axes, the last D of them used
  int in[3];          // elements (pool_unchoose: windows)
  int taps[3];
  int many[3];
};

namespace {

template <int D>
__device__ __forceinline__ ml_index pool_plane(const pool_map& map) {
  ml_index size = 1;
#pragma unroll
  for (int d = 3 - D; d < 3; ++d) size *= map.in[d];
  return size;
}

// What no number is less than.
template <typename T>
__device__ __forceinline__ T pool_least() {
  if constexpr (ml_is_float<T>::value) return -ml_inf(T(0));
  else if constexpr (ml_is_signed<T>::value) return T(1ull << (sizeof(T) * 8 - 1));
  else return T(0);
}

}  // namespace

// The first maximum of each window, or its last NaN; where they are wanted, its choice and its
// place in the flattened plane.
template <typename T, typename I, int D>
__global__ void __launch_bounds__(256, 4)
pool_max(const T* __restrict__ x, T* y, I* choice, long long* place,
         const int* __restrict__ source0, const int* __restrict__ source1,
         const int* __restrict__ source2, pool_map map, int n) {
  typedef ml_wide<T> W;
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  int at[3] = {0, 0, 0};
  const T* plane = x + ml_places<D, 2>(map.out, i, at) * pool_plane<D>(map);
  W best = pool_least<W>();
  int chosen = 0, found = 0;
  bool any = false;
  for (int t0 = 0; t0 < (D > 2 ? map.taps[0] : 1); ++t0) {
    const int from0 = D > 2 ? source0[t0 * map.out[0].value + at[0]] : 0;
    if (from0 < 0) continue;
    for (int t1 = 0; t1 < (D > 1 ? map.taps[1] : 1); ++t1) {
      const int from1 = D > 1 ? source1[t1 * map.out[1].value + at[1]] : 0;
      if (from1 < 0) continue;
      const int line = (from0 * map.in[1] + from1) * map.in[2];
      const int tap = (t0 * map.taps[1] + t1) * map.taps[2];
      for (int t2 = 0; t2 < map.taps[2]; ++t2) {
        const int from2 = source2[t2 * map.out[2].value + at[2]];
        if (from2 < 0) continue;
        const W value = ml_cast<W>(plane[line + from2]);
        if (!any || value > best || value != value) {
          best = value;
          chosen = tap + t2;
          found = line + from2;
          any = true;
        }
      }
    }
  }
  y[i] = ml_cast<T>(best);
  if (choice) choice[i] = I(chosen);
  if (place) place[i] = found;
}

namespace {

// V places for each thread, all those of a warp side by side: 16 bytes of neighbours at a time.
template <int V>
__device__ __forceinline__ void pool_put_places(long long* place, const int (&found)[V], int i,
                                                int n) {
  if constexpr (V == 1) {
    if (i < n) place[i] = found[0];
  } else {
    const ml_index first = ml_index(i - ml_lane()) * V;
#pragma unroll
    for (int round = 0; round < V / 2; ++round) {
      const int at = round * 64 + ml_lane() * 2, owner = at / V;  // of the warp's 32 V
      int one = 0, other = 0;
#pragma unroll
      for (int v = 0; v < V; v += 2) {
        const int low = ml_shfl(found[v], owner), high = ml_shfl(found[v + 1], owner);
        one = at % V == v ? low : one;
        other = at % V == v ? high : other;
      }
      if (first + at < ml_index(n) * V)
        ml_store_whole<2>(place + first + at, ml_vec<long long, 2>{one, other});
    }
  }
}

}  // namespace

// The same where the windows of the last axis lie S apart and have K taps, the first of them B
// before the window's place: a thread has V windows, and a vector of V * S elements of each line.
template <typename T, typename I, int D, int S, int K, int B, int V, bool PLACES>
__global__ void __launch_bounds__(256, 2)
pool_max_lines(const T* __restrict__ x, T* y, I* choice, long long* place,
               const int* __restrict__ source0, const int* __restrict__ source1, pool_map map,
               ml_divisor threads, int n) {
  typedef ml_wide<T> W;
  const int R = K - S - B > 0 ? K - S - B : 0, vectors = map.in[2] / (V * S);
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  const int out = ml_divide(i, threads), vector = i - out * threads.value;
  int at[3] = {0, 0, 0};
  const T* plane = x + ml_places<D, 1>(map.out, out, at) * pool_plane<D>(map);
  W best[V];
  int chosen[V], found[V];
#pragma unroll
  for (int v = 0; v < V; ++v) {
    best[v] = pool_least<W>();
    chosen[v] = -1;
    found[v] = 0;
  }
  for (int t0 = 0; t0 < (D > 2 ? map.taps[0] : 1); ++t0) {
    const int from0 = D > 2 && i < n ? source0[t0 * map.out[0].value + at[0]] : 0;
    for (int t1 = 0; t1 < (D > 1 ? map.taps[1] : 1); ++t1) {
      const int from1 = D > 1 && i < n ? source1[t1 * map.out[1].value + at[1]] : 0;
      const bool on = i < n && from0 >= 0 && from1 >= 0;
      const int start = (from0 * map.in[1] + from1) * map.in[2];
      const auto line =
          ml_line_load<V * S, B, R, W>(plane + start, vector, vectors, threads.value, on);
#pragma unroll
      for (int v = 0; v < V; ++v) {
#pragma unroll
        for (int t2 = 0; t2 < K; ++t2) {
          const int column = v * S + t2 - B;
          const W value = line[column];
          if (line.has(column) && (chosen[v] < 0 || value > best[v] || value != value)) {
            best[v] = value;
            chosen[v] = (t0 * map.taps[1] + t1) * K + t2;
            if (PLACES) found[v] = start + vector * V * S + column;
          }
        }
      }
    }
  }
  if constexpr (PLACES) pool_put_places<V>(place, found, i, n);
  if (i >= n) return;
  ml_vec<T, V> maxima;
  ml_vec<I, V> choices;
#pragma unroll
  for (int v = 0; v < V; ++v) {
    maxima.at[v] = ml_cast<T>(best[v]);
    choices.at[v] = I(chosen[v] < 0 ? 0 : chosen[v]);
  }
  ml_store_whole<V>(y + ml_index(i) * V, maxima);
  if (choice) ml_store_whole<V>(choice + ml_index(i) * V, choices);
}

// The element of each window that is chosen; zero where a window sees none.
template <typename T, typename I, int D>
__global__ void __launch_bounds__(256, 4)
pool_choose(const T* __restrict__ x, T* y, const I* __restrict__ choice,
            const int* __restrict__ source0, const int* __restrict__ source1,
            const int* __restrict__ source2, pool_map map, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  int at[3] = {0, 0, 0};
  const T* plane = x + ml_places<D, 2>(map.out, i, at) * pool_plane<D>(map);
  int rest = int(choice[i]);
  const int t2 = rest % map.taps[2];
  rest /= map.taps[2];
  const int t1 = rest % map.taps[1], t0 = rest / map.taps[1];
  const int from0 = D > 2 ? source0[t0 * map.out[0].value + at[0]] : 0;
  const int from1 = D > 1 ? source1[t1 * map.out[1].value + at[1]] : 0;
  const int from2 = source2[t2 * map.out[2].value + at[2]];
  const bool there = from0 >= 0 && from1 >= 0 && from2 >= 0;
  y[i] = there ? plane[(from0 * map.in[1] + from1) * map.in[2] + from2] : ml_cast<T>(0);
}

// dx = the sum of dy over the windows that chose an element.
template <typename T, typename I, int D>
__global__ void __launch_bounds__(256, 4)
pool_unchoose(const T* __restrict__ dy, T* dx, const I* __restrict__ choice,
              const int* __restrict__ window0, const int* __restrict__ tap0,
              const int* __restrict__ window1, const int* __restrict__ tap1,
              const int* __restrict__ window2, const int* __restrict__ tap2, pool_map map, int n) {
  typedef ml_wide<T> W;
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  int at[3] = {0, 0, 0};
  const ml_index plane = ml_places<D, 2>(map.out, i, at) * pool_plane<D>(map);
  W sum = W(0);
  for (int k0 = 0; k0 < (D > 2 ? map.many[0] : 1); ++k0) {
    const int here0 = k0 * map.out[0].value + at[0];
    const int w0 = D > 2 ? window0[here0] : 0;
    if (w0 < 0) break;
    const int t0 = D > 2 ? tap0[here0] : 0;
    for (int k1 = 0; k1 < (D > 1 ? map.many[1] : 1); ++k1) {
      const int here1 = k1 * map.out[1].value + at[1];
      const int w1 = D > 1 ? window1[here1] : 0;
      if (w1 < 0) break;
      const int t1 = t0 * map.taps[1] + (D > 1 ? tap1[here1] : 0);
      const ml_index line = plane + ml_index(w0 * map.in[1] + w1) * map.in[2];
      for (int k2 = 0; k2 < map.many[2]; ++k2) {
        const int here2 = k2 * map.out[2].value + at[2];
        const int w2 = window2[here2];
        if (w2 < 0) break;
        if (int(choice[line + w2]) == t1 * map.taps[2] + tap2[here2])
          sum = sum + ml_cast<W>(dy[line + w2]);
      }
    }
  }
  dx[i] = ml_cast<T>(sum);
}

// The same for windows as of pool_max_lines: a thread has V * S elements, V windows of each line.
template <typename T, typename I, int D, int S, int K, int B, int V>
__global__ void __launch_bounds__(256, 2)
pool_unchoose_lines(const T* __restrict__ dy, T* dx, const I* __restrict__ choice,
                    const int* __restrict__ window0, const int* __restrict__ tap0,
                    const int* __restrict__ window1, const int* __restrict__ tap1, pool_map map,
                    ml_divisor threads, int n) {
  typedef ml_wide<T> W;
  const int L = (K - 1 - B) / S, R = (B + S - 1) / S;
  const int vectors = map.in[2] / V;
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  const int out = ml_divide(i, threads), vector = i - out * threads.value;
  int at[3] = {0, 0, 0};
  const ml_index plane = ml_places<D, 1>(map.out, out, at) * pool_plane<D>(map);
  W sum[V * S];
#pragma unroll
  for (int e = 0; e < V * S; ++e) sum[e] = W(0);
  for (int k0 = 0; k0 < (D > 2 ? map.many[0] : 1); ++k0) {
    const int here0 = k0 * map.out[0].value + at[0];
    const int w0 = D > 2 && i < n ? window0[here0] : 0;
    const int t0 = D > 2 && i < n ? tap0[here0] : 0;
    for (int k1 = 0; k1 < (D > 1 ? map.many[1] : 1); ++k1) {
      const int here1 = k1 * map.out[1].value + at[1];
      const int w1 = D > 1 && i < n ? window1[here1] : 0;
      const int t1 = t0 * map.taps[1] + (D > 1 && i < n ? tap1[here1] : 0);
      const bool on = i < n && w0 >= 0 && w1 >= 0;
      const ml_index line = plane + ml_index(w0 * map.in[1] + w1) * map.in[2];
      const auto gradients =
          ml_line_load<V, L, R, W>(dy + line, vector, vectors, threads.value, on);
      const auto choices =
          ml_line_load<V, L, R, int>(choice + line, vector, vectors, threads.value, on);
#pragma unroll
      for (int e = 0; e < V * S; ++e) {
        // Of the windows that see the element the last comes first, as its tap is the least.
#pragma unroll
        for (int w = V + R - 1; w >= -L; --w) {
          const int t2 = e + B - w * S;
          if (t2 >= 0 && t2 < K && gradients.has(w) && choices[w] == t1 * K + t2)
            sum[e] = sum[e] + gradients[w];
        }
      }
    }
  }
  if (i >= n) return;
  ml_vec<T, V * S> result;
#pragma unroll
  for (int e = 0; e < V * S; ++e) result.at[e] = ml_cast<T>(sum[e]);
  ml_store_whole<V * S>(dx + ml_index(i) * V * S, result);
}
