// Convolutions whose groups have few channels, down to one (depthwise): too little for a product of
// matrices, bound by memory.  Every thread sums for itself; see conv.cuh for the geometry.
#include "conv.cuh"
#include "warp.cuh"

// ROWS channels of one position for each thread, neighbours along memory; a block has one plane.
template <typename T, int D, int ROWS>
__global__ void __launch_bounds__(256, 4)
depthwise_gather(const T* __restrict__ x, const T* __restrict__ weight, const T* __restrict__ bias,
                 T* y, conv_map map) {
  typedef ml_wide<T> W;
  const int positions = conv_lattice_size<D>(map);
  const int chunks = (positions + blockDim.x - 1) / blockDim.x;
  const int parts = (map.rows + ROWS - 1) / ROWS;
  const int plane = blockIdx.x / chunks;  // of (image, group, part)
  const int place = (blockIdx.x - plane * chunks) * blockDim.x + threadIdx.x;
  if (place >= positions) return;
  const int grouped = plane / parts, row0 = (plane - grouped * parts) * ROWS;
  const int group = grouped % map.groups;

  int u[D], base[D];
  conv_place<D>(map, place, u);
#pragma unroll
  for (int d = 0; d < D; ++d) base[d] = u[d] * map.scale[d] + map.offset[d];
  const ml_index source = conv_plane<D>(map.source);
  const T* from = x + ml_index(grouped) * map.channels * source;
  const T* factor = weight + (ml_index(group) * map.rows + row0) * map.pitch;

  W sum[ROWS];
#pragma unroll
  for (int r = 0; r < ROWS; ++r)
    sum[r] = bias && row0 + r < map.rows ? ml_cast<W>(bias[group * map.rows + row0 + r]) : W(0);
  // The axes before the last, folded: there may be none.
  const int lines = D == 1 ? 1 : (D == 2 ? map.taps[0].value
                                         : map.taps[0].value * map.taps[1].value);
  const int width = map.taps[D - 1].value;
  for (int channel = 0; channel < map.channels; ++channel) {
    for (int line = 0; line < lines; ++line) {
      ml_index row = 0;
      bool inside = true;
      if constexpr (D == 2) {
        const int at = base[0] + line * map.step[0];
        inside = unsigned(at) < unsigned(map.source[0]);
        row = at;
      }
      if constexpr (D == 3) {
        const int first = ml_divide(line, map.taps[1]);
        const int z = base[0] + first * map.step[0];
        const int at = base[1] + (line - first * map.taps[1].value) * map.step[1];
        inside = unsigned(z) < unsigned(map.source[0]) && unsigned(at) < unsigned(map.source[1]);
        row = ml_index(z) * map.source[1] + at;
      }
      if (inside) {
        const T* along = from + row * map.source[D - 1];
        for (int tap = 0; tap < width; ++tap) {
          const int at = base[D - 1] + tap * map.step[D - 1];
          if (unsigned(at) >= unsigned(map.source[D - 1])) continue;
          const W value = ml_cast<W>(along[at]);
#pragma unroll
          for (int r = 0; r < ROWS; ++r)
            if (row0 + r < map.rows)
              sum[r] = sum[r] + ml_cast<W>(factor[ml_index(r) * map.pitch + line * width + tap]) *
                                    value;
        }
      }
    }
    from += source;
    factor += map.count.value;
  }

  ml_index at = 0;
#pragma unroll
  for (int d = 0; d < D; ++d) at = at * map.target[d] + u[d] * map.spread[d] + map.shift[d];
  const ml_index size = conv_plane<D>(map.target);
  T* to = y + (ml_index(grouped) * map.rows + row0) * size + at;
#pragma unroll
  for (int r = 0; r < ROWS; ++r)
    if (row0 + r < map.rows) to[r * size] = ml_cast<T>(sum[r]);
}

// One share of the positions for TAPS pairs of channel and tap of one row of the weight:
// total[share][group, row][channel, tap].  A block adds up in the order of its threads.
template <typename T, typename W, int D, int TAPS>
__global__ void __launch_bounds__(256)
depthwise_weight(const T* __restrict__ x, const T* __restrict__ small, W* total, conv_map map,
                 int share) {
  __shared__ conv_pair<D> pairs[TAPS];
  __shared__ W slots[TAPS][32];
  const int length = map.channels * map.count.value, parts = (length + TAPS - 1) / TAPS;
  const int row = blockIdx.x / parts, first_tap = (blockIdx.x - row * parts) * TAPS;
  const int group = row / map.rows, in_group = row - group * map.rows;
  if (threadIdx.x < TAPS) {
    conv_pair<D> pair;
    pair.describe(map, first_tap + threadIdx.x);
    pair.keep(&pairs[threadIdx.x]);
  }
  __syncthreads();

  const int positions = conv_lattice_size<D>(map), last = map.images * positions;
  const int first = min(last, int(blockIdx.y) * share), stop = min(last, first + share);
  W sum[TAPS];
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap) sum[tap] = W(0);
  for (int p = first + threadIdx.x; p < stop; p += blockDim.x) {
    const int image = p / positions;
    const ml_index plane = (ml_index(image) * map.groups + group) * map.rows + in_group;
    const W factor = ml_cast<W>(small[plane * positions + (p - image * positions)]);
    conv_view<T, D> view;
    view.look(x, map, group, p);
#pragma unroll
    for (int tap = 0; tap < TAPS; ++tap)
      sum[tap] = sum[tap] + factor * ml_cast<W>(view.load(map, pairs[tap]));
  }
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap) {
    const W all = ml_block_sum(sum[tap], slots[tap]);
    if (threadIdx.x == 0 && first_tap + tap < length)
      total[(ml_index(blockIdx.y) * map.groups * map.rows + row) * length + first_tap + tap] = all;
  }
}
