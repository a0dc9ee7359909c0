// Evenly spaced numbers: arange, and linspace, which goes from both ends to the middle.
#include "common.cuh"

template <typename T>
__global__ void __launch_bounds__(256) arange_integers(T* y, ml_index start, ml_index step,
                                                       ml_index n) {
  const ml_index i = ml_index(blockIdx.x) * 256 + threadIdx.x;
  if (i < n) y[i] = ml_cast<T>(start + step * i);
}

// The product and the sum rounded one by one, as on the CPU.
template <typename T>
__global__ void __launch_bounds__(256) arange_floats(T* y, double start, double step, ml_index n) {
  const ml_index i = ml_index(blockIdx.x) * 256 + threadIdx.x;
  if (i < n) y[i] = ml_cast<T>(__dadd_rn(start, __dmul_rn(step, double(i))));
}

template <typename T>
__global__ void __launch_bounds__(256) linspace(T* y, double start, double end, double step,
                                                ml_index n) {
  const ml_index i = ml_index(blockIdx.x) * 256 + threadIdx.x;
  if (i >= n) return;
  const double from_start = __dadd_rn(start, __dmul_rn(step, double(i)));
  const double from_end = __dadd_rn(end, -__dmul_rn(step, double(n - 1 - i)));
  y[i] = ml_cast<T>(2 * i < n ? from_start : from_end);
}
