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
