// Flat indices over a few dimensions, turned into offsets without a division.
#pragma once
#include "common.cuh"

// Sizes and strides (of elements) of up to four dimensions, the first the outermost.  Division by a
// size is a multiplication: the host gives ceil(2^(63 + shift) / size) with size <= 2^shift, and
// the quotient is exact below 2^63.  The first dimension is never divided by.
struct ml_dims {
  ml_index size[4];
  ml_index stride[4];
  unsigned long long multiplier[4];
  int shift[4];
  int count;
};

__device__ __forceinline__ ml_index ml_offset(const ml_dims& dims, ml_index i) {
  ml_index offset = 0;
#pragma unroll
  for (int d = 3; d >= 1; --d) {
    if (d < dims.count) {
      const ml_index next =
          ml_index(__umul64hi((unsigned long long)i, dims.multiplier[d]) >> (dims.shift[d] - 1));
      offset += (i - next * dims.size[d]) * dims.stride[d];
      i = next;
    }
  }
  return offset + i * dims.stride[0];
}
