// What the attention kernels share: how they are told where things lie, which scores count, which
// weights are dropped, and how tiles of halves come to shared memory.
//
// Dimensions before the last two ("leading": batch, heads) are given by sizes and strides, so that
// views, broadcast operands and grouped queries need no copy.  Those in which both keys and values
// are broadcast come last: the `shared` consecutive places that they span share keys and values.
#pragma once
#include "common.cuh"
#include "fault.cuh"
#include "mma.cuh"
#include "philox.cuh"
#include "warp.cuh"

enum ml_operand {
  ML_Q, ML_K, ML_V, ML_O, ML_DO, ML_DQ, ML_DK, ML_DV, ML_MASK, ML_PLACE, ML_LENGTH,
  ML_OPERANDS
};

struct ml_attention {
  ml_index lead[ML_OPERANDS][4];  // elements from one index to the next of a leading dimension;
                                  // PLACE: of the scores' leading dimensions, in C order
  ml_index row[ML_OPERANDS];      // from one query or key to the next
  ml_index mask_column;
  ml_index seed, offset;  // the words that dropout was given
  double scale;
  int size[4];            // leading dimensions
  int shared;             // how many consecutive places have the same keys and values
  int queries, keys;
  int depth, width;       // columns of q and k; of v and the output
  int causal;             // query i sees keys 0 to i
  int long_lengths;       // numbers of keys are of 64 bits, not 32
  unsigned dropped;       // weights whose 32 bits are at most this are dropped
  float kept;             // what the other weights are multiplied by
};

// What is special about a launch on tensor cores; each has its own instance.
enum ml_special {
  ML_MASKED = 1,         // there is a mask: bool (true takes part) or added
  ML_DROPOUT = 2,
  ML_SCALED = 4,         // scale is not positive: the greatest score is not that of the product
  ML_MASK_GRADIENT = 8   // the scores' gradients are written out
};

const float ml_log2e = 1.4426950408889634f;
const float ml_ln2 = 0.6931471805599453f;

__device__ __forceinline__ ml_index ml_lead(const ml_attention& a, int operand, int place) {
  ml_index offset = 0;
#pragma unroll
  for (int d = 3; d >= 0; --d) {
    const int next = place / a.size[d];
    offset += (place - next * a.size[d]) * a.lead[operand][d];
    place = next;
  }
  return offset;
}

// How many keys a place has: all, where there are no `lengths`.  One outside 0 to a.keys counts as
// the nearest of them, and is reported where there is a `fault`.
__device__ __forceinline__ int ml_keys(const ml_attention& a, const void* lengths, int place,
                                       ml_fault* fault = nullptr, int site = 0) {
  if (lengths == nullptr) return a.keys;
  const ml_index at = ml_lead(a, ML_LENGTH, place);
  const ml_index length = a.long_lengths ? static_cast<const ml_index*>(lengths)[at]
                                         : static_cast<const int*>(lengths)[at];
  if (length >= 0 && length <= a.keys) return int(length);
  if (fault != nullptr && threadIdx.x == 0) ml_report(fault, site, length, a.keys);
  return length < 0 ? 0 : a.keys;
}

// 2^x within 2 ulp; results below 2^-126 are 0, which adds nothing to a sum that has a 1 in it.
__device__ __forceinline__ float ml_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// c += a * b for two tiles of c side by side, of b as ldmatrix.x4 gives them.
template <typename T>
__device__ __forceinline__ void ml_mma_pair(float (*c)[4], const unsigned (&a)[4],
                                            const unsigned (&b)[4]) {
  const unsigned left[2] = {b[0], b[1]}, right[2] = {b[2], b[3]};
  ml_mma<T>(c[0], a, left);
  ml_mma<T>(c[1], a, right);
}

// Two tiles side by side as the first operand of a product.
template <typename T>
__device__ __forceinline__ void ml_pack_pair(unsigned (&a)[4], const float (*c)[4]) {
  a[0] = ml_pack<T>(c[0][0], c[0][1]);
  a[1] = ml_pack<T>(c[0][2], c[0][3]);
  a[2] = ml_pack<T>(c[1][0], c[1][1]);
  a[3] = ml_pack<T>(c[1][2], c[1][3]);
}

// threadIdx.x, read anew: what follows from it does not stay in registers until it is needed again.
__device__ __forceinline__ int ml_thread() {
  int thread;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
  return thread;
}

// --- tiles of halves in shared memory ------------------------------------------------------------

// Rows of D halves, in 16-byte chunks that ml_swizzle places.  96 is kept as 128.
template <int D>
struct ml_tile {
  static const int chunks = D / 8, pitch = D == 96 ? 16 : chunks;
  static __device__ __forceinline__ int at(int row, int chunk) {
    return ml_swizzled<pitch>(row, chunk);
  }
  static constexpr __device__ int bytes(int rows) { return rows * pitch * 16; }
  // From the address of (row, chunk), chunk 0 or 1, that of (row + 8 rows8, chunk + chunk2),
  // chunk2 even: one register serves a whole tile.
  static __device__ __forceinline__ unsigned from(unsigned address, int rows8, int chunk2) {
    return (address ^ ((chunk2 & 7) * 16)) + (chunk2 & ~7) * 16 + rows8 * 128 * pitch;
  }
};

// ROWS rows from `source` on, of which `rows` exist and have `columns` halves; zeros elsewhere.  By
// THREADS threads, VEC halves at a time: `columns`, `stride` and the address are multiples of it.
template <int ROWS, int D, int THREADS, int VEC, typename T>
__device__ __forceinline__ void ml_load_tile(unsigned char* tile, const T* source, ml_index stride,
                                             int rows, int columns) {
  // Each thread keeps to its column where that works out: fewer addresses, fewer registers.
  typedef ml_tile<D> Tile;
  const int chunks = Tile::chunks, used = THREADS / chunks * chunks, step = used / chunks;
  const int thread = ml_thread();
  if (used < THREADS && thread >= used) return;
  const int chunk = thread % chunks, first = thread / chunks;
  const T* from = source + first * stride + chunk * 8;
#pragma unroll 4
  for (int row = first; row < ROWS; row += step, from += step * stride) {
    unsigned char* target = tile + Tile::at(row, chunk);
#pragma unroll
    for (int part = 0; part < 8; part += VEC) {
      const bool valid = row < rows && chunk * 8 + part < columns;
      if constexpr (VEC > 1)
        ml_copy_async<2 * VEC>(ml_shared(target + 2 * part), valid ? from + part : source, valid);
      else
        reinterpret_cast<T*>(target)[part] = valid ? from[part] : T(0.0f);
    }
  }
}

// `rows` of ROWS rows of a tile, from row `row0` on, to `target`: COLS columns from 16-byte chunk
// `chunk0` on, as far as there are `columns` in all.  By THREADS threads, of which this is
// `thread`.
template <int ROWS, int D, int COLS, int THREADS, int VEC, typename T>
__device__ __forceinline__ void ml_store_tile(const unsigned char* tile, int row0, int chunk0,
                                              T* target, ml_index stride, int rows, int columns,
                                              int thread) {
  const int chunks = COLS / 8;
#pragma unroll
  for (int first = 0; first < ROWS * chunks; first += THREADS) {
    const int i = first + thread, row = i / chunks, chunk = chunk0 + i % chunks;
    if (ROWS * chunks % THREADS != 0 && i >= ROWS * chunks) break;
    if (row >= rows) continue;
    const T* from = reinterpret_cast<const T*>(tile + ml_tile<D>::at(row0 + row, chunk));
    T* to = target + row * stride + chunk * 8;
#pragma unroll
    for (int part = 0; part < 8; part += VEC)
      if (chunk * 8 + part < columns) ml_store_whole(to + part, ml_load<VEC>(from + part));
  }
}

// --- masks: bool (true takes part), or added to scores that are counted in units of 1 / `unit` ---

template <typename S>
__device__ __forceinline__ S ml_masked(S score, bool seen, S) {
  return seen ? score : -ml_inf(score);
}
template <typename S, typename M>
__device__ __forceinline__ S ml_masked(S score, M added, S unit) {
  return fma(ml_cast<S>(added), unit, score);
}
