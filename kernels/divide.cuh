// Division of numbers below 2^31 by one that the host knows: a multiplication and a shift.
#pragma once
#include "common.cuh"

struct ml_divisor {
  int value;
  unsigned factor;
  int shift;
};

__device__ __forceinline__ int ml_divide(int n, const ml_divisor& by) {
  return int((__umulhi(unsigned(n), by.factor) + unsigned(n)) >> by.shift);
}

// The places of number i along the last D of three axes up to axis LAST (2: of an element, 1: of a
// line, a whole last axis); returns what is left of i, its plane.
template <int D, int LAST>
__device__ __forceinline__ int ml_places(const ml_divisor (&sizes)[3], int i, int (&at)[3]) {
#pragma unroll
  for (int d = LAST; d >= 3 - D; --d) {
    const int next = ml_divide(i, sizes[d]);
    at[d] = i - next * sizes[d].value;
    i = next;
  }
  return i;
}
