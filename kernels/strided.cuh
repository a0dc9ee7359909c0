// Operands with strides of their own over D dimensions, in pieces of a few elements along the
// innermost.
#pragma once
#include "common.cuh"

// Passed by value.  `size` is in pieces.  A piece's number is divided by sizes below 2^31 without a
// division: (umulhi(i, magic) + i) >> shift (Granlund and Montgomery 1994).
template <int D, int K>
struct ml_pieces {
  ml_index size[D];
  unsigned magic[D];
  unsigned shift[D];
  ml_index stride[K][D];  // in elements, from piece to piece
  ml_index inner[K];      // and from element to element within one
};

// Where piece i begins in each operand.
template <bool wide, int D, int K>
__device__ __forceinline__ void ml_locate(const ml_pieces<D, K>& layout, ml_index i,
                                          ml_index (&at)[K]) {
#pragma unroll
  for (int k = 0; k < K; ++k) at[k] = 0;
#pragma unroll
  for (int d = D - 1; d >= 0; --d) {
    ml_index next = 0;
    if (d > 0) {
      if (wide) {
        next = i / layout.size[d];
      } else {
        const unsigned small = unsigned(i);
        next = ml_index((__umulhi(small, layout.magic[d]) + small) >> layout.shift[d]);
      }
    }
    const ml_index place = i - next * layout.size[d];
#pragma unroll
    for (int k = 0; k < K; ++k) at[k] += place * layout.stride[k][d];
    i = next;
  }
}
