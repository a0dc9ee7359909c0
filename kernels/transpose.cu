// Copies between arrays whose memory runs along different dimensions: both sides are read and
// written in whole sectors, through tiles in shared memory.
#include "common.cuh"

// The dimension along which x lies in memory, that along which y does, and the others.
struct transpose_map {
  ml_index fast_x, fast_y;  // sizes
  ml_index step_x;          // of x along y's dimension, in elements
  ml_index step_y;          // of y along x's dimension
  ml_index tiles_x, tiles_y;
  int others;
  ml_index size[6], other_x[6], other_y[6];
};

// A tile is 32 E elements square: a thread has vectors of E of them.
template <typename T, int E>
__global__ void __launch_bounds__(256)
transpose_copy(const T* __restrict__ x, T* y, transpose_map map) {
  const int SIDE = 32 * E;
  // Rows of an odd number of elements: neither rows nor columns meet a bank twice.
  __shared__ T tile[SIDE][SIDE + 1];
  ml_index rest = blockIdx.x;
  const ml_index across = rest % map.tiles_x;
  rest /= map.tiles_x;
  const ml_index down = rest % map.tiles_y;
  rest /= map.tiles_y;
  for (int d = map.others - 1; d >= 0; --d) {
    const ml_index next = rest / map.size[d], place = rest - next * map.size[d];
    x += place * map.other_x[d];
    y += place * map.other_y[d];
    rest = next;
  }
  const ml_index first_x = across * SIDE, first_y = down * SIDE;
  x += first_x + first_y * map.step_x;
  y += first_y + first_x * map.step_y;
  const int wide = int(min(ml_index(SIDE), map.fast_x - first_x));
  const int high = int(min(ml_index(SIDE), map.fast_y - first_y));
  const int lane = (threadIdx.x & 31) * E, warp = threadIdx.x >> 5;

  ml_vec<T, E> read[SIDE / 8];
#pragma unroll
  for (int i = 0; i < SIDE / 8; ++i) {
    const int row = warp + 8 * i;
    if (row < high && lane < wide) read[i] = ml_load<E>(x + row * map.step_x + lane);
  }
#pragma unroll
  for (int i = 0; i < SIDE / 8; ++i) {
    const int row = warp + 8 * i;
    if (row < high && lane < wide)
#pragma unroll
      for (int e = 0; e < E; ++e) tile[row][lane + e] = read[i].at[e];
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < SIDE / 8; ++i) {
    const int row = warp + 8 * i;
    if (row < wide && lane < high) {
      ml_vec<T, E> out;
#pragma unroll
      for (int e = 0; e < E; ++e) out.at[e] = tile[lane + e][row];
      ml_store_whole<E>(y + row * map.step_y + lane, out);
    }
  }
}
