// Convolutions of halves on tensor cores: the products of conv.cuh, in tiles of 64 M x 128 for the
// gather and 128 x 128 for the weight.  Eight warps, two along the rows and four along the columns;
// 32 terms of the sums at a time, in two slots: while one is multiplied the next is on its way, the
// weight by cp.async and what the positions see, one half a lane, through registers.
#include "conv.cuh"
#include "mma.cuh"

namespace {

const int conv_wide = 128;   // columns of a tile
const int conv_depth = 32;   // terms of a step

// What a step multiplies: `a` has rows of 32 halves; `b` has them as rows of 128 (by term) for the
// gather, whose positions are columns, and as rows of 32 (by column) for the weight.
template <int ROWS>
struct conv_slot {
  alignas(128) unsigned char a[ROWS * conv_depth * 2];
  alignas(128) unsigned char b[conv_wide * conv_depth * 2];
};

template <typename T, int M>
__device__ __forceinline__ void conv_clear(float (&sum)[M][4][4]) {
#pragma unroll
  for (int i = 0; i < M; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int c = 0; c < 4; ++c) sum[i][j][c] = 0.0f;
}

// sum += a * b for terms k to k + 15 of a slot, for this warp's M x 4 tiles of 16 x 8.
template <typename T, int M, bool by_term, int ROWS>
__device__ __forceinline__ void conv_multiply(const conv_slot<ROWS>& slot, int k,
                                              float (&sum)[M][4][4]) {
  const unsigned a = ml_shared(slot.a), b = ml_shared(slot.b);
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int row = (warp >> 2) * 16 * M, column = (warp & 3) * 32;
  // One tile of `a` is on its way while the one before is multiplied.
  unsigned left[2][4], right[4][2];
  const auto fetch = [&](int i) {
    ml_ldmatrix(left[i & 1], a + ml_swizzled<4>(row + 16 * i + ml_lane_deep(lane),
                                                k / 8 + ml_lane_right(lane)));
  };
#pragma unroll
  for (int j = 0; j < 4; j += 2) {
    unsigned both[4];
    if constexpr (by_term)
      ml_ldmatrix_trans(both, b + ml_swizzled<16>(k + ml_lane_deep(lane),
                                                  column / 8 + j + ml_lane_right(lane)));
    else
      ml_ldmatrix(both, b + ml_swizzled<4>(column + 8 * j + ml_lane_wide(lane),
                                           k / 8 + ml_lane_low(lane)));
    right[j][0] = both[0];
    right[j][1] = both[1];
    right[j + 1][0] = both[2];
    right[j + 1][1] = both[3];
  }
  fetch(0);
#pragma unroll
  for (int i = 0; i < M; ++i) {
    if (i + 1 < M) fetch(i + 1);
#pragma unroll
    for (int j = 0; j < 4; ++j)
      ml_mma<T>(sum[i][i % 2 ? 3 - j : j], left[i & 1], right[i % 2 ? 3 - j : j]);
  }
}

// The sums as halves in a tile of 256-byte rows, each with its row's `bias`.
template <typename T, int M>
__device__ __forceinline__ void conv_stage(const float (&sum)[M][4][4], unsigned char* out,
                                           const float* bias) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int column = (warp & 3) * 32;
#pragma unroll
  for (int i = 0; i < M; ++i)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = (warp >> 2) * 16 * M + 16 * i + 8 * half + (lane >> 2);
      const float more = bias[row];
#pragma unroll
      for (int j = 0; j < 4; ++j)
        *reinterpret_cast<unsigned*>(out + ml_swizzled<16>(row, column / 8 + j) + 4 * (lane & 3)) =
            ml_pack<T>(sum[i][j][2 * half] + more, sum[i][j][2 * half + 1] + more);
    }
}

template <typename T>
__device__ __forceinline__ void conv_put(unsigned shared, T value) {
  asm volatile("st.shared.u16 [%0], %1;"
               :: "r"(shared), "h"(*reinterpret_cast<const unsigned short*>(&value)) : "memory");
}

template <typename T>
__device__ __forceinline__ T* conv_half(unsigned char* tile, int row, int column) {
  return reinterpret_cast<T*>(tile + ml_swizzled<16>(row, column >> 3)) + (column & 7);
}

}  // namespace

// How a tile of what positions see is filled.  Of any pairs of channel and tap, found in a table: by
// their coordinates, or, of at most 31 taps, by a bit for each in a register.  Of blocks of channels
// at one tap: no table.  Of whole runs of 8 positions that see just their own place: by cp.async.
enum { CONV_COORDINATES, CONV_BITS, CONV_BLOCKS, CONV_RUNS };

// y = bias + weight * (what each position sees).  The weight's rows are padded with zeros to a
// multiple of 8 halves, its pairs in blocks of channels for CONV_BLOCKS.
// `whole`: runs of 8 positions are 16 aligned bytes of one plane of y.  With `total`, a block sums
// `share` steps and leaves them in total[share][tile][row][position] for conv_finish.
template <typename T, int D, int M, int FEED>
__global__ void __launch_bounds__(256, 2)
conv_gather_mma(const T* __restrict__ x, const T* __restrict__ weight, const T* __restrict__ bias,
                T* y, float* total, conv_map map, int share, bool whole) {
  const int rows = 32 * M;
  union memory {
    conv_slot<rows> slot[2];
    unsigned char out[rows * conv_wide * 2];
  };
  __shared__ memory shared;
  const bool bits = FEED == CONV_BITS, tabled = FEED == CONV_COORDINATES || bits;
  __shared__ conv_pair<D> pairs[2][tabled ? conv_depth : 1];
  __shared__ float biases[rows];

  const int row_tiles = (map.rows + rows - 1) / rows;
  const int rest = blockIdx.x / row_tiles, row0 = (blockIdx.x - rest * row_tiles) * rows;
  const int column_tile = rest / map.groups, group = rest - column_tile * map.groups;
  const int length = map.channels * map.count.value;
  const int begin = blockIdx.y * share;
  const int end = min(begin + share, (length + conv_depth - 1) / conv_depth);
  if (threadIdx.x < rows)
    biases[threadIdx.x] = bias && row0 + threadIdx.x < map.rows
        ? ml_cast<float>(bias[group * map.rows + row0 + threadIdx.x]) : 0.0f;

  // A thread has one position and every other term, or a run of positions and two terms.
  const int place = threadIdx.x & 127, term0 = threadIdx.x >> 7;
  const int run = threadIdx.x & 15, term_of_run = threadIdx.x >> 4;
  const ml_index source = conv_plane<D>(map.source);
  conv_view<T, D> view;
  view.look(x, map, group, column_tile * conv_wide + (FEED == CONV_RUNS ? run * 8 : place));
  const unsigned seen = bits ? view.seen(map) : 0;

  const auto describe = [&](int step) {
    if (tabled && threadIdx.x < conv_depth) {
      conv_pair<D> pair;
      const int k = step * conv_depth + threadIdx.x, tap = pair.describe(map, k);
      if (bits) pair.at[0] = k < length ? tap : 31;
      pair.keep(&pairs[step & 1][threadIdx.x]);
    }
  };
  // Where this thread's first term of a step lies, and whether it is there.
  const T* here = view.origin + (begin * conv_depth + term_of_run) * source;
  bool inside = view.base[D - 1] >= 0;

  const int chunk = threadIdx.x & 3;
  const T* from = weight + (ml_index(group) * map.rows + row0) * map.pitch + chunk * 8;
  const auto copy = [&](int step) {
    const unsigned a = ml_shared(shared.slot[step & 1].a);
    for (int row = threadIdx.x >> 2; row < rows; row += 64) {
      const bool there = row0 + row < map.rows && step * conv_depth + chunk * 8 < map.pitch;
      ml_copy_async<16>(a + ml_swizzled<4>(row, chunk),
                        there ? from + ml_index(row) * map.pitch + step * conv_depth : weight,
                        there);
    }
    if constexpr (FEED == CONV_RUNS) {
      const unsigned b = ml_shared(shared.slot[step & 1].b);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int term = term_of_run + 16 * i;
        const bool there = inside && step * conv_depth + term < map.channels;
        ml_copy_async<16>(b + ml_swizzled<16>(term, run), there ? here : x, there);
        here += 16 * source;
      }
    }
    ml_copy_commit();
  };
  const auto turn = [&](int step) {
    if constexpr (FEED == CONV_BLOCKS) {
      const int block = ml_divide(step, map.count);
      conv_pair<D> pair;
      pair.locate(map, block * conv_block, step - block * map.count.value);
      inside = view.inside(map, pair);
      here = view.origin + pair.offset + term0 * source;
    }
  };
  // Half a step at a time: 16 values on their way would take too many registers.
  T b[8];
  const auto load = [&](int step, int half) {
    if constexpr (FEED == CONV_BLOCKS) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        b[i] = inside ? *here : ml_cast<T>(0);
        here += 2 * source;
        asm("" : "+l"(here));  // one pointer, not one for each i
      }
    }
    if constexpr (tabled) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const conv_pair<D> pair = pairs[step & 1][16 * half + term0 + 2 * i];
        const bool there = bits ? (seen >> pair.at[0]) & 1 : view.inside(map, pair);
        b[i] = there ? view.origin[pair.offset] : ml_cast<T>(0);
      }
    }
  };
  const auto store = [&](int step, int half) {
    if constexpr (FEED == CONV_RUNS) return;
    // The swizzle of term0 + 2 i, with one base for all i.
    const unsigned base = ml_shared(shared.slot[step & 1].b) + ml_swizzled<16>(term0, place >> 3) +
                          2 * (place & 7);
#pragma unroll
    for (int i = 0; i < 8; ++i)
      conv_put((base ^ (32 * (i & 3))) + (16 * half + 2 * i) * (2 * conv_wide), b[i]);
  };

  float sum[M][4][4];
  conv_clear<T, M>(sum);
  describe(begin);
  describe(begin + 1);
  __syncthreads();
  if (begin < end) {
    copy(begin);
    turn(begin);
    for (int half = 0; half < 2; ++half) {
      load(begin, half);
      store(begin, half);
    }
  }
  ml_copy_wait<0>();
  __syncthreads();
  for (int step = begin; step < end; ++step) {
    const bool more = step + 1 < end;
    if (more) {
      copy(step + 1);
      turn(step + 1);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (more) load(step + 1, half);
      conv_multiply<T, M, true>(shared.slot[step & 1], 16 * half, sum);
      if (more) store(step + 1, half);
    }
    describe(step + 2);
    ml_copy_wait<0>();
    __syncthreads();
  }

  if (total) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    float* to = total + (ml_index(blockIdx.y) * gridDim.x + blockIdx.x) * (rows * conv_wide) +
                ((warp >> 2) * 16 * M + (lane >> 2)) * conv_wide + (warp & 3) * 32 + 2 * (lane & 3);
#pragma unroll
    for (int i = 0; i < M; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j)
#pragma unroll
        for (int half = 0; half < 2; ++half)
          ml_store_whole<2>(to + (16 * i + 8 * half) * conv_wide + 8 * j,
                            ml_vec<float, 2>{sum[i][j][2 * half], sum[i][j][2 * half + 1]});
    return;
  }
  conv_stage<T, M>(sum, shared.out, biases);
  __syncthreads();
  const ml_index plane = conv_plane<D>(map.target);
  if (whole) {
    const int part = threadIdx.x & 15;
    const ml_index to = conv_written<D>(map, group, column_tile * conv_wide + part * 8);
    if (to < 0) return;
    for (int row = threadIdx.x >> 4; row < rows && row0 + row < map.rows; row += 16)
      ml_store_whole<8>(y + to + (row0 + row) * plane,
                        ml_load<8>(conv_half<T>(shared.out, row, part * 8)));
  } else {
    const ml_index to = conv_written<D>(map, group, column_tile * conv_wide + place);
    if (to < 0) return;
    for (int row = term0; row < rows && row0 + row < map.rows; row += 2)
      y[to + (row0 + row) * plane] = *conv_half<T>(shared.out, row, place);
  }
}

// One share of the positions: total[share][group][row][channel, tap] in float32.
// `whole`: runs of 8 positions are 16 aligned bytes of one plane of `small`.  `blocked`: the pairs
// stand in blocks of channels.
template <typename T, int D, int M, bool whole, bool blocked>
__global__ void __launch_bounds__(256, 2)
conv_weight_mma(const T* __restrict__ x, const T* __restrict__ small, float* total, conv_map map,
                int share) {
  const int rows = 32 * M;
  __shared__ conv_slot<rows> slots[2];
  __shared__ conv_pair<D> pairs[conv_wide];

  const int length = map.channels * map.count.value;
  const int row_tiles = (map.rows + rows - 1) / rows;
  const int column_tiles = (length + conv_wide - 1) / conv_wide;
  const int rest = blockIdx.x / row_tiles, row0 = (blockIdx.x - rest * row_tiles) * rows;
  const int group = rest / column_tiles, column0 = (rest - group * column_tiles) * conv_wide;
  const int positions = conv_lattice_size<D>(map), last = map.images * positions;
  const int first = min(last, int(blockIdx.y) * share), stop = min(last, first + share);
  const int steps = (stop - first + conv_depth - 1) / conv_depth;
  if (threadIdx.x < conv_wide) {
    conv_pair<D> pair;
    pair.template describe<blocked>(map, column0 + threadIdx.x);
    pair.keep(&pairs[threadIdx.x]);
  }

  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  // Where position p lies in the small side's first row of this tile.
  const auto position = [&](int p) {
    const int image = p / positions;
    return small + (ml_index(image) * map.groups + group) * map.rows * positions +
           ml_index(row0) * positions + (p - image * positions);
  };
  T a[whole ? 1 : 2 * M], b[8];
  const auto copy = [&](int step) {
    const int chunk = threadIdx.x & 3, p = first + step * conv_depth + chunk * 8;
    const unsigned to = ml_shared(slots[step & 1].a);
    const T* from = position(p < stop ? p : first);
    for (int row = threadIdx.x >> 2; row < rows; row += 64) {
      const bool there = p < stop && row0 + row < map.rows;
      ml_copy_async<16>(to + ml_swizzled<4>(row, chunk),
                        there ? from + ml_index(row) * positions : small, there);
    }
    ml_copy_commit();
  };
  // What this lane's position of a step sees, and where it lies in the small side.
  conv_view<T, D> view;
  const T* from = small;
  bool known = false;
  const auto look = [&](int step) {
    const int p = first + step * conv_depth + lane;
    known = p < stop;
    view.look(x, map, group, known ? p : last);
    if constexpr (!whole) from = position(known ? p : 0);
  };
  const auto load = [&](int half) {
    if constexpr (!whole) {
#pragma unroll
      for (int i = 0; i < 2 * M; ++i) {
        const int row = warp + 8 * (2 * M * half + i);
        a[i] = known && row0 + row < map.rows ? from[ml_index(row) * positions] : ml_cast<T>(0);
      }
    }
    if constexpr (blocked) {
      const ml_index source = conv_plane<D>(map.source);
#pragma unroll
      for (int block = 0; block < 2; ++block) {
        const conv_pair<D> pair = pairs[warp + 64 * half + conv_block * block];
        const bool there = view.inside(map, pair);
        const T* here = view.origin + pair.offset;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          b[4 * block + i] = there ? *here : ml_cast<T>(0);
          here += 8 * source;
        }
      }
    } else {
#pragma unroll
      for (int i = 0; i < 8; ++i) b[i] = view.load(map, pairs[warp + 8 * (8 * half + i)]);
    }
  };
  const auto store = [&](int step, int half) {
    // Rows that lie 8 apart are swizzled alike.
    const unsigned base = ml_swizzled<4>(warp, lane >> 3) + 2 * (lane & 7);
    if constexpr (!whole) {
      const unsigned to = ml_shared(slots[step & 1].a) + base;
#pragma unroll
      for (int i = 0; i < 2 * M; ++i)
        conv_put(to + 8 * (2 * M * half + i) * (2 * conv_depth), a[i]);
    }
    const unsigned to = ml_shared(slots[step & 1].b) + base;
#pragma unroll
    for (int i = 0; i < 8; ++i) conv_put(to + 8 * (8 * half + i) * (2 * conv_depth), b[i]);
  };

  float sum[M][4][4];
  conv_clear<T, M>(sum);
  __syncthreads();
  if (steps > 0) {
    if constexpr (whole) copy(0);
    look(0);
    for (int half = 0; half < 2; ++half) {
      load(half);
      store(0, half);
    }
  }
  ml_copy_wait<0>();
  __syncthreads();
  for (int step = 0; step < steps; ++step) {
    const bool more = step + 1 < steps;
    if (more) {
      if constexpr (whole) copy(step + 1);
      look(step + 1);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (more) load(half);
      conv_multiply<T, M, false>(slots[step & 1], 16 * half, sum);
      if (more) store(step + 1, half);
    }
    ml_copy_wait<0>();
    __syncthreads();
  }

  float* to = total + ((ml_index(blockIdx.y) * map.groups + group) * map.rows + row0) * length + column0;
  const bool even = length % 2 == 0;
#pragma unroll
  for (int i = 0; i < M; ++i)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = (warp >> 2) * 16 * M + 16 * i + (lane >> 2) + 8 * half;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int column = (warp & 3) * 32 + 8 * j + 2 * (lane & 3);
        if (row0 + row >= map.rows || column0 + column >= length) continue;
        float* at = to + ml_index(row) * length + column;
        const float low = sum[i][j][2 * half], high = sum[i][j][2 * half + 1];
        if (even) {
          ml_store_whole<2>(at, ml_vec<float, 2>{low, high});
        } else {
          at[0] = low;
          if (column0 + column + 1 < length) at[1] = high;
        }
      }
    }
}
