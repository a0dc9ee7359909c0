// What kernels/conv_mma.cu works on: matrices of halves turned over, so that their rows (channels)
// lie last, padded with zeros; and the sums of its shares turned back into a weight.
#include "mma.cuh"

// x[matrix][row][column], `rows` by `columns`, becomes y[matrix][column][row] with `padded` rows;
// of each `inner` neighbouring matrices the columns lie side by side in y.
struct conv_layout {
  int rows, columns, padded, inner;
  int row_tiles, column_tiles;

  // Where a matrix begins in y; column c follows c * inner * padded further.
  __device__ __forceinline__ ml_index laid(int matrix) const {
    const int outer = matrix / inner;
    return (ml_index(outer) * inner * columns + (matrix - outer * inner)) * padded;
  }
};

namespace {

typedef unsigned short conv_bits;

}  // namespace

// Tiles of ROWS x 4096 / ROWS, where columns are whole vectors: pairs of rows are woven in
// registers.
template <int ROWS>
__global__ void __launch_bounds__(256)
conv_lay_wide(const conv_bits* __restrict__ x, conv_bits* y, conv_layout map) {
  const int WIDE = 4096 / ROWS, CHUNKS = ROWS / 8;  // of a column
  // By column, of chunks of 8 rows.  Columns 8 apart have their chunks in other places of 128
  // bytes, so that no two lanes meet a bank.
  __shared__ alignas(16) unsigned char tile[8192];
  const auto place = [&](int column, int chunk) {
    const int at = column * CHUNKS + chunk;
    return tile + (at ^ (column / 8 % 8)) * 16;
  };
  const int row_tile = blockIdx.x % map.row_tiles, rest = blockIdx.x / map.row_tiles;
  const int column_tile = rest % map.column_tiles, matrix = rest / map.column_tiles;
  const int row0 = row_tile * ROWS, column0 = column_tile * WIDE;

  // A warp has 64 columns of 8 rows.
  const int warp = threadIdx.x / 32, chunk = warp % CHUNKS, pair = threadIdx.x / 8 % 4;
  const int row = chunk * 8 + pair * 2, column = warp / CHUNKS * 64 + threadIdx.x % 8 * 8;
  const conv_bits* from = x + (ml_index(matrix) * map.rows + row0 + row) * map.columns + column0 +
                          column;
  ml_vec<unsigned, 4> upper = {0, 0, 0, 0}, lower = {0, 0, 0, 0};
  if (column0 + column < map.columns) {
    if (row0 + row < map.rows) upper = ml_load<4>(reinterpret_cast<const unsigned*>(from));
    if (row0 + row + 1 < map.rows)
      lower = ml_load<4>(reinterpret_cast<const unsigned*>(from + map.columns));
  }
#pragma unroll
  for (int i = 0; i < 8; ++i)
    *reinterpret_cast<unsigned*>(place(column + i, chunk) + pair * 4) =
        __byte_perm(upper.at[i / 2], lower.at[i / 2], i % 2 ? 0x7632 : 0x5410);
  __syncthreads();
  conv_bits* out = y + map.laid(matrix) + row0;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int to = (threadIdx.x + 256 * i) / CHUNKS, part = (threadIdx.x + 256 * i) % CHUNKS;
    if (column0 + to < map.columns && row0 + part * 8 < map.padded)
      ml_store_whole<8>(out + (column0 + to) * ml_index(map.inner * map.padded) + part * 8,
                        ml_load<8>(reinterpret_cast<conv_bits*>(place(to, part))));
  }
}

// Tiles of ROWS x `wide` elements, in any place, read E at a time: an even number of them.  Where
// they have all columns a tile is a run of memory.
template <int ROWS, int E>
__global__ void __launch_bounds__(256)
conv_lay_runs(const conv_bits* __restrict__ x, conv_bits* y, conv_layout map, int wide) {
  extern __shared__ __align__(16) conv_bits tile[];
  const int row_tile = blockIdx.x % map.row_tiles, rest = blockIdx.x / map.row_tiles;
  const int column_tile = rest % map.column_tiles, matrix = rest / map.column_tiles;
  const int row0 = row_tile * ROWS, column0 = column_tile * wide;
  const int rows = min(ROWS, map.rows - row0), columns = min(wide, map.columns - column0);
  // So long that neither 8 rows nor neighbouring columns meet a bank twice.
  const int step = 64 / ROWS, pitch = (wide + step - 1) / (2 * step) * (2 * step) + step;
  const conv_bits* from = x + (ml_index(matrix) * map.rows + row0) * map.columns + column0;
  for (int i = threadIdx.x * E; i < rows * columns; i += 256 * E) {
    int row = i / columns, column = i - row * columns;
    const auto read = ml_load<E>(from + ml_index(row) * map.columns + column);
#pragma unroll
    for (int e = 0; e < E; ++e) {
      tile[row * pitch + column] = read.at[e];
      if (++column == columns) column = 0, ++row;
    }
  }
  __syncthreads();
  const int chunk = threadIdx.x % (ROWS / 8);
  if (row0 + chunk * 8 >= map.padded) return;
  conv_bits* out = y + map.laid(matrix) + row0 + chunk * 8;
  for (int column = threadIdx.x / (ROWS / 8); column < columns; column += 256 / (ROWS / 8)) {
    ml_vec<conv_bits, 8> made;
#pragma unroll
    for (int e = 0; e < 8; ++e)
      made.at[e] = chunk * 8 + e < rows ? tile[(chunk * 8 + e) * pitch + column] : conv_bits(0);
    ml_store_whole<8>(out + (column0 + column) * ml_index(map.inner * map.padded), made);
  }
}

// At most 4 rows, padded to 4; a thread has E columns.
template <int E>
__global__ void conv_lay_few(const conv_bits* __restrict__ x, conv_bits* y, conv_layout map) {
  const int matrix = blockIdx.x / map.column_tiles;
  const int column = ((blockIdx.x - matrix * map.column_tiles) * blockDim.x + threadIdx.x) * E;
  if (column >= map.columns) return;
  const conv_bits* from = x + ml_index(matrix) * map.rows * map.columns + column;
  ml_vec<conv_bits, E> read[4];
#pragma unroll
  for (int row = 0; row < 4; ++row) {
    read[row] = {};
    if (row < map.rows) read[row] = ml_load<E>(from + row * ml_index(map.columns));
  }
  conv_bits* to = y + map.laid(matrix) + column * ml_index(map.inner * 4);
  ml_vec<conv_bits, 4 * E> made;
#pragma unroll
  for (int i = 0; i < 4 * E; ++i) made.at[i] = read[i % 4].at[i / 4];
  if (E == 1 || map.inner == 1) {
    ml_store_whole<4 * E>(to, made);
  } else {
#pragma unroll
    for (int e = 0; e < E; ++e)
      ml_store_whole<4>(to + e * ml_index(map.inner * 4),
                        ml_vec<conv_bits, 4>{made.at[4 * e], made.at[4 * e + 1],
                                             made.at[4 * e + 2], made.at[4 * e + 3]});
  }
}

// weight[row][channel][tap], rounded once, from total[share][row][tap, channel], which has `padded`
// channels, rows `pitch` apart: the shares are added in their order.  A block has WIDE channels and 2048 / WIDE taps of
// one row.
template <typename T, int WIDE>
__global__ void __launch_bounds__(256)
conv_combine_last(const float* __restrict__ total, T* weight, int shares, ml_index rows,
                  int channels, int taps, int padded, int pitch) {
  const int HIGH = 2048 / WIDE;
  __shared__ float tile[WIDE * (HIGH | 1)];
  const int channel_tiles = (channels + WIDE - 1) / WIDE, tap_tiles = (taps + HIGH - 1) / HIGH;
  const int rest = blockIdx.x / tap_tiles, tap0 = (blockIdx.x - rest * tap_tiles) * HIGH;
  const int row = rest / channel_tiles, channel0 = (rest - row * channel_tiles) * WIDE;
  const int here = min(HIGH, taps - tap0), wide = min(WIDE, channels - channel0);
  // So that neither neighbouring channels nor neighbouring taps meet a bank twice: rows of an odd
  // number of taps, or, of a power of two, each turned further where it begins at the same bank
  // again.
  const bool power = (here & (here - 1)) == 0;
  const auto place = [&](int channel, int tap) {
    return power ? channel * here + ((tap + channel * min(here, 32) / 32) & (here - 1))
                 : channel * (here | 1) + tap;
  };
  const ml_index from = ml_index(row) * pitch + ml_index(tap0) * padded + channel0;
  const ml_index share_size = rows * pitch;
#pragma unroll 1  // registers
  for (int i = threadIdx.x; i < here * WIDE; i += 256) {
    const int tap = i / WIDE, channel = i % WIDE;
    if (channel >= wide) continue;
    const float* at = total + from + ml_index(tap) * padded + channel;
    float sum = *at;
    for (int share = 1; share < shares; ++share) sum += at[share * share_size];
    tile[place(channel, tap)] = sum;
  }
  __syncthreads();
  T* to = weight + (ml_index(row) * channels + channel0) * taps + tap0;
  for (int i = threadIdx.x; i < wide * here; i += 256) {
    const int channel = i / here, tap = i - channel * here;
    to[channel * taps + tap] = ml_cast<T>(tile[place(channel, tap)]);
  }
}
