// Convolutions in any type, by plain multiply-adds: float32 in full float32, double, integers and
// complex numbers.  Tiles of 16 R x 64, of which a thread has R x 4; two of them in shared memory.
#include "conv.cuh"

namespace {

const int conv_columns = 64;

// A thread has its R rows and 4 columns in pieces of up to 16 bytes, 16 threads apart.  Rows of the
// tiles are padded by 16 bytes, so that both ways of filling them, and reading, meet no bank twice.
template <typename W, int R>
struct conv_tiles {
  static const int depth = sizeof(W) == 16 ? 8 : 16;
  static const int rows = 16 * R;
  static const int piece = sizeof(W) > 4 ? 16 / sizeof(W) : 4;
  static const int each = piece < R ? piece : R, quads = R / each;
  W a[2][depth][rows + piece];
  W b[2][depth][conv_columns + piece];
};

template <typename W, int R>
union conv_memory {
  __device__ conv_memory() {}
  conv_tiles<W, R> tiles;
  W out[16 * conv_tiles<W, R>::each][conv_columns + conv_tiles<W, R>::piece];
};

// A warp's lanes form 4 rows of 8 threads.
struct conv_thread {
  int row = (threadIdx.x >> 6) * 4 + ((threadIdx.x >> 3) & 3);
  int column = ((threadIdx.x >> 5) & 1) * 8 + (threadIdx.x & 7);
};

template <typename W, int R>
__device__ __forceinline__ void conv_multiply(const conv_tiles<W, R>& tiles, int slot,
                                              W (&sum)[R][4]) {
  typedef conv_tiles<W, R> tile;
  const int row = conv_thread().row * tile::each, column = conv_thread().column * tile::piece;
#pragma unroll
  for (int k = 0; k < tile::depth; ++k) {
    W a[R], b[4];
#pragma unroll
    for (int q = 0; q < tile::quads; ++q) {
      const auto part = ml_load<tile::each>(&tiles.a[slot][k][q * 16 * tile::each + row]);
#pragma unroll
      for (int i = 0; i < tile::each; ++i) a[q * tile::each + i] = part.at[i];
    }
#pragma unroll
    for (int q = 0; q < 4 / tile::piece; ++q) {
      const auto part = ml_load<tile::piece>(&tiles.b[slot][k][q * 16 * tile::piece + column]);
#pragma unroll
      for (int j = 0; j < tile::piece; ++j) b[q * tile::piece + j] = part.at[j];
    }
#pragma unroll
    for (int i = 0; i < R; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) sum[i][j] = sum[i][j] + a[i] * b[j];
  }
}

// Hands the sums over to `write(row, column, sum)`, neighbouring threads having neighbouring columns.
template <typename W, int R, typename Write>
__device__ __forceinline__ void conv_deliver(conv_memory<W, R>& memory, const W (&sum)[R][4],
                                             Write write) {
  typedef conv_tiles<W, R> tile;
  const int row = conv_thread().row * tile::each, column = conv_thread().column * tile::piece;
#pragma unroll
  for (int q = 0; q < tile::quads; ++q) {
    __syncthreads();
#pragma unroll
    for (int i = 0; i < tile::each; ++i)
#pragma unroll
      for (int p = 0; p < 4; p += tile::piece) {
        ml_vec<W, tile::piece> part;
#pragma unroll
        for (int j = 0; j < tile::piece; ++j) part.at[j] = sum[q * tile::each + i][p + j];
        ml_store<tile::piece>(&memory.out[row + i][16 * p + column], part);
      }
    __syncthreads();
    const int to = threadIdx.x & 63;
    for (int r = threadIdx.x >> 6; r < 16 * tile::each; r += 4)
      write(q * 16 * tile::each + r, to, memory.out[r][to]);
  }
}

}  // namespace

// y = bias + weight * (what each position of the lattice sees), for one tile.  With `total`, a block
// sums `share` steps and leaves them in total[share][tile][row][position] for conv_finish.
template <typename T, typename W, int D, int R>
__global__ void __launch_bounds__(256, 2)
conv_gather(const T* __restrict__ x, const T* __restrict__ weight, const T* __restrict__ bias, T* y,
            W* total, conv_map map, int share) {
  typedef conv_tiles<W, R> tile;
  const int depth = tile::depth, columns_each = depth / 4, rows_each = tile::rows * depth / 256;
  __shared__ conv_memory<W, R> memory;
  __shared__ conv_pair<D> pairs[2][depth];

  const int row_tiles = (map.rows + tile::rows - 1) / tile::rows;
  const int rest = blockIdx.x / row_tiles, row0 = (blockIdx.x - rest * row_tiles) * tile::rows;
  const int column_tile = rest / map.groups, group = rest - column_tile * map.groups;
  const int length = map.channels * map.count.value;
  const int begin = blockIdx.y * share, end = min(begin + share, (length + depth - 1) / depth);

  // Of the weight a thread loads one k in 8 neighbours, of the source one position.
  const int k_in = (threadIdx.x & 7) + (depth > 8 ? ((threadIdx.x >> 5) & 1) * 8 : 0);
  const int row_in = (threadIdx.x >> (depth > 8 ? 6 : 5)) * 4 + ((threadIdx.x >> 3) & 3);
  const int row_step = 1024 / (depth * 4);
  const T* from = weight + (ml_index(group) * map.rows + row0 + row_in) * map.pitch + k_in;
  conv_view<T, D> view;
  view.look(x, map, group, column_tile * conv_columns + (threadIdx.x & 63));

  T a[rows_each], b[columns_each];
  const auto load = [&](int step) {
#pragma unroll
    for (int i = 0; i < rows_each; ++i) {
      const bool there = row0 + row_in + i * row_step < map.rows && step * depth + k_in < length;
      a[i] = there ? from[ml_index(i) * row_step * map.pitch + step * depth] : ml_cast<T>(0);
    }
#pragma unroll
    for (int i = 0; i < columns_each; ++i)
      b[i] = view.load(map, pairs[step & 1][(threadIdx.x >> 6) + 4 * i]);
  };

  W sum[R][4];
#pragma unroll
  for (int i = 0; i < R; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) sum[i][j] = W(0);

  const auto describe = [&](int step) {
    if (threadIdx.x < depth) {
      conv_pair<D> pair;
      pair.describe(map, step * depth + threadIdx.x);
      pair.keep(&pairs[step & 1][threadIdx.x]);
    }
  };
  describe(begin);
  __syncthreads();
  load(begin);
  for (int step = begin; step < end; ++step) {
    const int slot = step & 1;
#pragma unroll
    for (int i = 0; i < rows_each; ++i)
      memory.tiles.a[slot][k_in][row_in + i * row_step] = ml_cast<W>(a[i]);
#pragma unroll
    for (int i = 0; i < columns_each; ++i)
      memory.tiles.b[slot][(threadIdx.x >> 6) + 4 * i][threadIdx.x & 63] = ml_cast<W>(b[i]);
    describe(step + 1);
    __syncthreads();
    if (step + 1 < end) load(step + 1);
    conv_multiply(memory.tiles, slot, sum);
  }

  if (total) {
    W* to = total +
            (ml_index(blockIdx.y) * gridDim.x + blockIdx.x) * (tile::rows * conv_columns);
    conv_deliver(memory, sum, [&](int row, int column, W value) {
      to[row * conv_columns + column] = value;
    });
    return;
  }
  const ml_index to = conv_written<D>(map, group, column_tile * conv_columns + (threadIdx.x & 63));
  const ml_index plane = conv_plane<D>(map.target);
  conv_deliver(memory, sum, [&](int row, int, W value) {
    if (to < 0 || row0 + row >= map.rows) return;
    if (bias) value = value + ml_cast<W>(bias[group * map.rows + row0 + row]);
    y[to + (row0 + row) * plane] = ml_cast<T>(value);
  });
}

// The shares of a gather whose tiles are ROWS x COLUMNS, added up in their order; a block a tile.
template <typename T, typename W, int D, int ROWS, int COLUMNS>
__global__ void __launch_bounds__(256)
conv_finish(const W* __restrict__ total, const T* __restrict__ bias, T* y, conv_map map,
            int shares) {
  const int row_tiles = (map.rows + ROWS - 1) / ROWS;
  const int rest = blockIdx.x / row_tiles, row0 = (blockIdx.x - rest * row_tiles) * ROWS;
  const int column_tile = rest / map.groups, group = rest - column_tile * map.groups;
  const int column = threadIdx.x % COLUMNS;
  const ml_index to = conv_written<D>(map, group, column_tile * COLUMNS + column);
  const ml_index plane = conv_plane<D>(map.target);
  if (to < 0) return;
  for (int row = threadIdx.x / COLUMNS; row < ROWS && row0 + row < map.rows;
       row += 256 / COLUMNS) {
    const W* from = total + (ml_index(blockIdx.x) * ROWS + row) * COLUMNS + column;
    W sum = *from;
    for (int share = 1; share < shares; ++share)
      sum = sum + from[ml_index(share) * gridDim.x * (ROWS * COLUMNS)];
    if (bias) sum = sum + ml_cast<W>(bias[group * map.rows + row0 + row]);
    y[to + (row0 + row) * plane] = ml_cast<T>(sum);
  }
}

// One share of the positions: total[share][group][row][channel, tap], to be added up in order.
template <typename T, typename W, int D>
__global__ void __launch_bounds__(256, 2)
conv_weight(const T* __restrict__ x, const T* __restrict__ small, W* total, conv_map map,
            int share) {
  const int R = sizeof(W) == 16 ? 2 : 4;
  typedef conv_tiles<W, R> tile;
  const int depth = tile::depth, row_step = 1024 / (depth * 4);
  const int rows_each = tile::rows / row_step, columns_each = conv_columns / row_step;
  __shared__ conv_memory<W, R> memory;
  __shared__ conv_pair<D> pairs[conv_columns];

  const int length = map.channels * map.count.value;
  const int row_tiles = (map.rows + tile::rows - 1) / tile::rows;
  const int column_tiles = (length + conv_columns - 1) / conv_columns;
  int rest = blockIdx.x / row_tiles;
  const int row0 = (blockIdx.x - rest * row_tiles) * tile::rows;
  const int group = rest / column_tiles, column0 = (rest - group * column_tiles) * conv_columns;
  const int positions = conv_lattice_size<D>(map);
  const int last = map.images * positions;
  const int first = min(last, int(blockIdx.y) * share), stop = min(last, first + share);

  const int k_in = (threadIdx.x & 7) + (depth > 8 ? ((threadIdx.x >> 5) & 1) * 8 : 0);
  const int row_in = (threadIdx.x >> (depth > 8 ? 6 : 5)) * 4 + ((threadIdx.x >> 3) & 3);
  if (threadIdx.x < conv_columns) {
    conv_pair<D> pair;
    pair.describe(map, column0 + threadIdx.x);
    pair.keep(&pairs[threadIdx.x]);
  }
  __syncthreads();

  T a[rows_each], b[columns_each];
  const auto load = [&](int start) {
    const int p = start + k_in < stop ? start + k_in : last;
    conv_view<T, D> view;
    view.look(x, map, group, p);
    int u[D];
    const int image = conv_place<D>(map, p, u);
    const ml_index plane = (ml_index(image) * map.groups + group) * map.rows + row0 + row_in;
    const T* from = small + plane * positions + (p - image * positions);
#pragma unroll
    for (int i = 0; i < rows_each; ++i) {
      const bool there = p < last && row0 + row_in + i * row_step < map.rows;
      a[i] = there ? from[ml_index(i) * row_step * positions] : ml_cast<T>(0);
    }
#pragma unroll
    for (int i = 0; i < columns_each; ++i)
      b[i] = view.load(map, pairs[row_in + i * row_step]);
  };

  W sum[R][4];
#pragma unroll
  for (int i = 0; i < R; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) sum[i][j] = W(0);

  load(first);
  int slot = 0;
  for (int start = first; start < stop; start += depth, slot ^= 1) {
#pragma unroll
    for (int i = 0; i < rows_each; ++i)
      memory.tiles.a[slot][k_in][row_in + i * row_step] = ml_cast<W>(a[i]);
#pragma unroll
    for (int i = 0; i < columns_each; ++i)
      memory.tiles.b[slot][k_in][row_in + i * row_step] = ml_cast<W>(b[i]);
    __syncthreads();
    if (start + depth < stop) load(start + depth);
    conv_multiply(memory.tiles, slot, sum);
  }

  W* to = total + ((ml_index(blockIdx.y) * map.groups + group) * map.rows + row0) * length + column0;
  conv_deliver(memory, sum, [&](int row, int column, W value) {
    if (row0 + row < map.rows && column0 + column < length)
      to[ml_index(row) * length + column] = value;
  });
}

// The shares of conv_weight added up in their order and rounded once.
template <typename T, typename W>
__global__ void conv_combine(const W* __restrict__ total, T* weight, int shares, ml_index n) {
  const ml_index i = ml_index(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= n) return;
  W sum = total[i];
  for (int share = 1; share < shares; ++share) sum = sum + total[share * n + i];
  weight[i] = ml_cast<T>(sum);
}

// packed[group][row][channel, tap] from a weight (groups * channels, rows, *taps): of each axis the
// taps first, first + step, ...
struct conv_pack_map {
  int groups, rows, channels;
  int kernel[3], first[3], step[3], taps[3];
};

template <typename T>
__global__ void conv_pack(const T* __restrict__ weight, T* packed, conv_pack_map map) {
  const ml_index i = ml_index(blockIdx.x) * blockDim.x + threadIdx.x;
  const int length = map.channels * map.taps[0] * map.taps[1] * map.taps[2];
  const ml_index row = i / length;
  int k = int(i - row * length);
  if (row >= ml_index(map.groups) * map.rows) return;
  int tap[3];
#pragma unroll
  for (int d = 2; d >= 0; --d) {
    tap[d] = k % map.taps[d];
    k /= map.taps[d];
  }
  const ml_index group = row / map.rows, in_group = row - group * map.rows;
  ml_index from = (group * map.channels + k) * map.rows + in_group;
#pragma unroll
  for (int d = 0; d < 3; ++d)
    from = from * map.kernel[d] + map.first[d] + tap[d] * map.step[d];
  packed[i] = weight[from];
}
