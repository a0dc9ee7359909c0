// The tiles that convolutions on tensor cores are made of: BM x 128 results of a block of four
// warps, 32 terms of the sums at a time, which are copied two steps ahead.
#pragma once
#include "conv.cuh"
#include "gemm_tile.cuh"

const int conv_wide = 128;     // columns of a tile
const int conv_depth = 32;     // terms of a step
const int conv_stages = 3;     // of which one is multiplied while the others are filled
const int conv_threads = 128;

// Blocks that share a multiprocessor's registers: fewer where a thread has more rows or coordinates.
template <int BM, int D, int EACH>
constexpr int conv_blocks = BM > 64 ? 2 : (BM > 32 ? 3 : 4) - (D > 2 || EACH < 8) -
                                              (BM <= 32 && D > 2 && EACH < 8);

// Keeps a lane's place in a register, where the compiler would compute it anew for each step.
template <typename V>
__device__ __forceinline__ V conv_kept(V place) {
  asm volatile("" : "+r"(place));
  return place;
}

// A tile of sums and how operands are read for it.  An operand is DEEP where its terms are
// neighbours in shared memory; see gemm_tile.cuh.
template <typename T, int BM, bool A_DEEP, bool B_DEEP>
struct conv_product {
  static const int WM = BM > 32 ? BM / 2 : 32, WN = BM > 32 ? 64 : 32;
  static const int MT = WM / 16, NT = WN / 8, STEPS = conv_depth / 16;
  using TileA = ml_tile<T, BM, conv_depth, A_DEEP>;
  using TileB = ml_tile<T, conv_wide, conv_depth, B_DEEP>;
  static const int SLOT = TileA::BYTES + TileB::BYTES;
  static const int BYTES = conv_stages * SLOT;  // of shared memory

  float sums[MT][NT][4];
  int row, column;  // of this lane's first sum in the tile

  // Adds up `turns` steps.  `describe(turn)` may leave in shared memory what `fetch(turn, a, b)`,
  // which begins to copy a step to these addresses, reads there after a barrier: of a turn and the
  // next.
  template <typename Describe, typename Fetch>
  __device__ __forceinline__ void run(unsigned pool, int turns, const Describe& describe,
                                      const Fetch& fetch) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int warp_m = warp / (conv_wide / WN) * WM, warp_n = warp % (conv_wide / WN) * WN;
    row = warp_m + (lane >> 2);
    column = warp_n + 2 * (lane & 3);
    ml_fragments<T, BM, conv_depth, A_DEEP, true, MT> read_a(warp_m, lane);
    ml_fragments<T, conv_wide, conv_depth, B_DEEP, false, NT / 2> read_b(warp_n, lane);
    if constexpr (A_DEEP)
      for (int& at : read_a.at) at = conv_kept(at);
    if constexpr (B_DEEP)
      for (int& at : read_b.at) at = conv_kept(at);
#pragma unroll
    for (int i = 0; i < MT; ++i)
#pragma unroll
      for (int j = 0; j < NT; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) sums[i][j][e] = 0;

    describe(0);
    describe(1);
    __syncthreads();
#pragma unroll
    for (int stage = 0; stage < conv_stages - 1; ++stage) {
      if (stage < turns) fetch(stage, pool + stage * SLOT, pool + stage * SLOT + TileA::BYTES);
      ml_copy_commit();
    }
    __syncthreads();
    describe(2);
    ml_copy_wait<conv_stages - 2>();
    __syncthreads();

    unsigned a[2][MT][4], b[2][NT / 2][4];
    if (turns > 0) {
      read_a.load(a[0], pool, 0);
      read_b.load(b[0], pool + TileA::BYTES, 0);
    }
    unsigned now = pool, next = pool + (conv_stages - 1) * SLOT;
    for (int turn = 0; turn < turns; ++turn) {
#pragma unroll
      for (int step = 0; step < STEPS; ++step) {
        if (step == 0) {
          if (turn + conv_stages - 1 < turns)
            fetch(turn + conv_stages - 1, next, next + TileA::BYTES);
          ml_copy_commit();
          describe(turn + conv_stages);
        }
        if (step == STEPS - 1) {
          next = now;
          now = now == pool + (conv_stages - 1) * SLOT ? pool : now + SLOT;
          ml_copy_wait<conv_stages - 2>();
          __syncthreads();
        }
        if (step < STEPS - 1 || turn + 1 < turns) {
          read_a.load(a[(step + 1) & 1], now, (step + 1) % STEPS);
          read_b.load(b[(step + 1) & 1], now + TileA::BYTES, (step + 1) % STEPS);
        }
#pragma unroll
        for (int i = 0; i < MT; ++i)
#pragma unroll
          for (int j = 0; j < NT; ++j) {
            const int c = i & 1 ? NT - 1 - j : j;  // back and forth, so that one operand is at hand
            ml_tile_mma<T>(sums[i][c], a[step & 1][i], b[step & 1][c / 2][c % 2 * 2],
                           b[step & 1][c / 2][c % 2 * 2 + 1]);
          }
      }
    }
    ml_copy_wait<0>();
    __syncthreads();
  }

  // The sums as they are, `rows` x `columns` (an even number) of them, to rows that lie `pitch`
  // apart.
  __device__ __forceinline__ void deliver(float* to, ml_index pitch, int rows, int columns) const {
    to += row * pitch + column;
#pragma unroll
    for (int i = 0; i < 2 * MT; ++i) {
      if (row + 8 * i < rows)
#pragma unroll
        for (int j = 0; j < NT; ++j)
          if (column + 8 * j < columns)
            ml_store_whole<2>(to + 8 * j, ml_vec<float, 2>{sums[i / 2][j][i % 2 * 2],
                                                           sums[i / 2][j][i % 2 * 2 + 1]});
      to += 8 * pitch;
      asm volatile("" : "+l"(to));  // one pointer, not one for each i
    }
  }

  // As halves, two columns in a register, each with its row's `bias`.
  typedef unsigned packed[2 * MT][NT];
  __device__ __forceinline__ void pack(packed& halves, const float* bias) const {
#pragma unroll
    for (int i = 0; i < 2 * MT; ++i) {
      const float more = bias[row + 8 * i];
#pragma unroll
      for (int j = 0; j < NT; ++j)
        halves[i][j] = ml_pack<T>(sums[i / 2][j][i % 2 * 2] + more,
                                  sums[i / 2][j][i % 2 * 2 + 1] + more);
    }
  }

  // To a tile of 256-byte rows, where the operands were.
  __device__ __forceinline__ void stage(unsigned char* out, const packed& halves) const {
#pragma unroll
    for (int i = 0; i < 2 * MT; ++i)
#pragma unroll
      for (int j = 0; j < NT; ++j)
        *reinterpret_cast<unsigned*>(out + ml_swizzled<16>(row + 8 * i, column / 8 + j) +
                                     4 * (threadIdx.x & 3)) = halves[i][j];
  }
};

// Where an element of such a tile is.
template <typename T>
__device__ __forceinline__ T* conv_staged(unsigned char* tile, int row, int column) {
  return reinterpret_cast<T*>(tile + ml_swizzled<16>(row, column >> 3)) + (column & 7);
}
