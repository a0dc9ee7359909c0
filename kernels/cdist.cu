// Distances of all pairs of points: the p-norm of their difference, for any p.  T is stored, S computed
// in.  A block does 16 x 16 pairs, from tiles of 16 coordinates.
#include "common.cuh"

enum { ML_COUNT, ML_SUM, ML_SQUARES, ML_LARGEST, ML_POWER };

template <typename T, typename S, int NORM>
__global__ void __launch_bounds__(256)
cdist(const T* __restrict__ x1, const T* __restrict__ x2, T* out, int n, int m, int d, double p) {
  __shared__ S left[16][17], right[16][17];
  const int tiles_n = (n + 15) / 16, tiles_m = (m + 15) / 16;
  const int batch = blockIdx.x / (tiles_n * tiles_m), tile = blockIdx.x % (tiles_n * tiles_m);
  const int i0 = tile / tiles_m * 16, j0 = tile % tiles_m * 16;
  const int tx = threadIdx.x & 15, ty = threadIdx.x >> 4;
  x1 += ml_index(batch) * n * d;
  x2 += ml_index(batch) * m * d;
  S total = S(0);
  for (int k0 = 0; k0 < d; k0 += 16) {
    const bool within = k0 + tx < d;
    left[ty][tx] = within && i0 + ty < n ? ml_cast<S>(x1[ml_index(i0 + ty) * d + k0 + tx]) : S(0);
    right[ty][tx] = within && j0 + ty < m ? ml_cast<S>(x2[ml_index(j0 + ty) * d + k0 + tx]) : S(0);
    __syncthreads();
#pragma unroll
    for (int k = 0; k < 16; ++k) {  // coordinates past the last differ by 0, which adds nothing
      const S size = fabs(left[ty][k] - right[tx][k]);
      if (NORM == ML_COUNT) total += size != S(0) ? S(1) : S(0);
      if (NORM == ML_SUM) total += size;
      if (NORM == ML_SQUARES) total += size * size;
      if (NORM == ML_LARGEST) total = ml_max(total, size);
      if (NORM == ML_POWER) total += pow(size, S(p));
    }
    __syncthreads();
  }
  if (NORM == ML_SQUARES) total = sqrt(total);
  if (NORM == ML_POWER) total = pow(total, S(1) / S(p));
  if (i0 + ty < n && j0 + tx < m)
    out[(ml_index(batch) * n + i0 + ty) * m + j0 + tx] = ml_cast<T>(total);
}
