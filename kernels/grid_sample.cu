// Sampling an image at given places: each takes from a few elements along each axis, its taps, with
// weights that depend on the place.
#include "common.cuh"

struct sample_map {
  int size[3];  // of the image, the last D used
  int images, channels;
  int places;   // of an image's grid
  int padding;  // 0 zeros, 1 border, 2 reflection
  int align;    // whether -1 and 1 are the centres of the corner elements, not their outer edges
};

namespace {

enum { BILINEAR, NEAREST, BICUBIC };

// The place with the padding applied; `sign` is its derivative: 1, -1, 0 where it is clipped.
template <typename W>
__device__ __forceinline__ W sample_inside(W place, int size, int padding, bool align, W& sign) {
  sign = W(1);
  if (padding == 0) return place;
  if (padding == 2) {
    const W low = align ? W(0) : W(-0.5), span = align ? W(size - 1) : W(size);
    if (span == W(0)) {
      sign = W(0);
      return W(0);
    }
    if (place < low) sign = W(-1);
    const W distance = fabs(place - low), extra = fmod(distance, span);
    const bool odd = fmod(floor(distance / span), W(2)) == W(1);
    place = (odd ? span - extra : extra) + low;
    if (odd) sign = -sign;
  }
  if (place <= W(0) || place >= W(size - 1)) sign = W(0);
  return place >= W(0) ? ml_min(place, W(size - 1)) : W(0);
}

// Keys' cubic convolution kernel with a = -0.75, and its derivative.
template <typename W>
__device__ __forceinline__ W sample_cubic(W distance) {
  const W a = W(-0.75), d = fabs(distance);
  if (d <= W(1)) return ((a + 2) * d - (a + 3)) * d * d + 1;
  return d < W(2) ? ((a * d - 5 * a) * d + 8 * a) * d - 4 * a : W(0);
}
template <typename W>
__device__ __forceinline__ W sample_cubic_slope(W distance) {
  const W a = W(-0.75), d = fabs(distance);
  W slope = W(0);
  if (d <= W(1)) slope = (3 * (a + 2) * d - 2 * (a + 3)) * d;
  else if (d < W(2)) slope = (3 * a * d - 10 * a) * d + 8 * a;
  return distance < W(0) ? -slope : slope;
}

// The taps along one axis: elements, -1 where they lie outside, weights, and the weights' slopes.
template <typename W, int MODE>
struct sample_axis {
  static const int taps = MODE == BICUBIC ? 4 : MODE == NEAREST ? 1 : 2;
  int at[taps];
  W weight[taps];
  W slope[taps];

  __device__ __forceinline__ void find(W coordinate, int size, int padding, bool align) {
    W scale = align ? W(size - 1) / W(2) : W(size) / W(2);
    W place = coordinate * scale + W(size - 1) / W(2), sign;
    if constexpr (MODE != BICUBIC) {
      place = sample_inside(place, size, padding, align, sign);
      scale *= sign;
    }
    // Neither NaN nor what is far outside has an index; both see the padding.
    if (!(fabs(place) < W(1 << 30))) place = W(-100);
    if constexpr (MODE == NEAREST) {
      at[0] = int(rint(place));
      weight[0] = W(1);
      slope[0] = W(0);
    } else {
      const W whole = floor(place), offset = place - whole;
      const int first = int(whole);
      if constexpr (MODE == BILINEAR) {
        at[0] = first;
        at[1] = first + 1;
        weight[0] = W(1) - offset;
        weight[1] = offset;
        slope[0] = -scale;
        slope[1] = scale;
      } else {
#pragma unroll
        for (int tap = 0; tap < 4; ++tap) {
          at[tap] = int(sample_inside(W(first + tap - 1), size, padding, align, sign));
          weight[tap] = sample_cubic(offset - W(tap - 1));
          slope[tap] = sample_cubic_slope(offset - W(tap - 1)) * scale;
        }
      }
    }
#pragma unroll
    for (int tap = 0; tap < taps; ++tap)
      if (unsigned(at[tap]) >= unsigned(size)) at[tap] = -1;
  }
};

// The taps of all axes, the first D of them used, the last along memory.
template <typename T, int D, int MODE>
struct sample_taps {
  typedef ml_wide<T> W;
  typedef sample_axis<W, MODE> axis;
  axis axes[D];

  __device__ __forceinline__ void find(const T* grid, const sample_map& map) {
#pragma unroll
    for (int d = 0; d < D; ++d)
      axes[d].find(ml_cast<W>(grid[D - 1 - d]), map.size[3 - D + d], map.padding, map.align);
  }

  // Calls use(combination, element, tap of each axis) for every combination; -1 is outside.
  template <typename Use>
  __device__ __forceinline__ void each(const sample_map& map, Use use) const {
    const int none[3] = {0, 0, 0};
    if constexpr (D == 2) {
#pragma unroll
      for (int i = 0; i < axis::taps; ++i)
#pragma unroll
        for (int j = 0; j < axis::taps; ++j) {
          const bool inside = axes[0].at[i] >= 0 && axes[1].at[j] >= 0;
          const int taps[3] = {i, j, none[2]};
          use(i * axis::taps + j, inside ? axes[0].at[i] * map.size[2] + axes[1].at[j] : -1, taps);
        }
    } else {
#pragma unroll
      for (int h = 0; h < axis::taps; ++h)
#pragma unroll
        for (int i = 0; i < axis::taps; ++i)
#pragma unroll
          for (int j = 0; j < axis::taps; ++j) {
            const bool inside = axes[0].at[h] >= 0 && axes[1].at[i] >= 0 && axes[2].at[j] >= 0;
            const int taps[3] = {h, i, j};
            use((h * axis::taps + i) * axis::taps + j,
                inside ? (axes[0].at[h] * map.size[1] + axes[1].at[i]) * map.size[2] +
                             axes[2].at[j]
                       : -1,
                taps);
          }
    }
  }

  __device__ __forceinline__ W weight(const int (&taps)[3]) const {
    W product = W(1);
#pragma unroll
    for (int d = 0; d < D; ++d) product *= axes[d].weight[taps[d]];
    return product;
  }

  // The derivative of the weight along one axis.
  __device__ __forceinline__ W slope(const int (&taps)[3], int along) const {
    W product = W(1);
#pragma unroll
    for (int d = 0; d < D; ++d)
      product *= d == along ? axes[d].slope[taps[d]] : axes[d].weight[taps[d]];
    return product;
  }
};

template <int D>
__device__ __forceinline__ ml_index sample_plane(const sample_map& map) {
  ml_index size = 1;
#pragma unroll
  for (int d = 3 - D; d < 3; ++d) size *= map.size[d];
  return size;
}

// This thread's image and place; false past the last.
__device__ __forceinline__ bool sample_here(const sample_map& map, int& image, int& place) {
  const int parts = (map.places + blockDim.x - 1) / blockDim.x;
  image = blockIdx.x / parts;
  place = (blockIdx.x - image * parts) * blockDim.x + threadIdx.x;
  return place < map.places;
}

}  // namespace

// y[image][channel][place], `share` channels to a thread.
template <typename T, int D, int MODE>
__global__ void __launch_bounds__(128, 5)
sample_forward(const T* __restrict__ x, const T* __restrict__ grid, T* y, sample_map map,
               int share) {
  typedef ml_wide<T> W;
  int image, place;
  if (!sample_here(map, image, place)) return;
  sample_taps<T, D, MODE> taps;
  taps.find(grid + (ml_index(image) * map.places + place) * D, map);
  const ml_index plane = sample_plane<D>(map);
  const int first = blockIdx.y * share, stop = min(map.channels, first + share);
  for (int channel = first; channel < stop; ++channel) {
    const ml_index at = ml_index(image) * map.channels + channel;
    const T* from = x + at * plane;
    W sum = W(0);
    taps.each(map, [&](int, int element, const int (&tap)[3]) {
      if (element >= 0) sum += taps.weight(tap) * ml_cast<W>(from[element]);
    });
    y[at * map.places + place] = ml_cast<T>(sum);
  }
}

// The gradient of the grid.
template <typename T, int D, int MODE>
__global__ void __launch_bounds__(128, 5)
sample_backward_grid(const T* __restrict__ dy, const T* __restrict__ x,
                     const T* __restrict__ grid, T* dgrid, sample_map map) {
  typedef ml_wide<T> W;
  int image, place;
  if (!sample_here(map, image, place)) return;
  const ml_index where = (ml_index(image) * map.places + place) * D;
  sample_taps<T, D, MODE> taps;
  taps.find(grid + where, map);
  const ml_index plane = sample_plane<D>(map);
  W sum[D];
#pragma unroll
  for (int d = 0; d < D; ++d) sum[d] = W(0);
  for (int channel = 0; channel < map.channels; ++channel) {
    const ml_index at = ml_index(image) * map.channels + channel;
    const T* from = x + at * plane;
    const W factor = ml_cast<W>(dy[at * map.places + place]);
    taps.each(map, [&](int, int element, const int (&tap)[3]) {
      if (element < 0) return;
      const W value = factor * ml_cast<W>(from[element]);
#pragma unroll
      for (int d = 0; d < D; ++d) sum[d] += taps.slope(tap, d) * value;
    });
  }
#pragma unroll
  for (int d = 0; d < D; ++d) dgrid[where + D - 1 - d] = ml_cast<T>(sum[d]);
}

// For each combination of taps and place, [image][combination][place]: the element that it takes,
// counted through all images (-1: none), its place, counted likewise, and its weight.
template <typename T, typename W, typename K, int D, int MODE>
__global__ void __launch_bounds__(128, 5)
sample_entries(const T* __restrict__ grid, K* element, ml_index* source, W* weight,
               sample_map map) {
  int image, place;
  if (!sample_here(map, image, place)) return;
  sample_taps<T, D, MODE> taps;
  const ml_index where = ml_index(image) * map.places + place;
  taps.find(grid + where * D, map);
  const ml_index plane = sample_plane<D>(map);
  int combinations = 1;
#pragma unroll
  for (int d = 0; d < D; ++d) combinations *= sample_axis<W, MODE>::taps;
  taps.each(map, [&](int combination, int at, const int (&tap)[3]) {
    const ml_index entry = (ml_index(image) * combinations + combination) * map.places + place;
    element[entry] = at < 0 ? K(-1) : K(image * plane + at);
    source[entry] = where;
    weight[entry] = taps.weight(tap);
  });
}
