// Gathers whose targets lie two apart along the last axis, as in the gradient of a convolution of
// stride 2: a block makes both of each pair, so that lines are written whole.
#include "conv_gather.cuh"

// What the right ones of the pairs have instead: along the last axis, and of all taps.
struct conv_right {
  int offset, channels, weigh_first;
  ml_divisor taps, count;
};

// y = bias + weight * (what each position sees), as in conv_gather_mma; the positions of the left
// ones stand for both.  `whole`: pairs are 4 aligned bytes.
template <typename T, int D, int BM, int FEED, int EACH>
__global__ void __launch_bounds__(conv_threads, BM > 32 || EACH < 8 ? 2 : 3)
conv_gather_pairs(const T* __restrict__ x, const T* __restrict__ weight, const T* __restrict__ bias,
                  T* y, conv_map map, conv_right right, bool whole) {
  typedef conv_product<T, BM, true, true> product;
  static_assert(2 * BM * conv_wide * sizeof(T) <= product::BYTES, "both are staged");
  extern __shared__ __align__(128) unsigned char pool[];
  float* biases = reinterpret_cast<float*>(pool + product::BYTES);
  auto* table = reinterpret_cast<ml_vec<int, 4>*>(biases + BM);

  const int row_tiles = (map.rows + BM - 1) / BM;
  const int rest = blockIdx.x / row_tiles, row0 = (blockIdx.x - rest * row_tiles) * BM;
  const int column_tile = rest / map.groups, group = rest - column_tile * map.groups;
  for (int row = threadIdx.x; row < BM; row += conv_threads)
    biases[row] = bias && row0 + row < map.rows
        ? ml_cast<float>(bias[group * map.rows + row0 + row]) : 0.0f;
  const conv_rows<T, BM, EACH> rows(weight, map, group, row0);

  product tile;
  typename product::packed left, now;
#pragma unroll 1
  for (int side = 0; side < 2; ++side) {
    conv_map seen = map;
    if (side) {
      seen.offset[D - 1] = right.offset;
      seen.channels = right.channels;
      seen.weigh_first = right.weigh_first;
      seen.taps[D - 1] = right.taps;
      seen.count = right.count;
#pragma unroll
      for (int i = 0; i < 2 * product::MT; ++i)
#pragma unroll
        for (int j = 0; j < product::NT; ++j) left[i][j] = now[i][j];
    }
    const int length = seen.channels * seen.count.value;
    conv_sum_seen<T, D, BM, FEED, EACH>(tile, ml_shared(pool), table, x, rows, seen, group,
                                        column_tile * conv_wide, 0,
                                        (length + conv_depth - 1) / conv_depth);
    tile.pack(now, biases);
  }
  unsigned char* const other = pool + BM * conv_wide * sizeof(T);
  tile.stage(pool, left);
  tile.stage(other, now);
  __syncthreads();

  int u[D];
  const int p = column_tile * conv_wide + threadIdx.x;
  conv_place<D>(map, p, u);
  const ml_index to = conv_written<D>(map, group, p), plane = conv_plane<D>(map.target);
  const bool both = 2 * u[D - 1] + 1 < map.target[D - 1];
  if (to < 0) return;
  for (int at = 0; at < BM && row0 + at < map.rows; ++at) {
    T* pair = y + to + (row0 + at) * plane;
    const T one = *conv_staged<T>(pool, at, threadIdx.x);
    const T two = *conv_staged<T>(other, at, threadIdx.x);
    if (whole) {
      ml_store<2>(pair, ml_vec<T, 2>{one, two});
    } else {
      pair[0] = one;
      if (both) pair[1] = two;
    }
  }
}
