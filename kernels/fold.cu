// Sliding windows as columns, and columns added up where their windows lie: each element of the
// result gathers what it is made of, in a fixed order.
#include "line.cuh"

// Two axes of windows; see ops/window.py.
struct ml_windows {
  int large[2], small[2], kernel[2], stride[2], dilation[2], before[2];
};

// (planes, *large) to (planes, *kernel, *small); zeros outside.
template <typename T>
__global__ void __launch_bounds__(256)
unfold(T* __restrict__ columns, const T* __restrict__ x, ml_index count, ml_windows w) {
  const ml_index i = ml_index(blockIdx.x) * 256 + threadIdx.x;
  if (i >= count) return;
  ml_index rest = i;
  const int place1 = int(rest % w.small[1]);
  rest /= w.small[1];
  const int place0 = int(rest % w.small[0]);
  rest /= w.small[0];
  const int tap1 = int(rest % w.kernel[1]);
  rest /= w.kernel[1];
  const int tap0 = int(rest % w.kernel[0]);
  const ml_index plane = rest / w.kernel[0];
  const int at0 = place0 * w.stride[0] + tap0 * w.dilation[0] - w.before[0];
  const int at1 = place1 * w.stride[1] + tap1 * w.dilation[1] - w.before[1];
  const bool inside = at0 >= 0 && at0 < w.large[0] && at1 >= 0 && at1 < w.large[1];
  columns[i] = inside ? x[(plane * w.large[0] + at0) * w.large[1] + at1] : T(0);
}

// The same where the windows of the last axis lie S apart and have K taps side by side, the first
// of them B before the window's place: a thread has V windows of a line, and all their taps.
template <typename T, int S, int K, int B, int V>
__global__ void __launch_bounds__(256, 2)
unfold_lines(T* __restrict__ columns, const T* __restrict__ x, ml_index count, ml_windows w) {
  const int R = K - S - B > 0 ? K - S - B : 0, threads = w.small[1] / V;
  const ml_index i = ml_index(blockIdx.x) * 256 + threadIdx.x;
  ml_index rest = i / threads;
  const int vector = int(i - rest * threads);
  const int place0 = int(rest % w.small[0]);
  rest /= w.small[0];
  const int tap0 = int(rest % w.kernel[0]);
  const ml_index plane = rest / w.kernel[0];
  const int at0 = place0 * w.stride[0] + tap0 * w.dilation[0] - w.before[0];
  const auto line = ml_line_load<V * S, B, R, T>(
      x + (plane * w.large[0] + at0) * w.large[1], vector, w.large[1] / (V * S), threads,
      i < count && at0 >= 0 && at0 < w.large[0]);
  if (i >= count) return;
  T* to = columns + ((plane * w.kernel[0] + tap0) * K * w.small[0] + place0) * w.small[1];
#pragma unroll
  for (int t = 0; t < K; ++t, to += ml_index(w.small[0]) * w.small[1]) {
    ml_vec<T, V> out;
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const int place = v * S + t - B;
      out.at[v] = line.has(place) ? line[place] : T(0);
    }
    ml_store_whole<V>(to + vector * V, out);
  }
}

// The adjoint.
template <typename T>
__global__ void __launch_bounds__(256)
fold(T* __restrict__ out, const T* __restrict__ columns, ml_index count, ml_windows w) {
  typedef ml_wide<T> A;
  const ml_index i = ml_index(blockIdx.x) * 256 + threadIdx.x;
  if (i >= count) return;
  const ml_index line = i / w.large[1], plane = line / w.large[0];
  const int far1 = int(i - line * w.large[1]) + w.before[1];
  const int far0 = int(line - plane * w.large[0]) + w.before[0];
  const ml_index small = ml_index(w.small[0]) * w.small[1];
  const T* from = columns + plane * w.kernel[0] * w.kernel[1] * small;
  A sum = A(0);
  for (int tap0 = 0; tap0 < w.kernel[0]; ++tap0) {
    const int at0 = far0 - tap0 * w.dilation[0], place0 = at0 / w.stride[0];
    const bool seen = at0 >= 0 && place0 * w.stride[0] == at0 && place0 < w.small[0];
    for (int tap1 = 0; tap1 < w.kernel[1]; ++tap1, from += small) {
      const int at1 = far1 - tap1 * w.dilation[1], place1 = at1 / w.stride[1];
      if (seen && at1 >= 0 && place1 * w.stride[1] == at1 && place1 < w.small[1])
        sum = sum + ml_cast<A>(from[ml_index(place0) * w.small[1] + place1]);
    }
  }
  out[i] = ml_cast<T>(sum);
}

// Windows of `size`, `step` apart, along the middle of (outer, length, inner), added up: element
// `tap` of window `w` at `window` w + `tap_step` tap of outer o at `outer_step` o, inner i at
// `inner_step` i.
template <typename T>
__global__ void __launch_bounds__(256)
overlap_add(T* __restrict__ out, const T* __restrict__ windows, ml_index count, ml_index length,
            ml_index inner, ml_index number, ml_index size, ml_index step, ml_index outer_step,
            ml_index window_step, ml_index inner_step, ml_index tap_step) {
  typedef ml_wide<T> A;
  const ml_index i = ml_index(blockIdx.x) * 256 + threadIdx.x;
  if (i >= count) return;
  const ml_index line = i / inner, o = line / length, at = line - o * length;
  const T* const from = windows + o * outer_step + (i - line * inner) * inner_step;
  ml_index last = at / step;
  if (last >= number) last = number - 1;
  A sum = A(0);
  for (ml_index w = at < size ? 0 : (at - size) / step + 1; w <= last; ++w)
    sum = sum + ml_cast<A>(from[w * window_step + (at - w * step) * tap_step]);
  out[i] = ml_cast<T>(sum);
}
